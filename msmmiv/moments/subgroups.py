"""Honest subgroups: found where the treatment moves a mediator unequally, measured on people who had no part in it.

Subgroups take the place of sites. Whoever picks them by estimated compliance and then measures compliance on the same
people picks errors too: the variance of compliance comes out too large, and with it the wrong weights and slopes.
So one half of the people finds the subgroups and the other half, and it alone, is used to estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import DataError, DesignError, TooFewSitesError, check_choice, count, listing, whole_number
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Missing, Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.subgroup_people import NAME, Mask, People

__all__ = ["NAME", "CrossFit", "Half", "Subgroups", "crossfit", "find_subgroups"]

Half: TypeAlias = Literal["estimation", "discovery"]


@dataclass(frozen=True, eq=False, repr=False)
class Subgroups:
    """Subgroups in the place of sites, and the half of the people on whom they may be measured.

    Attributes
    ----------
    frame : DataFrame
        The estimation half, with the new column ``subgroup``.
    design : Design
        With the subgroup as site. The former sites are blocks, so that people are still compared only with those
        among whom they were randomised.
    table : DataFrame
        One row per subgroup: its ``stratum`` in words, people and comparable people per arm in the estimation half,
        and in ``predicted`` what the discovery half says of its compliance, which must not be used to estimate.
    columns : tuple of str
        What subgroups were made of.
    mediator : str
        Whose response decided.
    discovery : Index
        People of the discovery half.
    share : float
        Of people in the discovery half.
    seed : int
    """

    frame: pd.DataFrame
    design: Design
    table: pd.DataFrame
    columns: tuple[str, ...]
    mediator: str
    discovery: pd.Index[int]
    share: float
    seed: int

    @cached_property
    def moments(self) -> Moments:
        """Moments of the estimation half."""
        return Moments.from_data(self.frame, self.design).usable()

    @cached_property
    def effects(self) -> SiteEffects:
        """Effects by subgroup (and arm) in the estimation half, with a covariance that heeds clusters."""
        return SiteEffects.from_moments(
            self.moments, cov_type="pooled" if self.moments.clusters else "unbiased"
        )

    def effects_of(self, half: Half) -> SiteEffects:
        """Effects by subgroup in one half; those of the discovery half are refused.

        Raises
        ------
        DesignError
            For the discovery half.
        """
        check_choice(half, Half, "half")
        if half == "discovery":
            raise DesignError(
                "The discovery half chose these subgroups because compliance looked different there: its effects "
                "carry the errors that made it choose (selection on the estimated compliance), so that they vary too "
                "much and go with their own errors. Use .effects, of the other half, or crossfit() to give both "
                "halves a turn."
            )
        return self.effects

    def assign(self, frame: pd.DataFrame) -> pd.Series[str]:
        """Subgroup of each row; missing for people of the discovery half, who have none to be measured in.

        Parameters
        ----------
        frame : DataFrame
            Rows of the data that the subgroups were found in, with their index.

        Raises
        ------
        DataError
            Rows that were not in the data, or whose columns are no longer what they were.
        """
        inside, found = frame.index.isin(self.frame.index), frame.index.isin(self.discovery)
        if not (inside | found).all():
            strangers = int((~(inside | found)).sum())
            raise DataError(
                f"{count(strangers, 'row')} of the frame {'was' if strangers == 1 else 'were'} not in the data that "
                "the subgroups were found in (by index). Keep the index of the data."
            )
        known = self.frame.loc[frame.index[inside], list(self.columns)]
        if not known.equals(frame.loc[inside, list(self.columns)]):
            raise DataError(
                f"Rows with the same index have other values of {listing(self.columns, quote=True)} than when the "
                "subgroups were found. Keep the index of the data."
            )
        return self.frame[self.design.site].reindex(frame.index)

    def __repr__(self) -> str:
        groups = count(len(self.table), "subgroup")
        people = f"{count(len(self.frame), 'row')} to estimate, {len(self.discovery):,} to discover"
        return f"Subgroups: {groups} by the effect on {self.mediator!r} ({people})"


@dataclass(frozen=True, eq=False)
class CrossFit:
    """An estimate over several random splits, both halves having a turn in each.

    Attributes
    ----------
    estimate, std_error : float
        Medians over splits; NaN with a ``status``.
    estimates, std_errors : (splits, 2) arrays
        Per split and turn; NaN where there was none.
    failures : tuple of str
        Why turns gave nothing, one text for each.
    seed : int
    status : str or None
        Why there is no estimate.
    """

    estimate: float
    std_error: float
    estimates: Array
    std_errors: Array
    failures: tuple[str, ...]
    seed: int
    status: str | None = None


def find_subgroups(
    data: pd.DataFrame,
    design: Design,
    *,
    by: str | Sequence[str],
    mediator: str | None = None,
    max_leaves: int = 8,
    min_arm: int = 50,
    share: float = 0.5,
    seed: int = 0,
    missing: Missing = "error",
) -> Subgroups:
    """Find subgroups in which the treatment moves a mediator differently far, and set people aside to measure them.

    Use it to decompose effects in a trial with few sites: subgroups whose compliance differs tell the effect of the
    mediator from a direct effect. The tree never sees the outcome. Subgroups that are known beforehand need no
    halves: name their column as the site, or see `strata_as_sites`.

    Parameters
    ----------
    data : pandas.DataFrame
        With an index that tells rows apart.
    design : Design
        For a trial without sites, give ``site="subgroup"``, the column to be made. With several arms the tree is grown
        for any arm against the control, and effects are by subgroup and arm.
    by : str or sequence of str
        Columns known before randomisation; nothing in the data can show that they were.
    mediator : str, optional
        Whose response subgroups should differ in; needed where there are several mediators.
    max_leaves : int
        Subgroups at most.
    min_arm : int
        People at least in each arm of each subgroup of the estimation half who have another arm beside them.
    share : float
        Of people in the discovery half, inside every site (block) and arm. Clusters are never split.
    seed : int
        Of the halves; kept in the result. The subgroups are those of one split, see `crossfit`.
    missing : {"error", "drop"}
        Rows that lack a column of ``by``, the site, the block or the arm.

    Returns
    -------
    Subgroups

    Raises
    ------
    DesignError
        A consequence of the treatment in ``by``, or a mediator that is not named.
    MissingExtraError
        econml is not installed.
    ColumnError, DataError, MissingDataError
        Columns that cannot be split, an index with repeated labels, rows without a place.
    TooFewSitesError
        No split leaves ``min_arm`` people in every arm of both sides.

    Notes
    -----
    With M* and T* the mediator and the treatment in deviations from the means of a site (block), the tree maximises the
    difference between the slopes of M* on T* of its sides (Athey, Tibshirani & Wager 2019); leaves that are too small
    in the estimation half are joined with their neighbour, by counts alone, and then those that differ least in
    the discovery half. Standard errors are for given subgroups.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> from msmmiv.moments.subgroups import find_subgroups
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"t": rng.integers(0, 2, 4000), "age": rng.integers(18, 80, 4000)})
    >>> df["m"] = df.t * (df.age <= 40) + rng.normal(size=4000)
    >>> df["y"] = 0.3 * df.t + 0.5 * df.m + rng.normal(size=4000)
    >>> roles = mm.Design(outcome="y", treatment="t", mediators="m", site="subgroup")
    >>> groups = find_subgroups(df, roles, by="age", max_leaves=2)  # doctest: +SKIP
    >>> groups.table["stratum"].tolist()  # doctest: +SKIP
    ['age <= 40', 'age > 40']
    """
    people = People.of(data, design, by, mediator, missing)
    whole_number(max_leaves, "max_leaves", least=2)
    whole_number(min_arm, "min_arm", least=1)
    whole_number(seed, "seed", least=0)
    if not 0.0 < share < 1.0:
        raise DesignError(f"share={share!r} must lie between 0 and 1: both halves need people.")
    half = people.split(share, seed)
    return _subgroups(people, half, max_leaves=max_leaves, min_arm=min_arm, share=share, seed=seed)


def crossfit(
    data: pd.DataFrame,
    design: Design,
    *,
    by: str | Sequence[str],
    estimate: Callable[[SiteEffects], tuple[float, float]],
    splits: int = 20,
    mediator: str | None = None,
    max_leaves: int = 8,
    min_arm: int = 50,
    seed: int = 0,
    missing: Missing = "error",
) -> CrossFit:
    """Estimate on honest subgroups of many random splits, with both halves of each in turn.

    Use it so that no result hangs on one split and nobody is only used to discover.

    Parameters
    ----------
    data, design, by
        As in `find_subgroups`; halves are equal.
    estimate : callable
        Takes the effects by subgroup, gives an estimate and its standard error (NaN where there is none).
    splits : int
    mediator, max_leaves, min_arm, seed, missing
        As in `find_subgroups`.

    Returns
    -------
    CrossFit
        With a status where more than half of the splits gave nothing.

    Notes
    -----
    A split's estimate is the mean of its two turns; its standard error sqrt(se_1^2 + se_2^2) / 2 takes them as
    independent, since they measure other people. Over splits (Chernozhukov et al. 2018) the estimate is the median,
    and the standard error the root of the median of se^2 + (estimate - median)^2. The turns do share whatever makes
    direct effects of subgroups differ, and no study of the coverage of such intervals is part of this package. With few
    subgroups normal quantiles are too small: take those of t with as many degrees of freedom as subgroups less
    coefficients.
    """
    whole_number(splits, "splits", least=1)
    whole_number(max_leaves, "max_leaves", least=2)
    whole_number(min_arm, "min_arm", least=1)
    whole_number(seed, "seed", least=0)
    people = People.of(data, design, by, mediator, missing)
    seeds = np.random.default_rng(seed).integers(2**31, size=splits)
    found, failures = np.full((splits, 2, 2), np.nan), []
    for i, own in enumerate(seeds):
        half = people.split(0.5, int(own))
        for turn, mask in enumerate((half, ~half)):
            try:
                groups = _subgroups(
                    people, mask, max_leaves=max_leaves, min_arm=min_arm, share=0.5, seed=int(own)
                )
                pair = estimate(groups.effects)
            except TooFewSitesError as error:  # this split has no subgroups; other errors are about the data
                failures.append(str(error))
                continue
            if np.isfinite(pair).all():
                found[i, turn] = pair
            else:
                failures.append("no estimate")
    return _median(found, tuple(failures), seed)


def _median(found: Array, failures: tuple[str, ...], seed: int) -> CrossFit:
    estimates, errors = frozen(found[..., 0]), frozen(found[..., 1])
    both = np.isfinite(found).all(axis=(1, 2))
    if 2 * both.sum() <= len(found):
        nan = float("nan")
        why = f"{count(int((~both).sum()), 'split')} of {len(found)} gave no estimate"
        return CrossFit(nan, nan, estimates, errors, failures, seed, why)
    each, se = estimates[both].mean(axis=1), np.sqrt((errors[both] ** 2).sum(axis=1)) / 2.0
    middle = float(np.median(each))
    error = float(np.sqrt(np.median(se**2 + (each - middle) ** 2)))
    return CrossFit(middle, error, estimates, errors, failures, seed)


def _subgroups(
    people: People, discovery: Mask, *, max_leaves: int, min_arm: int, share: float, seed: int
) -> Subgroups:
    strata = people.strata(discovery, max_leaves=max_leaves, min_arm=min_arm, seed=seed)
    return Subgroups(
        strata.frame,
        strata.design,
        strata.table,
        people.columns,
        people.mediator,
        people.frame.index[discovery],
        share,
        seed,
    )

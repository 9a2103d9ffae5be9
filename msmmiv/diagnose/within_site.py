"""Whether subgroups inside a site whose mediator moves more also have other effects: assumption (vii.a)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Design, Label
from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.level_test import level_contrasts, level_test
from msmmiv.errors import DataError, DesignError, MsmmivWarning, count, listing, whole_number
from msmmiv.estimate.site_moments import estimated, site_rows
from msmmiv.inference.tests import NotApplicable, TestResult
from msmmiv.linalg import Array, Codes
from msmmiv.moments.cells import Missing, Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.strata import Bins, strata_as_sites

__all__ = ["CHECK", "WithinSite", "within_site_cells", "within_site_subgroups"]

CHECK = "within_site.subgroups"
_NAME = "effects and compliance of subgroups inside sites"


@dataclass(frozen=True, eq=False)
class WithinSite:
    """Whether effects of subgroups inside a site differ as their compliances do.

    Attributes
    ----------
    by : tuple of str
        Columns that make the subgroups.
    test : TestStatistic or NotApplicable
    subgroup : str
        That which differs most from the rest of its sites.
    reach : float
        Difference between its effect and that of the others that is found with about 80% power, where compliances
        clearly differ.
    covariance, covariance_se : float
        Covariance inside sites, between subgroups, of compliance and mediator effect: what a site's itt gains from
        it. NaN without a test.
    shift : float
        What that adds to the estimate, covariance times sum w g / sum w g^2; NaN without a test.
    table : DataFrame
        One row per site: ``site, cells, score, product, pairs`` (see Notes of `within_site_subgroups`).
    cells : DataFrame
        One row per subgroup (and arm): ``site, level, cell, arm, weight, itt, compliance``.
    """

    by: tuple[str, ...]
    test: TestResult
    subgroup: str
    reach: float
    covariance: float
    covariance_se: float
    shift: float
    table: pd.DataFrame
    cells: pd.DataFrame

    @classmethod
    def unknown(cls, reason: str) -> WithinSite:
        """No test, and why; without a reason that it takes rows and baseline covariates.

        Examples
        --------
        >>> WithinSite.unknown("").evidence()[0].applies
        False
        """
        reason = reason or (
            "it needs rows and baseline covariates to make subgroups of (within_site_subgroups)"
        )
        nan = float("nan")
        columns = ["site", "cells", "score", "product", "pairs"]
        more = ["site", "level", "cell", "arm", "weight", "itt", "compliance"]
        empty = (pd.DataFrame(columns=columns), pd.DataFrame(columns=more))
        return cls((), NotApplicable(_NAME, reason), "", nan, nan, nan, nan, *empty)

    def to_frame(self) -> pd.DataFrame:
        """``table``: one row per site."""
        return self.table

    def evidence(self) -> tuple[Evidence, ...]:
        """One check."""
        if isinstance(self.test, NotApplicable):
            return (Evidence(CHECK, self.test, "evidence"),)
        reading = (
            f"Inside sites, {self.subgroup} differs most from the other subgroups ({listing(self.by)}). Between "
            f"subgroups compliance and effect have covariance {self.covariance:.3g} (se {self.covariance_se:.2g}), "
            f"which moves the estimate by {self.shift:.3g}. "
            "Selection on what does not make the subgroups stays invisible, so that this never supports (vii.a)."
        )
        words = (
            f"An effect that differs by {self.reach:.2g} between {self.subgroup} and the others would be found with "
            "about 80% power, if their compliances clearly differ."
        )
        return (Evidence(CHECK, self.test, "evidence", reading, words if np.isfinite(self.reach) else ""),)


def within_site_subgroups(
    frame: pd.DataFrame,
    design: Design,
    *,
    by: str | Sequence[str],
    bins: Bins | None = None,
    min_per_arm: int = 2,
    missing: Missing = "error",
    draws: int = 999,
    seed: int = 0,
) -> WithinSite:
    """Split each site by baseline covariates and test that effects do not go with compliance across the parts.

    Use it for assumption (vii.a), with covariates by which people could have been chosen for more of the mediator. A
    rejection contradicts it; anything else says nothing of selection on what was not measured.

    Parameters
    ----------
    frame : DataFrame
    design : Design
        One mediator. Its covariates are left out: common slopes would tie the subgroups of a site together.
    by : str or sequence of str
        Columns known before randomisation.
    bins : int or mapping, optional
        As in `strata_as_sites`.
    min_per_arm : int
        Subgroups with fewer comparable rows in an arm are left out; at least 2.
    missing : {"error", "drop"}
    draws, seed : int
        Of random signs.

    Returns
    -------
    WithinSite

    Raises
    ------
    DesignError
        ``min_per_arm`` below 2, or a column that is a consequence of the treatment.
    ColumnError, MissingDataError, TooFewSitesError, DataError
        As in `strata_as_sites`.

    Notes
    -----
    Subgroups c, d of a site hold different people, so that their errors are independent, and with one effect per site
    b_c g_d - b_d g_c = 0 whatever that effect is. The test asks whether a subgroup differs from the rest of its sites
    both in compliance and in effect, as a covariance needs (`level_test`); it does not see what has one sign in some
    sites and the other elsewhere. The covariance comes from the score of a site, the sum over pairs, weighted by
    w_c w_d / sum w, of

        (b_c g_d - b_d g_c)(g_c - g_d)  less  V_bg,c g_d - b_c V_gg,d - b_d V_gg,c + V_bg,d g_c,

    whose expectation is g_c g_d (delta_c - delta_d)(g_c - g_d) exactly, for any law of the errors and with estimated
    variances: nothing is fitted. Its ratio to the same sum of g_c g_d is the average of (delta_c - delta_d)(g_c - g_d)
    over pairs; times the mean of sum_(c<d) s_c s_d, s the shares of the subgroups, it is their covariance.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"s": np.repeat(np.arange(16), 120), "t": np.tile([0, 1], 960), "old": rng.random(1920) < .5})
    >>> df["m"] = df.t * (1.0 + df.old) + rng.normal(size=1920)
    >>> df["y"] = 0.5 * df.m + rng.normal(size=1920)
    >>> design = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    >>> found = within_site_subgroups(df, design, by="old")
    >>> len(found.table), found.test.pvalue > 0.05
    (16, True)
    """
    whole_number(min_per_arm, "min_per_arm", least=2)  # a variance needs two rows
    columns = (by,) if isinstance(by, str) else tuple(by)
    if design.site in columns:
        raise DesignError(f"{design.site!r} is the site: subgroups are made inside it, by other columns.")
    if len(design.mediators) > 1:
        return replace(WithinSite.unknown(_SEVERAL), by=columns)
    design, frame = replace(design, covariates=()), frame.reset_index(drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", MsmmivWarning
        )  # small subgroups are expected, and counted in the table
        strata = strata_as_sites(
            frame, design, by=columns, within_sites=True, bins=bins, min_per_arm=min_per_arm, missing=missing
        )
        name = strata.design.site
        if design.cluster and (strata.frame.groupby(design.cluster, observed=True)[name].nunique() > 1).any():
            why = f"people of one {design.cluster!r} are in several subgroups, whose errors are then not independent"
            return replace(WithinSite.unknown(why), by=columns)
        # The same subgroups by the same names in all sites.
        pooled = strata_as_sites(frame, design, by=columns, bins=bins, min_per_arm=1, missing=missing)
        levels = pooled.frame[pooled.design.site].reindex(strata.frame.index)
        pairs = strata.frame[[name, design.site]].assign(level=levels).drop_duplicates(name)
        moments = Moments.from_data(strata.frame, strata.design, missing=missing).usable()
        effects = SiteEffects.from_moments(moments, cov_type="pooled" if moments.clusters else "unbiased")
    parent, level = (dict(zip(pairs[name], pairs[c].tolist(), strict=True)) for c in (design.site, "level"))
    return replace(within_site_cells(effects, parent, level=level, draws=draws, seed=seed), by=columns)


_SEVERAL = (
    "with several mediators a site's own effects take as many subgroups as mediators before anything is left to test; "
    "name one mediator in the design"
)


def within_site_cells(
    effects: SiteEffects,
    parent: Mapping[Any, Label],
    *,
    level: Mapping[Any, Label],
    draws: int = 999,
    seed: int = 0,
) -> WithinSite:
    """The test of `within_site_subgroups` from effects of subgroups whose people do not overlap.

    Use it where subgroups were made elsewhere: moments with a subgroup of a site in the place of a site.

    Parameters
    ----------
    effects : SiteEffects
        Subgroups in the place of sites, one mediator.
    parent, level : mapping
        The site of each subgroup, and its name, which is the same in all sites.
    draws, seed : int

    Returns
    -------
    WithinSite

    Raises
    ------
    DataError
        A subgroup without a site or a name.
    MomentsInsufficient
        A subgroup with estimates but no sampling covariance.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    >>> districts = {s: i // 8 for i, s in enumerate(effects.sites)}  # schools as parts of larger sites
    >>> kind = {s: ("town", "country")[i % 2] for i, s in enumerate(effects.sites)}
    >>> within_site_cells(effects, districts, level=kind).table["cells"].tolist()[:3]
    [8, 8, 8]
    """
    if len(effects.mediators) > 1:
        return WithinSite.unknown(_SEVERAL)
    for name, given, what in (("parent", parent, "site"), ("level", level, "name")):
        if absent := [s for s in effects.sites if s not in given]:
            raise DataError(
                f"{name}= lacks the {what} of {count(len(absent), 'subgroup')}: {listing(absent)}."
            )
    rows = site_rows(effects)
    have = estimated(effects)
    arm = np.nonzero(have)[1]
    labels = [parent[effects.sites[i]] for i in rows.site]
    names = list(dict.fromkeys(labels))
    code = {s: i for i, s in enumerate(names)}
    site: Codes = np.array([code[s] for s in labels], dtype=np.int64)
    sums, cells = _scores(rows.values, rows.cov, rows.precision, site, arm, len(names))
    used = cells > 1
    table = pd.DataFrame({"site": names, "cells": cells, **sums})[used]
    score, product = sums["score"][used], sums["product"][used]
    called = [level[effects.sites[i]] for i in rows.site]
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(called))}
    shown = pd.DataFrame({
        "site": labels, "level": called, "cell": [effects.sites[i] for i in rows.site],
        "arm": [effects.contrasts[a] for a in arm], "weight": rows.precision, "itt": rows.values[:, 0],
        "compliance": rows.values[:, 1],
    })  # fmt: skip
    table = table.reset_index(drop=True)
    contrasts = level_contrasts(
        rows.values,
        rows.precision,
        site=site,
        arm=arm,
        level=np.array([kinds[c] for c in called], dtype=np.int64),
    )
    test, found = level_test(contrasts, draws=draws, seed=seed)
    out = replace(WithinSite.unknown(""), test=test, table=table, cells=shown)
    if isinstance(test, NotApplicable) or found is None:
        return out
    below, k = float(product.sum()), len(score)
    ratio = float(score.sum()) / below
    apart = float(sums["pairs"][used].sum() / rows.precision[used[site]].sum())
    error = np.sqrt(k / (k - 1.0) * ((score - ratio * product) ** 2).sum()) / abs(below)
    w, g, v = rows.precision, rows.values[:, 1], rows.cov[:, 1, 1]
    squares = float(w @ (g * g - v))
    return replace(
        out,
        subgroup=repr(str(list(kinds)[found.level])),
        reach=found.reach,
        covariance=ratio * apart,
        covariance_se=float(error) * apart,
        shift=ratio * apart * float(w @ g) / squares if squares > 0 else float("nan"),
    )


def _scores(
    values: Array, cov: Array, weight: Array, site: Codes, arm: Codes, k: int
) -> tuple[dict[str, Array], Codes]:
    """By site: score, sum of products of compliances, weight of the pairs; and the subgroups that share an arm."""
    score, product, total = np.zeros(k), np.zeros(k), np.zeros(k)
    cells = np.zeros(k, dtype=np.int64)
    for s, a in np.unique(np.column_stack([site, arm]), axis=0):
        own = np.flatnonzero((site == s) & (arm == a))
        cells[s] = max(cells[s], len(own))
        if len(own) < 2:
            continue
        pairs = weight[own][:, None] * weight[own] / weight[own].sum()
        np.fill_diagonal(pairs, 0.0)
        b, g = values[own].T
        bg, gg = b * g - cov[own, 0, 1], g * g - cov[own, 1, 1]
        score[s] += float(bg @ pairs @ g - b @ pairs @ gg)
        product[s] += 0.5 * float(g @ pairs @ g)  # both orders of a pair are in the sum
        total[s] += 0.5 * float(pairs.sum())
    return {"score": score, "product": product, "pairs": total}, cells

"""Assumption (vi): the share of each arm by site, and against the shares that were planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.diagnose.assignment import Assigned, units_assigned
from msmmiv.diagnose.evidence import Evidence
from msmmiv.errors import ChoiceError, DataError, count, listing
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic, chi2_test
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments

__all__ = ["ArmShares", "arm_shares"]

CHECK = "balance.arm_shares"
_COMMON, _PLANNED = "one share in all sites", "shares as planned"
#: Deals of the arms behind a p-value.
DRAWS = 9999


@dataclass(frozen=True, eq=False)
class ArmShares:
    """How many units each arm has in each site (block).

    Attributes
    ----------
    strata : tuple
        Site labels, or (site, block) pairs.
    arms : tuple
    units : (B, A) array
    planned : (B,) array or None
        Planned share not in the control arm.
    assigned : {"rows", "clusters"}
    common : TestStatistic or NotApplicable
        One share of every arm in all strata: context, because shares may differ by design.
    as_planned : TestStatistic or NotApplicable
        The share not in the control arm is the planned one in every stratum.
    """

    strata: tuple[Label | tuple[Label, Label], ...]
    arms: tuple[Label, ...]
    units: Array
    planned: Array | None
    assigned: Assigned
    common: TestResult
    as_planned: TestResult

    @property
    def shares(self) -> Array:
        """(B, A) share of each arm."""
        return frozen(self.units / self.units.sum(axis=1, keepdims=True))

    def to_frame(self) -> pd.DataFrame:
        """One row per site (block) and arm: units, share, std_error, and the planned share where one was given."""
        pairs = [s if isinstance(s, tuple) else (s, None) for s in self.strata]
        b, a = self.units.shape
        n, share = self.units.sum(axis=1), self.shares
        table = pd.DataFrame(
            {
                "site": np.repeat(np.array([p[0] for p in pairs], dtype=object), a),
                "block": np.repeat(np.array([p[1] for p in pairs], dtype=object), a),
                "arm": list(self.arms) * b,
                "units": self.units.ravel(),
                "share": share.ravel(),
                "std_error": np.sqrt(share * (1.0 - share) / n[:, None]).ravel(),
            }
        )
        if self.planned is not None:
            control = (np.arange(a) == 0)[None, :]
            own = np.where(control, 1.0 - self.planned[:, None], self.planned[:, None] if a == 2 else np.nan)
            table["planned"] = own.ravel()
        return table if isinstance(self.strata[0], tuple) else table.drop(columns="block")

    def evidence(self) -> tuple[Evidence, ...]:
        """Evidence against planned shares; without them the test of one share, as context."""
        if not self.arms:
            return (Evidence(CHECK, self.common, "context"),)
        treated = 1.0 - self.shares[:, 0]
        reading = (
            f"The share not in the control arm runs from {treated.min():.2f} to {treated.max():.2f} over "
            f"{count(len(self.strata), 'site' if not isinstance(self.strata[0], tuple) else 'block')}, among the "
            f"{self.assigned} that are analysed."
        )
        if self.planned is None:
            reading += (
                " Shares may differ by design; a small p-value says that intercepts by site are needed. Give the "
                "planned shares to test them."
            )
            return (Evidence(CHECK, self.common, "context", reading),)
        reading += (
            " A small p-value says that assignment, or who is left in the sample, was not as planned. Where counts "
            "were fixed rather than drawn, chance moves shares less than the test allows for."
        )
        return (Evidence(CHECK, self.as_planned, "evidence", reading, self._seen()),)

    def _seen(self) -> str:
        if self.planned is None:
            return ""
        n = self.units.sum(axis=1)
        error = np.sqrt((n * self.planned * (1.0 - self.planned)).sum()) / n.sum()
        # Two statistics share the level: 2.24 + .84 standard errors.
        return f"A share that is off by {3.08 * error:.3f} in all sites alike would be found with 80% power."


def arm_shares(
    moments: Moments,
    *,
    planned: float | Mapping[Label, float] | None = None,
    assigned: Assigned | None = None,
    seed: int = 0,
) -> ArmShares:
    """Count the assigned units of each arm by site (block), and compare them with what was planned.

    Use it with ``planned`` when the protocol states shares: a departure shows a broken lottery, or people lost
    differently by arm. Without it the table is for reading.

    Parameters
    ----------
    moments : Moments
    planned : float or mapping, optional
        Share not in the control arm: one for all, or by site.
    assigned : {"rows", "clusters"}, optional
        As in `covariate_balance`.
    seed : int
        Of the deals behind the p-value against planned shares.

    Raises
    ------
    ChoiceError
        A planned share that does not lie between 0 and 1.
    DataError
        A mapping that lacks a site.

    Notes
    -----
    With x_b of N_b units treated and shares pi_b, the total |sum (x_b - N_b pi_b)| / sqrt(sum v_b) with
    v_b = N_b pi_b (1 - pi_b), and the sum over strata of (x_b - N_b pi_b)^2 / v_b, are compared with their values in
    9999 draws of independent binomials, which is exact at any size; p is twice the smaller. One share in all strata is
    tested by the chi-squared test of homogeneity.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = arm_shares(mm.data.star(), planned=0.3, assigned="rows")
    >>> found.to_frame().round(2).head(2).to_dict("list")["share"]
    [0.71, 0.29]
    """
    kind = units_assigned(moments, assigned) if moments.arms else "rows"
    strata = moments.blocks or moments.sites
    if not moments.arms:
        why = "the treatment is a dose, which has no shares"
        none = NotApplicable(_COMMON, why)
        return ArmShares(strata, (), frozen(np.zeros((len(strata), 0))), None, kind, none, none)
    units = _units(moments, kind)
    shares = None if planned is None else _planned(moments, planned)
    unequal = moments.design.weight_kind == "probability"
    if shares is None:
        against: TestResult = NotApplicable(
            _PLANNED, "no planned shares were given: planned=0.5, or a mapping by site"
        )
    elif unequal:
        why = "rows have probability weights: arms sampled at different rates have other shares in the sample"
        against = NotApplicable(_PLANNED, why)
    else:
        against = _against(units, shares, np.random.default_rng(seed))
    return ArmShares(strata, moments.arms, frozen(units), shares, kind, _common(units), against)


def _units(moments: Moments, kind: Assigned) -> Array:
    size = (moments.n_blocks, len(moments.arms))
    where = moments.intercept * size[1] + moments.arm
    weight = np.ones(moments.n_cells) if kind == "clusters" else moments.n
    return frozen(np.bincount(where, weight, size[0] * size[1]).reshape(size))


def _planned(moments: Moments, planned: float | Mapping[Label, float]) -> Array:
    if isinstance(planned, Mapping):
        if lacking := [s for s in moments.sites if s not in planned]:
            raise DataError(
                f"planned has no share for sites {listing(map(repr, lacking))}. Give one for every site."
            )
        values = [planned[s] for s in moments.sites]
    else:
        values = [planned] * moments.n_sites
    bad = [v for v in values if not _is_share(v)]
    if bad:
        raise ChoiceError(
            f"A planned share must lie between 0 and 1, not {bad[0]!r}: it is the part not in the control."
        )
    return frozen(np.array(values, dtype=float)[moments.intercept_site])


def _is_share(value: object) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and 0.0 < float(str(value)) < 1.0


def _common(units: Array) -> TestResult:
    arms = units.sum(axis=0)
    if len(units) < 2:
        return NotApplicable(_COMMON, "there is one site")
    expected = units.sum(axis=1, keepdims=True) * arms / arms.sum()
    if expected.min() < 1.0 or (expected < 5.0).mean() > 0.5:
        return NotApplicable(_COMMON, "too few units by site and arm for the chi-squared test of homogeneity")
    stat = float(((units - expected) ** 2 / expected).sum())
    return chi2_test(
        _COMMON, "every arm has one share in all sites", stat, (len(units) - 1) * (len(arms) - 1)
    )


def _against(units: Array, shares: Array, rng: np.random.Generator) -> TestResult:
    n = units.sum(axis=1)
    variance = n * shares * (1.0 - shares)

    def off(treated: Array) -> Array:
        away = treated - n * shares
        total = np.abs(away.sum(axis=-1)) / np.sqrt(variance.sum())
        return np.stack([total, (away**2 / variance).sum(axis=-1)])

    seen = off(units[:, 1:].sum(axis=1))
    whole = n.astype(np.int64)
    parts = [off(rng.binomial(whole, shares, (part, len(n))).astype(float)) for part in _parts(len(n))]
    above = (np.concatenate(parts, axis=1) >= seen[:, None] * (1.0 - 1e-12)).sum(axis=1)
    least = int(above.argmin())
    p = min(1.0, 2.0 * (1.0 + float(above[least])) / (1.0 + DRAWS))
    null = "the share not in the control arm is the planned one in every site"
    law = f"{'total' if least == 0 else 'site by site'}, {DRAWS} draws of the planned shares"
    return TestStatistic(_PLANNED, null, float(seen[least]), p, 1 if least == 0 else len(n), law=law)


def _parts(strata: int) -> list[int]:
    """Draws at a time, so that memory does not grow with the number of strata."""
    step = max(1, min(DRAWS, 5_000_000 // strata))
    return [min(step, DRAWS - start) for start in range(0, DRAWS, step)]

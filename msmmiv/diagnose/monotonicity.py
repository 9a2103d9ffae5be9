"""Assumption (vii.b): whether any site's compliance is negative beyond error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Label
from msmmiv.diagnose.assignment import Assigned, hits_law, one_sided, units_assigned
from msmmiv.diagnose.evidence import Evidence, Role
from msmmiv.errors import DataError, MomentsInsufficient, count, listing
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["ComplianceSigns", "compliance_signs", "is_binary"]

CHECK = "monotonicity.signs"
_NAME = "no negative compliance"


@dataclass(frozen=True, eq=False)
class ComplianceSigns:
    """One-sided tests of compliance in every site, and the most negative site against its law.

    Attributes
    ----------
    mediators, contrasts, sites : tuple
    compliance, pvalue : (K, D, P) arrays
        P-values against "at least zero"; NaN where a site lacks the arm or a mediator is not tested.
    tests : tuple of TestStatistic or NotApplicable
        One per mediator, over sites and arms.
    joint : TestStatistic or NotApplicable
        Over mediators, by Holm.
    role : {"evidence", "context"}
        Evidence where the law is exact: 0/1 mediators, and rows that were assigned.
    law : str
        How p-values of sites were computed.
    detectable : float
        Negative compliance of one site of middling size that is found with 80% power (approximate).
    """

    mediators: tuple[str, ...]
    contrasts: tuple[Label, ...]
    sites: tuple[Label, ...]
    compliance: Array
    pvalue: Array
    tests: tuple[TestResult, ...]
    joint: TestResult
    role: Role
    law: str
    detectable: float

    def to_frame(self) -> pd.DataFrame:
        """One row per site, mediator (and arm): compliance and one-sided p_value."""
        rows = [
            (
                self.sites[k],
                self.contrasts[d],
                self.mediators[p],
                self.compliance[k, d, p],
                self.pvalue[k, d, p],
            )
            for k, d, p in np.argwhere(np.isfinite(self.compliance)).tolist()
        ]
        table = pd.DataFrame(rows, columns=["site", "arm", "mediator", "compliance", "p_value"])
        return table.drop(columns="arm") if len(self.contrasts) == 1 else table

    def evidence(self) -> tuple[Evidence, ...]:
        """The joint test; it also needs assignment to be ignorable (vi), and says so."""
        if isinstance(self.joint, NotApplicable):
            return (Evidence(CHECK, self.joint, self.role),)
        tested = [p for p, t in enumerate(self.tests) if isinstance(t, TestStatistic)]
        negative = int((self.compliance[:, :, tested] < 0).any(axis=(1, 2)).sum())
        sites = count(negative, "site") if negative else "No site"
        reading = (
            f"{sites} of {len(self.sites)} {'has' if negative < 2 else 'have'} a negative compliance. A small p-value "
            "contradicts monotonicity (vii.b) or ignorable assignment (vi); defiers whom more compliers outnumber in a "
            "site do not show."
        )
        seen = ""
        if np.isfinite(self.detectable):
            seen = (
                f"In one site of middling size a compliance of {-self.detectable:.2f} would be found with about 80% "
                "power."
            )
        return (Evidence(CHECK, self.joint, self.role, reading, seen),)


def is_binary(moments: Moments, column: int) -> bool:
    """Whether a variable (by position) is 0 or 1 in every row: its scatter is then n p (1 - p).

    A share is zero or at least one row's; a variable in tiny units is no share, however near zero all of it is.
    """
    w, mean = moments.first.weight, moments.first.mean[:, column]
    scatter = moments.first.scatter[:, column, column]
    share = ((mean == 0.0) | (mean >= 1e-6)) & (mean <= 1.0 + 1e-9)
    return bool((share & (np.abs(scatter - w * mean * (1.0 - mean)) <= 1e-9 * w)).all())


def compliance_signs(data: Moments | SiteEffects, *, assigned: Assigned | None = None) -> ComplianceSigns:
    """Test that no site's compliance with a 0/1 mediator is negative.

    Use it when effects among compliers are wanted: without defiers every site's compliance is at least zero. With
    0/1 mediators and rows that were assigned the test is exact however small the sites are.

    Parameters
    ----------
    data : Moments or SiteEffects
        Site effects do not say whether a mediator is 0/1; it is taken to be.
    assigned : {"rows", "clusters"}, optional
        As in `covariate_balance`; for moments.

    Notes
    -----
    A site's p-value is Fisher's, P(X <= x) for the treated with M = 1 given both margins (summed over blocks). With
    F_s the law of the p-value of site s at compliance zero, the smallest p over sites is compared with
    1 - prod_s (1 - F_s(p)) (two arms), or with sum F_s(p) where sites compare several arms with one control: the least
    favourable case, all compliances zero. Several mediators are combined by Holm. Otherwise one-sided t-tests with
    Sidak's correction stand in, as context.

    Examples
    --------
    >>> import pandas as pd, msmmiv as mm
    >>> df = pd.DataFrame({"s": [1] * 20 + [2] * 20, "t": [0, 1] * 20, "y": range(40)})
    >>> df["m"] = df["t"].where(df["s"] == 1, 1 - df["t"])
    >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    >>> found = compliance_signs(mm.Moments.from_data(df, d))
    >>> found.to_frame()["compliance"].tolist(), found.joint.pvalue < 0.001
    ([1.0, -1.0], True)
    """
    if isinstance(data, SiteEffects):
        every = np.ones(len(data.mediators), dtype=np.bool_)
        return _approximate(data, every, "published standard errors, 0/1 mediators supposed")
    names = data.design.mediators
    binary = np.array([is_binary(data, 1 + j) for j in range(len(names))], dtype=np.bool_)
    if not data.arms or not binary.any():
        why = "monotonicity is about arms, and the treatment is a dose" if not data.arms else (
            f"no mediator is 0/1 ({listing(names)}): the variant without defiers (vii.b) does not apply"
        )  # fmt: skip
        return _none(names, data.arms[1:] or ("",), data.sites, why)
    if units_assigned(data, assigned) == "rows" and data.design.weight_kind in (None, "frequency"):
        return _fisher(data, binary)
    try:
        effects = SiteEffects.from_moments(data, cov_type="pooled" if data.clusters else "unbiased")
    except (DataError, MomentsInsufficient) as error:
        return _none(names, data.arms[1:], data.sites, str(error))
    return _approximate(effects, binary, "t, with clusters or weights")


def _none(
    names: tuple[str, ...], contrasts: tuple[Label, ...], sites: tuple[Label, ...], why: str
) -> ComplianceSigns:
    none, empty = NotApplicable(_NAME, why), np.full((len(sites), len(contrasts), len(names)), np.nan)
    return ComplianceSigns(
        names, contrasts, sites, empty, empty, (none,) * len(names), none, "evidence", "", np.nan
    )


def _fisher(moments: Moments, binary: npt.NDArray[np.bool_]) -> ComplianceSigns:
    """Exact p-values and the exact law of the smallest of them."""
    names, k, d = moments.design.mediators, moments.n_sites, len(moments.arms) - 1
    shape = (moments.n_blocks, d + 1)
    where = (moments.intercept, moments.arm)
    n = np.zeros(shape)
    np.add.at(n, where, moments.n)
    compliance, pvalue = np.full((k, d, len(names)), np.nan), np.full((k, d, len(names)), np.nan)
    tests: list[TestResult] = []
    reach = []
    for p, name in enumerate(names):
        label = f"{_NAME}: {name}"
        if not binary[p]:
            tests.append(NotApplicable(label, "the mediator is not 0/1"))
            continue
        hits = np.zeros(shape)
        np.add.at(hits, where, np.round(moments.n * moments.first.mean[:, 1 + p]))
        laws = []
        for s in range(k):
            own = np.flatnonzero(moments.intercept_site == s)
            for a in range(1, d + 1):
                use = own[(n[own, 0] > 0) & (n[own, a] > 0)]
                if use.size:
                    one = _site(hits[use][:, [0, a]], n[use][:, [0, a]])
                    compliance[s, a - 1, p], pvalue[s, a - 1, p], steps, error = one
                    laws.append(steps)
                    reach.append(error)
        tests.append(_smallest(label, pvalue[:, :, p], laws, independent=d == 1))
    size = max(sum(np.isfinite(pvalue).any(axis=(1, 2))), 1)
    middle = float(np.median(reach)) if reach else np.nan
    from scipy.special import ndtri

    detectable = middle * float(0.8416 - ndtri(0.05 / (size * d * max(int(binary.sum()), 1))))
    law = "Fisher's exact p of each site, against the exact law of the smallest"
    return ComplianceSigns(
        names, moments.arms[1:], moments.sites, frozen(compliance), frozen(pvalue), tuple(tests), _holm(tests),
        "evidence", law, detectable,
    )  # fmt: skip


def _site(hits: Array, n: Array) -> tuple[float, float, Array, float]:
    """Difference of shares, P(X <= x), the attainable p-values, and a standard error; over the blocks of a site."""
    total, hit = n.sum(axis=1), hits.sum(axis=1)
    weight = n[:, 0] * n[:, 1] / total
    gap = float(weight @ (hits[:, 1] / n[:, 1] - hits[:, 0] / n[:, 0]) / weight.sum())
    least, mass = hits_law(hit, total, n[:, 1])
    below, _ = one_sided(least, mass, float(hits[:, 1].sum()))
    rate = hit.sum() / total.sum()
    return gap, below, np.cumsum(mass), float(np.sqrt(rate * (1.0 - rate) / weight.sum()))


def _smallest(label: str, pvalue: Array, laws: list[Array], *, independent: bool) -> TestResult:
    """The smallest p-value, adjusted by the attainable p-values of every site."""
    if not laws:
        return NotApplicable(label, "no site has both arms")
    if all(len(law) == 1 for law in laws):
        return NotApplicable(label, "the mediator is the same for everybody in every site")
    least = float(np.nanmin(pvalue))
    below = np.zeros(len(laws))
    for i, law in enumerate(laws):
        reached = law[law <= least * (1.0 + 1e-9)]
        below[i] = reached[-1] if reached.size else 0.0
    adjusted = (
        float(-np.expm1(np.log1p(-np.minimum(below, 1.0 - 1e-15)).sum()))
        if independent
        else float(below.sum())
    )
    null = "no site's compliance is negative"
    return TestStatistic(
        label, null, least, min(adjusted, 1.0), len(laws), law=f"smallest of {len(laws)} exact p-values"
    )


def _holm(tests: list[TestResult]) -> TestResult:
    real = [t for t in tests if isinstance(t, TestStatistic)]
    if not real:
        return tests[0]
    least = min(real, key=lambda t: t.pvalue)
    if len(real) == 1:
        return least
    p = min(1.0, least.pvalue * len(real))
    return TestStatistic(
        _NAME, least.null, least.stat, p, least.df, law=f"{least.law}; Holm over {len(real)} mediators"
    )


def _approximate(effects: SiteEffects, binary: npt.NDArray[np.bool_], law: str) -> ComplianceSigns:
    """One-sided t-tests with Sidak's correction: context."""
    from scipy.special import stdtr

    g = effects.estimates[:, :, 1:]
    variance = np.einsum("kdpdp->kdp", effects.cov[:, :, 1:, :, 1:])
    error = np.sqrt(np.where(variance > 0, variance, np.nan))
    df = np.where(np.isinf(effects.df), 1e9, np.maximum(effects.df, 1.0))[:, None, None]
    p = np.where(binary, stdtr(df, g / error), np.nan)
    tests: list[TestResult] = []
    for j, name in enumerate(effects.mediators):
        label, own = f"{_NAME}: {name}", p[:, :, j][np.isfinite(p[:, :, j])]
        if not own.size:
            why = "the mediator is not 0/1" if not binary[j] else "no site has a sampling variance"
            tests.append(NotApplicable(label, why))
            continue
        adjusted = float(-np.expm1(own.size * np.log1p(-min(float(own.min()), 1.0 - 1e-15))))
        null = "no site's compliance is negative"
        tests.append(
            TestStatistic(label, null, float(own.min()), adjusted, own.size, law=f"Sidak over {own.size}")
        )
    from scipy.special import ndtri

    size = max(int(np.isfinite(p).sum()), 1)
    spread = error[np.isfinite(p)]
    detectable = float(np.median(spread)) * float(0.8416 - ndtri(0.05 / size)) if spread.size else np.nan
    return ComplianceSigns(
        effects.mediators, effects.contrasts, effects.sites, frozen(g), frozen(p), tuple(tests), _holm(tests),
        "context", law, detectable,
    )  # fmt: skip

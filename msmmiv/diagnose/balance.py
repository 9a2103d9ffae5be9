"""Assumption (vi): whether arms were alike before treatment, on covariates, against shuffled labels within sites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.diagnose.assignment import (
    Assigned,
    Scores,
    Shuffled,
    noncentrality,
    scores,
    site_slopes,
    units_assigned,
)
from msmmiv.diagnose.evidence import Evidence
from msmmiv.errors import count
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic, f_test
from msmmiv.linalg import Array, frozen, gram_pinv
from msmmiv.moments.cells import Moments

__all__ = ["CovariateBalance", "covariate_balance"]

JOINT, BY_SITE = "balance.covariates_joint", "balance.covariates_by_site"
_JOINT, _HOLM = "covariates jointly", "largest difference of a site"
_NULL = "the arms do not differ in the covariates beyond what shuffled assignment within sites gives"
#: Fewest orders of the labels, and fewest denominator degrees of freedom, with which the F holds its size.
FEWEST_ORDERS, FEWEST_DF = 1000.0, 8.0


@dataclass(frozen=True, eq=False)
class CovariateBalance:
    """Differences between arms in pre-treatment covariates, pooled within sites, by site, and jointly.

    Attributes
    ----------
    covariates, contrasts, sites : tuple
        Names; arms compared with the control (one empty label for a dose); site labels.
    difference, std_error, pvalue : (D, q) arrays
        Pooled within sites (blocks), with the randomisation standard error.
    sd : (q,) array
        Standard deviation within sites (blocks), which standardised differences are divided by.
    site_difference, site_std_error, site_pvalue : (K, D, q) arrays
        NaN where a site lacks an arm.
    units : (K,) array
        Assigned units in each site.
    assigned : {"rows", "clusters"}
    joint, largest : TestStatistic or NotApplicable
        All covariates and arms at once; the largest difference of a site, by Holm.
    detectable : float
        Smallest standardised difference, the same in all sites and in any one covariate, that the joint test finds
        with 80% power.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = covariate_balance(mm.data.star("math_covariates"), assigned="rows")
    >>> found.to_frame()[["covariate", "standardised"]].round(3).to_dict("list")
    {'covariate': ['female', 'white_asian', 'freelunch'], 'standardised': [0.002, 0.02, -0.013]}
    """

    covariates: tuple[str, ...]
    contrasts: tuple[Label, ...]
    sites: tuple[Label, ...]
    difference: Array
    std_error: Array
    pvalue: Array
    sd: Array
    site_difference: Array
    site_std_error: Array
    site_pvalue: Array
    units: Array
    assigned: Assigned
    joint: TestResult
    largest: TestResult
    detectable: float

    @property
    def standardised(self) -> Array:
        """(D, q) pooled differences in standard deviations."""
        return frozen(self.difference / _or_nan(self.sd))

    def to_frame(self) -> pd.DataFrame:
        """One row per covariate (and arm): difference, std_error, standardised, its std_error, p_value."""
        rows = [
            {
                "covariate": name, "arm": arm, "difference": self.difference[d, j], "std_error": self.std_error[d, j],
                "standardised": self.standardised[d, j],
                "standardised_se": self.std_error[d, j] / _or_nan(self.sd)[j], "p_value": self.pvalue[d, j],
            }
            for d, arm in enumerate(self.contrasts) for j, name in enumerate(self.covariates)
        ]  # fmt: skip
        return _without_empty_arm(pd.DataFrame(rows, columns=_columns("covariate", "arm")), self.contrasts)

    def site_frame(self) -> pd.DataFrame:
        """One row per site, covariate (and arm), for the figure; comparisons that exist only."""
        sd = _or_nan(self.sd)
        rows = [
            {
                "site": self.sites[k], "covariate": self.covariates[j], "arm": self.contrasts[d],
                "units": self.units[k], "difference": self.site_difference[k, d, j],
                "std_error": self.site_std_error[k, d, j], "standardised": self.site_difference[k, d, j] / sd[j],
                "standardised_se": self.site_std_error[k, d, j] / sd[j], "p_value": self.site_pvalue[k, d, j],
            }
            for k, d, j in np.argwhere(np.isfinite(self.site_difference)).tolist()
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=_columns("site", "covariate", "arm", "units"))
        return _without_empty_arm(table, self.contrasts)

    def evidence(self) -> tuple[Evidence, ...]:
        """The joint test as evidence, the largest differences of sites as context."""
        return (
            Evidence(JOINT, self.joint, "evidence", self._reading(), self._seen()),
            Evidence(BY_SITE, self.largest, "context", self._by_site()),
        )

    def _reading(self) -> str:
        if not self.covariates:
            return ""
        size = np.abs(self.standardised)
        if not np.isfinite(size).any():
            return "No covariate varies within sites."
        d, j = np.unravel_index(int(np.nanargmax(size)), size.shape)
        arm = f" (arm {self.contrasts[d]!r})" if len(self.contrasts) > 1 else ""
        many = len(self.covariates) * len(self.contrasts)
        largest = "The pooled difference" if many == 1 else f"The largest of {many} pooled differences"
        return (
            f"{largest} within sites is that of {self.covariates[j]!r}{arm}: {self.standardised[d, j]:.2f} standard "
            f"deviations. Each {self.assigned.removesuffix('s')} counts as separately assigned. "
            "Balance on what was measured is not balance on what was not."
        )

    def _seen(self) -> str:
        if not np.isfinite(self.detectable):
            return ""
        return (
            f"A difference of {self.detectable:.2f} standard deviations in any one covariate, the same in all sites, "
            "would be found with 80% power."
        )

    def _by_site(self) -> str:
        table = self.site_frame().dropna(subset=["standardised"])
        if table.empty:
            return ""
        top = table.reindex(table["standardised"].abs().sort_values(ascending=False).index[:3])
        named = [
            f"{s!r} in {c!r} ({v:.2f})"
            for s, c, v in zip(top["site"], top["covariate"], top["standardised"], strict=True)
        ]
        return (
            f"Largest standardised differences: {', '.join(named)}. Small sites differ by chance; the p-values "
            "are approximate in sites of a dozen units."
        )


def covariate_balance(moments: Moments, *, assigned: Assigned | None = None) -> CovariateBalance:
    """Compare the covariates of the arms within sites, against random assignment.

    Use it before anything else: it needs only what was known before treatment. The variances are those that
    shuffling the labels of the assigned units within each site (block) gives, so no model of the covariates is used.

    Parameters
    ----------
    moments : Moments
        With covariates in the design.
    assigned : {"rows", "clusters"}, optional
        What was assigned. By default clusters where every declared cluster lies in one arm of its site (block);
        say "rows" where people were assigned and grouped afterwards, as pupils to classes.

    Returns
    -------
    CovariateBalance
        Without covariates, or with a dose that has weights or clusters, its tests are not applicable.

    Raises
    ------
    ChoiceError
        Clusters that are not declared or lie in several arms.

    Notes
    -----
    With totals z of the assigned units around their stratum and arm indicators t, the score c = sum t z has mean zero
    and covariance sum_b (t't)_b (x) (z'z)_b / (N_b - 1) over orders of the labels; the pooled difference is c over
    sum_b (t't)_b in rows. The joint statistic c' V^- c has mean equal to its rank exactly, and is compared with an F
    that also has the right variance for normal covariates (`Shuffled`). The idea of testing against the
    randomisation is that of Hansen and Bowers (2008, Statistical Science 23: 219-236). Weights count as fixed
    properties of the rows. The F stands in for the law over orders, which has to be rich enough: with fewer than 1000
    orders there is no test.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = covariate_balance(mm.data.star("math_covariates"), assigned="rows")  # pupils, not classes, were drawn
    >>> found.joint.pvalue > 0.05, round(found.detectable, 2)
    (True, 0.1)
    """
    design, names = moments.design, moments.design.covariates
    contrasts = moments.arms[1:] if moments.arms else ("",)
    kind = units_assigned(moments, assigned)
    if why := _refused(moments, kind):
        none, empty = np.full((len(contrasts), len(names)), np.nan), np.full(len(names), np.nan)
        by_site = np.full((moments.n_sites, *none.shape), np.nan)
        return CovariateBalance(
            names, contrasts, moments.sites, none, none, none, empty, by_site, by_site, by_site,
            np.full(moments.n_sites, np.nan), kind, NotApplicable(_JOINT, why), NotApplicable(_HOLM, why), np.nan,
        )  # fmt: skip
    first = 1 + len(design.mediators)
    found = scores(moments, list(range(first, first + len(names))), kind)
    difference, error, pvalue = _pooled(found)
    own, own_error = site_slopes(found, moments.n_sites)
    own_p = _site_pvalues(found, own, own_error, moments.n_sites)
    joint, law = _joint(found, moments, kind)
    sd = _within_sd(found, moments)
    return CovariateBalance(
        covariates=names, contrasts=contrasts, sites=moments.sites, difference=frozen(difference),
        std_error=frozen(error), pvalue=frozen(pvalue), sd=frozen(sd), site_difference=frozen(own),
        site_std_error=frozen(own_error), site_pvalue=frozen(own_p),
        units=frozen(np.bincount(found.site, found.units, moments.n_sites)), assigned=kind, joint=joint,
        largest=_holm(own, own_error, own_p), detectable=np.nan if law is None else _detectable(found, law, sd),
    )  # fmt: skip


def _refused(moments: Moments, kind: Assigned) -> str:
    design = moments.design
    if not design.covariates:
        return (
            "the design declares no pre-treatment covariates: name some in a design made for this check, "
            "covariates=[...] or -x on the command line (they need not be in the model)"
        )
    if design.weight_kind == "probability":
        return (
            "probability weights may depend on the arm, and then orders of the arms' labels, which leave weights where "
            "they are, have another law than the lottery; leave the weights out of a design made for this check"
        )
    if not moments.arms and (design.weights or kind == "clusters"):
        return (
            "balance of a dose with weights or clusters is not a function of the moments; leave them out of a design "
            "made for this check"
        )
    return ""


def _pooled(found: Scores) -> tuple[Array, Array, Array]:
    """(D, q) differences, standard errors and p-values."""
    from scipy.special import fdtrc

    _, d, q = found.score.shape
    inverse, _ = gram_pinv(found.precision.sum(axis=0)[None])
    parts = found.covariances()
    difference = inverse[0] @ found.score.sum(axis=0)
    cov = np.einsum("de,beqfr,gf->bdqgr", inverse[0], parts.reshape(-1, d, q, d, q), inverse[0])
    by_stratum = np.einsum("bdqdq->bdq", cov)
    variance = by_stratum.sum(axis=0)
    ratio = by_stratum / np.where(variance > 0, variance, 1.0)
    square = np.einsum("bdq,b->dq", ratio**2, 1.0 / (found.units + 1.0))
    left = 1.0 / np.where(square > 0, square, np.nan) - 2.0
    known = np.where(variance > 0, variance, np.nan)
    z = difference**2 / known
    spare = np.where(left - z > 0, left - z, np.nan)
    p = np.where(left > 1, fdtrc(1.0, left - 1.0, z * (left - 1.0) / spare), np.nan)
    return difference, np.sqrt(known), p


def _site_pvalues(found: Scores, own: Array, error: Array, sites: int) -> Array:
    """(K, D, q) p-values of the differences in single sites; NaN where they cannot vary."""
    from scipy.special import fdtrc

    left = np.bincount(found.site, found.active * (found.units - 1.0), sites)[:, None, None]
    z = (own / np.where(error > 0, error, np.nan)) ** 2
    spare = np.where(left - z > 1e-9, left - z, 1e-9)
    p = np.where(left > 1, fdtrc(1.0, np.maximum(left - 1.0, 1e-9), z * (left - 1.0) / spare), np.nan)
    # With few units the law over orders is coarse: no p-value lies below one over their number.
    least = np.exp(-np.bincount(found.site, found.orders, sites))[:, None, None]
    out: Array = np.where(np.isfinite(p), np.maximum(p, least), np.nan)
    return out


def _joint(found: Scores, moments: Moments, kind: Assigned) -> tuple[TestResult, Shuffled | None]:
    law = Shuffled.of(found.score.sum(axis=0).ravel(), found.covariances(), found.units, found.score.shape[1])
    unit = "row" if kind == "rows" else "cluster"
    if law.rank == 0:
        return NotApplicable(_JOINT, "no covariate varies in a site where the treatment does"), None
    if moments.arms and (orders := float(found.orders.sum())) < np.log(FEWEST_ORDERS):
        why = (
            f"too few units: {unit}s can be assigned in only {np.exp(orders):.0f} ways, too few for a p-value"
        )
        return NotApplicable(_JOINT, why), None
    if law.df < FEWEST_DF:
        units = count(int((found.active * found.units).sum()), unit)
        why = f"too few units: {units} for {count(law.rank, 'difference')}"
        return NotApplicable(_JOINT, why), None
    return f_test(_JOINT, _NULL, law.f, law.rank, round(law.df, 1)), law


def _within_sd(found: Scores, moments: Moments) -> Array:
    """Standard deviation of rows within strata."""
    rows = float(moments.n.sum())
    left = max(rows - len(found.site), 1.0)
    squares = np.einsum("bqq->q", found.scatter)
    out: Array = np.sqrt(squares / float(moments.first.weight.sum()) * rows / left)
    return out


def _holm(own: Array, error: Array, p: Array) -> TestResult:
    have = np.isfinite(p)
    if not have.any():
        return NotApplicable(_HOLM, "no site has enough units, or covariates do not vary inside sites")
    tests = int(have.sum())
    least = float(np.nanmin(p))
    z = float(np.nanmax(np.abs(own[have] / error[have])))
    null = "no site's arms differ in a covariate"
    return TestStatistic(
        _HOLM, null, z, min(1.0, tests * least), tests, law=f"Holm over {count(tests, 'comparison')}"
    )


def _detectable(found: Scores, law: Shuffled, sd: Array) -> float:
    """Smallest d with 80% power when one covariate differs by d sd in every site, at worst over covariates."""
    d, q = found.score.shape[1:]
    unit = np.einsum("bde->de", found.precision)
    worst = np.inf
    for arm in range(d):
        for j in np.flatnonzero(sd > 0):
            move = np.zeros((d, q))
            move[:, j] = unit[:, arm] * sd[j]
            worst = min(worst, float(move.ravel() @ law.inverse @ move.ravel()))
    return float(np.sqrt(noncentrality(law.rank, law.df) / worst)) if worst > 0 else float("nan")


def _columns(*keys: str) -> list[str]:
    return [*keys, "difference", "std_error", "standardised", "standardised_se", "p_value"]


def _without_empty_arm(table: pd.DataFrame, contrasts: tuple[Label, ...]) -> pd.DataFrame:
    return table.drop(columns="arm") if len(contrasts) == 1 else table


def _or_nan(values: Array) -> Array:
    out: Array = np.where(values > 0, values, np.nan)
    return out

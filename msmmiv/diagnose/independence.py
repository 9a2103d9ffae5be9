"""Assumption (ix) from every side that data offer: covariates, weights, over-identification, single sites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.diagnose.estimands import Estimand
from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.heterogeneity import heterogeneity
from msmmiv.diagnose.independence_matrix import independence_matrix
from msmmiv.diagnose.influence import leave_one_out
from msmmiv.diagnose.moderation import LEAST_SITES_OF_SIZES, Signal, moderation_test
from msmmiv.diagnose.moderation_reach import moderation_reach, reach_words, unknown_reach
from msmmiv.diagnose.site_covariates import SiteCovariates, site_covariates
from msmmiv.errors import DataError, MsmmivError, count
from msmmiv.estimate import fit
from msmmiv.estimate.site_moments import corrected_inverse, noise_effects
from msmmiv.inference.results import Estimate
from msmmiv.inference.tests import NotApplicable, TestResult
from msmmiv.linalg import Array
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["Independence", "independence"]

_OVERIDENTIFIED = (
    "This test does not falsify (ix). A rejection may be variation of effects that is harmless here; a failure to "
    "reject with few degrees of freedom has little power."
)

#: `weightings` as they are read aloud; with several arms or a dose the weights are not n p (1 - p).
_AVERAGES = {
    "by squared compliance and n p (1 - p), as 2SLS": "with 2SLS weights, corrected for noise",
    "by compliance and n p (1 - p), pooled IV": "with weights of compliance instead of its square (pooled IV)",
    "by squared compliance, sites alike": "with squared compliance alone, sites of any size alike",
    "sites alike, effect linear in compliance": "with sites alike, the effect linear in compliance",
}


@dataclass(frozen=True, eq=False)
class Independence:
    """Everything that was asked about compliance and effects across sites.

    Attributes
    ----------
    covariates : SiteCovariates
        Against site covariates and size.
    weights : TestResult
        That 2SLS weights and sites alike average the same effects.
    weights_detectable : (P,) array
        Change of each effect per standard deviation of the weight that is found with about 80% power.
    estimands : tuple of Estimand
        Averages under different weights.
    contrasts : tuple of TestResult
        Hausman (Wald) tests that they agree; read beside, since their size does not hold
        (docs/validation/independence.csv).
    overidentification : TestResult
        Least Q (Hansen J).
    left_out : DataFrame
        One row per site left out, one column per mediator: the estimate without it.
    full : Series
        The estimate with all sites.
    left_out_by : str
        The estimator behind these.
    matrix : DataFrame
        ``row, column, correlation, pvalue, note``: compliance of each mediator, effect of each mediator, log size and
        covariates against one another, sampling error taken out.
    """

    covariates: SiteCovariates
    weights: TestResult
    weights_detectable: Array
    estimands: tuple[Estimand, ...]
    contrasts: tuple[TestResult, ...]
    overidentification: TestResult
    left_out: pd.DataFrame
    full: pd.Series[float]
    left_out_by: str
    matrix: pd.DataFrame

    def evidence(self) -> tuple[Evidence, ...]:
        """Six checks: those of `SiteCovariates`, weights, over-identification, and leaving a site out."""
        return (*self.covariates.evidence(), self._weights(), self._overidentified(), self._influence())

    def to_frame(self) -> pd.DataFrame:
        """One row per check: ``check, role, statistic, p_value, dist, null, reading``."""
        return pd.DataFrame([
            {"check": e.check, "role": e.role, "statistic": e.test.stat, "p_value": e.test.pvalue,
             "dist": e.test.dist, "null": e.test.reason if isinstance(e.test, NotApplicable) else e.test.null,
             "reading": e.reading}
            for e in self.evidence()
        ])  # fmt: skip

    def _weights(self) -> Evidence:
        names = self.covariates.mediators
        figures = "; ".join(
            f"{_AVERAGES.get(e.name, e.name)}: {e.status or _listed(names, e)}" for e in self.estimands
        )
        reading = f"Averages of effects {figures}." if figures else ""
        seen, what = "", "the weight of a site in 2SLS"
        if not isinstance(self.weights, NotApplicable):
            seen = reach_words(names, self.weights_detectable, what)
            reading = reading if seen else f"{reading} {unknown_reach(what)}".strip()
        return Evidence("independence.weights_and_effects", self.weights, self.covariates.role, reading, seen)

    def _overidentified(self) -> Evidence:
        return Evidence(
            "independence.overidentification", self.overidentification, "context", _OVERIDENTIFIED
        )

    def _influence(self) -> Evidence:
        check, name = "influence.leave_one_site_out", "leaving one site out"
        if self.left_out.empty:
            return Evidence(check, NotApplicable(name, self.left_out_by))
        moves = self.left_out - self.full
        parts = []
        for m in self.left_out.columns:
            if not np.isfinite(moves[m]).any():
                continue
            at = int(np.nanargmax(moves[m].abs().to_numpy()))
            site = self.left_out.index[at]
            turned = [s for s, v in self.left_out[m].items() if v * self.full[m] < 0]
            sign = (
                f", and its sign changes without {_one_of(len(turned))}" if turned else ", and its sign stays"
            )
            parts.append(
                f"{m} {self.full[m]:.4g} ({self.left_out_by}) moves most without {site}: to "
                f"{float(self.left_out[m].iloc[at]):.4g}{sign}"
            )
        why = NotApplicable(name, "a description of the estimate, not a test")
        return Evidence(check, why, "context", f"Estimate of {'; '.join(parts)}." if parts else "")


def independence(
    source: Moments | SiteEffects,
    *,
    covariates: pd.DataFrame | None = None,
    estimate: Estimate | None = None,
    draws: int = 999,
    seed: int = 0,
) -> Independence:
    """Collect what data can say on whether compliance and effects are independent across sites.

    Use it beside an estimate. It can contradict assumption (ix), never confirm it: what was not measured, and
    dependence that leaves everything straight, stay invisible.

    Parameters
    ----------
    source : Moments or SiteEffects
    covariates : DataFrame, optional
        As in `site_covariates`.
    estimate : Estimate, optional
        What to leave sites out of; it must be of the same moments. By default 2SLS, from site effects `corrected_iv`.
    draws, seed : int
        Of random signs.

    Returns
    -------
    Independence

    Raises
    ------
    DataError, ColumnError, MomentsInsufficient
        As in `site_covariates`. Where an estimate does not exist, the checks that need it say why.

    Notes
    -----
    Weights: the score contrast of two averages. With each site alike, sum_s (S_gb - S_gg d) = 0 gives one average, with
    weights w_s = n p (1 - p) sum_s w_s (S_gb - S_gg d) = 0 that of 2SLS; the second sum at the first d is zero in
    expectation when effects do not go with the weights, and is judged by random signs (`moderation_test` with x = w).

    References
    ----------
    Reardon & Raudenbush (2013), Under what assumptions do site-by-treatment instruments identify average causal
    effects?, Sociological Methods & Research 42: 143-163. Raudenbush, Reardon & Nomi (2012), Journal of Research on
    Educational Effectiveness 5: 303-332, on averages under different weights.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = independence(mm.data.star())
    >>> [e.check for e in found.evidence() if e.role == "evidence"]
    ['independence.site_covariates', 'independence.site_size', 'independence.weights_and_effects']
    """
    if isinstance(source, Moments):
        source = source.usable()
    effects = noise_effects(source)
    about = site_covariates(source, covariates=covariates, draws=draws, seed=seed)
    estimands, contrasts, q, spread = _spread(effects)
    by_site = Signal.of(effects, "equal")
    left_out, full, by = _left_out(source, effects, estimate)
    return Independence(
        covariates=about,
        weights=_weights_test(effects, draws=draws, seed=seed),
        weights_detectable=moderation_reach(by_site, by_site.weight),
        estimands=estimands,
        contrasts=contrasts,
        overidentification=q,
        left_out=left_out,
        full=full,
        left_out_by=by,
        matrix=independence_matrix(effects, about, spread=spread),
    )


def _spread(
    effects: SiteEffects,
) -> tuple[tuple[Estimand, ...], tuple[TestResult, ...], TestResult, Array]:
    """Averages, tests that they agree, least Q and the spread of effects; the reason where `heterogeneity` has none."""
    try:
        found = heterogeneity(effects)
    except MsmmivError as error:
        none = np.full(len(effects.mediators), np.nan)
        return (), (), NotApplicable("Q (Cochran, Hansen J)", str(error)), none
    return found.estimands, found.contrasts, found.q, found.spread


def _weights_test(effects: SiteEffects, *, draws: int, seed: int) -> TestResult:
    signal = Signal.of(effects, "equal")
    null = "averages with the weights of 2SLS and with sites alike agree"
    name = "weights and effects"
    found = moderation_test(
        signal, signal.weight, name=name, null=null, draws=draws, seed=seed, least=LEAST_SITES_OF_SIZES
    )
    if isinstance(found, NotApplicable) and found.reason.startswith("it is the same"):
        return NotApplicable(name, "all sites have the same weight, so that the averages are one")
    return found


def _left_out(
    source: Moments | SiteEffects, effects: SiteEffects, estimate: Estimate | None
) -> tuple[pd.DataFrame, pd.Series[float], str]:
    """Estimates without each site, that with all of them, and the estimator's name; empty with the reason."""
    names = list(effects.mediators)
    if estimate is None and isinstance(source, SiteEffects):
        return _corrected_without(effects)
    try:
        if not isinstance(source, Moments):
            raise DataError("leaving sites out of an Estimate needs the moments it was made from")
        sites = source.usable().sites
        found = fit(source, "2sls", cov_type="site") if estimate is None else estimate
        frame = leave_one_out(found, sites)
    except MsmmivError as error:
        return pd.DataFrame(columns=names), pd.Series(dtype=float), str(error)
    kept = [n for n in names if n in frame.columns]
    return frame[kept], found.params[kept], found.method


def _corrected_without(effects: SiteEffects) -> tuple[pd.DataFrame, pd.Series[float], str]:
    """`corrected_iv` without each site, by subtraction."""
    signal, names = Signal.of(effects, "2sls"), list(effects.mediators)
    total, seen = signal.products.sum(axis=0), signal.observed.sum(axis=0)

    def solve(products: Array, observed: Array) -> Array:
        inverse, _ = corrected_inverse(products[1:-1, 1:-1], observed[1:-1, 1:-1])
        none = np.full(len(names), np.nan)
        return none if inverse is None else np.asarray(inverse @ products[1:-1, 0])

    full = solve(total, seen)
    if not np.isfinite(full).all():
        why = "compliance is no more than noise, so that there is no estimate to leave sites out of"
        return pd.DataFrame(columns=names), pd.Series(dtype=float), why
    rows = [solve(total - p, seen - o) for p, o in zip(signal.products, signal.observed, strict=True)]
    index = pd.Index(list(signal.sites), name="left_out")
    return pd.DataFrame(rows, index, columns=names), pd.Series(full, names), "corrected_iv"


def _one_of(sites: int) -> str:
    return "that site alone" if sites == 1 else f"any one of {count(sites, 'site')}"


def _listed(names: tuple[str, ...], e: Estimand) -> str:
    parts = zip(names, e.estimate, e.std_errors, strict=True)
    return ", ".join(f"{m} {v:.4g} (se {s:.3g})" for m, v, s in parts)

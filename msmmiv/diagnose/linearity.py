"""Tests of the surface E(itt | compliances): that it goes through the origin, and that it is not curved.

Exclusion, a linear outcome and effects that do not go with compliance make it a plane through the origin. Sampling
error in the compliances bends and lifts a plane by itself; the statistics here are corrected for that, and are
compared with trials of the same sites in which the plane is the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.diagnose.evidence import Evidence, Role
from msmmiv.diagnose.null_surface import surface_rows
from msmmiv.diagnose.sensitivity_parts import check_effects
from msmmiv.diagnose.surface import Surface, SurfaceKind
from msmmiv.diagnose.surface_curves import smooth_band
from msmmiv.diagnose.surface_trials import Trials, compare
from msmmiv.errors import ChoiceError, check_choice, whole_number
from msmmiv.estimate.site_moments import estimated
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects

__all__ = ["SurfaceKind", "SurfaceTest", "Trials", "compare", "surface_test"]

_CHECKS = {
    "origin": "linearity.origin_intercept", "curvature": "linearity.corrected_curvature", "reset": "linearity.reset",
    "vech": "linearity.vech",
}  # fmt: skip
_TITLES = {
    "origin": "origin", "curvature": "curvature", "reset": "RESET", "vech": "squares and products of compliances",
}  # fmt: skip
_NULLS = {
    "origin": "the plane of itt on compliances goes through the origin: no average direct effect",
    "curvature": "itt is a straight line in compliance: the mediator effect does not change with it",
    "reset": "itt is a plane in compliances: it does not bend along the plane's own slope",
    "vech": "itt is a plane in compliances: no squares or products of them matter",
}
#: What a rejection may be owed to.
_MEANS = {
    "origin": "An intercept is read as a failure of (ii); failures of (iv), (vi), (vii) and (ix) give one too.",
    "bend": "A bend may be a failure of (iv) or of (ix); a straight surface confirms neither.",
}


@dataclass(frozen=True, eq=False)
class SurfaceTest:
    """A test of the surface of itt over compliances, and what a figure of it needs.

    Attributes
    ----------
    kind : {"origin", "curvature", "reset", "vech"}
    mediators : tuple of str
    direct_effect : bool
        Whether the plane had a free intercept.
    test : TestStatistic or NotApplicable
        Corrected-score statistic with its p-value from simulated trials; not applicable with the reason.
    base, added : Series
        Coefficients of the plane without the added terms; coefficients of the added terms (NaN where sampling error
        leaves no estimate, although there is a test).
    std_errors : Series
        Of the added coefficients.
    left : float
        Smallest share of the observed variation of the plane's regressors that is not sampling error.
    detectable : float
        Size of the added coefficient with which 80% of simulated trials reject at 0.05 (one added term; else NaN, as
        where no size that was tried is found so often).
    violation : str
        The violation whose power was simulated, in words.
    power : float
        Share of simulated trials with that violation in which the test rejects at 0.05; those in which compliances
        vary no more than noise count as not rejecting.
    curves : DataFrame
        Column "at" (compliance; with several mediators the plane's value), "null", "smooth", and "lower" and "upper":
        pointwise 95% of the smooth where the plane is the truth. For curvature also "quadratic", corrected.
    sites : DataFrame
        Columns "site", "arm", "at" and "itt" of every row.
    draws, seed : int
    zero_covariance_assumed : bool
        Whether the correction rests on covariances that nobody gave.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    >>> found = mm.surface_test(effects, "curvature", direct_effect=True, draws=199)
    >>> found.test.pvalue > 0.05, found.power < 0.2  # no sign of curvature, and little chance of one
    (True, True)
    >>> list(found.curves.columns)
    ['at', 'smooth', 'lower', 'upper', 'null', 'quadratic']
    """

    kind: SurfaceKind
    mediators: tuple[str, ...]
    direct_effect: bool
    test: TestResult
    base: pd.Series[float]
    added: pd.Series[float]
    std_errors: pd.Series[float]
    left: float
    detectable: float
    violation: str
    power: float
    curves: pd.DataFrame
    sites: pd.DataFrame
    draws: int
    seed: int
    zero_covariance_assumed: bool

    def evidence(self) -> tuple[Evidence, ...]:
        """The test as one entry of an audit."""
        role: Role = "context" if self.kind == "vech" or self.zero_covariance_assumed else "evidence"
        if isinstance(self.test, NotApplicable):
            return (Evidence(_CHECKS[self.kind], self.test, role),)
        return (Evidence(_CHECKS[self.kind], self.test, role, self._reading(), self._detectable()),)

    def _reading(self) -> str:
        said = []
        if len(self.added) == 1 and np.isfinite(self.added.iloc[0]):
            what = {
                "origin": "Direct effect where compliance is zero",
                "curvature": "Coefficient of squared compliance",
            }.get(self.kind, "Coefficient of the square of the plane's value")
            said.append(f"{what}: {self.added.iloc[0]:.3g} (standard error {self.std_errors.iloc[0]:.2g}).")
        elif len(self.added) == 1:
            said.append("Sampling error leaves no estimate of the added term, only its score.")
        said.append(_MEANS["origin" if self.kind == "origin" else "bend"])
        if self.zero_covariance_assumed:
            said.append("Cov(itt, compliance) was not given and counts as zero; the correction rests on it.")
        return " ".join(said)

    def _detectable(self) -> str:
        if not np.isfinite(self.power):
            return ""
        comma = "" if self.kind == "curvature" else ","
        often = f"{self.violation}{comma} would be found {100.0 * self.power:.0f} times in 100."
        if np.isfinite(self.detectable):
            return f"To be found four times in five, a direct effect would have to be {self.detectable:.3g}; {often}"
        none = " No size that was tried is found four times in five." if self.kind == "origin" else ""
        return often[:1].upper() + often[1:] + none


def surface_test(
    effects: SiteEffects,
    kind: SurfaceKind,
    *,
    direct_effect: bool = False,
    draws: int = 999,
    seed: int = 0,
) -> SurfaceTest:
    """Test whether itt is a plane in compliances, or whether that plane goes through the origin.

    Use "origin" for exclusion (an average direct effect), "curvature" for one mediator, and "reset" (one degree of
    freedom) or "vech" (all squares and products) for several. A rejection says that exclusion, linearity or the
    independence of effects and compliance fails; the opposite is never shown.

    Parameters
    ----------
    effects : SiteEffects
    kind : {"origin", "curvature", "reset", "vech"}
    direct_effect : bool
        Leave the intercept of the plane free, so that a failure of exclusion is not read as curvature.
    draws : int
        Simulated trials behind the p-value, and again as many behind the power.
    seed : int

    Returns
    -------
    SurfaceTest

    Raises
    ------
    ChoiceError
        A kind that does not fit the number of mediators; "origin" with a free intercept; fewer than 19 draws;
        a seed that is no whole number.
    TooFewSitesError, MomentsInsufficient
        No site has estimates, or they have no sampling covariance.

    Notes
    -----
    Statistic: `added_terms` with weights 1 / (V_ee + t^2), V_ee the sampling variance of itt - g'b and t^2 the scatter
    of itt around the plane; for the origin `origin_score`, which finds more. Rows of one site are summed.
    p = (1 + # simulated >= observed) / (1 + draws), where trials are simulated by `NullSurface`. Against F the test of
    the origin would be too loose and that of curvature with a free intercept too strict. RESET takes the larger of
    both p-values: where its slopes are noisy and covariances are estimated, simulation alone is too loose. It and
    "vech" need 40 sites, the others 12. With noisy compliances they reject between .02 and .08 of clean trials, where
    least squares with an intercept or a square rejects up to all of them; a curvature beside a free intercept is
    seldom found there (docs/validation/linearity.csv). ``detectable`` is found by trying sizes on simulated trials:
    2.8 times the standard error is found much less often with few sites, and there may be no size that is.

    References
    ----------
    Reardon & Raudenbush (2013), Under what assumptions do site-by-treatment instruments identify average causal
    effects?, Sociological Methods & Research 42: 143-163. Ramsey (1969), Tests for specification errors in classical
    linear least-squares regression analysis, Journal of the Royal Statistical Society B 31: 350-371, the test of the
    squared fitted value.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    >>> found = surface_test(effects, "origin", draws=199)
    >>> float(found.added["direct_effect"].round(1)), found.test.pvalue > 0.05
    (3.8, True)
    """
    _check(effects, kind, direct_effect=direct_effect, draws=draws, seed=seed)
    plain = Surface.of(surface_rows(effects), kind, effects.mediators, direct_effect=direct_effect)
    reason = plain.unusable()
    surface = plain if reason else plain.weighted()
    trials = None if reason else compare(surface, draws=draws, seed=seed)
    test: TestResult
    if trials is None:
        test = NotApplicable(_TITLES[kind], reason)
    elif trials.reason:
        test = NotApplicable(_TITLES[kind], trials.reason)
    else:
        stat = float(trials.found.statistic)
        test = TestStatistic(
            _TITLES[kind], _NULLS[kind], stat, trials.pvalue, trials.found.df, law=trials.law
        )
    return _result(effects, surface, trials, test, draws=draws, seed=seed)


def _check(
    effects: SiteEffects, kind: SurfaceKind, *, direct_effect: object, draws: object, seed: object
) -> None:
    check_effects(effects)
    check_choice(kind, SurfaceKind, "kind")
    if not isinstance(direct_effect, bool | np.bool_):
        raise ChoiceError(f"direct_effect={direct_effect!r} must be True or False.")
    p = len(effects.mediators)
    if kind == "curvature" and p > 1:
        raise ChoiceError(f"kind='curvature' is for one mediator; there are {p}. Use 'reset' or 'vech'.")
    if kind in ("reset", "vech") and p == 1:
        raise ChoiceError(f"kind={kind!r} is for several mediators; with one it is 'curvature'.")
    if kind == "origin" and direct_effect:
        raise ChoiceError("kind='origin' tests the intercept that direct_effect=True would leave free.")
    whole_number(draws, "draws", least=19, more=": with fewer no p-value can be 0.05. Better 999")
    whole_number(seed, "seed", least=0)


def _result(
    effects: SiteEffects, surface: Surface, trials: Trials | None, test: TestResult, *, draws: int, seed: int
) -> SurfaceTest:
    """Everything in the units of the data."""
    base, added = surface.terms
    nothing = np.full(len(added), np.nan)
    if trials is not None and trials.null is not None:
        found, unit = trials.found, surface.added_unit
        plane = surface.base(found.base_coefficients)
        coefficients, errors, left = (
            found.coefficients * unit,
            found.std_errors * np.abs(unit),
            float(found.left),
        )
    else:
        plane, coefficients, errors, left = np.full(len(base), np.nan), nothing, nothing, float("nan")
    names = [t.name for t in added]
    sites = _sites(effects, surface, plane)
    return SurfaceTest(
        kind=surface.kind,
        mediators=effects.mediators,
        direct_effect=surface.direct_effect,
        test=test,
        base=pd.Series(plane, [t.name for t in base]),
        added=pd.Series(coefficients, names),
        std_errors=pd.Series(errors, names),
        left=left,
        detectable=float("nan") if trials is None else trials.detectable,
        violation="" if trials is None else trials.violation,
        power=float("nan") if trials is None else trials.power,
        curves=_curves(surface, trials, plane, sites),
        sites=sites,
        draws=draws,
        seed=seed,
        zero_covariance_assumed=effects.zero_covariance_assumed,
    )


def _sites(effects: SiteEffects, surface: Surface, plane: Array) -> pd.DataFrame:
    """Every row with where it stands: its compliance, or with several mediators the plane's value."""
    site, arm = np.nonzero(estimated(effects))
    values = surface.rows.values
    return pd.DataFrame(
        {
            "site": [effects.sites[s] for s in site],
            "arm": [effects.contrasts[d] for d in arm],
            "at": _place(surface, values, plane),
            "itt": values[:, 0],
        }
    )


def _place(surface: Surface, values: Array, plane: Array) -> Array:
    p = len(surface.mediators)
    return np.asarray(values[..., 1] if p == 1 else values[..., 1:] @ plane[:p])


def _curves(surface: Surface, trials: Trials | None, plane: Array, sites: pd.DataFrame) -> pd.DataFrame:
    """Curves of the figure; none where there is no plane."""
    if trials is None or trials.null is None:
        return pd.DataFrame(columns=["at", "smooth", "lower", "upper", "null"], dtype=float)
    drawn = trials.drawn
    out = smooth_band(
        sites["at"].to_numpy(),
        sites["itt"].to_numpy(),
        None if drawn is None else _place(surface, drawn, plane),
        None if drawn is None else drawn[..., 0],
        weights=surface.weights,
    )
    at = out["at"].to_numpy()
    out["null"] = trials.null.intercept + (at * plane[0] if len(surface.mediators) == 1 else at)
    if surface.kind == "curvature":
        out["quadratic"] = surface.quadratic(trials.found, at)
    return out

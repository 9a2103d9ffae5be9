"""How mediator effects differ across sites, and whether that changes what is estimated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from msmmiv.diagnose.estimands import Estimand, weightings
from msmmiv.diagnose.least_q import Minimum, blocks_of, least_q
from msmmiv.diagnose.spread import Spread, SpreadMethod
from msmmiv.errors import DataError, TooFewSitesError, check_choice, count
from msmmiv.estimate.corrected import Corrected, corrected_iv
from msmmiv.estimate.site_moments import site_rows
from msmmiv.inference.tests import NotApplicable, TestResult, chi2_test
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["Heterogeneity", "SpreadMethod", "heterogeneity"]


@dataclass(frozen=True, eq=False)
class Heterogeneity:
    """How mediator effects vary across sites; ``str`` gives the page, `to_frame` the numbers.

    Attributes
    ----------
    mediators : tuple of str
    n_sites : int
        Sites with estimates.
    direct_effect : bool
    level : float
    q : TestStatistic or NotApplicable
        Least Q: Cochran's Q, Hansen's J (continuously updated) and the over-identification test in one.
    i2 : float
        Share of the residual variation that sampling error does not explain; NaN without a test.
    q_coefficients : (P,) array
        Where Q is least; NaN where that is at infinity.
    centre, centre_se : (P,) arrays
        `corrected_iv`, the mean effect that the spread is measured around, and its standard error by site with
        factor K / (K - coefficients).
    spread : (P,) array
        Standard deviation of site effects beyond sampling error; NaN with a ``spread_status``.
    spread_interval : (2,) array
        Q-profile limits of ``spread`` (one mediator).
    moment_variance : float
        Moment estimate of the variance (one mediator); negative when residuals vary less than expected.
    covariance : (P, P) array
        Of site effects.
    spread_method : str
    spread_status : str or None
    prediction : (P, 2) array
        Interval for the effect in a new site.
    site_effects : DataFrame or None
        One mediator: ``site, effect, sd, weight``, shrunken towards ``centre`` by one less weight; ``sd`` takes the
        spread as known.
    estimands : tuple of Estimand
        Averages under different weights.
    contrasts : tuple of TestResult
        Hausman tests that two averages agree.
    notes : tuple of str
    """

    mediators: tuple[str, ...]
    n_sites: int
    direct_effect: bool
    level: float
    q: TestResult
    i2: float
    q_coefficients: Array
    centre: Array
    centre_se: Array
    spread: Array
    spread_interval: Array
    moment_variance: float
    covariance: Array
    spread_method: str
    spread_status: str | None
    prediction: Array
    site_effects: pd.DataFrame | None
    estimands: tuple[Estimand, ...]
    contrasts: tuple[TestResult, ...]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What the test says and does not say."""
        if isinstance(self.q, NotApplicable):
            return f"There is no test that effects are the same in all sites: {self.q.reason}."
        if self.q.pvalue < 1.0 - self.level:
            return (
                "One effect per mediator does not fit all sites: effects differ across sites, or the treatment "
                "works past the mediators, or mediators act on each other, or inside sites effects go with "
                "compliance. It does not say which, and it does not "
                "contradict assumption (ix): use standard errors clustered by site."
            )
        return (
            "One effect per mediator fits all sites within sampling error. That does not show that effects are equal "
            "or that assumptions hold; with few sites or large standard errors the test sees little."
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per mediator: ``mediator, centre, std_error, spread, lower, upper`` (of prediction)."""
        return pd.DataFrame({
            "mediator": list(self.mediators), "centre": self.centre, "std_error": self.centre_se,
            "spread": self.spread, "lower": self.prediction[:, 0], "upper": self.prediction[:, 1],
        })  # fmt: skip

    def __str__(self) -> str:
        i2 = f"  I2 {self.i2:.0%}" if np.isfinite(self.i2) else ""
        lines = [f"Effects across {count(self.n_sites, 'site')}", f"{self.q}{i2}", self.sentence, ""]
        for j, name in enumerate(self.mediators):
            lines.append(f"{name}: {self.centre[j]:.4g} (se {self.centre_se[j]:.3g})")
            lines.append(f"  standard deviation across sites {self.spread[j]:.4g}{self._limits()}")
            low, high = self.prediction[j]
            lines.append(f"  a new site, {self.level:.0%}: {low:.4g} to {high:.4g}")
        if self.spread_status:
            lines.append(self.spread_status)
        lines += ["", "Averages under different weights"]
        for e in self.estimands:
            values = ", ".join(f"{v:.4g} (se {s:.3g})" for v, s in zip(e.estimate, e.std_errors, strict=True))
            lines.append(f"  {e.name}: {e.status or values}")
        lines += [f"  {c}" for c in self.contrasts]
        return "\n".join([*lines, *self.notes])

    def _limits(self) -> str:
        low, high = self.spread_interval
        return f", {self.level:.0%} interval {low:.4g} to {high:.4g}" if np.isfinite(low) else ""


def heterogeneity(
    effects: SiteEffects,
    *,
    direct_effect: bool = False,
    level: float = 0.95,
    spread: SpreadMethod = "PM",
) -> Heterogeneity:
    """Report whether mediator effects differ across sites, by how much, and under which weights.

    Use it beside every estimate: it says whether one number describes the sites, what a new site may show, and
    whether averages that weight compliance differently agree, which is direct evidence on assumption (ix).

    Parameters
    ----------
    effects : SiteEffects
    direct_effect : bool
        Free a direct effect of treatment (one per arm).
    level : float
        Of intervals; the sentence uses 1 - level as the size of the test.
    spread : {"PM", "moment"}
        One mediator: Paule-Mandel or the moment estimator. Several mediators always use moments.

    Returns
    -------
    Heterogeneity

    Raises
    ------
    TooFewSitesError
        Fewer rows of sites and arms than coefficients.
    MomentsInsufficient
        A site has no sampling covariance.
    RankDeficientError
        Compliances are in exact proportion.
    DataError
        A sampling covariance that is not positive, or a level outside 0 to 1.

    Notes
    -----
    With residuals e_s = itt_s - g_s'd of exact variance V_ee,s(d) = V_bb - 2 d'V_gb + d'V_gg d,
    Q = min_d sum_s e_s^2 / V_ee,s(d) ~ chi2(rows - P - direct effects). Weights fixed at 1 / V_bb would make the test
    far too timid. Covariances that come from few rows make each ratio e_s / sqrt(V_ee) a Student variable; it is taken
    to the normal scale before it is squared (Wallace 1959), and with several contrasts e_s'V_s^-1 e_s is Hotelling's
    and taken to the scale of chi2. Summed as if covariances were known, Q rejects 21% to 32% of true nulls with 6 rows
    per arm and 50 sites (docs/validation/tests.csv).

    Where effects vary with variance t and compliance has second moment c_s given the data, Var(e_s) = V_ee,s + t c_s.
    Only V_ee,s is estimated from the site, so the ratio has f (V_ee + t c)^2 / V_ee^2 degrees of freedom, f those of
    the site. Paule-Mandel sets Q(t) to its degrees of freedom and the interval inverts Q(t) (Q-profile), d being
    re-estimated at every t. At t = 0 that is the Q that is reported: the interval leaves zero out where p is below
    (1 - level) / 2, half of its error being spent at each end, and Paule-Mandel is zero where Q is below its degrees
    of freedom. The moment estimator is K / (K - P) sum w (e^2 - V_ee) / sum w (g^2 - V_gg), V as estimated: it is
    unbiased.

    Prediction: centre +- t sqrt(spread^2 + se^2) with K - P - 1 degrees of freedom; too short where the spread is
    so small that it is often estimated as zero, and with several mediators in few sites. Site effects:
    centre + t g e / (V_ee + t c), with no ratio of itt to compliance.

    Examples
    --------
    >>> import msmmiv as mm
    >>> e = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")  # heeds classes
    >>> h = heterogeneity(e)
    >>> h.q.dist, round(h.q.pvalue, 2)
    ('chi2(78)', 0.7)
    """
    check_choice(spread, SpreadMethod, "spread")
    if not 0.0 < level < 1.0:
        raise DataError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    rows = site_rows(effects)
    p, direct = len(effects.mediators), len(effects.contrasts) if direct_effect else 0
    df = len(rows.site) - p - direct
    if df < 0:
        raise TooFewSitesError(
            f"{count(len(rows.site), 'row')} of sites and arms cannot identify {count(p, 'mediator')}"
            + (" and a direct effect" if direct else "")
            + ": assumption (viii.b). Leave out mediators or add sites."
        )
    blocks = blocks_of(effects, direct=direct_effect)
    least = least_q(blocks)
    test = _q_test(least, df)
    centre = _centre(effects, direct)
    varied = Spread.of(effects, rows, blocks, least, centre, p=p, df=df, level=level, method=spread)
    estimands, contrasts = weightings(effects, rows, direct=bool(direct))
    k = rows.usable_sites
    return Heterogeneity(
        mediators=effects.mediators,
        n_sites=k,
        direct_effect=direct_effect,
        level=level,
        q=test,
        i2=max(0.0, 1.0 - df / test.stat) if test.stat > 0 else float("nan"),
        q_coefficients=frozen(least.coefficients),
        centre=frozen(centre.coefficients[:p]),
        centre_se=frozen(_errors(centre, k)[:p]),
        spread=frozen(np.sqrt(np.diag(varied.covariance))),
        spread_interval=frozen(varied.interval),
        moment_variance=varied.moment,
        covariance=frozen(varied.covariance),
        spread_method=spread if p == 1 else "moment",
        spread_status=varied.status,
        prediction=frozen(_prediction(centre, np.diag(varied.covariance), k, level)),
        site_effects=varied.shrunken(effects, centre) if p == 1 else None,
        estimands=estimands,
        contrasts=contrasts,
        notes=_notes(effects, least, centre, k) + _one_sided(test, varied, level),
    )


def _q_test(least: Minimum, df: int) -> TestResult:
    if df == 0:
        return NotApplicable(
            "Q", "there are as many coefficients as sites, so that the sites are fitted exactly"
        )
    return chi2_test("Q (Cochran, Hansen J)", "one effect per mediator fits all sites", least.q, df)


def _centre(effects: SiteEffects, direct: int) -> Corrected:
    """`corrected_iv`; a direct effect is the coefficient of a mediator that the arm moves by one everywhere."""
    if not direct:
        return _corrected(effects)
    k, d, m = effects.estimates.shape
    arms = np.broadcast_to(np.eye(d), (k, d, d))
    cov = np.zeros((k, d, m + d, d, m + d))
    cov[:, :, :m, :, :m] = effects.cov
    widened = replace(
        effects,
        mediators=(*effects.mediators, *(f"direct effect {a}".strip() for a in effects.contrasts)),
        estimates=np.concatenate([effects.estimates, arms], axis=2),
        cov=np.where(np.isnan(effects.cov[:, :, :1, :, :1]), np.nan, cov),
    )
    return _corrected(widened)


def _corrected(effects: SiteEffects) -> Corrected:
    try:
        return corrected_iv(effects)
    except (
        TooFewSitesError
    ) as error:  # as many coefficients as sites: estimates exist, standard errors do not
        p = len(effects.mediators)
        none = np.full((len(effects.sites), p), np.nan)
        return Corrected(effects.mediators, none[0], none, str(error), (), p)


def _errors(centre: Corrected, k: int) -> Array:
    spare = k - centre.n_params
    return centre.std_errors * np.sqrt(k / spare) if spare > 0 else np.full(centre.n_params, np.nan)


def _prediction(centre: Corrected, variance: Array, k: int, level: float) -> Array:
    from scipy.special import stdtrit

    p, df = len(variance), k - centre.n_params - 1
    middle = centre.coefficients[:p]
    if df < 1:
        return np.full((p, 2), np.nan)
    half = -float(stdtrit(df, (1.0 - level) / 2.0)) * np.sqrt(variance + _errors(centre, k)[:p] ** 2)
    return np.column_stack([middle - half, middle + half])


def _notes(effects: SiteEffects, least: Minimum, centre: Corrected, k: int) -> tuple[str, ...]:
    notes = [*centre.notes]
    if least.status:
        notes.append(f"{least.status[:1].upper()}{least.status[1:]}.")
    if effects.clusters_ignored:
        notes.append(
            "Sampling covariances take people in one cluster as independent, so Q and the spread are too large."
        )
    if effects.zero_covariance_assumed:
        notes.append("Cov(itt, compliance) was taken as zero; Q, the spread and the averages rest on it.")
    if k < 20:
        notes.append(
            f"With {count(k, 'site')} intervals of the spread are wide and the prediction interval is rough."
        )
    return tuple(notes)


def _one_sided(test: TestResult, varied: Spread, level: float) -> tuple[str, ...]:
    """Why the test can reject while the interval starts at zero."""
    if isinstance(test, NotApplicable) or test.pvalue >= 1.0 - level or varied.interval[0] != 0.0:
        return ()
    why = (
        f"Q rejects at {1.0 - level:.3g} and the interval of the spread still starts at zero: it spends half of its "
        f"error at each end, so that it leaves zero out where p < {(1.0 - level) / 2.0:.3g}."
    )
    return (why,)

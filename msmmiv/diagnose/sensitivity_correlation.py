"""How strongly compliance and effect would have to go together over the sites to overturn an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.heterogeneity import heterogeneity
from msmmiv.diagnose.sensitivity_parts import (
    OriginEstimator,
    Parts,
    as_numbers,
    context,
    deviations,
    parts_of,
    t_quantile,
)
from msmmiv.errors import ChoiceError, DataError, RankDeficientError
from msmmiv.estimate.site_moments import SiteRows, corrected_product, site_rows
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["ComplianceEffectCorrelation", "compliance_effect_correlation", "imbens_manski"]


@dataclass(frozen=True, eq=False)
class ComplianceEffectCorrelation:
    """Coefficients as a function of a correlation of compliance and effect; ``str`` gives the page.

    A correlation here is a multiple one: how well a linear combination of the compliances tells the effect of a
    mediator in a site. With one mediator it is the size of the plain correlation.

    Attributes
    ----------
    mediators : tuple of str
    estimate, std_errors : (P,) arrays
    effect_sd : (P,) array
        Standard deviation of effects over sites that the figures use.
    effect_sd_from : str
    reach : (P,) array
        Largest bias of each coefficient for a correlation of one, before the standard deviations are made larger.
    reach_box : (P,) array
        Likewise if each effect could have that correlation with each compliance separately (with the compliances made
        uncorrelated); not smaller, and not always attainable.
    reach_free : (P,) array
        One mediator: sd(effect) sd(compliance^2) / mean(compliance^2), the largest bias whatever their joint
        distribution; else NaN.
    sign : (P,) array
        Of the bias for a positive correlation (one mediator); else one.
    coefficient_of_variation : float
        Of compliance without its sampling noise (one mediator).
    level : float
    inflate : bool
        Whether the standard deviation of effects is taken as larger under a correlation rho, by 1 / sqrt(1 - rho^2).
    status : str or None
    """

    mediators: tuple[str, ...]
    estimate: Array
    std_errors: Array
    effect_sd: Array
    effect_sd_from: str
    reach: Array
    reach_box: Array
    reach_free: Array
    sign: Array
    coefficient_of_variation: float
    level: float
    inflate: bool
    status: str | None
    parts: Parts = field(repr=False)

    def bias(self, rho: float) -> Array:
        """(P,) largest bias at this correlation; of one mediator, the bias, with its sign."""
        size = self._size(rho)
        return np.asarray(size * self.reach * (self.sign if len(self.mediators) == 1 else 1.0))

    def _size(self, rho: float) -> float:
        given = as_numbers(rho)
        if given.shape != () or not -1.0 <= given <= 1.0 or (self.inflate and abs(given) == 1.0):
            raise DataError(f"rho={rho!r} is not a correlation{' below one' if self.inflate else ''}.")
        return rho / np.sqrt(1.0 - rho**2) if self.inflate else rho

    @property
    def robustness(self) -> Array:
        """(P,) smallest correlation that brings each coefficient to zero; infinite if none does."""
        return self._needed(np.abs(self.estimate))

    @property
    def robustness_limit(self) -> Array:
        """(P,) smallest correlation that brings zero into the interval; zero where it is there already."""
        half = t_quantile(self.level, self.parts.df) * self.std_errors
        return self._needed(np.maximum(np.abs(self.estimate) - half, 0.0))

    @property
    def robustness_free(self) -> Array:
        """(P,) smallest correlation of the effect with squared compliance that does it (one mediator)."""
        return self._needed(np.abs(self.estimate), self.reach_free)

    def _needed(self, distance: Array, reach: Array | None = None) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            k = distance / (self.reach if reach is None else reach)
        if self.inflate:
            with np.errstate(invalid="ignore"):
                return np.asarray(np.where(np.isinf(k), np.inf, k / np.sqrt(1.0 + k**2)))
        return np.asarray(np.where(k > 1.0, np.inf, k))

    def bounds(self, rho: float) -> pd.DataFrame:
        """All coefficients for correlations up to ``rho``: ``mediator, low, high, lower, upper``.

        The first two bound the coefficient, the last two are the interval for it of Imbens and Manski (2004), which is
        Stoye's (2009) here: both ends of the bounds have the standard error of the estimate. The standard deviation
        of effects and the moments of compliance are taken as known.
        """
        half = np.abs(self.bias(rho))
        wide = [imbens_manski(2.0 * b, s, level=self.level, df=self.parts.df)
                for b, s in zip(half.tolist(), self.std_errors.tolist(), strict=True)]  # fmt: skip
        low, high = self.estimate - half, self.estimate + half
        return pd.DataFrame({
            "mediator": list(self.mediators), "low": low, "high": high, "lower": low - wide, "upper": high + wide,
        })  # fmt: skip

    def to_frame(self, correlations: Sequence[float] | None = None) -> pd.DataFrame:
        """The curve: ``rho, mediator, estimate, lower, upper``; for several mediators at the largest bias."""
        grid = np.linspace(-0.9, 0.9, 37) if correlations is None else np.ravel(as_numbers(correlations))
        if not np.isfinite(grid).all():
            raise DataError(f"correlations={correlations!r} must be numbers, such as [0.0, 0.5].")
        half = t_quantile(self.level, self.parts.df) * self.std_errors
        rows = [
            pd.DataFrame({
                "rho": rho, "mediator": list(self.mediators), "estimate": self.estimate - self.bias(rho),
                "lower": self.estimate - self.bias(rho) - half, "upper": self.estimate - self.bias(rho) + half,
            })
            for rho in grid.tolist()
        ]  # fmt: skip
        return pd.concat(rows, ignore_index=True)

    @property
    def sentence(self) -> str:
        """The robustness values in words."""
        if self.status:
            return f"There is no figure: {self.status}."
        several = len(self.mediators) > 1
        what = (
            "multiple correlation of every effect with the compliances"
            if several
            else "correlation of effect and compliance"
        )
        told = []
        for name, rv, limit, sd in zip(
            self.mediators, self.robustness, self.robustness_limit, self.effect_sd, strict=True
        ):
            zero = (
                f"The coefficient of {name} is zero at a {what} of {rv:.2g}"
                if np.isfinite(rv)
                else f"No {what} makes the coefficient of {name} zero"
            )
            also = (
                f"; its {self.level:.0%} interval includes zero already without any"
                if limit == 0.0
                else f", and its {self.level:.0%} interval includes zero once it is {limit:.2g}"
                if np.isfinite(limit)
                else ""
            )
            told.append(f"{zero}{also} (standard deviation of effects {sd:.3g}, {self.effect_sd_from})")
        return ". ".join(told) + "."

    def __str__(self) -> str:
        return f"Sensitivity to compliance and effect going together over sites\n{self.sentence}"

    def evidence(self) -> Evidence:
        """Context for assumption (ix)."""
        why = "it says how strong a dependence would matter, not whether there is one"
        return context("sensitivity.compliance_effect_correlation", why, self.sentence)


def compliance_effect_correlation(
    effects: SiteEffects,
    *,
    effect_sd: float | Sequence[float] | None = None,
    estimator: OriginEstimator = "ujive",
    inflate: bool | None = None,
    level: float = 0.95,
) -> ComplianceEffectCorrelation:
    """How strong a dependence of effects on compliance, over sites, would overturn an estimate.

    Use it to say how far assumption (ix) would have to fail. It needs the standard deviation of effects over sites:
    where effects do not differ, nothing can go with compliance.

    Parameters
    ----------
    effects : SiteEffects
    effect_sd : float or sequence of float, optional
        Standard deviation of the effects over sites, one per mediator. Default: as `heterogeneity` estimates it.
    estimator : {"ujive", "2sls"}
    inflate : bool, optional
        The estimated spread is computed as if (ix) held, and misses what goes with compliance. With True it is taken as
        larger by 1 / sqrt(1 - rho^2), the most that it can miss; with False as it is. Default: only if it is estimated.
    level : float

    Returns
    -------
    ComplianceEffectCorrelation
        With a ``status`` where the spread is not known or compliance varies no more than noise.

    Raises
    ------
    TooFewSitesError, MomentsInsufficient
    ChoiceError
        An unknown estimator, or ``inflate`` that is not a truth value.
    DataError
        Standard deviations that are not positive, or not one per mediator; a level outside 0 to 1.

    Notes
    -----
    The bias is A^-1 E[w g g'(delta_s - delta)]. Let the part of delta_q that goes with compliances be
    sigma_q R_q'z, z = S^-1/2 (g - mu), with R_q no longer than rho. Then the bias of p is sum_q sigma_q R_q'c_pq with
    c_pqr = sum_jt [A^-1]_pj E_w[g_j g_q (g_t - mu_t)] [S^-1/2]_tr, at most rho times the sum over q of sigma_q times
    the length of c_pq: attained, and the same for every root of S. Third central moments of compliances are taken as
    zero, so that E[g_j g_q (g_t - mu_t)] = mu_j S_qt + mu_q S_jt. One mediator: rho sigma 2 CV / (1 + CV^2), largest
    at CV = 1.
    The box bound adds up the sizes of c_pqr instead. All moments are weighted as in 2SLS and without sampling noise.

    Robustness value: k = size of the estimate / reach, or k / sqrt(1 + k^2) with ``inflate``.

    References
    ----------
    Reardon, Unlu, Zhu & Bloom (2014), Bias and bias correction in multisite instrumental variables analysis of
    heterogeneous mediator effects, Journal of Educational and Behavioral Statistics 39: 53-86, for the bias of one
    mediator. Imbens & Manski (2004), Confidence intervals for partially identified parameters, Econometrica 72:
    1845-1857, and Stoye (2009), More on confidence intervals for partially identified parameters, Econometrica 77:
    1299-1315, for the intervals.

    Examples
    --------
    >>> from msmmiv.plan.simulate import simulate
    >>> found = compliance_effect_correlation(simulate(sites=60, people=100, effect_sd=0.3, seed=3).effects)
    >>> round(found.coefficient_of_variation, 2), round(float(found.robustness[0]), 2)
    (0.64, 0.96)
    """
    t_quantile(level, 1)
    if not (inflate is None or isinstance(inflate, bool | np.bool_)):
        raise ChoiceError(f"inflate={inflate!r} must be True, False or None.")
    parts, rows, p = parts_of(effects, estimator), site_rows(effects), len(effects.mediators)
    sd, source, status = _spread(effects, effect_sd)
    mean, spread, fourth = _moments(rows)
    status = parts.status or status
    values = np.linalg.eigvalsh(_unit(spread)) if (np.diag(spread) > 0).all() else np.array([-1.0])
    if status is None and values[0] <= 1e-10:
        status = "compliances vary over sites no more than sampling noise"
    none = np.full(p, np.nan)
    reach, box, free, cv = none, none, none, float("nan")
    if status is None:
        c = _response(mean, spread) * sd[None, :, None]
        reach, box = np.sqrt((c**2).sum(axis=2)).sum(axis=1), np.abs(c).sum(axis=(1, 2))
        if p == 1:
            square = float(mean[0] ** 2 + spread[0, 0])
            free = sd * (np.sqrt(fourth - square**2) / square if fourth > square**2 else np.nan)
            cv = float(np.sqrt(spread[0, 0]) / abs(mean[0]))
    return ComplianceEffectCorrelation(
        parts.mediators, frozen(parts.estimate), frozen(np.sqrt(np.diag(parts.spread[0, 0]))), frozen(sd), source,
        frozen(reach), frozen(box), frozen(free), frozen(np.sign(mean) if p == 1 else np.ones(p)), cv, level,
        effect_sd is None if inflate is None else inflate, status, parts,
    )  # fmt: skip


def _spread(effects: SiteEffects, given: float | Sequence[float] | None) -> tuple[Array, str, str | None]:
    """Standard deviations of effects over sites, where they are from, and why there are none."""
    p = len(effects.mediators)
    if given is not None:
        return deviations(given, p, "effect_sd"), "as given", None
    try:
        found = heterogeneity(effects)
    except RankDeficientError as error:
        return np.full(p, np.nan), "not estimated", str(error)
    sd = np.array(found.spread)
    lost = ~np.isfinite(sd)
    if lost.any():
        why = (found.spread_status or "the sites do not tell how effects differ").rstrip(".")
        return sd, "not estimated", f"{why[:1].lower()}{why[1:]}; give effect_sd"
    if (sd == 0).all():
        why = "effects do not differ more than sampling error explains; give effect_sd to see what a spread would do"
        return sd, "estimated", why
    return sd, "estimated from the sites", None


def _moments(rows: SiteRows) -> tuple[Array, Array, float]:
    """Weighted mean and covariance of compliances without sampling noise; fourth moment of the first."""
    w, g, v = rows.weights("precision"), rows.values[:, 1:], rows.cov[:, 1:, 1:]
    mean = w @ g
    # The square of the mean holds noise of its own: sum w^2 V.
    square = np.outer(mean, mean) - np.einsum("r,rpq->pq", w**2, v)
    spread = np.einsum("r,rp,rq->pq", w, g, g) - np.einsum("r,rpq->pq", w, v) - square
    spread = (spread + spread.T) / 2.0 / (1.0 - float(w @ w)) if len(w) > 1 else np.full_like(spread, np.nan)
    return mean, spread, float(w @ corrected_product(g, v, (0, 0, 0, 0)))


def _unit(spread: Array) -> Array:
    scale = np.sqrt(np.diag(spread))
    return np.asarray(spread / np.outer(scale, scale))


def _response(mean: Array, spread: Array) -> Array:
    """(P, P, P) c_pqr: bias of p when the effect of q rises by one with z_r; third central moments zero."""
    third = mean[:, None, None] * spread + mean[None, :, None] * spread[:, None, :]
    scale = np.sqrt(np.diag(spread))
    values, vectors = np.linalg.eigh(_unit(spread))
    root = (vectors / np.sqrt(values)) @ vectors.T / scale[:, None]
    second = spread + np.outer(mean, mean)
    return np.asarray(np.einsum("pj,jqt,tr->pqr", np.linalg.inv(second), third, root, optimize=True))


def imbens_manski(width: float, std_error: float, *, level: float = 0.95, df: float = np.inf) -> float:
    """What to add on both sides of bounds of this width so that the interval holds a value inside them.

    Parameters
    ----------
    width, std_error : float
        Of the bounds, and of either end; NaN where they are not known.
    level, df : float

    Raises
    ------
    DataError
        A negative width or standard error, what is no number, or a level outside 0 to 1.

    Notes
    -----
    C with F(C + width / se) - F(-C) = level (Imbens and Manski 2004, for normal F; here Student's t): the two-sided
    quantile without any width, the one-sided one for wide bounds.

    Examples
    --------
    >>> round(imbens_manski(0.0, 1.0), 3), round(imbens_manski(9.0, 1.0), 3)
    (1.96, 1.645)
    """
    from scipy.special import ndtr, stdtr

    t_quantile(level, 1)  # no end of the interval is far enough for a level of one
    given: dict[str, object] = {"width": width, "std_error": std_error, "df": df}
    for name, value in given.items():
        number = as_numbers(value)
        known = not (isinstance(value, float) and np.isnan(value))
        if known and (number.shape != () or not number >= 0):
            raise DataError(f"{name}={value!r} must be a number of zero or more.")
    if not (np.isfinite(width) and np.isfinite(std_error)) or df <= 0:
        return float("nan")
    if std_error == 0.0:
        return 0.0

    def inside(c: float) -> float:
        up = c + width / std_error
        both = (ndtr(up) - ndtr(-c)) if np.isinf(df) else (stdtr(df, up) - stdtr(df, -c))
        return float(both)

    low, high = 0.0, 1.0
    while inside(high) < level:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return high * std_error

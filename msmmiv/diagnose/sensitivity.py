"""How large a direct effect of the treatment would overturn an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.sensitivity_parts import (
    OriginEstimator,
    Parts,
    as_numbers,
    check_effects,
    context,
    one_number,
    parts_of,
    t_quantile,
)
from msmmiv.errors import DataError
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["DirectEffectLine", "direct_effect_line", "outcome_spread"]


def outcome_spread(moments: Moments) -> float:
    """Standard deviation of the outcome inside sites and arms, a unit in which direct effects can be judged.

    Examples
    --------
    >>> import msmmiv as mm
    >>> round(outcome_spread(mm.data.star()), 1)
    41.9
    """
    arms = max(len(moments.arms), 1)
    cells = moments.first.merged(*_compact(moments.site * arms + moments.arm))
    free = float(cells.weight.sum()) - len(cells.weight) * float(cells.weight.sum() / moments.n.sum())
    return float(np.sqrt(cells.scatter[:, 0, 0].sum() / free))


def _compact(codes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
    names, groups = np.unique(codes, return_inverse=True)
    return groups, len(names)


@dataclass(frozen=True, eq=False)
class DirectEffectLine:
    """Coefficients as a line in the direct effect that is assumed; ``str`` gives the page, `to_frame` the line.

    Attributes
    ----------
    mediators : tuple of str
    estimate, slope : (P,) arrays
        Coefficients with no direct effect, and how much lower they are for each unit of one.
    flip : (P,) array
        Direct effect, the same in all sites, at which the coefficient is zero.
    touch : (P,) array
        The one nearest to zero at which its interval holds zero; zero where it does already, infinite where it never
        does.
    free_direct, free_se : float
        The direct effect when the sites estimate it, and its standard error.
    unit : float
    unit_name : str
        What `robustness` is measured in.
    level : float
    status : str or None
        Why there is no line.
    by : str
        The estimator in words, with the noise it takes out.
    """

    mediators: tuple[str, ...]
    estimate: Array
    slope: Array
    flip: Array
    touch: Array
    free_direct: float
    free_se: float
    unit: float
    unit_name: str
    level: float
    status: str | None
    parts: Parts = field(repr=False)
    by: str = ""

    @property
    def robustness(self) -> Array:
        """(P,) size of a common direct effect that brings each coefficient to zero, in units."""
        return np.abs(self.flip) / self.unit

    @property
    def robustness_limit(self) -> Array:
        """(P,) size of one that brings zero into the interval, in units."""
        return np.abs(self.touch) / self.unit

    def at(self, kappa: float | npt.ArrayLike) -> Array:
        """(P,) coefficients under a direct effect: one for all sites, or one per site (K of them)."""
        given = as_numbers(kappa)
        if given.ndim > 1 or (given.ndim == 1 and len(given) != len(self.parts.cross)):
            raise DataError(
                f"kappa needs one value, or {len(self.parts.cross)}, one per site; got {given.shape}."
            )
        if not np.isfinite(given).all():
            raise DataError(f"kappa={kappa!r} must be one number, or {len(self.parts.cross)}, one per site.")
        moved = np.broadcast_to(given, (len(self.parts.cross),)) @ self.parts.offset
        return np.asarray(self.estimate - self.parts.inverse @ moved)

    def std_errors(self, kappa: float) -> Array:
        """(P,) standard errors under a common direct effect, sites as sampled units."""
        kappa, v = one_number(kappa, "kappa"), self.parts.spread
        both = v[0, 0] - kappa * (v[0, 1] + v[1, 0]) + kappa**2 * v[1, 1]
        return np.sqrt(np.maximum(np.diag(both), 0.0))

    def union(self, low: float, high: float) -> pd.DataFrame:
        """Union of the intervals over all common direct effects in a range: ``mediator, lower, upper``.

        The union of intervals is that of Conley, Hansen and Rossi (2012). The ends of an interval are a line less or
        plus a convex root, so that it is reached at the ends of the range.
        """
        low, high = one_number(low, "low"), one_number(high, "high")
        if low > high:
            raise DataError(f"The range {low!r} to {high!r} of direct effects is empty.")
        t = t_quantile(self.level, self.parts.df)
        ends = [(self.at(k), t * self.std_errors(k)) for k in (low, high)]
        return pd.DataFrame({
            "mediator": list(self.mediators), "lower": np.min([b - h for b, h in ends], axis=0),
            "upper": np.max([b + h for b, h in ends], axis=0),
        })  # fmt: skip

    def under_prior(self, *, mean: float = 0.0, sd: float, site_sd: float = 0.0) -> pd.DataFrame:
        """Coefficients when the direct effect is known only as N(mean, sd^2): ``mediator, estimate, std_error, ...``.

        ``site_sd`` adds direct effects that differ between sites independently of compliance. Those that are in the
        data are in the standard errors already, which take sites as sampled; it counts further ones.

        Notes
        -----
        N(b - mean D, V + sd^2 D D' + site_sd^2 A^-1 (sum_s h_s h_s') A^-1) with D the `slope` and h_s the compliances
        of a site, weighted: the local-to-zero form of Conley, Hansen and Rossi (2012). V is taken at the mean.
        """
        mean, sd = one_number(mean, "mean"), one_number(sd, "sd", negative=False)
        site_sd = one_number(site_sd, "site_sd", negative=False)
        own = self.parts.offset @ self.parts.inverse.T
        variance = self.std_errors(mean) ** 2 + (sd * self.slope) ** 2 + site_sd**2 * (own**2).sum(axis=0)
        b, half = self.at(mean), t_quantile(self.level, self.parts.df) * np.sqrt(variance)
        return pd.DataFrame({
            "mediator": list(self.mediators), "estimate": b, "std_error": np.sqrt(variance), "lower": b - half,
            "upper": b + half,
        })  # fmt: skip

    def to_frame(self, kappas: Sequence[float] | None = None) -> pd.DataFrame:
        """The line: ``kappa, mediator, estimate, std_error, lower, upper``, over a range that holds what matters."""
        grid = self._range() if kappas is None else np.ravel(as_numbers(kappas))
        if not np.isfinite(grid).all():
            raise DataError(f"kappas={kappas!r} must be numbers, such as [0.0, 0.5].")
        t = t_quantile(self.level, self.parts.df)
        rows = []
        for kappa in grid.tolist():
            b, se = self.at(kappa), self.std_errors(kappa)
            rows.append(pd.DataFrame({
                "kappa": kappa, "mediator": list(self.mediators), "estimate": b, "std_error": se, "lower": b - t * se,
                "upper": b + t * se,
            }))  # fmt: skip
        return pd.concat(rows, ignore_index=True)

    def _range(self) -> Array:
        flips = self.flip[np.isfinite(self.flip)]
        free = self.free_direct + 2.0 * self.free_se * np.array([-1.0, 1.0])
        free = free[np.isfinite(free)]
        if len(flips):  # an interval of the direct effect as wide as nothing would hide the rest
            free = np.clip(free, *(2.5 * np.abs(flips).max() * np.array([-1.0, 1.0])))
        ends = np.concatenate([[0.0], 1.2 * flips, free])
        pad = 0.06 * float(np.ptp(ends))
        return (
            np.linspace(float(ends.min()) - pad, float(ends.max()) + pad, 41) if pad > 0 else np.array([0.0])
        )

    @property
    def sentence(self) -> str:
        """What the line says, in words."""
        if self.status:
            return f"There is no line: {self.status}."
        by = f" by {self.by}" if self.by else ""
        told = [
            f"The coefficient of {name}, {b:.3g}{by}, would be zero under a direct effect of {flip:.3g} in every site "
            f"({size:.2g} {self.unit_name}); {self._when(j)}"
            for j, (name, b, flip, size) in enumerate(
                zip(self.mediators, self.estimate, self.flip, self.robustness, strict=True)
            )
        ]
        free = (
            f" Estimated from the sites, the direct effect is {self.free_direct:.3g} (se {self.free_se:.2g})."
            if np.isfinite(self.free_direct)
            else ""
        )
        return ". ".join(told) + "." + free

    def _when(self, j: int) -> str:
        touch = float(self.touch[j])
        if np.isnan(touch):
            return "there are too few sites for an interval"
        if touch == 0.0:
            return f"its {self.level:.0%} interval includes zero already without a direct effect"
        return (
            f"its {self.level:.0%} interval includes zero once the direct effect is {touch:.3g}"
            if np.isfinite(touch)
            else f"no direct effect brings zero into its {self.level:.0%} interval"
        )

    def __str__(self) -> str:
        return f"Sensitivity to a direct effect\n{self.sentence}"

    def evidence(self) -> Evidence:
        """Context for assumption (ii)."""
        name = "sensitivity.direct_effect_line"
        return context(
            name, "it says how large a direct effect would matter, not whether there is one", self.sentence
        )


def direct_effect_line(
    effects: SiteEffects,
    *,
    estimator: OriginEstimator = "ujive",
    outcome_sd: float | None = None,
    level: float = 0.95,
) -> DirectEffectLine:
    """What mediator effects become when assignment has a direct effect of a given size.

    Use it to say how wrong exclusion, assumption (ii), would have to be before a conclusion changes, and to compare
    that with the direct effect which the sites themselves estimate.

    Parameters
    ----------
    effects : SiteEffects
    estimator : {"ujive", "2sls"}
        With the sampling noise of compliances removed, or not.
    outcome_sd : float, optional
        Unit of the robustness values, such as `outcome_spread`; without it, the standard deviation of itt over sites.
    level : float

    Returns
    -------
    DirectEffectLine

    Raises
    ------
    TooFewSitesError, MomentsInsufficient
    ChoiceError
        An unknown estimator.
    DataError
        A unit that is not positive, or a level outside 0 to 1.

    Notes
    -----
    If itt_s = g_s'delta + kappa then delta(kappa) = b - kappa A^-1 sum_s h_s, with h_s = g_s'Omega_s 1 (w g for two
    arms) and A, b those of the estimator: exactly the fit to itt - kappa. The interval is b(kappa) +- t se(kappa), the
    standard error with the same kappa, so the values at which it holds zero are Fieller's set for the ratio of b to
    its slope. At ``free_direct`` the line passes through the fit in which one direct effect is free (Fu 2023): exactly
    through that of the same equations, in which a direct effect is a mediator that every arm moves by one without
    error. With "2sls" and two arms this is ``fit(..., "2sls", direct_effect=True)``. With "ujive" it differs by a term
    of order 1/K from ``fit(..., "ujive", direct_effect=True)``, which takes off w_s - w_s^2 / sum w times the noise of
    a site instead of w_s times it: the direct effect has taken up the rest. A per-site kappa is allowed in
    `DirectEffectLine.at`.

    References
    ----------
    Conley, Hansen & Rossi (2012), Plausibly exogenous, Review of Economics and Statistics 94: 260-272. Fu (2023),
    Extract mechanisms from heterogeneous effects: a new identification strategy for mediation analysis.

    Examples
    --------
    >>> import msmmiv as mm
    >>> star = mm.data.star()
    >>> effects = mm.SiteEffects.from_moments(star, cov_type="pooled")  # heeds classes
    >>> line = direct_effect_line(effects, outcome_sd=outcome_spread(star))
    >>> line.flip.round(2).tolist(), line.robustness.round(2).tolist()
    ([9.07], [0.22])
    """
    t_quantile(level, 1)
    check_effects(effects)
    unit, name = _unit(effects, outcome_sd)
    parts = parts_of(effects, estimator)
    with np.errstate(divide="ignore", invalid="ignore"):
        flip = np.where(parts.slope == 0.0, np.inf, parts.estimate / parts.slope)
    free, error = parts.free
    return DirectEffectLine(
        parts.mediators, frozen(parts.estimate), frozen(parts.slope), frozen(flip),
        frozen(_touch(parts, level)), free, error, unit, name, level, parts.status, parts,
        "2SLS from site effects" if estimator == "2sls" else f"UJIVE from site effects with {effects.cov_type} noise",
    )  # fmt: skip


def _unit(effects: SiteEffects, outcome_sd: float | None) -> tuple[float, str]:
    if outcome_sd is not None:
        unit = as_numbers(outcome_sd)
        if unit.shape != () or not (np.isfinite(unit) and unit > 0):
            raise DataError(
                f"outcome_sd={outcome_sd!r} must be a positive number, such as outcome_spread(moments)."
            )
        return float(unit), "standard deviations of the outcome"
    itt = effects.estimates[:, :, 0]
    itt = itt[np.isfinite(itt)]
    return float(itt.std(ddof=1)) if len(itt) > 1 else float("nan"), "standard deviations of itt over sites"


def _touch(parts: Parts, level: float) -> Array:
    """Smallest direct effect at which b(kappa)^2 <= t^2 se(kappa)^2: a root of a quadratic, or none."""
    p = len(parts.mediators)
    if parts.status or parts.df <= 0:
        return np.full(p, np.nan)
    t2 = t_quantile(level, parts.df) ** 2
    v = parts.spread
    constant = parts.estimate**2 - t2 * np.diag(v[0, 0])
    linear = parts.estimate * parts.slope - t2 * np.diag(v[0, 1])
    square = parts.slope**2 - t2 * np.diag(v[1, 1])
    out = np.zeros(p)
    for j in np.flatnonzero(constant > 0):
        roots = np.roots([square[j], -2.0 * linear[j], constant[j]])
        real = roots[np.abs(roots.imag) <= 1e-12 * np.abs(roots)].real
        out[j] = real[np.abs(real).argmin()] if len(real) else np.inf
    return out

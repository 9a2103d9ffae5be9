"""Where two-stage least squares goes when assumption (ix) fails and when instruments are weak.

Its expectation is the average effect plus three parts: sites whose compliance is larger have other effects,
sites that weigh more have other effects, and compliances are estimated on the people whose outcomes they explain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.errors import DataError, RankDeficientError, TooFewSitesError, listing
from msmmiv.estimate.corrected import BCLinear, Corrected, corrected_iv
from msmmiv.estimate.site_moments import weighted_products
from msmmiv.linalg import Array, dependent_columns, frozen, gram_solve
from msmmiv.moments.effects import SiteEffects

__all__ = ["BiasDecomposition", "BiasPart", "bias_decomposition"]

_Piece: TypeAlias = tuple[Array, Array, str | None]


@dataclass(frozen=True, eq=False)
class BiasPart:
    """One term of the expectation of 2SLS.

    Attributes
    ----------
    name, meaning : str
    estimate : (P,) array
        NaN with a ``status``.
    std_errors : (P,) array
        With sites as sampled units.
    status : str or None
        Why there is no figure.
    """

    name: str
    meaning: str
    estimate: Array
    std_errors: Array
    status: str | None


@dataclass(frozen=True, eq=False)
class BiasDecomposition:
    """The expectation of 2SLS as a sum; ``str`` gives the page, `to_frame` the numbers.

    Attributes
    ----------
    mediators : tuple of str
    target, covariance, weight, finite_sample : BiasPart
        Average effect over sites, and what each source adds to it.
    expected : (P,) array
        Their sum; NaN when one of them has a status.
    observed : (P,) array
        2SLS itself.
    least_squares : (P,) array
        Within-arm least squares, which weak instruments pull 2SLS towards.
    f : float
        First-stage F (one mediator), or the smallest one over combinations of mediators (Cragg-Donald).
    notes : tuple of str
    """

    mediators: tuple[str, ...]
    target: BiasPart
    covariance: BiasPart
    weight: BiasPart
    finite_sample: BiasPart
    expected: Array
    observed: Array
    least_squares: Array
    f: float
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[BiasPart, ...]:
        """Target, covariance, weight and finite-sample part, in this order."""
        return self.target, self.covariance, self.weight, self.finite_sample

    def to_frame(self) -> pd.DataFrame:
        """One row per mediator and part: ``mediator, part, estimate, std_error, status``."""
        records = [
            (m, part.name, part.estimate[j], part.std_errors[j], part.status)
            for j, m in enumerate(self.mediators)
            for part in self.parts
        ]
        for j, m in enumerate(self.mediators):
            records.append((m, "expected 2SLS", self.expected[j], np.nan, None))
            records.append((m, "observed 2SLS", self.observed[j], np.nan, None))
        frame = pd.DataFrame(records, columns=["mediator", "part", "estimate", "std_error", "status"])
        order = {name: k for k, name in enumerate(dict.fromkeys(frame["part"]))}
        keys = frame.assign(_m=frame["mediator"].map(self.mediators.index), _p=frame["part"].map(order))
        return keys.sort_values(["_m", "_p"])[list(frame.columns)].reset_index(drop=True)

    def __str__(self) -> str:
        lines = ["What two-stage least squares estimates here"]
        for j, name in enumerate(self.mediators):
            lines += ["", name, *(_line(part, j) for part in self.parts)]
            lines.append(f"  {'expected 2SLS':<22}{_number(self.expected[j])}")
            lines.append(f"  {'observed 2SLS':<22}{_number(self.observed[j])}")
            lines.append(f"  {'least squares':<22}{_number(self.least_squares[j])}")
        lines += ["", self.reading, *self.notes]
        return "\n".join(lines)

    @property
    def reading(self) -> str:
        """Reardon and Raudenbush's account of the parts, in words."""
        return " ".join([
            *(_sentence(part, self.mediators, np.abs(self.observed)) for part in (self.covariance, self.weight)),
            f"Compliances are {self.f:.3g} times their noise (an effective F): {_pull(self.f, self.least_squares)}.",
        ])  # fmt: skip


def bias_decomposition(
    effects: SiteEffects,
    *,
    between: npt.ArrayLike,
    within: npt.ArrayLike,
    n_instruments: int,
) -> BiasDecomposition:
    """Split the expectation of 2SLS into the average effect and three sources of bias.

    Use it to see whether 2SLS can be read as the average effect of each mediator, and which assumption would have
    to hold for that. The parts are estimates; read them with their standard errors.

    Parameters
    ----------
    effects : SiteEffects
    between : (1 + P, 1 + P) array_like
        Cross-products of outcome and mediators projected on the instruments, outcome first: sum_s w_s r_s r_s'.
    within : (1 + P, 1 + P) array_like
        Unbiased residual covariance of outcome and mediators inside sites and arms.
    n_instruments : int
        L, site-by-treatment instruments.

    Returns
    -------
    BiasDecomposition

    Raises
    ------
    DataError
        Matrices of the wrong shape, not symmetric or not finite, or no instruments.
    RankDeficientError
        2SLS itself does not exist.
    TooFewSitesError, MomentsInsufficient

    Notes
    -----
    With delta_s the effects and g_s the compliances of site s:

    * target: the mean of delta_s, by `BCLinear`;
    * covariance: [E gg']^-1 Cov(gg', delta), by `corrected_iv` with equal weights less the target. One mediator:
      Cov(g^2, delta) / E g^2; if effect and compliance are jointly symmetric that is
      rho sd(delta) 2 CV / (1 + CV^2), largest where the standard deviation of compliance equals its mean;
    * weight: what n p (1 - p) weights change, by `corrected_iv` with 2SLS weights less that with equal ones;
    * finite sample: N^-1 L (S_MY - S_MM d), N = ``between``, S = ``within``, d = `corrected_iv`;
      one mediator: (d_OLS - d) / F.

    The sum differs from 2SLS only by how the noise of compliances is estimated (pooled ``within`` here,
    site by site in d): its closeness to 2SLS confirms the arithmetic, not the assumptions. Standard errors are
    those of the summed site influences; for the finite-sample part they take ``within`` as known.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.moments.within import within_sites
    >>> w = within_sites(mm.data.star())
    >>> n, df = w.between.sum(axis=0), w.moments.n.sum() - w.moments.n_cells
    >>> s = (w.total.sum(axis=0) - n) / df
    >>> e = mm.SiteEffects.from_moments(mm.data.star())
    >>> d = bias_decomposition(e, between=n, within=s, n_instruments=79)
    >>> [round(float(p.estimate[0]), 3) for p in d.parts]
    [-1.322, 0.267, -0.061, 0.001]
    """
    p = len(effects.mediators)
    n, s = _matrix(between, p, "between"), _matrix(within, p, "within")
    if n_instruments < 1:
        raise DataError(f"n_instruments={n_instruments} must count the site-by-treatment instruments.")
    if bad := dependent_columns(n[1:, 1:]):
        names = [effects.mediators[j] for j in bad]
        raise RankDeficientError(f"2SLS does not exist: {listing(names)} adds nothing to the first stage.")
    observed = gram_solve(n[1:, 1:], n[1:, 0])
    equal, weighted = corrected_iv(effects, weights="equal"), corrected_iv(effects)
    average = _average(effects)
    pieces = {
        "target": _piece(average),
        "covariance": _difference(equal, average),
        "weight": _difference(weighted, equal),
        "finite sample": _finite_sample(effects, weighted, n, s, n_instruments),
    }
    parts = {name: _part(name, piece) for name, piece in pieces.items()}
    flat = bool(dependent_columns(s[1:, 1:], np.diag(n)[1:]))
    return BiasDecomposition(
        mediators=effects.mediators,
        target=parts["target"],
        covariance=parts["covariance"],
        weight=parts["weight"],
        finite_sample=parts["finite sample"],
        expected=frozen(sum(part.estimate for part in parts.values())),
        observed=frozen(observed),
        least_squares=frozen(np.full(p, np.nan) if flat else gram_solve(s[1:, 1:], s[1:, 0])),
        f=float("inf") if flat else _smallest_f(n[1:, 1:], s[1:, 1:], n_instruments),
        notes=tuple(dict.fromkeys([*average.notes, *equal.notes, *weighted.notes])),
    )


_MEANING = {
    "target": "average effect over sites",
    "covariance": "sites whose compliance is larger have other effects",
    "weight": "sites that weigh more in 2SLS have other effects",
    "finite sample": "weak instruments pull towards least squares within arms",
}


def _average(effects: SiteEffects) -> Corrected:
    try:
        return BCLinear().solve(effects)
    except TooFewSitesError as error:  # 2SLS and its other parts may exist all the same
        k, p = len(effects.sites), len(effects.mediators)
        none = np.full((k, p), np.nan)
        return Corrected(effects.mediators, none[0], none, str(error), (), p * (p + 3) // 2)


def _piece(fit: Corrected) -> _Piece:
    return fit.coefficients, fit.influence, fit.status


def _difference(one: Corrected, other: Corrected) -> _Piece:
    return one.coefficients - other.coefficients, one.influence - other.influence, one.status or other.status


def _finite_sample(effects: SiteEffects, fit: Corrected, n: Array, s: Array, n_instruments: int) -> _Piece:
    """The part, and its site influences through d and through the site's share of N."""
    part = gram_solve(n[1:, 1:], n_instruments * (s[1:, 0] - s[1:, 1:] @ fit.coefficients))
    shares = weighted_products(effects, "precision")[0][:, 1:, 1:]
    shares = shares - shares.mean(axis=0)
    moved = fit.influence @ (n_instruments * s[1:, 1:]) + shares @ part
    return part, -gram_solve(n[1:, 1:], moved.T).T, fit.status


def _part(name: str, piece: _Piece) -> BiasPart:
    estimate, influence, status = piece
    error = np.sqrt((influence**2).sum(axis=0))
    return BiasPart(name, _MEANING[name], frozen(estimate), frozen(error), status)


def _smallest_f(n: Array, s: Array, n_instruments: int) -> float:
    scale = np.sqrt(np.diag(s))
    unit = np.outer(scale, scale)
    half = np.linalg.inv(np.linalg.cholesky(s / unit))
    return float(np.linalg.eigvalsh(half @ (n / unit) @ half.T)[0]) / n_instruments


def _matrix(given: npt.ArrayLike, p: int, name: str) -> Array:
    out = np.asarray(given, dtype=float)
    if out.shape != (1 + p, 1 + p):
        raise DataError(f"{name} has shape {out.shape}; outcome and {p} mediators need ({1 + p}, {1 + p}).")
    scale = np.sqrt(np.abs(np.diag(out)))
    if not np.isfinite(out).all() or (np.abs(out - out.T) > 1e-8 * np.outer(scale, scale)).any():
        raise DataError(f"{name} must be finite and symmetric.")
    if (np.diag(out) < 0).any():
        raise DataError(f"{name} has a negative sum of squares on its diagonal.")
    return np.asarray((out + out.T) / 2.0)


def _number(value: float) -> str:
    return f"{value:>10.4g}" if np.isfinite(value) else f"{'-':>10}"


def _line(part: BiasPart, j: int) -> str:
    lead = "" if part.name == "target" else "+ "
    if part.status:
        return f"  {lead + part.name:<22}{'-':>10}  {part.status}"
    return (
        f"  {lead + part.name:<22}{_number(part.estimate[j])}  (se {part.std_errors[j]:.3g})  {part.meaning}"
    )


def _sentence(part: BiasPart, mediators: tuple[str, ...], size: Array) -> str:
    what = (
        "compliance and effect go together"
        if part.name == "covariance"
        else "site weight and effect go together"
    )
    if part.status:
        return f"Whether {what} cannot be said: {part.status}."
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(part.estimate) / part.std_errors
    # Sites that weigh the same leave a difference of rounding, and a standard error of rounding.
    real = np.abs(part.estimate) > 1e-9 * size
    seen = [m for m, value, is_real in zip(mediators, z, real, strict=True) if value > 1.96 and is_real]
    if not seen:
        return f"The sites give no clear sign that {what}; that is no proof that they do not."
    return f"In these sites {what} for {listing(seen)}, so 2SLS is not the average effect over sites there."


def _pull(f: float, least_squares: Array) -> str:
    """Which bias 2SLS keeps: of least squares within arms, that of the residuals, not OLS, which sees the arms too."""
    value = f" ({least_squares[0]:.4g})" if len(least_squares) == 1 and np.isfinite(least_squares[0]) else ""
    where = f"least squares within arms{value}"
    if f <= 1:
        return f"no more than noise gives, so 2SLS is about as biased as {where}"
    left = f"about {1.0 / f:.0%}" if f < 100 else "less than 1%"
    return (
        f"2SLS keeps {left} of the bias of {where}. OLS, which sees the arms too, is less biased, and 2SLS keeps more "
        "of its bias"
    )

"""Simulation-extrapolation: add more sampling error, see what it does to least squares, and go back to none."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from msmmiv.errors import (
    ChoiceError,
    DataError,
    DesignError,
    MsmmivError,
    MsmmivWarning,
    check_choice,
)
from msmmiv.estimate.between.normal_equations import (
    Corrected,
    check_rows,
    corrected,
    degrees_of_freedom,
    sum_by_site,
    with_common,
)
from msmmiv.estimate.between.pairs import resampled
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.estimate.between.simex_draws import LAMBDAS, SimexRun, noise_root, simulate
from msmmiv.linalg import Array, frozen
from msmmiv.progress import watched

__all__ = ["SIMEX", "Extrapolant", "SimexFit", "SimexPath"]

Extrapolant: TypeAlias = Literal["rational", "quadratic", "linear"]
SimexVariance: TypeAlias = Literal["influence", "jackknife", "bootstrap"]

_DEGREE = {"linear": 1, "quadratic": 2}
#: Draws of error in each bootstrap replicate; its spread over replicates counts noise of the draws too.
_INNER = 200
_PATIENCE = 2.0

_AS_PRINTED = (
    "SIMEX(as_printed=True) repeats Fu (2023) and the R package mechte for comparison: the added error leaves out "
    "Cov(itt, compliance), and the quadratic extrapolant falls short of the slope the noisier the compliances are. "
    "Use SIMEX()."
)


@dataclass(frozen=True, eq=False)
class SimexPath:
    """What added error did to the coefficients, for tables and pictures.

    Attributes
    ----------
    terms : tuple of str
    lambdas : (5,) array
        Added error as a multiple of the sampling covariance: 0, .5, 1, 1.5, 2.
    means : (5, P + q) array
        Mean coefficients over draws.
    extrapolants : tuple of str
        "linear", "quadratic", "rational".
    extrapolated : (3, P + q) array
        Their values at minus one; NaN for a rational extrapolant with a pole on the way.
    observed, added : (1 + P, 1 + P) arrays
        Cross-products of (itt, compliances) net of z, and the mean of those of one unit of added error.
    exogenous_slopes : (q, 1 + P) array
        Coefficients of the regressions of (itt, compliances) on z.
    """

    terms: tuple[str, ...]
    lambdas: Array
    means: Array
    extrapolants: tuple[str, ...]
    extrapolated: Array
    observed: Array
    added: Array
    exogenous_slopes: Array

    def curve(self, extrapolant: Extrapolant, *, at: npt.ArrayLike) -> Array:
        """(n, P + q) fitted values of an extrapolant at ``at``.

        The rational one is a ratio of mean cross-products. The mean coefficients of ``means``, means of
        ratios, lie off it by an amount of order 1 / K.
        """
        check_choice(extrapolant, Extrapolant, "extrapolant")
        points = np.atleast_1d(np.asarray(at, dtype=float))
        if extrapolant == "rational":
            return np.array([self._rational(float(t)) for t in points])
        return _weights(points, _DEGREE[extrapolant]) @ self.means

    def _rational(self, at: float) -> Array:
        total = self.observed + at * self.added
        beta = np.linalg.solve(total[1:, 1:], total[1:, 0])
        return np.concatenate([beta, self.exogenous_slopes[:, 0] - self.exogenous_slopes[:, 1:] @ beta])


@dataclass(frozen=True, eq=False)
class SimexFit(BetweenFit):
    """A fit with the path it was extrapolated from.

    Attributes
    ----------
    path : SimexPath or None
    seed : int or None
    B : int
        Draws.
    """

    path: SimexPath | None = None
    seed: int | None = None
    B: int = 0


@dataclass(frozen=True)
class SIMEX:
    """Simulation-extrapolation of Cook and Stefanski (1994), as Fu (2023) proposes it for sites.

    The default extrapolant makes it `BCES` with simulation noise, and is there to show in a picture what the correction
    does. The quadratic one is steadier, and biased towards zero where compliances are noisy.

    Attributes
    ----------
    extrapolant : {"rational", "quadratic", "linear"}
        The curve that is followed to minus one.
    B : int
        Draws of error, in pairs of opposite sign.
    joint : bool
        Add error to itt too, correlated with that of the compliances as the sampling errors are. Without it the
        sampling covariance of itt and compliance stays in the slope.
    variance : {"influence", "jackknife", "bootstrap"}, optional
        ``influence`` is that of `BCES` and goes with the rational extrapolant, ``jackknife`` that of Stefanski and Cook
        (1995) and goes with the polynomials; these are the defaults. ``bootstrap`` resamples rows, or the sites of
        correlated rows, and goes with all.
    replicates : int
        Of the bootstrap.
    as_printed : bool
        As mechte has it, with a warning: quadratic, not joint, jackknife, with the other options left out.

    Notes
    -----
    For lambda in 0, .5, 1, 1.5, 2 and each draw, (itt, compliances) get errors with covariance lambda V_k and itt is
    regressed on (compliances, z). Errors with all of V_k do: their cross-products have mean lambda sum M_kk V_k, M
    the residual maker of z, so the normal equations are S_xx + lambda a and S_xy + lambda c, and at lambda = -1 both
    the noise and the covariance are gone (the variance added to itt enters no slope). The rational extrapolant
    is the ratio of these, with a and c as drawn: with B to infinity it is ``BCES()`` at any number of rows
    (``BCES(cov_uv=False)`` unless joint). It fails where S_xx + lambda a reaches zero in (-1, 0). The polynomials are
    least-squares fits through the five mean coefficients; the quadratic one recovers 99, 92, 75 and 54 percent of
    the slope at reliabilities .9, .7, .5 and .33.

    Jackknife variance: at each lambda the mean least-squares covariance less the covariance between draws,
    extrapolated by the same polynomial. It can be negative: then there is no standard error. It falls short as the
    polynomials do: with the quadratic at reliability 2/3 and 300 rows its mean is .82 (standard error .05) of the
    variance of the slopes (docs/validation/claims.csv).

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.rows import between_rows
    >>> rows = between_rows(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled"))
    >>> fit = SIMEX(B=400).solve(rows, seed=1)
    >>> fit.path.means[[0, -1], 0].round(2).tolist()
    [0.15, 1.06]
    """

    extrapolant: Extrapolant = "rational"
    B: int = 1000
    joint: bool = True
    variance: SimexVariance | None = None
    replicates: int = 199
    as_printed: bool = False

    @property
    def name(self) -> str:
        """Name in results, options included."""
        if self.as_printed:
            return "simex(as_printed)"
        more: list[str] = [self.extrapolant] * (self.extrapolant != "rational")
        more += ["joint=False"] * (not self.joint) + ["bootstrap"] * (self.variance == "bootstrap")
        return f"simex({', '.join(more)})" if more else "simex"

    def solve(self, rows: BetweenRows, *, seed: int = 0) -> SimexFit:
        """Coefficients, their covariance and the path.

        Raises
        ------
        TooFewSitesError
            No more rows than coefficients; or, with correlated rows, no more sites.
        ChoiceError
            A variance that does not go with the extrapolant, or the jackknife, whose least-squares covariance takes
            rows as independent, with correlated rows.
        DataError
            Fewer than 10 draws or replicates.
        DesignError
            ``as_printed`` with options or rows that mechte does not cover.
        """
        how = self._checked(rows)
        rng = np.random.default_rng(seed)
        run = simulate(
            rows, noise_root(rows, joint=how.joint), how.B, rng, covariances=how.variance == "jackknife"
        )
        path = _path(rows, run)
        chosen = path.extrapolated[path.extrapolants.index(how.extrapolant)]
        notes = [_AS_PRINTED] if self.as_printed else _notes(how, run.net)
        if np.isnan(chosen).any():
            why = f"{run.net.why_not}; the rational extrapolant has a pole in (-1, 0)"
            none = SimexFit.without_estimate(self.name, rows, why, notes=tuple(notes))
            return SimexFit(**{**vars(none), "path": path, "seed": seed, "B": how.B})
        if how.variance == "influence":
            covariance = _influence(rows, how, run, np.asarray(chosen[: rows.x.shape[1]]))
        elif how.variance == "jackknife":
            covariance = np.tensordot(_weights(np.array([-1.0]), _DEGREE[how.extrapolant])[0], run.t2, axes=1)
        else:
            covariance, lost = _bootstrap(rows, how, rng)
            if lost:
                notes.append(f"{lost:.0%} of bootstrap replicates had no estimate and were left out.")
        covariance, negative = _positive(covariance, rows.terms)
        if negative:
            notes.append(
                f"No standard error of {', '.join(negative)}: the extrapolated variance is negative, which happens "
                "with few rows. Use variance='bootstrap', or BCES."
            )
        return SimexFit(
            method=self.name,
            terms=rows.terms,
            coefficients=frozen(chosen),
            covariance=frozen(with_common(rows, covariance, np.asarray(chosen[: rows.x.shape[1]]))),
            df=float(degrees_of_freedom(rows)),
            notes=tuple(notes),
            path=path,
            seed=seed,
            B=how.B,
        )

    def _checked(self, rows: BetweenRows) -> SIMEX:
        """The options that hold, after checking them."""
        check_choice(self.extrapolant, Extrapolant, "extrapolant")
        natural: SimexVariance = "influence" if self.extrapolant == "rational" else "jackknife"
        how = replace(self, variance=self.variance or natural)
        check_choice(how.variance, SimexVariance, "variance")
        if how.variance not in (natural, "bootstrap"):
            raise ChoiceError(
                f"variance={how.variance!r} does not go with extrapolant={self.extrapolant!r}: a polynomial through "
                "variances is too small for the rational slope, and the influence on it is not that on a "
                f"polynomial. Use {natural!r} or 'bootstrap'."
            )
        if self.B < 10 or self.replicates < 10:
            raise DataError(f"B={self.B!r} and replicates={self.replicates!r} must be at least 10.")
        check_rows(rows, "SIMEX")
        if self.as_printed:
            if self.extrapolant == "linear" or self.variance not in (None, "jackknife"):
                raise DesignError(
                    "SIMEX(as_printed=True) fixes the extrapolant and the variance; leave them out."
                )
            if len(rows.mediators) > 1 or rows.exogenous != ("direct_effect",) or rows.cross is not None:
                raise DesignError(
                    "SIMEX(as_printed=True) is for one mediator, a free direct effect, no site covariates and "
                    "uncorrelated rows, which is all that mechte covers. Use SIMEX()."
                )
            warnings.warn(_AS_PRINTED, MsmmivWarning, stacklevel=3)
            return replace(self, extrapolant="quadratic", joint=False, variance="jackknife")
        if how.variance == "jackknife" and rows.cross is not None:
            raise ChoiceError(
                "variance='jackknife' takes rows as independent, but arms of one site share its controls. Use "
                "variance='bootstrap', which resamples sites."
            )
        return how


# ----------------------------------------------------------------------------------- extrapolation


def _weights(at: Array, degree: int) -> Array:
    """(n, 5) weights of the five means in the least-squares polynomial at ``at``."""
    basis = np.vander(LAMBDAS, degree + 1, increasing=True)
    return np.asarray(np.vander(at, degree + 1, increasing=True) @ np.linalg.pinv(basis))


def _path(rows: BetweenRows, run: SimexRun) -> SimexPath:
    names = ("linear", "quadratic", "rational")
    blank = SimexPath(
        terms=rows.terms,
        lambdas=frozen(LAMBDAS),
        means=frozen(run.means),
        extrapolants=names,
        extrapolated=frozen(np.full((3, len(rows.terms)), np.nan)),
        observed=frozen(run.net.observed),
        added=frozen(run.added),
        exogenous_slopes=frozen(run.net.slopes),
    )
    values = np.array(blank.extrapolated)
    values[0], values[1] = blank.curve("linear", at=-1.0)[0], blank.curve("quadratic", at=-1.0)[0]
    if run.net.why_not is None:
        values[2] = blank.curve("rational", at=-1.0)[0]
    return replace(blank, extrapolated=frozen(values))


def _influence(rows: BetweenRows, how: SIMEX, run: SimexRun, beta: Array) -> Array:
    """That of `BCES`, at the slope and with the denominator that were drawn."""
    parts = corrected(rows, np.ones(rows.n_rows), cov_uv=how.joint)
    scores = parts.scores(beta)
    of_beta = np.linalg.solve(run.net.net[1:, 1:], (scores - scores.mean(axis=0)).T).T
    each = sum_by_site(rows, parts.influence(rows, beta, of_beta))
    return np.asarray(each.T @ each)


def _positive(covariance: Array, terms: tuple[str, ...]) -> tuple[Array, list[str]]:
    """NaN in the rows and columns of variances that are not positive, and whose they are."""
    bad = ~(np.diag(covariance) > 0)
    out = covariance.copy()
    out[bad] = np.nan
    out[:, bad] = np.nan
    return out, [t for t, b in zip(terms, bad, strict=True) if b]


def _bootstrap(rows: BetweenRows, how: SIMEX, rng: np.random.Generator) -> tuple[Array, float]:
    """Covariance over resampled units, and the share of replicates without an estimate."""
    units = rows.n_rows if rows.cross is None else rows.n_sites
    start = time.perf_counter()
    first = _replicate(rows, how, rng.integers(0, units, units), rng)
    expected = (time.perf_counter() - start) * how.replicates
    rest = watched(range(how.replicates - 1), what="resampling rows", show=expected > _PATIENCE)
    everything = [first, *(_replicate(rows, how, rng.integers(0, units, units), rng) for _ in rest)]
    found = [one for one in everything if one is not None]
    values = np.array(found)
    size = len(rows.terms)
    if len(found) < size + 2:
        return np.full((size, size), np.nan), 1.0
    return np.atleast_2d(np.cov(values.T)), 1.0 - len(found) / how.replicates


def _replicate(
    rows: BetweenRows, how: SIMEX, index: npt.NDArray[np.int64], rng: np.random.Generator
) -> Array | None:
    sample = resampled(rows, index)
    try:
        run = simulate(
            sample, noise_root(sample, joint=how.joint), min(how.B, _INNER), rng, covariances=False
        )
    except MsmmivError:  # a covariate that does not vary in this draw
        return None
    path = _path(sample, run)
    one: Array = path.extrapolated[path.extrapolants.index(how.extrapolant)]
    return one if np.isfinite(one).all() else None


def _notes(how: SIMEX, net: Corrected) -> list[str]:
    notes = [] if how.joint else ["Cov(itt, compliance) is left out: biased unless it is zero."]
    if how.extrapolant == "rational":
        return [*notes, *net.notes]
    if net.left > 0 and net.net.shape[0] == 2:
        slope = net.left / (net.left + (1.0 - net.left) * (1.0 + LAMBDAS))
        reached = float(_weights(np.array([-1.0]), _DEGREE[how.extrapolant])[0] @ slope)
        share = f"at the estimated reliability {net.left:.2f} it recovers about {reached:.0%} of the slope"
    else:
        share = "how much of it depends on the reliability of the compliances"
    return [*notes, f"The {how.extrapolant} extrapolant falls short of the slope: {share}."]

"""How far noise alone can carry a first stage: tails and critical values from three power sums of its spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, chndtrix, gammainccinv

from msmmiv.errors import DataError, DesignError

__all__ = [
    "NoiseLaw",
    "effective_f_critical_value",
    "min_eigenvalue_critical_value",
    "weighted_chi2_sf",
    "worst_relative_bias",
]

#: Relative excess over an inequality between power sums that still counts as rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class NoiseLaw:
    """Power sums of the eigenvalues of a first stage's noise covariance, and a bound on the largest.

    The law of ``e'e`` for normal noise e, as far as a critical value needs it: the eigenvalues themselves would cost
    the cube of the number of instruments, these sums are linear in the number of sites.

    Attributes
    ----------
    trace, squares, cubes : float
        Sums of the eigenvalues, of their squares and of their cubes.
    top : float
        The largest eigenvalue, or anything above it (critical values are then larger than need be).

    Raises
    ------
    DataError
        When they are not positive and finite, or no spectrum has them.

    Examples
    --------
    >>> NoiseLaw(trace=3.0, squares=5.0, cubes=9.0, top=2.0) == NoiseLaw.from_eigenvalues([1.0, 2.0])
    True
    """

    trace: float
    squares: float
    cubes: float
    top: float

    def __post_init__(self) -> None:
        found = (
            f"trace={self.trace:.6g}, squares={self.squares:.6g}, cubes={self.cubes:.6g}, top={self.top:.6g}"
        )
        if not all(math.isfinite(v) and v > 0 for v in (self.trace, self.squares, self.cubes, self.top)):
            raise DataError(
                f"Power sums of noise are positive and finite; got {found}. "
                "A mediator whose compliances have no sampling variance has no noise to compare with."
            )
        s, more = self.normalised_sums(), 1.0 + ROUNDING
        broken = [
            text
            for text, holds in (
                ("squares <= trace * top", s[0] <= s[2] * more),
                ("cubes <= squares * top", s[1] <= s[0] * s[2] * more),
                ("squares^2 <= trace * cubes", s[0] ** 2 <= s[1] * more),
                ("squares <= trace^2", s[0] <= more),
            )
            if not holds
        ]
        if broken:
            raise DataError(f"No spectrum has {found}: {' and '.join(broken)} must hold.")

    def normalised_sums(self) -> tuple[float, float, float]:
        """Squares, cubes and top once the trace is one."""
        return self.squares / self.trace**2, self.cubes / self.trace**3, self.top / self.trace

    @classmethod
    def from_eigenvalues(cls, values: Sequence[float] | npt.NDArray[np.float64]) -> NoiseLaw:
        """The law of a spectrum that is known in full.

        Parameters
        ----------
        values : (L,) array
            Eigenvalues; zeros are allowed.

        Raises
        ------
        DataError
            When one is negative or not finite, or all are zero.

        Examples
        --------
        >>> NoiseLaw.from_eigenvalues([0.5, 0.5]).squares
        0.5
        """
        v = np.asarray(values, dtype=np.float64).ravel()
        if not v.size or not np.isfinite(v).all() or v.min() < 0:
            raise DataError(f"Eigenvalues of a covariance are finite and not negative; got {v.tolist()[:5]}.")
        return cls(float(v.sum()), float(v @ v), float(np.sum(v**3)), float(v.max()))


def weighted_chi2_sf(stat: float, law: NoiseLaw) -> float:
    """P(sum_j mu_j chi2_1 > stat), by matching mean, variance and skewness: for rank tests such as Robin and Smith's.

    With ``c_n = sum_j mu_j^n`` and ``h = c_2^3 / c_3^2``,

        P = P(chi2_h > h + (stat - c_1) sqrt(h / c_2)).

    Pearson's three-moment approximation (1959), as in Imhof (1961). It is exact for equal eigenvalues. Against
    Imhof's integral, over flat, geometric, harmonic and one-dominant spectra of up to 100 eigenvalues, where the tail
    is .10, .05 or .01 the error is at most .0066, .0039 and .0002; ``law.top`` plays no part.

    Parameters
    ----------
    stat : float
    law : NoiseLaw

    Raises
    ------
    DataError
        When ``stat`` is not a number.

    Examples
    --------
    >>> round(weighted_chi2_sf(18.307038, NoiseLaw.from_eigenvalues([1.0] * 10)), 6)
    0.05
    """
    if math.isnan(stat):
        raise DataError("The statistic is not a number; a tail probability needs one.")
    squares, cubes, _ = law.normalised_sums()
    h = squares**3 / cubes**2
    return float(chdtrc(h, max(h + (stat / law.trace - 1.0) * math.sqrt(h / squares), 0.0)))


def effective_f_critical_value(
    law: NoiseLaw, *, bias: float = 0.10, level: float = 0.05, worst_bias: float = 1.0
) -> float:
    """Critical value of the effective F: above it, 2SLS is less biased than ``bias`` of its worst, for one mediator.

    Use it when people in different sites differ in variance, where Stock and Yogo's tables do not hold. The null says
    that the expected F is at most ``1 + x`` with ``x = worst_bias / bias``; in the least favourable case all strength
    lies on the noisiest instrument, and F is close to a noncentral chi-squared over its degrees of freedom:

        K_eff = t1^2 (1 + 2 x) / (t2 + 2 x t1 top),    cv = [upper ``level`` point of chi2_K_eff(K_eff x)] / K_eff

    with t1, t2 trace and squares. This is the simplified, conservative critical value of Montiel Olea and Pflueger
    (2013), by the approximation of Patnaik (1949). With ``level`` .05 the least favourable F exceeds it, by Imhof's
    integral over the spectra of the tests, with probability at most .0504 for ``bias`` up to .10 and .0515 at .30.

    The bias meant is Nagar's, the leading term for strong instruments. The exact mean bias of 2SLS is mostly smaller,
    but not where all strength lies on one instrument that holds much of the noise: at ``bias`` .10 it is then 3%
    above the limit for half of the noise, 14% for .7 of it and 45% for .97 (one instrument alone gives 2SLS no mean).

    Parameters
    ----------
    law : NoiseLaw
        Of the sampling covariance of the mediator's first-stage coefficients on orthonormalised instruments.
    bias : float
        Share of the worst bias that is tolerated.
    level : float
        Probability of exceeding the critical value when the bias is larger.
    worst_bias : float
        Largest Nagar bias over the benchmark, times the strength. One always suffices; it is the maximum over all
        mediator effects and lies between ``1 - 2 min(mu) / t1`` and one, so that for many sites there is nothing to
        be gained from computing it.

    Raises
    ------
    DataError
        When ``bias`` or ``level`` lies outside (0, 1), or ``worst_bias`` is not positive.

    Examples
    --------
    >>> [round(effective_f_critical_value(NoiseLaw.from_eigenvalues([1.0] * L)), 2) for L in (1, 5, 10, 20)]
    [23.11, 16.08, 14.53, 13.46]
    """
    _check(bias, level, worst_bias)
    squares, _, top = law.normalised_sums()
    return _patnaik(squares, top, worst_bias / bias, level)


def min_eigenvalue_critical_value(
    law_sup: NoiseLaw, n_mediators: int, *, bias: float = 0.10, level: float = 0.05
) -> float:
    """Critical value of the smallest strength of several mediators: above it, 2SLS is little biased in any direction.

    The statistic of Lewis and Mertens is the smallest eigenvalue of the first stage's cross-products N against their
    expectation Phi under pure noise. At the population's weakest combination x (``x' Phi x = 1``) it is at most
    ``g(x) = x' N x``, a weighted noncentral chi-squared with ``kappa_n <= 2^(n-1) (n-1)! (t_n + n s top^(n-1))``
    where ``s = worst_relative_bias(...) / bias`` bounds the population's smallest eigenvalue under the null. The
    critical value is the larger of two upper ``level`` points of g(x), Patnaik's by two cumulants and Imhof's by
    three: each falls a little short where the other does not.

    Conservative by construction: ``law_sup`` is the least favourable noise of any combination, and g(x) is not the
    minimum. By Imhof's integral g(x) exceeds it with probability at most .0508 at ``level`` .05 and .0103 at .01. With
    one mediator it is never below `effective_f_critical_value`, and equal to it where eigenvalues are equal and
    ``level`` is .05. What is known of exact and Nagar bias there holds here too.

    Formulas from D. Lewis and K. Mertens, "A robust test for weak instruments for 2SLS with multiple endogenous
    regressors" (Review of Economic Studies). Two bounds differ from theirs: the spectra are those of single
    combinations, not of all coefficients jointly, which is never larger; the worst bias is `worst_relative_bias`.

    Parameters
    ----------
    law_sup : NoiseLaw
        For noise of one combination of mediators with trace one: ``squares``, ``cubes`` and ``top``, each at its
        largest over combinations.
    n_mediators : int
    bias, level : float
        As for `effective_f_critical_value`; the norm of the bias is that of Phi.

    Raises
    ------
    DataError
        When ``bias`` or ``level`` lies outside (0, 1).
    DesignError
        When ``n_mediators`` is not positive.

    Examples
    --------
    >>> law = NoiseLaw.from_eigenvalues([1.0] * 20)
    >>> [round(min_eigenvalue_critical_value(law, p), 2) for p in (1, 2, 3)]
    [13.46, 13.74, 14.01]
    """
    _check(bias, level, 1.0)
    x = worst_relative_bias(law_sup, n_mediators) / bias
    squares, cubes, top = law_sup.normalised_sums()
    return max(_patnaik(squares, top, x, level), _three_moments(squares, cubes, top, x, level))


def worst_relative_bias(law_sup: NoiseLaw, n_mediators: int) -> float:
    """Bound on the Nagar bias of 2SLS over its benchmark, times the smallest eigenvalue of the strength.

    For reading a strength as a bias: 2SLS is biased by at most this over the strength, as a share of the bias that the
    worst endogeneity would give without instruments (both in the norm of Phi). [derived] With Phi the identity,
    strength ``A = C'C``, orthonormal ``Q = C A^(-1/2)`` and noise V, the bias in direction x is

        E[w'e],    w = (I - Q Q') V y - Q A^(-1/2) V' C y,    y = A^(-1) x,

    so that by Cauchy and Schwarz it is at most the benchmark ``sqrt(E e'e)`` times ``sqrt(E w'w)``, and
    ``E w'w <= (1 + (P - 1) top) / lambda_min(A)^2``: what the other mediators add is noise in one direction of
    instrument space. For one mediator the bound is one, as in Montiel Olea and Pflueger (2013). For two it can exceed
    one in earnest: trials with independent sites exist whose value is ``2 / sqrt(3)``.

    Parameters
    ----------
    law_sup : NoiseLaw
        As for `min_eigenvalue_critical_value`.
    n_mediators : int
        P.

    Raises
    ------
    DesignError
        When ``n_mediators`` is not positive.

    Examples
    --------
    >>> worst_relative_bias(NoiseLaw.from_eigenvalues([1.0] * 4), 2)
    1.118033988749895
    """
    if n_mediators < 1:
        raise DesignError(f"n_mediators={n_mediators}: a first stage has at least one mediator.")
    top = min(law_sup.normalised_sums()[2], 1.0)
    return math.sqrt(1.0 + (n_mediators - 1) * top)


def _check(bias: float, level: float, worst_bias: float) -> None:
    for name, value in (("bias", bias), ("level", level)):
        if not 0 < value < 1:
            raise DataError(f"{name} must lie between 0 and 1, not {value!r}.")
    if not 0 < worst_bias < math.inf:
        raise DataError(f"worst_bias must be positive and finite, not {worst_bias!r}.")


def _patnaik(squares: float, top: float, x: float, level: float) -> float:
    """Upper point of g with mean 1 + x and variance 2 (squares + 2 x top), as chi2_K(K x) / K."""
    k = (1.0 + 2.0 * x) / (squares + 2.0 * x * min(top, 1.0))
    return float(chndtrix(1.0 - level, k, k * x)) / k


def _three_moments(squares: float, cubes: float, top: float, x: float, level: float) -> float:
    """The same from a central chi-squared that has the third cumulant, 8 (cubes + 3 x top^2), too."""
    top = min(top, 1.0)
    second, third = 2.0 * (squares + 2.0 * x * top), 8.0 * (cubes + 3.0 * x * top**2)
    df = 8.0 * second**3 / third**2
    point = 2.0 * float(gammainccinv(0.5 * df, level))
    return 1.0 + x + (point - df) * math.sqrt(second / (2.0 * df))

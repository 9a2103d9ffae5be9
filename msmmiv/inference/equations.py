"""Estimating equations that are sums over sites (or clusters): all that inference between sites needs.

Every estimator of the package solves ``sum_g H_g (1, -b')' = 0`` with one block ``H_g`` per site, and its
scores ``H_g (1, -b')'`` are linear in the coefficients. One coefficient can therefore be held at any value
``d`` with the others estimated again, in closed form, and the scores stay linear in ``d``: a test of
``d`` inverts to the roots of a quadratic, and no step divides by the strength of the instruments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from msmmiv.errors import ChoiceError, DataError, RankDeficientError, TooFewSitesError, check_choice, listing
from msmmiv.inference.cluster_robust import ALONE, ClusterRobust, block_sandwich
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.profile import EXPONENT, Correction, Profile, nuisance_correction
from msmmiv.inference.tests import NotApplicable, TestResult
from msmmiv.linalg import Array, frozen

__all__ = ["SiteEquations"]


@dataclass(frozen=True, eq=False)
class SiteEquations:
    """``sum_g H_g (1, -b')' = 0``: one block of estimating equations per site (or cluster).

    Attributes
    ----------
    blocks : (G, k, 1 + k) array
        H_g; column 0 belongs to the outcome. The sum over g of the rest is A, the bread's inverse.
    terms : tuple of str
        Names of the k coefficients.
    leverage : (G, k, k) array, optional
        Cross-products of the regressors in each g, which CR2 and CR3 use. Default: the symmetric part of the
        blocks, the same thing where regressors are projected on instruments within each g.
    noise : (G, k, k, 1 + k, 1 + k) array, optional
        Sampling variance of the score of g, its expectation held fixed, as a quadratic form in (1, -b'). Where it
        is given, tests of one coefficient reject only if the spread between scores and this noise both do.

    Examples
    --------
    Five sites, one coefficient: weights n p (1 - p), compliance g and itt b give H = w g (b, g).

    >>> import numpy as np
    >>> w, g = np.array([20.0, 25, 30, 25, 40]), np.array([0.5, 0.9, 0.3, 0.7, 0.6])
    >>> b = np.array([1.2, 1.7, 0.3, 1.6, 1.1])
    >>> eq = SiteEquations((w * g * np.array([b, g])).T[:, None, :], ("m",))
    >>> eq.coefficients.round(4).tolist()
    [1.9661]
    >>> print(eq.score_set("m"))
    [1.474, 2.599]
    """

    blocks: Array
    terms: tuple[str, ...]
    leverage: Array | None = None
    noise: Array | None = None

    def __post_init__(self) -> None:
        k = len(self.terms)
        shape = np.shape(self.blocks)
        if len(shape) != 3 or shape[1:] != (k, k + 1):
            raise DataError(f"Blocks for {k} terms must have shape (G, {k}, {k + 1}); got {shape}.")
        if self.leverage is not None and np.shape(self.leverage) != (shape[0], k, k):
            raise DataError(f"Leverages must have shape {(shape[0], k, k)}; got {np.shape(self.leverage)}.")
        if self.noise is not None and np.shape(self.noise) != (shape[0], k, k, k + 1, k + 1):
            raise DataError(
                f"Noise must have shape {(shape[0], k, k, k + 1, k + 1)}; got {np.shape(self.noise)}."
            )
        if not np.isfinite(self.blocks).all():
            raise DataError("Estimating equations hold values that are not finite.")

    @property
    def groups(self) -> int:
        """G."""
        return len(self.blocks)

    @cached_property
    def scale(self) -> Array:
        """(k,) units in which the equations have a diagonal of about one."""
        size = np.sqrt(np.abs(np.einsum("gjj->gj", self.blocks[:, :, 1:])).sum(axis=0))
        return frozen(np.where(size > 0, size, 1.0))

    @cached_property
    def _unit(self) -> Array:
        """Blocks for coefficients in units of 1 / scale."""
        out = self.blocks / self.scale[:, None]
        out[:, :, 1:] /= self.scale
        return frozen(out)

    @cached_property
    def _gram(self) -> Array:
        """(G, k, k) cross-products of regressors, in the units of `_unit`."""
        if self.leverage is not None:
            return frozen(self.leverage / np.outer(self.scale, self.scale))
        part = self._unit[:, :, 1:]
        return frozen((part + np.swapaxes(part, 1, 2)) / 2.0)

    @cached_property
    def coefficients(self) -> Array:
        """(k,) solution of the equations.

        Raises
        ------
        RankDeficientError
            The equations do not determine it.
        """
        total = self._unit.sum(axis=0)
        return frozen(_solve(total[:, 1:], total[:, 0], self.terms) / self.scale)

    @property
    def bread(self) -> Array:
        """(k, k) inverse of A."""
        inverse = _solve(self._unit[:, :, 1:].sum(axis=0), np.eye(len(self.terms)), self.terms)
        out: Array = inverse / np.outer(self.scale, self.scale)
        return out

    def scores(self, coefficients: Array) -> Array:
        """(G, k) scores ``H_g (1, -b')'``."""
        out: Array = self.blocks[:, :, 0] - self.blocks[:, :, 1:] @ np.asarray(coefficients, dtype=float)
        return out

    def restricted(self, null: Mapping[str, float]) -> tuple[Array, Array]:
        """Coefficients with some of them held at given values, and all scores there.

        Parameters
        ----------
        null : mapping from term to value

        Returns
        -------
        coefficients : (k,) array
        scores : (G, k) array

        Raises
        ------
        ChoiceError
            A term that is not in the equations.
        RankDeficientError
            The other equations do not determine the other coefficients.
        """
        fixed, free = self._split(null)
        b = np.zeros(len(self.terms))
        b[fixed] = [float(v) for v in null.values()]
        if free:
            total = self._unit.sum(axis=0)[free]
            right = total[:, 0] - total[:, 1:] @ (b * self.scale)
            columns = [1 + j for j in free]
            names = tuple(self.terms[j] for j in free)
            b[free] = _solve(total[:, columns], right, names) / self.scale[free]
        return b, self.scores(b)

    def profile(self, terms: str | Iterable[str], *, small_sample: Correction = "CR0") -> Profile | str:
        """Effective scores of some coefficients, or the reason why they do not exist.

        Parameters
        ----------
        terms : str or iterable of str
        small_sample : {"CR0", "CR2", "CR3"}
            Correction of the spread for the r coefficients that are estimated: none; by the root of I minus
            their leverage, unbiased under the working model; or by estimating them without g, for the score of g.

        Notes
        -----
        ``psi_g = psi_{p,g} - A_{p,-} A_{--}^-1 psi_{-,g}`` at the restricted solution. The correction adds
        ``H*_g L phi(L' G_g L) L' psi_{-,g}`` with H* the effective cross-products, L L' the inverse of the sum of
        G_g, and phi(x) = ((1 - x)^a - 1) / x, a = -1/2 or -1: what (I - leverage)^a does to residuals, in the
        score of a partialled-out regressor. It does not depend on d beyond the scores themselves.
        """
        check_choice(small_sample, Correction, "small_sample")
        names = (terms,) if isinstance(terms, str) else tuple(terms)
        fixed, free = self._split(names)
        unit, total = self._unit, self._unit.sum(axis=0)
        own, rest = [1 + j for j in fixed], [1 + j for j in free]
        inner = total[free][:, rest]
        if free and np.linalg.eigvalsh((inner + inner.T) / 2.0)[0] <= ALONE:
            others = listing((self.terms[j] for j in free), quote=True)
            return f"the equations of {others} are not positive definite, so they cannot be estimated at each value"
        # What d leaves of the others: b_- = start - slope d; H_- then gives the scores of all k.
        start = np.linalg.solve(inner, total[free][:, [0]])
        slope = np.linalg.solve(inner, total[free][:, own])
        alpha = unit[:, :, 0] - (unit[:, :, rest] @ start)[:, :, 0]
        eta = unit[:, :, own] - unit[:, :, rest] @ slope
        side = np.linalg.solve(inner.T, total[fixed][:, rest].T).T
        psi, d_psi = alpha[:, fixed] - alpha[:, free] @ side.T, eta[:, fixed] - side @ eta[:, free]
        crossed = unit[:, fixed][:, :, rest] - side @ unit[:, free][:, :, rest]
        wide, d_wide = psi, d_psi
        if free and small_sample != "CR0":
            change = nuisance_correction(self._gram, fixed, free, small_sample)
            if isinstance(change, str):
                return change
            wide = psi + np.einsum("gqr,gr->gq", change, alpha[:, free])
            d_wide = d_psi + change @ eta[:, free]
        s, n = self.scale[fixed], self.scale[free]
        noise = None
        if self.noise is not None and len(fixed) == 1:
            noise = self._noise_of(
                fixed[0], free, side / n * s[:, None], start[:, 0] / n, slope[:, 0] / n * s
            )
        return Profile(
            names, small_sample, psi * s, d_psi * np.outer(s, s), wide * s, d_wide * np.outer(s, s),
            alpha[:, free] * n, eta[:, free] * np.outer(n, s),
            np.linalg.solve(inner.T, np.swapaxes(crossed, 1, 2)).swapaxes(1, 2) * np.outer(s, 1.0 / n), noise,
        )  # fmt: skip

    def _noise_of(self, fixed: int, free: list[int], side: Array, start: Array, slope: Array) -> Array:
        """Coefficients of the noise of the effective score, the others at start - slope d."""
        k = len(self.terms)
        effective = np.zeros(k)
        effective[fixed] = 1.0
        effective[free] = -side[0]
        level, change = np.zeros(k + 1), np.zeros(k + 1)
        level[0], change[1 + fixed] = 1.0, -1.0
        free_columns = [1 + j for j in free]
        level[free_columns], change[free_columns] = -start, slope
        assert self.noise is not None  # noqa: S101 - the caller looks
        form = np.einsum("a,b,gabij->ij", effective, effective, self.noise)
        return np.array([level @ form @ level, -(level @ form @ change), change @ form @ change])

    def score_noise(self, coefficients: Array) -> Array:
        """(G, k, k) sampling variance of the scores at these coefficients, where the noise is known."""
        if self.noise is None:
            raise ChoiceError("These equations carry no sampling noise; UJIVE's do.")
        direction = np.concatenate([[1.0], -np.asarray(coefficients, dtype=float)])
        out: Array = np.einsum("gabij,i,j->gab", self.noise, direction, direction)
        return out

    def jackknife(self) -> Array:
        """(G, k) coefficients without each g; NaN where the rest do not determine them.

        Exact: solves ``(A - A_g) b = c - c_g``. For 2SLS without covariates this is the estimator refitted to
        the other sites; with covariates, their first stages stay those of all sites.
        """
        rest = self._unit.sum(axis=0) - self._unit
        out = np.full((self.groups, len(self.terms)), np.nan)
        sizes = np.linalg.svd(rest[:, :, 1:], compute_uv=False)
        fine = sizes[:, -1] > ALONE * np.maximum(sizes[:, 0], np.finfo(float).tiny)
        out[fine] = np.linalg.solve(rest[fine, :, 1:], rest[fine, :, :1])[:, :, 0] / self.scale
        return out

    def sandwich(self, kind: Correction = "CR2") -> ClusterRobust:
        """Covariance between blocks with Satterthwaite degrees of freedom.

        CR0 sums products of scores; CR2 and CR3 multiply by powers of I minus the leverage of the block. Blocks
        of clusters inside sites leave out the intercepts; `cluster_robust` counts them.

        Returns
        -------
        ClusterRobust
            NaN with a reason where the correction or the degrees of freedom are not defined.

        Raises
        ------
        RankDeficientError, TooFewSitesError
        """
        check_choice(kind, Correction, "kind")
        self._check_groups()
        score = self.scores(self.coefficients) / self.scale
        bread = self.bread * np.outer(self.scale, self.scale)
        out = block_sandwich(self._gram, score, bread, EXPONENT[kind])
        return replace(out, covariance=frozen(out.covariance / np.outer(self.scale, self.scale)))

    def score_test(self, null: Mapping[str, float], *, small_sample: Correction = "CR2") -> TestResult:
        """Test of values of one or more coefficients by the effective scores of the blocks.

        Use it with few sites, weak instruments or effects that differ between sites: the scores have mean zero at
        the true value whatever the strength, and blocks need not have equal variances. With one coefficient in
        the model it is the one-sample t test of G scores, whose size is at most the nominal one for independent
        normal scores of unequal variances at levels up to 8%. With more, G - k degrees of freedom are an
        approximation that errs on the safe side; CR2 is the closest of the three.

        Parameters
        ----------
        null : mapping from term to value
        small_sample : {"CR0", "CR2", "CR3"}
            As in `profile`; no difference when the null fixes all coefficients.

        Returns
        -------
        TestStatistic or NotApplicable
            F(q, G - k); the square of t for one restriction.

        Raises
        ------
        TooFewSitesError
            G <= k.

        Notes
        -----
        ``F = S' V^-1 S (G - k) / (q (G - r - 1))`` with S the sum of the effective scores at the null, r the number
        of coefficients estimated, and V = G/(G-1) times the centred products of corrected scores (CR0: with r > 0,
        the factor G/(G-r-1)). Sources: Bakirov & Szekely (2005) and Ibragimov & Mueller (2010) for the t test;
        Hotelling (1931) for q > 1. With `noise` and one restriction, S^2 is also compared with the variance that the
        sampling error of the sites gives S (a chi-squared test), and the larger p-value is reported: products of
        correlated errors are skewed, and the t test alone rejects too often when instruments are weak.
        """
        profile = self.profile(null, small_sample=small_sample)
        self._check_groups()
        if isinstance(profile, str):
            return NotApplicable(f"score test ({small_sample})", profile)
        return profile.test([float(value) for value in null.values()])

    def score_set(
        self, term: str, *, level: float = 0.95, small_sample: Correction = "CR2"
    ) -> ConfidenceSet | NotApplicable:
        """All values of a coefficient that `score_test` does not reject, in closed form.

        The generalisation of Fieller's theorem to scores of sites; it holds the point estimate always, and is two
        rays or the whole line when the sites do not bound the coefficient.

        Parameters
        ----------
        term : str
        level : float
        small_sample : {"CR0", "CR2", "CR3"}

        Returns
        -------
        ConfidenceSet or NotApplicable

        Raises
        ------
        TooFewSitesError
            G <= k.

        Notes
        -----
        ``(sum_g psi_g(d))^2 <= t^2 c sum_g (s_g(d) - mean)^2`` with t the quantile of Student's t with G - k degrees
        of freedom, s the corrected scores and c as in `score_test`. Both sides are quadratic in d.
        """
        profile = self.profile(term, small_sample=small_sample)
        self._check_groups()
        if isinstance(profile, str):
            return NotApplicable(f"score set of {term}", profile)
        return profile.confidence_set(level=level)

    def _split(self, terms: Iterable[str]) -> tuple[list[int], list[int]]:
        names = list(terms)
        for name in names:
            if name not in self.terms:
                raise ChoiceError(f"{name!r} is not one of {listing(self.terms, quote=True)}.")
        if not names or len(set(names)) < len(names):
            raise ChoiceError("Name at least one coefficient, each of them once.")
        fixed = [self.terms.index(name) for name in names]
        return fixed, [j for j in range(len(self.terms)) if j not in fixed]

    def _check_groups(self) -> None:
        k = len(self.terms)
        if self.groups <= k:
            raise TooFewSitesError(
                f"Inference between {self.groups} sites or clusters needs fewer than {self.groups} coefficients; there "
                f"are {k}. Leave out mediators or covariates, or use a covariance that holds the sites fixed."
            )


def _solve(matrix: Array, right: Array, terms: tuple[str, ...]) -> Array:
    sizes = np.linalg.svd(matrix, compute_uv=False)
    if sizes.size and sizes[-1] <= 1e-13 * max(float(sizes[0]), np.finfo(float).tiny):
        raise RankDeficientError(
            f"The estimating equations do not determine {listing(terms, quote=True)}: assumption (viii) fails."
        )
    return np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)

"""Whitened site residuals and first stages at hypothetical effects: what the robust weak-IV tests are sums of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from msmmiv.errors import DataError, MomentsInsufficient, TooFewSitesError, listing
from msmmiv.linalg import Array, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["Scores", "Sites"]

_BUDGET = 2_000_000  # numbers held at once per array
_SWEEPS = 40


@dataclass(frozen=True, eq=False)
class Scores:
    """What a robust statistic sums, for C candidate values at once; absent arms are rows of zeros.

    Attributes
    ----------
    residual : (C, N) array
        Whitened ``itt - compliance d - direct effect``, on the normal scale.
    ratio : (C, N) array
        The same before it was taken to the normal scale: Student's t.
    first : (C, N, P) array
        Whitened D: compliances with what they share with the residual taken out, and the direct effect.
    strength : (C, N) array
        D in its own standard errors, one mediator only (infinite where D has none); else empty.
    slope : (C, N) array
        Derivative of ``residual ** 2`` with respect to ``ratio ** 2``.
    """

    residual: Array
    ratio: Array
    first: Array
    strength: Array
    slope: Array

    @property
    def ar(self) -> Array:
        """Anderson-Rubin: the sum of squares."""
        return np.asarray((self.residual**2).sum(axis=1), dtype=np.float64)

    @property
    def k(self) -> Array:
        """Kleibergen's K: the part of it in the directions of the first stage."""
        score = np.einsum("cnp,cn->cp", self.first, self.residual)
        gram = np.einsum("cnp,cnq->cpq", self.first, self.first)
        size = np.sqrt(np.einsum("cpp->cp", gram))
        size = np.where(size > 0, size, 1.0)
        scaled = np.linalg.pinv(gram / (size[:, :, None] * size[:, None, :]), hermitian=True)
        score = score / size
        return np.asarray(np.einsum("cp,cpq,cq->c", score, scaled, score), dtype=np.float64)

    @property
    def rk(self) -> Array:
        """Strength of the first stage for one mediator, a function of D only."""
        return np.asarray((self.strength**2).sum(axis=1), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Sites:
    """SiteEffects made ready: arms that are absent masked, covariances checked.

    Attributes
    ----------
    estimates : (K, D, 1 + P) array
    cov : (K, D, 1 + P, D, 1 + P) array
        The identity where an arm is absent, so that it adds exactly zero.
    present : (K, D) bool array
    df : (K,) array or None
        Degrees of freedom behind each site's covariance.
    direct : bool
        A direct effect (one per arm) is profiled out.
    """

    estimates: Array
    cov: Array
    present: npt.NDArray[np.bool_]
    df: Array | None
    direct: bool

    @classmethod
    def of(cls, effects: SiteEffects, *, direct_effect: bool = False) -> Sites:
        """Check the covariances and mask what is absent.

        Raises
        ------
        MomentsInsufficient
            When the covariance of a site is not available (one cluster per arm, or rows are needed).
        DataError
            When a site's residual would have no variance whatever the effects are.
        TooFewSitesError
            When no site has two arms.
        """
        present: npt.NDArray[np.bool_] = np.asarray(
            np.isfinite(effects.estimates).all(axis=2), dtype=np.bool_
        )
        if not present.any():
            raise TooFewSitesError("No site has both a treated and a control arm.")
        size = effects.estimates.shape[2]
        both = present[:, :, None, None, None] & present[:, None, None, :, None]
        _check_known(effects, both)
        cov = np.where(both, effects.cov, 0.0)
        k, d = np.nonzero(~present)
        for j in range(size):
            cov[k, d, j, d, j] = 1.0
        _check_residual_variance(effects, cov, size)
        df = None
        if cov.shape[1] == 1:  # one contrast per site: a Student ratio
            df = np.where(present[:, 0], effects.df, np.inf)
            _check_df(effects, df)
        return cls(
            estimates=frozen(np.where(present[:, :, None], effects.estimates, 0.0)),
            cov=frozen(cov),
            present=present,
            df=None if df is None or np.isinf(df).all() else frozen(df),
            direct=direct_effect,
        )

    @property
    def n_mediators(self) -> int:
        """P."""
        return int(self.estimates.shape[2]) - 1

    @property
    def n_instruments(self) -> int:
        """Site-by-arm contrasts that are there, less the direct effects that are profiled out."""
        here = self.present.astype(np.int64)
        count = int(np.sum(here))
        return count - int(np.sum(here.max(axis=0))) if self.direct else count

    def chunks(self, count: int) -> Iterator[slice]:
        """Candidates that fit in memory together."""
        each = self.estimates.shape[0] * self.cov.shape[1] * (self.estimates.shape[2] + 1) * self.cov.shape[1]
        step = max(1, _BUDGET // each)
        for start in range(0, count, step):
            yield slice(start, start + step)

    def flipped(self) -> Sites:
        """Outcome and mediator exchanged (one mediator): the same tests, in terms of one over the effect."""
        return replace(self, estimates=self.estimates[:, :, ::-1], cov=self.cov[:, :, ::-1, :, ::-1])

    def anderson_rubin(self, direction: Array) -> Array:
        """The statistic alone, for residuals with weights ``direction`` (C, 1 + P) of (itt, compliances)."""
        white, _, _ = self._residuals(direction)
        return np.asarray((self._normal_scale(white)[0] ** 2).sum(axis=1), dtype=np.float64)

    def scores(self, beta: Array, *, direction: Array | None = None) -> Scores:
        """Residuals and first stages at ``beta`` (C, P).

        Parameters
        ----------
        beta : (C, P) array
        direction : (C, 1 + P) array, optional
            Weights of (itt, compliances) in the residual; default ``(1, -beta)``. Only the line matters.
        """
        b = np.hstack([np.ones((len(beta), 1)), -beta]) if direction is None else direction
        k, d, q = self.estimates.shape
        white, ones, inverse = self._residuals(b)
        share = (b @ self.cov[:, :, 1:].transpose(4, 0, 1, 2, 3).reshape(q, -1)).reshape(
            len(b), k, d, q - 1, d
        )
        solved = np.einsum("ckde,ckd->cke", inverse, white.reshape(len(b), k, d))
        first = self.estimates[None, :, :, 1:] - np.einsum("ckdpe,cke->ckdp", share, solved)
        first = np.where(self.present[None, :, :, None], first, 0.0)
        strength = self._strength(first, share, inverse) if q == 2 else np.empty((len(b), 0))
        whitened = np.einsum("ckde,ckep->ckdp", inverse, first).reshape(*white.shape, q - 1)
        z, slope = self._normal_scale(white)
        if self.direct:
            whitened = whitened - _projected(whitened, ones, slope)
        return Scores(z, white, whitened, strength, slope)

    def _residuals(self, b: Array) -> tuple[Array, Array, Array]:
        """Whitened residuals less the direct effect (C, N), the direct effect's columns, and the whitening roots."""
        k, d, q = self.estimates.shape
        e = (b @ self.estimates.reshape(k * d, q).T).reshape(-1, k, d)
        outer = (b[:, :, None] * b[:, None, :]).reshape(len(b), q * q)
        v = (outer @ self.cov.transpose(2, 4, 0, 1, 3).reshape(q * q, -1)).reshape(-1, k, d, d)
        inverse = _inverse_roots(v)  # W with W V W' = I
        white = np.einsum("ckde,cke->ckd", inverse, e).reshape(len(b), k * d)
        ones = (inverse * self.present[None, :, None, :]).reshape(len(b), k * d, d)
        if self.direct:
            white = white - np.einsum("cnd,cd->cn", ones, self._direct_effect(white, ones))
        return white, ones, inverse

    def _normal_scale(self, t: Array) -> tuple[Array, Array]:
        """Student ratios taken to the normal scale, and d z^2 / d t^2.

        ``z^2 = ((8 f + 1) / (8 f + 3))^2 f log(1 + t^2 / f)`` (Wallace 1959): within 0.3% of the exact quantile at
        5% from f = 4 on (1.5% at f = 2, on the cautious side), closed, and without underflow far out.
        """
        if self.df is None:
            return t, np.ones_like(t)
        finite = np.isfinite(self.df)
        f = np.where(finite, self.df, 1.0)
        factor = ((8 * f + 1) / (8 * f + 3)) ** 2
        square = t**2 / f
        z = np.sqrt(factor * f * np.log1p(square))
        return np.where(finite, np.copysign(z, t), t), np.where(finite, factor / (1 + square), 1.0)

    def _direct_effect(self, white: Array, ones: Array) -> Array:
        """The direct effects (C, D) that make the sum of squares smallest."""
        alpha = _least_squares(white, ones, np.ones_like(white))
        if self.df is None:
            return alpha
        # With few degrees of freedom the objective is concave in the squared ratios, so that reweighted
        # least squares goes downhill at every step.
        for _ in range(_SWEEPS):
            residual = white - np.einsum("cnd,cd->cn", ones, alpha)
            new = _least_squares(white, ones, self._normal_scale(residual)[1])
            done = np.all(np.abs(new - alpha) <= 1e-9 * np.abs(alpha).max())
            alpha = new
            if done:
                break
        return alpha

    def _strength(self, first: Array, share: Array, inverse: Array) -> Array:
        """D of the one mediator divided by its own standard error (Cholesky for several arms)."""
        explained = np.einsum("ckde,ckfe->ckdf", inverse, share[:, :, :, 0, :])
        own = self.cov[None, :, :, 1, :, 1] - np.einsum("ckdf,ckdg->ckfg", explained, explained)
        count, k, d = first.shape[:3]
        # A site whose mediator moves by a known amount (everybody complies) has no error to compare with.
        spread = np.einsum("kdd->kd", self.cov[:, :, 1, :, 1])
        known = np.linalg.eigvalsh(own)[..., :1] <= 1e-14 * spread.max(axis=1)[None, :, None]
        root = _inverse_roots(np.where(known[..., None], np.eye(d), own))
        ratio = np.einsum("ckde,cke->ckd", root, first[..., 0]).reshape(count, k * d)
        known = np.broadcast_to(known, (count, k, d)).reshape(count, k * d)
        if self.direct:
            ones = (root * self.present[None, :, None, :]).reshape(count, k * d, d)
            ratio = ratio - np.einsum("cnd,cd->cn", ones, _least_squares(ratio, ones, np.ones_like(ratio)))
        return np.where(known & (np.abs(ratio) > 0), np.inf, ratio)


def _least_squares(left: Array, right: Array, weight: Array) -> Array:
    """Coefficients (C, D) of ``left`` (C, N) on ``right`` (C, N, D)."""
    gram = np.einsum("cnd,cn,cne->cde", right, weight, right)
    cross = np.einsum("cnd,cn,cn->cd", right, weight, left)
    return np.asarray(np.einsum("cde,ce->cd", np.linalg.pinv(gram, hermitian=True), cross), dtype=np.float64)


def _projected(left: Array, ones: Array, weight: Array) -> Array:
    """The part of every column of ``left`` that the direct effect explains."""
    out = np.empty_like(left)
    for p in range(left.shape[2]):
        out[:, :, p] = np.einsum("cnd,cd->cn", ones, _least_squares(left[:, :, p], ones, weight))
    return out


def _inverse_roots(v: Array) -> Array:
    """W with W V W' = I, for a stack of small positive definite matrices."""
    if v.shape[-1] == 1:
        return np.asarray(1.0 / np.sqrt(v), dtype=np.float64)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(v)), dtype=np.float64)


def _check_known(effects: SiteEffects, both: npt.NDArray[np.bool_]) -> None:
    bad: npt.NDArray[np.bool_] = np.asarray((np.isnan(effects.cov) & both).any(axis=(1, 2, 3, 4)))
    if bad.any():
        names = listing([s for s, b in zip(effects.sites, bad, strict=True) if b])
        raise MomentsInsufficient(
            f"The sampling covariance ({effects.cov_type}) is not available in {names}. Robust weak-instrument "
            "tests weigh each site by it: take effects with another covariance, such as cov_type='HC2' or "
            "'classical' (SiteEffects.from_moments), or leave those sites out."
        )


def _check_df(effects: SiteEffects, df: Array) -> None:
    bad = ~(df > 0)
    if bad.any():
        names = listing([s for s, b in zip(effects.sites, bad, strict=True) if b])
        raise DataError(
            f"The covariance of {names} has no degrees of freedom: too few people. Leave those sites out or take "
            "a pooled covariance."
        )


def _check_residual_variance(effects: SiteEffects, cov: Array, size: int) -> None:
    """The variance of the outcome beyond the mediators bounds the residual variance at every effect."""
    k, d = cov.shape[:2]
    flat = cov.transpose(0, 2, 1, 4, 3).reshape(k, size * d, size * d)
    scale = np.sqrt(np.clip(np.einsum("kii->ki", flat), 0.0, None))
    scale = np.where(scale > 0, scale, 1.0)
    unit = flat / (scale[:, :, None] * scale[:, None, :])
    inner = np.linalg.pinv(unit[:, d:, d:], hermitian=True, rcond=1e-12)
    rest = unit[:, :d, :d] - unit[:, :d, d:] @ inner @ unit[:, d:, :d]
    bad = np.linalg.eigvalsh(rest)[:, 0] <= 1e-12
    if bad.any():
        names = listing([s for s, b in zip(effects.sites, bad, strict=True) if b])
        raise DataError(
            f"In {names} the outcome has no sampling variance beyond that of the mediators: too few people in an "
            "arm, or an outcome that is constant or an exact combination of the mediators. A site cannot be "
            "weighed by a variance of zero; leave it out or take a pooled covariance."
        )

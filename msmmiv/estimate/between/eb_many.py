"""The empirical-Bayes score for several mediators, and for rows that share people.

The scores of all mediators are set to zero but one, and that one is tested. Arrays lead with candidate values (G),
then sites (S) and the rows of each (D, padded with rows of weight zero).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from msmmiv.estimate.between.eb_score import ScorePath, mixed_variance, paule_mandel, score_rounding, t_ratio
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.linalg import Array, Codes, portions, root

__all__ = ["Blocks", "ManyPath", "many_path", "regression_at", "solve_scores"]

#: Least variance of the compliances, relative to their sampling variance, that shrinkage works with: the direction in
#: which shrunken compliances differ stays defined when there is no variance beyond sampling error.
_FLOOR = 1e-6
_ROUNDS = 60
#: Sum of squares that a solved score may still explain (of about one per row); smallest part of a step that is tried.
_SOLVED, _STUCK = 1e-18, 1e-4
#: Points of the line on which one slope is sought; how far several may wander from where they start, in scales.
_LINE, _REACH = 401, 1e4


@dataclass(frozen=True, eq=False)
class Blocks:
    """Rows by site, padded: everything that does not depend on the candidate value.

    Attributes
    ----------
    rows : BetweenRows
    drawn : (y, x) or None
        Simulated (G, K) itt and (G, K, P) compliances in the place of those of ``rows``, one sample per candidate.
    """

    rows: BetweenRows
    drawn: tuple[Array, Array] | None = None

    @cached_property
    def index(self) -> Codes:
        """(S, D) row numbers; any row where ``present`` is false."""
        order = np.argsort(self.rows.site, kind="stable")
        counts = np.bincount(self.rows.site)
        out = np.zeros((len(counts), int(counts.max())), dtype=np.int64)
        out[self.present] = order
        return out

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """(S, D) whether there is such a row."""
        counts = np.bincount(self.rows.site)
        return np.asarray(np.arange(int(counts.max()))[None, :] < counts[:, None])

    @cached_property
    def y(self) -> Array:
        """(S, D), or (G, S, D) when drawn."""
        y = self.rows.y if self.drawn is None else self.drawn[0]
        return np.asarray(y[..., self.index] * self.present)

    @cached_property
    def x(self) -> Array:
        """(S, D, P), or (G, S, D, P) when drawn."""
        x = self.rows.x if self.drawn is None else self.drawn[1]
        return np.asarray(x[..., self.index, :] * self.present[:, :, None])

    @cached_property
    def z(self) -> Array:
        """(S, D, q)."""
        return self.rows.z[self.index] * self.present[:, :, None]

    @cached_property
    def cov(self) -> Array:
        """(S, D, 1 + P, D, 1 + P) covariance of the rows of each site."""
        d = self.index.shape[1]
        if self.rows.cross is None:
            own = self.rows.cov[self.index]
            out = np.zeros((len(own), d, own.shape[2], d, own.shape[2]))
            for j in range(d):
                out[:, j, :, j, :] = own[:, j]
        else:
            i = self.index
            # Advanced indices apart move to the front: (S, D, D, 1 + P, 1 + P).
            out = np.asarray(self.rows.cross[i[:, :, None], :, i[:, None, :], :].transpose(0, 1, 3, 2, 4))
        both = self.present[:, :, None] & self.present[:, None, :]
        return np.asarray(out * both[:, :, None, :, None])

    @cached_property
    def _inverse(self) -> Array:
        return np.asarray(np.linalg.pinv(self.z[self.present]))

    @cached_property
    def spare(self) -> Array:
        """(K,) one less leverage in a regression on ``z`` with equal weights, rows in the order of the blocks."""
        return np.asarray(1.0 - np.einsum("kq,qk->k", self.z[self.present], self._inverse))

    def away(self, values: Array) -> Array:
        """(..., K, m) residuals of that regression."""
        return np.asarray(values - self.z[self.present] @ (self._inverse @ values))


@dataclass(frozen=True, eq=False)
class ManyPath:
    """The score of one mediator at candidate values, the other mediators' effects estimated under each.

    Attributes
    ----------
    path : ScorePath
        Of the mediator; ``influence`` (G, K) in the order of the rows, ``direct_variance`` (G,). Its
        ``compliance_variance`` and ``compliance_mean`` are those of the tested mediator.
    effects : (G, P) array
        Effects of all mediators; the candidate value in its place.
    """

    path: ScorePath
    effects: Array


@dataclass(frozen=True, eq=False)
class _State:
    """Everything computed at one set of effects (G, P)."""

    r: Array  # (G, S, D)
    w: Array  # (G, S, D, D)
    tau2: Array  # (G,)
    intercepts: Array  # (G, q)
    intercept_cov: Array  # (G, q, q)
    h: Array  # (G, S, D, P) shrunken compliances
    gamma: Array  # (G, P, P)
    mean: Array  # (G, q, P)


def many_path(blocks: Blocks, mediator: int, value: Array) -> ManyPath:
    """The score of one mediator at candidate values of its effect.

    Parameters
    ----------
    blocks : Blocks
    mediator : int
        Position of the tested mediator.
    value : (G,) array

    Notes
    -----
    As `score_path`, with matrices: W_s = (E_s + t^2)^-1 over the rows of a site, X~ = X - kappa W r^c, and
    h = Gamma (Gamma + C~)^-1 (x~ - mean) with Gamma the moment covariance of compliances beyond sampling error, cut to
    be positive. The other effects solve their own scores under the candidate value (steps of a regression of r on h;
    the iterate with the smallest score is kept). The variance is HC3, or CR3 by site where rows share people, mixed
    with the classical one as in `mixed_variance`.
    """
    value = np.asarray(value, dtype=float)
    p = blocks.rows.x.shape[1]
    others = [j for j in range(p) if j != mediator]
    effects = _solved(blocks, _start(blocks, mediator, value), others) if others else value[:, None]
    state = _state(blocks, effects)
    score, error, influence, variance = _score(blocks, state, mediator)
    flat = (len(value), -1)
    back = np.empty((len(value), blocks.rows.n_rows))
    back[:, blocks.index[blocks.present]] = influence[:, blocks.present]
    path = ScorePath(
        value,
        score,
        error,
        back,
        state.intercepts,
        state.intercept_cov,
        state.tau2,
        state.gamma[:, mediator, mediator],
        state.mean[:, :, mediator],
        score_rounding(variance, influence.reshape(flat), np.abs(state.r).reshape(flat)),
    )
    return ManyPath(path, effects)


def solve_scores(blocks: Blocks) -> tuple[Array, float]:
    """(P,) effects at which all scores are zero, and the largest t ratio that is left of them.

    With one mediator the whole line is searched for the zero nearest to the corrected regression at which the score
    falls; it may have none, and then the corrected (or least-squares) slope comes back with what is left there.
    """
    start = _start(blocks, -1, np.zeros(1))
    if blocks.rows.x.shape[1] == 1:
        effects = _nearest_zero(blocks, float(start[0, 0]))[None, None]
    else:
        effects = _solved(blocks, start, list(range(blocks.rows.x.shape[1])))
    state = _state(blocks, effects)
    left = 0.0
    for j in range(blocks.rows.x.shape[1]):
        score, error, _, _ = _score(blocks, state, j)
        left = max(left, float(np.abs(t_ratio(score, error))[0]))
    return effects[0], left


def _nearest_zero(blocks: Blocks, start: float) -> Array:
    scale = float(blocks.rows.y.std() / blocks.rows.x.std()) or 1.0

    def score(value: Array) -> Array:
        return _score(blocks, _state(blocks, value[:, None]), 0)[0]

    grid = start + scale * np.tan(np.linspace(-1.57, 1.57, _LINE))
    found = np.concatenate([score(part) for part in portions(grid, blocks.rows.n_rows)])
    falls = np.flatnonzero((found[:-1] > 0) & (found[1:] <= 0))
    if not len(falls):
        return np.asarray(start)
    at = falls[np.argmin(np.abs(grid[falls] - start))]
    low, high = float(grid[at]), float(grid[at + 1])
    # Alone, a value may round to the other side of zero than it does among many.
    ends = [float(score(np.array([v]))[0]) for v in (low, high)]
    if not (ends[0] > 0 >= ends[1]):
        return np.asarray((low, high)[int(np.argmin(np.abs(ends)))])
    return np.asarray(root(lambda v: float(score(np.array([v]))[0]), low, high, xtol=1e-14 * scale))


def _start(blocks: Blocks, mediator: int, value: Array) -> Array:
    """(G, P) corrected normal equations of the other effects (mediator -1: of all); least squares where unsolvable."""
    at = blocks.present
    x, y = blocks.away(blocks.x[at]), blocks.y[at]
    noise = np.einsum("sdadb->sdab", blocks.cov)[at]
    gram = x.T @ x
    right = x.T @ y
    signal = gram - np.einsum("k,kab->ab", blocks.spare, noise[:, 1:, 1:])
    corrected = right - np.einsum("k,ka->a", blocks.spare, noise[:, 0, 1:])
    others = [j for j in range(x.shape[1]) if j != mediator]
    out = np.repeat(value[:, None], x.shape[1], axis=1)
    if others:
        sub = signal[np.ix_(others, others)]
        size = np.sqrt(np.maximum(np.diag(gram)[others], np.finfo(float).tiny))
        if np.linalg.eigvalsh(sub / np.outer(size, size))[0] < 0.05:
            signal, corrected, sub = gram, right, gram[np.ix_(others, others)]
        rest = corrected[others] - (np.outer(value, signal[others, mediator]) if mediator >= 0 else 0.0)
        out[:, others] = rest @ np.linalg.inv(sub)
    return out


def _solved(blocks: Blocks, effects: Array, which: list[int]) -> Array:
    """Effects with the scores of the mediators in ``which`` set to zero, candidate by candidate.

    Steps of a regression of r on h, halved until the score falls; candidates drop out as they are solved.
    """
    best, least = effects.copy(), np.full(len(effects), np.inf)
    limit = _REACH * np.maximum(blocks.rows.y.std() / blocks.rows.x.std(axis=0), np.abs(effects).max(axis=0))
    step, damp = np.zeros_like(effects), np.ones(len(effects))
    live = np.arange(len(effects))
    for _ in range(_ROUNDS):
        trial = np.clip(best[live] + damp[live, None] * step[live], -limit, limit)
        move, norm = _move(blocks, _state(blocks, trial), which)
        better = norm < least[live]
        won = live[better]
        best[won], least[won] = trial[better], norm[better]
        step[won[:, None], which] = move[better]
        damp[live] = np.where(better, 1.0, damp[live] / 2.0)
        live = live[(least[live] > _SOLVED) & (damp[live] > _STUCK)]
        if not len(live):
            break
    return best


def _move(blocks: Blocks, state: _State, which: list[int]) -> tuple[Array, Array]:
    """Coefficients of r on the shrunken compliances in ``which``, and the explained sum of squares."""
    design = np.concatenate([_spread_z(blocks, state), state.h[..., which]], axis=-1)
    coef, gram, _ = _fit(design, state)
    q = blocks.z.shape[2]
    part = coef[:, q:]
    bread = np.linalg.pinv(gram)[:, q:, q:]
    norm = np.einsum("gp,gpq,gq->g", part, np.linalg.pinv(bread), part)
    return part, np.abs(norm)


def _spread_z(blocks: Blocks, state: _State) -> Array:
    return np.broadcast_to(blocks.z, (len(state.tau2), *blocks.z.shape))


def _fit(design: Array, state: _State) -> tuple[Array, Array, Array]:
    """Weighted regression of r: coefficients (G, m), Gram matrix (G, m, m), weighted design (G, S, D, m)."""
    pulled = state.w @ design
    gram = np.einsum("gsdm,gsdn->gmn", design, pulled, optimize=True)
    right = np.einsum("gsdm,gsd->gm", pulled, state.r)
    return (np.linalg.pinv(gram, hermitian=True) @ right[..., None])[..., 0], gram, pulled


def _state(blocks: Blocks, effects: Array) -> _State:
    contrast = np.column_stack([np.ones(len(effects)), -effects])
    r = blocks.y - (blocks.x * effects[:, None, None, :]).sum(axis=-1)
    crossed = np.einsum("sdaeb,gb->gsdae", blocks.cov, contrast, optimize=True)
    e = np.einsum("gsdae,ga->gsde", crossed, contrast)
    tau2, w, intercepts, rest = _paule_mandel(blocks, r, e)
    z = np.broadcast_to(blocks.z, (len(r), *blocks.z.shape))
    bread = np.linalg.inv(np.einsum("gsdp,gsde,gseq->gpq", z, w, z, optimize=True))
    kappa = crossed[:, :, :, 1:, :]
    seen = np.einsum("gsdpe,gsef->gsdpf", kappa, w)
    clean = blocks.x - np.einsum("gsdpf,gsf->gsdp", seen, rest)
    noise = np.einsum("sdadb->sdab", blocks.cov)[:, :, 1:, 1:]
    left = noise - np.einsum("gsdpf,gsdqf->gsdpq", seen, kappa)
    gamma, mean, away = _spread(blocks, clean, left)
    total = gamma[:, None, None] + left + ~blocks.present[:, :, None, None] * np.eye(left.shape[-1])
    h = np.einsum("gpq,gsdq->gsdp", gamma, np.linalg.solve(total, away[..., None])[..., 0])
    return _State(r, w, tau2, intercepts, bread, h * blocks.present[:, :, None], gamma, mean)


def _paule_mandel(blocks: Blocks, r: Array, e: Array) -> tuple[Array, Array, Array, Array]:
    """Variance beyond sampling error with correlated errors; see `eb_score.paule_mandel`."""
    df = blocks.rows.n_rows - blocks.z.shape[2]
    eye, both = np.eye(e.shape[-1]), blocks.present[:, :, None] & blocks.present[:, None, :]
    e = e + ~blocks.present[:, :, None] * eye
    tau2 = np.zeros(len(r))
    for _ in range(_ROUNDS):
        total = e + tau2[:, None, None, None] * eye
        w = (1.0 / total if total.shape[-1] == 1 else np.linalg.inv(total)) * both
        pulled = w @ np.broadcast_to(blocks.z, (len(r), *blocks.z.shape))
        gram = np.einsum("sdp,gsdq->gpq", blocks.z, pulled, optimize=True)
        b = np.linalg.solve(gram, np.einsum("gsdp,gsd->gp", pulled, r)[..., None])[..., 0]
        rest = r - np.einsum("sdp,gp->gsd", blocks.z, b)
        pull = (w @ rest[..., None])[..., 0]
        q = (pull * rest).sum(axis=(1, 2))
        short = q > df
        step = np.where(short, q * (q / df - 1.0) / np.where(short, (pull**2).sum(axis=(1, 2)), 1.0), 0.0)
        if (step <= 1e-13 * tau2).all():
            break
        tau2 = tau2 + step
    return tau2, np.asarray(w), b, np.asarray(rest)


def _spread(blocks: Blocks, clean: Array, left: Array) -> tuple[Array, Array, Array]:
    """Moment covariance of compliances beyond their errors (cut to be positive), coefficients on z, deviations."""
    at, (k, q) = blocks.present, blocks.rows.z.shape
    x = clean[:, at]
    own = left[:, at]
    noise = np.einsum("sdadb->sdab", blocks.cov)[at][:, 1:, 1:].mean(axis=0)
    if x.shape[2] == 1:  # as in `score_path`, so that the two agree to rounding
        variance, _, coef, _ = paule_mandel(
            x[..., 0], np.maximum(own[..., 0, 0], 1e-12 * noise[0, 0]), blocks.z[at]
        )
        away = clean - np.einsum("sdq,gq->gsd", blocks.z, coef)[..., None]
        return np.maximum(variance, _FLOOR * noise[0, 0])[:, None, None], coef[..., None], away
    mean = np.linalg.pinv(blocks.z[at]) @ x if q else np.zeros((len(x), 0, x.shape[2]))
    away = clean - np.einsum("sdq,gqp->gsdp", blocks.z, mean)
    rest = blocks.away(x)
    moment = (rest.transpose(0, 2, 1) @ rest - np.einsum("k,gkpq->gpq", blocks.spare, own)) / (k - q)
    root = np.linalg.cholesky(noise + 1e-12 * np.diag(np.diag(noise)))
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(inverse @ moment @ inverse.T)
    cut = np.einsum("gij,gj,gkj->gik", vectors, np.maximum(values, _FLOOR), vectors)
    return root @ cut @ root.T, mean, away


def regression_at(blocks: Blocks, effects: Array) -> tuple[Array, Array, Array]:
    """The regression of itt - compliances x effects on z and the shrunken compliances, at one set of effects (P,).

    Returns
    -------
    coefficients : (q + P,) array
    influence : (S, q + P) array
        Of each site on the coefficients, its residual without it (HC3, CR3): outer products sum to the covariance.
    slopes : (q, P) array
        Regression of the compliances on z with the same weights.
    """
    state = _state(blocks, effects[None])
    design = np.concatenate([_spread_z(blocks, state), state.h], axis=-1)
    coef, gram, pulled = _fit(design, state)
    bread = np.linalg.pinv(gram, hermitian=True)
    adjusted = _without(design, coef, bread, pulled, state)
    influence = np.einsum("gmn,gsdn,gsd->sm", bread, pulled, adjusted, optimize=True)
    q = blocks.z.shape[2]
    slopes = state.intercept_cov[0] @ np.einsum("sdq,sdp->qp", pulled[0][..., :q], blocks.x)
    return coef[0], influence, slopes


def _score(blocks: Blocks, state: _State, mediator: int) -> tuple[Array, Array, Array, Array]:
    """Coefficient of one shrunken compliance, standard error, what each row adds (G, S, D), and model variance."""
    q = blocks.z.shape[2]
    design = np.concatenate([_spread_z(blocks, state), state.h], axis=-1)
    coef, gram, pulled = _fit(design, state)
    bread = np.linalg.pinv(gram, hermitian=True)
    influence = np.einsum("gm,gsdm->gsd", bread[:, q + mediator], pulled)
    adjusted = _without(design, coef, bread, pulled, state)
    sandwich = ((influence * adjusted).sum(axis=2) ** 2).sum(axis=1)
    residual = state.r - np.einsum("gsdm,gm->gsd", design, coef)
    df = blocks.rows.n_rows - q - state.h.shape[-1]
    left = np.einsum("gsd,gsde,gse->g", residual, state.w, residual, optimize=True) / df
    variance = np.asarray(bread[:, q + mediator, q + mediator])
    error = np.sqrt(mixed_variance(sandwich, left * variance, blocks.rows.n_sites))
    return coef[:, q + mediator], error, influence, variance


def _without(
    design: Array, coef: Array, bread: npt.NDArray[np.floating], pulled: Array, state: _State
) -> Array:
    """(G, S, D) residuals of each site from a regression without it."""
    residual = state.r - np.einsum("gsdm,gm->gsd", design, coef)
    lift = np.einsum("gsdm,gmn,gsen->gsde", design, bread, pulled, optimize=True)
    # A site that alone carries a coefficient has no residual: its influence is bounded, not divided by zero.
    if lift.shape[-1] == 1:
        return np.asarray(residual / np.maximum(1.0 - lift[..., 0], 1e-9))
    eye = np.eye(lift.shape[-1]) * (1.0 + 1e-9)
    return np.asarray(np.linalg.solve(eye - lift, residual[..., None])[..., 0])

"""Structural Bayes: bounded intervals for the between-site slope with a handful of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.errors import ChoiceError, DataError, TooFewSitesError, count
from msmmiv.estimate.between.reml_many import check_one_mediator
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.linalg import Array, frozen

__all__ = ["BayesFit", "Posterior", "StructuralBayes"]

_R_HAT = 1.01
_ESS = 400.0
_PARAMETERS = ("slope", "direct_effect", "compliance_sd", "direct_sd")


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of slope, mean direct effect, and the spreads of compliance and direct effects.

    Attributes
    ----------
    names : tuple of str
        "slope", "direct_effect", "compliance_sd", "direct_sd".
    draws : (chains, draws, 4) array
    r_hat : (4,) array
        Split R-hat of ranks; near one when the chains agree.
    ess : (4,) array
        Independent draws that would pin the mean as well.
    prior : str
        The prior in words.
    """

    names: tuple[str, ...]
    draws: Array
    r_hat: Array
    ess: Array
    prior: str

    def interval(self, level: float = 0.95) -> Array:
        """(4, 2) credible limits with equal tails."""
        if not 0.0 < level < 1.0:
            raise DataError(f"A credible level lies between 0 and 1; got {level!r}.")
        tail = (1.0 - level) / 2.0
        flat = self.draws.reshape(-1, len(self.names))
        return np.asarray(np.quantile(flat, [tail, 1.0 - tail], axis=0).T)

    def probability_above(self, value: float = 0.0) -> float:
        """Posterior probability that the slope exceeds ``value``."""
        return float((self.draws[:, :, 0] > value).mean())


@dataclass(frozen=True, eq=False, kw_only=True)
class BayesFit(BetweenFit):
    """Posterior means and covariance, with the draws; ``conf_int`` gives credible limits.

    Attributes
    ----------
    posterior : Posterior
    """

    posterior: Posterior

    def conf_int(self, level: float = 0.95) -> Array:
        """(2, 2) credible limits of slope and direct effect."""
        return self.posterior.interval(level)[:2]


@dataclass(frozen=True)
class StructuralBayes:
    """Normal model for true compliances and direct effects, with priors that keep the slope bounded.

    Use it with ten rows or fewer, where honest confidence sets are often unbounded. The price is a prior on the slope
    that matters when compliance hardly varies: report it.

    Attributes
    ----------
    draws, chains, burn : int
        Draws kept per chain, chains, and draws dropped at the start of each.
    prior_scale : float
        Standard deviation of the normal prior of the slope, in units of sd(itt) / sd(compliance) across rows.

    Notes
    -----
    y_k = d + beta g_k + e_k + v_k, x_k = g_k + u_k, g ~ N(mu, s^2), e ~ N(0, t^2); flat priors on mu, d, s and t,
    beta ~ N(0, (prior_scale sd(y) / sd(x))^2). With c_k = Cov(u_k, v_k), itt less (c_k / a_k) x_k has an error
    independent of u_k, with variance b_k - c_k^2 / a_k, around d + (beta - c_k / a_k) g_k. Gibbs: g_k normal; (d, beta)
    a weighted regression with the prior; e_k normal; t^2 = sum e^2 / chi2_{K-1} and s^2 = sum (g - mu)^2 /
    chi2_{K-1}, what flat priors on standard deviations imply; and, so that chains do not stick where s or t is small,
    a Metropolis move that stretches deviations and their standard deviation together.

    With flat standard deviations the posterior is proper from three rows: the likelihood falls like s^-(K-1) and
    t^-(K-1). With three or four rows its tails are heavy.

    Examples
    --------
    >>> from msmmiv.estimate.between.rows import BetweenRows
    >>> x = np.array([[0.0], [1.0], [2.0], [4.0], [5.0]])
    >>> rows = BetweenRows(
    ...     tuple("abcde"), ("m",), "y", ("direct_effect",), np.array([1.0, 2.0, 5.0, 9.0, 11.5]), x,
    ...     np.ones((5, 1)), 0.01 * np.eye(2)[None].repeat(5, axis=0), None, np.zeros((2, 2)), np.arange(5), False,
    ... )
    >>> fit = StructuralBayes(draws=500, burn=200).solve(rows, seed=0)
    >>> fit.coefficients.round(1).tolist(), fit.posterior.probability_above() > 0.99
    ([2.2, 0.5], True)
    """

    draws: int = 4000
    chains: int = 4
    burn: int = 1000
    prior_scale: float = 2.5

    @property
    def name(self) -> str:
        """Name in results."""
        return "bayes"

    def solve(self, rows: BetweenRows, *, seed: int) -> BayesFit:
        """Draw from the posterior.

        Raises
        ------
        ChoiceError
            Several mediators, site covariates, rows that share people, no direct effect, or a bad option.
        TooFewSitesError
            Fewer than three rows: the posterior is improper.
        DataError
            itt does not vary.
        """
        check_one_mediator(rows, "Structural Bayes")
        if rows.z.shape[1] > 1:
            raise ChoiceError("Structural Bayes takes no site covariates; use StructuralReml().")
        if rows.n_rows < 3:
            raise TooFewSitesError(f"The posterior of {count(rows.n_rows, 'row')} is improper; it needs 3.")
        if min(self.draws, self.chains, self.burn + 1) < 1 or self.draws < 4 or not self.prior_scale > 0:
            raise ChoiceError("draws (4 or more), chains, burn and prior_scale must be positive.")
        x, y = rows.x[:, 0], rows.y
        unit = np.array([float(x.std(ddof=1)), float(y.std(ddof=1))])
        if not unit[1] > 0:
            raise DataError("itt is the same in all rows: the prior of the slope is in units of its spread.")
        ratio = unit[1] / unit[0]
        data = _Data(
            (x - x.mean()) / unit[0],
            (y - y.mean()) / unit[1],
            rows.noise[:, 0, 0] / unit[0] ** 2,
            rows.itt_variance / unit[1] ** 2,
            rows.covariance[:, 0] / unit.prod(),
        )
        rng = np.random.default_rng(seed)
        chain = _gibbs(data, self, rng) * [ratio, unit[1], unit[0], unit[1]]
        chain[:, :, 1] += y.mean() - chain[:, :, 0] * x.mean()  # centred above, for the digits
        r_hat, ess = (
            np.array([_r_hat(chain[:, :, j]) for j in range(4)]),
            np.array([_ess(chain[:, :, j]) for j in range(4)]),
        )
        prior = (
            f"effect of {rows.mediators[0]} normal around 0 with standard deviation {self.prior_scale * ratio:.4g} "
            f"({self.prior_scale:g} sd(itt) / sd(compliance)); means and standard deviations of compliance and of "
            "direct effects flat"
        )
        if rows.common.any():  # an error that all rows share moves the direct effect, draw by draw
            line = np.stack([np.ones_like(chain[:, :, 0]), -chain[:, :, 0]], axis=-1)
            variance = np.einsum("cda,ab,cdb->cd", line, rows.common, line)
            chain[:, :, 1] += np.sqrt(variance) * rng.standard_normal(variance.shape)
        flat = chain[:, :, :2].reshape(-1, 2)
        return BayesFit(
            self.name,
            rows.terms,
            frozen(flat.mean(axis=0)),
            frozen(np.cov(flat.T)),
            float("inf"),
            None,
            _notes(r_hat, ess, prior),
            posterior=Posterior(_PARAMETERS, frozen(chain), frozen(r_hat), frozen(ess), prior),
        )


@dataclass(frozen=True, eq=False)
class _Data:
    x: Array
    y: Array
    a: Array
    b: Array
    c: Array


def _gibbs(data: _Data, spec: StructuralBayes, rng: np.random.Generator) -> Array:
    """(chains, draws, 4) of slope, direct effect, s and t in units of the spread of x and y."""
    n, k = spec.chains, len(data.x)
    tilt = data.c / data.a
    y, own = data.y - tilt * data.x, np.maximum(data.b - tilt * data.c, 0.0)
    prior = 1.0 / spec.prior_scale**2
    # Chains start far apart: that is what R-hat compares.
    beta, d = rng.normal(0.0, 1.0, n), rng.normal(data.y.mean(), 1.0, n)
    mu = rng.normal(data.x.mean(), 1.0, n)
    s, t = rng.uniform(0.2, 2.0, n), rng.uniform(0.2, 2.0, n)
    out = np.empty((n, spec.draws, 4))
    for i in range(spec.burn + spec.draws):
        total = (t**2)[:, None] + own
        w = 1.0 / total
        line = beta[:, None] - tilt
        precision = 1.0 / data.a + 1.0 / (s**2)[:, None] + line**2 * w
        pulled = data.x / data.a + (mu / s**2)[:, None] + line * w * (y - d[:, None])
        g = pulled / precision + rng.standard_normal((n, k)) / np.sqrt(precision)
        # Regression of itt on (1, g), direct effects integrated out.
        r = y + tilt * g
        w0 = w.sum(axis=1)
        middle = (w * g).sum(axis=1) / w0
        away = g - middle[:, None]
        schur = (w * away**2).sum(axis=1) + prior
        beta = (w * away * r).sum(axis=1) / schur + rng.standard_normal(n) / np.sqrt(schur)
        d = (w * r).sum(axis=1) / w0 - beta * middle + rng.standard_normal(n) / np.sqrt(w0)
        residual = r - d[:, None] - beta[:, None] * g
        share = (t**2)[:, None] * w
        e = share * residual + rng.standard_normal((n, k)) * np.sqrt(share * own)
        t = np.sqrt((e**2).sum(axis=1) / rng.chisquare(k - 1, n))
        mu = g.mean(axis=1) + rng.standard_normal(n) * s / np.sqrt(k)
        s = np.sqrt(((g - mu[:, None]) ** 2).sum(axis=1) / rng.chisquare(k - 1, n))
        t = _move_t(t, residual, own, rng)
        mu, s = _move_s(data, (y, own, tilt), (beta, d, mu, s, t, g), rng)
        if i >= spec.burn:
            out[:, i - spec.burn] = np.column_stack([beta, d, s, t])
    return out


def _move_t(t: Array, residual: Array, own: Array, rng: np.random.Generator) -> Array:
    """Metropolis for t with the direct effects integrated out, on the log scale."""
    tried = t * np.exp(rng.standard_normal(len(t)))

    def value(at: Array) -> Array:
        total = np.maximum((at**2)[:, None] + own, 1e-300)
        # log t is the Jacobian of the log scale under a flat prior on t.
        return np.asarray(-0.5 * (np.log(total) + residual**2 / total).sum(axis=1) + np.log(at))

    accept = np.log(rng.random(len(t))) < value(tried) - value(t)
    return np.where(accept, tried, t)


def _move_s(
    data: _Data, itt: tuple[Array, Array, Array], state: tuple[Array, ...], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Stretch the deviations of compliance and their standard deviation by one factor; only the data judge it."""
    y, own, tilt = itt
    beta, d, mu, s, t, g = state
    factor = np.exp(0.7 * rng.standard_normal(len(s)))
    w = 1.0 / ((t**2)[:, None] + own)

    def value(compliance: Array) -> Array:
        left = y + tilt * compliance - d[:, None] - beta[:, None] * compliance
        return np.asarray(-0.5 * ((data.x - compliance) ** 2 / data.a + w * left**2).sum(axis=1))

    stretched = mu[:, None] + factor[:, None] * (g - mu[:, None])
    # Standardised deviations have a fixed law; s has a flat prior, so log s brings its Jacobian.
    accept = np.log(rng.random(len(s))) < value(stretched) - value(g) + np.log(factor)
    return mu, np.where(accept, s * factor, s)


def _r_hat(draws: Array) -> float:
    """Split R-hat of normal scores of the ranks, the larger of bulk and tail (Vehtari and others 2021)."""
    from scipy.special import ndtri

    half = draws.shape[1] // 2
    parts = np.concatenate([draws[:, :half], draws[:, half : 2 * half]])

    def one(values: Array) -> float:
        ranks = values.ravel().argsort().argsort().reshape(values.shape) + 1.0
        z = ndtri((ranks - 0.375) / (values.size + 0.25))
        within = float(z.var(axis=1, ddof=1).mean())
        return float(np.sqrt((half - 1) / half + float(z.mean(axis=1).var(ddof=1)) / within))

    return max(one(parts), one(np.abs(parts - np.median(parts))))


def _ess(draws: Array) -> float:
    """Effective number of draws, by Geyer's initial monotone sequence over all chains."""
    m, n = draws.shape
    centred = draws - draws.mean(axis=1, keepdims=True)
    size = 2 ** int(np.ceil(np.log2(2 * n)))
    spectrum = np.abs(np.fft.rfft(centred, size, axis=1)) ** 2
    lagged = np.fft.irfft(spectrum, size, axis=1)[:, :n].mean(axis=0) / n
    within = lagged[0] * n / (n - 1)
    total = within * (n - 1) / n + (float(draws.mean(axis=1).var(ddof=1)) if m > 1 else 0.0)
    if total <= 0:
        return float("nan")
    rho = 1.0 - (within - lagged) / total
    rho[0] = 1.0
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    kept = np.minimum.accumulate(pairs[:stop])
    return float(m * n / max(2.0 * kept.sum() - 1.0, 1.0 / np.log10(m * n)))


def _notes(r_hat: Array, ess: Array, prior: str) -> tuple[str, ...]:
    notes = [f"Prior: {prior}."]
    if not r_hat.max() <= _R_HAT or not ess.min() >= _ESS:
        notes.append(
            f"The chains have not settled: R-hat up to {r_hat.max():.3f} (should be {_R_HAT} or less), effective draws "
            f"down to {ess.min():.0f} (should be {_ESS:.0f} or more). Raise draws."
        )
    return tuple(notes)

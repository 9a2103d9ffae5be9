"""What the score of the slope looks like when a candidate value is true, by simulation from the fit under it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msmmiv.errors import ChoiceError
from msmmiv.estimate.between.eb_many import Blocks, many_path
from msmmiv.estimate.between.eb_score import Samples, ScorePath, score_path
from msmmiv.linalg import Array, Codes, frozen
from msmmiv.progress import watched

__all__ = ["Calibration", "IndependentRows", "SharedRows", "calibrate"]

_KNOTS = 33
#: Multiples of the scale that stand for infinity: there the test no longer depends on the value.
_FAR = 1e6
#: Rows times draws times knots from which a bar is shown; about two seconds.
_LONG = 3_000_000
#: How much longer a row takes that shares people.
_SLOWER = 10
#: Rows times draws that are held at once: some twenty arrays of this size.
_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sizes of the statistic under candidate values, at knots between which they change smoothly.

    Attributes
    ----------
    angle : (J,) array
        arctan((value - centre) / scale) of the knots, ascending.
    sizes : (J, B) array
        Absolute statistics of the draws, descending; zero is one of the knots.
    centre, scale : float
    seed : int
    """

    angle: Array
    sizes: Array
    centre: float
    scale: float
    seed: int

    @property
    def draws(self) -> int:
        """B."""
        return int(self.sizes.shape[1])

    def critical(self, value: Array, level: float) -> Array:
        """(...,) size that the statistic exceeds with probability ``1 - level`` when the value is true.

        Raises
        ------
        ChoiceError
            Too few draws for the level.
        """
        rank = int(np.floor((1.0 - level) * (self.draws + 1) + 1e-9))
        if rank < 1:
            raise ChoiceError(f"{self.draws} draws cannot give a {level:.4g} set; ask for more draws.")
        return np.asarray(np.interp(self._angle(value), self.angle, self.sizes[:, rank - 1]))

    def pvalue(self, value: Array, statistic: Array) -> Array:
        """(...,) (1 + draws at least as large) / (1 + draws), interpolated between knots."""
        shape = np.shape(value)
        at, found = self._angle(np.ravel(value)), np.ravel(np.abs(statistic))
        right = np.clip(np.searchsorted(self.angle, at), 1, len(self.angle) - 1)
        share = (at - self.angle[right - 1]) / (self.angle[right] - self.angle[right - 1])
        p = [self._tail(j, found) for j in (right - 1, right)]
        return np.asarray(p[0] + share * (p[1] - p[0])).reshape(shape)

    def _tail(self, knots: Codes, statistic: Array) -> Array:
        # Rounding must not turn a tie into a difference.
        limit = statistic * (1.0 - 1e-12)
        out = np.empty(len(statistic))
        for j in np.unique(knots):
            here = knots == j
            out[here] = np.searchsorted(-self.sizes[j], -limit[here], side="right")
        return (1.0 + out) / (1.0 + self.draws)

    def _angle(self, value: Array) -> Array:
        out: Array = np.arctan((np.asarray(value, dtype=float) - self.centre) / self.scale)
        return np.clip(out, self.angle[0], self.angle[-1])


@dataclass(frozen=True, eq=False)
class IndependentRows:
    """Rows that share no people, one mediator: many samples at once.

    Attributes
    ----------
    samples : Samples
        One sample.
    """

    samples: Samples

    @property
    def z(self) -> Array:
        """(K, q) regressors without error."""
        return self.samples.z

    def path(self, value: Array) -> ScorePath:
        """The score at candidate values (G,)."""
        return score_path(self.samples, value)

    def errors(self, normal: Array) -> tuple[Array, Array]:
        """Sampling errors (B, K) of itt and compliance from (2, B, K) standard normal numbers."""
        noise, itt, cov = self.samples.noise, self.samples.itt_variance, self.samples.covariance
        tied = cov / np.sqrt(noise)
        v = tied * normal[0] + np.sqrt(np.maximum(itt - tied**2, 0.0)) * normal[1]
        return v, np.sqrt(noise) * normal[0]

    def statistic(self, y: Array, x: Array, value: float) -> Array:
        """(B,) statistics of samples (B, K) at one value."""
        return score_path(replace(self.samples, y=y, x=x), np.asarray(value)).statistic


@dataclass(frozen=True, eq=False)
class SharedRows:
    """Rows of a site that share its controls, one mediator.

    Attributes
    ----------
    blocks : Blocks
    """

    blocks: Blocks

    @property
    def z(self) -> Array:
        """(K, q) regressors without error."""
        return self.blocks.rows.z

    def path(self, value: Array) -> ScorePath:
        """The score at candidate values (G,)."""
        return many_path(self.blocks, 0, value).path

    def errors(self, normal: Array) -> tuple[Array, Array]:
        """Sampling errors (B, K) of itt and compliance, correlated inside sites."""
        k = len(self.z)
        values, vectors = np.linalg.eigh(_of_all(self.blocks).reshape(2 * k, 2 * k))
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn = normal.transpose(1, 2, 0).reshape(normal.shape[1], 2 * k) @ root.T
        return drawn[:, 0::2], drawn[:, 1::2]

    def statistic(self, y: Array, x: Array, value: float) -> Array:
        """(B,) statistics of samples (B, K) at one value."""
        drawn = replace(self.blocks, drawn=(y, x[:, :, None]))
        return many_path(drawn, 0, np.full(len(y), value)).path.statistic


def _of_all(blocks: Blocks) -> Array:
    """(K, 1 + P, K, 1 + P) covariance of all rows, put together from the sites': zero between them."""
    k, size = len(blocks.rows.y), blocks.cov.shape[2]
    out = np.zeros((k, size, k, size))
    site, one, two = np.nonzero(blocks.present[:, :, None] & blocks.present[:, None, :])
    out[blocks.index[site, one], :, blocks.index[site, two], :] = blocks.cov[site, one, :, two, :]
    return out


def calibrate(
    rows: IndependentRows | SharedRows, *, centre: float, scale: float, draws: int = 999, seed: int = 0
) -> Calibration:
    """Draw the statistic under candidate values on the whole line.

    Compliances and direct effects are drawn as normal with the Paule-Mandel variances found under the value, sampling
    errors as normal with their known covariance; the same standard normal numbers serve every value, so that the
    critical value changes smoothly with it.

    Parameters
    ----------
    rows : IndependentRows or SharedRows
    centre, scale : float
        Where knots are dense.
    draws, seed : int

    Notes
    -----
    The t reference is too strict with five sites and loose where a few precise rows decide; sizes and power of both are
    in docs/validation/table1.csv.
    """
    angle = np.linspace(-np.arctan(_FAR), np.arctan(_FAR), _KNOTS)
    angle = np.unique(np.append(angle, np.arctan(-centre / scale)))
    values = centre + scale * np.tan(angle)
    values[np.argmin(np.abs(values))] = 0.0
    fits, z = rows.path(values), rows.z
    sizes = np.empty((len(values), draws))
    long = sizes.size * len(z) * (1 if isinstance(rows, IndependentRows) else _SLOWER) > _LONG
    step = max(1, _AT_ONCE // len(z))
    parts = [slice(first, min(first + step, draws)) for first in range(0, draws, step)]
    rng = np.random.default_rng(seed)
    todo = [(part, j) for part in parts for j in range(len(values))]
    for part, j in watched(todo, what="critical values", show=long):
        if j == 0:
            normal = rng.standard_normal((4, part.stop - part.start, len(z)))
            v, u = rows.errors(normal[:2])
        compliance = z @ fits.compliance_mean[j] + np.sqrt(fits.compliance_variance[j]) * normal[2]
        direct = z @ fits.intercepts[j] + np.sqrt(fits.direct_variance[j]) * normal[3]
        y = direct + values[j] * compliance + v
        sizes[j, part] = np.abs(rows.statistic(y, compliance + u, float(values[j])))
    sizes = np.nan_to_num(sizes, nan=0.0)  # samples in which the score says nothing
    return Calibration(frozen(angle), frozen(-np.sort(-sizes, axis=1)), centre, scale, seed)

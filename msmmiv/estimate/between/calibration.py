"""What the score of the slope looks like when a candidate value is true, by simulation from the fit under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.errors import ChoiceError
from msmmiv.estimate.between.eb_score import Samples, score_path
from msmmiv.inference.progress import watched
from msmmiv.linalg import Array, Codes, frozen

__all__ = ["Calibration", "calibrate"]

_KNOTS = 33
#: Multiples of the scale that stand for infinity: there the test no longer depends on the value.
_FAR = 1e6
#: Rows times draws times knots from which a bar is shown; about two seconds.
_LONG = 3_000_000


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


def calibrate(
    samples: Samples, *, centre: float, scale: float, draws: int = 999, seed: int = 0
) -> Calibration:
    """Draw the statistic under candidate values on the whole line.

    Compliances and direct effects are drawn as normal with the Paule-Mandel variances found under the value, sampling
    errors as normal with their known covariance; the same standard normal numbers serve every value, so that the
    critical value changes smoothly with it.

    Parameters
    ----------
    samples : Samples
        One sample.
    centre, scale : float
        Where knots are dense.
    draws, seed : int

    Notes
    -----
    The t reference of an HC3 statistic is too strict with 5 sites (size .03, power at an effect of 2 in Fu's design
    .10) and somewhat loose with many unequal standard errors; under simulation it holds .04-.06 at 5 to 100 sites and
    the power with 5 sites is .18 (docs/validation/decompose.csv).
    """
    k = samples.x.shape[-1]
    angle = np.linspace(-np.arctan(_FAR), np.arctan(_FAR), _KNOTS)
    angle = np.unique(np.append(angle, np.arctan(-centre / scale)))
    values = centre + scale * np.tan(angle)
    values[np.argmin(np.abs(values))] = 0.0
    fits = score_path(samples, values)
    normal = np.random.default_rng(seed).standard_normal((4, draws, k))
    noise, itt, cov = samples.noise, samples.itt_variance, samples.covariance
    u = np.sqrt(noise) * normal[0]
    tied = cov / np.sqrt(noise)
    v = tied * normal[0] + np.sqrt(np.maximum(itt - tied**2, 0.0)) * normal[1]
    sizes = np.empty((len(values), draws))
    for j in watched(range(len(values)), what="critical values", show=len(values) * draws * k > _LONG):
        compliance = samples.z @ fits.compliance_mean[j] + np.sqrt(fits.compliance_variance[j]) * normal[2]
        direct = samples.z @ fits.intercepts[j] + np.sqrt(fits.direct_variance[j]) * normal[3]
        drawn = Samples(direct + values[j] * compliance + v, compliance + u, samples.z, itt, noise, cov)
        sizes[j] = np.abs(score_path(drawn, values[j]).statistic)
    return Calibration(frozen(angle), frozen(-np.sort(-sizes, axis=1)), centre, scale, seed)

"""The test of one mediator's effect, its confidence set and its confidence curve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from msmmiv.errors import ChoiceError, DataError, listing
from msmmiv.estimate.between.calibration import Calibration, IndependentRows, SharedRows, calibrate
from msmmiv.estimate.between.eb_many import Blocks, many_path, solve_scores
from msmmiv.estimate.between.eb_score import Samples, ScorePath, score_path
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.inference.confidence_set import ConfidenceSet, invert
from msmmiv.inference.tests import TestStatistic
from msmmiv.linalg import Array, portions
from msmmiv.progress import watched

__all__ = ["CALIBRATED", "SHARED_DRAWS", "Reference", "SlopeTest"]

Reference: TypeAlias = Literal["bootstrap", "t"]

#: Rows up to which critical values are simulated by default; with more, t is as good and quicker.
CALIBRATED = 200
#: Most draws where rows share people and every one takes matrices.
SHARED_DRAWS = 199
#: Points of the grid that a set is sought on: several mediators solve equations at each.
_POINTS = {True: 4001, False: 601}
#: Values times rows that take more than about two seconds.
_LONG = {True: 15_000_000, False: 200_000}


@dataclass(frozen=True, eq=False)
class SlopeTest:
    """Empirical-Bayes score test of one mediator's effect, to be inverted.

    Attributes
    ----------
    rows : BetweenRows
    mediator : str
    reference : {"bootstrap", "t"}
        Where critical values come from: simulation from the fit under each value, or t.
    draws, seed : int
        Of the simulation.
    """

    rows: BetweenRows
    mediator: str
    reference: Reference
    draws: int = 999
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mediator not in self.rows.mediators:
            raise DataError(
                f"No mediator {self.mediator!r}; there are {listing(self.rows.mediators, quote=True)}."
            )

    @classmethod
    def of(cls, rows: BetweenRows, mediator: str, *, draws: int = 999, seed: int = 0) -> SlopeTest:
        """With simulated critical values where they can be had: one mediator, and rows that are not too many."""
        one = len(rows.mediators) == 1 and rows.n_rows <= CALIBRATED
        if rows.cross is not None:
            draws = min(draws, SHARED_DRAWS)
        return cls(rows, mediator, "bootstrap" if one else "t", draws, seed)

    @property
    def df(self) -> int:
        """Degrees of freedom of the t reference: independent rows (sites) less coefficients."""
        return max(self.rows.n_sites - len(self.rows.terms), 1)

    @cached_property
    def estimate(self) -> float:
        """The value at which the score is zero, found from the corrected regression."""
        return float(self.effects[self.rows.mediators.index(self.mediator)])

    @cached_property
    def effects(self) -> Array:
        """(P,) values at which all scores are zero."""
        return solve_scores(self._blocks)[0]

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)

    @cached_property
    def _scale(self) -> float:
        """Standard deviation of itt over that of compliance: where candidate values of the slope live."""
        j = self.rows.mediators.index(self.mediator)
        return float(self.rows.y.std() / self.rows.x[:, j].std()) or 1.0

    @cached_property
    def _width(self) -> float:
        """A standard error of the slope, from the score and its derivative at the estimate; never far from `_scale`."""
        step = 1e-4 * self._scale
        path = self.path(self.estimate + step * np.array([-1.0, 0.0, 1.0]))
        slope = abs(float(path.score[2] - path.score[0])) / (2.0 * step)
        error = float(path.std_error[1])
        width = error / slope if slope > 0 and np.isfinite(error) else self._scale
        return float(np.clip(width, 1e-8 * self._scale, 10.0 * self._scale))

    @cached_property
    def calibration(self) -> Calibration | None:
        """Simulated sizes of the statistic; None with the t reference."""
        if self.reference == "t":
            return None
        if len(self.rows.mediators) > 1:
            raise ChoiceError(
                "Critical values are simulated for one mediator; with several use reference='t'."
            )
        simple = _is_simple(self.rows)
        rows = IndependentRows(_samples(self.rows)) if simple else SharedRows(self._blocks)
        return calibrate(rows, centre=self.estimate, scale=self._scale, draws=self.draws, seed=self.seed)

    def path(self, value: Array) -> ScorePath:
        """The score at candidate values (G,)."""
        if _is_simple(self.rows):
            return score_path(_samples(self.rows), value)
        return many_path(self._blocks, self.rows.mediators.index(self.mediator), value).path

    def others(self, value: Array) -> Array:
        """(G, P) effects of all mediators when this one has the candidate value."""
        if len(self.rows.mediators) == 1:
            return np.asarray(value, dtype=float)[:, None]
        return many_path(self._blocks, self.rows.mediators.index(self.mediator), value).effects

    def statistic(self, value: Array) -> Array:
        """(G,) t ratios of the score; zero where the score says nothing."""
        parts, long = portions(value, self.rows.n_rows), len(value) * self.rows.n_rows
        seen = watched(parts, what="score at many effects", show=long > _LONG[_is_simple(self.rows)])
        found = [self.path(part).statistic for part in seen]
        return np.nan_to_num(np.concatenate(found), nan=0.0)

    def critical(self, value: Array, level: float) -> Array:
        """(G,) size of the statistic above which a value is rejected."""
        if not 0.0 < level < 1.0:
            raise DataError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
        if self.calibration is not None:
            return self.calibration.critical(value, level)
        return np.full(np.shape(value), float(stdtrit(self.df, 0.5 + level / 2.0)))

    def pvalue(self, value: Array) -> Array:
        """(G,) two-sided p-values."""
        statistic = self.statistic(value)
        if self.calibration is not None:
            return self.calibration.pvalue(value, statistic)
        return np.asarray(2.0 * stdtr(self.df, -np.abs(statistic)))

    def test(self, value: float = 0.0) -> TestStatistic:
        """The test of one value."""
        at = np.array([float(value)])
        statistic, p = float(self.statistic(at)[0]), float(self.pvalue(at)[0])
        law = f"t({self.df})" if self.calibration is None else f"simulated under the null, {self.draws} draws"
        null = f"the effect of {self.mediator} is {value:g}"
        return TestStatistic("empirical-Bayes score", null, statistic, p, 1, law=law)

    def confidence_set(self, level: float = 0.95) -> ConfidenceSet:
        """All values that the test does not reject; possibly rays, or the whole line."""
        law = "t" if self.calibration is None else "simulated critical values"
        return invert(
            lambda v: np.abs(self.statistic(v)) - self.critical(v, level),
            centre=self.estimate,
            scale=self._width,
            level=level,
            method=f"empirical-Bayes score, {law}",
            term=self.mediator,
            points=_POINTS[_is_simple(self.rows)],
        )

    def curve(self, *, points: int = 401, level: float = 0.99) -> pd.DataFrame:
        """The confidence curve: columns ``value`` and ``p_value`` over the set of the given level.

        Where that set is unbounded, over ten standard errors (and three scales of the data) to either side.
        """
        low, high = self.confidence_set(level).hull
        reach = max(10.0 * self._width, 3.0 * self._scale)
        low = self.estimate - reach if not np.isfinite(low) else low
        high = self.estimate + reach if not np.isfinite(high) else high
        pad = 0.05 * (high - low)
        value = np.unique(np.append(np.linspace(low - pad, high + pad, points), [self.estimate, 0.0]))
        value = value[(value >= low - pad) & (value <= high + pad)]
        return pd.DataFrame({"value": value, "p_value": self.pvalue(value)})


def _is_simple(rows: BetweenRows) -> bool:
    return len(rows.mediators) == 1 and rows.cross is None


def _samples(rows: BetweenRows) -> Samples:
    return Samples(
        rows.y, rows.x[:, 0], rows.z, rows.itt_variance, rows.noise[:, 0, 0], rows.covariance[:, 0]
    )

"""The table of estimators of the between-site regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from msmmiv.errors import ChoiceError, check_choice
from msmmiv.estimate.between.bayes import StructuralBayes
from msmmiv.estimate.between.corrected import BCES, AdjustedDebiased, CorrectedNormal
from msmmiv.estimate.between.eb_estimator import EbScore
from msmmiv.estimate.between.linear import KnappHartung, Ols
from msmmiv.estimate.between.reliability import LambdaCorrected
from msmmiv.estimate.between.reml import StructuralReml
from msmmiv.estimate.between.rows import BetweenFit, BetweenRows
from msmmiv.estimate.between.simex import SIMEX

__all__ = ["METHODS", "BetweenEstimator", "BetweenMethod", "run"]

BetweenMethod: TypeAlias = Literal[
    "ols", "meta_regression", "lambda_corrected", "bces", "simex", "corrected", "adjusted_debiased", "eb_score",
    "reml", "bayes",
]  # fmt: skip


class BetweenEstimator(Protocol):
    """What an estimator of the between-site regression looks like."""

    @property
    def name(self) -> str:
        """Name in results, options included."""
        ...

    def solve(self, rows: BetweenRows) -> BetweenFit:
        """Coefficients with their covariance, or why there are none."""
        ...


METHODS: dict[BetweenMethod, Callable[[], Any]] = {
    "ols": Ols,
    "meta_regression": KnappHartung,
    "lambda_corrected": LambdaCorrected,
    "bces": BCES,
    "simex": SIMEX,
    "corrected": CorrectedNormal,
    "adjusted_debiased": AdjustedDebiased,
    "eb_score": EbScore,
    "reml": StructuralReml,
    "bayes": StructuralBayes,
}

#: Estimators that draw random numbers.
_RANDOM = (SIMEX, StructuralBayes)


def run(method: BetweenMethod | BetweenEstimator, rows: BetweenRows, *, seed: int) -> BetweenFit:
    """Fit by name or by an estimator with options.

    Raises
    ------
    ChoiceError
        An unknown name, or an object that is no estimator.
    """
    if isinstance(method, str):
        check_choice(method, BetweenMethod, "method")
    estimator: Any = METHODS[method]() if isinstance(method, str) else method
    if isinstance(estimator, type) or not callable(getattr(estimator, "solve", None)):
        raise ChoiceError(
            f"method={method!r} is neither a name nor an estimator such as SIMEX(B=500) or BCES()."
        )
    options = {"seed": seed} if isinstance(estimator, _RANDOM) else {}
    try:
        found: BetweenFit = estimator.solve(rows, **options)
    except (np.linalg.LinAlgError, ZeroDivisionError) as why:
        name = str(getattr(estimator, "name", method))
        return BetweenFit.without_estimate(name, rows, f"the equations are singular to rounding ({why})")
    return found

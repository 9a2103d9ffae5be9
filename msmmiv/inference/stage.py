"""FirstStage: what the instruments do to one mediator, or to the outcome."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from msmmiv.inference.tests import TestResult

__all__ = ["FirstStage"]


@dataclass(frozen=True, eq=False)
class FirstStage:
    """Regression of one mediator (or, as the reduced form, of the outcome) on the site-by-treatment instruments.

    Attributes
    ----------
    variable : str
        The mediator; the outcome for the reduced form.
    coefficients : DataFrame
        Columns ``site``, ``arm``, ``estimate``, ``std_error`` (NaN where not available).
    f_classical, f_robust : TestResult
        F of the excluded instruments under homoskedasticity, and with the covariance of the fit.
    partial_r2, r2 : float
        Share of the variance left by intercepts and covariates that the instruments explain; and of all.
    """

    variable: str
    coefficients: pd.DataFrame
    f_classical: TestResult
    f_robust: TestResult
    partial_r2: float
    r2: float

"""Test results as objects: a null in words, or the reason why there is no test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["NotApplicable", "TestResult", "TestStatistic", "chi2_test", "f_test"]


@dataclass(frozen=True)
class TestStatistic:
    """A statistic, its null hypothesis in words, and its reference distribution.

    Attributes
    ----------
    name, null : str
    stat, pvalue : float
    df : int
    df_denom : float or None
        None for a chi-squared reference, else the denominator of F.
    law : str
        The reference distribution in words, where it is neither.

    Examples
    --------
    >>> f_test("first stage", "the instruments do not move m", 12.0, 3, 100.0).dist
    'F(3, 100)'
    """

    __test__ = False  # not a test case, whatever its name says to pytest

    name: str
    null: str
    stat: float
    pvalue: float
    df: int
    df_denom: float | None = None
    law: str = ""

    @property
    def dist(self) -> str:
        """The reference distribution as text."""
        if self.law:
            return self.law
        return f"chi2({self.df})" if self.df_denom is None else f"F({self.df}, {self.df_denom:g})"

    def __str__(self) -> str:
        return f"{self.name}: {self.stat:.4g} ~ {self.dist}, p {_p(self.pvalue)} (H0: {self.null})"


@dataclass(frozen=True)
class NotApplicable:
    """A statistic that does not exist here, with the reason; its ``stat`` and ``pvalue`` are NaN."""

    name: str
    reason: str
    stat: float = float("nan")
    pvalue: float = float("nan")

    @property
    def dist(self) -> str:
        """Empty: there is no reference distribution."""
        return ""

    def __str__(self) -> str:
        return f"{self.name}: not applicable ({self.reason})"


TestResult: TypeAlias = TestStatistic | NotApplicable


def _p(value: float) -> str:
    return "< 1e-16" if value < 1e-16 else f"= {value:.4g}"


def chi2_test(name: str, null: str, stat: float, df: int) -> TestStatistic:
    """A chi-squared test, with the upper tail computed as such."""
    from scipy.special import chdtrc

    return TestStatistic(name, null, float(stat), float(chdtrc(df, stat)), int(df))


def f_test(name: str, null: str, stat: float, df: int, df_denom: float) -> TestStatistic:
    """An F test, with the upper tail computed as such."""
    from scipy.special import fdtrc

    return TestStatistic(name, null, float(stat), float(fdtrc(df, df_denom, stat)), int(df), float(df_denom))

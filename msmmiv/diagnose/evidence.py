"""What one check has to say about an assumption: a test, how it may be used, and what it could have seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from msmmiv.inference.tests import NotApplicable, TestResult

__all__ = ["Evidence", "Role"]

#: "evidence": a small p-value contradicts the assumption. "context": read beside it, and never decides.
Role: TypeAlias = Literal["evidence", "context"]


@dataclass(frozen=True)
class Evidence:
    """One test or figure beside an assumption, with what a reader needs to weigh it.

    Attributes
    ----------
    check : str
        Its name in ``assumptions/*.toml``, such as "linearity.origin_intercept".
    test : TestStatistic or NotApplicable
        With the null in words; not applicable with the reason, also where the test would not hold its size.
    role : {"evidence", "context"}
        Whether a small p-value contradicts the assumption. A test that reacts to what the assumption allows, or whose
        size has not been shown, is context.
    reading : str
        What the numbers say, in one or two sentences.
    detectable : str
        What the test could have seen: the smallest violation found with 80% power, or the power against a stated one.

    Examples
    --------
    >>> from msmmiv.inference.tests import f_test
    >>> found = Evidence("linearity.origin_intercept", f_test("origin", "no direct effect", 5.0, 1, 40), "evidence")
    >>> found.applies, round(found.test.pvalue, 3)
    (True, 0.031)
    """

    check: str
    test: TestResult
    role: Role = "context"
    reading: str = ""
    detectable: str = ""

    @property
    def applies(self) -> bool:
        """Whether there is a statistic."""
        return not isinstance(self.test, NotApplicable)

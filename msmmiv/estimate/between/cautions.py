"""What the rows themselves say against reading confidence sets as they stand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msmmiv.estimate.between.direct_spread import DirectSpread
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.estimate.between.slope_test import SlopeTest

__all__ = ["cautions_of"]

#: p-value of Q above which rows agree too well; share of the slope's information that one row may carry unremarked.
_AGREE, _ALONE = 0.99, 0.5


def cautions_of(rows: BetweenRows, tests: Mapping[str, SlopeTest], spread: DirectSpread) -> tuple[str, ...]:
    """Rows that agree better than their errors allow, and single rows that carry most of the information."""
    out = []
    if spread.q.pvalue > _AGREE:
        out.append(
            f"Rows agree better than their standard errors allow (Q, p = {spread.q.pvalue:.4f}): errors may be too "
            "large or rows not independent, and the sets are narrower than the errors justify."
        )
    for (name, test), x in zip(tests.items(), rows.x.T, strict=True):
        pull = np.abs(test.path(np.array([test.estimate])).influence[0] * (x - x.mean()))
        total = float(pull.sum())
        if not np.isfinite(total) or total <= 0 or pull.max() <= _ALONE * total:
            continue
        label = rows.labels[int(pull.argmax())]
        out.append(
            f"{label} alone carries {pull.max() / total:.0%} of what tells the effect of {name}: if direct effects "
            "vary more where compliance is unusual, a true value is rejected in up to 16% of samples instead of 5%."
        )
    return tuple(out)

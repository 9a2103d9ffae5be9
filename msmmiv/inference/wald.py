"""Wald tests of linear restrictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from msmmiv.errors import DataError, listing
from msmmiv.inference.tests import TestStatistic, f_test
from msmmiv.linalg import Array

__all__ = ["wald_test"]


def wald_test(
    terms: tuple[str, ...],
    coefficients: Array,
    covariance: Array,
    restriction: npt.ArrayLike | Sequence[str],
    value: npt.ArrayLike | None,
    *,
    df: float,
) -> TestStatistic:
    """F test of ``R b = q``; `Estimate.wald_test` is the public way.

    Raises
    ------
    DataError
        Unknown terms, wrong shapes, or restrictions that repeat each other.

    Examples
    --------
    >>> import numpy as np
    >>> wald_test(("a", "b"), np.array([1.0, 2.0]), np.eye(2), ["a", "b"], None, df=10.0).stat
    2.5
    """
    k = len(terms)
    names = [r for r in np.atleast_1d(np.asarray(restriction, dtype=object)).ravel() if isinstance(r, str)]
    if names:
        unknown = [n for n in names if n not in terms]
        if unknown:
            raise DataError(f"No term {listing(unknown, quote=True)}; the terms are {listing(terms)}.")
        matrix = np.eye(k)[[terms.index(n) for n in names]]
    else:
        matrix = np.atleast_2d(np.asarray(restriction, dtype=float))
    target = np.zeros(len(matrix)) if value is None else np.atleast_1d(np.asarray(value, dtype=float))
    if matrix.shape[1] != k or target.shape != (len(matrix),):
        raise DataError(f"R must have {k} columns ({listing(terms)}) and q one entry per row of R.")
    if np.linalg.matrix_rank(matrix) < len(matrix):
        raise DataError("The restrictions repeat each other: R does not have full row rank.")
    gap = matrix @ coefficients - target
    middle = matrix @ covariance @ matrix.T
    stat = float(gap @ np.linalg.solve(middle, gap)) / len(matrix)
    rows = [" + ".join(f"{w:g} {t}" for w, t in zip(r, terms, strict=True) if w) for r in matrix]
    null = " and ".join(f"{r} = {q:g}" for r, q in zip(rows, target, strict=True))
    return f_test("Wald", null, stat, len(matrix), df)

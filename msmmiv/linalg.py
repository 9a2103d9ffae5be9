"""Small dense linear algebra on cross-product matrices.

Matrices here are Gram matrices: symmetric, positive semi-definite, with rows whose units may differ by
many powers of ten. Everything is therefore done after scaling the diagonal to one, which makes results
exactly equivariant to the units of the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Codes",
    "dependent_columns",
    "frozen",
    "gram_pinv",
    "gram_root",
    "gram_solve",
    "group_products",
    "group_sum",
    "group_sum_along",
    "portions",
    "root",
    "schur",
    "sealed",
]

Array: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.int64)

#: Share of a column's sum of squares below which what is left of it counts as rounding.
RANK_TOLERANCE = 1e-10
#: Numbers in one of the twenty or so arrays that are held at once.
_AT_ONCE = 2**20


def frozen(values: npt.ArrayLike) -> Array:
    """A read-only float copy, for fields of frozen dataclasses.

    Examples
    --------
    >>> frozen([1, 2]).flags.writeable
    False
    """
    out = np.array(values, dtype=np.float64)
    out.flags.writeable = False
    return out


def sealed(values: Array) -> Array:
    """The same array made read-only, for one that nobody else holds: large fields need no copy.

    Examples
    --------
    >>> values = np.ones(2)
    >>> sealed(values) is values, values.flags.writeable
    (True, False)
    """
    values.flags.writeable = False
    return values


def portions(values: npt.NDArray[Number], each: int) -> list[npt.NDArray[Number]]:
    """Values along the first axis, as many at a time as memory holds arrays of them times ``each`` numbers.

    Examples
    --------
    >>> [len(part) for part in portions(np.arange(25.0), 100_000)]
    [10, 10, 5]
    """
    step = max(1, _AT_ONCE // max(each, 1))
    return [values[i : i + step] for i in range(0, max(len(values), 1), step)]


def group_sum(values: Array, groups: Codes, size: int) -> Array:
    """Sum ``values`` over their first axis within groups coded 0..size-1.

    Examples
    --------
    >>> group_sum(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([0, 0, 2]), 3).tolist()
    [[4.0, 6.0], [0.0, 0.0], [5.0, 6.0]]
    """
    flat = values.reshape(len(values), -1)
    out = np.empty((size, flat.shape[1]))
    for j in range(flat.shape[1]):
        out[:, j] = np.bincount(groups, flat[:, j], size)
    return out.reshape(size, *values.shape[1:])


def group_products(
    weight: Array, columns: Array, groups: Codes, size: int, *, inside: Array | None = None
) -> Array:
    """Sum ``inside + weight * columns columns'`` within groups, one pair of columns after the other.

    No stack of outer products is held, which for a million sites would be most of the memory.

    Parameters
    ----------
    weight : (C,) array
    columns : (C, p) array
    groups : (C,) array of int
        Codes 0..size-1.
    size : int
    inside : (C, p, p) array, optional
        Symmetric matrices that are added.

    Returns
    -------
    (size, p, p) array

    Examples
    --------
    >>> group_products(np.array([1.0, 2.0]), np.array([[1.0], [3.0]]), np.array([0, 0]), 1).tolist()
    [[[19.0]]]
    """
    p = columns.shape[1]
    out = np.empty((size, p, p))
    for i in range(p):
        weighted = weight * columns[:, i]
        for j in range(i, p):
            product = weighted * columns[:, j]
            if inside is not None:
                product += inside[:, i, j]
            out[:, i, j] = out[:, j, i] = np.bincount(groups, product, size)
    return out


def group_sum_along(values: Array, groups: Codes, axis: int) -> Array:
    """Sum within groups coded 0, 1, ..., none of them empty, along any axis, in time linear in its length.

    Examples
    --------
    >>> group_sum_along(np.array([[1.0, 2.0, 3.0]]), np.array([1, 0, 1]), -1).tolist()
    [[2.0, 4.0]]
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.asarray(np.add.reduceat(np.take(values, order, axis=axis), starts, axis=axis))


def gram_pinv(blocks: Array) -> tuple[Array, Codes]:
    """Pseudo-inverse and rank of a stack of small Gram matrices.

    Parameters
    ----------
    blocks : (K, D, D) array
        Symmetric positive semi-definite matrices.

    Returns
    -------
    pinv : (K, D, D) array
    rank : (K,) array of int

    Examples
    --------
    >>> pinv, rank = gram_pinv(np.array([[[4.0]], [[0.0]]]))
    >>> pinv.ravel().tolist(), rank.tolist()
    ([0.25, 0.0], [1, 0])
    """
    if blocks.shape[-1] == 1:  # two arms: the case that has to be quick for a million sites
        positive = blocks > 0
        safe = np.where(positive, blocks, 1.0)
        return np.where(positive, 1.0 / safe, 0.0), positive[:, 0, 0].astype(np.int64)
    values, vectors = np.linalg.eigh(blocks)
    keep = values > 1e-12 * np.maximum(values[:, -1:], np.finfo(float).tiny)
    inverse = np.where(keep, 1.0 / np.where(keep, values, 1.0), 0.0)
    pinv = np.einsum("kij,kj,klj->kil", vectors, inverse, vectors)
    return pinv, keep.sum(axis=1)


def gram_root(blocks: Array) -> Array:
    """Symmetric square root of each of a stack of small Gram matrices; values below zero count as rounding.

    Examples
    --------
    >>> gram_root(np.array([[[4.0]], [[0.0]]])).ravel().tolist()
    [2.0, 0.0]
    """
    if blocks.shape[-1] == 1:
        return np.sqrt(np.clip(blocks, 0.0, None))
    values, vectors = np.linalg.eigh(blocks)
    out: Array = np.einsum("kij,kj,klj->kil", vectors, np.sqrt(np.clip(values, 0.0, None)), vectors)
    return out


def _scale(gram: Array) -> Array:
    diagonal = np.sqrt(np.clip(np.diag(gram), 0.0, None))
    return np.where(diagonal > 0, diagonal, 1.0)


def gram_solve(gram: Array, right: Array) -> Array:
    """Solve ``gram @ x = right`` for a positive definite Gram matrix, after unit scaling.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the matrix is not positive definite; callers look for the culprit with `dependent_columns`.

    Examples
    --------
    >>> gram_solve(np.array([[4.0, 0.0], [0.0, 1e-12]]), np.array([2.0, 1e-12])).round(12).tolist()
    [0.5, 1.0]
    """
    if gram.shape[0] == 0:
        return np.zeros_like(right)
    scale = _scale(gram)
    factor = np.linalg.cholesky(gram / np.outer(scale, scale))
    rhs = right / (scale[:, None] if right.ndim == 2 else scale)
    half = np.linalg.solve(factor, rhs)
    out: Array = np.linalg.solve(factor.T, half)
    return out / (scale[:, None] if right.ndim == 2 else scale)


def dependent_columns(
    gram: Array, reference: Array | None = None, *, tolerance: float = RANK_TOLERANCE
) -> list[int]:
    """Columns that add nothing to those before them, found by sweeping the Gram matrix in order.

    Parameters
    ----------
    gram : (k, k) array
    reference : (k,) array, optional
        Sum of squares that "nothing" is measured against (default: the diagonal of ``gram``).
    tolerance : float
        Share of the reference below which a remainder counts as zero.

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> x = np.column_stack([x, x.sum(axis=1)])
    >>> dependent_columns(x.T @ x)
    [2]
    """
    left = np.array(gram, dtype=np.float64)
    size = np.diag(gram).copy() if reference is None else np.asarray(reference, dtype=np.float64)
    out = []
    for j in range(left.shape[0]):
        pivot = left[j, j]
        if pivot <= tolerance * size[j] or pivot <= 0:
            out.append(j)
            continue
        left = left - np.outer(left[:, j], left[j, :]) / pivot
    return out


def schur(gram: Array, keep: list[int], out: list[int]) -> Array:
    """Cross-products of ``keep`` after ``out`` has been partialled out of each of them.

    Examples
    --------
    >>> schur(np.array([[2.0, 1.0], [1.0, 1.0]]), [0], [1]).tolist()
    [[1.0]]
    """
    top: Array = gram[np.ix_(keep, keep)]
    if not out:
        return top
    cross = gram[np.ix_(out, keep)]
    return top - cross.T @ gram_solve(gram[np.ix_(out, out)], cross)


def root(
    function: Callable[[float], float],
    low: float,
    high: float,
    *,
    xtol: float = 2e-12,
    rtol: float = 8.9e-16,
    maxiter: int = 100,
) -> float:
    """Where a continuous function with two signs at the ends crosses zero, by Brent's method.

    Examples
    --------
    >>> round(root(lambda x: x**2 - 2.0, 0.0, 2.0), 12)
    1.414213562373
    """
    from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=xtol, rtol=rtol, maxiter=maxiter))

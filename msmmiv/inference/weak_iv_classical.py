"""Weak-instrument-robust statistics under homoskedasticity, as functions of two small matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.linalg import Array

__all__ = ["Classical", "classical_at", "classical_line", "subvector_quadratic", "subvector_roots"]


@dataclass(frozen=True, eq=False)
class Classical:
    """AR (chi-squared scale), K and the strength of the first stage, for C hypotheses."""

    ar: Array
    k: Array
    rk: Array


def classical_at(form: ReducedForm, beta: Array) -> Classical:
    """The statistics at one hypothesis about all mediators.

    With ``b = (1, -beta)``, residual variance ``b'Sb`` and ``D = M - e (S_Mb / b'Sb)``: AR is
    ``b'Nb / b'Sb``, K its part along D, and rk the smallest root of ``D'PD`` against ``D``'s residual
    covariance (Kleibergen 2002, 2007; Moreira 2003).

    Parameters
    ----------
    form : ReducedForm
    beta : (P,) array

    Examples
    --------
    >>> form = ReducedForm(np.array([[9.0, 6.0], [6.0, 8.0]]), np.eye(2), 4, 100, ("m",))
    >>> at = classical_at(form, np.array([1.0]))
    >>> at.ar.round(6), at.k.round(6), at.rk.round(6)
    (array([2.5]), array([0.017241]), array([14.5]))
    """
    form.whitener()  # refuses residual covariances that have no inverse
    b = np.concatenate([[1.0], -beta])
    variance = b @ form.within @ b
    select = np.eye(form.n_mediators + 1)[:, 1:]
    first = select - np.outer(b, form.within[1:] @ b / variance)
    ar = b @ form.between @ b / variance
    score = first.T @ form.between @ b
    gram, residual = first.T @ form.between @ first, first.T @ form.within @ first
    scale = np.sqrt(np.diag(residual))
    gram, score = gram / np.outer(scale, scale), score / scale
    k = score @ np.linalg.pinv(gram, hermitian=True, rcond=1e-14) @ score / variance
    factor = np.linalg.inv(np.linalg.cholesky(residual / np.outer(scale, scale)))
    rk = max(float(np.linalg.eigvalsh(factor @ gram @ factor.T)[0]), 0.0)
    return Classical(np.array([ar]), np.array([min(k, ar)]), np.array([rk]))


def classical_line(form: ReducedForm, x: Array) -> Classical:
    """The statistics for one mediator at many values, exact however large they are.

    In units where S is the identity every hypothesis is a direction: AR is N along it, rk is N across
    it, and K the squared off-diagonal over rk.

    Parameters
    ----------
    form : ReducedForm
        With one mediator.
    x : (C,) array

    Examples
    --------
    >>> form = ReducedForm(np.array([[9.0, 6.0], [6.0, 8.0]]), np.eye(2), 4, 100, ("m",))
    >>> line = classical_line(form, np.array([1.0, 1e12]))
    >>> line.ar.round(6), line.k.round(6)
    (array([2.5, 8. ]), array([0.017241, 4.      ]))
    """
    factor = form.whitener()
    between = factor @ form.between @ factor.T
    along = np.column_stack([np.ones_like(x), -x]) @ np.linalg.inv(factor)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    across = np.column_stack([-along[:, 1], along[:, 0]])
    ar = np.einsum("ci,ij,cj->c", along, between, along)
    rk = np.maximum(np.einsum("ci,ij,cj->c", across, between, across), 0.0)
    cross = np.einsum("ci,ij,cj->c", along, between, across) ** 2
    return Classical(ar, np.minimum(cross / np.where(rk > 0, rk, 1.0), ar), rk)


def subvector_quadratic(
    form: ReducedForm, term: str, critical: float, *, level: float, method: str
) -> ConfidenceSet:
    """Values of one effect for which some values of the others give AR <= ``critical``.

    ``{x : a x^2 - 2 h x + k <= 0}`` with the Schur complement of ``B = N - critical S`` after the other
    mediators; the whole line when their block of B is not positive definite.

    Parameters
    ----------
    form : ReducedForm
    term : str
    critical : float
        On the scale of ``b'Nb / b'Sb``.
    level, method
        Stored in the set.
    """
    j = form.position(term)
    others = [i for i in range(1, form.n_mediators + 1) if i != j]
    form.whitener()
    scale = np.sqrt(np.diag(form.within))
    b = (form.between - critical * form.within) / np.outer(scale, scale)
    top = b[np.ix_([j, 0], [j, 0])]
    if others:
        block, cross = b[np.ix_(others, others)], b[np.ix_(others, [j, 0])]
        within = form.within[np.ix_(others, others)] / np.outer(scale[others], scale[others])
        factor = np.linalg.inv(np.linalg.cholesky(within))
        smallest = np.linalg.eigvalsh(factor @ block @ factor.T)[0]
        if smallest <= 1e-12 * (critical + np.abs(b).max()):
            whole = ((-np.inf, np.inf),)
            return ConfidenceSet(whole, level, method, term)
        top = top - cross.T @ np.linalg.solve(block, cross)
    unit = scale[0] / scale[j]
    quadratic = (top[0, 0] / unit**2, top[0, 1] / unit, top[1, 1])
    return ConfidenceSet.from_quadratic(*quadratic, level=level, method=method, term=term)


def subvector_roots(form: ReducedForm, term: str, x: Array) -> Array:
    """Smallest AR over the effects of the other mediators, at values of one effect.

    The smallest root of N against S after both are restricted to (outcome - x term, the others).

    Parameters
    ----------
    form : ReducedForm
    term : str
    x : (C,) array
    """
    j = form.position(term)
    factor = np.linalg.inv(form.whitener())
    between = form.whitener() @ form.between @ form.whitener().T
    others = [i for i in range(1, form.n_mediators + 1) if i != j]
    basis = np.zeros((len(x), 1 + form.n_mediators, 1 + len(others)))
    basis[:, 0, 0], basis[:, j, 0] = 1.0, -x
    for column, i in enumerate(others, start=1):
        basis[:, i, column] = 1.0
    # Orthonormal in the metric of S: whitened coordinates are factor' b.
    q = np.linalg.qr(np.einsum("ij,cik->cjk", factor, _unit(basis, form)))[0]
    roots = np.linalg.eigvalsh(np.einsum("cik,ij,cjl->ckl", q, between, q))
    return np.asarray(np.maximum(roots[:, 0], 0.0), dtype=np.float64)


def _unit(basis: Array, form: ReducedForm) -> Array:
    """Columns brought to comparable length, so that far values of the effect lose no digits."""
    length = np.sqrt(np.einsum("cik,i->ck", basis**2, np.diag(form.within)))
    return np.asarray(basis / length[:, None, :], dtype=np.float64)

"""ReducedForm: the two matrices that classical limited-information inference needs, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msmmiv.errors import DataError, DesignError, RankDeficientError, listing
from msmmiv.linalg import Array, dependent_columns, frozen

__all__ = ["ReducedForm"]


@dataclass(frozen=True, eq=False)
class ReducedForm:
    """Sufficient statistics under homoskedasticity, exogenous regressors already partialled out.

    With ``v = (outcome, mediators)`` and M, P the projections on instruments and their complement, all
    after site intercepts, covariates and a direct effect are partialled out: ``between = v'P v`` and
    ``within = v'M v / df``. Under Gaussian errors they are independent, Wishart(L) and Wishart(df) / df.

    Attributes
    ----------
    between : (1 + P, 1 + P) array
        Cross-products explained by the excluded instruments, outcome first.
    within : (1 + P, 1 + P) array
        Unbiased residual covariance.
    n_instruments : int
        L, excluded instruments.
    df : float
        Residual degrees of freedom behind ``within``.
    mediators : tuple of str

    Raises
    ------
    DesignError
        Shapes that do not fit the mediators, or no instrument or degree of freedom.
    DataError
        Matrices that are not finite, or a negative diagonal.

    Examples
    --------
    >>> form = ReducedForm(np.array([[9.0, 6.0], [6.0, 8.0]]), np.eye(2), 4, 100, ("m",))
    >>> round(form.min_root(), 4), round(form.first_stage_f(), 4)
    (2.4792, 2.0)
    """

    between: Array
    within: Array
    n_instruments: int
    df: float
    mediators: tuple[str, ...]

    def __post_init__(self) -> None:
        size = 1 + len(self.mediators)
        for name in ("between", "within"):
            value = frozen(getattr(self, name))
            if value.shape != (size, size):
                raise DesignError(
                    f"The reduced form of {listing(self.mediators, quote=True)} needs {size} x {size} matrices; "
                    f"{name!r} is {' x '.join(map(str, value.shape))}."
                )
            if not np.isfinite(value).all() or (np.diag(value) < 0).any():
                raise DataError(f"{name!r} is not a matrix of cross-products: {value.tolist()!r}.")
            object.__setattr__(self, name, frozen((value + value.T) / 2))
        if self.n_instruments < 1 or not self.df > 0:
            raise DesignError(
                f"A reduced form needs instruments and residual degrees of freedom; "
                f"got {self.n_instruments} and {self.df:g}."
            )

    @property
    def n_mediators(self) -> int:
        """P."""
        return len(self.mediators)

    def position(self, term: str) -> int:
        """Row of a mediator in the matrices (the outcome is row 0).

        Raises
        ------
        DesignError
            When the term is not a mediator.
        """
        if term not in self.mediators:
            raise DesignError(
                f"{term!r} is not a mediator here; they are {listing(self.mediators, quote=True)}."
            )
        return 1 + self.mediators.index(term)

    def whitener(self, *, rows: slice = slice(None)) -> Array:
        """Inverse Cholesky factor F of ``within``, ``F within F' = I``, after unit scaling.

        Raises
        ------
        RankDeficientError
            When some variable has no residual variation of its own.
        """
        within = self.within[rows, rows]
        names = np.array(["the outcome", *self.mediators])[rows]
        bad = dependent_columns(within)
        if bad:
            raise RankDeficientError(
                f"The residuals of {listing(names[bad])} are zero or an exact combination of the others, so "
                "the residual covariance has no inverse. Remove duplicated columns."
            )
        scale = np.sqrt(np.diag(within))
        factor = np.linalg.inv(np.linalg.cholesky(within / np.outer(scale, scale))) / scale
        return np.asarray(factor, dtype=np.float64)

    def roots(self, *, rows: slice = slice(None)) -> Array:
        """Ascending generalised eigenvalues of ``between`` against ``within``.

        Parameters
        ----------
        rows : slice
            ``slice(1, None)`` leaves the outcome out.
        """
        factor = self.whitener(rows=rows)
        values = np.linalg.eigvalsh(factor @ self.between[rows, rows] @ factor.T)
        out: Array = np.clip(values, 0.0, None)  # both matrices are non-negative: below zero is rounding
        return out

    def min_root(self) -> float:
        """Smallest root: L times the smallest Anderson-Rubin F, reached at LIML; the homoskedastic J."""
        return float(self.roots()[0])

    def first_stage_f(self) -> float:
        """Cragg-Donald F: the smallest root among mediators over L (the first-stage F for one mediator)."""
        return float(self.roots(rows=slice(1, None))[0]) / self.n_instruments

"""What single sites do to an estimate."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import ChoiceError, DataError
from msmmiv.inference.results import Estimate

__all__ = ["leave_one_out"]


def leave_one_out(fit: Estimate, sites: Sequence[Label]) -> pd.DataFrame:
    """Coefficients without each site in turn, from the site equations that an estimate already holds.

    Use it to see whether one site carries the result. What all sites share stays as it is: LIML's root, a pooled or
    borrowed variance, slopes of covariates.

    Parameters
    ----------
    fit : Estimate
    sites : sequence of labels
        K sites in the order of the moments.

    Returns
    -------
    DataFrame
        K rows, named by the site left out; one column per term.

    Raises
    ------
    DataError
        There is no estimate to begin with.
    ChoiceError
        The estimator does not solve one equation per site.

    Examples
    --------
    >>> import msmmiv as mm
    >>> moments = mm.data.star()
    >>> leave_one_out(mm.fit(moments, "2sls", cov_type="site"), moments.sites).shape
    (79, 1)
    """
    if fit.status is not None:
        raise DataError(f"There is nothing to leave sites out of: {fit.status}.")
    if fit.equations is None:
        raise ChoiceError("Estimators of the unweighted average do not solve site equations; use 'ujive'.")
    index = pd.Index(list(sites), name="left_out")
    return pd.DataFrame(fit.equations.jackknife(), index, columns=list(fit.equations.terms))

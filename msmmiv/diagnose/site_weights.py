"""Which sites speak: the share of every site in a coefficient, and what the coefficient would be of that site alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import ChoiceError, DataError, listing
from msmmiv.inference.results import Estimate

__all__ = ["site_weights"]


def site_weights(fit: Estimate, sites: Sequence[Label], term: str) -> pd.DataFrame:
    """The share of every site in one coefficient, its own ratio, and what leaving it out does.

    Use it to see on whom an estimate rests: the coefficient is the average of the ratios with these shares.

    Parameters
    ----------
    fit : Estimate
    sites : sequence of labels
        K sites in the order of the moments.
    term : str
        A mediator, or a direct effect.

    Returns
    -------
    DataFrame
        K rows, in the order of the sites: ``site``, ``share`` (the shares sum to one), ``ratio`` (the coefficient of
        the site alone, the other coefficients held to their equations; NaN where the share is zero), ``part`` (share
        times ratio; the parts sum to the coefficient) and ``influence`` (the coefficient less that without the site).

    Raises
    ------
    DataError
        There is no estimate, or an unknown term.
    ChoiceError
        The estimator does not solve one equation per site.

    Notes
    -----
    With one mediator, no covariates and 2SLS the share of site s is ``w_s c_s^2 / sum(w c^2)``, with compliance c and
    w = n p (1 - p), and its ratio is ``itt_s / c_s``. In general every estimator here solves
    ``sum_s (h_s - A_s b) = 0``; with L the row that takes the other terms r out of the equation of term p,
    ``L = e_p' - A_pr A_rr^-1 e_r'``, the share is ``L A_s (e_p - e_r A_rr^-1 A_rp)`` over its sum and the part
    ``L (h_s - A_sr A_rr^-1 h_r)`` over the same sum: Frisch, Waugh and Lovell site by site. Shares of 2SLS are never
    negative; those of LIML and UJIVE, which take out sampling error, can be.

    Examples
    --------
    >>> import msmmiv as mm
    >>> moments = mm.data.star()
    >>> fit = mm.fit(moments, "2sls", cov_type="site")
    >>> table = site_weights(fit, moments.sites, "class_size")
    >>> round(float(table["share"].sum()), 12), bool(abs(table["part"].sum() - fit.params["class_size"]) < 1e-12)
    (1.0, True)
    """
    if fit.status is not None:
        raise DataError(f"There are no weights without an estimate: {fit.status}.")
    if fit.equations is None:
        raise ChoiceError("Estimators of the unweighted average do not solve site equations; use '2sls'.")
    names = fit.equations.terms
    if term not in names:
        raise DataError(f"{term!r} is not one of {listing(names, quote=True)}.")
    found = fit.equations.profile(term)
    if isinstance(found, str):
        raise DataError(f"The weights of {term!r} are not defined: {found}.")
    height, size = found.alpha[:, 0], found.eta[:, 0, 0]
    if len(size) != len(sites):
        raise ChoiceError(
            f"This fit has {len(size)} equations for {len(sites)} sites: its covariance is between clusters inside "
            "sites. Fit with cov_type='site'."
        )
    total = float(size.sum())
    # A site that says nothing has no ratio of its own: what is left of it is rounding.
    speaks = np.abs(size) > 1e-13 * np.abs(size).max()
    ratio = np.divide(height, size, out=np.full(len(size), np.nan), where=speaks)
    without = fit.equations.jackknife()[:, names.index(term)]
    return pd.DataFrame({
        "site": list(sites), "share": size / total, "ratio": ratio, "part": height / total,
        "influence": float(fit.params[term]) - without,
    })  # fmt: skip

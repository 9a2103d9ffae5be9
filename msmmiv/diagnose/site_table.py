"""Known properties of sites: their covariates, size and share treated, from moments or from the user's frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import ColumnError, DataError, count, listing
from msmmiv.estimate.site_moments import estimated
from msmmiv.linalg import Array, frozen, group_sum
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["DOSE", "SHARE", "SiteTable", "site_table"]

#: Names among default covariates of the share treated, and of the mean dose of a treatment without arms.
SHARE, DOSE = "share treated", "mean dose"


@dataclass(frozen=True, eq=False)
class SiteTable:
    """Known numbers of the sites that have estimates.

    Attributes
    ----------
    sites : tuple
    names : tuple of str
        Of the covariates.
    values : (K, r) array
    log_size : (K,) array or None
        Log of the people of each site; None where a table does not give them.
    dropped : tuple of str
        Covariates left out, with the reason.
    """

    sites: tuple[Label, ...]
    names: tuple[str, ...]
    values: Array
    log_size: Array | None
    dropped: tuple[str, ...]


def site_table(
    source: Moments | SiteEffects, effects: SiteEffects, covariates: pd.DataFrame | None
) -> SiteTable:
    """The covariates of the sites with estimates: the user's, or site means and shares treated.

    Parameters
    ----------
    source : Moments or SiteEffects
    effects : SiteEffects
        Of the same source.
    covariates : DataFrame or None
        Numeric columns, one row per site, indexed by site. None: from moments, the site means of the design's
        covariates and the share treated (or the mean dose); nothing from site effects.

    Raises
    ------
    DataError
        Not a frame, repeated or absent sites, missing values.
    ColumnError
        A column that is not numeric.

    Examples
    --------
    >>> import msmmiv as mm
    >>> moments = mm.data.star()
    >>> site_table(moments, mm.SiteEffects.from_moments(moments), None).names
    ('share treated',)
    """
    used = np.flatnonzero(estimated(effects).any(axis=1))
    sites = tuple(effects.sites[i] for i in used)
    size = np.log(effects.n[used]) if np.isfinite(effects.n[used]).all() else None
    if covariates is not None:
        table = _given(covariates, sites)
    elif isinstance(source, Moments):
        table = _means(source).loc[list(sites)]
    else:
        table = pd.DataFrame(index=list(sites))
    values = table.to_numpy(dtype=float).reshape(len(sites), -1)
    size_of = np.abs(values).max(axis=0, initial=0.0)
    varies = np.ptp(values, axis=0) > 1e-10 * size_of
    names = [str(c) for c in table.columns]
    return SiteTable(
        sites,
        tuple(n for n, v in zip(names, varies, strict=True) if v),
        frozen(values[:, varies]),
        None if size is None else frozen(size),
        tuple(f"{n}: the same in all sites" for n, v in zip(names, varies, strict=True) if not v),
    )


def _given(covariates: pd.DataFrame, sites: tuple[Label, ...]) -> pd.DataFrame:
    if not isinstance(covariates, pd.DataFrame):
        raise DataError(
            f"Site covariates must be a DataFrame indexed by site, not {type(covariates).__name__}; of a Series take "
            "to_frame()."
        )
    if covariates.index.has_duplicates:
        raise DataError("Site covariates need one row per site; the index has repeated sites.")
    if covariates.columns.has_duplicates:
        raise DataError("Two site covariates have the same name.")
    absent = [s for s in sites if s not in covariates.index]
    if absent:
        raise DataError(
            f"Site covariates lack {count(len(absent), 'site')}: {listing(absent)}. Index the frame by site: "
            "frame.set_index('site')."
        )
    out = covariates.loc[list(sites)]
    for name in out.columns:
        if not pd.api.types.is_numeric_dtype(out[name]):
            sample = list(out[name].astype(str).unique()[:3])
            raise ColumnError.not_numeric(str(name), "site covariate", "text", sample)
        if not np.isfinite(out[name].to_numpy(dtype=float)).all():
            raise DataError(f"Site covariate {name!r} has missing or infinite values.")
    return out


def _means(moments: Moments) -> pd.DataFrame:
    """Site means of the covariates over all arms, and the share of people that is treated (or the mean dose)."""
    weight, k = moments.first.weight, moments.n_sites
    total = group_sum(weight, moments.site, k)
    columns = {
        name: moments.first.mean[:, moments.variables.index(name)] for name in moments.design.covariates
    }
    if moments.arms:
        columns[SHARE] = (moments.arm > 0).astype(float)
    else:
        columns[DOSE] = moments.first.mean[:, -1]
    means = {n: group_sum(weight * v, moments.site, k) / total for n, v in columns.items()}
    return pd.DataFrame(means, index=list(moments.sites))

"""The rows of the between-site regression, what is known of their errors, and what a fit of it returns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import ColumnError, DataError, RankDeficientError, TooFewSitesError, count, listing
from msmmiv.estimate.site_moments import estimated, site_rows
from msmmiv.linalg import Array, Codes, frozen
from msmmiv.moments.effects import SiteEffects

__all__ = ["DIRECT", "BetweenFit", "BetweenRows", "between_rows"]

#: Name of the intercept.
DIRECT = "direct_effect"
#: Numbers in the largest covariance of rows that share controls: 2 GB.
_MOST = 2**28


@dataclass(frozen=True, eq=False)
class BetweenRows:
    """One row per site (and arm): itt = direct effect + compliances times mediator effects + what is left.

    Attributes
    ----------
    labels : tuple
        K names of rows: sites, arms of the only site, or (site, arm).
    mediators : tuple of str
    exogenous : tuple of str
        Names of the columns of ``z``: "direct_effect" (ones) unless it is fixed at zero, then site covariates,
        which are centred so that the direct effect is that of an average row.
    y : (K,) array
        itt.
    x : (K, P) array
        Compliances.
    z : (K, q) array
        Regressors without error.
    cov : (K, 1 + P, 1 + P) array
        Joint sampling covariance of (itt, compliances) of each row.
    cross : (K, 1 + P, K, 1 + P) array or None
        Covariance of all rows where rows share people (arms of one site share its controls); its diagonal
        blocks are ``cov``. None when rows are independent.
    common : (1 + P, 1 + P) array
        Covariance of an error that all rows share and that ``cov`` leaves out: the controls of the only site. With a
        direct effect free it moves that effect and nothing else.
    site : (K,) array of int
        Which rows belong to one site.
    zero_covariance_assumed : bool
    """

    labels: tuple[Label, ...]
    mediators: tuple[str, ...]
    outcome: str
    exogenous: tuple[str, ...]
    y: Array
    x: Array
    z: Array
    cov: Array
    cross: Array | None
    common: Array
    site: Codes
    zero_covariance_assumed: bool

    @property
    def n_rows(self) -> int:
        """K."""
        return len(self.y)

    @property
    def n_sites(self) -> int:
        """Independent units: sites, or rows of the only site."""
        return int(np.count_nonzero(np.bincount(self.site)))

    @property
    def terms(self) -> tuple[str, ...]:
        """Mediators, then the regressors without error."""
        return (*self.mediators, *self.exogenous)

    @property
    def itt_variance(self) -> Array:
        """(K,) sampling variances of itt."""
        return self.cov[:, 0, 0]

    @property
    def noise(self) -> Array:
        """(K, P, P) sampling covariances of the compliances."""
        return self.cov[:, 1:, 1:]

    @property
    def covariance(self) -> Array:
        """(K, P) sampling covariances of itt with the compliances."""
        return self.cov[:, 0, 1:]

    @property
    def has_direct_effect(self) -> bool:
        """Whether the direct effect is free."""
        return DIRECT in self.exogenous

    def with_correlation(self, mediator: int, value: float) -> BetweenRows:
        """Independent rows with Corr(itt, compliance) of one mediator set to one value, for a sensitivity band."""
        size = np.sqrt(np.einsum("kaa->ka", self.cov))
        cov = self.cov.copy()
        at = 1 + mediator
        cov[:, 0, at] = cov[:, at, 0] = value * size[:, 0] * size[:, at]
        return replace(self, cov=frozen(cov))

    def take(self, rows: npt.NDArray[np.bool_]) -> BetweenRows:
        """Some of the rows."""
        which = np.flatnonzero(rows)
        return replace(
            self,
            labels=tuple(self.labels[i] for i in which),
            y=frozen(self.y[rows]),
            x=frozen(self.x[rows]),
            z=frozen(self.z[rows]),
            cov=frozen(self.cov[rows]),
            cross=None if self.cross is None else frozen(self.cross[which][:, :, which]),
            site=np.unique(self.site[rows], return_inverse=True)[1].astype(np.int64),
        )


@dataclass(frozen=True, eq=False)
class BetweenFit:
    """What one estimator makes of the rows.

    Attributes
    ----------
    method : str
        Name in results, options included.
    terms : tuple of str
        Mediators, then the regressors without error.
    coefficients : (P + q,) array
        NaN with a ``status``.
    covariance : (P + q, P + q) array
    df : float
        Degrees of freedom of its t intervals; infinite for normal ones.
    status : str or None
        Why there is no point estimate.
    notes : tuple of str
        What a reader must know before using the numbers.
    """

    method: str
    terms: tuple[str, ...]
    coefficients: Array
    covariance: Array
    df: float
    status: str | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def without_estimate(
        cls, method: str, rows: BetweenRows, status: str, *, notes: tuple[str, ...] = ()
    ) -> BetweenFit:
        """A result that says why there is no estimate."""
        size = len(rows.terms)
        nothing = frozen(np.full((size, size), np.nan))
        return cls(method, rows.terms, frozen(nothing[0]), nothing, float("nan"), status, notes)

    @property
    def std_errors(self) -> Array:
        """(P + q,) standard errors."""
        return np.sqrt(np.diag(self.covariance))

    def conf_int(self, level: float = 0.95) -> Array:
        """(P + q, 2) limits: estimate plus and minus t (normal, with infinite ``df``) standard errors."""
        from scipy.special import ndtri, stdtrit

        upper = 0.5 + level / 2.0
        half = (ndtri(upper) if np.isinf(self.df) else stdtrit(self.df, upper)) * self.std_errors
        return np.column_stack([self.coefficients - half, self.coefficients + half])


def between_rows(
    effects: SiteEffects,
    *,
    direct_effect: bool = True,
    covariates: pd.DataFrame | None = None,
) -> BetweenRows:
    """The rows of the regression of itt on compliances, with all that is known of their errors.

    Rows without estimates are left out. Arms of one site share its controls. With a single site and a free direct
    effect that shared error cannot move the slopes, and the rows count as independent; with several sites the
    rows of one site are correlated (``cross``).

    Parameters
    ----------
    effects : SiteEffects
    direct_effect : bool
        Leave the direct effect free.
    covariates : DataFrame, optional
        Numeric columns, one row per site, indexed by site.

    Raises
    ------
    TooFewSitesError
        No more rows than coefficients.
    MomentsInsufficient
        A site has estimates but no sampling covariance.
    RankDeficientError
        Compliances that are the same in all rows, or in exact proportion to one another or to covariates.
    DataError, ColumnError
        A covariance that is not positive, covariates that do not match the sites, or so many rows that share controls
        that their covariance would take more than 2 GB.
    """
    found = site_rows(effects)
    have = estimated(effects)
    site, arm = np.nonzero(have)
    several_arms = len(effects.contrasts) > 1
    one_site = len(np.unique(site)) == 1 and len(site) > 1
    if one_site:
        labels: tuple[Label, ...] = tuple(effects.contrasts[d] for d in arm)
    elif several_arms:
        labels = tuple(f"{effects.sites[s]} | {effects.contrasts[d]}" for s, d in zip(site, arm, strict=True))
    else:
        labels = tuple(effects.sites[s] for s in site)
    cov, common, cross = found.cov, np.zeros(found.cov.shape[1:]), None
    if len(np.unique(site)) < len(site):
        _check_size(len(site), found.cov.shape[1])
        cross = _all_rows(effects, site, arm)
        if one_site and direct_effect:
            shared = _shared(cross)
            if shared is not None:
                cov, common, cross = cov - shared, shared, None
                site = np.arange(len(site))
    z, names = _exogenous(effects, found.site, direct_effect=direct_effect, covariates=covariates)
    rows = BetweenRows(
        labels=labels,
        mediators=effects.mediators,
        outcome=effects.outcome,
        exogenous=names,
        y=frozen(found.values[:, 0]),
        x=frozen(found.values[:, 1:]),
        z=frozen(z),
        cov=frozen(cov),
        cross=None if cross is None else frozen(cross),
        common=frozen(common),
        site=np.unique(site, return_inverse=True)[1].astype(np.int64),
        zero_covariance_assumed=effects.zero_covariance_assumed,
    )
    _check(rows)
    return rows


def _check_size(rows: int, values: int) -> None:
    """Refuse a table of all pairs of rows that memory does not hold."""
    size = (rows * values) ** 2
    if size > _MOST:
        raise DataError(
            f"Arms of one site share its controls, and the errors of {rows:,} such rows take a table of "
            f"{size / 2**27:,.0f} GB. Give site effects of one arm and its control at a time, or fewer sites."
        )


def _all_rows(effects: SiteEffects, site: Codes, arm: Codes) -> Array:
    """(K, 1 + P, K, 1 + P) covariance of all rows; zero between sites."""
    k, size = len(site), effects.cov.shape[2]
    out = np.zeros((k, size, k, size))
    for i in range(k):
        for j in np.flatnonzero(site == site[i]):
            out[i, :, j, :] = effects.cov[site[i], arm[i], :, arm[j], :]
    return out


def _shared(cross: Array) -> Array | None:
    """The covariance that all pairs of rows have in common, if it is one and leaves each row a variance of its own."""
    k = cross.shape[0]
    pairs = np.stack([cross[i, :, j, :] for i in range(k) for j in range(k) if i != j])
    mean: Array = pairs.mean(axis=0)
    mean = (mean + mean.T) / 2.0
    size = np.sqrt(np.einsum("kaka->ka", cross)).max(axis=0)
    if (np.abs(pairs - mean) > 1e-9 * np.outer(size, size)).any():
        return None
    own = np.stack([cross[i, :, i, :] - mean for i in range(k)])
    return mean if (np.einsum("kaa->ka", own) > 0).all() else None


def _exogenous(
    effects: SiteEffects, site: Codes, *, direct_effect: bool, covariates: pd.DataFrame | None
) -> tuple[Array, tuple[str, ...]]:
    columns, names = [np.ones(len(site))] * direct_effect, [DIRECT] * direct_effect
    if covariates is not None:
        table = _matched(effects, site, covariates)
        for name in covariates.columns:
            if not pd.api.types.is_numeric_dtype(covariates[name]):
                raise ColumnError.not_numeric(
                    str(name), "site covariate", "text", list(covariates[name].astype(str))
                )
            values = table[name].to_numpy(dtype=float)
            if not np.isfinite(values).all():
                raise DataError(f"Site covariate {name!r} has missing or infinite values.")
            columns.append(values - values.mean() if direct_effect else values)
            names.append(str(name))
    twice = set(names) & set(effects.mediators) or {n for n in names if names.count(n) > 1}
    if twice:
        raise DataError(f"{listing(twice, quote=True)} names two regressors; rename the site covariate.")
    return (np.column_stack(columns) if columns else np.empty((len(site), 0))), tuple(names)


def _matched(effects: SiteEffects, site: Codes, covariates: pd.DataFrame) -> pd.DataFrame:
    labels = [effects.sites[s] for s in site]
    if not isinstance(covariates, pd.DataFrame):
        raise DataError(
            f"covariates must be a DataFrame indexed by site, not {type(covariates).__name__}; of a Series take "
            "to_frame()."
        )
    if covariates.index.has_duplicates:
        raise DataError("Site covariates need one row per site; the index has repeated sites.")
    absent = [s for s in dict.fromkeys(labels) if s not in covariates.index]
    if absent:
        raise DataError(
            f"Site covariates lack {count(len(absent), 'site')}: {listing(absent)}. Index the frame by site: "
            "frame.set_index('site')."
        )
    return covariates.loc[labels]


def _check(rows: BetweenRows) -> None:
    size = len(rows.terms)
    if rows.n_rows <= size:
        raise TooFewSitesError(
            f"{count(rows.n_rows, 'row')} of the between-site regression cannot carry {count(size, 'coefficient')} "
            f"({listing(rows.terms)}) and a standard error; it needs at least {size + 1}."
        )
    smallest = np.linalg.eigvalsh(rows.cov)[:, 0]
    bad = (np.einsum("kaa->ka", rows.cov) <= 0).any(axis=1) | (
        smallest < -1e-9 * np.einsum("kaa->k", rows.cov)
    )
    if bad.any():
        raise DataError(
            f"The sampling covariance of {listing([s for s, b in zip(rows.labels, bad, strict=True) if b])} is not "
            "positive: a site whose outcome or mediator does not vary, or a variance estimated from too few people. "
            "Use cov_type='pooled' in SiteEffects.from_moments, or leave these sites out."
        )
    both = np.column_stack([rows.z, rows.x])
    for j, name in enumerate((*rows.exogenous, *rows.mediators)):
        earlier = both[:, :j]
        left = both[:, j] - (earlier @ np.linalg.lstsq(earlier, both[:, j], rcond=None)[0] if j else 0.0)
        if np.abs(left).max() <= 1e-10 * max(np.abs(both[:, j]).max(), 1e-300):
            before = [n for n in (*rows.exogenous, *rows.mediators)[:j] if n != DIRECT]
            other = f", or a combination of {listing(before)}" if before else ""
            raise RankDeficientError(
                f"{name!r} is the same in all rows{other}: its effect cannot be told apart."
            )

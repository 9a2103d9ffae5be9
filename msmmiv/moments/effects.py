"""SiteEffects: one row per site (and arm): itt, compliances, and the full joint sampling covariance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import (
    ChoiceError,
    ColumnError,
    DataError,
    UnknownCovarianceWarning,
    check_choice,
    listing,
)
from msmmiv.linalg import Array, frozen, sealed
from msmmiv.moments.cells import Moments
from msmmiv.moments.noise import site_noise
from msmmiv.moments.published import check_table, numbers_of, published_covariance
from msmmiv.moments.site_covariance import equal_weights, joint_covariance
from msmmiv.moments.within import Within, within_sites
from msmmiv.notebook import card, frame_table, label, number

__all__ = ["SiteEffects"]

Slopes = Literal["common", "site"]
EffectsCovType = Literal["HC0", "HC1", "HC2", "HC3", "classical", "CR0", "CR2", "unbiased", "pooled"]


@dataclass(frozen=True, eq=False)
class SiteEffects:
    """Effects of the treatment in each site on the outcome (itt) and on each mediator (compliance).

    The rows of a site come from the same people, so their errors are correlated; ``cov`` keeps that, and
    every between-site method needs it. Make it with `from_moments`, or from published figures with
    `from_table`.

    Attributes
    ----------
    sites : tuple
        K site labels.
    contrasts : tuple
        D arm labels compared with the control (one empty label for a dose or a table).
    mediators : tuple of str
    estimates : (K, D, 1 + P) array
        itt first, then compliances; NaN where a site lacks the arm, or the control.
    cov : (K, D, 1 + P, D, 1 + P) array
        Joint sampling covariance inside each site; NaN likewise.
    precision : (K, D, D) array
        Cross-products of the treatment contrasts: n p (1 - p) for two arms. The weights of 2SLS.
    n : (K,) array
        Rows per site (NaN in tables).
    cov_type : str
        How ``cov`` was computed, or "published".
    df : (K,) array
        Degrees of freedom behind each site's covariance; infinite in tables, whose errors count as known.
    zero_covariance_assumed : bool
        True when Cov(itt, compliance) was not given and zero was put in its place.
    clusters_ignored : bool
        True when the design declares clusters and ``cov`` takes the rows in them as independent.
    outcome : str
    """

    sites: tuple[Label, ...]
    contrasts: tuple[Label, ...]
    mediators: tuple[str, ...]
    outcome: str
    estimates: Array
    cov: Array
    precision: Array
    n: Array
    cov_type: str
    df: Array
    zero_covariance_assumed: bool = False
    clusters_ignored: bool = False

    @classmethod
    def from_moments(
        cls,
        moments: Moments,
        *,
        cov_type: EffectsCovType | None = None,
        slopes: Slopes = "common",
    ) -> SiteEffects:
        """Site effects from moments, exact, with their joint covariance.

        For two arms and no covariates the estimates are differences of means and the default
        covariance is ``S1/n1 + S0/n0`` with unbiased within-arm covariance matrices (HC2). With blocks
        they are within-block regressions. Analytic and probability weights default to HC1 (HC2 needs
        each row's weight), covariates and a dose to the classical form (`Study.effects` takes HC2
        from the rows), and with probability weights to none; `cov_type` says which was used. Clusters are
        ignored by these: CR2 is NaN where an arm of a site is one cluster. "unbiased" heeds clusters and exists in
        every site: each cell's own variance, or the pooled one where it has a single row (cluster).

        Parameters
        ----------
        moments : Moments
        cov_type : {"HC0", "HC1", "HC2", "HC3", "classical", "CR0", "CR2", "unbiased", "pooled"}, optional
            Per-site robust, classical (per-site residual covariance), or clustered forms; "unbiased" (see
            above) and "pooled", one variance (between clusters and inside them) per arm for all sites.
        slopes : {"common", "site"}
            With covariates: one slope for all sites (as 2SLS has it) or a regression per site.

        Raises
        ------
        MomentsInsufficient
            When the covariance asked for is not a function of the moments.

        Examples
        --------
        >>> import msmmiv as mm
        >>> e = mm.SiteEffects.from_moments(mm.data.star())
        >>> e.compliance.mean().round(2).to_dict()
        {'class_size': -7.25}
        """
        check_choice(slopes, Slopes, "slopes")
        if cov_type is not None:
            check_choice(cov_type, EffectsCovType, "cov_type")
        within = within_sites(moments)
        moments = within.moments
        size = 1 + len(moments.design.mediators)
        adjusted, precision = _adjusted(within, slopes)
        kind = cov_type or _default_kind(within)
        cov = np.full((*adjusted.shape[:2], size, adjusted.shape[1], size), np.nan)
        rows = np.bincount(moments.site, moments.n, moments.n_sites)
        intercepts = np.bincount(moments.intercept_site, minlength=moments.n_sites)
        df: Array = np.asarray(rows - intercepts - within.rank, dtype=float)
        if kind == "unbiased" or kind == "pooled":  # noqa: PLR1714 - narrows the type for what follows
            if slopes == "site":
                raise ChoiceError(
                    f"cov_type={kind!r} takes one slope per covariate for all sites; with slopes='site' use "
                    "'classical'."
                )
            noise = site_noise(within, kind, adjust=_common_adjustment(within))
            cov, df = noise.cov, noise.df
        elif kind is not None:
            cov = joint_covariance(within, adjusted, precision, kind, own_slopes=slopes == "site")
        estimates = np.where(within.identified[:, :, None], adjusted[:, :, :size], np.nan)
        both = within.identified[:, :, None] & within.identified[:, None, :]
        cov = np.where(both[:, :, None, :, None], cov, np.nan)
        return cls(
            sites=moments.sites,
            contrasts=moments.arms[1:] if moments.arms else ("",),
            mediators=moments.design.mediators,
            outcome=moments.design.outcome,
            estimates=sealed(estimates),
            cov=sealed(cov),
            precision=frozen(precision),
            n=frozen(rows),
            cov_type=kind or "not available without the rows",
            df=frozen(df),
            clusters_ignored=bool(moments.clusters) and kind not in ("CR0", "CR2", "unbiased", "pooled"),
        )

    @classmethod
    def from_table(
        cls,
        frame: pd.DataFrame,
        *,
        site: str,
        itt: str,
        itt_se: str,
        compliance: str | Sequence[str],
        compliance_se: str | Sequence[str],
        cov: str | Sequence[str] | None = None,
        n: str | None = None,
    ) -> SiteEffects:
        """Site effects from a table of published estimates, one row per site.

        Covariances between two compliances of one site are never published and are taken as zero; those
        between itt and compliance come from ``cov`` or are taken as zero with a warning, and the result
        carries the flag.

        Parameters
        ----------
        frame : DataFrame
        site, itt, itt_se : str
            Columns with the site's name, its effect on the outcome and the standard error.
        compliance, compliance_se, cov : str or sequence of str
            Columns per mediator: effect, standard error, and Cov(itt, compliance).
        n : str, optional
            Column with the rows behind each site.

        Raises
        ------
        ColumnError
            A column that is absent or not numeric.
        DataError
            A column in two roles, missing values, repeated sites, standard errors or ``n`` that are not
            positive, or covariances larger than the standard errors allow.

        Examples
        --------
        >>> import pandas as pd, msmmiv as mm
        >>> t = pd.DataFrame({"s": ["a", "b"], "b": [.2, .4], "sb": [.1, .1], "g": [1., 2.], "sg": [.1, .2],
        ...                   "c": [.001, .002]})
        >>> e = mm.SiteEffects.from_table(t, site="s", itt="b", itt_se="sb", compliance="g",
        ...                               compliance_se="sg", cov="c")
        >>> e.zero_covariance_assumed
        False
        """
        names = [compliance] if isinstance(compliance, str) else list(compliance)
        errors = [compliance_se] if isinstance(compliance_se, str) else list(compliance_se)
        covs = [cov] if isinstance(cov, str) else list(cov or [])
        if len(errors) != len(names) or (covs and len(covs) != len(names)):
            raise DataError(
                f"{len(names)} compliance columns need as many standard errors and covariances; "
                f"got {len(errors)} and {len(covs)}."
            )
        columns = [site, itt, itt_se, *names, *errors, *covs, *([n] if n else [])]
        twice = [c for c in dict.fromkeys(columns) if columns.count(c) > 1]
        if twice:
            raise DataError(
                f"Column {listing(twice, quote=True)} is in two roles. Give each role its own column."
            )
        numbers = numbers_of(frame, [itt, itt_se, *names, *errors, *covs, *([n] if n else [])])
        if site not in frame:
            raise ColumnError.not_found(site, "site", [str(c) for c in frame])
        if frame.empty:
            raise DataError("The table has no rows.")
        labels = tuple(frame[site].tolist())
        check_table(frame, site, labels, [itt_se, *errors], n)
        full = published_covariance(labels, numbers, [itt_se, *errors], covs)
        if not covs:
            warnings.warn(
                "Cov(itt, compliance) was not given and is assumed to be zero. Both come from the same people, so it "
                "rarely is; give cov=[...] if you can.",
                UnknownCovarianceWarning,
                stacklevel=2,
            )
        estimates = np.column_stack([numbers[c] for c in (itt, *names)])[:, None, :]
        return cls(
            sites=labels,
            contrasts=("",),
            mediators=tuple(names),
            outcome=itt,
            estimates=frozen(estimates),
            cov=frozen(full),
            precision=frozen(1.0 / full[:, 0, :1, 0, :1]),
            n=frozen(numbers[n] if n else np.full(len(frame), np.nan)),
            cov_type="published",
            df=frozen(np.full(len(frame), np.inf)),
            zero_covariance_assumed=not covs,
        )

    def only(self, mediators: Sequence[str]) -> SiteEffects:
        """The same effects with some of the mediators, in the order given."""
        if tuple(mediators) == self.mediators:
            return self
        keep = [0, *(1 + self.mediators.index(m) for m in mediators)]
        return replace(
            self,
            mediators=tuple(mediators),
            estimates=frozen(self.estimates[:, :, keep]),
            cov=frozen(self.cov[:, :, keep][:, :, :, :, keep]),
        )

    @property
    def error_kind(self) -> str:
        """The covariance in words, for captions."""
        ignored = "; people in one cluster taken as independent" if self.clusters_ignored else ""
        return f"{self.cov_type}{ignored}"

    def _index(self) -> pd.Index[int]:
        if len(self.contrasts) == 1:
            return pd.Index(self.sites, name="site")
        return pd.MultiIndex.from_product([self.sites, self.contrasts], names=["site", "arm"])

    @property
    def itt(self) -> pd.Series[float]:
        """Effect on the outcome, by site (and arm)."""
        return pd.Series(self.estimates[:, :, 0].ravel(), self._index(), name="itt")

    @property
    def compliance(self) -> pd.DataFrame:
        """Effects on the mediators, by site (and arm); the compliance matrix."""
        rows = self.estimates[:, :, 1:].reshape(-1, len(self.mediators))
        return pd.DataFrame(rows, self._index(), columns=list(self.mediators))

    @property
    def weight(self) -> pd.Series[float]:
        """Weight of each site (and arm) in 2SLS: cross-products of the contrasts, n p (1 - p) for two arms.

        In a table of published estimates it is 1 / Var(itt), and the weighted regression is then the
        inverse-variance one, not 2SLS.
        """
        return pd.Series(np.einsum("kdd->kd", self.precision).ravel(), self._index(), name="weight")

    def to_frame(self) -> pd.DataFrame:
        """The site table: n, weight, itt and compliances with standard errors, and Cov(itt, compliance).

        Returns
        -------
        DataFrame
            Columns ``site``, ``arm`` (more than two arms only), ``n``, ``weight``, ``itt``, ``itt_se``,
            and for each mediator its name, ``<name>_se`` and ``cov_itt_<name>``.
        """
        k, d, _ = self.estimates.shape
        block = np.einsum("kdadb->kdab", self.cov).reshape(k * d, *self.cov.shape[2::2])
        out = {"n": np.repeat(self.n, d), "weight": self.weight.to_numpy(), "itt": self.itt.to_numpy()}
        # An unbiased variance with few clusters can come out negative: there is no standard error then.
        variance = np.einsum("kaa->ka", block)
        error = np.sqrt(np.where(variance >= 0, variance, np.nan))
        out["itt_se"] = error[:, 0]
        for j, name in enumerate(self.mediators, start=1):
            out[name] = self.compliance[name].to_numpy()
            out[f"{name}_se"] = error[:, j]
            out[f"cov_itt_{name}"] = block[:, 0, j]
        return pd.DataFrame(out, self._index()).reset_index()

    def _repr_html_(self) -> str:
        sizes = zip(self.mediators[:3], np.nanmean(self.estimates[:, :, 1:4], axis=(0, 1)), strict=True)
        frame = self.to_frame()
        shown = [c for c in frame if c != "weight" and not str(c).startswith("cov_itt_")]
        return card(
            f"Effects of the treatment in {len(self.sites):,} sites",
            f"On {label(self.outcome)} (itt) {number(float(np.nanmean(self.itt)))} on average; on "
            f"{', '.join(f'{label(m)} {number(float(x))}' for m, x in sizes)}, sites counted alike.",
            frame_table(frame[shown], what="rows" if len(self.contrasts) > 1 else "sites"),
            notes=[f"Standard errors: {self.error_kind}.",
                   "Cov(itt, compliance) assumed zero." if self.zero_covariance_assumed else ""],
        )  # fmt: skip

    def __repr__(self) -> str:
        arms = f" x {len(self.contrasts)} arms" if len(self.contrasts) > 1 else ""
        note = "; Cov(itt, compliance) assumed zero" if self.zero_covariance_assumed else ""
        return f"SiteEffects({len(self.sites)} sites{arms}, {len(self.mediators)} mediators, {self.error_kind}{note})"


def _adjusted(within: Within, slopes: Slopes) -> tuple[Array, Array]:
    """(K, D, p) slopes of the variables and (K, D, D) precision, covariates partialled out."""
    q = len(within.moments.design.covariates)
    if not q:
        return within.slopes, within.omega
    p = within.n_variables
    if slopes == "common":
        coef = _common_slopes(within)
        return within.slopes - within.slopes[:, :, p - q :] @ coef, within.omega
    xx = np.linalg.pinv(within.total[:, p - q :, p - q :], hermitian=True)
    xd = within.gram[:, p - q : p, p:]
    precision = within.omega - np.einsum("kxd,kxz,kze->kde", xd, xx, xd)
    cross = within.cross - np.einsum("kxd,kxz,kzp->kdp", xd, xx, within.total[:, p - q :, :])
    return np.linalg.pinv(precision, hermitian=True) @ cross, precision


def _common_slopes(within: Within) -> Array:
    """(q, p) slopes of all variables on the covariates, inside cells, the same in all sites."""
    first = within.n_variables - len(within.moments.design.covariates)
    inside = (within.total - within.between).sum(axis=0)
    out: Array = np.linalg.lstsq(inside[first:, first:], inside[first:], rcond=None)[0]
    return out


def _common_adjustment(within: Within) -> Array:
    """(p, 1 + P) columns that turn the variables into outcome and mediators net of covariates."""
    size, q = 1 + len(within.moments.design.mediators), len(within.moments.design.covariates)
    out: Array = np.eye(within.n_variables)[:, :size]
    if q:
        out[-q:] -= _common_slopes(within)[:, :size]
    return out


def _default_kind(within: Within) -> EffectsCovType | None:
    moments = within.moments
    if moments.design.covariates or moments.design.treatment_kind == "continuous":
        return None if moments.design.weight_kind == "probability" else "classical"
    unequal = moments.design.weight_kind in ("analytic", "probability") or not equal_weights(within)
    return "HC1" if unequal else "HC2"

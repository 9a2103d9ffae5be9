"""What the package maketables asks of a result, so that its tables take ours; nothing of it is imported.

The format is read from maketables 0.2.0 (class ``PluginExtractor``): a table of coefficients indexed by term, single
statistics by key, the outcome, and what is known of the covariance.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import pandas as pd

__all__ = ["DEFAULT_KEYS", "LABELS", "ForMaketables", "coef_table", "stat", "vcov_info"]

#: An `Estimate`, whose file imports this one.
Estimate: TypeAlias = Any

#: What is shown unasked, in this order.
DEFAULT_KEYS = ["N", "n_sites", "n_clusters", "n_instruments", "first_stage_f_min", "se_type"]
LABELS = {
    "n_sites": "Sites", "n_clusters": "Clusters", "n_instruments": "Instruments", "method": "Estimator",
    "first_stage_f_min": "First-stage F (smallest, classical)", "sargan": "Sargan", "sargan_p": "Sargan, p",
    "wu_hausman": "Wu-Hausman F", "wu_hausman_p": "Wu-Hausman, p", "status": "Why there is no estimate",
}  # fmt: skip
# Their names for what `Estimate.glance` has under other ones.
_NAMES = {"N": "nobs", "rmse": "sigma", "r2_within": "r2_within", "n_obs": "nobs"}


class ForMaketables:
    """The methods that maketables looks for, for `Estimate` to inherit."""

    @property
    def __maketables_coef_table__(self: Any) -> pd.DataFrame:
        return coef_table(self)

    def __maketables_stat__(self: Any, key: str) -> Any:
        return stat(self, key)

    @property
    def __maketables_depvar__(self: Any) -> str:
        return str(self.design.outcome)

    @property
    def __maketables_vcov_info__(self: Any) -> dict[str, Any]:
        return vcov_info(self)

    @property
    def __maketables_fixef_string__(self: Any) -> str:
        return str(self.design.block or self.design.site)

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return dict(LABELS)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return list(DEFAULT_KEYS)


def coef_table(fit: Estimate) -> pd.DataFrame:
    """Columns ``b, se, t, p, ci95l, ci95u``, indexed by term; NaN where there is no estimate."""
    names = {"estimate": "b", "std_error": "se", "statistic": "t", "p_value": "p",
             "conf_low": "ci95l", "conf_high": "ci95u"}  # fmt: skip
    columns = fit.to_columns()
    index = pd.Index(fit.terms, name="Coefficient")
    return pd.DataFrame({new: columns[old] for old, new in names.items()}, index=index)


def stat(fit: Estimate, key: str) -> Any:
    """One statistic of `Estimate.glance`, under its name or maketables'; None for what does not exist."""
    if key == "se_type":
        return _cov(fit)
    row = fit.glance().iloc[0]
    name = _NAMES.get(key, key)
    if name not in row.index:
        return None
    value = row[name]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value


def vcov_info(fit: Estimate) -> dict[str, Any]:
    """``vcov_type`` and, of clustered covariances, ``clustervar``."""
    clusters = {"cluster": fit.design.cluster, "site": fit.design.site}.get(fit.cov_type)
    return {"vcov_type": _cov(fit)} | ({"clustervar": str(clusters)} if clusters else {})


def _cov(fit: Estimate) -> str:
    name = {"site": f"by: {fit.design.site}", "cluster": f"by: {fit.design.cluster}"}.get(
        fit.cov_type, fit.cov_type
    )
    return str(name) + (f" ({fit.small_sample})" if fit.small_sample else "")

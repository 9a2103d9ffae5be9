"""The tables of a study file, each as a frozen object whose fields are its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from msmmiv.document.estimators import estimator_as_written, plain_estimator
from msmmiv.estimate import Estimator, Method
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.results import Interval
from msmmiv.moments.cells import Missing
from msmmiv.moments.data_file import Decimal, Encoding

__all__ = ["AuditTable", "DagTable", "DataTable", "EstimateTable", "said"]


@dataclass(frozen=True, kw_only=True)
class DataTable:
    """Where the data are: ``[data]``.

    Attributes
    ----------
    file : tuple of str
        Paths or globs, relative to the study file.
    missing : {"error", "drop"}, optional
        Rows without site or arm; not for moments.
    delimiter, decimal, encoding : str, optional
        How a CSV file is written down, where the reader should not guess.
    memory_limit : str, optional
        Memory for reading CSV and Parquet files, such as "4GB".
    """

    file: tuple[str, ...]
    missing: Missing | None = None
    delimiter: str | None = None
    decimal: Decimal | None = None
    encoding: Encoding | None = None
    memory_limit: str | None = None


@dataclass(frozen=True, kw_only=True)
class EstimateTable:
    """The headline, ``[estimate]``, or one more estimate to compare it with, ``[[compare]]``.

    Attributes
    ----------
    estimator : str or estimator object, optional
        By rule if left out; 2SLS if a covariance is given. In the file an object is a table of its name and options,
        such as ``{ name = "fuller", a = 4.0 }``.
    cov_type : str, optional
    direct_effect : bool
    interval : {"wald", "score"}, optional
        By rule if left out, as the estimator.
    small_sample : str, optional
        Correction of a clustered covariance.
    """

    estimator: Method | Estimator | None = None
    cov_type: CovType | None = None
    direct_effect: bool = False
    interval: Interval | None = None
    small_sample: SmallSample | None = None

    def __post_init__(self) -> None:
        if self.estimator is not None:
            object.__setattr__(self, "estimator", plain_estimator(self.estimator))


@dataclass(frozen=True, kw_only=True)
class AuditTable:
    """Options of the audit: ``[audit]``.

    Attributes
    ----------
    draws : int
        Of simulated null distributions, in the audit and in the report on rank; 199 or more.
    planned_share : float, optional
        Planned share treated, the same in all sites.
    planned_shares : str, optional
        CSV file, relative to the study file, with the site column and a column ``share``, where sites differ.
    site_covariates : str, optional
        CSV file, relative to the study file, with the site column and numeric columns.
    """

    draws: int = 999
    planned_share: float | None = None
    planned_shares: str | None = None
    site_covariates: str | None = None


@dataclass(frozen=True, kw_only=True)
class DagTable:
    """Changes to the graph of parallel mediators: ``[dag]``, the keywords of `CausalDAG.from_design`.

    Attributes
    ----------
    edges, without : tuple of str
        Edges such as "A -> B" that are added and taken out.
    confounders : tuple of str, mapping from str to tuple of str, or None
        None: one unmeasured cause of all. A tuple: causes of every mediator and the outcome, possibly none.
    measured : tuple of str
        Those of the confounders that are in the data.
    """

    edges: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    confounders: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = field(default=None)
    measured: tuple[str, ...] = ()


def said(table: Any) -> dict[str, Any]:
    """What a table says beyond its defaults, as TOML holds it; a list of one name as the name.

    >>> said(EstimateTable(estimator="2sls")), said(DataTable(file=("a.csv",)))
    ({'estimator': '2sls'}, {'file': 'a.csv'})
    """
    out = {f.name: getattr(table, f.name) for f in fields(table) if getattr(table, f.name) != f.default}
    if isinstance(table, DataTable) and len(table.file) == 1:
        out["file"] = table.file[0]
    if isinstance(table, EstimateTable) and table.estimator is not None:
        out["estimator"] = estimator_as_written(table.estimator)
    return out

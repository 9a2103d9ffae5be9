"""Strata of baseline covariates that take the place of sites, in one large trial or inside many sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, DesignError, check_choice, listing, whole_number
from msmmiv.moments.cells import Missing
from msmmiv.moments.labels import natural_order, plain, plain_labels
from msmmiv.moments.strata_build import Level, Small, Strata, build_strata, complete_keys

__all__ = ["NAME", "Bins", "checked_columns", "labelled", "strata_as_sites"]

Bins: TypeAlias = int | Mapping[str, int | Sequence[float]]

#: Default name of the new column.
NAME = "stratum"
#: A numeric column with more values than this is a measurement, and its values make no strata.
MANY_VALUES = 15
#: Why a column of this role may not make strata.
_REFUSED = {
    "outcome": "is the outcome: a consequence of the treatment",
    "mediator": "is a mediator: a consequence of the treatment",
    "treatment": "is the treatment: every stratum would have one arm",
    "cluster": "is the cluster, which people may have entered because of their arm",
    "weights": "holds the weights, which may have been made from the arm",
}


def strata_as_sites(
    frame: pd.DataFrame,
    design: Design,
    *,
    by: str | Sequence[str],
    within_sites: bool = False,
    bins: Bins | None = None,
    min_per_arm: int = 2,
    small: Small = "drop",
    missing: Missing = "error",
    name: str = NAME,
) -> Strata:
    """Make strata of baseline covariates the sites: how one large trial can tell several mediators apart.

    Use it for a trial with too few sites (or none), or to ask whether subgroups inside the sites tell the
    same story. All nine assumptions are then about strata: above all, mediator effects must not be related
    to how far the treatment moves the mediators in a stratum.

    Parameters
    ----------
    frame : pandas.DataFrame
        Other frames can be converted with ``.to_pandas()``. It is not changed.
    design : Design
        For a trial without sites, give ``site=`` the name of the column to be made (``"stratum"``).
    by : str or sequence of str
        Columns known before randomisation; nothing in the data can show that they were. The site and the
        block may be among them.
    within_sites : bool
        Strata of each site by itself. Otherwise a stratum takes its people from all sites, and the
        sites stay as blocks.
    bins : int or mapping, optional
        Cut numeric columns at quantiles over all rows: a number of bins for every numeric column with more
        values than that, or per column a number or a list of cut points.
    min_per_arm : int
        Strata with fewer comparable rows in one of the arms of their sites are small.
    small : {"drop", "merge", "error"}
        Leave small strata out with a warning; first merge them with their smaller neighbour along the last
        binned column, and leave out what stays small; or raise.
    missing : {"error", "drop"}
        What to do with rows that lack a column of ``by``, the site, the block or the arm. Rows that lack another
        column are kept, for `Study` to count.
    name : str
        Name of the new column.

    Returns
    -------
    Strata

    Raises
    ------
    DesignError
        A consequence of the treatment in ``by``, a continuous treatment, or nothing to merge along.
    ColumnError
        A column is absent, is there already, or has too many values without ``bins``.
    MissingDataError
        Rows without a stratum.
    TooFewSitesError
        No stratum is large enough.
    DataError
        Not a pandas frame, or small strata with ``small="error"``.

    See Also
    --------
    msmmiv.compliance_strata : strata of predicted compliance.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> from msmmiv.moments.strata import strata_as_sites
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"t": rng.integers(0, 2, 900), "age": rng.integers(18, 80, 900)})
    >>> df["m"] = df.t * df.age / 40 + rng.normal(size=900)
    >>> df["y"] = 0.5 * df.m + rng.normal(size=900)
    >>> one_trial = mm.Design(outcome="y", treatment="t", mediators="m", site="stratum")
    >>> strata = strata_as_sites(df, one_trial, by="age", bins={"age": [30, 50, 65]})
    >>> strata
    Strata: 4 sites in 'stratum' (900 rows)
    >>> strata.table[["stratum", "rows", "status"]].values.tolist()[0]
    ['age <= 30', 174, 'kept']
    >>> mm.Study(strata.frame, strata.design).fit("2sls").n_sites
    4
    """
    check_choice(small, Small, "small")
    check_choice(missing, Missing, "missing")
    columns = checked_columns(frame, design, by, name)
    if within_sites and design.site not in columns:
        if design.site not in frame:
            raise DesignError(
                f"within_sites=True needs sites, and {design.site!r} is the column to be made. Leave it out."
            )
        columns = (design.site, *columns)
    frame, lost = complete_keys(frame, design, columns, missing=missing)
    cuts = _cuts(frame, design, columns, bins)
    if small == "merge" and not cuts:
        raise DesignError(
            "small='merge' joins neighbouring bins, and no column has bins. Give bins=..., or small='drop'."
        )
    levels = {c: _bin(frame[c], cuts[c]) if c in cuts else labelled(frame[c]) for c in columns}
    return build_strata(frame, design, levels, name=name, min_per_arm=min_per_arm, small=small, missing=lost)


def checked_columns(frame: Any, design: Any, by: str | Sequence[str], name: str) -> tuple[str, ...]:
    """The columns of ``by``, once frame, roles and names are in order.

    Raises
    ------
    DataError
        Not a pandas frame, or an empty one.
    DesignError
        A continuous treatment, or a column that strata may not be made of.
    ColumnError
        A column that is absent or there twice.
    """
    _check_kinds(frame, design)
    available = [str(c) for c in frame]
    columns = (by,) if isinstance(by, str) else tuple(by)
    roles = {column: role for role, column in design.roles()}
    if not columns or len(set(columns)) < len(columns):
        raise DesignError(f"{list(columns)!r} must name at least one column, and each one once.")
    new = {name} & {design.site} - {*available}  # a trial without sites: its site is the column to be made
    for column in [*columns, *(c for c in roles if c not in new)]:
        if available.count(column) > 1:
            raise ColumnError(f"{column!r} is the name of more than one column of the data.")
        if column not in frame:
            raise ColumnError.not_found(column, roles.get(column, "baseline"), available)
    for column in columns:
        if roles.get(column) in _REFUSED:
            raise DesignError(
                f"{column!r} {_REFUSED[roles[column]]}. Strata must be known before randomisation; use baseline "
                "columns."
            )
    if name in frame:
        raise ColumnError(
            f"The data already has a column {name!r}, the name of the column to be made. Rename it."
        )
    return columns


def _check_kinds(frame: Any, design: Any) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"Strata are made of a pandas frame, not {type(frame).__name__}. Convert with .to_pandas(), or read the "
            "file with pandas first."
        )
    if not isinstance(design, Design):
        raise DesignError(
            f"The design must be a Design, not {type(design).__name__}: mm.Design(outcome=...)."
        )
    if frame.columns.nlevels > 1:
        raise ColumnError("The columns of the data have several levels. Give each one name.")
    if frame.empty:
        raise DataError("The data has no rows.")
    if design.treatment_kind == "continuous":
        raise DesignError(
            "Strata need some rows in every arm, and a continuous treatment has no arms. Make the column "
            "of strata yourself and name it as the site."
        )


def _cuts(
    frame: pd.DataFrame, design: Design, columns: Sequence[str], bins: Bins | None
) -> dict[str, int | Sequence[float]]:
    """The columns to cut, and how."""
    named = dict(bins) if isinstance(bins, Mapping) else {}
    every = None if bins is None or isinstance(bins, Mapping) else bins
    for cut in (*named.values(), *(() if every is None else (every,))):
        if not isinstance(cut, Sequence | np.ndarray):
            whole_number(cut, "bins", least=2)
    for column in named:
        if column not in columns:
            raise DesignError(f"bins= names {column!r}, which is not among {listing(columns, quote=True)}.")
        if not _is_number(frame[column]):
            raise ColumnError.not_numeric(column, "bins", "labels", _sample(frame[column]))
    out = dict(named)
    for column in columns:
        if column in named or column in (design.site, design.block) or not _is_number(frame[column]):
            continue
        distinct = frame[column].nunique()
        if every is not None and distinct > every:
            out[column] = every
        elif distinct > MANY_VALUES:
            raise ColumnError(
                f"{column!r} has {distinct:,} values, too many for one stratum each. Cut it: bins={{{column!r}: 4}} "
                "for quarters, or a list of cut points; if its values are labels, make them text."
            )
    return out


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _sample(column: pd.Series[Any]) -> list[str]:
    return [str(v) for v in column.dropna().unique()[:3]]


def labelled(column: pd.Series[Any]) -> Level:
    """A level per value; categories that do not occur make none."""
    numeric = pd.api.types.is_numeric_dtype(column.dtype)
    codes, uniques = pd.factorize(column.map(plain) if numeric else plain_labels(column))
    labels = [plain(u) for u in uniques]
    order = natural_order(labels)
    return Level(np.argsort(order)[codes], lambda first, _: f"{column.name} = {labels[order[first]]}")


def _bin(column: pd.Series[Any], cut: int | Sequence[float]) -> Level:
    """Bins that include their upper end; texts have inner cut points only, no person's extreme value."""
    name, values = column.name, column.to_numpy(dtype=float)
    if isinstance(cut, int):
        inner = np.quantile(values, np.arange(1, cut) / cut, method="inverted_cdf")
    else:
        inner = np.array(cut, dtype=float)
    ends = np.unique(inner)
    ends = ends[(ends >= values.min()) & (ends < values.max())]
    if not len(ends) or not np.isfinite(inner).all():
        raise ColumnError(f"bins= puts all values of {name!r} into one bin. Give other cut points: a list.")
    digits = next(d for d in range(3, 18) if len({f"{e:.{d}g}" for e in ends}) == len(ends))
    texts = [f"{e:.{digits}g}" for e in ends]

    def text(first: int, last: int) -> str:
        low, high = texts[first - 1] if first else None, texts[last] if last < len(texts) else None
        if low is None or high is None:
            return f"{name} <= {high}" if high else f"{name} > {low}" if low else f"{name} any"
        return f"{name} ({low}, {high}]"

    return Level(np.searchsorted(ends, values, side="left"), text, ordered=True)

"""Tables of published site estimates: reading and checking them, and the covariances they give."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import ColumnError, DataError, listing
from msmmiv.linalg import Array

__all__ = ["TableColumns", "check_table", "guess_columns", "numbers_of", "published_covariance",
           "read_shares", "read_site_covariates", "read_table", "table_shares"]  # fmt: skip


class TableColumns(TypedDict):
    """Which column of a table of published estimates is which: the keywords of `SiteEffects.from_table`."""

    site: str
    itt: str
    itt_se: str
    compliance: list[str]
    compliance_se: list[str]
    cov: list[str] | None


def read_table(path: str | Path, site: str | None = None) -> pd.DataFrame:
    """A CSV file of published estimates; the column of sites stays text, as it is spelt.

    Raises
    ------
    DataError
        A file that is not there, or no table.
    """
    file = Path(path)
    if not file.exists():
        raise DataError(f"There is no file {str(path)!r}.")
    if file.suffix.lower() in (".parquet", ".xlsx", ".xls", ".dta", ".sav", ".rds"):
        raise DataError(f"{str(path)!r}: a table of published estimates is read from CSV; save it as that.")
    how: dict[str, Any] = {"skipinitialspace": True, "encoding": "utf-8-sig"}
    try:
        with warnings.catch_warnings():
            # Lines that are longer than the header would lose their ends.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            head = pd.read_csv(file, header=None, nrows=1, dtype=str, **how).iloc[0].tolist()
            frame: pd.DataFrame = pd.read_csv(file, dtype={site or "site": str}, index_col=False, **how)
    except (
        OSError,
        UnicodeError,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        pd.errors.ParserWarning,
    ) as error:
        raise DataError(
            f"{str(path)!r} cannot be read as a CSV table: {' '.join(str(error).split()).rstrip('.')}."
        ) from error
    twice = [n for n in dict.fromkeys(head) if head.count(n) > 1]
    if twice:
        raise DataError(f"{listing(twice, quote=True)} is the name of more than one column of {str(path)!r}.")
    if frame.empty:
        raise DataError(f"{str(path)!r} has no rows.")
    return frame


def guess_columns(names: Sequence[str], **given: str | Sequence[str] | None) -> TableColumns:
    """Which column is which: what was ``given``, and otherwise by name.

    By name are found ``site``, ``itt``, ``itt_se``, ``compliance``, ``compliance_se`` and ``cov``; for several
    mediators ``compliance_hours``, ``compliance_hours_se`` and ``cov_hours``. A compliance that is given finds its
    standard error as its name with ``_se`` after it.

    Raises
    ------
    ColumnError
        A column that is needed and not there.
    DataError
        Covariances for some of the mediators only.

    Examples
    --------
    >>> guess_columns(["site", "itt", "itt_se", "compliance_a", "compliance_a_se", "cov_a"])["cov"]
    ['cov_a']
    >>> guess_columns(["s", "itt", "itt_se", "dose", "dose_se"], site="s", compliance=["dose"])["compliance_se"]
    ['dose_se']
    """
    single: dict[str, str] = {name: str(given.get(name) or name) for name in ("site", "itt")}
    single["itt_se"] = str(given.get("itt_se") or f"{single['itt']}_se")
    compliance = list(given.get("compliance") or [])
    if not compliance:
        several = [n for n in names if n.startswith("compliance_") and f"{n}_se" in names]
        compliance = ["compliance"] if "compliance" in names or not several else several
    errors = list(given.get("compliance_se") or [f"{name}_se" for name in compliance])
    roles = [(single["site"], "site", "--site"), (single["itt"], "effect on the outcome", "--itt"),
             (single["itt_se"], "its standard error", "--itt-se"),
             *((c, "effect on the mediator", "--compliance") for c in compliance),
             *((c, "its standard error", "--compliance-se") for c in errors)]  # fmt: skip
    for name, role, option in roles:
        if name not in names:
            raise ColumnError.not_found(name, f"{role}, {option}", list(names), where="the table")
    return TableColumns(
        site=single["site"], itt=single["itt"], itt_se=single["itt_se"], compliance=compliance, compliance_se=errors,
        cov=_covariances(names, compliance, list(given.get("cov") or [])),
    )  # fmt: skip


def table_shares(
    table: pd.DataFrame, shares: str, sites: Sequence[Label], *, site: str | None = None
) -> Array | dict[Label, float]:
    """Shares from a column of the table, in its order, or from a file of their own."""
    if shares in table:
        return numbers_of(table, [shares], role="shares")[shares]
    if not Path(shares).exists():
        raise ColumnError.not_found(
            shares, "shares; no file either", [str(c) for c in table], where="the table"
        )
    return read_shares(shares, sites, site=site)


def _covariances(names: Sequence[str], compliance: list[str], given: list[str]) -> list[str] | None:
    if given:
        return given
    asked = ["cov" if c == "compliance" else f"cov_{c.removeprefix('compliance_')}" for c in compliance]
    found = [c for c in asked if c in names]
    if len(compliance) == 1 and not found and "cov" in names:
        found = asked = ["cov"]
    if found and found != asked:
        absent = [c for c in asked if c not in found]
        raise DataError(
            f"The table has {listing(found, quote=True)} but not {listing(absent, quote=True)}: "
            "give Cov(itt, compliance) for all mediators or for none."
        )
    return found or None


def read_shares(path: str | Path, sites: Sequence[Label], *, site: str | None = None) -> dict[Label, float]:
    """Shares by site from a CSV file with a column of sites and a column ``share``.

    Raises
    ------
    DataError, ColumnError
        A file that cannot be read, columns that are not there, numbers that are none, or a site twice.
    """
    frame = read_table(path, site)
    names = [str(c) for c in frame]
    key = site if site in names else "site"
    column = next((c for c in ("share", "shares") if c in names), "share")
    for name, role in ((key, "site"), (column, "share of the site")):
        if name not in names:
            raise ColumnError.not_found(name, role, names, where=f"{str(path)!r}")
    values = numbers_of(frame, [column], role="share of the site")[column]
    keys = [str(v) for v in frame[key]]
    twice = [k for k in dict.fromkeys(keys) if keys.count(k) > 1]
    if twice:
        raise DataError(f"Each site needs one share; {listing(twice, quote=True)} occur more than once.")
    spelt = {str(s): s for s in sites}
    return {spelt.get(k, k): float(v) for k, v in zip(keys, values, strict=True)}


def read_site_covariates(path: str | Path, sites: Sequence[Label], *, site: str) -> pd.DataFrame:
    """Covariates of sites from a CSV file, indexed by the labels that the data have.

    Raises
    ------
    DataError
        A file that cannot be read.
    ColumnError
        The column of sites is not in it.
    """
    table = read_table(path, site)
    if site not in table:
        raise ColumnError.not_found(
            site, "site", [str(c) for c in table], where="the file of site covariates"
        )
    spelt = {str(s): s for s in sites}
    return table.set_index(pd.Index([spelt.get(str(s), s) for s in table[site]])).drop(columns=site)


def numbers_of(
    frame: pd.DataFrame, names: Sequence[str], *, role: str = "published estimate"
) -> dict[str, Array]:
    """The named columns as finite floats."""
    out = {}
    for name in names:
        if name not in frame:
            raise ColumnError.not_found(name, role, [str(c) for c in frame])
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise ColumnError.not_numeric(name, role, "text", list(frame[name].astype(str)))
        values = frame[name].to_numpy(dtype=float)
        if not np.isfinite(values).all():
            raise DataError(f"Column {name!r} has missing or infinite values; leave those sites out first.")
        out[name] = values
    return out


def published_covariance(
    labels: Sequence[Label], numbers: dict[str, Array], errors: Sequence[str], covs: Sequence[str]
) -> Array:
    """(K, 1, 1 + P, 1, 1 + P) covariances from standard errors and Cov(itt, compliance)."""
    size = len(errors)
    full = np.zeros((len(labels), 1, size, 1, size))
    for j, name in enumerate(errors):
        full[:, 0, j, 0, j] = numbers[name] ** 2
    for j, name in enumerate(covs, start=1):
        full[:, 0, 0, 0, j] = full[:, 0, j, 0, 0] = numbers[name]
    bad = np.linalg.eigvalsh(full[:, 0, :, 0, :])[:, 0] < 0
    if bad.any():
        raise DataError(
            f"Cov(itt, compliance) is larger than the standard errors allow in "
            f"{listing([s for s, b in zip(labels, bad, strict=True) if b])}: check whether the column holds "
            "correlations instead of covariances."
        )
    return full


def check_table(
    frame: pd.DataFrame, site: str, labels: Sequence[object], errors: Sequence[str], n: str | None
) -> None:
    """Refuse missing or repeated sites, and standard errors or counts that are not positive."""
    if frame[site].isna().any():
        raise DataError(f"Column {site!r} (site) has missing values.")
    twice = (
        [s for s in dict.fromkeys(labels) if list(labels).count(s) > 1]
        if len(set(labels)) < len(labels)
        else []
    )
    if twice:
        raise DataError(f"Each site needs one row; {listing(twice, quote=True)} occur more than once.")
    for name in errors:
        low = [s for s, v in zip(labels, frame[name], strict=True) if v <= 0]
        if low:
            raise DataError(f"Standard errors in {name!r} must be positive; they are not in {listing(low)}.")
    low = [s for s, v in zip(labels, frame[n], strict=True) if v <= 0] if n else []
    if low:
        raise DataError(f"Column {n!r} (n) counts rows and must be positive; it is not in {listing(low)}.")

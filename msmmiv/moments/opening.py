"""Rows of any engine, checked against a design: complete cases come out, and what was missing is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import (
    ColumnError,
    DataError,
    DesignError,
    MissingDataError,
    WeightsError,
    count,
)
from msmmiv.linalg import Array
from msmmiv.moments.engine_errors import reading
from msmmiv.moments.frames import Frame, collected, open_frame
from msmmiv.moments.sums import Rows

__all__ = ["open_rows"]

KEYS = ("site", "block", "arm", "cluster")
NO_LABELS = (nw.Binary, nw.List, nw.Array, nw.Struct)
#: Types whose labels are read as text; maps are unknown to narwhals before 2.29.
AS_TEXT = (nw.Categorical, nw.Enum, nw.Unknown, getattr(nw, "Map", nw.Unknown))


def open_rows(data: Any, design: Design, *, missing: str, progress: bool | None = None) -> Rows:
    """Open a data source, check every role, count what is missing, and keep the complete rows.

    Raises
    ------
    DataError
        File not found, empty data, an engine that is not supported.
    ColumnError
        A column that is absent, or text where numbers are needed.
    MissingDataError
        Rows without site or arm (unless ``missing="drop"``), or no complete row at all.
    WeightsError
        Weights that are zero or negative, or fractional frequencies.
    """
    if not isinstance(design, Design):
        raise DesignError(
            f"The design must be a Design, not {type(design).__name__}: mm.Design(outcome=...) or "
            "mm.Design.from_formula('outcome ~ covariates | site | mediators ~ treatment')."
        )
    opened = open_frame(data, design, progress=progress)
    source = opened.name
    frame, keys = _renamed(opened.frame, source, design)
    values = [f"v{j}" for j in range(len(design.variables))]
    named: dict[str, str] = dict(zip(values, design.variables, strict=True))
    named |= {"w": design.weights} if design.weights else {}
    named |= {k: getattr(design, "treatment" if k == "arm" else k) for k in keys}
    frame = _flagged(frame, design, named)
    # Infinities of both signs add up to NaN, which is noticed in _centre.
    with opened.passes.step("counts and means"), np.errstate(invalid="ignore"):
        counts = collected(frame.select(*_counts(design, values, named)), source).iloc[0]
    rows_in, complete = int(counts["rows"] or 0), int(counts["complete"] or 0)
    if design.weights:
        with opened.passes.step("weights"):
            _check_weights(design, frame, source)
    if rows_in == 0:
        raise DataError("The data has no rows.")
    lost = {column: int(counts[f"m_{k}"]) for k, column in named.items() if counts[f"m_{k}"]}
    table = pd.DataFrame()
    if complete < rows_in:
        with opened.passes.step("missing values by site"):
            table = _missing_table(frame, source, keys, named)
    _check_missing(design, lost, rows_in, complete, missing)
    if complete < rows_in:
        frame = frame.filter(nw.col("complete"))
    with opened.passes.step("means of complete rows"):
        centre = _centre(frame, source, values, counts)
    return Rows(
        design=design, frame=frame.select(*(c for c in named)), keys=keys, rows_in=rows_in,
        missing=tuple(lost.items()), incomplete=rows_in - complete, missing_cells=table,
        centre=centre, source=source, passes=opened.passes, unchanged=opened.unchanged,
    )  # fmt: skip


def _flagged(frame: Frame, design: Design, named: Mapping[str, str]) -> Frame:
    """Add a flag per column that is missing, and one for complete rows."""
    frame = frame.with_columns(**{f"m_{k}": _is_missing(frame, k) for k in named})
    frame = frame.with_columns(complete=~nw.any_horizontal(*(f"m_{k}" for k in named), ignore_nulls=False))
    if design.weight_kind != "frequency":
        return frame
    # Frequency weights stand for copies, and copies are what is counted.
    return frame.with_columns(copies=nw.when(nw.col("m_w")).then(1.0).otherwise(nw.col("w")))


def _counts(design: Design, values: Sequence[str], named: Mapping[str, str]) -> list[nw.Expr]:
    """Rows, complete rows, missing values by column; and plain sums, from which a centre is made."""
    frequency = design.weight_kind == "frequency"
    rows = nw.col("copies").sum() if frequency else nw.len()
    flags = [_counted(f"m_{k}", frequency=frequency).alias(f"m_{k}") for k in named]
    return [rows.alias("rows"), _counted("complete", frequency=frequency).alias("complete"), *flags,
            nw.len().alias("lines"), *(nw.col(c).sum() for c in values),
            *(nw.col(f"m_{c}").cast(nw.Int64).sum().alias(f"lines_{c}") for c in values)]  # fmt: skip


def _centre(frame: Frame, source: str, values: Sequence[str], counts: Any) -> Array:
    """A value near each column's mean; any will do, but it must be finite.

    Engines skip nulls in sums, some of them also NaN; where a NaN or infinity got into a sum, the means of the
    complete rows are taken in a pass of their own.
    """
    total = np.array([counts[c] for c in values], dtype=float)
    present = np.array([counts["lines"] - counts[f"lines_{c}"] for c in values], dtype=float)
    if np.isfinite(total).all() and present.all():
        centre: Array = total / present
        return centre
    got = collected(frame.select(*(nw.col(c).mean() for c in values)), source)
    return np.array(got.iloc[0], dtype=float)


def _renamed(raw: Frame, source: str, design: Design) -> tuple[Frame, tuple[str, ...]]:
    """Check the columns against the roles and give them canonical names."""
    with reading(source, engine=True):
        schema = raw.collect_schema()
    names = [str(c) for c in schema]
    for role, column in design.roles():
        if column not in schema:
            raise ColumnError.not_found(column, role, names)
    numeric = dict.fromkeys(design.mediators, "mediator") | dict.fromkeys(design.covariates, "covariate")
    numeric[design.outcome] = "outcome"
    if design.weights:
        numeric[design.weights] = "weights"
    if design.treatment_kind == "continuous":
        numeric[design.treatment] = "continuous treatment"
    for column, role in numeric.items():
        if not (schema[column].is_numeric() or schema[column] == nw.Boolean):
            raise _not_numeric(raw, source, column, role)
    chosen = {f"v{j}": nw.col(c).cast(nw.Float64) for j, c in enumerate(design.variables)}
    if design.weights:
        chosen["w"] = nw.col(design.weights).cast(nw.Float64)
    sources = {"site": design.site, "block": design.block, "cluster": design.cluster,
               "arm": design.treatment if design.treatment_kind == "arms" else None}  # fmt: skip
    keys = tuple(k for k in KEYS if sources[k])
    for k in keys:
        if schema[str(sources[k])] in NO_LABELS:
            role = "treatment" if k == "arm" else k
            raise ColumnError(
                f"Column {sources[k]!r} ({role}) holds values of type {schema[str(sources[k])]}, which cannot be "
                "labels. Give one number or text per row."
            )
        key = nw.col(str(sources[k]))
        coded = schema[str(sources[k])] in AS_TEXT
        # Zero has two signs, which are one label.
        chosen[k] = key.cast(nw.String) if coded else key + 0.0 if schema[str(sources[k])].is_float() else key
    with reading(source, engine=True):
        return raw.select(*(e.alias(n) for n, e in chosen.items())), keys


def _not_numeric(raw: Frame, source: str, column: str, role: str) -> DataError:
    kind = raw.collect_schema()[column]
    sample = collected(raw.select(nw.col(column)).drop_nulls().head(200), source)[column].dropna().astype(str)
    if sample.empty and not collected(raw.select(nw.len()), source).iloc[0, 0]:
        return DataError("The data has no rows.")
    if sample.empty:
        return MissingDataError(f"Column {column!r} ({role}) has no values. Leave it out, or fill it in.")
    text = [v for v in dict.fromkeys(sample) if not _parses(v)]
    name = "text" if kind in (nw.String, nw.Object, nw.Categorical) else str(kind)
    if not text:
        name = f"numbers stored as {'text' if kind == nw.String else 'objects'}"
    return ColumnError.not_numeric(column, role, name, (text or list(sample))[:3])


def _parses(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_missing(frame: Frame, name: str) -> nw.Expr:
    """Null, NaN and infinity alike: `is_null` alone keeps NaN on several engines."""
    kind = frame.collect_schema()[name]
    null = nw.col(name).is_null()
    return null | ~nw.col(name).is_finite() if kind.is_float() else null


def _counted(flag: str, *, frequency: bool) -> nw.Expr:
    count = nw.col(flag).cast(nw.Int64)
    return (count * nw.col("copies")).sum() if frequency else count.sum()


def _missing_table(frame: Frame, source: str, keys: Sequence[str], named: Mapping[str, str]) -> pd.DataFrame:
    by = [k for k in ("site", "arm") if k in keys]
    bad = frame.filter(~nw.col("complete"))
    copies = nw.col("copies") if "copies" in bad.collect_schema() else nw.lit(1)
    bad = bad.with_columns(**{f"m_{k}": nw.col(f"m_{k}").cast(nw.Int64) * copies for k in named})
    sums = [nw.col(f"m_{k}").sum() for k in named]
    wide = collected(bad.group_by(*by).agg(*sums), source)
    if "arm" not in by:
        wide["arm"] = None
    long = wide.melt(["site", "arm"], [f"m_{k}" for k in named], "column", "rows")
    long["column"] = long["column"].map({f"m_{k}": c for k, c in named.items()})
    return long[long["rows"] > 0].reset_index(drop=True)


def _check_missing(
    design: Design, lost: Mapping[str, int], rows_in: int, complete: int, missing: str
) -> None:
    structural = {c: lost[c] for c in (design.site, design.treatment) if c in lost}
    if structural and missing == "error":
        rows = {c: f"{count(r, 'row')} {'has' if r == 1 else 'have'}" for c, r in structural.items()}
        which = " and ".join(f"{n} no {c!r}" for c, n in rows.items())
        raise MissingDataError(
            f"{which}: rows that belong to no site or arm cannot be placed. Fill them in, or pass "
            'missing="drop" to leave those rows out.'
        )
    if complete == 0:
        which = ", ".join(f"{c!r}: {r:,}" for c, r in lost.items())
        raise MissingDataError(
            f"No row is complete: all {rows_in:,} rows miss at least one declared column ({which}). "
            "Leave out the column that is mostly missing."
        )


def _check_weights(design: Design, frame: Frame, source: str) -> None:
    used = frame.filter(~nw.col("m_w")).with_columns(part=(nw.col("w") - nw.col("w").round()).abs())
    got = collected(used.select(nw.col("w").min().alias("least"), nw.col("part").max()), source).iloc[0]
    if got["least"] <= 0:
        raise WeightsError(
            f"Weights {design.weights!r} must be positive; the smallest is {got['least']:g}. "
            "Remove the rows that should not count."
        )
    if design.weight_kind == "frequency" and got["part"] > 0:
        raise WeightsError(
            f"Frequency weights count copies and must be whole numbers; {design.weights!r} has fractions. "
            "Use weight_kind='analytic' or 'probability'."
        )

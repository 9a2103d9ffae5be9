"""Checks of a table of published site estimates, and the covariances it gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import ColumnError, DataError, listing
from msmmiv.linalg import Array

__all__ = ["check_table", "numbers_of", "published_covariance"]


def numbers_of(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, Array]:
    """The named columns as finite floats."""
    out = {}
    for name in names:
        if name not in frame:
            raise ColumnError.not_found(name, "published estimate", [str(c) for c in frame])
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise ColumnError.not_numeric(name, "published estimate", "text", list(frame[name].astype(str)))
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

"""The site-by-treatment instruments a person would build by hand, for teaching, checking and export."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, MissingDataError, count, listing
from msmmiv.moments.labels import check_spelling, find_arms, natural_order, plain

__all__ = ["site_by_treatment"]


def site_by_treatment(frame: pd.DataFrame, design: Design) -> pd.DataFrame:
    """One column per site and non-control arm: 1 for people of that site in that arm, 0 for all others.

    K columns for two arms, up to K(A - 1) for A arms (a site contributes a column for each arm it has);
    for a continuous treatment K columns holding the dose. Estimation never builds this matrix; moments
    give the same numbers.

    Parameters
    ----------
    frame : pandas.DataFrame
        Needs the site and treatment columns of the design; rows must have both.
    design : Design

    Returns
    -------
    DataFrame
        Same index as ``frame``; columns named ``treatment[arm]:site[label]`` (``treatment:site[label]``
        for two arms or a dose).

    Raises
    ------
    ColumnError
        A column is absent.
    MissingDataError
        A row lacks its site or arm, or has an infinite one.
    TreatmentError
        The control arm is not known.

    Examples
    --------
    >>> import pandas as pd, msmmiv as mm
    >>> df = pd.DataFrame({"s": ["a", "a", "b", "b"], "t": [0, 1, 0, 1]})
    >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    >>> mm.site_by_treatment(df, d)
       t:s[a]  t:s[b]
    0       0       0
    1       1       0
    2       0       0
    3       0       1
    """
    _check(frame, design)
    sites = _labels(frame[design.site])
    check_spelling(sites, design.site, "site")
    site, dose = frame[design.site].map(plain), frame[design.treatment]
    name = design.treatment
    if design.treatment_kind == "continuous":
        return pd.DataFrame(
            {f"{name}:{design.site}[{s}]": dose.where(site == s, 0) for s in sites}, frame.index
        )
    found = _labels(dose)
    arms = [found[i] for i in find_arms(design, found)]
    arm = dose.map(plain)
    present = set(zip(site, arm, strict=True))
    out = {}
    for s in sites:
        for a in arms[1:]:
            if (s, a) in present:
                which = f"[{a}]" if len(arms) > 2 else ""
                member = (site == s) & (arm == a)
                out[f"{name}{which}:{design.site}[{s}]"] = member.to_numpy().astype(np.int64)
    return pd.DataFrame(out, index=frame.index)


def _check(frame: pd.DataFrame, design: Design) -> None:
    if frame.empty:
        raise DataError("The data has no rows.")
    for role, name in (("site", design.site), ("treatment", design.treatment)):
        if name not in frame:
            raise ColumnError.not_found(name, role, [str(c) for c in frame])
        absent = int(_missing(frame[name]).sum())
        if absent:
            raise MissingDataError(
                f"{count(absent, 'row has', 'rows have')} no {name!r} ({role}) or an infinite one; "
                "instruments need it in every row."
            )
    if design.treatment_kind == "continuous" and not pd.api.types.is_numeric_dtype(frame[design.treatment]):
        raise ColumnError.not_numeric(design.treatment, "continuous treatment", "text", [])
    if frame[design.treatment].nunique() < 2:
        only = listing(repr(plain(v)) for v in frame[design.treatment].unique())
        raise DataError(f"{design.treatment!r} has one value only: {only}.")


def _missing(column: pd.Series[Any]) -> pd.Series[bool]:
    """Null, NaN and infinity alike, as in moments."""
    values = column.astype(object)
    return values.isna() | values.map(lambda v: isinstance(v, float) and not np.isfinite(v)).astype(bool)


def _labels(column: pd.Series[Any]) -> list[Any]:
    labels = [plain(v) for v in pd.unique(column)]
    return [labels[i] for i in natural_order(labels)]

"""Strata of predicted compliance in the place of sites, cross-fitted so that nobody decides their own stratum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import (
    ColumnError,
    DataError,
    DesignError,
    TreatmentError,
    check_choice,
    listing,
    whole_number,
)
from msmmiv.linalg import Array, Codes
from msmmiv.moments.cells import Missing
from msmmiv.moments.strata import NAME, checked_columns, labelled
from msmmiv.moments.strata_build import (
    Level,
    Small,
    Strata,
    arm_codes,
    build_strata,
    complete_keys,
    place_codes,
)

__all__ = ["compliance_strata"]


def compliance_strata(  # noqa: PLR0913 - each is a decision the analyst has to report
    frame: pd.DataFrame,
    design: Design,
    *,
    covariates: str | Sequence[str],
    mediator: str | None = None,
    n_strata: int = 5,
    folds: int = 5,
    seed: int | None = None,
    within_sites: bool = True,
    min_per_arm: int = 2,
    small: Small = "drop",
    missing: Missing = "error",
) -> Strata:
    """Make strata of predicted compliance the sites: people whom the treatment should move equally far.

    Use it where compliance may be related to effects among the people of a site: inside such strata there
    is little compliance left to be related to anything. The assumption does not go away, it moves between strata
    (ix): the effects of the mediators must not be related to predicted compliance.

    Parameters
    ----------
    frame : pandas.DataFrame
    design : Design
        With two arms. For a trial without sites, ``site="stratum"``.
    covariates : str or sequence of str
        Numeric columns known before randomisation.
    mediator : str, optional
        The mediator whose response is predicted; needed where there are several.
    n_strata : int
        Quantile groups of the prediction; ties stay together.
    folds : int
        Nobody's own mediator has a part in their stratum: the regression is fitted without their fold, and they are
        ranked among all predictions of that regression. Clusters are never split over folds.
    seed : int, optional
        For dealing people out to folds, inside sites. It is kept in the result.
    within_sites : bool
        Cut at quantiles inside each site. Otherwise over all people, and sites stay as blocks.
    min_per_arm, small, missing
        As in `strata_as_sites`.

    Returns
    -------
    Strata
        ``table`` also has the mean prediction of each stratum.

    Raises
    ------
    DesignError
        As in `strata_as_sites`; a mediator that is not named or not in the design.
    TreatmentError
        Not exactly two arms.
    DataError
        Predictions that are the same for everybody, or fewer units than folds.

    Notes
    -----
    The prediction is that in the treatment arm minus that in the control arm, from least squares of the mediator
    with an intercept per site (block) and, for each arm, its own slope on every covariate. Standard
    errors are for given strata: with another seed some people change strata, so try several.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> from msmmiv.moments.compliance_strata import compliance_strata
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"t": rng.integers(0, 2, 900), "need": rng.normal(size=900)})
    >>> df["m"] = df.t * (1 + df.need) + rng.normal(size=900)
    >>> df["y"] = 0.5 * df.m + rng.normal(size=900)
    >>> one_trial = mm.Design(outcome="y", treatment="t", mediators="m", site="stratum")
    >>> strata = compliance_strata(df, one_trial, covariates="need", n_strata=3, seed=1)
    >>> strata.table[["stratum", "predicted"]].round(1).values.tolist()
    [['compliance 1 of 3', -0.2], ['compliance 2 of 3', 1.0], ['compliance 3 of 3', 2.2]]
    """
    check_choice(small, Small, "small")
    check_choice(missing, Missing, "missing")
    columns = checked_columns(frame, design, covariates, NAME)
    mediator = _checked_mediator(frame, design, columns, mediator)
    whole_number(n_strata, "n_strata", least=2)
    whole_number(folds, "folds", least=2)
    frame, lost = complete_keys(frame, design, columns, missing=missing)
    seed = int(np.random.default_rng().integers(2**32)) if seed is None else seed
    sites = design.site in frame
    site = labelled(frame[design.site]).codes if sites else np.zeros(len(frame), dtype=np.int64)
    fold = _folds(frame, design, site, folds, seed)
    predicted = _predictions(frame, design, mediator, columns, fold, folds)
    level = np.zeros(len(frame), dtype=np.int64)
    for f in range(folds):
        groups = pd.Series(predicted[f]).groupby(site if within_sites else np.zeros_like(site))
        rank, size = groups.rank().to_numpy(), groups.transform("size").to_numpy()
        place = np.ceil(rank * n_strata / size).astype(np.int64) - 1
        level[fold == f] = place[fold == f]
    if len(np.unique(level)) == 1:
        where = " inside sites" if within_sites else ""
        raise DataError(
            f"Predicted compliance does not differ between people{where}. Give other covariates"
            f"{', or within_sites=False' if within_sites and sites else ''}."
        )

    def text(first: int, last: int) -> str:
        low, high = (f"{k + 1:0{len(str(n_strata))}d}" for k in (first, last))  # sorts as text
        return f"compliance {low}{f' to {high}' if last > first else ''} of {n_strata}"

    levels = {design.site: labelled(frame[design.site])} if within_sites and sites else {}
    levels["predicted compliance"] = Level(level, text, ordered=True)
    return build_strata(
        frame, design, levels, name=NAME, min_per_arm=min_per_arm, small=small, missing=lost,
        score=predicted[fold, np.arange(len(frame))], seed=seed,
    )  # fmt: skip


def _checked_mediator(
    frame: pd.DataFrame, design: Design, covariates: Sequence[str], mediator: str | None
) -> str:
    """The mediator to predict, once it and the covariates can go into a regression."""
    if mediator is None and len(design.mediators) > 1:
        raise DesignError(
            f"Which response is predicted? Give mediator= one of {listing(design.mediators, quote=True)}."
        )
    chosen = mediator or design.mediators[0]
    if chosen not in design.mediators:
        raise DesignError(
            f"mediator={mediator!r} is not a mediator of the design ({listing(design.mediators, quote=True)})."
        )
    for column in (chosen, *covariates):
        role = "mediator" if column == chosen else "covariate"
        if not pd.api.types.is_numeric_dtype(frame[column].dtype):
            raise ColumnError.not_numeric(
                column, role, "labels", [str(v) for v in frame[column].dropna().unique()[:3]]
            )
        if column in (design.site, design.block):
            raise DesignError(f"{column!r} is a label, not a covariate. Its intercepts are always there.")
    arms = frame[design.treatment].dropna().nunique()
    if arms != 2:
        raise TreatmentError(
            f"{design.treatment!r} has {arms} arms, and a prediction of compliance needs two. Keep the rows of two "
            "arms first."
        )
    return chosen


def _folds(frame: pd.DataFrame, design: Design, site: Codes, folds: int, seed: int) -> Codes:
    """Deal people (or whole clusters, at their first site) out to folds, evenly inside sites."""
    unit = np.arange(len(frame))
    if design.cluster:
        codes, uniques = pd.factorize(frame[design.cluster])
        unit = np.where(codes < 0, len(uniques) + unit, codes)
    _, first, back = np.unique(unit, return_index=True, return_inverse=True)
    if len(first) < folds:
        units = "clusters" if design.cluster else "rows"
        raise DataError(f"folds={folds} needs at least as many {units}, and there are {len(first)}.")
    rng = np.random.default_rng(seed)
    home = site[first]
    order = np.lexsort((rng.random(len(first)), home))
    # Going on from site to site, instead of starting anew, also keeps the folds equal over many small sites.
    dealt = np.empty(len(first), dtype=np.int64)
    dealt[order] = np.arange(len(first)) % folds
    out: Codes = dealt[back.reshape(-1)]
    return out


def _predictions(
    frame: pd.DataFrame, design: Design, mediator: str, columns: Sequence[str], fold: Codes, folds: int
) -> Array:
    """(F, n) predicted effect of the treatment on everybody's mediator, from the regression without each fold."""
    m = frame[mediator].to_numpy(dtype=float, na_value=np.nan)
    w = frame[design.weights].to_numpy(dtype=float, na_value=np.nan) if design.weights else np.ones(len(m))
    x = frame[list(columns)].to_numpy(dtype=float)
    scale = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    arm, _ = arm_codes(frame, design)
    t = arm[:, None].astype(float)
    place = place_codes(frame, [design.site, design.block])
    known = np.isfinite(m) & np.isfinite(w)
    out = np.empty((folds, len(m)))
    for f in range(folds):
        use = known & (fold != f)
        table = np.column_stack([m, t, x, t * x])[use]
        total = np.bincount(place[use], w[use])
        for j in range(table.shape[1]):
            sums = np.bincount(place[use], w[use] * table[:, j])
            table[:, j] -= (sums / np.where(total > 0, total, 1.0))[place[use]]
        if np.square(table[:, 1]).sum() < 1e-9:
            raise DataError(
                f"Without one of the folds {design.treatment!r} does not vary inside any site. Use fewer folds."
            )
        root = np.sqrt(w[use])[:, None]
        b = np.linalg.lstsq(table[:, 1:] * root, table[:, 0] * root[:, 0], rcond=1e-10)[0]
        out[f] = b[0] + x @ b[1 + x.shape[1] :]
    size = max(float(np.std(m[known])), np.finfo(float).tiny)
    rounded: Array = np.round(out / size, 10) * size  # people with equal covariates are ties
    return rounded

"""The same regression as a linearmodels model, with the instruments written out.

For checking us, and for what needs every row: GMM, continuously updated GMM, kernel covariances. Slower and
larger by orders of magnitude.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import (
    CollinearCovariateWarning,
    ColumnError,
    DataError,
    DesignError,
    MomentsInsufficient,
    RankDeficientError,
    check_choice,
    listing,
)
from msmmiv.linalg import Array, dependent_columns
from msmmiv.moments.instruments import site_by_treatment
from msmmiv.moments.labels import label_columns
from msmmiv.moments.sums import Rows

__all__ = ["Intercepts", "LinearModel", "rows_to_linearmodels", "to_linearmodels"]

LinearModel: TypeAlias = Literal["2sls", "liml", "gmm", "cue"]
Intercepts: TypeAlias = Literal["dummies", "partialled"]


def to_linearmodels(
    frame: pd.DataFrame,
    design: Design,
    *,
    kind: LinearModel = "2sls",
    direct_effect: bool = False,
    intercepts: Intercepts = "dummies",
) -> Any:
    """Build an unfitted linearmodels model with one instrument per site and arm.

    Rows that lack a declared column, and sites in which the treatment does not vary, are left out; so are
    instruments and covariates that add nothing to the intercepts. Memory grows with rows times sites.

    Parameters
    ----------
    frame : pandas.DataFrame
    design : Design
        With a cluster, GMM weights its moments by the covariance of cluster sums, otherwise by a
        heteroskedasticity-robust one.
    kind : {"2sls", "liml", "gmm", "cue"}
        Two-stage least squares, limited-information maximum likelihood, two-step (or iterated) GMM, or
        continuously updated GMM.
    direct_effect : bool
        Put the treatment among the exogenous regressors.
    intercepts : {"dummies", "partialled"}
        One dummy per site (block), or means of the site (block) taken out of every column, weighted where there are
        weights. The slopes of 2SLS, LIML and two-step GMM are the same. What linearmodels divides by is not: its
        ``debiased=True`` counts the dummies it sees, so partialled standard errors are smaller by the square root of
        ``(n - k - B) / (n - k)`` for B intercepts; Basmann's and F statistics change alike, and R2 is that
        within sites. The slopes of continuously updated GMM differ slightly, since dummies then also enter
        the weights; partialled is also the quicker and the safer search there.

    Returns
    -------
    linearmodels.iv.IV2SLS, IVLIML, IVGMM or IVGMMCUE
        With the frame's index, if that is unique: ``frame.loc[model.dependent.pandas.index, "cluster"]`` are the
        clusters of the rows it uses.

    Raises
    ------
    ColumnError
        A column is absent, or holds text where numbers are needed.
    DataError
        Not a pandas frame, no complete row, or weights that linearmodels refuses.
    DesignError
        Frequency weights: repeat the rows instead. Clustered GMM weights with too few clusters.
    RankDeficientError
        Fewer independent instruments than mediators, or mediators that are not independent.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"s": np.repeat(range(5), 20), "t": np.tile([0, 1], 50)})
    >>> df["m"] = df.t * (1 + df.s) + rng.normal(size=100)
    >>> df["y"] = df.m + rng.normal(size=100)
    >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    >>> theirs = to_linearmodels(df, d).fit(cov_type="unadjusted", debiased=True)
    >>> ours = mm.Study(df, d).fit("2sls", cov_type="classical")
    >>> bool(abs(theirs.params["m"] - ours.params["m"]) < 1e-10)
    True
    >>> to_linearmodels(df, d, kind="gmm", intercepts="partialled").fit().j_stat.df
    4
    """
    check_choice(kind, LinearModel, "kind")
    check_choice(intercepts, Intercepts, "intercepts")
    if design.weight_kind == "frequency":
        raise DesignError("linearmodels has no frequency weights; repeat the rows and leave the weights out.")
    used, place = _used(frame, design)
    weights = used[design.weights].astype(float) if design.weights else None
    root = np.sqrt(weights.to_numpy()) if weights is not None else np.ones(len(used))
    instruments = site_by_treatment(used, design).astype(float)
    # The sum over sites of an arm's instruments is its main effect.
    direct = instruments.T.groupby(_arm(instruments, design.site), sort=False).sum().T
    direct = direct.add_prefix("direct_effect ") if direct_effect else direct.iloc[:, :0]
    covariates = used[list(design.covariates)].astype(float)
    covariates = covariates[_kept_covariates(covariates, place, root)]
    instruments = instruments.iloc[:, _independent(instruments, direct, used[design.site], place, root)]
    exogenous = pd.concat([direct, covariates], axis=1)
    outcome, mediators = used[design.outcome].astype(float), used[list(design.mediators)].astype(float)
    if intercepts == "dummies":
        exogenous = pd.concat([exogenous, pd.get_dummies(place, prefix="intercept", dtype=float)], axis=1)
    else:
        exogenous, mediators, instruments = (
            _centred(part, place, root) for part in (exogenous, mediators, instruments)
        )
        outcome = _centred(outcome.to_frame(), place, root).iloc[:, 0]
    model, options = _model(kind, used, design, moments=exogenous.shape[1] + instruments.shape[1])
    try:
        return model(
            outcome, exogenous if exogenous.shape[1] else None, mediators, instruments,
            weights=weights, **options,
        )  # fmt: skip
    except ValueError as error:
        if "rank" in str(error) or "number of instruments" in str(error):
            raise RankDeficientError(f"linearmodels refuses: {error}. See rank() for the reason.") from error
        raise DataError(f"linearmodels refuses: {error}.") from error


def rows_to_linearmodels(
    rows: Rows | None,
    *,
    kind: LinearModel = "2sls",
    direct_effect: bool = False,
    intercepts: Intercepts = "dummies",
) -> Any:
    """The model of `to_linearmodels` from rows that were opened before, whatever engine holds them.

    Use it where the data is a file or a frame already checked; the rows are brought into memory.

    Raises
    ------
    MomentsInsufficient
        Without rows: what linearmodels estimates is not a function of moments.

    Examples
    --------
    >>> rows_to_linearmodels(None, kind="gmm")
    Traceback (most recent call last):
    msmmiv.errors.MomentsInsufficient: linearmodels needs every row, and moments hold none. Make the study from ...
    """
    check_choice(kind, LinearModel, "kind")
    check_choice(intercepts, Intercepts, "intercepts")
    if rows is None:
        raise MomentsInsufficient(
            "linearmodels needs every row, and moments hold none. Make the study from the data: Study(data, design); "
            "fit() estimates 2SLS from moments."
        )
    return to_linearmodels(
        rows.collect(), rows.design, kind=kind, direct_effect=direct_effect, intercepts=intercepts
    )


def _used(frame: Any, design: Design) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Complete rows of sites in which the treatment varies, and the intercept each belongs to."""
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"linearmodels reads pandas frames, not {type(frame).__name__}. Convert with .to_pandas(), or make a Study."
        )
    complete = np.ones(len(frame), dtype=bool)
    labels = label_columns(design)
    for role, name in design.roles():
        if name not in frame:
            raise ColumnError.not_found(name, role, [str(c) for c in frame])
        column = frame[name]
        if name not in labels and not pd.api.types.is_numeric_dtype(column.dtype):
            raise ColumnError.not_numeric(name, role, "text", [str(v) for v in column.dropna().unique()[:3]])
        complete &= column.notna().to_numpy()
        if pd.api.types.is_float_dtype(column.dtype):  # infinities are missing, as in moments
            complete &= ~np.isinf(column.to_numpy(dtype=float, na_value=np.nan))
    used = frame[complete] if frame.index.is_unique else frame[complete].reset_index(drop=True)
    level = [design.site, design.block] if design.block else [design.site]
    place = used.groupby(level, observed=True).ngroup()
    varies = used.groupby(place)[design.treatment].transform("nunique") > 1
    keep = varies.groupby(used[design.site], observed=True).transform("any")
    if not keep.any():
        raise DataError(f"{design.treatment!r} does not vary inside any site: nothing identifies its effect.")
    return used[keep], place[keep]


def _centred(table: pd.DataFrame, place: pd.Series[Any], root: Array) -> pd.DataFrame:
    """Weighted means of each intercept's rows taken out."""
    weight = root**2
    total = pd.Series(weight, table.index).groupby(place).transform("sum")
    sums = table.mul(weight, axis=0).groupby(place).transform("sum")
    return table - sums.div(total, axis=0)


def _gram(table: pd.DataFrame, place: pd.Series[Any], root: Array) -> tuple[Array, Array]:
    """Cross-products of centred columns, and the plain sums of squares they are measured against."""
    inside = _centred(table, place, root).to_numpy() * root[:, None]
    size: Array = np.square(table.to_numpy() * root[:, None]).sum(axis=0)
    return inside.T @ inside, size


def _kept_covariates(covariates: pd.DataFrame, place: pd.Series[Any], root: Array) -> list[str]:
    lost = dependent_columns(*_gram(covariates, place, root))
    names = [str(c) for c in covariates]
    if lost:
        warnings.warn(
            f"Left out {listing([names[j] for j in lost], quote=True)}: nothing beyond the intercepts and the other "
            "covariates.",
            CollinearCovariateWarning,
            stacklevel=4,
        )
    return [c for j, c in enumerate(names) if j not in lost]


def _independent(
    instruments: pd.DataFrame, direct: pd.DataFrame, site: pd.Series[Any], place: pd.Series[Any], root: Array
) -> list[int]:
    """Positions of instruments that add something to the intercepts, the direct effects and one another.

    They are zero outside their site, so that dependence (arms that never meet inside a block) is looked for
    site by site.
    """
    gram, size = _gram(instruments, place, root)
    owner = site.to_numpy()[(instruments != 0).to_numpy().argmax(axis=0)]
    keep: list[int] = []
    for label in pd.unique(owner):
        here = np.flatnonzero(owner == label)
        lost = dependent_columns(gram[np.ix_(here, here)], size[here])
        keep += [int(j) for i, j in enumerate(here) if i not in lost]
    keep.sort()
    d = direct.shape[1]
    if not d:
        return keep
    if len(keep) == len(size):  # an arm's instruments add up to its main effect: one of them goes
        arm = _arm(instruments, str(site.name))
        return [j for j in keep if arm[j] in arm[:j]]
    lost = dependent_columns(*_gram(pd.concat([direct, instruments.iloc[:, keep]], axis=1), place, root))
    return [j for i, j in enumerate(keep) if d + i not in lost]


def _arm(instruments: pd.DataFrame, site: str) -> list[str]:
    """What stands before the site in the names of the instruments: the arm, or the dose."""
    return [str(c).split(f":{site}[")[0] for c in instruments]


def _model(
    kind: LinearModel, used: pd.DataFrame, design: Design, *, moments: int
) -> tuple[Any, dict[str, Any]]:
    """The class, and how GMM weights its moments."""
    from linearmodels import iv

    if kind in ("2sls", "liml"):
        return {"2sls": iv.IV2SLS, "liml": iv.IVLIML}[kind], {}
    model = {"gmm": iv.IVGMM, "cue": iv.IVGMMCUE}[kind]
    if design.cluster is None:
        return model, {"weight_type": "robust"}
    codes = pd.factorize(used[design.cluster])[0]
    clusters = int(codes.max()) + 1
    if clusters <= moments:
        raise DesignError(
            f"The covariance of {moments} moments cannot be estimated from {clusters} clusters ({design.cluster!r}). "
            "Use intercepts='partialled' (fewer moments), kind='liml', or a design without cluster= if people "
            "are independent."
        )
    return model, {"weight_type": "clustered", "clusters": codes}

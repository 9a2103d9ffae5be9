"""The same two-stage least squares as a linearmodels model, with every dummy written out.

For checking us, and for what needs rows (kernel covariances, GMM): slower and larger by orders of magnitude.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DesignError
from msmmiv.moments.instruments import site_by_treatment

__all__ = ["to_linearmodels"]


def to_linearmodels(frame: pd.DataFrame, design: Design, *, direct_effect: bool = False) -> Any:
    """Build an unfitted ``linearmodels.iv.IV2SLS`` with intercept dummies and explicit instruments.

    Rows that lack a declared column are left out. Memory grows with rows times sites.

    Parameters
    ----------
    frame : pandas.DataFrame
    design : Design
    direct_effect : bool
        Put the treatment among the exogenous regressors.

    Returns
    -------
    linearmodels.iv.IV2SLS

    Raises
    ------
    ColumnError
        A column is absent.
    DesignError
        Frequency weights: repeat the rows instead.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"s": np.repeat(range(5), 20), "t": np.tile([0, 1], 50)})
    >>> df["m"] = df.t * (1 + df.s) + rng.normal(size=100)
    >>> df["y"] = df.m + rng.normal(size=100)
    >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    >>> theirs = to_linearmodels(df, d).fit(cov_type="unadjusted", debiased=True)
    >>> ours = mm.Study(df, d).fit(cov_type="classical")
    >>> bool(abs(theirs.params["m"] - ours.params["m"]) < 1e-10)
    True
    """
    from linearmodels.iv import IV2SLS

    if design.weight_kind == "frequency":
        raise DesignError("linearmodels has no frequency weights; repeat the rows and leave the weights out.")
    for role, name in design.roles():
        if name not in frame:
            raise ColumnError.not_found(name, role, [str(c) for c in frame])
    used = frame.dropna(subset=[name for _, name in design.roles()])
    varies = used.groupby(design.site)[design.treatment].transform("nunique") > 1
    used = used[varies].reset_index(drop=True)
    level = [design.site, design.block] if design.block else [design.site]
    intercepts = pd.get_dummies(used.groupby(level).ngroup(), prefix="intercept", dtype=float)
    instruments = site_by_treatment(used, design).astype(float)
    covariates = used[list(design.covariates)].astype(float)
    exogenous = pd.concat([covariates, intercepts], axis=1)
    if direct_effect:
        arms = instruments.T.groupby(instruments.columns.str.split(":").str[0]).sum().T
        # The sum over sites of an arm's instruments is its main effect; drop one site's column per arm.
        first = ~instruments.columns.str.split(":").str[0].duplicated()
        exogenous = pd.concat([arms.add_prefix("direct_effect "), exogenous], axis=1)
        instruments = instruments.loc[:, ~first]
    weights = used[design.weights].astype(float) if design.weights else None
    mediators = used[list(design.mediators)].astype(float)
    return IV2SLS(used[design.outcome].astype(float), exogenous, mediators, instruments, weights=weights)

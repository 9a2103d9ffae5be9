"""Products of residuals and regressors that are linear in the within-intercept variables.

Regressors z_i = loading_s' u_i and residuals e_i = residual_s' u_i, with u = (v, d) as in `Within`: the part
that multiplies the variables v is the same in all sites, the part that multiplies the treatment contrasts d
may differ between sites.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmmiv.linalg import Array
from msmmiv.moments.labels import plain
from msmmiv.moments.sums import Rows
from msmmiv.moments.within import Within

__all__ = ["cell_scores", "row_products"]


def cell_scores(within: Within, loading: Array, residual: Array) -> Array:
    """(C, k, E) sums of z_i e_i in each cell, exact from means and scatters.

    Parameters
    ----------
    within : Within
    loading : (K, m, k) array
    residual : (K, m, E) array
    """
    site = within.moments.site
    z = np.einsum("cmk,cm->ck", loading[site], within.deviation)
    e = np.einsum("cme,cm->ce", residual[site], within.deviation)
    inside = np.einsum("cmk,cmn,cne->cke", loading[site], within.scatter, residual[site], optimize=True)
    out: Array = within.moments.first.weight[:, None, None] * z[:, :, None] * e[:, None, :] + inside
    return out


def row_products(
    within: Within,
    loading: Array,
    residual: Array,
    *,
    bread: Array,
    power: int,
    rows: Rows,
    by_site: bool = False,
) -> Array:
    """Second pass over the rows: sums of w^2 e^2 z z' / (1 - h)^power.

    Parameters
    ----------
    within : Within
    loading : (K, m, k) array
    residual : (K, m, E) array
    bread : (k, k) array
        Inverse of the cross-products of z; leverage is w (1 / W + z' bread z), W the block's weight.
    power : {0, 1, 2}
    rows : Rows
    by_site : bool
        One array per site, in the order of the sites, instead of the total.

    Returns
    -------
    (G, E, k, k) array
        G is K or 1.
    """
    m, p = within.moments, within.n_variables
    dose = not m.arms
    # Regressors with unit cross-products: leverage is then a sum of squares, k terms instead of k^2.
    root = np.linalg.cholesky(bread)
    loading = loading @ root
    back = np.linalg.inv(root)
    keys = {"site": [m.sites[c] for c in m.site]}
    if m.blocks:
        keys["block"] = [m.blocks[c][1] for c in m.block]
    if not dose:
        keys["arm"] = [m.arms[c] for c in m.arm]
    table = pd.DataFrame(keys)
    cells = np.flatnonzero(~table.duplicated())
    table = table.iloc[cells].reset_index(drop=True)
    # u_i = (v_i - origin, d_i): for arms d is a constant of the cell, for a dose it is one more row column.
    shift = -within.origin[m.intercept[cells]]
    if not dose:
        shift[:, p:] = within.deviation[cells, p:]
    constants: dict[str, Array] = {}
    constants["share"] = 1.0 / within.weight[m.intercept[cells]]
    forms: dict[str, list[dict[str, float | str]]] = {}
    for kind, array in (("e", residual), ("z", loading)):
        load = array[m.site[cells]]
        forms[kind] = []
        for j in range(load.shape[2]):
            constants[f"{kind}_k{j}"] = np.einsum("cm,cm->c", shift, load[:, :, j])
            form: dict[str, float | str] = {f"{kind}_k{j}": 1.0}
            form |= {f"v{i}": float(load[0, i, j]) for i in range(p) if load[0, i, j]}
            if dose:
                constants[f"{kind}_d{j}"] = load[:, p, j]
                form[f"v{p}"] = f"{kind}_d{j}"
            forms[kind].append(form)
    table = pd.concat([table, pd.DataFrame(constants)], axis=1)
    sites, meat = rows.squared_residual_products(
        table, list(keys), forms["e"], forms["z"], share="share", power=power, by_site=by_site
    )
    meat = back.T @ meat @ back
    if not by_site:
        return meat
    where = {s: i for i, s in enumerate(m.sites)}
    out = np.zeros((m.n_sites, *meat.shape[1:]))
    out[[where[plain(s)] for s in sites["site"]]] = meat
    return out

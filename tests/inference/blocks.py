"""Random estimating equations, and two-stage least squares with its linear forms, for the tests of inference."""

from __future__ import annotations

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.inference.covariance import Scores
from msmmiv.inference.equations import SiteEquations
from msmmiv.inference.site_equations import site_equations
from msmmiv.moments.within import Within, within_sites


def random_equations(seed: int, groups: int, k: int, *, effect: float = 0.5) -> SiteEquations:
    """Blocks w g (b, g') of k mediators with weights w, compliances g and itt b."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.5, 3.0, groups)
    g = rng.normal(0.6, 0.5, (groups, k))
    b = g.sum(axis=1) * effect + rng.normal(size=groups) * np.exp(rng.normal(0, 0.4, groups)) / np.sqrt(w)
    z = w[:, None] * g
    blocks = np.concatenate([(z * b[:, None])[:, :, None], z[:, :, None] * g[:, None, :]], axis=2)
    return SiteEquations(blocks, tuple("abcdef"[:k]))


def two_stage(within: Within, *, direct: bool = False) -> tuple[Scores, list[int], tuple[str, ...]]:
    """Linear forms of 2SLS, built from the Gram matrices alone."""
    design, p = within.moments.design, within.n_variables
    m = len(design.mediators)
    x = list(range(1 + m, p))
    d = within.n_contrasts if direct else 0
    inside = (within.total - within.between).sum(axis=0)
    beta = np.linalg.solve(inside[np.ix_(x, x)], inside[x])
    slopes = within.slopes - within.slopes[:, :, x] @ beta
    k = m + d + len(x)
    z = np.zeros((len(within.gram), p + within.n_contrasts, k))
    z[:, p:, :m] = slopes[:, :, 1 : 1 + m]
    z[:, x, :m] = beta[:, 1 : 1 + m]
    z[:, p + np.arange(d), m + np.arange(d)] = 1.0
    z[:, x, m + d + np.arange(len(x))] = 1.0
    positions = [0, *range(1, 1 + m), *range(p, p + d), *x]
    terms = (*design.mediators, *(f"direct{j}" for j in range(d)), *(design.variables[j] for j in x))
    blocks = np.einsum("smk,smn->skn", z, within.gram[:, :, positions])
    total = blocks.sum(axis=0)
    b = np.linalg.solve(total[:, 1:], total[:, 0])
    e = np.zeros(z.shape[:2])
    e[:, 0] = 1.0
    e[:, positions[1:]] -= b
    return Scores(z, e, np.linalg.inv(total[:, 1:])), positions, terms


def equations_of(moments: mm.Moments, *, direct: bool = False) -> SiteEquations:
    within = within_sites(moments)
    scores, positions, terms = two_stage(within, direct=direct)
    return site_equations(within, scores, positions, terms=terms)


def moments_of(df: pd.DataFrame, mediators: list[str], **roles: object) -> mm.Moments:
    if "weights" in roles:
        roles.setdefault("weight_kind", "analytic")
    design = mm.Design(outcome="y", treatment="t", mediators=mediators, site="site", **roles)
    return mm.Moments.from_data(df, design)

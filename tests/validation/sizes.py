"""Size of every test at 5% where all sites share one effect: docs/validation/tests.csv."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.special import stdtr

import msmmiv as mm
from msmmiv.estimate import ESTIMATORS, system_of
from msmmiv.estimate.covariances import covariance
from msmmiv.estimate.system import System
from msmmiv.inference.covariance import CovType
from tests.validation.design import Cell, draw, moments
from tests.validation.study import BATCH, Row

#: Draws inside each wild bootstrap with more than 12 sites; with fewer all signs are enumerated.
WILD = 399
#: Trials in which Q is computed: its minimum over directions takes longer than all the other tests.
Q_TRIALS = 300


def grid() -> list[Cell]:
    """Every cell of the table."""
    every = itertools.product((5, 12, 50), (2.0, 10.0, 50.0), (0.0,), (1, 2), ("gaussian", "skewed"), (6, 20))
    return [Cell(*values) for values in every]


def sizes(cell: Cell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """One row per test: how often it rejects the truth, and how often it had no result (not a rejection)."""
    truth, rng = cell.truth, np.random.default_rng(seed)
    pvalues: dict[str, list[float]] = {}
    for start in range(0, trials, BATCH):
        means, scatters = draw(cell, rng, min(BATCH, trials - start))
        for r, sums in enumerate(zip(means, scatters, strict=True), start=start):
            for name, value in _pvalues(moments(cell, *sums), truth, r).items():
                pvalues.setdefault(name, []).append(value)
    rows = []
    for name, got in pvalues.items():
        p = np.array(got)
        rows.append(
            {**vars(cell), "test": name, "replications": len(p)}
            | {"size": float((p < 0.05).mean()), "no_result": float(np.isnan(p).mean())}
        )
    return rows


def _pvalues(trial: mm.Moments, truth: dict[str, float], r: int) -> dict[str, float]:
    system = system_of(trial)
    effects = mm.SiteEffects.from_moments(trial, cov_type="unbiased")
    form, beta = system.reduced_form, list(truth.values())
    tests: dict[str, Callable[[], mm.TestStatistic | mm.NotApplicable | mm.WildTest]] = {
        "Anderson-Rubin, robust": lambda: mm.anderson_rubin_test(effects, beta),
        "Anderson-Rubin, homoskedastic": lambda: mm.anderson_rubin_test(form, beta),
        "Anderson-Rubin, many instruments": lambda: mm.many_instrument_ar_test(effects, beta),
        "Kleibergen K, robust": lambda: mm.kleibergen_test(effects, beta),
        "Kleibergen K, homoskedastic": lambda: mm.kleibergen_test(form, beta),
    }
    if len(truth) == 1:
        tests["conditional LR, robust"] = lambda: mm.conditional_lr_test(effects, beta)
        tests["conditional LR, homoskedastic"] = lambda: mm.conditional_lr_test(form, beta)
    if r < Q_TRIALS:
        known = replace(effects, df=np.full(len(effects.sites), np.inf))
        tests["Cochran Q (equal effects)"] = lambda: mm.heterogeneity(effects).q
        tests["Cochran Q, variances taken as known"] = lambda: mm.heterogeneity(known).q
    equations = ESTIMATORS["ujive"].solve(system).between
    first = {"m1": truth["m1"]}
    # CR0, as in the interval of `fit`.
    tests["UJIVE site scores"] = lambda: equations.score_test(first, small_sample="CR0")
    tests["UJIVE wild bootstrap of site scores"] = lambda: mm.wild_test(equations, first, draws=WILD, seed=r)
    out = {name: float(test().pvalue) for name, test in tests.items()}
    out["LIML, Wald, bekker"] = _wald(system, "liml", "bekker", truth["m1"])
    out["MBTSLS, Wald, bekker"] = _wald(system, "mbtsls", "bekker", truth["m1"])
    out["UJIVE, Wald, HTE"] = _wald(system, "ujive", "HTE", truth["m1"])
    return out


def _wald(system: System, name: str, kind: CovType, value: float) -> float:
    """Wald test of the first coefficient; NaN where there is no estimate or no standard error."""
    solution = ESTIMATORS[name].solve(system)
    if solution.status is not None:
        return float("nan")
    spread = covariance(system, solution, kind, None, name=name, rows=None)
    t = (solution.coefficients[0] - value) / np.sqrt(spread.cov[0, 0])
    return 2.0 * float(stdtr(spread.df[0], -abs(t)))

"""What docstrings and docs say of single procedures: docs/validation/claims.csv.

Kinds of cells: the share of the classical variance in the score; pairs percentile-t of BCES; the REML bootstrap; the
wild score with very unequal errors; tests of a constant effect; and the jackknife of quadratic SIMEX.
"""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np

import msmmiv as mm
from msmmiv.estimate.between import eb_score
from msmmiv.estimate.between.pairs import pairs_percentile_t
from msmmiv.estimate.between.polynomial import polynomial
from msmmiv.estimate.between.reml_bootstrap import reml_bootstrap
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.linalg import frozen
from tests.validation.between_tests import SIZE, calibrated
from tests.validation.between_trials import DELTA, GAMMA, Population, Trials
from tests.validation.decompose import DecomposeCell
from tests.validation.study import Row
from tests.validation.table1 import DEFAULT, wild

TRIALS = 1000
#: Designs in which single rows carry the slope, with errors of .4 that are correlated .5.
OUTLIER, SKEWED = (
    "one outlying compliance, its direct effect unlike",
    "log-normal compliance, direct effects spread with it",
)
DESIGNS = ("Fu", "direct effects vary with |gamma - 2|", OUTLIER, SKEWED)


def grid() -> list[DecomposeCell]:
    """Every cell."""
    variance = itertools.product(["variance"], DESIGNS, (5, 10, 20), (0.0, 2.0))
    pairs = itertools.product(["pairs"], ["Fu"], (5, 10, 30, 100), (0.0,))
    reml = itertools.product(["REML bootstrap"], ["Fu"], (5, 10, 30), (0.0,))
    signs = itertools.product(["wild"], ["log-normal standard errors"], (10, 30, 100), (0.0, 2.0))
    curved = itertools.product(
        ["polynomial"], ["errors .3 of compliance", "errors as compliance"], (30, 100), (1.0, 2.0)
    )
    simex = itertools.product(["SIMEX jackknife"], ["reliability 2/3"], (300,), (1.0,))
    return [DecomposeCell(*c) for c in itertools.chain(variance, pairs, reml, signs, curved, simex)]


def simulate(cell: DecomposeCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Rows of one cell; ``beta`` is the degree where the kind is "polynomial"."""
    rng = np.random.default_rng(seed)
    work = {
        "variance": variance, "pairs": pairs, "REML bootstrap": reml, "wild": signs, "polynomial": curved,
        "SIMEX jackknife": jackknife,
    }  # fmt: skip
    return [vars(cell) | row for row in work[cell.kind](cell, rng, trials)]


def population(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> Population:
    """Sites of a design."""
    shape = (trials, cell.sites)
    if cell.design not in (OUTLIER, SKEWED):
        return Population.draw(rng, shape, cell.design)
    away, eps = rng.standard_normal((2, *shape))
    if cell.design == OUTLIER:
        gamma, eps = GAMMA + 0.3 * away, 0.5 * eps
        gamma[:, 0] += 4.0
        eps[:, 0] *= 6.0
    else:
        gamma = np.exp(1.2 * away)
        eps = gamma * eps
    size = np.full(shape, 0.4)
    return Population(gamma, np.zeros(shape), DELTA + eps, size, size, 0.5)


def rate(method: str, flags: np.ndarray, name: str = "rejects_true") -> Row:
    """A share with its simulation error."""
    share = float(np.mean(flags))
    error = float(np.sqrt(share * (1.0 - share) / len(flags)))
    return {"method": method, "quantity": name, "value": share, "value_se": error, "replications": len(flags)}


def variance(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """The default beside HC3 alone: rejections of the truth, and of zero where the truth is two."""
    drawn = population(cell, rng, trials * (4 if cell.sites == 5 else 2)).trials(rng, cell.beta)
    out = []
    for name, classical in ((DEFAULT, eb_score._CLASSICAL), ("EB score, simulated, HC3 alone", 0.0)):
        with mock.patch.object(eb_score, "_CLASSICAL", classical):
            out.append(rate(name, calibrated(drawn, cell.beta) <= SIZE))
            if cell.beta:
                out.append(rate(name, calibrated(drawn, 0.0) <= SIZE, "rejects_zero"))
    return out


def rows_of(drawn: Trials, trials: int) -> list[BetweenRows]:
    return [drawn.rows(r) for r in range(trials)]


def pairs(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """Percentile-t of BCES; a sample without an estimate does not reject."""
    drawn = population(cell, rng, trials).trials(rng, cell.beta)
    flags, none = np.zeros(trials, dtype=bool), np.zeros(trials, dtype=bool)
    for r, rows in enumerate(rows_of(drawn, trials)):
        found = pairs_percentile_t(rows, mm.BCES(), draws=199, seed=r)
        none[r] = found.status is not None
        flags[r] = not none[r] and not found.interval[0, 0] <= cell.beta <= found.interval[0, 1]
    return [
        rate("pairs percentile-t", flags),
        rate("pairs percentile-t, samples with an estimate", flags[~none]),
    ]


def reml(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """`reml_bootstrap` with 99 draws."""
    trials = max(trials * 2 // 5, 2)
    drawn = population(cell, rng, trials).trials(rng, cell.beta)
    p = [
        reml_bootstrap(rows, beta0=cell.beta, draws=99, seed=r).pvalue
        for r, rows in enumerate(rows_of(drawn, trials))
    ]
    return [rate("REML bootstrap", np.array(p) <= SIZE)]


def signs(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """`wild_score` at the truth."""
    trials = max(trials // 2, 2)
    return [rate("wild score", wild(population(cell, rng, trials).trials(rng, cell.beta), cell.beta))]


def curved(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """Tests of a constant effect that is one: the score test, Wald's, and least squares on powers."""
    from scipy.special import fdtrc

    trials, k, degree = max(trials * 3 // 5, 2), cell.sites, int(cell.beta)
    ratio = 0.3 if cell.design.startswith("errors .3") else 1.0
    score, wald, naive, none = (np.zeros(trials, dtype=bool) for _ in range(4))
    for r in range(trials):
        g = 1.0 + rng.standard_normal(k)
        b, a = ratio**2 * rng.uniform(0.5, 1.5, (2, k))
        u, e = rng.standard_normal((2, k))
        x = g + np.sqrt(a) * u
        y = 0.3 + g + 0.3 * rng.standard_normal(k) + np.sqrt(b) * (0.5 * u + np.sqrt(0.75) * e)
        cov = np.empty((k, 2, 2))
        cov[:, 0, 0], cov[:, 1, 1], cov[:, 0, 1], cov[:, 1, 0] = (
            b,
            a,
            0.5 * np.sqrt(a * b),
            0.5 * np.sqrt(a * b),
        )
        rows = BetweenRows(
            tuple(range(k)), ("m",), "y", ("direct_effect",), frozen(y), frozen(x[:, None]), np.ones((k, 1)),
            frozen(cov), None, frozen(np.zeros((2, 2))), np.arange(k), False,
        )  # fmt: skip
        found = polynomial(rows, degree=degree)  # type: ignore[arg-type]
        score[r], none[r] = found.constancy.pvalue <= SIZE, found.status is not None
        if not none[r]:
            at = slice(1, degree + 1)
            t = (
                found.coefficients[at]
                @ np.linalg.solve(found.covariance[at, at], found.coefficients[at])
                / degree
            )
            wald[r] = fdtrc(degree, found.df, t) <= SIZE
        design = np.vander(x, degree + 2, increasing=True)
        naive[r] = _added(design, y, degree) <= SIZE
    return [
        rate("score test", score), rate("Wald test", wald[~none]) if (~none).any() else rate("Wald test", wald),
        rate("least squares on powers", naive), rate("polynomial", none, "no_estimate"),
    ]  # fmt: skip


def _added(design: np.ndarray, y: np.ndarray, more: int) -> float:
    """p of the last columns of a least-squares regression."""
    from scipy.special import fdtrc

    def rss(columns: np.ndarray) -> float:
        return float(((y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]) ** 2).sum())

    df = len(y) - design.shape[1]
    full = rss(design)
    return float(fdtrc(more, df, (rss(design[:, :-more]) - full) / more / (full / df)))


def jackknife(cell: DecomposeCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """Mean jackknife variance of quadratic SIMEX over the variance of its slopes."""
    trials, k = max(trials // 2, 3), cell.sites
    slope, square = np.empty(trials), np.empty(trials)
    for r in range(trials):
        g, u, v = rng.standard_normal((3, 1, k))
        none = np.zeros((1, k))
        seeds = np.zeros(1, dtype=np.int64)
        drawn = Trials(g + np.sqrt(0.5) * u, cell.beta * g + v, none + 0.5, none + 0.01, none, g, g, seeds)
        fit = mm.SIMEX(extrapolant="quadratic", B=200).solve(drawn.rows(0), seed=r)
        slope[r], square[r] = fit.coefficients[0], fit.covariance[0, 0]
    ratio = float(square.mean() / slope.var(ddof=1))
    return [{
        "method": "SIMEX, quadratic", "quantity": "mean variance / variance", "value": ratio,
        "value_se": ratio * float(np.sqrt(2.0 / (trials - 1))), "replications": trials,
    }]  # fmt: skip

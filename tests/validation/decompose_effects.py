"""More of docs/validation/decompose.csv: effects that follow from a slope, two mediators, shared controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msmmiv.estimate.between.calibration import SharedRows
from msmmiv.estimate.between.eb_many import Blocks
from msmmiv.estimate.between.effects import intercept_set, profile
from msmmiv.estimate.between.rows import BetweenRows, between_rows
from msmmiv.estimate.between.slope_test import SHARED_DRAWS, SlopeTest
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.linalg import frozen
from msmmiv.moments.effects import SiteEffects
from tests.validation.between_tests import DRAWS, SIZE, calibrated
from tests.validation.between_trials import DELTA, GAMMA, Population, Trials
from tests.validation.study import Row
from tests.validation.table1 import DEFAULT, rates

#: Designs with several arms in a site, and the number of their rows.
SEVERAL, ALIKE, ONE = (
    "30 sites x 3 arms",
    "30 sites x 3 arms, direct effects alike in a site",
    "1 site x 20 arms",
)
ARMS = ((SEVERAL, 90), (ALIKE, 90), (ONE, 20))
#: Standard deviation of the error that controls give to all arms of a site.
CONTROLS = 0.7


def effects(rng: np.random.Generator, sites: int, beta: float, trials: int) -> list[Row]:
    """Indirect and direct effects and the share of the sites at hand, the intercept, and one site's indirect effect."""
    drawn = Population.draw(rng, (trials, sites)).trials(rng, beta)
    weights = np.stack([np.full(sites, 1.0 / sites), np.eye(sites)[0]])
    held: dict[str, list[tuple[bool, bool, float]]] = {}
    for r in range(trials):
        test = SlopeTest(drawn.rows(r), "m", "bootstrap", DRAWS, int(drawn.seeds[r]))
        found = test.confidence_set()
        part = profile(test, found, weights)
        gamma, tau = drawn.gamma[r], drawn.tau[r]
        indirect = beta * gamma.mean()
        sets: dict[str, tuple[ConfidenceSet, float]] = {
            "effect": (found, beta),
            "indirect effect": (part.indirect(), indirect),
            "direct effect": (part.direct(), tau.mean() - indirect),
            "share mediated": (part.share(), indirect / tau.mean()),
            "intercept": (intercept_set(test, found, 0), DELTA),
            "indirect effect of a site": (part.indirect(1), beta * gamma[0]),
        }
        for name, (one, truth) in sets.items():
            length = one.hull[1] - one.hull[0] if one.intervals else 0.0
            held.setdefault(name, []).append((0.0 in one, truth in one, length))
    rows = []
    for name, every in held.items():
        zero, truth, length = np.array(every, dtype=float).T
        bounded = length[np.isfinite(length)]
        rows.append(
            {"method": DEFAULT, "quantity": name, **rates(zero == 0, truth == 0)}
            | {"unbounded": float(1.0 - np.isfinite(length).mean())}
            | {"median_length": float(np.median(bounded)) if bounded.size else float("nan")}
        )
    return rows


def two_mediators(rng: np.random.Generator, sites: int, trials: int) -> list[Row]:
    """Effects 2 and 0; compliances and errors have correlation .3, standard errors are half of a Gamma(1, 1).

    Of the first mediator power and coverage, of the second size and coverage.
    """
    corr = 0.3 + 0.7 * np.eye(3)
    root, both = np.linalg.cholesky(corr), np.linalg.cholesky(corr[1:, 1:])
    rejected = np.empty((trials, 3), dtype=bool)
    for r in range(trials):
        gamma = GAMMA + rng.standard_normal((sites, 2)) @ both.T
        tau = DELTA + 2.0 * gamma[:, 0] + rng.standard_normal(sites)
        se = 0.5 * rng.gamma(1.0, 1.0, (sites, 3))
        values = np.column_stack([tau, gamma]) + se * (rng.standard_normal((sites, 3)) @ root.T)
        rows = _rows(values, se[:, :, None] * corr * se[:, None, :])
        one, two = (SlopeTest.of(rows, name, draws=DRAWS, seed=r) for name in rows.mediators)
        rejected[r] = [one.test(v).pvalue <= SIZE for v in (0.0, 2.0)] + [two.test(0.0).pvalue <= SIZE]
    return [
        {"method": "EB score, t", "quantity": "effect of m1", **rates(rejected[:, 0], rejected[:, 1])},
        {"method": "EB score, t", "quantity": "effect of m2, zero", **rates(rejected[:, 2], rejected[:, 2])},
    ]


def _rows(values: np.ndarray, cov: np.ndarray) -> BetweenRows:
    """Independent rows with two mediators."""
    k, size = values.shape
    return BetweenRows(
        labels=tuple(range(k)),
        mediators=tuple(f"m{j}" for j in range(1, size)),
        outcome="y",
        exogenous=("direct_effect",),
        y=frozen(values[:, 0]),
        x=frozen(values[:, 1:]),
        z=frozen(np.ones((k, 1))),
        cov=frozen(cov),
        cross=None,
        common=frozen(np.zeros((size, size))),
        site=np.arange(k),
        zero_covariance_assumed=False,
    )


def shared_controls(rng: np.random.Generator, design: str, beta: float, trials: int) -> list[Row]:
    """What `SlopeTest.of` does with arms that share controls, and what ignoring them does."""
    if design == ONE:
        return _one_site(rng, beta, trials)
    names = (DEFAULT, "EB score, t", "EB score, t, controls taken as separate")
    out: dict[str, list[list[bool]]] = {name: [] for name in names}
    for r in range(trials):
        rows = between_rows(_several(rng, beta, alike=design == ALIKE))
        apart = replace(rows, cross=None, site=np.arange(rows.n_rows))
        t, separate = SlopeTest(rows, "m", "t"), SlopeTest(apart, "m", "t")
        p = [calibrated_one(rows, value, seed=r) for value in (0.0, beta)]
        if r < 2:
            whole = SlopeTest.of(rows, "m", draws=SHARED_DRAWS, seed=r)
            assert whole.reference == "bootstrap"
            assert abs(whole.test(0.0).pvalue - p[0]) < 1e-9
        found = p, *([test.test(v).pvalue for v in (0.0, beta)] for test in (t, separate))
        for name, each in zip(names, found, strict=True):
            out[name].append([value <= SIZE for value in each])
    return [
        {"method": name, "quantity": "effect", **rates(*np.array(every).T)} for name, every in out.items()
    ]


def calibrated_one(rows: BetweenRows, value: float, *, seed: int) -> float:
    """p-value of `SlopeTest` for rows that share controls: its `calibrate`, at the tested value alone."""
    shared = SharedRows(Blocks(rows))
    fit = shared.path(np.array([value]))
    normal = np.random.default_rng(seed).standard_normal((4, SHARED_DRAWS, rows.n_rows))
    v, u = shared.errors(normal[:2])
    compliance = rows.z @ fit.compliance_mean[0] + np.sqrt(fit.compliance_variance[0]) * normal[2]
    direct = rows.z @ fit.intercepts[0] + np.sqrt(fit.direct_variance[0]) * normal[3]
    sizes = np.abs(shared.statistic(direct + value * compliance + v, compliance + u, value))
    larger = int((sizes >= abs(float(fit.statistic[0])) * (1.0 - 1e-12)).sum())
    return (1.0 + larger) / (1.0 + SHARED_DRAWS)


def _several(rng: np.random.Generator, beta: float, *, alike: bool) -> SiteEffects:
    """30 sites with 3 arms; half of the variance of compliance (``alike``: of direct effects) is between sites."""
    s, d = 30, 3
    half = np.sqrt(0.5)
    gamma = GAMMA + half * (rng.standard_normal((s, 1)) + rng.standard_normal((s, d)))
    eps = (
        half * (rng.standard_normal((s, 1)) + rng.standard_normal((s, d)))
        if alike
        else rng.standard_normal((s, d))
    )
    return _site_effects(rng, DELTA + eps + beta * gamma, gamma)


def _site_effects(rng: np.random.Generator, tau: np.ndarray, gamma: np.ndarray) -> SiteEffects:
    """Estimates of (S, D) effects whose errors have a part of their own and one from the site's controls."""
    s, d = tau.shape
    se = rng.gamma(1.0, 1.0, (s, d, 2))
    values = np.stack([tau, gamma], axis=2) + se * rng.standard_normal((s, d, 2))
    values += CONTROLS * rng.standard_normal((s, 1, 2))
    cov = np.zeros((s, d, 2, d, 2))
    for j in range(2):
        cov[:, :, j, :, j] = CONTROLS**2
        for i in range(d):
            cov[:, i, j, i, j] += se[:, i, j] ** 2
    return SiteEffects(
        sites=tuple(range(s)),
        contrasts=tuple(f"arm {i}" for i in range(d)),
        mediators=("m",),
        outcome="y",
        estimates=frozen(values),
        cov=frozen(cov),
        precision=frozen(np.zeros((s, d, d))),
        n=frozen(np.full(s, np.nan)),
        cov_type="published",
        df=frozen(np.full(s, np.inf)),
    )


def _one_site(rng: np.random.Generator, beta: float, trials: int) -> list[Row]:
    """One site with 20 arms: the shared error moves the direct effect and nothing else."""
    shape, made = (1, 20), []
    for _ in range(trials):
        gamma = GAMMA + rng.standard_normal(shape)
        made.append(
            between_rows(_site_effects(rng, DELTA + rng.standard_normal(shape) + beta * gamma, gamma))
        )
    x, y = np.stack([rows.x[:, 0] for rows in made]), np.stack([rows.y for rows in made])
    b, a, c = np.stack([[rows.cov[:, i, j] for rows in made] for i, j in ((0, 0), (1, 1), (0, 1))])
    drawn = Trials(x, y, a, b, c, x, y, rng.integers(0, 2**31, trials))
    p = {value: calibrated(drawn, value) for value in (0.0, beta)}
    for r in range(2):
        test = SlopeTest.of(made[r], "m", draws=DRAWS, seed=int(drawn.seeds[r]))
        assert test.reference == "bootstrap"
        assert abs(test.test(0.0).pvalue - p[0.0][r]) < 1e-9
    return [{"method": DEFAULT, "quantity": "effect", **rates(p[0.0] <= SIZE, p[beta] <= SIZE)}]

"""Size and power at 5% of every test in the report on rank, assumption (viii): docs/validation/rank.csv.

In site s people have mediators m = g_s T + v with compliances g_s = scale (mean + load z_s), z_s standard normal.
A direct effect makes the mean of g_s useless. ``mean`` and ``load`` decide the rank; the scale puts the strength of
direction P - 1 (the weakest that a null of rank P - 1 leaves) at 10.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
from scipy.linalg import eigh
from scipy.optimize import brentq

import msmmiv as mm
from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.spectrum import spectrum
from msmmiv.diagnose.strength import conditional_strength, rank_tests
from msmmiv.diagnose.variation import variation
from msmmiv.estimate.system import System, build_system
from msmmiv.inference.rank_tests import anderson_lm_test, cragg_donald_test
from msmmiv.linalg import frozen
from msmmiv.moments.assembly import CellMoments
from msmmiv.moments.within import within_sites
from tests.validation.design import terms
from tests.validation.study import Row

#: Mean strength of direction P - 1; draws behind each noise floor; correlation of any two errors.
STRENGTH, DRAWS, CORRELATION = 10.0, 199, 0.3
#: Classes in each arm, and the share of the errors that people of a class have in common.
CLASSES, ICC = 4, 0.2
#: Share of the trials in which (viii.a) is computed: its interval takes longer than all the tests of rank.
SLOW = 0.03
CLUSTERED = ("classes", "constant in classes")


@dataclass(frozen=True)
class Design:
    """``weak``: mean strength of the weakest direction, reached by a departure from proportionality."""

    mean: tuple[float, ...]
    load: tuple[tuple[float, ...], ...]
    direct: bool = False
    weak: float = 1.0
    varied: bool = False
    share: float = 0.3


#: Trials are ``share`` of those asked for; (viii.a) is computed where ``varied``.
DESIGNS = {
    "proportional": Design((1.0, 0.7), ((0.5,), (0.35,)), varied=True, share=1.0),
    "no compliance": Design((0.0,), ((0.0,),), share=0.6),
    "constant": Design((1.0, 0.7), ((0.0,), (0.0,))),
    "constant, direct effect": Design((1.0,), ((0.0,),), direct=True),
    "one constant, direct effect": Design((1.0, 0.7), ((0.0,), (0.5,)), direct=True),
    "three of rank two": Design((1.0, 0.4, 0.92), ((0.5, 0.0), (0.0, 0.5), (0.3, 0.4))),
    "one constant": Design((1.0, 0.7), ((0.0,), (0.5,)), varied=True, share=0.2),
    "departure 1.25": Design((1.0, 0.7), ((0.5, 0.0), (0.35, 1.0)), weak=1.25, share=0.2),
    "departure 2": Design((1.0, 0.7), ((0.5, 0.0), (0.35, 1.0)), weak=2.0, share=0.2),
    "departure 4": Design((1.0, 0.7), ((0.5, 0.0), (0.35, 1.0)), weak=4.0, share=0.2),
}
#: Designs with 200 and 1,000 sites of four people, beside the first two.
LARGE = ("constant", "one constant, direct effect", "three of rank two", "one constant", "departure 1.25")


@dataclass(frozen=True)
class RankCell:
    """One cell of the table; ``n`` people in each arm of each site."""

    design: str
    sites: int
    n: int
    errors: str

    @property
    def of(self) -> Design:
        """The population of sites."""
        return DESIGNS[self.design]

    @property
    def mediators(self) -> int:
        """P."""
        return len(self.of.mean)

    @property
    def true_rank(self) -> int:
        """Of the compliances, net of a direct effect."""
        return int(np.linalg.matrix_rank(_second_moments(self.of)))

    @property
    def share(self) -> float:
        """Of the trials asked for: large trials take longer, and all are lessened alike."""
        large = {1000: 0.12, 200: 0.25}.get(self.sites, 1.0)
        return min(self.of.share, large, 1.0 if self.errors in ("homoskedastic", "heteroskedastic") else 0.3)

    def null(self, test: str) -> bool:
        """Whether the null of a test is true; a conditional F is of a mediator that the flat combination holds."""
        what, _, mediator = test.partition(", ")
        j = terms(self.mediators).index(mediator) if mediator else 0
        if what.endswith("of compliance"):
            return not any(self.of.load[j])
        values, vectors = np.linalg.eigh(_second_moments(self.of))
        return bool(abs(values[0]) < 1e-12 and (not mediator or abs(vectors[j, 0]) > 1e-6))


def grid() -> list[RankCell]:
    """Every cell of the table."""
    small, uneven = list(itertools.product((5, 12, 50), (6, 20))), ("homoskedastic", "heteroskedastic")
    cells = [
        RankCell(design, *size, errors)
        for design, size, errors in itertools.product(DESIGNS, [*small, (200, 2), (1000, 2)], uneven)
        if size in small or design in ("proportional", "no compliance", *LARGE)
    ]
    skewed = itertools.product(("proportional", "no compliance"), [*small, (200, 2), (1000, 2)])
    cells += [RankCell(design, *size, "heteroskedastic, skewed") for design, size in skewed]
    grouped = itertools.product(("proportional", "no compliance", "departure 4"), (5, 12, 50), CLUSTERED)
    return [*cells, *(RankCell(design, k, 20, errors) for design, k, errors in grouped)]


def sizes(cell: RankCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """One row per test: how often it rejects, and how often it has no result (not a rejection).

    For intervals ``rejects`` is the share that misses the truth.
    """
    rng, population = np.random.default_rng(seed), _Population.of(cell)
    slow = round(SLOW * trials) if cell.of.varied else 0
    pvalues: dict[tuple[str, str], list[float]] = {}
    for r in range(max(1, round(cell.share * trials))):
        system = build_system(within_sites(population.trial(rng)), direct_effect=cell.of.direct)
        compliances = Compliances.from_system(system)
        got = [*_of_rank(system, compliances, r)]
        if r < slow:
            got += _of_variation(compliances, population.sd)
        for test, covariance, value in got:
            pvalues.setdefault((test, covariance), []).append(value)
    about = vars(cell) | {
        "direct_effect": cell.of.direct,
        "mediators": cell.mediators,
        "true_rank": cell.true_rank,
    }
    rows = []
    for (test, covariance), values in pvalues.items():
        p = np.array(values)
        null = test.startswith("interval") or cell.null(test)
        rows.append(
            {**about, "test": test, "covariance": covariance, "null": null, "replications": len(p)}
            | {"rejects": float((p <= 0.05).mean()), "no_result": float(np.isnan(p).mean())}
        )
    return rows


def _of_rank(system: System, c: Compliances, r: int) -> Iterator[tuple[str, str, float]]:
    """Test, covariance and p-value of all that have the null that rank is short."""
    for found in rank_tests(system, c, rows=None):
        if found.covariance != "site":
            yield found.test.name, found.covariance, found.test.pvalue
    yield "noise floor", c.noise, float(spectrum(c, draws=DRAWS, seed=r).pvalues[-1])
    for row in conditional_strength(c, system, None).to_dict("records"):
        yield f"conditional F, {row['mediator']}", "classical", row["p_value"]
        yield f"conditional F, {row['mediator']}", "each site's own", row["site_p_value"]
        yield f"conditional effective F, {row['mediator']}", c.noise, row["effective_p_value"]
    if system.within.moments.clusters:
        classes = within_sites(system.within.moments.cluster_means())
        means = build_system(classes, direct_effect=c.direct_effect)
        form = means.reduced_form
        yield "Anderson LM", "clusters as rows", anderson_lm_test(form).pvalue
        yield "Cragg-Donald", "clusters as rows", cragg_donald_test(form).pvalue


def _of_variation(c: Compliances, sd: np.ndarray) -> Iterator[tuple[str, str, float]]:
    """(viii.a); an interval has the p-value 0 where it misses the truth, else 1."""
    for truth, row in zip(sd, variation(c).to_dict("records"), strict=True):
        yield f"Q of compliance, {row['mediator']}", c.noise, row["p_value"]
        yield f"noise test of compliance, {row['mediator']}", c.noise, row["noise_p_value"]
        low, high = row["sd_lower"], row["sd_upper"]
        inside = float(low <= truth + 1e-12 and truth <= high + 1e-12)
        yield f"interval of sd, {row['mediator']}", c.noise, inside if np.isfinite(low) else np.nan


@dataclass(frozen=True, eq=False)
class _Population:
    """What a cell draws from: scaled compliances, and the spread of errors in each arm of each site (2K, P)."""

    cell: RankCell
    mean: np.ndarray
    load: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, cell: RankCell) -> _Population:
        spread = _spread(cell)
        noise = _correlated(cell.mediators) * (spread.T @ spread) / len(spread)
        # Variance of an arm's mean, in units of that of n independent people.
        inflated = {"classes": 1.0 - ICC + ICC * cell.n / CLASSES, "constant in classes": cell.n / CLASSES}
        noise *= inflated.get(cell.errors, 1.0)
        load = _departed(cell.of, noise)
        strengths = eigh(_second_moments(replace(cell.of, load=load)), noise, eigvals_only=True)
        target = strengths[min(1, cell.mediators - 1)]
        scale = np.sqrt((STRENGTH - 1.0) * 2.0 / cell.n / target) if target > 0 else 1.0
        if cell.of.direct and not np.any(cell.of.load):
            scale = np.sqrt((STRENGTH - 1.0) * 2.0 / cell.n)
        return cls(cell, scale * np.array(cell.of.mean), scale * np.array(load), spread)

    @property
    def sd(self) -> np.ndarray:
        """(P,) of compliances between sites."""
        return np.sqrt((self.load**2).sum(axis=1))

    def trial(self, rng: np.random.Generator) -> mm.Moments:
        """Moments of one trial; people are drawn cell by cell, and only their moments are kept."""
        cell, p = self.cell, self.cell.mediators
        groups = CLASSES if cell.errors in CLUSTERED else 1
        size = cell.n // groups
        rows = self._errors(rng, (2 * cell.sites * groups, size, 1 + p))
        if groups > 1:
            shared = self._errors(rng, (2 * cell.sites * groups, 1, 1 + p))
            rows = np.sqrt(1.0 - ICC) * rows + np.sqrt(ICC) * shared
            if cell.errors == "constant in classes":
                rows[:, :, 1:] = shared[:, :, 1:]
        rows[:, :, 1:] *= np.repeat(self.spread, groups, axis=0)[:, None, :]
        mean = rows.mean(axis=1)
        away = rows - mean[:, None, :]
        scatter = np.swapaxes(away, 1, 2) @ away
        if cell.errors == "constant in classes":
            scatter[:, 1:], scatter[:, :, 1:] = 0.0, 0.0
        g = self.mean + rng.standard_normal((cell.sites, self.load.shape[1])) @ self.load.T
        arms = np.zeros((cell.sites, 2, p))
        arms[:, 1] = g
        mean[:, 1:] += np.repeat(arms.reshape(-1, p), groups, axis=0)
        count = frozen(np.full(len(mean), float(size)))
        sums = CellMoments(count, frozen(mean), frozen(scatter))
        return replace(_template(cell.sites, p, groups), n=count, first=sums, squared=sums)

    def _errors(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """Of variance one; the outcome, which no test looks at, comes first."""
        skewed = self.cell.errors.endswith("skewed")
        e = rng.standard_exponential(shape) - 1.0 if skewed else rng.standard_normal(shape)
        return e @ np.linalg.cholesky(_correlated(shape[2])).T


def _spread(cell: RankCell) -> np.ndarray:
    """(2K, P): variances differ 4-fold between arms and 9-fold between sites, otherwise for each mediator; mean one."""
    if not cell.errors.startswith("heteroskedastic"):
        return np.ones((2 * cell.sites, cell.mediators))
    site = np.arange(cell.sites)
    orders = np.column_stack([site, site[::-1], site * 7 % cell.sites])[:, : cell.mediators]
    size = np.repeat(3.0 ** (orders / (cell.sites - 1.0)), 2, axis=0)
    size[1::2] *= 2.0
    return size / np.sqrt((size**2).mean(axis=0))


def _correlated(size: int) -> np.ndarray:
    return np.full((size, size), CORRELATION) + (1.0 - CORRELATION) * np.eye(size)


def _second_moments(design: Design) -> np.ndarray:
    """Of compliances; about their means where there is a direct effect."""
    mean, load = np.array(design.mean) * (not design.direct), np.array(design.load)
    return np.outer(mean, mean) + load @ load.T


def _departed(design: Design, noise: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Loads whose last column makes the weakest direction as strong as wanted, the strongest being at `STRENGTH`."""
    if design.weak == 1.0:
        return design.load

    def loads(size: float) -> tuple[tuple[float, ...], ...]:
        return tuple((*row[:-1], row[-1] * size) for row in design.load)

    def excess(size: float) -> float:
        low, high = eigh(_second_moments(replace(design, load=loads(size))), noise, eigvals_only=True)
        return float(low / high - (design.weak - 1.0) / (STRENGTH - 1.0))

    return loads(brentq(excess, 1e-6, 1.0))


@cache
def _template(sites: int, mediators: int, groups: int) -> mm.Moments:
    """Moments with the right sites, arms and classes; the numbers in it are replaced."""
    rows = np.arange(sites * 2 * groups * 3)
    frame = pd.DataFrame(
        {"site": rows // (6 * groups), "t": rows // (3 * groups) % 2, "class": rows // 3, "y": rows % 3}
    )
    for name in terms(mediators):
        frame[name] = frame["y"]
    cluster = "class" if groups > 1 else None
    plan = mm.Design(outcome="y", treatment="t", mediators=terms(mediators), site="site", cluster=cluster)
    return mm.Moments.from_data(frame, plan)

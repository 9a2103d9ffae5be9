"""The process behind simulated trials: sites, what happens in them on average, and people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr, ndtri

from msmmiv.linalg import Array, Codes

__all__ = ["Recipe", "Sites", "contrasts", "draw_people", "draw_sites"]

#: Standard deviations inside an arm: people differ in compliance and effect, unrelated to one another.
OWN_COMPLIANCE, OWN_EFFECT = 0.2, 0.1
#: What a common cause that nobody measured does to mediators and outcome, and what the covariates do together.
CAUSE_M, CAUSE_Y, COVARIATE = 0.5, 0.8, 0.3
#: Noise that brings a mediator's variance inside an arm to about one.
NOISE_M, NOISE_Y = 0.8, 0.7
#: Between sites: levels of mediators and outcome, means of covariates.
LEVEL_M, LEVEL_Y, LEVEL_X = 0.5, 0.4, 0.5
#: Where people do the opposite: how much larger their effect is, and how much higher their outcome anyway.
DEFIERS_GAP, DEFIERS_HIGHER = 1.0, 2.0
#: Share of the variance of compliance that the site covariate has in ix, "covariate".
SHARED = 0.7


@dataclass(frozen=True)
class Recipe:
    """What a trial is made of; ``broken`` and ``variant`` say which assumption fails, and how."""

    broken: str
    variant: str
    strength: float
    sites: int
    people: int
    mediators: int
    arms: int
    dose: bool
    binary: bool
    covariates: int
    effects: tuple[float, ...]
    compliance_mean: float
    compliance_sd: float
    effect_sd: float

    def breaks(self, broken: str, *variants: str) -> bool:
        """Whether it is this assumption (in one of these ways)."""
        return self.broken == broken and (not variants or self.variant in variants)

    @property
    def doses(self) -> Array:
        """(A,) what the mediators see of each arm, in units of compliance."""
        seen = np.arange(self.arms, dtype=float)
        if self.breaks("iii"):
            seen[2:] -= self.strength * np.arange(1, self.arms - 1)
        return seen

    @property
    def mean(self) -> Array:
        """(P,) mean compliances; several continuous mediators move by different amounts."""
        return self.compliance_mean * np.resize([1.0] if self.binary else [1.0, 0.5, 0.75], self.mediators)


@dataclass(frozen=True, eq=False)
class Sites:
    """Sites as they are, without sampling error.

    Attributes
    ----------
    size : (K, A) array of int
        People per arm.
    moved : (K, A, P) array
        What each arm does to the mediators, on average; zero for controls, cascades included.
    effect : (K, P) array
        Coefficients of the mediators in the outcome.
    level : (K, P) array
        Levels of the mediators beside what covariates do.
    start : (K,) array
        Level of the outcome.
    trait : (K,) array
        A measured site covariate.
    x : (K, q) array
        Means of the people's covariates.
    opposite : (K,) array
        Share of the people who do the opposite.
    """

    size: Codes
    moved: Array
    effect: Array
    level: Array
    start: Array
    trait: Array
    x: Array
    opposite: Array

    @cached_property
    def n(self) -> Codes:
        """(K,) people."""
        return np.asarray(self.size.sum(axis=1))

    @property
    def before(self) -> Array:
        """(K, P) means of the mediators among controls, where no mediator moves another."""
        q = self.x.shape[1]
        return (
            self.level
            + (COVARIATE / np.sqrt(q) * self.x.sum(axis=1) if q else np.zeros(len(self.x)))[:, None]
        )


def draw_sites(recipe: Recipe, rng: np.random.Generator) -> Sites:
    """Sites of a trial."""
    k, p, a = recipe.sites, recipe.mediators, recipe.arms
    trait, large = rng.normal(size=(2, k))
    spread = rng.uniform(0.75, 1.25, k)
    people = recipe.people * (np.exp(0.4 * large - 0.08) if recipe.breaks("ix", "size") else spread)
    shares = rng.uniform(0.35, 0.65, (k, a))
    if a == 2:
        shares[:, 0] = 1.0 - shares[:, 1]
    size = np.maximum(np.rint(people[:, None] * shares / shares.sum(axis=1, keepdims=True)), 3).astype(
        np.int64
    )
    z = rng.normal(size=(k, p))
    by_arm = rng.normal(size=(k, a - 1, p))
    if recipe.breaks("ix", "covariate"):
        z = np.sqrt(SHARED) * trait[:, None] + np.sqrt(1.0 - SHARED) * z
    gamma = _in_range(recipe, recipe.mean + recipe.compliance_sd * z)
    if recipe.breaks("viii"):
        gamma[:, -1] = (1.0 - recipe.strength) * gamma[:, -1] + recipe.strength * 0.7 * gamma[:, 0]
    moved = np.zeros((k, a, p))
    moved[:, 1:] = recipe.doses[1:, None] * gamma[:, None]
    if a > 2 and not recipe.dose and not recipe.breaks("viii"):
        # Arms are not doses of one thing: each has a part of its own.
        moved[:, 1:] = _in_range(
            recipe, recipe.mean + recipe.compliance_sd * (z[:, None] + by_arm) / np.sqrt(2.0)
        )
    opposite = np.zeros(k)
    if recipe.breaks("vii.b"):
        where = np.ones(k, bool) if recipe.variant == "everywhere" else np.arange(k) % 5 == 0
        opposite[where] = recipe.strength
        moved = moved * (1.0 - opposite[:, None, None])
        moved[:, 1:] -= opposite[:, None, None]
    effect = _effects(recipe, rng, moved[:, 1:].mean(axis=1), trait, large)
    if recipe.breaks("v"):
        moved[:, :, 1] += recipe.strength * moved[:, :, 0]
    return Sites(
        size, moved, effect, LEVEL_M * rng.normal(size=(k, p)), LEVEL_Y * rng.normal(size=k), trait,
        LEVEL_X * rng.normal(size=(k, recipe.covariates)), opposite,
    )  # fmt: skip


def _in_range(recipe: Recipe, gamma: Array) -> Array:
    return np.clip(gamma, 0.02, 0.65) if recipe.binary else gamma


def _effects(recipe: Recipe, rng: np.random.Generator, gamma: Array, trait: Array, large: Array) -> Array:
    """(K, P) effects; those of iv are shifted so that their average over sites stays what was asked for."""
    out = np.array(recipe.effects) + recipe.effect_sd * rng.normal(size=gamma.shape)
    by, away = recipe.strength, gamma - recipe.mean * (recipe.doses[1:].mean() if recipe.dose else 1.0)
    if recipe.breaks("ix", "compliance"):
        out = out + by * away
    if recipe.breaks("ix", "covariate"):
        out = out + by * recipe.compliance_sd * np.sqrt(SHARED) * trait[:, None]
    if recipe.breaks("ix", "cross"):
        out[:, 0] += by * away[:, 1]
    if recipe.breaks("ix", "size"):
        out = out + by * large[:, None]
    if recipe.breaks("iv", "quadratic"):
        out[:, 0] -= by * recipe.mean[0]
    if recipe.breaks("iv", "interaction"):
        out[:, :2] -= by * recipe.mean[:2][::-1] / 2.0
    return out


def contrasts(recipe: Recipe, sites: Sites) -> tuple[Array, Array]:
    """What each arm does to the mediators (K, A - 1, P) and to the outcome (K, A - 1) with endless people."""
    moved, by = sites.moved[:, 1:].copy(), recipe.strength
    start = np.zeros(moved.shape[:2])
    if recipe.breaks("vi"):
        cause, covariate = _imbalance(recipe, sites)
        shift = CAUSE_M * cause + covariate
        moved += shift[:, :, None]
        start += CAUSE_Y * cause + covariate
    itt = start + np.einsum("kdp,kp->kd", moved, sites.effect)
    if recipe.breaks("i", "share"):
        itt -= by * (1.0 - sites.size[:, :1] / sites.n[:, None])
    if recipe.breaks("i", "peers"):
        itt += by * moved[:, :, 0]
    if recipe.breaks("ii"):
        itt += by
    if recipe.breaks("iv", "quadratic"):
        one, own = moved[:, :, 0], (OWN_COMPLIANCE * recipe.doses[1:]) ** 2
        itt += by * (2.0 * sites.before[:, :1] * one + one**2 + own)
    if recipe.breaks("iv", "interaction"):
        one, two = moved[:, :, 0], moved[:, :, 1]
        itt += by * (one * sites.before[:, 1:2] + two * sites.before[:, :1] + one * two)
    if recipe.breaks("vii.a"):
        itt += by * recipe.doses[1:]
    if recipe.breaks("vii.b"):
        itt -= DEFIERS_GAP * sites.opposite[:, None] * recipe.mediators
    return moved, itt


def _imbalance(recipe: Recipe, sites: Sites) -> tuple[Array, Array]:
    """Differences between arms in the common cause, and in what the covariates do, (K, A - 1) each."""
    k = recipe.strength
    if recipe.breaks("vi", "attrition"):
        z = ndtri(k)
        gone = np.exp(-(z**2) / 2.0) / np.sqrt(2.0 * np.pi) / (1.0 - k) * np.sqrt(0.5)
        return np.full((recipe.sites, recipe.arms - 1), gone), np.zeros((recipe.sites, recipe.arms - 1))
    # Ranked by a normal score, people between two quantiles have the mean (density - density) / share.
    edges = np.cumsum(sites.size, axis=1)[:, :-1] / sites.n[:, None]
    density = np.zeros((recipe.sites, recipe.arms + 1))
    density[:, 1:-1] = np.exp(-(ndtri(edges) ** 2) / 2.0) / np.sqrt(2.0 * np.pi)
    mean = (density[:, :-1] - density[:, 1:]) * sites.n[:, None] / sites.size
    lean = k / np.sqrt(1.0 + k**2) * (mean[:, 1:] - mean[:, :1])
    if recipe.breaks("vi", "unmeasured") or not recipe.covariates:
        return lean, np.zeros_like(lean)
    return lean * np.sqrt(0.5), lean * np.sqrt(0.5) * COVARIATE / np.sqrt(recipe.covariates)


def draw_people(recipe: Recipe, sites: Sites, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of people: ``site, t, m1.., y, x1.., z`` (the site covariate)."""
    s = np.repeat(np.arange(recipe.sites), sites.n)
    n, p, q = len(s), recipe.mediators, recipe.covariates
    cause, own = rng.normal(size=n), rng.normal(size=(n, q))
    x = sites.x[s] + own
    t = _assigned(recipe, sites, s, cause, own, rng)
    covariate = COVARIATE / np.sqrt(max(q, 1)) * x.sum(axis=1)
    effect = sites.effect[s] + OWN_EFFECT * rng.normal(size=(n, p))
    opposite = rng.random(n) < sites.opposite[s]
    if recipe.binary:
        m = _binary(recipe, sites, s, t, cause, own, opposite, rng)
        effect += DEFIERS_GAP * opposite[:, None]
    else:
        dose = recipe.doses[t]
        respond = OWN_COMPLIANCE * rng.normal(size=(n, p))
        if recipe.breaks("vii.a"):
            lean = np.sqrt(abs(recipe.strength)) * own[:, 0]
            respond[:, 0] += lean
            effect[:, 0] += np.sign(recipe.strength) * lean
        m = sites.level[s] + (covariate + CAUSE_M * cause)[:, None] + NOISE_M * rng.normal(size=(n, p))
        direct = sites.moved.copy()
        if recipe.breaks("v"):
            direct[:, :, 1] -= recipe.strength * direct[:, :, 0]
        m += direct[s, t] + respond * dose[:, None]
        if recipe.breaks("v"):
            m[:, 1] += recipe.strength * m[:, 0]
    y = sites.start[s] + (effect * m).sum(axis=1) + CAUSE_Y * cause + covariate + NOISE_Y * rng.normal(size=n)
    y += DEFIERS_HIGHER * opposite
    y += _beside(recipe, sites, s, t, m)
    if recipe.breaks("vi", "attrition"):
        y[_gone(recipe, s, t, cause, rng)] = np.nan
    columns = {"site": s, "t": t, **{f"m{j + 1}": m[:, j] for j in range(p)}, "y": y}
    columns |= {f"x{j + 1}": x[:, j] for j in range(q)}
    return pd.DataFrame({**columns, "z": sites.trait[s]})


def _within(s: Codes, score: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Order of the rows by site and score, and the rank of the ordered rows inside their site."""
    order = np.lexsort((score, s))
    first = np.searchsorted(s, s)  # the rows are sorted by site
    return order, np.arange(len(s)) - first


def _assigned(
    recipe: Recipe, sites: Sites, s: Codes, cause: Array, own: Array, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Arms: as many people in each as planned, at random or leaning towards some people."""
    score = rng.normal(size=len(s))
    if recipe.breaks("vi", "assignment") and own.shape[1]:
        score += recipe.strength * (cause + own[:, 0]) * np.sqrt(0.5)
    elif recipe.breaks("vi", "unmeasured", "assignment"):
        score += recipe.strength * cause
    order, rank = _within(s, score)
    edges = np.cumsum(sites.size, axis=1)[s]
    out = np.empty(len(s), dtype=np.int64)
    out[order] = (rank[:, None] >= edges).sum(axis=1)
    return out


def _binary(
    recipe: Recipe, sites: Sites, s: Codes, t: Codes, cause: Array, own: Array,
    opposite: npt.NDArray[np.bool_], rng: np.random.Generator,
) -> Array:  # fmt: skip
    """0/1 mediators: people above a threshold that assignment lowers, so that compliance is a share of people."""
    n, p, q = len(s), recipe.mediators, recipe.covariates
    known = CAUSE_M * cause + (COVARIATE / np.sqrt(q) * own.sum(axis=1) if q else 0.0)
    left = np.sqrt(1.0 - CAUSE_M**2 - (COVARIATE**2 if q else 0.0))
    rank = ndtr(known[:, None] + left * rng.normal(size=(n, p)))
    always = 0.1 + 0.2 * ndtr(sites.level / LEVEL_M)
    share = sites.moved
    if recipe.breaks("vii.b"):
        share = sites.moved.copy()
        share[:, 1:] += sites.opposite[:, None, None]
        share = share / (1.0 - sites.opposite)[:, None, None]
    m: Array = (rank > 1.0 - always[s] - share[s, t]).astype(float)
    m[opposite] = (t[opposite] == 0).astype(float)[:, None]
    return m


def _beside(recipe: Recipe, sites: Sites, s: Codes, t: Codes, m: Array) -> Array:
    """What reaches the outcome beside the mediators' own linear effects."""
    by = recipe.strength
    out: Array = np.zeros(len(s))
    if recipe.breaks("i", "share"):
        out += by * (1.0 - sites.size[:, 0] / sites.n)[s] * (t == 0)
    if recipe.breaks("i", "peers"):
        cell = s * recipe.arms + t
        total, size = np.bincount(cell, m[:, 0]), np.bincount(cell)
        out += by * (total[cell] - m[:, 0]) / (size[cell] - 1)
    if recipe.breaks("ii"):
        out += by * (t > 0)
    if recipe.breaks("iv", "quadratic"):
        out += by * m[:, 0] ** 2
    if recipe.breaks("iv", "interaction"):
        out += by * m[:, 0] * m[:, 1]
    return out


def _gone(
    recipe: Recipe, s: Codes, t: Codes, cause: Array, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Treated people who leave: the lowest of each site by a score that leans on the common cause."""
    treated = np.flatnonzero(t > 0)
    order, rank = _within(s[treated], cause[treated] + rng.normal(size=len(treated)))
    leave = rank < np.rint(recipe.strength * np.bincount(s[treated], minlength=recipe.sites))[s[treated]]
    out = np.zeros(len(s), dtype=bool)
    out[treated[order[leave]]] = True
    return out

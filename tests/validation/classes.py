"""Classes randomised inside sites, some arms with a single class: docs/validation/clusters.csv."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.linalg import frozen
from msmmiv.moments.assembly import CellMoments
from tests.validation.design import ERRORS, MU, TAU, TRUTH, gaussian_sums, signal_root, terms, to_outcomes
from tests.validation.rule import verdict
from tests.validation.study import BATCH, CHECKED, Row, check, summary


@dataclass(frozen=True)
class ClassCell:
    """``single``: probability that an arm of a site has one class; else two to four, of 6 to 12 people each."""

    sites: int
    mean_f: float
    effect_sd: float
    mediators: int
    icc: float
    single: float

    @property
    def truth(self) -> dict[str, float]:
        """Average effect by term."""
        return dict(zip(terms(self.mediators), TRUTH["gaussian"], strict=False))


def grid() -> list[ClassCell]:
    """Every cell of the table."""
    every = itertools.product((8, 20, 50), (2.0, 20.0), (0.0, 0.3), (1, 2), (0.05, 0.2), (0.2, 0.6))
    return [ClassCell(*values) for values in every]


def coverage(cell: ClassCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Coverage of the rule that heeds the classes, and of the same rule where they are not declared."""
    truth, rng = np.array(list(cell.truth.values())), np.random.default_rng(seed)
    layout = Layout.of(cell, rng)
    parts, ignored = [], []
    for start in range(0, trials, BATCH):
        mean, scatter = _draw(cell, layout, rng, min(BATCH, trials - start))
        effects, heeded, flat = layout.effects(mean, scatter)
        got = verdict(effects, heeded, layout.weight, truth, clustered=True)
        wrong = verdict(effects, flat, layout.weight, truth)
        if start == 0:
            declared = [layout.moments(m, s) for m, s in zip(mean[:CHECKED], scatter, strict=False)]
            plan = replace(declared[0].design, cluster=None)
            check(got, declared, cell.truth)
            check(wrong, [replace(m.by_arm(), design=plan) for m in declared], cell.truth)
        parts.append(got)
        ignored.append(wrong.covers)
    return [
        {**vars(cell)}
        | summary(parts, truth)
        | {"coverage_classes_ignored": float(np.concatenate(ignored).mean())}
    ]


@dataclass(frozen=True)
class Layout:
    """Which class lies in which arm of which site, and how large it is; the same in all trials of a cell.

    Attributes
    ----------
    arm : (C,) array
        2 site + treated, ascending.
    n : (C,) array
    template : Moments
    """

    arm: np.ndarray
    n: np.ndarray
    template: mm.Moments

    @classmethod
    def of(cls, cell: ClassCell, rng: np.random.Generator) -> Layout:
        """A random layout; some arm of either kind has two classes."""
        arms = 2 * cell.sites
        number = np.where(rng.random(arms) < cell.single, 1, rng.integers(2, 5, arms))
        number[:2] = np.maximum(number[:2], 2)
        arm = np.repeat(np.arange(arms), number)
        return cls(arm, rng.integers(6, 13, len(arm)).astype(float), _template(arm, cell.mediators))

    def by_arm(self, values: np.ndarray) -> np.ndarray:
        """Sums over the classes of each arm, which lie side by side on the second axis (the first of a vector)."""
        starts = np.flatnonzero(np.diff(self.arm, prepend=-1))
        out: np.ndarray = np.add.reduceat(values, starts, axis=min(values.ndim - 1, 1))
        return out

    @cached_property
    def people(self) -> np.ndarray:
        """(2K,): people by arm."""
        return self.by_arm(self.n)

    @cached_property
    def share(self) -> np.ndarray:
        """(C,): share of the class in its arm."""
        out: np.ndarray = self.n / self.people[self.arm]
        return out

    @property
    def weight(self) -> np.ndarray:
        """(K,): n p (1 - p)."""
        control, treated = self.people[::2], self.people[1::2]
        out: np.ndarray = control * treated / (control + treated)
        return out

    def moments(self, mean: np.ndarray, scatter: np.ndarray) -> mm.Moments:
        """Moments of one trial."""
        size = frozen(self.n)
        sums = CellMoments(size, frozen(mean), frozen(scatter))
        return replace(self.template, n=size, first=sums, squared=sums)

    def effects(self, mean: np.ndarray, scatter: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Site effects, and their covariance with classes heeded and ignored (`msmmiv.moments.noise`)."""
        number, share = np.bincount(self.arm), self.by_arm(self.share**2)
        a = self.share[:, None, None]
        arms = self.by_arm(self.share[:, None] * mean)
        away = mean - arms[:, self.arm]
        outer = away[..., :, None] * away[..., None, :]
        rows = scatter / (self.n * (self.n - 1.0))[:, None, None]
        inside = self.by_arm(scatter + self.n[:, None, None] * outer)
        flat = inside / (self.people * (self.people - 1.0))[:, None, None]
        spread = self.by_arm(a * outer - a * (1.0 - a) * rows)
        unit = spread / np.where(number > 1, 1.0 - share, 1.0)[:, None, None]
        for treated in (0, 1):
            kind = np.arange(len(number)) % 2 == treated
            alone, many = kind & (number == 1), kind & (number > 1)
            pool = (self.people * (1.0 - share))[many]
            unit[:, alone] = np.einsum("g,rgij->rij", pool / pool.sum(), unit[:, many])[:, None]
        heeded = unit * share[:, None, None] + self.by_arm(a**2 * rows)
        return arms[:, 1::2] - arms[:, ::2], heeded[:, 1::2] + heeded[:, ::2], flat[:, 1::2] + flat[:, ::2]


def _draw(
    cell: ClassCell, layout: Layout, rng: np.random.Generator, trials: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means and scatters of classes: people, classes and site effects drawn anew."""
    p, arm = cell.mediators, layout.arm
    shape = (trials, len(arm))
    mean, scatter = gaussian_sums(rng, shape, (1.0 - cell.icc) * ERRORS[p], layout.n)
    mean = mean + rng.standard_normal((*shape, 1 + p)) @ np.linalg.cholesky(cell.icc * ERRORS[p]).T
    g = _scale(cell, layout) * (MU[p] + TAU * rng.standard_normal((trials, cell.sites, p)))
    mean[..., 1:] += np.where((arm % 2 == 1)[:, None], g[:, arm // 2], 0.0)
    effect = np.array(TRUTH["gaussian"][:p])
    effect = effect + cell.effect_sd * rng.standard_normal((trials, cell.sites, p))
    return to_outcomes(mean, scatter, effect[:, arm // 2])


def _template(arm: np.ndarray, p: int) -> mm.Moments:
    rows = np.repeat(np.arange(len(arm)), 3)
    frame = pd.DataFrame({"site": arm[rows] // 2, "t": arm[rows] % 2, "class": rows})
    for name in ("y", *terms(p)):
        frame[name] = np.tile(np.arange(3.0), len(arm))
    plan = mm.Design(outcome="y", treatment="t", mediators=terms(p), site="site", cluster="class")
    return mm.Moments.from_data(frame, plan)


def _scale(cell: ClassCell, layout: Layout) -> float:
    """What makes the F that heeds classes have the mean asked for."""
    noise = cell.icc * layout.by_arm(layout.share**2) + (1.0 - cell.icc) / layout.people
    weight = layout.weight
    noise_share = weight @ (noise[::2] + noise[1::2]) / weight.sum()
    return signal_root(cell.mediators, (cell.mean_f - 1.0) * noise_share)

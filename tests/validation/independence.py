"""Size and power of the tests of assumptions (ix) and (vii.a): docs/validation/independence.csv.

Site effects are drawn with their estimated covariances as normal people would give them: cell means and Wishart
scatters. Effects always differ between sites, independently of everything unless the state says otherwise.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr

import msmmiv as mm
from msmmiv.diagnose import independence, level_test, moderation, within_site
from msmmiv.diagnose.estimands import weightings
from msmmiv.diagnose.site_covariates import site_covariates
from msmmiv.estimate.site_moments import site_rows
from msmmiv.inference.wild_draws import plan_draws
from msmmiv.linalg import frozen
from tests.validation.study import Row

TRIALS = 1000
SITES = (12, 20, 40, 100)
#: Trials of each cell that go through the package's own functions too, and those of the Wald contrasts.
CHECKED, WALD = 2, 300
#: Draws behind each p-value.
DRAWS = 199
LEVEL = 0.05
#: Mean and standard deviation of compliance; with 20 an arm its standard error is .32.
COMPLIANCE = {"noisy": (1.0, 0.5), "faint": (0.5, 0.3)}
#: Average effect, its standard deviation over sites, and the correlation of a person's errors.
EFFECT, SPREAD, CORR = 0.5, 0.4, 0.5
#: A covariate's (log size's) correlation with compliance, and the change of the effect per standard deviation.
RELATED, CHANGE = 0.7, 0.3

NULL = ("nothing related", "covariate with compliance", "covariate with effects", "size with compliance")
BROKEN = (
    "covariate with both",
    "size with effects",
    "effects with compliance, covariate with it",
    "direct effect",
)
ALSO = "direct effect, covariate with compliance"


@dataclass(frozen=True)
class IndependenceCell:
    """``kind``: "size", "power" or "within site"; ``errors``: people and how variances are known."""

    kind: str
    errors: str
    state: str
    mediators: int
    sites: int


def grid() -> list[IndependenceCell]:
    """Every cell."""
    one = itertools.product(
        ["size"], ["variances known", "20 an arm", "skewed sizes", "faint compliance"], NULL, [1], SITES
    )
    two = itertools.product(["size"], ["20 an arm", "skewed sizes"], (NULL[1], NULL[3]), [2], SITES)
    three = itertools.product(["size"], ["skewed sizes"], (NULL[1],), [3], (20, 40))
    power = itertools.product(["power"], ["20 an arm", "skewed sizes"], BROKEN, [1], SITES)
    also = itertools.product(["power"], ["20 an arm", "skewed sizes"], [ALSO], [1], SITES)
    kinds = [f"{cells}, {law}" for cells, law in itertools.product(CELLS, LAWS)]
    inside = itertools.product(["within site"], kinds, list(INSIDE), [1], (8, *SITES))
    every = [IndependenceCell(*c) for c in itertools.chain(one, two, three, power, also, inside)]
    # With equal sizes log size does not vary, and nothing goes with it.
    return [c for c in every if "size with" not in c.state or c.errors == "skewed sizes"]


def simulate(cell: IndependenceCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Rows of one cell: how often each test rejects at 0.05, and how often there is none."""
    rng = np.random.default_rng(seed)
    if cell.kind == "within site":
        return [vars(cell) | row for row in inside(cell, rng, trials)]
    drawn, x = draw(cell, rng, trials)
    found = {name: rate(p) for name, p in pvalues(drawn, x, cell).items()}
    return [vars(cell) | {"test": name, **row} for name, row in found.items()]


def rate(p: np.ndarray) -> Row:
    """Share of rejections among all trials; no test is no rejection."""
    share = float((p <= LEVEL).mean())
    error = float(np.sqrt(share * (1.0 - share) / len(p)))
    return {"rejects": share, "rejects_se": error, "none": float(np.isnan(p).mean()), "replications": len(p)}


@dataclass(frozen=True, eq=False)
class Drawn:
    """R trials of K sites: (R, K, 1 + P) estimates, their covariances, and people in each of two arms."""

    values: np.ndarray
    cov: np.ndarray
    n: np.ndarray

    def effects(self, r: int) -> mm.SiteEffects:
        """One trial as the package has it."""
        k, m = self.values.shape[1:]
        n = self.n[r]
        return mm.SiteEffects(
            tuple(range(k)), ("",), tuple(f"m{j}" for j in range(1, m)), "y", frozen(self.values[r][:, None]),
            frozen(self.cov[r][:, None, :, None, :]), frozen((n / 2.0)[:, None, None]), frozen(2.0 * n), "unbiased",
            frozen(2.0 * n - 2.0),
        )  # fmt: skip


def pvalues(drawn: Drawn, x: np.ndarray, cell: IndependenceCell) -> dict[str, np.ndarray]:
    """Every test; Wald contrasts of averages beside those that the package uses as evidence."""
    trials = len(drawn.values)
    relation = np.minimum(1.0, cell.mediators * np.min(regressions(drawn, x), axis=0))
    effects = scores(drawn, x, "tempered")
    out = {"compliance on covariate": relation, "effects and covariate": effects}
    out["site covariates"] = np.maximum(relation, effects)
    skewed = cell.errors == "skewed sizes"
    if skewed:
        out["site size"] = scores(drawn, np.log(2.0 * drawn.n), "tempered")
        out["weights and effects"] = scores(drawn, drawn.n / 2.0, "equal")
    for r in range(min(CHECKED, trials)):
        check(drawn.effects(r), x[r], r, {name: float(p[r]) for name, p in out.items()})
    if skewed and cell.kind == "size" and cell.state == NULL[0]:
        wald: dict[str, list[float]] = {}
        for r in range(min(WALD, trials)):
            e = drawn.effects(r)
            for test in weightings(e, site_rows(e), direct=False)[1]:
                wald.setdefault(f"Wald: {test.name.split(' against ')[-1]}", []).append(test.pvalue)
        out |= {name: np.array(p) for name, p in wald.items()}
    return out


def check(effects: mm.SiteEffects, x: np.ndarray, r: int, got: dict[str, float]) -> None:
    """The package itself must give these p-values."""
    frame = pd.DataFrame({"x": x}, index=list(effects.sites))
    found = site_covariates(effects, covariates=frame, draws=DRAWS, seed=r)
    one = found.findings[0]
    own = {
        "compliance on covariate": one.relation.pvalue,
        "effects and covariate": one.effects.pvalue,
        "site covariates": one.both,
        "site size": found.evidence()[2].test.pvalue,
        "weights and effects": independence._weights_test(effects, draws=DRAWS, seed=r).pvalue,
    }
    few = (
        {"site size", "weights and effects"}
        if len(effects.sites) < moderation.LEAST_SITES_OF_SIZES
        else set()
    )
    for name, p in got.items():
        if name in few:  # not used there: the table shows why
            assert np.isnan(own[name])
            continue
        np.testing.assert_allclose(p, own[name], rtol=1e-6, atol=1e-12, err_msg=name)


def scores(drawn: Drawn, x: np.ndarray, balance: moderation.Balance) -> np.ndarray:
    """`moderation_test` of every trial, without making results."""
    trials, k, m = drawn.values.shape
    out = np.full(trials, np.nan)
    wide = np.concatenate([drawn.values, np.ones((trials, k, 1))], axis=-1)
    observed = wide[..., :, None] * wide[..., None, :]
    noise = np.zeros_like(observed)
    noise[..., :m, :m] = drawn.cov
    w = drawn.n / 2.0
    share = w / (w + w.mean(axis=1, keepdims=True)) if balance == "tempered" else np.ones_like(w)
    clean, seen = (part * share[..., None, None] for part in (observed - noise, observed))
    for r in range(trials):
        plan = plan_draws(k, 2 * (m - 1), "rademacher", DRAWS, r)
        signal = moderation.Signal(tuple(range(k)), clean[r], seen[r], w[r])
        parts = moderation.Scores.of(signal, x[r])
        found = None if parts is None else parts.test(plan)
        out[r] = np.nan if found is None else found[1]
    return out


def regressions(drawn: Drawn, x: np.ndarray) -> np.ndarray:
    """(P, R) p-values of compliances on x: Paule-Mandel by bisection, Knapp-Hartung t."""
    k, m = drawn.values.shape[1:]
    z = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    out = []
    for j in range(1, m):
        y, v = drawn.values[..., j], drawn.cov[..., j, j]
        low = np.zeros(len(y))
        high = np.full(len(y), 4.0 * y.var() + 4.0 * v.max())
        none = _line(y, v, z, low)[0] <= k - 2
        for _ in range(80):
            middle = (low + high) / 2.0
            above = _line(y, v, z, middle)[0] > k - 2
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        q, slope, unit = _line(y, v, z, np.where(none, 0.0, low))
        out.append(2.0 * stdtr(k - 2, -np.abs(slope) / np.sqrt(unit * q / (k - 2))))
    return np.array(out)


def _line(y: np.ndarray, v: np.ndarray, z: np.ndarray, tau2: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cochran's Q of the residuals, slope, and its variance for weights 1 / (v + tau2)."""
    w = 1.0 / (v + tau2[:, None])
    total = w.sum(axis=1)
    a, b = (part - ((w * part).sum(axis=1) / total)[:, None] for part in (y, z))
    bottom = (w * b * b).sum(axis=1)
    slope = (w * a * b).sum(axis=1) / bottom
    return (w * (a - slope[:, None] * b) ** 2).sum(axis=1), slope, 1.0 / bottom


def draw(cell: IndependenceCell, rng: np.random.Generator, trials: int) -> tuple[Drawn, np.ndarray]:
    """Trials and their covariate."""
    shape, p = (trials, cell.sites), cell.mediators
    mean, sd = COMPLIANCE["faint" if cell.errors.startswith("faint") else "noisy"]
    x = rng.standard_normal(shape)
    n = np.full(shape, 20.0)
    if cell.errors == "skewed sizes":
        n = np.clip(np.round(25.0 * np.exp(0.8 * rng.standard_normal(shape))), 6.0, None)
    size = np.log(n) - np.log(n).mean(axis=1, keepdims=True)
    size = size / np.maximum(size.std(axis=1, keepdims=True), 1e-12)
    related = cell.state in (NULL[1], NULL[3], BROKEN[0], BROKEN[2], ALSO)
    rho = RELATED if related else 0.0
    about = size if cell.state == NULL[3] else x
    away = rho * about[..., None] + np.sqrt(1.0 - rho**2) * rng.standard_normal((*shape, p))
    g = mean + sd * away
    effect = EFFECT + SPREAD * rng.standard_normal((*shape, p))
    along = {NULL[2]: x[..., None], BROKEN[0]: x[..., None], BROKEN[1]: size[..., None], BROKEN[2]: away}
    effect = effect + CHANGE * along.get(cell.state, np.zeros(1))
    itt = (effect * g).sum(axis=-1) + (CHANGE if cell.state.startswith("direct effect") else 0.0)
    truth = np.concatenate([itt[..., None], g], axis=-1)
    return noisy(truth, n, rng, known=cell.errors == "variances known"), x


def noisy(
    truth: np.ndarray,
    n: np.ndarray,
    rng: np.random.Generator,
    *,
    known: bool,
    sd: float = 1.0,
    corr: float = CORR,
) -> Drawn:
    """Estimates and their covariance, with ``n`` people in each of two arms; ``sd`` is that of the outcome's errors."""
    m = truth.shape[-1]
    unit = np.array([sd, *[1.0] * (m - 1)])
    cov = (np.full((m, m), corr) + (1.0 - corr) * np.eye(m)) * np.outer(unit, unit)
    root = np.linalg.cholesky(cov)
    values = truth + rng.standard_normal(truth.shape) @ root.T * np.sqrt(2.0 / n)[..., None]
    if known:
        return Drawn(values, cov * (2.0 / n)[..., None, None], n)
    noise = sum(scatter(root, n, rng) / ((n - 1.0) * n)[..., None, None] for _ in range(2))
    return Drawn(values, noise, n)


def scatter(root: np.ndarray, n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Wishart matrices with n - 1 degrees of freedom (Bartlett)."""
    m = len(root)
    half = np.zeros((*n.shape, m, m))
    for i in range(m):
        half[..., i, i] = np.sqrt(rng.chisquare(n - 1.0 - i))
        half[..., i, :i] = rng.standard_normal((*n.shape, i))
    half = root @ half
    return half @ np.swapaxes(half, -1, -2)


# ------------------------------------------------------------------------------------ within sites

#: Subgroups per site and people in each arm of one.
CELLS = {"2 subgroups of 20": (2, 20), "2 subgroups of 10": (2, 10), "4 skewed subgroups": (4, 20)}
#: How much further the mediator moves in the last subgroup than in the others, and how much larger the effect is.
INSIDE = {
    "compliance differs": (0.8, 0.0),
    "effects differ": (0.0, 0.6),
    "nothing differs": (0.0, 0.0),
    "both differ": (0.8, 0.6),
}
#: Standard deviation of the outcome's errors and their correlation with the mediator's: a regression of one on the
#: other is at the effect, far above it and far below.
LAWS = {"errors along the effect": (1.0, 0.5), "errors above": (2.0, 0.8), "errors below": (1.5, -0.5)}


def inside(cell: IndependenceCell, rng: np.random.Generator, trials: int) -> list[Row]:
    """Rejections of `level_test`; random signs of the corrected scores, which are skewed, beside it."""
    kind, law = cell.errors.split(", ")
    cells, people = CELLS[kind]
    k, (further, more) = cell.sites, INSIDE[cell.state]
    shape = (trials, k, cells)
    last = np.arange(cells) == cells - 1
    g = 0.8 + 0.4 * rng.standard_normal((trials, k, 1)) + further * last
    itt = (EFFECT + SPREAD * rng.standard_normal((trials, k, 1)) + more * last) * g
    n = np.full(shape, float(people))
    if "skewed" in cell.errors:
        n = n * np.exp(0.8 * rng.standard_normal((trials, k, 1))) * np.exp(0.3 * rng.standard_normal(shape))
    n = np.clip(np.round(n), 4.0, None)
    sd, corr = LAWS[law]
    drawn = noisy(np.stack([itt, g], axis=-1), n, rng, known=False, sd=sd, corr=corr)
    score = pair_scores(drawn)
    found, signs = np.empty(trials), np.empty(trials)
    site, level = np.repeat(np.arange(k), cells), np.tile(np.arange(cells), k)
    arm = np.zeros(k * cells, dtype=np.int64)
    for r in range(trials):
        values, weight = drawn.values[r].reshape(-1, 2), (drawn.n[r] / 2.0).ravel()
        parts = level_test.level_contrasts(values, weight, site=site, arm=arm, level=level)
        found[r] = level_test.level_test(parts, draws=DRAWS, seed=r)[0].pvalue
        signs[r] = level_test._signs(score[r], DRAWS, r)[0]
    flat = Drawn(*(part.reshape(trials, k * cells, *part.shape[3:]) for part in vars(drawn).values()))
    parent = dict(enumerate(site.tolist()))
    for r in range(min(CHECKED, trials)):
        own = within_site.within_site_cells(
            flat.effects(r), parent, level=dict(enumerate(level.tolist())), draws=DRAWS, seed=r
        )
        np.testing.assert_allclose(own.table["score"], score[r], rtol=1e-9, atol=1e-12)
        assert own.test.pvalue == found[r]
    return [{"test": "subgroups", **rate(found)}, {"test": "signs of corrected scores", **rate(signs)}]


def pair_scores(drawn: Drawn) -> np.ndarray:
    """(R, K) sums over pairs of subgroups, written out pair by pair."""
    b, g = drawn.values[..., 0], drawn.values[..., 1]
    bg, gg = b * g - drawn.cov[..., 0, 1], g * g - drawn.cov[..., 1, 1]
    out = np.zeros(b.shape[:2])
    for c, d in itertools.combinations(range(b.shape[2]), 2):
        w = drawn.n[..., c] * drawn.n[..., d] / drawn.n.sum(axis=-1) / 2.0
        out += w * (bg[..., c] * g[..., d] + bg[..., d] * g[..., c])
        out -= w * (b[..., c] * gg[..., d] + b[..., d] * gg[..., c])
    return out

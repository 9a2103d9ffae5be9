"""Size and power of the tests of the surface E(itt | compliances): docs/validation/linearity.csv.

True compliances have mean .8 and standard deviation .3 or .15; mediator effects are one, or vary between sites with
standard deviation .3. Errors of itt and compliance are correlated 0 or .5. Covariances of errors are known (variance
.05 times a uniform number from .5 to 1.5, people in the order of 40 an arm) or estimated from 20 people an arm
(variance .1). Beside the tests stand least squares with an added square, and with an intercept. Cells of "detectable"
hold how often a violation of that size is found in a new trial (.8 if it is right), where there is such a size, and the
same for (z_.975 + z_.8) standard errors.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from msmmiv.diagnose.control_level import effect_by_control_mean
from msmmiv.diagnose.linearity import compare
from msmmiv.diagnose.null_surface import surface_rows
from msmmiv.diagnose.surface import Surface, SurfaceKind
from msmmiv.diagnose.zero_compliance import zero_compliance_sites
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import frozen
from msmmiv.moments.effects import SiteEffects
from tests.validation.study import Row

TRIALS = 400
SIZE, DRAWS = 0.05, 199
SITES = (12, 20, 40, 100)
MEAN, PEOPLE, KNOWN = 0.8, 20, 0.05
#: Direct effect, and bend of the mediator effect, of the power cells: half the mean itt; at one standard deviation of
#: compliance above its mean the effect is one and a half times that at the mean.
DIRECT, BEND = 0.5, 0.5


@dataclass(frozen=True)
class LinearityCell:
    """``truth``: "plane", "direct effect" or "curved"; ``kind``: which group of tests."""

    kind: str
    truth: str
    mediators: int
    sites: int
    spread: float
    vary: float
    correlation: float
    shape: str
    covariance: str


#: (spread, effects vary, correlation, shape, covariance): an eighth of all 2^5, every pair of values occurring.
DESIGNS = (
    (0.3, 0.0, 0.0, "normal", "known"),
    (0.3, 0.3, 0.5, "skewed", "known"),
    (0.3, 0.3, 0.5, "normal", "estimated"),
    (0.3, 0.3, 0.0, "skewed", "estimated"),
    (0.15, 0.0, 0.5, "normal", "known"),
    (0.15, 0.3, 0.0, "skewed", "known"),
    (0.15, 0.3, 0.5, "normal", "estimated"),
    (0.15, 0.0, 0.5, "skewed", "estimated"),
)
_MANY = (DESIGNS[1], DESIGNS[2], DESIGNS[5], DESIGNS[6])


def grid() -> list[LinearityCell]:
    """Every cell."""
    one = itertools.product(["surface"], ["plane"], (1,), SITES, DESIGNS)
    many = itertools.product(["surface"], ["plane"], (2, 3), SITES, _MANY)
    power = itertools.product(
        ["surface"], ["direct effect", "curved"], (1, 2), SITES, (DESIGNS[1], DESIGNS[2])
    )
    level = itertools.product(["control level"], ["plane", "curved"], (1,), SITES, DESIGNS[2:3] + DESIGNS[6:])
    zero = itertools.product(["zero"], ["plane", "direct effect"], (1,), (40, 100), DESIGNS)
    reach = itertools.product(["detectable"], ["plane"], (1,), SITES, DESIGNS[1:3])
    chained = itertools.chain(one, many, power, level, zero, reach)
    return [LinearityCell(*head, *design) for *head, design in chained]  # type: ignore[arg-type]


def simulate(cell: LinearityCell, seed: np.random.SeedSequence, trials: int) -> list[Row]:
    """Rows of one cell: shares of trials in which a test rejects at .05, of those in which it applies."""
    rng = np.random.default_rng(seed)
    if cell.mediators > 1 or cell.kind != "surface":
        trials = max(trials * 3 // 4, 2)
    found: dict[str, list[float]] = {}
    for _ in range(trials):
        for name, p in one_trial(cell, rng).items():
            found.setdefault(name, []).append(p)
    return [vars(cell) | rate(name, np.array(p)) for name, p in found.items()]


def rate(method: str, p: np.ndarray) -> Row:
    """Share of p-values below .05, with its simulation error."""
    have = p[np.isfinite(p)]
    share = float((have <= SIZE).mean()) if len(have) else float("nan")
    error = float(np.sqrt(share * (1.0 - share) / max(len(have), 1)))
    return {
        "method": method, "rejects": share, "rejects_se": error, "not_applicable": float(1.0 - len(have) / len(p)),
        "replications": len(p),
    }  # fmt: skip


def one_trial(cell: LinearityCell, rng: np.random.Generator) -> dict[str, float]:
    """p-values of one trial."""
    if cell.kind == "control level":
        return {"effect by control mean": control_level(cell, rng)}
    effects = draw(cell, rng)
    if cell.kind == "detectable":
        return detectable(effects, rng)
    if cell.kind == "zero":
        return {"sites without compliance": zero_compliance_sites(effects).test.pvalue}
    kinds: tuple[tuple[str, SurfaceKind, bool], ...] = (
        (
            ("origin", "origin", False),
            ("curvature", "curvature", True),
            ("curvature, no intercept", "curvature", False),
        )
        if cell.mediators == 1
        else (("origin", "origin", False), ("RESET", "reset", True), ("vech", "vech", True))
    )
    out = {name: surface(effects, kind, direct_effect=free) for name, kind, free in kinds}
    return out | naive(effects)


def surface(effects: SiteEffects, kind: SurfaceKind, *, direct_effect: bool) -> float:
    """p-value of `surface_test`, without its power and figure."""
    plain = Surface.of(surface_rows(effects), kind, effects.mediators, direct_effect=direct_effect)
    if plain.unusable():
        return float("nan")
    found = compare(plain.weighted(), draws=DRAWS, seed=0, power=False)
    return float("nan") if found.reason else found.pvalue


def detectable(effects: SiteEffects, rng: np.random.Generator) -> dict[str, float]:
    """Zero where one new trial with a direct effect of the size that is said to be detectable rejects, else one."""
    plain = Surface.of(surface_rows(effects), "origin", effects.mediators, direct_effect=False)
    surface = plain.weighted()
    found = compare(surface, draws=DRAWS, seed=int(rng.integers(2**31)))
    violation = None if found.reason or found.null is None else surface.violation(found.null)
    formula = 2.8016 * float((found.found.std_errors[0] * np.abs(surface.added_unit))[0])
    out = {}
    for name, size in (("simulated", found.detectable), ("standard errors", formula)):
        p = float("nan")
        if violation is not None and found.null is not None and np.isfinite(size):
            drawn = found.null.draw(rng, 1, violation.of(float(np.sign(violation.size)) * size))
            p = float(not surface.fit(drawn).statistic[0] >= found.critical)
        out[f"origin, detectable by {name}"] = p
    return out


def naive(effects: SiteEffects) -> dict[str, float]:
    """Least squares without correction: t test of an intercept, and F test of added squares."""
    from scipy.special import fdtrc

    values = effects.estimates[:, 0]
    y, x = values[:, 0], values[:, 1:]
    one = np.ones((len(y), 1))

    def rss(columns: np.ndarray) -> float:
        return float(((y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]) ** 2).sum())

    def p(base: np.ndarray, more: np.ndarray) -> float:
        both = np.column_stack([base, more])
        df = len(y) - both.shape[1]
        return float(fdtrc(more.shape[1], df, (rss(base) - rss(both)) / more.shape[1] / (rss(both) / df)))

    return {"least squares, intercept": p(x, one), "least squares, squares, no intercept": p(x, x**2)}


def compliances(cell: LinearityCell, rng: np.random.Generator) -> np.ndarray:
    """(K, P) true compliances."""
    shape = (cell.sites, cell.mediators)
    z = rng.standard_normal(shape) if cell.shape == "normal" else rng.standard_exponential(shape) - 1.0
    return MEAN + cell.spread * z


def truth(cell: LinearityCell, g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(K,) true itt."""
    y = (g * (1.0 + cell.vary * rng.standard_normal(g.shape))).sum(axis=1)
    if cell.truth == "direct effect":
        y = y + DIRECT * MEAN * cell.mediators
    if cell.truth == "curved":
        total, middle = g.sum(axis=1), MEAN * cell.mediators
        y = y + BEND * total * (total - middle) / (cell.spread * np.sqrt(cell.mediators))
    return y


def draw(cell: LinearityCell, rng: np.random.Generator) -> SiteEffects:
    """Estimates of one trial with the covariance of their errors."""
    k, m = cell.sites, 1 + cell.mediators
    g = compliances(cell, rng)
    true = np.column_stack([truth(cell, g, rng), g])
    unit = np.eye(m)
    unit[0, 1:] = unit[1:, 0] = cell.correlation / np.sqrt(cell.mediators)
    half = np.linalg.cholesky(unit)
    if cell.covariance == "known":
        size = KNOWN * rng.uniform(0.5, 1.5, k)
        cov = size[:, None, None] * unit
    else:
        people = (
            rng.standard_normal((k, 2, PEOPLE - 1, m)) @ half.T
        )  # scatter of normal people is independent of means
        size = np.full(k, 2.0 / PEOPLE)
        cov = np.einsum("kani,kanj->kij", people, people) / ((PEOPLE - 1) * PEOPLE)
    values = true + np.sqrt(size)[:, None] * (rng.standard_normal((k, m)) @ half.T)
    return SiteEffects(
        sites=tuple(range(k)), contrasts=("",), mediators=tuple(f"m{j}" for j in range(1, m)), outcome="y",
        estimates=frozen(values[:, None]), cov=frozen(cov[:, None, :, None, :]), precision=frozen(np.ones((k, 1, 1))),
        n=frozen(np.full(k, 2.0 * PEOPLE)), cov_type="unbiased", df=frozen(np.full(k, 2.0 * PEOPLE - 2.0)),
    )  # fmt: skip


def control_level(cell: LinearityCell, rng: np.random.Generator) -> float:
    """People of two arms whose control level varies between sites with standard deviation .5."""
    import pandas as pd

    import msmmiv as mm

    k, n = cell.sites, PEOPLE
    g = compliances(cell, rng)
    level = 0.5 * rng.standard_normal(k)
    itt = truth(LinearityCell(**{**vars(cell), "truth": "plane"}), g, rng)
    if cell.truth == "curved":  # one standard deviation of the level adds half to the effect
        itt = itt + BEND * g[:, 0] * level / 0.5
    unit = np.array([[1.0, cell.correlation], [cell.correlation, 1.0]])
    people = rng.standard_normal((k, 2, n, 2)) @ np.linalg.cholesky(unit).T
    t = np.array([0.0, 1.0])[None, :, None]
    y = people[..., 0] + t * itt[:, None, None]
    m = people[..., 1] + level[:, None, None] + t * g[:, 0][:, None, None]
    site, arm, _ = np.indices(y.shape)
    frame = pd.DataFrame({"s": site.ravel(), "t": arm.ravel(), "y": y.ravel(), "m": m.ravel()})
    design = mm.Design(outcome="y", treatment="t", mediators=["m"], site="s")
    found = effect_by_control_mean(mm.Moments.from_data(frame, design), draws=DRAWS).test
    return float("nan") if isinstance(found, NotApplicable) else found.pvalue

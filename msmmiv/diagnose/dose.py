"""Assumption (iii): whether mediators are linear in the treatment, where it has more than two values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Label
from msmmiv.diagnose.assignment import noncentrality
from msmmiv.diagnose.evidence import Evidence
from msmmiv.errors import DataError, MomentsInsufficient, count
from msmmiv.inference.tests import NotApplicable, TestResult, f_test
from msmmiv.linalg import Array, frozen, gram_pinv
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["DoseLine", "dose_line"]

CHECK = "dose.neighbouring_arms"
_NAME = "slopes between neighbouring arms"
#: Fewest degrees of freedom per tested bend.
FEWEST_DF = 5.0


@dataclass(frozen=True, eq=False)
class DoseLine:
    """Bends of the mediators at the inner arms, pooled over sites.

    Attributes
    ----------
    mediators : tuple of str
    doses : (A,) array
        Numeric labels of the arms in ascending order; empty where there are none.
    slope : (P,) array
        Mediator per unit of dose, pooled within sites, a line being taken.
    bend, std_error : (A - 2, P) arrays
        Change of the slope at each inner dose; NaN where no site tells.
    sites : (K,) tuple
        Sites with three arms or more.
    joint : TestStatistic or NotApplicable
    tests : tuple of TestStatistic or NotApplicable
        One per mediator, over its bends.
    detectable : (P,) array
        Smallest change of slope, at the inner dose where least is seen, found with 80% power by the joint test.
    noise : str
        Which sampling covariance was used.
    """

    mediators: tuple[str, ...]
    doses: Array
    slope: Array
    bend: Array
    std_error: Array
    sites: tuple[Label, ...]
    joint: TestResult
    tests: tuple[TestResult, ...]
    detectable: Array
    noise: str

    def to_frame(self) -> pd.DataFrame:
        """One row per mediator and inner dose: slope, bend, std_error, detectable, and the mediator's p_value."""
        rows = [
            {
                "mediator": name, "dose": self.doses[j + 1], "slope": self.slope[p], "bend": self.bend[j, p],
                "std_error": self.std_error[j, p], "detectable": self.detectable[p], "p_value": self.tests[p].pvalue,
            }
            for p, name in enumerate(self.mediators) for j in range(len(self.bend))
        ]  # fmt: skip
        return pd.DataFrame(
            rows, columns=["mediator", "dose", "slope", "bend", "std_error", "detectable", "p_value"]
        )

    def evidence(self) -> tuple[Evidence, ...]:
        """The joint test of all bends of all mediators."""
        if isinstance(self.joint, NotApplicable):
            return (Evidence(CHECK, self.joint, "evidence"),)
        words = [f"{m} {s:.3g}" for m, s in zip(self.mediators, self.slope, strict=True)]
        seen = [f"{d:.3g} in {m}" for m, d in zip(self.mediators, self.detectable, strict=True)]
        reading = (
            f"Mediators per unit of dose: {', '.join(words)}. A small p-value says that slopes between neighbouring "
            "arms differ: declare the treatment as arms, which assumes no line."
        )
        return (
            Evidence(CHECK, self.joint, "evidence", reading,
                     f"A change of slope of {' or '.join(seen)} at one inner dose would be found with 80% power."),
        )  # fmt: skip


def dose_line(data: Moments | SiteEffects) -> DoseLine:
    """Test that every mediator is linear in the numeric labels of three or more arms.

    Use it before a treatment with several levels is declared as a dose. Sites may lack arms; those with at least
    three, the control among them, count, and each keeps a slope of its own.

    Parameters
    ----------
    data : Moments or SiteEffects
        From moments, the noise of clusters is heeded where they are declared.

    Notes
    -----
    In site s let m_s be the arm means, N the rows of each arm and h_s the hinges (t - t_j)_+ at inner doses, less
    their N-weighted projection on (1, t). The bends (sum h'N h)^{-1} sum h'N m have, under linearity within sites, mean
    zero whatever the sites' slopes; the covariance of each h'N m follows from the joint covariance of the site's
    contrasts (`SiteEffects.cov`). The Wald statistic is scaled like Hotelling's, with Satterthwaite's degrees of
    freedom over sites.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"s": np.repeat(range(20), 30), "hours": np.tile([0, 1, 2], 200), "y": rng.normal(size=600)})
    >>> df["m"] = np.sqrt(df["hours"]) + 0.3 * rng.normal(size=600)
    >>> d = mm.Design(outcome="y", treatment="hours", mediators="m", site="s", control=0)
    >>> found = dose_line(mm.Moments.from_data(df, d))
    >>> found.joint.pvalue < 0.001, found.bend.round(1).tolist()
    (True, [[-0.6]])
    """
    design_arms = _arms(data)
    if isinstance(design_arms, str):
        return _none(data, design_arms)
    order = np.argsort(design_arms)
    if isinstance(data, SiteEffects):  # told apart above
        return _none(data, "site effects do not carry the label of the control")
    try:
        effects = SiteEffects.from_moments(data, cov_type="pooled" if data.clusters else "unbiased")
    except (DataError, MomentsInsufficient) as error:
        return _none(data, str(error))
    return _fitted(effects, design_arms, order, _spare(data, effects))


def _spare(moments: Moments, effects: SiteEffects) -> tuple[Array, Array]:
    """(K, A) rows (clusters) of each arm, and those less one per cell, in the order of the effects' sites."""
    a = len(moments.arms)
    merged = moments.by_arm()
    count = np.zeros((moments.n_sites, a))
    np.add.at(count, (moments.site, moments.arm), 1.0 if moments.clusters else moments.n)
    cells = np.zeros_like(count)
    np.add.at(cells, (merged.site, merged.arm), 1.0)
    at = [moments.sites.index(s) for s in effects.sites]
    return count[at], (count - cells)[at]


def _arms(data: Moments | SiteEffects) -> Array | str:
    """(A,) numeric labels, control first; or why there are none."""
    if isinstance(data, SiteEffects):
        if len(data.contrasts) == 1:
            return "one contrast: two arms are linear by construction, and of a dose only a line is known"
        return "site effects do not carry the label of the control: give the moments, which know all labels"
    labels = data.arms
    if not labels:
        return (
            "the treatment is a dose, and moments hold nothing of it beyond a line: declare its values as arms, or use "
            "dose_curvature on the rows"
        )
    if len(labels) == 2:
        return "two arms: linear by construction"
    numbers = [v for v in labels if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(labels):
        return "the arms' labels are not numbers: arms enter one by one and no line is assumed"
    return np.array(numbers, dtype=float)


def _none(data: Moments | SiteEffects, why: str) -> DoseLine:
    names = data.design.mediators if isinstance(data, Moments) else data.mediators
    none, empty = NotApplicable(_NAME, why), np.full(len(names), np.nan)
    return DoseLine(
        names, frozen([]), empty, np.zeros((0, len(names))), np.zeros((0, len(names))), (), none,
        (none,) * len(names), empty, "",
    )  # fmt: skip


def _fitted(effects: SiteEffects, doses: Array, order: Any, spare: tuple[Array, Array]) -> DoseLine:
    """All of it, from the joint covariance of each site's contrasts."""
    p, bends = len(effects.mediators), len(doses) - 2
    knots = doses[order][1:-1]
    gram, score, parts = np.zeros((bends, bends)), np.zeros((bends, p)), []
    loads = []
    run, rise, used = 0.0, np.zeros(p), []
    for k in range(len(effects.sites)):
        here: npt.NDArray[np.bool_] = np.array(
            np.isfinite(effects.estimates[k, :, 1:]).all(axis=1), dtype=np.bool_
        )
        load, inside, line, spread = _loads(effects.precision[k], here, doses, knots)
        g = np.where(here[:, None], effects.estimates[k, :, 1:], 0.0)
        run, rise = run + spread, rise + line @ g
        if here.sum() < 2:
            continue
        both = here[:, None, None, None] & here[None, None, :, None]
        cov = np.where(both, effects.cov[k, :, 1:, :, 1:], 0.0)
        gram, score = gram + inside, score + load @ g
        loads.append(load)
        parts.append(np.einsum("jd,dpeq,ie->jpiq", load, cov, load))
        used.append(k)
    slope = rise / run if run > 0 else np.full(p, np.nan)
    inverse, rank = gram_pinv(gram[None])
    known = np.abs(np.diag(inverse[0] @ gram) - 1.0) < 1e-8
    if not rank[0]:
        return _none_fitted(effects, doses[order], slope, "no site has three arms, the control among them")
    blocks = np.einsum("ij,kjplq,ml->kipmq", inverse[0], np.array(parts), inverse[0])
    bend, cov = inverse[0] @ score, blocks.sum(axis=0)
    variance = np.einsum("jpjp->jp", cov)
    error = np.sqrt(np.where(variance > 0, variance, np.nan))
    df = _satterthwaite(inverse[0] @ np.array(loads), spare[0][used], spare[1][used], effects.cov_type)
    joint, law = _wald(_NAME, bend, cov, df)
    tests = tuple(
        _wald(f"{_NAME}: {name}", bend[:, [i]], cov[:, [i]][:, :, :, [i]], df)[0]
        for i, name in enumerate(effects.mediators)
    )
    detectable = np.full(p, np.nan)
    if law is not None:
        curve = np.einsum("jpjp->jp", law[2].reshape(cov.shape))
        worst = np.where(curve > 0, curve, np.inf).min(axis=0)
        detectable = np.sqrt(noncentrality(law[0], law[1]) / worst)
    shown = known[:, None]
    return DoseLine(
        effects.mediators, frozen(doses[order]), frozen(slope), frozen(np.where(shown, bend, np.nan)),
        frozen(np.where(shown, error, np.nan)), tuple(effects.sites[k] for k in used), joint, tests,
        frozen(detectable), effects.cov_type,
    )  # fmt: skip


def _none_fitted(effects: SiteEffects, doses: Array, slope: Array, why: str) -> DoseLine:
    none, shape = NotApplicable(_NAME, why), (len(doses) - 2, len(effects.mediators))
    empty = np.full(shape, np.nan)
    return DoseLine(
        effects.mediators, frozen(doses), frozen(slope), empty, empty, (), none, (none,) * shape[1], empty[0],
        effects.cov_type,
    )  # fmt: skip


def _loads(precision: Array, here: Any, doses: Array, knots: Array) -> tuple[Array, Array, Array, float]:
    """(J, D) loads of the contrasts in h'N m, (J, J) h'N h, (D,) loads of the line, and t'N t.

    The precision of the contrasts is N less its projection on the intercept, all that is needed: with the control as
    the origin, x'N y over arms, both free of their means, is x' precision y over contrasts.
    """
    omega = np.where(here[:, None] & here[None, :], precision, 0.0)
    t = np.where(here, doses[1:] - doses[0], 0.0)
    hinge = np.maximum(doses[:, None] - knots, 0.0)
    h = np.where(here[:, None], hinge[1:] - hinge[0], 0.0)
    line = t @ omega
    spread = float(line @ t)
    if spread > 0:
        h = h - np.outer(t, line @ h) / spread
    load = h.T @ omega
    inside = load @ h
    # What is left after the line is rounding where a hinge is a line over the arms that are there.
    tiny = np.abs(np.diag(inside)) <= 1e-10 * np.einsum("dj,de,ej->j", hinge[1:], omega, hinge[1:])
    load, inside = np.where(tiny[:, None], 0.0, load), np.where(tiny[:, None] | tiny[None, :], 0.0, inside)
    return load, inside, line, spread


def _satterthwaite(loads: Array, units: Array, left: Array, kind: str) -> float:
    """Degrees of freedom of the bend that has fewest, taking units as equally variable in all arms.

    ``loads`` (S, J, D) are those of the contrasts, so that the control has minus their sum.
    """
    every = np.concatenate([-loads.sum(axis=2, keepdims=True), loads], axis=2)
    part = every**2 / np.where(units > 0, units, np.inf)[:, None, :]
    arm = np.maximum(left.sum(axis=0), 1e-9)
    if kind == "pooled":
        square = (part.sum(axis=0) ** 2 / arm).sum(axis=1)
    else:
        # A cell of one unit borrows the variance of its arm.
        square = (part**2 / np.where(left > 0, left, arm)[:, None, :]).sum(axis=(0, 2))
    total = part.sum(axis=(0, 2)) ** 2
    return float((total / np.where(square > 0, square, np.inf))[square > 0].min(initial=np.inf))


def _wald(
    name: str, bend: Array, cov: Array, df: float
) -> tuple[TestResult, tuple[int, float, Array] | None]:
    size = bend.size
    flat = cov.reshape(size, size)
    scale = np.sqrt(np.clip(np.diag(flat), 0.0, None))
    safe = np.where(scale > 0, scale, 1.0)
    if not np.isfinite(flat).all():
        return NotApplicable(name, "a site has no sampling covariance: use cov_type='unbiased'"), None
    inverse, rank = gram_pinv((flat / np.outer(safe, safe))[None])
    q = int(rank[0])
    if q == 0:
        return NotApplicable(name, "the mediators do not vary inside the arms"), None
    if not df - q + 1.0 >= FEWEST_DF * q:
        return NotApplicable(name, f"too few sites: {df:.0f} degrees of freedom for {count(q, 'bend')}"), None
    full = inverse[0] / np.outer(safe, safe)
    stat = float(bend.ravel() @ full @ bend.ravel())
    denominator = float("inf") if np.isinf(df) else df - q + 1.0
    ratio = 1.0 if np.isinf(df) else denominator / df
    null = "slopes between neighbouring arms are equal, per unit of their labels"
    test = f_test(name, null, stat / q * ratio, q, min(denominator, 1e9))
    return test, (q, min(denominator, 1e9), full)

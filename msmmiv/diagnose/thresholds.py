"""Published critical values beside first-stage statistics: where they exist, and why not where they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.spectrum import Spectrum
from msmmiv.diagnose.strength import no_classical
from msmmiv.estimate.system import System
from msmmiv.inference.critical_values import (
    NoiseLaw,
    effective_f_critical_value,
    min_eigenvalue_critical_value,
)
from msmmiv.inference.rank_tests import cragg_donald_test
from msmmiv.inference.stock_yogo import stock_yogo
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array

__all__ = ["thresholds"]

BIAS = (0.05, 0.10, 0.20, 0.30)
SIZE = (0.10, 0.15, 0.20, 0.25)
#: Directions over which the least favourable noise is sought, per mediator.
DIRECTIONS = 24
_COLUMNS = ["statistic", "value", "criterion", "critical", "reason"]


def thresholds(c: Compliances, system: System | None, found: Spectrum | None) -> pd.DataFrame:
    """Critical values at 5% for the effective F (P = 1), the smallest strength (P > 1) and Cragg-Donald's F.

    None of them decides anything; they say how large a statistic must be before a given bias (or size of the 2SLS
    t test) can be ruled out.

    Returns
    -------
    DataFrame
        ``statistic, value, criterion, critical, reason``; NaN with a reason where nothing is tabulated.
    """
    rows = [] if found is None else _robust(c, found)
    if system is not None and not no_classical(system):
        f = cragg_donald_test(system.reduced_form).stat / system.n_excluded
        rows += _tabulated(
            f, system.n_excluded, c.n_mediators, clustered=bool(system.within.moments.clusters)
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def _robust(c: Compliances, found: Spectrum) -> list[dict[str, object]]:
    value, p = float(found.strength[-1]), c.n_mediators
    if p == 1:
        law = c.projection.law(c.cov[:, :, 0, :, 0])
        name = "Effective F (Montiel Olea-Pflueger)"
        values = {b: effective_f_critical_value(law, bias=b) for b in BIAS}
    else:
        name = "Smallest strength (Lewis-Mertens)"
        law = _least_favourable(c)
        values = {b: min_eigenvalue_critical_value(law, p, bias=b) for b in BIAS}
    return [
        {"statistic": name, "value": value, "criterion": f"bias {b:.0%}", "critical": v, "reason": ""}
        for b, v in values.items()
    ]


def _least_favourable(c: Compliances) -> NoiseLaw:
    """Each power sum of the noise at its largest over combinations of mediators, the trace at one."""
    unit = np.linalg.inv(np.linalg.cholesky(c.expected_noise)).T
    laws = []
    for x in _sphere(c.n_mediators):
        a = unit @ x
        laws.append(c.projection.law(np.einsum("p,kdpeq,q->kde", a, c.cov, a)))
    return NoiseLaw(
        trace=1.0,
        squares=max(law.squares / law.trace**2 for law in laws),
        cubes=max(law.cubes / law.trace**3 for law in laws),
        top=max(law.top / law.trace for law in laws),
    )


def _sphere(p: int) -> Array:
    """Directions, evenly spread for two mediators and at random (always the same) for more."""
    if p == 2:
        angle = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        return np.column_stack([np.cos(angle), np.sin(angle)])
    drawn = np.random.default_rng(0).standard_normal((DIRECTIONS * p, p))
    points = np.concatenate([np.eye(p), drawn])
    out: Array = points / np.linalg.norm(points, axis=1, keepdims=True)
    return out


def _tabulated(value: float, instruments: int, p: int, *, clustered: bool) -> list[dict[str, object]]:
    """Stock and Yogo's critical values, for homoskedastic errors only."""
    name, out = "Cragg-Donald F (Stock-Yogo, homoskedastic errors only)", []
    if clustered:
        why = "they hold for independent rows of one variance, and the design declares clusters"
        nothing = {"critical": float("nan"), "reason": why}
        return [{"statistic": name, "value": value, "criterion": "bias and size"} | nothing]
    wanted = [("bias", b) for b in BIAS] + [("size", s) for s in SIZE]
    for criterion, limit in wanted:
        got = stock_yogo(instruments, p, criterion=criterion, limit=limit)  # type: ignore[arg-type]
        reason = got.reason if isinstance(got, NotApplicable) else ""
        critical = float("nan") if isinstance(got, NotApplicable) else got
        out.append({
            "statistic": name, "value": value, "criterion": f"{criterion} {limit:.0%}", "critical": critical,
            "reason": reason,
        })  # fmt: skip
    return out

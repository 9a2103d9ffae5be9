"""Whether the effect of the mediator goes with its level among controls, as it does where the outcome is not linear."""

from __future__ import annotations

import numpy as np

from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.null_surface import NullSurface, SurfaceRows, plane_scatter
from msmmiv.errors import ChoiceError
from msmmiv.estimate.between.added_terms import AddedTerms, Term, added_terms
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.linalg import Array, frozen
from msmmiv.moments.cells import Moments

__all__ = ["effect_by_control_mean", "level_rows"]

_CHECK, _NAME = "linearity.effect_by_control_mean", "effect by the level of the mediator among controls"
_FEWEST = 40
_REACH = 1.959963984540054 + 0.8416212335729143
_BASE, _ADDED = [Term("compliance", (1,)), Term("direct_effect")], [Term("compliance x level", (1, 2))]


def effect_by_control_mean(moments: Moments, *, draws: int = 999, seed: int = 0) -> Evidence:
    """Test whether compliance moves the outcome more where controls have more (or less) of the mediator.

    Use it for the linearity of the outcome in the mediator (assumption iv): with an outcome that bends, a step from a
    high level does not do what the same step from a low level does. One mediator, two arms.

    Parameters
    ----------
    moments : Moments
    draws, seed : int
        Simulated trials behind the p-value.

    Returns
    -------
    Evidence
        Not applicable, with the reason, where the sampling error of control means is not known here: several
        mediators or arms, blocks, clusters, weights that are not copies.

    Raises
    ------
    ChoiceError
        Fewer than 19 draws.

    Notes
    -----
    itt_s = d + (b + c level_s) g_s with c = 0 under the null; level_s is the control mean of the mediator less its
    mean over sites. Its error goes with those of compliance and itt, which share its controls: Cov(level, g) = -S0/n0
    with the controls' variance S0, and likewise with itt. Corrected scores (`added_terms`), equal weights, p-value
    from simulated trials (`NullSurface`, with the level as a compliance of no effect). A direct effect that goes with
    the level of controls looks the same.

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(effect_by_control_mean(mm.data.star()).test)
    effect by the level of the mediator among controls: not applicable (the error of control means is not computed \
with clusters)
    """
    if draws < 19:
        raise ChoiceError(f"draws={draws} cannot give a p-value of 0.05; take 19 at least, better 999.")
    rows = level_rows(moments)
    if isinstance(rows, NotApplicable):
        return Evidence(_CHECK, rows)
    unit = np.sqrt((rows.values**2).mean(axis=0))
    unit = np.where(unit > 0, unit, 1.0)

    def fit(values: Array, *, sensitivity: bool = False) -> AddedTerms:
        cov = rows.cov / np.outer(unit, unit)
        return added_terms(values / unit, cov, base=_BASE, added=_ADDED, sensitivity=sensitivity)

    found = fit(rows.values, sensitivity=True)
    if not found.ok or not np.isfinite(found.statistic):
        reason = (
            "compliance varies no more than noise" if not found.ok else "the scores of the sites do not vary"
        )
        return Evidence(_CHECK, NotApplicable(_NAME, reason))
    slope, direct = unit[0] * found.base_coefficients / [unit[1], 1.0]
    contrast = np.array([1.0, -slope, 0.0])
    noise = np.einsum("rab,a,b->r", rows.cov, contrast, contrast)
    scatter = plane_scatter(rows.values @ contrast - direct, noise, 2)
    null = NullSurface(rows, float(direct), frozen([slope, 0.0]), scatter)
    rng = np.random.default_rng(seed)
    sizes = np.concatenate([fit(null.draw(rng, part)).statistic for part in null.parts(draws, 3)])
    sizes = sizes[np.isfinite(sizes)]
    if 2 * len(sizes) < draws:
        return Evidence(
            _CHECK, NotApplicable(_NAME, "compliance varies no more than noise in most trials like this one")
        )
    p = float((1 + (sizes >= found.statistic * (1.0 - 1e-12)).sum()) / (1 + len(sizes)))
    test = TestStatistic(
        _NAME,
        "the mediator effect does not go with its level among controls",
        float(found.statistic),
        p,
        1,
        law=f"simulated where the null holds, {len(sizes)} draws",
    )
    scale = float(unit[0] / (unit[1] * unit[2]))
    return Evidence(_CHECK, test, "evidence", *_words(moments, rows, found, scale, float(slope)))


def _words(
    moments: Moments, rows: SurfaceRows, found: AddedTerms, scale: float, slope: float
) -> tuple[str, str]:
    """What was found and what could have been."""
    name = moments.design.mediators[0]
    spread = float(rows.values[:, 2].std(ddof=1))
    change, error = float(found.coefficients[0]) * scale, float(found.std_errors[0]) * scale
    if not np.isfinite(change):
        return "Sampling error leaves no estimate of the change, only its score.", ""
    reading = (
        f"Per unit of {name} among controls its effect changes by {change:.3g} (standard error {error:.2g}); it is "
        f"{slope:.3g} at their mean level. A direct effect that goes with that level looks the same."
    )
    detectable = (
        f"A change by {_REACH * error:.3g} per unit is found with 80% power; control means have a standard deviation "
        f"of {spread:.3g}."
    )
    return reading, detectable


def level_rows(moments: Moments) -> SurfaceRows | NotApplicable:
    """Rows (itt, compliance, control mean less its average) with the covariance that shared controls give them."""
    design = moments.design
    reason = (
        "several mediators" if len(design.mediators) > 1
        else "a dose" if not moments.arms
        else "more than two arms" if len(moments.arms) != 2
        else "blocks inside sites" if design.block
        else "clusters" if design.cluster
        else "covariates" if design.covariates
        else "weights that are not copies" if design.weights and design.weight_kind != "frequency"
        else ""
    )  # fmt: skip
    if reason:
        return NotApplicable(_NAME, f"the error of control means is not computed with {reason}")
    cells = moments.by_arm()
    pick = [cells.variables.index(design.outcome), cells.variables.index(design.mediators[0])]
    mean = np.full((2, cells.n_sites, 2), np.nan)
    noise = np.full((2, cells.n_sites, 2, 2), np.nan)
    mean[cells.arm, cells.site] = cells.first.mean[:, pick]
    with np.errstate(divide="ignore", invalid="ignore"):
        of_mean = cells.first.scatter[:, pick][:, :, pick] / ((cells.n - 1.0) * cells.n)[:, None, None]
    noise[cells.arm, cells.site] = np.where((cells.n > 1)[:, None, None], of_mean, np.nan)
    use = np.isfinite(noise).all(axis=(0, 2, 3))
    k = int(use.sum())
    if k < _FEWEST:
        return NotApplicable(_NAME, f"too few sites: {k}; the test is made for {_FEWEST} or more")
    mean, noise = mean[:, use], noise[:, use]
    level = mean[0, :, 1] - mean[0, :, 1].mean()
    values = np.column_stack([mean[1] - mean[0], level])
    cov = np.zeros((k, 3, 3))
    cov[:, :2, :2] = noise.sum(axis=0)
    cov[:, 2, 2] = noise[0, :, 1, 1]
    cov[:, :2, 2] = cov[:, 2, :2] = -noise[0, :, :, 1]
    return SurfaceRows(
        values=frozen(values),
        cov=frozen(cov),
        site=np.arange(k),
        joint=frozen(cov[:, None, :, None, :]),
        have=np.ones((k, 1), dtype=bool),
    )

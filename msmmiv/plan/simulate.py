"""Simulated trials that violate exactly one assumption, with their truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import count, whole_number
from msmmiv.linalg import Array, dependent_columns, frozen, gram_solve
from msmmiv.moments.assembly import CellMoments
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.flow import SampleFlow
from msmmiv.plan.options import recipe_of
from msmmiv.plan.process import Recipe, Sites, contrasts, draw_people, draw_sites
from msmmiv.plan.violations import Violation

__all__ = ["SimulatedTrial", "Truth", "Violation", "simulate", "simulate_many"]

#: Rows that are drawn at once by `simulate_many`.
_ROWS = 400_000


@dataclass(frozen=True, eq=False)
class Truth:
    """What a simulated trial is made of, without sampling error.

    Attributes
    ----------
    mediator_effects : (P,) array
        Average effect of each mediator over all sites there could be. In a cascade: past the other mediators.
    direct_effect : float
        What assignment does past the mediators.
    theta : float
        What one unit of the first mediator adds to the second.
    compliances : (K, D, P) array
        Of each site and arm (the slope on a dose), with endless people in it.
    itt : (K, D) array
        Likewise.
    site_effects : (K, P) array
        Effect of moving each mediator from its control level to its treated one, before anything else is violated.
    weights : (K, D, D) array
        Cross-products of the treatment contrasts, as 2SLS has them.
    """

    mediator_effects: Array
    direct_effect: float
    theta: float
    compliances: Array
    itt: Array
    site_effects: Array
    weights: Array

    @property
    def limit(self) -> Array:
        """(P,) what 2SLS without covariates tends to as the people in these sites grow in number; NaN if not unique.

        A^-1 sum_s g_s' Omega_s itt_s with A = sum_s g_s' Omega_s g_s.
        """
        gram = np.einsum("kdp,kde,keq->pq", self.compliances, self.weights, self.compliances)
        if dependent_columns(gram):
            return frozen(np.full(len(gram), np.nan))
        return frozen(gram_solve(gram, np.einsum("kdp,kde,ke->p", self.compliances, self.weights, self.itt)))

    @property
    def bias(self) -> Array:
        """(P,) `limit` less the average effects: the chance of which sites were drawn, and the violation."""
        return frozen(self.limit - self.mediator_effects)

    @property
    def total_effects(self) -> Array:
        """(P,) effects with what the first mediator passes on to the second."""
        out = self.mediator_effects.copy()
        if self.theta:
            out[0] += self.theta * out[1]
        return frozen(out)


@dataclass(frozen=True, eq=False)
class SimulatedTrial:
    """People of a trial, the roles of the columns, and the truth.

    Attributes
    ----------
    frame : DataFrame
        ``site, t, m1.., y, x1.., z``; z is a covariate of the site.
    design : Design
        With the x as covariates.
    truth : Truth
    violation : str or None
        The assumption that does not hold.
    variant : str
    strength : float
    words : str
        What happens.
    seed : int
    """

    frame: pd.DataFrame
    design: Design
    truth: Truth
    violation: str | None
    variant: str
    strength: float
    words: str
    seed: int
    made: Moments | None = None

    @cached_property
    def moments(self) -> Moments:
        """Moments of the rows, covariates included."""
        return self.made if self.made is not None else Moments.from_data(self.frame, self.design)

    @cached_property
    def effects(self) -> SiteEffects:
        """Site effects, each with a sampling covariance of its own."""
        return SiteEffects.from_moments(self.moments, cov_type="unbiased")

    def __repr__(self) -> str:
        what = f"violates {self.violation}: {self.words}" if self.violation else self.words
        sites, people = (
            count(self.frame["site"].nunique(), "site"),
            count(len(self.frame), "person", "people"),
        )
        return f"SimulatedTrial({sites}, {people}, {count(len(self.design.mediators), 'mediator')}; {what})"


def simulate(
    violation: Violation | None = None,
    *,
    variant: str | None = None,
    strength: float | None = None,
    seed: int = 0,
    **options: Any,
) -> SimulatedTrial:
    """A trial in which all assumptions hold but one, or all of them.

    Use it to see what a violation does to an estimate, and whether a check sees it. The process is the same whatever
    is violated; people's mediators and outcomes have a common cause, so that least squares is biased.

    Parameters
    ----------
    violation : {"i", "ii", "iii", "iv", "v", "vi", "vii.a", "vii.b", "viii", "ix"}, optional
        None: nothing is violated.
    variant : str, optional
        How; the first is the default. i: "share" (of the treated in the site, on controls), "peers" (own arm);
        ii: "constant"; iii: "saturation"; iv: "quadratic", "interaction"; v: "cascade"; vi: "assignment" (leaning on
        x1 and the common cause), "unmeasured", "attrition"; vii.a: "covariate"; vii.b: "everywhere", "sites";
        viii: "proportional"; ix: "compliance", "covariate" (of the site, z), "cross", "size".
    strength : float, optional
        How much; each variant has its own default, and ``words`` of the result says what it means.
    seed : int
        Zero or more.
    **options
        ``sites`` (40); ``people`` (60), the mean number in a site; ``mediators`` (1, or 2 where it takes two);
        ``arms`` (2; 3 for iii) and ``dose`` (False; True for iii); ``binary`` (False; True for vii.b), mediators that
        are 0 or 1; ``covariates`` (2); ``effects``, one per mediator (0.5, 0.3, 0.4, ...); ``compliance_mean``
        and ``compliance_sd`` over sites (0.8 and 0.5; 0.45 and 0.15 if binary); ``effect_sd`` (0.1) over sites.

    Returns
    -------
    SimulatedTrial

    Raises
    ------
    ChoiceError
        An unknown violation, variant or option, or one that cannot be violated: (iii) with two arms.
    DataError
        Numbers out of range, or what is no number.

    See Also
    --------
    simulate_many : many trials at once.

    Notes
    -----
    People i of site s: m_p = a_ps + G_ip f(t) + 0.5 U + 0.3 x + e, y = b_s + sum_p D_ip m_p + 0.8 U + 0.3 x + v with
    G_ip around the site's compliance (sd 0.2), D_ip around the site's effect (sd 0.1). A mediator's standard deviation
    inside an arm is about one, so that a site's compliance has a reliability near n tau^2 / (n tau^2 + 4): 0.79 with
    60 people. Sites differ in size (by a quarter) and in the share treated (0.35 to 0.65). Under (iv) the average
    effect of moving the mediator from control to treated levels is kept at ``effects``.

    References
    ----------
    Reardon & Raudenbush (2013), Under what assumptions do site-by-treatment instruments identify average causal
    effects?, Sociological Methods & Research 42: 143-163: the assumptions that are violated here, under their numbers.

    Examples
    --------
    >>> trial = simulate("ii", sites=30, people=200, seed=1)
    >>> print(trial.words)
    assignment moves the outcome by 0.3 past the mediators
    >>> trial.truth.mediator_effects.tolist(), trial.truth.bias.round(2).tolist()
    ([0.5], [0.23])
    """
    recipe, words = recipe_of(violation, variant, strength, options)
    seed = whole_number(seed, "seed", least=0)
    return _trial(recipe, words, seed, np.random.default_rng(seed))


def simulate_many(
    violation: Violation | None = None,
    *,
    trials: int,
    variant: str | None = None,
    strength: float | None = None,
    seed: int = 0,
    **options: Any,
) -> Iterator[SimulatedTrial]:
    """Many trials of one kind, for sizes and power; their rows are summed in large passes.

    Parameters
    ----------
    violation, variant, strength, seed, **options
        As in `simulate`.
    trials : int

    Yields
    ------
    SimulatedTrial
        With ``moments`` made. Site labels go on from trial to trial. Random numbers differ from those of `simulate`.

    Examples
    --------
    >>> from msmmiv.estimate import fit
    >>> found = [fit(t.moments, "ujive").params["m1"] for t in simulate_many(trials=20, seed=3)]
    >>> bool(abs(np.mean(found) - 0.5) < 0.05)
    True
    """
    trials, seed = whole_number(trials, "trials", least=1), whole_number(seed, "seed", least=0)
    recipe, words = recipe_of(violation, variant, strength, options)
    at_once = max(1, _ROWS // (recipe.sites * recipe.people))
    rng = np.random.default_rng(seed)
    for first in range(0, trials, at_once):
        batch = min(at_once, trials - first)
        whole = _trial(replace(recipe, sites=batch * recipe.sites), words, seed, rng)
        yield from _split(whole, batch)


def _split(whole: SimulatedTrial, batch: int) -> Iterator[SimulatedTrial]:
    """Sites are drawn independently, so a trial of many sites is many trials."""
    truth, k = whole.truth, len(whole.truth.itt) // batch
    ends = np.searchsorted(whole.frame["site"].to_numpy(), np.arange(0, batch * k + 1, k))
    for j in range(batch):
        part = slice(j * k, (j + 1) * k)
        yield replace(
            whole,
            frame=whole.frame.iloc[ends[j] : ends[j + 1]].reset_index(drop=True),
            truth=replace(
                truth, compliances=truth.compliances[part], itt=truth.itt[part], weights=truth.weights[part],
                site_effects=truth.site_effects[part],
            ),
            made=_some_sites(whole.moments, part, int(ends[j + 1] - ends[j])),
        )  # fmt: skip


def _some_sites(moments: Moments, part: slice, rows: int) -> Moments:
    """Moments of neighbouring sites, and their flow; `Moments.take` looks at the labels of all cells."""
    sites = slice(*np.searchsorted(np.asarray(moments.sites), [part.start, part.stop]).tolist())
    cells = slice(*np.searchsorted(moments.site, [sites.start, sites.stop]).tolist())
    cut = {
        name: CellMoments(*(frozen(getattr(old, f)[cells]) for f in ("weight", "mean", "scatter")))
        for name, old in (("first", moments.first), ("squared", moments.squared))
    }
    lost = tuple(c for c in moments.flow.missing_cells if part.start <= int(c.site or 0) < part.stop)
    gone = sum(c.rows for c in lost)  # the outcome alone is ever missing
    return replace(
        moments, sites=moments.sites[sites], site=moments.site[cells] - sites.start, arm=moments.arm[cells],
        block=moments.block[cells], cluster=moments.cluster[cells], n=frozen(moments.n[cells]), first=cut["first"],
        squared=cut["first"] if moments.squared is moments.first else cut["squared"],
        flow=SampleFlow(rows, (("y", gone),) if gone else (), gone, lost),
    )  # fmt: skip


def _trial(recipe: Recipe, words: str, seed: int, rng: np.random.Generator) -> SimulatedTrial:
    sites = draw_sites(recipe, rng)
    names = tuple(f"m{j + 1}" for j in range(recipe.mediators))
    covariates = tuple(f"x{j + 1}" for j in range(recipe.covariates))
    design = Design(
        outcome="y", treatment="t", mediators=names, site="site", covariates=covariates,
        treatment_kind="continuous" if recipe.dose else "arms",
    )  # fmt: skip
    return SimulatedTrial(
        draw_people(recipe, sites, rng), design, _truth(recipe, sites), recipe.broken or None, recipe.variant,
        recipe.strength, words, seed,
    )  # fmt: skip


def _truth(recipe: Recipe, sites: Sites) -> Truth:
    moved, itt = contrasts(recipe, sites)
    size = sites.size.astype(float)
    if recipe.breaks("vi", "attrition"):
        size[:, 1:] *= 1.0 - recipe.strength
    treated = size[:, 1:]
    omega = treated[:, :, None] * np.eye(recipe.arms - 1) - (
        treated[:, :, None] * treated[:, None, :] / size.sum(axis=1)[:, None, None]
    )
    if recipe.dose:
        # The slope on the dose: contrasts weighted by the dose's part in them.
        dose = np.arange(1.0, recipe.arms)
        square = np.einsum("d,kde,e->k", dose, omega, dose)
        part = np.einsum("d,kde->ke", dose, omega) / square[:, None]
        moved, itt = np.einsum("kd,kdp->kp", part, moved)[:, None], np.einsum("kd,kd->k", part, itt)[:, None]
        omega = square[:, None, None]
    effect = sites.effect.copy()
    by, level, change = recipe.strength, sites.before, sites.moved[:, 1:].mean(axis=1)
    if recipe.breaks("iv", "quadratic"):
        effect[:, 0] += by * (2.0 * level[:, 0] + change[:, 0])
    if recipe.breaks("iv", "interaction"):
        effect[:, :2] += by * (level[:, :2] + change[:, :2] / 2.0)[:, ::-1]
    return Truth(
        mediator_effects=frozen(recipe.effects),
        direct_effect=by if recipe.breaks("ii") else 0.0,
        theta=by if recipe.breaks("v") else 0.0,
        compliances=frozen(moved),
        itt=frozen(itt),
        site_effects=frozen(effect),
        weights=frozen(omega),
    )

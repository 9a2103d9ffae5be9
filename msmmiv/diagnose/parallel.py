"""How mediators go together, across sites and among people: one-directional evidence on assumption (v)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.separation import compliance_correlation
from msmmiv.errors import MsmmivError, RankDeficientError, TooFewSitesError, count
from msmmiv.estimate.between.rows import between_rows
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.estimate.site_moments import noise_effects
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.linalg import Array, frozen, gram_solve
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["Parallel", "parallel"]

_ONE = "there is one mediator"
_READING = (
    "Either a cascade, one mediator moving the other, or correlated implementation: the programme did both more in "
    "some sites. It contradicts nothing, and its absence supports nothing."
)
#: The same in short, where the correlations have said it.
_ONE_WAY = "A slope contradicts nothing, and its absence supports nothing."


@dataclass(frozen=True, eq=False)
class Parallel:
    """What data show of relations between mediators; none of it decides assumption (v).

    Attributes
    ----------
    mediators : tuple of str
    correlations : DataFrame
        `compliance_correlation`: of compliances across sites, sampling error taken out.
    slopes : DataFrame
        One row per pair: ``first, second, slope, pvalue, law, note``; the compliance of ``second`` regressed on that
        of ``first`` across sites, with errors in both and a free intercept.
    within_arm : DataFrame
        One row per pair: ``first, second, correlation, pvalue, people``; among people of the same site and arm
        (block, cluster), net of the design's covariates. Empty with a reason in ``within_arm_note``.
    within_arm_note : str
    n_sites : int
    """

    mediators: tuple[str, ...]
    correlations: pd.DataFrame
    slopes: pd.DataFrame
    within_arm: pd.DataFrame
    within_arm_note: str
    n_sites: int

    def to_frame(self) -> pd.DataFrame:
        """One row per pair: correlations across sites, slope, and correlation among people."""
        keys = ["first", "second"]
        columns = [*keys, "correlation_across_sites", "slope", "slope_pvalue", "correlation_within_arm"]
        if self.slopes.empty:
            return pd.DataFrame(columns=columns)
        across = self.correlations[self.correlations["kind"] == "centred"]
        across = across[[*keys, "disattenuated"]].rename(
            columns={"disattenuated": "correlation_across_sites"}
        )
        slopes = self.slopes[[*keys, "slope", "pvalue"]].rename(columns={"pvalue": "slope_pvalue"})
        people = self.within_arm.rename(columns={"correlation": "correlation_within_arm"})
        out = slopes.merge(across, how="left", on=keys).merge(people, how="left", on=keys)
        return out.reindex(columns=columns)

    def evidence(self) -> tuple[Evidence, ...]:
        """Three checks, all context."""
        first = self._correlations()
        return first, self._slopes(read=first.reading.endswith(_READING)), self._within_arm()

    def _correlations(self) -> Evidence:
        check, name = "independence.compliance_correlations", "correlation of compliances"
        known = self.correlations[
            (self.correlations["kind"] == "centred") & self.correlations["disattenuated"].notna()
        ]
        if known.empty:
            why = _ONE if len(self.mediators) < 2 else "compliance varies no more than noise"
            return Evidence(check, NotApplicable(name, why))
        ratio = (known["disattenuated"] / known["std_error"]).abs().fillna(0.0)
        at = known.iloc[int(np.argmax(ratio.to_numpy()))]
        words = (
            f"Compliances with {at['first']} and {at['second']} correlate {at['disattenuated']:.2f} "
            f"(se {at['std_error']:.2g}; {at['raw']:.2f} with sampling error in it). "
        )
        none = NotApplicable(name, "a description: its standard error is not exact enough for a test")
        return Evidence(check, none, "context", words + _READING)

    def _slopes(self, *, read: bool) -> Evidence:
        """The steepest slope; how to read it only where the correlations do not say that already."""
        check, name = "independence.cascade_slope", "slope of one compliance on another"
        known = self.slopes[self.slopes["pvalue"].notna()] if len(self.slopes) else self.slopes
        if known.empty:
            why = _ONE if len(self.mediators) < 2 else "; ".join(dict.fromkeys(self.slopes["note"]))
            return Evidence(check, NotApplicable(name, why))
        at = known.iloc[int(np.argmin(known["pvalue"].to_numpy()))]
        p = min(1.0, float(at["pvalue"]) * len(known))
        law = str(at["law"]) + (f", Bonferroni over {len(known)} pairs" if len(known) > 1 else "")
        null = "no compliance goes with another across sites"
        test = TestStatistic(name, null, float(at["statistic"]), p, 1, law=law)
        words = (
            f"Compliance with {at['second']} rises by {at['slope']:.3g} per unit of that with {at['first']}."
            if p < 0.05
            else ""
        )
        return Evidence(check, test, "context", f"{words} {_ONE_WAY if read else _READING}".strip())

    def _within_arm(self) -> Evidence:
        check, name = (
            "independence.mediator_separation_within_arm",
            "mediators among people of one site and arm",
        )
        if self.within_arm.empty:
            return Evidence(check, NotApplicable(name, self.within_arm_note))
        at = self.within_arm.iloc[int(np.argmax(self.within_arm["correlation"].abs().to_numpy()))]
        people = float(at["people"])
        p = min(1.0, float(at["pvalue"]) * len(self.within_arm))
        null = "mediators are uncorrelated given site and arm"
        z = float(np.arctanh(np.clip(at["correlation"], -1 + 1e-15, 1 - 1e-15)) * np.sqrt(max(people - 1, 1)))
        test: TestResult = TestStatistic(name, null, z, p, 1, law="normal, Fisher's z")
        reading = (
            f"Correlation of {at['first']} and {at['second']}: {at['correlation']:.2f}. Mediators without a common "
            "cause and without a cascade are uncorrelated here; any common cause makes them correlated, so that only "
            "the absence of a correlation says something, and little."
        )
        return Evidence(check, test, "context", reading)


def parallel(source: Moments | SiteEffects, *, draws: int = 999, seed: int = 0) -> Parallel:
    """Describe how mediators go together, for the argument that none of them moves another.

    Assumption (v) cannot be tested: site averages absorb a cascade entirely. What is shown here helps to see which
    pair of mediators an argument is needed for.

    Parameters
    ----------
    source : Moments or SiteEffects
        Correlations among people need moments.
    draws, seed : int
        Of simulated critical values of the slopes.

    Returns
    -------
    Parallel

    Raises
    ------
    MomentsInsufficient
        A site has estimates but no sampling covariance.

    Notes
    -----
    If M1 moves M2 by theta, gamma_2s = direct part + theta gamma_1s. With a direct part that does not go with gamma_1,
    the slope of gamma_2 on gamma_1 is theta; both are estimated on the same people, so that their error covariance is
    used (`SlopeTest`, as in the decomposition). Among people: pooled scatter of the cells (site, block, arm, cluster),
    covariates partialled out, Fisher's z with the effective number of people less cells and covariates.

    Examples
    --------
    >>> import msmmiv as mm
    >>> [e.applies for e in parallel(mm.data.star()).evidence()]  # one mediator
    [False, False, False]
    """
    if isinstance(source, Moments):
        source = source.usable()
    effects = noise_effects(source)
    names = effects.mediators
    pairs = list(combinations(range(len(names)), 2))
    slopes = pd.DataFrame(
        [_slope(effects, i, j, draws=draws, seed=seed) for i, j in pairs],
        columns=["first", "second", "slope", "statistic", "pvalue", "law", "note"],
    )
    within, note = _within_arm(source) if pairs else (_no_people(), _ONE)
    return Parallel(names, _across(effects), slopes, within, note, len(effects.sites))


def _across(effects: SiteEffects) -> pd.DataFrame:
    try:
        return compliance_correlation(Compliances.from_effects(effects, direct_effect=True))
    except (TooFewSitesError, RankDeficientError, np.linalg.LinAlgError):
        columns = ["first", "second", "kind", "raw", "disattenuated", "std_error", "note"]
        return pd.DataFrame(columns=columns)


def _slope(
    effects: SiteEffects, i: int, j: int, *, draws: int, seed: int
) -> tuple[str, str, float, float, float, str, str]:
    """Mediator j in the place of the outcome, regressed on mediator i."""
    first, second = effects.mediators[i], effects.mediators[j]
    keep = [1 + j, 1 + i]
    turned = replace(
        effects,
        outcome=second,
        mediators=(first,),
        estimates=frozen(effects.estimates[:, :, keep]),
        cov=frozen(effects.cov[:, :, keep][:, :, :, :, keep]),
    )
    try:
        slope = SlopeTest.of(between_rows(turned), first, draws=draws, seed=seed)
        test = slope.test(0.0)
    except (MsmmivError, np.linalg.LinAlgError) as error:
        return first, second, np.nan, np.nan, np.nan, "", str(error)
    return first, second, slope.estimate, test.stat, test.pvalue, test.law, ""


def _no_people() -> pd.DataFrame:
    return pd.DataFrame(columns=["first", "second", "correlation", "pvalue", "people"])


def _within_arm(source: Moments | SiteEffects) -> tuple[pd.DataFrame, str]:
    """Correlations of mediators inside cells, net of covariates."""
    from scipy.special import ndtr

    if not isinstance(source, Moments):
        return _no_people(), "site effects do not hold how people of one arm vary: give the moments"
    if not source.arms:
        return _no_people(), "the treatment has doses, not arms"
    names, q = source.design.mediators, len(source.design.covariates)
    p = len(names)
    pooled = source.first.scatter.sum(axis=0)
    inside = pooled[1 : 1 + p, 1 : 1 + p]
    if q:
        x = slice(1 + p, 1 + p + q)
        try:
            inside = inside - pooled[1 : 1 + p, x] @ gram_solve(pooled[x, x], pooled[x, 1 : 1 + p])
        except np.linalg.LinAlgError:
            return _no_people(), "covariates depend on one another inside arms"
    # Weights that are not copies count for fewer people.
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(
            source.squared is source.first, source.n, source.first.weight**2 / source.squared.weight
        )
    people = float((np.minimum(effective, source.n) - 1.0).sum()) - q
    if people < 4:
        return _no_people(), f"{count(int(max(people, 0)), 'person', 'persons')} beyond one per cell: too few"
    size = np.sqrt(np.diag(inside))
    if (size <= 1e-10 * np.sqrt(np.diag(pooled)[1 : 1 + p])).any() or not (size > 0).all():
        return _no_people(), "a mediator does not vary inside arms"
    r: Array = inside / np.outer(size, size)
    rows = []
    for i, j in combinations(range(p), 2):
        z = np.arctanh(np.clip(abs(r[i, j]), 0.0, 1.0 - 1e-15)) * np.sqrt(people - 1.0)
        rows.append((names[i], names[j], float(r[i, j]), float(2.0 * ndtr(-z)), people))
    return pd.DataFrame(rows, columns=["first", "second", "correlation", "pvalue", "people"]), ""

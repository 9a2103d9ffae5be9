"""Whether known properties of sites go with compliance and with effects: a direct look at assumption (ix)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from msmmiv.diagnose.evidence import Evidence, Role
from msmmiv.diagnose.moderation import LEAST_SITES_OF_SIZES, Adjusted, Signal, moderated, moderation_test
from msmmiv.diagnose.moderation_reach import moderation_reach, reach_words, unknown_reach
from msmmiv.diagnose.site_table import SiteTable, site_table
from msmmiv.errors import count
from msmmiv.estimate.site_moments import estimated, noise_effects
from msmmiv.inference.meta import meta_regression
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.linalg import Array
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects

__all__ = ["CovariateFinding", "SiteCovariates", "site_covariates"]


@dataclass(frozen=True, eq=False)
class CovariateFinding:
    """What one property of sites goes with.

    Attributes
    ----------
    name : str
    compliance : DataFrame
        One row per mediator (and arm): ``mediator, arm, slope, std_error, pvalue`` per standard deviation of x.
    relation : TestResult
        That x goes with no compliance: the least of those p-values, times their number.
    effects : TestResult
        That mediator effects do not change with x.
    adjusted : Adjusted
        Effects where x is average, and the gap from those without x.
    detectable : (P,) array
        Change of each effect per standard deviation of x that is found with about 80% power.
    """

    name: str
    compliance: pd.DataFrame
    relation: TestResult
    effects: TestResult
    adjusted: Adjusted
    detectable: Array

    @property
    def both(self) -> float:
        """P-value of "x goes with compliance and with effects": the larger of the two; NaN without both."""
        return float(max(self.relation.pvalue, self.effects.pvalue)) if self._known else float("nan")

    @property
    def _known(self) -> bool:
        return not isinstance(self.relation, NotApplicable) and not isinstance(self.effects, NotApplicable)


@dataclass(frozen=True, eq=False)
class SiteCovariates:
    """Compliance and mediator effects against covariates and the size of sites.

    Attributes
    ----------
    mediators : tuple of str
    table : SiteTable
    findings : tuple of CovariateFinding
        One per covariate.
    size : CovariateFinding or NotApplicable
        Log of the people of a site.
    draws, seed : int
        Of random signs.
    zero_covariance_assumed : bool
        Whether Cov(itt, compliance) was not given.
    """

    mediators: tuple[str, ...]
    table: SiteTable
    findings: tuple[CovariateFinding, ...]
    size: CovariateFinding | NotApplicable
    draws: int
    seed: int
    zero_covariance_assumed: bool = False

    @property
    def role(self) -> Role:
        """Context where the correction for sampling error rests on covariances that nobody gave."""
        return "context" if self.zero_covariance_assumed else "evidence"

    @cached_property
    def holm(self) -> tuple[float, ...]:
        """P-values of `CovariateFinding.both`, adjusted for their number by Holm; NaN where there is none."""
        return _holm([f.both for f in self.findings])

    def to_frame(self) -> pd.DataFrame:
        """One row per covariate (then size) and mediator.

        Returns
        -------
        DataFrame
            ``covariate, mediator, p_compliance`` (any mediator), ``p_effects`` (all mediators), ``p_both`` (Holm over
            covariates; NaN for size), ``slope, slope_se`` (of the effect, per unit), ``effect, effect_se`` (at the
            mean of the covariate), ``unadjusted, gap, gap_se, note``.
        """
        rows = []
        last = [self.size] if isinstance(self.size, CovariateFinding) else []
        for found, p in zip([*self.findings, *last], [*self.holm, *([np.nan] * len(last))], strict=True):
            a = found.adjusted
            notes = [t.reason for t in (found.relation, found.effects) if isinstance(t, NotApplicable)]
            for j, name in enumerate(self.mediators):
                rows.append(
                    {"covariate": found.name, "mediator": name, "p_compliance": found.relation.pvalue,
                     "p_effects": found.effects.pvalue, "p_both": p, "slope": a.slope[j], "slope_se": a.slope_se[j],
                     "effect": a.effect[j], "effect_se": a.effect_se[j], "unadjusted": a.unadjusted[j],
                     "gap": a.gap[j], "gap_se": a.gap_se[j],
                     "note": "; ".join(dict.fromkeys([*notes, *([a.status] if a.status else [])]))}
                )  # fmt: skip
        columns = ["covariate", "mediator", "p_compliance", "p_effects", "p_both", "slope", "slope_se", "effect",
                   "effect_se", "unadjusted", "gap", "gap_se", "note"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def evidence(self) -> tuple[Evidence, ...]:
        """Three checks: compliance on covariates (context), site covariates and site size (evidence)."""
        return self._compliance(), self._covariates(), self._size()

    def _compliance(self) -> Evidence:
        check = "independence.compliance_on_covariates"
        known = [f for f in self.findings if not isinstance(f.relation, NotApplicable)]
        if not known:
            return Evidence(check, NotApplicable("compliance on site covariates", self._why))
        adjusted = _holm([f.relation.pvalue for f in known])
        at = int(np.argmin(adjusted))
        strongest = known[at]
        test = _renamed(strongest.relation, "compliance on site covariates", adjusted[at], len(known))
        reading = (
            f"Of {count(len(known), 'site covariate')}, {strongest.name!r} goes with compliance most clearly. "
            "That is allowed: it contradicts (ix) only if effects go with the same covariate."
        )
        return Evidence(check, test, "context", reading)

    def _covariates(self) -> Evidence:
        check = "independence.site_covariates"
        known = [(f, p) for f, p in zip(self.findings, self.holm, strict=True) if np.isfinite(p)]
        if not known:
            return Evidence(check, NotApplicable("site covariates", self._why), self.role)
        found, p = min(known, key=lambda pair: pair[1])
        null = "no covariate goes with both compliance and effects"
        law = f"larger of two p-values, Holm over {count(len(known), 'covariate')}"
        halves = [t for t in (found.relation, found.effects) if isinstance(t, TestStatistic)]
        larger = max(halves, key=lambda t: t.pvalue)
        test = TestStatistic("site covariates", null, larger.stat, p, larger.df, larger.df_denom, law)
        seen, words = self._reach(found), self._words(found)
        if not seen:
            words = f"{words} {unknown_reach(repr(found.name))}"
        return Evidence(
            check, test, self.role, f"{words} Covariates that were not measured stay invisible.", seen
        )

    def _words(self, found: CovariateFinding) -> str:
        a = found.adjusted
        halves = (
            f"P-values of {found.name!r}: {_p(found.relation)} with compliance, {_p(found.effects)} with effects; only "
            "both together speak against (ix)."
        )
        if a.status:
            return f"{halves} There is no adjusted effect: {a.status.rstrip('.')}."
        moved = "; ".join(
            f"{m} {a.effect[j]:.4g} (se {a.effect_se[j]:.3g}) where {found.name!r} is average, {a.gap[j]:+.3g} "
            f"(se {a.gap_se[j]:.2g}) from the effect without it"
            for j, m in enumerate(self.mediators)
        )
        return f"{halves} Effect of {moved}."

    def _reach(self, found: CovariateFinding) -> str:
        words = reach_words(self.mediators, found.detectable, repr(found.name))
        if np.isfinite(found.detectable).any():
            words = f"{words.rstrip('.')}, if it clearly goes with compliance."
        return words

    def _size(self) -> Evidence:
        check = "independence.site_size"
        if isinstance(self.size, NotApplicable):
            return Evidence(check, self.size, self.role)
        a = self.size.adjusted
        words = "" if a.status else "; ".join(
            f"{m} {a.slope[j]:+.3g} per unit of log size (se {a.slope_se[j]:.2g}), {a.effect[j]:.4g} at the mean "
            f"of log size against {a.unadjusted[j]:.4g} without it"
            for j, m in enumerate(self.mediators)
        )  # fmt: skip
        reading = (
            "In 2SLS the weight of a site grows with its size, so that effects that go with size move the average even "
            "when compliance does not go with them."
        ) + (f" Effect of {words}." if words else "")
        tested = not isinstance(self.size.effects, NotApplicable)
        reach = reach_words(self.mediators, self.size.detectable, "log size") if tested else ""
        if tested and not reach:
            reading = f"{reading} {unknown_reach('log size')}"
        return Evidence(check, self.size.effects, self.role, reading, reach)

    @property
    def _why(self) -> str:
        if self.findings:
            return next(
                (t.reason for f in self.findings for t in (f.effects, f.relation) if isinstance(t, NotApplicable)),
                "no test exists",
            )  # fmt: skip
        left = f" ({'; '.join(self.table.dropped)})" if self.table.dropped else ""
        return (
            f"no site covariate is known{left}: give a frame indexed by site (--site-covariates), or covariates in the "
            "design (-x)"
        )


def site_covariates(
    source: Moments | SiteEffects,
    *,
    covariates: pd.DataFrame | None = None,
    draws: int = 999,
    seed: int = 0,
) -> SiteCovariates:
    """Ask whether site covariates go with compliance and with mediator effects, and what adjusting for them does.

    A covariate that goes with both is direct evidence against assumption (ix); one that goes with one of them is not.
    Give covariates that could make the treatment work differently; without any, the design's are averaged by site.

    Parameters
    ----------
    source : Moments or SiteEffects
    covariates : DataFrame, optional
        Numeric columns, one row per site, indexed by site. By default, from moments, site means of the design's
        covariates and the share treated.
    draws, seed : int
        Of random signs.

    Returns
    -------
    SiteCovariates

    Raises
    ------
    DataError, ColumnError
        Covariates that do not match the sites or are not numbers.
    MomentsInsufficient
        A site has estimates but no sampling covariance.

    Notes
    -----
    Compliance: random-effects meta-regression (Paule-Mandel, Knapp-Hartung t) of each mediator's compliances on x.
    Effects: `moderation_test` of itt_s = c + (delta + Theta (x_s - xbar))'g_s: a direct effect c, the same in all
    sites, is not taken for effects that go with x. If x goes with neither or with one of them, the larger of the two
    p-values is at most uniform; its size is reached when the other half is certainly true. Adjusted effects come from
    the model without c, as those that they are compared with.

    Examples
    --------
    >>> import msmmiv as mm
    >>> found = site_covariates(mm.data.star())
    >>> [e.check for e in found.evidence()][1:]
    ['independence.site_covariates', 'independence.site_size']
    """
    if isinstance(source, Moments):
        source = source.usable()  # once, so that its warning is given once
    effects = noise_effects(source)
    table = site_table(source, effects, covariates)
    signal = Signal.of(effects, "tempered")
    findings = tuple(
        _finding(effects, signal, name, table.values[:, j], draws=draws, seed=seed)
        for j, name in enumerate(table.names)
    )
    size: CovariateFinding | NotApplicable = NotApplicable(
        "site size", "the number of people in each site is not known"
    )
    if table.log_size is not None and np.ptp(table.log_size) <= 1e-10:
        alone = len(signal.sites) == 1
        size = NotApplicable("site size", "there is one site" if alone else "all sites have the same size")
    elif table.log_size is not None:
        size = _finding(
            effects, signal, "log size", table.log_size, draws=draws, seed=seed, least=LEAST_SITES_OF_SIZES
        )
    return SiteCovariates(
        effects.mediators, table, findings, size, draws, seed, effects.zero_covariance_assumed
    )


def _finding(
    effects: SiteEffects, signal: Signal, name: str, x: Array, *, draws: int, seed: int, least: int = 0
) -> CovariateFinding:
    slopes = compliance_slopes(effects, x)
    title, null = f"effects and {name}", f"mediator effects do not go with {name}"
    test = moderation_test(signal, x, name=title, null=null, draws=draws, seed=seed, least=least)
    reach = moderation_reach(signal, x)
    return CovariateFinding(name, slopes, _relation(slopes, name), test, moderated(effects, x), reach)


def compliance_slopes(effects: SiteEffects, x: Array) -> pd.DataFrame:
    """Meta-regressions of compliances on x, per mediator and arm; NaN where too few sites have a variance."""
    used = np.flatnonzero(estimated(effects).any(axis=1))
    scale = float(x.std()) or 1.0
    rows = []
    for j, mediator in enumerate(effects.mediators, start=1):
        for d, arm in enumerate(effects.contrasts):
            y, v = effects.estimates[used, d, j], effects.cov[used, d, j, d, j]
            with np.errstate(invalid="ignore"):
                # A weighted cell of equal values has a variance of rounding: no weight in a regression.
                good = np.isfinite(y) & (v > 1e-12 * np.nanmax(v, initial=0.0))
            slope = error = p = np.nan
            z = (x[good] - x[good].mean()) / scale if good.any() else x[good]
            if good.sum() >= 4 and np.ptp(z) > 1e-10:
                fit = meta_regression(
                    y[good],
                    v=v[good],
                    x=np.column_stack([np.ones_like(z), z]),
                    tau2="PM",
                    test="knapp-hartung",
                )
                slope, error, p = fit.coefficients[1], fit.std_errors[1], fit.pvalues[1]
            rows.append({"mediator": mediator, "arm": arm, "slope": slope, "std_error": error, "pvalue": p,
                         "df": int(good.sum()) - 2})  # fmt: skip
    return pd.DataFrame(rows)


def _relation(slopes: pd.DataFrame, name: str) -> TestResult:
    title = f"compliance and {name}"
    have = slopes[np.isfinite(slopes["pvalue"])]
    if have.empty:
        return NotApplicable(title, "too few sites: fewer than four have a variance of compliance")
    best = have.iloc[int(np.argmin(have["pvalue"].to_numpy()))]
    p, many = min(1.0, float(best["pvalue"]) * len(have)), len(have)
    law = f"t({best['df']})" + (f", Bonferroni over {many}" if many > 1 else "")
    t = float(best["slope"] / best["std_error"])
    return TestStatistic(title, f"no compliance goes with {name}", t, p, 1, law=law)


def _holm(values: list[float]) -> tuple[float, ...]:
    """Holm's p-values; NaN stays."""
    p = np.array(values, dtype=float)
    order = [i for i in np.argsort(p) if np.isfinite(p[i])]
    out, running = np.full(len(p), np.nan), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        out[i] = running
    return tuple(out.tolist())


def _renamed(test: TestResult, name: str, pvalue: float, many: int) -> TestResult:
    if isinstance(test, NotApplicable):
        return test
    law = f"{test.dist}, Holm over {count(many, 'covariate')}"
    null = "compliances do not go with any site covariate"
    return TestStatistic(name, null, test.stat, pvalue, test.df, test.df_denom, law)


def _p(test: TestResult) -> str:
    return "unknown" if isinstance(test, NotApplicable) else f"{test.pvalue:.3g}"

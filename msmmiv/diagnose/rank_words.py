"""The reading of a rank report: what the numbers say about assumption (viii), in words."""

from __future__ import annotations

import numpy as np

from msmmiv.diagnose.rank_numbers import RankNumbers
from msmmiv.diagnose.spectrum import Spectrum
from msmmiv.diagnose.strength import CROSSED
from msmmiv.errors import count, listing
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array

__all__ = ["GATES", "bias_words", "combination_words", "leading", "reading"]

#: A mediator belongs to a direction when its weight is at least this share of the largest.
SHARE = 0.15
#: Correlation from which two compliances are said to go together.
TOGETHER = 0.8
#: Degrees of freedom per site below which statistics that invert each site's own variance reject too often.
FEW = 15.0

GATES = (
    "No threshold decides: choosing an estimator because a first-stage statistic passes one distorts what follows. "
    "Confidence sets that hold at any strength: fit() by its rule (score sets), anderson_rubin_set()."
)


def leading(names: tuple[str, ...], weights: Array) -> list[str]:
    """The mediators that make up a direction, largest weight first."""
    size = np.abs(weights)
    order = np.argsort(-size)
    return [names[j] for j in order if size[j] >= SHARE * size[order[0]]]


def combination_words(names: tuple[str, ...], weights: Array) -> str:
    """A direction as a sum: '0.80 income - 0.60 hours', in units of each mediator's noise."""
    order = np.argsort(-np.abs(weights))
    lead = np.sign(weights[order[0]])
    parts = [f"{'+' if lead * weights[j] >= 0 else '-'} {abs(weights[j]):.2f} {names[j]}" for j in order]
    return " ".join(parts).removeprefix("+ ")


def bias_words(strength: float, share: float = float("nan")) -> str:
    """What a strength means for the bias of 2SLS.

    Parameters
    ----------
    strength : float
    share : float
        Of the bias of OLS; unknown from site effects alone.
    """
    if strength <= 1:
        return "2SLS is as biased there as with instruments of pure noise"
    known = np.isfinite(share)
    value, whose = (share, "of OLS") if known else (1.0 / strength, "of instruments of pure noise")
    return f"2SLS keeps {f'about {value:.0%}' if value >= 0.01 else 'less than 1%'} of the bias {whose} there"


def reading(report: RankNumbers) -> tuple[str, ...]:
    """The sentences of the page, most important first."""
    found = report.spectrum
    first = _no_spectrum(report.why_no_spectrum) if found is None else _directions(report, found)
    lines = [first, _levels(report), _variation(report), _correlated(report), _sites(report), _few(report)]
    return tuple(line for line in lines if line)


def _no_spectrum(why: str) -> str:
    if "assumption (viii) fails" in why:
        return f"These effects cannot be told apart, however many people or sites there are: {why}."
    return f"Strength cannot be set against noise: {why.rstrip('.')}."


def _directions(report: RankNumbers, found: Spectrum) -> str:
    names, p = found.mediators, len(found.mediators)
    strength = float(found.strength[-1])
    versus = (
        f"strength {strength:.3g}, where noise alone gives {found.floor[-1]:.2g} and 95% of the time less than "
        f"{found.floor_95[-1]:.3g}"
    )
    left = bias_words(strength, float(found.bias_share[-1]))
    if found.pvalues[-1] > 0.05:
        return _one_short(report, versus) if p == 1 else _not_apart(report, found, versus)
    if p == 1:
        direct = f"Compliance with {names[0]} differs across sites, so that its effect can be told from a direct effect"
        moved = direct if report.direct_effect else f"The treatment moves {names[0]} beyond noise"
        return f"{moved}: {versus}; {left}."
    what = f"{listing(names)}{' and a direct effect' if report.direct_effect else ''}"
    who = leading(names, found.weights[:, -1])
    weakest = who[0] if len(who) == 1 else combination_words(names, found.weights[:, -1])
    return f"The sites tell {what} apart: the weakest direction, {weakest}, has {versus}; {left}."


def _one_short(report: RankNumbers, versus: str) -> str:
    name = report.mediators[0]
    if report.direct_effect:
        return (
            f"Compliance with {name} does not differ across sites beyond noise ({versus}): its effect cannot be told "
            "from a direct effect."
        )
    return f"The treatment does not move {name} beyond noise ({versus}): its effect is not identified."


def _not_apart(report: RankNumbers, found: Spectrum, versus: str) -> str:
    names, p = found.mediators, len(found.mediators)
    if found.found == 0:
        beside = " beside a direct effect" if report.direct_effect else ""
        return (
            f"No combination of mediators stands out of the noise (weakest direction: {versus}): these sites identify "
            f"none of the effects of {listing(names)}{beside}."
        )
    weakest, apart = found.weights[:, -1], " or a direct effect" if report.direct_effect else ""
    # More than one direction of noise: single ones are arbitrary, what they span is not.
    lost = np.linalg.norm(found.weights[:, found.found :], axis=1)
    who = leading(names, weakest if found.found == p - 1 else lost)
    stand = (
        f"{found.found} of {p} directions {'stands' if found.found == 1 else 'stand'} out of the noise; in the weakest "
        f"{bias_words(float(found.strength[-1]), float(found.bias_share[-1]))}"
    )
    if found.found < p - 1:
        beside = " beside a direct effect" if report.direct_effect else ""
        return (
            f"Only {found.found} of {p} combinations of mediators {'stands' if found.found == 1 else 'stand'} out of "
            f"the noise: the effects of {listing(who)} are not separately identified{beside} (weakest direction: "
            f"{versus})."
        )
    if len(who) == 1:
        others = listing([n for n in names if n != who[0]])
        return (
            f"The effect of {who[0]} is not separately identified: beyond what goes with {others}{apart}, the "
            f"treatment moves {who[0]} no more than noise ({versus}). {stand}."
        )
    return (
        f"The sites cannot tell {who[0]} from {listing(who[1:])}{apart}: as far as noise lets one see, the treatment "
        f"moves them in the same proportion everywhere (weakest direction {combination_words(names, weakest)}: "
        f"{versus}). {stand}."
    )


def _levels(report: RankNumbers) -> str:
    """Strength counted in people, and in clusters."""
    flat, people, level = report.constant_in_clusters, report.cragg_donald, report.cluster_level
    if not flat:
        return _assigned(report, people, level)
    if isinstance(people, float) and isinstance(level, float) and level > 0.8 * people:
        return ""  # clusters of one person
    said = f"{listing(flat)} {'does' if len(flat) == 1 else 'do'} not vary inside {report.cluster}"
    if isinstance(level, NotApplicable):
        return (
            f"{said}, so that statistics which count people overstate the strength; Cragg-Donald's F with clusters as "
            f"rows is not available ({level.reason})."
        )
    low = report.spectrum is not None and report.spectrum.pvalues[-1] > 0.05
    verdict = "no more than noise" if low or level <= 1 else "weak" if level < 10 else "strong"
    counted = "" if isinstance(people, NotApplicable) else f" of {people:.4g}"
    return (
        f"{said}, so that Cragg-Donald's F{counted} counts people who share one value and overstates the strength. "
        f"With clusters as rows it is {level:.3g}: {verdict} at the level of {report.cluster}, where strength is "
        "measured above."
    )


def _assigned(report: RankNumbers, people: float | NotApplicable, level: float | NotApplicable) -> str:
    """Mediators that vary inside clusters, where counting people is wrong all the same."""
    if not report.cluster or isinstance(people, NotApplicable) or isinstance(level, NotApplicable):
        return ""
    if people < 1.5 * level:
        return ""
    return (
        f"People of one {report.cluster} are alike: Cragg-Donald's F of {people:.4g} counts them as independent; with "
        f"clusters as rows it is {level:.3g}."
    )


def _variation(report: RankNumbers) -> str:
    """(viii.a): which mediators are not shown to differ in compliance across sites."""
    table, names = report.variation, list(report.mediators)
    # One mediator and no direct effect: the same compliance everywhere will do. Several arms: so may they.
    enough = len(names) == 1 and not report.direct_effect
    if enough or len(report.contrasts) > 1 or table["q"].isna().all():
        return ""
    # Where sites have few people Q sees little; variances added up over sites then see more.
    least = table.assign(p=table[["p_value", "noise_p_value"]].min(axis=1)).groupby("mediator")["p"].min()
    if report.spectrum is not None and report.spectrum.pvalues[-1] <= 0.05:
        return ""  # they could not be told apart if compliance did not differ
    flat = [m for m in names if not least[m] <= 0.05]
    if len(flat) > (0 if report.direct_effect else 1):
        need = "every mediator" if report.direct_effect else "all mediators but one"
        return (
            f"(viii.a) asks that compliance differ across sites for {need}; it is not shown to for {listing(flat)} "
            "(no proof that it does not)."
        )
    if report.spectrum is not None and report.spectrum.pvalues[-1] > 0.05 and not flat and len(names) > 1:
        return (
            f"Each compliance varies across sites (viii.a holds for {listing(names)}). That is not enough: they do not "
            "vary in different ways (viii.c)."
        )
    return ""


def _correlated(report: RankNumbers) -> str:
    """The pair of mediators whose compliances go together most."""
    if report.spectrum is None:
        return ""
    kind = "centred" if report.direct_effect else "uncentred"
    table = report.correlation
    rows = table[(table["kind"] == kind) & table["disattenuated"].notna()].to_dict("records")
    if not rows:
        return ""
    row = max(rows, key=lambda r: abs(r["disattenuated"]))
    if abs(row["disattenuated"]) < TOGETHER:
        return ""
    return (
        f"Compliances with {row['first']} and {row['second']} go together: {kind} correlation "
        f"{row['disattenuated']:.2f} with sampling error taken out ({row['raw']:.2f} with it)."
    )


def _sites(report: RankNumbers) -> str:
    """How few sites carry half of the weakest direction."""
    share = np.sort(report.leverage["weakest"].to_numpy())[::-1]
    noise = report.spectrum is None or report.spectrum.pvalues[-1] > 0.05
    if noise or not np.isfinite(share).all() or len(share) < 5:
        return ""
    half = int(np.searchsorted(np.cumsum(share), 0.5) + 1)
    if half > max(1, len(share) // 10):
        return ""
    top = report.leverage.sort_values("weakest", ascending=False)["site"].head(half)
    return (
        f"Half of the information in the weakest direction comes from {count(half, 'site')} of {len(share)}: "
        f"{listing(top)}. Look at leave_one_out()."
    )


def _few(report: RankNumbers) -> str:
    crossed = any(isinstance(t.test, NotApplicable) and t.test.reason == CROSSED for t in report.tests)
    if crossed:
        return "Clusters cross sites; noise, strength and clusters as rows take sites as independent all the same."
    if report.spectrum is not None and report.noise == "pooled":
        return (
            "With clusters, noise supposes one variance between and inside clusters for all sites; clustered Wald "
            "tests with few clusters per site reject too often."
        )
    if report.spectrum is None or report.median_df >= FEW:
        return ""
    return (
        f"A typical site's variance rests on few degrees of freedom ({report.median_df:.1f}): robust Wald tests, which "
        "divide by it, reject too often, and Q sees little. The noise floor, effective F and Robin-Smith add variances "
        "up over sites instead."
    )

"""What an estimate means, in words: its estimand, what its errors hold fixed, what a reader must know."""

from __future__ import annotations

import numpy as np

from msmmiv.errors import count
from msmmiv.estimate.system import System
from msmmiv.inference.covariance import CovType, crossing_clusters, lone_clusters
from msmmiv.moments.flow import SampleFlow

__all__ = ["estimand_text", "notes_text", "target_text"]


def estimand_text(system: System, name: str) -> str:
    """What the coefficients estimate."""
    design = system.within.moments.design
    if name == "ols":
        return (
            f"the within-site association of {design.outcome} with the mediators; an effect only if nothing else "
            "moves both"
        )
    who = (
        "among compliers (assumptions vii.b and ix.b)"
        if design.estimand == "late"
        else "on average across sites"
    )
    if name in ("bc_linear", "bc_symmetric"):
        how = "is linear in" if name == "bc_linear" else "is jointly symmetric with"
        late = " among compliers (assumptions vii.b and ix.b)" if design.estimand == "late" else ""
        return (
            f"the effect of one unit more of each mediator on {design.outcome}{late}, averaged over sites that count "
            f"once each, if treatment acts only through the mediators (exclusion) and the effect {how} compliance"
        )
    held = "given a direct effect of treatment that does not vary with compliance across sites" if (
        system.n_direct) else "if treatment acts only through the mediators (exclusion)"  # fmt: skip
    return f"the effect of one unit more of each mediator on {design.outcome}, {who}, {held}; {_weighting(system)}"


def _weighting(system: System) -> str:
    """How sites count in the average, as far as one clause can say it truly."""
    m, design = system.within.moments, system.within.moments.design
    if system.n_direct:
        return (
            "sites count by how far the treatment moves the mediators there beyond its average over sites, and can "
            "count negatively"
        )
    if system.n_mediators > 1 or len(m.arms) > 2 or system.covariates:
        return "sites count the more, the larger they are and the further the treatment moves the mediators there"
    amount = "n p (1 - p)" if m.arms else "the sum of squares of the dose"
    if m.blocks:
        amount += ", summed over blocks,"
    if design.weights and design.weight_kind != "frequency":
        amount += " (in weights)"
    return f"sites count by {amount} times squared compliance"


def target_text(kind: CovType) -> str:
    """What the standard errors hold fixed."""
    if kind == "site":
        return "sites are taken as a sample: the target is the average over the population of sites"
    if kind == "cluster":
        return "these sites are held fixed; clusters inside them are a sample"
    return "these sites are held fixed; people inside them are a sample" + (
        " with equal error variance" if kind in ("classical", "bekker") else ""
    )


def notes_text(system: System, name: str, kind: CovType, *, corrected: bool) -> tuple[str, ...]:
    """What a reader must know before using the numbers; ``corrected``: the errors are made for few sites."""
    return (
        *_about_suppression(system.within.moments.flow),
        *_about_estimator(system, name),
        *_about_clusters(system, name, kind, corrected=corrected),
        *_about_sites(system, name, kind, corrected=corrected),
    )


def _about_suppression(flow: SampleFlow) -> list[str]:
    """Cells that were kept out of the files that these moments were read from."""
    return [f"{s}. The estimates are those of what was left." for s in flow.suppressed]


def _about_estimator(system: System, name: str) -> list[str]:
    m, notes = system.within.moments, []
    if name in ("liml", "fuller"):
        notes.append(
            "LIML supposes that every site shares one set of effects; if they differ it can converge outside their "
            "range (Kolesar 2013). 'ujive' keeps the 2SLS average."
        )
    if m.clusters and name in ("liml", "fuller", "mbtsls"):
        notes.append(
            f"{name} takes rows as independent when it removes bias; where clusters share shocks it removes too "
            "little. 'ujive' uses the clusters; moments.cluster_means() puts every estimator on cluster means."
        )
    if name in ("ujive", "bc_linear", "bc_symmetric") and (borrowed := system.noise.borrowed):
        unit = "cluster" if m.clusters else "row"
        notes.append(
            f"{borrowed} site-by-arm cells hold one {unit}; the variance of their means is borrowed from the others."
        )
    return notes


def _about_clusters(system: System, name: str, kind: CovType, *, corrected: bool) -> list[str]:
    m, notes = system.within.moments, []
    if not m.clusters:
        return []
    inside = np.einsum("cjj->j", m.first.scatter)
    for j, mediator in enumerate(m.design.mediators, start=1):
        if inside[j] <= 1e-12 * float(system.within.overall[j]):
            notes.append(
                f"{mediator} does not vary inside {m.design.cluster}: the classical first-stage F counts people "
                "who share one value and overstates the strength; rank() counts clusters."
            )
    if kind == "cluster" and not corrected and name != "ujive" and (lone := lone_clusters(m)):
        notes.append(
            f"{count(lone, 'site-by-arm cell')} with a single cluster, which fits itself: these errors see too little "
            "of the noise there and are too small. small_sample='CR2' or cov_type='site' are not."
        )
    notes.append(
        "Sargan, Basmann and the classical F and Wu-Hausman take rows as independent; where clusters share shocks "
        "they reject too often."
    )
    return notes


def _about_sites(system: System, name: str, kind: CovType, *, corrected: bool) -> list[str]:
    m, notes = system.within.moments, []
    if kind == "site" and (crossing := crossing_clusters(m)):
        notes.append(
            f"{count(crossing, 'cluster')} of {m.design.cluster} found in more than one site; errors that take sites "
            "as independent ignore what those sites share."
        )
    if kind == "site" and m.n_sites < 20 and not corrected:
        notes.append(
            f"{m.n_sites} sites are few for site-clustered standard errors; intervals may be too short."
        )
    borrows = name in ("ujive", "bc_linear", "bc_symmetric")
    if m.arms and not borrows and (m.by_arm().n == 1).any():
        lone = int((m.by_arm().n == 1).sum())
        notes.append(
            f"{lone} site-by-arm cells hold one row; they count in the estimate but carry no variance."
        )
    return notes

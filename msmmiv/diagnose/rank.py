"""Assumption (viii): how differently the treatment moves the mediators in different sites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import eigh

from msmmiv.errors import MsmmivError, count, listing
from msmmiv.estimate.system import System, build_system
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import Array, dependent_columns, frozen, schur
from msmmiv.moments.cells import Moments
from msmmiv.moments.effects import SiteEffects
from msmmiv.moments.within import within_sites

__all__ = ["RankReport", "rank"]


@dataclass(frozen=True, eq=False)
class RankReport:
    """What the compliance matrix says about rank; ``str`` gives the page, `to_frame` the numbers.

    Attributes
    ----------
    n_sites, n_instruments, n_mediators : int
        Assumption (viii.b) needs at least as many usable sites as mediators.
    direct_effect : bool
        Whether the direct effect takes one more direction.
    compliance : DataFrame
        Effects on each mediator, by site (and arm).
    singular_values : (P,) array
        Of the compliance matrix with rows weighted as in 2SLS and mediators in units of their residual
        standard deviation (within-site, where the residual covariance is singular). Their squares over
        the number of instruments are first-stage F statistics of mediator combinations; noise alone
        gives values near the square root of the number of instruments.
    f_statistics : (P,) array
        First-stage F of each of those combinations, largest first.
    combinations : DataFrame
        The mediator combination of each singular value, in residual standard deviations.
    cragg_donald : float or NotApplicable
        Smallest of those F statistics (Cragg & Donald 1993).
    cluster_level : float or NotApplicable
        The same with every cluster as one row: the honest figure where mediators do not vary inside
        clusters.
    constant_in_clusters : tuple of str
        Mediators that have one value per cluster; with any, statistics that count rows overstate the
        strength, and the shares of bias in `to_frame` are not given.
    sentence : str
        The reading in words.
    """

    n_sites: int
    n_instruments: int
    n_mediators: int
    direct_effect: bool
    compliance: pd.DataFrame
    singular_values: Array
    f_statistics: Array
    combinations: pd.DataFrame
    cragg_donald: float | NotApplicable
    cluster_level: float | NotApplicable
    constant_in_clusters: tuple[str, ...]
    sentence: str

    def to_frame(self) -> pd.DataFrame:
        """One row per direction: ``direction, singular_value, f, noise_share`` and the combination."""
        f = self.f_statistics
        known = (f > 0) & (len(self.constant_in_clusters) == 0)
        frame = pd.DataFrame(
            {"direction": np.arange(1, len(f) + 1), "singular_value": self.singular_values, "f": f,
             "noise_share": np.minimum(1.0, 1.0 / np.where(known, f, np.nan))}
        )  # fmt: skip
        return pd.concat([frame, self.combinations.reset_index(drop=True)], axis=1)

    def __str__(self) -> str:
        direct = " and a direct effect" if self.direct_effect else ""
        lines = [
            "Rank of the compliance matrix, assumption (viii)",
            f"(viii.b) {count(self.n_sites, 'usable site')} for {count(self.n_mediators, 'mediator')}{direct}: enough",
            f"         {self.n_instruments} site-by-treatment instruments",
            f"singular values: {listing([f'{v:.4g}' for v in self.singular_values])}",
            _line("Cragg-Donald F", self.cragg_donald),
            _line("Cragg-Donald F, clusters as rows", self.cluster_level),
            self.sentence,
        ]
        return "\n".join(lines)


def rank(moments: Moments, *, direct_effect: bool = False) -> RankReport:
    """Report how well the sites separate the mediators.

    The estimated compliance matrix always has full rank because of noise, so its singular values are
    measured in units of that noise: squared and divided by the number of instruments they are F
    statistics, one per combination of mediators, and one over F approximates the share of the bias of
    least squares that is left in two-stage least squares along that combination.

    Parameters
    ----------
    moments : Moments
    direct_effect : bool
        Ask whether the mediators can also be told apart from a direct effect.

    Returns
    -------
    RankReport

    Raises
    ------
    TooFewSitesError
        When (viii.b) fails.

    Notes
    -----
    With projected and residual cross-products N and S of the mediators (intercepts, covariates and, if
    asked for, the direct effect partialled out), the singular values are the square roots of the
    generalised eigenvalues of N with respect to S / df, and Cragg-Donald's F is the smallest eigenvalue
    over the number of excluded instruments.

    Examples
    --------
    >>> import msmmiv as mm
    >>> round(float(mm.rank(mm.data.star()).cragg_donald), 1)
    1082.1
    """
    system = build_system(within_sites(moments), direct_effect=direct_effect)
    m = system.within.moments
    values, vectors, why = _spectrum(system)
    f = np.full(len(values), np.nan) if why else values / (system.n_instruments - system.n_direct)
    flat = _constant_in_clusters(system)
    clustered = _cluster_level(m, direct_effect=direct_effect)
    return RankReport(
        n_sites=m.n_sites,
        n_instruments=system.n_instruments,
        n_mediators=system.n_mediators,
        direct_effect=direct_effect,
        compliance=SiteEffects.from_moments(m).compliance,
        singular_values=frozen(np.sqrt(values)),
        f_statistics=frozen(f),
        combinations=pd.DataFrame(vectors, columns=[f"of {name}" for name in m.design.mediators]),
        cragg_donald=NotApplicable("Cragg-Donald F", why) if why else float(f[-1]),
        cluster_level=clustered,
        constant_in_clusters=tuple(flat),
        sentence=_sentence(system, f, vectors, why, flat, clustered),
    )


def _line(name: str, value: float | NotApplicable) -> str:
    return f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: not applicable ({value.reason})"


def _constant_in_clusters(system: System) -> list[str]:
    """Mediators that have one value per cluster."""
    m = system.within.moments
    if not m.clusters:
        return []
    inside, overall = np.einsum("cjj->j", m.first.scatter), system.within.overall
    names = m.design.mediators
    return [n for j, n in enumerate(names, start=1) if inside[j] <= 1e-12 * overall[j]]


def _cluster_level(moments: Moments, *, direct_effect: bool) -> float | NotApplicable:
    name = "Cragg-Donald F, clusters as rows"
    if not moments.clusters:
        return NotApplicable(name, "no cluster is declared")
    try:
        system = build_system(within_sites(moments.cluster_means()), direct_effect=direct_effect)
    except MsmmivError as error:
        return NotApplicable(name, str(error))
    values, _, why = _spectrum(system)
    if why:
        return NotApplicable(name, why)
    return float(values[-1] / (system.n_instruments - system.n_direct))


def _spectrum(system: System) -> tuple[Array, Array, str]:
    """Squared singular values (largest first), their combinations, and why they are no F statistics.

    The unit is the residual standard deviation of each mediator; where the residual covariance is singular it
    is the within-site one, and there is no F.
    """
    p = system.n_mediators
    mediators, rest = list(range(1, 1 + p)), list(range(1 + p, len(system.total)))
    signal = schur(system.projected, mediators, rest)
    within = schur(system.total, mediators, rest)
    noise = system.total[1 : 1 + p, 1 : 1 + p] - system.projected[1 : 1 + p, 1 : 1 + p]
    why = _no_f(system, within, noise)
    singular = bool(why) and system.within.moments.design.weight_kind != "probability"
    metric = within if singular else noise
    df = system.nobs - system.within.moments.n_blocks - len(system.covariates) - system.n_instruments
    sd = np.sqrt(np.diag(metric) / df)
    scale = np.outer(sd, sd)
    unit = np.eye(p) if singular else metric / df / scale
    values, vectors = eigh(signal / scale, unit)
    values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1].T
    return values, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), why


def _no_f(system: System, within: Array, noise: Array) -> str:
    """Why the mediators have no first-stage F jointly; empty when they do."""
    names = system.within.moments.design.mediators
    size = np.diag(system.total)[1 : 1 + len(names)]
    if same := [names[j] for j in dependent_columns(within, size)]:
        verb = "is a linear combination" if len(same) == 1 else "are linear combinations"
        return f"inside sites {listing(same)} {verb} of the other mediators and covariates: assumption (viii) fails"
    if flat := [n for n, v, t in zip(names, np.diag(noise), size, strict=True) if v <= 1e-12 * t]:
        return f"{listing(flat)} {'does' if len(flat) == 1 else 'do'} not vary inside site-by-arm cells"
    if np.linalg.eigvalsh(noise / np.sqrt(np.outer(size, size)))[0] <= 1e-12:
        return "a combination of the mediators does not vary inside site-by-arm cells"
    if system.within.moments.design.weight_kind == "probability":
        return "with probability weights the F of homoskedastic errors does not apply"
    return ""


def _sentence(
    system: System, f: Array, vectors: Array, why: str, flat: list[str], clustered: float | NotApplicable
) -> str:
    design = system.within.moments.design
    if why:
        return f"There is no first-stage F: {why}. See the first-stage F statistics of a robust fit."
    what = design.mediators[0] if len(f) == 1 else _combination(design.mediators, vectors[-1])
    if not flat:
        return f"The weakest direction is {what}: first-stage F {f[-1]:.3g}, {_bias(float(f[-1]))}."
    verb = "does" if len(flat) == 1 else "do"
    text = (
        f"{listing(flat)} {verb} not vary inside {design.cluster}, so the F of {f[-1]:.4g} counts people who share one "
        "value and overstates the strength."
    )
    if isinstance(clustered, float):
        text += f" With clusters as rows the weakest F is {clustered:.3g}: {_bias(clustered)}."
    return text


def _bias(f: float) -> str:
    if f <= 1:
        return "no more than noise alone gives: these sites cannot tell the effects apart"
    share = f"about {1.0 / f:.0%}" if f < 100 else "less than 1%"
    return f"{share} of the bias of least squares may remain in 2SLS there"


def _combination(names: tuple[str, ...], weights: Array) -> str:
    order = np.argsort(-np.abs(weights))
    lead = np.sign(weights[order[0]])
    return " ".join(
        f"{'+' if lead * weights[j] >= 0 else '-'} {abs(weights[j]):.2f} {names[j]}" for j in order
    ).removeprefix("+ ")

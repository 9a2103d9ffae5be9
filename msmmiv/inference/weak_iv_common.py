"""What the weak-instrument tests share: reading the question, the line of hypotheses, and its inversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from msmmiv.errors import DataError, DesignError, RankDeficientError, TooFewSitesError, listing
from msmmiv.inference.confidence_set import ConfidenceSet, invert
from msmmiv.inference.reduced_form import ReducedForm
from msmmiv.inference.site_profile import pooled_moments
from msmmiv.inference.site_scores import Sites
from msmmiv.inference.weak_iv_classical import classical_line
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects
from msmmiv.progress import watched

__all__ = [
    "Criterion",
    "Source",
    "centre_and_scale",
    "hypothesis",
    "inverted",
    "null_text",
    "one_mediator_set",
    "refuse_switch",
    "remaining_df",
    "require_instruments",
    "require_order",
    "robust_at",
    "robust_line",
    "term_position",
]

Source: TypeAlias = ReducedForm | SiteEffects
_LONG = 40_000_000  # values times contrasts that take more than about two seconds
#: Excess from AR, K, rk and the number of instruments.
Criterion: TypeAlias = Callable[[Array, Array, Array, int], Array]


def one_mediator_set(
    source: Source, term: str, criterion: Criterion, *, level: float, method: str, direct_effect: bool
) -> ConfidenceSet:
    """Invert a criterion in AR, K and rk over the effect of the one mediator."""
    if isinstance(source, ReducedForm):
        refuse_switch(direct_effect)
        form = source

        def classical(x: Array) -> Array:
            at = classical_line(form, x)
            k = at.ar if form.n_instruments == 1 else at.k
            return criterion(at.ar, k, at.rk, form.n_instruments)

        centre, scale = centre_and_scale(form.between, form.within * form.n_instruments, 0)
        name = f"{method} (homoskedastic)"
        return invert(classical, centre=centre, scale=scale, level=level, method=name, term=term)
    sites = Sites.of(source, direct_effect=direct_effect)
    require_instruments(sites, 1)
    return inverted(
        sites,
        lambda x: criterion(*robust_line(sites, x), sites.n_instruments),
        level=level,
        method=f"{method} (robust)",
        term=term,
    )


def inverted(
    sites: Sites,
    excess: Callable[[Array], Array],
    *,
    level: float,
    method: str,
    term: str,
    position: int = 0,
    points: int = 4001,
) -> ConfidenceSet:
    """Invert a robust test, with the search centred by pooled moments."""
    centre, scale = centre_and_scale(*pooled_moments(sites), position)
    return invert(excess, centre=centre, scale=scale, level=level, method=method, term=term, points=points)


def robust_at(sites: Sites, values: Array) -> tuple[Array, Array, Array]:
    """AR, K and rk at one hypothesis (rk for one mediator only)."""
    if sites.n_mediators == 1:
        return robust_line(sites, values)
    at = sites.scores(values[None])
    return at.ar, at.ar if sites.n_instruments == sites.n_mediators else at.k, np.empty(1)


def robust_line(sites: Sites, x: Array) -> tuple[Array, Array, Array]:
    """AR, K and rk for one mediator; far out in terms of the inverse effect, where D does not cancel."""
    within = pooled_moments(sites)[1]
    unit = np.sqrt(within[0, 0] / within[1, 1])
    far = np.abs(x) > unit
    ar, k, rk = np.empty((3, len(x)))
    for mask, view in ((~far, sites), (far, sites.flipped())):
        values = x[mask]
        out = np.empty((3, len(values)))
        parts = list(sites.chunks(len(values)))
        long = len(values) * sites.present.size > _LONG
        for part in watched(parts, what="the test at many effects", show=long):
            own, other = np.ones_like(values[part]), -values[part]
            pair = (own, other) if view is sites else (other, own)
            at = view.scores(values[part][:, None], direction=np.column_stack(pair))
            out[:, part] = at.ar, at.ar if sites.n_instruments == 1 else at.k, at.rk
        ar[mask], k[mask], rk[mask] = out
    return ar, np.minimum(k, ar), rk


def centre_and_scale(between: Array, within: Array, position: int) -> tuple[float, float]:
    """Centre (regression through the origin) and rough width for the inversion of a test."""
    mediators = between[1:, 1:]
    unit = np.sqrt(np.maximum(np.diag(mediators), 1e-300))
    inverse = np.linalg.pinv(mediators / np.outer(unit, unit), hermitian=True, rcond=1e-10)
    coef = inverse @ (between[1:, 0] / unit) / unit
    b = np.concatenate([[1.0], -coef])
    spread = (
        float(np.sqrt(max(inverse[position, position], 1e-300) * (b @ within @ b) / len(b))) / unit[position]
    )
    widest = np.sqrt(within[0, 0] / within[1 + position, 1 + position])
    return float(coef[position]), float(min(max(spread, 1e-4 * widest), widest))


def hypothesis(source: Source, beta: float | Sequence[float] | Array) -> Array:
    """The hypothetical effects as a vector, one per mediator and finite."""
    values = np.atleast_1d(np.asarray(beta, dtype=float))
    names = source.mediators
    if values.shape != (len(names),):
        raise DesignError(
            f"The hypothesis needs one effect per mediator ({listing(names, quote=True)}); got {values.size}."
        )
    if not np.isfinite(values).all():
        raise DataError(f"Hypothetical effects must be finite; got {values.tolist()}.")
    return values


def null_text(source: Source, values: Array, direct_effect: bool) -> str:  # noqa: FBT001
    """The null hypothesis in words."""
    effects = ", ".join(f"{name} = {value:g}" for name, value in zip(source.mediators, values, strict=True))
    return f"the effects are {effects}{' (direct effect free)' if direct_effect else ''}"


def term_position(source: Source, term: str, level: float) -> int:
    """Position of a mediator among the mediators; also checks the level."""
    if not 0 < level < 1:
        raise DataError(f"A confidence level lies between 0 and 1; got {level!r}.")
    if term not in source.mediators:
        raise DesignError(
            f"{term!r} is not a mediator here; they are {listing(source.mediators, quote=True)}."
        )
    return source.mediators.index(term)


def refuse_switch(direct_effect: bool) -> None:  # noqa: FBT001
    """A reduced form cannot be asked to profile the direct effect out again."""
    if direct_effect:
        raise DesignError(
            "A ReducedForm has the direct effect partialled out when it is built; ask for it there."
        )


def require_instruments(sites: Sites, terms: int) -> None:
    """Refuse a test with fewer instruments than it needs."""
    if sites.n_instruments < terms:
        free = " after the direct effect" if sites.direct else ""
        raise TooFewSitesError(
            f"The test needs at least {terms} site-by-treatment instruments{free}; there are {sites.n_instruments}."
        )


def remaining_df(df: int, instruments: int, others: int) -> int:
    """Degrees of freedom left by the other effects, at least one."""
    if df < 1:
        raise TooFewSitesError(
            f"{instruments} instruments are too few for one effect beside {others} others (and the direct effect)."
        )
    return df


def require_order(instruments: int, terms: int) -> None:
    """The order condition."""
    if instruments < terms:
        raise RankDeficientError(f"{instruments} instruments cannot identify {terms} effects.")

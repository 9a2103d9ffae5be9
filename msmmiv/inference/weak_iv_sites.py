"""Anderson-Rubin for very many sites, and each site's own ratio with its Fieller set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.errors import DesignError
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.site_scores import Sites
from msmmiv.inference.tests import TestStatistic, chi2_test
from msmmiv.inference.weak_iv_common import (
    hypothesis,
    inverted,
    null_text,
    require_instruments,
    term_position,
)
from msmmiv.linalg import Array
from msmmiv.moments.effects import SiteEffects

__all__ = ["SiteRatios", "fieller_sets", "many_instrument_ar_set", "many_instrument_ar_test"]


def many_instrument_ar_test(effects: SiteEffects, beta: float | Sequence[float] | Array) -> TestStatistic:
    """Anderson-Rubin for many small sites, one-sided.

    ``AR_many = sum w (e^2 - V_ee) / sqrt(2 sum w^2 V_ee^2)`` with w the 2SLS weights; it needs the number
    of sites to be large but no site to be (the leave-out form of Mikusheva and Sun 2022, with the diagonal that site
    intercepts leave removed exactly). ``V_ee^2`` is divided by 1 + 2 / df, its own upward bias. A sum of
    squares is skewed to the right, so AR_many is compared with (chi2_L - L) / sqrt(2 L) and not with the
    normal: ``stat`` is ``L + sqrt(2 L) AR_many``, ``df`` is L.

    Parameters
    ----------
    effects : SiteEffects
    beta : float or sequence of float
        Hypothetical effects, one per mediator.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star())
    >>> many_instrument_ar_test(effects, 0.0).dist
    'chi2(79)'
    """
    values = hypothesis(effects, beta)
    sites = Sites.of(effects)
    require_instruments(sites, 2)
    stat = _many(effects, sites, values[None])[0]
    null = null_text(effects, values, direct_effect=False)
    return chi2_test("Anderson-Rubin (many instruments)", null, max(float(stat), 0.0), sites.n_instruments)


def many_instrument_ar_set(effects: SiteEffects, term: str, *, level: float = 0.95) -> ConfidenceSet:
    """Effects that `many_instrument_ar_test` does not reject, for one mediator.

    Parameters
    ----------
    effects : SiteEffects
    term : str
    level : float

    Raises
    ------
    DesignError
        With several mediators: minimising over the others has no theory here.

    Examples
    --------
    >>> import msmmiv as mm
    >>> effects = mm.SiteEffects.from_moments(mm.data.star())
    >>> many_instrument_ar_set(effects, "class_size").method
    'Anderson-Rubin (many instruments)'
    """
    from scipy.special import chdtri

    term_position(effects, term, level)
    if len(effects.mediators) > 1:
        raise DesignError(
            "The many-instrument Anderson-Rubin set is not offered with several mediators; use "
            "many_instrument_ar_test at hypotheses about all of them, or anderson_rubin_set."
        )
    sites = Sites.of(effects)
    require_instruments(sites, 2)
    critical = float(chdtri(sites.n_instruments, 1 - level))
    return inverted(
        sites,
        lambda x: _many(effects, sites, x[:, None]) - critical,
        level=level,
        method="Anderson-Rubin (many instruments)",
        term=term,
    )


def _many(effects: SiteEffects, sites: Sites, beta: Array) -> Array:
    """L + sqrt(2 L) AR_many at each hypothesis."""
    both = sites.present[:, :, None] & sites.present[:, None, :]
    weight = np.where(both, effects.precision, 0.0)
    size = np.sqrt(np.einsum("kdd->kd", weight).sum())
    excess_square = np.where(sites.present.any(axis=1), 1.0 / (1.0 + 2.0 / effects.df), 0.0)
    b = np.hstack([np.ones((len(beta), 1)), -beta])
    out = np.empty(len(b))
    for part in sites.chunks(len(b)):
        e = np.einsum("kda,ca->ckd", sites.estimates, b[part])
        v = np.einsum("kdaeb,ca,cb->ckde", sites.cov, b[part], b[part], optimize=True)
        wv = np.einsum("kde,ckef->ckdf", weight, v)
        top = np.einsum("ckd,kde,cke->c", e, weight, e, optimize=True) - np.einsum("ckdd->c", wv)
        spread = 2 * np.einsum("ckdf,ckfd,k->c", wv, wv, excess_square, optimize=True)
        out[part] = (top / size) / (np.sqrt(spread) / size)
    count = sites.n_instruments
    return np.asarray(count + np.sqrt(2.0 * count) * out, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class SiteRatios:
    """Each site's own effect of the mediator, with its Fieller set.

    Attributes
    ----------
    sites : tuple
    contrasts : tuple
        Arm of each row; empty labels when there are two arms.
    ratio : (rows,) array
        itt over compliance; NaN where the arm is absent, or the compliance is zero.
    sets : tuple of ConfidenceSet or None
        None where the site lacks the arm.
    """

    sites: tuple[Label, ...]
    contrasts: tuple[Label, ...]
    ratio: Array
    sets: tuple[ConfidenceSet | None, ...]

    def to_frame(self) -> pd.DataFrame:
        """Columns ``site``, ``arm`` (several arms only), ``ratio``, ``set``, ``lower``, ``upper``, ``pieces``."""
        known = [s or ConfidenceSet(()) for s in self.sets]
        out = {
            "site": list(self.sites),
            "arm": list(self.contrasts),
            "ratio": self.ratio,
            "set": ["arm absent" if s is None else str(s) for s in self.sets],
            "lower": [s.hull[0] for s in known],
            "upper": [s.hull[1] for s in known],
            "pieces": [len(s.intervals) for s in known],
        }
        frame = pd.DataFrame(out)
        return frame if len(set(self.contrasts)) > 1 else frame.drop(columns="arm")


def fieller_sets(effects: SiteEffects, *, level: float = 0.95) -> SiteRatios:
    """Fieller's set for the ratio itt / compliance of every site (and arm), one mediator.

    ``{d : (b - g d)^2 <= q^2 (V_bb - 2 d V_bg + d^2 V_gg)}``, with q the normal quantile, or Student's
    where the covariance has finite degrees of freedom (`SiteEffects.df`). Where the compliance does not
    differ from zero the set is unbounded: two rays or the whole line (Fieller 1954).

    Parameters
    ----------
    effects : SiteEffects
        With one mediator.
    level : float

    Raises
    ------
    DesignError
        With several mediators a site has no ratio of its own.

    Examples
    --------
    >>> import msmmiv as mm
    >>> frame = fieller_sets(mm.SiteEffects.from_moments(mm.data.star())).to_frame()
    >>> list(frame.columns)
    ['site', 'ratio', 'set', 'lower', 'upper', 'pieces']
    """
    from scipy.special import ndtri, stdtrit

    if len(effects.mediators) > 1:
        raise DesignError(
            "With several mediators one site does not identify their effects; ask for one mediator."
        )
    term = effects.mediators[0]
    term_position(effects, term, level)
    sites = Sites.of(effects)
    df = effects.df
    tail = 1 - (1 - level) / 2
    finite = np.isfinite(df)
    q2 = np.where(finite, stdtrit(np.where(finite, df, 1.0), tail), ndtri(tail)) ** 2
    sets: list[ConfidenceSet | None] = []
    ratio = []
    for k in range(len(effects.sites)):
        for d in range(len(effects.contrasts)):
            if not sites.present[k, d]:
                sets.append(None)
                ratio.append(np.nan)
                continue
            b, g = sites.estimates[k, d]
            v = sites.cov[k, d, :, d, :]
            quadratic = (g * g - q2[k] * v[1, 1], b * g - q2[k] * v[0, 1], b * b - q2[k] * v[0, 0])
            found = ConfidenceSet.from_quadratic(*quadratic, level=level, method="Fieller", term=term)
            sets.append(found)
            ratio.append(b / g if g else np.nan)
    arms = effects.contrasts * len(effects.sites)
    names = tuple(s for s in effects.sites for _ in effects.contrasts)
    return SiteRatios(names, arms, np.array(ratio), tuple(sets))

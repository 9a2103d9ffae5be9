"""How compliances with different mediators go together across sites, and which sites tell them apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from msmmiv.diagnose.compliances import Compliances
from msmmiv.inference.conditional_f import given_others
from msmmiv.linalg import Array

__all__ = ["compliance_correlation", "site_leverage"]

#: Reliability below which a disattenuated correlation is a ratio of noise.
LEAST_RELIABILITY = 0.05


def compliance_correlation(compliances: Compliances) -> pd.DataFrame:
    """Correlation of compliances across sites, with and without the sampling error in them.

    The uncentred correlation is the one that decides how precisely effects are told apart when the direct effect is
    zero, the centred one when it is free. Estimated compliances of one site share people, so raw correlations are
    biased; the disattenuated ones have the sampling covariances taken out.

    Returns
    -------
    DataFrame
        ``first, second, kind`` ("uncentred", "centred"), ``raw, disattenuated, std_error`` (leave one site out, of the
        disattenuated) ``, reliability_first, reliability_second, note``. Sites count as in 2SLS. A disattenuated
        value is not forced into -1 to 1, and is NaN with a note where a mediator's compliance is noise.
    """
    rows = []
    for kind, free in (("uncentred", False), ("centred", True)):
        at = compliances.with_direct_effect(free=free)
        raw, clean, without = at.explained, at.explained - at.expected_noise, _leave_one_out(at)
        for i, j in combinations(range(at.n_mediators), 2):
            pair = np.array([i, j])
            with np.errstate(invalid="ignore", divide="ignore"):
                reliability = np.diag(clean)[pair] / np.diag(raw)[pair]
            names = [at.mediators[i], at.mediators[j]]
            lost = [n for n, r in zip(names, reliability, strict=True) if not r > LEAST_RELIABILITY]
            value = error = np.nan
            note = f"{' and '.join(lost)}: nothing but noise is left" if lost else ""
            if not lost:
                value, error = float(_correlation(clean, i, j)), _jackknife(_correlation(without, i, j))
                note = "beyond one: sampling error" if abs(value) > 1.0 else ""
            rows.append(
                {"first": names[0], "second": names[1], "kind": kind, "raw": float(_correlation(raw, i, j)),
                 "disattenuated": value, "std_error": error, "reliability_first": reliability[0],
                 "reliability_second": reliability[1], "note": note}
            )  # fmt: skip
    columns = ["first", "second", "kind", "raw", "disattenuated", "std_error", "reliability_first",
               "reliability_second", "note"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _correlation(products: Array, i: int, j: int) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Array = products[..., i, j] / np.sqrt(products[..., i, i] * products[..., j, j])
    return out


def _jackknife(values: Array) -> float:
    k = len(values)
    if k < 3 or not np.isfinite(values).all():
        return float("nan")
    return float(np.sqrt((k - 1) / k * ((values - values.mean()) ** 2).sum()))


def _leave_one_out(at: Compliances) -> Array:
    """(K, P, P) signal cross-products without each site (covariates' slopes as they are)."""
    to, slopes = at.projection, at.slopes
    load = np.einsum("kdr,kdp->krp", to.cross, slopes)
    gram = to.exogenous.sum(axis=0) - to.exogenous
    own = np.einsum("kdp,kde,keq->kpq", slopes, to.omega, slopes)
    rest, through = own.sum(axis=0) - own, load.sum(axis=0) - load
    inverse = np.linalg.pinv(gram, rcond=1e-12, hermitian=True)
    explained = rest - np.einsum("krp,krs,ksq->kpq", through, inverse, through)
    # Noise of the sites that stay: Omega_s V_s summed, less what the exogenous regressors take of it.
    plain = np.einsum("kde,kdpeq->kpq", to.omega, at.cov)
    taken = np.einsum("kdr,kes,kdpeq->krspq", to.cross, to.cross, at.cov)
    noise = (plain.sum(axis=0) - plain) - np.einsum("krs,krspq->kpq", inverse, taken.sum(axis=0) - taken)
    out: Array = explained - noise
    return out


def site_leverage(compliances: Compliances, weakest: Array) -> pd.DataFrame:
    """Which sites carry the identification: their shares of the first-stage information.

    Parameters
    ----------
    compliances : Compliances
    weakest : (P,) array
        The combination of mediators that sites tell apart least.

    Returns
    -------
    DataFrame
        One row per site, largest first: ``site, leverage`` (sums to P) ``, weakest`` (its share in the weakest
        direction), and for every mediator (``of <name>``) the site's share of what is left of its explained
        cross-products given the other mediators. Shares sum to one.
    """
    total, parts = compliances.explained, compliances.projection.contributions(compliances.slopes)
    names = compliances.mediators
    inverse = np.linalg.pinv(total, rcond=1e-12, hermitian=True)
    out = {
        "site": list(compliances.sites),
        "leverage": np.einsum("pq,kqp->k", inverse, parts),
        "weakest": _share(parts, weakest),
    }
    for j, name in enumerate(names):
        try:
            out[f"of {name}"] = _share(parts, given_others(total, j))
        except np.linalg.LinAlgError:  # the others are exactly collinear
            out[f"of {name}"] = np.full(len(parts), np.nan)
    return pd.DataFrame(out).sort_values("leverage", ascending=False, ignore_index=True)


def _share(parts: Array, c: Array) -> Array:
    own = np.einsum("p,kpq,q->k", c, parts, c)
    total = own.sum()
    out: Array = own / total if total > 0 else np.full(len(own), np.nan)
    return out

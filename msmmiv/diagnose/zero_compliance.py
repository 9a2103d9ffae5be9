"""Sites in which the treatment hardly moved the mediators: they should show hardly any effect on the outcome."""

from __future__ import annotations

import numpy as np

from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.null_surface import shrunken, surface_rows
from msmmiv.errors import count
from msmmiv.estimate.between.added_terms import Term, added_terms
from msmmiv.inference.tests import NotApplicable, TestStatistic
from msmmiv.moments.effects import SiteEffects

__all__ = ["zero_compliance_sites"]

_CHECK, _NAME = "linearity.zero_compliance_sites", "sites without compliance"
#: Fewest sites to fit the plane with, fewest sites without compliance, and the level at which they show none.
_FEWEST, _FEWEST_HERE, _LEVEL = 12, 5, 0.05


def zero_compliance_sites(effects: SiteEffects) -> Evidence:
    """Mean itt in sites whose compliances are within noise of zero, beyond what their compliance accounts for.

    Use it beside the origin test: it says the same in the sites where nothing has to be extrapolated. It is context,
    never evidence: what compliance a site with a small estimate really has is taken from a normal prior.

    Parameters
    ----------
    effects : SiteEffects
        Two arms.

    Returns
    -------
    Evidence

    Raises
    ------
    TooFewSitesError, MomentsInsufficient
        No site has estimates, or they have no sampling covariance.

    Notes
    -----
    Sites are taken where g^'V_gg^-1 g^ is below its 95th percentile for true compliances of zero. Choosing by
    estimates chooses their errors, and these go with the errors of itt; so the effect that is averaged is
    u = itt - V_yg V_gg^-1 (g^ - m) - m'b, with m the posterior mean of compliance (`shrunken`) and b the slopes through
    the origin: given g^ the error of u has mean zero, and so has u if b is the same everywhere. t ratio of the mean
    of u over the chosen sites, b taken as known. It rejects up to .17 of clean trials where compliances are skewed
    (docs/validation/linearity.csv): hence context.

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(zero_compliance_sites(mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")).test)
    sites without compliance: not applicable (1 site has compliance within noise of zero; the test takes 5)
    """
    rows = surface_rows(effects)
    p, k = len(effects.mediators), rows.n_sites
    reason = ""
    if rows.shared or len(effects.contrasts) > 1:
        reason = "more than two arms"
    elif k < _FEWEST:
        reason = f"too few sites: {k}; the plane needs {_FEWEST} or more"
    noise = rows.cov[:, 1:, 1:]
    variance = np.einsum("raa->ra", rows.cov)
    if not reason and (
        (variance <= 0).any()
        or (np.linalg.eigvalsh(noise)[:, 0] <= 1e-12 * variance[:, 1:].sum(axis=1)).any()
    ):
        reason = (
            "a compliance has no sampling variance, or compliances have covariances that are not positive"
        )
    if reason:
        return Evidence(_CHECK, NotApplicable(_NAME, reason))
    g = rows.values[:, 1:]
    base = [Term(name, (j,)) for j, name in enumerate(effects.mediators, start=1)]
    found = added_terms(rows.values, rows.cov, base=base, added=[Term("one")], sensitivity=False)
    if not found.ok:
        return Evidence(_CHECK, NotApplicable(_NAME, "compliances vary no more than noise"))
    from scipy.special import chdtri

    inverse = np.linalg.inv(noise)
    here = np.einsum("rp,rpq,rq->r", g, inverse, g) < chdtri(p, _LEVEL)
    n = int(here.sum())
    if n < _FEWEST_HERE:
        some = f"{count(n, 'site')} {'has' if n == 1 else 'have'}" if n else "no site has"
        reason = f"{some} compliance within noise of zero; the test takes {_FEWEST_HERE}"
        return Evidence(_CHECK, NotApplicable(_NAME, reason))
    b, mean = found.base_coefficients, shrunken(g, noise)[0]
    tied = np.einsum("rq,rqp->rp", rows.cov[:, 0, 1:], inverse)
    u = (rows.values[:, 0] - np.einsum("rp,rp->r", tied, g - mean) - mean @ b)[here]
    error = float(u.std(ddof=1) / np.sqrt(n))
    return _evidence(u, error, float(rows.values[here, 0].mean()))


def _evidence(u: np.ndarray[tuple[int, ...], np.dtype[np.float64]], error: float, itt: float) -> Evidence:
    from scipy.special import stdtr, stdtrit

    n, mean = len(u), float(u.mean())
    if not error > 0:
        return Evidence(_CHECK, NotApplicable(_NAME, "itt does not vary between these sites"))
    t = mean / error
    test = TestStatistic(
        _NAME,
        "itt of sites without compliance is what little compliance they have accounts for",
        t,
        float(2.0 * stdtr(n - 1, -abs(t))),
        1,
        law=f"t({n - 1})",
    )
    reach = float(stdtrit(n - 1, 0.975) + stdtrit(n - 1, 0.8)) * error
    reading = (
        f"{count(n, 'site')} with compliance within noise of zero: mean itt {itt:.3g}, of which their compliance "
        f"leaves {mean:.3g} (standard error {error:.2g}) unexplained. Context: their true compliance is taken "
        "from a normal prior."
    )
    return Evidence(
        _CHECK,
        test,
        "context",
        reading,
        f"To be found four times in five, a direct effect there would have to be {reach:.3g}.",
    )

"""UJIVE: two-stage least squares with each site's own noise removed; the bias-corrected regression across sites.

With site effects r_s = (itt, compliances) measured with covariance V_s, the cross-products of 2SLS have
expectation sum_s Omega_s (g_s g_s' + V_s). Subtracting an unbiased estimate of the second part,

    Q = sum_s { r_s' Omega_s r_s - trace(Omega_s V_s) },   b = Q_MM^-1 Q_My,

is, for two or more arms without blocks or covariates, the unbiased jackknife instrumental variable estimator
of Kolesar's ManyIV exactly, from the moments of cells and without a loop over rows: x'(P - D M)x with M what
instruments and intercepts leave and D_ii = P_ii / M_ii. The formula printed in Kolesar (2013) gives each site a
further weight n_s / (n_s - 1), which is one factor for all where sites have one size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msmmiv.estimate.kclass import Solution, solve_mixed
from msmmiv.estimate.system import System
from msmmiv.linalg import Array, frozen

__all__ = ["Ujive", "noise_products", "score_noise"]


def noise_products(system: System, cov: Array) -> Array:
    """(K, 1 + P, 1 + P): what sampling error adds, on average, to the explained cross-products of a site."""
    out: Array = np.einsum("kde,kdaeb->kab", system.own_weight, np.nan_to_num(cov))
    return out


@dataclass(frozen=True)
class Ujive:
    """Unbiased jackknife IV in its between-site form: many sites, unequal variances, effects that differ.

    Where the design declares clusters the noise is that of cluster means; the covariance of a cell that holds
    one row (or one cluster) is borrowed from the others (`msmmiv.moments.noise`).
    """

    @property
    def name(self) -> str:
        """Name in the table of estimators."""
        return "ujive"

    def solve(self, system: System) -> Solution:
        """Coefficients and site equations; a status where the corrected matrix is not positive definite."""
        cov = system.noise.cov
        noise = noise_products(system, cov)
        mixed = system.projected.copy()
        size = 1 + system.n_mediators
        mixed[:size, :size] -= noise.sum(axis=0)
        solution = solve_mixed(system, mixed, self.name, kappa=1.0, noise=noise)
        return replace(solution, score_noise=score_noise(system, cov))


def score_noise(system: System, cov: Array) -> Array:
    """(K, b, b, 1 + b, 1 + b): sampling variance of a site's scores as a quadratic form in (1, -b').

    With noise u in compliance and e in itt - g'b, the score g'Omega e + u'Omega e less its mean has variance
    w^2 (V_ee g g' + V_ue V_ue') for two arms when g is replaced by its estimate, which adds V_ee V_uu to the first
    term on average.
    """
    m, d = system.n_mediators, system.n_direct
    v, omega = np.nan_to_num(cov), system.within.omega
    g = np.zeros((*omega.shape[:2], m + d))
    g[:, :, :m] = system.site_slopes[:, :, 1 : 1 + m]
    g[:, :, m:] = np.eye(omega.shape[1])[:, :d]
    og = omega @ g
    out = np.zeros((len(omega), m + d, m + d, 1 + m + d, 1 + m + d))
    out[..., : 1 + m, : 1 + m] = np.einsum("kda,keb,kdiej->kabij", og, og, v, optimize=True)
    # trace(Omega Z_ai Omega Z_bj) with Z_ai the covariances of compliance a and variable i between arms.
    z = np.einsum("kfd,kdaei->kfaei", omega, v[:, :, 1:])
    out[:, :m, :m, : 1 + m, : 1 + m] += np.einsum("kfaei,kebfj->kabij", z, z, optimize=True)
    return frozen(out)

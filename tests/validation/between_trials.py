"""Simulated rows of the between-site regression: the design of Fu (2023, section 6.1) and departures from it.

tau_k = 4 + beta gamma_k + eps_k with gamma_k ~ N(2, 1), eps_k ~ N(0, 1); estimates have normal errors u (of gamma)
and v (of tau) whose standard errors are drawn from a Gamma(1, 1) distribution and known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msmmiv.estimate.between.eb_score import Samples
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.linalg import Array, frozen

#: Mean direct effect and mean compliance.
DELTA, GAMMA = 4.0, 2.0
#: How effects rise with compliance in the design that breaks the assumption that they do not.
ALONG = 0.3

DESIGNS = (
    "Fu",
    "corr(u, v) = .5",
    "corr(u, v) = -.5",
    "t(3) direct effects, skewed compliance",
    "log-normal standard errors",
    "direct effects vary with |gamma - 2|",
    "effects vary, sd .7",
    "effects rise with compliance",
    "sd(gamma) = .5",
)


@dataclass(frozen=True, eq=False)
class Trials:
    """R trials of K sites.

    Attributes
    ----------
    x, y : (R, K) arrays
        Estimated compliance and itt.
    a, b, c : (R, K) arrays
        Sampling variances of x and of y, and their covariance.
    gamma, tau : (R, K) arrays
        What x and y estimate.
    seeds : (R,) array of int
        Of the draws behind simulated critical values.
    """

    x: Array
    y: Array
    a: Array
    b: Array
    c: Array
    gamma: Array
    tau: Array
    seeds: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape  # type: ignore[return-value]

    @property
    def z(self) -> Array:
        """(K, 1) intercept."""
        return np.ones((self.shape[1], 1))

    @property
    def samples(self) -> Samples:
        """For `score_path`, one trial per leading index."""
        return Samples(self.y, self.x, self.z, self.b, self.a, self.c)

    def take(self, which: slice) -> Trials:
        return Trials(**{name: values[which] for name, values in vars(self).items()})

    def rows(self, r: int) -> BetweenRows:
        """One trial as the package has it."""
        k = self.shape[1]
        cov = np.empty((k, 2, 2))
        cov[:, 0, 0], cov[:, 1, 1], cov[:, 0, 1], cov[:, 1, 0] = self.b[r], self.a[r], self.c[r], self.c[r]
        return BetweenRows(
            labels=tuple(range(k)),
            mediators=("m",),
            outcome="y",
            exogenous=("direct_effect",),
            y=frozen(self.y[r]),
            x=frozen(self.x[r][:, None]),
            z=frozen(self.z),
            cov=frozen(cov),
            cross=None,
            common=frozen(np.zeros((2, 2))),
            site=np.arange(k),
            zero_covariance_assumed=False,
        )


@dataclass(frozen=True, eq=False)
class Population:
    """What does not change when only the sampling errors are drawn again: (R, K) arrays, beta left out of tau."""

    gamma: Array
    effect: Array  # a site's own effect less beta
    direct: Array
    se_x: Array
    se_y: Array
    corr: float

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: tuple[int, int], design: str = "Fu") -> Population:
        """Sites of a design."""
        away, eps = rng.standard_normal(shape), rng.standard_normal(shape)
        effect = np.zeros(shape)
        if design.startswith("t(3)"):
            away, eps = rng.standard_exponential(shape) - 1.0, rng.standard_t(3, shape) / np.sqrt(3.0)
        elif design == "direct effects vary with |gamma - 2|":
            eps = eps * np.abs(away)
        elif design == "effects vary, sd .7":
            effect = 0.7 * rng.standard_normal(shape)
        elif design == "effects rise with compliance":
            effect = ALONG * away
        elif design == "sd(gamma) = .5":
            away = 0.5 * away
        if design == "log-normal standard errors":  # mean square 2, as Gamma(1, 1) has it
            se = np.sqrt(2.0) * np.exp(1.5 * rng.standard_normal((2, *shape)) - 1.5**2)
        else:
            se = rng.gamma(1.0, 1.0, (2, *shape))
        corr = float(design.split("=")[1]) if design.startswith("corr") else 0.0
        return cls(GAMMA + away, effect, DELTA + eps, se[0], se[1], corr)

    def repeated(self, trials: int) -> Population:
        """The first population as many times as there are trials."""
        parts = {n: np.repeat(v[:1], trials, axis=0) for n, v in vars(self).items() if n != "corr"}
        return replace(self, **parts)

    def trials(self, rng: np.random.Generator, beta: float) -> Trials:
        """Estimates with fresh errors."""
        u, e = rng.standard_normal((2, *self.gamma.shape))
        v = self.corr * u + np.sqrt(1.0 - self.corr**2) * e
        tau = self.direct + (beta + self.effect) * self.gamma
        return Trials(
            x=self.gamma + self.se_x * u,
            y=tau + self.se_y * v,
            a=self.se_x**2,
            b=self.se_y**2,
            c=self.corr * self.se_x * self.se_y,
            gamma=self.gamma,
            tau=tau,
            seeds=rng.integers(0, 2**31, len(self.gamma)),
        )

"""The same trial with strong, weak and irrelevant instruments, and with effects that differ between sites.

The true effect is 1 (on average). Least squares would find about 1.75. A set may be two rays, the whole line or empty:
each of these is an answer.

    python examples/weak_instruments.py
"""

import numpy as np
import pandas as pd

import msmmiv as mm

DESIGN = mm.Design(outcome="y", treatment="t", mediators="m", site="site")


def trial(strength: float, differ: float = 0.0, seed: int = 6) -> mm.Study:
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(20), 40)
    t = np.arange(len(site)) % 2
    compliance, effect = strength * rng.normal(1.0, 0.6, 20), 1.0 + differ * rng.normal(size=20)
    u = rng.normal(size=len(site))
    m = compliance[site] * t + u + rng.normal(size=len(site))
    y = effect[site] * m + 1.5 * u + rng.normal(size=len(site))
    return mm.Study(pd.DataFrame({"site": site, "t": t, "m": m, "y": y}), DESIGN)


def main() -> None:
    trials = {
        "strong": trial(1.5),
        "weak": trial(0.25),
        "irrelevant": trial(0.0),
        "effects differ": trial(1.5, differ=1.0, seed=0),
    }
    for name, study in trials.items():
        effects = study.noise_effects()
        wald = study.fit("2sls").confidence_set("m")
        print(f"{name}: first-stage F {study.rank().cragg_donald:.2f}, {study.heterogeneity().q}")
        print(f"  2SLS, Wald (HC1)  {wald}")
        print(f"  Anderson-Rubin    {study.anderson_rubin_set('m')}")
        print(f"  conditional LR    {mm.conditional_lr_set(effects, 'm')}")
        print(f"  Kleibergen K      {mm.kleibergen_set(effects, 'm')}")
        chosen = study.fit()
        print(f"  by rule           {chosen.confidence_set('m')} ({chosen.method}, {chosen.interval})")
        if chosen.status:
            print(f"  no point estimate: {chosen.status}")
    print()
    print(
        "Anderson-Rubin, K and conditional LR test one effect for all sites. Where effects differ, Anderson-Rubin"
    )
    print("rejects every value, and the other two keep values that need not be near the average.")


if __name__ == "__main__":
    main()

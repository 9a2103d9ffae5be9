"""Nine clinics: what site-clustered errors, CR2, the jackknife, site scores and the wild bootstrap say.

The effect differs between clinics; its average is 1. With nine clinics all 512 sign vectors of the wild bootstrap
are used, so nothing here depends on a seed but the data.

    python examples/few_sites.py
"""

import numpy as np
import pandas as pd

import msmmiv as mm


def people(seed: int = 5, clinics: int = 9, each: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    clinic = np.repeat(np.arange(clinics), each)
    offered = np.arange(len(clinic)) % 2
    doses_more, effect = rng.gamma(4.0, 0.4, clinics), rng.normal(1.0, 0.4, clinics)
    u = rng.normal(size=len(clinic))
    doses = doses_more[clinic] * offered + u + rng.normal(size=len(clinic))
    health = effect[clinic] * doses + u + rng.normal(size=len(clinic))
    return pd.DataFrame({"clinic": clinic, "offered": offered, "doses": doses, "health": health})


def main() -> None:
    design = mm.Design(outcome="health", treatment="offered", mediators="doses", site="clinic")
    study = mm.Study(people(), design)
    print(f"{'2SLS with':<16}{'std_error':>10}{'df':>7}   95% interval")
    for kind, correction in (("HC1", None), ("site", "CR1P"), ("site", "CR2"), ("site", "CR3")):
        fit = study.fit("2sls", cov_type=kind, small_sample=correction)
        low, high = fit.conf_int().loc["doses"]
        name = " ".join(filter(None, (kind, correction)))
        print(f"{name:<16}{fit.std_errors['doses']:>10.4f}{fit.df_resid:>7.1f}   [{low:.3f}, {high:.3f}]")

    equations = study.fit("2sls", cov_type="site").equations
    print(f"site scores:     {equations.score_set('doses')}")
    print(f"wild bootstrap:  {mm.wild_set(equations, 'doses')}")
    test = mm.wild_test(equations, {"doses": 0.0})
    print(test)
    print(f"no p-value of {test.draws} sign vectors can be below {test.smallest_pvalue:.4f}")

    without = study.leave_one_out("2sls")["doses"]
    print(f"without one clinic: {without.min():.3f} to {without.max():.3f}")

    chosen = study.fit()
    low, high = chosen.conf_int().loc["doses"]
    print(
        f"by rule: {chosen.method}, {chosen.small_sample}, {chosen.params['doses']:.3f} [{low:.3f}, {high:.3f}]"
    )
    print(chosen.rule)


if __name__ == "__main__":
    main()

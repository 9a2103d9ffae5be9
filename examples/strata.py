"""One large trial without sites: strata of baseline covariates take the place of sites.

The true effects are 0.5 per hour and 0.8 per unit of income. The programme moves the hours of the young and the
income of the poor, which is what tells the two apart.

    python examples/strata.py
"""

import numpy as np
import pandas as pd

import msmmiv as mm


def people(seed: int = 7, n: int = 12_000) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age, poor, offered = rng.integers(18, 65, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    region = rng.choice(["north", "south", "west"], n)
    u = rng.normal(size=n)
    hours = 20 + offered * (8 - age / 10) + 2 * u + rng.normal(size=n)
    income = 10 + offered * (1 + 3 * poor) + u + rng.normal(size=n)
    health = 40 + 0.5 * hours + 0.8 * income - 0.1 * age - 3 * u + rng.normal(0, 3, n)
    columns = {"offered": offered, "hours": hours, "income": income, "health": health}
    return pd.DataFrame({**columns, "age": age, "poor": poor, "region": region})


def main() -> None:
    data = people()
    # The site is the column to be made: this trial has none.
    roles = {"outcome": "health", "treatment": "offered", "site": "stratum"}
    both = mm.Design(**roles, mediators=["hours", "income"])
    crossed = mm.strata_as_sites(data, both, by=["region", "poor", "age"], bins={"age": [25, 40, 55]})
    print(crossed)
    print(crossed.table[["stratum", "rows", "n[0]", "n[1]", "status"]].head(4).to_string(index=False))
    print()
    print("                           hours  income")
    print("truth                       0.50    0.80")
    study = mm.Study(crossed.frame, crossed.design)
    for name, method in (("2SLS on strata", "2sls"), ("least squares", "ols")):
        hours, income = study.fit(method).params
        print(f"{name:<26} {hours:>5.2f} {income:>7.2f}")

    # Predicted response of the hours: cross-fitted, so that nobody's own hours decide their stratum.
    predicted = mm.compliance_strata(
        data, both, mediator="hours", covariates=["age", "poor"], n_strata=4, seed=1
    )
    effects = mm.Study(predicted.frame, predicted.design).effects
    print()
    print("stratum              predicted  estimated effect on hours")
    table = predicted.table.assign(found=predicted.table["stratum"].map(effects.compliance["hours"]))
    for stratum, prediction, effect in table[["stratum", "predicted", "found"]].itertuples(index=False):
        print(f"{stratum:<18} {prediction:>11.2f} {effect:>26.2f}")


if __name__ == "__main__":
    main()

"""Which assumption does an arrow break, and what do the coefficients mean if it is there?

An offer of a voucher moves its use; use changes the poverty of the neighbourhood; both may change a child's score. The
mediators are a chain, not parallel. True direct effect of use 0.4, of poverty -0.3, of use on poverty about -1.

    python examples/dag.py
"""

import numpy as np
import pandas as pd

import msmmiv as mm

DESIGN = mm.Design(outcome="score", treatment="offer", mediators=["use", "poverty"], site="city")


def trial(sites: int = 40, n: int = 2000, seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    city = np.repeat(np.arange(sites), n)
    offer = np.arange(len(city)) % 2
    family = rng.normal(size=len(city))  # unmeasured
    take, theta = rng.uniform(0.4, 1.0, sites), rng.normal(-1.0, 0.5, sites)
    use = take[city] * offer + 0.5 * family + rng.normal(size=len(city))
    poverty = theta[city] * use + 0.5 * family + rng.normal(size=len(city))
    score = 0.4 * use - 0.3 * poverty + family + rng.normal(size=len(city))
    return pd.DataFrame({"city": city, "offer": offer, "use": use, "poverty": poverty, "score": score})


def main() -> None:
    dag = mm.CausalDAG.from_design(DESIGN, edges=["use -> poverty"], without=["offer -> poverty"])
    shown = dag.paths(closed=False)[["path", "kind", "breaks"]]
    for path, kind, breaks in shown.itertuples(index=False):
        print(f"{path}: {kind}" + (f", breaks ({breaks})" if breaks else ""))
    print()
    print(dag.meaning())
    print()
    moments = mm.Moments.from_data(trial(), DESIGN)
    print(mm.cascade(moments, first="use", second="poverty", estimator="ujive"))
    print()
    print(dag.to_dagitty())


if __name__ == "__main__":
    main()

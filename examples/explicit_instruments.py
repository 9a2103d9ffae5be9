"""Build the site-by-treatment instruments by hand and let another package do the regression.

`mm.fit` never builds this matrix; both give the same estimates and standard errors.

    python examples/explicit_instruments.py
"""

import numpy as np
import pandas as pd
from linearmodels.iv import IV2SLS

import msmmiv as mm


def pupils(seed: int = 5, n: int = 1500, schools: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    school, small = rng.integers(0, schools, n), rng.integers(0, 2, n)
    u = rng.normal(size=n)
    size = 23 + rng.normal(-6, 2, schools)[school] * small - u + rng.normal(0, 2, n)
    hours = 8 + rng.normal(2, 1.5, schools)[school] * small + u + rng.normal(0, 2, n)
    math = 500 - 1.2 * size + 2 * hours + 4 * u + rng.normal(0, 10, n)
    return pd.DataFrame({"school": school, "small": small, "class_size": size, "hours": hours, "math": math})


def main() -> None:
    data, mediators = pupils(), ["class_size", "hours"]
    design = mm.Design(outcome="math", treatment="small", mediators=mediators, site="school")
    instruments = mm.site_by_treatment(data, design)
    print(f"{instruments.shape[1]} instruments, the first called {instruments.columns[0]!r}")

    dummies = pd.get_dummies(data["school"], dtype=float)
    dense = IV2SLS(data["math"], dummies, data[mediators], instruments).fit(cov_type="robust", debiased=True)
    moments = mm.Moments.from_data(data, design)
    ours = mm.fit(moments, "2sls", cov_type="HC1")
    table = pd.DataFrame(
        {
            "msmmiv": ours.params,
            "linearmodels": dense.params[mediators],
            "msmmiv se": ours.std_errors,
            "linearmodels se": dense.std_errors[mediators],
        }
    )
    print(table.to_string(float_format="{:.10f}".format))
    print(f"rows {len(data):,}, cells {moments.n_cells}")


if __name__ == "__main__":
    main()

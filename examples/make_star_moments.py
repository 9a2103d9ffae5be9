"""Make the packaged STAR moments from the pupil file.

    python examples/make_star_moments.py star_k.csv msmmiv/data

The pupil file (Achilles et al. 2008, doi:10.7910/DVN/SIWH9F, kindergarten, one row per pupil) is not part
of this repository. What is written are sums per class: no row describes a pupil.
"""

import sys
from pathlib import Path

import pandas as pd

import msmmiv as mm

ANALYSES = {
    "math": "math ~ 1 | school | class_size ~ small",
    "math_covariates": "math ~ female + white_asian + freelunch | school | class_size ~ small",
    "math_two_mediators": "math ~ 1 | school | class_size + tch_exp ~ small",
    "reading": "read ~ 1 | school | class_size ~ small",
}


def main(source: str, folder: str) -> None:
    pupils = pd.read_csv(source).rename(columns={"site": "school", "T": "small"})
    for name, formula in ANALYSES.items():
        design = mm.Design.from_formula(formula, cluster="class_id")
        path = mm.Moments.from_data(pupils, design).save(Path(folder) / f"star_{name}.csv", min_cell=4)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

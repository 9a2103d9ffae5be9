"""Three agencies estimate together without showing each other a single row.

Each makes moments of its own people and sends the file. One holds back a cell that is too small, and sees which site
goes with it. The merged estimate equals the one from all rows of the other sites.

    python examples/merge_agencies.py
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import msmmiv as mm

DESIGN = mm.Design(outcome="health", treatment="offered", mediators=["doses", "minutes"], site="clinic")
UNITS = {"doses": "doses", "minutes": "minutes a week"}


def people(seed: int = 20, n: int = 3000, clinics: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    clinic, offered = rng.integers(0, clinics, n), rng.integers(0, 2, n)
    u = rng.normal(size=n)
    doses = 5 + rng.normal(3, 1.5, clinics)[clinic] * offered + u + rng.normal(size=n)
    minutes = 60 + rng.normal(10, 8, clinics)[clinic] * offered + 6 * u + rng.normal(0, 8, n)
    health = 50 + 2 * doses + 0.3 * minutes + 4 * u + rng.normal(0, 6, n)
    columns = {"clinic": clinic, "offered": offered, "doses": doses, "minutes": minutes, "health": health}
    everybody = pd.DataFrame(columns)
    return everybody.drop(everybody.index[(clinic == 11) & (offered == 1)][6:])  # six people


def main() -> None:
    everybody = people()
    with tempfile.TemporaryDirectory() as folder:
        sent = []
        for k, agency in enumerate(("north", "east", "south")):
            own = mm.Moments.from_data(everybody[everybody["clinic"] % 3 == k], DESIGN)
            path = Path(folder) / f"{agency}.csv"
            sent.append(own.save(path, min_cell=10, small_cells="suppress", units=UNITS))
            print(f"{agency} sends {path.name}: {path.stat().st_size:,} bytes for {own.n.sum():,.0f} people")
            print("   ", mm.suppression_effect(own, min_cell=10).sentence())
        merged = mm.fit(mm.Moments.load(*sent).drop(11), "2sls")
    pooled = mm.Study(everybody[everybody["clinic"] != 11], DESIGN).fit("2sls")
    print(f"\n{merged.notes[0]}\n")
    print(merged.tidy().to_string(index=False))
    both = zip((merged.params, merged.std_errors), (pooled.params, pooled.std_errors), strict=True)
    gap = max((a / b - 1).abs().max() for a, b in both)
    print(f"\nlargest relative difference from all rows together: {gap:.1e}")
    if gap > 1e-12:
        raise SystemExit("the merged estimate is not the pooled one")


if __name__ == "__main__":
    main()

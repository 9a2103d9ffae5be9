"""Three agencies estimate together without showing each other a single row.

Each makes moments of its own people and sends the file. The merged estimate equals the one from all rows.

    python examples/merge_agencies.py
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import msmmiv as mm

DESIGN = mm.Design(outcome="health", treatment="offered", mediators=["doses", "minutes"], site="clinic")


def people(seed: int = 20, n: int = 3000, clinics: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    clinic, offered = rng.integers(0, clinics, n), rng.integers(0, 2, n)
    u = rng.normal(size=n)
    doses = 5 + rng.normal(3, 1.5, clinics)[clinic] * offered + u + rng.normal(size=n)
    minutes = 60 + rng.normal(10, 8, clinics)[clinic] * offered + 6 * u + rng.normal(0, 8, n)
    health = 50 + 2 * doses + 0.3 * minutes + 4 * u + rng.normal(0, 6, n)
    columns = {"clinic": clinic, "offered": offered, "doses": doses, "minutes": minutes, "health": health}
    return pd.DataFrame(columns)


def main() -> None:
    everybody = people()
    with tempfile.TemporaryDirectory() as folder:
        sent = []
        for k, agency in enumerate(("north", "east", "south")):
            own = everybody[everybody["clinic"] % 3 == k]
            path = Path(folder) / f"{agency}.csv"
            sent.append(mm.Moments.from_data(own, DESIGN).save(path, min_cell=10))
            print(f"{agency} sends {path.name}: {path.stat().st_size:,} bytes for {len(own):,} people")
        merged = mm.fit(mm.Moments.load(*sent), "2sls")
    pooled = mm.Study(everybody, DESIGN).fit("2sls")
    print()
    print(merged.tidy().to_string(index=False))
    gap = max(
        (merged.params / pooled.params - 1).abs().max(),
        (merged.std_errors / pooled.std_errors - 1).abs().max(),
    )
    print(f"\nlargest relative difference from all rows together: {gap:.1e}")
    if gap > 1e-12:
        raise SystemExit("the merged estimate is not the pooled one")


if __name__ == "__main__":
    main()

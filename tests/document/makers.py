"""Files for the tests of study files: a trial like a school trial, and a messy one."""

from __future__ import annotations

import numpy as np
import pandas as pd


def school_trial(sites: int = 10, classes: int = 4, pupils: int = 12, seed: int = 4) -> pd.DataFrame:
    """Pupils in classes in schools, as pupils' files look: an id, covariates, a mediator per class, two tests."""
    rng = np.random.default_rng(seed)
    rows = []
    for site in range(sites):
        for k in range(classes):
            small = k % 2
            size = int(rng.integers(20, 26)) - small * int(rng.integers(4, 9))
            for _ in range(pupils):
                math = 500 - 1.5 * size + 3 * site + rng.normal(scale=12)
                rows.append((20000 + len(rows), 160000 + 17 * site, (160000 + 17 * site) * 100 + k, small, size,
                             round(math, 1), round(math + rng.normal(), 1), int(rng.random() < 0.5)))  # fmt: skip
    names = ["student", "site", "class_id", "T", "class_size", "math", "read", "female"]
    return pd.DataFrame(rows, columns=names)


def messy_trial(seed: int = 3) -> pd.DataFrame:
    """Names with spaces and accents, text arms."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(8):
        for k in range(40):
            hours = rng.normal() + (k % 2) * rng.uniform(0.3, 2)
            arm = "traité" if k % 2 else "témoin"
            rows.append(
                (f"École n° {i}", arm, hours, 2 * hours + rng.normal(), f"{i} classe {k % 2}{k // 10}")
            )
    return pd.DataFrame(rows, columns=["École", "Bras traitement", "Heures suivies", "Note finale", "Classe"])


def written(
    frame: pd.DataFrame, path, *, sep: str = ",", decimal: str = ".", encoding: str = "utf-8", tail: str = ""
):
    text = frame.to_csv(index=False, sep=sep, decimal=decimal, lineterminator="\n")
    path.write_bytes("".join(f"{line}{tail}\n" for line in text.splitlines()).encode(encoding))
    return path

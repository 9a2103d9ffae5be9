"""Site effects from a published table: no rows, no moments, only estimates and standard errors.

The numbers are made up. Cov(itt, compliance) is seldom printed; without it zero is assumed, with a
warning and a flag.

    python examples/published_table.py
"""

import warnings

import pandas as pd

import msmmiv as mm

TABLE = pd.DataFrame(
    {
        "site": ["Ashby", "Brook", "Cairn", "Dale", "Elm"],
        "itt": [4.1, 2.0, 5.2, 0.4, 3.3],
        "itt_se": [0.9, 0.7, 1.1, 0.8, 0.6],
        "hours": [3.8, 1.5, 5.0, 0.2, 3.0],
        "hours_se": [0.4, 0.3, 0.5, 0.4, 0.3],
        "cov": [0.12, 0.05, 0.20, 0.10, 0.06],
    }
)
COLUMNS = {
    "site": "site",
    "itt": "itt",
    "itt_se": "itt_se",
    "compliance": "hours",
    "compliance_se": "hours_se",
}


def main() -> None:
    effects = mm.SiteEffects.from_table(TABLE, **COLUMNS, cov="cov")
    print(effects)
    print(effects.to_frame().drop(columns="n").round(4).to_string(index=False))

    w, g, b = effects.weight, effects.compliance["hours"], effects.itt
    slope = (w * g * b).sum() / (w * g**2).sum()
    print(f"\ninverse-variance weighted line through the origin: {slope:.4f} per hour")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assumed = mm.SiteEffects.from_table(TABLE, **COLUMNS)
    print(f"\nwithout the covariances: {caught[0].message}")
    print(assumed)


if __name__ == "__main__":
    main()

"""How much of an effect goes through a mediator: a made-up published table, then a trial with eight kinds of treatment.

python examples/decompose.py
"""

import numpy as np
import pandas as pd

import msmmiv as mm

TABLE = pd.DataFrame(
    {
        "site": ["Ashby", "Brook", "Cairn", "Dale", "Elm", "Ford", "Glen", "Hope", "Inch", "Jura"],
        "itt": [4.1, 5.9, 5.2, 6.4, 8.3, 7.1, 8.8, 10.2, 6.6, 9.4],
        "itt_se": [0.5, 0.4, 0.6, 0.4, 0.5, 0.7, 0.4, 0.6, 0.5, 0.4],
        "hours": [0.1, 1.2, 0.4, 1.0, 2.3, 1.4, 2.2, 3.3, 1.5, 2.6],
        "hours_se": [0.2, 0.3, 0.3, 0.2, 0.3, 0.4, 0.2, 0.3, 0.2, 0.3],
        "cov": [0.02, 0.05, 0.06, 0.03, 0.05, 0.10, 0.03, 0.06, 0.04, 0.04],
    }
)


def kinds_of_contact(people: int = 9000, seed: int = 3) -> pd.DataFrame:
    """Eight kinds of contact and one control group; the direct effect is 0.5, the mediator's 0.8."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 9, people)
    moved = np.array([0.0, 0.2, 0.5, 0.9, 1.2, 1.4, 1.9, 2.3, 2.8])[arm]
    common = rng.normal(size=people)
    m = moved + common + rng.normal(size=people)
    y = 0.5 * (arm > 0) + 0.8 * m + 2.0 * common + rng.normal(size=people)
    return pd.DataFrame({"arm": arm, "site": "all", "m": m, "y": y})


def main() -> None:
    effects = mm.SiteEffects.from_table(
        TABLE,
        site="site",
        itt="itt",
        itt_se="itt_se",
        compliance="hours",
        compliance_se="hours_se",
        cov="cov",
    )
    found = mm.decompose(effects)
    print(found, "\nThe same rows by other methods", sep="\n")
    print(
        found.compare(["ols", "bces", mm.SIMEX(extrapolant="quadratic"), "reml"])
        .round(3)
        .to_string(index=False)
    )

    design = mm.Design(outcome="y", treatment="arm", mediators="m", site="site", control=0)
    contact = mm.Study(kinds_of_contact(), design).decompose()
    print("\nEight kinds of contact, one control group")
    print(contact.tidy()[["term", "estimate", "conf_low", "conf_high"]].round(3).to_string(index=False))


if __name__ == "__main__":
    main()

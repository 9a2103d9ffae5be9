"""Two counties are too few: subgroups in the place of sites tell the mediator's effect from a direct effect.

A video moves how hard the young, and those who did not know him, think a politician works. True effect of that on the
vote: 0.50; direct effect of the video: 0.30.

    python examples/subgroups.py
"""

import numpy as np
import pandas as pd

import msmmiv as mm
from msmmiv.errors import MissingExtraError


def voters(seed: int = 5, n: int = 8000) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    county, age, knew = rng.integers(0, 2, n), rng.integers(18, 80, n), rng.integers(0, 2, n)
    video, taste = rng.integers(0, 2, n), rng.normal(size=n)
    effort = county + video * (1.2 * (age <= 40) + 0.8 * (1 - knew)) + taste + rng.normal(size=n)
    vote = 0.30 * video + 0.50 * effort + taste - county + rng.normal(size=n)
    columns = {"county": county, "video": video, "age": age, "knew": knew, "effort": effort, "vote": vote}
    return pd.DataFrame(columns).assign(
        group=np.where(age <= 40, "young", "old") + (" knew" * knew.astype(object))
    )


def effort(effects: mm.SiteEffects) -> tuple[float, float]:
    """What `crossfit` asks of every half: an estimate and its standard error."""
    found = mm.decompose(effects, "bces")
    return float(found.params["effort"]), float(found.std_errors["effort"])


def main() -> None:
    data = voters()
    # Subgroups that are known beforehand need nothing new: they are the sites, the counties are blocks.
    known = mm.Design(outcome="vote", treatment="video", mediators="effort", site="group", block="county")
    fit = mm.Study(data, known).fit("ujive", direct_effect=True)
    print(f"given subgroups: effort {fit.params['effort']:.2f}, direct {fit.params['direct_effect']:.2f}")
    roles = mm.Design(outcome="vote", treatment="video", mediators="effort", site="county")
    try:
        found = mm.find_subgroups(data, roles, by=["age", "knew"], max_leaves=4)
    except MissingExtraError as error:  # the extra is not installed
        print(error)
        return
    print(found, found.table[["stratum", "rows", "n[0]", "n[1]"]].to_string(index=False), sep="\n")
    print(mm.decompose(found.effects).tidy()[["term", "estimate", "conf_low", "conf_high"]].round(2))
    many = mm.crossfit(data, roles, by=["age", "knew"], estimate=effort, splits=5)
    print(f"five splits, halves in turn: effort {many.estimate:.2f} ({many.std_error:.2f})")


if __name__ == "__main__":
    main()

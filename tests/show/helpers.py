"""Trials for the tests of figures, files and commands."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

import msmmiv as mm

HOSTILE = (
    "<script>alert(1)</script>",
    "x" * 300,
    "مدرسة الأمل الابتدائية",
    "🏫 school 😀",
    "$x$",
    "$\\frac{1",
    "a_b^c",
    "id=\"x\" onload='y'",
    "line\nbreak\x00\x1b[31m",
    "_hidden",
    "\u202eevil",
    "&amp; {{ 7*7 }}",
    "日本の学校",
    "",
)


#: In place of the pictures of a page, for tests of its words: drawing takes most of the time.
UNDRAWN = tuple(
    SimpleNamespace(name=name, caption=f"caption of {name}", svg=lambda: "<svg></svg>")
    for name in (
        "estimates", "site_scatter", "partial_1", "partial_2", "forest", "rank_spectrum", "compliance_map",
        "compliance_scatter", "causal_dag",
    )
)  # fmt: skip


def trial(sites, *, seed=1, arms=(0, 1), n=24, names=("y", "m1", "m2", "s", "t")):
    """Rows of a trial in which both mediators move by site-specific amounts."""
    rng = np.random.default_rng(seed)
    parts = []
    for site in sites:
        for i, arm in enumerate(arms):
            first = rng.normal(size=n) + i * rng.uniform(0.2, 2.0)
            second = rng.normal(size=n) + i * rng.normal()
            outcome = 0.8 * first - 0.4 * second + rng.normal(size=n)
            parts.append(pd.DataFrame(dict(zip(names, (outcome, first, second), strict=False))))
            parts[-1][names[3]], parts[-1][names[4]] = site, arm
            parts[-1]["x"] = rng.normal(size=n)
            parts[-1]["class"] = [f"{site}-{arm}-{k % 4}" for k in range(n)]
    return pd.concat(parts, ignore_index=True)


def design(*mediators, **roles):
    base = {"outcome": "y", "treatment": "t", "site": "s"}
    return mm.Design(mediators=mediators, **(base | roles))

"""Words that hold whatever the columns are called."""

from __future__ import annotations

import pytest

import msmmiv as mm
from msmmiv.show.words import one_line, question
from tests.show.helpers import HOSTILE


@pytest.mark.parametrize(
    ("site", "read"),
    [
        ("school", "school"), ("School", "School"), ("school district", "school district"), ("clinic", "clinic"),
        ("class", "class"), ("campus", "campus"), ("site", "site"), ("Sites", "site"), ("école", "site (école)"),
        ("the town", "site (the town)"), ("The Town", "site (The Town)"), ("each ward", "site (each ward)"),
        ("towns", "site (towns)"), ("school districts", "site (school districts)"), ("s", "site (s)"),
        ("sch_id", "site (sch_id)"), ("site 2", "site (site 2)"), ("7", "site (7)"), ("の", "site (の)"),
    ],
)  # fmt: skip
def test_the_question_reads_right_with_any_site(site, read):
    asked = question(mm.Design(outcome="y", treatment="t", mediators="m", site=site))
    assert asked.startswith(f"The treatment t was randomised inside each {read}. How much")


@pytest.mark.parametrize("site", [n for n in HOSTILE if n and not one_line(n).encode().isalpha()])
def test_hostile_names_stand_apart(site):
    asked = question(mm.Design(outcome="y", treatment="t", mediators="m", site=site))
    assert f" inside each site ({one_line(site)}). " in asked

"""Analyses with one mediator, two, three arms, and labels that mean harm."""

from __future__ import annotations

import pytest

import msmmiv as mm
from msmmiv.show.plots import gallery
from tests.show.helpers import HOSTILE, design, trial


@pytest.fixture(scope="session")
def one():
    return mm.Study(trial(range(9)), design("m1")).analysis()


@pytest.fixture(scope="session")
def two():
    return mm.Study(trial(range(9)), design("m1", "m2", cluster="class")).analysis()


@pytest.fixture(scope="session")
def three_arms():
    rows = trial([f"site {i}" for i in range(12)], arms=("control", "letter", "visit"))
    rows = rows[~((rows["s"] == "site 4") & (rows["t"] == "visit"))]
    return mm.Study(rows, design("m1", "m2", control="control"))


@pytest.fixture(scope="session")
def hostile():
    names = ("the <b>outcome</b>", "dose $m$", "other", "ward", "arm t")
    rows = trial(HOSTILE, names=names)
    roles = mm.Design(outcome=names[0], mediators=[names[1]], site=names[3], treatment=names[4])
    return mm.Study(rows, roles).analysis()


@pytest.fixture(scope="session")
def one_drawn(one):
    """The figures of an analysis, for tests that read them; drawing them takes longer than the analysis."""
    return gallery(one)


@pytest.fixture(scope="session")
def two_drawn(two):
    return gallery(two)


@pytest.fixture(scope="session")
def hostile_drawn(hostile):
    return gallery(hostile)

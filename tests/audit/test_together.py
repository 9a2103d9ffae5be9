"""Findings read together: what one contradicted assumption leaves to be said of another."""

from __future__ import annotations

from dataclasses import replace

import pytest

import msmmiv as mm
from msmmiv.audit.findings import Finding
from msmmiv.audit.together import read_together
from msmmiv.diagnose.evidence import Evidence
from msmmiv.inference.tests import TestStatistic


def finding(number: str, status: str, *evidence: Evidence, p: float = 0.001) -> Finding:
    a = next(a for a in mm.load_assumptions() if a.id == number)
    return Finding(a, "ate", status, ("Why.",), evidence, tuple(p for _ in evidence))  # type: ignore[arg-type]


ORIGIN = Evidence("linearity.origin_intercept", TestStatistic("origin", "none", 9.0, 0.001, 1), "evidence")


DENSITY = Evidence("monotonicity.density", TestStatistic("inequalities", "hold", 3.0, 0.001, 1), "evidence")
BALANCE = Evidence(
    "balance.covariates_joint", TestStatistic("balance", "balanced", 3.0, 0.001, 1), "evidence"
)
CURVE = Evidence(
    "linearity.corrected_curvature", TestStatistic("curvature", "straight", 3.0, 0.001, 1), "evidence"
)
CELLS = Evidence("within_site.subgroups", TestStatistic("subgroups", "one effect", 3.0, 0.001, 1), "evidence")


@pytest.mark.parametrize(
    ("number", "evidence"), [("vi", BALANCE), ("iv", CURVE), ("ix", CURVE), ("vii", CELLS)]
)
def test_an_intercept_does_not_accuse_exclusion_while_another_cause_is_caught(number, evidence):
    ii, other = finding("ii", "contradicted", ORIGIN), finding(number, "contradicted", evidence)
    left = read_together([ii, other])
    assert (left[0].status, left[1].status) == ("not assessed", "contradicted")
    assert left[1].reasons[: len(other.reasons)] == other.reasons
    assert f"({other.id})" in left[0].reason
    assert left[0].evidence == ii.evidence


def test_a_bend_is_said_of_both_linearity_and_independence():
    """Curvature against (iv) is beside three other tests under (ix), where Holm may lift it above the level."""
    iv, ix = finding("iv", "contradicted", CURVE), finding("ix", "not contradicted", CURVE, p=0.06)
    one, two = read_together([iv, ix])
    assert (one.status, two.status) == ("contradicted", "not contradicted")
    assert one.reasons[-1] == two.reasons[-1]
    assert "Only a bend of itt over compliance speaks against (iv)." in two.reasons[-1]
    alone = finding("ix", "contradicted", BALANCE)
    assert read_together([finding("iv", "not contradicted", CURVE, p=0.5), alone])[1] is alone


@pytest.mark.parametrize("other", ["i", "iii", "v", "viii"])
def test_failures_that_do_not_move_the_intercept_leave_exclusion_contradicted(other):
    ii = finding("ii", "contradicted", ORIGIN)
    assert read_together([ii, finding(other, "contradicted", BALANCE)])[0] is ii
    assert read_together([ii, finding("vi", "not contradicted", BALANCE, p=0.5)])[0] is ii


def test_what_a_graph_declares_is_not_taken_back_and_clears_nothing():
    """An author cannot remove a contradiction by drawing one more edge."""
    ii, vi = finding("ii", "contradicted", ORIGIN), replace(finding("vi", "contradicted"), declared=True)
    assert read_together([ii, vi])[0] is ii
    drawn = replace(ii, declared=True)
    assert read_together([drawn, finding("vi", "contradicted", BALANCE)])[0] is drawn


def test_the_origin_and_the_inequalities_accuse_both_of_what_either_may_be():
    ii, vii = finding("ii", "contradicted", ORIGIN), finding("vii", "contradicted", DENSITY)
    first, second = read_together([ii, vii])
    assert first.status == second.status == "contradicted"
    assert first.reasons[-1] == second.reasons[-1]
    assert "speak against (ii) and (vii.a)" in first.reason
    assert "read the two findings as one" in first.reason
    assert read_together([finding("ii", "not contradicted", ORIGIN, p=0.5), vii])[1] is vii
    assert read_together([ii])[0] is ii
    signs = Evidence("monotonicity.signs", DENSITY.test, "evidence")
    both = finding("vii", "contradicted", signs, DENSITY)
    one, two = read_together([ii, both])
    assert two is both
    assert one.status == "not assessed"


def test_declared_edges_in_whole_audits():
    trial = mm.simulate("ii", seed=3, sites=60, people=200, strength=1.0)
    study = mm.Study(trial.frame, trial.design)
    for edges, causes in (
        ([], None),
        (["t -> y"], None),
        ([], {"U": ["t", "y"]}),
        (["t -> y"], {"U": ["t", "y"]}),
    ):
        dag = mm.CausalDAG.from_design(trial.design, edges=edges, confounders=causes)
        assert study.audit(dag, draws=199)["ii"].status == "contradicted", (edges, causes)

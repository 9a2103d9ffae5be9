"""Statuses: what design, tests, a declared graph and an author's argument may and may not do to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msmmiv.audit import load_assumptions
from msmmiv.audit.findings import Finding, finding_of, holm
from msmmiv.diagnose.evidence import Evidence
from msmmiv.inference.tests import NotApplicable, TestStatistic

NINE = {a.id: a for a in load_assumptions()}


def a_test(p: float) -> TestStatistic:
    return TestStatistic("a test", "no violation", 1.0, p, 1)


def seen(check: str, p: float | None, *, role: str = "evidence", **words: str) -> Evidence:
    test = NotApplicable("a test", "too few sites") if p is None else a_test(p)
    known = {"detectable": "An effect of 0.5 would be found."} if p is not None and role == "evidence" else {}
    return Evidence(check, test, role, **(known | words))  # type: ignore[arg-type]


def find(number: str, evidence: Sequence[Evidence] = (), *, estimand: str = "ate", **options: str) -> Finding:
    return finding_of(NINE[number], evidence, estimand=estimand, **options)  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_by_its_definition(pvalues):
    ours = holm(np.array(pvalues))
    order = sorted(range(len(pvalues)), key=lambda i: pvalues[i])
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(pvalues) - rank) * pvalues[i]))
        assert ours[i] == pytest.approx(running)


def test_decisive_evidence_decides_and_is_adjusted():
    pair = [seen("balance.covariates_joint", 0.03), seen("balance.attrition_by_arm", 0.5)]
    assert find("vi", pair[:1]).status == "contradicted"
    both = find("vi", pair)
    assert both.status == "not contradicted"  # 0.03 of two tests is 0.06
    assert both.adjusted == (0.06, 0.5)
    assert both.deciding is pair[0]


def test_context_never_decides():
    assert find("ii", [seen("independence.overidentification", 1e-9)]).status == "not assessed"
    weak = seen("linearity.origin_intercept", 1e-9, role="context")
    assert find("ii", [weak]).status == "not assessed"
    assert find("ii", [weak]).evidence == (weak,)


def test_other_assumptions_evidence_is_left_out():
    assert find("ii", [seen("balance.covariates_joint", 1e-9)]).evidence == ()


@pytest.mark.parametrize("number", ["i", "v"])
def test_what_only_argument_carries_never_gets_better(number):
    every = [seen(c, 0.9) for c in NINE[number].checks]
    low = [seen(c, 1e-12) for c in NINE[number].checks]
    for found in (
        find(number),
        find(number, every),
        find(number, low),
        find(number, every, argument="Surely."),
    ):
        assert found.status == "untestable: argue it"


def test_vii_a_can_be_contradicted_and_never_gets_better_than_argument():
    assert find("vii", [seen("within_site.subgroups", 0.5)]).status == "untestable: argue it"
    assert find("vii", [seen("within_site.subgroups", 0.01)]).status == "contradicted"
    assert find("vii", [seen("monotonicity.signs", 1e-9)]).status == "untestable: argue it"
    assert find("vii", [seen("monotonicity.signs", 1e-9)], estimand="late").status == "contradicted"
    assert find("vii", estimand="late").id == "vii.b"


def test_an_argument_is_quoted_and_changes_nothing():
    evidence = [seen("linearity.origin_intercept", 0.001)]
    without, said = find("ii", evidence), find("ii", evidence, argument="It cannot be.")
    assert (said.status, said.reason, said.adjusted) == (without.status, without.reason, without.adjusted)
    assert (without.argument, said.argument) == (None, "It cannot be.")


def test_design_supports_and_the_authors_graph_contradicts():
    assert find("iii", guarantee="Two arms.").status == "supported"
    declared = find("ii", [seen("linearity.origin_intercept", 0.9)], declared="The graph has T -> Y.")
    assert (declared.status, declared.reason) == ("contradicted", "The graph has T -> Y.")


def test_nothing_applicable_is_not_assessed_and_says_why():
    found = find("ii", [seen("linearity.origin_intercept", None)])
    assert (found.status, found.reason) == ("not assessed", "Not tested: a test (too few sites).")
    assert math.isnan(found.adjusted[0])
    assert found.deciding is None


def test_not_contradicted_carries_what_could_have_been_seen():
    e = seen(
        "linearity.origin_intercept", 0.4, reading="No sign of it.", detectable="80% power against 3 points."
    )
    assert find("ii", [e]).reason == "A test: p = 0.400. No sign of it. 80% power against 3 points."


def test_a_test_that_was_not_made_is_said_beside_one_that_was():
    found = find("vi", [seen("balance.attrition_by_arm", 0.8), seen("balance.covariates_joint", None)])
    assert found.status == "not contradicted"
    assert found.reasons[-1] == "Not tested: a test (too few sites)."
    side = seen("balance.attrition_by_arm", None, role="context")  # the same check, one more view
    assert "Not tested" not in find("vi", [seen("balance.attrition_by_arm", 0.8), side]).reason


def test_reasons_give_the_p_that_decides():
    both = find("vi", [seen("balance.covariates_joint", 0.03), seen("balance.attrition_by_arm", 0.5)])
    seen_as = "An effect of 0.5 would be found."
    assert both.reasons[0] == f"A test: p = 0.030, 0.060 after Holm over 2 tests. {seen_as}"
    assert find("vi", [seen("balance.covariates_joint", 1e-9)]).reasons == (f"A test: p < 0.001. {seen_as}",)


def test_vii_a_says_that_data_can_only_speak_against_it():
    assert (
        find("vii", [seen("within_site.subgroups", 0.5)]).reasons[0].startswith("Data can contradict it here")
    )
    assert find("i").reason == "No data can settle it."
    untested = find("vii", [seen("within_site.subgroups", None)]).reasons
    assert untested[0] == "No data can support it, and none contradicts it here."
    assert untested[1].startswith("Not tested: ")


def test_silence_that_means_nothing_is_no_support():
    blind = seen("independence.site_covariates", 0.5, detectable="")
    found = find("ix", [blind])
    assert found.status == "not assessed"
    assert found.reasons[0].startswith("No test rejects, and what they could have seen is not known")
    assert find("ix", [blind, seen("linearity.corrected_curvature", 0.5)]).status == "not contradicted"
    assert find("ix", [seen("independence.site_covariates", 0.001, detectable="")]).status == "contradicted"


def test_to_dict_has_every_piece():
    found = find(
        "ii",
        [
            seen("linearity.origin_intercept", 0.4),
            seen("independence.overidentification", None, role="context"),
        ],
    )
    pieces = found.to_dict()["evidence"]
    assert [p["check"] for p in pieces] == ["linearity.origin_intercept", "independence.overidentification"]
    assert pieces[1]["not_applicable"] == "too few sites"

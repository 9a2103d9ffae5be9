"""What coefficients mean in a graph, checked against the regression that they come from."""

from __future__ import annotations

import numpy as np
import pytest

from msmmiv.audit.dag import CausalDAG


def graph(*edges, mediators=("a", "b"), **roles):
    return CausalDAG.from_edges(edges, treatment="t", mediators=mediators, outcome="y", **roles)


PARALLEL = ("t -> a", "t -> b", "a -> y", "b -> y")
FIGURE_2 = ("t -> a", "a -> b", "a -> y", "b -> y")


def kinds(dag, **options):
    return dag.meaning(**options).to_frame()["kind"].tolist()


def test_parallel_mediators_have_average_effects():
    found = graph(*PARALLEL).meaning()
    assert [c.kind for c in found.coefficients] == ["average effect"] * 2
    assert found.conditions == found.notes == ()


def test_figure_2_of_reardon_and_raudenbush():
    found = graph(*FIGURE_2).meaning()
    assert [c.kind for c in found.coefficients] == ["direct effect", "effect"]
    assert (
        found.coefficients[0].total == "(coefficient of a) + (direct effect of a on b) × (coefficient of b)"
    )
    assert "does not go through b" in found.coefficients[0].sentence
    text = "\n".join(found.conditions)
    assert [text.count(f"({letter})") for letter in "abcd"] == [1] * 4
    assert text.count("inside each site") == 2
    assert "rank (viii): how much a changes b differs between sites" in text
    assert "total effect is also that of a model with a as the only mediator" in found.notes[0]


def test_with_a_path_of_its_own_theta_is_not_a_ratio():
    found = graph(*PARALLEL, "a -> b").meaning()
    assert [c.kind for c in found.coefficients] == ["direct effect", "effect"]
    assert len(found.conditions) == 2
    assert found.notes == ()


def test_a_mediator_whose_effect_all_passes_through_another():
    dag = graph("t -> a", "t -> b", "a -> b", "b -> y")
    assert kinds(dag) == ["zero as drawn", "effect"]
    assert dag.meaning().coefficients[0].total == "(direct effect of a on b) × (coefficient of b)"


def test_long_chains_are_summed_over_all_ways():
    names = ("a", "b", "c")
    edges = [f"t -> {m}" for m in names] + [f"{m} -> y" for m in names] + ["a -> b", "b -> c", "a -> c"]
    found = graph(*edges, mediators=names).meaning()
    assert found.coefficients[0].total == (
        "(coefficient of a) + (direct effect of a on b) × (coefficient of b)"
        " + (direct effect of a on b) × (direct effect of b on c) × (coefficient of c)"
        " + (direct effect of a on c) × (coefficient of c)"
    )
    assert (
        found.coefficients[1].total == "(coefficient of b) + (direct effect of b on c) × (coefficient of c)"
    )
    assert found.coefficients[2].total == ""


def test_a_very_long_total_is_cut():
    names = tuple("abcdef")
    edges = [f"t -> {m}" for m in names] + [f"{m} -> y" for m in names]
    edges += [f"{p} -> {q}" for i, p in enumerate(names) for q in names[i + 1 :]]
    assert graph(*edges, mediators=names).meaning().coefficients[0].total.endswith(" + ...")


def test_a_free_direct_effect_is_the_intercept():
    dag = graph(*PARALLEL, "t -> y")
    assert "kappa_s" in dag.meaning().notes[0]
    freed = dag.meaning(direct_effect=True)
    assert freed.notes == ()
    assert freed.coefficients[-1].kind == "average direct effect of treatment"
    assert kinds(graph(*PARALLEL), direct_effect=True)[-1] == "zero as drawn"


def test_without_randomisation_nothing_is_promised():
    found = graph(*PARALLEL, "u -> t", "u -> y", unmeasured="u").meaning()
    assert "no coefficient means what is said below" in found.notes[0]
    assert str(found).startswith("Assignment shares causes")


def test_names_are_the_user_s():
    dag = CausalDAG.from_edges(
        ["offer -> voucher", "voucher -> poverty", "voucher -> score", "poverty -> score"],
        treatment="offer", mediators=["voucher", "poverty"], outcome="score",
    )  # fmt: skip
    text = str(dag.meaning())
    assert (
        "(b) across sites, the effect of poverty on score is unrelated to how much voucher changes poverty"
        in text
    )
    assert "voucher: direct effect." in text


@pytest.mark.parametrize(
    "links", [(), ("a -> b",), ("a -> b", "b -> c"), ("a -> c",), ("a -> b", "a -> c", "b -> c"), ("c -> a",)]
)
def test_the_regression_finds_what_is_said(links):
    """Site contrasts of a linear structural model without noise: coefficients are direct effects, totals add up."""
    rng = np.random.default_rng(3)
    names = ("a", "b", "c")
    own = dict(zip(names, rng.normal(size=3), strict=True))
    theta = {tuple(link.split(" -> ")): rng.normal() for link in links}
    moved = rng.normal(size=(12, 3))  # by assignment alone
    link = np.zeros((3, 3))
    for (p, q), value in theta.items():
        link[names.index(q), names.index(p)] = value
    passing = np.linalg.inv(np.eye(3) - link)  # whole effect of a change in p on q
    compliance = moved @ passing.T
    effect = np.array([own[m] for m in names])
    itt = compliance @ effect
    found = np.linalg.lstsq(compliance, itt, rcond=None)[0]
    np.testing.assert_allclose(found, effect, rtol=0, atol=1e-12)
    dag = graph(*[f"t -> {m}" for m in names], *[f"{m} -> y" for m in names], *links, mediators=names)
    totals = effect @ passing
    for j, coefficient in enumerate(dag.meaning().coefficients):
        assert (coefficient.kind == "direct effect") == any(p == coefficient.term for p, _ in theta)
        said = coefficient.total or f"(coefficient of {coefficient.term})"
        assert value_of(said, own, theta) == pytest.approx(totals[j], abs=1e-12)


def value_of(total, own, theta):
    """The number behind a total in words."""
    out = 0.0
    for term in total.split(" + "):
        product = 1.0
        for part in term.split(" × "):
            words = part.removeprefix("(").removesuffix(")").split()
            link = words[:3] == ["direct", "effect", "of"]
            product *= theta[words[3], words[5]] if link else own[words[2]]
        out += product
    return out


def test_a_total_is_in_words():
    text = str(graph(*FIGURE_2).meaning())
    assert "total effect = (coefficient of a) + (direct effect of a on b) × (coefficient of b)" in text
    assert "delta" not in text
    assert "theta" not in text

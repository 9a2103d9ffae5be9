"""The figure of the causal graph: nothing overlaps, and every edge is drawn as what it is."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.patches import FancyArrowPatch

import msmmiv as mm
from msmmiv.audit.dag import CausalDAG
from msmmiv.show.plots.dag import causal_dag
from msmmiv.show.plots.dag_layout import lay_out
from msmmiv.show.plots.picture import INK
from tests.show.helpers import HOSTILE

LONG = (
    "share of households below the federal poverty line in the census tract",
    "Supercalifragilisticexpialidocious",
    "貧困率（地区）",
)


def build(*mediators, **options):
    names = {k: options.pop(k) for k in ("outcome", "treatment", "site") if k in options}
    roles = {"outcome": "score", "treatment": "offer", "site": "city"} | names
    return CausalDAG.from_design(mm.Design(mediators=mediators, **roles), **options)


GRAPHS = {
    **{f"parallel {p}": build(*[f"mediator {i}" for i in range(p)]) for p in range(1, 7)},
    "figure 2": build("voucher", "poverty", edges=["voucher -> poverty"], without=["offer -> poverty"]),
    "chains": build(
        "hours", "income", "welfare", "care", confounders=[],
        edges=["hours -> income", "hours -> care", "welfare -> income", "hours -> welfare"],
    ),
    "all broken": build(
        "hours", "income", confounders=["motivation", "age"], measured="age",
        edges=["offer -> score", "hours -> income", "motivation -> offer", "age -> offer", "hours <-> income"],
    ),
    "two heads": build(
        "hours", "income", "welfare", confounders={"visits": [], "ability": ["income", "score"]}, measured="visits",
        edges=["offer <-> score", "offer <-> income", "offer -> visits", "visits -> score", "hours <-> score"],
    ),
    "six, broken": build(
        *[f"mediator {i}" for i in range(6)], edges=["mediator 0 -> mediator 5", "offer -> score", "U -> offer"]
    ),
    "long": build(
        *LONG, outcome="mother's mental health index, wave 4 (standardised)",
        treatment="offered a restricted voucher", confounders=["unobserved family circumstances at baseline"],
    ),
}  # fmt: skip


def marks(dag):
    edges = [(e, False) for e in dag.edges] + [(e, True) for e in dag.bidirected]
    return {m: a for m, a in zip(edges, dag.to_frame()["assumption"], strict=True) if a}


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_overlaps(name):
    dag = GRAPHS[name]
    layout = lay_out(dag, frozenset(marks(dag)))
    boxes = list(layout.boxes.values())
    for i, one in enumerate(boxes):
        for two in boxes[i + 1 :]:
            apart = abs(one.x - two.x) >= (one.w + two.w) / 2 or abs(one.y - two.y) >= (one.h + two.h) / 2
            assert apart, (one.name, two.name)
    for arrow in layout.arrows:
        line = arrow.sampled(200)
        for box in boxes:
            if box.name not in arrow.ends:
                assert not box.holds(line, 0.02), (arrow.ends, box.name)
    tags = [a.tag for a in layout.arrows if a.tag]
    assert len(tags) == len(marks(dag))
    for i, tag in enumerate(tags):
        assert not any(box.holds(np.array([tag]), 0.06) for box in boxes)
        for other in tags[i + 1 :]:
            assert abs(tag[0] - other[0]) > 0.3 or abs(tag[1] - other[1]) > 0.15


@pytest.mark.parametrize("name", GRAPHS)
def test_arrows_begin_and_end_at_their_boxes(name):
    dag = GRAPHS[name]
    for arrow in lay_out(dag, frozenset()).arrows:
        boxes = lay_out(dag, frozenset()).boxes
        for node, point in zip(arrow.ends, (arrow.points[0], arrow.points[-1]), strict=True):
            box = boxes[node]
            gap = np.abs(np.subtract(point, (box.x, box.y))) - [box.w / 2, box.h / 2]
            assert gap.max() == pytest.approx(0.0, abs=1e-9), (arrow.ends, node)


@pytest.mark.parametrize("name", GRAPHS)
def test_text_fits_its_box(name):
    """Measured by the program that draws it."""
    figure = causal_dag(GRAPHS[name]).figure
    (axes,) = figure.axes
    boxes = {b.text: b for b in lay_out(GRAPHS[name], frozenset()).boxes.values()}
    to_inches = figure.dpi_scale_trans.inverted()
    for text in axes.texts:
        box = boxes.get(text.get_text())
        if box is not None and text.get_text().isascii():
            size = text.get_window_extent().transformed(to_inches)
            assert size.width < box.w
            assert size.height < box.h


def test_the_width_is_that_of_a_page():
    assert all(causal_dag(dag).figure.get_size_inches()[0] < 8 for dag in GRAPHS.values())
    assert causal_dag(GRAPHS["parallel 2"]).figure.get_size_inches()[0] < 5.5


def test_broken_edges_stand_out():
    dag = GRAPHS["all broken"]
    picture = causal_dag(dag)
    pd.testing.assert_frame_equal(picture.data, dag.to_frame())
    arrows = [p for p in picture.figure.axes[0].patches if isinstance(p, FancyArrowPatch)]
    coloured = [p for p in arrows if same_color(p.get_edgecolor(), INK["line"])]
    assert len(arrows) == len([e for e in (*dag.edges, *dag.bidirected) if "city" not in e])
    assert len(coloured) == len(dag.broken()) == 4
    numbers = sorted(t.get_text() for t in picture.figure.axes[0].texts if t.get_text().startswith("("))
    assert numbers == ["(ii)", "(v)", "(vi)", "(vi)"]
    assert "(ii), (v) and (vi)" in picture.caption
    assert "offer -> score (breaks ii)" in picture.alt


def test_a_clean_graph_says_so():
    picture = causal_dag(GRAPHS["parallel 2"])
    assert "No edge breaks an assumption" in picture.caption
    assert "Dashed: unmeasured" in picture.caption
    assert "inside each site (city), own intercepts" in [t.get_text() for t in picture.figure.axes[0].texts]


@pytest.mark.parametrize(("site", "said"), [("Site", "site"), ("the town", "site (the town)")])
def test_any_name_of_the_site_makes_a_sentence(site, said):
    dag = CausalDAG.from_design(mm.Design(outcome="y", treatment="t", mediators=["m"], site=site))
    picture = causal_dag(dag)
    assert f"The frame is one {said}: what a site does to those inside" in picture.caption
    assert f"inside each {said}, own intercepts" in [t.get_text() for t in picture.figure.axes[0].texts]


def test_without_a_site_there_is_no_frame():
    dag = CausalDAG.from_edges(["t -> m", "m -> y"], treatment="t", mediators="m", outcome="y")
    picture = causal_dag(dag)
    assert len(picture.figure.axes[0].texts) == 3
    assert "frame" not in picture.caption


@pytest.mark.parametrize("name", [n for n in HOSTILE if n.strip()])
def test_labels_that_mean_harm(name):
    dag = CausalDAG(
        treatment="t", mediators=(name,), outcome="$y", site="a_b", edges=(("t", name), (name, "$y")),
        bidirected=((name, "$y"),),
    )  # fmt: skip
    root = ET.fromstring(causal_dag(dag).svg())  # noqa: S314 - made a line earlier
    assert root.find(".//{http://www.w3.org/2000/svg}script") is None


def test_the_same_bytes_twice(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        causal_dag(GRAPHS["figure 2"]).save(tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

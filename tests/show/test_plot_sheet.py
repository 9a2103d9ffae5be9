"""Figures at the width of a column where it is tight: five sites, two thousand, and a fit that has no estimate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

import msmmiv as mm
from msmmiv.plan.simulate import simulate
from msmmiv.show.plots import StudyPlots, independence
from msmmiv.show.plots.sheet import above, at_width, finished, sheet
from tests.show.drawn import check_apart, check_print, check_room
from tests.show.helpers import design

#: Figures that print numbers of the trial or draw every site; the others do not change with the size of a trial.
FIGURES = (
    "estimates", "scatter", "forest", "leave_one_out", "weights", "origin", "falsification", "independence",
    "direct_effect_line", "decomposition", "confidence_curve", "indirect_effects", "simex",
)  # fmt: skip
#: Of 2,000 sites only those that look different then and are quick to draw.
LARGE = ("scatter", "origin", "falsification", "independence", "direct_effect_line")


def plots(moments):
    """Figures of a study whose audit and decomposition are made once."""
    made = StudyPlots(mm.Study(moments), width="column")
    made._kept["audit"] = made.study.audit(draws=199)
    made._kept["decomposition"] = made.study.decompose(draws=99)
    return made


@pytest.fixture(scope="module")
def five():
    return plots(simulate(sites=5, people=30, seed=1).moments)


@pytest.fixture(scope="module")
def large():
    """Six people in every site, half of them treated."""
    rng = np.random.default_rng(1)
    site, arm = np.repeat(np.arange(2000), 6), np.tile([0, 1], 6000)
    m1 = rng.normal(size=12_000) + arm * rng.normal(1.5, 0.7, size=2000)[site]
    y = 0.5 * m1 + rng.normal(size=12_000)
    return plots(mm.Moments.from_data(pd.DataFrame({"y": y, "m1": m1, "t": arm, "s": site}), design("m1")))


@pytest.fixture(scope="module")
def unsupported():
    """Two mediators of which one is noise: some estimators have neither an estimate nor a set."""
    return plots(mm.data.star("math_two_mediators"))


@pytest.fixture(scope="module")
def covariates():
    return plots(mm.data.star("math_covariates"))


@pytest.mark.parametrize("name", FIGURES)
def test_five_sites_fit_a_column(five, name):
    picture = five.draw(name)
    check_print(picture, "column")
    check_room(picture)


@pytest.mark.parametrize("name", LARGE)
def test_two_thousand_sites_fit_a_column(large, name):
    picture = large.draw(name)
    check_print(picture, "column")
    check_room(picture)


@pytest.mark.parametrize("name", ["origin", "independence", "decomposition"])
def test_covariates_fit_a_column(covariates, name):
    picture = covariates.draw(name)
    check_print(picture, "column")
    check_room(picture)


@pytest.mark.parametrize("name", ["estimates", "scatter", "independence"])
def test_what_has_no_estimate_fits_a_column(unsupported, name):
    picture = unsupported.draw(name)
    check_print(picture, "column")
    check_room(picture)
    if name == "estimates":
        assert "none" in [t.get_text() for axes in picture.axes for t in axes.texts]
        assert "“none”: neither an estimate nor a set" in picture.caption


@pytest.mark.parametrize("width", ["page", "column"])
def test_an_entry_longer_than_the_sheet_is_wrapped(width):
    words = "a direct effect " + " ".join(["of -0.1234 to 0.5678"] * 6)
    with at_width(width):
        figure = sheet(5.8, 4.0)
        axes = figure.add_subplot()
        above(axes, [Line2D([], [], label=words), Line2D([], [], label="short")])
        finished(figure)
    box, told = axes.get_legend().get_window_extent(), axes.get_legend().get_texts()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1
    assert axes.get_window_extent().width > 0.6 * figure.bbox.width
    assert told[0].get_text().split() == words.split()
    assert [t.get_text() for t in told[1:]] == ["short"]


@pytest.mark.parametrize("things", [3, 6, 9, 14])
def test_names_of_many_pairs_do_not_touch(things):
    kinds = ("proportion female at baseline", "x", "log size", "white_asian")
    names = ["compliance: class_size", "effect: class_size"]
    names += [f"{kinds[i % 4]} {i}" for i in range(things - 2)]
    pairs = [(b, a, -0.25, 0.0004, "") for i, b in enumerate(names) for a in names[:i]]
    frame = pd.DataFrame(pairs, columns=["row", "column", "correlation", "pvalue", "note"])
    with at_width("column"):
        picture = independence(frame)
    check_print(picture, "column")
    check_room(picture)
    axes = picture.axes[0]
    side = axes.get_window_extent().width / (things - 1)
    assert all(t.get_window_extent().width <= side + 0.5 for t in axes.texts)
    # The caption tells of p-values exactly where there are some.
    assert ("below each its p-value" in picture.caption) == bool(axes.texts)
    shown = [t for t in axes.get_xticklabels() if t.get_text()]
    assert {t.get_rotation() for t in shown} == {90.0}
    check_apart(shown, 0)
    assert "class_size" in shown[0].get_text()


def test_a_bar_of_two_standard_errors_ends_in_a_mark(five, covariates):
    """Cut at both sides it would look like a line of reference."""
    (axes,) = covariates.direct_effect_line().axes
    left, right = axes.get_xlim()
    ends = {d.get_marker(): float(d.get_xdata()[0]) for d in axes.get_lines() if d.get_marker() in "|<>"}
    assert ends == {"<": left, ">": right}
    found = five._kept["audit"].results["direct_effect_line"]
    (axes,) = five.direct_effect_line().axes
    low, high = found.free_direct + 2.0 * found.free_se * np.array([-1.0, 1.0])
    strokes = [float(d.get_xdata()[0]) for d in axes.get_lines() if d.get_marker() == "|"]
    inside = [v for v in (low, high) if axes.get_xlim()[0] <= v <= axes.get_xlim()[1]]
    assert strokes == pytest.approx(inside)


def test_captions_explain_the_marks(covariates, five):
    caption = covariates.direct_effect_line().caption
    for words in (
        "Circle: how large a direct effect would make the coefficient zero",
        "Square: ",
        "Diamond: ",
    ):
        assert words in caption
    assert "the rational one is a ratio of mean cross-products" in five.simex().caption

"""Balance, the independence matrix and all pictures of an audit: what is drawn is what was found."""

from __future__ import annotations

import dataclasses
import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba

import msmmiv as mm
from msmmiv.audit.dag import CausalDAG
from msmmiv.audit.result import Audit
from msmmiv.diagnose.balance import covariate_balance
from msmmiv.diagnose.independence import independence as independence_of
from msmmiv.errors import DataError
from msmmiv.plan.simulate import simulate
from msmmiv.show.plots import audit_pictures, balance, independence
from tests.show.drawn import dots, legend, lines, texts
from tests.show.helpers import HOSTILE, design, trial

DRAWS = 199


# --------------------------------------------------------------------------------------------- balance


@pytest.fixture(scope="module")
def unbalanced():
    return covariate_balance(simulate("vi", sites=40, covariates=3, seed=3).moments)


def test_balance_draws_pooled_differences_intervals_and_sites(unbalanced):
    picture = balance(unbalanced)
    axes = picture.figure.axes[0]
    table = unbalanced.to_frame().set_index("covariate")
    order = table["standardised"].abs().sort_values(ascending=False).index.tolist()
    assert [t.get_text() for t in axes.get_yticklabels()] == order
    assert axes.yaxis_inverted()
    (diamonds,) = [line for line in axes.get_lines() if line.get_marker() == "D"]
    assert diamonds.get_xdata() == pytest.approx(table.loc[order, "standardised"].to_numpy())
    assert diamonds.get_ydata() == pytest.approx([0, 1, 2])
    (bars,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    half = 1.959963984540054 * table.loc[order, "standardised_se"]
    ends = np.array([p.vertices[:, 0] for p in bars.get_paths()])
    centre = table.loc[order, "standardised"]
    assert ends == pytest.approx(np.column_stack([centre - half, centre + half]))
    sites = unbalanced.site_frame()
    points = dots(axes)
    assert points[:, 0] == pytest.approx(sites["standardised"].to_numpy())
    assert np.round(points[:, 1]).tolist() == [order.index(c) for c in sites["covariate"]]
    limit = axes.get_xlim()[1]
    reach = [line.get_xdata()[0] for line in lines(axes, 1.2, "purple")]
    assert sorted(reach) == pytest.approx([-unbalanced.detectable, unbalanced.detectable])
    assert limit > max(abs(ends).max(), unbalanced.detectable)
    assert "p < 0.001" in picture.caption
    assert f"{unbalanced.detectable:.2g}" in picture.caption


def test_balance_says_how_many_sites_lie_beyond_the_axis():
    found = covariate_balance(simulate(sites=300, seed=3).moments)
    picture = balance(found)
    limit = picture.figure.axes[0].get_xlim()[1]
    beyond = int((found.site_frame()["standardised"].abs() > limit).sum())
    assert beyond > 0
    assert f"{beyond} differences of sites lie beyond the axis." in picture.caption
    shown = np.abs(found.to_frame()["standardised"]) + 1.96 * found.to_frame()["standardised_se"]
    assert limit <= 8.5 * shown.max()


def test_balance_of_several_arms_tells_them_apart():
    rows = trial([f"s{i}" for i in range(12)], arms=("control", "letter", "visit"))
    found = covariate_balance(mm.Moments.from_data(rows, design("m1", control="control", covariates=["x"])))
    picture = balance(found)
    axes = picture.figure.axes[0]
    marks = {line.get_marker(): line for line in axes.get_lines() if line.get_marker() in "os"}
    assert [float(marks[m].get_xdata()[0]) for m in "os"] == pytest.approx(found.standardised[:, 0])
    assert marks["o"].get_ydata()[0] < marks["s"].get_ydata()[0]
    assert legend(axes)[:2] == ["arm letter", "arm visit"]


def test_a_covariate_that_does_not_vary_within_sites_keeps_its_row():
    rows = trial(range(12))
    rows["size"] = rows["s"].astype(float)
    found = covariate_balance(mm.Moments.from_data(rows, design("m1", covariates=["size", "x"])))
    axes = balance(found).figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x", "size"]
    assert "does not vary within sites" in texts(axes)


def test_balance_without_covariates_is_refused():
    with pytest.raises(DataError, match="no pre-treatment covariates"):
        balance(covariate_balance(mm.data.star()))


def test_balance_of_many_covariates_stays_on_a_page(unbalanced):
    fifty = {
        name: np.tile(getattr(unbalanced, name), 50)
        for name in (
            "difference",
            "std_error",
            "pvalue",
            "sd",
            "site_difference",
            "site_std_error",
            "site_pvalue",
        )
    }
    names = tuple(f"cov {j}" for j in range(150))
    picture = balance(dataclasses.replace(unbalanced, covariates=names, **fifty))
    assert picture.figure.get_size_inches()[1] <= 11.0
    labels = picture.figure.axes[0].get_yticklabels()
    boxes = [t.get_window_extent() for t in labels]
    assert all(a.y0 >= b.y1 - 1.0 for a, b in itertools.pairwise(boxes))


# ---------------------------------------------------------------------------------------- independence


def matrix(*rows):
    return pd.DataFrame(rows, columns=["row", "column", "correlation", "pvalue", "note"])


def shown_cells(axes):
    """Texts by (row label, column label)."""
    rows = [t.get_text().replace("\n", " ") for t in axes.get_yticklabels()]
    columns = [t.get_text().replace("\n", " ") for t in axes.get_xticklabels()]
    out = {}
    for text in axes.texts:
        x, y = text.get_position()
        out.setdefault((rows[int(y)], columns[int(x)]), []).append(text.get_text())
    return out


def test_every_pair_lies_in_its_own_cell_with_its_number_and_p():
    frame = independence_of(simulate("ix", sites=40, mediators=2, seed=3).moments, draws=DRAWS).matrix
    picture = independence(frame)
    cells = shown_cells(picture.figure.axes[0])
    assert len(cells) == len(frame)

    def words(name):
        return name.replace("compliance: ", "compliance of ").replace("effect: ", "effect of ")

    for pair in frame.to_dict("records"):
        drawn = cells[words(pair["row"]), words(pair["column"])]
        if np.isfinite(pair["correlation"]):
            assert float(drawn[0].replace("−", "-")) == pytest.approx(pair["correlation"], abs=0.005001)
        else:
            assert drawn[0] == "a"
        if np.isfinite(pair["pvalue"]):
            assert drawn[1].removeprefix("p ").removeprefix("<") in f"{pair['pvalue']:.3f} .001"
    assert "(a: cannot be told from the effect of the other on this compliance)" in picture.caption
    assert "Empty: effects of two mediators are not compared" in picture.caption


def test_colours_are_those_of_the_scale_and_framed_are_effects_against_compliances():
    frame = matrix(
        ("effect: m", "compliance: m", 1.0, 0.2, ""),
        ("x", "compliance: m", -1.0, 0.01, ""),
        ("x", "effect: m", np.nan, 0.5, "effects vary no more than noise"),
    )
    picture = independence(frame)
    axes = picture.figure.axes[0]
    cells = axes.collections[0]
    inks = [to_hex(c) for c in cells.get_facecolors()]
    assert inks[:2] == ["#d98200", "#003b5c"]
    corners = [path.vertices.min(axis=0).tolist() for path in cells.get_paths()]
    assert corners == [[0, 0], [0, 1], [1, 1]]  # (column, row)
    grey = [to_rgba(c)[:3] @ np.array([0.299, 0.587, 0.114]) for c in inks]
    assert grey[0] - grey[1] > 0.3  # signs differ without colour
    (frame_,) = axes.patches
    assert frame_.get_xy() == pytest.approx((0.02, 0.02))
    assert shown_cells(axes)["x", "effect of m"] == ["a", "p .500"]
    assert "a: effects vary no more than noise" in picture.caption


def test_values_beyond_one_and_zero():
    frame = matrix(
        ("effect: m", "compliance: m", -12.3, 0.2, "beyond one"), ("x", "compliance: m", -0.001, 0.99, "")
    )
    picture = independence(frame)
    cells = shown_cells(picture.figure.axes[0])
    assert cells["effect of m", "compliance of m"] == ["< −10", "p .200"]
    assert cells["x", "compliance of m"][0] == "0.00"
    assert "Values beyond one" in picture.caption


def test_names_that_mean_two_things_are_not_told_apart_in_silence():
    frame = matrix(
        ("log size", "compliance: m", 0.1, 0.2, ""),
        ("log size", "compliance: m", 0.7, 0.3, ""),
        ("log size", "log size", 0.5, 0.3, ""),
    )
    picture = independence(frame)
    assert shown_cells(picture.figure.axes[0]) == {("log size", "compliance of m"): ["a"]}
    assert "two things have the same name" in picture.caption


def test_nothing_to_compare_is_refused():
    with pytest.raises(DataError, match="no pair with a correlation"):
        independence(matrix(("effect: m", "compliance: m", np.nan, np.nan, "too few sites")))


def test_many_covariates_have_colours_without_numbers():
    names = [f"x{i}" for i in range(34)]
    rng = np.random.default_rng(1)
    pairs = [(b, a, rng.uniform(-1, 1), 0.5, "") for i, b in enumerate(names) for a in names[:i]]
    picture = independence(matrix(*pairs))
    assert texts(picture.figure.axes[0]) == []
    assert "too many pairs for numbers" in picture.caption
    assert max(picture.figure.get_size_inches()) <= 13.0


# --------------------------------------------------------------------------------------- audit_pictures


def names_of(audit):
    return [p.name for p in audit_pictures(audit)]


def test_star_has_the_pictures_that_exist():
    one = mm.audit_assumptions(mm.data.star("math_covariates"), draws=DRAWS)
    assert names_of(one)[:5] == ["causal_dag", "origin", "falsification", "balance", "independence"]
    two = mm.audit_assumptions(mm.data.star("math_two_mediators"), draws=DRAWS)
    assert {"causal_dag", "falsification_reset", "independence"} <= set(names_of(two))
    assert "origin" not in names_of(two)  # no plane: the second mediator's compliance is noise
    assert "balance" not in names_of(two)  # no covariates


def test_an_audit_without_results_has_its_graph():
    dag = CausalDAG.from_design(design("m1"))
    audit = Audit((), "nothing", "ate", dag, {}, DRAWS, 0)
    assert names_of(audit) == ["causal_dag"]
    found = {"origin": None, "balance": None, "independence": None}
    assert names_of(dataclasses.replace(audit, results=found)) == ["causal_dag"]


@pytest.mark.parametrize("mediators", [1, 2])
def test_hostile_labels_break_nothing(mediators):
    names = ("the <b>outcome</b> $", "dose $m$ \\frac{ " + "x" * 80, "$\\frac{1", "ward", "arm t")
    rows = trial(HOSTILE, names=names)
    rows['cov "$y$" <i>\u202e'], rows["log size"] = rows["x"], rows["x"] ** 2
    roles = mm.Design(
        outcome=names[0], mediators=list(names[1 : 1 + mediators]), site=names[3], treatment=names[4],
        covariates=['cov "$y$" <i>\u202e', "log size"],
    )  # fmt: skip
    pictures = audit_pictures(mm.audit_assumptions(mm.Moments.from_data(rows, roles), draws=DRAWS))
    assert {"origin", "balance", "independence"} <= {p.name for p in pictures}
    for picture in pictures:
        ET.fromstring(picture.svg())  # noqa: S314 - our own file
        assert "\n" not in picture.caption + picture.alt
        assert not set("\x00\x1b\u202e") & set(picture.caption + picture.alt)
        assert len(picture.data) > 0


@pytest.mark.parametrize("sites", [2, 5, 12])
def test_few_sites_break_nothing(sites, tmp_path):
    audit = mm.audit_assumptions(simulate(sites=sites, seed=1).moments, draws=DRAWS)
    for picture in audit_pictures(audit):
        assert all(path.stat().st_size > 0 for path in picture.save(tmp_path))

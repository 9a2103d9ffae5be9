"""Figures of a decomposition: what is drawn is what was computed, at every size, shape of set and status."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import DataError
from msmmiv.estimate.between.linear import Ols
from msmmiv.estimate.between.slope_test import SlopeTest
from msmmiv.show.decomposition_words import answers, short_set
from msmmiv.show.plots import (
    confidence_curve,
    decomposition_pictures,
    decomposition_scatter,
    indirect_forest,
    simex_extrapolation,
)
from msmmiv.show.words import number, printable
from tests.show.helpers import HOSTILE

GOLDEN = Path(__file__).parents[1] / "golden"
DRAWS = 99


def table(k, correlation=0.5):
    frame = pd.read_csv(GOLDEN / f"agg_k{k}.csv")
    return frame.assign(cov=correlation * frame["se_gamma"] * frame["se_tau"])


def effects(frame):
    return mm.SiteEffects.from_table(
        frame, site="site", itt="tau_hat", itt_se="se_tau", compliance="gamma_hat", compliance_se="se_gamma", cov="cov"
    )  # fmt: skip


def two_mediators():
    frame = pd.read_csv(GOLDEN / "agg_multi_k40.csv").head(15)
    frame = frame.assign(c=0.0)
    return mm.SiteEffects.from_table(
        frame.assign(d=0.0), site="site", itt="tau_hat", itt_se="se_tau", compliance=["gamma1", "gamma2"],
        compliance_se=["se_gamma1", "se_gamma2"], cov=["c", "d"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def five():
    return mm.decompose(effects(table(5)), draws=DRAWS)


@pytest.fixture(scope="module")
def none():
    """BCES has no estimate here: there is more noise than spread."""
    return mm.decompose(effects(table(10, -0.5)), "bces", draws=DRAWS)


@pytest.fixture(scope="module")
def unbounded():
    """Five rows whose compliances hardly differ."""
    rng = np.random.default_rng(1)
    g = 1.0 + 0.3 * rng.normal(size=5)
    frame = pd.DataFrame({"site": list("abcde"), "gamma_hat": g + 0.6 * rng.normal(size=5), "se_gamma": 0.6})
    frame = frame.assign(tau_hat=2.0 * g + 1.0 + 0.4 * rng.normal(size=5), se_tau=0.4, cov=0.0)
    return mm.decompose(effects(frame), draws=DRAWS)


@pytest.fixture(scope="module")
def several():
    return mm.decompose(two_mediators(), draws=DRAWS)


def lines(axes, width):
    return [line for line in axes.get_lines() if line.get_linewidth() == pytest.approx(width)]


# -------------------------------------------------------------------------------------------- scatter


def test_points_ellipses_and_lines_are_the_rows_and_the_fit(five):
    picture = decomposition_scatter(five)
    axes, data, rows = picture.figure.axes[0], picture.data, five.rows
    assert data["x"].to_numpy() == pytest.approx(rows.x[:, 0])
    assert data["y"].to_numpy() == pytest.approx(rows.y)
    assert data["covariance"].to_numpy() == pytest.approx(rows.cov[:, 0, 1])
    (line,) = lines(axes, 1.8)
    x, y = line.get_data()
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(five.params["gamma_hat"])
    assert np.interp(0.0, x, y) == pytest.approx(five.params["direct_effect"])
    (dashed,) = lines(axes, 1.1)
    x, y = dashed.get_data()
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(Ols().solve(rows).coefficients[0])
    rims = axes.collections[0].get_paths()
    assert len(rims) == 5
    for path, centre, cov in zip(rims, data[["x", "y"]].to_numpy(), rows.cov, strict=True):
        away = path.vertices - centre
        flipped = cov[::-1, ::-1]  # (compliance, itt)
        size = np.einsum("ni,ij,nj->n", away, np.linalg.inv(flipped), away)
        assert size[:49] == pytest.approx(5.991464547, rel=1e-6)


def test_the_fan_is_the_set_with_the_paths_intercepts(five):
    axes = decomposition_scatter(five).figure.axes[0]
    bounds = five.slope_sets["gamma_hat"]
    ends = np.array(bounds.hull)
    path = five.slope_tests["gamma_hat"].path(ends)
    drawn = [line.get_data() for line in lines(axes, 0.6)]
    slopes = sorted((y[-1] - y[0]) / (x[-1] - x[0]) for x, y in drawn)
    assert slopes == pytest.approx(ends)
    heights = sorted(float(np.interp(0.0, x, y)) for x, y in drawn)
    assert heights == pytest.approx(sorted(path.intercepts[:, 0]), rel=1e-9)


def test_an_unbounded_set_is_said_and_opens_to_the_vertical(unbounded):
    assert unbounded.slope_sets["gamma_hat"].is_whole_line
    picture = decomposition_scatter(unbounded)
    axes = picture.figure.axes[0]
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert any("any value (not bounded)" in t for t in texts)
    assert "not even a vertical one" in picture.caption
    bottom, top = axes.get_ylim()
    band = axes.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() < bottom
    assert band[:, 1].max() > top
    assert len(lines(axes, 0.6)) > 8


def test_without_an_estimate_there_is_no_line_and_it_is_said(none):
    picture = decomposition_scatter(none)
    axes = picture.figure.axes[0]
    assert not lines(axes, 1.8)
    assert "There is no point estimate: denominator not positive" in picture.caption
    assert axes.get_legend().get_texts()[0].get_text() == "BCES: no estimate"


@pytest.mark.parametrize("k", [5, 10, 30])
def test_names_do_not_crowd(k):
    found = mm.decompose(effects(table(k)), draws=19)
    assert 1 <= len(decomposition_scatter(found).figure.axes[0].texts) <= (k if k <= 12 else 4)


def test_with_several_mediators_the_line_goes_through_partial_residuals(several):
    with pytest.raises(DataError, match="'gamma1' and 'gamma2'"):
        decomposition_scatter(several)
    for j, name in enumerate(several.rows.mediators):
        picture = decomposition_scatter(several, name)
        assert picture.name == f"decomposition_{j + 1}"
        x, y = picture.data["x"], picture.data["y"]
        other = 1 - j
        expected = several.rows.y - several.params.iloc[other] * several.rows.x[:, other]
        assert y.to_numpy() == pytest.approx(expected)
        slope, direct = several.params[name], several.params["direct_effect"]
        residual = several.rows.y - several.rows.x @ several.params.to_numpy()[:2] - direct
        assert (y - direct - slope * x).to_numpy() == pytest.approx(residual, abs=1e-12)
        assert "contribute is taken out" in picture.caption


# ---------------------------------------------------------------------------------------- other curves


def test_the_curve_is_the_tests(five):
    picture = confidence_curve(five)
    test = five.slope_tests["gamma_hat"]
    data = picture.data
    assert data["p_value"].to_numpy() == pytest.approx(test.pvalue(data["value"].to_numpy()))
    thin = SlopeTest(five.rows, "gamma_hat", "t")
    assert data["p_value_t"].to_numpy() == pytest.approx(thin.pvalue(data["value"].to_numpy()))
    axes = picture.figure.axes[0]
    thick = [(float(line.get_ydata()[0]), line.get_xdata()) for line in lines(axes, 3.2)]
    for level in (0.95, 0.99):
        drawn = [ends for height, ends in thick if height == pytest.approx(1.0 - level)]
        pieces = five.confidence_set("gamma_hat", level).intervals
        assert np.array(drawn) == pytest.approx(np.clip(pieces, *axes.get_xlim()))
    assert five.params["gamma_hat"] in [
        line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2
    ]


def test_unbounded_sets_have_arrows_and_the_curve_stays_near(unbounded):
    picture = confidence_curve(unbounded)
    axes = picture.figure.axes[0]
    assert sum(line.get_marker() in ("<", ">") for line in axes.get_lines()) == 4
    assert "any value (not bounded)" in picture.caption
    assert np.ptp(picture.data["value"]) < 60.0


def test_extrapolants_and_their_values(five):
    picture = simex_extrapolation(five)
    fit = mm.SIMEX().solve(five.rows, seed=five.seed)
    data = picture.data[picture.data["term"] == "gamma_hat"].set_index("curve")["value"]
    assert data["mean"].to_numpy() == pytest.approx(fit.path.means[:, 0])
    assert data[list(fit.path.extrapolants)].to_numpy() == pytest.approx(fit.path.extrapolated[:, 0])
    texts = [t.get_text() for t in picture.figure.axes[0].get_legend().get_texts()]
    assert f"corrected: {number(float(fit.coefficients[0]))}" in texts
    assert f"naive: {number(float(fit.path.means[0, 0]))}" in texts
    assert len(picture.figure.axes) == 2


def test_a_pole_is_said(none):
    picture = simex_extrapolation(none)
    texts = [t.get_text() for t in picture.figure.axes[0].get_legend().get_texts()]
    assert "rational: pole, no value" in texts
    assert not any(t.startswith("corrected") for t in texts)
    assert "There is no corrected value" in picture.caption
    assert "has a pole" in picture.alt
    rational = picture.figure.axes[0].get_lines()[1]
    assert min(rational.get_xdata()) > -1.0


# --------------------------------------------------------------------------------------------- forest


def test_the_forest_is_the_tables(five):
    picture = indirect_forest(five)
    data, sites = picture.data, five.site_effects.sort_values("itt", ascending=False)
    for column in ("indirect", "indirect_lower", "indirect_upper", "direct", "direct_lower", "direct_upper"):
        assert data[column][:-1].to_numpy() == pytest.approx(sites[column].to_numpy())
    average = five.effects.set_index("effect")
    assert data.iloc[-1]["indirect_upper"] == pytest.approx(average.loc["indirect effect", "upper"])
    assert data.iloc[-1]["direct"] == pytest.approx(average.loc["direct effect", "estimate"])
    labels = [t.get_text() for t in picture.figure.axes[0].get_yticklabels()]
    assert labels == [*map(str, sites["row"]), "average"]


def test_infinite_ends_are_arrows(unbounded):
    picture = indirect_forest(unbounded)
    for axes in picture.figure.axes:
        arrows = [line for line in axes.get_lines() if line.get_marker() in ("<", ">")]
        assert sum(len(line.get_xdata()) for line in arrows) == 12  # five rows and the average, both ends
    assert "goes on without end" in picture.caption


@pytest.mark.parametrize(("k", "labels"), [(30, 31), (79, 7)])
def test_the_forest_names_what_fits(k, labels):
    found = mm.decompose(effects(table(30)) if k == 30 else mm.data.star(), draws=19)
    picture = indirect_forest(found)
    assert len(picture.figure.axes[0].get_yticklabels()) == labels
    assert ("only the first and last are named" in picture.caption) == (k > 60)
    assert all(
        np.ptp(axes.get_xlim()) > 0 and axes.get_position().width > 0.2 for axes in picture.figure.axes
    )


def test_several_mediators_have_a_panel_each(several):
    picture = indirect_forest(several)
    assert [a.get_xlabel() for a in picture.figure.axes] == ["Through gamma1", "Through gamma2"]


# ---------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", ["five", "none", "unbounded", "several"])
def test_svgs_are_xml_and_the_same_twice(name, request):
    found = request.getfixturevalue(name)
    seen: set[str] = set()
    for picture, again in zip(decomposition_pictures(found), decomposition_pictures(found), strict=True):
        svg = picture.svg()
        assert svg == again.svg()
        root = ET.fromstring(svg)  # noqa: S314 - made a line earlier
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        assert len(ids) == len(set(ids))
        assert not seen & set(ids)
        seen |= set(ids)
        assert root.find("{http://www.w3.org/2000/svg}title").text == printable(picture.alt)
        assert "nan" not in (picture.alt + picture.caption).split()


def test_hostile_labels_are_drawn_as_they_are():
    frame = table(30).head(len(HOSTILE)).assign(site=list(HOSTILE))
    frame = frame.rename(columns={"tau_hat": "the <b>$x"}).rename(columns={"gamma_hat": "dose $m$"})
    found = mm.decompose(
        mm.SiteEffects.from_table(
            frame, site="site", itt="the <b>$x", itt_se="se_tau", compliance="dose $m$", compliance_se="se_gamma",
            cov="cov",
        ),
        draws=19,
    )  # fmt: skip
    for picture in decomposition_pictures(found):
        svg = picture.svg()
        assert "<script" not in svg.replace("&lt;script", "")
        ET.fromstring(svg)  # noqa: S314


def test_without_a_direct_effect_lines_go_through_the_origin():
    found = mm.decompose(effects(table(10)), direct_effect=False, draws=19)
    picture = decomposition_scatter(found)
    (line,) = lines(picture.figure.axes[0], 1.8)
    assert np.interp(0.0, *line.get_data()) == pytest.approx(0.0, abs=1e-12)
    assert "without a direct effect" in picture.caption
    assert [a.get_ylabel() for a in simex_extrapolation(found).figure.axes] == ["Effect of gamma_hat"]


def test_sentences(five, none, unbounded):
    assert answers(five)[0].startswith(
        f"One unit more of gamma_hat changes tau_hat by {number(five.params['gamma_hat'])}"
    )
    assert "has no point estimate" in answers(none)[0]
    assert "do not bound this effect" in answers(unbounded)[1]
    assert short_set(unbounded.slope_sets["gamma_hat"]) == "any value (not bounded)"


def test_few_draws_give_no_set_of_99_percent():
    picture = confidence_curve(mm.decompose(effects(table(5)), draws=19))
    assert "too few draws for a 99% set" in picture.caption
    assert not any("99% set" in t.get_text() for t in picture.figure.axes[0].get_legend().get_texts())

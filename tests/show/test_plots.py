"""Figures: the numbers behind them, and that nothing leaks."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import DataError
from msmmiv.show.plots import audit_pictures, estimates, forest, gallery, partial_plots, site_scatter
from msmmiv.show.plots.picture import label
from msmmiv.show.words import number, one_line, printable, short
from tests.show.helpers import HOSTILE, design, trial


def slopes(pictures):
    return [
        (p.data.x_weighted @ p.data.y_weighted) / (p.data.x_weighted @ p.data.x_weighted) for p in pictures
    ]


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("arms", [2, 3])
def test_partial_slope_is_the_coefficient(three_arms, direct, arms):
    """Frisch, Waugh and Lovell, with matrix weights where a site has two contrasts."""
    study = three_arms if arms == 3 else mm.Study(trial(range(9), seed=5), design("m1", "m2"))
    fit = study.fit("2sls", direct_effect=direct)
    pictures = partial_plots(study.effects, fit)
    assert slopes(pictures) == pytest.approx(fit.coefficients[:2], rel=1e-10)


def test_partial_slope_with_blocks_and_weights():
    rows = trial(range(8), seed=6, n=40)
    rows["b"] = np.arange(len(rows)) % 2
    rows["w"] = np.random.default_rng(1).uniform(0.5, 2.0, len(rows))
    study = mm.Study(rows, design("m1", "m2", block="b", weights="w", weight_kind="analytic"))
    fit = study.fit("2sls", direct_effect=True)
    assert slopes(partial_plots(study.effects, fit)) == pytest.approx(fit.coefficients[:2], rel=1e-10)


def test_weighting_by_hand_gives_the_same_slope(two):
    """The unweighted columns with the site weights, for two arms."""
    for j, picture in enumerate(partial_plots(two.effects, two.two_stage)):
        d = picture.data
        assert (d.weight * d.x * d.y).sum() / (d.weight * d.x**2).sum() == pytest.approx(
            two.two_stage.coefficients[j], rel=1e-10
        )


def test_scatter_shows_the_site_effects(one):
    data = site_scatter(one.effects, one.two_stage).data
    table = one.effects.to_frame()
    assert data["x"].to_numpy() == pytest.approx(table["m1"].to_numpy(), rel=1e-12)
    assert data["y"].to_numpy() == pytest.approx(table["itt"].to_numpy(), rel=1e-12)
    assert data["y_se"].to_numpy() == pytest.approx(table["itt_se"].to_numpy(), rel=1e-12)
    weighted = (data.weight * data.x * data.y).sum() / (data.weight * data.x**2).sum()
    assert weighted == pytest.approx(one.two_stage.params["m1"], rel=1e-10)


def test_the_line_of_a_free_direct_effect_has_its_intercept(one):
    fit = next(f for f in one.fits if f.direct_effect)
    picture = site_scatter(one.effects, fit)
    axes = picture.figure.axes[0]
    line = max(axes.get_lines(), key=lambda drawn: drawn.get_linewidth())
    x, y = line.get_data()
    assert np.interp(0.0, x, y) == pytest.approx(fit.params["direct_effect"])
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(fit.params["m1"])


def test_scatter_refuses_several_mediators(two):
    with pytest.raises(DataError, match="partial_plots"):
        site_scatter(two.effects, two.headline)


def test_no_fit_no_picture():
    with pytest.raises(DataError, match="at least one fit"):
        estimates([])


def test_with_covariates_the_caption_says_what_the_line_is():
    study = mm.Study(trial(range(6)), design("m1", "m2", covariates=("x",)))
    for picture in partial_plots(study.effects, study.fit("2sls")):
        assert "adjusted for the covariates" in picture.caption
        assert "exact 2SLS" in picture.caption


def test_forest_is_ordered_and_complete(three_arms):
    picture = forest(three_arms.effects)
    assert len(picture.data) == 23  # site 4 has no visits
    assert picture.data["itt"].is_monotonic_decreasing
    assert len(picture.figure.axes) == 3


@pytest.mark.parametrize(("sites", "labels"), [(5, 5), (60, 60), (61, 6), (300, 2)])
def test_forest_labels_what_fits(sites, labels):
    rows = trial(range(sites), n=4)
    picture = forest(mm.Study(rows, design("m1")).effects)
    assert len([t for t in picture.figure.axes[0].get_yticklabels() if t.get_text()]) == labels


def test_points_without_a_standard_error_are_open(one):
    cov = np.array(one.effects.cov)
    cov[2] = np.nan
    effects = dataclasses.replace(one.effects, cov=cov)
    picture = forest(effects)
    assert "Open points have no standard error" in picture.caption
    open_points = [d for d in picture.figure.axes[0].get_lines() if d.get_markerfacecolor() == "white"]
    assert [len(d.get_xdata()) for d in open_points] == [1]
    assert site_scatter(effects, one.headline).svg().count("no standard error") == 1


def test_estimates_hold_every_fit(two):
    data = estimates(two.fits).data
    pieces = [
        (t, fit.params[t], low, high)
        for fit in two.fits
        if not fit.status
        for t in fit.terms
        for low, high in fit.confidence_set(t).intervals
    ]
    expected = pd.DataFrame(pieces, columns=["term", "estimate", "lower", "upper"])
    kept = data[data["status"] == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[list(expected)], expected, rtol=1e-12)


@pytest.mark.parametrize("study", ["one", "two", "hostile"])
def test_svgs_are_xml_with_ids_of_their_own(study, request):
    seen: set[str] = set()
    for picture in request.getfixturevalue(f"{study}_drawn"):
        svg = picture.svg()
        root = ET.fromstring(svg)  # noqa: S314 - made a line earlier
        ids = [e.get("id") for e in root.iter() if e.get("id")]
        assert len(ids) == len(set(ids))
        assert not seen & set(ids)
        seen |= set(ids)
        used = re.findall(r'(?:url\(#|href="#)([^")]+)', svg)
        assert set(used) <= set(ids)
        assert root.get("role") == "img"
        assert root.find("{http://www.w3.org/2000/svg}title").text == printable(picture.alt)


def test_drawing_and_saving_gives_the_same_bytes_twice(one, one_drawn, tmp_path: Path):
    for name, pictures in (("a", one_drawn), ("b", gallery(one))):
        (tmp_path / name).mkdir()
        for picture in pictures:
            picture.save(tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    drawn = sorted(picture.name for picture in one_drawn)
    assert {"causal_dag", "compliance_map", "estimates", "forest", "rank_spectrum", "site_scatter"} < set(
        drawn
    )
    assert files == [f"{name}.{ending}" for name in drawn for ending in ("png", "svg")]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "forest.png").read_bytes()[:4] == b"\x89PNG"


def test_the_users_settings_neither_matter_nor_change(one):
    before = forest(one.effects).svg()
    with mpl.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        mine = dict(mpl.rcParams)
        assert forest(one.effects).svg() == before
        assert dict(mpl.rcParams) == mine


def test_hostile_labels_are_drawn_as_they_are(hostile):
    svg = forest(hostile.effects).svg()
    texts = {t.text for t in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}  # noqa: S314
    assert {"$x$", "a_b^c", "_hidden", "evil", "(blank)", "line break [31m"} <= texts
    assert "<script" not in svg.replace("&lt;script", "")
    assert max(len(t) for t in texts if t) <= 40


@pytest.mark.parametrize("text", HOSTILE)
def test_labels_are_short_and_on_one_line(text):
    assert len(short(text, 20)) <= 20
    assert "\n" not in label(text)
    assert "\x00" not in one_line(text)
    assert "\u202e" not in one_line(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.000012, "-1.2e-05"), (1234.5, "1,234"), (0.5, "0.5000"), (1e20, "1.000e+20"),
     (float("-inf"), "-∞"), (999.96, "1000")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_the_gallery_has_those_of_rank_before_the_audits(two, two_drawn):
    names = [p.name for p in two_drawn]
    assert names[9:] == [p.name for p in audit_pictures(two.audit)]
    assert names[:9] == [
        "estimates",
        "partial_1",
        "partial_2",
        "forest",
        "weights",
        "leave_one_out",
        "rank_spectrum",
        "compliance_scatter",
        "compliance_map",
    ]

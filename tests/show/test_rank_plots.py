"""Figures of assumption (viii): the numbers behind them are the report's, at every size and with any label."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.show.plots import (
    compliance_map,
    compliance_scatter,
    rank_pictures,
    rank_spectrum,
)
from msmmiv.show.plots.rank import direction_words
from msmmiv.show.words import number, printable
from tests.show.helpers import HOSTILE, design, trial

DRAWS = 99
SVG = "{http://www.w3.org/2000/svg}"


def many(sites, arms, n=4, seed=3):
    """Rows of a big trial with two proportional mediators and a third of its own."""
    rng = np.random.default_rng(seed)
    shape = (sites, len(arms), n)
    dose = np.arange(len(arms))[None, :, None]
    one, two = rng.normal(1.0, 0.5, (2, sites, 1, 1))
    first = rng.normal(size=shape) + dose * one
    second = rng.normal(size=shape) + dose * 0.8 * one
    third = rng.normal(size=shape) + dose * two
    site, arm, _ = np.broadcast_arrays(
        np.arange(sites)[:, None, None], np.array(arms, dtype=object)[None, :, None], first
    )
    columns = {"m1": first, "m2": second, "m3": third, "y": first - second + third, "s": site, "t": arm}
    return pd.DataFrame({k: v.ravel() for k, v in columns.items()}).infer_objects()


@pytest.fixture(scope="module")
def one():
    return mm.Study(trial(range(9)), design("m1")).rank(draws=DRAWS)


@pytest.fixture(scope="module")
def two():
    return mm.Study(trial(range(9)), design("m1", "m2")).rank(draws=DRAWS)


@pytest.fixture(scope="module")
def three():
    """Three mediators in three arms; one site lacks an arm."""
    rows = many(30, ("control", "letter", "visit"), n=12)
    rows = rows[~((rows["s"] == 4) & (rows["t"] == "visit"))]
    return mm.Study(rows, design("m1", "m2", "m3", control="control"))


@pytest.fixture(scope="module")
def arms(three):
    return three.rank(draws=DRAWS)


@pytest.fixture(scope="module")
def free(three):
    return three.rank(direct_effect=True, draws=DRAWS)


@pytest.fixture(scope="module")
def exact():
    """A mediator that the design sets: there is no noise in it."""
    rows = trial(range(6))
    rows["taken"] = rows["t"] * (1.0 + rows["s"] % 3)
    return mm.Study(rows, design("m1", "taken")).rank(draws=DRAWS)


@pytest.mark.parametrize("name", ["one", "two", "arms", "free"])
def test_the_spectrum_is_the_reports(name, request):
    report = request.getfixturevalue(name)
    picture = rank_spectrum(report)
    pd.testing.assert_frame_equal(picture.data.drop(columns="words"), report.to_frame())
    left, right = picture.figure.axes
    drawn = np.concatenate([line.get_xdata() for line in left.get_lines() if line.get_marker() == "o"])
    assert sorted(drawn) == pytest.approx(sorted(report.spectrum.strength))
    assert [p.get_width() for p in right.patches] == pytest.approx(100.0 * report.spectrum.bias_share)
    bars = [p.get_x() + p.get_width() for p in left.patches]
    assert bars == pytest.approx(report.spectrum.floor_95)
    assert number(float(report.spectrum.strength[-1]), 3) in picture.alt


def test_points_within_noise_are_open():
    report = mm.rank(mm.data.star("math_two_mediators"))
    axes = rank_spectrum(report).figure.axes[0]
    hollow = [line.get_xdata() for line in axes.get_lines() if line.get_markerfacecolor() == "white"]
    assert np.concatenate(hollow) == pytest.approx(report.spectrum.strength[report.spectrum.pvalues > 0.05])


def test_a_direction_in_words():
    assert direction_words(("only",), np.array([1.0])) == "only"
    assert (
        direction_words(("a", "b", "c", "d"), np.array([0.1, -0.9, 0.3, 0.2])) == "0.90 b - 0.30 c - 0.20 d …"
    )


@pytest.mark.parametrize("name", ["one", "two", "arms", "free"])
def test_the_map_holds_every_compliance(name, request):
    report = request.getfixturevalue(name)
    picture, c = compliance_map(report), report.compliances
    frame = picture.data.copy()
    if "arm" not in frame:
        frame["arm"] = c.contrasts[0]
    assert len(frame) == c.slopes.size
    for i, site in enumerate(c.sites):
        for d, arm in enumerate(c.contrasts):
            for j, mediator in enumerate(c.mediators):
                row = frame[(frame["site"] == site) & (frame["arm"] == arm) & (frame["mediator"] == mediator)]
                if c.present[i, d] == 0:
                    assert row[["compliance", "std_error", "shown"]].isna().all(axis=None)
                    continue
                assert row["compliance"].item() == pytest.approx(c.slopes[i, d, j])
                assert row["std_error"].item() == pytest.approx(np.sqrt(c.cov[i, d, j, d, j]))
    shares = frame.drop_duplicates("site").set_index("site")
    table = report.leverage.set_index("site")
    assert shares["leverage"].to_numpy() == pytest.approx(
        table.loc[shares.index, "leverage"] / len(c.mediators)
    )
    assert ("weakest" in shares) == (len(c.mediators) > 1)
    if "weakest" in shares:
        assert shares["weakest"].to_numpy() == pytest.approx(table.loc[shares.index, "weakest"].to_numpy())


def test_sites_are_ordered_by_the_strongest_direction(two):
    data = compliance_map(two).data
    wide = data.pivot_table(index="site", columns="mediator", values="compliance", sort=False)[
        list(two.mediators)
    ]
    key = wide.to_numpy() @ two.spectrum.combinations[:, 0]
    assert (np.diff(key) <= 0).all()


def test_proportional_columns_are_alike(arms):
    """The test trial moves m2 by 0.8 m1 and m3 by something else."""
    shown = compliance_map(arms).data.pivot_table(index=["site", "arm"], columns="mediator", values="shown")
    together = shown.corr()
    assert together.loc["m1", "m2"] > 0.7 > together.loc["m1", "m3"]


def test_with_a_free_direct_effect_cells_are_differences(free):
    data = compliance_map(free).data
    gap = data["compliance"] - data["shown"] * data.groupby("mediator")["std_error"].transform("median")
    assert gap.groupby([data["mediator"], data["arm"]]).std().max() < 1e-8
    assert gap.abs().min() > 0.1
    assert "direct effect is free" in compliance_map(free).caption


@pytest.mark.parametrize(("sites", "labels"), [(2, 2), (40, 40), (41, 0)])
def test_the_map_labels_what_fits(sites, labels):
    report = mm.Study(trial(range(sites), n=6), design("m1", "m2")).rank(draws=19)
    axes = compliance_map(report).figure.axes[0]
    assert len([t for t in axes.get_yticklabels() if t.get_text()]) == labels
    assert (f"{sites} sites" in axes.get_ylabel()) == (labels == 0)


@pytest.mark.parametrize("before", range(9, 15))
def test_a_dollar_sign_survives_the_end_of_a_line(before):
    """Wherever a long name is broken, no dollar sign starts a formula, and none is lost."""
    name = "x" * before + "$" + "y" * 4 + "$ z"
    rows = trial(range(4), n=6).rename(columns={"m1": name})
    axes = compliance_map(mm.Study(rows, design(name)).rank(draws=19)).figure.axes[0]
    (shown,) = [t.get_text() for t in axes.get_xticklabels()]
    assert shown.count("\\$") == shown.count("$") == 2
    assert "".join(shown.split()).replace("\\$", "$") == name.replace(" ", "")


def test_absent_arms_are_said(arms, two):
    assert "lacks that arm" in compliance_map(arms).caption
    assert "lacks that arm" not in compliance_map(two).caption


def test_the_scatter_shows_the_pair_that_goes_together(arms):
    picture, c = compliance_scatter(arms), arms.compliances
    assert "Of the 3 mediators these two are correlated most" in picture.caption
    assert "m1 (uncentred correlation" in picture.caption
    data = picture.data
    at = c.present.ravel() > 0
    assert len(data) == at.sum() == 59
    assert data["x"].to_numpy() == pytest.approx(c.slopes[:, :, 0].ravel()[at])
    assert data["y"].to_numpy() == pytest.approx(c.slopes[:, :, 1].ravel()[at])
    assert data["covariance"].to_numpy() == pytest.approx(
        np.einsum("kdpdq->kdpq", c.cov)[:, :, 0, 1].ravel()[at]
    )
    texts = [t.get_text() for t in picture.figure.axes[0].get_legend().get_texts()]
    assert {"arm letter", "arm visit"} <= set(texts)


def test_ellipses_hold_the_sampling_error(two):
    """Every rim point is at the 95% distance of chi-squared with two degrees of freedom."""
    picture = compliance_scatter(two)
    (ellipses,) = [c for c in picture.figure.axes[0].collections if type(c).__name__ == "PolyCollection"]
    for path, row in zip(ellipses.get_paths(), picture.data.itertuples(), strict=True):
        cov = np.array([[row.x_se**2, row.covariance], [row.covariance, row.y_se**2]])
        away = path.vertices[:-1] - [row.x, row.y]
        assert np.einsum("ni,ij,nj->n", away, np.linalg.inv(cov), away) == pytest.approx(
            5.991464547, rel=1e-6
        )


@pytest.mark.parametrize("name", ["two", "arms", "free"])
def test_the_line_is_where_the_weakest_combination_is_zero(name, request):
    report = request.getfixturevalue(name)
    picture, c = compliance_scatter(report), report.compliances
    lines = [
        line for line in picture.figure.axes[0].get_lines() if line.get_linewidth() == pytest.approx(1.6)
    ]
    assert len(lines) == (2 if name == "free" else 1)
    for line in lines:
        x, y = line.get_data()
        slope = (y[1] - y[0]) / (x[1] - x[0])
        start = y[0] - slope * x[0]
        if name == "two":
            weakest = report.spectrum.combinations[:, -1]
            assert slope == pytest.approx(-weakest[0] / weakest[1])
        if name != "free":
            assert start == pytest.approx(0.0, abs=1e-9)
        else:
            mean = c.slopes.mean(axis=0)  # nearly, with sites of one size
            assert np.abs(mean[:, 1] - slope * mean[:, 0] - start).min() < 0.1
    assert ("through the origin" in picture.caption) == (name != "free")


def test_one_mediator_has_no_scatter(one):
    assert compliance_scatter(one) is None
    assert [p.name for p in rank_pictures(one)] == ["rank_spectrum", "compliance_map"]


def test_without_noise_there_is_no_spectrum(exact):
    assert exact.spectrum is None
    assert rank_spectrum(exact) is None
    assert [p.name for p in rank_pictures(exact)] == ["compliance_scatter", "compliance_map"]
    assert "taken: no sampling error" in compliance_map(exact).caption
    assert "dashed line" not in compliance_scatter(exact).caption


def test_two_sites():
    report = mm.Study(trial(range(2), n=40), design("m1", "m2")).rank(draws=19)
    assert [p.name for p in rank_pictures(report)] == [
        "rank_spectrum",
        "compliance_scatter",
        "compliance_map",
    ]
    assert len(compliance_scatter(report).data) == 2


def test_many_sites_stay_small_and_whole():
    study = mm.Study(many(1200, ("control", "letter", "visit")), design("m1", "m2", "m3", control="control"))
    report = study.rank(draws=19)
    pictures = {p.name: p for p in rank_pictures(report)}
    for picture in pictures.values():
        assert len(picture.svg().encode()) < 500_000
    assert len(pictures["compliance_map"].data) == 7200
    assert "mean of 3 neighbouring sites" in pictures["compliance_map"].caption
    assert len(pictures["compliance_scatter"].data) == 2400
    assert "for the 12 points" in pictures["compliance_scatter"].caption
    (image,) = pictures["compliance_map"].figure.axes[0].get_images()
    data = pictures["compliance_map"].data
    top = data[data["site"].isin(data["site"].unique()[:3])].groupby(["mediator", "arm"])["shown"].mean()
    assert np.asarray(image.get_array())[0] == pytest.approx(top.to_numpy())


@pytest.mark.parametrize("direct", [False, True])
def test_labels_that_mean_harm(direct):
    names = ("y", "dose $m$", "<script>" + "w" * 300, "ward", "arm t")
    roles = mm.Design(outcome="y", mediators=list(names[1:3]), site="ward", treatment="arm t")
    report = mm.Study(trial(HOSTILE, names=names), roles).rank(direct_effect=direct, draws=19)
    seen: set[str] = set()
    for picture in rank_pictures(report):
        root = ET.fromstring(picture.svg())  # noqa: S314 - made a line earlier
        ids = {e.get("id") for e in root.iter() if e.get("id")}
        assert not seen & ids
        seen |= ids
        assert root.find(f"{SVG}title").text == printable(picture.alt)
        assert root.find(f".//{SVG}script") is None
        assert max(len(t.text or "") for t in root.iter(f"{SVG}text")) <= 120
        assert "$m$" in picture.alt


def test_pictures_are_the_same_bytes_twice(two, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for picture in rank_pictures(two):
            picture.save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

"""``study.plot``: every figure by name, at both widths, with data equal to what is drawn; weights and leave-one-out."""

from __future__ import annotations

import dataclasses
import inspect
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection, PolyCollection

import msmmiv as mm
from msmmiv.diagnose.site_weights import site_weights
from msmmiv.errors import ChoiceError, DataError
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.show.plots import (
    StudyPlots,
    estimates,
    figure_names,
    forest,
    leave_one_out_plot,
    site_scatter,
    weights,
)
from msmmiv.show.plots.accessor import FigureName
from msmmiv.show.plots.sheet import at_width
from tests.show.drawn import check_print, dots, legend
from tests.show.helpers import design, trial


@pytest.fixture(scope="module")
def study():
    rows = trial(range(9))
    return mm.Study(rows, design("m1", covariates=("x",)))


@pytest.fixture(scope="module")
def plot(study):
    made = StudyPlots(study)
    made._kept["audit"] = study.audit(draws=199)
    made._kept["decomposition"] = study.decompose(draws=99)
    return made


@pytest.fixture(scope="module")
def several():
    rows = trial([f"site {i}" for i in range(10)])
    rng = np.random.default_rng(4)
    moved = dict(zip(rows["s"].unique(), rng.normal(size=10), strict=True))
    rows["m3"] = rows["t"] * rows["s"].map(moved) + rng.normal(size=len(rows))
    made = StudyPlots(mm.Study(rows, design("m1", "m2", "m3")))
    made._kept["audit"] = made.study.audit(draws=199)
    made._kept["decomposition"] = made.study.decompose(draws=99)
    return made


NOT_FOR_ONE = {"compliances"}


@pytest.mark.parametrize("width", ["page", "column"])
@pytest.mark.parametrize("name", sorted(set(get_args(FigureName)) - NOT_FOR_ONE))
def test_every_figure_fits_its_sheet(plot, name, width):
    picture = plot.at(width).draw(name)
    check_print(picture, width)
    assert len(picture.data) > 0
    assert len(picture.caption) > 20
    assert len(picture.alt) > 20
    assert picture.axes == picture.figure.axes


@pytest.mark.parametrize("width", ["page", "column"])
@pytest.mark.parametrize(
    "name", ["estimates", "scatter", "forest", "leave_one_out", "weights", "rank", "compliances", "compliance_map",
             "dag", "independence"],
)  # fmt: skip
def test_figures_of_three_mediators_fit(several, name, width):
    options = {"estimator": "2sls"} if name == "leave_one_out" else {}
    check_print(several.at(width).draw(name, **options), width)


def test_names_are_the_methods():
    public = {
        name
        for name, method in inspect.getmembers(StudyPlots, inspect.isfunction)
        if not name.startswith("_") and name not in {"at", "draw"}
    }
    assert public == set(get_args(FigureName)) == set(figure_names())
    assert all(what.endswith((".", "axes")) for what in figure_names().values())


def test_unknown_names_and_widths_are_named(plot):
    with pytest.raises(ChoiceError, match="Did you mean 'forest'"):
        plot.draw("forrest")
    with pytest.raises(AttributeError):
        plot.forrest()
    with pytest.raises(ChoiceError, match="width='wide'"):
        plot.at("wide")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plot.width = "column"


def test_what_was_computed_is_kept(plot):
    assert plot.at("column")._kept is plot._kept
    assert plot.rank(draws=99).data.equals(plot.at("column").rank(draws=99).data)
    assert ("rank", False, 99, 0) in plot._kept


def test_refusals_say_why(plot, several):
    with pytest.raises(DataError, match="two mediators and there is one"):
        plot.compliances()
    with pytest.raises(DataError, match="must be one of 'm1'"):
        plot.scatter("m9")
    for name in ("decomposition", "confidence_curve"):
        told = rf"name one of 'm1', 'm2' and 'm3', as in study\.plot\.{name}\('m1'\)"
        with pytest.raises(DataError, match=told):
            several.draw(name)
    with pytest.raises(DataError, match="must be one of 'm1', 'm2' and 'm3'"):
        several.decomposition("m9")
    with pytest.raises(DataError, match="leave out `found`"):
        plot.simex(found=plot._kept["decomposition"], draws=99)
    with pytest.raises(DataError, match="no balance to draw"):
        several.balance()


# ------------------------------------------------------------------------------------------------ weights


def test_the_shares_are_those_of_the_formula():
    """One mediator: w c^2 over its sum, and the ratio itt / c; their average is 2SLS to 1e-12."""
    study = mm.Study(trial(range(12), seed=3), design("m1"))
    fit = study.fit("2sls", cov_type="site")
    found = site_weights(fit, study.moments.sites, "m1")
    table = study.effects.to_frame()
    c, itt, w = table["m1"].to_numpy(), table["itt"].to_numpy(), study.effects.weight.to_numpy()
    assert found["share"].to_numpy() == pytest.approx(w * c**2 / (w * c**2).sum(), rel=1e-11)
    assert found["ratio"].to_numpy() == pytest.approx(itt / c, rel=1e-9)
    assert abs((found["share"] * found["ratio"]).sum() - fit.params["m1"]) < 1e-12
    assert abs(found["share"].sum() - 1.0) < 1e-12


@pytest.mark.parametrize("direct", [False, True])
def test_shares_of_several_mediators_are_frisch_waugh(direct):
    """With all intercepts, other mediators and the direct effect partialled out by hand."""
    study = mm.Study(trial(range(12), seed=3), design("m1", "m2"))
    fit = study.fit("2sls", cov_type="site", direct_effect=direct)
    table = study.effects.to_frame()
    w = study.effects.weight.to_numpy()
    others = np.column_stack([table["m2"], *([np.ones(12)] * direct)])
    root = np.sqrt(w)[:, None]
    both = table[["m1", "itt"]].to_numpy()
    coef = np.linalg.lstsq(root * others, root * both, rcond=None)[0]
    x, y = (both - others @ coef).T
    found = site_weights(fit, study.moments.sites, "m1")
    assert found["share"].to_numpy() == pytest.approx(w * x**2 / (w * x**2).sum(), rel=1e-9, abs=1e-14)
    assert found["ratio"].to_numpy() == pytest.approx(y / x, rel=1e-7)
    assert abs(found["part"].sum() - fit.params["m1"]) < 1e-12


@pytest.mark.parametrize("estimator", ["2sls", "liml", "ujive"])
def test_parts_sum_to_the_coefficient_and_influence_is_the_refit(study, estimator):
    fit = study.fit(estimator, cov_type="site")
    found = site_weights(fit, study.moments.sites, "m1")
    assert abs(found["part"].sum() - fit.params["m1"]) < 1e-12
    without = study.leave_one_out(estimator)["m1"].to_numpy()
    assert found["influence"].to_numpy() == pytest.approx(fit.params["m1"] - without, abs=1e-12)


def test_two_stage_shares_are_never_negative(several):
    data = several.weights("2sls").data
    assert (data["share"] >= 0).all()
    assert data.groupby("mediator")["share"].sum().to_numpy() == pytest.approx(np.ones(3), abs=1e-12)


def test_weights_draw_their_data(plot):
    picture = plot.weights()
    left, right = picture.axes
    data = picture.data
    assert [b.get_width() for b in left.patches] == pytest.approx((100 * data["share"]).tolist())
    assert [t.get_text() for t in left.get_yticklabels()] == [str(s) for s in data["site"]]
    (points,) = [d for d in right.get_lines() if d.get_marker() == "o"]
    assert points.get_xdata() == pytest.approx(data["influence"].to_numpy())
    assert data["share"].is_monotonic_decreasing


def test_weights_of_many_sites_keep_the_largest():
    study = mm.Study(trial(range(70), n=6), design("m1"))
    picture = StudyPlots(study).weights()
    labels = [t.get_text() for t in picture.axes[0].get_yticklabels()]
    assert labels[-1] == "40 others"
    assert len(labels) == 31
    assert len(picture.data) == 70
    rest = picture.data.loc[~picture.data["shown"], "share"]
    assert picture.axes[0].texts[0].get_text() == f"{100 * rest.sum():#.3g}% together"
    assert picture.axes[0].patches[-1].get_width() == pytest.approx(100 * rest.max())
    assert "last row holds all others" in picture.caption


def test_weights_refuse_what_has_none(study):
    sites = study.moments.sites
    with pytest.raises(ChoiceError, match="do not solve site equations"):
        weights(study.fit("bc_linear", cov_type="site"), sites)
    with pytest.raises(DataError, match="'m7' is not one of"):
        site_weights(study.fit("2sls", cov_type="site"), sites, "m7")
    with pytest.raises(ChoiceError, match="9 equations for 3 sites"):
        weights(study.fit("2sls", cov_type="site"), sites[:3])
    with pytest.raises(DataError, match="no weights without an estimate"):
        weights(dataclasses.replace(study.fit("2sls"), status="no"), sites)


# ------------------------------------------------------------------------------------------ leave one out


def test_leave_one_out_draws_the_refits(plot, study):
    picture = plot.leave_one_out("2sls")
    (axes,) = picture.axes
    kept = [s for s in study.moments.sites if s != picture.data["left_out"].iloc[0]]
    rows = trial(range(9))
    alone = mm.Study(rows[rows["s"].isin(kept)], design("m1", covariates=("x",)))
    (points,) = [d for d in axes.get_lines() if d.get_marker() == "o"]
    assert points.get_ydata() == pytest.approx(np.sort(study.leave_one_out("2sls")["m1"].to_numpy()))
    # With a covariate the refit also moves its slope, which stays here.
    assert points.get_ydata()[0] == pytest.approx(alone.fit("2sls").params["m1"], abs=0.02)
    fit = study.fit("2sls", cov_type="site", small_sample="CR2")  # as the rule has it
    assert study.fit().small_sample == "CR2"
    (line,) = [d for d in axes.get_lines() if d.get_linewidth() == 1.4]
    assert line.get_ydata() == pytest.approx([fit.params["m1"]] * 2)
    band = next(p for p in axes.patches if p.get_height() != 0)
    low, high = fit.confidence_set("m1").hull
    bottom, top = axes.get_ylim()
    assert [band.get_y(), band.get_y() + band.get_height()] == pytest.approx(
        [max(low, bottom), min(high, top)]
    )


def test_leave_one_out_without_a_rest(study):
    """A site without which nothing can be estimated comes last and is told."""
    without = study.leave_one_out("2sls")
    without.iloc[3] = np.nan
    picture = leave_one_out_plot(study.fit("2sls", cov_type="site"), without)
    assert picture.data["left_out"].iloc[-1] == without.index[3]
    assert "1 coefficient is not determined" in picture.caption


# ------------------------------------------------------------------------------------ scatter and estimates


def test_ellipses_are_one_standard_error(plot):
    picture = plot.scatter()
    data, (axes,) = picture.data, picture.axes
    rims = [p.vertices for c in axes.collections if isinstance(c, PolyCollection) for p in c.get_paths()]
    assert len(rims) == len(data) == 9
    for rim, row in zip(rims, data.to_dict("records"), strict=True):
        assert np.ptp(rim, axis=0) / 2 == pytest.approx([row["x_se"], row["y_se"]], rel=5e-3)
        assert rim[:-1].mean(axis=0)[:2] == pytest.approx([row["x"], row["y"]], rel=0.1, abs=0.05)
    assert dots(axes) == pytest.approx(data[["x", "y"]].to_numpy())
    assert "ellipse of one standard error" in picture.caption


def test_areas_are_proportional_to_the_weights():
    rows = trial(range(6), n=20)
    rows = pd.concat(
        [rows, rows[rows["s"] == 0], rows[rows["s"] <= 1], rows[rows["s"] == 0]], ignore_index=True
    )
    picture = StudyPlots(mm.Study(rows, design("m1"))).scatter()
    area = np.concatenate(
        [c.get_sizes() for c in picture.axes[0].collections if isinstance(c, PathCollection)]
    )
    weight = picture.data["weight"].to_numpy()
    assert sorted(area) == pytest.approx(sorted(90.0 * weight / weight.max()))
    assert max(area) / min(area) == pytest.approx(4.0)
    assert "its area is proportional to its weight before compliance, n p (1 - p)" in picture.caption


def test_many_sites_have_the_ellipses_of_the_heaviest():
    study = mm.Study(trial(range(120), n=4), design("m1"))
    picture = StudyPlots(study).scatter()
    rims = [p for c in picture.axes[0].collections if isinstance(c, PolyCollection) for p in c.get_paths()]
    assert len(rims) == 12
    assert "the 12 with the largest weight" in picture.caption


def test_thousands_of_rows_are_drawn_as_quantiles(study):
    rng, many = np.random.default_rng(0), 900
    one = study.effects
    estimates_ = rng.normal(size=(many, 1, 2))
    effects = dataclasses.replace(
        one, sites=tuple(range(many)), estimates=estimates_, cov=np.repeat(one.cov[:1], many, axis=0),
        precision=np.repeat(one.precision[:1], many, axis=0), n=np.repeat(one.n[:1], many, axis=0),
    )  # fmt: skip
    picture = forest(effects)
    data, axes = picture.data, picture.axes[1]
    (points,) = [d for d in axes.get_lines() if d.get_marker() == "o"]
    assert points.get_xdata() == pytest.approx(data.groupby("group")["m1"].median().to_numpy())
    _, thick = [np.array(c.get_segments()) for c in axes.collections]
    assert thick[:, 0, 0] == pytest.approx(data.groupby("group")["m1"].quantile(0.1).to_numpy())
    assert len(data) == many
    assert "80 groups of neighbours" in picture.caption


def test_partial_panels_hold_the_slopes(several):
    picture = several.scatter(estimator="2sls")
    fit = several.study.fit("2sls", cov_type="site")
    for name, data in picture.data.groupby("mediator"):
        slope = data.x_weighted @ data.y_weighted / (data.x_weighted @ data.x_weighted)
        assert slope == pytest.approx(fit.params[name], rel=1e-10)
    assert several.scatter("m2").name == "partial_2"
    assert [legend(a)[0] for a in picture.axes[:3]] == [f"slope {v:#.4g}" for v in fit.params]


def test_estimates_show_every_estimator_with_and_without_a_direct_effect(plot):
    data = plot.estimates().data
    for direct in (False, True):
        rows = data[data["fit"].str.contains("direct effect") == direct]
        assert {"2sls", "liml", "ujive", "ols"} <= set(rows["method"])
    assert not data.duplicated(["term", "fit", "lower"]).any()
    assert "BC" in "".join(data["fit"])


def test_one_wide_set_is_cut_with_an_open_arrow(study):
    fit = study.fit("2sls", cov_type="site")
    wide = dataclasses.replace(fit, covariance=fit.covariance * 1e6)
    picture = estimates([fit, fit, wide])
    axes = picture.axes[0]
    arrows = [d for d in axes.get_lines() if d.get_marker() in ("<", ">")]
    assert sorted(d.get_marker() for d in arrows) == ["<", ">"]
    assert {d.get_markerfacecolor() for d in arrows} == {"white"}
    assert "much wider" in picture.caption
    low, high = fit.confidence_set("m1").hull
    assert axes.get_xlim()[0] < low
    assert high < axes.get_xlim()[1] < 100 * high


def test_a_set_of_two_pieces_is_two_bars(study, monkeypatch):
    pieces = ConfidenceSet(((-float("inf"), -2.0), (0.5, 1.5)))
    monkeypatch.setattr(type(study.fit("2sls")), "confidence_set", lambda *_, **__: pieces)
    picture = estimates([study.fit("2sls", cov_type="HC0")])
    mine = picture.data[picture.data["term"] == "m1"]
    assert mine[["lower", "upper"]].to_numpy().tolist() == [[-np.inf, -2.0], [0.5, 1.5]]
    axes = picture.axes[0]
    (bars,) = [c for c in axes.collections if hasattr(c, "get_segments")]
    ends = [s[:, 0].tolist() for s in bars.get_segments()]
    assert ends == [[pytest.approx(axes.get_xlim()[0]), -2.0], [0.5, 1.5]]
    assert [d.get_marker() for d in axes.get_lines() if d.get_marker() in ("<", ">")] == ["<"]


def test_no_numbers_no_scale(study):
    """Every standard error unknown: points are open, and nothing has an ellipse."""
    effects = dataclasses.replace(study.effects, cov=np.full_like(study.effects.cov, np.nan))
    picture = site_scatter(effects, study.fit("2sls"))
    assert not any(isinstance(c, PolyCollection) and c.get_paths() for c in picture.axes[0].collections)
    assert "sampling errors are not known" in picture.caption


def test_the_width_is_given_back(plot):
    with pytest.raises(DataError), at_width("column"):
        plot.compliances()
    assert plot.forest().figure.get_figwidth() > 3.4

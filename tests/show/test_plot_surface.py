"""Figures of the surface of itt: what is drawn lies where the test says, at every size and status."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection

import msmmiv as mm
from msmmiv.diagnose.linearity import surface_test
from msmmiv.errors import ChoiceError, DataError
from msmmiv.inference.tests import NotApplicable
from msmmiv.plan.simulate import simulate
from msmmiv.show.plots import falsification, origin
from msmmiv.show.plots.surface_points import result_words
from tests.show.drawn import band, dots, legend, lines, rims
from tests.show.helpers import design, trial

DRAWS = 99
Z95 = 1.959963984540054


def effects_of(violation=None, **options):
    return simulate(violation, seed=3, **options).effects


def surface(effects, kind, **options):
    free = kind != "origin"
    return surface_test(
        effects, kind, direct_effect=options.pop("direct_effect", free), draws=DRAWS, **options
    )


@pytest.fixture(scope="module")
def forty():
    return effects_of("iv", sites=40)


@pytest.fixture(scope="module")
def curved(forty):
    return surface(forty, "curvature")


@pytest.fixture(scope="module")
def three():
    return effects_of("iv", sites=40, mediators=3)


@pytest.fixture(scope="module")
def reset(three):
    return surface(three, "reset")


# ----------------------------------------------------------------------------------------- falsification


def test_points_are_the_sites_and_ellipses_one_standard_error(forty, curved):
    picture = falsification(curved, forty)
    axes = picture.figure.axes[0]
    assert dots(axes) == pytest.approx(curved.sites[["at", "itt"]].to_numpy())
    data = picture.data[picture.data["part"] == "site"]
    assert data[["x", "y"]].to_numpy() == pytest.approx(curved.sites[["at", "itt"]].to_numpy())
    assert data["site"].tolist() == curved.sites["site"].tolist()
    shapes = rims(axes)
    assert len(shapes) == 40
    for vertices, centre, cov in zip(shapes, dots(axes), forty.cov[:, 0, :, 0, :], strict=True):
        away = (vertices - centre)[:49]
        size = np.einsum("ni,ij,nj->n", away, np.linalg.inv(cov[::-1, ::-1]), away)  # (compliance, itt)
        assert size == pytest.approx(1.0, rel=1e-6)


def test_line_smooth_quadratic_and_band_are_those_of_the_test(forty, curved):
    axes = falsification(curved, forty).figure.axes[0]
    curves = curved.curves
    (null,) = lines(axes, 1.2)
    x, y = null.get_data()
    assert y == pytest.approx(curved.base.iloc[1] + curved.base.iloc[0] * np.asarray(x))
    assert [x[0], x[-1]] == pytest.approx([min(0.0, curves["at"].min()), curves["at"].max()])
    assert np.interp(curves["at"], x, y) == pytest.approx(curves["null"].to_numpy())
    (smooth,), (quadratic,) = lines(axes, 1.4), lines(axes, 2.0)
    assert np.column_stack(smooth.get_data()) == pytest.approx(curves[["at", "smooth"]].to_numpy())
    assert np.column_stack(quadratic.get_data()) == pytest.approx(curves[["at", "quadratic"]].to_numpy())
    edge = band(axes)
    for at, low, high in curves[["at", "lower", "upper"]].to_numpy():
        heights = edge[np.isclose(edge[:, 0], at), 1]
        assert [heights.min(), heights.max()] == pytest.approx([low, high])


def test_the_caption_has_the_numbers_and_confirms_nothing(forty, curved):
    never = falsification(dataclasses.replace(curved, detectable=np.nan), forty).caption
    assert "No size that was tried" not in never
    through = dataclasses.replace(curved, kind="origin", detectable=np.nan)
    assert "No size that was tried would be found with 80% power." in result_words(through, "A direct effect")
    caption = falsification(dataclasses.replace(curved, detectable=0.777), forty).caption
    assert f"p = {curved.test.pvalue:.3f}" in caption
    assert "0.777 would be found with 80% power" in caption
    assert f"The power against {curved.violation} is {curved.power:.2f}." in caption
    assert "Curvature may be a failure of (iv)" in caption
    assert "or of (ix), effects that go with compliance; a straight line confirms neither." in caption


def test_through_the_origin_is_drawn_and_said(forty):
    found = surface(forty, "curvature", direct_effect=False)
    picture = falsification(found, forty)
    (null,) = lines(picture.figure.axes[0], 1.2)
    assert np.interp(0.0, *null.get_data()) == pytest.approx(0.0, abs=1e-12)
    assert "null: straight line through the origin" in legend(picture.figure.axes[0])
    assert "free intercept" not in picture.caption


@pytest.mark.parametrize(("away", "shown"), [(0.0, True), (40.0, False), (-40.0, False)])
def test_the_origin_is_shown_unless_it_is_far_away(away, shown):
    rows = trial(range(20))
    rows["m1"] += away * rows["t"]
    effects = mm.SiteEffects.from_moments(mm.Moments.from_data(rows, design("m1")), cov_type="unbiased")
    left, right = falsification(surface(effects, "curvature"), effects).figure.axes[0].get_xlim()
    assert bool(left < 0 < right) is shown


def test_no_ellipses_beyond_two_hundred_sites():
    effects = effects_of(sites=300, people=20)
    picture = falsification(surface(effects, "curvature"), effects)
    axes = picture.figure.axes[0]
    assert rims(axes) == []
    assert len(dots(axes)) == 300
    assert "errors are not drawn for 300" in picture.caption
    through = origin(surface(effects, "origin"), effects)
    assert not [c for c in through.figure.axes[0].collections if isinstance(c, LineCollection)]


def test_a_quadratic_without_an_estimate_is_not_drawn_and_it_is_said(forty, curved):
    none = pd.Series([np.nan], curved.added.index)
    found = dataclasses.replace(
        curved, added=none, std_errors=none, detectable=np.nan, curves=curved.curves.assign(quadratic=np.nan)
    )
    picture = falsification(found, forty)
    assert lines(picture.figure.axes[0], 2.0) == []
    assert "The corrected quadratic has no estimate and is not drawn." in picture.caption
    assert "Coefficient of the square" not in picture.caption
    assert "quadratic" not in " ".join(legend(picture.figure.axes[0]))


@pytest.mark.parametrize("mediators", [1, 2])
def test_too_few_sites_are_shown_without_a_test(mediators):
    effects = effects_of(sites=5, mediators=mediators)
    found = surface(effects, "curvature" if mediators == 1 else "reset")
    assert isinstance(found.test, NotApplicable)
    picture = falsification(found, effects)
    assert len(picture.figure.axes) == mediators
    for j, axes in enumerate(picture.figure.axes):
        assert dots(axes) == pytest.approx(effects.estimates[:, 0, [1 + j, 0]])
        assert lines(axes, 1.2) == []
    assert "There is no test: too few sites: 5" in picture.caption
    assert picture.data["part"].unique().tolist() == ["site"]


def test_several_mediators_index_and_partial_panels(three, reset):
    picture = falsification(reset, three)
    assert picture.name == "falsification_reset"
    slopes, values = reset.base.to_numpy()[:3], three.estimates[:, 0]
    whole, *partial = picture.figure.axes
    assert dots(whole) == pytest.approx(reset.sites[["at", "itt"]].to_numpy())
    x, y = lines(whole, 1.2)[0].get_data()
    assert np.asarray(y) - x == pytest.approx(reset.base.iloc[3])  # slope one, the free intercept
    v = three.cov[:, 0, :, 0, :]
    for j, axes in enumerate(partial):
        less = np.where(np.arange(3) == j, 0.0, slopes)
        assert dots(axes) == pytest.approx(
            np.column_stack([values[:, 1 + j], values[:, 0] - values[:, 1:] @ less])
        )
        x, y = lines(axes, 1.2)[0].get_data()
        assert y == pytest.approx(reset.base.iloc[3] + slopes[j] * np.asarray(x))
        part = picture.data.query("part == 'site' and mediator == @three.mediators[@j]")
        contrast = np.concatenate([[1.0], -less])
        assert part["y_se"].to_numpy() ** 2 == pytest.approx(np.einsum("kab,a,b->k", v, contrast, contrast))
        assert part["covariance"].to_numpy() == pytest.approx(v[:, 1 + j] @ contrast)
    assert len(partial) == 3
    edge = band(whole)
    assert edge[:, 1].max() == pytest.approx(reset.curves["upper"].max())
    assert "a plane confirms neither" in picture.caption


def test_arms_have_marks_of_their_own_and_missing_arms_are_left_out():
    rows = trial([f"site {i}" for i in range(14)], arms=("control", "letter", "visit"))
    rows = rows[~((rows["s"] == "site 4") & (rows["t"] == "visit"))]
    moments = mm.Moments.from_data(rows, design("m1", control="control"))
    effects = mm.SiteEffects.from_moments(moments, cov_type="unbiased")
    for kind, draw in (("curvature", falsification), ("origin", origin)):
        picture = draw(surface(effects, kind), effects)
        axes = picture.figure.axes[0]
        counts = [len(c.get_offsets()) for c in axes.collections if isinstance(c, PathCollection)]
        assert counts == [14, 13]
        assert legend(axes)[-2:] == ["arm letter", "arm visit"]
        assert picture.data.loc[picture.data["part"] == "site", "arm"].value_counts().to_dict() == {
            "letter": 14, "visit": 13
        }  # fmt: skip
        assert "Each point is a site and arm" in picture.caption


def test_wrong_tests_and_wrong_effects_are_refused(forty, three, curved, reset):
    with pytest.raises(ChoiceError, match=r"origin\(\) draws a test of the origin"):
        falsification(surface(forty, "origin"), forty)
    with pytest.raises(ChoiceError, match=r"falsification\(\) draws 'curvature'"):
        origin(curved, forty)
    with pytest.raises(DataError, match="not those of the test"):
        falsification(curved, three)
    with pytest.raises(DataError, match="not those of the test"):
        falsification(curved, effects_of(sites=40))


def test_a_mediator_called_direct_effect_is_a_mediator():
    moments = mm.Moments.from_data(
        trial(range(14)).rename(columns={"m1": "direct_effect"}), design("direct_effect")
    )
    effects = mm.SiteEffects.from_moments(moments, cov_type="unbiased")
    found = surface(effects, "curvature")
    x, y = lines(falsification(found, effects).figure.axes[0], 1.2)[0].get_data()
    assert y == pytest.approx(found.base.to_numpy()[1] + found.base.to_numpy()[0] * np.asarray(x))


def test_a_covariance_that_was_not_given_is_said():
    g = np.linspace(0.5, 3, 20) ** 1.1
    frame = pd.DataFrame({"s": range(20), "y": np.linspace(0, 2, 20), "g": g, "e": 0.2, "f": 0.1})
    roles = {"site": "s", "itt": "y", "itt_se": "e", "compliance": "g", "compliance_se": "f"}
    with pytest.warns(mm.errors.UnknownCovarianceWarning):
        effects = mm.SiteEffects.from_table(frame, **roles)
    found = surface(effects, "curvature")
    assert "was not given and counts as zero" in falsification(found, effects).caption


# ---------------------------------------------------------------------------------------------- origin


def test_origin_line_estimate_interval_and_what_would_be_found():
    effects = effects_of("ii", sites=40)
    found = surface(effects, "origin")
    picture = origin(found, effects)
    axes = picture.figure.axes[0]
    x, y = lines(axes, 1.4)[0].get_data()
    assert y == pytest.approx(found.base.iloc[0] * np.asarray(x))
    assert [min(x), max(x)] == pytest.approx([min(0.0, found.sites["at"].min()), found.sites["at"].max()])
    value, error = found.added.iloc[0], found.std_errors.iloc[0]
    (bar,) = lines(axes, 2.0)
    assert bar.get_xdata() == pytest.approx([0.0, 0.0])
    assert bar.get_ydata() == pytest.approx([value - Z95 * error, value + Z95 * error])
    (diamond,) = [line for line in axes.get_lines() if line.get_marker() == "D"]
    assert np.ravel(diamond.get_data()) == pytest.approx([0.0, value])
    (marks,) = [line for line in axes.get_lines() if line.get_marker() == "_"]
    assert marks.get_ydata() == pytest.approx([-found.detectable, found.detectable])
    assert dots(axes) == pytest.approx(found.sites[["at", "itt"]].to_numpy())
    whiskers = [p.vertices for c in axes.collections if isinstance(c, LineCollection) for p in c.get_paths()]
    across = whiskers[0][:, 0]
    se = np.sqrt(effects.cov[0, 0, 1, 0, 1])
    assert across == pytest.approx(effects.estimates[0, 0, 1] + Z95 * se * np.array([-1, 1]))
    assert f"The power against {found.violation} is {found.power:.2f}." in picture.caption
    assert "A direct effect (dashes) of" in picture.caption


def test_origin_far_from_the_sites_is_on_the_axes_and_said():
    rows = trial(range(20))
    rows["m1"] += 40.0 * rows["t"]
    effects = mm.SiteEffects.from_moments(mm.Moments.from_data(rows, design("m1")), cov_type="unbiased")
    found = surface(effects, "origin")
    picture = origin(found, effects)
    axes = picture.figure.axes[0]
    assert axes.get_xlim()[0] < 0.0
    assert "Zero lies beyond all sites, " in picture.caption
    # An interval that leaves the figure ends in an arrow at its edge.
    low = found.added.iloc[0] - 1.96 * found.std_errors.iloc[0]
    assert low < axes.get_ylim()[0]
    (arrow,) = [line for line in axes.get_lines() if line.get_marker() == "v"]
    assert arrow.get_ydata() == pytest.approx([axes.get_ylim()[0]])


def test_origin_of_several_mediators_is_over_the_planes_value(three):
    found = surface(three, "origin")
    axes = origin(found, three).figure.axes[0]
    assert dots(axes) == pytest.approx(found.sites[["at", "itt"]].to_numpy())
    x, y = lines(axes, 1.4)[0].get_data()
    assert y == pytest.approx(x)


def test_origin_without_a_plane():
    one, two = effects_of(sites=5), effects_of(sites=5, mediators=2)
    picture = origin(surface(one, "origin"), one)
    assert len(dots(picture.figure.axes[0])) == 5
    assert legend(picture.figure.axes[0]) == []
    assert "The direct effect has no estimate and is not drawn." in picture.caption
    with pytest.raises(DataError, match="There is no plane to draw"):
        origin(surface(two, "origin"), two)


@pytest.mark.parametrize("scale", [1.0, 1234567.0])
@pytest.mark.parametrize("arms", [("0", "1"), ("control", "a letter and a visit by staff", "visit")])
def test_the_legend_of_the_origin_is_inside_the_figure(scale, arms):
    rows = trial(range(20), arms=arms)
    rows["y"] *= scale
    moments = mm.Moments.from_data(rows, design("m1", control=arms[0]))
    effects = mm.SiteEffects.from_moments(moments, cov_type="unbiased")
    figure = origin(surface(effects, "origin"), effects).figure
    figure.draw_without_rendering()
    box = figure.axes[0].get_legend().get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1

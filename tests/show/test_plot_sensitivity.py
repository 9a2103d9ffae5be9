"""Figures of sensitivity: the numbers behind them are the result's own, for any number of mediators."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.sensitivity import direct_effect_line
from msmmiv.diagnose.sensitivity_correlation import compliance_effect_correlation
from msmmiv.errors import DataError
from msmmiv.plan.simulate import simulate
from msmmiv.show.plots.sensitivity import sensitivity_plot


@pytest.mark.parametrize("mediators", [1, 2, 4])
@pytest.mark.parametrize("kind", ["line", "correlation"])
def test_the_figure_shows_the_result(mediators, kind, tmp_path):
    effects = simulate(sites=60, people=120, mediators=mediators, seed=2).effects
    result = (
        direct_effect_line(effects)
        if kind == "line"
        else compliance_effect_correlation(effects, effect_sd=0.4)
    )
    picture = sensitivity_plot(result)
    pd.testing.assert_frame_equal(picture.data, result.to_frame())
    shown = [axes for axes in picture.figure.axes if axes.get_visible()]
    assert len(shown) == mediators
    for axes, name in zip(shown, result.mediators, strict=True):
        part = picture.data[picture.data["mediator"] == name]
        curves = [c for c in axes.lines if len(c.get_xdata()) == len(part)]
        assert len(curves) == 1
        assert list(curves[0].get_ydata()) == list(part["estimate"])
        assert name in axes.get_ylabel()
    ET.fromstring(picture.svg())  # noqa: S314 - made a line earlier
    png, _ = picture.save(tmp_path)
    assert png.stat().st_size > 5000


def test_zero_is_marked_where_the_line_crosses_it():
    for seed, mean in ((1, 0.8), (2, -0.8)):
        trial = simulate("ix", sites=80, people=150, compliance_mean=mean, seed=seed, effect_sd=0.3)
        result = compliance_effect_correlation(trial.effects, effect_sd=0.9)
        (axes,) = sensitivity_plot(result).figure.axes
        marked = [line.get_xdata()[0] for line in axes.lines if str(line.get_label()).startswith("zero at")]
        for rho in marked:
            assert result.to_frame([rho])["estimate"][0] == pytest.approx(0.0, abs=1e-10)


def test_hostile_names():
    effects = simulate(sites=30, mediators=2, seed=2).effects
    named = mm.SiteEffects(**{**vars(effects), "mediators": ("$cost$ & <b>", "x" * 90)})
    ET.fromstring(sensitivity_plot(direct_effect_line(named)).svg())  # noqa: S314


def test_nothing_to_draw():
    star = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    with pytest.raises(DataError, match="nothing to draw: effects do not differ"):
        sensitivity_plot(compliance_effect_correlation(star))
    assert "direct effect" in sensitivity_plot(direct_effect_line(star)).alt

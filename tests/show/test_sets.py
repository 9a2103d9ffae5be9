"""Sets that are no intervals, fits without an estimate, and many sites: shown as what they are."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.tests import NotApplicable
from msmmiv.show import explain, gather, peers, readings, sets, tables
from msmmiv.show.outputs import write_outputs
from msmmiv.show.plots import estimates, gallery, partial_plots
from msmmiv.show.report import render_report
from msmmiv.show.summary import summary_text
from tests.show.helpers import UNDRAWN, design, trial

INF = float("inf")
SHAPES = {
    "interval": ((0.5, 1.0),),
    "union": ((-3.0, -2.0), (0.0, 1.0)),
    "ray": ((0.25, INF),),
    "two rays": ((-INF, -2.0), (1.0, INF)),
    "whole line": ((-INF, INF),),
    "empty": (),
}


def shaped(fit, pieces):
    """A copy of a fit whose every set has these pieces (None: no set)."""
    copy = dataclasses.replace(fit)
    rows = sets.term_rows(fit)
    found = None if pieces is None else ConfidenceSet(pieces)
    sets._KEPT[copy] = tuple(dataclasses.replace(r, found=found) for r in rows)
    return copy


@pytest.fixture(scope="module")
def weak():
    """Two mediators that the sites cannot tell apart: a status, and the whole line."""
    return mm.Study(mm.data.star("math_two_mediators")).analysis()


def test_every_shape_has_a_row_per_piece_and_its_marks(one):
    fits = [shaped(one.headline, pieces) for pieces in [*SHAPES.values(), None]]
    picture = estimates(fits)
    assert picture.data["shape"].tolist() == [
        *["interval"], *["union"] * 2, *["ray"], *["two rays"] * 2, "whole line", "empty", "none",
    ]  # fmt: skip
    assert picture.data[["lower", "upper"]].isna().all(axis=1).sum() == 2
    axes = picture.figure.axes[0]
    arrows = {m: sum(len(d.get_xdata()) for d in axes.get_lines() if d.get_marker() == m) for m in "<>"}
    assert arrows == {"<": 2, ">": 3}
    assert [t.get_text() for t in axes.texts] == ["empty", "no set"]
    ET.fromstring(picture.svg())  # noqa: S314
    assert "has no end on that side" in picture.caption


def test_axes_reach_as_far_as_finite_ends(one):
    b = one.headline.params["m1"]
    left, right = estimates([shaped(one.headline, SHAPES["two rays"])]).figure.axes[0].get_xlim()
    assert -2.3 < left < -2.0
    assert max(1.0, b) < right < max(1.0, b) + 0.3
    nothing = dataclasses.replace(one.headline, coefficients=np.full(1, np.nan), status="no")
    axes = estimates([shaped(nothing, SHAPES["whole line"])]).figure.axes[0]
    assert axes.get_xlim() == (-1.0, 1.0)
    assert axes.get_xticks().tolist() == [0.0]


def test_the_hull_of_two_rays_is_never_an_interval(one, tmp_path, undrawn):
    fit = shaped(one.headline, SHAPES["two rays"])
    analysis = dataclasses.replace(one, headline=fit, fits=(fit,))
    assert tables.headline(fit).rows[0][3].text == "-2.000 or less, or 1.000 or more"
    assert "The data do not bound this effect" in readings.answers(fit)[0]
    assert "95% interval" not in readings.answers(fit)[0]
    files = write_outputs(analysis, tmp_path)
    row = pd.read_csv(files["estimates"]).iloc[0]
    assert np.isnan(row["conf_low"])
    assert np.isnan(row["conf_high"])
    assert (row["shape"], row["set"]) == ("two rays", "(-inf, -2] and [1, inf)")
    kept = json.loads(files["results"].read_text(encoding="utf-8"))["fits"][0]["terms"][0]
    assert kept["pieces"] == [[None, -2.0], [1.0, None]]


def test_a_fit_with_a_status_is_shown_with_its_reason(weak, tmp_path, undrawn):
    fit = weak.headline
    assert fit.status
    pictures = gallery(weak)
    page, text = render_report(weak, pictures=pictures), " ".join(summary_text(weak).split())
    assert weak.two_stage.method == "2sls"
    for words in ("The data do not bound this effect", "do not give one number", sets.why(fit)):
        assert words in page
        assert words in text
    assert "any value (not bounded)" in page
    assert "nan" not in text.lower()
    assert ">nan<" not in page
    picture = pictures[0]
    assert f"has no point estimate: {sets.why(fit)}" in picture.caption
    whole = picture.data[picture.data["shape"] == "whole line"]
    assert set(whole["lower"]) == {-INF}
    table = pd.read_csv(write_outputs(weak, tmp_path)["estimates"])
    assert table["status"][0] == fit.status
    assert table["set"][0] == "the whole line"
    assert all("There is no line" in p.caption for p in partial_plots(weak.effects, fit))


def test_an_empty_anderson_rubin_set_is_a_sentence(one):
    analysis = dataclasses.replace(one, anderson_rubin=(ConfidenceSet((), term="m1"),))
    assert "empty. No single effect fits all sites" in explain.anderson_rubin(analysis)[1]
    assert "m1: empty." in render_report(analysis, pictures=UNDRAWN)


def test_what_could_not_be_had_has_its_reason(one):
    none = NotApplicable("x", "of a reason")
    parts = {"anderson_rubin": (none,), "heterogeneity": none, "bias": none, "leave_one_out": none}
    analysis = dataclasses.replace(one, **parts)
    assert render_report(analysis, pictures=UNDRAWN).count("of a reason") == 4
    assert summary_text(analysis).count("of a reason") == 4


def test_the_report_says_who_chose(one):
    page = " ".join(render_report(one, pictures=UNDRAWN).split())
    assert "A fixed rule chose the method" in page
    assert "Beside it, two-stage least squares" in page
    named = dataclasses.replace(one, headline=one.two_stage, fits=(one.two_stage,))
    assert "asked for by name" in render_report(
        dataclasses.replace(named, two_stage=one.two_stage), pictures=UNDRAWN
    )


def test_leaving_out_one_site_is_what_the_study_says():
    study = mm.Study(trial(range(9)), design("m1"))
    without = study.leave_one_out("ujive")["m1"]
    (line,) = explain.leave_one_out(study.analysis(estimator="ujive"))
    assert f"(without {without.idxmin()})" in line
    assert f"(without {without.idxmax()})" in line


def test_no_fit_stands_twice_and_cov_type_means_2sls():
    analysis = mm.Study(trial(range(9)), design("m1")).analysis(cov_type="site")
    assert analysis.headline is analysis.two_stage
    assert (analysis.headline.method, analysis.headline.cov_type) == ("2sls", "site")
    keys = [
        (f.method, f.cov_type, f.direct_effect, f.small_sample, f.interval, f.status) for f in analysis.fits
    ]
    assert len(keys) == len(set(keys))
    for direct in (False, True):
        methods = {f.method for f in analysis.fits if f.direct_effect == direct}
        assert methods >= {"ols", "2sls", "liml", "ujive"}
    assert "bc_linear" in {f.method for f in analysis.fits}


def test_with_very_many_sites_the_robust_set_is_left_to_the_asker(monkeypatch):
    monkeypatch.setattr(gather, "AR_SITES", 5)
    analysis = mm.Study(trial(range(6)), design("m1")).analysis()
    assert "ask for it with study.anderson_rubin_set('m1')" in explain.anderson_rubin(analysis)[1]


def test_other_programs_only_where_the_algebra_is_the_same(one, two):
    assert [name for name, _ in peers.other_lines(one)][-1] == "R (ManyIV), LIML and UJIVE"
    assert "ujive(y ~ m1 + as.factor(s) | as.factor(s) * treated, data = df)" in peers.other_lines(one)[-1][1]
    assert all("ManyIV" not in name for name, _ in peers.other_lines(two))


def test_linearmodels_liml_gives_our_coefficients():
    rows = trial(range(7))
    study = mm.Study(rows, design("m1", "m2"))
    analysis = study.analysis(audit=study.audit(draws=199))
    lines, found = dict(peers.other_lines(analysis)), {}
    code = lines["Python (linearmodels), LIML"]
    exec(code.replace("print(", "result = (", 1), {"df": rows}, found)  # noqa: S102 - our own lines
    ours = study.fit("liml", cov_type="site")
    names = list(ours.terms)
    assert found["result"].params[names].to_numpy() == pytest.approx(ours.coefficients, rel=1e-6)
    # Clustered by site as ours, by a formula that differs in what it does to the fitted mediators.
    assert found["result"].std_errors[names].to_numpy() == pytest.approx(ours.std_errors.to_numpy(), rel=0.12)
    assert "clusters=df['s']" in code


@pytest.mark.parametrize("sites", [7, 82])
def test_our_own_lines_give_the_fits_that_are_shown(sites):
    study = mm.Study(trial(range(sites)), design("m1"))
    analysis = study.analysis(audit=study.audit(draws=199))
    lines = dict(peers.other_lines(analysis))["msmmiv"].splitlines()
    assert len(lines) == 2
    for line in lines:
        fit = eval(line, {"study": study})  # noqa: S307 - our own line
        assert any(fit.tidy().equals(shown.tidy()) for shown in analysis.fits)
    assert fit.small_sample == ("CR2" if sites == 7 else "CR1P")
    stamped = dataclasses.replace(analysis, stamp={"study file": "my study.toml"})
    assert (
        dict(peers.other_lines(stamped))["msmmiv"].splitlines()[2]
        == "study = read_study('my study.toml').study()"
    )

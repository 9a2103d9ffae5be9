"""Rank in the report and in the files: every number is the report's, reasons stand where there is none."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.rank_words import GATES
from msmmiv.inference.tests import NotApplicable
from msmmiv.show import rank_tables
from msmmiv.show.outputs import write_outputs, write_rank
from msmmiv.show.readings import weakness
from msmmiv.show.report import render_report
from msmmiv.show.summary import rank_text
from msmmiv.show.words import number, one_line, p_value
from tests.show.helpers import UNDRAWN, design, trial
from tests.show.test_outputs import refuse
from tests.show.test_report import Page

TABLES = ["rank_correlation", "rank_directions", "rank_leverage", "rank_strength", "rank_tests", "rank_thresholds",
          "rank_variation"]  # fmt: skip


def exact():
    """A mediator that the design sets: no noise, no directions."""
    rows = trial(range(6))
    rows["taken"] = rows["t"] * (1.0 + rows["s"] % 3)
    return mm.Study(rows, design("m1", "taken"))


@pytest.fixture(scope="module")
def section(two, two_drawn):
    page = render_report(two, pictures=two_drawn)
    return re.search(r'<section aria-labelledby="rank">.*?</section>', page, re.DOTALL)[0]


@pytest.fixture(scope="module")
def files(two, tmp_path_factory):
    return write_rank(two.rank, tmp_path_factory.mktemp("rank"))


def test_the_section_reads_from_the_sentence_to_the_tables(section, two):
    page = Page(section)
    words, report = page.words, two.rank
    said = [one_line(s) for s in report.sentences]
    assert Page(f"<strong>{said[0]}</strong>").words in words
    places = [words.index(w) for w in (
        *said, "(viii.b)", "Strength by direction against noise", "Strength of every combination",
        "(viii.a): does compliance", "Correlation of compliances", "Each point is a site", "The compliance matrix",
        "share of the first-stage information Site", "First-stage F by mediator", "Tests of rank",
        "Published critical values", GATES,
    )]  # fmt: skip
    assert places == sorted(places)
    assert section.count("<svg ") == 3
    assert section.count("<details>") == 2


def test_its_numbers_are_the_reports(section, two):
    words, report = Page(section).words, two.rank
    found = report.spectrum
    for j, strength in enumerate(found.strength):
        row = (number(float(v)) for v in (strength, found.floor[j], found.floor_95[j]))
        assert f"{' '.join(row)} {p_value(float(found.pvalues[j]))} {found.bias_share[j]:.1%}" in words
    for row in report.tests_frame().to_dict("records"):
        assert (number(row["statistic"]) if not row["reason"] else row["reason"]) in words
    for row in report.variation.to_dict("records"):
        assert f"{row['mediator']} {row['sites']} {number(row['mean'])}" in words
    assert f"{report.leverage['leverage'].iloc[0] / 2:.1%}" in words


def test_one_mediator_has_no_correlation(one):
    section = re.search(
        r'<section aria-labelledby="rank">.*?</section>', render_report(one, pictures=UNDRAWN), re.DOTALL
    )[0]
    assert "Do the compliances go together?" not in section
    assert section.count("caption of ") == 2
    assert rank_tables.correlation(one.rank) is None


def test_arms_have_a_column(three_arms):
    table = rank_tables.variation(three_arms.rank(draws=19))
    assert table.columns[1] == "Arm"
    assert [row[1].text for row in table.rows] == ["letter", "visit"] * 2


def test_ten_sites_are_listed_and_the_file_has_all(tmp_path, undrawn):
    report = mm.Study(trial(range(14), n=8), design("m1", "m2")).rank(draws=19)
    table = rank_tables.leverage(report)
    assert (len(table.rows), "10 of 14 sites" in table.caption) == (10, True)
    assert table.columns[2:] == (
        "of the weakest direction",
        "of m1 given the others",
        "of m2 given the others",
    )
    for column, name in zip((2, 3, 4), ("weakest", "of m1", "of m2"), strict=True):
        assert table.rows[0][column].text == f"{report.leverage[name].iloc[0]:.1%}"
    assert len(pd.read_csv(write_rank(report, tmp_path)["rank_leverage"])) == 14


def test_without_noise_the_reason_is_said(tmp_path, unsaved):
    analysis = exact().analysis()
    words = Page(render_report(analysis, pictures=UNDRAWN)).words
    assert analysis.rank.why_no_spectrum in words
    assert "Strength against noise (viii.c)" not in words
    files = write_outputs(analysis, tmp_path)
    assert "rank_directions" not in files
    assert "figures/rank_spectrum" not in files
    found = json.loads(files["results"].read_text(encoding="utf-8"), parse_constant=refuse)["rank"]
    assert found["directions"] == []
    assert found["why_no_spectrum"] == analysis.rank.why_no_spectrum
    assert found["cragg_donald"] == {"not_applicable": analysis.rank.cragg_donald.reason}
    assert found["leverage"]["weakest"] == [None] * 6


def test_files_are_the_report(files, two):
    figures = [f"figures/{name}" for name in ("compliance_map", "compliance_scatter", "rank_spectrum")]
    assert sorted(files) == sorted(["rank", "rank_json", *TABLES, *figures])
    for name, frame in rank_tables.rank_frames(two.rank).items():
        table = pd.read_csv(files[f"rank_{name}"], keep_default_na=True)
        assert table.columns.tolist() == frame.columns.tolist()
        for column in frame.select_dtypes("number"):
            assert table[column].to_numpy(float) == pytest.approx(
                frame[column].to_numpy(float), rel=1e-12, nan_ok=True
            )
    assert files["rank"].read_text(encoding="utf-8") == rank_text(two.rank)


def test_json_is_strict_and_the_same_in_both(files, two, tmp_path, undrawn):
    alone = json.loads(files["rank_json"].read_text(encoding="utf-8"), parse_constant=refuse)
    report = two.rank
    assert [d["strength"] for d in alone["directions"]] == pytest.approx(report.spectrum.strength)
    assert alone["sentences"] == list(report.sentences)
    assert alone["leverage"]["site"] == report.leverage["site"].tolist()
    assert alone["leverage"]["weakest"] == pytest.approx(report.leverage["weakest"])
    assert (alone["draws"], alone["seed"]) == (999, 0)
    assert [t["reason"] for t in alone["tests"]] == report.tests_frame()["reason"].tolist()
    for name in ("variation", "strength", "thresholds", "correlation"):
        assert len(alone[name]) == len(getattr(report, name))
    whole = write_outputs(two, tmp_path)["results"].read_text(encoding="utf-8")
    assert json.loads(whole)["rank"] == alone


def test_the_page_fits_the_terminal(two, three_arms):
    for report in (two.rank, three_arms.rank(draws=19), exact().rank(draws=19)):
        text = rank_text(report)
        assert max(map(len, text.splitlines())) <= 100
        assert " ".join(text.split()) == " ".join(one_line(str(report)).split())


def test_the_warning_takes_the_level_that_there_is(two):
    none = NotApplicable("F", "not here")
    report, fit = two.rank, two.headline
    weak = dataclasses.replace(report, cluster_level=2.5)
    assert "first-stage F is 2.5 " in weakness(weak, fit)
    assert weakness(dataclasses.replace(report, cluster_level=12.0, cragg_donald=2.0), fit) == ""
    people = dataclasses.replace(report, cluster_level=none, cragg_donald=3.5)
    assert "first-stage F is 3.5 " in weakness(people, fit)
    low = dataclasses.replace(report.spectrum, strength=np.array([20.0, 1.5]))
    alone = dataclasses.replace(report, cluster_level=none, cragg_donald=none, spectrum=low)
    assert "strength, of which noise gives 1, is 1.5 " in weakness(alone, fit)
    assert weakness(dataclasses.replace(alone, spectrum=None), fit) == ""
    assert weakness(dataclasses.replace(report, cluster_level=float("nan")), fit) == ""

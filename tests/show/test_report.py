"""The report: complete, escaped, self-contained, honest."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import OutputError
from msmmiv.show.references import references
from msmmiv.show.report import render_report, write_report
from msmmiv.show.words import number
from tests.show.helpers import HOSTILE, UNDRAWN, design, trial

VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "image"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Elements with their attributes, ids, texts, and whether every tag that opens also closes."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text, self.crossed = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [a for t, a in self.elements if t == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def html(two, two_drawn):
    return render_report(two, pictures=two_drawn)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_tags_are_balanced_and_ids_unique(page):
    assert page.crossed == []
    assert page.open == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    inner = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert inner <= set(ids)
    for _, attributes in page.elements:
        for key in ("aria-labelledby", "xlink:href"):
            if attributes.get(key, "").startswith("#") or (key, key in attributes) == (
                "aria-labelledby",
                True,
            ):
                assert attributes[key].removeprefix("#") in ids


def test_nothing_is_loaded(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = attributes.get(name) or "#"
            assert tag == "a" or value.startswith(("#", "data:")), (tag, name, value)
    styles = " ".join(page.text)
    assert "@import" not in styles
    assert not re.search(r"url\((?!['\"]?(#|data:))", styles)
    assert {"link", "iframe", "object", "embed"} & {t for t, _ in page.elements} == set()


def test_it_can_be_read_without_eyes_or_mouse(page, two_drawn):
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("a")[0]["class"] == "skip"
    levels = [int(t[1]) for t, _ in page.elements if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    tags = [t for t, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 6
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in page.all("svg"))
    assert len(page.all("svg")) == tags.count("figure") == len(two_drawn)


def test_it_says_what_it_must(page, two):
    words = page.words
    fit = two.headline
    for name in fit.design.mediators:
        assert f"one unit more of {name} changes y by {number(fit.params[name])}" in words
    for text in (
        fit.target, two.rank.sentence, fit.design.digest, "not a test of (ix)", "What this analysis does not claim",
        "Reardon, S. F., and Raudenbush", "Fu, J. (2023)", "People here share clusters",
    ):  # fmt: skip
        assert text in words
    for found in two.audit.findings:
        assert f"({found.id}) {found.title} {'✗ ' * (found.status == 'contradicted')}{found.status}" in words
    assert [a["id"] for a in page.all("details") if "id" in a] == [
        f"assumption-{a.id}" for a in mm.load_assumptions()
    ]
    for assumption in mm.load_assumptions():
        prompts = (getattr(assumption.prompts, f) for f in ("education", "political_science", "epidemiology"))
        for asked in (*assumption.questions, *prompts):
            assert " ".join(asked.split()) in words


def test_it_never_says_too_much(page):
    assert not re.search(r"\b(proved?|proven|valid|passed|verified)\b", page.words, re.IGNORECASE)


def test_the_estimand_chooses_the_wording():
    rows = trial(range(5), n=60)
    rows["m"] = (rows["m1"] > 0.5).astype(int)
    late = render_report(mm.Study(rows, design("m", estimand="late")).analysis(), pictures=UNDRAWN)
    assert "(vii.b)" in late
    assert "(vii.a)" not in late
    assert "among compliers" in late


def test_a_free_direct_effect_changes_what_it_rests_on(three_arms):
    text = Page(render_report(three_arms.analysis(direct_effect=True), pictures=UNDRAWN)).words
    assert "exclusion (ii) is not assumed" in text
    assert "direct_effect[letter] is estimated at" in text
    assert "direct_effect=True" in text
    assert "--direct-effect" in text


def test_labels_that_mean_harm_do_none(hostile, hostile_drawn):
    text = render_report(hostile, pictures=hostile_drawn)
    page = Page(text)
    assert page.crossed == []
    assert [a for a in page.all("script") if a] == []
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert "<b>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7*7 }}" in text
    assert not set(text) & set("\x00\x1b\u202e")
    for name in HOSTILE[1:4]:
        assert name in text


def test_missing_rows_are_counted_by_arm():
    rows = trial(range(5))
    rows.loc[(rows["t"] == 1) & (rows.index % 7 == 0), "y"] = np.nan
    lost = int(rows["y"].isna().sum())
    words = Page(render_report(mm.Study(rows, design("m1")).analysis(), pictures=UNDRAWN)).words
    assert (
        f"Missing values by arm Arm Column Rows missing it Rows used in this arm 1 y {lost} {120 - lost}"
        in words
    )


def test_many_sites_stay_small():
    rng = np.random.default_rng(2)
    sites, n = 600, 6
    site, t = np.repeat(np.arange(sites), n), np.tile([0, 1], sites * n // 2)
    m = rng.normal(size=sites * n) + rng.uniform(0.2, 2.0, sites)[site] * t
    rows = pd.DataFrame({"s": site, "t": t, "m1": m, "y": m + rng.normal(size=sites * n)})
    study = mm.Study(rows, design("m1"))
    text = render_report(study.analysis(audit=study.audit(draws=199)))
    assert len(text.encode()) < 1_500_000  # 2,000 sites: tests/show/browser
    assert "The 250 of 600 rows with the largest weight" in text
    (table,) = re.findall(r'<table id="site-table".*?</table>', text, re.DOTALL)
    assert table.count("<tr>") == 251


def test_writing_returns_the_path_and_names_what_is_in_the_way(one, one_drawn, tmp_path: Path):
    path = write_report(one, tmp_path / "r.html")
    assert path.read_text(encoding="utf-8") == render_report(one, pictures=one_drawn)
    with pytest.raises(OutputError, match="cannot be written: there is no folder"):
        write_report(one, tmp_path / "no" / "r.html")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to print with")
def test_a_browser_prints_it(html, tmp_path: Path):
    report = tmp_path / "report.html"
    report.write_text(html, encoding="utf-8")
    target = tmp_path / "report.pdf"
    subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--no-pdf-header-footer", f"--print-to-pdf={target}", report.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert target.read_bytes()[:5] == b"%PDF-"
    assert target.stat().st_size > 50_000


def test_what_is_named_has_a_reference_and_nothing_else(one):
    body, _, rest = render_report(one, pictures=UNDRAWN).partition('<h2 id="references">')
    listed = rest.partition("</section>")[0]
    found = {
        who: f"<p>{who}" in listed
        for who in (
            "Reardon",
            "Fu, J.",
            "Kolesár",
            "Sanderson",
            "Cragg",
            "Kleibergen",
            "Anderson, T.",
            "Robin",
        )
    }
    names = (
        "",
        "",
        "UJIVE",
        "Sanderson-Windmeijer",
        "Cragg-Donald",
        "Kleibergen-Paap",
        "LIML",
        "Robin-Smith",
    )
    assert found == {who: name in body for who, name in zip(found, names, strict=True)}
    assert {r.who for r in references("")} == {r.who for r in references(body)[:2]}
    assert len(references("Sanderson-Windmeijer F of one mediator")) == 3

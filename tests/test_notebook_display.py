"""What a notebook shows: escaped, well-formed, small, without scripts, the answer first."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.inference.confidence_set import ConfidenceSet
from msmmiv.inference.estimate_card import set_text
from msmmiv.notebook import card, cell, frame_table, label, number, p_value, pairs, prose, table
from tests.show.helpers import HOSTILE, design, trial

NAMES = ("the <b>outcome</b>", 'dose "$m$"', "x" * 300, "ward & <i>", "arm t")


class Page(HTMLParser):
    """Tags, their attributes, text by tag; fails where a tag is not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1], []).append(data)


def checked(shown):
    """The page, after the checks that hold for all of them."""
    html = shown._repr_html_()
    page = Page(html)
    assert set(page.tags) <= {
        "style",
        "div",
        "p",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "strong",
    }
    assert set(page.attributes) <= {"class", "scope"}
    assert len(html.encode()) <= 100_000
    assert not set("\u202e\x00\x1b") & set(html)
    assert page.tags[:3] == ["style", "div", "p"]  # the headline comes first
    for bad in ("#000", "#fff", "black", "white;", "background:#"):
        assert bad not in html
    return page


def everything(study, decompose):
    yield study
    yield study.design
    yield study.moments
    yield study.effects
    yield study.fit("2sls", cov_type="site")
    yield study.fit()
    yield study.rank(draws=19)
    yield study.audit(draws=199)
    if decompose:
        yield mm.decompose(study.moments, draws=199)


@pytest.fixture(scope="module")
def hostile():
    rows = trial(HOSTILE, names=NAMES)
    roles = mm.Design(outcome=NAMES[0], mediators=NAMES[1:3], site=NAMES[3], treatment=NAMES[4])
    return mm.Study(rows, roles)


@pytest.fixture(scope="module")
def star():
    return mm.Study(mm.data.star())


def test_hostile_labels_stay_text(hostile):
    for shown in everything(hostile, decompose=False):
        page = checked(shown)
        assert max(map(len, page.texts.get("th", [""]))) <= 60
    sites = checked(hostile.effects).texts["th"]
    assert "<script>alert(1)</script>" in sites
    assert any(t.startswith("ward & <i>") for t in checked(hostile.design).texts["td"])


def test_all_of_star(star):
    for shown in everything(star, decompose=True):
        checked(shown)


def test_the_estimate_comes_first_with_its_set(star):
    fit = star.fit()
    low, high = fit.confidence_set("class_size").hull
    head = checked(fit).texts["p"][0]
    assert head == f"class_size: {fit.params['class_size']:.4g}, 95% set {low:.4g} to {high:.4g}"
    cells = checked(fit).texts["td"]
    assert cells[:2] == [f"{fit.params['class_size']:.4g}", f"{fit.std_errors['class_size']:.4g}"]
    text = " ".join(checked(fit).texts["p"])
    for said in ("5,871 rows, 79 sites, 79 instruments", fit.estimand, fit.target, "Chosen by rule"):
        assert said in text


def test_no_estimate_says_why_and_shows_the_set():
    fit = mm.Study(mm.data.star("math_two_mediators")).fit()
    page = checked(fit)
    assert page.texts["p"][0].startswith("class_size: –, 95% set any value (not bounded); tch_exp: –")
    assert f"No point estimate: {fit.status}"[:80] in page.texts["p"][1]


def test_a_wald_fit_without_an_estimate_has_no_set(star):
    fit = replace(star.fit("2sls"), status="made up", coefficients=np.array([np.nan]))
    assert checked(fit).texts["td"][-1] == "none"


def test_nine_findings_and_no_verdict(star):
    audit = star.audit(arguments={"ii": "Nothing else."}, draws=199)
    page = checked(audit)
    assert page.tags.count("tr") == 10
    numbered = [t for t in page.texts["th"] if t.startswith("(")]
    assert numbered == [f"({f.id})" for f in audit.findings]
    assert page.texts["td"].count("given") == 1
    counts = [int(part.split()[0]) for part in page.texts["p"][0].partition(": ")[2].split("; ")]
    assert sum(counts) == 9
    edge = mm.CausalDAG.from_design(star.design, edges=["small -> math"])
    assert checked(star.audit(edge, draws=199)).texts["strong"] == ["contradicted"]


def test_rank_and_site_effects(star):
    two = mm.Study(mm.data.star("math_two_mediators"))
    report = two.rank(draws=99)
    page = checked(report)
    assert report.sentence[:100] in page.texts["p"][1]
    assert f"{report.spectrum.strength[1]:.4g}" in page.texts["td"]
    page = checked(star.effects)
    assert "Effects of the treatment in 79 sites" in page.texts["p"][0]
    assert "… 69 more sites" in page.texts["p"]
    assert "112038" in page.texts["th"]  # a name, not the number 112,038
    assert f"{star.effects.itt.mean():.4g}" in page.texts["p"][1]


def test_two_thousand_sites_and_many_columns_stay_small():
    rng = np.random.default_rng(0)
    names = [f"mediator {j} {'long ' * 40}" for j in range(20)]
    sites = [f"{'s' * 290}{i}" for i in range(2000)]
    table = pd.DataFrame({"site": sites, "itt": rng.normal(size=2000), "itt_se": 0.1})
    more = {c: v for n in names for c, v in ((n, rng.normal(size=2000)), (f"{n}_se", np.full(2000, 0.1)))}
    table = pd.concat([table, pd.DataFrame(more)], axis=1)
    with pytest.warns(mm.errors.UnknownCovarianceWarning):
        effects = mm.SiteEffects.from_table(
            table,
            site="site",
            itt="itt",
            itt_se="itt_se",
            compliance=names,
            compliance_se=[f"{n}_se" for n in names],
        )
    page = checked(effects)
    text = " ".join(page.texts["p"])
    assert "1,990 more sites and 32 more columns" in text
    assert "Cov(itt, compliance) assumed zero" in text
    arm = np.tile([0, 0, 1, 1], 2000)
    rows = pd.DataFrame({"s": np.repeat(sites, 4), "t": arm, "m1": arm + rng.normal(size=8000)})
    study = mm.Study(rows.assign(y=rows["m1"] + rng.normal(size=8000)), design("m1"))
    for shown in (study, study.effects, study.fit("2sls"), study.moments):
        checked(shown)


def test_missing_effects_are_dashes():
    rows = trial(range(6), arms=("a", "b", "c"))
    rows = rows[~((rows["s"] == 2) & (rows["t"] == "c"))]
    effects = mm.Study(rows, design("m1", control="a")).effects
    page = checked(effects)
    assert "–" in page.texts["td"]
    assert "nan" not in " ".join(page.texts["p"])
    assert "… 2 more rows" in page.texts["p"]


def test_the_study_says_what_was_left_out(tmp_path):
    rows = trial(range(5))
    rows.loc[[0, 3], "y"] = np.nan
    rows.to_csv(tmp_path / "<i>trial.csv", index=False)
    page = checked(mm.Study(tmp_path / "<i>trial.csv", design("m1", cluster="class")))
    assert page.texts["p"][0] == "Study of <i>trial.csv: 238 rows in 5 sites"
    assert "missing a declared column (y: 2)" in page.texts["th"]
    assert {"outcome", "treatment", "mediator", "site", "cluster"} <= set(page.texts["th"])


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (((1.0, 2.0), (3.0, 4.0)), "1 to 2, or 3 to 4"),
        (((-np.inf, 1.0),), "1 or less"),
        ((), "empty"),
        (((-np.inf, np.inf),), "any value (not bounded)"),
    ],
)
def test_sets_of_every_shape(pieces, said):
    assert set_text(ConfidenceSet(pieces)) == said


def test_the_parts():
    assert label("a" * 100, 11) == "aaaaaa…aaaa"
    assert label("\u202e\u2066evil\r\n\t<x>") == "evil &lt;x&gt;"
    assert label("می\u200cخواهم") == "می\u200cخواهم"
    assert (number(1234.5), number(0.1), number(-np.inf), number(1e20)) == ("1,234", "0.1", "-∞", "1e+20")
    assert (p_value(0.0004), p_value(0.2)) == ("&lt;0.001", "0.200")
    assert (cell(None), cell(np.int64(3)), cell("<")) == ("None", "3", "&lt;")
    assert prose("one two three", 9) == "one two…"
    assert Page(table(["a", "b"], [["1", "2"]], caption="c", numbers=[1])).attributes.count("class") == 2
    assert "10 more" in pairs([("a", "b")] * 30)
    empty = Page(frame_table(pd.DataFrame({"a": []}), what="rows"))
    assert empty.tags.count("tr") == 1
    assert Page(card("<strong>x</strong>", "", "y", notes=["", "<z>"])).texts["p"] == ["y", "<z>"]

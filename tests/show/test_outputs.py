"""Files: they exist, they parse, and they hold the numbers of the fits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import OutputError
from msmmiv.show.iv_table import iv_table
from msmmiv.show.outputs import write_audit, write_outputs
from msmmiv.show.provenance import moments_digest
from msmmiv.show.summary import summary_text
from tests.show.helpers import design, trial


@pytest.fixture(scope="module")
def files(two, tmp_path_factory):
    return write_outputs(two, tmp_path_factory.mktemp("out") / "deep" / "folder")


def test_everything_is_there(files, two, two_drawn):
    figures = sorted(picture.name for picture in two_drawn)
    assert {"causal_dag", "compliance_scatter", "partial_1", "partial_2", "rank_spectrum"} < set(figures)
    assert sorted(files) == [
        "estimates", *(f"figures/{name}" for name in figures), "moments", "rank_correlation", "rank_directions",
        "rank_leverage", "rank_strength", "rank_tests", "rank_thresholds", "rank_variation", "report", "results",
        "site_effects", "summary", "table_csv", "table_html", "table_md", "table_tex",
    ]  # fmt: skip
    table = iv_table(two)
    assert files["table_tex"].read_text(encoding="utf-8") == table.to_latex(label="")
    assert "Kleibergen-Paap" in files["table_md"].read_text(encoding="utf-8")
    assert all(path.stat().st_size > 0 for path in files.values())
    assert all(p.with_suffix(".svg").exists() for n, p in files.items() if n.startswith("figures/"))


def test_estimates_are_the_fits(files, two):
    table = pd.read_csv(files["estimates"])
    expected = pd.concat([f.tidy() for f in two.fits], ignore_index=True)
    for column in ("estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high"):
        assert table[column].to_numpy() == pytest.approx(expected[column].to_numpy(), rel=1e-12, nan_ok=True)
    assert table["term"].tolist() == expected["term"].tolist()
    more = ["direct_effect", "small_sample", "interval", "set", "shape", "status", "rule"]
    assert table.columns[-7:].tolist() == more
    free = {
        f.direct_effect: sum(len(g.terms) for g in two.fits if g.direct_effect == f.direct_effect)
        for f in two.fits
    }
    assert table.groupby("direct_effect")["term"].count().to_dict() == free
    assert table["set"][0] == str(two.headline.confidence_set("m1"))
    assert table["rule"][0] == two.headline.rule != ""


def test_site_effects_are_the_effects(files, two):
    table = pd.read_csv(files["site_effects"])
    expected = two.effects.to_frame()
    assert table.columns.tolist() == expected.columns.tolist()
    assert np.allclose(table.to_numpy(float), expected.to_numpy(float), rtol=1e-12, atol=0)


def test_moments_come_back(files, two):
    assert mm.Moments.load(files["moments"]).equals(two.moments)
    body = files["moments"].read_text(encoding="utf-8").partition("\n")[2]
    assert hashlib.sha256(body.encode()).hexdigest() == moments_digest(two.moments)


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_results_are_strict_json(files, two):
    found = json.loads(files["results"].read_text(encoding="utf-8"), parse_constant=refuse)
    assert mm.Design(**found["design"]) == two.moments.design
    assert mm.SampleFlow.from_dict(found["flow"]) == two.moments.flow
    assert len(found["fits"]) == len(two.fits)
    for kept, fit in zip(found["fits"], two.fits, strict=True):
        assert (kept["status"], kept["rule"]) == (fit.status, fit.rule)
        assert len(kept["terms"]) == len(fit.terms)
        assert {"set", "shape", "pieces"} <= set(kept["terms"][0])
        if fit.status:
            assert [t["estimate"] for t in kept["terms"]] == [None] * len(fit.terms)
            continue
        assert [t["estimate"] for t in kept["terms"]] == pytest.approx(fit.coefficients, rel=1e-12)
        assert np.allclose(kept["covariance"], fit.covariance, rtol=1e-12, atol=0)
    assert found["rank"]["cragg_donald"] == pytest.approx(two.rank.cragg_donald, rel=1e-12)
    assert found["versions"]["msmmiv"] == mm.__version__
    assert {"python", "numpy", "scipy", "pandas"} <= set(found["versions"])
    assert found["moments_sha256"] == moments_digest(two.moments)


def test_infinities_and_reasons_become_json(one, tmp_path, undrawn):
    cov = np.full((1, 1), np.inf)
    odd = dataclasses.replace(one.headline, covariance=cov)
    files = write_outputs(dataclasses.replace(one, headline=odd, fits=(odd,)), tmp_path)
    found = json.loads(files["results"].read_text(encoding="utf-8"), parse_constant=refuse)
    assert found["fits"][0]["covariance"] == [[None]]
    assert found["rank"]["cluster_level"] == {"not_applicable": "no cluster is declared"}


def test_the_same_input_gives_the_same_files(tmp_path):
    rows = trial(range(6))
    rows.loc[[3, 77], "y"] = np.nan
    for name in ("a", "b"):
        made = write_outputs(mm.Study(rows, design("m1")).analysis(), tmp_path / name)
    first = {
        p.relative_to(tmp_path / "a"): p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()
    }
    second = {
        p.relative_to(tmp_path / "b"): p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file()
    }
    assert first == second
    # Every figure twice, as PNG and as SVG.
    assert len(first) == len(made) + sum(name.startswith("figures/") for name in made)


def test_summary_has_no_line_over_100_columns(one, two, hostile, three_arms):
    for analysis in (one, two, hostile, three_arms.analysis()):
        text = summary_text(analysis)
        assert max(map(len, text.splitlines())) <= 100
        assert "\x1b" not in text
        for section in (
            "ROLES",
            "SAMPLE",
            "ANSWER",
            "ESTIMATES",
            "FIRST STAGES",
            "RANK",
            "WHAT IS ESTIMATED",
        ):
            assert f"\n{section}\n" in text


def test_summary_says_what_was_skipped(tmp_path):
    analysis = mm.Study(trial(["a", "b"], n=40), design("m1")).analysis()
    skipped = [reason.partition(":")[0] for reason in analysis.skipped]
    assert skipped == ["ujive site", "bc_linear site", "ujive site + direct effect"]
    assert {f.method for f in analysis.fits} == {"2sls", "liml", "ols"}
    assert "Not computed: ujive site: 2 sites less 1 effect between them leave 1" in summary_text(analysis)
    assert "2 sites" in write_outputs(analysis, tmp_path)["report"].read_text(encoding="utf-8")


@pytest.mark.parametrize("where", ["taken", "taken/below"])
def test_a_file_in_the_way_is_named(one, tmp_path: Path, where):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is a file"):
        write_outputs(one, tmp_path / where)
    assert (tmp_path / "taken").read_text(encoding="utf-8") == "mine"


def test_an_audit_leaves_the_share_of_each_arm_by_site(tmp_path, undrawn):
    rows = trial(range(7), arms=("none", "letter", "visit"), n=8)
    rows = rows[~((rows["s"] == 3) & (rows["t"] == "visit"))]
    audit = mm.Study(rows, design("m1", control="none")).audit(draws=199, planned_shares=0.6)
    files = write_audit(audit, tmp_path)
    assert files["arm_shares"] == tmp_path / "arm_shares.csv"
    table = pd.read_csv(files["arm_shares"]).set_index(["site", "arm"])
    counts = rows.groupby(["s", "t"]).size().unstack(fill_value=0)
    for (site, arm), row in table.iterrows():
        n, size = counts.loc[site, arm], counts.loc[site].sum()
        assert (row["units"], row["share"]) == (n, pytest.approx(n / size))
        assert row["std_error"] == pytest.approx(np.sqrt(n / size * (1 - n / size) / size))
    assert len(table) == 21
    assert table["planned"].xs("none", level="arm").to_numpy() == pytest.approx(0.4)


def test_an_audit_leaves_balance_and_attrition_over_all_sites_and_by_site(tmp_path, undrawn):
    trial_ = mm.simulate("vi", variant="attrition", sites=12, people=60, seed=2)
    audit = mm.Study(trial_.frame, trial_.design).audit(draws=199)
    files = write_audit(audit, tmp_path)
    for name in ("balance", "attrition"):
        whole, by_site = pd.read_csv(files[name]), pd.read_csv(files[f"{name}_by_site"])
        pd.testing.assert_frame_equal(whole, audit.results[name].to_frame(), check_dtype=False, rtol=1e-9)
        assert set(by_site["site"]) <= set(range(12))
    lost = trial_.frame["y"].isna().groupby(trial_.frame["t"]).sum()
    whole = pd.read_csv(files["attrition"]).query("column == 'y'").set_index("arm")["missing"]
    assert whole.to_dict() == lost.to_dict()


def test_without_people_or_arms_there_are_no_shares_to_write(tmp_path, undrawn):
    dose = mm.simulate(dose=True, arms=3, sites=14, people=30, seed=1)
    for source in (mm.simulate(sites=14, people=30, seed=1).effects, dose.moments):
        files = write_audit(mm.audit_assumptions(source, draws=199), tmp_path)
        assert "arm_shares" not in files
    assert not (tmp_path / "arm_shares.csv").exists()

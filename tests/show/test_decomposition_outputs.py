"""Files of a decomposition: they exist, they parse, and they hold its numbers."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import OutputError
from msmmiv.show.decomposition_tables import decomposition_text
from msmmiv.show.outputs import write_decomposition
from tests.show.helpers import design, trial
from tests.show.test_decomposition_plots import effects, table, two_mediators


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def found():
    """Persons, so that all tables have something."""
    return mm.decompose(mm.Study(trial(range(12)), design("m1")).moments, draws=99)


@pytest.fixture(scope="module")
def files(found, tmp_path_factory):
    return write_decomposition(found, tmp_path_factory.mktemp("out") / "deep" / "folder")


def test_everything_is_there(files):
    assert sorted(files) == [
        "compare", "decomposition", "effects", "figures/confidence_curve", "figures/decomposition",
        "figures/indirect_effects", "figures/simex_extrapolation", "json", "page", "sites", "tidy",
    ]  # fmt: skip
    assert all(path.stat().st_size > 0 for path in files.values())
    assert all(p.with_suffix(".svg").exists() for n, p in files.items() if n.startswith("figures/"))
    assert files["page"].name == "decomposition.html"


def test_tables_are_the_decompositions(files, found):
    tidy, expected = pd.read_csv(files["tidy"]), found.tidy()
    pd.testing.assert_frame_equal(tidy[list(expected)], expected, rtol=1e-12)
    assert tidy["set"].tolist() == [str(found.confidence_set(t)) for t in found.rows.terms]
    average = pd.read_csv(files["effects"])
    assert average["estimate"].to_numpy() == pytest.approx(found.effects["estimate"].to_numpy())
    assert average["set"].tolist() == found.effects["set"].tolist()
    sites = pd.read_csv(files["sites"])
    pd.testing.assert_frame_equal(sites, found.site_effects, rtol=1e-12, check_dtype=False)
    compare = pd.read_csv(files["compare"])
    assert set(compare["method"]) == set(found.compare()["method"])


def test_json_is_strict_and_has_the_numbers(files, found):
    kept = json.loads(files["json"].read_text(encoding="utf-8"), parse_constant=refuse)
    assert [t["estimate"] for t in kept["terms"]] == pytest.approx(found.params.to_list())
    assert kept["sets"]["m1"]["intervals"] == [list(v) for v in found.slope_sets["m1"].intervals]
    assert [s["row"] for s in kept["sites"]] == list(range(12))
    assert kept["direct_spread"]["q"] == pytest.approx(found.direct_spread.q.stat)
    assert (kept["seed"], kept["draws"], kept["n_rows"]) == (0, 99, 12)


def test_text_fits_the_terminal(found):
    text = decomposition_text(found)
    assert max(map(len, text.splitlines())) <= 100
    assert " ".join(text.split()) == " ".join(str(found).split())


def test_the_page_is_whole(files, found):
    page = files["page"].read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert page.count("<svg ") == 4
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert re.findall(r"\{[{%]", page) == []
    for target in re.findall(r'href="#([\w-]+)"', page):
        assert f'id="{target}"' in page
    for words in (
        "mbtsls",
        "empirical-Bayes score",
        "direct effects do not go with compliance",
        "Seed 0, 99 draws",
    ):
        assert words in page


def test_unknown_covariance_and_no_estimate(tmp_path):
    with pytest.warns(mm.errors.UnknownCovarianceWarning):
        bare = mm.SiteEffects.from_table(
            table(10),
            site="site",
            itt="tau_hat",
            itt_se="se_tau",
            compliance="gamma_hat",
            compliance_se="se_gamma",
        )
    done = mm.decompose(bare, "bces", draws=19)
    assert done.status
    files = write_decomposition(done, tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(files["sensitivity"]), done.sensitivity, rtol=1e-12)
    page = files["page"].read_text(encoding="utf-8")
    assert "There is no point estimate: denominator not positive" in page
    assert "What an unknown covariance" in page
    kept = json.loads(files["json"].read_text(encoding="utf-8"), parse_constant=refuse)
    assert kept["terms"][0]["estimate"] is None
    assert len(kept["sensitivity"]) == 5


def test_several_mediators_and_the_same_bytes(tmp_path):
    done = mm.decompose(two_mediators(), draws=19)
    for name in ("a", "b"):
        files = write_decomposition(done, tmp_path / name)
    assert {"figures/decomposition_1", "figures/decomposition_2", "figures/confidence_curve_2"} <= set(files)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is a file"):
        write_decomposition(mm.decompose(effects(table(5)), draws=19), tmp_path / "taken")

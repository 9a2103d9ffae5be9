"""`msmmiv decompose`: published tables, persons and moments, and how each refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import main
from msmmiv.show.decomposition_tables import decomposition_text
from tests.show.helpers import design, trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]
FEW = ["--draws", "19"]
NAMED = {"site": "site", "itt": "itt", "itt_se": "itt_se", "compliance": "compliance", "compliance_se": "compliance_se",
         "cov": "cov"}  # fmt: skip


def run(*words):
    return CliRunner().invoke(main, ["decompose", *map(str, words)], catch_exceptions=False)


def published(k=8, **changed):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"site": [f"{i:02d}" for i in range(k)], "compliance": np.linspace(0.2, 3.0, k)})
    frame = frame.assign(
        compliance_se=0.1, itt=4.0 + 2.0 * frame["compliance"] + rng.normal(0.0, 0.2, k), itt_se=0.3, cov=0.01
    )
    return frame.assign(**changed)


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "published.csv"
    published().to_csv(path, index=False)
    return path


@pytest.fixture
def people(tmp_path):
    path = tmp_path / "trial.csv"
    trial(range(9)).to_csv(path, index=False)
    return path


# -------------------------------------------------------------------------------------------- tables


def test_a_table_with_the_usual_names_needs_no_options(csv, tmp_path):
    done = run(csv, "--draws", 99, "--seed", 3, "--level", 0.9, "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    effects = mm.SiteEffects.from_table(published(), **NAMED)
    found = mm.decompose(effects, draws=99, seed=3, level=0.9)
    assert done.stdout.startswith(decomposition_text(found))
    assert done.stdout.endswith(f"Tables and figures: {tmp_path / 'out'}\n")
    kept = json.loads((tmp_path / "out" / "decomposition.json").read_text(encoding="utf-8"))
    assert kept["terms"][0]["estimate"] == pytest.approx(found.params["compliance"])
    assert (kept["level"], kept["draws"], kept["seed"]) == (0.9, 99, 3)
    # Labels stay as they are spelt.
    assert kept["sites"][0]["row"] == "00"


def test_without_out_nothing_is_written(csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(csv, *FEW).exit_code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["published.csv"]


def test_columns_of_any_name(csv, tmp_path):
    names = {
        "site": "school",
        "itt": "tau",
        "itt_se": "st",
        "compliance": "gamma",
        "compliance_se": "sg",
        "cov": "c",
    }
    path = tmp_path / "other.csv"
    published().rename(columns=names).to_csv(path, index=False)
    options = [w for k, v in names.items() for w in (f"--{k.replace('_', '-')}", v)]
    done = run(path, *options, *FEW)
    assert done.exit_code == 0, done.stderr
    assert "Effect on tau through gamma: 8 rows" in done.stdout


@pytest.mark.parametrize("by_name", [True, False])
def test_several_mediators(tmp_path, by_name):
    rng = np.random.default_rng(2)
    frame = published(12).drop(columns=["compliance", "compliance_se", "cov"])
    for name in ("hours", "dose"):
        frame[f"compliance_{name}"] = rng.normal(size=12)
        frame[f"compliance_{name}_se"], frame[f"cov_{name}"] = 0.1, 0.0
    path = tmp_path / "two.csv"
    frame.to_csv(path, index=False)
    more = [] if by_name else ["--compliance", "compliance_hours", "--compliance", "compliance_dose"]
    done = run(path, *more, *FEW)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "through compliance_hours and compliance_dose: 12 rows" in done.stdout


def test_an_unknown_covariance_is_said(tmp_path):
    path = tmp_path / "bare.csv"
    published().drop(columns="cov").to_csv(path, index=False)
    done = run(path, *FEW)
    assert done.exit_code == 0
    assert done.stderr.startswith("Warning: Cov(itt, compliance) was not given")
    assert "correlated sampling errors" in done.stdout


def test_method_and_direct_effect(csv):
    done = run(csv, "--method", "bces", "--no-direct-effect", *FEW)
    assert done.exit_code == 0
    effects = mm.SiteEffects.from_table(published(), **NAMED)
    assert done.stdout == decomposition_text(mm.decompose(effects, "bces", direct_effect=False, draws=19))


@pytest.mark.parametrize("where", ["column", "file"])
def test_shares(csv, tmp_path, where):
    shares = np.arange(1.0, 9.0) / 36.0
    frame = published(w=shares)
    frame.to_csv(csv, index=False)
    path = tmp_path / "shares.csv"
    frame[::-1].rename(columns={"w": "share"})[["site", "share"]].to_csv(path, index=False)
    done = run(csv, "--shares", "w" if where == "column" else path, *FEW)
    assert done.exit_code == 0, done.stderr
    effects = mm.SiteEffects.from_table(published(), **NAMED)
    assert done.stdout == decomposition_text(mm.decompose(effects, shares=shares, draws=19))


WRONG = {
    "column": (lambda t: t.drop(columns="itt_se"), [], "Column 'itt_se' (its standard error, --itt-se) is not in"),
    "site column": (lambda t: t.rename(columns={"site": "Site"}), [], "Did you mean 'Site'?"),
    "option": (lambda t: t, ["--compliance", "complianse"], "Did you mean 'compliance'"),
    "cov option": (lambda t: t, ["--cov", "covariance"], "Column 'covariance'"),
    "text": (lambda t: t.assign(itt=["much", *t["itt"][1:]]), [], "Column 'itt' (published estimate) holds text"),
    "zero": (lambda t: t.assign(itt_se=[0.0, *t["itt_se"][1:]]), [], "'itt_se' must be positive; they are not in 00."),
    "negative": (lambda t: t.assign(compliance_se=-0.1), [], "'compliance_se' must be positive"),
    "correlation": (lambda t: t.assign(cov=0.5), [], "larger than the standard errors allow"),
    "missing": (lambda t: t.assign(itt=[np.nan, *t["itt"][1:]]), [], "'itt' has missing or infinite values"),
    "two": (lambda t: t.head(2), [], "2 rows of the between-site regression"),
    "none": (lambda t: t.head(0), [], "has no rows"),
    "equal": (lambda t: t.assign(compliance=1.0), [], "'compliance' is the same in all rows"),
    "twice": (lambda t: t.assign(site="a"), [], "Each site needs one row; 'a'"),
    "unnamed": (lambda t: t.assign(site=[None, *t["site"][1:]]), [], "Column 'site' (site) has missing values"),
    "sum": (lambda t: t.assign(w=0.5), ["--shares", "w"], "shares sum to 4, not to 1"),
    "share text": (lambda t: t.assign(w="a"), ["--shares", "w"], "Column 'w' (shares) holds text"),
    "no shares": (lambda t: t, ["--shares", "w"], "Column 'w' (shares; no file either) is not in the table"),
    "level": (lambda t: t, ["--level", "1.5"], "level=1.5 must lie between 0 and 1"),
    "draws": (lambda t: t, ["--draws", "5"], "draws=5 must be a whole number of 19 or more"),
    "method": (lambda t: t, ["--method", "reml", "--no-direct-effect"], "needs a free direct effect"),
    "two roles": (lambda t: t, ["--compliance", "itt"], "two roles"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_tables_are_one_sentence(tmp_path, case):
    change, options, said = WRONG[case]
    path = tmp_path / "wrong.csv"
    change(published()).to_csv(path, index=False)
    done = run(path, *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "cannot be read as a CSV table"),
        (b"\xff\xfe\x00a,b\n1,2", "cannot be read as a CSV table"),
        (b"site,itt\na,1,2,3\n", "cannot be read as a CSV table"),
        (b"site,itt,itt\na,1,2\n", "'itt' is the name of more than one column"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, said):
    path = tmp_path / "odd.csv"
    path.write_bytes(text)
    done = run(path)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_files_that_are_not_there(tmp_path):
    done = run(tmp_path / "none.csv")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "was not found" in done.stderr
    assert "is read from CSV" in run(__file__.replace(".py", ".xlsx")).stderr or not done.stdout


@pytest.mark.parametrize("wrong", ["twice", "lacks", "column"])
def test_wrong_files_of_shares(csv, tmp_path, wrong):
    frame = published().assign(share=1 / 8)[["site", "share"]]
    frame = {"twice": pd.concat([frame, frame.head(1)]), "lacks": frame.head(7), "column": frame[["site"]]}[
        wrong
    ]
    path = tmp_path / "shares.csv"
    frame.to_csv(path, index=False)
    done = run(csv, "--shares", path)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert {"twice": "occur more than once", "lacks": "it lacks 07", "column": "'share'"}[
        wrong
    ] in done.stderr


# ------------------------------------------------------------------------------------ persons, moments


def test_persons(people, tmp_path):
    done = run(people, *ROLES, *FEW)
    assert (done.exit_code, done.stderr) == (0, "")
    study = mm.Study(people, design("m1"))
    assert done.stdout == decomposition_text(study.decompose(draws=19))
    assert "Individual-level estimators" in done.stdout
    shares = tmp_path / "shares.csv"
    pd.DataFrame({"s": range(9), "share": 1 / 9}).to_csv(shares, index=False)
    assert run(people, *ROLES, *FEW, "--shares", shares).stdout == done.stdout


def test_moments_and_some_of_their_mediators(people, tmp_path):
    moments = mm.Moments.from_data(people, design("m1", "m2"))
    path = moments.save(tmp_path / "moments.csv")
    done = run(path, "-m", "m2", *FEW)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == decomposition_text(mm.decompose(moments, mediators=["m2"], draws=19))
    refused = run(path, "-m", "m3")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "must name some of 'm1' and 'm2'" in refused.stderr
    assert "leave out the options for outcome" in run(path, "-y", "y").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*ROLES, "--itt", "y"], "Leave out --itt, columns of a table of estimates"),
        (["-m", "m1"], "-y (outcome), -t (treatment), -s (site) missing"),
        (["--missing", "drop"], "--missing is for persons"),
        (["--method", "best"], "is not one of"),
    ],
)
def test_options_that_do_not_go_together(people, words, said):
    done = run(people, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_a_file_of_persons_without_roles_names_the_columns(people):
    done = run(people)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: Column 'site' (site, --site) is not in the table.")


def test_a_file_in_the_way_stops_before_the_work(csv, tmp_path):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    done = run(csv, "--out", tmp_path / "taken")
    assert done.exit_code == 2
    assert "is a file" in done.stderr

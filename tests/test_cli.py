"""The command line: what it prints, where it prints it, and how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import main
from msmmiv.show.words import number
from tests.show.helpers import design, trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]


def run(*words):
    return CliRunner().invoke(main, [str(w) for w in words], catch_exceptions=False)


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "trial.csv"
    trial(range(8)).to_csv(path, index=False)
    return path


def test_analyze_prints_the_page_and_writes_the_files(csv, tmp_path):
    done = run("analyze", csv, *ROLES, "--cluster", "class", "--out", tmp_path / "out", "--title", "My trial")
    assert done.exit_code == 0
    assert done.stderr == ""
    fit = mm.Study(csv, design("m1", cluster="class")).fit()
    table = pd.read_csv(tmp_path / "out" / "estimates.csv")
    assert table["estimate"][0] == pytest.approx(fit.params["m1"], rel=1e-12)
    assert table["std_error"][0] == pytest.approx(fit.std_errors["m1"], rel=1e-12)
    for text in ("My trial", "treatment    t (arms; control: 0)", "384  used", number(fit.params["m1"]),
                 "First-stage F, m1", "assumption (viii)", "WHAT IS ESTIMATED",
                 f"Report: {tmp_path / 'out' / 'report.html'}"):  # fmt: skip
        assert text in done.stdout
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
    assert "\x1b" not in done.stdout
    assert "My trial" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_without_out_nothing_is_written(csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("analyze", csv, *ROLES)
    assert done.exit_code == 0
    assert "Report:" not in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["trial.csv"]


def test_quiet_prints_nothing_and_still_writes(csv, tmp_path, undrawn):
    done = run("analyze", csv, *ROLES, "--out", tmp_path / "out", "--quiet")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out" / "results.json").exists()


def test_options_set_the_headline(csv, tmp_path, undrawn):
    run(
        "analyze",
        csv,
        *ROLES,
        "-m",
        "m2",
        "-x",
        "x",
        "--cov",
        "site",
        "--direct-effect",
        "--out",
        tmp_path / "o",
    )
    found = json.loads((tmp_path / "o" / "results.json").read_text(encoding="utf-8"))
    assert found["fits"][0]["glance"]["cov_type"] == "site"
    assert found["fits"][0]["glance"]["direct_effect"] is True
    assert [t["term"] for t in found["fits"][0]["terms"]] == ["m1", "m2", "direct_effect", "x"]
    assert [f["method"] for f in found["fits"]][:2] == ["2sls", "2sls"]
    assert [f["glance"]["cov_type"] for f in found["fits"]][:2] == ["site", "HC1"]


def test_without_options_the_rule_chooses(csv, tmp_path, undrawn):
    done = run("analyze", csv, *ROLES, "--out", tmp_path / "o")
    study = mm.Study(csv, design("m1"))
    fit = study.fit()
    found = json.loads((tmp_path / "o" / "results.json").read_text(encoding="utf-8"))["fits"][0]
    assert (found["method"], found["rule"], found["status"]) == (fit.method, fit.rule, fit.status)
    assert found["terms"][0]["set"] == str(fit.confidence_set("m1"))
    assert "A fixed rule chose the method" in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", ["ols", "2sls", "liml", "mbtsls", "ujive", "bc_linear", "bc_symmetric"])
def test_every_estimator_can_be_the_headline(csv, tmp_path, undrawn, name):
    done = run("analyze", csv, *ROLES, "--estimator", name, "--out", tmp_path / "o", "--quiet")
    assert (done.exit_code, done.stdout) == (0, "")
    table = pd.read_csv(tmp_path / "o" / "estimates.csv")
    fit = mm.Study(csv, design("m1")).fit(name)
    assert table["method"][0] == name
    assert table["estimate"][0] == pytest.approx(fit.params["m1"], rel=1e-12)
    assert table["set"][0] == str(fit.confidence_set("m1"))


def test_site_scores_on_request(csv, tmp_path, undrawn):
    words = [
        "--estimator",
        "ujive",
        "--cov",
        "site",
        "--interval",
        "score",
        "--out",
        tmp_path / "o",
        "--quiet",
    ]
    assert run("analyze", csv, *ROLES, *words).exit_code == 0
    table = pd.read_csv(tmp_path / "o" / "estimates.csv")
    wanted = mm.Study(csv, design("m1")).fit("ujive", cov_type="site", interval="score").confidence_set("m1")
    assert (table["set"][0], table["shape"][0]) == (str(wanted), wanted.shape)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--estimator", "bc_linear", "--cov", "HC3"], "'bc_linear' has no 'HC3' covariance"),
        (["--estimator", "2sls", "--cov", "HC1", "--interval", "score"], "it goes with --cov site"),
        (["--interval", "score"], "Name the estimator too"),
        (["--estimator", "bc_linear", "--direct-effect"], "defined under exclusion"),
    ],
)
def test_wrong_combinations_are_one_line(csv, words, said):
    done = run("analyze", csv, *ROLES, *words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arms", "control"), [((1, 2, 3), "2"), (("a", "b"), "b"), ((0.5, 1.5), "0.5"), (("no", "yes"), "no")]
)
def test_control_may_be_a_number_or_a_word(tmp_path, arms, control):
    path = tmp_path / "t.csv"
    trial(range(6), arms=arms).to_csv(path, index=False)
    done = run("analyze", path, *ROLES, "--control", control)
    assert done.exit_code == 0, done.stderr
    kept = "False" if control == "no" else control  # DuckDB reads no and yes as false and true
    assert f"control: {kept}" in done.stdout


def test_a_control_that_is_no_arm(tmp_path):
    path = tmp_path / "t.csv"
    trial(range(6), arms=(1, 2)).to_csv(path, index=False)
    done = run("analyze", path, *ROLES, "--control", "7")
    assert done.exit_code == 2
    assert done.stderr == "Error: --control 7 is not an arm of 't'; the arms are 1 and 2.\n"


def test_unknown_column_names_its_neighbour(csv):
    done = run("analyze", csv, "-y", "y", "-t", "t", "-m", "M1", "-s", "s")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: Column 'M1' (mediator) is not in the data. Did you mean 'm1'?")
    assert done.stdout == ""
    assert "Traceback" not in done.output


def test_missing_file(tmp_path):
    done = run("analyze", tmp_path / "none.csv", *ROLES)
    assert done.exit_code == 2
    assert "none.csv" in done.stderr
    assert "was not found" in done.stderr


def test_a_glob_that_matches_nothing(tmp_path):
    done = run("analyze", tmp_path / "none*.csv", *ROLES)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")


def test_a_glob_of_rows(csv, tmp_path):
    rows = pd.read_csv(csv)
    (tmp_path / "parts").mkdir()
    for site, part in rows.groupby("s"):
        part.to_csv(tmp_path / "parts" / f"p{site}.csv", index=False)
    assert run("analyze", tmp_path / "parts" / "*.csv", *ROLES).stdout == run("analyze", csv, *ROLES).stdout


def test_what_is_left_out_is_asked_for(csv):
    done = run("analyze", csv, "-y", "y", "-m", "m1")
    assert done.exit_code == 2
    assert "-t (treatment), -s (site) missing" in done.stderr


def test_a_site_without_controls_is_a_warning(csv):
    rows = pd.read_csv(csv)
    rows[(rows["s"] != 3) | (rows["t"] == 1)].to_csv(csv, index=False)
    done = run("analyze", csv, *ROLES)
    assert done.exit_code == 0
    assert done.stderr.count("Warning: ") == done.stderr.count("\n") == 1
    assert "1 of 8 sites" in done.stderr
    assert re.search(r"-24  .*\(1 sites?: 3\)", done.stdout)
    assert "336  used" in done.stdout


def test_warnings_are_said_once(csv):
    rows = pd.read_csv(csv)
    rows["copy"] = 2.0 * rows["x"]
    rows.to_csv(csv, index=False)
    done = run("analyze", csv, *ROLES, "-x", "x", "-x", "copy")
    assert done.exit_code == 0
    assert done.stderr.count("Warning:") == 1
    assert "'copy'" in done.stderr


def test_missing_values_are_counted(csv):
    rows = pd.read_csv(csv)
    rows.loc[[0, 5, 9], "y"] = np.nan
    rows.loc[[1], "m1"] = np.inf
    rows.to_csv(csv, index=False)
    done = run("analyze", csv, *ROLES)
    assert done.exit_code == 0
    assert "-4  missing a declared column (m1: 1, y: 3)" in done.stdout


def test_rows_without_a_site_stop_unless_dropped(csv):
    rows = pd.read_csv(csv)
    rows.loc[0, "s"] = np.nan
    rows.to_csv(csv, index=False)
    assert run("analyze", csv, *ROLES).exit_code == 2
    assert "or pass --missing drop to leave those rows out" in run("analyze", csv, *ROLES).stderr
    done = run("analyze", csv, *ROLES, "--missing", "drop")
    assert done.exit_code == 0
    assert "383  used" in done.stdout


def test_two_sites_say_what_cannot_be_had(csv):
    rows = pd.read_csv(csv)
    rows[rows["s"] < 2].to_csv(csv, index=False)
    done = run("analyze", csv, *ROLES)
    assert done.exit_code == 0
    assert "Not computed: ujive site: 2 sites" in done.stdout
    done = run("analyze", csv, *ROLES, "-m", "m2", "--direct-effect")
    assert done.exit_code == 2
    assert "assumption (viii.b)" in done.stderr


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_moments_need_no_roles_and_take_none(csv, tmp_path, ending):
    moments = mm.Moments.from_data(csv, design("m1"))
    whole = moments.save(tmp_path / f"whole{ending}")
    done = run("analyze", whole)
    assert done.exit_code == 0, done.stderr
    moments.drop(*moments.sites[4:]).save(tmp_path / f"part-1{ending}")
    moments.drop(*moments.sites[:4]).save(tmp_path / f"part-2{ending}")
    merged = run("analyze", tmp_path / f"part-*{ending}")
    assert merged.exit_code == 0, merged.stderr
    page, parts = (d.stdout.partition("ANSWER")[2].partition("NOTES")[0] for d in (done, merged))
    assert page == parts
    refused = run("analyze", whole, "-y", "y", "--missing", "drop")
    assert refused.exit_code == 2
    assert "leave out the options for outcome and missing" in refused.stderr


def test_moments_and_rows_do_not_mix(csv, tmp_path):
    mm.Moments.from_data(csv, design("m1")).save(tmp_path / "moments.csv")
    done = run("analyze", tmp_path / "*.csv")
    assert done.exit_code == 2
    assert "analyse them apart" in done.stderr


def test_a_file_in_the_way_stops_before_the_work(csv, tmp_path):
    (tmp_path / "taken").write_text("mine", encoding="utf-8")
    done = run("analyze", csv, *ROLES, "--out", tmp_path / "taken")
    assert done.exit_code == 2
    assert "is a file" in done.stderr


def test_rank_prints_the_page_and_writes_the_tables(csv, tmp_path):
    words = [*ROLES, "-m", "m2", "--direct-effect", "--draws", 99, "--seed", 7]
    done = run("rank", csv, *words, "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    report = mm.Study(csv, design("m1", "m2")).rank(direct_effect=True, draws=99, seed=7)
    assert " ".join(done.stdout.split()).startswith(" ".join(str(report).split()))
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 100
    assert done.stdout.endswith(f"\nTables and figures: {tmp_path / 'out'}\n")
    table = pd.read_csv(tmp_path / "out" / "rank_directions.csv")
    assert table["strength"].to_numpy() == pytest.approx(report.spectrum.strength, rel=1e-12)
    assert table["p_value"].to_numpy() == pytest.approx(report.spectrum.pvalues)
    found = json.loads((tmp_path / "out" / "rank.json").read_text(encoding="utf-8"))
    assert (found["direct_effect"], found["draws"], found["seed"]) == (True, 99, 7)
    assert (tmp_path / "out" / "figures" / "rank_spectrum.png").exists()


def test_rank_alone_writes_nothing(csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("rank", csv, *ROLES, "--draws", 19)
    assert done.exit_code == 0
    assert "Tables and figures" not in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["trial.csv"]


def test_rank_of_moments(csv, tmp_path):
    whole = mm.Moments.from_data(csv, design("m1")).save(tmp_path / "m.csv")
    assert run("rank", whole, "--draws", 19).stdout == run("rank", csv, *ROLES, "--draws", 19).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-y", "y", "-t", "t", "-m", "M1", "-s", "s"], "Error: Column 'M1' (mediator) is not in the data."),
        ([*ROLES, "--draws", "5"], "Error: draws=5 cannot show"),
        ([*ROLES, "--weights", "x"], "Error: "),
    ],
)
def test_rank_refuses_in_one_line(csv, words, said):
    done = run("rank", csv, *words)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(said)
    assert run("analyze", csv, *words).stderr == done.stderr or "--draws" in words


def test_rank_of_data_with_gaps(csv):
    rows = pd.read_csv(csv)
    rows.loc[[0, 5], "m1"] = [np.nan, np.inf]
    rows = rows[(rows["s"] != 3) | (rows["t"] == 1)]
    rows.to_csv(csv, index=False)
    done = run("rank", csv, *ROLES, "--draws", 19)
    assert done.exit_code == 0
    assert done.stderr.count("Warning: ") == done.stderr.count("\n") == 1
    assert "7 usable sites" in done.stdout


def test_rank_with_too_few_sites(csv):
    rows = pd.read_csv(csv)
    rows[rows["s"] < 2].to_csv(csv, index=False)
    done = run("rank", csv, *ROLES, "-m", "m2", "--direct-effect")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "assumption (viii.b)" in done.stderr


def test_help_lists_the_options():
    done = run("analyze", "--help")
    assert done.exit_code == 0
    for option in ("--outcome", "--treatment", "--mediator", "--site", "--covariate", "--cluster", "--block",
                   "--weights", "--weight-kind", "--control", "--treatment-kind", "--estimand", "--missing", "--cov",
                   "--estimator", "--interval", "--direct-effect", "--out", "--title", "--quiet"):  # fmt: skip
        assert option in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    for option in ("--outcome", "--missing", "--direct-effect", "--draws", "--seed", "--out"):
        assert option in run("rank", "--help").stdout
    assert "\n  msmmiv rank trial.csv" in run("rank", "--help").stdout
    assert {"analyze", "demo", "rank"} <= set(run("--help").stdout.split())


def test_version():
    assert run("--version").stdout == f"msmmiv, version {mm.__version__}\n"


def test_demo_tells_its_numbers(tmp_path):
    done = run("demo", "--out", tmp_path / "demo")
    assert done.exit_code == 0
    fit = mm.Study(mm.data.star()).fit()
    words = " ".join(done.stdout.split())
    assert f"goes with {-fit.params['class_size']:.3f} points of mathematics less" in words
    assert "there is no point estimate, and the data do not bound the effect of experience" in words
    assert f"Report: {tmp_path / 'demo' / 'report.html'}" in done.stdout
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000


def test_a_pipe_gets_plain_text(csv):
    """A real process with stdout and stderr that are no terminal."""
    code = "from msmmiv.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "analyze", str(csv), *ROLES], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr == ""

"""`msmmiv audit` and `msmmiv checklist`: what they print and leave behind, and how they refuse."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import main
from tests.show.helpers import trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]
FEW = ["--draws", "199"]
STATUSES = {"supported", "not contradicted", "contradicted", "untestable: argue it", "not assessed"}


def run(*words):
    return CliRunner().invoke(main, [*map(str, words)], catch_exceptions=False)


@pytest.fixture
def people(tmp_path):
    path = tmp_path / "trial.csv"
    trial(range(9)).to_csv(path, index=False)
    return path


def test_nine_findings_on_the_terminal_and_in_files(people, tmp_path):
    out = tmp_path / "out"
    done = run("audit", people, *ROLES, *FEW, "--argue", "ii=Nothing else came.", "--out", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("\n(") == 9
    assert 'Author: "Nothing else came."' in done.stdout
    kept = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert [f["assumption"] for f in kept["findings"]] == [
        "i",
        "ii",
        "iii",
        "iv",
        "v",
        "vi",
        "vii.a",
        "viii",
        "ix.a",
    ]
    frame = pd.read_csv(out / "findings.csv")
    assert set(frame["status"]) <= STATUSES
    assert list(frame["status"]) == [f["status"] for f in kept["findings"]]
    for name in (
        "audit.html",
        "audit.txt",
        "checklist.html",
        "evidence.csv",
        "arm_shares.csv",
        "dag.dot",
        "dag.mmd",
        "dag.dagitty",
    ):
        assert (out / name).stat().st_size > 0
    assert done.stdout.startswith((out / "audit.txt").read_text(encoding="utf-8"))


def test_the_same_as_in_python(people):
    said = run("audit", people, *ROLES, *FEW, "--seed", 4).stdout
    design = mm.Design(outcome="y", treatment="t", mediators=["m1"], site="s")
    assert said == mm.Study(people, design).audit(draws=199, seed=4).summary


def test_it_fails_on_request_only(people, tmp_path):
    edge = ["--edge", "t -> y"]
    assert run("audit", people, *ROLES, *FEW, *edge).exit_code == 0
    done = run("audit", people, *ROLES, *FEW, *edge, "--fail-on", "contradicted", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert (tmp_path / "out" / "audit.html").exists()
    assert "(ii) Exclusion: contradicted" in done.stdout
    fine = run("audit", people, *ROLES, *FEW, "--fail-on", "contradicted")
    assert ": contradicted\n" not in fine.stdout
    assert fine.exit_code == 0


def test_edges_are_taken_out_and_added(people):
    """The chain of two mediators: the treatment moves the second by way of the first alone."""
    roles = [*ROLES, "-m", "m2"]
    words = ["--edge", "m1 -> m2", "--without", "t -> m2", "--without", "U -> m1"]
    done = run("audit", people, *roles, *FEW, *words)
    assert done.exit_code == 0
    design = mm.Design(outcome="y", treatment="t", mediators=["m1", "m2"], site="s")
    dag = mm.CausalDAG.from_design(design, edges=["m1 -> m2"], without=["t -> m2", "U -> m1"])
    assert done.stdout == mm.Study(people, design).audit(dag, draws=199).summary
    assert "theta: effect of m1 on m2" in done.stdout
    told = run("audit", "--help").stdout
    assert "--without" in told
    assert "--without 'offer -> poverty'" in told


def test_published_tables_and_moments(tmp_path):
    table = pd.DataFrame({"site": list("abcdefgh"), "itt": [4.1, 5.2, 5.9, 6.4, 7.1, 8.3, 8.8, 10.2]})
    table = table.assign(itt_se=0.3, compliance=0.4 * table["itt"] - 1.3, compliance_se=0.1, cov=0.0)
    table.to_csv(tmp_path / "published.csv", index=False)
    done = run("audit", tmp_path / "published.csv", *FEW)
    assert done.exit_code == 0
    assert "(vi) Ignorable assignment within sites: not assessed" in done.stdout
    mm.data.star().save(tmp_path / "star.csv")
    done = run("audit", tmp_path / "star.csv", *FEW)
    assert done.exit_code == 0
    assert "79 sites" in done.stdout


def test_persons_without_roles_are_told_about_them(people):
    done = run("audit", people, *FEW)
    assert done.exit_code == 2
    assert "Column 'site' (site, --site) is not in the table" in done.stderr
    assert "For a file of persons give -y, -t, -m and -s." in done.stderr
    named = run("audit", people, *FEW, "--itt", "y")
    assert "For a file of persons" not in named.stderr


def test_site_covariates_from_a_file(people, tmp_path):
    pd.DataFrame({"s": range(9), "urban": [0, 1] * 4 + [1]}).to_csv(tmp_path / "sites.csv", index=False)
    done = run("audit", people, *ROLES, *FEW, "--site-covariates", tmp_path / "sites.csv")
    assert (done.exit_code, done.stderr) == (0, "")
    pd.DataFrame({"school": range(9), "urban": 1.0}).to_csv(tmp_path / "other.csv", index=False)
    done = run("audit", people, *ROLES, *FEW, "--site-covariates", tmp_path / "other.csv")
    assert done.exit_code == 2
    assert "'s'" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--argue", "exclusion"], "write NUMBER=TEXT"),
        (["--argue", "x=Yes."], "'x'"),
        (["--argue", "ii=Yes.", "--argue", "ii=No."], "two arguments for ii"),
        (["--edge", "t -> q"], "'q'"),
        (["--edge", "m1 -> t"], "m1"),
        (["--without", "t -> y"], "'t -> y' cannot be taken out: it is not in the parallel graph"),
        (["--without", "t -> m1"], "Mediator 'm1' is left out"),
        (["--without", "t"], "An edge is 'A -> B'"),
        (["--without", "t -> m1", "--edge", "t -> m1"], "both added and taken out"),
        (["--draws", "5"], "199 or more"),
        (["--planned-share", "1.5"], "1.5"),
        (["--itt", "y"], "--itt"),
    ],
)
def test_refusals_are_one_line_and_exit_with_two(people, words, message):
    done = run("audit", people, *ROLES, *FEW[: 0 if "--draws" in words else 2], *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_checklist(tmp_path):
    done = run("checklist", tmp_path / "nine.md", "--field", "education")
    assert done.exit_code == 0
    assert (tmp_path / "nine.md").read_text(encoding="utf-8").count("## (") == 9
    assert run("checklist", tmp_path / "no" / "nine.html").exit_code == 2
    done = run("checklist", tmp_path / "nine.txt")
    assert done.exit_code == 2
    assert "ends in .html, .htm or .md" in done.stderr
    assert not (tmp_path / "nine.txt").exists()

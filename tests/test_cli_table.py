"""`msmmiv table`: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import csv
import io

import pytest
from click.testing import CliRunner

import msmmiv as mm
import msmmiv.cli.table_command
from msmmiv.cli import main
from msmmiv.show.iv_table import study_table
from tests.show.helpers import design, trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]
pytestmark = pytest.mark.filterwarnings("ignore")


def run(*words):
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "trial.csv"
    trial(range(6)).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def expected(data):
    return study_table(mm.Study(data, design("m1")))


def test_prints_every_text_format(data, expected):
    made = {"markdown": expected.to_markdown(), "latex": expected.to_latex(label=""), "html": expected.to_html(),
            "csv": expected.to_csv()}  # fmt: skip
    for name, text in made.items():
        done = run("table", data, *ROLES, "--format", name)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == text
    assert run("table", data, *ROLES).stdout == made["markdown"]


def test_writes_by_ending(data, expected, tmp_path):
    done = run("table", data, *ROLES, "--out", tmp_path / "t.md")
    assert done.stdout == f"Table: {tmp_path / 't.md'}\n"
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == expected.to_markdown()
    pytest.importorskip("docx")
    assert run("table", data, *ROLES, "--out", tmp_path / "t.docx", "--format", "docx").exit_code == 0
    assert (tmp_path / "t.docx").read_bytes()[:2] == b"PK"


def test_options_reach_the_table(data):
    done = run("table", data, *ROLES, "-x", "x", "--direct-effect", "--cov", "HC1", "--covariates", "--stars",
               "--title", "Mine", "--format", "csv")  # fmt: skip
    rows = list(csv.reader(io.StringIO(done.stdout)))
    first = [row[0] for row in rows]
    assert {"m1", "direct_effect", "x"} <= set(first)
    study = mm.Study(data, design("m1", covariates=["x"]))
    table = study_table(study, cov_type="HC1", direct_effect=True, covariates=True, stars=(0.1, 0.05, 0.01))
    assert done.stdout == table.to_csv()
    assert "**Mine**" in run("table", data, *ROLES, "--title", "Mine").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--out", "t.xlsx"], "no format of a table"), (["--format", "docx"], "cannot be printed"),
     (["--out", "t.tex", "--format", "csv"], "contradict each other"), (["--format", "pdf"], "pdf"),
     (["--out", "no/such/t.tex"], "there is no folder"), (["--cov", "bekker", "-m", "nope"], "nope")],
)  # fmt: skip
def test_refuses_in_a_sentence(data, words, said):
    done = run("table", data, *ROLES, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_help_has_an_example():
    done = run("table", "--help")
    assert "msmmiv table trial.csv -y score" in done.stdout

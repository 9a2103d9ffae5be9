"""``msmmiv plot``: one figure of a file as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import plot_command
from msmmiv.cli.commands import main
from msmmiv.show.plots import figure_names
from tests.show.helpers import trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]
assert plot_command.plot.name == "plot"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plot") / "trial.csv"
    trial([f"site {i}" for i in range(7)]).to_csv(path, index=False)
    return str(path)


def run(*words: str):
    return CliRunner().invoke(main, ["plot", *words])


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_writes_one_file(rows: str, tmp_path: Path, ending: str, start: bytes):
    out = tmp_path / f"sites.{ending}"
    done = run("forest", rows, *ROLES, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [out]
    assert "in every site" in done.stdout
    assert done.stdout.rstrip().endswith(f"Figure: {out}")


def test_moments_carry_their_roles(tmp_path: Path):
    moments = mm.data.star().save(tmp_path / "moments.csv")
    out = tmp_path / "weights.png"
    done = run("weights", str(moments), "--out", str(out), "--width", "column", "--dpi", "50")
    assert done.exit_code == 0, done.output
    wide = int.from_bytes(out.read_bytes()[16:20], "big")
    assert wide == 170  # 3.4 inches


def test_list_names_every_figure():
    done = run("--list")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(figure_names())
    assert max(map(len, lines)) <= 140


def test_help_has_an_example():
    assert "msmmiv plot forest trial.csv -y score" in run("--help").output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["forrest", "FILE", *ROLES, "--out", "f.png"], "Did you mean 'forest'"),
        (["forest", "FILE", *ROLES, "--out", "f.docx"], "PNG, SVG or PDF"),
        (["forest", "FILE", *ROLES], "--out"),
        (["forest", "FILE", *ROLES, "--out", "f.png", "--estimator", "liml"], "--estimator has no meaning"),
        (["forest", "FILE", *ROLES, "--out", "f.png", "--direct-effect"], "--direct-effect has no meaning"),
        (["forest", "FILE", *ROLES, "--out", "f.png", "--panel", "m1"], "--panel has no meaning"),
        (["scatter", "FILE", *ROLES, "--out", "f.png", "--panel", "m7"], "must be one of 'm1'"),
        (["compliances", "FILE", *ROLES, "--out", "f.png"], "there is one"),
        (["forest", "FILE", *ROLES, "--out", "nowhere/f.png"], "no folder 'nowhere'"),
    ],
)
def test_refusals_are_one_line_and_exit_2(rows, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    done = run(*[rows if w == "FILE" else w for w in words])
    assert done.exit_code == 2, done.output
    assert says in done.output
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_options_reach_the_figure(rows: str, tmp_path: Path):
    done = run(
        "scatter", rows, *ROLES, "--out", str(tmp_path / "f.svg"), "--estimator", "liml", "--direct-effect"
    )
    assert done.exit_code == 0, done.output
    assert "LIML + direct effect" in done.stdout

"""Commands on folders, files of other programs, and with a limit on memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import msmmiv as mm
from msmmiv.cli import main
from msmmiv.moments import row_files as files
from tests.moments.helpers import design, people

ROLES = ("-y", "y", "-t", "t", "-m", "m", "-s", "s")


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """One trial as a file, and as a folder of Parquet files below one another."""
    df = people(3)
    df.to_csv(tmp_path / "trial.csv", index=False)
    (tmp_path / "parts" / "more").mkdir(parents=True)
    df[:100].to_parquet(tmp_path / "parts" / "a.parquet")
    df[100:].to_parquet(tmp_path / "parts" / "more" / "b.parquet")
    return tmp_path


def test_a_folder_is_a_file(trial: Path) -> None:
    sources = (trial / "trial.csv", trial / "parts", trial / "parts/**/*.parquet")
    made = [run("moments", "make", s, *ROLES, "--out", trial / f"{k}.csv") for k, s in enumerate(sources)]
    assert [m.exit_code for m in made] == [0, 0, 0], [m.stderr for m in made]
    one, two, three = (mm.Moments.load(trial / f"{k}.csv") for k in range(3))
    assert one.equals(two)
    assert one.equals(three)
    # A folder of moments is merged, as the files in it would be.
    (trial / "sent" / "more").mkdir(parents=True)
    df = people(3)
    for k, part in enumerate((df[df["s"] < 2], df[df["s"] >= 2])):
        mm.Moments.from_data(part, design()).save(trial / "sent" / ("more" if k else ".") / f"{k}.csv")
    assert run("moments", "merge", trial / "sent", "--out", trial / "all.csv").exit_code == 0
    assert mm.Moments.load(trial / "all.csv").n.sum() == 300
    assert run("moments", "merge", trial / "sent/**/*.csv", "--out", trial / "again.csv").exit_code == 0
    assert mm.Moments.load(trial / "again.csv").n.sum() == 300
    assert run("rank", trial / "sent", "--draws", "199").exit_code == 0


def test_a_folder_with_nothing_to_read_is_refused(trial: Path) -> None:
    (trial / "empty").mkdir()
    done = run("rank", trial / "empty", *ROLES)
    assert done.exit_code == 2
    assert "holds no file that ends in one of '.csv'" in done.stderr


def test_stata_files_go_where_csv_files_go(trial: Path) -> None:
    people(3).to_stata(trial / "trial.dta", write_index=False)
    assert run("moments", "make", trial / "trial.dta", *ROLES, "--out", trial / "s.csv").exit_code == 0
    assert mm.Moments.load(trial / "s.csv").equals(mm.Moments.from_data(people(3), design()))
    done = run("init", trial / "trial.dta", *ROLES, "--out", trial / "study.toml")
    assert done.exit_code == 0, done.stderr
    assert mm.read_study(trial / "study.toml").study().moments.n.sum() == 300


def test_the_limit_reaches_the_reader(trial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    connected = files._connected

    def spied(data: mm.DataFile) -> object:
        limits.append(data.memory_limit)
        return connected(data)

    monkeypatch.setattr(files, "_connected", spied)
    limit = ("--memory-limit", "300MB")
    assert run("rank", trial / "trial.csv", *ROLES, *limit, "--draws", "199").exit_code == 0
    assert run("moments", "make", trial / "parts", *ROLES, *limit, "--out", trial / "m.csv").exit_code == 0
    assert run("init", trial / "trial.csv", *ROLES, *limit, "--out", trial / "study.toml").exit_code == 0
    assert limits == ["300MB"] * len(limits)
    assert len(limits) >= 3
    assert 'memory_limit = "300MB"' in (trial / "study.toml").read_text()
    limits.clear()
    mm.read_study(trial / "study.toml").study()
    assert limits == ["300MB"]


def test_a_limit_that_is_none_or_has_no_place(trial: Path) -> None:
    def refused(words: str, *args: object) -> None:
        done = run(*args)
        assert done.exit_code == 2, done.output
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1

    csv = trial / "trial.csv"
    refused("--memory-limit lots must be a size such as '4GB'", "rank", csv, *ROLES, "--memory-limit", "lots")
    mm.Moments.from_data(people(3), design()).save(trial / "m.csv")
    for command in ("rank", "audit", "init"):
        refused("carry their own roles; leave out", command, trial / "m.csv", "--memory-limit", "1GB")
    table = "site,itt,itt_se,compliance,compliance_se\n" + "".join(f"{k},{k},1,{k + 1},1\n" for k in range(5))
    (trial / "table.csv").write_text(table)
    refused("--memory-limit is for persons; a table has one row per site", "audit", trial / "table.csv",
            "--site", "site", "--memory-limit", "1GB")  # fmt: skip
    head = '[study]\nformat = 1\n[data]\nfile = "trial.csv"\nmemory_limit = "lots"\n'
    roles = '[design]\noutcome = "y"\ntreatment = "t"\nmediators = "m"\nsite = "s"\n'
    (trial / "study.toml").write_text(head + roles)
    refused("[data] memory_limit", "run", trial / "study.toml")

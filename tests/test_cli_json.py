"""What commands leave: files that are whole, and one JSON document that says what the files say."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import main
from msmmiv.cli.files import check_file, whole_file, written
from msmmiv.errors import OutputError
from msmmiv.show.iv_table import study_table
from tests.show.helpers import design, trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]


def run(*words):
    return CliRunner().invoke(main, [str(w) for w in words], prog_name="msmmiv", catch_exceptions=False)


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "moments.csv"
    return mm.Moments.from_data(trial(range(8)), design("m1")).save(path)


# ----------------------------------------------------------------------------------------------- files


def test_files_come_whole_or_not_at_all(tmp_path):
    out = tmp_path / "a" / "out"

    def write(folder):
        (folder / "figures").mkdir()
        (folder / "figures" / "f.png").write_text("new", encoding="utf-8")
        (folder / "page").write_text("new", encoding="utf-8")
        return {"page": folder / "page", "figures/f": folder / "figures" / "f.png"}

    def fail(folder):
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(out, fail)
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)
    (out / "page").write_text("old", encoding="utf-8")
    (out / "mine").write_text("mine", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        written(out, fail)
    assert {p.name: p.read_text(encoding="utf-8") for p in out.iterdir()} == {"page": "old", "mine": "mine"}
    files = written(out, write)
    assert files == {"page": out / "page", "figures/f": out / "figures" / "f.png"}
    assert {p.name for p in out.iterdir()} == {"page", "mine", "figures"}
    assert (
        files["page"].read_text(encoding="utf-8") == files["figures/f"].read_text(encoding="utf-8") == "new"
    )


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    wanted = tmp_path / "x.csv"
    wanted.write_text("old", encoding="utf-8")

    def stopped():
        with whole_file(wanted) as path:
            assert path.suffix == ".csv"
            path.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [p.read_text(encoding="utf-8") for p in tmp_path.iterdir()] == ["old"]
    with whole_file(wanted) as path:
        path.write_text("new", encoding="utf-8")
    assert [p.read_text(encoding="utf-8") for p in tmp_path.iterdir()] == ["new"]
    with pytest.raises(OutputError, match="is a folder"), whole_file(tmp_path):
        pass
    with pytest.raises(OutputError, match="does not exist"), whole_file(tmp_path / "no" / "x.csv"):
        pass


def test_check_file_takes_a_file(tmp_path):
    (tmp_path / "x.csv").write_text("a", encoding="utf-8")
    assert check_file(str(tmp_path / "x.csv")) == tmp_path / "x.csv"


# ------------------------------------------------------------------------------------------------ JSON


def told(done):
    """The one document on stdout."""
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_json_is_what_the_files_hold(tmp_path, moments, undrawn):
    roles = ["--draws", 199]
    for words, name in (
        (["rank", moments, *roles], "rank.json"),
        (["audit", moments, *roles], "audit.json"),
        (["decompose", moments, *roles], "decomposition.json"),
        (["analyze", moments], "results.json"),
    ):
        done = run(*words, "--json", "--out", tmp_path / "out")
        assert done.exit_code == 0
        assert json.loads(done.stdout) == json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))
        assert str(tmp_path / "out") in done.stderr
        assert str(tmp_path / "out") not in done.stdout
    alone = told(run("rank", moments, *roles, "--json"))
    assert alone == json.loads((tmp_path / "out" / "rank.json").read_text(encoding="utf-8"))


def test_the_json_of_a_table_has_its_numbers(moments):
    found = told(run("table", moments, "--json"))
    table = study_table(mm.Study(mm.Moments.load(moments)))
    assert found["notes"] == list(table.notes)
    wanted = table.tidy()
    assert len(found["numbers"]) == len(wanted)
    for told_, row in zip(found["numbers"], wanted.to_dict("records"), strict=True):
        assert told_["value"] == pytest.approx(row["value"], nan_ok=True) or told_["value"] is None
        assert (told_["quantity"], told_["term"]) == (row["quantity"], row["term"])
    done = run("table", moments, "--json", "--format", "latex")
    assert done.exit_code == 2
    assert "--json" in done.stderr


def test_warnings_do_not_get_into_the_json(tmp_path):
    rows = trial(range(8))
    rows[(rows["s"] != 3) | (rows["t"] == 1)].to_csv(tmp_path / "t.csv", index=False)
    done = run("rank", tmp_path / "t.csv", *ROLES, "--draws", 19, "--json")
    assert json.loads(done.stdout)["n_sites"] == 7
    assert done.stderr.count("Warning: ") == done.stderr.count("\n") == 1


def test_a_refusal_prints_no_json(tmp_path):
    done = run("rank", tmp_path / "none.csv", "--json")
    assert (done.exit_code, done.stdout) == (2, "")


def test_fail_on_goes_with_json(moments):
    done = run("audit", moments, "--draws", 199, "--edge", "t -> y", "--json", "--fail-on", "contradicted")
    assert done.exit_code == 1
    assert [f["status"] for f in json.loads(done.stdout)["findings"]].count("contradicted") >= 1


def test_demo_as_json(tmp_path, undrawn):
    done = run("demo", "--out", tmp_path / "demo", "--json")
    assert done.exit_code == 0
    kept = json.loads((tmp_path / "demo" / "results.json").read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == kept
    assert "Report: " in done.stderr


def test_version_tells_the_libraries():
    found = told(run("version", "--json"))
    assert found["versions"]["msmmiv"] == mm.__version__
    assert {"python", "numpy", "scipy", "pandas", "duckdb", "narwhals", "linearmodels"} <= set(
        found["versions"]
    )
    assert found["moments_format"] == "msmmiv-moments/2"
    lines = run("version").stdout.splitlines()
    assert lines[0].split() == ["msmmiv", mm.__version__]
    assert any(line.startswith("numpy") and found["versions"]["numpy"] in line for line in lines)

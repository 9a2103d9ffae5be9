"""`msmmiv moments`: files that agencies can exchange, made, merged and looked at."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import main
from tests.show.helpers import HOSTILE, design, trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-m", "m2", "-s", "s", "-x", "x"]
DESIGN = design("m1", "m2", covariates=["x"])


def run(*words):
    return CliRunner().invoke(main, ["moments", *map(str, words)], prog_name="msmmiv", catch_exceptions=False)


def refused(done, said):
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr


@pytest.fixture(scope="module")
def rows():
    return trial(range(8))


@pytest.fixture
def csv(tmp_path, rows):
    path = tmp_path / "trial.csv"
    rows.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_make_is_from_data(csv, tmp_path, ending):
    out = tmp_path / f"moments.{ending}"
    done = run("make", csv, *ROLES, "--out", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"Moments: {out} (8 sites, 16 cells, 384 rows)\n"
    assert mm.Moments.load(out).equals(mm.Moments.from_data(csv, DESIGN))
    assert {p.name for p in tmp_path.iterdir()} == {"trial.csv", out.name}


def test_parts_merge_to_the_whole(rows, tmp_path):
    """Also where a site has one arm in each part: nothing is dropped before the merge."""
    half = rows["s"].lt(4) | (rows["s"].eq(4) & rows["t"].eq(1))
    for name, part in (("a", rows[half]), ("b", rows[~half])):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
        done = run("make", tmp_path / f"{name}.csv", *ROLES, "--out", tmp_path / f"m-{name}.csv")
        assert (done.exit_code, done.stderr) == (0, "")
    parts = tmp_path / "m-a.csv", tmp_path / "m-b.csv"
    refused(run("merge", *parts, "--out", tmp_path / "x.csv"), "1 site is in more than one file: 4 in ")
    refused(run("merge", *parts, "--out", tmp_path / "x.csv"), "say --shared-sites pool when you merge them")
    assert not (tmp_path / "x.csv").exists()
    merged = run("merge", *parts, "--shared-sites", "pool", "--out", tmp_path / "both.parquet")
    assert merged.stdout == f"Moments: {tmp_path / 'both.parquet'} (2 files; 8 sites, 16 cells, 384 rows)\n"
    whole = mm.Moments.from_data(rows, DESIGN)
    assert mm.Moments.load(tmp_path / "both.parquet").equals(whole, rtol=1e-10)
    by_glob = run("merge", tmp_path / "m-?.csv", "--shared-sites", "pool", "--out", tmp_path / "glob.csv")
    assert by_glob.exit_code == 0
    assert mm.Moments.load(tmp_path / "glob.csv").equals(whole, rtol=1e-10)


@pytest.mark.parametrize("labels", [(1, 2), ("a", "b"), (0.5, 1.5)])
def test_the_control_is_a_number_or_a_word(tmp_path, labels):
    trial(range(4), arms=labels).to_csv(tmp_path / "t.csv", index=False)
    done = run("make", tmp_path / "t.csv", *ROLES, "--control", labels[1], "--out", tmp_path / "m.csv")
    assert done.exit_code == 0, done.stderr
    assert mm.Moments.load(tmp_path / "m.csv").design.control == labels[1]


def test_small_cells_are_refused_or_left_out(csv, tmp_path, rows):
    small = rows[~((rows["s"] == 2) & (rows["t"] == 1)) | (rows.index % 6 == 0)]
    small.to_csv(csv, index=False)
    out = tmp_path / "m.csv"
    done = run("make", csv, *ROLES, "--out", out, "--min-cell", 10)
    refused(done, "1 cell with fewer than 10 rows: 2/1")
    assert not out.exists()
    done = run("make", csv, *ROLES, "--out", out, "--min-cell", 10, "--small-cells", "suppress")
    assert done.exit_code == 0
    kept = mm.Moments.load(out)
    assert kept.n.min() >= 10
    assert kept.n_cells == 15
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f"(8 sites, 15 cells, 360 rows of {len(small)})")
    effect = mm.suppression_effect(mm.Moments.from_data(small, DESIGN), min_cell=10)
    assert lines[1:] == ["", *str(effect).splitlines()]
    assert "1 site is lost with them (2), 7 of 8 are left" in lines[2]
    words = ["make", csv, *ROLES, "--out", out, "--min-cell", 10, "--small-cells", "suppress", "--json"]
    told = json.loads(run(*words).stdout)
    assert told["suppression"]["sites_lost"] == [2]
    assert [c["change_in_se"] for c in told["suppression"]["changes"]] == pytest.approx(
        effect.to_frame()["change_in_se"].tolist(), rel=1e-6
    )
    assert told["flow"]["suppressed"] == [
        {"source": "m", "min_cell": 10, "cells": 1, "rows": None, "sites": 1}
    ]
    assert "1 cell of fewer than 10 rows left out when 'm' was written" in run("inspect", out).stdout
    other = trial(range(20, 23)).assign(y=lambda d: 1.1 * d["y"])
    mm.Moments.from_data(other, DESIGN).save(tmp_path / "other.csv")
    merged = run("merge", out, tmp_path / "other.csv", "--out", tmp_path / "both.csv")
    assert (
        "left out when 'm' was written; the number of rows is not told; 1 site lost with them."
        in merged.stdout
    )
    refused(run("make", csv, *ROLES, "--out", out, "--small-cells", "suppress"), "--min-cell 10")
    refused(run("make", csv, *ROLES, "--out", out, "--min-cell", 0), "--min-cell")
    refused(
        run("merge", out, tmp_path / "other.csv", "--out", tmp_path / "o.csv", "--min-cell", 99),
        "fewer than 99",
    )
    words = ["merge", out, tmp_path / "other.csv", "--out", tmp_path / "o.csv", "--min-cell", 24, "--json"]
    assert "cluster" not in run(*words).stderr
    fewer = other[(other["s"] != 20) | (other["t"] == 0) | (other.index % 2 == 0)]
    mm.Moments.from_data(fewer, DESIGN).save(tmp_path / "fewer.csv")
    words[2] = tmp_path / "fewer.csv"
    refused(
        run(*words), "1 cell with fewer than 24 rows: 20/1 (12). Leave them out with --small-cells suppress"
    )
    told = json.loads(run(*words, "--small-cells", "suppress").stdout)
    assert (told["files"], told["suppression"]["sites_lost"]) == (2, [20])
    assert "floor: no cell has fewer than 24 rows" in run("inspect", tmp_path / "o.csv").stdout
    assert "floor: none was kept" in run("inspect", tmp_path / "other.csv").stdout


def test_copies_are_said_and_keep_no_floor(rows, tmp_path):
    rows.assign(k=2).to_csv(tmp_path / "t.csv", index=False)
    words = [
        "make",
        tmp_path / "t.csv",
        *ROLES,
        "--weights",
        "k",
        "--weight-kind",
        "frequency",
        "--out",
        tmp_path / "m.csv",
    ]
    assert "Rows are copies" in run(*words).stdout
    assert "Rows are copies" in run("inspect", tmp_path / "m.csv").stdout
    assert json.loads(run("inspect", tmp_path / "m.csv", "--json").stdout)["counts"] == "copies"
    refused(run(*words, "--min-cell", 10), "cells hold copies")


def test_inspect_says_what_is_inside(csv, tmp_path, rows):
    rows = rows.copy()
    rows.loc[[0, 5], "y"] = np.nan
    rows.to_csv(csv, index=False)
    run("make", csv, *ROLES, "--cluster", "class", "--out", tmp_path / "m.csv")
    moments = mm.Moments.load(tmp_path / "m.csv")
    done = run("inspect", tmp_path / "m.csv")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "msmmiv-moments/2, msmmiv " in lines[0]
    for said in ("outcome y", "mediators m1, m2", "cluster class",
                 "8 sites, arms 0 and 1, 64 clusters; 64 cells with 382 rows",
                 "smallest cell: 5 rows (site 0, arm 0, cluster 0-0-0); 64 cells below 10 rows",
                 f"clusters make cells small: without them the smallest would have {moments.by_arm().n.min():.0f} rows",
                 "          -2  missing a declared column (y: 2)", "         382  used"):  # fmt: skip
        assert said in lines, said
    found = json.loads(run("inspect", tmp_path / "m.csv", "--json").stdout)
    assert found["design"] == json.loads(json.dumps(moments.design.to_dict()))
    assert found["flow"] == json.loads(json.dumps(moments.flow.to_dict()))
    assert (found["rows"], found["cells"], found["sites"], found["clusters"]) == (382, 64, list(range(8)), 64)
    assert found["smallest_cell"] == {"site": 0, "arm": 0, "cluster": "0-0-0", "rows": 5.0}
    assert (found["cells_of_one_row"], found["cells_below_10_rows"]) == (0, 64)
    header = json.loads(
        (tmp_path / "m.csv").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    )
    assert (found["format"], found["sha256"]) == (header["format"], header["sha256"])


def test_a_cell_of_one_person_is_pointed_out(tmp_path):
    rows = trial(range(3))
    one = pd.concat([rows, rows.iloc[:1].assign(s=9, t=0), rows.iloc[:4].assign(s=9, t=1)])
    mm.Moments.from_data(one, design("m1")).save(tmp_path / "m.csv")
    text = run("inspect", tmp_path / "m.csv").stdout
    assert "Make the file again with --min-cell before it leaves the house." in text
    one.to_csv(tmp_path / "one.csv", index=False)
    roles = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]
    assert (
        "1 cell of one row: the means"
        in run("make", tmp_path / "one.csv", *roles, "--out", tmp_path / "o.csv").stdout
    )
    two = pd.concat([one, one[one["s"].eq(9) & one["t"].eq(0)].assign(y=0.5, m1=0.1)])
    mm.Moments.from_data(two, design("m1")).save(tmp_path / "two.csv")
    said = run("inspect", tmp_path / "two.csv").stdout
    assert (
        "1 cell of two rows: means and scatters of such a cell give the values of both persons back." in said
    )
    assert "smallest cell: 1 row (site 9, arm 0); 2 cells below 10 rows" in text
    assert "1 cell of one row: the means of such a cell are the values of a person" in text
    assert "of one row" not in run("inspect", mm.data.star().save(tmp_path / "star.csv")).stdout


def test_a_dose_and_blocks(tmp_path):
    rng = np.random.default_rng(0)
    rows = trial(range(5)).assign(dose=lambda d: rng.normal(size=len(d)), b=lambda d: d.index % 2)
    rows.to_csv(tmp_path / "t.csv", index=False)
    words = ["-y", "y", "-t", "dose", "-m", "m1", "-s", "s", "--treatment-kind", "continuous"]
    assert run("make", tmp_path / "t.csv", *words, "--out", tmp_path / "dose.csv").exit_code == 0
    text = run("inspect", tmp_path / "dose.csv").stdout
    assert "5 sites; 5 cells with 240 rows" in text
    assert json.loads(run("inspect", tmp_path / "dose.csv", "--json").stdout)["arms"] == []
    run("make", tmp_path / "t.csv", *ROLES, "--block", "b", "--out", tmp_path / "b.csv")
    assert "5 sites, arms 0 and 1, 10 blocks; 20 cells" in run("inspect", tmp_path / "b.csv").stdout


def test_hostile_labels_are_harmless(tmp_path):
    names = ("the <b>outcome</b>\x1b[31m", "dose $m$", "other", "ward\n\u202e", "arm t")
    rows = trial([h for h in HOSTILE if h], names=names)
    roles = mm.Design(outcome=names[0], mediators=[names[1]], site=names[3], treatment=names[4])
    mm.Moments.from_data(rows, roles).save(tmp_path / "m.parquet")
    done = run("inspect", tmp_path / "m.parquet")
    assert done.exit_code == 0
    assert not set("\x1b\u202e\x00") & set(done.stdout)
    assert len(done.stdout.splitlines()) < 25
    assert json.loads(run("inspect", tmp_path / "m.parquet", "--json").stdout)["design"]["site"] == names[3]


def test_what_cannot_be_done_is_one_line(csv, tmp_path):
    made = tmp_path / "m.csv"
    run("make", csv, *ROLES, "--out", made)
    before = csv.read_bytes(), made.read_bytes()
    refused(run("make", csv, *ROLES, "--out", csv), "is one of the files to read")
    refused(run("make", made, *ROLES, "--out", tmp_path / "x.csv"), "holds moments already")
    refused(
        run("make", csv, "-y", "y", "--out", tmp_path / "x.csv"),
        "-t (treatment), -m (mediator), -s (site) missing",
    )
    refused(run("make", csv, *ROLES), "--out")
    refused(run("make", csv, *ROLES, "--out", tmp_path / "x.txt"), "ends in .csv or .parquet")
    refused(run("make", csv, *ROLES, "--out", tmp_path / "no" / "x.csv"), "does not exist")
    refused(run("make", csv, *ROLES, "--out", tmp_path), "is a folder")
    refused(run("merge", made, "--out", tmp_path / "x.csv"), "two moments files or more")
    refused(run("merge", made, made, "--out", tmp_path / "x.csv"), "hold the same moments")
    refused(run("merge", made, csv, "--out", tmp_path / "x.csv"), "is not a moments file")
    refused(run("merge", made, tmp_path / "n.csv", "--out", tmp_path / "x.csv"), "Did you mean")
    refused(run("merge", made, tmp_path / "trial.csv", "--out", made), "is one of the files to read")
    refused(run("inspect", csv), "is not a moments file")
    refused(run("inspect", tmp_path / "M.csv"), f"Did you mean '{made}'?")
    other = mm.Moments.from_data(csv, design("m1")).save(tmp_path / "other.csv")
    refused(run("merge", made, other, "--out", tmp_path / "x.csv"), "they differ in mediators")
    assert (csv.read_bytes(), made.read_bytes()) == before
    made.write_text(made.read_text(encoding="utf-8").replace("0,0,24.0", "0,0,25.0", 1), encoding="utf-8")
    refused(run("inspect", made), "was altered")
    assert not (tmp_path / "x.csv").exists()


def test_units_are_said_kept_and_compared(rows, tmp_path):
    for name, part, unit in (
        ("a", rows[rows["s"] < 4], "hours a week"),
        ("b", rows[rows["s"] >= 4], "minutes"),
    ):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
        made = run(
            "make",
            tmp_path / f"{name}.csv",
            *ROLES,
            "--unit",
            f"m1={unit}",
            "--out",
            tmp_path / f"m-{name}.csv",
        )
        assert (made.exit_code, made.stderr) == (0, "")
    assert "units m1 in hours a week" in run("inspect", tmp_path / "m-a.csv").stdout
    assert json.loads(run("inspect", tmp_path / "m-b.csv", "--json").stdout)["units"] == {"m1": "minutes"}
    both = run("merge", tmp_path / "m-a.csv", tmp_path / "m-b.csv", "--out", tmp_path / "x.csv")
    refused(both, "m1 is in 'hours a week' and in 'minutes'")
    words = ["make", tmp_path / "a.csv", *ROLES, "--out", tmp_path / "x.csv", "--unit"]
    refused(run(*words, "m1"), "write COLUMN=UNIT")
    refused(run(*words, "m9=cm"), "Column 'm9' (unit) is not in the design. Did you mean")
    refused(run(*words, "m1=cm", "--unit", "m1=mm"), "two units for 'm1'")
    left = mm.Moments.from_data(tmp_path / "b.csv", DESIGN).drop(4)
    left.save(tmp_path / "m-c.csv", units={"m1": "hours a week"})
    run("make", tmp_path / "b.csv", *ROLES, "--out", tmp_path / "m-b.csv")
    warned = run("merge", tmp_path / "m-a.csv", tmp_path / "m-b.csv", "--out", tmp_path / "x.csv")
    assert warned.exit_code == 0
    assert warned.stderr.startswith("Warning: Not every one of ")
    equal = run("merge", tmp_path / "m-b.csv", tmp_path / "m-c.csv", "--out", tmp_path / "x.csv")
    refused(equal, "6 cells of")
    refused(equal, "say --equal-cells keep if they are different people")


def test_a_spreadsheet_in_between_is_named_by_every_command(csv, tmp_path):
    made = tmp_path / "m.csv"
    run("make", csv, *ROLES, "--out", made)
    text = made.read_text(encoding="utf-8")
    made.write_text(
        '"' + text.replace('"', '""').replace("\n", '"\n"', 1).replace(".", ","), encoding="utf-8"
    )
    refused(run("inspect", made), "saved again by a spreadsheet")
    refused(run("make", made, *ROLES, "--out", tmp_path / "x.csv"), "holds moments already")
    done = CliRunner().invoke(main, ["rank", str(made)], prog_name="msmmiv", catch_exceptions=False)
    refused(done, "saved again by a spreadsheet")


def test_bad_people_are_refused_before_anything_is_written(rows, tmp_path):
    """Wrong names, no controls, no value at all, two sites: what a new user meets."""
    out = tmp_path / "m.csv"

    def make(frame, *words):
        frame.to_csv(tmp_path / "t.csv", index=False)
        return run("make", tmp_path / "t.csv", *words, "--out", out)

    refused(make(rows, "-y", "Y", "-t", "t", "-m", "m1", "-s", "s"), "Did you mean 'y'")
    refused(make(rows.assign(y=np.nan), *ROLES), "Column 'y' (outcome) has no values")
    refused(make(rows.assign(s=rows["s"].where(rows.index > 3)), *ROLES), "--missing drop")
    assert not out.exists()
    lone = make(rows[(rows["s"] != 3) | (rows["t"] == 1)], *ROLES)
    assert lone.exit_code == 0  # another agency may hold its controls
    assert mm.Moments.load(out).n_cells == 15
    two = make(rows[rows["s"] < 2], *ROLES)
    assert two.stdout == f"Moments: {out} (2 sites, 4 cells, 96 rows)\n"

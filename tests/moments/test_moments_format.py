"""The format of moments files: read and written by docs/moments-file.md alone, and what is not of the format."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from importlib.resources import files

import duckdb
import numpy as np
import pytest

import msmmiv as mm
from msmmiv.errors import DataError, MomentsFileError
from msmmiv.moments.data_file import is_moments
from msmmiv.moments.exchange import read_table
from msmmiv.moments.row_files import read_parquet, write_parquet
from tests.moments.helpers import brute, design, people

EVERYTHING = {
    "mediators": ["m", "m2"], "covariates": ["x"], "block": "b", "cluster": "c", "weights": "w",
    "weight_kind": "probability",
}  # fmt: skip


def moments(df, **options):
    return mm.Moments.from_data(df, design(**options))


# ------------------------------------------------------------- a reader and a writer that know the page only


def read_by_the_page(path):
    """Header and rows of a CSV file, after checking its seal."""
    line, _, body = path.read_bytes().partition(b"\n")
    assert line.startswith(b'# {"format": "msmmiv-moments/2"')
    header = json.loads(line[2:])
    seal = header["sha256"]
    blank = line.replace(seal.encode(), b"0" * 64)
    assert hashlib.sha256(blank + b"\n" + body).hexdigest() == seal
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8"), newline="")))
    assert len(rows) == header["cells"]["number"]
    return header, rows


def write_by_the_page(path, header, names, rows):
    """A CSV file with a seal, from a header without one."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([names, *rows])
    line = "# " + json.dumps(header | {"sha256": "0" * 64})
    seal = hashlib.sha256(f"{line}\n{out.getvalue()}".encode()).hexdigest()
    path.write_bytes(f"{line.replace('0' * 64, seal)}\n{out.getvalue()}".encode())


def test_a_reader_that_knows_the_page_only_rebuilds_the_numbers(tmp_path):
    df, d = people(1, mediators=2, n=600), design(**EVERYTHING)
    header, rows = read_by_the_page(
        mm.Moments.from_data(df, d).save(tmp_path / "m.csv", units={"m": "hours"})
    )
    assert header["design"]["mediators"] == ["m", "m2"]
    assert (header["units"], header["counts"], header["min_cell"]) == ({"m": "hours"}, "rows", None)
    assert header["labels"] == {"site": "int", "block": "int", "arm": "int", "cluster": "int"}
    want, names = brute(df, d), ["y", "m", "m2", "x"]
    assert len(rows) == len(want)
    small = [w["n"] for w in want.values()]
    told = header["cells"]
    assert (told["smallest"], told["of_one_row"], told["of_two_rows"]) == (
        min(small),
        small.count(1),
        small.count(2),
    )
    for row in rows:
        cell = want[tuple(int(row[k]) for k in ("site", "block", "arm", "cluster"))]
        assert float(row["n"]) == cell["n"]
        for prefix, part in (("", "first"), ("squared_", "squared")):
            weight, mean, scatter = cell[part]
            assert float(row[f"{prefix}weight"]) == pytest.approx(weight, rel=1e-12)
            for j, a in enumerate(names):
                assert float(row[f"{prefix}mean[{a}]"]) == pytest.approx(mean[j], rel=1e-11, abs=1e-12)
                for k, b in enumerate(names[j:], start=j):
                    assert float(row[f"{prefix}scatter[{a},{b}]"]) == pytest.approx(scatter[j, k], abs=1e-10)


def test_that_reader_gets_the_estimate(tmp_path):
    """Two-stage least squares by hand: itt on compliance through the origin, weights n0 n1 / (n0 + n1)."""
    m = moments(people(2))
    _, rows = read_by_the_page(m.save(tmp_path / "m.csv"))
    cells = {(r["site"], r["arm"]): (float(r["n"]), float(r["mean[y]"]), float(r["mean[m]"])) for r in rows}
    above = below = 0.0
    for site in {s for s, _ in cells}:
        (n0, y0, m0), (n1, y1, m1) = cells[site, "0"], cells[site, "1"]
        w = n0 * n1 / (n0 + n1)
        above += w * (m1 - m0) * (y1 - y0)
        below += w * (m1 - m0) ** 2
    assert mm.fit(m, "2sls").params["m"] == pytest.approx(above / below, rel=1e-12)


def test_the_same_seal_in_parquet(tmp_path):
    """Numbers as their shortest digits, which is what CSV holds, give the text that is sealed."""
    df = people(3, n=600, mediators=2).assign(
        s=lambda d: d["s"].map('site "{}", é'.format), y=lambda d: d["y"] * 1e-9
    )
    m = moments(df, **EVERYTHING | {"cluster": None})
    header, rows = read_by_the_page(m.save(tmp_path / "m.csv"))
    path = m.save(tmp_path / "m.parquet")
    with duckdb.connect() as connection:
        query = "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'msmmiv'"
        text = connection.execute(query, [str(path)]).fetchone()[0]
        found = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
        names, table = [c[0] for c in found.description], found.fetchall()
    assert json.loads(text) == header
    assert names == list(rows[0])
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([names, *([repr(v) if isinstance(v, float) else v for v in row] for row in table)])
    blank = text.replace(header["sha256"], "0" * 64)
    assert hashlib.sha256(f"# {blank}\n{out.getvalue()}".encode()).hexdigest() == header["sha256"]


def written_elsewhere(df, d, path, **more):
    cells = brute(df, d)
    used = [k for k, name in enumerate((d.site, d.block, d.treatment, d.cluster)) if name]
    keys = [("site", "block", "arm", "cluster")[k] for k in used]
    pairs = [(i, j) for i in range(len(d.variables)) for j in range(i, len(d.variables))]
    names = [*keys, "n", "weight", *(f"mean[{v}]" for v in d.variables)]
    names += [f"scatter[{d.variables[i]},{d.variables[j]}]" for i, j in pairs]
    rows = []
    for key, cell in cells.items():
        weight, mean, scatter = cell["first"]
        rows.append([*(key[k] for k in used), cell["n"], weight, *mean, *(scatter[i, j] for i, j in pairs)])
    header = {
        "format": "msmmiv-moments/2", "software": "a script of an agency",
        "design": {"outcome": "y", "treatment": "t", "mediators": list(d.mediators), "site": "s", "cluster": d.cluster},
        "labels": dict.fromkeys(keys, "int"),
        "flow": {"rows_in": len(df), "missing": [], "incomplete": 0, "missing_cells": [], "dropped": []},
    }  # fmt: skip
    write_by_the_page(path, header | more, names, rows)


def test_a_file_written_elsewhere_is_read(tmp_path):
    df, d = people(4), design(cluster="c")
    written_elsewhere(df, d, tmp_path / "theirs.csv")
    back, own = mm.Moments.load(tmp_path / "theirs.csv"), mm.Moments.from_data(df, d)
    assert is_moments(tmp_path / "theirs.csv")
    assert back.equals(own)
    assert back.flow == own.flow
    a, b = (mm.fit(m, "2sls", cov_type="cluster") for m in (back, own))
    np.testing.assert_allclose([*a.params, *a.std_errors], [*b.params, *b.std_errors], rtol=1e-12)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("column 'mean[m]' is missing", lambda h, n, r: (h, [*n[:-4], "mean[mm]", *n[-3:]], r)),
        ("column 'colour' is not one of the format", lambda h, n, r: (h, [*n, "colour"], [[*v, 1] for v in r])),
        ("it has no cells", lambda h, n, _: (h, n, [])),
        ("1 cell occurs more than once (site '0', arm '0')", lambda h, n, r: (h, n, [*r, r[0]])),
        ("'n' is 0 in cell 1 and must be positive", lambda h, n, r: (h, n, [[*r[0][:2], "0", *r[0][3:]], *r[1:]])),
        ("'scatter[m,m]' is -1 in cell 1 and must be 0 or more", lambda h, n, r: (h, n, [[*r[0][:-1], "-1"], *r[1:]])),
        ("'mean[y]' is nan in cell 1 and must be a finite number",
         lambda h, n, r: (h, n, [[*r[0][:4], "nan", *r[0][5:]], *r[1:]])),
        ("The table of", lambda h, n, r: (h, n, [[*r[0][:4], "1,5", *r[0][5:]], *r[1:]])),
        ("The table of", lambda h, n, r: (h | {"labels": {"site": "date"}}, n, r)),
        ("but its header says 99", lambda h, n, r: (h | {"cells": {"number": 99}}, n, r)),
        ("damaged", lambda h, n, r: (h | {"design": {"outcome": "y"}}, n, r)),
        ("damaged", lambda h, n, r: (h | {"design": h["design"] | {"arms": 2}}, n, r)),
        ("damaged", lambda h, n, r: ({k: v for k, v in h.items() if k != "flow"}, n, r)),
        ("damaged", lambda h, n, r: (h | {"units": {"height": "cm"}}, n, r)),
        ("ends in 20 rows, but its cells hold 300", lambda h, n, r: (h | {"flow": h["flow"] | {"rows_in": 20}}, n, r)),
    ],
)  # fmt: skip
def test_a_whole_seal_does_not_make_a_wrong_table_right(said, change, tmp_path):
    m = moments(people(5).assign(s=lambda d: d["s"].map(str), t=lambda d: d["t"].map(str)), control="0")
    header, rows = read_by_the_page(m.save(tmp_path / "m.csv"))
    bare = {k: v for k, v in header.items() if k not in ("sha256", "cells")}
    write_by_the_page(tmp_path / "m.csv", *change(bare, list(rows[0]), [list(r.values()) for r in rows]))
    with pytest.raises(MomentsFileError) as caught:
        mm.Moments.load(tmp_path / "m.csv")
    assert said in str(caught.value)
    assert "m.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------ versions


def test_files_of_version_1_are_read(tmp_path):
    """The packaged trial is one: another seal, no units, nothing said of suppression."""
    with (files("msmmiv.data") / "star_math.csv").open("rb") as stream:
        (tmp_path / "old.csv").write_bytes(stream.read())
    old = read_table(tmp_path / "old.csv")
    assert (old.version, old.software, old.units, old.min_cell) == ("msmmiv-moments/1", "", (), None)
    text = (tmp_path / "old.csv").read_text(encoding="utf-8")
    (tmp_path / "edited.csv").write_text(text.replace("24.0", "25.0", 1), encoding="utf-8")
    with pytest.raises(MomentsFileError, match="altered"):
        read_table(tmp_path / "edited.csv")
    new = mm.Moments.load(tmp_path / "old.csv").save(tmp_path / "new.csv")
    assert read_table(new).version == "msmmiv-moments/2"
    assert mm.Moments.load(new).equals(mm.data.star(), rtol=0)


@pytest.mark.parametrize(
    ("version", "todo"),
    [
        ("msmmiv-moments/3", "newer msmmiv: install that"),
        ("msmmiv-moments/0", "written again with Moments.save"),
        ("msmmiv-moments", "written again with Moments.save"),
    ],
)
def test_other_versions_say_what_to_do(version, todo, saved):
    header, body = header_of(saved)
    rewrite(saved, header | {"format": version}, body)
    with pytest.raises(
        MomentsFileError, match=f"format '{version}'; this version reads 'msmmiv-moments/2' and .*{todo}"
    ):
        mm.Moments.load(saved)


# ------------------------------------------------------------------------------------------ tampering


def header_of(path):
    first, _, body = path.read_text(encoding="utf-8").partition("\n")
    return json.loads(first.removeprefix("# ")), body


def rewrite(path, header, body):
    path.write_text(f"# {json.dumps(header)}\n{body}", encoding="utf-8")


@pytest.fixture
def saved(tmp_path):
    return moments(people(10)).save(tmp_path / "m.csv", units={"m": "hours"})


def without_line(body):
    lines = body.splitlines(keepends=True)
    return "".join([*lines[:3], *lines[4:]])


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("", lambda h, b: (h, b.replace(b[-3], "7" if b[-3] != "7" else "8"))),
        ("", lambda h, b: (h, b[: b.rindex("\n", 0, -1) + 9] + "\n")),
        (": it breaks off after 6 lines of 10", lambda h, b: (h, b[: b.index("\n2,1") + 9])),
        (": it has 9 cells, and had 10", lambda h, b: (h, without_line(b))),
        (": it has 11 cells, and had 10", lambda h, b: (h, b + b.splitlines()[-1] + "\n")),
        ("", lambda h, b: (h, b.removesuffix("\n"))),
        ("", lambda h, b: (h | {"design": h["design"] | {"outcome": "m", "mediators": ["y"]}}, b)),
        ("", lambda h, b: (h | {"flow": h["flow"] | {"rows_in": 1}}, b)),
        ("", lambda h, b: (h | {"labels": {"site": "str", "arm": "int"}}, b)),
        ("", lambda h, b: (h | {"units": {"m": "minutes"}}, b)),
        ("", lambda h, b: (h | {"min_cell": 10}, b)),
        ("", lambda h, b: (h | {"sha256": "0" * 64}, b)),
        ("", lambda h, b: (h | {"format": "msmmiv-moments/1"}, b)),
    ],
)
def test_altered_files_are_refused(how, change, saved):
    rewrite(saved, *change(*header_of(saved)))
    with pytest.raises(MomentsFileError, match=f"was altered after it was written .*{how}") as caught:
        mm.Moments.load(saved)
    assert "Ask for the file as it was written" in str(caught.value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_byte_order_marks_and_line_ends_of_windows_are_no_tampering(mark, ends, saved):
    want = mm.Moments.load(saved)
    saved.write_bytes(mark + saved.read_bytes().replace(b"\n", ends))
    assert mm.Moments.load(saved).equals(want, rtol=0)
    assert is_moments(saved)


@pytest.mark.parametrize(("delimiter", "decimal"), [(",", "."), (";", ","), ("\t", ",")])
def test_a_spreadsheet_that_saved_it_again_is_named(delimiter, decimal, saved):
    cells = list(csv.reader(saved.read_text(encoding="utf-8").splitlines()))
    with saved.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([[v.replace(".", decimal) for v in row] for row in cells])
    with pytest.raises(
        MomentsFileError, match=r"saved again by a spreadsheet.*Ask for 'm\.csv' as it was written"
    ):
        mm.Moments.load(saved)
    assert is_moments(saved)


def test_a_whole_line_in_one_cell_is_a_spreadsheet_too(saved):
    with saved.open(encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    with saved.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows([line] for line in lines)
    with pytest.raises(MomentsFileError, match="saved again by a spreadsheet"):
        mm.Moments.load(saved)


def test_a_table_with_semicolons_below_a_whole_header(saved):
    header, body = header_of(saved)
    rewrite(saved, header, body.replace(",", ";").replace(".", ","))
    with pytest.raises(MomentsFileError, match=r"altered .*: semicolons stand between its columns"):
        mm.Moments.load(saved)


@pytest.mark.parametrize(
    ("encoding", "said"), [("latin-1", r"not in UTF-8 \(byte [\d,]+\)"), ("utf-16", "is in UTF-16")]
)
def test_another_encoding_is_named(encoding, said, tmp_path):
    path = moments(people(11).assign(s=lambda d: d["s"].map("école {}".format))).save(tmp_path / "m.csv")
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    with pytest.raises(MomentsFileError, match=f"{said}.*as it was written"):
        mm.Moments.load(path)


def test_altered_parquet_files_are_refused(tmp_path):
    path = moments(people(12)).save(tmp_path / "m.parquet")
    text, table = read_parquet(path)
    shutil.copy(path, tmp_path / "whole.parquet")
    for change in (
        table.assign(n=table["n"] + (table.index == 0)),
        table[1:],
        table.sort_values("n"),
        table.iloc[:, :-1],
    ):
        write_parquet(change.reset_index(drop=True), path, text)
        with pytest.raises(MomentsFileError, match="was altered"):
            mm.Moments.load(path)
    write_parquet(table, path, text.replace('"rows_in": 300', '"rows_in": 301'))
    with pytest.raises(MomentsFileError, match="was altered"):
        mm.Moments.load(path)
    whole = (tmp_path / "whole.parquet").read_bytes()
    for broken in (whole[: len(whole) // 2], b"PAR1 and then nothing", b""):
        path.write_bytes(broken)
        with pytest.raises(MomentsFileError, match=r"Could not read .*m\.parquet"):
            mm.Moments.load(path)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["m.txt", "m", "m.xlsx"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(DataError, match=r"ends in \.csv or \.parquet, not"):
        moments(people(10)).save(tmp_path / name)


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "."])
def test_a_file_that_is_not_there(name, tmp_path):
    with pytest.raises(MomentsFileError, match="was not found"):
        mm.Moments.load(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["# {broken\n1,2\n", '# {"a": 1}\n1,2\n', '# {"format": "msmmiv-moments/1"}\nx\n']
)
def test_damaged_headers_are_refused(text, tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(MomentsFileError, match=r"header of .*m\.csv' is damaged"):
        mm.Moments.load(path)


def test_rows_are_not_moments(tmp_path):
    df = people(11)
    df.to_csv(tmp_path / "rows.csv", index=False)
    df.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    for name in ("rows.csv", "rows.parquet", "empty.csv", "binary.csv"):
        with pytest.raises(MomentsFileError, match=f"{name}' has no msmmiv header.*Moments.from_data"):
            mm.Moments.load(tmp_path / name)


def test_moments_are_not_rows(saved):
    with pytest.raises(DataError):
        mm.Moments.from_data(saved, design())


def test_moments_in_parquet_are_known_by_their_footer(tmp_path):
    df = people(3)
    made = moments(df)
    df.to_parquet(tmp_path / "rows.parquet")
    assert not is_moments(tmp_path / "rows.parquet")
    assert is_moments(made.save(tmp_path / "cells.parquet"))

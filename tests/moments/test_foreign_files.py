"""Moments files of other programs: what their headers, labels and numbers may be; and how files take their places."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import DataError, LabelWarning, MomentsFileError, MomentsMismatch
from msmmiv.moments.assembly import coded_cells
from msmmiv.moments.data_file import is_moments
from msmmiv.moments.exchange import _csv, _seal
from msmmiv.moments.row_files import read_parquet, write_parquet
from tests.moments.helpers import design, people
from tests.moments.test_moments_format import read_by_the_page, write_by_the_page


def moments(df, **options):
    return mm.Moments.from_data(df, design(**options))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Header without seal and counts, column names, and rows of text."""
    path = moments(people(5)).save(tmp_path_factory.mktemp("parts") / "m.csv")
    header, rows = read_by_the_page(path)
    bare = {k: v for k, v in header.items() if k not in ("sha256", "cells")}
    return bare, list(rows[0]), [list(r.values()) for r in rows]


def put(column, value, cells=1):
    """A change of the first cells of a table."""

    def change(h, n, r):
        k = n.index(column)
        return h, n, [[*v[:k], value, *v[k + 1 :]] if i < cells else v for i, v in enumerate(r)]

    return change


def flow(**more):
    return lambda h, n, r: (h | {"flow": h["flow"] | more}, n, r)


def labels(value):
    return lambda h, n, r: (h | {"labels": value}, n, r)


BAD = {
    "no labels": ("labels must say of 'site' which of int, float, str and bool", labels({})),
    "some labels": ("labels must say of 'arm'", labels({"site": "int"})),
    "labels in a list": ("labels must say of 'site'", labels(["int"])),
    "another kind": ("not 'date'", labels({"site": "date", "arm": "int"})),
    "a site that is nan": (
        "'site' has cells without a label",
        lambda h, n, r: put("site", "nan", 2)(*labels({"site": "float", "arm": "int"})(h, n, r)),
    ),
    "a site that is inf": (
        "'site' has cells without a label",
        lambda h, n, r: put("site", "inf", 2)(*labels({"site": "float", "arm": "int"})(h, n, r)),
    ),
    "rows in as text": ("rows_in must be a whole number of 0 or more, not '240'", flow(rows_in="240")),
    "rows in negative": ("rows_in must be a whole number", flow(rows_in=-1)),
    "too many rows": ("ends in 1,000,000 rows, but its cells hold 300", flow(rows_in=10**6)),
    "negative incomplete": ("incomplete must be a whole number", flow(incomplete=-50)),
    "missing as text": ("missing must be a whole number", flow(missing=[["y", "3"]], incomplete=3, rows_in=303)),
    "missing an object": ("missing must be a list of lists of 2", flow(missing={})),
    "missing a stranger": ("missing values of 'zzz'", flow(missing=[["zzz", 3]], incomplete=3, rows_in=303)),
    "missing nothing": ("more rows are incomplete", flow(incomplete=3, rows_in=303)),
    "missing too much": ("more rows lack a column", flow(missing=[["y", 5]], incomplete=3, rows_in=303)),
    "missing in cells": (
        "missing_cells of 'y' add up to more",
        flow(missing=[["y", 3]], incomplete=3, rows_in=303, missing_cells=[[0, 0, "y", 4]]),
    ),
    "dropped as text": ("dropped must be a whole number", flow(dropped=[[1, "5", "x"]])),
    "suppressed a word": ("min_cell must be a whole number", flow(suppressed=[
        {"source": "a", "min_cell": "x", "cells": 1, "rows": None, "sites": 0}])),
    "a floor as text": ("min_cell must be a whole number of 1 or more", lambda h, n, r: (h | {"min_cell": "9"}, n, r)),
    "a weight that is not n": ("'weight' is 1 and must equal 'n'", put("weight", "1.0")),
    "half a row": ("'n' is 15.3 and must be a whole number", put("n", "15.3")),
    "scatter of one row": (
        "must be 0 in a cell of one row",
        lambda h, n, r: put("n", "1.0")(*put("weight", "1.0")(h, n, r)),
    ),
    "Cauchy-Schwarz": ("'scatter[y,m]' is 1e+07, more than scatters of 'y' and 'm' allow", put("scatter[y,m]", "1e7")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_no_rows_can_give_is_refused_by_name(name, parts, tmp_path):
    said, change = BAD[name]
    write_by_the_page(tmp_path / "m.csv", *change(*parts))
    with pytest.raises(MomentsFileError) as caught:
        mm.Moments.load(tmp_path / "m.csv")
    assert said in str(caught.value)
    assert "m.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_site_007_stays_text_when_the_header_says_so(parts, tmp_path):
    write_by_the_page(
        tmp_path / "m.csv", *put("site", "007", 2)(*labels({"site": "str", "arm": "int"})(*parts))
    )
    assert mm.Moments.load(tmp_path / "m.csv").sites[0] == "007"


def test_the_text_that_the_writer_in_r_makes_is_read(tmp_path):
    """No spaces in the header, every text in quotes, seventeen digits: what docs/moments-file.md's script writes."""
    df = people(5).assign(s=lambda d: d["s"].map('site "{}", é'.format))
    path = moments(df).save(tmp_path / "m.csv")
    want, (header, rows) = mm.Moments.load(path), read_by_the_page(path)
    bare = {k: header[k] for k in ("format", "design", "labels", "min_cell", "flow")}
    quoted = ['"{}"'.format(r["site"].replace('"', '""')) for r in rows]
    lines = [
        ",".join([site, *(f"{float(v):.17g}" for k, v in r.items() if k != "site")])
        for site, r in zip(quoted, rows, strict=True)
    ]
    names = ",".join(f'"{k}"' if "," in k else k for k in rows[0])
    blank = "# " + json.dumps(bare | {"sha256": "0" * 64}, separators=(",", ":"), ensure_ascii=False)
    text = "\n".join([blank, names, *lines]) + "\n"
    path.write_bytes(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()).encode())
    assert is_moments(path)
    assert mm.Moments.load(path).equals(want, rtol=0)


def test_squared_weights_must_be_those_of_n_weights(tmp_path):
    path = moments(people(6), weights="w", weight_kind="probability").save(tmp_path / "m.csv")
    header, rows = read_by_the_page(path)
    bare = {k: v for k, v in header.items() if k not in ("sha256", "cells")}
    write_by_the_page(
        path, *put("squared_weight", "1e9")(bare, list(rows[0]), [list(r.values()) for r in rows])
    )
    with pytest.raises(MomentsFileError, match="no sum of squares of 'n' weights"):
        mm.Moments.load(path)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("column 'mean\\[y\\]' holds no numbers", lambda t: t.assign(**{"mean[y]": t["mean[y]"].map(str)})),
        (
            "'site' has cells without a label",
            lambda t: t.assign(site=t["site"].astype(float).where(t.index > 1)),
        ),
        (
            "'site' has cells without a label",
            lambda t: t.assign(site=t["site"].map(str).where(t.index > 1, None)),
        ),
        ("labels in 'site' are int, and they are", lambda t: t.assign(site=t["site"].map(str))),
    ],
)
def test_labels_and_numbers_of_parquet_files_are_checked(said, change, tmp_path):
    path = moments(people(7)).save(tmp_path / "m.parquet")
    text, table = read_parquet(path)
    blank = text.replace(json.loads(text)["sha256"], "0" * 64)
    write_parquet(change(table), path, blank)
    _, table = read_parquet(path)
    write_parquet(table, path, blank.replace("0" * 64, _seal(blank, _csv(table))))
    with pytest.raises(MomentsFileError, match=said):
        mm.Moments.load(path)


def test_cells_without_a_label_are_never_given_another():
    sums = moments(people(8))._sums()
    sums.keys["site"] = sums.keys["site"].astype(float).where(sums.keys.index > 1)
    with pytest.raises(DataError, match="Some cells have no site"):
        coded_cells(design(), sums)


# ------------------------------------------------------------------------------------ B7: equal cells


def coarse(seed, offset, sites=20, n=12, most=2):
    rng = np.random.default_rng(seed)
    s, t = np.repeat(np.arange(offset, offset + sites), 2 * n), np.tile(np.repeat([0, 1], n), sites)
    return pd.DataFrame(
        {"s": s, "t": t, "m": rng.integers(0, most, len(s)), "y": rng.integers(0, most, len(s))}
    )


def test_coarse_values_merge_and_the_same_people_do_not(tmp_path):
    for seed in range(20):
        one = moments(coarse(seed, 0)).save(tmp_path / "a.csv")
        other = moments(coarse(seed + 100, 100)).save(tmp_path / "b.csv")
        assert mm.Moments.load(one, other).n_sites == 40
    copy = coarse(seed, 0).assign(s=lambda d: d["s"] + 100)
    with pytest.raises(MomentsMismatch, match=r"^40 cells of .*the same people"):
        mm.Moments.load(one, moments(copy).save(tmp_path / "c.csv"))


@pytest.mark.parametrize("unit", [1.0, 0.5, 1e-3, 1e4])
def test_one_site_given_twice_is_found_among_others(unit, tmp_path):
    """Scores from 0 to 99 in steps of a unit; one site of the other file, under another name and in another order."""
    a, b = coarse(1, 0, most=100), coarse(2, 100, most=100)
    twice = a[a["s"] == 3].assign(s=999).sample(frac=1, random_state=1)
    one, other = (d.assign(y=d["y"] * unit, m=d["m"] * unit) for d in (a, pd.concat([b, twice])))
    one, other = moments(one).save(tmp_path / "a.csv"), moments(other).save(tmp_path / "b.csv")
    with pytest.raises(MomentsMismatch, match=r"^2 cells of .*site 3, arm 0"):
        mm.Moments.load(one, other)


def test_one_huge_value_masks_nothing_and_hides_nothing(tmp_path):
    a, b = people(1, n=300, sites=3), people(2, n=300, sites=3).assign(s=lambda d: d["s"] + 3)
    huge = a.assign(y=a["y"].where(a["s"] > 0, a["y"] * 1e13), m=a["m"].where(a["s"] > 0, a["m"] * 1e13))
    one, other = moments(huge).save(tmp_path / "a.csv"), moments(b).save(tmp_path / "b.csv")
    assert mm.Moments.load(one, other).n_sites == 6
    lone = huge[(huge["s"] == 2) & (huge["t"] == 0)].assign(s=9)
    third = moments(pd.concat([b, lone])).save(tmp_path / "c.csv")
    with pytest.raises(MomentsMismatch, match=r"1 cell of .*site 9"):
        mm.Moments.load(one, third)


# --------------------------------------------------------------------------------- B11, B12: one step


def test_permissions_and_links_stay(tmp_path):
    m, path = moments(people(9)), tmp_path / "m.csv"
    m.save(path)
    path.chmod(0o600)
    m.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "m.parquet").write_text("old")
    link = tmp_path / "link.parquet"
    link.symlink_to(tmp_path / "real" / "m.parquet")
    m.save(link)
    assert link.is_symlink()
    assert mm.Moments.load(tmp_path / "real" / "m.parquet").equals(m)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.parquet", "m.csv", "real"]


def test_the_place_is_taken_by_a_rename(tmp_path, monkeypatch):
    """Not written into: what reads the old file keeps it, and a rename that fails leaves it whole."""
    path = moments(people(9)).save(tmp_path / "m.csv")
    before, node = path.read_bytes(), path.stat().st_ino
    with path.open("rb") as reader:
        moments(people(10)).save(path)
        assert path.stat().st_ino != node
        assert reader.read() == before
    new = path.read_bytes()
    assert new != before

    def fail(*_):
        raise OSError("no rename")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match="no rename"):
        moments(people(11)).save(path)
    assert path.read_bytes() == new
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]


# --------------------------------------------------------------------------------- C14: named refusals


def test_what_is_no_path_or_unit_is_named(tmp_path):
    m = moments(people(12))
    path = m.save(tmp_path / "e1.csv", units={"m": "hours"})
    with pytest.raises(DataError, match=r"one by one.*Moments.load\(\*paths\)"):
        mm.Moments.load([path, path])
    with pytest.raises(
        MomentsFileError, match=r"was not found\. It takes files one by one.*glob\('e\?\.csv'\)"
    ):
        mm.Moments.load(tmp_path / "e?.csv")
    with pytest.raises(MomentsFileError, match=r"was not found\. It is a folder: name the files in it"):
        mm.Moments.load(tmp_path)
    with pytest.raises(DataError, match="units must be a mapping"):
        m.save(path, units="m=hours")
    back = mm.Moments.load(path)
    with pytest.raises(DataError, match="'m' is in 'hours' and cannot be saved as in 'minutes'"):
        back.save(tmp_path / "e2.csv", units={"m": "minutes"})
    assert mm.Moments.load(back.save(tmp_path / "e2.csv", units={"m": " hours"})).units == (("m", "hours"),)


def test_half_a_character_in_a_label_is_named():
    sums = moments(people(13))._sums()
    sums.keys["site"] = pd.Series([f"a{s}" if s else "a\ud800" for s in sums.keys["site"]], dtype=object)
    with pytest.raises(DataError, match=r"A label of site holds .*half of a character"):
        coded_cells(design(), sums)


def test_two_codings_of_an_accent_are_warned_about(tmp_path):
    paths = []
    for k, form in enumerate(("NFC", "NFD")):
        df = people(k).assign(s=lambda d, k=k: d["s"].map(f"site {k}-{{}}".format))
        df["s"] = df["s"].mask(df["s"] == f"site {k}-0", unicodedata.normalize(form, "école"))
        paths.append(moments(df).save(tmp_path / f"{form}.csv"))
    with pytest.warns(LabelWarning, match="how an accent is coded"):
        assert mm.Moments.load(*paths).n_sites == 10

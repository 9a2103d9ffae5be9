"""The moments file: an exact round trip, refusals, small cells."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.errors import ChoiceError, DataError, MomentsFileError, MomentsMismatch, OneArmSiteWarning
from tests.moments.helpers import design, people

ENDINGS = ("csv", "parquet")
OPTIONS = {
    "plain": {},
    "everything": {
        "mediators": ["m", "m2"], "covariates": ["x"], "block": "b", "cluster": "c", "weights": "w",
        "weight_kind": "probability",
    },
    "frequency": {"weights": "k", "weight_kind": "frequency"},
    "dose": {"treatment": "dose", "treatment_kind": "continuous"},
}  # fmt: skip


def moments(df, **options):
    return mm.Moments.from_data(df, design(**options))


def same(a, b):
    assert a.design == b.design
    assert a.design.digest == b.design.digest
    assert a.flow == b.flow
    assert (a.sites, a.blocks, a.arms, a.clusters) == (b.sites, b.blocks, b.arms, b.clusters)
    assert [type(s) for s in a.sites] == [type(s) for s in b.sites]
    for field in ("site", "block", "arm", "cluster", "n"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    for x, y in ((a.first, b.first), (a.squared, b.squared)):
        for field in ("weight", "mean", "scatter"):
            np.testing.assert_array_equal(getattr(x, field), getattr(y, field))
    assert (a.squared is a.first) == (b.squared is b.first)


# -------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", OPTIONS)
def test_round_trip_is_exact(name, ending, tmp_path):
    df = people(1, mediators=2)
    df.loc[[3, 9], "y"] = np.nan
    m = moments(df, **OPTIONS[name]).drop(2)
    path = m.save(tmp_path / f"m.{ending}")
    same(mm.Moments.load(path), m)
    same(mm.Moments.load(str(path)), m)


@pytest.mark.parametrize("ending", ENDINGS)
@given(
    values=st.lists(st.floats(-1e100, 1e100, allow_subnormal=True), min_size=8, max_size=8),
    seed=st.integers(0, 1000),
)
def test_every_float_survives(ending, values, seed, tmp_path):
    df = pd.DataFrame(
        {"s": [1] * 8, "t": [0, 1] * 4, "m": np.random.default_rng(seed).normal(size=8), "y": values}
    )
    m = moments(df)
    same(mm.Moments.load(m.save(tmp_path / f"m.{ending}")), m)


HARD = ["NA", "001", "", "null", "None", "nan", "True", "1e5", "a,b", 'say "x"', "two\nlines", "cr\rlf\r\n", " pad ",
        "日本 é", "# {", "tab\there", "'", ";"]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("role", ["s", "c", "b", "t"])
def test_labels_that_look_like_something_else_survive(role, ending, tmp_path):
    df = people(2, n=600, sites=len(HARD))
    options = {"site": "s", "block": "b", "cluster": "c"}
    if role == "t":
        df["t"] = np.array(["NA", "001", ""], dtype=object)[np.arange(len(df)) % 3]
        options["control"] = "NA"
    else:
        df[role] = np.array(HARD, dtype=object)[df[role].to_numpy() % len(HARD)]
    m = moments(df, **options)
    same(mm.Moments.load(m.save(tmp_path / f"m.{ending}")), m)


@given(
    labels=st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=2, max_size=2, unique=True),
    ending=st.sampled_from(ENDINGS),
)
def test_any_text_is_a_label(labels, ending, tmp_path):
    labels = [s.replace("\x00", "") for s in labels]
    assume(len({" ".join(s.split()).casefold() for s in labels}) == 2)  # twins warn, elsewhere
    df = people(3, n=40, sites=2)
    m = moments(df.assign(s=[labels[v] for v in df["s"]]))
    same(mm.Moments.load(m.save(tmp_path / f"m.{ending}")), m)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "labels",
    [
        [False, True, False, True, True],
        [0.5, 1.0, 2.5, -1e-9, 1e300],
        [2**62, 2**62 + 1, -5, 0, 7],
        ["1", 2, "x", 3.5, 4],
    ],
)
def test_labels_keep_their_kind(labels, ending, tmp_path):
    df = people(4)
    m = moments(df.assign(s=pd.Series([labels[v] for v in df["s"]])))
    same(mm.Moments.load(m.save(tmp_path / f"m.{ending}")), m)


def test_bool_arms_keep_their_kind(tmp_path):
    m = moments(people(5).assign(t=lambda d: d["t"] == 1))
    back = mm.Moments.load(m.save(tmp_path / "m.csv"))
    assert back.arms == (False, True)
    assert all(type(a) is bool for a in back.arms)


def test_estimates_from_the_file_are_identical(tmp_path):
    m = moments(people(6, mediators=2), mediators=["m", "m2"], cluster="c")
    a, b = mm.fit(m, "2sls"), mm.fit(mm.Moments.load(m.save(tmp_path / "m.parquet")), "2sls")
    assert a.params.equals(b.params)
    assert a.cov.equals(b.cov)


def test_loading_several_files_merges_them(tmp_path):
    df = people(7)
    paths = [
        moments(part, block="b").save(tmp_path / f"m{i}.{ENDINGS[i % 2]}")
        for i, (_, part) in enumerate(df.groupby(df.index % 3))
    ]
    whole = moments(df, block="b")
    assert mm.Moments.load(*paths).equals(whole)
    assert mm.Moments.load(*paths).flow == whole.flow
    other = moments(df).save(tmp_path / "other.csv")
    with pytest.raises(MomentsMismatch, match="block: 'b' and None"):
        mm.Moments.load(paths[0], other)
    with pytest.raises(DataError, match="at least one path"):
        mm.Moments.load()


def test_a_path_with_marks_of_globs(tmp_path):
    m = moments(people(8))
    same(mm.Moments.load(m.save(tmp_path / "m[1]*.parquet")), m)


def test_a_file_that_went_through_windows_is_still_sealed(tmp_path):
    m = moments(people(9))
    path = m.save(tmp_path / "m.csv")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    same(mm.Moments.load(path), m)


# ---------------------------------------------------------------------------------------- refusals


def header_of(path):
    first, _, body = path.read_text(encoding="utf-8").partition("\n")
    return json.loads(first.removeprefix("# ")), body


def rewrite(path, header, body):
    path.write_text(f"# {json.dumps(header)}\n{body}", encoding="utf-8")


@pytest.fixture
def saved(tmp_path):
    return moments(people(10)).save(tmp_path / "m.csv")


@pytest.mark.parametrize("name", ["m.txt", "m", "m.xlsx"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(DataError, match=r"ends in \.csv or \.parquet, not"):
        moments(people(10)).save(tmp_path / name)


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet", "."])
def test_a_file_that_is_not_there(name, tmp_path):
    with pytest.raises(MomentsFileError, match="was not found"):
        mm.Moments.load(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [
        lambda h, b: (h, b.replace(b[-3], "7" if b[-3] != "7" else "8")),
        lambda h, b: (h, b[: len(b) // 2]),
        lambda h, b: (h, b + b.splitlines()[-1] + "\n"),
        lambda h, b: (h | {"design": h["design"] | {"outcome": "m", "mediators": ["y"]}}, b),
        lambda h, b: (h | {"flow": h["flow"] | {"rows_in": 1}}, b),
        lambda h, b: (h | {"labels": {"site": "str", "arm": "int"}}, b),
        lambda h, b: (h | {"sha256": "0" * 64}, b),
    ],
)
def test_altered_files_are_refused(change, saved):
    rewrite(saved, *change(*header_of(saved)))
    with pytest.raises(MomentsFileError, match="was altered after it was written"):
        mm.Moments.load(saved)


def test_an_altered_parquet_file_is_refused(tmp_path):
    from msmmiv.moments.files import read_parquet, write_parquet

    path = moments(people(10)).save(tmp_path / "m.parquet")
    text, table = read_parquet(path)
    table.loc[0, "n"] += 1
    write_parquet(table, path, text)
    with pytest.raises(MomentsFileError, match="was altered"):
        mm.Moments.load(path)


def test_another_version_is_refused(saved):
    header, body = header_of(saved)
    rewrite(saved, header | {"format": "msmmiv-moments/2"}, body)
    with pytest.raises(
        MomentsFileError, match="format 'msmmiv-moments/2'; this version reads 'msmmiv-moments/1'"
    ):
        mm.Moments.load(saved)


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


def test_a_broken_parquet_file(tmp_path):
    path = tmp_path / "m.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(MomentsFileError, match=r"Could not read .*m\.parquet"):
        mm.Moments.load(path)


def test_moments_are_not_rows(saved):
    with pytest.raises(DataError):
        mm.Moments.from_data(saved, design())


# -------------------------------------------------------------------------------------- small cells


def test_small_cells_are_refused_with_a_list(tmp_path):
    df = people(12)
    m = moments(df, cluster="c")
    small = int((m.n < 4).sum())
    assert small > 6
    with pytest.raises(
        DataError, match=rf"^{small} cells .* than 4 rows: 0/0.* \(\d\).* and \d+ more.*suppress"
    ):
        m.save(tmp_path / "m.csv", min_cell=4)
    assert not (tmp_path / "m.csv").exists()


def test_small_cells_are_suppressed_and_counted(tmp_path):
    m = moments(people(13), cluster="c")
    back = mm.Moments.load(m.save(tmp_path / "m.csv", min_cell=4, small_cells="suppress"))
    assert back.n.min() >= 4
    assert back.n_cells == (m.n >= 4).sum()
    gone = m.n[m.n < 4]
    assert back.flow.rows_used == back.n.sum() == m.n.sum() - gone.sum()
    assert sum(d.rows for d in back.flow.dropped) == gone.sum()
    assert {d.reason for d in back.flow.dropped} == {"in cells of fewer than 4 rows"}
    kept = np.flatnonzero(m.n >= 4)
    np.testing.assert_array_equal(np.sort(back.first.scatter[:, 0, 0]), np.sort(m.first.scatter[kept, 0, 0]))


def test_cells_that_are_large_enough_are_saved_as_they_are(tmp_path):
    m = moments(people(14))
    same(mm.Moments.load(m.save(tmp_path / "m.csv", min_cell=int(m.n.min()))), m)


def test_suppressing_every_cell_is_refused(tmp_path):
    m = moments(people(15))
    with pytest.raises(DataError, match="Every cell has fewer than 1000 rows"):
        m.save(tmp_path / "m.csv", min_cell=1000, small_cells="suppress")


def test_suppression_may_leave_one_arm(tmp_path):
    df = people(16)
    df = df[(df["s"] != 0) | (df["t"] == 0) | (df["y"].rank() < 60)]
    m = moments(df)
    least = int(m.n.min())
    back = mm.Moments.load(m.save(tmp_path / "m.csv", min_cell=least + 1, small_cells="suppress"))
    with pytest.warns(OneArmSiteWarning, match=": 0"):
        assert back.usable().n_sites == 4


def test_small_cells_is_a_closed_choice(tmp_path):
    with pytest.raises(ChoiceError, match="small_cells='hide' is not one of 'refuse' and 'suppress'"):
        moments(people(17)).save(tmp_path / "m.csv", small_cells="hide")

"""The moments file: an exact round trip, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.errors import DataError
from msmmiv.moments import exchange
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
        [0.5, 1.0, 2.5, -1e-9, 2.0**52],
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
    back = mm.Moments.load(*paths, shared_sites="pool")
    assert back.equals(whole)
    assert back.flow == whole.flow
    with pytest.raises(DataError, match="at least one path"):
        mm.Moments.load()


def test_a_path_with_marks_of_globs(tmp_path):
    m = moments(people(8))
    same(mm.Moments.load(m.save(tmp_path / "m[1]*.parquet")), m)


def test_units_go_with_the_file(tmp_path):
    m = moments(people(9), weights="w", weight_kind="analytic")
    path = m.save(tmp_path / "m.csv", units={"m": " hours a week ", "w": "1/variance"})
    back = mm.Moments.load(path)
    assert back.units == (("m", "hours a week"), ("w", "1/variance"))
    assert mm.Moments.load(back.drop(2).suppress(2).save(tmp_path / "n.parquet")).units == back.units
    again = mm.Moments.load(back.save(tmp_path / "o.csv", units={"y": "points"}))
    assert dict(again.units) == dict(back.units) | {"y": "points"}
    with pytest.raises(DataError, match=r"'hours' \(unit\) is not in the design"):
        m.save(tmp_path / "x.csv", units={"hours": "h"})
    with pytest.raises(DataError, match="The unit of 'm' must be words such as 'hours a week', not 1"):
        m.save(tmp_path / "x.csv", units={"m": 1})
    assert not (tmp_path / "x.csv").exists()


def test_merged_clusters_are_saved_without_them(tmp_path):
    m = moments(people(10), cluster="c").by_arm()
    back = mm.Moments.load(m.save(tmp_path / "m.csv"))
    assert back.equals(m, rtol=1e-15)
    assert (back.clusters, back.design.cluster) == ((), "c")


# --------------------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(ending, error, tmp_path, monkeypatch):
    path = moments(people(11)).save(tmp_path / f"m.{ending}")
    before = path.read_bytes()

    def half(target):
        Path(target).write_bytes(b"half of i")
        raise error

    monkeypatch.setattr(Path, "write_text", lambda self, *_, **__: half(self))
    monkeypatch.setattr(exchange, "write_parquet", lambda _table, target, _text: half(target))
    refused = isinstance(error, OSError)
    said = r"Could not write '.*m\.\w+': no space left" if refused else None
    with pytest.raises(DataError if refused else KeyboardInterrupt, match=said):
        moments(people(12)).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_file_in_the_way_is_replaced(tmp_path):
    path = moments(people(13)).save(tmp_path / "m.csv")
    m = moments(people(14))
    same(mm.Moments.load(m.save(path)), m)
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]

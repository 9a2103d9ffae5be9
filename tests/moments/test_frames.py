"""The door: frames and files give the same moments, digits survive, and nothing is changed in place."""

from __future__ import annotations

import datetime as dt
import decimal
from fractions import Fraction

import duckdb
import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError
from tests.moments.helpers import brute, check_cells, design, people

OPTIONS = {
    "plain": {},
    "everything": {
        "mediators": ["m", "m2"], "covariates": ["x"], "block": "b", "cluster": "c", "weights": "w",
        "weight_kind": "probability",
    },
    "frequency": {"weights": "k", "weight_kind": "frequency"},
    "dose": {"treatment": "dose", "treatment_kind": "continuous", "cluster": "c"},
}  # fmt: skip
SOURCES = ("csv", "parquet", "csv glob", "parquet glob", "relation")


def moments(data, **options):
    return mm.Moments.from_data(data, design(**options))


def stored(df, folder, source):
    """The same rows behind another door."""
    if source == "relation":
        return duckdb.connect().from_df(df)
    kind = source.split()[0]
    parts = [df] if source == kind else [df[:70], df[70:71], df[71:]]
    for i, part in enumerate(parts):
        path = folder / f"part{i}.{kind}"
        part.to_csv(path, index=False) if kind == "csv" else part.to_parquet(path, index=False)
    return folder / (f"part0.{kind}" if source == kind else f"part*.{kind}")


# ------------------------------------------------------------------------------------ same moments


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", OPTIONS)
def test_files_and_frames_agree(name, source, tmp_path):
    df = people(1, mediators=2)
    rng = np.random.default_rng(5)
    for column in ("y", "m", "x", "w", "c"):
        df[column] = df[column].where(rng.uniform(size=len(df)) > 0.03)
    d = design(**OPTIONS[name])
    want = mm.Moments.from_data(df, d)
    got = mm.Moments.from_data(stored(df, tmp_path, source), d)
    assert got.equals(want)
    assert got.flow == want.flow
    assert want.flow.incomplete > 0


@pytest.mark.parametrize("source", ["csv", "parquet", "relation"])
@pytest.mark.parametrize("kind", ["text", "float", "bool", "date", "quoted"])
def test_labels_are_the_same_from_files(kind, source, tmp_path):
    df = people(2, sites=2 if kind == "bool" else 5)
    labels = {
        "text": df["s"].map("Site {}".format),
        "float": df["s"] + 0.25,
        "bool": df["s"] == 1,
        "date": pd.Timestamp("2024-02-27") + pd.to_timedelta(df["s"], unit="D"),
        "quoted": df["s"].map('a "{0}", b\nÅ{0}'.format),
    }
    df["s"] = labels[kind]
    want = moments(df)
    assert moments(stored(df, tmp_path, source)).equals(want)


@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_the_whole_fit_is_the_same_from_files(source, tmp_path):
    df = people(3, mediators=2)
    d = design(mediators=["m", "m2"], covariates=["x"], block="b")
    a = mm.Study(df, d).fit("2sls", cov_type="HC3")
    b = mm.Study(stored(df, tmp_path, source), d).fit("2sls", cov_type="HC3")
    np.testing.assert_allclose(b.params, a.params, rtol=1e-10)
    np.testing.assert_allclose(b.cov, a.cov, rtol=1e-9)


def test_a_path_may_be_text_and_hold_marks_of_globs(tmp_path):
    df = people(4)
    path = tmp_path / "what [is] this?.csv"
    df.to_csv(path, index=False)
    assert moments(str(path)).equals(moments(df))


def test_enums_of_parquet_are_text(tmp_path):
    df = people(5)
    df["s"] = pd.Categorical(df["s"].map("s{}".format))
    path = tmp_path / "c.parquet"
    df.to_parquet(path)
    assert moments(path).equals(moments(df))


# --------------------------------------------------------------------------------------- frames


def test_data_are_never_changed():
    df = people(6)
    df["s"] = df["s"].astype("category")
    df.loc[[3, 8], "y"] = np.nan
    before = df.copy(deep=True)
    study = mm.Study(df, design(covariates=["x"], weights="w", weight_kind="analytic"))
    study.fit("2sls", cov_type="HC2")
    pd.testing.assert_frame_equal(df, before)


def test_read_only_memory_is_enough():
    df = people(7)
    values = df.to_numpy(dtype=float)
    values.flags.writeable = False
    frozen = pd.DataFrame(values, columns=df.columns, copy=False)
    assert moments(frozen, covariates=["x"]).equals(moments(df, covariates=["x"]))


@pytest.mark.parametrize(
    "index",
    [
        lambda df: df.index[::-1],
        lambda df: np.zeros(len(df), dtype=int),
        lambda df: pd.Index(df["s"], name="s"),
        lambda df: pd.MultiIndex.from_arrays([df["s"], df["t"]], names=["t", "y"]),
        lambda df: pd.date_range("2020", periods=len(df)),
    ],
)
def test_the_index_is_not_looked_at(index):
    df = people(8)
    assert moments(df.set_index(index(df)), covariates=["x"]).equals(moments(df, covariates=["x"]))


NAMES = [
    "w", "v0", "v1", "site", "arm", "block", "cluster", "complete", "n", "rows", "column", "whole", "copies", "m_v0",
    "m_site", "d0", "c0", "e0", "z0", "q0_0", "f", "share", "match", "e_k0", "weight", "_n", "w_min", "small",
    "level_0", "index", "a b", "ü", "m[0]", "a,b", "'", '"', "%", "{", " x", "# {",
]  # fmt: skip


@pytest.mark.parametrize("turn", range(len(NAMES)))
def test_columns_may_have_any_name_in_any_role(turn, tmp_path):
    """Every name plays every role once: the list is turned like a wheel over the five roles."""
    df = people(9).drop(columns=["w"])
    df.loc[4, ["y", "m", "x"]] = np.nan
    y, m, x, s, t = (NAMES[(turn + j) % len(NAMES)] for j in range(5))
    renamed = df.rename(columns={"y": y, "m": m, "x": x, "s": s, "t": t})
    options = {"outcome": y, "mediators": [m], "covariates": [x], "site": s, "treatment": t}
    study = mm.Study(renamed, design(**options))
    want = mm.Study(df, design(covariates=["x"])).fit("2sls", cov_type="HC3")
    np.testing.assert_array_equal(study.fit("2sls", cov_type="HC3").cov.to_numpy(), want.cov.to_numpy())
    assert study.flow.incomplete == 1
    assert dict(study.flow.missing) == {y: 1, m: 1, x: 1}
    for ending in ("csv", "parquet"):
        path = study.moments.save(tmp_path / f"m.{ending}")
        assert mm.Moments.load(path).equals(study.moments, rtol=0)


@pytest.mark.parametrize("names", [(0, 1), (("a", 1), None), (2.5, pd.Timestamp("2020"))])
def test_other_columns_may_have_names_that_are_not_text(names):
    df = people(10)
    odd = df.rename(columns=dict(zip(["x", "w"], names, strict=True)))
    assert moments(odd).equals(moments(df))
    with pytest.raises(ColumnError, match="'z' \\(outcome\\) is not in the data"):
        moments(odd, outcome="z")


def test_two_columns_of_one_name():
    df = people(11)
    assert moments(pd.concat([df, df[["x"]]], axis=1)).equals(moments(df))
    with pytest.raises(ColumnError, match="'y' is the name of more than one column"):
        moments(pd.concat([df, df[["y"]]], axis=1))


def test_columns_in_levels_are_refused():
    df = people(12)
    df.columns = pd.MultiIndex.from_product([["a"], df.columns])
    with pytest.raises(ColumnError, match=r"several levels.*df\.columns ="):
        moments(df)


def test_other_columns_may_hold_anything():
    df = people(13)
    df["junk"] = [object()] * len(df)
    df["holes"] = np.nan
    df["lists"] = [[1]] * len(df)
    m = moments(df)
    assert m.equals(moments(people(13)))
    assert m.flow.incomplete == 0


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_extension_dtypes(backend):
    df = people(14)
    df.loc[[2, 7], "y"] = np.nan
    df["s"] = df["s"].map("s{}".format)
    options = OPTIONS["everything"] | {"mediators": ["m"]}
    assert moments(df.convert_dtypes(dtype_backend=backend), **options).equals(moments(df, **options))
    assert moments(df.convert_dtypes(dtype_backend=backend)).flow == moments(df).flow


def test_sparse_columns():
    df = people(15)
    sparse = df.assign(
        t=pd.arrays.SparseArray(df["t"]), m=pd.arrays.SparseArray(df["m"].where(df["t"] == 1, 0.0))
    )
    assert moments(sparse).equals(moments(df.assign(m=df["m"].where(df["t"] == 1, 0.0))))


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (lambda v: dt.date(2020, 1, 1 + v), "2020-01-01"),
        (decimal.Decimal, 0),
        (lambda v: Fraction(v, 7), "0"),
        (lambda v: (1, v), "(1, 0)"),
        (lambda v: pd.Timedelta(days=v), "0 days 00:00:00"),
        (lambda v: pd.Period(year=2000 + v, freq="Y"), "2000"),
        (lambda v: 2**62 + v, 2**62),
        (lambda v: -(10**15) - v, -(10**15) - 4),
        (lambda v: 10**25 + v, str(10**25)),
    ],
)
def test_labels_of_odd_kinds(make, first, tmp_path):
    df = people(16)
    odd = df.assign(s=[make(int(v)) for v in df["s"]])
    study = mm.Study(odd, design(covariates=["x"]))
    assert study.moments.sites[0] == first
    want = mm.Study(df, design(covariates=["x"])).fit("2sls", cov_type="HC2")
    np.testing.assert_allclose(study.fit("2sls", cov_type="HC2").cov, want.cov, rtol=1e-12)
    path = study.moments.save(tmp_path / "m.csv")
    assert mm.Moments.load(path).equals(study.moments, rtol=0)


def test_second_passes_find_sites_of_mixed_labels():
    df = people(17)
    mixed = df.assign(s=[f"{v}" if i % 2 else v for i, v in enumerate(df["s"])])
    for kind in ("HC0", "HC3"):
        want = mm.Study(df, design(covariates=["x"])).fit("2sls", cov_type=kind)
        got = mm.Study(mixed, design(covariates=["x"])).fit("2sls", cov_type=kind)
        np.testing.assert_allclose(got.cov, want.cov, rtol=1e-12)


def test_values_that_cannot_be_labels():
    df = people(18)
    with pytest.raises(ColumnError, match=r"'s' holds values that cannot be labels \(such as \[1\]\)"):
        moments(df.assign(s=[[1]] * len(df)))


@pytest.mark.parametrize("make", [str, lambda v: v])
def test_numbers_in_text_or_objects_are_refused_as_such(make):
    df = people(19)
    words = "numbers stored as (text|objects), not numbers.*Convert it"
    with pytest.raises(ColumnError, match=words):
        moments(df.assign(y=pd.Series([make(v) for v in df["y"]], dtype="str" if make is str else object)))


@pytest.mark.parametrize("data", [None, 5, [1, 2], {"y": [1.0]}, np.zeros((3, 3)), people(20)["y"]])
def test_other_objects_are_no_data(data):
    with pytest.raises(DataError, match=r"is not supported\. Give a frame \(pandas, polars"):
        moments(data)


# ------------------------------------------------------------------------------------------ digits


def far(df, site_shift):
    """Sites whose means differ by ``site_shift`` sd; values exact multiples of 2^-20, so that shifts are exact."""
    out = df.copy()
    for column in ("y", "m", "dose"):
        grid = np.round(df[column] * 2**20) / 2**20
        out[column] = grid + site_shift * df["s"]
    return out


@pytest.mark.parametrize("source", ["pandas", "parquet"])
@pytest.mark.parametrize("name", [*OPTIONS, "one mediator far only"])
def test_sites_a_million_sd_apart_keep_their_scatter(name, source, tmp_path):
    df = people(22, mediators=2)
    options = OPTIONS.get(name, {})
    near, away = far(df, 0.0), far(df, 2.0**20)
    data = away if source == "pandas" else stored(away, tmp_path, source)
    a, b = moments(near, **options), moments(data, **options)
    for part, want in ((b.first, a.first), (b.squared, a.squared)):
        scale = np.sqrt(np.einsum("cjj->cj", want.scatter))
        slack = 1e-9 * scale[:, :, None] * scale[:, None, :]
        assert np.all(np.abs(part.scatter - want.scatter) <= slack + 1e-12 * (a.n == 1)[:, None, None])


@pytest.mark.parametrize("source", ["pandas", "csv", "parquet"])
@pytest.mark.parametrize("options", [{}, {"covariates": ["x"]}, {"block": "b", "cluster": "c"}])
def test_offsets_and_units_move_no_estimate(source, options, tmp_path):
    df = people(23)
    moved = df.assign(y=df["y"] + 1e8, m=df["m"] * 1e-6)
    data = moved if source == "pandas" else stored(moved, tmp_path, source)
    near, away = mm.Study(df, design(**options)), mm.Study(data, design(**options))
    for kind in ("classical", "HC1", "HC3", "site"):
        a, b = near.fit("2sls", cov_type=kind), away.fit("2sls", cov_type=kind)
        unit = pd.Series({t: 1e-6 if t == "m" else 1.0 for t in a.terms})
        np.testing.assert_allclose(b.params * unit, a.params, rtol=1e-6)
        np.testing.assert_allclose(b.std_errors * unit, a.std_errors, rtol=1e-6)
        for stage, other in zip(a.first_stage, b.first_stage, strict=True):
            assert other.f_classical.stat == pytest.approx(stage.f_classical.stat, rel=1e-6)


def test_two_passes_equal_exact_arithmetic():
    df = people(24, n=60, sites=2)
    df["y"] += 1e6
    m = moments(df)
    for c in range(m.n_cells):
        part = df[(df["s"] == m.sites[m.site[c]]) & (df["t"] == m.arms[m.arm[c]])]
        y, x = ([Fraction(v) for v in part[k].tolist()] for k in ("y", "m"))
        ybar, xbar = sum(y) / len(y), sum(x) / len(x)
        for got, want in (
            (m.first.scatter[c, 0, 0], sum((v - ybar) ** 2 for v in y)),
            (m.first.scatter[c, 1, 1], sum((v - xbar) ** 2 for v in x)),
            (m.first.scatter[c, 0, 1], sum((v - ybar) * (u - xbar) for v, u in zip(y, x, strict=True))),
        ):
            assert got == pytest.approx(float(want), rel=1e-11)
        assert m.first.mean[c, 0] == pytest.approx(float(ybar), rel=1e-15)


def test_constant_cells_have_no_scatter():
    df = people(25)
    df["m"] = 0.1 * df["s"] + 1 / 3 * df["t"]
    m = moments(df)
    assert np.all(m.first.scatter[:, 1, 1] <= 1e-28)
    lone = moments(df.drop_duplicates(["s", "t"]))
    assert not lone.first.scatter.any()


@pytest.mark.parametrize("column", ["y", "m", "x"])
def test_sums_of_squares_that_overflow_are_refused(column):
    df = people(26)
    with pytest.raises(DataError, match=f"Sums of squares of '{column}' overflow"):
        moments(df.assign(**{column: df[column] * 1e200}), covariates=["x"])


def test_weighted_cells_at_an_offset():
    df = people(27)
    d = design(weights="w", weight_kind="analytic")
    df["y"] += 2.0**30
    exact = brute(df.assign(y=df["y"] - 2.0**30), d)
    for want in exact.values():
        want["first"][1][0] += 2.0**30
        want["squared"][1][0] += 2.0**30
    got = mm.Moments.from_data(df, d)
    check_cells(got, exact, rtol=1e-9)


def test_bytes_are_no_labels():
    df = people(3)
    with pytest.raises(ColumnError, match="Column 's' holds bytes, which cannot be labels"):
        mm.Moments.from_data(df.assign(s=df["s"].map(lambda v: str(v).encode())), design())

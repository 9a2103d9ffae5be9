"""Files that are broken or do not fit one another: one clear error with the file's name, and nothing left behind."""

from __future__ import annotations

import builtins
import decimal

import duckdb
import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError, MissingExtraError
from msmmiv.moments.engine_errors import reading
from tests.moments.helpers import design, people


@pytest.fixture
def two(tmp_path):
    """Two files of one trial, and the whole."""
    df = people(4)
    df[:150].to_parquet(tmp_path / "a.parquet")
    df[150:].to_parquet(tmp_path / "b.parquet")
    assert mm.Moments.from_data(tmp_path, design()).equals(mm.Moments.from_data(df, design()))
    return tmp_path, df


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_truncated_parquet_file_is_named(two, keep):
    folder, _ = two
    path = folder / "b.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    for source in (path, folder, folder / "*.parquet"):
        with pytest.raises(DataError, match=r"Could not read .*b\.parquet") as caught:
            mm.Moments.from_data(source, design())
        assert "\n" not in str(caught.value)


def test_a_parquet_file_with_a_hole_is_named(two):
    """The header and the footer are whole, the values are not."""
    folder, _ = two
    path = folder / "b.parquet"
    whole = bytearray(path.read_bytes())
    whole[8 : len(whole) // 2] = bytes(len(whole) // 2 - 8)
    path.write_bytes(whole)
    with pytest.raises(DataError, match="Could not read"):
        mm.Moments.from_data(folder, design())


def test_a_truncated_csv_file_is_not_taken_for_a_short_one(tmp_path):
    """Cut in the middle of a row, which the last row then shows."""
    people(4).to_csv(tmp_path / "a.csv", index=False)
    text = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(text[: text.rindex(",") - 30])
    with pytest.raises(
        DataError, match=r"Line 301 of .*a\.csv' has \d fields, and the header 10. Is the file"
    ):
        mm.Moments.from_data(tmp_path / "a.csv", design())


@pytest.mark.parametrize("column", ["y", "m", "s", "t"])
def test_a_column_that_one_file_lacks(two, column):
    folder, df = two
    df[150:].drop(columns=column).to_parquet(folder / "b.parquet")
    with pytest.raises(ColumnError, match=rf"'{column}' \(\w+\) is not in 'b\.parquet'"):
        mm.Moments.from_data(folder, design())


@pytest.mark.parametrize("column", ["y", "m", "s", "t"])
def test_numbers_in_one_file_and_text_in_another(two, column):
    folder, df = two
    df[150:].assign(**{column: df[column].astype(str)}).to_parquet(folder / "b.parquet")
    with pytest.raises(
        ColumnError,
        match=rf"'{column}' \(\w+\) is \w+ in 'a\.parquet' and VARCHAR in 'b\.parquet'. Write it with one",
    ):
        mm.Moments.from_data(folder, design())


def test_numbers_of_two_widths_are_numbers(two):
    folder, df = two
    d = design()
    whole = df.assign(y=df["y"].round())
    whole[:150].astype({"y": "int8", "s": "int16"}).to_parquet(folder / "a.parquet")
    whole[150:].astype({"y": "float32", "s": "int64"}).to_parquet(folder / "b.parquet")
    assert mm.Moments.from_data(folder, d).equals(mm.Moments.from_data(whole, d))


def test_csv_files_have_no_types_of_their_own(tmp_path):
    """Numbers in one file and words in the other are words: 01 stays 01."""
    df = people(4)
    first, second = (s.copy() for s in (df[:150], df[150:]))
    first["s"] = first["s"].map(lambda k: f"0{k}")
    second["s"] = second["s"].map(lambda k: f"site {k}")
    first.to_csv(tmp_path / "a.csv", index=False)
    second.to_csv(tmp_path / "b.csv", index=False)
    got = mm.Moments.from_data(tmp_path, design())
    assert set(got.sites) == {*first["s"], *second["s"]}
    second.assign(y="high").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ColumnError, match=r"'y' \(outcome\).*text.*'high'"):
        mm.Moments.from_data(tmp_path, design())


@pytest.mark.parametrize(
    ("package", "extra"), [("pyarrow", "polars"), ("pyspark", "spark"), ("dask", "dask")]
)
def test_what_an_engine_misses_is_named_with_its_extra(package, extra, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with (
        pytest.raises(MissingExtraError, match=rf"needs {package}.*pip install 'msmmiv\[{extra}\]'"),
        reading("it"),
    ):
        __import__(f"{package}.compute")


def test_a_broken_trial_leaves_no_moments_behind(two, tmp_path):
    from click.testing import CliRunner

    from msmmiv.cli import main

    folder, _ = two
    (folder / "b.parquet").write_bytes((folder / "b.parquet").read_bytes()[:-200])
    out = tmp_path / "out"
    out.mkdir()
    roles = ["-y", "y", "-t", "t", "-m", "m", "-s", "s"]
    done = CliRunner().invoke(main, ["moments", "make", str(folder), *roles, "--out", str(out / "m.csv")])
    assert done.exit_code == 2
    assert "Could not read" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(out.iterdir()) == []


# --------------------------------------------------------------------------- every row once, and no other


def counted(source, **roles):
    return int(mm.Moments.from_data(source, design(**roles)).n.sum())


def test_rows_above_others_are_not_skipped(tmp_path):
    """Two files pasted under one another, the second one wider; and one line too many fields at the end."""
    df = people(4)
    path = tmp_path / "a.csv"
    for text, line in (
        (df.to_csv(index=False) + df.assign(extra=1).to_csv(index=False), 302),
        (df.to_csv(index=False) + "1," * 14 + "1\n", 302),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"Line {line} of .*a\.csv' has 1\d fields, and the header 10"):
            counted(path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_file_is_read_once(tmp_path, ending, monkeypatch):
    df = people(4)
    save = (lambda f: df.to_csv(f, index=False)) if ending == "csv" else df.to_parquet
    (tmp_path / "d" / "_temporary").mkdir(parents=True)
    path = tmp_path / "d" / f"a.{ending}"
    for name in (path, tmp_path / "d" / f".part.{ending}", tmp_path / "d" / "_temporary" / f"a.{ending}"):
        save(name)
    monkeypatch.chdir(tmp_path)
    folder, one = str(tmp_path / "d"), str(path)
    every, some = f"{folder}/*.{ending}", f"{folder}/a*.{ending}"
    for paths in ((one, one), (one, every), (f"d/a.{ending}", f"./d/a.{ending}", one), (folder, one), (every, some),
                  (f"{tmp_path}/**/*.{ending}",)):  # fmt: skip
        data = mm.DataFile(paths)
        assert len(data.files) == 1, paths
        assert counted(data) == 300, paths
    assert len(mm.DataFile((f"{folder}/_temporary/*.{ending}",)).files) == 1  # asked for by name


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_names_of_folders_take_the_place_of_no_column(tmp_path, ending):
    df = people(4)
    want = mm.Moments.from_data(df, design())

    def save(frame, folder):
        (tmp_path / folder).mkdir(parents=True)
        name = tmp_path / folder / f"p.{ending}"
        frame.to_csv(name, index=False) if ending == "csv" else frame.to_parquet(name)

    save(df, "one/y=1/t=1/s=103")
    assert mm.Moments.from_data(tmp_path / "one", design()).equals(want)
    # A column that is in these names only is read from them, as Spark and others write it.
    for site, part in df.groupby("s"):
        save(part.drop(columns="s"), f"parts/s={site}")
    assert mm.Moments.from_data(tmp_path / "parts", design()).equals(want)
    for arm, part in df.groupby("t"):
        save(part.drop(columns="t").assign(s=part["s"]), f"both/t={arm}/s=9")
    with pytest.raises(
        ColumnError, match=r"'s' is a column of the files and in the names of their folders, and 't' is"
    ):
        mm.Moments.from_data(tmp_path / "both", design())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_changes_is_not_read_again(tmp_path, ending, monkeypatch):
    df = people(4)
    path = tmp_path / f"a.{ending}"
    save = (lambda d: d.to_csv(path, index=False)) if ending == "csv" else lambda d: d.to_parquet(path)
    save(df)
    monkeypatch.chdir(tmp_path)
    study = mm.Study(path.name, design(covariates=["x"]))
    monkeypatch.chdir(tmp_path.parent)  # a relative path is that of the folder in which the study was made
    want = mm.Study(df, design(covariates=["x"])).fit("2sls", cov_type="HC3")
    np.testing.assert_allclose(study.fit("2sls", cov_type="HC3").cov, want.cov, rtol=1e-10)
    save(df.assign(y=df["y"] * 7))
    with pytest.raises(
        DataError, match=rf"a\.{ending}' has changed since it was opened. Make the study anew"
    ):
        study.fit("2sls", cov_type="HC2")
    path.unlink()
    with pytest.raises(DataError, match="has changed since it was opened"):
        study.fit("2sls", cov_type="HC2")


def test_long_numbers_stay_different_sites(tmp_path):
    df = people(4)
    sites = df["s"].map(lambda k: 36047112345678901230 + k)
    path = tmp_path / "a.csv"
    df.assign(s=sites.astype(str)).to_csv(path, index=False)
    assert mm.Moments.from_data(path, design()).sites == tuple(str(v) for v in sorted(set(sites)))
    # Where an engine has made floats of them, they cannot be told apart any more.
    for frame in (df.assign(s=sites.astype(float)), df.assign(s=(2.0**53 + df["s"]).astype(float))):
        with pytest.raises(
            ColumnError, match=r"'s' \(site\) comes as floats of 16 digits and more .such as \d+"
        ):
            mm.Moments.from_data(frame, design())
    exact = df.assign(s=df["s"].map(lambda k: decimal.Decimal("123456789012345678901.25") + k))
    assert len(mm.Moments.from_data(exact, design()).sites) == df["s"].nunique()


def test_dates_in_csv_files_are_labels_as_they_are_written(tmp_path):
    """01/02 is a day of February beside 13/02, and of January beside 02/13: as dates they would be other sites."""
    for name, days in {"a": ("01/02/2024", "03/04/2024"), "b": ("13/02/2024", "01/02/2024"),
                       "c": ("02/13/2024", "01/02/2024"), "d": ("2024-02-01", "2024-02-03")}.items():  # fmt: skip
        df = people(5)
        df.assign(s=np.array(days)[df["s"] % 2]).to_csv(tmp_path / f"{name}.csv", index=False)
        assert mm.Moments.from_data(tmp_path / f"{name}.csv", design()).sites == tuple(sorted(days))
    together = mm.DataFile(tuple(str(tmp_path / f"{name}.csv") for name in "abc"))
    want = ("01/02/2024", "02/13/2024", "03/04/2024", "13/02/2024")
    assert mm.Moments.from_data(together, design()).sites == want


@pytest.mark.parametrize(("text", "number"), [("00{}", "{}"), ("{}", "0{}"), ("{}", "{}.0")])
def test_numbers_spelt_in_two_ways_are_refused(text, number, tmp_path):
    """As text 001 and 1 are two sites, also where the one word that makes text of them comes late, or a long number."""
    df = people(5)
    many = pd.concat([df] * 80)
    for last in ("x", str(2**53 + 1)):
        for name, form in {"a": text, "b": number}.items():
            part = many.assign(s=many["s"].map(form.format))
            part.iloc[-4:, part.columns.get_loc("s")] = last if name == "a" else part["s"].iloc[0]
            part.to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(ColumnError, match=r"Column 's' \(site\) holds '\S+' and '\S+', one number"):
            mm.Moments.from_data(tmp_path, design())


@pytest.mark.parametrize(
    "labels", [["1.5", "2.5"], ["1E3", "INF"], ["placebo", "0.5"], ["1_000", "Nan"], ["4" * 40, "z"]]
)
def test_labels_spelt_in_one_way_are_as_they_are_written(labels, tmp_path):
    df = people(5)
    df.assign(s=np.array(labels)[df["s"] % 2]).to_csv(tmp_path / "a.csv", index=False)
    df.assign(s=np.array(["x", "y"])[df["s"] % 2]).to_csv(tmp_path / "b.csv", index=False)
    df.assign(s=df["s"] % 2 + 100).to_csv(tmp_path / "c.csv", index=False)
    assert set(mm.Moments.from_data(tmp_path, design()).sites) == {*labels, "x", "y", "100", "101"}


def test_text_in_one_file_and_plain_numbers_in_another_are_text(tmp_path):
    df = people(5)
    df.assign(s=df["s"].map("site {}".format)).to_csv(tmp_path / "a.csv", index=False)
    df.to_csv(tmp_path / "b.csv", index=False)
    sites = mm.Moments.from_data(tmp_path, design()).sites
    assert set(sites) == {*map(str, df["s"]), *map("site {}".format, df["s"])}


def test_an_apostrophe_is_no_quote(tmp_path):
    df = people(5)
    labels = np.where(df["s"] == df["s"].max(), "'quoted'", df["s"].map("O'Brien {}".format))
    df.assign(s=labels).to_csv(tmp_path / "a.csv", index=False)
    assert set(mm.Moments.from_data(tmp_path / "a.csv", design()).sites) == set(labels)


def test_commas_between_thousands_are_not_taken_for_decimal_ones(tmp_path):
    df = people(5)
    df.assign(y=(1e6 + 1e3 * df["y"]).map("{:,.0f}".format)).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ColumnError, match=r"holds text, not numbers .*Commas between thousands have to go"):
        mm.Moments.from_data(tmp_path / "a.csv", design())


def test_infinity_in_a_csv_file_is_missing(tmp_path):
    df = people(4)
    df.loc[[3, 8], "y"] = [np.inf, -np.inf]
    df.to_csv(tmp_path / "a.csv", index=False)
    got, want = (mm.Moments.from_data(d, design()) for d in (tmp_path / "a.csv", df))
    assert got.equals(want)
    assert got.flow == want.flow


def test_files_without_rows_among_others(tmp_path):
    df = people(4)
    df.to_csv(tmp_path / "a.csv", index=False)
    df[:0].to_csv(tmp_path / "b.csv", index=False)
    assert counted(tmp_path) == 300
    (tmp_path / "p").mkdir()
    df.to_parquet(tmp_path / "p" / "a.parquet")
    df[:0].assign(s=None, y=None).to_parquet(tmp_path / "p" / "b.parquet")
    assert counted(tmp_path / "p") == 300


def test_words_for_yes_in_one_file_and_numbers_in_another(tmp_path):
    df = people(4)
    df[:150].to_csv(tmp_path / "a.csv", index=False)
    df[150:].assign(t=df["t"].astype(bool)).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ColumnError, match=r"'t' \(treatment\) is BIGINT in 'a\.csv' and BOOLEAN in 'b\.csv'"):
        counted(tmp_path)


# --------------------------------------------------------------------------------- engines of the user


def test_tables_of_the_user_are_not_taken_for_ours():
    """A relation's connection may have a table of any name."""
    df = people(4)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE small AS SELECT 1 AS other")
        connection.register("people_of_the_trial", df)
        connection.execute("CREATE TABLE trial AS SELECT * FROM people_of_the_trial")
        d = design(covariates=["x"])
        got = mm.Study(connection.table("trial"), d).fit("2sls", cov_type="HC3")
        want = mm.Study(df, d).fit("2sls", cov_type="HC3")
        np.testing.assert_allclose(got.cov, want.cov, rtol=1e-10)


def test_what_a_lazy_frame_meets_is_one_line(tmp_path):
    polars = pytest.importorskip("polars")
    df = people(4)
    df.to_parquet(tmp_path / "a.parquet")
    gone = polars.scan_parquet(tmp_path / "a.parquet")

    def fails(_):
        raise RuntimeError("no number here")

    broken = gone.with_columns(polars.col("y").map_elements(fails, return_dtype=polars.Float64))
    with pytest.raises(DataError, match="Could not read the polars frame: ") as caught:
        counted(broken)
    assert "\n" not in str(caught.value)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(DataError, match="Could not read") as caught:
        counted(gone)
    assert "\n" not in str(caught.value)

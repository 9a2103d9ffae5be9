"""Files that are broken or do not fit one another: one clear error with the file's name, and nothing left behind."""

from __future__ import annotations

import builtins

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
        match=rf"'{column}' \(\w+\) is VARCHAR in 'b\.parquet' and \w+ in 'a\.parquet'. Write it with one",
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

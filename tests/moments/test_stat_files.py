"""Files of Stata, SPSS and SAS, and folders of files: the same moments as from the frame they hold."""

from __future__ import annotations

import numpy as np
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError, MissingDataError, MissingExtraError
from msmmiv.moments.data_file import DataFile
from msmmiv.moments.row_files import first_rows
from tests.moments.helpers import design, people

WORDS = {0: "control", 1: "treated"}


def rows():
    df = people(3, mediators=2)
    df.loc[[3, 9], "m"] = np.nan
    return df


def written(df, folder, program, name="a"):
    if program == "stata":
        path = folder / f"{name}.dta"
        df.to_stata(path, write_index=False, value_labels={"t": WORDS})
    else:
        path = folder / f"{name}.sav"
        pytest.importorskip("pyreadstat", reason="the extra 'io' is not installed").write_sav(
            df, str(path), variable_value_labels={"t": WORDS}
        )
    return path


@pytest.mark.parametrize("program", ["stata", "spss"])
def test_labels_are_words_and_numbers_are_numbers(program, tmp_path):
    df = rows()
    d = design(mediators=["m", "m2"], covariates=["x"], control="control", cluster="c")
    want = mm.Moments.from_data(df.assign(t=df["t"].map(WORDS)), d)
    path = written(df, tmp_path, program)
    got = mm.Moments.from_data(path, d)
    assert got.equals(want)
    assert got.flow == want.flow
    # A labelled column that is counted and not named keeps its numbers.
    dose = design(treatment="t", treatment_kind="continuous")
    assert mm.Moments.from_data(path, dose).equals(mm.Moments.from_data(df, dose))


@pytest.mark.parametrize("program", ["stata", "spss"])
def test_several_files_are_read_as_one(program, tmp_path):
    df, d = rows(), design(control="control")
    for k in range(3):
        path = written(df[k::3], tmp_path, program, name=f"part{k}")
    want = mm.Moments.from_data(df.assign(t=df["t"].map(WORDS)), d)
    assert mm.Moments.from_data(tmp_path / f"part*{path.suffix}", d).equals(want)
    assert mm.Moments.from_data(tmp_path, d).equals(want)


@pytest.mark.parametrize("program", ["stata", "spss"])
def test_what_is_wrong_is_said(program, tmp_path):
    path = written(rows(), tmp_path, program)
    with pytest.raises(ColumnError, match=rf"'mm' \(mediator\) is not in '{path.name}'. Did you mean 'm'"):
        mm.Moments.from_data(path, design(mediators=["mm"]))
    whole = path.read_bytes()
    for part in (b"this is a letter, not a table of numbers", whole[:40]):
        path.write_bytes(part)
        with pytest.raises(DataError, match=f"Could not read .*{path.name}"):
            mm.Moments.from_data(path, design(control="control"))


@pytest.mark.parametrize("program", ["stata", "spss"])
def test_the_first_rows_show_words(program, tmp_path):
    found = first_rows(DataFile((str(written(rows(), tmp_path, program)),)), 5)
    assert len(found) == 5
    assert set(found["t"]) <= set(WORDS.values())
    assert list(found.columns) == list(rows().columns)


def test_missing_text_and_labels_of_two_codes(tmp_path):
    df = rows().assign(s=rows()["s"].map(lambda k: "" if k == 0 else f"site {k}"))
    df.to_stata(tmp_path / "a.dta", write_index=False)
    with pytest.raises(MissingDataError, match=r"rows have no 's'"):
        mm.Moments.from_data(tmp_path / "a.dta", design())
    spss = pytest.importorskip("pyreadstat", reason="the extra 'io' is not installed")
    spss.write_sav(rows(), str(tmp_path / "a.sav"), variable_value_labels={"s": {0: "A", 1: "A", 2: "B"}})
    with pytest.raises(DataError, match=r"Column 's' of 'a\.sav' has two codes with the label 'A'"):
        mm.Moments.from_data(tmp_path / "a.sav", design())


def test_without_pyreadstat_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyreadstat", None)
    (tmp_path / "a.sas7bdat").write_bytes(b"x" * 100)
    with pytest.raises(MissingExtraError, match=r"'a.sas7bdat' needs pyreadstat.*pip install 'msmmiv\[io\]'"):
        mm.Moments.from_data(tmp_path / "a.sas7bdat", design())


# --------------------------------------------------------------------------------------- folders


def test_a_folder_is_its_files_without_what_an_engine_left(tmp_path):
    df = rows()
    (tmp_path / "k=1" / "_temporary").mkdir(parents=True)
    df[:100].to_parquet(tmp_path / "k=1" / "part-0.parquet")
    df[100:].to_parquet(tmp_path / "part-1.parquet")
    df.to_parquet(tmp_path / "k=1" / "_temporary" / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-1.parquet.crc").write_text("x")
    assert mm.Moments.from_data(tmp_path, design()).equals(mm.Moments.from_data(df, design()))


def test_folders_that_cannot_be_read_as_one(tmp_path):
    with pytest.raises(DataError, match=r"holds no file that ends in one of '.csv'"):
        mm.Moments.from_data(tmp_path, design())
    rows().to_parquet(tmp_path / "a.parquet")
    rows().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(
        DataError, match=r"holds CSV and Parquet files. To read those of one kind, give a pattern"
    ):
        mm.Moments.from_data(tmp_path, design())

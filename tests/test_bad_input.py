"""Bad input: refused with a message that names the thing, or dropped and counted; never a silent number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import (
    ColumnError,
    DataError,
    DesignError,
    MissingDataError,
    OneArmSiteWarning,
    TreatmentError,
)
from tests.moments.helpers import design, fit, people, refuses

LABELLED = pytest.mark.parametrize("door", ["pandas", "csv", "parquet"])


def behind(df, door, folder):
    if door == "pandas":
        return df
    path = folder / f"data.{door}"
    df.to_csv(path, index=False) if door == "csv" else df.to_parquet(path, index=False)
    return path


# ----------------------------------------------------------------------------------------- columns


@LABELLED
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outcome": "Y"}, r"Column 'Y' \(outcome\) is not in the data. Did you mean 'y'\?"),
        ({"site": "sit"}, r"Column 'sit' \(site\) is not in the data.*The data has 's'"),
        ({"mediators": ["m", "m3"]}, r"'m3' \(mediator\).*Did you mean"),
        ({"covariates": ["dosis"]}, r"'dosis' \(covariate\).*Did you mean 'dose'"),
        ({"cluster": "class"}, r"'class' \(cluster\)"),
        ({"block": "block"}, r"'block' \(block\)"),
        ({"weights": "weight", "weight_kind": "analytic"}, r"'weight' \(weights\)"),
        ({"treatment": " T"}, r"' T' \(treatment\).*Did you mean 't'"),
    ],
)
def test_unknown_columns(options, words, door, tmp_path):
    refuses(behind(people(1, mediators=2), door, tmp_path), ColumnError, words, **options)


def test_a_column_in_two_roles():
    with pytest.raises(DesignError, match="'y' is in two roles: outcome and covariate"):
        fit(people(2), covariates=["y"])


@LABELLED
@pytest.mark.parametrize(
    ("column", "options", "role"),
    [
        ("y", {}, "outcome"),
        ("m", {}, "mediator"),
        ("x", {"covariates": ["x"]}, "covariate"),
        ("w", {"weights": "w", "weight_kind": "analytic"}, "weights"),
        ("dose", {"treatment": "dose", "treatment_kind": "continuous"}, "continuous treatment"),
    ],
)
def test_text_where_numbers_belong(column, options, role, door, tmp_path):
    df = people(3)
    df[column] = df[column].round(3).astype(str)
    df.loc[7, column] = "twelve"
    words = rf"Column '{column}' \({role}\) holds text, not numbers \(it holds values such as 'twelve'\)"
    refuses(behind(df, door, tmp_path), ColumnError, words, **options)


def test_dates_where_numbers_belong():
    df = people(3)
    df["y"] = pd.Timestamp("2020") + pd.to_timedelta(df["s"], unit="D")
    refuses(df, ColumnError, r"'y' \(outcome\) holds Datetime.*not numbers")


def test_more_than_a_hundred_columns_are_all_checked():
    df = people(3).join(pd.DataFrame({f"x{j}": 0.0 for j in range(120)}, index=range(300)))
    df["x119"] = "a"
    refuses(df, ColumnError, "'x119'", covariates=[f"x{j}" for j in range(120)])


# ------------------------------------------------------------------------------------ missing values

ROLES = {
    "y": {}, "m": {}, "x": {"covariates": ["x"]}, "w": {"weights": "w", "weight_kind": "analytic"},
    "c": {"cluster": "c"}, "b": {"block": "b"}, "k": {"weights": "k", "weight_kind": "frequency"},
    "dose": {"treatment": "dose", "treatment_kind": "continuous", "missing": "drop"},
}  # fmt: skip


@LABELLED
@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("column", ROLES)
def test_missing_values_are_dropped_and_counted(column, null, door, tmp_path):
    df = people(4)
    gone = [3, 17, 200]
    df[column] = df[column].astype("Float64" if null else float)
    df.loc[gone, column] = None if null else [np.nan, np.inf, -np.inf]
    options = dict(ROLES[column])
    missing = options.pop("missing", "error")
    study = mm.Study(behind(df, door, tmp_path), design(**options), missing=missing)
    clean = people(4).drop(index=gone)
    clean[column] = clean[column].astype(float)
    want = mm.Study(clean, design(**options))
    np.testing.assert_allclose(study.fit("2sls").params, want.fit("2sls").params, rtol=1e-11)
    np.testing.assert_allclose(study.fit("2sls").cov, want.fit("2sls").cov, rtol=1e-9)
    assert dict(study.flow.missing) == {column: 3}
    assert study.flow.incomplete == 3
    assert study.flow.rows_used == study.moments.n.sum()
    counted = study.flow.missing_frame()
    assert counted["rows"].sum() == 3
    assert set(counted["column"]) == {column}
    assert {r.site for r in study.flow.missing_cells} == set(people(4).loc[gone, "s"].tolist())


@LABELLED
@pytest.mark.parametrize("column", ["s", "t"])
def test_rows_without_site_or_arm(column, door, tmp_path):
    df = people(5)
    df[column] = df[column].astype("Int64")
    df.loc[[1, 2], column] = None
    data = behind(df, door, tmp_path)
    refuses(data, MissingDataError, rf"^2 rows have no '{column}': .*missing=\"drop\"")
    study = mm.Study(data, design(), missing="drop")
    assert dict(study.flow.missing) == {column: 2}
    assert study.moments.equals(mm.Moments.from_data(people(5).drop(index=[1, 2]), design()))


def test_rows_without_site_and_arm():
    df = people(5).astype({"s": "Int64", "t": "Int64"})
    df.loc[1, "s"] = None
    df.loc[[1, 5], "t"] = None
    refuses(df, MissingDataError, "^1 row has no 's' and 2 rows have no 't'")


def test_a_row_that_lacks_several_columns_is_dropped_once():
    df = people(6)
    df.loc[0, ["y", "m", "x"]] = np.nan
    study = mm.Study(df, design(covariates=["x"]))
    assert dict(study.flow.missing) == {"m": 1, "x": 1, "y": 1}
    assert study.flow.incomplete == 1
    assert "299  used" in str(study.flow)


@pytest.mark.parametrize("nothing", [np.nan, None])
def test_no_row_is_complete(nothing):
    df = people(7)
    empty = df.assign(y=pd.Series(nothing, df.index, dtype=float))
    refuses(empty, MissingDataError, "No row is complete: all 300 rows.*'y': 300")
    half = df.assign(y=df["y"].where(df.index < 150), m=df["m"].where(df.index >= 150))
    refuses(half, MissingDataError, r"No row is complete.*\('y': 150, 'm': 150\)")


def test_a_column_of_nothing():
    refuses(people(7).assign(y=None), MissingDataError, r"'y' \(outcome\) has no values")


# -------------------------------------------------------------------------------------- nothing there


def test_empty_frames():
    refuses(people(8).head(0), DataError, "The data has no rows")
    refuses(pd.DataFrame(), ColumnError, r"'y' \(outcome\) is not in the data")
    refuses(pd.DataFrame(columns=["y", "m", "s", "t"]), DataError, "The data has no rows")


def test_files_that_are_empty(tmp_path):
    (tmp_path / "zero.csv").write_text("")
    refuses(tmp_path / "zero.csv", DataError, "zero.csv' is empty")
    (tmp_path / "header.csv").write_text("y,m,s,t\n")
    refuses(tmp_path / "header.csv", DataError, "The data has no rows")
    people(8).head(0).to_parquet(tmp_path / "none.parquet")
    refuses(tmp_path / "none.parquet", DataError, "The data has no rows")


def test_files_that_are_not_there(tmp_path):
    people(8).to_csv(tmp_path / "trial_2024.csv")
    refuses(tmp_path / "trial.csv", DataError, r"trial.csv' was not found. The folder has 'trial_2024.csv'")
    refuses(tmp_path / "nowhere" / "trial.csv", DataError, r"trial.csv' was not found\.$")
    refuses(tmp_path / "x*.csv", DataError, r"No file matches '.*x\*\.csv'")
    (tmp_path / "set.parquet").mkdir()
    refuses(tmp_path / "set.parquet", DataError, r"The folder '.*set\.parquet' holds no file that ends in")
    people(8).to_parquet(tmp_path / "set.parquet" / "part.parquet")
    assert fit(tmp_path / "set.parquet").nobs == fit(tmp_path / "set.parquet" / "*.parquet").nobs == 300
    refuses(tmp_path, DataError, r"holds CSV and Parquet files. To read those of one kind, give a pattern")


@pytest.mark.parametrize("name", ["data.xlsx", "data.txt", "data", "data.csv.gz", "data.rds"])
def test_endings_that_are_not_read(name, tmp_path):
    (tmp_path / name).write_text("y\n1\n")
    refuses(tmp_path / name, DataError, r"does not end in one of '\.csv'.*'\.pq'.*Convert the file")


def test_files_that_are_broken(tmp_path):
    (tmp_path / "not.parquet").write_bytes(b"hello, this is no parquet file at all")
    refuses(tmp_path / "not.parquet", DataError, r"Could not read '.*not\.parquet'")
    (tmp_path / "latin.csv").write_bytes("y,m,s,t\n1,2,é,0\n".encode("latin-1"))
    refuses(tmp_path / "latin.csv", DataError, r"Could not read '.*latin\.csv'.*(utf-8|unicode)")
    (tmp_path / "wide.csv").write_text("y,m,s,t\n" + "1,2,secret,0\n" * 3000 + "1,2,3,4,5,6\n")
    with pytest.raises(DataError, match=r"wide\.csv") as caught:
        fit(tmp_path / "wide.csv")
    assert "secret" not in str(caught.value)


def test_data_that_are_no_data():
    refuses([1, 2, 3], DataError, "Data of type list is not supported. Give a frame .pandas, polars")
    pl = pytest.importorskip("polars")
    refuses(
        pl.DataFrame({"y": [1.0]}),
        ColumnError,
        r"Column 't' \(treatment\) is not in the data. The data has 'y'",
    )


def test_designs_that_are_no_design():
    with pytest.raises(DesignError, match="needs a design"):
        mm.Study(people(9))
    for wrong in ("y ~ 1 | s | m ~ t", {"outcome": "y"}):
        with pytest.raises(DesignError, match=rf"must be a Design, not {type(wrong).__name__}.*from_formula"):
            mm.Study(people(9), wrong)


# --------------------------------------------------------------------------------------------- arms


@pytest.mark.parametrize("label", [0, 1, "a"])
def test_one_arm_only(label):
    options = {"control": "a"} if label == "a" else {}
    words = rf"'t' does not vary inside any site \(arms found: {label!r}\)"
    refuses(people(10).assign(t=label), DataError, words, **options)


def test_arms_without_a_known_control():
    df = people(10)
    refuses(df.assign(t=df["t"] + 1), TreatmentError, "arms in 't' are 1 and 2; say which is the reference")
    named = df.assign(t=df["t"].map({0: "no", 1: "yes"}))
    refuses(named, TreatmentError, "arms in 't' are 'no' and 'yes'")
    refuses(
        named, TreatmentError, "control='No' is not an arm of 't'; the arms are 'no' and 'yes'", control="No"
    )
    refuses(df, TreatmentError, "control=3 is not an arm", control=3)
    refuses(df, TreatmentError, r"control='0' is not an arm of 't'; the arms are 0 and 1\.$", control="0")
    refuses(
        df.assign(t=df["t"] == 1),
        TreatmentError,
        "the arms are False and True. Columns of yes and no",
        control="no",
    )


def test_too_many_arms():
    words = "'dose' holds 300 different values.*treatment_kind='continuous'"
    refuses(people(10), TreatmentError, words, treatment="dose")


def test_an_arm_of_one_person():
    df = people(11)
    one = df.drop(index=df[(df["s"] == 2) & (df["t"] == 1)].index[1:])
    for kind in ("classical", "HC0", "HC1", "HC2", "HC3", "site"):
        got = fit(one, cov_type=kind)
        assert np.isfinite(got.params).all()
        assert np.isfinite(got.std_errors).all()
        assert any("one person" in note or "one row" in note for note in got.notes), kind


def test_only_arms_of_one_person():
    df = people(11).groupby(["s", "t"]).head(1)
    refuses(df, DataError, "10 rows cannot carry 5 intercepts.*no degrees of freedom are left")


def test_sites_with_one_arm_are_named():
    df = people(11)
    with pytest.warns(OneArmSiteWarning, match="1 of 5 sites"):
        study = mm.Study(df[(df["s"] != 4) | (df["t"] == 1)], design())
    assert [(d.site, d.reason) for d in study.flow.dropped] == [
        (4, "the treatment does not vary inside the site")
    ]
    assert study.fit("2sls").n_sites == 4

"""Files read as one: what a file lacks, repeats or orders differently is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError, DesignError

DESIGN = mm.Design(outcome="y", treatment="t", mediators="m", site="s")


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    df = pd.DataFrame({"s": np.repeat(list("abcd"), 10), "t": np.tile([0, 1], 20)})
    df["m"] = df["t"] + rng.normal(size=40)
    df["y"] = df["m"] + rng.normal(size=40)
    return df


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_in_another_order_are_matched_by_name(tmp_path: Path, frame: pd.DataFrame, kind: str) -> None:
    for i, columns in enumerate((["s", "t", "m", "y"], ["y", "s", "m", "t"])):
        part = frame.iloc[i * 20 : (i + 1) * 20][columns]
        part.to_csv(tmp_path / f"{i}.csv", index=False) if kind == "csv" else part.to_parquet(
            tmp_path / f"{i}.parquet"
        )
    assert mm.Moments.from_data(tmp_path / f"*.{kind}", DESIGN).equals(mm.Moments.from_data(frame, DESIGN))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_lacks_a_column_is_named(tmp_path: Path, frame: pd.DataFrame, kind: str) -> None:
    for name, part in (("first", frame), ("second", frame.rename(columns={"m": "M"}))):
        part.to_csv(tmp_path / f"{name}.csv", index=False) if kind == "csv" else part.to_parquet(
            tmp_path / f"{name}.parquet"
        )
    with pytest.raises(ColumnError, match=rf"'m' \(mediator\) is not in 'second\.{kind}'. Did you mean 'M'"):
        mm.Study(tmp_path / f"*.{kind}", DESIGN)


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_name_given_twice_in_a_csv_is_refused(tmp_path: Path, frame: pd.DataFrame, mark: str) -> None:
    path = tmp_path / "twice.csv"
    text = frame.assign(again=1.0).to_csv(index=False, sep=mark).replace("again", "m", 1)
    path.write_text(text)
    with pytest.raises(ColumnError, match="'m' is the name of more than one column"):
        mm.Study(path, DESIGN)


def test_what_pandas_and_r_write_for_missing_is_missing(tmp_path: Path, frame: pd.DataFrame) -> None:
    text = frame.astype({"y": object, "m": object})
    text.loc[[0, 1, 2], "y"] = ["NA", "", "NaN"]
    text.loc[[3, 4], "m"] = ["NULL", "."]
    text.to_csv(tmp_path / "d.csv", index=False)
    flow = mm.Study(tmp_path / "d.csv", DESIGN).flow
    assert dict(flow.missing) == {"y": 3, "m": 2}
    assert flow.rows_used == 35


def test_options_about_rows_are_refused_for_moments(frame: pd.DataFrame) -> None:
    moments = mm.Moments.from_data(frame, DESIGN)
    with pytest.raises(DesignError, match="about reading rows"):
        mm.Study(moments, missing="drop")
    with pytest.raises(DesignError, match="about reading rows"):
        mm.Study(moments, progress=True)


def test_names_that_would_collide_in_the_table_are_refused(frame: pd.DataFrame) -> None:
    df = frame.rename(columns={"y": "a", "m": "b,c"}).assign(**{"a,b": frame["m"] ** 2, "c": frame["m"] ** 3})
    design = mm.Design(outcome="a", treatment="t", mediators=["a,b", "c", "b,c"], site="s")
    with pytest.raises(DataError, match="Names with commas"):
        mm.Moments.from_data(df, design).to_frame()


def test_a_covariate_that_equals_outcome_or_mediator(frame: pd.DataFrame) -> None:
    df = frame.assign(x=frame["y"], z=frame["m"])
    fit = mm.Study(df, mm.Design(outcome="y", treatment="t", mediators="m", site="s", covariates=["x"])).fit(
        "2sls"
    )
    assert isinstance(fit.reduced_form.f_classical, mm.NotApplicable)
    assert "fit y exactly" in fit.reduced_form.f_classical.reason
    with pytest.raises(mm.errors.RankDeficientError, match="other mediators and covariates"):
        mm.Study(df, mm.Design(outcome="y", treatment="t", mediators="m", site="s", covariates=["z"])).fit(
            "2sls"
        )

"""What every engine must do; a class of tests for each of them, which says by a fixture how rows get there.

The fixture ``framed`` takes an Arrow table to a frame of the engine.
"""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import (
    ColumnError,
    DataError,
    MissingDataError,
    OneArmSiteWarning,
    TreatmentError,
    WeightsError,
)
from msmmiv.moments import frames
from tests.moments.engines import AWKWARD, awkward, table_of
from tests.moments.helpers import design, people
from tests.moments.test_frames import OPTIONS


def holed() -> pd.DataFrame:
    df, rng = people(1, mediators=2), np.random.default_rng(5)
    for column in ("y", "m", "x", "w", "c"):
        df[column] = df[column].where(rng.uniform(size=len(df)) > 0.03)
    return df


@functools.cache
def of_pandas(name: str) -> mm.Moments:
    """What every engine has to give, made once for all of them."""
    if name in OPTIONS:
        return mm.Moments.from_data(holed(), design(**OPTIONS[name]))
    return mm.Moments.from_data(awkward(name).to_pandas(), design(mediators=["m", "m2"]))


class EngineContract:
    """Same moments, same sample flow, same errors, and cells only are handed over."""

    @pytest.mark.parametrize("name", OPTIONS)
    def test_moments_and_flow_are_the_same(self, name, framed):
        df, d, want = holed(), design(**OPTIONS[name]), of_pandas(name)
        got = mm.Moments.from_data(framed(table_of(df)), d)
        assert got.equals(want)
        assert got.flow == want.flow
        assert want.flow.incomplete > 0

    @pytest.mark.parametrize("name", AWKWARD)
    def test_columns_of_awkward_types(self, name, framed):
        table, d, want = awkward(name), design(mediators=["m", "m2"]), of_pandas(name)
        got = mm.Moments.from_data(framed(table), d)
        assert got.sites == want.sites
        assert got.arms == want.arms
        assert got.equals(want)
        assert got.flow == want.flow

    def test_second_passes_run_where_the_rows_are(self, framed):
        df = people(3, mediators=2)
        table = table_of(df, {"s": (lambda v: [f"s{x}" for x in v], "string")})
        d = design(mediators=["m", "m2"], covariates=["x"], block="b", weights="w", weight_kind="analytic")
        want = mm.Study(table.to_pandas(), d).fit("2sls", cov_type="HC3")
        got = mm.Study(framed(table), d).fit("2sls", cov_type="HC3")
        np.testing.assert_allclose(got.params, want.params, rtol=1e-10)
        np.testing.assert_allclose(got.cov, want.cov, rtol=1e-10)

    def test_sites_far_apart_keep_their_digits(self, framed):
        """The pass that centres every cell at its own mean joins by labels inside the engine."""
        df = people(22)
        for column in ("y", "m"):
            df[column] = np.round(df[column] * 2**20) / 2**20
        away = df.assign(y=df["y"] + 2.0**20 * df["s"], m=df["m"] + 2.0**20 * df["s"])
        near = mm.Moments.from_data(df, design())
        got = mm.Moments.from_data(framed(table_of(away)), design())
        scale = np.abs(near.first.scatter).max()
        np.testing.assert_allclose(got.first.scatter, near.first.scatter, atol=1e-9 * scale)

    def test_zero_of_two_signs_is_one_site(self, framed):
        """Also where labels are joined again, for sites far apart."""
        df = people(22)
        signed = np.where((df["s"] == 0) & (df.index % 2 == 0), -0.0, df["s"])  # both signs in one cell
        df = df.assign(y=df["y"] + 2.0**20 * df["s"], s=signed)
        got = mm.Moments.from_data(framed(table_of(df)), design())
        assert got.sites == tuple(range(int(df["s"].max()) + 1))

    def test_only_cells_leave_the_engine(self, framed, monkeypatch):
        """What is handed over are tables of cells, whatever the number of rows."""
        handed = []
        inner = frames.collected

        def noted(frame, name):
            out = inner(frame, name)
            handed.append(len(out))
            return out

        for room in ("opening", "sums"):
            monkeypatch.setattr(f"msmmiv.moments.{room}.collected", noted)
        table = table_of(people(9, n=5000, sites=4))
        study = mm.Study(framed(table), design(covariates=["x"]))
        study.fit("2sls", cov_type="HC2")
        assert len(handed) >= 3
        assert max(handed) <= study.moments.n_cells == 8

    def test_errors_are_the_same(self, framed):
        df = people(21)

        def refused(error, match, rows, **roles):
            for data in (rows, framed(table_of(rows))):
                with pytest.raises(error, match=match):
                    mm.Moments.from_data(data, design(**roles))

        refused(ColumnError, "Column 'mm' .*Did you mean 'm'", df, mediators=["mm"])
        refused(ColumnError, "'z' .* holds text, not numbers .*'a'", df.assign(z="a"), covariates=["z"])
        refused(DataError, "The data has no rows", df[:0])
        refused(
            MissingDataError, "3 rows have no 's'", df.assign(s=df["s"].where(df.index > 2).astype("Int64"))
        )
        refused(MissingDataError, "No row is complete", df.assign(y=np.nan))
        refused(
            WeightsError,
            "must be positive; the smallest is -1",
            df.assign(w=-1.0),
            weights="w",
            weight_kind="analytic",
        )
        refused(WeightsError, "has fractions", df, weights="w", weight_kind="frequency")
        refused(TreatmentError, "say which is the reference", df.assign(t=df["t"] + 1))

    def test_a_site_of_one_arm_is_dropped_and_said(self, framed):
        df = people(23)
        df = df[(df["s"] != 2) | (df["t"] == 1)]
        with pytest.warns(OneArmSiteWarning):
            want = mm.Study(df, design())
        with pytest.warns(OneArmSiteWarning):
            got = mm.Study(framed(table_of(df)), design())
        assert got.flow == want.flow
        assert got.fit("2sls").params.to_dict() == pytest.approx(want.fit("2sls").params.to_dict(), rel=1e-10)

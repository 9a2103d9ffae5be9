"""Study: the facade walks the path and adds nothing of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from tests.moments.helpers import design, people


def study(**options):
    return mm.Study(people(1, mediators=2), design(**options))


def test_a_study_is_its_moments():
    df = people(1, mediators=2)
    s = mm.Study(df, design(mediators=["m", "m2"]))
    m = mm.Moments.from_data(df, s.design)
    assert s.moments.equals(m)
    assert s.flow == m.flow
    assert s.design == m.design
    np.testing.assert_array_equal(s.effects.cov, mm.SiteEffects.from_moments(m).cov)
    assert s.effects is s.effects
    pd.testing.assert_frame_equal(s.fit("2sls").tidy(), mm.fit(m, "2sls").tidy())


def test_rows_moments_and_files_give_one_answer(tmp_path):
    df = people(1)
    d = design(cluster="c")
    df.to_parquet(tmp_path / "rows.parquet")
    m = mm.Moments.from_data(df, d)
    m.save(tmp_path / "cells.csv")
    answers = [
        mm.Study(df, d),
        mm.Study(tmp_path / "rows.parquet", d),
        mm.Study(str(tmp_path / "rows.parquet"), d),
        mm.Study(m),
        mm.Study(m, d),
        mm.Study(mm.Moments.load(tmp_path / "cells.csv")),
    ]
    for s in answers[1:]:
        pd.testing.assert_frame_equal(s.fit("2sls").tidy(), answers[0].fit("2sls").tidy(), rtol=1e-10)


def test_compare_stacks_tidy_rows():
    s = study()
    got = s.compare(["ols", "2sls"], cov_type="site", direct_effect=True)
    want = pd.concat(
        [s.fit(e, cov_type="site", direct_effect=True).tidy() for e in ("ols", "2sls")], ignore_index=True
    )
    pd.testing.assert_frame_equal(got.drop(columns="status"), want)
    assert (got["status"] == "").all()
    assert got["term"].tolist() == ["m", "direct_effect"] * 2


def test_rank_is_that_of_the_moments():
    s = study(mediators=["m", "m2"])
    assert s.rank(direct_effect=True).cragg_donald == mm.rank(s.moments, direct_effect=True).cragg_donald


def test_second_passes_go_back_to_the_rows():
    df = people(1)
    s = mm.Study(df, design(covariates=["x"]))
    assert np.isfinite(s.fit("2sls", cov_type="HC3").std_errors).all()
    assert np.isfinite(s.fit("ols", cov_type="HC3").std_errors).all()


def test_second_passes_leave_out_the_sites_that_were_dropped():
    df = people(1)
    lame = df[(df["s"] != 3) | (df["t"] == 1)]
    with pytest.warns(mm.errors.OneArmSiteWarning):
        s = mm.Study(lame, design(covariates=["x"], block="b"))
    want = mm.Study(df[df["s"] != 3], design(covariates=["x"], block="b"))
    np.testing.assert_allclose(
        s.fit("2sls", cov_type="HC3").cov, want.fit("2sls", cov_type="HC3").cov, rtol=1e-10
    )


def test_analysis_lists_what_could_not_be_done():
    got = mm.Study(people(1, sites=2), design()).analysis()
    assert got.headline.method == "2sls"
    assert any("site-clustered standard errors need" in reason for reason in got.skipped)
    ols = [f.direct_effect for f in got.fits if f.method == "ols"]
    assert ols == [False, True]


def test_progress_is_shown_on_request_only(capsys, tmp_path):
    df = people(1)
    df.to_csv(tmp_path / "rows.csv")
    for data in (df, tmp_path / "rows.csv"):
        mm.Study(data, design(), progress=True)
        captured = capsys.readouterr()
        assert "counts and means" in captured.err
        assert "sums of centred products" in captured.err
        assert captured.out == ""
        mm.Study(data, design(), progress=False)
        mm.Study(data, design())  # no terminal here
        captured = capsys.readouterr()
        assert captured.err == captured.out == ""


def test_repr_says_where_the_data_come_from(tmp_path):
    df = people(1)
    df.to_csv(tmp_path / "rows.csv")
    assert repr(mm.Study(df, design())).startswith("Study of a DataFrame in memory: Moments(300 rows")
    assert repr(mm.Study(tmp_path / "rows.csv", design())).startswith("Study of rows.csv")
    assert repr(mm.Study(mm.data.star())).startswith("Study of moments")

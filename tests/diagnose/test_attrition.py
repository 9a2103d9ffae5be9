"""Attrition by arm: counts from the sample flow, the exact law, and what cannot be told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import StratifiedTable

import msmmiv as mm
from msmmiv.diagnose.attrition import attrition
from msmmiv.inference.tests import NotApplicable


def design(**more):
    return mm.Design(outcome="y", treatment="t", mediators="m", site="s", **more)


def frame(rng, sites=12, n=20, arms=2, rate=0.1, more=0.0):
    rows = sites * n * arms
    df = pd.DataFrame(
        {"s": np.repeat(np.arange(sites), n * arms), "t": np.tile(np.repeat(np.arange(arms), n), sites)}
    )
    df["m"], df["y"] = rng.normal(size=(2, rows))
    df["c"] = np.arange(rows) // 5
    df.loc[rng.random(rows) < rate + more * df["t"], "y"] = np.nan
    return df


def test_the_statistic_is_that_of_cochran_mantel_and_haenszel():
    df = frame(np.random.default_rng(1))
    found = attrition(mm.Moments.from_data(df, design()))
    lost = df["y"].isna()
    tables = [
        [[(own & (df["t"] == t) & (lost == v)).sum() for v in (True, False)] for t in (1, 0)]
        for own in (df["s"] == s for s in range(12))
    ]
    expected = StratifiedTable([np.array(t) for t in tables]).test_null_odds(correction=False)
    assert found.test.stat == pytest.approx(expected.statistic, rel=1e-12)
    assert found.incomplete is not None
    # The difference is the regression of the flag on arm with site intercepts.
    d = df["t"] - df.groupby("s")["t"].transform("mean")
    assert found.incomplete.difference[0] == pytest.approx((d @ lost) / (d @ d), abs=1e-12)


def test_the_p_value_is_exact():
    df = frame(np.random.default_rng(2), sites=3, n=4, rate=0.3)
    found = attrition(mm.Moments.from_data(df, design()))
    lost, s, t = df["y"].isna().to_numpy(), df["s"].to_numpy(), df["t"].to_numpy()
    rng = np.random.default_rng(3)
    keys = s[:, None] + rng.random((len(s), 200_000))
    drawn = (t[np.argsort(keys, axis=0)] * lost[:, None]).sum(axis=0)
    seen = int((t * lost).sum())
    ties = (drawn == seen).mean() / 2
    p = 2 * (min((drawn <= seen).mean(), (drawn >= seen).mean()) - ties)
    assert found.test.pvalue == pytest.approx(min(p, 1.0), abs=0.01)


def test_three_arms_are_tested_together_and_missing_arms_left_out():
    df = frame(np.random.default_rng(4), arms=3, more=0.15)
    df = df[~((df["s"] == 1) & (df["t"] == 2))]
    found = attrition(mm.Moments.from_data(df, design()))
    assert (found.test.df, found.test.pvalue < 0.01) == (2, True)
    assert np.isnan(found.columns[0].site_difference[1, 1])
    assert len(found.to_frame()) == 6


def test_columns_that_go_missing_together_or_apart():
    rng = np.random.default_rng(5)
    df = frame(rng)
    apart = df.copy()
    apart.loc[apart.index[(~apart["y"].isna()).to_numpy() & (rng.random(len(apart)) < 0.05)], "m"] = np.nan
    found = attrition(mm.Moments.from_data(apart, design()))
    lost = apart[["y", "m"]].isna().any(axis=1)
    assert found.incomplete is not None
    assert found.incomplete.missing.sum() == lost.sum()
    together = df.copy()
    together.loc[together.index[together["y"].isna()][:5], "m"] = np.nan
    assert attrition(mm.Moments.from_data(together, design())).incomplete is not None
    both = apart.copy()
    both.loc[both.index[both["y"].isna()][:3], "m"] = np.nan
    found = attrition(mm.Moments.from_data(both, design()))
    assert found.incomplete is None
    assert "Holm over 2 columns" in found.test.dist
    assert "several columns" in found.evidence()[0].reading
    y = found.columns[[c.column for c in found.columns].index("y")]
    assert y.missing.sum() == both["y"].isna().sum()


def test_attrition_that_differs_is_found_and_merging_moments_keeps_it():
    df = frame(np.random.default_rng(6), rate=0.02, more=0.08)
    m = mm.Moments.from_data(df, design())
    parts = [mm.Moments.from_data(df[df["s"].isin(part)], design()) for part in (range(6), range(6, 12))]
    found = attrition(m)
    assert found.test.pvalue < 0.01
    assert found.test == attrition(parts[0] + parts[1]).test
    assert 0.03 < found.incomplete.detectable < 0.1
    assert "percentage points" in found.evidence()[0].detectable
    assert found.evidence()[1].role == "context"


def test_dropped_sites_do_not_count():
    df = frame(np.random.default_rng(7))
    m = mm.Moments.from_data(df, design()).drop(0, 1)
    found = attrition(m)
    assert found.columns[0].missing.sum() == df.loc[df["s"] > 1, "y"].isna().sum()


def test_rows_without_an_arm_are_counted_apart():
    df = frame(np.random.default_rng(8))
    df["t"] = df["t"].astype(float)
    df.loc[:4, "t"] = np.nan
    found = attrition(mm.Moments.from_data(df, design(), missing="drop"))
    assert found.unplaced >= 5
    assert found.columns[0].missing.sum() == df.loc[df["t"].notna(), "y"].isna().sum()
    assert "cannot be placed" in found.evidence()[0].reading


def test_clusters_take_sites_as_units_and_blocks_make_it_context():
    df = frame(np.random.default_rng(9), sites=20)
    found = attrition(mm.Moments.from_data(df, design(cluster="c")))
    assert (found.assigned, found.test.df_denom) == ("clusters", 19.0)
    lost = df["y"].isna() - df["y"].isna().groupby(df["s"]).transform("mean")
    c = ((df["t"] - 0.5) * lost).groupby(df["s"]).sum().to_numpy()
    t2 = c.sum() ** 2 / ((c - c.mean()) ** 2).sum() * 19 / 20
    assert found.test.stat == pytest.approx(t2, rel=1e-9)
    rows = attrition(mm.Moments.from_data(df, design(cluster="c")), assigned="rows")
    assert "exact" in rows.test.dist
    few = attrition(mm.Moments.from_data(frame(np.random.default_rng(9), sites=5), design(cluster="c")))
    assert "too few sites" in few.test.reason
    blocks = attrition(mm.Moments.from_data(df.assign(b=df.index % 2), design(block="b")))
    assert blocks.evidence()[0].role == "context"
    assert "not by block" in blocks.evidence()[0].reading


def test_what_cannot_be_tested_says_why(tmp_path):
    full = frame(np.random.default_rng(10), rate=0.0)
    found = attrition(mm.Moments.from_data(full, design()))
    assert isinstance(found.test, NotApplicable)
    assert "no row is missing" in found.test.reason
    assert found.evidence()[0].reading == "No row is missing from the analysis."
    assert found.to_frame().empty
    one = full.copy()
    one.loc[[0, 50], "y"] = np.nan
    assert "too few rows are missing (2)" in attrition(mm.Moments.from_data(one, design())).test.reason
    m = mm.Moments.from_data(frame(np.random.default_rng(11)), design())
    m.save(tmp_path / "m.csv", min_cell=5)
    assert "small counts" in attrition(mm.Moments.load(tmp_path / "m.csv")).test.reason
    dose = full.assign(t=full["m"])
    dose.loc[3, "y"] = np.nan
    assert "dose" in attrition(mm.Moments.from_data(dose, design(treatment_kind="continuous"))).test.reason


def test_a_site_that_loses_one_arm_shows_in_the_test_by_site():
    df = frame(np.random.default_rng(12), rate=0.0)
    away = ((df["s"] == 0) & (df["t"] == 1)) | ((df["s"] == 1) & (df["t"] == 0))
    df.loc[df.index[away & (df.groupby(["s", "t"]).cumcount() < 8)], "y"] = np.nan
    found = attrition(mm.Moments.from_data(df, design()))
    assert found.test.pvalue > 0.5
    assert found.incomplete.by_site.pvalue < 0.01

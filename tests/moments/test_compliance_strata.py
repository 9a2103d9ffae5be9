"""Strata of predicted compliance: nobody's own response decides where they go."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, ColumnError, DataError, DesignError, MissingDataError, TreatmentError
from msmmiv.moments.compliance_strata import compliance_strata
from tests.moments.helpers import design

SITES, SIZE = 6, 200


def trial(seed=0, *, sites=SITES, size=SIZE):
    rng = np.random.default_rng(seed)
    n = sites * size
    s = np.repeat(np.arange(sites), size)
    need, skill = rng.normal(size=(2, n))
    t = (rng.random(n) < np.linspace(0.3, 0.7, sites)[s]).astype(int)
    gain = 1 + need - 0.5 * skill + rng.normal(0, 1, sites)[s]
    m = 3 * s + gain * t + skill + rng.normal(size=n)
    y = 0.5 * m - 2 * s + rng.normal(size=n)
    return pd.DataFrame(
        {"s": s, "t": t, "need": need, "skill": skill, "m": m, "y": y, "gain": gain, "w": 1.0,
         "urban": s % 2, "c": np.arange(n) // 5}
    )  # fmt: skip


def strata_of(df, d=None, **options):
    return compliance_strata(df, d or design(), **{"covariates": ["need", "skill"], "seed": 1, **options})


@pytest.mark.parametrize("within", [True, False])
def test_predicted_compliance_orders_true_compliance(within):
    df = trial(1)
    strata = strata_of(df, within_sites=within)
    assert strata.design.block == (None if within else "s")
    assert len(strata.table) == (5 * SITES if within else 5)
    level = strata.frame["stratum"].str.extract(r"compliance (\d) of 5")[0].astype(int)
    gain = (strata.frame["gain"] - strata.frame.groupby("s")["gain"].transform("mean")).groupby(level).mean()
    assert (np.diff(gain) > 0.3).all()
    study = mm.Study(strata.frame, strata.design)
    assert study.fit("2sls").params["m"] == pytest.approx(0.5, abs=0.2)
    if not within:
        assert (np.diff(study.effects.compliance["m"]) > 0).all()
        assert np.allclose(strata.table["predicted"].diff().dropna() > 0, True)
    else:
        assert strata.table.groupby(strata.table["stratum"].str[:5])["rows"].agg(np.ptp).max() <= SIZE * 0.2


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("column", ["m", "t", "y"])
def test_nobody_decides_their_own_stratum(column, within):
    df = trial(2, sites=3, size=40)
    before = strata_of(df, within_sites=within, min_per_arm=1, small="merge", n_strata=3)
    grouped = before.frame["stratum"]
    levels = before.table  # strata before anything is merged are what the prediction decides
    assert levels["rows"].sum() == len(df)
    changed = 0
    for row in df.index[::7]:
        other = df.copy()
        other.loc[row, column] = 1 - other.loc[row, "t"] if column == "t" else 1e4
        after = strata_of(other, within_sites=within, min_per_arm=1, small="merge", n_strata=3).frame
        assert after.loc[row, "stratum"] == grouped[row]
        changed += int((after["stratum"] != grouped).sum())
    assert (changed > 0) is (column != "y")


def test_clusters_are_not_split_over_folds():
    df = trial(3, sites=3, size=40)
    d = design(cluster="c")
    before = strata_of(df, d, n_strata=2).frame["stratum"]
    moved = 0
    for cluster in (0, 9, 17):
        inside = df["c"] == cluster
        after = strata_of(df.assign(m=df["m"].mask(inside, 1e4)), d, n_strata=2).frame["stratum"]
        assert after[inside].equals(before[inside])
        moved += int((after != before).sum())
    assert moved > 0


def test_the_seed_is_kept_and_repeats():
    df = trial(4)
    drawn = strata_of(df, seed=None)
    assert isinstance(drawn.seed, int)
    again = strata_of(df, seed=drawn.seed)
    pd.testing.assert_frame_equal(drawn.frame, again.frame)
    assert not strata_of(df, seed=drawn.seed + 1).frame["stratum"].equals(drawn.frame["stratum"])


def test_one_trial_without_sites_blocks_weights_and_a_column_of_sites():
    df = trial(5)
    alone = strata_of(df.drop(columns="s"), design(site="stratum"))
    assert alone.design.block is None
    assert alone.table["stratum"].tolist() == [f"compliance {k} of 5" for k in range(1, 6)]
    full = design(block="urban", weights="w", weight_kind="analytic")
    same = strata_of(df, full)
    assert same.frame["stratum"].equals(strata_of(df).frame["stratum"])  # blocks are constant in sites here
    assert same.design.block == "urban"
    # A covariate of sites tells people of different sites apart, and nobody within one.
    assert len(strata_of(df, covariates="urban", within_sites=False).table) == 2
    with pytest.raises(DataError, match=r"inside sites.*within_sites=False"):
        strata_of(df, covariates="urban")


def test_rows_without_the_mediator_still_get_a_stratum():
    df = trial(6)
    df.loc[:9, "m"] = np.nan
    assert strata_of(df).frame.index.equals(df.index)
    df.loc[3, "need"] = np.nan
    with pytest.raises(MissingDataError, match="1 row has no 'need'"):
        strata_of(df)
    assert strata_of(df, missing="drop").missing == (("need", 1),)


def test_the_mediator_is_named_where_there_are_two():
    df = trial(7).assign(m2=lambda d: d["t"] * d["skill"])
    two = design(mediators=["m", "m2"])
    with pytest.raises(DesignError, match="mediator= one of 'm' and 'm2'"):
        strata_of(df, two)
    by_m2 = strata_of(df, two, mediator="m2", n_strata=2, within_sites=False)
    split = by_m2.frame.groupby("stratum")["skill"].agg(["min", "max"])
    assert split["max"].iloc[0] == pytest.approx(split["min"].iloc[1], abs=0.2)
    with pytest.raises(DesignError, match="not a mediator"):
        strata_of(df, two, mediator="need")


def test_refusals():
    df = trial(8)
    for column, words in (("y", "outcome"), ("m", "mediator"), ("t", "treatment")):
        with pytest.raises(DesignError, match=words):
            strata_of(df, covariates=["need", column])
    with pytest.raises(DesignError, match="'s' is a label"):
        strata_of(df, covariates=["s"])
    with pytest.raises(ColumnError, match="labels, not numbers"):
        strata_of(df.assign(need="high"))
    with pytest.raises(TreatmentError, match="has 3 arms"):
        strata_of(df.assign(t=df.index % 3))
    with pytest.raises(DataError, match="does not differ"):
        strata_of(df.assign(need=1.0, skill=2.0), within_sites=False)
    with pytest.raises(ChoiceError, match="folds=1"):
        strata_of(df, folds=1)
    with pytest.raises(ChoiceError, match=r"n_strata=2\.5"):
        strata_of(df, n_strata=2.5)
    with pytest.raises(DataError, match="as many rows, and there are 4"):
        strata_of(df.head(4).assign(t=[0, 1, 0, 1]))
    with pytest.raises(DataError, match="Use fewer folds"):
        strata_of(df[df["s"] == 0].head(6).assign(t=[0, 0, 0, 0, 0, 1]), folds=6)

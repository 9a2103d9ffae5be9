"""Strata in the place of sites: the same numbers as columns made by hand, and no consequence of treatment in them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import (
    ChoiceError,
    ColumnError,
    DataError,
    DesignError,
    MissingDataError,
    MsmmivWarning,
    TooFewSitesError,
)
from msmmiv.moments.strata import strata_as_sites
from tests.estimate.helpers import dense
from tests.moments.helpers import design, people


def trial(seed=0, **options):
    """A trial in which the chance of treatment and the level of the outcome differ by site."""
    df = people(seed, n=options.pop("n", 2000), **options)
    rng = np.random.default_rng([seed, 1])
    df["female"] = rng.integers(0, 2, len(df))
    df["age"] = rng.integers(18, 80, len(df))
    df["m"] += (df["t"] != df["t"].mode()[0]) * df["age"] / 30
    return df.assign(y=df["y"] + 2.0 * df["s"] + 0.4 * df["m"], trial=1)


def estimate(strata, **options):
    return mm.Study(strata.frame, strata.design).fit("2sls", **options)


# ------------------------------------------------------------------------------ the same as by hand


def test_one_trial_without_sites():
    df = trial(1)
    strata = strata_as_sites(df, design(site="stratum"), by=["female", "age"], bins={"age": [30, 50]})
    hand = df["female"].astype(str) + pd.cut(df["age"], [0, 30, 50, 99]).astype(str)
    want = mm.Study(df.assign(g=hand), design(site="g")).fit("2sls")
    assert estimate(strata).params["m"] == pytest.approx(want.params["m"], rel=1e-12)
    assert strata.design == design(site="stratum")
    assert sorted(strata.table["stratum"]) == sorted(
        f"female = {f}, age {a}" for f in (0, 1) for a in ("(30, 50]", "> 50", "<= 30")
    )
    constant = strata_as_sites(df, design(site="trial"), by=["female", "age"], bins={"age": [30, 50]})
    assert constant.design.block is None
    assert estimate(constant).params["m"] == estimate(strata).params["m"]


def test_strata_across_sites_keep_the_sites_as_blocks():
    df = trial(2)
    strata = strata_as_sites(df, design(), by="age", bins=4)
    assert (strata.design.site, strata.design.block) == ("stratum", "s")
    fit = estimate(strata)
    assert fit.n_sites == fit.n_instruments == 4
    want = dense(strata.frame.assign(site=strata.frame["stratum"]), ["m"], block="s")["b"][0]
    assert fit.params["m"] == pytest.approx(want, rel=1e-9)
    ignored = mm.Study(strata.frame, design(site="stratum")).fit("2sls")
    assert abs(ignored.params["m"] - want) > 1e-6


def test_strata_inside_sites():
    df = trial(3)
    strata = strata_as_sites(df, design(block="b"), by="female", within_sites=True)
    assert strata.design.block == "b"
    same = strata_as_sites(df, design(block="b"), by=["s", "female"])
    pd.testing.assert_frame_equal(strata.table, same.table)
    assert strata.table["stratum"].tolist()[:3] == [
        "s = 0, female = 0",
        "s = 0, female = 1",
        "s = 1, female = 0",
    ]
    want = mm.Study(df.assign(g=10 * df["s"] + df["female"]), design(site="g", block="b")).fit("2sls")
    assert estimate(strata).params["m"] == pytest.approx(want.params["m"], rel=1e-12)


def test_sites_and_blocks_are_joined_where_strata_run_across_both():
    df = trial(4)
    strata = strata_as_sites(df, design(block="b"), by="female")
    assert strata.design.block == "s_b"
    assert strata.frame.groupby(["s", "b"])["s_b"].nunique().eq(1).all()
    assert strata.frame["s_b"].nunique() == 10
    want = dense(strata.frame.assign(site=strata.frame["female"]), ["m"], block="s_b")["b"][0]
    assert estimate(strata).params["m"] == pytest.approx(want, rel=1e-9)
    by_block = strata_as_sites(df.assign(s_b=0), design(block="b"), by=["b", "female"])
    assert by_block.design.block == "s"


def test_what_is_not_about_sites_is_kept():
    df = trial(5)
    df.index = [f"p{k}" for k in range(len(df))]
    before = df.copy()
    full = design(covariates=["x"], cluster="c", weights="w", weight_kind="probability", estimand="ate")
    strata = strata_as_sites(df, full, by="female", within_sites=True, name="group")
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(strata.frame[list(df)], df)
    assert strata.design == mm.Design(**{**full.to_dict(), "site": "group"})
    assert np.isfinite(estimate(strata, cov_type="HC1").params["m"])


@pytest.mark.parametrize("seed", range(6))
def test_every_sort_of_column(seed):
    df = trial(seed, arms=("none", "A", "B"))
    rng = np.random.default_rng([seed, 2])
    kinds = {
        "text": np.array(["x", "y"])[df["female"]],
        "flag": df["female"] == 1,
        "few": rng.integers(0, 3, len(df)) * 1.0,
        "category": pd.Categorical(rng.choice(["lo", "hi"], len(df)), categories=["lo", "mid", "hi"]),
        "mixed": pd.Series(rng.choice([1, "1b"], len(df)), dtype=object),
        "day": pd.to_datetime("2020-01-01") + pd.to_timedelta(df["female"], unit="D"),
    }
    df = df.assign(**kinds)
    for column in kinds:
        strata = strata_as_sites(df, design(control="none"), by=["female", column], within_sites=True)
        assert len(strata.frame) == len(df)
        assert strata.table["rows"].sum() == len(df)
        assert strata.table["stratum"].is_unique
        want = df.groupby(["s", "female", column], observed=True).ngroups
        assert estimate(strata).n_sites == want
        assert [c for c in strata.table if c.startswith("n[")] == ["n[none]", "n[A]", "n[B]"]


def test_bins_are_quantiles_with_their_upper_end():
    df = trial(6)
    strata = strata_as_sites(df, design(site="stratum"), by="age", bins=4)
    sizes = strata.table["rows"] / len(df)
    assert sizes.between(0.2, 0.3).all()
    ends = np.quantile(df["age"], [0.25, 0.5, 0.75], method="inverted_cdf")
    codes = np.searchsorted(ends, df["age"])
    assert strata.frame.groupby(codes)["stratum"].nunique().eq(1).all()
    # A number for all leaves columns with few values alone.
    assert len(strata_as_sites(df, design(site="stratum"), by=["female", "age"], bins=3).table) == 6


# ------------------------------------------------------------------------------------ small strata


def small_cells():
    """Two sites; nobody over 60 is treated in the first, and one person is in the second."""
    df = trial(7, sites=2, n=800)
    old = (df["age"] > 60) & (df["t"] == 1)
    gone = old & ((df["s"] == 0) | old.where(df["s"] == 1, other=False).cumsum().gt(1))
    return df[~gone]


def test_small_strata_are_left_out_and_listed():
    df = small_cells()
    options = {"by": "age", "bins": {"age": [30, 60]}, "within_sites": True}
    with pytest.warns(MsmmivWarning, match=r"2 strata have fewer than 2 comparable rows.*'s = 0, age > 60'"):
        strata = strata_as_sites(df, design(), **options)
    bad = strata.table[strata.table["status"] == "left out"]
    assert bad["stratum"].tolist() == ["s = 0, age > 60", "s = 1, age > 60"]
    assert bad["n[1]"].tolist() == [0, 1]
    assert bad["n[0]"].tolist()[0] == 0  # controls without anyone to compare them with
    assert bad["into"].isna().all()
    assert len(strata.frame) == (df["age"] <= 60).sum()
    assert "2 strata left out" in repr(strata)
    assert estimate(strata).n_sites == 4
    with pytest.raises(DataError, match="small='drop' or 'merge'"):
        strata_as_sites(df, design(), small="error", **options)
    with pytest.warns(MsmmivWarning, match="'s = 0, age > 60'"):
        one = strata_as_sites(df, design(), min_per_arm=1, **options)
    assert one.table["status"].tolist().count("left out") == 1


def test_small_strata_are_merged_with_a_neighbour():
    df = small_cells()
    strata = strata_as_sites(
        df, design(), by=["age", "female"], bins={"age": [30, 60]}, within_sites=True, small="merge"
    )
    assert len(strata.frame) == len(df)
    table = strata.table.set_index("stratum")
    assert table.loc["s = 0, age > 60, female = 1", "into"] == "s = 0, age > 30, female = 1"
    assert table.loc["s = 0, age (30, 60], female = 1", "status"] == "merged"
    assert table.loc["s = 0, age <= 30, female = 1", "status"] == "kept"
    assert set(strata.frame["stratum"]) == set(table["into"])
    per_arm = strata.frame.groupby(["stratum", "t"]).size()
    assert per_arm.min() >= 2
    assert len(per_arm) == 2 * strata.frame["stratum"].nunique()


@pytest.mark.parametrize("least", [2, 20, 60, 120])
def test_merging_goes_as_far_as_it_must(least):
    df = trial(8, sites=3, n=900)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsmmivWarning)
        strata = strata_as_sites(
            df, design(), by="age", bins=12, within_sites=True, small="merge", min_per_arm=least
        )
    assert strata.frame.groupby(["stratum", "t"]).size().min() >= least
    for _, part in strata.frame.groupby(["s", "stratum"]):  # merged bins are neighbours
        others = strata.frame[(strata.frame["s"] == part["s"].iloc[0]) & ~strata.frame.index.isin(part.index)]
        assert not others["age"].between(part["age"].min(), part["age"].max()).any()


def test_an_arm_that_a_site_did_not_run_is_not_missed():
    df = trial(9, arms=("none", "A", "B"))
    df = df[~((df["s"] == 2) & (df["t"] == "B"))]
    strata = strata_as_sites(df, design(control="none"), by="female", within_sites=True)
    assert strata.table["status"].eq("kept").all()
    assert estimate(strata).n_instruments == 2 * (5 * 2 - 1)


def test_only_rows_that_can_be_compared_count():
    """In stratum 1 the treated are all in one site and the controls in the other: no comparison at all."""
    df = trial(10, sites=2)
    apart = (df["female"] == 1) & (df["t"] != df["s"])
    with pytest.warns(MsmmivWarning, match="'female = 1'"):
        strata = strata_as_sites(df[~apart], design(), by="female")
    assert strata.table[["n[0]", "n[1]"]].to_numpy()[1].tolist() == [0, 0]
    incomplete = df.assign(y=df["y"].where((df["female"] == 0) | (df["t"] == 0)))
    with pytest.warns(MsmmivWarning, match="'female = 1'"):
        strata_as_sites(incomplete, design(), by="female")
    kept = strata_as_sites(df.assign(y=df["y"].where(df["age"] > 20)), design(), by="female")
    assert len(kept.frame) == len(df)
    assert mm.Study(kept.frame, kept.design).flow.rows_used == (df["age"] > 20).sum()


def test_frequency_weights_count_as_copies():
    df = trial(11, n=300)
    full = design(weights="k", weight_kind="frequency")
    table = strata_as_sites(df, full, by="female").table
    want = df.groupby(["female", "t"])["k"].sum().unstack()
    assert table[["n[0]", "n[1]"]].to_numpy().tolist() == want.to_numpy().tolist()


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("column", "words"),
    [("y", "outcome"), ("m", "mediator"), ("t", "treatment"), ("c", "cluster"), ("w", "weights")],
)
def test_consequences_of_the_treatment_make_no_strata(column, words):
    full = design(cluster="c", weights="w", weight_kind="analytic")
    with pytest.raises(
        DesignError, match=rf"'{column}' (is|holds) the {words}|'{column}' is a {words}"
    ) as caught:
        strata_as_sites(trial(), full, by=["female", column])
    assert "before randomisation" in str(caught.value)


def test_missing_values():
    df = trial(12)
    df["female"] = df["female"].astype(float)
    df.loc[[3, 4], "female"] = [np.nan, np.inf]
    df["s"] = df["s"].astype(object).mask(df.index == 9)
    with pytest.raises(MissingDataError, match="2 rows have no 'female' and 1 row has no 's'") as caught:
        strata_as_sites(df, design(), by="female")
    assert 'missing="drop"' in str(caught.value)
    strata = strata_as_sites(df, design(), by="female", missing="drop")
    assert strata.missing == (("female", 2), ("s", 1))
    assert strata.frame.index.tolist() == [k for k in df.index if k not in (3, 4, 9)]
    with pytest.raises(MissingDataError, match="No row is left"):
        strata_as_sites(df.assign(female=np.nan), design(), by="female", missing="drop")


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (ColumnError, "'age' has 62 values.*'age': 4", {"by": "age"}),
        (ColumnError, "'sex'.*baseline", {"by": "sex"}),
        (ColumnError, "already has a column 'x'", {"by": "female", "name": "x"}),
        (ColumnError, "'label'.*labels, not numbers", {"by": "label", "bins": {"label": 2}}),
        (ColumnError, "into one bin", {"by": "age", "bins": {"age": [200]}}),
        (DesignError, "at least one column", {"by": []}),
        (DesignError, "each one once", {"by": ["female", "female"]}),
        (DesignError, "'age', which is not among 'female'", {"by": "female", "bins": {"age": 2}}),
        (ChoiceError, "bins=1 must be", {"by": "age", "bins": 1}),
        (ChoiceError, "bins=1 must be", {"by": "age", "bins": {"age": 1}}),
        (ChoiceError, "min_per_arm=0", {"by": "female", "min_per_arm": 0}),
        (DesignError, "no column has bins", {"by": "female", "small": "merge"}),
        (ChoiceError, "small='keep'", {"by": "female", "small": "keep"}),
        (ChoiceError, "missing='ignore'", {"by": "female", "missing": "ignore"}),
        (TooFewSitesError, "No stratum is left", {"by": "female", "min_per_arm": 10**6}),
    ],
)
def test_bad_requests(error, words, options):
    df = trial(13).assign(label="a")
    with pytest.raises(error, match=words) as caught:
        strata_as_sites(df, design(), **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_bad_frames():
    df = trial(14)
    with pytest.raises(DataError, match="to_pandas"):
        strata_as_sites(df.to_dict(), design(), by="female")
    with pytest.raises(DataError, match="no rows"):
        strata_as_sites(df.head(0), design(), by="female")
    with pytest.raises(DesignError, match="must be a Design"):
        strata_as_sites(df, "y ~ 1", by="female")
    with pytest.raises(DesignError, match="no arms"):
        strata_as_sites(df, design(treatment="dose", treatment_kind="continuous"), by="female")
    with pytest.raises(ColumnError, match=r"'school' \(site\)"):
        strata_as_sites(df, design(site="school"), by="female")
    with pytest.raises(DesignError, match="Leave it out"):
        strata_as_sites(df, design(site="stratum"), by="female", within_sites=True)
    with pytest.raises(ColumnError, match="more than one column"):
        strata_as_sites(pd.concat([df, df[["age"]]], axis=1), design(), by="age")
    with pytest.raises(ColumnError, match="several levels"):
        strata_as_sites(pd.concat({"a": df}, axis=1), design(), by="age")
    first, second = np.where(df["x"] > 0, "1, b = 2", "1"), np.where(df["x"] > 0, "3", "2, b = 3")
    with pytest.raises(ColumnError, match="same name"):
        strata_as_sites(df.assign(a=first, b=second), design(), by=["a", "b"])

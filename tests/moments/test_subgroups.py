"""Subgroups found in one half of the people and measured in the other, by compliance and never by outcome."""

from __future__ import annotations

import builtins
import importlib.util
import re
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
    MissingExtraError,
    TooFewSitesError,
)
from msmmiv.moments import subgroup_people
from msmmiv.moments.subgroup_tree import Tree, features_of, leaf_codes
from msmmiv.moments.subgroups import find_subgroups
from tests.moments.subgroup_trial import SITES, simple_tree, trial


@pytest.fixture(params=["by hand", "econml"])
def engine(request, monkeypatch):
    if request.param == "by hand":
        monkeypatch.setattr(subgroup_people, "grow", simple_tree)
    elif importlib.util.find_spec("econml") is None:
        pytest.skip("the extra 'subgroups' is not installed")
    return request.param


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setattr(subgroup_people, "grow", simple_tree)


# -------------------------------------------------------------------------------------- finding


def test_finds_what_the_treatment_moves(engine):
    df = trial(0)
    found = find_subgroups(df, SITES, by=["age", "female", "region"], max_leaves=4)
    words = found.table["stratum"].tolist()
    assert len(words) == 4
    assert all("age" in w and "female = " in w and "region" not in w for w in words)
    assert {int(x) for w in words for x in re.findall(r"age (?:<=|>) (\d+)", w)} <= set(range(37, 44))
    effects = found.effects
    assert effects.sites == tuple(sorted(words))
    assert set(np.round(np.sort(effects.compliance["m"]) / 0.5)) <= {0, 1, 2, 3, 4, 5, 6}
    assert np.ptp(effects.compliance["m"]) > 1.8
    young = [w for w in effects.sites if "age <= " in w]
    assert effects.compliance["m"][young].min() > 1.0
    assert found.design.site == "subgroup"
    assert found.design.block == "s"
    assert "4 subgroups" in repr(found)
    line = np.polyfit(effects.compliance["m"], effects.itt, 1)
    assert line == pytest.approx([0.5, 0.3], abs=0.2)


def test_halves(engine):
    df = trial(1).sample(frac=1, random_state=3)
    found = find_subgroups(df, SITES, by=["age", "female"], seed=5)
    used, away = found.frame.index, found.discovery
    assert not set(used) & set(away)
    assert set(used) | set(away) == set(df.index)
    half = df.index.isin(away)
    cells = df.assign(half=half).groupby(["s", "t"])["half"].agg(["sum", "size"])
    assert (abs(cells["sum"] - cells["size"] / 2) <= 1).all()
    few = find_subgroups(df, SITES, by=["age", "female"], share=0.25, min_arm=30)
    assert len(few.discovery) == pytest.approx(len(df) / 4, abs=1)
    again = find_subgroups(df, SITES, by=["age", "female"], seed=5)
    assert again.frame.equals(found.frame)
    assert not find_subgroups(df, SITES, by=["age", "female"], seed=6).frame.index.equals(used)


def test_moments_hold_the_estimation_half_alone(engine):
    df = trial(2)
    found = find_subgroups(df, SITES, by=["age", "female"])
    assert found.moments.n.sum() == len(found.frame)
    changed = df.copy()
    rng = np.random.default_rng(0)
    changed.loc[found.discovery, "y"] = rng.normal(size=len(found.discovery))
    same = find_subgroups(changed, SITES, by=["age", "female"])
    assert same.moments.equals(found.moments)
    # What decides is the mediator of the discovery half; the estimation half has no say in the splits.
    changed = df.copy()
    changed.loc[found.frame.index, ["m", "y"]] = rng.normal(size=(len(found.frame), 2))
    assert (
        find_subgroups(changed, SITES, by=["age", "female"]).table["stratum"].equals(found.table["stratum"])
    )
    changed = df.copy()
    changed.loc[found.discovery, "m"] = rng.normal(size=len(found.discovery))
    assert (
        not find_subgroups(changed, SITES, by=["age", "female"])
        .table["stratum"]
        .equals(found.table["stratum"])
    )


def test_sites_keep_their_intercepts(engine):
    """Sites enter as blocks: a shift of one site's outcome and mediator moves nothing."""
    df = trial(3)
    found = find_subgroups(df, SITES, by=["age", "female"])
    moved = df.assign(y=df["y"] + 100 * df["s"], m=df["m"] - 10 * df["s"])
    other = find_subgroups(moved, SITES, by=["age", "female"])
    assert other.table["stratum"].equals(found.table["stratum"])
    assert np.allclose(other.effects.estimates, found.effects.estimates, rtol=1e-9, atol=1e-9)
    leaf = found.effects.sites[0]
    rows = found.frame[found.frame["subgroup"] == leaf]
    centred = rows[["t", "m", "y"]] - rows.groupby("s")[["t", "m", "y"]].transform("mean")
    slope = (centred["t"] @ centred[["y", "m"]]) / (centred["t"] @ centred["t"])
    assert np.allclose(found.effects.estimates[0, 0], slope, rtol=1e-9)


def test_min_arm_and_max_leaves(engine):
    df = trial(4)
    for min_arm in (40, 150, 250):
        found = find_subgroups(df, SITES, by=["age", "female", "region"], min_arm=min_arm, max_leaves=5)
        assert 2 <= len(found.table) <= 5
        assert found.frame.groupby(["subgroup", "t"]).size().min() >= min_arm
        assert found.table[["n[0]", "n[1]"]].min().min() >= min_arm
    with pytest.raises(TooFewSitesError, match=r"No split by 'age' leaves 700 people in every arm"):
        find_subgroups(df, SITES, by="age", min_arm=700)


def test_people_without_comparison_do_not_count(engine):
    """A site with one arm has nobody to compare with: it makes no leaf large enough."""
    df = trial(5)
    df.loc[(df["s"] == 3) & (df["age"] > 40), "t"] = 1
    found = find_subgroups(df, SITES, by=["age", "female"], min_arm=50)
    for row in found.table.itertuples():
        part = found.frame[found.frame["subgroup"] == row.stratum]
        arms = part.groupby("s")["t"].transform("nunique")
        assert part[arms == 2].groupby("t").size().tolist() == [row[3], row[4]]


def test_a_leaf_that_only_looks_large_is_not_made(engine):
    """Women: all controls in one site, all treated in another, and few where both arms are."""
    df = trial(5)
    women = df["female"] == 1
    df.loc[women & (df["s"] == 3), "t"] = 0
    df.loc[women & (df["s"] == 2), "t"] = 1
    df = df.drop(df.index[women & (df["s"] < 2)][80:])
    assert df[df["female"] == 1].groupby("t").size().min() > 250
    with pytest.raises(TooFewSitesError, match="No split by 'female'"):
        find_subgroups(df, SITES, by="female", min_arm=50)


def test_clusters_are_never_split(engine):
    df = trial(6)
    clusters = mm.Design(outcome="y", treatment="t", mediators="m", site="subgroup", cluster="c")  # one trial
    found = find_subgroups(df, clusters, by=["age", "female"])
    assert not set(found.frame["c"]) & set(df.loc[found.discovery, "c"])
    assert found.effects.cov_type == "pooled"
    assert not found.effects.clusters_ignored


def test_several_arms_are_crossed_with_leaves(engine):
    df = trial(7, 6000)
    rng = np.random.default_rng(7)
    df["t"] = df["t"] * rng.integers(1, 3, len(df))
    df["m"] += (df["t"] == 2) * 0.7
    df["y"] += (df["t"] == 2) * 0.35
    found = find_subgroups(df, SITES, by=["age", "female"], max_leaves=4)
    assert found.effects.estimates.shape == (4, 2, 2)
    assert found.effects.contrasts == (1, 2)
    more = found.effects.estimates[:, 1] - found.effects.estimates[:, 0]
    assert more.mean(axis=0) == pytest.approx([0.35, 0.7], abs=0.25)


# ------------------------------------------------------------------------------ refusing, assigning


def test_the_discovery_half_is_refused(by_hand):
    found = find_subgroups(trial(8), SITES, by=["age", "female"])
    with pytest.raises(DesignError, match="selection on the estimated compliance"):
        found.effects_of("discovery")
    assert found.effects_of("estimation") is found.effects
    with pytest.raises(ChoiceError, match="half"):
        found.effects_of("both")


def test_assign(by_hand):
    df = trial(9)
    found = find_subgroups(df, SITES, by=["age", "female"])
    leaf = found.assign(df)
    assert leaf.index.equals(df.index)
    assert leaf.loc[found.discovery].isna().all()
    assert leaf.loc[found.frame.index].equals(found.frame["subgroup"])
    assert found.assign(df.iloc[::-1]).iloc[::-1].equals(leaf)
    with pytest.raises(DataError, match="3 rows of the frame were not in the data"):
        found.assign(pd.concat([df, df.iloc[:3].set_axis([-1, -2, -3])]))
    with pytest.raises(DataError, match="Keep the index"):
        found.assign(df.sample(frac=1, random_state=0).reset_index(drop=True))


def test_words_describe_their_people(engine):
    df = trial(10)
    found = find_subgroups(df, SITES, by=["age", "female", "region"], min_arm=20)
    for row in found.frame.sample(200, random_state=1).itertuples():
        for part in row.subgroup.split(" and "):
            part = re.sub(r"(\w+) is not (\w+)", r"\1 != '\2'", part)  # noqa: PLW2901
            part = re.sub(r"region = (\w+)", r"region = '\1'", part)  # noqa: PLW2901
            rule = re.sub(r"(?<![<>!])= ", "== ", part)
            assert eval(rule, {}, {"age": row.age, "female": row.female, "region": row.region}), rule  # noqa: S307


def test_features_and_words():
    df = pd.DataFrame(
        {"x": [0.5, 1.25, 2.0], "yes": [True, False, True], "who": ["a", "b", "c"], "same": 1.0}
    )
    features = features_of(df, ["x", "yes", "who", "same"])
    assert [(f.name, f.above) for f in features] == [
        ("x", ""), ("yes", "yes = True"), ("who", "who = a"), ("who", "who = b"), ("who", "who = c"),
    ]  # fmt: skip
    # x <= 1.5, then x <= 0.75; else who = b
    tree = Tree(np.array([1, 3, 5, -1, -1, -1, -1]), np.array([2, 4, 6, -1, -1, -1, -1]),
                np.array([0, 0, 3, -1, -1, -1, -1]), np.array([1.5, 0.75, 0.5, 0, 0, 0, 0]))  # fmt: skip
    assert list(tree.words(features).values()) == [
        "x <= 0.75", "0.75 < x <= 1.5", "x > 1.5 and who is not b", "x > 1.5 and who = b",
    ]  # fmt: skip
    x = np.column_stack([f.values for f in features])
    assert leaf_codes(tree, x)[0].tolist() == [0, 1, 2]
    assert list(tree.cut(2).words(features).values())[-1] == "x > 1.5"
    assert list(tree.without(3).words(features).values())[:2] == ["x <= 1.5", "x > 1.5 and who is not b"]
    spliced = Tree(np.array([1, -1, 3, -1, -1]), np.array([2, -1, 4, -1, -1]), np.array([0, -1, 3, -1, -1]),
                   np.array([1.5, 0, 0.5, 0, 0])).without(1)  # fmt: skip
    assert list(spliced.words(features).values()) == ["who is not b", "who = b"]
    assert tree.cut(0).words(features) == {0: "everybody"}


def test_refusals(by_hand, monkeypatch):
    df = trial(11, 600)
    for by, words in (
        ("m", "is a mediator"),
        ("y", "is the outcome"),
        ("t", "is the treatment"),
        ("s", "site or block"),
    ):
        with pytest.raises(DesignError, match=words):
            find_subgroups(df, SITES, by=by)
    two = mm.Design(outcome="y", treatment="t", mediators=["m", "w"], site="s")
    with pytest.raises(DesignError, match="Whose response"):
        find_subgroups(df, two, by="age")
    with pytest.raises(DesignError, match="never found by the outcome"):
        find_subgroups(df, SITES, by="age", mediator="y")
    with pytest.raises(ColumnError, match="holds labels"):
        find_subgroups(df.assign(m="low"), SITES, by="age")
    with pytest.raises(DataError, match="reset_index"):
        find_subgroups(pd.concat([df, df]), SITES, by="age")
    for share in (0.0, 1.0):
        with pytest.raises(DesignError, match="share"):
            find_subgroups(df, SITES, by="age", share=share)
    for option in ({"max_leaves": 1}, {"min_arm": 0}, {"seed": -1}):
        with pytest.raises(ChoiceError, match=next(iter(option))):
            find_subgroups(df, SITES, by="age", **option)
    with pytest.raises(ColumnError, match="varies"):
        find_subgroups(df, SITES, by="w")
    with pytest.raises(ColumnError, match="labels, too many"):
        find_subgroups(df.assign(who=(df.index % 99).astype(str)), SITES, by="who")
    holes = df.astype({"age": float})
    holes.loc[:4, "age"] = np.nan
    with pytest.raises(MissingDataError, match="5 rows have no 'age'"):
        find_subgroups(holes, SITES, by="age")
    assert len(find_subgroups(holes, SITES, by="age", missing="drop", min_arm=20).assign(holes[5:])) == 595


def test_without_the_extra(monkeypatch):
    real = builtins.__import__

    def no_econml(name, *args, **kwargs):
        if name.startswith("econml"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_econml)
    with pytest.raises(MissingExtraError, match=r"pip install 'msmmiv\[subgroups\]'"):
        find_subgroups(trial(12), SITES, by="age")


def test_rows_that_lack_a_value(engine):
    df = trial(13)
    df.loc[df.index[::7], "m"] = np.nan
    df.loc[df.index[::11], "y"] = np.nan
    found = find_subgroups(df, SITES, by=["age", "female"], min_arm=100)
    complete = found.frame.dropna()
    assert complete.groupby(["subgroup", "t"]).size().min() >= 100
    assert found.moments.n.sum() == len(complete)


def test_weights(engine):
    """Rows of almost no weight do not decide: half of them have no response at all."""
    df = trial(14).assign(w=1.0)
    ghost = trial(15, 1000, gain=0.0).assign(w=1e-6)
    both = pd.concat([df, ghost], ignore_index=True)
    d = mm.Design(outcome="y", treatment="t", mediators="m", site="s", weights="w", weight_kind="analytic")
    found = find_subgroups(both, d, by=["age", "female"], max_leaves=2)
    predicted = found.table["predicted"].to_numpy()
    assert np.ptp(predicted) == pytest.approx(1.5, abs=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.ptp(found.effects.compliance["m"]) > 0.8


# ------------------------------------------------------------------------------- what is honest


def variance_ratio(e):
    """Variance of compliance over leaves against what sampling error explains: 1 where there is no heterogeneity."""
    return e.compliance["m"].var() / e.cov[:, 0, 1, 0, 1].mean()


def test_selection_inflates_the_variance_of_compliance(engine):
    """Nobody responds differently; the half that chose sees differences all the same, the other half does not."""
    honest, reused = [], []
    for seed in range(20):
        df = trial(seed, 1600, gain=0.0)
        found = find_subgroups(df, SITES, by=["age", "female"], seed=seed, min_arm=30, max_leaves=6)
        honest.append(variance_ratio(found.effects))
        texts = found.table["stratum"]
        rules = {w: re.sub(r"(?<![<>!])= ", "== ", w) for w in texts}
        again = df.loc[found.discovery].copy()
        again["subgroup"] = ""
        for word, rule in rules.items():
            again.loc[again.eval(rule), "subgroup"] = word
        assert (again["subgroup"] != "").all()
        reused.append(variance_ratio(mm.SiteEffects.from_moments(mm.Moments.from_data(again, found.design))))
    assert np.mean(honest) == pytest.approx(1.0, abs=0.45)
    assert np.mean(reused) > 2.0
    assert np.mean(reused) > 2 * np.mean(honest)

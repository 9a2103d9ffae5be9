"""Several agencies, one analysis: merged files equal the pooled rows, and files that must not be merged are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, LabelWarning, MergeWarning, MomentsMismatch
from tests.moments.helpers import design, people

DESIGNS = {
    "plain": {},
    "blocks": {"block": "b"},
    "clusters": {"cluster": "c"},
    "covariates": {"covariates": ["x", "w"]},
    "two mediators": {"mediators": ["m", "m2"], "block": "b", "cluster": "c"},
    "analytic": {"weights": "w", "weight_kind": "analytic", "covariates": ["x"]},
    "probability": {"weights": "w", "weight_kind": "probability", "block": "b"},
    "frequency": {"weights": "k", "weight_kind": "frequency", "cluster": "c"},
    "dose": {"treatment": "dose", "treatment_kind": "continuous", "block": "b"},
    "three arms": {"control": "none", "mediators": ["m", "m2"]},
    "everything": {
        "mediators": ["m", "m2"], "covariates": ["x"], "block": "b", "cluster": "c", "weights": "w",
        "weight_kind": "probability",
    },
}  # fmt: skip
AGENCIES = ("north", "east", "south")


def moments(df, **options):
    return mm.Moments.from_data(df, design(**options))


def trial(name, seed=1, n=600):
    arms = ("none", "A", "B") if name == "three arms" else (0, 1)
    return people(seed, n=n, sites=6, mediators=2, arms=arms)


def sent(df, owner, folder, **options):
    """A file from every agency that has rows."""
    return [
        moments(df[owner == k], **options).save(folder / f"{agency}.{'csv' if k else 'parquet'}")
        for k, agency in enumerate(AGENCIES)
        if (owner == k).any()
    ]


# --------------------------------------------------------------------------------- merged equals pooled


@pytest.mark.parametrize("by_site", [False, True])
@pytest.mark.parametrize("name", DESIGNS)
def test_merged_is_pooled(name, by_site, tmp_path):
    """Whoever holds which person: whole sites, or people of one site with three agencies."""
    df, options = trial(name), DESIGNS[name]
    rng = np.random.default_rng([by_site, *name.encode()])
    owner = rng.permutation(6)[df["s"]] % 3 if by_site else rng.integers(0, 3, len(df))
    paths = sent(df, owner, tmp_path, **options)
    merged = mm.Moments.load(*paths, shared_sites="refuse" if by_site else "pool")
    pooled = moments(df, **options)
    assert merged.equals(pooled, rtol=1e-12)
    assert merged.flow == pooled.flow
    rows_needed = {"covariates", "treatment_kind"} & set(options) and "cluster" not in options
    for kind in ("site", *([] if rows_needed else [None])):
        one, other = (mm.fit(m, "2sls", cov_type=kind) for m in (merged, pooled))
        np.testing.assert_allclose(one.params, other.params, rtol=1e-12)
        np.testing.assert_allclose(one.std_errors, other.std_errors, rtol=1e-12)


def test_missing_rows_of_all_agencies_add_up(tmp_path):
    df = trial("plain")
    df.loc[df.index[::11], "y"] = np.nan
    df.loc[df.index[::7], "m"] = np.inf
    paths = sent(df, df["s"] % 3, tmp_path)
    merged, pooled = mm.Moments.load(*paths), moments(df)
    assert merged.flow == pooled.flow
    assert pooled.flow.incomplete > 100


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_order_of_files_does_not_matter(order, tmp_path):
    df = trial("plain")
    paths = sent(df, df.index % 3, tmp_path)
    merged = mm.Moments.load(*[paths[k] for k in order], shared_sites="pool")
    assert merged.equals(moments(df))
    assert merged.flow == moments(df).flow


# ------------------------------------------------------------------------------------------ refusals


def refused(match, *paths, error=MomentsMismatch, **options):
    with pytest.raises(error, match=match) as caught:
        mm.Moments.load(*paths, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def two(tmp_path):
    """Saves two halves, without sites in common, each in its own way."""
    df = trial("plain")

    def save(change=lambda d: d, *, mine=None, theirs=None, options=None, units=(None, None)):
        options = options or {}
        first, second = df[df["s"] < 3], change(df[df["s"] >= 3])
        return (
            moments(first, **{**options, **(mine or {})}).save(tmp_path / "a.csv", units=units[0]),
            moments(second, **{**options, **(theirs or {})}).save(tmp_path / "b.csv", units=units[1]),
        )

    return save


@pytest.mark.parametrize(
    ("said", "mine", "theirs"),
    [
        (r"outcome: 'y' and 'x'", {}, {"outcome": "x"}),
        (r"mediators: \['m'\] and \['m2'\]", {}, {"mediators": ["m2"]}),
        (r"mediators: \['m', 'm2'\] and \['m2', 'm'\] \(the same in another order\)",
         {"mediators": ["m", "m2"]}, {"mediators": ["m2", "m"]}),
        (r"covariates: \['x'\] and \[\]", {"covariates": ["x"]}, {}),
        (r"block: None and 'b'", {}, {"block": "b"}),
        (r"cluster: 'c' and None", {"cluster": "c"}, {}),
        (r"weight_kind: 'analytic' and 'probability'", {"weights": "w", "weight_kind": "analytic"},
         {"weights": "w", "weight_kind": "probability"}),
        (r"control: None and 0", {}, {"control": 0}),
        (r"estimand: 'ate' and 'late'", {}, {"estimand": "late"}),
        (r"treatment: 't' and 'dose'; treatment_kind: 'arms' and 'continuous'", {},
         {"treatment": "dose", "treatment_kind": "continuous"}),
    ],
)  # fmt: skip
def test_roles_that_differ_are_named_with_the_files(said, mine, theirs, two):
    refused(
        rf"a\.csv' and '.*b\.csv' have different designs: they differ in .*{said}",
        *two(mine=mine, theirs=theirs),
    )


def test_text_and_numbers_are_not_one_label(two):
    said = r"labels of 's' \(site\) are numbers in '.*a\.csv' \(such as 0\) and text in '.*b\.csv' \(such as '3'\)"
    refused(said, *two(lambda d: d.assign(s=d["s"].map(str))))
    text = people(3, n=200, sites=3).assign(t=lambda d: d["t"].map(str), s=lambda d: d["s"] + 9)
    path = moments(text, control="0").save(two()[0].parent / "c.csv")
    refused("they differ in control", two()[0], path)
    refused(
        "'c' \\(cluster\\) are numbers", *two(lambda d: d.assign(c=d["c"].map(str)), options={"cluster": "c"})
    )


def test_whole_and_broken_numbers_are_one_kind_of_label(two):
    merged = mm.Moments.load(*two(lambda d: d.assign(s=d["s"] + 0.5)))
    assert merged.sites == (0, 1, 2, 3.5, 4.5, 5.5)
    assert mm.Moments.load(*two(lambda d: d.assign(t=d["t"] == 1))).n_cells == 12


def test_labels_that_are_spelt_almost_alike_are_noticed(two):
    paths = two(lambda d: d.assign(s=d["s"].map("School {}".format).where(d["s"] > 3, "school 0")))
    df = trial("plain")
    named = df[df["s"] < 3].assign(s=lambda d: d["s"].map("School {}".format))
    moments(named).save(paths[0])
    with pytest.warns(LabelWarning, match="'School 0' = 'school 0'"):
        mm.Moments.load(*paths)


def test_units_that_differ_are_refused_and_missing_ones_said(two):
    refused(r"units of '.*a\.csv' and '.*b\.csv' differ: m is in 'hours' and in 'minutes'",
            *two(units=({"m": "hours", "y": "points"}, {"m": "minutes"})))  # fmt: skip
    with pytest.warns(
        MergeWarning, match=r"Not every one of '.*a\.csv' and '.*b\.csv' names the unit of m \(hours\)"
    ):
        merged = mm.Moments.load(*two(units=({"m": "hours"}, None)))
    assert merged.units == (("m", "hours"),)
    merged = mm.Moments.load(*two(units=({"m": "hours"}, {"m": "hours"})))
    assert merged.units == (("m", "hours"),)
    none, hours = two(units=(None, {"m": "hours"}))
    third = moments(people(4, n=200, sites=2).assign(s=lambda d: d["s"] + 20)).save(
        hours.parent / "c.csv", units={"m": "minutes"}
    )
    with pytest.warns(MergeWarning):
        refused(r"c\.csv' differ: m is in 'hours' and in 'minutes'", none, hours, third)
    a, b = (mm.Moments.load(p) for p in two(units=({"m": "hours"}, {"m": "minutes"})))
    with pytest.raises(MomentsMismatch, match="'hours' and in 'minutes'"):
        a + b


def test_cells_by_cluster_and_without_do_not_add_up(two, tmp_path):
    paths = two(options={"cluster": "c"})
    merged = mm.Moments.load(paths[1]).by_arm()
    merged.save(paths[1])
    refused("Cells by cluster and cells in which clusters were merged", *paths)
    with pytest.raises(MomentsMismatch, match="by_arm"):
        mm.Moments.load(paths[0]) + merged


# ----------------------------------------------------------------------------- the same site, the same people


def test_sites_in_two_files_are_named(tmp_path):
    df = trial("plain")
    owner = np.where(df["s"] == 2, df.index % 3, df["s"] % 2)
    paths = sent(df, owner, tmp_path)
    said = refused(
        r"1 site is in more than one file: 2 in '.*north.parquet', '.*east.csv' and '.*south.csv'", *paths
    )
    for remedy in ('shared_sites="pool"', "a label of its own", "leave one file out"):
        assert remedy in said
    assert mm.Moments.load(*paths, shared_sites="pool").equals(moments(df))
    every = sent(df, df.index % 2, tmp_path)
    refused(
        r"6 sites are in more than one file: 0, 1, 2, 3, 4 and 1 more in '.*parquet' and '.*east.csv'\.",
        *every,
    )


def test_numbers_given_anew_by_each_agency_are_other_sites(tmp_path):
    """Why sites in two files are not simply added up: schools 0 to 2 of both agencies become three schools."""
    df = trial("plain", n=1200)
    anew = df.assign(s=df["s"] % 3)
    paths = sent(anew, df["s"] // 3, tmp_path)
    refused("3 sites are in more than one file", *paths)
    wrong = mm.fit(mm.Moments.load(*paths, shared_sites="pool"), "2sls").params["m"]
    right = mm.fit(moments(df), "2sls").params["m"]
    assert abs(wrong - right) > 1e-3


@pytest.mark.parametrize("relabelled", [False, True])
def test_people_in_two_files_are_noticed_by_equal_cells(relabelled, tmp_path):
    df = trial("plain")
    a = moments(df[df["s"] < 4]).save(tmp_path / "a.csv")
    # Rows in another order, sums in other digits, and a site under another name.
    again = df[df["s"] >= 3].sample(frac=1, random_state=1).assign(s=lambda d: d["s"] + 10 * relabelled)
    b = moments(again).save(tmp_path / "b.parquet")
    said = r"2 cells of '.*a\.csv' \(site 3, arm 0 and site 3, arm 1\) can be found in '.*b\.parquet'.*same people"
    refused(said, a, b)
    options = {} if relabelled else {"shared_sites": "pool"}
    assert mm.Moments.load(a, b, equal_cells="keep", **options).n.sum() == len(df) + (df["s"] == 3).sum()


def test_coarse_data_repeat_themselves(tmp_path):
    """Cells of a few 0/1 values are alike in one file too: that is no sign of the same people."""
    df = pd.DataFrame(
        [(s, t, 0.0, 1.0 * t) for s in range(6) for t in (0, 1) for _ in range(2)], columns=list("stym")
    )
    paths = [moments(df[df["s"] % 2 == k]).save(tmp_path / f"{k}.csv") for k in (0, 1)]
    assert mm.Moments.load(*paths).n.sum() == 24


def test_closed_choices(two):
    paths = two()
    refused("shared_sites='add' is not one of", *paths, error=ChoiceError, shared_sites="add")
    refused("equal_cells='pool' is not one of", *paths, error=ChoiceError, equal_cells="pool")

"""Moments equal the same numbers computed from the rows by loops, for every kind of design."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.errors import ChoiceError, DataError, MomentsMismatch, OneArmSiteWarning
from tests.moments.helpers import brute, check_cells, check_order, design, people

DESIGNS = {
    "plain": {},
    "blocks": {"block": "b"},
    "clusters": {"cluster": "c"},
    "blocks and clusters": {"block": "b", "cluster": "c"},
    "analytic": {"weights": "w", "weight_kind": "analytic"},
    "probability": {"weights": "w", "weight_kind": "probability", "block": "b", "cluster": "c"},
    "frequency": {"weights": "k", "weight_kind": "frequency"},
    "frequency clusters": {"weights": "k", "weight_kind": "frequency", "cluster": "c"},
    "covariates": {"covariates": ["x", "w"]},
    "two mediators": {"mediators": ["m", "m2"], "covariates": ["x"]},
    "dose": {"treatment": "dose", "treatment_kind": "continuous"},
    "dose blocks": {"treatment": "dose", "treatment_kind": "continuous", "block": "b", "covariates": ["x"]},
    "dose weighted": {
        "treatment": "dose", "treatment_kind": "continuous", "weights": "w", "weight_kind": "analytic",
    },
}  # fmt: skip


def moments(df, **options):
    return mm.Moments.from_data(df, design(**options))


# ------------------------------------------------------------------------------- against the rows


@pytest.mark.parametrize("name", DESIGNS)
def test_cells_equal_loops_over_rows(name):
    df = people(1, mediators=2)
    d = design(**DESIGNS[name])
    m = mm.Moments.from_data(df, d)
    check_cells(m, brute(df, d))
    check_order(m)
    assert m.flow.rows_used == m.n.sum()
    assert (m.squared is m.first) == (d.weight_kind not in ("analytic", "probability"))


def test_squared_weights_are_not_the_square_of_weighted_moments():
    df = people(2)
    m = moments(df, weights="w", weight_kind="analytic")
    part = df[(df["s"] == 0) & (df["t"] == 0)]
    w2 = part["w"].to_numpy() ** 2
    assert m.squared.weight[0] == pytest.approx(w2.sum(), rel=1e-13)
    assert m.squared.mean[0, 0] == pytest.approx(np.average(part["y"], weights=w2), rel=1e-12)
    assert not np.isclose(m.squared.mean[0, 0], m.first.mean[0, 0])


def test_three_labelled_arms_put_the_control_first():
    df = people(3, arms=("none", "A", "b"))
    m = moments(df, control="none")
    assert m.arms == ("none", "A", "b")
    check_cells(m, brute(df, m.design))
    assert moments(df, control="b").arms == ("b", "A", "none")


def test_arms_are_0_and_1_in_any_spelling_of_numbers():
    df = people(4)
    plain = moments(df)
    for kind in ("bool", "int8", "float32", "Int64", "boolean", "Float64", "category", "int64[pyarrow]"):
        got = moments(df.assign(t=df["t"].astype(kind)))
        assert got.arms == (0, 1), kind
        np.testing.assert_array_equal(got.first.scatter, plain.first.scatter)


@pytest.mark.parametrize(
    "kind",
    [
        "int64", "Int64", "float64", "Float64", "str", "object", "category", "datetime", "int64[pyarrow]",
        "string[pyarrow]",
    ],
)  # fmt: skip
def test_site_labels_of_any_kind_give_the_same_cells(kind):
    df = people(5, sites=6)
    labels = {"datetime": pd.Timestamp("2020-01-30") + pd.to_timedelta(df["s"], unit="D")}
    other = df.assign(s=labels.get(kind, df["s"].astype(kind if kind != "datetime" else "int64")))
    m = moments(other)
    if kind in ("str", "string[pyarrow]"):
        assert m.sites == tuple("012345")
    elif kind == "datetime":
        assert m.sites[:3] == ("2020-01-30", "2020-01-31", "2020-02-01")
    else:
        assert m.sites == tuple(range(6))
        assert {type(s) for s in m.sites} == {int}
    np.testing.assert_array_equal(m.first.scatter, moments(df).first.scatter)


def test_unused_categories_are_no_sites():
    df = people(6)
    df["s"] = pd.Categorical.from_codes(df["s"], [f"site {k}" for k in range(9)])
    assert moments(df).sites == tuple(f"site {k}" for k in range(5))


def test_numbers_sort_by_value_and_text_after_them():
    df = people(7, sites=12)
    assert moments(df).sites == tuple(range(12))
    assert moments(df.assign(s=df["s"] + 0.5)).sites[:3] == (0.5, 1.5, 2.5)
    assert moments(df.assign(s=df["s"].astype(str))).sites[:4] == ("0", "1", "10", "11")


def test_a_mixture_of_numbers_and_text_becomes_text():
    df = people(8)
    df["s"] = [f"{v}" if v % 2 else v for v in df["s"]]
    m = moments(df)
    assert m.sites == ("0", "1", "2", "3", "4")
    np.testing.assert_array_equal(m.first.scatter, moments(people(8)).first.scatter)


@pytest.mark.parametrize(
    "kind", ["bool", "int8", "uint64", "float32", "Int64", "Float64", "boolean", "double[pyarrow]"]
)
def test_numeric_columns_of_any_kind(kind):
    df = people(9)
    df["m"] = (df["m"] > 0.3).astype(int)
    want = moments(df)
    got = moments(df.assign(m=df["m"].astype(kind)))
    np.testing.assert_allclose(got.first.mean, want.first.mean, rtol=1e-15)
    np.testing.assert_allclose(got.first.scatter, want.first.scatter, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10**6))
def test_the_order_of_rows_does_not_matter(seed):
    df = people(10)
    shuffled = df.sample(frac=1, random_state=seed)
    assert moments(shuffled, cluster="c").equals(moments(df, cluster="c"))


def test_equals_notices_what_differs():
    df = people(11)
    m = moments(df)
    assert not m.equals(moments(df.assign(y=df["y"] + 1e-6)))
    assert not m.equals(moments(df.assign(s=df["s"] + 1)))
    assert not m.equals(moments(df, covariates=["x"]))
    assert not m.equals(m.drop(0))
    assert m.equals(moments(df.assign(y=df["y"] + 1e-6)), rtol=1e-5)


def test_the_table_is_tidy():
    m = moments(people(12), block="b", cluster="c", weights="w", weight_kind="analytic")
    frame = m.to_frame()
    assert list(frame)[:6] == ["site", "block", "arm", "cluster", "n", "weight"]
    assert len(frame) == m.n_cells
    assert "squared_scatter[y,m]" in frame
    assert frame["scatter[y,m]"].tolist() == m.first.scatter[:, 0, 1].tolist()
    assert "squared_weight" not in moments(people(12)).to_frame()


def test_repr_counts_rows_cells_and_labels():
    m = moments(people(13), block="b", cluster="c")
    assert (
        repr(m)
        == f"Moments(300 rows in {m.n_cells} cells: 5 sites, 10 blocks, 2 arms, {len(m.clusters)} clusters)"
    )


# ---------------------------------------------------------------------------------- merge and drop

MERGED = {k: DESIGNS[k] for k in ("plain", "blocks and clusters", "probability", "frequency", "dose")}


def split(df, seed, parts):
    to = np.random.default_rng(seed).integers(0, parts, len(df))
    return [df[to == p] for p in range(parts) if (to == p).any()]


@pytest.mark.parametrize("name", MERGED)
@given(seed=st.integers(0, 10**6), parts=st.integers(2, 6))
def test_parts_split_at_random_merge_to_the_whole(name, seed, parts):
    df = people(20)
    whole = moments(df, **MERGED[name])
    pieces = [moments(p, **MERGED[name]) for p in split(df, seed, parts)]
    total = sum(pieces[1:], start=pieces[0])
    assert total.equals(whole)
    assert total.flow == whole.flow


@given(seed=st.integers(0, 10**6))
def test_merging_is_associative_and_free_of_order(seed):
    a, b, c = (moments(p, cluster="c") for p in split(people(21), seed, 3))
    assert ((a + b) + c).equals(a + (b + c))
    assert (a + b).equals(b + a)
    assert ((a + b) + c).flow == (a + (b + c)).flow == (c + b + a).flow


@given(sites=st.sets(st.integers(0, 4), min_size=1, max_size=4))
def test_drop_undoes_merge(sites):
    df = people(22)
    inside = df["s"].isin(sites)
    rest, gone = moments(df[~inside], block="b"), moments(df[inside], block="b")
    assert (rest + gone).drop(*sites).equals(rest, rtol=0)
    assert (rest + gone).drop(*sites).flow.rows_used == len(df[~inside])


def test_merging_keeps_digits_far_from_zero():
    df = people(23)
    far = df.assign(y=df["y"] + 1e8)
    whole = moments(far)
    a, b = (moments(p) for p in split(far, 1, 2))
    scale = np.sqrt(whole.first.scatter[:, 0, 0])
    merged = (a + b).first.scatter
    assert np.all(np.abs(merged[:, 0, 0] - whole.first.scatter[:, 0, 0]) <= 1e-6 * scale**2)


def test_merging_counts_missing_rows_of_both():
    df = people(24)
    df.loc[[1, 5, 9], "y"] = np.nan
    df.loc[[9, 200], "m"] = np.nan
    whole = moments(df)
    total = moments(df[:100]) + moments(df[100:])
    assert total.flow == whole.flow
    assert dict(whole.flow.missing) == {"y": 3, "m": 2}
    assert whole.flow.incomplete == 4
    assert sum(c.rows for c in whole.flow.missing_cells) == 5


def test_merging_an_unknown_thing_is_a_type_error():
    with pytest.raises(TypeError):
        moments(people(25)) + 1


def test_designs_that_differ_cannot_be_merged():
    df = people(26)
    with pytest.raises(MomentsMismatch, match=r"differ in covariates: \[\] and \['x'\]"):
        moments(df) + moments(df, covariates=["x"])
    with pytest.raises(MomentsMismatch, match=r"control: None and 0; estimand: 'ate' and 'late'"):
        moments(df) + moments(df, control=0, estimand="late")


def test_a_site_with_one_arm_in_each_source_becomes_usable():
    df = people(27)
    first = (df["s"] != 2) | (df["t"] == 0)
    a, b = moments(df[first]), moments(df[~first])
    with pytest.warns(OneArmSiteWarning, match=r"1 of 5 sites.*: 2\."):
        a.usable()
    with pytest.raises(DataError, match=r"'t' does not vary inside any site \(arms found: 1\)"):
        b.usable()
    assert (a + b).usable().equals(moments(df))
    assert mm.fit(a + b, "2sls").params["m"] == pytest.approx(
        mm.fit(moments(df), "2sls").params["m"], rel=1e-12
    )


def test_arms_may_be_seen_by_one_source_only():
    df = people(28, arms=("none", "A", "B"))
    a, b = moments(df[df["t"] != "B"], control="none"), moments(df[df["t"] == "B"], control="none")
    assert b.arms == ("B",)
    assert (a + b).equals(moments(df, control="none"))


def test_numbers_and_text_for_the_same_site_merge_as_text():
    df = people(29)
    a, b = moments(df[:150]), moments(df[150:].assign(s=df["s"].astype(str)))
    assert (a + b).sites == ("0", "1", "2", "3", "4")
    assert (a + b).equals(moments(df.assign(s=df["s"].astype(str))))


def test_drop_refuses_unknown_sites_and_the_last_one():
    m = moments(people(30))
    with pytest.raises(DataError, match="No site 7; the sites are 0, 1, 2, 3 and 4"):
        m.drop(7)
    with pytest.raises(DataError, match="No site is left"):
        m.drop(*m.sites)


def test_drop_is_counted_in_the_flow():
    df = people(31)
    m = moments(df).drop(1).drop(3)
    assert [(d.site, d.rows, d.reason) for d in m.flow.dropped] == [
        (1, int((df["s"] == 1).sum()), "left out by request"),
        (3, int((df["s"] == 3).sum()), "left out by request"),
    ]
    assert m.flow.rows_used == m.n.sum()


def test_with_frequency_weights_the_flow_counts_copies():
    df = people(32)
    df.loc[[0, 3], "y"] = np.nan
    expanded = df.loc[df.index.repeat(df["k"])].reset_index(drop=True)
    options = {"weights": "k", "weight_kind": "frequency"}
    weighted = moments(df, **options).drop(1)
    plain = moments(expanded).drop(1)
    assert weighted.flow == plain.flow
    assert weighted.flow.rows_used == weighted.n.sum()


# ------------------------------------------------------------------------------------------ usable


def test_one_arm_sites_are_dropped_with_a_list():
    df = people(33, sites=8)
    df = df[~(df["s"].isin([2, 5]) & (df["t"] == 1))]
    m = moments(df)
    gone = int(df["s"].isin([2, 5]).sum())
    with pytest.warns(OneArmSiteWarning, match=rf"2 of 8 sites.* dropped \({gone} rows\): 2 and 5"):
        usable = m.usable()
    assert usable.sites == (0, 1, 3, 4, 6, 7)
    assert [d.site for d in usable.flow.dropped] == [2, 5]
    assert usable.equals(moments(df[~df["s"].isin([2, 5])]))


def test_usable_moments_are_left_alone():
    m = moments(people(34))
    assert m.usable() is m


def test_blocks_with_one_arm_do_not_cost_the_site():
    df = people(35)
    lame = (df["s"] == 1) & (df["b"] == 0) & (df["t"] == 1)
    m = moments(df[~lame], block="b")
    assert m.usable() is m
    only = moments(
        df[~((df["s"] == 1) & (df["t"] != df["b"]))], block="b"
    )  # both blocks one-armed: arms differ
    with pytest.warns(OneArmSiteWarning, match=": 1"):
        assert only.usable().n_sites == 4


@pytest.mark.parametrize("offset", [0.0, 0.1, 1e6 / 3])
def test_a_constant_dose_is_one_arm(offset):
    df = people(36)
    df["dose"] = df["dose"] * 0.1 + offset
    df.loc[df["s"] == 3, "dose"] = offset + 0.7
    with pytest.warns(OneArmSiteWarning, match=": 3"):
        m = moments(df, treatment="dose", treatment_kind="continuous").usable()
    assert m.sites == (0, 1, 2, 4)


def test_a_dose_that_varies_nowhere_is_refused():
    df = people(37).assign(dose=0.1)
    with pytest.raises(DataError, match="'dose' does not vary inside any site"):
        moments(df, treatment="dose", treatment_kind="continuous").usable()


def test_by_arm_forgets_the_clusters():
    df = people(38)
    got = moments(df, cluster="c", block="b").by_arm()
    want = moments(df, block="b")
    np.testing.assert_allclose(got.first.scatter, want.first.scatter, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(got.n, want.n)
    assert got.clusters == ()
    assert want.by_arm() is want


def test_cluster_means_are_rows():
    df = people(39)
    got = moments(df, cluster="c").cluster_means()
    rows = df.groupby(["s", "t", "c"], as_index=False).agg(
        y=("y", "mean"), m=("m", "mean"), size=("y", "size")
    )
    want = moments(rows, weights="size", weight_kind="analytic")
    np.testing.assert_array_equal(got.n, want.n)
    for a, b in ((got.first, want.first), (got.squared, want.squared)):
        np.testing.assert_allclose(a.weight, b.weight, rtol=1e-13)
        np.testing.assert_allclose(a.mean, b.mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-10, atol=1e-10)
    with pytest.raises(DataError, match="need a design with cluster"):
        want.cluster_means()


def test_missing_is_a_closed_choice():
    with pytest.raises(ChoiceError, match="missing='ignore' is not one of 'error' and 'drop'"):
        mm.Moments.from_data(people(40), design(), missing="ignore")

"""Signs of compliance and instrumental inequalities: exact laws by counting, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

import msmmiv as mm
from msmmiv.diagnose.density import instrumental_inequalities
from msmmiv.diagnose.monotonicity import compliance_signs, is_binary
from msmmiv.inference.tests import NotApplicable, TestStatistic


def design(**more):
    return mm.Design(**{"outcome": "y", "treatment": "t", "mediators": ["m"], "site": "s"} | more)


def frame(rng, sites=10, n=15, comply=0.4, direct=0.0, arms=2):
    df = pd.DataFrame(
        {"s": np.repeat(range(sites), n * arms), "t": np.tile(np.repeat(range(arms), n), sites)}
    )
    u = rng.random(len(df))
    df["m"] = ((u < 0.3) | ((u < 0.3 + comply) & (df["t"] > 0))).astype(float)
    df["k"] = (rng.random(len(df)) < 0.5).astype(float)
    df["y"] = df["m"] + direct * df["t"] + rng.normal(size=len(df)) + rng.normal(size=sites)[df["s"]]
    df["c"] = np.arange(len(df)) // 3
    return df


def test_p_values_are_fishers_and_the_smallest_has_its_exact_law():
    df = frame(np.random.default_rng(1), sites=4, n=6, comply=0.0)
    found = compliance_signs(mm.Moments.from_data(df, design()))
    laws = []
    for s in range(4):
        own = df[df["s"] == s]
        a, b = (own.loc[own["t"] == t, "m"].sum() for t in (1, 0))
        assert found.pvalue[s, 0, 0] == pytest.approx(fisher_exact([[a, 6 - a], [b, 6 - b]], "less").pvalue)
        hits = int(a + b)
        attainable = [
            (fisher_exact([[x, 6 - x], [hits - x, 6 - hits + x]], "less").pvalue, x)
            for x in range(max(0, hits - 6), min(hits, 6) + 1)
        ]
        laws.append([p for p, _ in attainable])
    least = np.nanmin(found.pvalue)
    none = np.prod([1.0 - max([p for p in law if p <= least * (1 + 1e-9)], default=0.0) for law in laws])
    assert found.joint.pvalue == pytest.approx(1.0 - none)
    assert found.role == "evidence"


def test_blocks_add_up_and_a_site_of_defiers_is_found():
    df = frame(np.random.default_rng(2)).assign(b=lambda f: f.index % 2)
    quiet = compliance_signs(mm.Moments.from_data(df, design(block="b")))
    assert quiet.joint.pvalue > 0.5
    against = df.assign(m=df["m"].where(df["s"] != 3, 1.0 - df["t"]))
    found = compliance_signs(mm.Moments.from_data(against, design(block="b")))
    assert found.joint.pvalue < 1e-6
    assert found.compliance[3, 0, 0] == pytest.approx(-1.0)
    [one] = found.evidence()
    assert "(vi)" in one.reading
    assert "has a negative compliance" in one.reading
    assert "80%" in one.detectable
    assert found.to_frame().set_index("site")["compliance"].idxmin() == 3


def test_several_mediators_arms_and_missing_arms():
    df = frame(np.random.default_rng(3), arms=3)
    df = df[~((df["s"] == 1) & (df["t"] == 2))]
    found = compliance_signs(mm.Moments.from_data(df, design(mediators=["m", "k"])))
    assert "Holm over 2 mediators" in found.joint.dist
    assert np.isnan(found.pvalue[1, 1]).all()
    assert set(found.to_frame()["arm"]) == {1, 2}
    mixed = compliance_signs(mm.Moments.from_data(df.assign(k=df["y"] * 2), design(mediators=["m", "k"])))
    assert "not 0/1" in mixed.tests[1].reason
    assert isinstance(mixed.joint, TestStatistic)


def test_clusters_weights_and_tables_are_context():
    df = frame(np.random.default_rng(4)).assign(w=1.5)
    clusters = compliance_signs(mm.Moments.from_data(df, design(cluster="c")))
    weights = compliance_signs(mm.Moments.from_data(df, design(weights="w", weight_kind="analytic")))
    table = compliance_signs(mm.SiteEffects.from_moments(mm.Moments.from_data(df, design())))
    for found in (clusters, weights, table):
        assert found.role == found.evidence()[0].role == "context"
        assert "Sidak" in found.joint.dist
    assert compliance_signs(mm.Moments.from_data(df, design(cluster="c")), assigned="rows").role == "evidence"


def test_mediators_that_are_not_binary_or_do_not_vary():
    df = frame(np.random.default_rng(5))
    assert "no mediator is 0/1" in compliance_signs(mm.data.star()).joint.reason
    same = compliance_signs(mm.Moments.from_data(df.assign(m=1.0), design()))
    assert "same for everybody" in same.joint.reason
    dose = mm.Moments.from_data(df.assign(t=df["y"]), design(treatment_kind="continuous", outcome="c"))
    assert "dose" in compliance_signs(dose).joint.reason
    m = mm.Moments.from_data(df.assign(y=1e6 + df["m"]), design())
    assert (is_binary(m, 0), is_binary(m, 1)) == (False, True)
    assert not is_binary(mm.Moments.from_data(df.assign(m=df["m"] / 2), design()), 1)


def binary(df):
    return df.assign(y=(df["y"] > 0.5).astype(float))


def test_a_binary_outcome_gives_the_same_from_moments_and_rows():
    df = binary(frame(np.random.default_rng(6)))
    m = mm.Moments.from_data(df, design())
    one, two = instrumental_inequalities(m), instrumental_inequalities(m, rows=df)
    pd.testing.assert_frame_equal(one.cells, two.cells)
    assert one.test.pvalue == two.test.pvalue


@pytest.mark.parametrize("cluster", [None, "c"])
def test_differences_and_variances_against_shuffled_rows(cluster):
    rng = np.random.default_rng(7)
    df = binary(frame(rng, sites=6, n=12, comply=0.1))
    found = instrumental_inequalities(mm.Moments.from_data(df, design(cluster=cluster)))
    cells = found.cells.set_index(["mediator", "lower", "upper"])
    hit = ((df["y"] == 0) & (df["m"] == 1)).astype(float).to_numpy()
    d = df["t"] - df.groupby("s")["t"].transform("mean")
    assert cells.loc[(1, 0.0, 0.0), "difference"] == pytest.approx((d @ hit) / (d @ d), abs=1e-12)
    unit = df["c"].to_numpy() if cluster else np.arange(len(df))
    lead = pd.DataFrame({"u": unit, "s": df["s"], "t": df["t"]}).groupby("u").first()
    z = hit - pd.Series(hit).groupby(df["s"]).transform("mean").to_numpy()
    total = np.bincount(unit, z)
    keys = lead["s"].to_numpy()[:, None] + rng.random((len(lead), 20_000))
    sums = total @ lead["t"].to_numpy()[np.argsort(keys, axis=0)]
    assert cells.loc[(1, 0.0, 0.0), "std_error"] == pytest.approx(sums.std() / (d @ d), rel=0.03)


def test_a_direct_effect_on_always_takers_contradicts_and_its_absence_does_not():
    rng = np.random.default_rng(8)
    clean = frame(rng, sites=20, n=20)
    assert instrumental_inequalities(mm.Moments.from_data(clean, design()), rows=clean).test.pvalue > 0.05
    broken = frame(rng, sites=20, n=20, direct=2.0)
    found = instrumental_inequalities(mm.Moments.from_data(broken, design()), rows=broken)
    assert found.test.pvalue < 0.01
    assert found.centred
    [one] = found.evidence()
    assert all(part in one.reading for part in ("(ii)", "(vii.b)", "(vi)"))
    assert 0.0 < found.detectable < 0.2
    again = instrumental_inequalities(mm.Moments.from_data(broken, design()), rows=broken)
    assert again.test.pvalue == found.test.pvalue


@pytest.mark.parametrize(
    "roles", [{}, {"block": "b"}, {"cluster": "c"}, {"weights": "w", "weight_kind": "frequency"}]
)
@pytest.mark.parametrize("kind", ["many values", "few values", "0/1, from moments"])
def test_the_order_of_rows_and_the_names_of_sites_do_not_move_the_p_value(roles, kind):
    rng = np.random.default_rng(11)
    df = frame(rng, sites=9, n=15, direct=0.3).assign(b=lambda f: f.index % 2, w=lambda f: 1.0 + f.index % 3)
    df["y"] = {"many values": df["y"], "few values": df["y"].clip(-2, 2).round()}.get(
        kind, df["y"] > 0.5
    ) * 1.0

    def told(data):
        rows = data if kind != "0/1, from moments" else None
        m = mm.Moments.from_data(data, design(**roles))
        found = instrumental_inequalities(m, rows=rows, draws=199)
        return found.test, found.detectable, found.cells

    first, seen, cells = told(df)
    names = dict(zip(range(9), "hgfedcbai", strict=True))
    for other in (df.iloc[::-1], df.sample(frac=1.0, random_state=1), df.assign(s=df["s"].map(names))):
        test, detectable, table = told(other)
        assert (test, detectable) == (first, seen)
        pd.testing.assert_frame_equal(table, cells, check_exact=True)


def test_blocks_copies_and_dropped_sites():
    df = frame(np.random.default_rng(9)).assign(b=lambda f: f.index % 2, w=2.0)
    m = mm.Moments.from_data(df, design(block="b")).drop(0)
    assert isinstance(instrumental_inequalities(m, rows=df).test, TestStatistic)
    copies = design(weights="w", weight_kind="frequency")
    twice = instrumental_inequalities(mm.Moments.from_data(df, copies), rows=df).cells
    double = pd.concat([df, df])
    by_hand = instrumental_inequalities(mm.Moments.from_data(double, design()), rows=double).cells
    np.testing.assert_allclose(twice["z"], by_hand["z"])


def test_what_does_not_apply_says_why():
    df = frame(np.random.default_rng(10), arms=3)
    two = df[df["t"] < 2]

    def reason(data, rows=None, **more):
        found = instrumental_inequalities(mm.Moments.from_data(data, design(**more)), rows=rows)
        assert isinstance(found.test, NotApplicable)
        assert found.to_frame().empty
        assert not found.evidence()[0].applies
        return found.test.reason

    assert "not implied for each" in reason(two, mediators=["m", "k"])
    assert "two arms" in reason(df)
    assert "not 0/1" in reason(two.assign(m=two["y"] * 2))
    assert "rows are missing" in reason(two)
    assert "too few rows" in reason(binary(two[(two["s"] == 0)].groupby("t").head(3)))

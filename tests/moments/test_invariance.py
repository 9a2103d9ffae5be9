"""What must not change, and what must change in one known way: units, offsets, copies, order, merging."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import msmmiv as mm
from tests.moments.helpers import design, people

EVERY = ("classical", "HC0", "HC1", "HC2", "HC3", "site")
DESIGNS = {
    "plain": {},
    "two mediators, blocks": {"mediators": ["m", "m2"], "block": "b"},
    "covariate": {"covariates": ["x"]},
    "weighted": {"weights": "w", "weight_kind": "analytic"},
    "dose": {"treatment": "dose", "treatment_kind": "continuous"},
}

power = st.integers(-9, 9)
shift = st.floats(-1e4, 1e4)
unit = st.floats(1e-4, 1e4).flatmap(lambda v: st.sampled_from([v, -v]))


def fits(df, d, kinds=EVERY, **options):
    study = mm.Study(df, d)
    return {k: study.fit("2sls", cov_type=k, **options) for k in kinds}


@given(a=shift, b=unit, c=shift, e=unit)
def test_affine_maps_act_on_moments_as_they_must(a, b, c, e):
    df = people(1)
    d = design(covariates=["x"])
    before = mm.Moments.from_data(df, d)
    after = mm.Moments.from_data(df.assign(y=a + b * df["y"], m=c + e * df["m"]), d)
    units = np.array([b, e, 1.0])
    mean = before.first.mean * units + np.array([a, c, 0.0])
    scatter = before.first.scatter * np.outer(units, units)
    np.testing.assert_allclose(after.first.mean, mean, rtol=1e-9, atol=1e-9 * np.abs(mean).max())
    sd = np.sqrt(np.einsum("cjj->cj", scatter))
    assert np.all(np.abs(after.first.scatter - scatter) <= 1e-6 * sd[:, :, None] * sd[:, None, :])


@pytest.mark.parametrize("name", DESIGNS)
@given(a=power, b=power, c=power, e=power, sign=st.sampled_from([1, -1]))
def test_affine_maps_act_on_fits_as_they_must(name, a, b, c, e, sign):
    df = people(2, mediators=2)
    d = design(**DESIGNS[name])
    outcome, mediator = 2.0**b, sign * 2.0**e
    moved = df.assign(y=a + outcome * df["y"], m=c + mediator * df["m"])
    kinds = ("HC1", "HC3", "site")
    for before, after in zip(fits(df, d, kinds).values(), fits(moved, d, kinds).values(), strict=True):
        units = outcome / np.array([mediator if t == "m" else 1.0 for t in before.terms])
        np.testing.assert_allclose(after.params, before.params * units, rtol=1e-8)
        np.testing.assert_allclose(after.cov, before.cov * np.outer(units, units), rtol=1e-8, atol=1e-300)
        assert after.sargan.stat == pytest.approx(before.sargan.stat, rel=1e-7)
        assert after.first_stage[0].f_classical.stat == pytest.approx(
            before.first_stage[0].f_classical.stat, rel=1e-8
        )


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"mediators": ["m", "m2"], "cluster": "c"}, {"covariates": ["x"], "block": "b"}]
)
def test_frequency_weights_are_expanded_rows(options, direct):
    df = people(3, mediators=2)
    expanded = df.loc[df.index.repeat(df["k"])].reset_index(drop=True)
    kinds = (*EVERY, "cluster") if "cluster" in options else EVERY
    plain = mm.Study(expanded, design(**options))
    weighted = mm.Study(df, design(**options, weights="k", weight_kind="frequency"))
    a, b = plain.moments.first, weighted.moments.first
    np.testing.assert_array_equal(plain.moments.n, weighted.moments.n)
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-11, atol=1e-11)
    for estimator in ("2sls", "ols"):
        for kind in kinds:
            one = plain.fit(estimator, cov_type=kind, direct_effect=direct)
            two = weighted.fit(estimator, cov_type=kind, direct_effect=direct)
            np.testing.assert_allclose(two.params, one.params, rtol=1e-10)
            np.testing.assert_allclose(two.cov, one.cov, rtol=1e-9, err_msg=f"{estimator} {kind}")
            assert (one.nobs, one.df_resid) == (two.nobs, two.df_resid)
            pd.testing.assert_frame_equal(one.diagnostics(), two.diagnostics(), rtol=1e-7)
            for x, y in zip(one.first_stage, two.first_stage, strict=True):
                pd.testing.assert_frame_equal(x.coefficients, y.coefficients, rtol=1e-8)


def test_analytic_weights_may_be_scaled_by_any_number():
    df = people(4)
    d = design(weights="w", weight_kind="analytic")
    kinds = ("classical", "HC0", "HC1", "HC2", "HC3", "site")
    for a, b in zip(
        fits(df, d, kinds).values(), fits(df.assign(w=df["w"] * 1e5), d, kinds).values(), strict=True
    ):
        np.testing.assert_allclose(b.params, a.params, rtol=1e-10)
        np.testing.assert_allclose(b.cov, a.cov, rtol=1e-9)


@pytest.mark.parametrize("kind", ["analytic", "probability", "frequency"])
def test_equal_weights_are_no_weights(kind):
    df = people(5).assign(one=1.0)
    kinds = ("HC0", "HC1", "HC2", "HC3", "site")
    weighted = fits(df, design(weights="one", weight_kind=kind), kinds)
    for a, b in zip(fits(df, design(), kinds).values(), weighted.values(), strict=True):
        np.testing.assert_allclose(b.cov, a.cov, rtol=1e-11)


@pytest.mark.parametrize("kind", [*EVERY, "cluster"])
def test_merged_sources_give_the_fit_of_the_whole(kind):
    df = people(6, mediators=2)
    d = design(mediators=["m", "m2"], cluster="c", block="b")
    parts = [mm.Moments.from_data(p, d) for _, p in df.groupby(df.index % 3)]
    whole = mm.fit(mm.Moments.from_data(df, d), "2sls", cov_type=kind)
    merged = mm.fit(parts[0] + parts[1] + parts[2], "2sls", cov_type=kind)
    np.testing.assert_allclose(merged.params, whole.params, rtol=1e-11)
    np.testing.assert_allclose(merged.cov, whole.cov, rtol=1e-10)


@pytest.mark.parametrize("kind", ["HC2", "HC3"])
@pytest.mark.parametrize("options", [{}, {"covariates": ["x"]}])
@pytest.mark.parametrize("source", ["pandas", "parquet"])
def test_a_row_alone_in_its_block_adds_nothing(kind, options, source, tmp_path):
    df = people(7)
    lone = df.iloc[[0]].assign(b=99)
    d = design(block="b", **options)
    a = mm.Study(df, d).fit("2sls", cov_type=kind)
    more = pd.concat([df, lone], ignore_index=True)
    if source == "parquet":
        more.to_parquet(tmp_path / "rows.parquet")
        more = tmp_path / "rows.parquet"
    b = mm.Study(more, d).fit("2sls", cov_type=kind)
    np.testing.assert_allclose(b.params, a.params, rtol=1e-10)
    np.testing.assert_allclose(b.cov, a.cov, rtol=1e-9)


def test_relabelling_changes_nothing():
    df = people(8, arms=("none", "A", "B"))
    a = mm.Study(df, design(control="none")).fit("2sls", cov_type="HC2", direct_effect=True)
    other = df.assign(s=df["s"].map("x{}".format), t=df["t"].map({"none": 7, "A": 3, "B": 5}))
    b = mm.Study(other, design(control=7)).fit("2sls", cov_type="HC2", direct_effect=True)
    np.testing.assert_allclose(b.cov.to_numpy(), a.cov.to_numpy(), rtol=1e-11)
    assert b.terms == ("m", "direct_effect[3]", "direct_effect[5]")


def test_which_arm_is_the_control_does_not_move_the_mediator_effect():
    df = people(9, arms=("none", "A", "B"))
    a, b = (mm.Study(df, design(control=c)).fit("2sls", cov_type="HC1") for c in ("none", "B"))
    np.testing.assert_allclose(b.cov, a.cov, rtol=1e-10)
    np.testing.assert_allclose(b.params, a.params, rtol=1e-10)

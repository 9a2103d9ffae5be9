"""The bridge to linearmodels: every kind, both ways to treat the intercepts, every source of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

import msmmiv as mm
from msmmiv.errors import (
    ChoiceError,
    CollinearCovariateWarning,
    ColumnError,
    DataError,
    DesignError,
    MomentsInsufficient,
    RankDeficientError,
)
from msmmiv.estimate.linearmodels_bridge import rows_to_linearmodels, to_linearmodels
from msmmiv.moments.opening import open_rows
from tests.estimate.helpers import trial

CASES = {
    "plain": ({}, False),
    "two mediators, direct effect": ({"mediators": 2}, True),
    "blocks": ({"blocks": 2, "mediators": 2}, False),
    "arms, weights, covariates": ({"arms": 3, "weights": True, "covariates": 2}, False),
    "everything": (
        {"arms": 3, "weights": True, "covariates": 1, "blocks": 2, "mediators": 2, "clusters": 9},
        True,
    ),
}


def make(options, seed=5, **more):
    df = trial(seed, **options)
    weights = {"weights": "w", "weight_kind": "analytic"} if options.get("weights") else {}
    design = mm.Design(
        outcome="y", treatment="t", site="site", mediators=[f"m{j}" for j in range(options.get("mediators", 1))],
        covariates=[f"x{j}" for j in range(options.get("covariates", 0))],
        block="block" if options.get("blocks") else None, **{**weights, **more},
    )  # fmt: skip
    return df, design


def slopes(result):
    return result.params[[c for c in result.params.index if not c.startswith("intercept")]].sort_index()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["2sls", "liml", "gmm"])
def test_slopes_do_not_depend_on_how_intercepts_are_taken_out(kind, case):
    options, direct = CASES[case]
    df, design = make(options)
    dummies, partialled = (
        to_linearmodels(df, design, kind=kind, direct_effect=direct, intercepts=i).fit()
        for i in ("dummies", "partialled")
    )
    a, b = slopes(dummies), slopes(partialled)
    assert list(a.index) == list(b.index)
    assert len(b) == len(partialled.params)
    np.testing.assert_allclose(a, b, rtol=1e-7 if kind == "gmm" else 1e-9, atol=1e-9)
    if kind == "2sls":
        fit = mm.Study(df, design).fit("2sls", direct_effect=direct, cov_type="HC0")
        np.testing.assert_allclose(b[list(design.mediators)], fit.params[list(design.mediators)], rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_liml_is_the_smallest_root(case):
    """kappa is the smallest root of det(W'W - kappa W'M_z W) for W = (y, m) after the exogenous columns."""
    options, direct = CASES[case]
    df, design = make(options)
    model = to_linearmodels(df, design, kind="liml", direct_effect=direct)
    root = np.sqrt(df["w"].to_numpy())[:, None] if design.weights else 1.0
    x, z, w = (np.asarray(part.ndarray) * root for part in (model.exog, model.instruments, model.dependent))
    m = np.asarray(model.endog.ndarray) * root

    def left(a, on):
        return a - on @ np.linalg.lstsq(on, a, rcond=None)[0]

    both = left(np.hstack([w, m]), x)
    rest = left(both, left(z, x))
    kappa = scipy.linalg.eigh(both.T @ both, rest.T @ rest, eigvals_only=True)[0]
    bent = both - kappa * rest
    b = np.linalg.solve(bent[:, 1:].T @ both[:, 1:], bent[:, 1:].T @ both[:, 0])
    np.testing.assert_allclose(model.fit().params[list(design.mediators)], b, rtol=1e-8)


@pytest.mark.parametrize("intercepts", ["dummies", "partialled"])
@pytest.mark.parametrize(("kind", "words"), [("gmm", "GMM"), ("cue", "CUE")])
def test_gmm_gives_a_j_test(kind, words, intercepts):
    df, design = make({"mediators": 2, "per_site": 60}, seed=3)
    result = to_linearmodels(df, design, kind=kind, intercepts=intercepts).fit()
    assert result.j_stat.df == 8 - 2
    assert result.j_stat.stat > 0
    near = mm.Study(df, design).fit("2sls")
    assert (abs(result.params[["m0", "m1"]] - near.params) < 3 * near.std_errors).all()


def test_gmm_weights_follow_the_design():
    df, design = make({"clusters": 12, "sites": 6}, cluster="cluster")
    by_cluster = to_linearmodels(df, design, kind="gmm", intercepts="partialled").fit()
    z = to_linearmodels(df, design, intercepts="partialled")
    assert by_cluster.weight_config["clusters"].shape[0] == len(df)
    by_hand = type(to_linearmodels(df, design, kind="gmm"))(
        z.dependent.pandas, None, z.endog.pandas, z.instruments.pandas,
        weight_type="clustered", clusters=df["cluster"].to_numpy(),
    ).fit()  # fmt: skip
    assert by_cluster.params["m0"] == pytest.approx(by_hand.params["m0"], rel=1e-12)
    few = df.assign(cluster=df["cluster"] % 5)
    with pytest.raises(DesignError, match="6 moments cannot be estimated from 5 clusters"):
        to_linearmodels(few, design, kind="gmm", intercepts="partialled")


def test_degrees_of_freedom_differ_as_the_docstring_says():
    df, design = make({"covariates": 1})
    n, k, b = len(df), 2, 8
    dummies, partialled = (
        to_linearmodels(df, design, intercepts=i).fit(cov_type="unadjusted", debiased=True)
        for i in ("dummies", "partialled")
    )
    ratio = partialled.std_errors["m0"] / dummies.std_errors["m0"]
    assert ratio == pytest.approx(np.sqrt((n - k - b) / (n - k)), rel=1e-9)


def test_instruments_that_say_nothing_are_left_out():
    """Arm 2 of site 1 has a block to itself: its effect there cannot be told from the block."""
    df, design = make({"arms": 3, "blocks": 2})
    alone = (df["site"] == 1) & (df["t"] == 2)
    df["block"] = df["block"].mask(alone, 9)
    for direct in (False, True):
        fit = mm.Study(df, design).fit("2sls", direct_effect=direct, cov_type="HC1")
        for intercepts in ("dummies", "partialled"):
            model = to_linearmodels(df, design, direct_effect=direct, intercepts=intercepts)
            assert model.instruments.shape[1] == 15 - 2 * direct
            params = model.fit(cov_type="robust", debiased=True).params
            assert params["m0"] == pytest.approx(fit.params["m0"], rel=1e-9)


def test_a_covariate_without_variation_inside_sites_goes_with_a_warning():
    df, design = make({"covariates": 1})
    flat = df.assign(x0=df["site"] * 0.5)
    for intercepts in ("dummies", "partialled"):
        with pytest.warns(CollinearCovariateWarning, match="'x0'"):
            model = to_linearmodels(flat, design, intercepts=intercepts)
        assert "x0" not in model.fit().params


@pytest.mark.parametrize("suffix", [None, "csv", "parquet"])
def test_rows_from_every_source(tmp_path, suffix):
    options, direct = CASES["everything"]
    df, design = make(options, cluster="cluster")
    df.loc[3, "y"] = np.nan
    df.loc[5, "x0"] = np.inf
    df["t"] = np.array(["no", "a", "b"])[df["t"]]
    design = mm.Design(**{**design.to_dict(), "control": "no"})
    want = to_linearmodels(df, design, kind="liml", direct_effect=direct).fit().params
    source = df
    if suffix:
        source = tmp_path / f"trial.{suffix}"
        df.to_csv(source, index=False) if suffix == "csv" else mm.moments.row_files.write_parquet(
            df, source, "x"
        )
    rows = open_rows(source, design, missing="error")
    got = rows.collect()
    assert list(got) == ["y", "m0", "m1", "x0", "site", "block", "t", "cluster", "w"]
    kept = df.drop(index=[3, 5])[list(got)].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        got.sort_values("y", ignore_index=True), kept.sort_values("y", ignore_index=True), check_dtype=False
    )
    params = rows_to_linearmodels(rows, kind="liml", direct_effect=direct).fit().params
    np.testing.assert_allclose(params[["m0", "m1"]], want[["m0", "m1"]], rtol=1e-9)


def test_a_dose_and_its_direct_effect():
    df, design = make({"mediators": 1}, treatment_kind="continuous")
    df["t"] = df["t"] + np.random.default_rng(1).normal(size=len(df)) * 0.3
    fit = mm.Study(df, design).fit("2sls", direct_effect=True)
    for intercepts in ("dummies", "partialled"):
        params = to_linearmodels(df, design, direct_effect=True, intercepts=intercepts).fit().params
        assert params["m0"] == pytest.approx(fit.params["m0"], rel=1e-8)
        assert params["direct_effect t"] == pytest.approx(fit.params.iloc[-1], rel=1e-6)


def test_the_index_says_which_rows_are_used():
    df, design = make({"clusters": 6})
    df.index = [f"p{k}" for k in range(len(df))]
    df.loc["p7", "m0"] = np.nan
    model = to_linearmodels(df, design)
    used = model.dependent.pandas.index
    assert "p7" not in used
    assert len(used) == len(df) - 1
    ours = mm.Study(df, mm.Design(**{**design.to_dict(), "cluster": "cluster"})).fit(
        "2sls", cov_type="cluster", small_sample="CR0"
    )
    theirs = model.fit(cov_type="clustered", clusters=df.loc[used, "cluster"])
    assert theirs.std_errors["m0"] == pytest.approx(ours.std_errors["m0"], rel=1e-8)
    twice = pd.concat([df, df])
    assert len(to_linearmodels(twice, design).dependent.pandas) == 2 * len(used)


def test_refusals():
    df, design = make({})
    with pytest.raises(MomentsInsufficient, match=r"Study\(data, design\)"):
        rows_to_linearmodels(None)
    with pytest.raises(ChoiceError, match="kind='fuller'"):
        to_linearmodels(df, design, kind="fuller")
    with pytest.raises(ChoiceError, match="intercepts='within'"):
        rows_to_linearmodels(None, intercepts="within")
    with pytest.raises(DataError, match="to_pandas"):
        to_linearmodels(df.to_numpy(), design)
    with pytest.raises(ColumnError, match=r"'y'.*text"):
        to_linearmodels(df.assign(y="a"), design)
    with pytest.raises(DataError, match="does not vary inside any site"):
        to_linearmodels(df[df["t"] == 1], design)
    with pytest.raises(RankDeficientError, match="number of instruments"):
        to_linearmodels(df[df["site"] == 1], design, direct_effect=True)
    double = mm.Design(outcome="y", treatment="t", mediators=["m0", "m1"], site="site")
    with pytest.raises(RankDeficientError, match="rank"):
        to_linearmodels(df.assign(m1=df["m0"]), double)

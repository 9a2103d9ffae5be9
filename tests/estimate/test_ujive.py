"""UJIVE from cells against leave-one-out on the rows with whole hat matrices, and the estimators of R's ManyIV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.estimate import system_of
from msmmiv.estimate.ujive import noise_products
from tests.estimate.dense import Dense, dense_of, design_of
from tests.estimate.helpers import trial

GOLDEN = Path(__file__).parents[1] / "golden"


def study_of(df: pd.DataFrame) -> mm.Study:
    return mm.Study(df, design_of(df))


def leave_one_out(d: Dense, columns: np.ndarray) -> np.ndarray:
    """Kolesar's (2013) fitted values: {(HX)_i - h_i X_i} / (1 - h_i) less the same with W alone."""
    out = 0.0
    for hat, sign in ((d.hat, 1.0), (d.hat_w, -1.0)):
        h = np.diag(hat)[:, None]
        out = out + sign * (hat @ columns - h * columns) / (1.0 - h)
    return np.asarray(out)


def without_own_noise(d: Dense, columns: np.ndarray) -> np.ndarray:
    """(PX)_i - P_ii (MX)_i / (1 - h_i): P projects on the instruments net of W, M on what both leave."""
    share = np.diag(d.hat - d.hat_w) / (1.0 - np.diag(d.hat))
    return (d.hat - d.hat_w) @ columns - share[:, None] * (columns - d.hat @ columns)


def solved(fitted: np.ndarray, d: Dense) -> np.ndarray:
    return np.linalg.solve(fitted.T @ d.m, fitted.T @ d.y)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("arms", [2, 3])
def test_ujive_is_leave_one_out_on_the_rows(seed: int, p: int, arms: int) -> None:
    """Kolesar's form gives each site a further n / (n - 1); taken out, or with sites of one size, it is ours."""
    df = trial(40 + seed, sites=8, per_site=30 * p, mediators=p, arms=arms)
    d = dense_of(df)
    fit = study_of(df).fit("ujive", cov_type="classical")
    assert fit.status is None
    net = 1.0 - np.diag(d.hat_w)[:, None]
    np.testing.assert_allclose(leave_one_out(d, d.m) * net, without_own_noise(d, d.m), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(fit.params, solved(without_own_noise(d, d.m), d), rtol=1e-11)
    np.testing.assert_allclose(fit.params, solved(leave_one_out(d, d.m) * net, d), rtol=1e-11)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("arms", [2, 3])
def test_with_sites_of_one_size_it_is_kolesars_formula_as_printed(p: int, arms: int) -> None:
    df = trial(45, sites=9, per_site=40, mediators=p, arms=arms)
    df = df.groupby("site", group_keys=False).head(28).reset_index(drop=True)
    assert df.groupby("site").size().nunique() == 1
    d = dense_of(df)
    fit = study_of(df).fit("ujive", cov_type="classical")
    np.testing.assert_allclose(fit.params, solved(leave_one_out(d, d.m), d), rtol=1e-11)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("case", [{}, {"mediators": 2, "arms": 3}, {"blocks": 2}, {"blocks": 2, "arms": 3}])
def test_what_is_subtracted_is_the_expected_noise(case: dict[str, Any], direct: bool) -> None:
    """E[v'Pv] = sum_i P_ii Var(v_i), P the projection on the excluded instruments net of W (direct effects too)."""
    df = trial(46, sites=7, per_site=60, **case)
    study, d = study_of(df), dense_of(df, direct=direct)
    system = system_of(study.moments, direct_effect=direct)
    cell = df.groupby(["site", *(["block"] if "block" in df else []), "t"]).ngroup().to_numpy()
    diagonal = np.diag(d.hat - d.hat_w)
    expected = sum(
        diagonal[cell == c].sum() * np.cov(d.both[cell == c], rowvar=False) for c in np.unique(cell)
    )
    got = noise_products(system, system.noise.cov).sum(axis=0)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    assert np.trace(d.hat - d.hat_w) == pytest.approx(system.n_excluded)
    explained = d.explained - expected
    fit = study.fit("ujive", cov_type="classical", direct_effect=direct)
    p = d.m.shape[1]
    np.testing.assert_allclose(
        fit.params[:p], np.linalg.solve(explained[1:, 1:], explained[1:, 0]), rtol=1e-9
    )
    if direct:  # the direct effects follow from their own equations, which hold no noise
        r = np.hstack([d.m, d.w])
        e = d.y - d.m @ fit.params.to_numpy()[:p]
        rest = np.linalg.lstsq(d.w, d.hat @ e, rcond=None)[0]
        arms = d.w.shape[1] - d.intercepts
        np.testing.assert_allclose(fit.params[p : p + arms], rest[:arms], rtol=1e-8, atol=1e-10)
        assert r.shape[1] == p + d.w.shape[1]


def test_with_equal_variances_in_all_cells_ujive_is_mbtsls() -> None:
    """Cells with one and the same scatter about their means: pooled and own variances coincide."""
    rng = np.random.default_rng(5)
    scatter = rng.normal(size=(10, 2))
    scatter -= scatter.mean(axis=0)
    rows = [
        pd.DataFrame({"site": s, "t": t, "m": scatter[:, 0] + m, "y": scatter[:, 1] + y})
        for s in range(6)
        for t, (m, y) in enumerate(rng.normal(1, 2, (2, 2)))
    ]
    study = study_of(pd.concat(rows, ignore_index=True))
    a, b = (study.fit(e, cov_type="classical") for e in ("ujive", "mbtsls"))
    np.testing.assert_allclose(a.params, b.params, rtol=1e-11)
    np.testing.assert_allclose(a.cov, b.cov, rtol=1e-11)


@pytest.mark.parametrize("p", [1, 2])
def test_cr3_of_ujive_is_the_jackknife_over_refits(p: int) -> None:
    df = trial(47, sites=9, per_site=60, mediators=p)
    study = study_of(df)
    fit = study.fit("ujive", cov_type="site", small_sample="CR3")
    refits = [
        mm.fit(study.moments.drop(s), "ujive", cov_type="classical").params.to_numpy()
        for s in study.moments.sites
    ]
    away = np.array(refits) - fit.params.to_numpy()
    np.testing.assert_allclose(fit.cov, away.T @ away, rtol=1e-9)
    assert fit.df_resid == 9 - p


def test_degrees_of_freedom_of_cr2_are_those_of_the_quadratic_form() -> None:
    """(tr AV)^2 / tr(AVAV) with the matrix of sum_s a_s^2 psi_s(b)^2 written out, K by K."""
    df = trial(48, sites=11, per_site=30)
    study = study_of(df)
    fit = study.fit("ujive", cov_type="site", small_sample="CR2")
    eq = fit.equations
    assert eq is not None
    block, score = eq.blocks[:, 0, 1], eq.scores(fit.coefficients)[:, 0]
    h = block / block.sum()
    a = 1.0 / np.sqrt(1.0 - h) / block.sum()
    assert h.max() < 0.98
    assert float(fit.cov.iloc[0, 0]) == pytest.approx(((a * score) ** 2).sum(), rel=1e-12)
    noise = eq.score_noise(fit.coefficients)[:, 0, 0]
    tau = max(float((score**2).sum() - noise.sum()), 0.0) / (block**2).sum()
    root = np.diag(np.sqrt(noise + tau * block**2))
    # psi(b) = psi(beta) - block (b - beta) = (I - h 1') psi(beta)
    away = np.diag(a) @ (np.eye(11) - np.outer(h, np.ones(11))) @ root
    form = away @ away.T
    assert fit.df_resid == pytest.approx(np.trace(form) ** 2 / (form**2).sum(), rel=1e-10)


def test_clusters_are_the_rows_of_a_clustered_ujive() -> None:
    """With equal clusters nested in arms, UJIVE of rows in clusters is UJIVE of the cluster means."""
    rng = np.random.default_rng(8)
    rooms = pd.DataFrame({"site": np.repeat(range(9), 8), "t": np.tile([0, 1], 36), "cluster": range(72)})
    rooms["u"], rooms["v"] = rng.normal(size=(2, 72))
    df = rooms.loc[rooms.index.repeat(5)].reset_index(drop=True)
    df["m"] = (1 + df["site"] % 3) * df["t"] + df["u"] + rng.normal(size=len(df))
    df["y"] = 0.5 * df["m"] + df["u"] + df["v"] + rng.normal(size=len(df))
    df = df.drop(columns=["u", "v"])
    study = study_of(df)
    means = mm.Study(
        df.groupby(["site", "t", "cluster"], as_index=False)[["m", "y"]].mean(),
        mm.Design(outcome="y", treatment="t", mediators="m", site="site"),
    )
    ours, theirs = (s.fit("ujive", cov_type="site") for s in (study, means))
    np.testing.assert_allclose(ours.params, theirs.params, rtol=1e-10)
    np.testing.assert_allclose(ours.cov, theirs.cov, rtol=1e-10)


# -- ManyIV (Kolesar), R --------------------------------------------------------------------------------


def manyiv(part: str) -> tuple[dict[str, Any], mm.Study, Dense]:
    g = json.loads((GOLDEN / "manyiv.json").read_text())[part]
    frame = pd.read_csv(GOLDEN / "ind_k12_p1.csv")[
        ["site", "t", "m", "y", *(["x"] if part == "withX" else [])]
    ]
    tables: dict[str, Any] = {}
    for key, table in (("iv", g["IVreg"]), ("jive", g["ujive"]["tab"])):
        cells = [[np.nan if v == "NA" else float(v) for v in row] for row in table["values"]]
        tables[key] = pd.DataFrame(cells, table["rownames"], table["colnames"])
    return tables, study_of(frame), dense_of(frame)


@pytest.fixture(params=["noX", "withX"], scope="module")
def golden(request: pytest.FixtureRequest) -> tuple[dict[str, Any], mm.Study, Dense]:
    return manyiv(request.param)


def test_manyiv_estimates_and_classical_errors(golden: tuple[dict[str, Any], mm.Study, Dense]) -> None:
    """Their `se` divides by n, ours by n - k; least squares by n - k in both, and their `ser` is then HC1."""
    tables, study, d = golden
    lost = 1 + d.w.shape[1]
    for name, row in tables["iv"].drop("emd").iterrows():
        fit = study.fit("2sls" if name == "tsls" else name, cov_type="classical")
        assert float(fit.params["m"]) == pytest.approx(row["estimate"], rel=1e-9)
        factor = 1.0 if name == "ols" else ((d.n - lost) / d.n) ** 0.5
        assert float(fit.std_errors["m"]) * factor == pytest.approx(row["se"], rel=1e-9)
    iv = tables["iv"]
    assert float(study.fit("ols", cov_type="HC1").std_errors["m"]) == pytest.approx(
        iv.loc["ols", "ser"], rel=1e-9
    )
    assert float(study.fit("2sls", cov_type="HC0").std_errors["m"]) == pytest.approx(
        iv.loc["tsls", "ser"], rel=1e-9
    )
    if not study.design.covariates:
        hte = study.fit("2sls", cov_type="HTE").std_errors
        assert float(hte["m"]) == pytest.approx(iv.loc["tsls", "seh"], rel=1e-9)


def test_manyiv_robust_errors_of_liml_and_mbtsls(golden: tuple[dict[str, Any], mm.Study, Dense]) -> None:
    """Theirs take the projected mediator as score where ours take the mixed one; no more than 1e-4 apart here."""
    tables, study, d = golden
    p = d.hat - d.hat_w
    for name in ("liml", "mbtsls"):
        fit, row = study.fit(name, cov_type="HC0"), tables["iv"].loc[name]
        b = float(fit.params["m"])
        bread = float(study.fit(name, cov_type="classical").cov.iloc[0, 0]) / fit.sigma2
        xhat, e = (p @ d.m)[:, 0], (np.eye(d.n) - d.hat_w) @ (d.y - d.m[:, 0] * b)
        assert bread * np.sqrt(((xhat * e) ** 2).sum()) == pytest.approx(row["ser"], rel=1e-9)
        assert float(fit.std_errors["m"]) == pytest.approx(row["ser"], rel=1e-4)
        if name == "mbtsls":
            gap, first = p @ (d.y - d.m[:, 0] * b), d.m[:, 0] - (d.hat @ d.m)[:, 0]
            theirs = bread * np.sqrt(((xhat * e + gap * first) ** 2).sum())
            assert theirs == pytest.approx(row["seh"], rel=1e-9)


def test_manyiv_many_instrument_errors(golden: tuple[dict[str, Any], mm.Study, Dense]) -> None:
    """Exact where the formula is the same, else close, with the reason why not.

    umd: Bekker's plus what effects that differ between instruments add, Lambda_11 Sigma_22. md adds third and fourth
    moments of the errors (zero under normality); re and il are inverse Hessians of random-effects and invariant
    likelihoods, equal to Bekker's asymptotically; lil is the Hessian that ignores the number of instruments, so it
    lies below.
    """
    tables, study, d = golden
    iv = tables["iv"]
    left = d.n - d.w.shape[1]
    fits = {name: study.fit(name, cov_type="bekker") for name in ("liml", "mbtsls")}
    se = {name: float(f.std_errors["m"]) for name, f in fits.items()}
    assert se["mbtsls"] == pytest.approx(iv.loc["mbtsls", "md"], rel=1e-4)
    assert se["liml"] == pytest.approx(iv.loc["liml", "md"], rel=5e-3)
    assert se["liml"] == pytest.approx(iv.loc["liml", "re"], rel=5e-4)
    assert se["liml"] == pytest.approx(iv.loc["liml", "il"], rel=5e-4)
    assert 0.97 < iv.loc["liml", "lil"] / se["liml"] < 1.0
    b = np.array([1.0, -float(fits["mbtsls"].params["m"])])
    matrix = (d.explained - d.excluded * d.residual)[1, 1]
    surplus = max(float(b @ (d.explained - d.excluded * d.residual) @ b), 0.0) / d.n
    assert left > d.excluded
    umd = np.sqrt(se["mbtsls"] ** 2 + d.n * surplus * d.residual[1, 1] / matrix**2)
    assert umd == pytest.approx(iv.loc["mbtsls", "umd"], rel=1e-4)


def test_manyiv_jackknife_estimators(golden: tuple[dict[str, Any], mm.Study, Dense]) -> None:
    """Their `ujive` is ours; `old ujive` is Kolesar (2013) as printed. With covariates leverages vary by row."""
    tables, study, d = golden
    jive = tables["jive"]
    for name, fitted in (("ujive", without_own_noise(d, d.m)), ("old ujive", leave_one_out(d, d.m))):
        b, row, xhat = solved(fitted, d), jive.loc[name], fitted[:, 0]
        assert b[0] == pytest.approx(row["estimate"], rel=1e-9)
        e = d.y - d.m @ b
        e = e - d.hat_w @ e
        bread = 1.0 / float(xhat @ d.m[:, 0])
        assert bread * np.sqrt(((xhat * e) ** 2).sum()) == pytest.approx(row["se_text"], rel=1e-9)
        make = without_own_noise if name == "ujive" else leave_one_out
        gap = make(d, (d.y - d.m @ b)[:, None])[:, 0]
        first = d.m[:, 0] - (d.hat @ d.m)[:, 0]
        hte = bread * np.sqrt(((xhat * e + gap * first) ** 2).sum())
        assert hte == pytest.approx(row["se_hte"], rel=1e-9 if not study.design.covariates else 1e-4)
    ours = study.fit("ujive", cov_type="classical")
    tolerance = 1e-3 if study.design.covariates else 1e-9
    assert float(ours.params["m"]) == pytest.approx(jive.loc["ujive", "estimate"], rel=tolerance)
    if not study.design.covariates:
        assert float(study.fit("ujive", cov_type="HTE").std_errors["m"]) == pytest.approx(
            jive.loc["ujive", "se_hte"], rel=0.01
        )

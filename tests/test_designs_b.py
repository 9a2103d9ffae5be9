"""Every estimator with every covariance on every kind of design: a finite number, a status, or a named error."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, CrossingClusterWarning, DesignError, MsmmivError, TooFewSitesError
from msmmiv.estimate.covariances import ALLOWED
from tests.estimate.dense import design_of
from tests.estimate.helpers import trial

ESTIMATORS: dict[str, object] = {name: name for name in ALLOWED if name != "fuller"} | {"fuller": mm.Fuller()}
PAIRS = [(name, kind) for name, kinds in ALLOWED.items() for kind in kinds]


def lacking(df: pd.DataFrame) -> pd.DataFrame:
    """Some sites without an arm, one of them without the control."""
    gone = ((df["site"] == 1) & (df["t"] == 2)) | ((df["site"] == 2) & (df["t"] == 0))
    return df[~gone].reset_index(drop=True)


def lone(df: pd.DataFrame) -> pd.DataFrame:
    """One person in a cell of the first site."""
    cell = df[(df["site"] == 1) & (df["t"] == 1)].index
    return df.drop(cell[1:]).reset_index(drop=True)


def unequal_blocks(df: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    share = np.where(df["block"] == 0, 0.25, 0.7)
    t = (rng.uniform(size=len(df)) < share).astype(int)
    gain = t - df["t"]
    return df.assign(t=t, m0=df["m0"] + 0.7 * gain, y=df["y"] + 0.35 * gain)


def dose(df: pd.DataFrame) -> pd.DataFrame:
    return df.assign(t=df["t"] * np.random.default_rng(0).uniform(0.5, 2, len(df)))


MADE: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, object]]] = {
    "plain": (lambda: trial(61, sites=12), {}),
    "two mediators": (lambda: trial(61, sites=14, mediators=2), {}),
    "three arms, some lacking": (lambda: lacking(trial(62, sites=10, arms=3, per_site=60)), {}),
    "dose": (lambda: dose(trial(63, sites=12, per_site=80)), {"treatment_kind": "continuous"}),
    "blocks": (lambda: unequal_blocks(trial(64, sites=10, per_site=60, blocks=2)), {}),
    "analytic weights": (lambda: trial(65, sites=12, per_site=60, weights=True), {}),
    "probability weights": (lambda: trial(65, sites=12, per_site=60, weights=True), {"weight_kind": "probability"}),
    "covariates": (lambda: trial(66, sites=12, covariates=2), {}),
    "clusters": (lambda: trial(67, sites=12, clusters=5, per_site=60), {}),
    "clusters in arms": (
        lambda: trial(68, sites=12, clusters=3, per_site=60).assign(cluster=lambda d: d["cluster"] * 2 + d["t"]), {},
    ),
    "lone": (lambda: lone(trial(69, sites=12)), {}),
    "two sites": (lambda: trial(70, sites=2, per_site=80), {}),
}  # fmt: skip


def study_of(df: pd.DataFrame, **more: object) -> mm.Study:
    weights = {"weights": "w", "weight_kind": more.pop("weight_kind", "analytic")} if "w" in df else {}
    design = design_of(df.drop(columns="w", errors="ignore"), **weights, **more)
    return mm.Study(df, design)


@functools.cache
def made(name: str) -> mm.Study:
    make, more = MADE[name]
    return study_of(make(), **more)


@functools.cache
def _answer(name: str, estimator: str, kind: str, *, direct: bool) -> mm.Estimate | MsmmivError:
    try:
        return made(name).fit(ESTIMATORS[estimator], cov_type=kind, direct_effect=direct)
    except MsmmivError as error:
        return error


def fitted(name: str, estimator: str, kind: str, *, direct: bool = False) -> mm.Estimate:
    """A fit, or its refusal; several tests ask for the same ones, and results are frozen."""
    found = _answer(name, estimator, kind, direct=direct)
    if isinstance(found, MsmmivError):
        raise found
    return found


@pytest.fixture(scope="module", params=MADE, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[str, mm.Study]:
    return request.param, made(request.param)


@pytest.mark.parametrize("direct", [False, True])
def test_a_number_a_status_or_a_named_error(case: tuple[str, mm.Study], direct: bool) -> None:
    name, _ = case
    done = 0
    for estimator, kind in PAIRS:
        if kind in ("HC0", "HC3") and (direct or name in ("dose", "covariates")):
            continue  # passes over the rows that HC1 and HC2 make too
        try:
            fit = fitted(name, estimator, kind, direct=direct)
        except MsmmivError as error:
            _expected(name, estimator, kind, error, direct=direct)
            continue
        assert fit.method.startswith(estimator)
        assert fit.cov_type == kind
        if fit.status is not None:
            assert np.isnan(fit.coefficients).all()
            assert np.isnan(fit.covariance).all()
            continue
        assert np.isfinite(fit.coefficients).all(), (estimator, kind)
        if np.isfinite(fit.covariance).all():
            done += 1
            assert (np.diag(fit.covariance) > 0).all()
            assert (fit.df > 0).all()
            assert np.isfinite(fit.pvalues).all()
        else:
            assert any("no standard errors" in note for note in fit.notes), (estimator, kind)
        assert estimator in fit.summary
    assert done >= (5 if name == "two sites" else 12)


def _expected(name: str, estimator: str, kind: str, error: Exception, *, direct: bool) -> None:
    """Errors come only where the design is why, as a sentence on one line."""
    assert "\n" not in str(error)
    assert len(str(error)) > 40
    weights, few = name == "probability weights", name == "two sites"
    allowed = [
        kind == "cluster" and "clusters" not in name,
        kind in ("classical", "bekker") and weights,
        kind == "HTE" and name in ("covariates", "dose"),
        kind in ("HTE", "bekker") and estimator in ("mbtsls", "ujive") and name.startswith("clusters"),
        estimator.startswith("bc_") and (direct or name in ("three arms, some lacking", "dose", "two sites")),
        estimator == "bc_symmetric" and name == "two mediators",
        few and (kind in ("site", "cluster") or direct),
    ]
    assert any(allowed), (name, estimator, kind, type(error).__name__, str(error))


def test_score_intervals_and_corrections_of_sites(case: tuple[str, mm.Study]) -> None:
    name, study = case
    if name == "two sites":
        return
    for estimator in ("ols", "2sls", "liml", "fuller", "mbtsls", "ujive"):
        for correction in ("CR0", "CR1", "CR1S", "CR1N", "CR1P", "CR2", "CR3"):
            if (estimator, correction, name) == ("ujive", "CR2", "two mediators"):
                with pytest.raises(ChoiceError, match="derived for one effect"):
                    study.fit("ujive", cov_type="site", small_sample="CR2")
                continue
            fit = study.fit(ESTIMATORS[estimator], cov_type="site", small_sample=correction)
            if fit.status is None and not np.isfinite(fit.covariance).all():
                assert fit.notes, (estimator, correction)
        score = study.fit(ESTIMATORS[estimator], cov_type="site", interval="score")
        assert not score.conf_int().isna().any(axis=None)
        assert "site scores" in score.summary


@pytest.mark.parametrize("name", [n for n in MADE if n != "two sites"])
def test_the_rule_has_an_answer(name: str) -> None:
    make, more = MADE[name]
    fit = study_of(make(), **more).fit()
    assert fit.rule
    assert fit.summary
    assert fit.to_dict()["rule"] == fit.rule
    assert (fit.status is not None) or np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("clusters", [0, 4])
def test_frequency_weights_are_expanded_rows(clusters: int, direct: bool) -> None:
    df = trial(71, sites=12, clusters=clusters).drop(columns="w", errors="ignore")
    df["k"] = 1 + np.arange(len(df)) % 3
    expanded = df.loc[df.index.repeat(df["k"])].drop(columns="k").reset_index(drop=True)
    more = {"cluster": "cluster"} if clusters else {}
    base = {"outcome": "y", "treatment": "t", "mediators": "m0", "site": "site", **more}
    one = mm.Study(df, mm.Design(**base, weights="k", weight_kind="frequency"))
    other = mm.Study(expanded, mm.Design(**base))
    for estimator, kind in PAIRS:
        rows_only = (estimator, kind) in {("ujive", "HTE"), ("ujive", "bekker"), ("mbtsls", "HTE")}
        if (kind == "cluster" and not clusters) or (clusters and rows_only):
            continue
        if direct and estimator.startswith("bc_"):
            continue
        a, b = (s.fit(ESTIMATORS[estimator], cov_type=kind, direct_effect=direct) for s in (one, other))
        np.testing.assert_allclose(a.params, b.params, rtol=1e-9)
        np.testing.assert_allclose(a.cov, b.cov, rtol=1e-7, err_msg=f"{estimator} {kind}")
        np.testing.assert_allclose(a.df, b.df, rtol=1e-8)
    pd.testing.assert_frame_equal(one.fit().tidy(), other.fit().tidy(), rtol=1e-7)


@pytest.mark.parametrize("name", MADE)
def test_moments_give_what_the_frame_gives(name: str) -> None:
    alone = mm.Study(made(name).moments)
    for label, estimator in ESTIMATORS.items():
        for kind in ("site", "classical"):
            try:
                expected = fitted(name, label, kind)
            except MsmmivError as error:
                with pytest.raises(type(error)):
                    alone.fit(estimator, cov_type=kind)
                continue
            got = alone.fit(estimator, cov_type=kind)
            pd.testing.assert_frame_equal(got.tidy(), expected.tidy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "direct"),
    [(n, False) for n in MADE if n != "two sites"] + [("plain", True), ("three arms, some lacking", True)],
)
def test_t_ratios_do_not_depend_on_units(name: str, direct: bool) -> None:
    """Outcome times two and a million more, mediators in millionths."""
    make, more = MADE[name]
    df = make()
    names = [c for c in df if c.startswith("m")]
    moved = df.assign(y=df["y"] * 2 + 1e6, **{c: df[c] * 1e-6 for c in names})
    other = study_of(moved, **more)
    for estimator, kind in PAIRS:
        if kind in ("HC0", "HC1", "HC3") and name != "plain":
            continue
        try:
            a = fitted(name, estimator, kind, direct=direct)
        except MsmmivError as error:
            with pytest.raises(type(error)):
                other.fit(ESTIMATORS[estimator], cov_type=kind, direct_effect=direct)
            continue
        b = other.fit(ESTIMATORS[estimator], cov_type=kind, direct_effect=direct)
        assert (a.status is None) == (b.status is None)
        scale = np.array([2e6 if t in names else 2.0 for t in a.terms])
        np.testing.assert_allclose(b.params, a.params * scale, rtol=2e-5, err_msg=f"{estimator} {kind}")
        np.testing.assert_allclose(b.tstats, a.tstats, rtol=2e-5, err_msg=f"{estimator} {kind}")


# -- single cases -------------------------------------------------------------------------------------------


def test_late_names_its_assumptions_and_needs_zero_or_one() -> None:
    df = trial(72, sites=12)
    binary = df.assign(m0=(df["m0"] > df["m0"].median()).astype(int))
    study = study_of(binary, estimand="late")
    for name in ("2sls", "liml", "mbtsls", "ujive"):
        fit = study.fit(name, cov_type="site")
        assert "vii.b" in fit.estimand
        assert "ix.b" in fit.estimand
        ate = study_of(binary).fit(name, cov_type="site")
        assert "compliers" not in ate.estimand
        np.testing.assert_array_equal(ate.params, fit.params)
    with pytest.raises(DesignError, match="needs 0/1 mediators; 'm0'"):
        study_of(df, estimand="late").fit("ujive")
    three = trial(72, sites=12, arms=3)
    study = study_of(three.assign(m0=(three["m0"] > 0).astype(int)), estimand="late")
    with pytest.raises(DesignError, match="needs two arms"):
        study.fit("ujive")


def test_as_many_mediators_as_sites() -> None:
    study = study_of(trial(73, sites=2, mediators=2, per_site=120))
    for name in ("2sls", "liml", "mbtsls"):
        fit = study.fit(name, cov_type="classical")
        for test in (fit.sargan, fit.basmann):
            assert isinstance(test, mm.NotApplicable)
            assert test.reason
    twosls, liml = (study.fit(n, cov_type="classical") for n in ("2sls", "liml"))
    np.testing.assert_allclose(liml.params, twosls.params, rtol=1e-6)
    assert "as many instruments" in twosls.sargan.reason
    with pytest.raises(TooFewSitesError, match="2 sites less 2 effects between them leave 0"):
        study.fit("2sls", cov_type="site")
    assert study.fit().method == "2sls"


@pytest.mark.parametrize("name", ["ols", "2sls", "liml", "mbtsls", "ujive"])
def test_site_clustering_needs_two_degrees_of_freedom(name: str) -> None:
    study = study_of(trial(74, sites=3, mediators=2, per_site=150))
    fit = study.fit(name, cov_type="classical")
    if fit.status is None:
        with pytest.raises(TooFewSitesError, match="need at least 2"):
            study.fit(name, cov_type="site")


def test_clusters_that_cross_sites_warn_once_a_fit_and_count_once() -> None:
    df = trial(75, sites=12, clusters=4)
    df["cluster"] = df["cluster"] % 40
    study = study_of(df)
    for name in ("2sls", "mbtsls", "ujive"):
        with pytest.warns(CrossingClusterWarning, match="more than one site"):
            fit = study.fit(name, cov_type="cluster")
        assert fit.n_clusters == 40
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.fit("ujive", cov_type="site")


def test_sites_of_one_cluster_an_arm_cannot_do_ujive_but_2sls() -> None:
    df = trial(76, sites=12).assign(cluster=lambda d: d["site"] * 2 + d["t"])
    study = study_of(df)
    with pytest.raises(mm.errors.DataError, match="single cluster"):
        study.fit("ujive")
    assert np.isfinite(study.fit("2sls").covariance).all()
    some = df.assign(
        cluster=np.where(df["site"] > 4, np.arange(len(df)) % 3 * 100 + df["cluster"], df["cluster"])
    )
    fit = study_of(some).fit("ujive")
    assert any("8 site-by-arm cells hold one cluster" in note for note in fit.notes)


def test_a_cluster_that_is_a_site_is_refused_or_has_its_site_covariance() -> None:
    df = trial(77, sites=12).assign(cluster=lambda d: d["site"])
    study = study_of(df)
    cluster = study.fit("2sls", cov_type="cluster", small_sample="CR0")
    site = study.fit("2sls", cov_type="site", small_sample="CR0")
    np.testing.assert_allclose(cluster.cov, site.cov, rtol=1e-10)
    try:
        fit = study.fit("ujive")
        assert np.isfinite(fit.coefficients).all()
    except MsmmivError as error:
        assert "cluster" in str(error)  # noqa: PT017 - either outcome is right, silence is not


def test_a_cell_of_one_person_borrows_with_a_note() -> None:
    df = lone(trial(69, sites=12))
    study = study_of(df)
    fit = study.fit("ujive")
    assert any(
        "1 site-by-arm cells hold one row; the variance of their means is borrowed" in n for n in fit.notes
    )
    for kind in ("HC2", "HC3"):
        assert np.isfinite(study.fit("2sls", cov_type=kind).covariance).all()
    assert not any("borrowed" in n for n in study.fit("2sls").notes)


def test_weights_that_vary_in_cells_under_hc2_need_the_rows() -> None:
    df = trial(65, sites=12, weights=True)
    study = study_of(df)
    assert np.isfinite(study.fit("2sls", cov_type="HC2").covariance).all()
    with pytest.raises(mm.errors.MomentsInsufficient, match="each row's weight"):
        mm.fit(study.moments, "2sls", cov_type="HC2")


def test_options_that_do_not_belong_together_are_refused() -> None:
    study = study_of(trial(78, sites=12, clusters=4))
    for name, options in {
        "ujive": {"cov_type": "HC1"}, "2sls": {"cov_type": "bekker"}, "bc_linear": {"cov_type": "cluster"},
        "liml": {"cov_type": "classical", "small_sample": "CR2"},
        "mbtsls": {"cov_type": "cluster", "small_sample": "CR1P"},
    }.items():  # fmt: skip
        with pytest.raises(ChoiceError):
            study.fit(name, **options)
    with pytest.raises(ChoiceError, match="not a sum of clustered scores"):
        study.fit("ujive", cov_type="cluster", small_sample="CR2")
    with pytest.raises(ChoiceError, match="Did you mean 'mbtsls'"):
        study.fit("tsls")
    with pytest.raises(ChoiceError, match="is not an estimator"):
        study.fit(3)  # type: ignore[arg-type]

"""The noise of site effects: equal to known forms where they exist, unbiased where they do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.moments.noise import site_noise
from msmmiv.moments.within import within_sites

ROLES = {"outcome": "y", "treatment": "t", "mediators": ["m"], "site": "s"}


def rows(seed: int, *, sites: int = 5, arms: int = 2, each: int = 9) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = rng.integers(each // 2 + 2, each * 2, (sites, arms))
    s, t = (np.repeat(ix.ravel(), n.ravel()) for ix in np.indices(n.shape))
    u = rng.normal(size=len(s)) * (1 + t)
    return pd.DataFrame({"s": s, "t": t, "m": t + u, "y": u + rng.normal(size=len(s)) * (1 + s)})


def noise_of(df: pd.DataFrame, kind: str = "unbiased", **options: object) -> np.ndarray:
    return site_noise(within_sites(moments_of(df, **options)), kind).cov


def moments_of(df: pd.DataFrame, **options: object) -> mm.Moments:
    return mm.Moments.from_data(df, mm.Design(**{**ROLES, **options}))


@pytest.mark.parametrize("arms", [2, 3])
def test_without_blocks_it_is_hc2_of_the_site_effects(arms: int) -> None:
    df = rows(1, arms=arms)
    effects = mm.SiteEffects.from_moments(moments_of(df), cov_type="HC2")
    np.testing.assert_allclose(noise_of(df), effects.cov, rtol=1e-10)
    by_name = mm.SiteEffects.from_moments(moments_of(df), cov_type="unbiased")
    np.testing.assert_allclose(by_name.cov, effects.cov, rtol=1e-10)


def test_degrees_of_freedom_are_welchs() -> None:
    df = rows(2)
    noise = site_noise(within_sites(moments_of(df)), "unbiased")
    for s, part in df.groupby("s"):
        a, b = (part.loc[part["t"] == t, "y"] for t in (0, 1))
        va, vb = a.var() / len(a), b.var() / len(b)
        welch = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
        assert noise.df[s] == pytest.approx(welch)


def test_blocks_add_up_by_the_weight_of_their_contrast() -> None:
    """Slope of a site: blocks' differences weighted by n p (1 - p); each with its own S1/n1 + S0/n0."""
    df = rows(3, each=24)
    df["b"] = np.arange(len(df)) % 2
    got = noise_of(df, block="b")
    for s, part in df.groupby("s"):
        size, inside = [], []
        for _, block in part.groupby("b"):
            cells = [block.loc[block["t"] == t, ["y", "m"]] for t in (0, 1)]
            n = [len(c) for c in cells]
            size.append(n[0] * n[1] / sum(n))
            inside.append(sum(np.cov(c, rowvar=False) / len(c) for c in cells))
        expected = sum(w**2 * v for w, v in zip(size, inside, strict=True)) / sum(size) ** 2
        np.testing.assert_allclose(got[s, 0, :, 0, :], expected, rtol=1e-10)


def test_frequency_weights_are_expanded_rows() -> None:
    df = rows(4)
    df["k"] = 1 + np.arange(len(df)) % 3
    expanded = df.loc[df.index.repeat(df["k"])].reset_index(drop=True)
    for kind in ("unbiased", "pooled"):
        got = noise_of(df, kind, weights="k", weight_kind="frequency")
        np.testing.assert_allclose(got, noise_of(expanded, kind), rtol=1e-10)


@pytest.mark.parametrize(("precise", "low", "high"), [(True, 0.99, 1.01), (False, 0.85, 0.95)])
def test_with_unequal_weights_it_is_unbiased_for_precisions(precise: bool, low: float, high: float) -> None:
    """Rows of variance 1 / w: unbiased. Rows of one variance: too low by terms of order 1 / n, here 5 rows a cell."""
    rng = np.random.default_rng(0)
    w, sites = np.array([1.0, 2.5, 4.0, 0.7, 2.0]), 8000
    df = pd.DataFrame({"s": np.repeat(range(sites), 10), "t": np.tile(np.repeat([0, 1], 5), sites)})
    df["w"] = np.tile(w, 2 * sites)
    spread = df["w"] ** -0.5 if precise else 1.0
    df["y"], df["m"] = rng.normal(size=len(df)) * spread, rng.normal(size=len(df)) * spread
    got = noise_of(df, weights="w", weight_kind="analytic")[:, 0, 0, 0, 0].mean()
    a = w / w.sum()
    truth = 2 * ((a**2) * (1 / w if precise else 1.0)).sum()
    assert low < got / truth < high


def test_lone_rows_borrow_the_pooled_variance_of_their_arm() -> None:
    df = rows(5)
    first = df[(df["s"] == 0) & (df["t"] == 1)].index
    df = df.drop(first[1:]).reset_index(drop=True)
    noise = site_noise(within_sites(moments_of(df)), "unbiased")
    assert noise.borrowed == 1
    rest = df[(df["t"] == 1) & (df["s"] > 0)]
    inside = rest[["y", "m"]] - rest.groupby("s")[["y", "m"]].transform("mean")
    pooled = inside.T @ inside / (len(rest) - rest["s"].nunique())
    control = df.loc[(df["s"] == 0) & (df["t"] == 0), ["y", "m"]]
    np.testing.assert_allclose(
        noise.cov[0, 0, :, 0, :], np.cov(control, rowvar=False) / len(control) + pooled, rtol=1e-10
    )
    others = noise_of(df[df["s"] > 0])
    np.testing.assert_allclose(noise.cov[1:], others, rtol=1e-12)


def test_an_arm_without_any_pair_borrows_from_the_other_arm() -> None:
    df = rows(6)
    keep = (df["t"] == 0) | ~df.duplicated(["s", "t"])
    noise = site_noise(within_sites(moments_of(df[keep])), "unbiased")
    assert noise.borrowed == 5
    assert (np.einsum("kdada->kda", noise.cov) > 0).all()


def test_pooled_is_one_variance_per_arm_and_positive_semi_definite() -> None:
    df = rows(7)
    got = noise_of(df, "pooled")
    unit = {}
    for t, part in df.groupby("t"):
        inside = part[["y", "m"]] - part.groupby("s")[["y", "m"]].transform("mean")
        unit[t] = (inside.T @ inside / (len(part) - 5)).to_numpy()
    for s, part in df.groupby("s"):
        n = part.groupby("t").size()
        np.testing.assert_allclose(got[s, 0, :, 0, :], sum(unit[t] / n[t] for t in (0, 1)), rtol=1e-10)
    few = rooms(0, draws=1, sizes=[[2, 3], [2, 2]], icc=0.0)
    cov = noise_of(few, "pooled", cluster="c")
    assert (np.linalg.eigvalsh(cov[:, 0, :, 0, :]) > -1e-12).all()


# -- clusters ------------------------------------------------------------------------------------------


def rooms(
    seed: int, *, draws: int, sizes: list[list[int]], icc: float, crossed: bool = False
) -> pd.DataFrame:
    """``draws`` independent sites; ``sizes[a]`` holds the sizes of the clusters in arm a."""
    rng = np.random.default_rng(seed)
    parts = []
    for t, list_ in enumerate(sizes):
        for c, size in enumerate(list_):
            room = np.repeat(np.arange(draws), size)
            code = c if crossed else c + 10 * t
            parts.append(pd.DataFrame({"s": room, "t": t, "c": room * 100 + code, "code": code}))
    df = pd.concat(parts, ignore_index=True)
    shared = rng.normal(size=(draws * 100, 2)) * icc**0.5
    own = rng.normal(size=(len(df), 2)) * (1 - icc) ** 0.5
    value = shared[df["c"]] + own
    value[:, 1] = 0.6 * value[:, 0] + 0.8 * value[:, 1]
    return df.assign(y=value[:, 0], m=value[:, 1] + df["t"])


@pytest.mark.parametrize("icc", [0.0, 0.4])
@pytest.mark.parametrize("sizes", [[[5, 5, 5], [5, 5]], [[2, 9, 4, 1], [3, 12]]], ids=["equal", "unequal"])
def test_clusters_nested_in_arms_are_unbiased(sizes: list[list[int]], icc: float) -> None:
    """Mean over 4,000 sites of the estimate, against the variance of the effects over the same sites."""
    df = rooms(11, draws=4000, sizes=sizes, icc=icc)
    got = noise_of(df, cluster="c")[:, 0, :, 0, :]
    truth = 0.0
    for list_ in sizes:
        a = np.array(list_) / sum(list_)
        truth += ((a**2) * (icc + (1 - icc) / np.array(list_))).sum()
    corr = np.array([[1.0, 0.6], [0.6, 1.0]])
    error = got.std(axis=0) / 4000**0.5
    assert (np.abs(got.mean(axis=0) - truth * corr) < 4 * error).all(), (got.mean(axis=0), truth)
    effects = mm.SiteEffects.from_moments(moments_of(df, cluster="c"), cov_type="CR0").estimates[:, 0]
    np.testing.assert_allclose(np.cov(effects, rowvar=False), truth * corr, rtol=0.1, atol=0.03)


def test_lone_clusters_borrow_without_bias() -> None:
    """One cluster in the treated arm of a third of the sites: their noise is right on average, never zero."""
    whole = rooms(12, draws=3000, sizes=[[4, 6, 5], [5, 3, 7]], icc=0.3)
    df = whole[~((whole["s"] % 3 == 0) & (whole["code"] > 10))].reset_index(drop=True)
    noise = site_noise(within_sites(moments_of(df, cluster="c")), "unbiased")
    assert noise.borrowed == 1000
    lone = noise.cov[::3, 0, 0, 0, 0]
    a = np.array([4, 6, 5]) / 15
    truth = ((a**2) * (0.3 + 0.7 / np.array([4, 6, 5]))).sum() + 0.3 + 0.7 / 5
    assert abs(lone.mean() - truth) < 4 * lone.std() / 1000**0.5 + 0.02
    assert (lone > 0.2).all()


def test_clusters_that_are_single_rows_are_rows() -> None:
    df = rows(13).assign(c=lambda d: np.arange(len(d)))
    np.testing.assert_allclose(noise_of(df, cluster="c"), noise_of(df), rtol=1e-10)


def test_clusters_that_cross_arms_are_cr2_where_it_exists() -> None:
    df = rooms(14, draws=6, sizes=[[4, 5, 3, 6], [5, 4, 6, 2]], icc=0.3, crossed=True)
    moments = moments_of(df, cluster="c")
    cr2 = mm.SiteEffects.from_moments(moments, cov_type="CR2").cov
    noise = site_noise(within_sites(moments), "unbiased")
    np.testing.assert_allclose(noise.cov, cr2, rtol=1e-10)
    assert noise.borrowed == 0


@pytest.mark.parametrize("kind", ["unbiased", "pooled"])
def test_clusters_that_cross_arms_are_unbiased(kind: str) -> None:
    """The shared part of a cluster cancels from its own contrast, up to its unequal shares of the arms."""
    sizes = [[4, 5, 3, 6], [5, 4, 6, 2]]
    df = rooms(15, draws=2000, sizes=sizes, icc=0.5, crossed=True)
    effects = mm.SiteEffects.from_moments(moments_of(df, cluster="c"), cov_type="CR0").estimates[:, 0]
    got = noise_of(df, kind, cluster="c")[:, 0, :, 0, :]
    truth = np.cov(effects, rowvar=False)
    net = np.array(sizes[1]) / sum(sizes[1]) - np.array(sizes[0]) / sum(sizes[0])
    exact = 0.5 * (net**2).sum() + 0.5 * (1 / sum(sizes[0]) + 1 / sum(sizes[1]))
    assert truth[0, 0] == pytest.approx(exact, rel=0.12)
    # CR2 is unbiased for independent rows; with shared shocks it is too low by what its leverage hides.
    low, high = (0.97, 1.03) if kind == "pooled" else (0.8, 1.05)
    assert low < got[:, 0, 0].mean() / exact < high


# -- covariates, dose, errors ----------------------------------------------------------------------------


def test_covariates_cost_degrees_of_freedom() -> None:
    df = rows(16).assign(x=lambda d: np.random.default_rng(1).normal(size=len(d)))
    n, cells = len(df), 10
    within = within_sites(moments_of(df, covariates=["x"]))
    got = site_noise(within, "unbiased", adjust=np.eye(3)[:, :2]).cov
    np.testing.assert_allclose(got, noise_of(df) * (n - cells) / (n - cells - 1), rtol=1e-10)
    adjust = np.eye(3)[:, :2]
    adjust[2] = [-0.7, 0.4]
    shifted = df.assign(y=df["y"] - 0.7 * df["x"], m=df["m"] + 0.4 * df["x"])
    got = site_noise(within, "unbiased", adjust=adjust).cov
    np.testing.assert_allclose(got, noise_of(shifted) * (n - cells) / (n - cells - 1), rtol=1e-9)


def test_a_dose_has_the_residual_covariance_of_its_site() -> None:
    df = rows(17)
    df["t"] = df["t"] + np.random.default_rng(2).uniform(0, 1, len(df))
    got = noise_of(df, treatment_kind="continuous")
    for s, part in df.groupby("s"):
        x = np.column_stack([np.ones(len(part)), part["t"]])
        e = part[["y", "m"]] - x @ np.linalg.lstsq(x, part[["y", "m"]], rcond=None)[0]
        size = ((part["t"] - part["t"].mean()) ** 2).sum()
        np.testing.assert_allclose(got[s, 0, :, 0, :], e.T @ e / (len(part) - 2) / size, rtol=1e-9)


def test_a_dose_in_a_site_of_three_rows_borrows() -> None:
    df = rows(18)
    df["t"] = df["t"] + np.random.default_rng(3).uniform(0, 1, len(df))
    df = df.drop(df[df["s"] == 0].index[3:])
    noise = site_noise(within_sites(moments_of(df, treatment_kind="continuous")), "unbiased")
    assert noise.borrowed == 1
    assert np.isfinite(noise.cov).all()


def test_a_dose_with_clusters_is_not_a_function_of_the_moments() -> None:
    df = rows(19).assign(c=lambda d: np.arange(len(d)) // 2)
    df["t"] = df["t"] + np.random.default_rng(3).uniform(0, 1, len(df))
    with pytest.raises(mm.errors.MomentsInsufficient, match="continuous treatment with clusters"):
        noise_of(df, treatment_kind="continuous", cluster="c")


@pytest.mark.parametrize("clusters", [False, True])
def test_all_cells_single(clusters: bool) -> None:
    df = (
        rows(20).drop_duplicates(["s", "t"])
        if not clusters
        else rows(20).assign(c=lambda d: d["s"] * 2 + d["t"])
    )
    what = "cluster" if clusters else "row"
    with pytest.raises(mm.errors.DataError, match=f"holds a single {what}.*'2sls'"):
        noise_of(df, **({"cluster": "c"} if clusters else {}))


def test_star_has_36_lone_classes_and_never_zero_variance() -> None:
    noise = site_noise(within_sites(mm.data.star()), "unbiased")
    assert noise.borrowed == 36
    assert np.isfinite(noise.cov).all()
    variance = np.einsum("kdada->kda", noise.cov)[:, 0]
    assert (variance != 0).all()
    # Between classes less what pupils explain is unbiased, hence negative now and then: in one school's itt.
    assert [(variance[:, j] < 0).sum() for j in (0, 1)] == [1, 0]
    pooled = site_noise(within_sites(mm.data.star()), "pooled").cov
    assert (np.einsum("kdada->kda", pooled) > 0).all()


def test_units_and_order_of_sites_do_not_matter() -> None:
    df = rooms(21, draws=7, sizes=[[4, 6, 5], [5, 3]], icc=0.3)
    moved = df.assign(y=2 * df["y"] + 1e6, m=df["m"] * 1e-6 - 3, s=6 - df["s"]).sample(frac=1, random_state=1)
    scale = np.array([2.0, 1e-6])
    for kind in ("unbiased", "pooled"):
        expected = noise_of(df, kind, cluster="c")[::-1] * scale[:, None, None] * scale
        np.testing.assert_allclose(noise_of(moved, kind, cluster="c"), expected, rtol=1e-6)

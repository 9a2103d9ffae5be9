"""Subgroups inside sites: exact expectations, the route from rows, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.level_test import level_contrasts, level_test
from msmmiv.diagnose.within_site import (
    CHECK,
    WithinSite,
    _scores,
    within_site_cells,
    within_site_subgroups,
)
from msmmiv.errors import ChoiceError, DataError, DesignError
from msmmiv.inference.tests import NotApplicable

DESIGN = mm.Design(outcome="y", treatment="t", mediators="m", site="s")


def rows(sites: int = 14, people: int = 240, *, along: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Old people's mediator moves by one more; ``along`` is added to its effect for them."""
    rng = np.random.default_rng(seed)
    n = sites * people
    df = pd.DataFrame({"s": np.repeat(np.arange(sites), people), "t": np.tile([0, 1], n // 2)})
    df["old"] = rng.random(n) < 0.5
    df["age"] = rng.normal(40, 10, n)
    effect = 0.5 + 0.3 * rng.normal(size=sites)[df.s] + along * df.old
    u = rng.normal(size=n)
    df["m"] = df.t * (0.5 + df.old) + u
    df["y"] = effect * df.t * (0.5 + df.old) + 0.5 * u + rng.normal(size=n)
    return df


def test_the_score_has_the_stated_expectation_whatever_the_errors():
    """Over all values of two-valued, correlated, skewed errors with their own variances: no rounding but that."""
    b, g, w = np.array([0.8, 0.3]), np.array([1.5, 0.4]), np.array([5.0, 9.0])
    # Each subgroup's error takes three values with mean zero.
    support = [
        (np.array([[2.0, 1.0], [-1.0, 0.5], [-1.0, -1.5]]) * 0.1, np.array([1 / 3, 1 / 3, 1 / 3])),
        (np.array([[3.0, -1.0], [-1.0, 1 / 3]]) * 0.1, np.array([0.25, 0.75])),
    ]
    cov = np.stack([np.einsum("i,ia,ib->ab", p, e, e) for e, p in support])
    mean = 0.0
    for i, j in itertools.product(*(range(len(p)) for _, p in support)):
        values = np.column_stack([b, g]) + np.stack([support[0][0][i], support[1][0][j]])
        sums, _ = _scores(values, cov, w, np.zeros(2, int), np.zeros(2, int), 1)
        mean += support[0][1][i] * support[1][1][j] * sums["score"][0]
    effect = b / g
    pair = w.prod() / w.sum()
    np.testing.assert_allclose(mean, pair * g.prod() * (effect[0] - effect[1]) * (g[0] - g[1]), rtol=1e-12)


def test_one_effect_per_site_gives_nothing_but_noise():
    g = np.array([0.5, 1.0, 2.0, 0.7])
    values = np.column_stack([0.4 * g, g])
    sums, cells = _scores(
        values, np.zeros((4, 2, 2)), np.ones(4), np.array([0, 0, 0, 1]), np.zeros(4, int), 2
    )
    np.testing.assert_allclose(sums["score"], 0.0, atol=1e-15)
    assert cells.tolist() == [3, 1]
    np.testing.assert_allclose(sums["product"][0], (0.5 * 1 + 0.5 * 2 + 1 * 2) / 3)


def test_rows_give_what_hand_made_subgroups_give():
    df = rows()
    found = within_site_subgroups(df, DESIGN, by="old", draws=199)
    assert isinstance(found, WithinSite)
    assert found.by == ("old",)
    assert found.table["cells"].tolist() == [2] * 14
    df["cell"] = df.s.astype(str) + "/" + df.old.astype(str)
    own = mm.SiteEffects.from_moments(
        mm.Moments.from_data(df, replace(DESIGN, site="cell")), cov_type="unbiased"
    )
    parent, level = ({c: str(c).split("/")[i] for c in own.sites} for i in (0, 1))
    again = within_site_cells(own, parent, level=level, draws=199)
    assert again.test.pvalue == pytest.approx(found.test.pvalue, abs=0.15)  # the sites come in another order
    np.testing.assert_allclose(np.sort(again.table["score"]), np.sort(found.table["score"]), rtol=1e-9)
    assert found.covariance == pytest.approx(again.covariance)


def test_covariance_standard_error_and_shift_by_brute_force_over_pairs():
    """From the estimates of hand-made subgroups, pair by pair; the spread of sites by numpy's sample variance."""
    df = rows(9, 120, along=0.4, seed=3)
    df["cell"] = 10 * df.s + 2 * df.old + (df.age > 40)
    own = mm.SiteEffects.from_moments(
        mm.Moments.from_data(df, replace(DESIGN, site="cell")), cov_type="unbiased"
    )
    found = within_site_cells(
        own, {c: int(c) // 10 for c in own.sites}, level={c: int(c) % 10 for c in own.sites}, draws=99
    )
    b, g = own.estimates[:, 0].T
    w, v = own.precision[:, 0, 0], own.cov[:, 0, :, 0]
    score, product, pairs = np.zeros((3, 9))
    for c, d in itertools.combinations(range(len(own.sites)), 2):
        s = int(own.sites[c]) // 10
        if s != int(own.sites[d]) // 10:
            continue
        size = w[c] * w[d] / sum(x for x, name in zip(w, own.sites, strict=True) if int(name) // 10 == s)
        noise = v[c, 0, 1] * g[d] - b[c] * v[d, 1, 1] - b[d] * v[c, 1, 1] + v[d, 0, 1] * g[c]
        score[s] += size * ((b[c] * g[d] - b[d] * g[c]) * (g[c] - g[d]) - noise)
        product[s] += size * g[c] * g[d]
        pairs[s] += size
    ratio, apart = score.sum() / product.sum(), pairs.sum() / w.sum()
    left = score - ratio * product  # its mean is zero
    assert found.covariance == pytest.approx(ratio * apart, rel=1e-9)
    error = np.sqrt(9 * np.var(left, ddof=1)) / abs(product.sum())
    assert found.covariance_se == pytest.approx(error * apart, rel=1e-9)
    assert found.shift == pytest.approx(ratio * apart * (w @ g) / (w @ (g**2 - v[:, 1, 1])), rel=1e-9)


def test_selection_on_gains_is_seen_and_measured():
    found = within_site_subgroups(rows(24, 400, along=0.6), DESIGN, by="old")
    (evidence,) = found.evidence()
    assert evidence.check == CHECK
    assert evidence.role == "evidence"
    assert evidence.test.pvalue < 0.05
    # Compliances .5 and 1.5, effects .6 apart: covariance of two equal halves is .6 / 4.
    assert abs(found.covariance - 0.15) < 3 * found.covariance_se
    assert "never supports" in evidence.reading
    assert "80% power" in evidence.detectable


def test_bins_and_small_subgroups():
    found = within_site_subgroups(rows(12), DESIGN, by=["old", "age"], bins={"age": 3})
    assert found.table["cells"].max() == 6
    assert len(found.cells) == 72


def test_three_arms_and_covariates():
    df = rows(12)
    df["t"] = df.t + (df.t * (np.arange(len(df)) % 4 == 1))
    design = replace(DESIGN, covariates=("age",))
    found = within_site_subgroups(df, design, by="old")
    assert set(found.cells["arm"]) == {1, 2}
    assert not isinstance(found.test, NotApplicable)


def test_what_is_not_tested_says_why():
    assert "needs rows and baseline covariates" in WithinSite.unknown("").test.reason
    df = rows(6)
    assert "too few sites: 6" in within_site_subgroups(df, DESIGN, by="old").test.reason
    two = rows(12).assign(m2=lambda d: d.m + d.age)
    several = replace(DESIGN, mediators=("m", "m2"))
    assert "several mediators" in within_site_subgroups(two, several, by="old").test.reason
    spread = rows(12).assign(c=lambda d: d.s * 100 + np.arange(len(d)) % 10)
    clustered = replace(DESIGN, cluster="c")
    found = within_site_subgroups(spread, clustered, by="old")
    assert "several subgroups" in found.test.reason
    assert not found.evidence()[0].applies
    assert list(found.to_frame().columns) == ["site", "cells", "score", "product", "pairs"]


def test_clusters_inside_subgroups_are_heeded():
    df = rows(12).assign(c=lambda d: d.s * 1000 + d.old * 100 + d.t * 50 + np.arange(len(d)) // 2 % 7)
    found = within_site_subgroups(df, replace(DESIGN, cluster="c"), by="old")
    assert not isinstance(found.test, NotApplicable)


def test_bad_arguments():
    for bad in (1, 2.5, "a", None, True):
        with pytest.raises(ChoiceError, match=r"min_per_arm=.* whole number of 2 or more"):
            within_site_subgroups(rows(8), DESIGN, by="old", min_per_arm=bad)
    with pytest.raises(DesignError, match="made inside it"):
        within_site_subgroups(rows(8), DESIGN, by="s")
    with pytest.raises(DesignError, match="mediator"):
        within_site_subgroups(rows(8), DESIGN, by="m")
    effects = mm.SiteEffects.from_moments(mm.Moments.from_data(rows(8), DESIGN))
    with pytest.raises(DataError, match="lacks the site of 8 subgroups"):
        within_site_cells(effects, {}, level={})
    with pytest.raises(DataError, match="lacks the name of 8 subgroups"):
        within_site_cells(effects, dict.fromkeys(effects.sites, 1), level={})


def test_contrasts_by_brute_force_and_their_expectation():
    """Every level against the weighted rest, arm by arm; zero where a site has one effect, whatever the compliances."""
    rng = np.random.default_rng(4)
    site, arm, level = (x.ravel() for x in np.meshgrid(range(9), range(2), range(3), indexing="ij"))
    keep = rng.random(len(site)) < 0.9
    site, arm, level = site[keep], arm[keep], level[keep]
    values, weight = rng.normal(1.0, 0.5, (len(site), 2)), rng.uniform(2.0, 9.0, len(site))
    for found in level_contrasts(values, weight, site=site, arm=arm, level=level):
        moved, differ = {}, {}
        for r in np.flatnonzero(level == found.level):
            rest = (site == site[r]) & (arm == arm[r]) & (level != found.level)
            if not rest.any():
                continue
            b, g = np.average(values[rest], axis=0, weights=weight[rest])
            w = weight[r] * weight[rest].sum() / (weight[r] + weight[rest].sum())
            moved[site[r]] = moved.get(site[r], 0.0) + w * (values[r, 1] - g)
            differ[site[r]] = differ.get(site[r], 0.0) + w * (values[r, 0] * g - b * values[r, 1])
        np.testing.assert_allclose(found.moved, list(moved.values()), rtol=1e-9)
        np.testing.assert_allclose(found.differ, list(differ.values()), rtol=1e-9)
    one = np.column_stack([values[:, 1] * (0.2 + 0.1 * site), values[:, 1]])
    for found in level_contrasts(one, weight, site=site, arm=arm, level=level):
        np.testing.assert_allclose(found.differ, 0.0, atol=1e-13)


def test_it_takes_a_difference_of_both():
    """Two levels are one contrast, and its p-value is the larger of two."""
    rng = np.random.default_rng(8)
    site, level = np.repeat(np.arange(14), 2), np.tile([0, 1], 14)
    place = {"site": site, "arm": 0 * site, "level": level}
    for further, more, low in ((0.8, 0.0, False), (0.0, 0.8, False), (0.8, 0.8, True)):
        g = 1.0 + 0.2 * rng.normal(size=28) + further * level
        values = np.column_stack([(0.5 + more * level) * g, g]) + 0.1 * rng.normal(size=(28, 2))
        contrasts = level_contrasts(values, np.ones(28), **place)
        assert len(contrasts) == 1
        test, found = level_test(contrasts, draws=999, seed=0)
        assert (test.pvalue < 0.01) == low
        assert found.level == contrasts[0].level


def test_a_difference_of_the_size_that_is_told_is_found_about_four_times_in_five():
    rng = np.random.default_rng(9)
    site, level = np.repeat(np.arange(30), 2), np.tile([0, 1], 30)
    place = {"site": site, "arm": 0 * site, "level": level}

    def trial(more):
        g = 1.0 + level
        values = np.column_stack([(0.5 + more * level) * g, g]) + 0.3 * rng.normal(size=(60, 2))
        return level_contrasts(values, np.ones(60), **place)

    told = np.median([trial(0.0)[0].reach for _ in range(20)])
    found = [level_test(trial(told), draws=199, seed=i)[0].pvalue <= 0.05 for i in range(200)]
    assert 0.68 < np.mean(found) < 0.92


def test_the_least_of_several_p_values_pays_for_the_others():
    """Twenty sites of three subgroups, one of which has twice the compliance and a larger effect."""
    rng = np.random.default_rng(5)
    g = np.tile([1.0, 1.0, 2.0], 20) + 0.05 * rng.normal(size=60)
    effect = np.tile([0.2, 0.2, 0.3], 20) + 0.1 * rng.normal(size=60)
    place = {
        "site": np.repeat(np.arange(20), 3),
        "arm": np.zeros(60, int),
        "level": np.tile(np.arange(3), 20),
    }
    contrasts = level_contrasts(np.column_stack([effect * g, g]), np.ones(60), **place)
    alone = [level_test([one], draws=999, seed=0)[0].pvalue for one in contrasts]
    test, found = level_test(contrasts, draws=999, seed=0)
    assert 0.0 < min(alone) < 1 / 3
    assert test.pvalue == pytest.approx(3 * min(alone), rel=1e-12)
    assert found.level == contrasts[int(np.argmin(alone))].level == 2
    assert "times 3 subgroups" in test.law

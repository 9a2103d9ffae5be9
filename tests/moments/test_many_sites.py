"""A million sites: no loop over sites in Python, and the same numbers as one by one. Nothing here looks at a clock."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.linalg import group_products
from msmmiv.moments import assembly
from msmmiv.moments.assembly import _order
from msmmiv.moments.site_covariance import _equal_sizes

FEW, MANY = 150, 1500


def trial(sites, *, text=False):
    rng = np.random.default_rng(3)
    rows = 8 * sites
    site, t = np.repeat(np.arange(sites), 8), np.tile([0, 1], rows // 2)
    u = rng.normal(size=rows)
    m1 = rng.normal(0.6, 0.3, sites)[site] * t + u + rng.normal(size=rows)
    m2 = rng.normal(0.3, 0.3, sites)[site] * t - u + rng.normal(size=rows)
    y = 0.5 * m1 - 0.3 * m2 + u + rng.normal(size=rows)
    name = [f"school {s}" for s in site] if text else site
    # Two clusters in each arm of a site.
    cluster = (2 * site + t) * 2 + np.arange(rows) // 2 % 2
    return pd.DataFrame({"s": name, "t": t, "c": cluster, "m1": m1, "m2": m2, "y": y})


def design(**more):
    return mm.Design(outcome="y", treatment="t", mediators=["m1", "m2"], site="s", **more)


def calls(job):
    """Function calls that a job makes, Python's and C's: a loop over sites makes some for every site."""
    count = 0

    def tick(_frame, event, _arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(tick)
    try:
        job()
    finally:
        sys.setprofile(before)
    return count


def effects_of(kind):
    return lambda study: mm.SiteEffects.from_moments(study.moments, cov_type=kind)


def fit_of(estimator, cov_type=None, small_sample=None):
    return lambda study: study.fit(estimator, cov_type=cov_type, small_sample=small_sample).summary


STEPS = {
    "effects": effects_of(None), "effects, unbiased": effects_of("unbiased"), "effects, pooled": effects_of("pooled"),
    "effects, CR0": effects_of("CR0"), "effects, CR2": effects_of("CR2"), "effects, HC3": effects_of("HC3"),
    **{f"2SLS, {k}": fit_of("2sls", k) for k in ("classical", "HC1", "HC3", "HTE", "site", "cluster")},
    **{f"2SLS, site, {k}": fit_of("2sls", "site", k) for k in ("CR0", "CR2", "CR3")},
    **{f"2SLS, cluster, {k}": fit_of("2sls", "cluster", k) for k in ("CR0", "CR2", "CR3")},
    "UJIVE": fit_of("ujive"), "LIML": fit_of("liml"), "bc_linear": fit_of("bc_linear"),
    "table": lambda study: study.effects.to_frame(), "moments": lambda study: study.moments.to_frame(),
    "leave one out": lambda study: study.leave_one_out("2sls"),
}  # fmt: skip


@pytest.fixture(scope="module")
def studies():
    made = [mm.Study(mm.Moments.from_data(trial(k), design(cluster="c"))) for k in (FEW, MANY)]
    for study in made:
        study.effects.to_frame()
    return made


@pytest.mark.parametrize("step", STEPS)
def test_no_call_per_site(studies, step):
    """Ten times the sites make less than one more call for every added site."""
    job = STEPS[step]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job(studies[0])  # what is made once, is made
        few, many = (calls(lambda s=study: job(s)) for study in studies)
    assert few > 10, "nothing was counted"
    assert many - few < MANY - FEW


def test_the_count_sees_a_loop(studies):
    def loop(study):
        return [np.asarray(x).sum() for x in study.effects.estimates]

    few, many = (calls(lambda s=study: loop(s)) for study in studies)
    assert many - few >= MANY - FEW


def test_labels_that_are_integers_are_not_looked_at_one_by_one(monkeypatch):
    seen = []
    real = assembly.plain
    monkeypatch.setattr(assembly, "plain", lambda v: seen.append(v) or real(v))
    m = mm.Moments.from_data(trial(MANY), design())
    assert m.sites == tuple(range(MANY))
    assert all(type(s) is int for s in m.sites)
    assert len(seen) <= 2


def test_labels_that_are_text_are_looked_at_once(monkeypatch):
    seen = []
    real = assembly.plain
    monkeypatch.setattr(assembly, "plain", lambda v: seen.append(v) or real(v))
    m = mm.Moments.from_data(trial(FEW, text=True), design(cluster="c"))
    assert m.sites == tuple(sorted(f"school {s}" for s in range(FEW)))
    assert len(seen) <= FEW + 2


def test_one_label_that_engines_write_in_two_ways():
    keys = pd.Series([2, 1.0, 1, "b", "2"], dtype=object)
    labels, codes = assembly._coded(keys)
    assert labels == ("1", "2", "b")
    assert codes.tolist() == [1, 0, 0, 2, 1]
    labels, codes = assembly._coded(pd.Series([2.5, 1.0, 10.0, 1.0]))
    assert labels == (1, 2.5, 10)
    assert codes.tolist() == [1, 0, 2, 0]


def test_moments_do_not_depend_on_the_order_of_rows_or_of_labels():
    df = trial(40)
    one = mm.Moments.from_data(df, design(cluster="c"))
    two = mm.Moments.from_data(df.sample(frac=1, random_state=1), design(cluster="c"))
    assert one.equals(two)
    assert one.sites == two.sites


def test_group_products_equal_outer_products():
    rng = np.random.default_rng(1)
    w, x, g = rng.uniform(1, 2, 50), rng.normal(size=(50, 3)), rng.integers(0, 4, 50)
    inside = np.einsum("ci,cj->cij", rng.normal(size=(50, 3)), np.ones((50, 3)))
    inside = inside + inside.transpose(0, 2, 1)
    full = np.zeros((4, 3, 3))
    np.add.at(full, g, inside + np.einsum("c,ci,cj->cij", w, x, x))
    np.testing.assert_allclose(group_products(w, x, g, 4, inside=inside), full, rtol=1e-12, atol=1e-12)


def test_cells_are_ordered_alike_with_one_number_and_with_four():
    rng = np.random.default_rng(2)
    codes = [rng.integers(0, 3, 60) for _ in range(4)]
    huge = [c * 2**20 for c in codes]  # more combinations than one integer can number
    for one, four in zip(_order(codes), _order(huge), strict=True):
        assert one.tolist() == four.tolist()


@pytest.mark.parametrize("most", [1, 7, 2**20])
def test_groups_of_equal_size_cover_everything_once(most):
    group = np.random.default_rng(4).integers(0, 9, 60)
    found = list(_equal_sizes(group, most))
    assert sorted(np.concatenate([f.ravel() for f in found]).tolist()) == list(range(60))
    assert all((group[f] == group[f][:, :1]).all() for f in found)
    assert sorted(len(f[0]) for f in found for _ in f) == sorted(np.bincount(group)[np.bincount(group) > 0])

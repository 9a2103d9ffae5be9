"""decompose: what a referee found, each mended with a test."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import DataError
from msmmiv.estimate.between.effects import intercept_set, mean_effects
from msmmiv.estimate.between.interaction import baseline_rows
from msmmiv.estimate.between.rows import BetweenRows
from msmmiv.estimate.between.slope_test import SlopeTest
from tests.estimate.between.test_decompose import DESIGN, effects, golden, people, table

pytestmark = pytest.mark.filterwarnings("ignore::msmmiv.errors.UnknownCovarianceWarning")


def equal_errors(seed: int, k: int) -> mm.SiteEffects:
    rng = np.random.default_rng(seed)
    g, d = 1 + 0.7 * rng.normal(size=k), 0.6 + 0.3 * rng.normal(size=k)
    e = 0.3 * rng.normal(size=(2, k))
    frame = pd.DataFrame({"s": range(k), "b": d + g + e[1], "sb": 0.3, "g": g + e[0], "sg": 0.3, "c": 0.0})
    return effects(frame)


@pytest.mark.parametrize("k", [8, 40])
def test_equal_standard_errors_are_not_a_special_case(k: int) -> None:
    """The start is then the zero itself, and may round to either side of it."""
    for seed in [146, *range(40)]:
        fit = mm.decompose(equal_errors(seed, k), "eb_score", draws=19).fit
        assert np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize(
    ("itt", "slope"), [(1 + 2 * np.arange(8.0), 2.0), (np.full(8, 3.0), 0.0), (np.zeros(8), 0.0)]
)
@pytest.mark.filterwarnings("error:.*:RuntimeWarning")
def test_rows_on_one_line_keep_that_line_in_the_set(itt: np.ndarray, slope: float) -> None:
    frame = pd.DataFrame({"s": range(8), "b": itt, "sb": 0.2, "g": np.arange(8.0), "sg": 0.2, "c": 0.0})
    found = mm.decompose(effects(frame), draws=99)
    low, high = found.confidence_set("g").hull
    assert low <= slope + 1e-9
    assert high >= slope - 1e-9
    assert any("agree better" in c for c in found.cautions)
    assert found.effects["lower"].notna().all()
    assert "agree better than their standard errors allow" in str(found)


def test_a_row_that_carries_the_slope_is_named() -> None:
    frame = table(8, g=[0.0, 0.1, 0.2, 0.1, 0.0, 0.2, 0.1, 5.0])
    assert any("h alone carries" in c for c in mm.decompose(effects(frame), draws=99).cautions)
    assert not any("alone" in c for c in mm.decompose(golden(30), draws=99).cautions)


def test_a_method_that_breaks_down_does_not_take_the_table_with_it() -> None:
    errors = np.full(6, 0.2)
    errors[0] = 1e-9
    found = mm.decompose(effects(table(sg=errors)), draws=99)
    frame = found.compare()
    assert set(frame["method"]) >= {"ols", "reml", "bces"}
    close = mm.decompose(effects(table(g=1 + 1e-9 * np.arange(6.0))), draws=99).compare()
    assert (close["status"] != "").any()
    flat = mm.decompose(effects(table(b=3.0)), draws=99).compare(["bayes", "ols"])
    assert "the same in all rows" in flat["status"].iloc[0]


def test_the_dictionary_is_json_whatever_the_labels_and_numbers() -> None:
    frame = table().assign(s=pd.date_range("2020-01-01", periods=6))
    found = mm.decompose(effects(frame.assign(sg=3.0), None), draws=99)
    text = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert text["sites"][0]["row"].startswith("2020-01-01")
    assert {"direct_spread", "interaction", "sensitivity"} <= set(text)


def test_covariates_must_be_a_frame() -> None:
    with pytest.raises(DataError, match="to_frame"):
        mm.decompose(effects(table()), covariates=pd.Series(range(6), index=list("abcdef")))


def test_pvalues_go_with_their_sets() -> None:
    """Of the slope (at zero, not elsewhere), of the direct effect, and of the averages."""
    checked = 0
    for seed in range(8):
        found = mm.decompose(equal_errors(seed, 9), draws=199)
        tidy = found.tidy().set_index("term")
        rows = [(tidy.loc[t, "p_value"], found.confidence_set(t)) for t in tidy.index]
        frame = found.effects.set_index("effect")
        rows += [(frame.loc["direct effect", "p_value"], None)]
        inside = [0.0 in s for _, s in rows[:-1]]
        low, high = frame.loc["direct effect", ["lower", "upper"]]
        inside.append(low <= 0 <= high)
        for (p, _), contains in zip(rows, inside, strict=True):
            if abs(p - 0.05) > 0.012:
                checked += 1
                assert contains == (p > 0.05)
    assert checked > 15


def test_an_indirect_effect_needs_both_its_parts() -> None:
    """Compliances that average to zero: the mediator's effect is there, an indirect effect is not."""
    frame = pd.DataFrame({"s": range(12), "g": np.linspace(-2, 2, 12), "sg": 0.3, "sb": 0.2, "c": 0.0})
    frame["b"] = 1 + 2 * frame["g"] + 0.1 * np.cos(np.arange(12.0) * 3)
    found = mm.decompose(effects(frame), draws=199)
    assert found.pvalues["g"] < 0.02
    assert found.effects.set_index("effect").loc["indirect effect", "p_value"] > 0.5


def test_a_control_group_that_all_rows_share_widens_direct_effects() -> None:
    study = mm.Study(people(1, 900, arms=9), DESIGN)
    found = study.decompose(draws=199)
    rows = found.rows
    apart = dataclasses.replace(rows, common=np.zeros((2, 2)))
    test, alone = found.slope_tests["m"], SlopeTest.of(apart, "m", draws=199)
    slope = found.slope_sets["m"]
    wide, narrow = intercept_set(test, slope, 0).hull, intercept_set(alone, slope, 0).hull
    assert wide[1] - wide[0] > narrow[1] - narrow[0]
    weights = np.full((1, 8), 1 / 8)
    np.testing.assert_allclose(
        mean_effects(rows, weights)[1] - mean_effects(apart, weights)[1], rows.common[None]
    )


def test_clusters_are_heeded() -> None:
    frame = people(12, 80).assign(
        c=lambda d: d.groupby(["site", "t"]).cumcount() // 8 + 100 * d["site"] + 10 * d["t"]
    )
    shock = np.random.default_rng(0).normal(size=10_000)
    frame["y"] += 3 * shock[frame["c"]]
    design = mm.Design(outcome="y", treatment="t", mediators="m", site="site", cluster="c")
    with_, without = mm.Study(frame, design).decompose(draws=19), mm.Study(frame, DESIGN).decompose(draws=19)
    assert with_.rows.itt_variance.mean() > 2 * without.rows.itt_variance.mean()


def test_several_mediators_have_direct_effects_by_site() -> None:
    design = mm.Design(outcome="y", treatment="t", mediators=["m", "other"], site="site")
    sites = mm.Study(people(20, 60), design).decompose(draws=19).site_effects
    np.testing.assert_allclose(sites["direct"], sites["itt"] - sites["indirect m"] - sites["indirect other"])
    assert (sites["direct_lower"] < sites["direct"]).all()


def test_control_levels_and_compliances_have_the_errors_of_one_sample() -> None:
    frame = people(9, 40)
    rows = baseline_rows(mm.Study(frame, DESIGN).moments, "m")
    assert isinstance(rows, BetweenRows)
    by = frame.groupby(["site", "t"])["m"]
    mean, variance = by.mean().unstack(), (by.var() / by.size()).unstack()
    np.testing.assert_allclose(rows.y, mean[0])
    np.testing.assert_allclose(rows.x[:, 0], mean[1] - mean[0])
    np.testing.assert_allclose(rows.cov[:, 0, 0], variance[0])
    np.testing.assert_allclose(rows.cov[:, 1, 1], variance.sum(axis=1))
    np.testing.assert_allclose(rows.cov[:, 0, 1], -variance[0])


def test_each_mediator_has_its_own_mean_compliance() -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"s": range(40), "x": 5 + rng.normal(size=40), "z": -1 + rng.normal(size=40)})
    frame = frame.assign(
        b=1 + frame["x"] + 2 * frame["z"] + 0.1 * rng.normal(size=40), sb=0.1, sx=0.05, sz=0.05
    )
    found = mm.decompose(
        mm.SiteEffects.from_table(
            frame, site="s", itt="b", itt_se="sb", compliance=["x", "z"], compliance_se=["sx", "sz"]
        )
    )
    table_ = found.effects.set_index("effect")
    for name in ("x", "z"):
        row, slope = table_.loc[f"indirect effect through {name}"], found.slope_sets[name].hull
        ends = sorted(v * frame[name].mean() for v in slope)
        np.testing.assert_allclose([row["lower"], row["upper"]], ends, rtol=0.1)


def test_the_t_reference_counts_sites() -> None:
    rows = mm.Study(people(10, 150, arms=3), DESIGN).decompose(draws=19).rows
    assert (rows.n_rows, rows.n_sites) == (20, 10)
    assert SlopeTest(rows, "m", "t").df == 8


def test_zero_is_a_knot_of_the_critical_values() -> None:
    test = SlopeTest.of(mm.decompose(golden(10), draws=19).rows, "gamma_hat", draws=99)
    knots = test.calibration
    assert knots is not None
    at = np.tan(knots.angle) * knots.scale + knots.centre
    assert np.abs(at).min() < 1e-9
    exact = knots.sizes[np.abs(at).argmin(), 4]
    assert float(test.critical(np.zeros(1), 0.95)[0]) == pytest.approx(exact, rel=1e-9)


def test_tests_of_no_effect_test_zero() -> None:
    """Slope 1: tests of zero reject, tests of one would not."""
    rng = np.random.default_rng(4)
    g = np.linspace(0, 6, 20)
    frame = pd.DataFrame(
        {"s": range(20), "b": 1 + g + 0.2 * rng.normal(size=20), "sb": 0.2, "g": g, "sg": 0.1, "c": 0.0}
    )
    found = mm.decompose(effects(frame), draws=199)
    assert found.pvalues["g"] < 0.01
    assert all(t.pvalue < 0.01 for t in found.tests)
    assert all("is 0" in getattr(t, "null", "is 0") for t in found.tests)

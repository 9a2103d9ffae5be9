"""A chain of two mediators: algebra to the last digit, recovery from rows, and what cannot be said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.audit.cascade import cascade
from msmmiv.errors import ChoiceError, DataError, DesignError, MomentsInsufficient

DESIGN = {"outcome": "score", "treatment": "offer", "site": "city"}
BOTH = mm.Design(mediators=["voucher", "poverty"], **DESIGN)
ONE = mm.Design(mediators="voucher", **DESIGN)


def chain(sites=24, n=60, *, seed=1, vary=0.6, arms=2, noise=1.0):
    """Rows: the offer moves the voucher, the voucher poverty (by theta_s), both the score; a common cause of all."""
    rng = np.random.default_rng(seed)
    s = np.repeat(np.arange(sites), n)
    t = np.arange(len(s)) % arms
    u = rng.normal(size=len(s))
    take, theta = rng.uniform(0.4, 1.0, sites), rng.normal(-1.0, vary, sites)
    voucher = take[s] * t + 0.6 * u + noise * rng.normal(size=len(s))
    poverty = theta[s] * voucher + 0.6 * u + noise * rng.normal(size=len(s))
    score = 0.4 * voucher - 0.3 * poverty + u + rng.normal(size=len(s))
    rows = {"city": s, "offer": t, "voucher": voucher, "poverty": poverty, "score": score}
    return pd.DataFrame(
        rows | {"age": u + rng.normal(size=len(s)), "care": rng.normal(size=len(s)) + t * (s % 3)}
    )


def moments(rows, design=BOTH):
    return mm.Moments.from_data(rows, design)


@pytest.mark.parametrize("estimator", ["2sls", "mbtsls", "ujive"])
@pytest.mark.parametrize("roles", [{}, {"covariates": ["age"]}, {"control": 0}])
def test_the_parts_are_fits_and_add_up(estimator, roles):
    rows = chain(arms=3 if "control" in roles else 2)
    both = mm.Design(mediators=["voucher", "poverty"], **DESIGN, **roles)
    one = mm.Design(mediators="voucher", **DESIGN, **roles)
    found = cascade(moments(rows, both), first="voucher", second="poverty", estimator=estimator)
    direct, second, theta, indirect, total = found.estimates
    fits = [mm.fit(moments(rows, d), estimator, cov_type="site") for d in (both, one)]
    np.testing.assert_allclose([direct, second], fits[0].params[:2], rtol=0, atol=1e-12)
    assert total == pytest.approx(fits[1].params.iloc[0], abs=1e-12)
    as_outcome = mm.Design(outcome="poverty", treatment="offer", mediators="voucher", site="city", **roles)
    assert theta == pytest.approx(
        mm.fit(moments(rows, as_outcome), estimator, cov_type="site").params.iloc[0]
    )
    assert direct + theta * second == pytest.approx(total, abs=1e-12)
    assert indirect == pytest.approx(total - direct, abs=1e-12)


def test_standard_errors_are_those_of_leaving_sites_out():
    rows = chain()
    found = cascade(moments(rows), first="voucher", second="poverty")
    for design, at in ((BOTH, [0, 1]), (ONE, [4])):
        fit = mm.fit(moments(rows, design), "2sls", cov_type="site", small_sample="CR3")
        np.testing.assert_allclose(found.std_errors[at], fit.std_errors, rtol=1e-10)
    again = [
        cascade(moments(rows[rows["city"] != s]), first="voucher", second="poverty").estimates
        for s in range(24)
    ]
    assert found.df[3] == min(found.df[1:3])
    away = np.array(again) - found.estimates
    np.testing.assert_allclose(found.covariance, away.T @ away, rtol=1e-9)


def test_coefficients_are_direct_effects():
    """Row level, constant effects: the coefficient of the first is what it does past the second, not its total."""
    found = cascade(moments(chain(sites=40, n=20_000, vary=0.6)), first="voucher", second="poverty")
    np.testing.assert_allclose(found.estimates[:2], [0.4, -0.3], atol=0.03)
    weighted = found.estimates[2]
    assert found.estimates[4] == pytest.approx(0.4 - 0.3 * weighted, abs=0.03)
    assert abs(found.estimates[4] - 0.4) > 0.2  # the total is something else


def test_site_effects_give_the_same():
    m = moments(chain())
    effects = mm.SiteEffects.from_moments(m, cov_type="unbiased")
    one, two = (cascade(x, first="voucher", second="poverty") for x in (m, effects))
    np.testing.assert_allclose(one.estimates, two.estimates, rtol=1e-10)
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=1e-8)
    assert (one.treatment, two.treatment) == ("offer", "treatment")


def test_an_arm_that_a_site_lacks():
    rows = chain(arms=3)
    rows = rows[~((rows["city"] == 4) & (rows["offer"] == 2))]
    design = mm.Design(mediators=["voucher", "poverty"], control=0, **DESIGN)
    m = moments(rows, design)
    one = cascade(m, first="voucher", second="poverty")
    two = cascade(mm.SiteEffects.from_moments(m, cov_type="unbiased"), first="voucher", second="poverty")
    np.testing.assert_allclose(one.estimates, two.estimates, rtol=1e-10)
    thetas = one.site_thetas.to_frame()
    assert len(thetas) == 48
    assert (thetas["set"] == "arm absent").sum() == 1


def test_thetas_by_site_are_ratios_with_fieller_sets():
    effects = mm.SiteEffects.from_moments(moments(chain()))
    found = cascade(effects, first="voucher", second="poverty")
    compliance = effects.compliance
    ratio = compliance["poverty"] / compliance["voucher"]
    np.testing.assert_allclose(found.site_thetas.ratio, ratio, rtol=1e-10)
    as_outcome = mm.Design(outcome="poverty", treatment="offer", mediators="voucher", site="city")
    theirs = mm.fieller_sets(mm.SiteEffects.from_moments(moments(chain(), as_outcome)))
    for mine, other in zip(found.site_thetas.sets, theirs.sets, strict=True):
        np.testing.assert_allclose(mine.intervals, other.intervals, rtol=1e-9)
    assert found.variation.q.pvalue < 0.05


def test_one_theta_for_all_sites_is_a_failure_of_rank():
    found = cascade(moments(chain(vary=0.0, n=200)), first="voucher", second="poverty")
    assert found.variation.q.pvalue > 0.05
    assert "cannot be told apart (viii)" in found.notes[0]
    direct, total = found.std_errors[0], found.std_errors[4]
    assert direct > 3 * total


def test_exact_proportion_leaves_the_total_effect():
    rows = chain()
    rows["poverty"] = -2.0 * rows["voucher"]
    found = cascade(moments(rows), first="voucher", second="poverty")
    assert np.isnan(found.estimates[[0, 1, 3]]).all()
    assert found.estimates[2] == pytest.approx(-2.0)
    assert found.estimates[4] == pytest.approx(mm.fit(moments(rows, ONE), "2sls").params.iloc[0])
    assert found.status is not None
    assert np.isfinite(found.std_errors[4])
    assert isinstance(found.sets[0], mm.NotApplicable)
    assert found.status in str(found)


def test_two_sites_give_estimates_and_no_standard_errors():
    found = cascade(moments(chain(sites=2)), first="voucher", second="poverty")
    assert np.isfinite(found.estimates).all()
    assert np.isnan(found.std_errors[[0, 1, 3]]).all()
    assert found.status
    assert isinstance(found.sets[3], mm.NotApplicable)


def test_other_mediators_are_held_fixed():
    design = mm.Design(mediators=["care", "voucher", "poverty"], **DESIGN)
    found = cascade(moments(chain(), design), first="voucher", second="poverty")
    assert found.others == ("care",)
    short = mm.fit(moments(chain(), mm.Design(mediators=["care", "voucher"], **DESIGN)), "2sls")
    assert found.estimates[4] == pytest.approx(short.params["voucher"], abs=1e-12)
    assert found.estimates[0] + found.estimates[2] * found.estimates[1] == pytest.approx(found.estimates[4])
    assert "Held fixed throughout: care" in found.notes[-1]


def test_a_published_table():
    table = pd.DataFrame({
        "site": list("ABCDEF"), "itt": [0.2, 0.41, 0.13, 0.52, 0.3, 0.25], "itt_se": 0.1,
        "voucher": [1.0, 2.1, 0.4, 1.6, 1.2, 0.8], "voucher_se": 0.1,
        "poverty": [0.5, 0.3, 0.6, 1.4, 0.2, 0.9], "poverty_se": 0.1, "c": 0.0, "d": 0.0,
    })  # fmt: skip
    effects = mm.SiteEffects.from_table(
        table, site="site", itt="itt", itt_se="itt_se", compliance=["voucher", "poverty"],
        compliance_se=["voucher_se", "poverty_se"], cov=["c", "d"],
    )  # fmt: skip
    found = cascade(effects, first="voucher", second="poverty")
    expected = np.linalg.lstsq(table[["voucher", "poverty"]].to_numpy(), table["itt"].to_numpy(), rcond=None)[
        0
    ]
    np.testing.assert_allclose(found.estimates[:2], expected, rtol=1e-12)
    assert "taken as uncorrelated" in found.notes[-1]
    with pytest.raises(MomentsInsufficient, match="Give moments"):
        cascade(effects, first="voucher", second="poverty", estimator="ujive")


def test_classes_of_star():
    found = cascade(
        mm.data.star("math_two_mediators"), first="class_size", second="tch_exp", estimator="ujive"
    )
    assert found.n_sites == 79
    assert found.to_frame().shape == (5, 8)
    assert found.variation.q.dist == "chi2(78)"


def test_the_page_is_in_the_names_of_the_study():
    found = cascade(moments(chain()), first="voucher", second="poverty")
    text = str(found)
    assert text.startswith("offer -> voucher -> poverty, outcome score; 2sls, 24 sites")
    assert "direct effect of voucher (past poverty)" in text
    assert text.count("inside each site") == 2
    assert all(f"({letter}) across sites" in text for letter in "abcd")
    frame = found.to_frame()
    assert frame["quantity"].tolist() == ["direct", "second", "theta", "indirect", "total"]
    assert (frame["conf_low"] < frame["estimate"]).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"first": "care", "second": "poverty"}, DesignError, "'care' is not one of the mediators"),
        ({"first": "voucher", "second": "voucher"}, DesignError, "named twice"),
        ({"first": "voucher", "second": "poverty", "estimator": "liml"}, ChoiceError, "estimator='liml'"),
        ({"first": "voucher", "second": "poverty", "level": 95}, DataError, "between 0 and 1"),
    ],
)
def test_bad_questions(options, error, message):
    with pytest.raises(error, match=message):
        cascade(moments(chain()), **options)


def test_data_are_not_moments():
    with pytest.raises(DesignError, match="needs Moments or SiteEffects"):
        cascade(chain(), first="voucher", second="poverty")


@pytest.mark.parametrize(("sites", "vary"), [(2, 0.6), (12, 0.0)])
def test_why_there_is_no_effect_is_said_once(sites, vary):
    """Two sites for two coefficients; and a second mediator that is the first one, so that theta has no error."""
    rows = chain(sites, vary=vary)
    if not vary:
        rows["poverty"] = -rows["voucher"]
    found = cascade(mm.Moments.from_data(rows, BOTH), first="voucher", second="poverty")
    text = str(found)
    assert found.status
    assert text.count(found.status) == 1
    assert text.count("no set, as said below") == 2
    assert text.count("theta the same in all sites") == 1
    assert found.status in found.to_frame()["set"][0]

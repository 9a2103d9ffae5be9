"""What a referee broke: crashes on everyday trials, accusations from weights and from missing covariances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.evidence import Evidence
from msmmiv.inference.tests import NotApplicable
from msmmiv.linalg import frozen, group_sum_along

FEW = 199


def takers(seed: int, sites: int, people: int, take_up: float) -> pd.DataFrame:
    """One-sided noncompliance, the same take-up everywhere: some sites have no variance, compliance no spread."""
    rng = np.random.default_rng(seed)
    s, t = np.repeat(np.arange(sites), people), np.tile([0, 1], sites * people // 2)
    m = ((t == 1) & (rng.random(len(s)) < take_up)).astype(float)
    return pd.DataFrame({"s": s, "t": t, "m": m, "y": m + rng.normal(size=len(s))})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("sites", "people", "take_up"), [(16, 12, 0.85), (40, 20, 0.8), (20, 20, 1.0)])
def test_homogeneous_take_up_is_audited(seed, sites, people, take_up):
    design = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    audit = mm.Study(takers(seed, sites, people, take_up), design).audit(draws=FEW)
    assert len(audit.findings) == 9


def test_a_lottery_with_inverse_probability_weights_is_not_accused():
    """Such weights go with the arm: orders of the labels that leave them in place say nothing."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"s": np.repeat(np.arange(20), 60), "t": np.tile(np.arange(60) < 6, 20).astype(int)})
    frame["x"], frame["m"] = rng.normal(size=(2, len(frame)))
    frame["m"] += frame["t"]
    frame["y"], frame["w"] = (
        frame["m"] + rng.normal(size=len(frame)),
        np.where(frame["t"] == 1, 10.0, 1 / 0.9),
    )
    roles = {"outcome": "y", "treatment": "t", "mediators": "m", "site": "s", "covariates": ["x"]}
    weighted = mm.Design(**roles, weights="w", weight_kind="probability")
    found = mm.covariate_balance(mm.Moments.from_data(frame, weighted))
    assert isinstance(found.joint, NotApplicable)
    assert "leave the weights out" in found.joint.reason
    assert mm.covariate_balance(mm.Moments.from_data(frame, mm.Design(**roles))).joint.pvalue > 0.05


def test_without_covariances_of_errors_independence_is_context():
    table = mm.simulate(sites=40, people=200, seed=2).effects.to_frame()
    with pytest.warns(UserWarning, match="assumed to be zero"):
        effects = mm.SiteEffects.from_table(
            table, site="site", itt="itt", itt_se="itt_se", compliance="m1", compliance_se="m1_se", n="n"
        )
    found: tuple[Evidence, ...] = mm.independence(effects, draws=FEW).evidence()
    assert {e.role for e in found} == {"context"}


def test_variances_of_rounding_size_carry_no_weight():
    trial = mm.simulate(sites=20, seed=1)
    table = trial.effects.to_frame()
    table.loc[3, ["m1_se", "cov_itt_m1"]] = [1e-16, 0.0]
    effects = mm.SiteEffects.from_table(
        table,
        site="site",
        itt="itt",
        itt_se="itt_se",
        compliance="m1",
        compliance_se="m1_se",
        cov="cov_itt_m1",
    )
    z = trial.frame.groupby("site")[["z"]].mean()
    without = mm.SiteEffects.from_table(
        table.drop(index=3), site="site", itt="itt", itt_se="itt_se", compliance="m1", compliance_se="m1_se",
        cov="cov_itt_m1",
    )  # fmt: skip
    one, two = (
        mm.independence(e, covariates=z, draws=FEW).covariates.findings[0] for e in (effects, without)
    )
    assert one.relation.pvalue == pytest.approx(two.relation.pvalue, abs=0.1)


def test_sums_along_an_axis_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=(3, 7, 2)), np.array([2, 0, 1, 2, 0, 0, 1])
    got = group_sum_along(values, groups, -2)
    for g in range(3):
        np.testing.assert_allclose(got[:, g], values[:, groups == g].sum(axis=1))


def test_three_arms_cost_grows_with_sites_and_not_with_their_square():
    """No array of rows by sites, which 1,200 rows of 600 sites and 19 trials would show in the memory it takes."""
    import tracemalloc

    effects = mm.simulate(sites=600, people=24, arms=3, seed=1).effects
    tracemalloc.start()
    found = mm.surface_test(effects, "origin", draws=19)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert found.test.stat > 0


def test_sites_without_controls_are_named_in_the_text():
    """In the title, and where the shares of the arms are reported."""
    trial = mm.simulate(arms=3, sites=14, people=60, seed=1)
    gone = trial.frame["site"].isin([2, 5]) & (trial.frame["t"] == 0)
    whole = mm.Study(trial.frame, trial.design).audit(draws=FEW)
    audit = mm.Study(trial.frame[~gone], trial.design).audit(draws=FEW)
    assert "12 sites with effects against the control (of 14)" in audit.subject
    said = (
        "2 sites of 14 (2 and 5) have no comparison with the control arm 0: two-stage least squares compares"
    )
    assert audit["vi"].reasons[-1].startswith(said)
    assert " ".join(audit.summary.split()).count(said) == 1
    assert said in audit["vi"].to_dict()["reason"]
    assert "no comparison with the control" not in whole.summary
    assert [f.reasons for f in whole.findings if "comparison with" in f.reason] == []


def test_a_table_without_some_effects_says_so():
    effects = mm.simulate(arms=3, sites=14, people=60, seed=1).effects
    estimates = effects.estimates.copy()
    estimates[4] = np.nan
    found = mm.audit_assumptions(replace(effects, estimates=frozen(estimates)), draws=FEW)
    label = effects.sites[4]
    assert f"1 site of 14 ({label}) has no effect against the control" in found["vi"].reason


@pytest.mark.parametrize("draws", [0, 99, 198, 198.0, "999"])
def test_draws_that_holm_would_leave_without_power_are_refused(draws):
    """The smallest p-value is 1 over draws and one; six tests times 1/100 is more than 5%."""
    with pytest.raises(mm.errors.ChoiceError, match=r"199 or more.*smallest p-value.*1/\(n \+ 1\).*Holm"):
        mm.Study(mm.data.star()).audit(draws=draws)

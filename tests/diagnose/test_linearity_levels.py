"""Sites without compliance, and the effect by the level of the mediator among controls."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.control_level import effect_by_control_mean, level_rows
from msmmiv.diagnose.moderation import moderated
from msmmiv.diagnose.zero_compliance import zero_compliance_sites
from msmmiv.errors import ChoiceError
from msmmiv.inference.tests import NotApplicable
from tests.diagnose.test_linearity import effects_of


def people(seed: int, k: int = 30, n: int = 20, *, bend: float = 0.0, arms: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    level, g = 0.7 * rng.standard_normal(k), 0.8 + 0.4 * rng.standard_normal(k)
    site, arm = (a.ravel() for a in np.indices((k, arms * n))[:2])
    arm = arm // n
    noise = rng.standard_normal((len(site), 2)) @ np.linalg.cholesky(np.array([[1.0, 0.5], [0.5, 1.0]])).T
    m = level[site] + arm * g[site] + noise[:, 0]
    y = arm * g[site] * (1.0 + bend * level[site]) + noise[:, 1]
    return pd.DataFrame({"s": site, "t": arm, "m": m, "y": y, "m2": -m + noise[:, 1], "b": site % 3})


def moments(frame: pd.DataFrame, **more: object) -> mm.Moments:
    roles = {"outcome": "y", "treatment": "t", "mediators": ["m"], "site": "s"} | more
    return mm.Moments.from_data(frame, mm.Design(**roles))  # type: ignore[arg-type]


def test_rows_are_contrasts_and_control_means_with_the_covariance_of_shared_controls() -> None:
    frame = people(1, 44, 9)
    rows = level_rows(moments(frame))
    assert not isinstance(rows, NotApplicable)
    one = frame[frame.s == 5]
    low, high = (one[one.t == t][["y", "m"]].to_numpy() for t in (0, 1))
    controls = frame[frame.t == 0].groupby("s").m.mean()
    want = [*(high.mean(axis=0) - low.mean(axis=0)), controls[5] - controls.mean()]
    np.testing.assert_allclose(rows.values[5], want, rtol=1e-12)
    # (itt, compliance, level) is linear in the four means of two arms.
    turn = np.array([[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 1.0]])
    of_means = np.zeros((4, 4))
    of_means[:2, :2], of_means[2:, 2:] = np.cov(high.T) / 9, np.cov(low.T) / 9
    np.testing.assert_allclose(rows.cov[5], turn @ of_means @ turn.T, rtol=1e-12)


def test_an_effect_that_goes_with_the_level_is_found() -> None:
    bent = effect_by_control_mean(moments(people(2, 80, 40, bend=1.0)), draws=199)
    assert bent.test.pvalue < 0.02
    assert "A direct effect that goes with that level looks the same" in bent.reading
    assert "80% power" in bent.detectable
    flat = effect_by_control_mean(moments(people(2, 80, 40)), draws=199)
    assert flat.test.pvalue > 0.02
    frame = people(2, 80, 40, bend=1.0)
    other = effect_by_control_mean(moments(frame.assign(y=1e5 + 1e3 * frame.y, m=0.01 * frame.m)), draws=199)
    assert other.test.stat == pytest.approx(bent.test.stat, rel=1e-5)
    assert other.test.pvalue == bent.test.pvalue


def test_where_control_means_have_no_known_error_there_is_no_test() -> None:
    frame = people(3)
    for found, why in (
        (moments(frame, mediators=["m", "m2"]), "several mediators"),
        (moments(people(3, arms=3)), "more than two arms"),
        (moments(frame.assign(b=frame.index % 2), block="b"), "blocks"),
        (moments(frame.assign(c=frame.index // 5), cluster="c"), "clusters"),
        (moments(frame, covariates=["m2"]), "covariates"),
        (moments(people(3, 11)), "too few sites: 11"),
    ):
        said = effect_by_control_mean(found)
        assert isinstance(said.test, NotApplicable)
        assert why in said.test.reason
    with pytest.raises(ChoiceError, match="draws=3"):
        effect_by_control_mean(moments(frame), draws=3)


def trial(seed: int, direct: float, k: int = 60, p: int = 1):
    rng = np.random.default_rng(seed)
    g = np.where(np.arange(k)[:, None] % 2 == 0, 0.0, 1.0) + 0.1 * rng.standard_normal((k, p))
    cov = np.broadcast_to(0.04 * (0.5 + 0.5 * np.eye(1 + p)), (k, 1 + p, 1 + p))
    error = rng.standard_normal((k, 1 + p)) @ np.linalg.cholesky(cov[0]).T
    return effects_of(np.column_stack([direct + g.sum(axis=1), g]) + error, cov.copy())


@pytest.mark.parametrize("p", [1, 2])
def test_sites_without_compliance_show_a_direct_effect(p: int) -> None:
    said = zero_compliance_sites(trial(4, 0.5, p=p))
    assert (said.check, said.role) == ("linearity.zero_compliance_sites", "context")
    assert said.test.pvalue < 0.01
    assert "sites with compliance within noise of zero" in said.reading


def test_with_exact_covariance_the_correction_is_the_posterior_mean_of_the_error() -> None:
    """Brute force for one mediator: itt less V_yg / V_gg times what g^ is off its posterior mean, less m b."""
    effects = trial(5, 0.0)
    values, cov = effects.estimates[:, 0], effects.cov[:, 0, :, 0]
    y, g = values.T
    prior = g.var(ddof=1) - 0.04
    mean = g.mean() + prior / (prior + 0.04) * (g - g.mean())
    b = (g * y - cov[:, 0, 1]).sum() / (g**2 - 0.04).sum()
    here = np.abs(g) / 0.2 < 1.959963984540054
    u = (y - 0.5 * (g - mean) - mean * b)[here]
    assert zero_compliance_sites(effects).test.stat == pytest.approx(
        u.mean() / (u.std(ddof=1) / np.sqrt(here.sum())), rel=1e-9
    )


def test_sites_without_compliance_may_be_too_few_or_not_knowable() -> None:
    effects = trial(6, 0.0)
    far = effects_of(effects.estimates[:, 0] + [0.0, 5.0], effects.cov[:, 0, :, 0])
    assert "no site has compliance within noise" in zero_compliance_sites(far).test.reason  # type: ignore[union-attr]
    assert "too few sites" in zero_compliance_sites(trial(6, 0.0, 8)).test.reason  # type: ignore[union-attr]
    exact = effects.cov[:, 0, :, 0].copy()
    exact[0, 1], exact[0, :, 1] = 0.0, 0.0
    said = zero_compliance_sites(effects_of(effects.estimates[:, 0], exact))
    assert "no sampling variance" in said.test.reason  # type: ignore[union-attr]


def test_effects_are_not_adjusted_where_their_change_is_noise() -> None:
    rng, k = np.random.default_rng(7), 24
    x = np.where(np.arange(k) < 3, 1.0, 0.0)
    g = np.where(x > 0, 0.2, 1.0) + 0.1 * rng.standard_normal(k)
    cov = np.broadcast_to(0.01 * np.eye(2), (k, 2, 2)).copy()
    kept = moderated(effects_of(np.column_stack([g, g]), cov), x)
    assert kept.status is None
    cov[x > 0, 1, 1] = float((g[x > 0] ** 2).mean()) * 0.97
    gone = moderated(effects_of(np.column_stack([g, g]), cov), x)
    assert gone.status is not None
    assert "hardly more than noise" in gone.status
    assert np.isnan(gone.slope_se).all()
    assert np.isfinite(gone.unadjusted).all()

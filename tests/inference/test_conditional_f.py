"""Conditional F statistics: dense regressions, golden figures of multivariable Mendelian randomization."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import DesignError
from msmmiv.inference.conditional_f import (
    conditional_effective_f,
    conditional_f,
    conditional_f_by_site,
    given_others,
)
from msmmiv.linalg import frozen
from tests.diagnose.trials import KINDS, Kind, dense, net_of, rows_of, simple, simple_study, study_of

pytestmark = pytest.mark.filterwarnings("ignore")
GAMMA = ["gamma1", "gamma2", "gamma3"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_conditional_f_is_the_f_of_the_second_stage_residual(kind):
    rows = rows_of(kind)
    _, system, c = study_of(kind, rows)
    m, z, exogenous = dense(kind, rows)
    m, z = net_of(exogenous, m), net_of(exogenous, z)
    fitted = z @ np.linalg.lstsq(z, m, rcond=None)[0]
    left = len(rows) - exogenous.shape[1] - z.shape[1]
    for j, name in enumerate(kind.names):
        others = [i for i in range(m.shape[1]) if i != j]
        b = np.linalg.lstsq(fitted[:, others], m[:, j], rcond=None)[0] if others else np.zeros(0)
        residual = m[:, j] - m[:, others] @ b
        explained = z @ np.linalg.lstsq(z, residual, rcond=None)[0]
        surplus = z.shape[1] - len(others)
        f = (explained @ explained) / surplus / (((residual - explained) ** 2).sum() / left)
        test = conditional_f(system.reduced_form, name)
        assert test.stat == pytest.approx(f, rel=1e-9)
        assert (test.df, test.df_denom) == (surplus, left)
        np.testing.assert_allclose(given_others(c.explained, j)[others], -b, rtol=1e-7)


def test_it_is_at_least_the_least_f_and_equal_for_one_mediator():
    one = simple_study(simple(8, 40, 1)).reduced_form()
    assert conditional_f(one, "m0").stat == pytest.approx(one.first_stage_f(), rel=1e-12)
    two = simple_study(simple(8, 40)).reduced_form()
    for name in ("m0", "m1"):
        assert conditional_f(two, name).stat * 7 >= two.first_stage_f() * 8


def table(frame: pd.DataFrame, first: int, cov: np.ndarray | None = None) -> mm.SiteEffects:
    order = [first, *(i for i in range(3) if i != first)]
    names = [GAMMA[i] for i in order]
    effects = mm.SiteEffects.from_table(
        frame.assign(zero=0.0, none=0.0), site="site", itt=names[0], itt_se=f"se_{names[0]}", compliance=names[1:],
        compliance_se=[f"se_{n}" for n in names[1:]], cov=["zero", "none"],
    )  # fmt: skip
    if cov is None:
        return effects
    return replace(effects, cov=frozen(cov[:, order][:, :, order][:, None, :, None, :]))


@pytest.mark.parametrize(("key", "rho"), [("strength_mvmr", 0.0), ("strength_mvmr_rho0.3", 0.3)])
def test_mvmr_strength(golden, key, rho):
    # MVMR regresses without weights and divides Q by the number of variants, not by variants less exposures plus one.
    frame = pd.read_csv(golden / "agg_multi_k40.csv")
    errors = frame[[f"se_{g}" for g in GAMMA]].to_numpy()
    cov = errors[:, :, None] * errors[:, None, :] * (np.eye(3) * (1 - rho) + rho)
    published = json.loads((golden / "mr_packages.json").read_text())["MVMR"][key]
    for j in range(3):
        test = conditional_f_by_site(table(frame, j, cov), weights=np.ones((40, 1, 1)))
        assert test.stat * 38 / 40 == pytest.approx(published[f"exposure{j + 1}"], rel=1e-10)


def test_by_site_equals_the_written_out_sum_and_takes_a_direct_effect_out(golden):
    frame = pd.read_csv(golden / "agg_multi_k40.csv")
    effects = table(frame, 0)
    g = effects.estimates[:, 0]
    w, v = 1.0 / effects.cov[:, 0, 0, 0, 0], np.einsum("kjj->kj", effects.cov[:, 0, :, 0, :])
    b = np.linalg.lstsq(g[:, 1:] * np.sqrt(w)[:, None], g[:, 0] * np.sqrt(w), rcond=None)[0]
    q = ((g[:, 0] - g[:, 1:] @ b) ** 2 / (v[:, 0] + v[:, 1:] @ b**2)).sum()
    assert conditional_f_by_site(effects).stat == pytest.approx(q / 38, rel=1e-12)
    # A constant added to the first compliance is a direct effect and must not matter.
    shifted = replace(effects, estimates=frozen(effects.estimates + np.array([5.0, 0, 0])))
    free = [conditional_f_by_site(e, direct_effect=True) for e in (effects, shifted)]
    assert free[0].stat == pytest.approx(free[1].stat, rel=1e-9)
    assert free[0].df == 37


def test_with_few_people_there_is_a_p_value_and_no_f():
    effects = mm.SiteEffects.from_moments(simple_study(simple(12, 6, 2)).moments, cov_type="unbiased")
    # outcome y as "mediator", moved by both mediators
    test = conditional_f_by_site(effects)
    assert np.isnan(test.stat)
    assert 0.0 < test.pvalue < 1.0


def test_effective_f_of_one_mediator_is_explained_over_expected_noise():
    kind = Kind(mediators=1, arms=3, direct_effect=True)
    _, _, c = study_of(kind, rows_of(kind))
    test = conditional_effective_f(c.slopes, c.cov, c.projection, c.mediators, "m0")
    assert test.stat == pytest.approx(float(c.explained[0, 0] / c.expected_noise[0, 0]), rel=1e-12)


def test_questions_that_have_no_answer():
    form = simple_study(simple(2, 40, 2)).reduced_form()
    with pytest.raises(DesignError, match="'x' is not a mediator"):
        conditional_f(form, "x")
    fewer = mm.SiteEffects.from_table(
        pd.DataFrame({"s": [1], "a": [1.0], "sa": [0.1], "b": [1.0], "sb": [0.1], "c": [0.0]}),
        site="s", itt="a", itt_se="sa", compliance="b", compliance_se="sb", cov="c",
    )  # fmt: skip
    assert "fewer instruments than mediators" in conditional_f_by_site(fewer).reason

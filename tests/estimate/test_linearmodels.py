"""linearmodels 7 on random designs: coefficients, covariances, first stages and tests at 1e-8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.estimate.linearmodels_bridge import to_linearmodels
from tests.estimate.helpers import trial

RTOL = 1e-8


@st.composite
def studies(draw: st.DrawFn) -> tuple[mm.Study, object, bool]:
    p = draw(st.integers(1, 3))
    options = {
        "sites": draw(st.integers(p + 2, 9)),
        "per_site": draw(st.integers(8, 40)),
        "mediators": p,
        "arms": draw(st.integers(2, 3)),
        "blocks": draw(st.sampled_from([0, 2])),
        "covariates": draw(st.integers(0, 2)),
        "clusters": 5,
        "weights": draw(st.booleans()),
    }
    direct = draw(st.booleans())
    df = trial(draw(st.integers(0, 10_000)), **options)
    design = mm.Design(
        outcome="y", treatment="t", mediators=[f"m{j}" for j in range(p)], site="site", cluster="cluster",
        covariates=[f"x{j}" for j in range(options["covariates"])],
        block="block" if options["blocks"] else None,
        **({"weights": "w", "weight_kind": "analytic"} if options["weights"] else {}),
    )  # fmt: skip
    return mm.Study(df, design), df, direct


@given(studies())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_random_designs(drawn: tuple[mm.Study, object, bool]) -> None:
    study, df, direct = drawn
    model = to_linearmodels(df, study.design, direct_effect=direct)
    terms = [*study.design.mediators, *study.design.covariates]
    for ours, theirs in (
        ({"cov_type": "classical"}, {"cov_type": "unadjusted", "debiased": True}),
        ({"cov_type": "HC0"}, {"cov_type": "robust", "debiased": False}),
        ({"cov_type": "HC1"}, {"cov_type": "robust", "debiased": True}),
        ({"cov_type": "cluster", "small_sample": "CR0"}, {"cov_type": "clustered", "debiased": False}),
        ({"cov_type": "cluster", "small_sample": "CR1S"}, {"cov_type": "clustered", "debiased": True}),
    ):
        clusters = {"clusters": df["cluster"]} if theirs["cov_type"] == "clustered" else {}
        other = model.fit(**theirs, **clusters)
        fit = study.fit("2sls", direct_effect=direct, **ours)
        scale = np.abs(fit.params[terms]).max()
        np.testing.assert_allclose(fit.params[terms], other.params[terms], rtol=RTOL, atol=RTOL * scale)
        np.testing.assert_allclose(
            fit.std_errors[terms], other.std_errors[terms], rtol=1e-6, err_msg=str(ours)
        )
        if direct:
            names = [c for c in other.params.index if str(c).startswith("direct_effect ")]
            mine = [t for t in fit.terms if t.startswith("direct_effect")]
            np.testing.assert_allclose(fit.params[mine], other.params[names], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.sargan.stat, other.sargan.stat, rtol=1e-7)
    assert fit.sargan.df == other.sargan.df
    np.testing.assert_allclose(fit.basmann.stat, other.basmann.stat, rtol=1e-7)
    np.testing.assert_allclose(fit.wu_hausman.stat, other.wu_hausman().stat, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(
        [s.partial_r2 for s in fit.first_stage], other.first_stage.diagnostics["partial.rsquared"], rtol=1e-7
    )


def test_bridge_refuses_what_linearmodels_lacks() -> None:
    df = trial(1)
    df["f"] = 1
    design = mm.Design(
        outcome="y", treatment="t", mediators="m0", site="site", weights="f", weight_kind="frequency"
    )
    with pytest.raises(mm.errors.DesignError, match="repeat the rows"):
        to_linearmodels(df, design)
    with pytest.raises(mm.errors.ColumnError, match="'nope'"):
        to_linearmodels(df, mm.Design(outcome="nope", treatment="t", mediators="m0", site="site"))

"""Project STAR from the packaged moments: the figures that independent software gave on the pupil file."""

from __future__ import annotations

import pytest

import msmmiv as mm

# analysis: rows, then (coefficient, classical, HC0 or None, HC1, clustered) per mediator, F's, Sargan, its df
FIGURES = {
    "math": (5871, {"class_size": (-1.11376, 0.16241, 0.16591, 0.16706, 0.27226)}, (1082.126,), 268.231, 78),
    "math_two_mediators": (
        5850,
        {"class_size": (-1.12151, 0.1631, None, 0.16695, 0.26822),
         "tch_exp": (0.40866, 0.21736, None, 0.22183, 0.38038)},
        (1085.094, 23.989), 265.411, 77,
    ),
    "math_covariates": (5852, {"class_size": (-1.09603, 0.15776, None, 0.16198, 0.26816)}, (1080.507,), 272.267, 78),
    "reading": (None, {"class_size": (-0.7137, 0.10891, None, 0.11136, 0.17462)}, (), None, None),
}  # fmt: skip


@pytest.mark.parametrize("analysis", FIGURES)
def test_published_figures(analysis: str) -> None:
    rows, terms, f, sargan, df = FIGURES[analysis]
    moments = mm.data.star(analysis)
    kinds = ["classical", "HC0", "HC1", "cluster"]
    fits = {}
    for kind in kinds:
        try:
            fits[kind] = mm.fit(moments, "2sls", cov_type=kind)
        except mm.errors.MomentsInsufficient:
            assert analysis == "math_covariates"
            assert kind in ("HC0", "HC1")
    for term, (b, *errors) in terms.items():
        assert float(fits["classical"].params[term]) == pytest.approx(b, abs=6e-6)
        for kind, se in zip(kinds, errors, strict=True):
            if se is not None and kind in fits:
                assert float(fits[kind].std_errors[term]) == pytest.approx(se, abs=6e-6), (term, kind)
    fit = fits["classical"]
    assert rows is None or fit.nobs == rows
    assert fit.n_sites == 79
    assert [s.f_classical.stat for s in fit.first_stage][: len(f)] == pytest.approx(list(f), abs=6e-3)
    if sargan is not None:
        assert fit.sargan.stat == pytest.approx(sargan, abs=6e-4)
        assert fit.sargan.df == df


def test_clustered_without_correction() -> None:
    assert float(mm.fit(mm.data.star(), "2sls", small_sample="CR0").std_errors.iloc[0]) == pytest.approx(
        0.27, abs=6e-6
    )


def test_strength_with_classes_as_rows() -> None:
    two = mm.data.star("math_two_mediators")
    assert mm.rank(two).cragg_donald == pytest.approx(23.7796, abs=6e-5)
    by_class = mm.fit(two.cluster_means(), "2sls", cov_type="classical")
    assert by_class.nobs == 324
    stats = [s.f_classical.stat for s in by_class.first_stage]
    assert stats[0] == pytest.approx(31.7, abs=0.1)
    assert stats[1] == pytest.approx(0.70, abs=0.005)
    report = mm.rank(two)
    assert report.cluster_level < 1
    assert "The effect of tch_exp is not separately identified" in report.sentence
    one = mm.rank(mm.data.star())
    assert one.cragg_donald == pytest.approx(1082.126, abs=6e-3)
    assert one.cluster_level == pytest.approx(31.63, abs=0.01)
    assert "overstates the strength" in str(one)


def test_freeing_the_direct_effect_costs_nearly_all_precision() -> None:
    m = mm.data.star()
    exclusion, free = mm.fit(m, "2sls"), mm.fit(m, "2sls", direct_effect=True)
    assert float(free.std_errors["class_size"]) > 3 * float(exclusion.std_errors["class_size"])
    assert m.n.min() >= 4

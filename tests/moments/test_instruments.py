"""The explicit instruments, and two-stage least squares computed with them by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import ColumnError, DataError, LabelWarning, MissingDataError, TreatmentError
from tests.moments.helpers import design, people


def test_one_column_per_site_for_two_arms():
    df = people(1, sites=7)
    z = mm.site_by_treatment(df, design())
    assert list(z) == [f"t:s[{k}]" for k in range(7)]
    assert z.index.equals(df.index)
    for k in range(7):
        assert z[f"t:s[{k}]"].tolist() == ((df["s"] == k) & (df["t"] == 1)).astype(int).tolist()
    assert z.sum(axis=1).tolist() == df["t"].tolist()


def test_ten_columns_for_three_arms_in_five_sites():
    df = people(2, arms=("none", "A", "B"))
    z = mm.site_by_treatment(df, design(control="none"))
    assert list(z) == [f"t[{a}]:s[{k}]" for k in range(5) for a in ("A", "B")]
    assert z["t[B]:s[3]"].tolist() == ((df["s"] == 3) & (df["t"] == "B")).astype(int).tolist()


def test_sites_give_a_column_for_each_arm_they_have():
    df = people(3, arms=("none", "A", "B"))
    df = df[~((df["s"] == 2) & (df["t"] == "A"))]
    z = mm.site_by_treatment(df, design(control="none"))
    assert z.shape == (len(df), 9)
    assert "t[A]:s[2]" not in z
    assert mm.fit(mm.Moments.from_data(df, design(control="none")), "2sls").n_instruments == 9


def test_a_dose_keeps_its_values():
    df = people(4).rename(index=lambda i: f"row {i}")
    z = mm.site_by_treatment(df, design(treatment="dose", treatment_kind="continuous"))
    assert list(z) == [f"dose:s[{k}]" for k in range(5)]
    np.testing.assert_array_equal(z.sum(axis=1), df["dose"])
    assert (z.to_numpy() != 0).sum() == len(df)


@pytest.mark.parametrize("kind", ["str", "category", "float64", "Int64"])
def test_labels_of_other_kinds(kind):
    df = people(5, sites=3)
    z = mm.site_by_treatment(df.assign(s=df["s"].astype(kind)), design())
    assert list(z) == ["t:s[0]", "t:s[1]", "t:s[2]"]
    np.testing.assert_array_equal(z, mm.site_by_treatment(df, design()))


def test_bool_arms():
    df = people(6)
    z = mm.site_by_treatment(df.assign(t=df["t"] == 1), design())
    np.testing.assert_array_equal(z, mm.site_by_treatment(df, design()))


def test_the_frame_is_not_changed():
    df = people(7)
    before = df.copy(deep=True)
    mm.site_by_treatment(df, design())
    pd.testing.assert_frame_equal(df, before)


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        (lambda d: d, {"site": "school"}, ColumnError, r"'school' \(site\) is not in the data"),
        (lambda d: d, {"treatment": "T"}, ColumnError, r"'T' \(treatment\).*Did you mean 't'"),
        (lambda d: d.assign(s=d["s"].where(d.index > 1)), {}, MissingDataError, r"2 rows have no 's' \(site\)"),
        (lambda d: d.assign(t=d["t"].where(d.index != 5)), {}, MissingDataError, r"1 row has no 't' \(treatment\)"),
        (lambda d: d.assign(t=d["t"].where(d.index != 5, np.inf)), {}, MissingDataError, "1 row has no 't' .* inf"),
        (lambda d: d.assign(t=(f := d["t"].astype("Float64")) / f), {}, MissingDataError, "no 't'"),
        (lambda d: d.assign(t=d["t"].astype(object).where(d.index != 5, -np.inf)), {}, MissingDataError, "no 't'"),
        (lambda d: d.assign(s=d["s"].where(d.index != 5, np.inf)), {}, MissingDataError, "no 's'"),
        (lambda d: d.assign(dose=np.inf), {"treatment": "dose", "treatment_kind": "continuous"}, MissingDataError,
         "300 rows have no 'dose'"),
        (lambda d: d.head(0), {}, DataError, "no rows"),
        (lambda d: d.assign(t=0), {}, DataError, "'t' has one value only: 0"),
        (lambda d: d.assign(t=d["t"] + 1), {}, TreatmentError, "arms in 't' are 1 and 2; say which"),
        (lambda d: d, {"control": "none"}, TreatmentError, "control='none' is not an arm of 't'"),
        (lambda d: d.assign(dose="high"), {"treatment": "dose", "treatment_kind": "continuous"}, ColumnError,
         r"'dose' \(continuous treatment\) holds text"),
    ],
)  # fmt: skip
def test_refusals(change, options, error, words):
    with pytest.raises(error, match=words):
        mm.site_by_treatment(change(people(8)), design(**options))


def test_sites_that_differ_by_case():
    df = people(9, sites=2)
    with pytest.warns(LabelWarning, match="'A' = 'a'"):
        z = mm.site_by_treatment(df.assign(s=df["s"].map({0: "a", 1: "A"})), design())
    assert z.shape[1] == 2


# ------------------------------------------------------------------------------------ 2SLS by hand


def by_hand(df, d):
    """Project on instruments, dummies and covariates; regress on the projections. Coefficients and HC0 covariance."""
    z = mm.site_by_treatment(df, d).to_numpy(dtype=float)
    level = df[d.site].astype(str) + (("/" + df[d.block].astype(str)) if d.block else "")
    dummies = pd.get_dummies(level, dtype=float).to_numpy()
    w = np.sqrt(df[d.weights].to_numpy(dtype=float))[:, None] if d.weights else 1.0
    x = df[list(d.covariates)].to_numpy(dtype=float)
    instruments = np.hstack([z, x, dummies]) * w
    regressors = np.hstack([df[list(d.mediators)].to_numpy(dtype=float), x, dummies]) * w
    y = df[[d.outcome]].to_numpy(dtype=float) * w
    fitted = instruments @ np.linalg.lstsq(instruments, regressors, rcond=None)[0]
    b = np.linalg.solve(fitted.T @ fitted, fitted.T @ y)[:, 0]
    e = y[:, 0] - regressors @ b
    bread = np.linalg.inv(fitted.T @ fitted)
    k = len(d.mediators) + len(d.covariates)
    cov = bread @ (fitted * e[:, None] ** 2).T @ fitted @ bread
    return b[:k], cov[:k, :k]


@pytest.mark.parametrize("weights", [{}, {"weights": "w", "weight_kind": "analytic"}])
@pytest.mark.parametrize("covariates", [(), ("x", "w2")])
@pytest.mark.parametrize("block", [None, "b"])
@pytest.mark.parametrize("kind", ["two arms", "three arms", "sites lack arms", "dose"])
def test_moments_give_the_same_as_the_matrix(kind, block, covariates, weights):
    arms = ("none", "A", "B") if kind in ("three arms", "sites lack arms") else (0, 1)
    df = people(10, mediators=2, arms=arms).assign(w2=lambda d: d["w"] ** 2)
    options = (
        {"treatment": "dose", "treatment_kind": "continuous"} if kind == "dose" else {"control": arms[0]}
    )
    if kind == "sites lack arms":
        df = df[~((df["s"] == 1) & (df["t"] == "A")) & ~((df["s"] == 4) & (df["t"] == "none"))]
    d = design(mediators=["m", "m2"], block=block, covariates=covariates, **options, **weights)
    want, cov = by_hand(df, d)
    got = mm.Study(df, d).fit("2sls", cov_type="HC0")
    np.testing.assert_allclose(got.params, want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got.cov, cov, rtol=1e-8, atol=1e-14)
    assert list(got.params.index) == ["m", "m2", *covariates]

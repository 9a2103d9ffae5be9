"""Individual-level data (Fu 2023, eq. 25-28) need no estimator of their own: one code path, written out in numpy.

With treatment contrasts partialled out inside sites, r_s = (itt, compliance), w_s = n_s p_s (1 - p_s), V_s the
sampling covariance of r_s (unbiased within arms) and Omega the covariance of residuals common to all rows:

    2SLS     N = sum_s w_s (r_s - rbar)(r_s - rbar)'         rbar the w-weighted mean: an intercept
    MBTSLS   N - (K - 1) Omega                               K - 1 instruments beyond the direct effect
    UJIVE    N - sum_s w_s (1 - w_s / sum w) V_s             what demeaning leaves of each site's own noise

and the slope is N[g, itt] / N[g, g]. E[(r_s - rbar)(r_s - rbar)'] holds V_s (1 - w_s / sum w)^2 plus
sum_{t != s} (w_t / sum w)^2 V_t; weighted by w_s and summed this is sum_s w_s (1 - w_s / sum w) V_s: UJIVE is the
corrected regression (BCES) with weights w_s, Cov(itt, compliance) included. Where all rows have covariance Omega,
V_s = Omega / w_s and the sum is (K - 1) Omega: MBTSLS.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.errors import DataError, RankDeficientError
from msmmiv.estimate.between.direct_spread import direct_spread
from msmmiv.estimate.between.rows import between_rows
from msmmiv.estimate.corrected import corrected_iv
from tests.estimate.helpers import dense, trial

ONE = mm.Design(outcome="y", treatment="t", mediators=["m0"], site="site")
COPY = mm.Design(outcome="y", treatment="t", mediators=["tt", "m0"], site="site")


def people(seed: int, *, sites: int = 12) -> pd.DataFrame:
    df = trial(seed, sites=sites)
    return df.assign(tt=df["t"].astype(float))


def by_hand(df: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """w (K,), r (K, 2), V (K, 2, 2) and the pooled Omega (2, 2), from the rows."""
    w, r, v, inside, free = [], [], [], np.zeros((2, 2)), 0
    for _, site in df.groupby("site"):
        arms = [site.loc[site["t"] == a, ["y", "m0"]].to_numpy() for a in (0, 1)]
        n0, n1 = map(len, arms)
        away = [a - a.mean(axis=0) for a in arms]
        w.append(n0 * n1 / (n0 + n1))
        r.append(arms[1].mean(axis=0) - arms[0].mean(axis=0))
        v.append(sum(a.T @ a / (len(a) * (len(a) - 1)) for a in away))
        inside += sum(a.T @ a for a in away)
        free += n0 + n1 - 2
    return np.array(w), np.array(r), np.array(v), inside / free


def line(gram: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Slope and intercept from centred cross-products of (itt, compliance)."""
    slope = gram[0, 1] / gram[1, 1]
    return np.array([slope, mean[0] - slope * mean[1]])


@pytest.mark.parametrize("seed", range(3))
def test_decompositions_are_corrected_regressions_with_intercept(seed):
    df = people(seed)
    w, r, v, omega = by_hand(df)
    mean = w @ r / w.sum()
    n = np.einsum("s,sa,sb->ab", w, r - mean, r - mean)
    k = len(w)
    noise = {
        "2sls": np.zeros((2, 2)),
        "mbtsls": (k - 1) * omega,
        "ujive": np.einsum("s,sab->ab", w * (1 - w / w.sum()), v),
    }
    study = mm.Study(df, ONE)
    for name, lost in noise.items():
        found = study.fit(name, direct_effect=True).params.to_numpy()
        assert np.allclose(found, line(n - lost, mean), rtol=1e-12, atol=1e-12), name
    weighted = np.polyfit(r[:, 1], r[:, 0], 1, w=np.sqrt(w))
    assert np.allclose(study.fit("2sls", direct_effect=True).params, weighted, rtol=1e-12, atol=1e-12)
    rows = dense(df, ["m0"], direct=True)
    assert np.allclose(study.fit("2sls", direct_effect=True).params, rows["b"][:2], rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_liml_minimises_q_where_all_rows_have_one_covariance(seed):
    """With V_s = Omega / w_s the least Q of the decomposition is LIML's root, reached at LIML's slope."""
    df = people(seed)
    w, r, _, omega = by_hand(df)
    cov = omega[None] / w[:, None, None]
    table = pd.DataFrame({
        "s": range(len(w)), "b": r[:, 0], "sb": np.sqrt(cov[:, 0, 0]), "g": r[:, 1], "sg": np.sqrt(cov[:, 1, 1]),
        "c": cov[:, 0, 1],
    })  # fmt: skip
    effects = mm.SiteEffects.from_table(
        table, site="s", itt="b", itt_se="sb", compliance="g", compliance_se="sg", cov="c"
    )
    rows = between_rows(effects)
    liml = mm.Study(df, ONE).fit("liml", direct_effect=True).params["m0"]

    def q(slope: float) -> float:
        left = r[:, 0] - slope * r[:, 1]
        e = np.array([1, -slope]) @ omega @ np.array([1, -slope])
        return float(w @ (left - w @ left / w.sum()) ** 2 / e)

    spread = direct_spread(rows, np.array([0.0]))
    assert spread.q.stat == pytest.approx(q(liml), rel=1e-8)
    assert q(liml) <= min(q(liml - 0.01), q(liml + 0.01))
    root = mm.Study(df, ONE).reduced_form(direct_effect=True).min_root()
    assert spread.q.stat == pytest.approx(root, rel=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_demeaned_noise_has_the_weights_of_ujive(seed):
    """The algebra of the module's first lines, on matrices: E of centred products of pure noise."""
    w, _, v, omega = by_hand(people(seed))
    share = w / w.sum()
    expected = np.zeros((2, 2))
    for s in range(len(w)):
        own = v[s] * (1 - share[s]) ** 2
        expected += w[s] * (own + sum(share[t] ** 2 * v[t] for t in range(len(w)) if t != s))
    assert np.allclose(expected, np.einsum("s,sab->ab", w * (1 - share), v), rtol=1e-12)
    equal = np.einsum("s,sab->ab", w * (1 - share), omega / w[:, None, None])
    assert np.allclose(equal, (len(w) - 1) * omega, rtol=1e-12)


# ----------------------------------------------------------------- the treatment as its own mediator


@pytest.mark.parametrize("seed", range(3))
def test_the_treatment_as_first_mediator_is_the_direct_effect(seed):
    df = people(seed)
    effects = mm.Study(df, COPY).effects
    assert np.allclose(effects.compliance["tt"], 1.0, rtol=1e-12)
    assert np.allclose(effects.cov[:, 0, 1, 0], 0.0, atol=1e-25)
    for name, options in (("2sls", {"cov_type": "site"}), ("2sls", {"cov_type": "HC1"}), ("ols", {})):
        with_copy = mm.Study(df, COPY).fit(name, **options)
        free = mm.Study(df, ONE).fit(name, direct_effect=True, **options)
        order = ["m0", "tt"]
        assert np.allclose(with_copy.params[order], free.params, rtol=1e-11), name
        assert np.allclose(with_copy.std_errors[order], free.std_errors, rtol=1e-9), name


@pytest.mark.parametrize("seed", range(3))
def test_as_a_mediator_it_counts_as_one_more_instrument(seed):
    """Corrected estimators differ by O(1 / K): lambda is K instead of K - 1, and V_s keeps its whole weight."""
    df = people(seed)
    w, r, v, omega = by_hand(df)
    full = np.column_stack([r[:, 0], np.ones(len(w)), r[:, 1]])
    n = np.einsum("s,sa,sb->ab", w, full, full)
    at = np.ix_([0, 2], [0, 2])
    for name, lost in (("mbtsls", len(w) * omega), ("ujive", np.einsum("s,sab->ab", w, v))):
        left = n.copy()
        left[at] -= lost
        expected = np.linalg.solve(left[1:, 1:], left[1:, 0])
        found = mm.Study(df, COPY).fit(name).params
        assert np.allclose(found, expected, rtol=1e-10), name
        free = mm.Study(df, ONE).fit(name, direct_effect=True).params
        assert not np.allclose(found[["m0", "tt"]], free, rtol=1e-6), name
    same = corrected_iv(mm.Study(df, COPY).effects).coefficients
    assert np.allclose(same, mm.Study(df, COPY).fit("ujive").params, rtol=1e-10)


def test_with_many_sites_the_two_are_one():
    df = people(0, sites=200)
    for name in ("mbtsls", "ujive"):
        copied = mm.Study(df, COPY).fit(name).params[["m0", "tt"]]
        assert np.allclose(copied, mm.Study(df, ONE).fit(name, direct_effect=True).params, atol=0.005), name


def test_what_a_mediator_without_noise_cannot_do():
    """LIML divides by its residual covariance, and rows of the between regression need a variance each."""
    df = people(0)
    with pytest.raises(RankDeficientError, match="residuals of tt are zero"):
        mm.Study(df, COPY).fit("liml")
    with pytest.raises(DataError, match="is not positive"):
        between_rows(mm.Study(df, COPY).effects, direct_effect=False)


# -------------------------------------------------------------------------------- noncompliance


DIRECT, EFFECT = 0.4, 0.6


def encouraged(rng: np.random.Generator, sites: int = 40, size: int = 300) -> pd.DataFrame:
    """Z randomised; take-up T and mediator M confounded; direct effects of T differ between sites."""
    s = np.repeat(np.arange(sites), size)
    z, u = rng.integers(0, 2, len(s)), rng.normal(size=len(s))
    willing = rng.random(len(s)) < rng.uniform(0.3, 0.9, sites)[s]
    always = u + rng.normal(size=len(s)) > 2.0
    t = np.where(z == 1, willing | always, always).astype(float)
    m = rng.normal(1, 0.7, sites)[s] * t + u + rng.normal(size=len(s))
    y = (DIRECT + 0.1 * rng.normal(size=sites))[s] * t + EFFECT * m + u + rng.normal(size=len(s))
    return pd.DataFrame({"s": s, "z": z, "t": t, "m": m, "y": y})


def test_instrumented_treatment_is_two_mediators():
    """Eq. 28: reduced forms itt = direct take_up + effect compliance, through the origin.

    Decomposing the intention to treat with a free constant takes direct take_up for a constant. Its slope is
    effect + direct b, b the weighted slope of take-up on compliance, positive as both contain take-up.
    """
    both, naive, omitted, plain = [], [], [], []
    for seed in range(16):
        df = encouraged(np.random.default_rng(seed))
        roles = {"outcome": "y", "treatment": "z", "site": "s"}
        study = mm.Study(df, mm.Design(**roles, mediators=["t", "m"]))
        both.append(study.fit("ujive").params)
        plain.append(study.fit("2sls").params)
        wrong = mm.Study(df, mm.Design(**roles, mediators=["m"]))
        naive.append(wrong.fit("ujive", direct_effect=True).params["m"])
        effects = study.effects
        w, (t, m), v = effects.weight, effects.compliance.to_numpy().T, effects.cov[:, 0, 1:, 0, 1:]
        share = w / w.sum()
        cross = (w * ((t - share @ t) * (m - share @ m) - (1 - share) * v[:, 0, 1])).sum()
        omitted.append(cross / (w * ((m - share @ m) ** 2 - (1 - share) * v[:, 1, 1])).sum())
    both, error = np.array(both), np.std(both, axis=0, ddof=1) / 4
    assert np.all(np.abs(both.mean(axis=0) - [DIRECT, EFFECT]) < 3 * error)
    assert np.all(error < 0.04)
    assert np.allclose(np.mean(plain, axis=0), [DIRECT, EFFECT], atol=0.12)
    gap = np.array(naive) - EFFECT - DIRECT * np.array(omitted)
    assert abs(gap.mean()) < 3 * gap.std(ddof=1) / 4
    assert np.mean(naive) - EFFECT > 0.05 > 3 * error[1] / 2

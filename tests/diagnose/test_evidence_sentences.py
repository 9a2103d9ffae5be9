"""What audits say is made of sentences, and each test says what it could have seen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.rank_evidence import detectable_strength

#: Checks without a figure of what they could have seen.
WITHOUT = {"independence.cascade_slope", "linearity.effect_by_control_mean"}


def faults(text: str) -> list[str]:
    """What is wrong with a text that should be sentences; nothing is wrong with none."""
    rules = {
        "no full stop": not text.endswith("."),
        "two stops": re.search(r"\.\s*\.", text),
        "two spaces": "  " in text,
        "a small letter first": not (text[:1].isupper() or text[:1].isdigit()),
        "a word twice": re.search(r"\b([a-z]{3,})\s+\1\b", text, re.IGNORECASE),
        "a colon or comma before a stop": re.search(r"[:;,]\s*\.", text),
        "a missing number": re.search(r"\bnan\b", text),
        "sentences run together": re.search(r"[a-z]\.[A-Z]", text),
        "0 sites": re.search(r"\b0 sites\b", text),
    }
    return [name for name, wrong in rules.items() if wrong] if text else []


def pieces(audit: mm.Audit) -> Iterator[Evidence]:
    for finding in audit.findings:
        yield from finding.evidence


def person(**options: object) -> mm.Audit:
    trial = mm.simulate(**({"seed": 1, "sites": 13, "people": 40} | options))
    table = trial.frame.groupby("site")[["z"]].mean()
    return mm.Study(trial.frame, trial.design).audit(draws=199, site_covariates=table, planned_shares=0.5)


def late() -> mm.Audit:
    trial = mm.simulate(binary=True, seed=2, sites=20, people=60)
    return mm.Study(trial.frame, replace(trial.design, estimand="late")).audit(draws=199)


def dose() -> mm.Audit:
    rng = np.random.default_rng(3)
    df = pd.DataFrame(
        {"s": np.repeat(range(20), 40), "hours": rng.uniform(0, 4, 800), "x": rng.normal(size=800)}
    )
    df["m"] = df["hours"] * (1.0 + 0.05 * df["s"]) + rng.normal(size=800)
    df["y"] = 0.5 * df["m"] + rng.normal(size=800)
    design = mm.Design(
        outcome="y", treatment="hours", mediators="m", site="s", treatment_kind="continuous", covariates=["x"]
    )
    return mm.Study(df, design).audit(draws=199)


def table() -> mm.Audit:
    effects = mm.SiteEffects.from_moments(mm.data.star(), cov_type="pooled")
    return mm.audit_assumptions(effects, draws=199)


def star() -> mm.Audit:
    return mm.Study(mm.data.star("math_covariates")).audit(draws=199)


def two() -> mm.Audit:
    return person(mediators=2)


def still() -> mm.Audit:
    """Compliances that hardly differ."""
    return person(compliance_sd=0.0, sites=14)


@pytest.fixture(
    scope="module", params=[person, two, still, late, dose, table, star], ids=lambda f: f.__name__
)
def audit(request: pytest.FixtureRequest) -> mm.Audit:
    return request.param()


def test_readings_are_sentences(audit):
    wrong = {
        (e.check, text): found
        for e in pieces(audit)
        for text in (e.reading, e.detectable)
        if (found := faults(text))
    }
    assert not wrong, "\n".join(f"{k}: {v}" for k, v in wrong.items())


def test_a_test_that_could_contradict_says_what_it_could_have_seen(audit):
    """A figure, or why there is none; and "not contradicted" only beside a figure."""
    silent = [
        e.check for e in pieces(audit)
        if e.applies and e.role == "evidence" and not e.detectable and e.check not in WITHOUT
        and "would have been found cannot be said" not in e.reading
    ]  # fmt: skip
    assert not silent
    words = [e.detectable for e in pieces(audit) if e.detectable]
    assert all(re.search(r"\d", text) for text in words)
    for found in audit.having("not contradicted"):
        assert any(e.detectable for e in found.evidence if e.applies and e.role == "evidence"), found.id


def test_with_few_sites_and_two_mediators_independence_is_not_assessed():
    """No surface test, and the reach of moderation is not known below 40 sites."""
    found = person(mediators=2, sites=20)["ix"]
    assert found.status == "not assessed"
    assert "their silence says nothing" in found.reason
    assert "that takes 40 sites" in found.reason
    assert person(mediators=2, sites=45)["ix"].status == "not contradicted"


def test_what_does_not_exist_has_no_reach(audit):
    assert not [e.check for e in pieces(audit) if not e.applies and e.detectable]


def test_a_dose_has_no_share_treated():
    said = " ".join(f"{e.reading} {getattr(e.test, 'reason', '')}" for e in pieces(dose()))
    assert "share treated" not in said
    assert "n p (1 - p)" not in said


def test_the_weakest_combination_states_its_null_and_both_shares():
    found = next(e for e in pieces(star()) if e.check == "rank.noise_floor_eigenvalues")
    assert found.test.name == "strength 2 or more of the weakest combination"
    assert "of the bias of OLS" in found.reading
    assert "Of the bias that instruments of pure noise would have" in found.reading
    assert found.detectable.startswith("A strength below about 1.")


@pytest.mark.parametrize("f", [12.0, 30.0, 90.0])
def test_a_strength_that_is_found_four_times_in_five(f):
    """Against draws of the law itself."""
    rng = np.random.default_rng(1)
    least, noise = detectable_strength(f)
    critical = np.quantile(rng.noncentral_chisquare(f, f, 400_000), 0.05)
    assert (rng.chisquare(f, 400_000) < critical).mean() == pytest.approx(noise, abs=0.01)
    if np.isfinite(least):
        assert (rng.noncentral_chisquare(f, f * (least - 1.0), 400_000) < critical).mean() == pytest.approx(
            0.8, abs=0.01
        )
    else:
        assert noise < 0.8


def test_faults_are_seen():
    assert faults("") == faults("A sentence. Another one, 1.5 long.") == []
    for text in (
        "a b.",
        "No stop",
        "Two  spaces.",
        "Two stops..",
        "The the cat.",
        "Is nan.",
        "Of 0 sites.",
        "One.Two.",
    ):
        assert faults(text), text

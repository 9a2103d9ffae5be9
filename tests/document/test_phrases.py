"""What the data, the estimators and the graph refuse is said of the study file's tables and keys."""

from __future__ import annotations

import pytest

import msmmiv as mm
from msmmiv.document.phrases import in_file_words
from msmmiv.document.problems import StudyFileError
from msmmiv.document.reading import parse_study
from tests.document.makers import school_trial, written
from tests.document.test_running import TEXT


@pytest.fixture
def home(tmp_path):
    """Text arms, a town that one row lacks, and a column with zeros."""
    frame = school_trial().assign(arm=lambda d: d["T"].map({0: "big", 1: "small"}), town="a")
    frame.loc[3, "town"] = None
    written(frame, tmp_path / "trial.csv")
    frame[["site"]].drop_duplicates().assign(size=range(10)).to_csv(tmp_path / "sites.csv", index=False)
    return tmp_path


def refused(home, text, message) -> None:
    with pytest.raises(StudyFileError, match=rf"^study.toml: {message}") as caught:
        parse_study(text, path=home / "study.toml").analysis()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"class_size"', '"class_sise"', r"mediators: Column 'class_sise' \(mediator\) .* mean 'class_size'"),
        ('["female"]', '["femal"]', r"covariates: Column 'femal'"),
        ('cluster = "class_id"', 'cluster = "class"', r"cluster: Column 'class'"),
        ('outcome = "math"', 'outcome = "town"', r"outcome: Column 'town' \(outcome\) holds text"),
        (
            'treatment = "T"',
            'treatment = "read"',
            r'treatment: .* say \[design\] treatment_kind = "continuous"',
        ),
        ('treatment = "T"', 'treatment = "arm"', r'control: .* the reference: \[design\] control = "..."$'),
        (
            'treatment = "T"',
            'treatment = "arm"\ncontrol = "x"',
            r'control: \[design\] control = "x" is not an arm of',
        ),
    ],
)
def test_columns_are_refused_by_their_key(home, old, new, message) -> None:
    assert TEXT.count(old) == 1
    refused(home, TEXT.replace(old, new), rf"\[design\] {message}")


def test_rows_without_a_site_and_weights_of_zero(home) -> None:
    text = TEXT.replace('site = "site"', 'site = "town"')
    refused(home, text, r'\[data\] missing: 1 row has no \'town\': .* pass \[data\] missing = "drop"')
    text = TEXT.replace('covariates = ["female"]', 'weights = "female"\nweight_kind = "analytic"')
    refused(home, text, r"\[design\] weights: Weights 'female' must be positive")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["T -> math"]', '["parents -> math"]', r"edges: .*'parents', .* cause in \[dag\] confounders, or"),
        ('["T -> math"]', '["T => math"]', r"edges: An edge is 'A -> B', 'A <-> B', not 'T => math'"),
        ('["T -> math"]', '["a -> b -> c"]', r"edges: An edge is 'A -> B', 'A <-> B'; .* Write one edge at a time\.$"),
        ('edges = ["T -> math"]', 'without = ["a -> b"]', r"without: 'a -> b' cannot be taken out"),
        ('["family"]', '{ family = ["maths"] }', r"confounders: Edge 'family -> maths' names 'maths'"),
        ('["family"]', '["family"]\nmeasured = ["town"]', r"measured: .* must be one of the confounders"),
    ],
)  # fmt: skip
def test_graphs_are_refused_by_the_key_that_spoils_them(home, old, new, message) -> None:
    refused(home, TEXT.replace(old, new), rf"\[dag\] {message}")


def test_headlines_that_cannot_be(home) -> None:
    text = TEXT.replace('cov_type = "cluster"', 'cov_type = "HC1"\ninterval = "score"').replace(
        'cluster = "class_id"\n', ""
    )
    refused(home, text, r'\[estimate\]: interval = "score" tests .* it goes with cov_type = "site"')
    text = TEXT.replace('cluster = "class_id"', 'estimand = "late"').replace('cov_type = "cluster"\n', "")
    refused(home, text, r'\[design\] estimand: .* needs 0/1 mediators; .* Use \[design\] estimand = "ate"')


def test_the_source_is_the_path_as_the_file_has_it(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    written(school_trial(), tmp_path / "data" / "x.csv")
    text = TEXT.replace("trial.csv", "data/x.csv")
    assert parse_study(text, path=tmp_path / "study.toml").study().source == "data/x.csv"
    # What is shown of moments is how to load them, not how to read rows.
    mm.data.star().save(tmp_path / "data" / "m.csv")
    text = '[study]\nformat = 1\n[data]\nfile = "data/m.csv"\n'
    assert parse_study(text, path=tmp_path / "study.toml").study().source == "moments"


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("say control=False or control=True", "say [design] control = false or [design] control = true"),
        ('pass missing="drop" to leave', 'pass [data] missing = "drop" to leave'),
        ("say treatment_kind='continuous'.", 'say [design] treatment_kind = "continuous".'),
        ("needs weight_kind=: 'analytic'", "needs [design] weight_kind: 'analytic'"),
        ("one mediator: mediators=[...].", 'one mediator: [design] mediators = ["..."].'),
        ("was given without weights=.", "was given without [design] weights."),
        ("The column 'control=x' and p = 0.05", "The column 'control=x' and p = 0.05"),
    ],
)
def test_pythons_keywords_are_said_as_keys(python: str, words: str) -> None:
    assert in_file_words(python) == words

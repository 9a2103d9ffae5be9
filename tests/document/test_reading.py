"""Study files are read strictly: what is wrong is named with its place, and writing loses nothing."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.document.problems import StudyFileError
from msmmiv.document.reading import parse_study, read_study
from msmmiv.document.study_file import StudyFile
from msmmiv.document.tables import AuditTable, DagTable, DataTable, EstimateTable, said
from msmmiv.document.toml_text import toml_key, toml_text, toml_value

START = '[study]\nformat = 1\n[data]\nfile = "x.csv"\n'
ROLES = '[design]\noutcome = "y"\ntreatment = "t"\nmediators = ["m"]\nsite = "s"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (START + ROLES.replace("mediators", "mediater"), r"\[design\] mediater: unknown; did you mean 'mediators'\?"),
        (START + ROLES.replace("mediators", "mediator"), r"\[design\] mediator: unknown; did you mean 'mediators'\?"),
        (START.replace("file", "files"), r"\[data\] files: unknown; did you mean 'file'\?"),
        (START + "[desing]\n", r"\[desing\]: unknown; did you mean '\[design\]'\?"),
        (START + "[zebra]\n", r"\[zebra\]: unknown; known here: \[study\], \[data\]"),
        (START + "[estimate]\nseed = 3\n", r"\[estimate\] seed: unknown; it belongs to \[study\]"),
        (START + "[[compare]]\nestimater = 'ols'\n", r"\[\[compare\]\] 1 estimater: unknown; did you mean 'estimator'"),
        (START + "[[compare]]\n", r"\[\[compare\]\] 1: is empty"),
        (START + "[compare]\nestimator = 'ols'\n", r"\[compare\]: must be a list of tables"),
        (START + "[estimate]\nestimator = '2SLS'\n", r"\[estimate\] estimator: '2SLS' is not one of .* mean '2sls'\?"),
        (START + "[estimate]\ndirect_effect = 'yes'\n", r"direct_effect: must be true or false .*, not text \('yes'\)"),
        (START + "[estimate]\ninterval = 'score'\n", r"\[estimate\] interval: needs an estimator"),
        (START + "[estimate]\nestimator = 'fullr'\n", r"'fullr' is not one of .* Did you mean 'fuller'\?"),
        (START + "[estimate]\nestimator = 'fuller(4)'\n", r"'fuller\(4\)': options stand beside the name"),
        (START + "[estimate]\nestimator = {a = 4}\n", r"\[estimate\] estimator name: missing"),
        (START + "[estimate]\nestimator = {name = 'fuller', A = 4}\n", r"estimator A: unknown; did you mean 'a'\?"),
        (START + "[estimate]\nestimator = {name = 'fuller', a = '4'}\n", r"estimator a: must be a number, not text"),
        (START + "[estimate]\nestimator = {name = 'fuller', a = -1}\n", r"estimator a: .* not negative; got -1"),
        (START + "[estimate]\nestimator = {name = 'fuller', a = inf}\n", r"estimator a: must be a finite number"),
        (START + f"[estimate]\nestimator = {{name = 'fuller', a = 1{'0' * 400}}}\n", r"a: must be a finite number"),
        (START + "[estimate]\nestimator = {name = '2sls', a = 1}\n", r"estimator a: '2sls' has no options"),
        (START + "[estimate]\nestimator = {name = 2}\n", r"name: must be the name of an estimator, or a"),
        (START + "[estimate]\nestimator = {name = 'bc_linear', weights = 'precise'}\n",
         r"\[estimate\] estimator weights: 'precise' is not one of 'equal' and 'precision'. Did you mean 'precision'"),
        (START + "[estimate]\na = 4\n", r"\[estimate\] a: unknown; options of an estimator stand beside its name"),
        (START + "[estimate]\nsmall_sample = 'CR2'\n", r"small_sample: needs an estimator beside it"),
        (START + "[[compare]]\nsmall_sample = 'CR2'\n", r"1 small_sample: needs an estimator beside it"),
        (START + "[[compare]]\nestimator = 'ols'\nsmall_sample = 'cr9'\n", r"1 small_sample: 'cr9' is not one of"),
        (START + "[[compare]]\nestimator = 'ols'\nsmall_sample = 'cr2'\n", r"1 small_sample: .* Did you mean 'CR2'\?"),
        (START + "[[compare]]\ncov_type = 'HC1'\nsmall_sample = 'CR2'\n",
         r'1 small_sample: small_sample = "CR2" corrects clustered covariances; .* or use cov_type = "site"'),
        (START + "[[compare]]\nestimator = 'ujive'\ninterval = 'score'\nsmall_sample = 'CR2'\n", r"has its own small"),
        (START + "[audit]\nplanned_share = 0.5\nplanned_shares = 'p.csv'\n", r"planned_shares: stands beside"),
        (START + ROLES + "weights = 'w'\n", r'\[design\] weights = "w" needs \[design\] weight_kind: '),
        (START + "[audit]\ndraws = 99\n", r"\[audit\] draws: must be 199 or more, not 99"),
        (START + "[audit]\ndraws = true\n", r"\[audit\] draws: must be a whole number, not true or false"),
        (START + "[audit]\nplanned_share = 1.5\n", r"planned_share: must lie between 0 and 1, not 1.5"),
        (START + "[audit]\nplanned_share = 2020-01-01\n", r"planned_share: must be a number .* not a date or time"),
        (START + "[arguments]\nx = 'a'\n", r"\[arguments\] x: unknown"),
        (START + "[arguments]\nii = ' '\n", r"\[arguments\] ii: is empty"),
        (START + "[arguments]\nvii.a = 'a'\n", r"\[arguments\] vii: a key with a dot needs quotes"),
        (START + "[arguments]\nvii = 'a'\n\"vii.a\" = 'b'\n", r"vii.a: assumption vii has an argument already"),
        (START + "[design]\noutcome = 'y'\n", r"\[design\] treatment, mediators, site: missing.*the '#' away"),
        (START + ROLES.replace('"s"', '"y"'), r"\[design\]: Column 'y' is in two roles"),
        (START + ROLES + "control = [1]\n", r"\[design\] control: must be the label of an arm"),
        (START + ROLES.replace('["m"]', '["m", 3]'), r"\[design\] mediators, item 2: must be text .* \(3\)"),
        (START + "[dag]\nedges = 4\n", r"\[dag\] edges: must be text in quotes, or a list"),
        ('[study]\ntitle = "a"\n[data]\nfile = "x"\n', r"\[study\] format: missing. Write format = 1"),
        ("[study]\nformat = 2\n", r"\[study\] format: this version of msmmiv reads format 1"),
        ("[study]\nformat = 1\n", r"\[data\] file: missing"),
        ("study = 1\n", r"study: must be a table"),
        (START + 'decimal = ","\ndelimiter = ","\n', r"\[data\]: A comma cannot be both"),
        (START + "delimiter = ';;'\n", r"\[data\] delimiter: must be one character"),
        ("[study\n", r"line 1, column 7: "),
        ("[study]\nformat = 1\n[study]\n", r"line 3, column 7: "),
        ('a = "open', r"line 1, at the end of the file|line 1, column"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        parse_study(text)


def test_a_file_that_is_not_there_or_no_text(tmp_path) -> None:
    (tmp_path / "stduy.toml").write_text("")
    with pytest.raises(StudyFileError, match=r"cannot be read: No such file.* The folder has 'stduy.toml'"):
        read_study(tmp_path / "study.toml")
    (tmp_path / "latin.toml").write_bytes("[study]\n# é\n".encode("latin-1"))
    with pytest.raises(StudyFileError, match="not written in UTF-8"):
        read_study(tmp_path / "latin.toml")
    with pytest.raises(StudyFileError, match=r"stduy.toml: \[study\] format: missing"):
        read_study(tmp_path / "stduy.toml")


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes((START + ROLES).replace("\n", "\r\n").encode("utf-8-sig"))
    assert read_study(path).design.site == "s"


TEXT = st.text(min_size=1, max_size=20).filter(lambda t: t.strip() != "")
HOSTILE = st.sampled_from(
    [
        '"""',
        "\\",
        "\\u0041",
        "a\r\nb",
        "\ttab",
        "\x00\x1b[31m",
        "\u202eevil",
        "'" * 3,
        "x" * 300,
        "#",
        "é 😀\n\n",
        '""',
    ]
)
NAME = TEXT | HOSTILE
NAMES = st.lists(NAME, max_size=3).map(tuple)


@st.composite
def designs(draw):
    names = draw(st.lists(NAME, min_size=8, max_size=8, unique=True))
    weights = draw(st.booleans())
    return mm.Design(
        outcome=names[0], treatment=names[1], mediators=names[2:4], site=names[4],
        covariates=draw(st.sampled_from([(), (names[5],)])), cluster=draw(st.sampled_from([None, names[6]])),
        weights=names[7] if weights else None, weight_kind="frequency" if weights else None,
        control=draw(st.none() | NAME | st.integers() | st.booleans() | st.floats(-1e300, 1e300)),
    )  # fmt: skip


ESTIMATORS = st.one_of(
    st.sampled_from(["2sls", "ujive"]), st.builds(mm.Fuller, st.floats(0, 1e300)),
    st.builds(mm.BCLinear, st.sampled_from(["equal", "precision"])),
    st.builds(mm.BCSymmetric, st.sampled_from(["equal", "precision"])),
)  # fmt: skip
ESTIMATES = st.builds(
    EstimateTable, estimator=ESTIMATORS, cov_type=st.sampled_from([None, "site"]),
    direct_effect=st.booleans(), interval=st.sampled_from([None, "wald", "score"]),
)  # fmt: skip
CORRECTED = st.builds(
    EstimateTable, estimator=st.sampled_from(["2sls", mm.Fuller(4.0), None]), cov_type=st.just("site"),
    small_sample=st.sampled_from([None, "CR0", "CR2", "CR3"]),
)  # fmt: skip
STUDIES = st.builds(
    StudyFile, title=st.none() | NAME, seed=st.integers(0, 2**70), out=st.none() | NAME, design=st.none() | designs(),
    data=st.builds(DataTable, file=st.lists(NAME, min_size=1, max_size=3).map(tuple),
                   missing=st.sampled_from([None, "drop"]), delimiter=st.sampled_from([None, ";", "\t", "|"])),
    estimate=ESTIMATES, compare=st.lists(ESTIMATES | CORRECTED, max_size=2).map(tuple),
    auditing=st.builds(AuditTable, draws=st.integers(199, 10**6), planned_share=st.none() | st.floats(1e-300, 0.99))
    | st.builds(AuditTable, planned_shares=NAME, site_covariates=st.none() | NAME),
    dag=st.builds(DagTable, edges=NAMES, without=NAMES, measured=NAMES,
                  confounders=st.none() | NAMES | st.dictionaries(NAME, NAMES, min_size=1, max_size=2)),
    arguments=st.dictionaries(st.sampled_from(["i", "ii", "v", "ix"]), NAME, max_size=3),
)  # fmt: skip


@given(STUDIES)
def test_what_is_written_reads_back(study: StudyFile) -> None:
    text = study.to_toml()
    assert parse_study(text) == study
    hidden = {c for c in text if c != "\n" and (ord(c) < 32 or c in "\x7f\u202e")}
    assert hidden == set()


@given(st.dictionaries(st.text(max_size=8), NAME | st.lists(NAME | st.integers()), max_size=4))
def test_any_table_reads_back(table) -> None:
    assert tomllib.loads(toml_text({"a": table})) == {"a": table}
    assert tomllib.loads(f"a = {toml_value(table)}") == {"a": table}
    assert all(tomllib.loads(f"{toml_key(k)} = 1") == {k: 1} for k in table)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'fuller'", mm.Fuller(1.0)),
        ("{ name = 'fuller' }", mm.Fuller(1.0)),
        ("{ name = 'fuller', a = 4 }", mm.Fuller(4.0)),
        ("{ name = 'bc_linear', weights = 'precision' }", mm.BCLinear(weights="precision")),
        # One estimator has one form, so that a file that says the usual options is equal to one that does not.
        ("{ name = 'bc_linear', weights = 'equal' }", "bc_linear"),
        ("{ name = '2sls' }", "2sls"),
    ],
)
def test_estimators_with_options(written: str, meant: object) -> None:
    file = parse_study(START + f"[estimate]\nestimator = {written}\n")
    assert file.estimate.estimator == meant
    assert parse_study(file.to_toml()) == file


def test_what_is_usual_is_not_written() -> None:
    tables = [EstimateTable(estimator=e) for e in (mm.Fuller(1.0), mm.Fuller(4.0), mm.BCLinear())]
    assert [said(t)["estimator"] for t in tables] == ["fuller", {"name": "fuller", "a": 4.0}, "bc_linear"]
    file = StudyFile(data=DataTable(file=("x",)), estimate=tables[1])
    assert 'estimator = { name = "fuller", a = 4.0 }' in file.to_toml()


def test_what_toml_cannot_hold_is_refused() -> None:
    for value in ("\ud800", float("nan"), None, object()):
        with pytest.raises(StudyFileError, match=r"half a character|no place"):
            toml_value(value)


def test_several_lines_stay_several_lines() -> None:
    file = StudyFile(data=DataTable(file=("x",)), arguments={"ii": 'One.\nTwo """ three.'})
    assert 'ii = """\nOne.\nTwo \\"\\"\\" three."""' in file.to_toml()

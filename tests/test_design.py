"""Design: roles by keyword and by formula, refusals, identity, printing."""

from __future__ import annotations

import copy
import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.errors import ChoiceError, DesignError, MsmmivError

KW = {"outcome": "y", "treatment": "t", "mediators": ["m1", "m2"], "site": "s"}


def make(**options):
    return mm.Design(**{**KW, **options})


def test_keywords_fill_the_roles_and_defaults():
    d = make(covariates=["x"], block="b", cluster="c", weights="w", weight_kind="analytic")
    assert d.mediators == ("m1", "m2")
    assert d.covariates == ("x",)
    assert (d.treatment_kind, d.estimand, d.control) == ("arms", "ate", None)
    assert d.roles() == (
        ("outcome", "y"), ("treatment", "t"), ("mediator", "m1"), ("mediator", "m2"), ("site", "s"),
        ("covariate", "x"), ("block", "b"), ("cluster", "c"), ("weights", "w"),
    )  # fmt: skip
    assert d.variables == ("y", "m1", "m2", "x")


def test_one_name_may_stand_for_a_list_of_one():
    assert make(mediators="m").mediators == ("m",)
    assert make(covariates="x").covariates == ("x",)
    assert make(covariates=None).covariates == ()
    assert make(covariates=np.array(["x", "z"])).covariates == ("x", "z")


def test_a_dose_is_a_variable():
    assert make(treatment_kind="continuous").variables == ("y", "m1", "m2", "t")


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError, match="positional"):
        mm.Design("y", "t", "m", "s")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"mediators": []}, DesignError, "at least one mediator"),
        ({"mediators": ()}, DesignError, "at least one mediator"),
        ({"mediators": 5}, DesignError, "mediators must be column names, not 5"),
        ({"mediators": {"m1", "m2"}}, DesignError, "mediators are a set, which has no order. Give a list"),
        ({"covariates": frozenset({"x"})}, DesignError, "covariates are a set"),
        ({"mediators": ["m1", "m1"]}, DesignError, "'m1' is in two roles: mediator and mediator"),
        ({"mediators": ["m1", 3]}, DesignError, "mediator must be a column name, not 3"),
        ({"outcome": "t"}, DesignError, "'t' is in two roles: outcome and treatment"),
        ({"covariates": ["s"]}, DesignError, "'s' is in two roles: site and covariate"),
        ({"covariates": [""]}, DesignError, "covariate must be a column name, not ''"),
        ({"outcome": None}, DesignError, "outcome must be a column name, not None"),
        ({"treatment": ["t"]}, DesignError, r"treatment must be a column name, not \['t'\]"),
        ({"cluster": ""}, DesignError, "cluster must be a column name"),
        ({"cluster": "s"}, DesignError, "two roles: site and cluster.*cov_type='site'"),
        ({"weights": "w"}, DesignError, "needs weight_kind=: 'analytic'.*'frequency'.*'probability'"),
        ({"weight_kind": "analytic"}, DesignError, "without weights="),
        ({"weights": "w", "weight_kind": "freq"}, ChoiceError, "'freq' is not one of.*Did you mean 'frequency'"),
        ({"treatment_kind": "dose"}, ChoiceError, "treatment_kind='dose' is not one of 'arms' and 'continuous'"),
        ({"estimand": "att"}, ChoiceError, "estimand='att' is not one of 'ate' and 'late'"),
        ({"treatment_kind": "continuous", "control": 0}, DesignError, "no control arm"),
        ({"treatment_kind": "continuous", "estimand": "late"}, DesignError, "late.*continuous"),
        ({"control": [0]}, DesignError, r"control must be the label of an arm.*not \[0\]"),
        ({"control": float("nan")}, DesignError, "control must be the label of an arm"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        make(**options)


def test_every_refusal_is_a_value_error_of_the_package():
    assert issubclass(DesignError, MsmmivError)
    assert issubclass(MsmmivError, ValueError)


def test_equal_designs_are_one_key():
    a, b = make(covariates=["x"]), make(covariates=("x",))
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b}) == 1
    assert a.digest == b.digest
    assert len(a.digest) == 12
    int(a.digest, 16)


@pytest.mark.parametrize(
    "other",
    [
        {"mediators": ["m2", "m1"]},
        {"covariates": ["x"]},
        {"control": 1},
        {"estimand": "late"},
        {"treatment_kind": "continuous"},
        {"block": "b"},
        {"cluster": "b"},
        {"weights": "b", "weight_kind": "analytic"},
    ],
)
def test_different_designs_differ_in_every_way(other):
    a, b = make(), make(**other)
    assert a != b
    assert a.digest != b.digest


def test_the_digest_is_that_of_the_roles_as_sorted_json():
    text = (
        '{"block": null, "cluster": null, "control": null, "covariates": [], "estimand": "ate", '
        '"mediators": ["m1", "m2"], "outcome": "y", "site": "s", "treatment": "t", '
        '"treatment_kind": "arms", "weight_kind": null, "weights": null}'
    )
    assert make().digest == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_a_design_never_changes():
    with pytest.raises(AttributeError):
        make().outcome = "z"


def test_copies_and_pickles():
    d = make(control="none", cluster="c")
    assert pickle.loads(pickle.dumps(d)) == d  # noqa: S301 - our own bytes
    assert copy.deepcopy(d) == d


def test_a_numpy_label_becomes_plain():
    d = make(control=np.int64(1))
    assert type(d.control) is int
    assert d.digest == make(control=1).digest


names = st.text(min_size=1, max_size=8)


@given(
    columns=st.lists(names, min_size=9, max_size=9, unique=True), control=st.none() | names | st.integers()
)
def test_round_trip_to_dict(columns, control):
    y, t, m, n, s, x, b, c, w = columns
    d = mm.Design(
        outcome=y, treatment=t, mediators=[m, n], site=s, covariates=[x], block=b, cluster=c, weights=w,
        weight_kind="probability", control=control,
    )  # fmt: skip
    assert mm.Design(**d.to_dict()) == d
    assert mm.Design(**d.to_dict()).digest == d.digest


def test_printing_names_every_role():
    text = str(
        make(covariates=["x"], block="b", cluster="c", weights="w", weight_kind="frequency", control="none")
    )
    assert [line.split()[0] for line in text.splitlines()] == [
        "outcome", "treatment", "mediators", "site", "covariates", "block", "cluster", "weights", "estimand",
    ]  # fmt: skip
    assert "t (arms; control: none)" in text
    assert "m1, m2" in text
    assert "w (frequency)" in text


def test_printing_leaves_out_what_is_not_there():
    text = str(make())
    assert "block" not in text
    assert "control: 0" in text
    assert "t (continuous)" in str(make(treatment_kind="continuous"))
    assert "compliers" in str(make(estimand="late"))
    assert "control: False" in str(make(control=False))


# ---------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ 1 | s | m1 + m2 ~ t", {}),
        ("y ~ 1 + x | s | m1 + m2 ~ t", {"covariates": ["x"]}),
        ("y ~ 1+`0 + a` + z | s | m1 + m2 ~ t", {"covariates": ["0 + a", "z"]}),
        ("y ~ `1` | s | m1 + m2 ~ t", {"covariates": ["1"]}),
        ("y~|s|m1+m2~t", {}),
        ("  y ~ x + z | s | m1 + m2 ~ t\n", {"covariates": ["x", "z"]}),
        ("y ~ z + x | s | m1 + m2 ~ t", {"covariates": ["z", "x"]}),
        ("y ~ `a b` + `c|d` | s | m1 + m2 ~ t", {"covariates": ["a b", "c|d"]}),
        ("y ~ `x-1` + `~` | s | m1 + m2 ~ t", {"covariates": ["x-1", "~"]}),
        ("`the outcome` ~ 1 | `site id` | m1 + `m 2` ~ `in arm`",
         {"outcome": "the outcome", "site": "site id", "mediators": ["m1", "m 2"], "treatment": "in arm"}),
        ("été ~ 1 | s | m1 + m2 ~ t", {"outcome": "été"}),
    ],
)  # fmt: skip
def test_formulas_say_the_same_as_keywords(formula, options):
    assert mm.Design.from_formula(formula) == make(**options)


def test_a_formula_takes_the_other_fields_as_options():
    d = mm.Design.from_formula(
        "y ~ x | s | m1 + m2 ~ t", cluster="c", block="b", weights="w", weight_kind="analytic", control="a"
    )
    assert d == make(
        covariates=["x"], cluster="c", block="b", weights="w", weight_kind="analytic", control="a"
    )


def test_thirty_covariates_keep_their_order():
    columns = [f"x{j}" for j in range(30, 0, -1)]
    assert mm.Design.from_formula(f"y ~ {' + '.join(columns)} | s | m ~ t").covariates == tuple(columns)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("", "'' has 1 parts between bars, not 3"),
        ("y ~ x | s", "2 parts between bars"),
        ("y ~ x | s | m ~ t | q", "4 parts between bars"),
        ("y | s | m ~ t", "each need one '~'"),
        ("y ~ x | s | m", "each need one '~'"),
        ("y ~ x ~ z | s | m ~ t", "each need one '~'"),
        ("y ~ x | | m ~ t", "site must be one column"),
        ("y ~ x | s + q | m ~ t", r"site must be one column, not 's \+ q'"),
        ("y + z ~ x | s | m ~ t", "outcome must be one column"),
        ("y ~ x | s | m ~ t + u", "treatment must be one column"),
        ("y ~ x | s | ~ t", "at least one mediator"),
        ("y ~ `x | s | m ~ t", "backtick is left open"),
        ("y ~ log(x) | s | m ~ t", r"'log\(x\)' is not a plain column. Make that column in the data first"),
        ("y ~ C(x) | s | m ~ t", "not a plain column"),
        ("log(y) ~ x | s | m ~ t", "not a plain column"),
        ("y ~ x*z | s | m ~ t", "'\\*' has no meaning here"),
        ("y ~ x:z | s | m ~ t", "':' has no meaning here"),
        ("y ~ x - z | s | m ~ t", "'-' has no meaning here"),
        ("y ~ x**2 | s | m ~ t", "'\\*' has no meaning here"),
        ("y ~ x^2 | s | m ~ t", "has no meaning here"),
        ("y ~ x / z | s | m ~ t", "has no meaning here"),
        ("y ~ x + 1 | s | m ~ t", "'1' is not a plain column"),
        ("y ~ 1 + | s | m ~ t", "Could not read '1 \\+'"),
        ("y ~ 1 + 1 | s | m ~ t", "'1' is not a plain column"),
        ("y ~ 0 | s | m ~ t", "'0' asks for no intercept, but site intercepts are always there"),
        ("y ~ 0 + x | s | m ~ t", "site intercepts are always there. Write 1 for no covariates"),
        ("y ~ x + 0 | s | m ~ t", "site intercepts are always there"),
        ("y ~ x - 1 | s | m ~ t", "site intercepts are always there"),
        ("y ~ -1 + x | s | m ~ t", "site intercepts are always there"),
        ("y ~ x + x | s | m ~ t", "'x' is in two roles: covariate and covariate"),
        ("y ~ 1 + x + `x` | s | m ~ t", "'x' is in two roles: covariate and covariate"),
        ("y ~ x + z + (x) | s | m ~ t", "'x' is in two roles: covariate and covariate"),
        ("y ~ 1 | s | m + m ~ t", "'m' is in two roles: mediator and mediator"),
        ("y + y ~ 1 | s | m ~ t", "outcome must be one column, not 'y \\+ y'"),
        (3, "must be text, not int"),
        ("y ~ 2 | s | m ~ t", "Could not read '2'"),
        ("y ~ . | s | m ~ t", "Could not read '.'"),
        ("y ~ x + | s | m ~ t", "Could not read"),
        ("y ~ m | s | m ~ t", "'m' is in two roles: mediator and covariate"),
    ],
)  # fmt: skip
def test_formulas_that_do_not_read_are_refused(formula, words):
    with pytest.raises(DesignError, match=words) as caught:
        mm.Design.from_formula(formula)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("role", ["outcome", "covariates", "site", "mediators", "treatment"])
def test_a_role_is_said_once(role):
    with pytest.raises(
        DesignError, match=f"'{role}' is already in the formula 'y ~ x | s | m ~ t'".replace("|", r"\|")
    ):
        mm.Design.from_formula("y ~ x | s | m ~ t", **{role: "z"})


@pytest.mark.parametrize("value", [0, 0.0, False, np.float64(0), np.bool_(False)])
def test_equal_controls_have_equal_digests(value):
    assert make(control=value) == make(control=0)
    assert make(control=value).digest == make(control=0).digest
    assert make(control=1.5).control == 1.5
    assert type(make(control=1.0).control) is int

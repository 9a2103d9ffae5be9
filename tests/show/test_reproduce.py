"""The lines a report gives for other programs: those that can run here are run."""

from __future__ import annotations

import dataclasses
import functools
import html
import re
import shlex

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import main
from msmmiv.show import reproduce
from msmmiv.show.plots import gallery
from msmmiv.show.report import render_report
from tests.show.helpers import design, trial

CASES = {
    "plain": {"roles": {"mediators": ("m1",)}},
    "covariate and clusters": {"roles": {"mediators": ("m1", "m2"), "covariates": ("x",), "cluster": "class"}},
    "direct effect": {"roles": {"mediators": ("m1",)}, "direct_effect": True},
    "three arms": {"roles": {"mediators": ("m1", "m2"), "control": "c"}, "arms": ("a", "c", "b")},
    "three arms, direct": {
        "roles": {"mediators": ("m1", "m2"), "control": "c"}, "arms": ("a", "c", "b"), "direct_effect": True,
    },
    "blocks and weights": {
        "roles": {"mediators": ("m1",), "block": "b", "weights": "w", "weight_kind": "analytic"}, "cov_type": "site",
    },
    "by name": {"roles": {"mediators": ("m1",)}, "estimator": "liml", "cov_type": "bekker"},
    "site scores": {"roles": {"mediators": ("m1", "m2")}, "estimator": "ujive", "interval": "score"},
    "dose": {
        "roles": {"mediators": ("m1",), "treatment_kind": "continuous"}, "arms": (0.0, 1.5, 4.0), "direct_effect": True,
    },
}  # fmt: skip


BLOCKS = "interaction(s, b, drop = TRUE)"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Rows, their file and their analysis by the name of a case, each made once."""

    @functools.cache
    def made(name):
        options = dict(CASES[name])
        rows = trial(range(7), arms=options.pop("arms", (0, 1)), seed=len(name))
        rows["b"] = np.arange(len(rows)) % 2
        rows["w"] = np.random.default_rng(1).uniform(0.5, 2.0, len(rows))
        roles = dict(options.pop("roles"))
        path = tmp_path_factory.mktemp("case") / "rows of a trial.csv"
        rows.to_csv(path, index=False)
        study = mm.Study(path, design(*roles.pop("mediators"), **roles))
        return pd.read_csv(path), path, study.analysis(audit=study.audit(draws=199), **options)

    return made


@pytest.mark.parametrize("name", CASES)
def test_linearmodels_lines_give_the_same_coefficients(name, case, monkeypatch):
    _, path, analysis = case(name)
    monkeypatch.chdir(path.parent)
    code, found = reproduce.linearmodels_lines(analysis), {}
    last = code.splitlines()[-1]
    code = code.replace(last, "result = " + re.fullmatch(r"print\((.*)\)", last)[1])
    exec(code, {}, found)  # noqa: S102 - our own lines are what is tested
    expected = analysis.two_stage.params
    assert found["result"].params[expected.index].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-9)
    ours = analysis.two_stage
    if ours.small_sample in ("CR2", "CR3"):  # which are no factor; the page says what the lines give instead
        assert ours.cov_type == "site"
        ours = mm.fit(analysis.moments, "2sls", cov_type="site", direct_effect=ours.direct_effect)
    ratio = found["result"].std_errors[expected.index] / ours.std_errors
    assert ratio.to_numpy() == pytest.approx(np.full(len(ratio), ratio.iloc[0]), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_python_lines_give_the_same_fit(name, case, monkeypatch, capsys):
    _, path, analysis = case(name)
    monkeypatch.chdir(path.parent)
    found, code = {}, reproduce.python_lines(analysis)
    report = [line for line in code.splitlines() if line.startswith("study.report(")]
    assert len(report) == 1
    if name != "plain":  # one page is enough: drawing it takes most of the time
        code = code.replace(report[0], "")
    exec(code, {}, found)  # noqa: S102
    assert found["fit"].params.to_dict() == pytest.approx(analysis.headline.params.to_dict(), rel=1e-12)
    assert found["fit"].std_errors.to_dict() == pytest.approx(
        analysis.headline.std_errors.to_dict(), rel=1e-12
    )
    assert (path.parent / "report.html").exists() or name != "plain"
    assert "Estimand" in capsys.readouterr().out


@pytest.mark.parametrize("name", CASES)
def test_the_command_gives_the_same_estimates(name, case, monkeypatch, undrawn):
    _, path, analysis = case(name)
    monkeypatch.chdir(path.parent)
    words = shlex.split(reproduce.cli_line(analysis))
    assert words[0] == "msmmiv"
    done = CliRunner().invoke(main, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    table = pd.read_csv(path.parent / "results" / "estimates.csv")
    first = table.iloc[: len(analysis.headline.terms)]
    assert first["estimate"].to_numpy() == pytest.approx(analysis.headline.coefficients, rel=1e-12)
    assert first["std_error"].to_numpy() == pytest.approx(analysis.headline.std_errors.to_numpy(), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "stata", "r"),
    [
        ("plain", "ivreghdfe y (m1 = ibn.s#c.t), absorb(s) cluster(s)",
         "feols(y ~ 1 | s | m1 ~ i(s, t), data = df, vcov = ~s)"),
        ("covariate and clusters", "ivreghdfe y x (m1 m2 = ibn.s#c.t), absorb(s) cluster(s)",
         "feols(y ~ x | s | m1 + m2 ~ i(s, t), data = df, vcov = ~s)"),
        ("three arms, direct", "ivreghdfe y i(1 2).t (m1 m2 = ibn.s#i(1 2).t), absorb(s) cluster(s)",
         'feols(y ~ i(t, ref = "c") | s | m1 + m2 ~ i(s, i.t, ref2 = "c"), data = df, vcov = ~s)'),
        ("blocks and weights", "ivreghdfe y (m1 = ibn.s#c.t) [aw=w], absorb(i.s#i.b) cluster(s)",
         "feols(y ~ 1 | s^b | m1 ~ i(s, t), data = df, weights = ~w, vcov = ~s)"),
        ("dose", "ivreghdfe y c.t (m1 = ibn.s#c.t), absorb(s) cluster(s)",
         "feols(y ~ t | s | m1 ~ i(s, t), data = df, vcov = ~s)"),
    ],
)  # fmt: skip
def test_lines_for_stata_and_r(name, stata, r, case):
    _, _, analysis = case(name)
    assert reproduce.stata_lines(analysis).splitlines()[-1] == stata.replace("y c.t", "y t")
    assert reproduce.fixest_lines(analysis).splitlines()[-1] == r


@pytest.mark.parametrize(
    ("name", "ivreg", "errors"),
    [
        ("plain", "y ~ m1 + factor(s) | t:factor(s) + factor(s), data = df", "vcovCL, cluster = ~s"),
        ("covariate and clusters", "y ~ m1 + m2 + x + factor(s) | t:factor(s) + x + factor(s), data = df",
         "vcovCL, cluster = ~s"),
        ("direct effect", "y ~ m1 + t + factor(s) | t:factor(s) + t + factor(s), data = df", "vcovCL, cluster = ~s"),
        ("three arms", "y ~ m1 + m2 + factor(s) | factor(t):factor(s) + factor(s), data = df", "vcovCL, cluster = ~s"),
        ("blocks and weights", f"y ~ m1 + {BLOCKS} | t:factor(s) + {BLOCKS}, data = df, weights = w",
         "vcovCL, cluster = ~s"),
    ],
)  # fmt: skip
def test_lines_for_ivreg_have_the_form_of_the_golden_calls(name, ivreg, errors, case):
    """The form that made tests/golden/ivreg_*.json: ``y ~ m1 + m2 + x + site | t:site + x + site``."""
    _, _, analysis = case(name)
    first, model, shown = reproduce.ivreg_lines(analysis).splitlines()
    assert first == "library(ivreg)"
    assert model == f"fit <- ivreg({ivreg})"
    assert errors in shown


def test_arms_that_are_words_are_recoded():
    analysis = mm.Study(trial(range(5), arms=("off", "on")), design("m1", control="off")).analysis()
    assert "* t coded 0 = off, 1 = on" in reproduce.stata_lines(analysis)
    assert 'df$treated <- as.integer(df[["t"]] != "off")' in reproduce.fixest_lines(analysis)
    assert "i(s, treated)" in reproduce.fixest_lines(analysis)
    assert "| treated:factor(s) + factor(s)" in reproduce.ivreg_lines(analysis)


def test_what_was_left_out_is_left_out_elsewhere():
    """A missing value, and a site of one arm: the lines run on the data as they are."""
    rows = trial(range(7))
    rows.loc[[3, 50], "m1"] = np.nan
    rows.loc[9, "class"] = np.nan
    rows = rows[(rows["s"] != 4) | (rows["t"] == 1)]
    with pytest.warns(mm.errors.OneArmSiteWarning):
        study = mm.Study(rows, design("m1", "m2", covariates=("x",), cluster="class"))
    analysis = study.analysis(audit=study.audit(draws=199))
    code, found = reproduce.linearmodels_lines(analysis), {}
    assert "df.dropna(subset=['y', 't', 'm1', 'm2', 's', 'x', 'class'])" in code
    assert "~df['s'].isin([4])" in code
    last = code.splitlines()[-1]
    exec(code.replace(last, "result = " + re.fullmatch(r"print\((.*)\)", last)[1]), {"df": rows}, found)  # noqa: S102
    expected = analysis.two_stage
    assert found["result"].nobs == expected.nobs == len(rows) - 3 - 24
    assert found["result"].params[list(expected.terms)].to_numpy() == pytest.approx(
        expected.coefficients, rel=1e-9
    )
    page = html.unescape(re.sub(r"<[^>]+>", " ", render_report(analysis, pictures=gallery(analysis))))
    assert "Left out here, and to be left out there: rows without a value" in page
    assert "1 site (4)" in page
    for title in (
        "Stata (ivreghdfe)",
        "R (fixest)",
        "R (ivreg)",
        "Python (linearmodels)",
        "Python",
        "Command line",
    ):
        assert f" {title} " in page
    for line in (
        *code.splitlines(), *reproduce.stata_lines(analysis).splitlines(), reproduce.cli_line(analysis),
        *reproduce.ivreg_lines(analysis).splitlines(), *reproduce.fixest_lines(analysis).splitlines(),
    ):  # fmt: skip
        assert line in page


@pytest.mark.parametrize("estimator", [mm.Fuller(4.0), mm.BCLinear(weights="precision")])
def test_estimators_with_options_are_objects(estimator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trial(range(7)).to_csv("rows.csv", index=False)
    study = mm.Study("rows.csv", design("m1"))
    analysis, found = study.analysis(estimator=estimator, audit=study.audit(draws=199)), {}
    lines = reproduce.python_lines(analysis).splitlines()
    exec("\n".join(x for x in lines if not x.startswith("study.report")), {}, found)  # noqa: S102
    assert found["fit"].params.to_dict() == analysis.headline.params.to_dict()
    assert found["fit"].method == analysis.headline.method
    assert reproduce.cli_line(analysis).startswith("# the command takes estimators by name")


def test_a_study_file_is_run_again_and_not_taken_apart(one):
    stamped = dataclasses.replace(one, stamp={"study file": "my study.toml"})
    assert reproduce.cli_line(stamped) == "msmmiv run 'my study.toml'\nmsmmiv run 'my study.toml' --check"
    assert "run_study('my study.toml')" in reproduce.python_lines(stamped)
    assert "mm.Study" not in reproduce.python_lines(stamped)


def test_names_are_quoted_where_a_language_needs_it(hostile):
    assert "`the <b>outcome</b>`" in reproduce.fixest_lines(hostile)
    assert "the__b_outcome__b_" in reproduce.stata_lines(hostile)
    assert shlex.split(reproduce.cli_line(hostile))[4] == "the <b>outcome</b>"


def test_rows_dropped_on_request_are_dropped_again():
    rows = trial(range(5))
    rows.loc[3, "s"] = np.nan
    analysis = mm.Study(rows, design("m1"), missing="drop").analysis()
    assert 'missing="drop"' in reproduce.python_lines(analysis)
    assert "--missing drop" in reproduce.cli_line(analysis)

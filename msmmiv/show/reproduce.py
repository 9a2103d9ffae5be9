"""How to get the same numbers again: with this package, and with three others."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from typing import Any, Literal

from msmmiv.design import Design
from msmmiv.inference.results import Estimate
from msmmiv.moments.flow import SampleFlow
from msmmiv.show.analysis import Analysis
from msmmiv.show.comparison import kind_of
from msmmiv.show.words import one_line

__all__ = [
    "cli_line",
    "fit_options",
    "fixest_lines",
    "ivreg_lines",
    "linearmodels_lines",
    "python_lines",
    "r_name",
    "stata_lines",
]

_OPTIONS = {
    "outcome": "-y", "treatment": "-t", "mediators": "-m", "site": "-s", "covariates": "-x",
}  # fmt: skip


def _given(design: Design) -> dict[str, Any]:
    """The roles that differ from their defaults."""
    values = design.to_dict()
    return {f.name: values[f.name] for f in fields(Design) if values[f.name] not in (f.default, [])}


def _drops(design: Design, flow: SampleFlow) -> bool:
    """Whether rows without site or arm were left out, which is an error unless asked for."""
    return bool({design.site, design.treatment} & {c for c, rows in flow.missing if rows})


def _file(analysis: Analysis) -> str:
    if analysis.source == "moments":
        return "moments.csv"
    return "your_data.csv" if " in memory" in analysis.source else analysis.source


def _study_file(analysis: Analysis) -> str | None:
    """The study file that says all of it: dialect of the data, graph, arguments, seeds."""
    return (analysis.stamp or {}).get("study file")


def python_lines(analysis: Analysis) -> str:
    """The headline in Python; of a study file, all that it says.

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(python_lines(mm.Study(mm.data.star()).analysis()))
    import msmmiv as mm
    <BLANKLINE>
    study = mm.Study(mm.Moments.load("moments.csv"))
    fit = study.fit()
    print(fit)
    study.report("report.html")
    """
    if (study := _study_file(analysis)) is not None:
        own = ["from msmmiv.document import check_study, run_study", ""]
        return "\n".join([*own, f"run_study({study!r})", f"print(check_study({study!r}))  # what differs"])
    fit, design = analysis.headline, analysis.moments.design
    lines = ["import msmmiv as mm", ""]
    if analysis.source == "moments":
        lines.append('study = mm.Study(mm.Moments.load("moments.csv"))')
    else:
        roles = [f"    {name}={value!r}," for name, value in _given(design).items()]
        drop = ', missing="drop"' if _drops(design, analysis.moments.flow) else ""
        lines += ["design = mm.Design(", *roles, ")", f"study = mm.Study({_file(analysis)!r}, design{drop})"]
    if fit.rule:  # the rule chooses the rest
        options = report = ["direct_effect=True"] * fit.direct_effect
    else:
        options = fit_options(fit)
        report = [f"estimator={options[0]}", *options[1:]]
    call = ", ".join(['"report.html"', *report])
    return "\n".join(
        [*lines, f"fit = study.fit({', '.join(options)})", "print(fit)", f"study.report({call})"]
    )


def fit_options(fit: Estimate) -> list[str]:
    """What `Study.fit` is called with to get this fit, the estimator first.

    Examples
    --------
    >>> import msmmiv as mm
    >>> fit_options(mm.Study(mm.data.star()).fit())
    ['"ujive"', 'cov_type="site"', 'interval="score"']
    """
    cov_type, small_sample, interval = kind_of(fit)
    out = [_estimator(fit.method), f'cov_type="{cov_type}"', *["direct_effect=True"] * fit.direct_effect]
    out += [f'interval="{interval}"'] if interval != "wald" else []
    return out + ([f'small_sample="{small_sample}"'] if small_sample else [])


def _estimator(method: str) -> str:
    """An estimator as Python takes it: a name, or an object with its option.

    >>> _estimator("liml"), _estimator("fuller(4)"), _estimator("bc_linear(precision)")
    ('"liml"', 'mm.Fuller(4)', 'mm.BCLinear("precision")')
    """
    name, _, option = method.rstrip(")").partition("(")
    if not option:
        return f'"{name}"'
    kind = {"fuller": "Fuller", "bc_linear": "BCLinear", "bc_symmetric": "BCSymmetric"}[name]
    return f"mm.{kind}({option})" if name == "fuller" else f'mm.{kind}("{option}")'


def cli_line(analysis: Analysis) -> str:
    """The whole analysis from the command line.

    Examples
    --------
    >>> import msmmiv as mm
    >>> cli_line(mm.Study(mm.data.star()).analysis())
    'msmmiv analyze moments.csv --out results'
    """
    if (study := _study_file(analysis)) is not None:
        again = shlex.join(["msmmiv", "run", study])
        return f"{again}\n{again} --check"
    fit, design = analysis.headline, analysis.moments.design
    if "(" in fit.method:
        return f"# the command takes estimators by name; {_estimator(fit.method)} is for Python, or for a study file"
    words = ["msmmiv", "analyze", _file(analysis)]
    if analysis.source != "moments":
        for name, value in _given(design).items():
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            for item in value if isinstance(value, list) else [value]:
                words += [option, str(item)]
        words += ["--missing", "drop"] if _drops(design, analysis.moments.flow) else []
    if not fit.rule:
        words += ["--estimator", fit.method, "--cov", fit.cov_type]
        words += ["--interval", fit.interval] if fit.interval != "wald" else []
    words += [*["--direct-effect"] * fit.direct_effect, "--out", "results"]
    return shlex.join(words)


def _stata(name: str) -> str:
    return re.sub(r"\W", "_", one_line(name), flags=re.ASCII)[:32]


def stata_lines(analysis: Analysis) -> str:
    """The same 2SLS coefficients with ivreghdfe (Stata).

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(stata_lines(mm.Study(mm.data.star()).analysis()))
    ivreghdfe math (class_size = ibn.school#c.small), absorb(school) cluster(school)
    """
    fit, d = analysis.two_stage, analysis.moments.design
    site, treatment = _stata(d.site), _stata(d.treatment)
    arms, notes = analysis.moments.arms, []
    arm = f"c.{treatment}"
    if len(arms) > 2:
        arm = f"i({' '.join(map(str, range(1, len(arms))))}).{treatment}"
        codes = ", ".join(f"{i} = {one_line(a)}" for i, a in enumerate(arms))
        notes.append(f"* {treatment} coded {codes}")
    elif arms and not _zero_one(arms):
        notes.append(f"* {treatment} coded 0 = {one_line(arms[0])}, 1 = {one_line(arms[1])}")
    names = [name for _, name in d.roles()]
    if any(_stata(n) != n for n in names):
        notes.append("* names adapted to Stata; text labels need encode first")
    exogenous = [_stata(x) for x in d.covariates] + [arm.removeprefix("c.")] * fit.direct_effect
    weights = {"analytic": "aw", "frequency": "fw", "probability": "pw"}
    weight = f" [{weights[d.weight_kind]}={_stata(d.weights)}]" if d.weights and d.weight_kind else ""
    absorbed = f"i.{site}#i.{_stata(d.block)}" if d.block else site
    errors = {"cluster": f" cluster({_stata(d.cluster or '')})", "site": f" cluster({site})", "classical": ""}
    left = " ".join([_stata(d.outcome), *exogenous])
    middle = " ".join(map(_stata, d.mediators))
    options = f"absorb({absorbed})" + errors.get(fit.cov_type, " robust")
    return "\n".join([*notes, f"ivreghdfe {left} ({middle} = ibn.{site}#{arm}){weight}, {options}"])


def r_name(name: str) -> str:
    """A column's name as R takes it."""
    plain = re.fullmatch(r"[A-Za-z.][\w.]*", name, flags=re.ASCII)
    return name if plain else "`" + one_line(name).replace("`", "") + "`"


def _r_text(value: Any) -> str:
    return str(value) if isinstance(value, int | float) else '"' + one_line(value).replace('"', '\\"') + '"'


def fixest_lines(analysis: Analysis) -> str:
    """The same 2SLS coefficients with fixest (R).

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(fixest_lines(mm.Study(mm.data.star()).analysis()))
    library(fixest)
    feols(math ~ 1 | school | class_size ~ i(school, small), data = df, vcov = ~school)
    """
    fit, d = analysis.two_stage, analysis.moments.design
    arms, lines = analysis.moments.arms, ["library(fixest)"]
    treatment = direct = r_name(d.treatment)
    if len(arms) > 2:
        treatment = f"i.{r_name(d.treatment)}, ref2 = {_r_text(arms[0])}"
        direct = f"i({r_name(d.treatment)}, ref = {_r_text(arms[0])})"
    elif arms and not _zero_one(arms):
        lines.append(f"df$treated <- as.integer(df[[{_r_text(str(d.treatment))}]] != {_r_text(arms[0])})")
        treatment = direct = "treated"
    exogenous = [r_name(x) for x in d.covariates] + [direct] * fit.direct_effect
    intercepts = f"{r_name(d.site)}^{r_name(d.block)}" if d.block else r_name(d.site)
    errors = {"cluster": f"~{r_name(d.cluster or '')}", "site": f"~{r_name(d.site)}", "classical": '"iid"'}
    vcov = errors.get(fit.cov_type, '"hetero"')
    weights = f", weights = ~{r_name(d.weights)}" if d.weights else ""
    lines.append(
        f"feols({r_name(d.outcome)} ~ {' + '.join(exogenous) or '1'} | {intercepts} | "
        f"{' + '.join(map(r_name, d.mediators))} ~ i({r_name(d.site)}, {treatment}), "
        f"data = df{weights}, vcov = {vcov})"
    )
    return "\n".join(lines)


def ivreg_lines(analysis: Analysis) -> str:
    """The same 2SLS coefficients with ivreg (R).

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(ivreg_lines(mm.Study(mm.data.star()).analysis()).splitlines()[1])
    fit <- ivreg(math ~ class_size + factor(school) | small:factor(school) + factor(school), data = df)
    """
    fit, d = analysis.two_stage, analysis.moments.design
    arms, lines = analysis.moments.arms, ["library(ivreg)"]
    site, treatment = f"factor({r_name(d.site)})", r_name(d.treatment)
    if len(arms) > 2:
        treatment = f"factor({treatment})"
    elif arms and not _zero_one(arms):
        lines.append(f"df$treated <- as.integer(df[[{_r_text(str(d.treatment))}]] != {_r_text(arms[0])})")
        treatment = "treated"
    exogenous = [r_name(x) for x in d.covariates] + [treatment] * fit.direct_effect
    exogenous.append(f"interaction({r_name(d.site)}, {r_name(d.block)}, drop = TRUE)" if d.block else site)
    left = " + ".join([*map(r_name, d.mediators), *exogenous])
    right = " + ".join([f"{treatment}:{site}", *exogenous])
    weights = f", weights = {r_name(d.weights)}" if d.weights else ""
    groups = {"cluster": d.cluster or "", "site": d.site}.get(fit.cov_type)
    robust = 'vcov = sandwich::vcovHC, type = "HC1"'
    errors = robust if groups is None else f"vcov = sandwich::vcovCL, cluster = ~{r_name(groups)}"
    lines.append(f"fit <- ivreg({r_name(d.outcome)} ~ {left} | {right}, data = df{weights})")
    shown = "summary(fit)" if fit.cov_type == "classical" else f"lmtest::coeftest(fit, {errors})"
    return "\n".join([*lines, shown])


def linearmodels_lines(analysis: Analysis, model: Literal["IV2SLS", "IVLIML"] = "IV2SLS") -> str:
    """The same coefficients with linearmodels (Python), by 2SLS or LIML, from a frame ``df`` of the data.

    Examples
    --------
    >>> import msmmiv as mm
    >>> print(linearmodels_lines(mm.Study(mm.data.star()).analysis()))
    import msmmiv as mm
    import pandas as pd
    from linearmodels.iv import IV2SLS
    <BLANKLINE>
    # df: the rows of moments as a data frame
    design = mm.Design(outcome='math', treatment='small', mediators=['class_size'], site='school', cluster='class_id')
    df = df.dropna(subset=['math', 'small', 'class_size', 'school', 'class_id'])
    df = df.reset_index(drop=True)
    Z = mm.site_by_treatment(df, design).astype(float)
    exog = pd.get_dummies(df['school'], dtype=float)
    model = IV2SLS(df['math'], exog, df[['class_size']], Z)
    print(model.fit(cov_type="clustered", clusters=df['school'], debiased=True))
    """
    fit, d = analysis.two_stage, analysis.moments.design
    weights = f", weights=df[{d.weights!r}]" if d.weights else ""
    clusters = d.site if fit.cov_type == "site" else d.cluster
    kind = {"cluster": f'"clustered", clusters=df[{clusters!r}]', "site": f'"clustered", clusters=df[{clusters!r}]',
            "classical": '"unadjusted"'}.get(fit.cov_type, '"robust"')  # fmt: skip
    return "\n".join([
        "import msmmiv as mm", "import pandas as pd", f"from linearmodels.iv import {model}", "",
        *_frame(analysis), *_exogenous(analysis),
        f"model = {model}(df[{d.outcome!r}], exog, df[{list(d.mediators)!r}], Z{weights})",
        f"print(model.fit(cov_type={kind}, debiased=True))",
    ])  # fmt: skip


def _frame(analysis: Analysis) -> list[str]:
    """Python that reads the data into ``df``, or a remark where their file cannot be known from here."""
    file = analysis.source
    plain = file.lower().endswith((".csv", ".parquet")) and not set("*?[,") & set(file)
    if not plain or _study_file(analysis):  # whose tables may say delimiter, decimal mark and encoding
        return [f"# df: the rows of {one_line(file)} as a data frame"]
    return [f"df = pd.read_{'csv' if file.lower().endswith('.csv') else 'parquet'}({file!r})"]


def _exogenous(analysis: Analysis) -> list[str]:
    """Python that makes the instruments ``Z`` and the exogenous columns ``exog`` from a frame ``df`` of the data."""
    d = analysis.moments.design
    roles = ", ".join(f"{k}={v!r}" for k, v in _given(d).items())
    group = f"df.groupby([{d.site!r}, {d.block!r}]).ngroup()" if d.block else f"df[{d.site!r}]"
    parts = [f"pd.get_dummies({group}, dtype=float)"]
    parts += [f"df[{list(d.covariates)!r}].astype(float)"] if d.covariates else []
    lines = [f"design = mm.Design({roles})", *_kept_rows(analysis)]
    lines.append("Z = mm.site_by_treatment(df, design).astype(float)")
    if analysis.headline.direct_effect:
        parts.append("direct")
        columns, spare = _direct_columns(analysis)
        lines += [
            f"direct = pd.DataFrame({columns})",
            f"Z = Z.drop(columns={spare!r})  # the direct effect takes it",
        ]
    exog = parts[0] if len(parts) == 1 else f"pd.concat([{', '.join(parts)}], axis=1)"
    return [*lines, f"exog = {exog}"]


def _kept_rows(analysis: Analysis) -> list[str]:
    """Python that leaves out of ``df`` the rows that are not in the estimate."""
    d, flow = analysis.moments.design, analysis.moments.flow
    lines = []
    if flow.incomplete or flow.untold:
        lines.append(f"df = df.dropna(subset={list(dict.fromkeys(c for _, c in d.roles()))!r})")
    if flow.dropped:
        # The sites that are left say it where most were dropped, and where some must not be named.
        gone = [s.site for s in flow.dropped]
        few = None not in gone and len(gone) <= analysis.moments.n_sites
        kept = (
            f"~df[{d.site!r}].isin({gone!r})"
            if few
            else f"df[{d.site!r}].isin({list(analysis.moments.sites)!r})"
        )
        lines.append(f"df = df[{kept}]")
    return [*lines, "df = df.reset_index(drop=True)"] if lines else []


def _direct_columns(analysis: Analysis) -> tuple[str, list[str]]:
    """Code for the direct-effect columns, and the instruments of one full site that they make redundant."""
    m, d = analysis.moments, analysis.moments.design
    absent = (analysis.effects.estimates[:, :, 0] != analysis.effects.estimates[:, :, 0]).any(axis=1)
    site = next((s for s, gap in zip(m.sites, absent, strict=True) if not gap), m.sites[0])
    if not m.arms:
        return f"{{'direct_effect': df[{d.treatment!r}]}}", [f"{d.treatment}:{d.site}[{site}]"]
    if len(m.arms) == 2:
        cell = f"(df[{d.treatment!r}] == {m.arms[1]!r}).astype(float)"
        return f"{{'direct_effect': {cell}}}", [f"{d.treatment}:{d.site}[{site}]"]
    code = ", ".join(
        f"{f'direct_effect[{a}]'!r}: (df[{d.treatment!r}] == {a!r}).astype(float)" for a in m.arms[1:]
    )
    return f"{{{code}}}", [f"{d.treatment}[{a}]:{d.site}[{site}]" for a in m.arms[1:]]


def _zero_one(arms: tuple[Any, ...]) -> bool:
    return [isinstance(a, str) for a in arms] == [False, False] and [float(a) for a in arms] == [0.0, 1.0]

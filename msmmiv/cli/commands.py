"""The commands: each a few lines of the public interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

import msmmiv as mm
from msmmiv.audit.json_values import json_text
from msmmiv.cli.files import whole_file, written
from msmmiv.cli.group import KindGroup
from msmmiv.cli.options import plain_words, with_json, with_roles, with_table
from msmmiv.cli.sources import arguments_of, audited, shares_of, source_of, study_of
from msmmiv.design import Estimand
from msmmiv.estimate import ESTIMATORS, Method
from msmmiv.estimate.between.methods import BetweenMethod
from msmmiv.inference.covariance import CovType
from msmmiv.inference.results import Interval
from msmmiv.moments.cells import Missing
from msmmiv.show.analysis import Analysis
from msmmiv.show.checklist import ResearchField, write_checklist
from msmmiv.show.decomposition_tables import decomposition_dict, decomposition_frames, decomposition_text
from msmmiv.show.outputs import (
    check_folder,
    rank_dict,
    results_dict,
    write_audit,
    write_decomposition,
    write_outputs,
    write_rank,
)
from msmmiv.show.summary import rank_text, summary_text, wrap
from msmmiv.show.words import number, printable

__all__ = ["main"]


@click.group(
    cls=KindGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "terminal_width": 100},
)
@click.version_option(mm.__version__, package_name="msmmiv", prog_name="msmmiv")
def main() -> None:
    """Effects of several mediators from a multisite trial, with site-by-treatment instruments.

    Every command has an example in its --help. Exit codes: 0 done, 1 something that --fail-on or --check asks about
    was found, 2 refused, 70 a bug of msmmiv, 130 stopped by you.

    \b
    msmmiv demo
    msmmiv analyze trial.csv -y score -t treated -m hours -s school --out results
    """  # noqa: D301 - click reads the control character


@main.command(short_help="Analyse the packaged trial and write a report.")
@click.option(
    "--out", default="msmmiv-demo", show_default=True, help="Folder for report, tables and figures."
)
@with_json
def demo(out: str, as_json: bool) -> None:
    """Analyse the packaged trial (Tennessee's class sizes) and write a report.

    \b
    msmmiv demo --out msmmiv-demo
    """  # noqa: D301 - click reads the control character
    with plain_words():
        check_folder(out)
        analysis = mm.Study(mm.data.star()).analysis(
            title="Class size and mathematics: Project STAR, kindergarten"
        )
        files = written(out, lambda folder: write_outputs(analysis, folder))
        if as_json:
            click.echo(json_text(results_dict(analysis)), nl=False)
        else:
            click.echo(summary_text(analysis))
            click.echo(wrap(_lesson(analysis, mm.Study(mm.data.star("math_two_mediators")))))
        _say_where(files, err=as_json)


@main.command(short_help="Estimate mediator effects: page, report, tables and figures.")
@with_roles
@click.option("--cov", "cov_type", type=click.Choice(get_args(CovType)),
              help="Covariance of the headline; without --estimator it means 2SLS.")  # fmt: skip
@click.option("--estimator", type=click.Choice(tuple(ESTIMATORS)),
              help="Estimator of the headline; default: by rule, from the sites and the strength.")  # fmt: skip
@click.option("--interval", type=click.Choice(get_args(Interval)),
              help="Confidence sets from standard errors (wald), or site scores (with --cov site).")  # fmt: skip
@click.option("--direct-effect", is_flag=True, help="Leave a direct effect of treatment free.")
@click.option(
    "--out", metavar="DIR", help="Folder for report, tables and figures; without it nothing is written."
)
@click.option("--title", help="Title of the report.")
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
@with_json
def analyze(
    file: str, cov_type: CovType | None, estimator: Method | None, interval: Interval | None, direct_effect: bool,
    out: str | None, title: str | None, quiet: bool, as_json: bool, missing: Missing | None, **roles: Any,
) -> None:  # fmt: skip
    """Analyse FILE: a file of persons, a glob or folder of several, or moments files.

    Moments files (written by Moments.save) carry their roles, so -y, -t, -m, -s and the other roles are
    left out; several are merged.

    \b
    msmmiv analyze trial.csv -y score -t treated -m hours -m dosage -s school --out results
    """  # noqa: D301 - click reads the control character
    if quiet and as_json:
        raise click.UsageError("--quiet and --json contradict each other: choose one.")
    with plain_words():
        if out:
            check_folder(out)
        study = study_of(file, roles, missing)
        analysis = study.analysis(
            title=title, estimator=estimator, cov_type=cov_type, direct_effect=direct_effect,
            interval=interval or "wald",
        )  # fmt: skip
        files = written(out, lambda folder: write_outputs(analysis, folder)) if out else {}
        if not quiet:
            click.echo(json_text(results_dict(analysis)) if as_json else summary_text(analysis), nl=False)
            _say_where(files, err=as_json)


@main.command(short_help="Report whether the sites can tell the mediators apart.")
@with_roles
@click.option("--direct-effect", is_flag=True, help="Ask also whether mediators differ from a direct effect.")
@click.option("--draws", type=int, default=999, show_default=True, help="Draws of noise alone.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of these draws.")
@click.option("--out", metavar="DIR", help="Folder for tables and figures; without it nothing is written.")
@with_json
def rank(
    file: str, direct_effect: bool, draws: int, seed: int, out: str | None, as_json: bool, missing: Missing | None,
    **roles: Any,
) -> None:  # fmt: skip
    """Report for FILE whether the sites can tell the mediators apart: assumption (viii).

    FILE and the roles are those of analyze; the outcome decides only which rows are used.

    \b
    msmmiv rank trial.csv -y score -t treated -m hours -m dosage -s school --out results
    """  # noqa: D301 - click reads the control character
    with plain_words():
        if out:
            check_folder(out)
        report = study_of(file, roles, missing).rank(direct_effect=direct_effect, draws=draws, seed=seed)
        if out:
            written(out, lambda folder: write_rank(report, folder))
        click.echo(json_text(rank_dict(report)) if as_json else rank_text(report), nl=False)
        if out:
            click.echo(f"\nTables and figures: {Path(out)}", err=as_json)


@main.command(short_help="Split the effect into what goes through mediators and past them.")
@with_roles
@with_table
@click.option("--method", type=click.Choice(get_args(BetweenMethod)),
              help="Estimator; default: structural REML with sets from the empirical-Bayes score.")  # fmt: skip
@click.option("--no-direct-effect", is_flag=True, help="Fix the direct effect at zero.")
@click.option("--shares", metavar="FILE_OR_COLUMN",
              help="Weights of sites in averages: a column, or a CSV file with columns site and share.")  # fmt: skip
@click.option("--level", type=float, default=0.95, show_default=True, help="Confidence level.")
@click.option("--draws", type=int, default=999, show_default=True, help="Draws of simulated critical values.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of these draws.")
@click.option(
    "--out", metavar="DIR", help="Folder for page, tables and figures; without it nothing is written."
)
@with_json
def decompose(
    file: str, method: BetweenMethod | None, no_direct_effect: bool, shares: str | None, level: float, draws: int,
    seed: int, out: str | None, as_json: bool, missing: Missing | None, **given: Any,
) -> None:  # fmt: skip
    """Split the effect of the treatment in FILE into what goes through mediators and what goes past them.

    FILE is a CSV table of published estimates, one row per site; or, with the roles -y, -t, -m and -s, a file of
    persons as in analyze; or moments files, of which -m selects mediators. Columns of a table that are called
    site, itt, itt_se, compliance, compliance_se and cov (for several mediators compliance_NAME,
    compliance_NAME_se and cov_NAME) are recognised.

    \b
    msmmiv decompose published.csv --itt tau --itt-se tau_se --compliance gamma --compliance-se gamma_se
    msmmiv decompose trial.csv -y score -t treated -m hours -s school --out results
    """  # noqa: D301 - click reads the control character
    with plain_words():
        if out:
            check_folder(out)
        source, mediators, table = source_of(file, given, missing)
        found = mm.decompose(
            source.moments if isinstance(source, mm.Study) else source, method, mediators=mediators,
            direct_effect=not no_direct_effect, shares=shares_of(shares, source, table, site=given["site"]),
            level=level, draws=draws, seed=seed,
        )  # fmt: skip
        if out:
            written(out, lambda folder: write_decomposition(found, folder))
        if as_json:
            click.echo(json_text(decomposition_dict(found, decomposition_frames(found))), nl=False)
        else:
            click.echo(decomposition_text(found), nl=False)
        if out:
            page = Path(out) / "decomposition.html"
            click.echo(f"\nPage: {page}\nTables and figures: {Path(out)}", err=as_json)


@main.command(short_help="Audit the nine assumptions: what data say, and what must be argued.")
@with_roles
@with_table
@click.option("--argue", "arguments", metavar="NUMBER=TEXT", multiple=True,
              help="Your argument, as in --argue 'ii=Nothing else came with it.'; repeat.")  # fmt: skip
@click.option("--edge", "edges", metavar="'A -> B'", multiple=True,
              help="Edge to add to the graph of parallel mediators; repeat.")  # fmt: skip
@click.option("--without", metavar="'A -> B'", multiple=True,
              help="Edge to take out of it, as in --without 'offer -> poverty'; repeat.")  # fmt: skip
@click.option("--site-covariates", metavar="FILE", help="CSV file with the site column and numeric columns.")
@click.option("--planned-share", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              help="Planned share treated, the same in all sites.")  # fmt: skip
@click.option("--draws", type=int, default=999, show_default=True,
              help="Draws of simulated null distributions; 199 or more.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of these draws.")
@click.option("--out", metavar="DIR", help="Folder for page, checklist, tables and figures.")
@click.option(
    "--fail-on", type=click.Choice(["contradicted"]), help="Exit with 1 if a finding has this status."
)
@with_json
def audit(
    file: str, *, arguments: tuple[str, ...], edges: tuple[str, ...], without: tuple[str, ...],
    site_covariates: str | None, planned_share: float | None, draws: int, seed: int, out: str | None,
    fail_on: str | None, as_json: bool, missing: Missing | None, **given: Any,
) -> None:  # fmt: skip
    """Audit the nine assumptions for FILE: what design and data say, and what only an argument can carry.

    FILE is a file of persons with its roles, as in analyze, a moments file, or a table of published estimates, as in
    decompose. Covariates (-x) are tested for balance. Exits with 0 whatever is found, unless --fail-on says otherwise.

    \b
    msmmiv audit trial.csv -y score -t treated -m hours -s school -x age --argue "ii=Staff saw no one else." --out audit
    """  # noqa: D301 - click reads the control character
    with plain_words():
        if out:
            check_folder(out)
        source, mediators, _ = source_of(file, given, missing)
        if mediators:
            raise click.UsageError("Leave out -m: an audit is about all mediators of the moments.")
        found = audited(
            source, arguments=arguments_of(arguments), edges=edges, without=without,
            site_covariates=site_covariates, planned_shares=planned_share, draws=draws, seed=seed,
        )  # fmt: skip
        files = written(out, lambda folder: write_audit(found, folder)) if out else {}
        click.echo(found.to_json() if as_json else printable(found.summary), nl=False)
        if out:
            click.echo(f"\nPage: {files['page']}\nChecklist, tables and figures: {Path(out)}", err=as_json)
    if fail_on and found.having(fail_on):
        raise SystemExit(1)


@main.command(name="checklist", short_help="Write the nine assumptions as a checklist.")
@click.argument("file")
@click.option("--estimand", type=click.Choice(get_args(Estimand)), default="ate", show_default=True,
              help="Average effects, or effects among compliers.")  # fmt: skip
@click.option("--field", type=click.Choice(get_args(ResearchField)), help="Show prompts of one field only.")
def checklist_command(file: str, estimand: Estimand, field: ResearchField | None) -> None:
    """Write the nine assumptions as a checklist to FILE: HTML to print (.html), or Markdown (.md).

    \b
    msmmiv checklist assumptions.html --field education
    """  # noqa: D301 - click reads the control character
    with whole_file(file) as path:
        write_checklist(path, estimand=estimand, field=field)
    click.echo(f"Checklist: {Path(file)}")


def _lesson(one: Analysis, two: mm.Study) -> str:
    """What the demonstration shows, from its own numbers."""
    name, fit = "class_size", one.headline
    bounds, second = fit.confidence_set(name), two.fit()
    low, high = bounds.hull
    free = next(f for f in one.fits if f.direct_effect and f.method == fit.method)
    wider = float(free.std_errors[name] / fit.std_errors[name])
    smaller = -float(one.effects.compliance[name].mean())
    unbounded = not second.confidence_set("tch_exp").is_bounded
    first_f, second_f = _f(one.rank), _f(two.rank())
    return (
        f"What this shows: small classes had {smaller:.1f} pupils fewer on average, and if class size is the only "
        f"path, one pupil more goes with {number(-float(fit.params[name]))} points of mathematics less (95% interval "
        f"{number(-high)} to {number(-low)}). Leaving a direct effect free makes that standard error "
        f"{number(wider, 2)} times as large. Adding the teacher's experience as a second mediator "
        f'(mm.data.star("math_two_mediators")) asks too much of these sites: with classes as rows the first-stage F '
        f"in the weakest direction falls from {number(first_f, 3)} to {number(second_f, 2)}"
        f"{', no more than noise alone gives' if second_f <= 1 else ''}"
        + (
            f"; {'there is no point estimate, and ' if second.status else ''}the data do not bound the effect of "
            "experience."
            if unbounded
            else "."
        )
    )


def _f(report: mm.RankReport) -> float:
    value = report.cluster_level
    return value if isinstance(value, float) else float("nan")


def _say_where(files: dict[str, Path], *, err: bool) -> None:
    if files:
        folder = files["report"].parent
        click.echo(f"\nReport: {files['report']}\nTables and figures: {folder}", err=err)


if __name__ == "__main__":
    main()

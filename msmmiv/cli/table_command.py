"""`msmmiv table`: the instrumental-variables table of a paper, printed or written."""

from __future__ import annotations

from typing import Any, get_args

import click

from msmmiv.audit.json_values import json_text
from msmmiv.cli.commands import main
from msmmiv.cli.options import plain_words, with_json, with_roles
from msmmiv.cli.sources import study_of
from msmmiv.files import write_whole
from msmmiv.inference.covariance import CovType
from msmmiv.moments.cells import Missing
from msmmiv.show.formats import TableFormat, as_bytes, format_of, to_html
from msmmiv.show.iv_table import study_table

__all__ = ["table"]


@main.command(name="table", short_help="Print or write the instrumental-variables table of a paper.")
@with_roles
@click.option("--format", "format_", type=click.Choice(get_args(TableFormat)),
              help="Default: what the ending of --out says, or markdown.")  # fmt: skip
@click.option("--out", metavar="FILE", help="File to write (.tex, .html, .md, .csv, .docx); default: print.")
@click.option("--cov", "cov_type", type=click.Choice(get_args(CovType)),
              help="Covariance of all estimators; default: what the rule of analyze chooses.")  # fmt: skip
@click.option("--direct-effect", is_flag=True, help="Leave a direct effect of treatment free.")
@click.option("--covariates", "show_covariates", is_flag=True, help="Show coefficients of covariates too.")
@click.option("--stars", is_flag=True, help="Mark p below .1, .05 and .01; by default nothing is marked.")
@click.option("--title", default="", help="Caption of the table.")
@with_json
def table(
    file: str, format_: TableFormat | None, out: str | None, cov_type: CovType | None, direct_effect: bool,
    show_covariates: bool, stars: bool, title: str, as_json: bool, missing: Missing | None, **roles: Any,
) -> None:  # fmt: skip
    """Put OLS, reduced form, first stages, 2SLS, LIML and UJIVE for FILE side by side.

    FILE and the roles are those of analyze. Standard errors stand in round brackets, 95% confidence sets in square
    ones; below are strength, rank, over-identification and the sample.

    \b
    msmmiv table trial.csv -y score -t treated -m hours -s school --out table1.tex
    """  # noqa: D301 - click reads the control character
    if as_json and format_ and not out:
        raise click.UsageError(f"--json and --format {format_} contradict each other: choose one.")
    with plain_words():
        chosen = _format(format_, out)
        found = study_table(
            study_of(file, roles, missing), cov_type=cov_type, direct_effect=direct_effect,
            covariates=show_covariates, stars=(0.1, 0.05, 0.01) if stars else (), title=title,
        )  # fmt: skip
        if out:
            click.echo(f"Table: {write_whole(out, as_bytes(found.sheet, chosen))}", err=as_json)
        if as_json:
            numbers = found.tidy().to_dict("records")
            click.echo(json_text({"numbers": numbers, "notes": found.notes}), nl=False)
        elif out:
            return
        elif chosen == "html":
            click.echo(to_html(found.sheet), nl=False)
        else:
            click.echo(as_bytes(found.sheet, chosen).decode("utf-8"), nl=False)


def _format(given: TableFormat | None, out: str | None) -> TableFormat:
    """The format that was asked for, by name, by ending, or by both if they agree."""
    if out is None:
        if given == "docx":
            raise click.UsageError(
                "A Word file cannot be printed: name it with --out, such as --out table.docx."
            )
        return given or "markdown"
    by_ending = format_of(out)
    if given not in (None, by_ending):
        raise click.UsageError(
            f"--format {given} and the ending of {out!r} ({by_ending}) contradict each other."
        )
    return by_ending

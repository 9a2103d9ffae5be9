"""Options that several commands share, and warnings in plain words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

import click

from msmmiv.cli.group import in_option_words
from msmmiv.design import Estimand, TreatmentKind, WeightKind
from msmmiv.errors import MsmmivWarning
from msmmiv.moments.cells import Missing
from msmmiv.show.words import one_line

__all__ = ["TABLE_COLUMNS", "plain_words", "with_json", "with_roles", "with_table"]

F = TypeVar("F", bound=Callable[..., Any])

#: Where the data are and which column is which: every command that reads data takes these.
_ROLES: tuple[Callable[[Any], Any], ...] = (
    click.argument("file"),
    click.option("-y", "--outcome", metavar="COLUMN", help="Outcome."),
    click.option("-t", "--treatment", metavar="COLUMN", help="Treatment, randomised inside sites."),
    click.option(
        "-m", "--mediator", "mediators", metavar="COLUMN", multiple=True, help="Mediator; repeat for several."
    ),
    click.option("-s", "--site", metavar="COLUMN", help="Site."),
    click.option("-x", "--covariate", "covariates", metavar="COLUMN", multiple=True,
                  help="Covariate fixed before treatment; repeat for several."),
    click.option("--cluster", metavar="COLUMN", help="Group inside sites for clustered standard errors."),
    click.option("--block", metavar="COLUMN", help="Randomisation block inside sites."),
    click.option("--weights", metavar="COLUMN", help="Weights; needs --weight-kind."),
    click.option("--weight-kind", type=click.Choice(get_args(WeightKind)), help="What the weights mean."),
    click.option("--control", metavar="LABEL", help="Reference arm; tried as a number first, then as text."),
    click.option(
        "--treatment-kind", type=click.Choice(get_args(TreatmentKind)), help="Arms (default) or a dose."
    ),
    click.option("--estimand", type=click.Choice(get_args(Estimand)),
                  help="Average effects (default) or effects among compliers."),
    click.option("--missing", type=click.Choice(get_args(Missing)),
                  help="Rows without site or arm: an error (default), or left out."),
    click.option("--memory-limit", metavar="SIZE",
                  help="Memory for reading CSV and Parquet, such as 4GB; what does not fit is spilled to disk."),
)  # fmt: skip

#: Columns of a table of published estimates; ``site`` is a role of persons too.
_TABLE: tuple[Callable[[Any], Any], ...] = (
    click.option("--itt", metavar="COLUMN", help="Table: effect on the outcome."),
    click.option("--itt-se", metavar="COLUMN", help="Table: its standard error."),
    click.option(
        "--compliance",
        metavar="COLUMN",
        multiple=True,
        help="Table: effect on a mediator; repeat for several.",
    ),
    click.option(
        "--compliance-se", metavar="COLUMN", multiple=True, help="Table: its standard error; repeat likewise."
    ),
    click.option(
        "--cov", metavar="COLUMN", multiple=True, help="Table: Cov(itt, compliance); repeat likewise."
    ),
)
TABLE_COLUMNS = ("itt", "itt_se", "compliance", "compliance_se", "cov")


def with_table(command: F) -> F:
    """Give a command the options that name the columns of a table of published estimates."""
    for option in reversed(_TABLE):
        command = option(command)
    return command


def with_roles(command: F) -> F:
    """Give a command the argument FILE and the options of the roles, in the order of the help."""
    for option in reversed(_ROLES):
        command = option(command)
    return command


#: One document instead of the page; warnings and messages still go to stderr.
with_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else; messages go to stderr."
)


@contextmanager
def plain_words() -> Iterator[None]:
    """Warnings of ours as sentences on stderr, each once; how refusals are said is up to `KindGroup`."""
    said: set[str] = set()

    def say(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        text = in_option_words(one_line(message))
        if not issubclass(category, MsmmivWarning):
            default(message, category, *rest, **named)
        elif text not in said:  # every fit of one analysis would say it again
            said.add(text)
            click.echo(f"Warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", MsmmivWarning)
        default, warnings.showwarning = warnings.showwarning, say
        yield

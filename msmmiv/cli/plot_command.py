"""``msmmiv plot``: one figure of a study as a file."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import click

from msmmiv.cli.commands import main
from msmmiv.cli.options import plain_words, with_roles
from msmmiv.cli.sources import study_of
from msmmiv.errors import check_choice
from msmmiv.estimate import ESTIMATORS
from msmmiv.moments.cells import Missing
from msmmiv.show.plots.accessor import FigureName, StudyPlots, figure_names
from msmmiv.show.plots.picture import check_ending
from msmmiv.show.plots.sheet import Width
from msmmiv.show.words import printable

__all__ = ["plot"]


def _list(context: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print the figures and leave."""
    if asked and not context.resilient_parsing:
        for name, what in figure_names().items():
            click.echo(f"{name:<19} {what}")
        context.exit()


@main.command()
@click.argument("name")
@with_roles
@click.option("--out", metavar="FILE", required=True, help="File to write: .png, .svg or .pdf by its ending.")
@click.option("--width", type=click.Choice(get_args(Width)), default="page", show_default=True,
              help="As wide as a page (7 in) or a column (3.4 in) of a journal.")  # fmt: skip
@click.option("--dpi", type=click.IntRange(min=10), default=300, show_default=True, help="Dots per inch.")
@click.option("--estimator", type=click.Choice(tuple(ESTIMATORS)),
              help="Estimator of scatter, leave_one_out and weights.")  # fmt: skip
@click.option("--direct-effect", is_flag=True, help="Leave a direct effect of treatment free.")
@click.option("--panel", metavar="COLUMN", help="The mediator to show, in figures that show one of several.")
@click.option("--list", "listed", is_flag=True, is_eager=True, expose_value=False, callback=_list,
              help="List the figures and leave.")  # fmt: skip
def plot(
    name: str, file: str, out: str, width: Width, dpi: int, estimator: str | None, *, direct_effect: bool,
    panel: str | None, missing: Missing | None, **roles: Any,
) -> None:  # fmt: skip
    """Draw the figure NAME of FILE and write it to one file; `msmmiv plot --list` names the figures.

    FILE and the roles are those of analyze. The caption is printed.

    \b
    msmmiv plot forest trial.csv -y score -t treated -m hours -s school --out forest.pdf
    msmmiv plot scatter moments.csv --width column --out scatter.png
    """  # noqa: D301 - click reads the control character
    with plain_words():
        check_choice(name, FigureName, "name")
        check_ending(out)
        options = _options(name, estimator=estimator, direct_effect=direct_effect or None, mediator=panel)
        plots = StudyPlots(study_of(file, roles, missing), width)
        picture = plots.draw(name, **options)  # type: ignore[arg-type] # checked above
        written = picture.savefig(out, dpi=dpi)
        click.echo(printable(picture.caption))
        click.echo(f"\nFigure: {written}")


def _options(name: str, **given: Any) -> dict[str, Any]:
    """The options that were given, which the figure must know: none is accepted and ignored."""
    flags = {"mediator": "--panel"}
    known = inspect.signature(getattr(StudyPlots, name)).parameters
    chosen = {key: value for key, value in given.items() if value is not None}
    for key in chosen:
        # A decomposition has options of its own and frees the direct effect anyway.
        if key not in known:
            flag = flags.get(key, f"--{key.replace('_', '-')}")
            raise click.UsageError(f"{flag} has no meaning for the figure {name!r}; leave it out.")
    return chosen

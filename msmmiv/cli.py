"""The command line: a thin skin over `Study`, `Study.analysis`, `Study.rank` and the files they leave."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

import msmmiv as mm
from msmmiv.design import Estimand, TreatmentKind, WeightKind
from msmmiv.errors import MsmmivError, MsmmivWarning, TreatmentError, listing
from msmmiv.estimate import ESTIMATORS, Method
from msmmiv.estimate.between.methods import BetweenMethod
from msmmiv.inference.covariance import CovType
from msmmiv.inference.results import Interval
from msmmiv.moments.cells import Missing
from msmmiv.moments.published import guess_columns, read_shares, read_table, table_shares
from msmmiv.show.analysis import Analysis
from msmmiv.show.decomposition_tables import decomposition_text
from msmmiv.show.outputs import check_folder, write_decomposition, write_outputs, write_rank
from msmmiv.show.summary import rank_text, summary_text, wrap
from msmmiv.show.words import number, one_line

__all__ = ["main"]

_HEADER = b'# {"format": "msmmiv-moments'
_FOOTER = b'"format": "msmmiv-moments'

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
)  # fmt: skip


def _with_roles(command: F) -> F:
    """Give a command the argument FILE and the options of the roles, in the order of the help."""
    for option in reversed(_ROLES):
        command = option(command)
    return command


@contextmanager
def _plain_words() -> Iterator[None]:
    """Refusals and warnings as sentences on stderr; anything else is a bug and keeps its traceback."""
    said: set[str] = set()

    def say(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        text = one_line(message)
        if not issubclass(category, MsmmivWarning):
            default(message, category, *rest, **named)
        elif text not in said:  # every fit of one analysis would say it again
            said.add(text)
            click.echo(f"Warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", MsmmivWarning)
        default, warnings.showwarning = warnings.showwarning, say
        try:
            yield
        except MsmmivError as error:
            click.echo(f"Error: {one_line(error)}", err=True)
            raise SystemExit(2) from error


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "terminal_width": 100}
)
@click.version_option(mm.__version__, package_name="msmmiv", prog_name="msmmiv")
def main() -> None:
    """Effects of several mediators from a multisite trial, with site-by-treatment instruments."""


@main.command()
@click.option(
    "--out", default="msmmiv-demo", show_default=True, help="Folder for report, tables and figures."
)
def demo(out: str) -> None:
    """Analyse the packaged trial (Tennessee's class sizes) and write a report."""
    with _plain_words():
        check_folder(out)
        analysis = mm.Study(mm.data.star()).analysis(
            title="Class size and mathematics: Project STAR, kindergarten"
        )
        files = write_outputs(analysis, out)
        click.echo(summary_text(analysis))
        click.echo(wrap(_lesson(analysis, mm.Study(mm.data.star("math_two_mediators")))))
        _say_where(files)


@main.command()
@_with_roles
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
def analyze(
    file: str, cov_type: CovType | None, estimator: Method | None, interval: Interval | None, direct_effect: bool,
    out: str | None, title: str | None, quiet: bool, missing: Missing | None, **roles: Any,
) -> None:  # fmt: skip
    """Analyse FILE: a CSV or Parquet file of persons, a glob of several, or moments files.

    Moments files (written by Moments.save) carry their roles, so -y, -t, -m, -s and the other roles are
    left out; several are merged.

    \b
    msmmiv analyze trial.csv -y score -t treated -m hours -m dosage -s school --out results
    """  # noqa: D301 - click reads the control character
    with _plain_words():
        if out:
            check_folder(out)
        study = _study(file, roles, missing)
        analysis = study.analysis(
            title=title, estimator=estimator, cov_type=cov_type, direct_effect=direct_effect,
            interval=interval or "wald",
        )  # fmt: skip
        files = write_outputs(analysis, out) if out else {}
        if not quiet:
            click.echo(summary_text(analysis), nl=False)
            _say_where(files)


@main.command()
@_with_roles
@click.option("--direct-effect", is_flag=True, help="Ask also whether mediators differ from a direct effect.")
@click.option("--draws", type=int, default=999, show_default=True, help="Draws of noise alone.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of these draws.")
@click.option("--out", metavar="DIR", help="Folder for tables and figures; without it nothing is written.")
def rank(
    file: str,
    direct_effect: bool,
    draws: int,
    seed: int,
    out: str | None,
    missing: Missing | None,
    **roles: Any,
) -> None:
    """Report for FILE whether the sites can tell the mediators apart: assumption (viii).

    FILE and the roles are those of analyze; the outcome decides only which rows are used.

    \b
    msmmiv rank trial.csv -y score -t treated -m hours -m dosage -s school --out results
    """  # noqa: D301 - click reads the control character
    with _plain_words():
        if out:
            check_folder(out)
        report = _study(file, roles, missing).rank(direct_effect=direct_effect, draws=draws, seed=seed)
        if out:
            write_rank(report, out)
        click.echo(rank_text(report), nl=False)
        if out:
            click.echo(f"\nTables and figures: {Path(out)}")


@main.command()
@_with_roles
@click.option("--itt", metavar="COLUMN", help="Table: effect on the outcome.")
@click.option("--itt-se", metavar="COLUMN", help="Table: its standard error.")
@click.option(
    "--compliance", metavar="COLUMN", multiple=True, help="Table: effect on a mediator; repeat for several."
)
@click.option(
    "--compliance-se", metavar="COLUMN", multiple=True, help="Table: its standard error; repeat likewise."
)
@click.option("--cov", metavar="COLUMN", multiple=True, help="Table: Cov(itt, compliance); repeat likewise.")
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
def decompose(
    file: str, method: BetweenMethod | None, no_direct_effect: bool, shares: str | None, level: float, draws: int,
    seed: int, out: str | None, missing: Missing | None, **given: Any,
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
    with _plain_words():
        if out:
            check_folder(out)
        source, mediators, weights = _source(file, given, missing, shares)
        found = mm.decompose(
            source, method, mediators=mediators, direct_effect=not no_direct_effect, shares=weights, level=level,
            draws=draws, seed=seed,
        )  # fmt: skip
        if out:
            write_decomposition(found, out)
        click.echo(decomposition_text(found), nl=False)
        if out:
            click.echo(f"\nPage: {Path(out) / 'decomposition.html'}\nTables and figures: {Path(out)}")


#: Options of a table of published estimates; ``site`` is a role of persons too.
_TABLE = ("itt", "itt_se", "compliance", "compliance_se", "cov")


def _source(
    file: str, given: dict[str, Any], missing: Missing | None, shares: str | None
) -> tuple[mm.Moments | mm.SiteEffects, list[str] | None, Any]:
    """What is decomposed, the mediators that were selected, and the shares: from moments, persons or a table."""
    columns = {k: given.pop(k) for k in _TABLE}
    roles = {k: v for k, v in given.items() if v not in (None, ())}
    options = [f"--{k.replace('_', '-')}" for k, v in columns.items() if v not in (None, ())]
    paths = sorted(glob.glob(file)) if glob.has_magic(file) else [file]  # noqa: PTH207 - absolute patterns too
    moments = any(_is_moments(Path(p)) for p in paths)
    if moments or set(roles) - {"site"}:
        if options:
            kind = "these are moments" if moments else "-y, -t and -m are about persons"
            raise click.UsageError(f"Leave out {listing(options)}, columns of a table of estimates: {kind}.")
        selected = list(roles.pop("mediators", ())) if moments else None
        source = _study(file, roles if moments else given, missing).moments
        site = None if moments else given["site"]
        return source, selected or None, read_shares(shares, source.sites, site=site) if shares else None
    if missing is not None:
        raise click.UsageError("--missing is for persons; a table has one row per site.")
    table = read_table(file, given["site"])
    found = guess_columns([str(c) for c in table], site=given["site"], **columns)
    effects = mm.SiteEffects.from_table(table, **found)
    return effects, None, table_shares(table, shares, effects.sites, site=given["site"]) if shares else None


def _study(file: str, given: dict[str, Any], missing: Missing | None) -> mm.Study:
    roles = {k: v for k, v in given.items() if v not in (None, ())}
    paths = sorted(glob.glob(file)) if glob.has_magic(file) else [file]  # noqa: PTH207 - absolute patterns too
    kinds = {_is_moments(Path(p)) for p in paths}
    if kinds == {True}:
        if extra := [*roles, *["missing"] * (missing is not None)]:
            raise click.UsageError(
                f"{file!r} holds moments, which carry their own roles; leave out the options for {listing(extra)}."
            )
        return mm.Study(mm.Moments.load(*paths))
    if kinds == {True, False}:
        raise click.UsageError(f"{file!r} matches moments files and other files; analyse them apart.")
    needed = {"outcome": "-y", "treatment": "-t", "mediators": "-m", "site": "-s"}
    absent = [f"{option} ({name.removesuffix('s')})" for name, option in needed.items() if name not in roles]
    if absent:
        raise click.UsageError(f"Say which column is which: {', '.join(absent)} missing.")
    labels = _labels(roles.pop("control", None))

    def read(control: Any) -> mm.Study:
        return mm.Study(file, mm.Design(**roles, control=control), missing=missing or "error")

    try:
        return read(labels[0])
    except TreatmentError:
        for other in labels[1:]:
            with suppress(TreatmentError):
                return read(other)
        raise


def _labels(text: str | None) -> list[Any]:
    """What the reference arm may be called in the file, likelier first: the shell gives text only.

    >>> _labels("2"), _labels("no"), _labels("placebo"), _labels(None)
    ([2, '2'], ['no', False], ['placebo'], [None])
    """
    if text is None:
        return [None]
    for kind in (int, float):
        with suppress(ValueError):
            return [kind(text), text]
    word = {"no": False, "false": False, "yes": True, "true": True}.get(text.casefold())
    return [text] if word is None else [text, word]


def _is_moments(path: Path) -> bool:
    """Whether a file is one that `Moments.save` wrote, without reading it all."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if path.suffix.lower() == ".csv":
            return file.read(len(_HEADER)) == _HEADER
        size = path.stat().st_size
        if path.suffix.lower() != ".parquet" or size < 12:
            return False
        # A Parquet file ends with its metadata, their length, and a mark.
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return _FOOTER in file.read(length)


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


def _say_where(files: dict[str, Path]) -> None:
    if files:
        folder = files["report"].parent
        click.echo(f"\nReport: {files['report']}\nTables and figures: {folder}")


if __name__ == "__main__":
    main()

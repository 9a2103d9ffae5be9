"""The commands about study files: begin one, run it, and check what has changed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from msmmiv.audit.json_values import json_text
from msmmiv.cli.commands import main
from msmmiv.cli.options import plain_words, with_json, with_roles
from msmmiv.document.begin import StudyDraft, init_study
from msmmiv.document.checking import check_study
from msmmiv.document.guessing import Candidate
from msmmiv.document.running import run_study
from msmmiv.document.toml_text import toml_value
from msmmiv.errors import listing
from msmmiv.moments.cells import Missing
from msmmiv.moments.data_file import DataFile
from msmmiv.show.summary import summary_text
from msmmiv.show.words import printable

__all__ = ["init", "run"]

_SHOWN = 8


@main.command(short_help="Begin a study file by looking at the columns of the data.")
@with_roles
@click.option(
    "--out", default="study.toml", show_default=True, metavar="STUDY", help="The study file to write."
)
@click.option("--force", is_flag=True, help="Overwrite a study file that is there.")
def init(file: str, *, out: str, force: bool, missing: Missing | None, **roles: Any) -> None:
    """Begin a study file for FILE: every role is guessed with its reason, asked for, or left open.

    Roles given as options are taken as they are. On a terminal, what is not clear is asked; otherwise it is written
    into the study file as candidates in comments, of which you take one.

    \b
    msmmiv init trial.csv
    msmmiv init trial.csv -y score -m hours --out study.toml && msmmiv run study.toml
    """  # noqa: D301 - click reads the control character
    with plain_words():
        path = Path(out)
        if path.exists() and not force:
            raise click.UsageError(
                f"{out!r} is there already. Choose another name, or overwrite it with --force."
            )
        data = DataFile((file,), memory_limit=roles.pop("memory_limit"))
        draft = init_study(data, path=path, ask=_ask if _on_terminal() else None, missing=missing, **roles)
        draft.write(force=force)
        click.echo(printable(_told(draft)))


@main.command(short_help="Run a study file: analysis, audit, report, tables and figures.")
@click.argument("study")
@click.option("--out", metavar="DIR", help="Folder for the results; by default what the study file says.")
@click.option("--check", is_flag=True,
              help="Write nothing; list what differs from the earlier run; exit with 1 if anything does.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
@with_json
def run(study: str, *, out: str | None, check: bool, quiet: bool, as_json: bool) -> None:
    """Run STUDY, a study file: everything it asks for, stamped with hashes of the file and of the data.

    \b
    msmmiv run study.toml
    msmmiv run study.toml --check
    """  # noqa: D301 - click reads the control character
    if quiet and as_json:
        raise click.UsageError("--quiet and --json contradict each other: choose one.")
    progress = sys.stderr.isatty() and not quiet
    with plain_words():
        if check:
            found = check_study(study, out=out, progress=progress)
            if as_json:
                click.echo(json_text(asdict(found) | {"folder": str(found.folder)}), nl=False)
            elif not quiet:
                click.echo(printable(str(found)))
            if found.changes:
                raise SystemExit(1)
            return
        done = run_study(study, out=out, progress=progress)
        if as_json:
            click.echo(done.files["results"].read_text(encoding="utf-8"), nl=False)
        elif not quiet:
            click.echo(summary_text(done.analysis), nl=False)
        if not quiet:
            where = f"\nReport: {done.files['report']}\nAudit: {done.files['audit/page']}"
            click.echo(f"{where}\nTables and figures: {done.folder}", err=as_json)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _told(draft: StudyDraft) -> str:
    """What was found, and what to do next."""
    again = f"msmmiv run {shlex.quote(str(draft.path))}"
    lines = [str(draft), "", f"Study file: {draft.path}"]
    if draft.open_roles:
        lines.append(
            f"Open: {listing(draft.open_roles)}. Take one of the candidates in the file, then: {again}"
        )
    else:
        lines.append(f"Read it, correct it, then: {again}")
    return "\n".join(lines)


def _ask(role: str, candidates: Sequence[Candidate], names: Sequence[str]) -> tuple[str, ...]:
    """Ask for a role until the answer is one of the names, a number in the list, or nothing."""
    asked = {"control": "Which arm is the reference?", "mediators": "Which columns are the mediators?"}
    click.echo(f"\n{asked.get(role, f'Which column is the {role}?')}", err=True)
    for i, c in enumerate(candidates[:_SHOWN], 1):
        click.echo(printable(f"  {i}. {toml_value(c.value)}: {c.reason}"), err=True)
    several = " (several: separate them by commas)" if role == "mediators" else ""
    while True:
        said = click.prompt(
            f"Number or name{several}, Enter to leave it open", default="", show_default=False, err=True
        )
        parts = [said] if said in names else [p.strip() for p in said.split(",") if p.strip()]
        listed = {str(i): str(c.value) for i, c in enumerate(candidates[:_SHOWN], 1)}
        found = tuple(p if p in names else listed.get(p, "") for p in parts)
        if all(found) and (len(found) < 2 or role == "mediators"):
            return found
        click.echo(printable(f"{said!r} is not one of the columns."), err=True)

"""How commands end: one line on stderr when something is wrong, and an exit code that says what kind."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

import click

from msmmiv.document.phrases import keywords
from msmmiv.errors import MsmmivError, listing
from msmmiv.show.words import one_line

__all__ = ["BUG", "CLOSED", "REFUSED", "STOPPED", "KindCommand", "KindGroup", "debugging", "in_option_words"]

#: Exit codes, besides 0 (done) and 1 (what --fail-on and --check ask about was found).
REFUSED: Final = 2
BUG: Final = 70
STOPPED: Final = 130
CLOSED: Final = 141

_KEY: Final = "msmmiv.debug"
#: Keywords that have an option, and its name.
_OPTIONS: Final = {
    name: {"cov_type": "cov"}.get(name, name.replace("_", "-"))
    for name in ("missing", "weights", "weight_kind", "treatment_kind", "control", "estimand", "cluster", "block",
                 "estimator", "cov_type", "interval", "direct_effect", "min_cell", "small_cells", "shared_sites",
                 "equal_cells", "memory_limit")
}  # fmt: skip
_KEYWORD: Final = keywords(_OPTIONS)
#: The order of the path, not of the alphabet; commands that are not named here come last.
_ORDER: Final = (
    "demo", "init", "run", "analyze", "audit", "decompose", "rank", "moments", "plot", "table", "checklist", "version",
)  # fmt: skip


class _Said(click.ClickException):
    """A refusal that is one line long."""

    exit_code = REFUSED

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file or sys.stderr)


class _Bug(_Said):
    """What nobody foresaw."""

    exit_code = BUG


class _Stopped(_Said):
    """Ctrl-C, or the end of the input in the middle of a question."""

    exit_code = STOPPED


def in_option_words(message: object) -> str:
    """A message in one line, Python's keywords as options of the commands.

    >>> in_option_words('Fill them in, or pass missing="drop" to leave those rows out.')
    'Fill them in, or pass --missing drop to leave those rows out.'
    >>> in_option_words("weights='w' needs weight_kind=: analytic, frequency or probability")
    '--weights w needs --weight-kind: analytic, frequency or probability'
    """
    return _KEYWORD.sub(_option, " ".join(str(message).split()))


def _option(found: re.Match[str]) -> str:
    option = f"--{_OPTIONS[found[1]]}"
    value = "" if found[2] == "True" else found[2].strip("'\"")
    return f"{option} {shlex.quote(value) if value != '...' else value}" if value else option


def debugging() -> bool:
    """Whether the environment asks for tracebacks (MSMMIV_DEBUG, neither empty nor 0)."""
    return os.environ.get("MSMMIV_DEBUG", "0") not in ("", "0")


def _remember(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_KEY] = True


_DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, is_eager=True, callback=_remember,
    help="Show the traceback of an error; so does MSMMIV_DEBUG=1.",
)  # fmt: skip


class KindCommand(click.Command):
    """A command that knows --debug."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first clause of the help, never cut in the middle."""
        text = super().get_short_help_str(max(limit, 1000)).partition("; ")[0]
        return text if text.endswith(".") else f"{text}."

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, --debug, and --help."""
        *own, last = super().get_params(ctx)
        return [*own, _DEBUG, last]


class KindGroup(click.Group):
    """Commands in the order of the path, with refusals in one line."""

    command_class = KindCommand
    group_class = type

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The group's own options, --debug, and --help."""
        *own, last = super().get_params(ctx)
        return [*own, _DEBUG, last]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names as the help lists them."""
        place = {name: i for i, name in enumerate(_ORDER)}
        return sorted(self.commands, key=lambda name: place.get(name, len(place)))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or a refusal that names the ones near it."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=2, cutoff=0.6)
            hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(
                f"There is no command {name!r}. {hint or f'Commands are {listing(self.list_commands(ctx), most=20)}.'}"
            )
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the words before the command."""
        with _kindly(debug="--debug" in args):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever goes wrong ends in one line."""
        with _kindly(meta=ctx.meta):
            return super().invoke(ctx)


@contextmanager
def _kindly(*, debug: bool = False, meta: dict[str, Any] | None = None) -> Iterator[None]:
    """Turn every exception into a line and an exit code."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # a full disk or a closed pipe is told here, not by the interpreter as it ends
    except (_Said, click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        raise
    except BrokenPipeError as error:
        _stop_writing()
        raise click.exceptions.Exit(CLOSED) from error
    except (Exception, KeyboardInterrupt) as error:
        if debug or debugging() or (meta or {}).get(_KEY):
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        raise _said(error) from error


def _said(error: BaseException) -> _Said:
    """The line for an exception; what nobody foresaw is a bug."""
    if isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        return _Stopped("Stopped. Nothing half-written is left behind.")
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        how = f" (see {context.command_path} --help)" if context else ""
        return _Said(f"Error: {error.format_message()}{how}")
    if isinstance(error, MsmmivError):
        return _Said(f"Error: {in_option_words(error)}")
    if isinstance(error, OSError):
        named = f": {error.filename!r}" if error.filename else ""
        return _Said(f"Error: {error.strerror or error}{named}.")
    if isinstance(error, MemoryError):
        return _Said("Error: there is not enough memory for this.")
    kind = f"{type(error).__name__}: {error}".rstrip(": .")
    bug = "This is a bug of msmmiv; please report it with what --debug (or MSMMIV_DEBUG=1) shows."
    return _Bug(f"Error: {kind}. {bug}")


def _stop_writing() -> None:
    """Nobody reads on: what is still in the buffer goes nowhere, so that the interpreter ends in silence."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

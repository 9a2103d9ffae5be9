"""How commands end: one line, an exit code, no traceback unless asked for, nothing half-written."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import msmmiv as mm
from msmmiv.cli import commands, main
from msmmiv.cli.group import KindGroup
from msmmiv.errors import DataError
from tests.show.helpers import HOSTILE, design, trial

ROLES = ["-y", "y", "-t", "t", "-m", "m1", "-s", "s"]
FULL = Path("/dev/full")
START = [sys.executable, "-c", "from msmmiv.cli import main; main(prog_name='msmmiv')"]


def run(*words, **options):
    return CliRunner().invoke(
        main, [str(w) for w in words], prog_name="msmmiv", catch_exceptions=False, **options
    )


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    path = tmp_path_factory.mktemp("kind") / "moments.csv"
    return mm.Moments.from_data(trial(range(8)), design("m1")).save(path)


def every_command(group, path=("msmmiv",)):
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


COMMANDS = {" ".join(path): command for path, command in every_command(main)}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example_and_debug(path):
    done = run(*path.split()[1:], "--help")
    assert done.exit_code == 0
    examples = [line for line in done.stdout.splitlines() if line.startswith(f"  {path} ")]
    assert examples, "no example in the help"
    assert "--debug" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    listed = run("--help").stdout.partition("Commands:\n")[2]
    assert "..." not in listed, "give the command a short_help"


def test_commands_come_in_the_order_of_the_path():
    listed = [line.split()[0] for line in run("--help").stdout.partition("Commands:\n")[2].splitlines()]
    first = ["demo", "init", "run", "analyze", "audit", "decompose", "rank"]
    order = [*first, "moments", "plot", "table", "checklist", "version"]
    assert {"demo", "analyze", "audit", "decompose", "rank", "moments", "checklist", "version"} <= set(listed)
    assert listed == [name for name in order if name in listed]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyse"], "There is no command 'analyse'. Did you mean 'analyze'? (see msmmiv --help)"),
        (["xyz"], "There is no command 'xyz'. Commands are demo, "),
        (["moments", "mrge"], "Did you mean 'merge'? (see msmmiv moments --help)"),
        (["--nope"], "--nope"),
        (["rank"], "Missing argument 'FILE'. (see msmmiv rank --help)"),
        (["rank", "x.csv", "--draws", "many"], "--draws"),
        (["analyze", "x.csv", "--quiet", "--json"], "--quiet and --json contradict each other"),
        (["rank", "no such.csv"], "'no such.csv' was not found."),
        (["version", "surplus"], "surplus"),
    ],
)
def test_wrong_words_are_one_line(words, said):
    done = run(*words)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr


def test_wrong_names_get_near_ones(tmp_path, moments):
    for name in ("trial.csv", "other.parquet", ".hidden.csv"):
        (tmp_path / name).write_text("a\n", encoding="utf-8")
    for command in ("analyze", "audit", "decompose", "rank"):
        done = run(command, tmp_path / "Trail.csv", *ROLES)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert f"Trail.csv' was not found. Did you mean '{tmp_path / 'trial.csv'}'?" in done.stderr
    assert (
        f"Did you mean '{tmp_path / 'other.parquet'}'?"
        in run("moments", "inspect", tmp_path / "other.csv").stderr
    )
    assert "Did you mean" not in run("rank", tmp_path / "zzzz", *ROLES).stderr
    done = run("rank", tmp_path / "nowhere" / "trial.csv", *ROLES)
    assert f"there is no folder '{tmp_path / 'nowhere'}'" in done.stderr
    assert "No file matches" in run("rank", tmp_path / "*.txt", *ROLES).stderr
    assert "holds CSV and Parquet files. To read those of one kind" in run("rank", tmp_path, *ROLES).stderr
    assert "is a folder; name a file in it" in run("moments", "inspect", tmp_path).stderr
    words = ["audit", moments, "--site-covariates", tmp_path / "trail.csv"]
    assert "Did you mean" in run(*words).stderr


@pytest.mark.parametrize("name", [h for h in HOSTILE if h and "\x00" not in h])
def test_hostile_file_names_stay_on_one_line(name, tmp_path):
    done = run("rank", tmp_path / f"{name}.csv", *ROLES)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not set("\x1b\u202e") & set(done.stderr)


# --------------------------------------------------------------------------------- tracebacks and bugs


@pytest.fixture
def broken(monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(commands, "study_of", fail)


def test_a_bug_says_that_it_is_one(broken):
    done = run("rank", "x.csv")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (70, "", 1)
    assert done.stderr == (
        "Error: ZeroDivisionError: two lines. This is a bug of msmmiv; please report it with what --debug (or "
        "MSMMIV_DEBUG=1) shows.\n"
    )


@pytest.mark.parametrize("words", [["--debug", "rank", "x.csv"], ["rank", "x.csv", "--debug"]])
def test_debug_shows_the_traceback(broken, words):
    done = run(*words)
    assert done.exit_code == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ZeroDivisionError")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_the_environment_asks_for_tracebacks(value, shown):
    done = run("rank", "none.csv", env={"MSMMIV_DEBUG": value})
    assert done.exit_code == 2
    assert ("Traceback" in done.stderr) is shown
    assert "DataError" in done.stderr or not shown


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 2, "Error: there is not enough memory for this."),
        (PermissionError(13, "Permission denied", "x.csv"), 2, "Error: Permission denied: 'x.csv'."),
        (click.FileError("x", hint="gone"), 2, "Error: Could not open file 'x': gone"),
        (KeyboardInterrupt(), 130, "Stopped. Nothing half-written is left behind."),
        (click.Abort(), 130, "Stopped. Nothing half-written is left behind."),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_every_end_has_its_code(monkeypatch, error, code, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(commands, "study_of", fail)
    done = run("rank", "x.csv")
    assert (done.exit_code, done.stdout, done.stderr.strip()) == (code, "", said)


def test_groups_of_others_are_kind_too():
    @click.group(cls=KindGroup)
    def other():
        """A group."""

    @other.command()
    def fail():
        raise DataError("no")

    done = CliRunner().invoke(other, ["fail"])
    assert (done.exit_code, done.stderr) == (2, "Error: no\n")


# ----------------------------------------------------------------------------------------- real processes


def test_a_reader_who_leaves_is_no_error(moments):
    """`msmmiv rank ... | head -0`: the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [*START, "rank", str(moments), "--draws", "19"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line():
    with FULL.open("w") as full:
        done = subprocess.run(
            [*START, "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "Error: No space left on device.\n")


def test_ctrl_c_leaves_nothing(tmp_path):
    """A signal in the middle of writing: one line, 130, and the folder as it was."""
    code = (
        "import sys, time\nimport msmmiv.cli.commands as c\n"
        "def slow(report, folder):\n"
        "    (folder / 'rank.txt').write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "c.write_rank = slow\n"
        "c.main(prog_name='msmmiv')\n"
    )
    path = mm.data.star().save(tmp_path / "star.csv")
    words = ["rank", str(path), "--draws", "19", "--out", str(tmp_path / "new" / "out")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, *words], **pipes) as process:
        assert process.stdout.readline() == b"writing\n"
        assert (tmp_path / "new" / "out").exists()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.decode()) == (130, "Stopped. Nothing half-written is left behind.\n")
    assert [p.name for p in tmp_path.rglob("*")] == ["star.csv"]


def test_no_colour_even_on_a_terminal(moments):
    """Nothing is coloured anywhere, so NO_COLOR has nothing to switch off."""
    mine, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}
    words = [*START, "rank", str(moments), "--draws", "19"]
    done = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += (part := os.read(mine, 65536))
        except OSError:  # how Linux ends a terminal
            break
        if not part:
            break
    os.close(mine)
    assert done.returncode == 0
    assert b"assumption (viii)" in seen
    assert b"\x1b" not in seen + done.stderr

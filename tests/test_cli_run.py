"""The commands init and run: from a file of persons to results, and what they say on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from msmmiv.cli import study_files
from msmmiv.cli.commands import main
from tests.document.makers import messy_trial, school_trial, written

ROLES = ["-y", "math", "-m", "class_size"]


def run(*words, answers=None):
    return CliRunner().invoke(main, [str(w) for w in words], input=answers)


@pytest.fixture
def home(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    written(school_trial(sites=8), tmp_path / "pupils.csv")
    return tmp_path


def test_from_pupils_to_results_and_a_check(home) -> None:
    begun = run("init", "pupils.csv", *ROLES)
    assert begun.exit_code == 0, begun.output
    assert 'treatment  "T" (guessed): 2 values (0 and 1)' in begun.stdout
    assert 'outcome    "math" (given): as you said' in begun.stdout
    assert begun.stdout.endswith("then: msmmiv run study.toml\n")
    text = (home / "study.toml").read_text(encoding="utf-8")
    (home / "study.toml").write_text(text.replace("# draws = 999", "draws = 199"), encoding="utf-8")
    done = run("run", "study.toml")
    assert done.exit_code == 0, done.output
    assert "one unit more of class_size changes math by" in done.stdout
    assert "Tables and figures: study-results" in done.stdout
    same = run("run", "study.toml", "--check")
    assert same.exit_code == 0
    assert same.stdout.startswith("Nothing differs from the run in 'study-results' (")
    told = json.loads(run("run", "study.toml", "--check", "--json").stdout)
    assert (told["folder"], told["changes"]) == ("study-results", [])
    (home / "study.toml").write_text(
        f"# read again\n{text}".replace("# draws = 999", "draws = 199"), encoding="utf-8"
    )
    other = run("run", "study.toml", "--check")
    assert other.exit_code == 1
    assert "1 value differs" in other.stdout
    assert "stamp: SHA-256 of the study file" in other.stdout
    once_more = run("run", "study.toml", "--json")
    assert once_more.exit_code == 0
    assert json.loads(once_more.stdout) == json.loads(
        (home / "study-results" / "results.json").read_text(encoding="utf-8")
    )
    assert "Report: study-results" in once_more.stderr


def test_a_messy_file_runs(home) -> None:
    written(messy_trial(), home / "mes données.csv", sep=";", decimal=",", encoding="utf-8-sig", tail=";;")
    begun = run("init", "mes données.csv", "--out", "mon étude.toml")
    assert begun.exit_code == 0, begun.output
    assert "numbers are written with decimal commas" in begun.stdout
    assert "msmmiv run 'mon étude.toml'" in begun.stdout
    done = run("run", "mon étude.toml", "--out", "results", "--quiet")
    assert (done.exit_code, done.stdout) == (0, "")
    found = json.loads((home / "results" / "results.json").read_text(encoding="utf-8"))
    assert found["source"] == "mes données.csv"
    # Outcomes are twice the hours.
    assert found["fits"][0]["terms"][0]["estimate"] == pytest.approx(2, abs=0.3)


def test_what_is_open_is_refused_by_run(home) -> None:
    begun = run("init", "pupils.csv")
    assert begun.exit_code == 0
    assert "Open: outcome and mediators." in begun.stdout
    done = run("run", "study.toml")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "study.toml: [design] outcome, mediators: missing." in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(p.name for p in home.iterdir()) == ["pupils.csv", "study.toml"]


def test_what_the_data_refuse_names_the_key(home) -> None:
    written(messy_trial(), home / "essai.csv")
    assert run("init", "essai.csv").exit_code == 0
    text = (home / "study.toml").read_text(encoding="utf-8")
    assert 'control = "témoin"\n' in text
    (home / "study.toml").write_text(text.replace('control = "témoin"\n', ""), encoding="utf-8")
    done = run("run", "study.toml")
    assert done.exit_code == 2
    assert (
        "study.toml: [design] control: The arms in 'Bras traitement' are 'traité' and 'témoin'" in done.stderr
    )
    assert 'say which is the reference: [design] control = "..."' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_on_a_terminal_what_is_not_clear_is_asked(home, monkeypatch) -> None:
    monkeypatch.setattr(study_files, "_on_terminal", lambda: True)
    begun = run("init", "pupils.csv", answers="maths\nmath\n1\n")
    assert begun.exit_code == 0, begun.output
    assert "'maths' is not one of the columns." in begun.stderr
    assert 'outcome    "math" (answered)' in begun.stdout
    assert 'mediators  ["class_size"] (answered)' in begun.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
def test_a_real_terminal_is_recognised_and_asked(home) -> None:
    import pty

    keyboard, screen = pty.openpty()
    line = [sys.executable, "-c", "from msmmiv.cli import main; main()", "init", "pupils.csv"]
    with subprocess.Popen(line, stdin=screen, stdout=screen, stderr=screen, cwd=home) as asked:
        os.close(screen)
        seen, answers = b"", [b"math\n", b"1\n"]
        while True:
            try:
                part = os.read(keyboard, 4096)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            seen += part
            if answers and seen.rstrip().endswith(b"Enter to leave it open:"):
                os.write(keyboard, answers.pop(0))
                seen += b"\n"
        assert asked.wait(60) == 0, seen.decode()
    os.close(keyboard)
    text = seen.decode()
    assert "Which column is the outcome?" in text
    assert "Which columns are the mediators?" in text
    assert 'outcome    "math" (answered)' in text
    assert (home / "study.toml").exists()


def test_a_file_that_is_there_is_kept(home) -> None:
    (home / "study.toml").write_text("mine")
    refused = run("init", "pupils.csv", *ROLES)
    assert refused.exit_code == 2
    assert "'study.toml' is there already" in refused.stderr
    assert (home / "study.toml").read_text() == "mine"
    assert run("init", "pupils.csv", *ROLES, "--force").exit_code == 0
    assert (home / "study.toml").read_text(encoding="utf-8") != "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init", "pupil.csv"], "pupil.csv' was not found"),
        (["init", "pupils.csv", "-y", "maths"], "Did you mean 'math'"),
        (["run", "nothing.toml"], "cannot be read: No such file"),
        (["run", "pupils.csv"], "pupils.csv: line 1, column"),
    ],
)
def test_refusals_are_one_line(home, words, message) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_has_an_example() -> None:
    assert "msmmiv init trial.csv" in run("init", "--help").stdout
    assert "msmmiv run study.toml --check" in run("run", "--help").stdout

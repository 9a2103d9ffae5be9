"""What must not be in the tree: somebody's machine, unfinished work, a README that lies."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {".git", ".venv", "build", "dist", "_build", "__pycache__", "demo-report"}
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:tmp|work|root|home)/")
# The brackets keep this line from finding itself; the examples below are split for the same reason.
UNFINISHED = re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b")


def listed_by_git(root: Path) -> list[Path] | None:
    """Committed and about-to-be-committed files, or None outside a checkout."""
    if shutil.which("git") is None or not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others"]
    done = subprocess.run([*command, "--exclude-standard"], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    return [root / name for name in done.stdout.split("\0") if name]


def walked(root: Path) -> list[Path]:
    return [
        path
        for path in root.rglob("*")
        if not any(
            part in SKIPPED or part.endswith(("_cache", ".egg-info")) for part in path.relative_to(root).parts
        )
    ]


def texts(root: Path) -> dict[str, str]:
    """Repository-relative name -> text, of every file that is text."""
    found = {}
    for path in listed_by_git(root) or walked(root):
        if not path.is_file():
            continue
        try:
            found[path.relative_to(root).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def hits(files: dict[str, str], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.fixture(scope="module")
def tree() -> dict[str, str]:
    found = texts(ROOT)
    assert "pyproject.toml" in found
    return found


def test_no_machine_path(tree: dict[str, str]) -> None:
    assert hits(tree, MACHINE_PATH) == []


def test_nothing_unfinished(tree: dict[str, str]) -> None:
    sources = {n: t for n, t in tree.items() if n.endswith((".py", ".j2", ".toml"))}
    assert hits(sources, UNFINISHED) == []


def test_readme_names_the_two_commands(tree: dict[str, str]) -> None:
    for command in ("make demo", "make test"):
        assert command in tree["README.md"]


def test_links_between_pages_lead_somewhere(tree: dict[str, str]) -> None:
    broken = [
        f"{name}: {target}"
        for name, text in tree.items()
        if name.endswith(".md")
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
        if not (ROOT / name).parent.joinpath(target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open('/tm" + "p/x.csv')", True),
        ("see /wo" + "rk/shared", True),
        ("cd /ro" + "ot/.cache", True),
        ("$HOME/wo" + "rk/x", False),
        ("docs/ro" + "ot/page", False),
        ("tmp_path / 'x'", False),
    ],
)
def test_the_pattern_knows_a_machine_path(line: str, *, found: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is found


def test_the_walk_finds_what_git_would(tmp_path: Path) -> None:
    """Outside a checkout (an unpacked sdist) the same files are read."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("x = '/tm" + "p/y'\n", encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "c.py").write_text("x = '/tm" + "p/y'\n", encoding="utf-8")
    assert [line.split(":")[0] for line in hits(texts(tmp_path), MACHINE_PATH)] == ["a/b.py"]

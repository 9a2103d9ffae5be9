"""The built wheel, not the source tree: what users install is what is inspected."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
# Columns that only a person has; the packaged example is moments of classes.
PERSON = re.compile(r"(student|pupil|person|respondent)[_ ]?id|stdntid|birth[_ ]?(year|date)", re.IGNORECASE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_nine_assumptions_are_inside_unchanged(wheel: zipfile.ZipFile) -> None:
    inside = {n for n in wheel.namelist() if n.startswith("msmmiv/_assumptions/")}
    assert inside == {f"msmmiv/_assumptions/{name}.toml" for name in NAMES}
    for name in NAMES:
        source = (ROOT / "assumptions" / f"{name}.toml").read_bytes()
        assert wheel.read(f"msmmiv/_assumptions/{name}.toml") == source


def test_every_file_of_the_package_is_inside(wheel: zipfile.ZipFile) -> None:
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "msmmiv").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "msmmiv/py.typed" in source
    assert any(name.startswith("msmmiv/data/") and not name.endswith(".py") for name in source)
    assert any(re.fullmatch(r"msmmiv/show/.*\.j2", name) for name in source)
    assert source <= set(wheel.namelist())


def test_nothing_else_is_inside(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not re.fullmatch(r"msmmiv(-[\d.]+\.dist-info)?", top)} == set()
    assert not [n for n in wheel.namelist() if "__pycache__" in n or n.endswith(".pyc")]


def test_metadata_is_that_of_the_project(wheel: zipfile.ZipFile, project: dict) -> None:
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == project["version"]
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in wheel.namelist())
    scripts = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "msmmiv = msmmiv.cli:main" in scripts


def test_versions_agree(project: dict) -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_example_holds_no_person(wheel: zipfile.ZipFile) -> None:
    """Every table of the example is far shorter than the trial, and no column is a person's."""
    tables = [n for n in wheel.namelist() if n.startswith("msmmiv/data/") and not n.endswith((".py", "/"))]
    assert tables
    for name in tables:
        text = wheel.read(name).decode("utf-8")  # plain text, so that anybody can look
        header = next((line for line in text.splitlines() if "," in line), "")
        assert not PERSON.search(header), f"{name} has a person's column: {header[:200]}"
        assert len(text.splitlines()) < 1000, f"{name} is too long to be one row per class"

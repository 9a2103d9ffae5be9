"""The code keeps the promises of ARCHITECTURE.md: its tables are parsed, never copied here."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "msmmiv"
PAGE = ROOT / "ARCHITECTURE.md"
MAX_LINES = 400


# ------------------------------------------------------------------------------- reading the page


@dataclass(frozen=True)
class Rules:
    rooms: tuple[str, ...]  # in order: a room imports itself and what stands before it
    doors: dict[str, str]  # library -> the one file, or folder ending in "/", that may import it
    late: frozenset[str]  # imported inside functions only


def table(page: str, heading: str) -> list[list[str]]:
    section = re.search(rf"^## {re.escape(heading)}.*?$(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert section, f"ARCHITECTURE.md has no section '{heading}'"
    rows = [line.strip("| ").split("|") for line in section[1].splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in row] for row in rows[2:]]  # header and rule dropped


def ticked(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def read_rules(page: str) -> Rules:
    rooms = sorted((int(row[0]), ticked(row[1])[0]) for row in table(page, "The rooms"))
    doors = {
        library: ticked(row[1])[0]
        for row in table(page, "One door per library")
        for library in ticked(row[0])
    }
    late = frozenset(ticked(row[0])[0] for row in table(page, "Late imports"))
    return Rules(tuple(room for _, room in rooms), doors, late)


# ------------------------------------------------------------------------------- reading the code


@dataclass(frozen=True)
class Import:
    target: str  # dotted, absolute; for "from a import b" it is "a.b"
    line: int
    deferred: bool  # inside a function, or seen by type checkers only


def is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def names_imported(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            up = parents[: len(parents) - node.level + 1]
            base = ".".join([*up, base] if base else up)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in {"import_module", "__import__"}:
            return [str(node.args[0].value)]
    return []


def imports(path: Path, package: str) -> list[Import]:
    """Every import of a file, at any depth; *package* is the dotted name relative dots start at."""
    found: list[Import] = []

    def walk(node: ast.AST, *, deferred: bool) -> None:
        found.extend(Import(name, node.lineno, deferred) for name in names_imported(node, package))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            deferred = True
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for child in node.body:
                walk(child, deferred=True)
            for child in node.orelse:
                walk(child, deferred=deferred)
            return
        for child in ast.iter_child_nodes(node):
            walk(child, deferred=deferred)

    walk(ast.parse(path.read_text(encoding="utf-8")), deferred=False)
    return found


def modules(root: Path) -> dict[str, Path]:
    """Dotted module name -> file, for every Python file of the package."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def resolve(target: str, known: dict[str, Path]) -> str | None:
    """Return the longest prefix of *target* that is a module of the package."""
    parts = target.split(".")
    while parts:
        if ".".join(parts) in known:
            return ".".join(parts)
        parts.pop()
    return None


def room_of(module: str) -> str:
    return "__init__" if module == PACKAGE else module.split(".")[1]


# ---------------------------------------------------------------------------------- the questions


def within(target: str, library: str) -> bool:
    return target == library or target.startswith(library + ".")


def order_problem(module: str, imported: str, rules: Rules) -> str | None:
    mine, theirs = room_of(module), room_of(imported)
    if theirs not in rules.rooms:
        return None  # reported once, as a module without a room
    if rules.rooms.index(theirs) > rules.rooms.index(mine):
        return f"`{mine}` may not import `{theirs}`, which stands after it"
    return None


def library_problems(target: Import, relative: str, rules: Rules) -> list[str]:
    problems = []
    for library, door in rules.doors.items():
        allowed = relative.startswith(door) if door.endswith("/") else relative == door
        if within(target.target, library) and not allowed:
            problems.append(f"only {door} may import {library}")
    if not target.deferred and any(within(target.target, name) for name in rules.late):
        problems.append(f"{target.target} is slow to import: import it inside the function")
    return problems


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """Describe each circle once, by depth-first search."""
    found, done = [], set()

    def visit(node: str, trail: list[str]) -> None:
        if node in trail:
            found.append("cycle: " + " -> ".join([*trail[trail.index(node) :], node]))
        elif node not in done:
            for child in sorted(graph.get(node, ())):
                visit(child, [*trail, node])
            done.add(node)

    for start in sorted(graph):
        visit(start, [])
    return found


def problems(root: Path, rules: Rules) -> list[str]:
    """Everything in the tree below *root* that breaks the page's rules."""
    known, graph, found = modules(root), {}, []
    for module, path in known.items():
        relative = path.relative_to(root).as_posix()
        if room_of(module) not in rules.rooms:
            found.append(f"{relative}: room `{room_of(module)}` is not listed")
            continue
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        graph[module] = set()
        for item in imports(path, package):
            where = f"{relative}:{item.line}: "
            found += [where + text for text in library_problems(item, relative, rules)]
            imported = resolve(item.target, known) if within(item.target, PACKAGE) else None
            if imported is None or imported == module:
                continue
            graph[module].add(imported)
            if text := order_problem(module, imported, rules):
                found.append(where + text)
    for folder in (PACKAGE, "tests", "benchmarks", "examples"):
        for path in sorted((root / folder).rglob("*.py")):
            count = len(path.read_text(encoding="utf-8").splitlines())
            if count > MAX_LINES:
                found.append(f"{path.relative_to(root).as_posix()}: {count} lines")
    return found + cycles(graph)


# -------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def rules() -> Rules:
    return read_rules(PAGE.read_text(encoding="utf-8"))


def test_page_is_readable(rules: Rules) -> None:
    assert rules.rooms[0] == "errors"
    assert rules.rooms[-2:] == ("cli", "__main__")
    assert rules.doors["duckdb"] == "msmmiv/moments/row_files.py"
    assert {"scipy.stats", "linearmodels", "formulaic"} <= rules.late


def test_package_keeps_the_rules(rules: Rules) -> None:
    assert len(modules(ROOT)) > 1, "the walk found nothing to check"
    assert problems(ROOT, rules) == []


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


CLEAN = {
    "msmmiv/__init__.py": "from msmmiv.study import Study\n",
    "msmmiv/errors.py": "",
    "msmmiv/design.py": "from .errors import X\nimport numpy\n",
    "msmmiv/study.py": "from msmmiv import design\ndef f():\n    import scipy.stats\n",
    "msmmiv/audit/__init__.py": "from msmmiv.audit.dag import D\n",
    "msmmiv/audit/dag.py": (
        "from typing import TYPE_CHECKING\nfrom msmmiv.errors import X\n"
        "if TYPE_CHECKING:\n    import networkx as nx\n"
    ),
    "msmmiv/moments/frames.py": "import narwhals.stable.v2 as nw\n",
    "msmmiv/show/plots/scatter.py": "def f():\n    from matplotlib import figure\n",
    "msmmiv/cli/__init__.py": "",
    "msmmiv/cli/commands.py": "import click\nfrom msmmiv import Study\n",
}


def test_a_clean_tree_has_no_problems(tmp_path: Path, rules: Rules) -> None:
    assert problems(write(tmp_path, CLEAN), rules) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("errors.py", "from msmmiv.design import Design", "`errors` may not import `design`"),
        ("errors.py", "def f():\n    import msmmiv.study", "`errors` may not import `study`"),
        ("errors.py", "def f():\n    from . import cli", "`errors` may not import `cli`"),
        (
            "design.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .study import Study",
            "`design` may not import `study`",
        ),
        ("design.py", "import msmmiv", "`design` may not import `__init__`"),
        ("audit/dag.py", "from ..study import Study", "`audit` may not import `study`"),
        ("design.py", "def f():\n    import networkx", "only msmmiv/audit/dag.py may import net"),
        ("study.py", "def f():\n    from duckdb import sql", "only msmmiv/moments/row_files.py may"),
        (
            "study.py",
            "import typing\nif typing.TYPE_CHECKING:\n    import polars",
            "may import polars",
        ),
        (
            "study.py",
            "def f():\n    import importlib\n    importlib.import_module('duckdb')",
            "may import duckdb",
        ),
        ("show/plots.py", "def f():\n    import matplotlib", "only msmmiv/show/plots/ may"),
        ("study.py", "from scipy import stats", "scipy.stats is slow to import"),
        ("study.py", "class A:\n    import scipy.stats as s", "scipy.stats is slow to import"),
        ("moments/row_files.py", "import duckdb", "duckdb is slow to import"),
        ("attic.py", "", "room `attic` is not listed"),
        ("errors.py", "x = 1\n" * 401, "401 lines"),
        (
            "audit/findings.py",
            "from msmmiv.audit import D",
            None,  # the __init__ of the clean tree does not import findings: no circle, no problem
        ),
        ("audit/dag.py", "from msmmiv.audit import D", "cycle: msmmiv.audit -> msmmiv.audit.dag"),
    ],
)
def test_the_checker_catches(
    tmp_path: Path, rules: Rules, name: str, text: str, expected: str | None
) -> None:
    found = problems(write(tmp_path, CLEAN | {f"msmmiv/{name}": text}), rules)
    if expected is None:
        assert found == []
    else:
        assert any(expected in line for line in found), found


def test_long_tests_are_caught_too(tmp_path: Path, rules: Rules) -> None:
    tree = write(tmp_path, CLEAN | {"tests/test_long.py": "\n" * 401})
    assert problems(tree, rules) == ["tests/test_long.py: 401 lines"]


def test_a_missing_table_is_an_error() -> None:
    with pytest.raises(AssertionError, match="The rooms"):
        read_rules("# Architecture\n")

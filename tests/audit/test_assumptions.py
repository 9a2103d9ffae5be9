"""The nine files say what the loader promises, and a mistake in one is named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from msmmiv.audit import load_assumptions
from msmmiv.audit.check_names import CHECK_NAMES
from msmmiv.errors import AssumptionFileError, MsmmivError

SOURCE = Path(__file__).resolve().parents[2] / "assumptions"
IDS = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(SOURCE, tmp_path / "assumptions")


def edit(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(
        pattern,
        lambda _: replacement,
        path.read_text(encoding="utf-8"),
        count=1,
        flags=re.MULTILINE | re.DOTALL,
    )
    assert count == 1, f"{pattern} does not occur in {path.name}"
    path.write_text(text, encoding="utf-8")


def test_nine_in_order() -> None:
    assert [a.id for a in load_assumptions()] == IDS


def test_packaged_and_given_folder_agree(folder: Path) -> None:
    assert load_assumptions() == load_assumptions(folder=folder)


def test_every_assumption_is_hashable_and_frozen() -> None:
    assumptions = load_assumptions()
    assert len(set(assumptions)) == 9
    with pytest.raises(AttributeError):
        assumptions[0].title = "another"


def test_variants_and_parts_are_where_the_paper_has_them() -> None:
    by_id = {a.id: a for a in load_assumptions()}
    assert {i: [v.id for v in a.variants] for i, a in by_id.items() if a.variants} == {
        "vii": ["vii.a", "vii.b"],
        "ix": ["ix.a", "ix.b"],
    }
    assert {i: [p.id for p in a.parts] for i, a in by_id.items() if a.parts} == {
        "i": ["i.a", "i.b"],
        "viii": ["viii.a", "viii.b", "viii.c"],
    }
    assert by_id["vii"].variant_for("ate").id == "vii.a"
    assert by_id["ix"].variant_for("late").id == "ix.b"
    assert by_id["ii"].variant_for("ate") is None


def test_the_graph_loses_the_right_edges() -> None:
    edges = {a.id: set(a.dag_edges_ruled_out) for a in load_assumptions()}
    assert edges["ii"] == {"T -> Y"}
    assert edges["v"] == {"M_p -> M_q"}
    assert "U -> T" in edges["vi"]
    assert not edges["iii"] | edges["iv"] | edges["viii"]  # functional form and rank rule out none


def test_every_check_is_listed_somewhere_and_decisive_ones_are_checks() -> None:
    forms = [f for a in load_assumptions() for f in (a, *a.variants)]
    assert {c for f in forms for c in f.checks} == set(CHECK_NAMES)
    assert all(set(f.decisive) <= set(f.checks) for f in forms)
    by_id = {f.id: f for f in forms}
    assert not by_id["i"].decisive + by_id["v"].decisive
    assert by_id["vii.a"].decisive == ("within_site.subgroups",)
    assert by_id["ix.a"].checks == by_id["ix"].checks == by_id["ix.b"].checks  # inherited


def test_what_cannot_be_tested_is_not_called_testable() -> None:
    testable = {a.id: a.testable for a in load_assumptions()}
    assert testable["v"] == "no"
    assert testable["ix"] == "partly"
    assert testable["vi"] == "by design"


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("iii", r"^title = .*?\n", "", r"^iii\.toml: missing key 'title'"),
        ("i", r"^title =", "titel =", r"^i\.toml: missing key 'title'"),
        ("i", r"^title =", 'note = "x"\ntitle =', r"^i\.toml: unknown key 'note'; known are"),
        ("iv", r'^id = "iv"', 'id = "vi"', r"^iv\.toml: key 'id' is 'vi' but must be 'iv'"),
        ("ii", r'^title = ".*?"', 'title = "  "', r"^ii\.toml: key 'title' must be text"),
        ("ii", r'^title = ".*?"', "title = 7", r"^ii\.toml: key 'title' must be text .* not 7"),
        ("v", r'^testable = "no"', 'testable = "maybe"', r"^v\.toml: .*'maybe'; choose from by"),
        ("v", r'"late"', '"att"', r"^v\.toml: key 'estimand' is 'att'; choose from ate, late"),
        ("v", r'^estimand = \["ate", "late"\]', 'estimand = "ate"', r"^v\.toml: .* must be a list"),
        ("v", r"M_p -> M_q", "M_p to M_q", r"^v\.toml: .*write 'A -> B'"),
        ("vi", r"^questions = \[.*?^\]", "questions = []", r"^vi\.toml: .*'questions' must not be"),
        ("vi", r"^references = \[.*?^\]", "references = [1]", r"^vi\.toml: .*'references' must be"),
        (
            "ii",
            r"linearity\.zero_compl\w+",
            "linearity.zero_compliance",
            r"^ii\.toml: .*did you mean 'linearity\.zero",
        ),
        (
            "ii",
            r"linearity\.zero_compl\w+",
            "zzz",
            r"^ii\.toml: key 'checks' has 'zzz', .* known are balance",
        ),
        (
            "v",
            r"^decisive = \[\]",
            'decisive = ["rank.counts"]',
            r"^v\.toml: key 'decisive' has 'rank\.counts', not",
        ),
        ("v", r"^decisive = \[\]", "", r"^v\.toml: missing key 'decisive'"),
        ("vi", r"^epidemiology = .*", "", r"^vi\.toml, prompts: missing key 'epidemiology'"),
        ("vi", r"^\[prompts\]", "[prompts.more]", r"^vi\.toml, prompts: missing key"),
        ("vii", r'^id = "vii\.b"', 'id = "vii.c"', r"^vii\.toml: key 'variants' has ids vii\.a, v"),
        ("vii", r'^estimand = "late"', 'estimand = "ate"', r"^vii\.toml: .*covers ate, ate"),
        ("ix", r'^id = "ix\.a"\n', "", r"^ix\.toml, variants\[1\]: missing key 'id'"),
        ("viii", r'^id = "viii\.c"', 'id = "c"', r"^viii\.toml: key 'parts' has ids"),
        ("viii", r"^\[\[parts\]\].*", "parts = 3", r"^viii\.toml, prompts: unknown key 'parts'"),
        ("viii", r'^id = "viii"', 'id = "viii"\nparts = ["a"]', r"^viii\.toml: is not valid TOML"),
        ("i", r'^id = "i"', "id = i", r"^i\.toml: is not valid TOML"),
    ],
)
def test_a_mistake_is_named(folder: Path, name: str, pattern: str, replacement: str, message: str) -> None:
    edit(folder / f"{name}.toml", pattern, replacement)
    with pytest.raises(AssumptionFileError, match=message):
        load_assumptions(folder=folder)


@pytest.mark.parametrize("name", IDS)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / f"{name}.toml").unlink()
    with pytest.raises(AssumptionFileError, match=rf"^{name}\.toml: cannot be read"):
        load_assumptions(folder=folder)


def test_a_tenth_file_is_refused(folder: Path) -> None:
    shutil.copy(folder / "ix.toml", folder / "x.toml")
    with pytest.raises(AssumptionFileError, match=r"x\.toml, which is none of the nine"):
        load_assumptions(folder=folder)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(MsmmivError, match=r"i\.toml: cannot be read"):
        load_assumptions(folder=tmp_path / "nowhere")


def test_bytes_that_are_not_text(folder: Path) -> None:
    (folder / "ii.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(AssumptionFileError, match=r"^ii\.toml: is not valid TOML"):
        load_assumptions(folder=folder)


def test_a_part_that_is_not_a_table(folder: Path) -> None:
    path = folder / "iii.toml"
    path.write_text('parts = ["a"]\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(AssumptionFileError, match=r"^iii\.toml, parts\[1\]: must be a table"):
        load_assumptions(folder=folder)

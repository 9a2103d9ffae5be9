"""The examples run, and print the numbers they promise."""

from __future__ import annotations

import functools
import importlib.util
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDS_DATA = {
    "make_star_moments.py",
    "spark_moments.py",
}  # that of Spark runs with its session, in test_spark.py
ALONE = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name not in NEEDS_DATA)


@functools.cache
def printed(name: str) -> str:
    """What an example prints, run as its reader would run it: alone, without arguments, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLES / name)],
            cwd=folder, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        left = sorted(path.name for path in Path(folder).iterdir())
    assert done.returncode == 0, f"{name}\n{done.stderr}"
    assert left == [], f"{name} leaves something behind"
    return done.stdout


@pytest.fixture
def said(request: pytest.FixtureRequest) -> str:
    """What the example of a test prints."""
    return printed(request.param)


def example(name: str) -> pytest.MarkDecorator:
    """A test of what one example prints; processes share the examples, each of which runs once."""
    return pytest.mark.parametrize("said", [name], indirect=True)


@pytest.mark.parametrize("name", ALONE)
def test_runs_and_leaves_nothing_behind(name: str) -> None:
    assert printed(name).strip()


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    made = mm.simulate(sites=12, people=60, seed=3)
    d = made.design
    names = {d.outcome: "math", d.treatment: "small", d.mediators[0]: "class_size", d.site: "school"}
    rows = made.frame.rename(columns=names)
    rows["class_id"] = rows["school"].astype(str) + rows["small"].astype(str) + (rows.index % 4).astype(str)
    monkeypatch.chdir(tmp_path)
    rows.to_csv("trial.csv", index=False)
    table = "table.docx" if importlib.util.find_spec("docx") else "table.md"
    for code in blocks:
        exec(code.replace("table.docx", table), {})  # noqa: S102 - what readers copy is what is tested
    assert {"figures", "trial.html"} <= {p.name for p in tmp_path.iterdir()}
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["forest.png", "forest.svg"]


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern!r} is not in\n{text}"
    return float(found[1].replace(",", ""))


@pytest.mark.parametrize("name", [*ALONE, *sorted(NEEDS_DATA)])
def test_says_what_it_is_and_stays_short(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert f"python examples/{name}" in text
    assert len(text.splitlines()) < 60


@example("quickstart.py")
def test_quickstart_reproduces_the_star_reference(said: str) -> None:
    """The reference: 2SLS with class-clustered errors of the public file, computed by linearmodels."""
    assert "5,871 rows, 79 sites, 79 instruments, 325 clusters" in said
    assert number(r"class_size +(-?[\d.]+)", said) == pytest.approx(-1.11376, abs=5e-5)
    assert number(r"class_size +-?[\d.]+ +([\d.]+)", said) == pytest.approx(0.27226, abs=5e-6)
    assert number(r"Cragg-Donald, classical: .*\[([\d.]+)\]", said) == pytest.approx(1082.126, abs=0.5)
    assert number(r"clusters as rows ([\d.]+)", said) == pytest.approx(31.63, abs=0.05)
    assert number(r"report: star.html, ([\d,]+) bytes", said) > 10_000


@example("three_arms_blocks.py")
def test_blocks_matter(said: str) -> None:
    assert "15 sites, 30 instruments" in said
    for blocks, income_is_right in (("with blocks", True), ("without blocks", False)):
        income = number(rf"\n{blocks} +hours [\d.]+, income ([\d.]+)", said)
        assert (abs(income - 0.8) < 0.05) is income_is_right
    assert number(r"with blocks +hours ([\d.]+)", said) == pytest.approx(0.5, abs=0.05)


@example("merge_agencies.py")
def test_merged_equals_pooled(said: str) -> None:
    assert len(re.findall(r"\w+ sends \w+\.csv", said)) == 3
    assert number(r"rows together: ([\d.e+-]+)", said) <= 1e-12


@example("published_table.py")
def test_the_published_table_gives_the_weighted_line(said: str) -> None:
    itt = np.array([4.1, 2.0, 5.2, 0.4, 3.3])
    weight = np.array([0.9, 0.7, 1.1, 0.8, 0.6]) ** -2.0
    hours = np.array([3.8, 1.5, 5.0, 0.2, 3.0])
    slope = np.linalg.lstsq((np.sqrt(weight) * hours)[:, None], np.sqrt(weight) * itt, rcond=None)[0][0]
    assert number(r"through the origin: ([\d.]+)", said) == pytest.approx(slope, abs=5e-5)
    assert "assumed zero" in said


@example("explicit_instruments.py")
def test_explicit_instruments_agree(said: str) -> None:
    assert "10 instruments" in said
    for term in ("class_size", "hours"):
        row = re.search(rf"^{term} +(\S+) +(\S+) +(\S+) +(\S+)$", said, re.MULTILINE)
        assert row is not None
        estimate, theirs, error, their_error = map(float, row.groups())
        assert estimate == pytest.approx(theirs, abs=1e-9)
        assert error == pytest.approx(their_error, abs=1e-9)


@example("few_sites.py")
def test_few_sites_counts_its_sign_vectors(said: str) -> None:
    errors = [number(rf"\n{name} +([\d.]+)", said) for name in ("HC1", "site CR1P", "site CR2", "site CR3")]
    assert errors == sorted(errors)
    assert number(r"site CR2 +[\d.]+ +([\d.]+)", said) < 8 == number(r"site CR1P +[\d.]+ +([\d.]+)", said)
    assert number(r"p-value of (\d+) sign vectors", said) == 2**9
    assert number(r"can be below ([\d.]+)", said) == pytest.approx(2 / 2**9, abs=5e-5)
    assert number(r"by rule: ujive, CR2, ([\d.]+)", said) == pytest.approx(1.0, abs=0.3)


@example("weak_instruments.py")
def test_weak_instruments_gives_all_four_shapes(said: str) -> None:
    found = re.findall(r"Anderson-Rubin +(.+)", said)
    assert re.fullmatch(r"\[0\.\d+, 1\.\d+\]", found[0])
    assert re.fullmatch(r"\(-inf, \S+\] and \[\S+, inf\)", found[1])
    assert found[2:4] == ["the whole line", "empty"]
    assert said.count("  no point estimate:") == 1


@example("strata.py")
def test_strata_find_both_effects(said: str) -> None:
    assert number(r"2SLS on strata +([\d.]+)", said) == pytest.approx(0.5, abs=0.1)
    assert number(r"2SLS on strata +[\d.]+ +([\d.]+)", said) == pytest.approx(0.8, abs=0.1)


def test_make_star_moments_writes_moments_that_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pupil file is not in the repository; a made-up one with its columns stands in."""
    rng = np.random.default_rng(0)
    site, room = (part.repeat(12) for part in np.divmod(np.arange(16), 4))
    small = room % 2
    pupils = pd.DataFrame({"site": site, "T": small, "class_id": 10 * site + room})
    pupils["class_size"] = 23 - (6 + site) * small
    pupils["tch_exp"] = rng.integers(1, 20, len(pupils))
    for name in ("female", "white_asian", "freelunch"):
        pupils[name] = rng.integers(0, 2, len(pupils))
    for name in ("math", "read"):
        pupils[name] = 500 - pupils["class_size"] + rng.normal(0, 10, len(pupils))
    pupils.loc[0, "math"] = np.nan
    source = tmp_path / "star_k.csv"
    pupils.to_csv(source, index=False)

    script = str(EXAMPLES / "make_star_moments.py")
    monkeypatch.setattr(sys, "argv", [script, str(source), str(tmp_path)])
    runpy.run_path(script, run_name="__main__")

    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert [p.name for p in written] == [
        "star_math.csv",
        "star_math_covariates.csv",
        "star_math_two_mediators.csv",
        "star_reading.csv",
    ]
    for path in written:
        moments = mm.Moments.load(path)
        assert (moments.n_sites, moments.n_cells) == (4, 16)
        assert moments.n.sum() == moments.flow.rows_used == 192 - ("math" in path.name)
        assert np.isfinite(mm.fit(moments, "2sls").params["class_size"])
    assert mm.Moments.load(written[1]).design.covariates == ("female", "white_asian", "freelunch")


@example("decompose.py")
def test_decompose_finds_the_effects_that_were_put_in(said: str) -> None:
    """Eight kinds of contact: direct effect 0.5, mediator 0.8; the table's slope against its corrected regression."""
    contact = said.split("Eight kinds of contact")[1]
    assert number(r"\n +m +(-?[\d.]+)", contact) == pytest.approx(0.8, abs=0.1)
    assert number(r"direct_effect +(-?[\d.]+)", contact) == pytest.approx(0.5, abs=0.2)
    slope = number(r"hours +(-?[\d.]+) .*bces", said)
    assert number(r"hours +(-?[\d.]+) .*reml", said) == pytest.approx(slope, abs=0.1)
    assert "smallest p 0.002" in said  # two in 2^10 sign vectors


@example("subgroups.py")
def test_subgroups_example_says_what_it_needs_or_what_it_found(said: str) -> None:
    """Put in: effort 0.50, direct 0.30. The part with given subgroups needs no extra."""
    given = r"^given subgroups: effort ([\d.]+), direct ([\d.]+)\n"
    assert re.match(given, said) is not None, said
    assert number(given, said) == pytest.approx(0.50, abs=0.015)
    assert number(r"direct ([\d.]+)\n", said) == pytest.approx(0.34, abs=0.015)
    if "msmmiv[subgroups]" in said:
        assert "halves in turn" not in said
    else:
        assert number(r"halves in turn: effort ([\d.]+)", said) == pytest.approx(0.5, abs=0.2)


@example("dag.py")
def test_dag_reads_the_chain(said: str) -> None:
    """Put in: 0.40 past poverty, -0.30 of poverty."""
    assert "offer -> use -> poverty -> score: cascade, breaks (v)" in said
    assert number(r"direct effect of use \(past poverty\) +(-?[\d.]+)", said) == pytest.approx(0.4, abs=0.1)
    assert number(r"effect of poverty +(-?[\d.]+)", said) == pytest.approx(-0.3, abs=0.1)


@example("sensitivity.py")
def test_sensitivity_finds_the_direct_effect_that_was_put_in(said: str) -> None:
    assert number(r"with 0\.3 ([\d.]+)", said) == pytest.approx(0.5, abs=0.06)
    assert number(r"from the sites, the direct effect is ([\d.]+)", said) == pytest.approx(0.3, abs=0.1)

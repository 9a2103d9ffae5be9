"""Pages of all kinds as files, each made once, and a browser that keeps a record of what they do."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.estimate.between.decompose import decompose
from msmmiv.show.audit_report import render_audit
from msmmiv.show.checklist import checklist
from msmmiv.show.decomposition_report import render_decomposition
from msmmiv.show.report import render_report
from tests.show.helpers import HOSTILE, design, trial
from tests.show.test_sets import SHAPES, shaped

DRAWS = 199
TWO_PAGES = "\n\n".join(
    f"{i}. "
    + "Whoever was offered a small class got a small class and nothing else; teachers were drawn by lot, "
    "books and hours were the same, and the schools say so in their yearly reports to the state. " * 5
    for i in range(1, 11)
)


def thousands(sites: int = 2000, people: int = 6) -> mm.Study:
    rng = np.random.default_rng(2)
    site, t = np.repeat(np.arange(sites), people), np.tile([0, 1], sites * people // 2)
    m = rng.normal(size=len(site)) + rng.uniform(0.2, 2.0, sites)[site] * t
    rows = pd.DataFrame({"s": site, "t": t, "m1": m, "y": 0.5 * m + rng.normal(size=len(site))})
    return mm.Study(rows, design("m1"))


def analysed(study: mm.Study, arguments: Mapping[str, str] | None = None):
    return study.analysis(audit=study.audit(arguments=arguments, draws=DRAWS))


def hostile_study() -> mm.Study:
    names = (
        "the <b>outcome</b> " + "y" * 280,
        "dose $m$ </script><script>alert(1)</script>",
        "other",
        "ward 🏥 مدرسة",
        "arm t",
    )
    roles = mm.Design(outcome=names[0], mediators=[names[1]], site=names[3], treatment=names[4])
    return mm.Study(trial(HOSTILE, names=names), roles)


def three_mediators() -> mm.Study:
    rows = trial([f"school {i}" for i in range(12)])
    noise = np.random.default_rng(3).normal(size=len(rows))
    rows["m3"] = noise + rows["t"] * (rows["s"].str[7:].astype(int) % 5) * 0.6
    rows["y"] += 0.3 * rows["m3"]
    return mm.Study(rows, design("m1", "m2", "m3", covariates=("x",)))


def disjoint():
    found = analysed(mm.Study(trial(range(9)), design("m1")))
    fits = tuple(
        shaped(f, SHAPES[s]) for f, s in zip(found.fits, ("union", "two rays", "ray", "empty"), strict=False)
    )
    rest = found.fits[len(fits) :]
    two = fits[1] if found.two_stage is found.fits[1] else found.two_stage
    return dataclasses.replace(found, headline=fits[0], two_stage=two, fits=(*fits, *rest))


def stamped():
    study = mm.Study(mm.data.star())
    found = analysed(study, {"ii": TWO_PAGES, "ix": "One sentence."})
    return dataclasses.replace(found, stamp={"study.toml": "ab" * 32, "star.csv": "cd" * 32})


def drawn_audit(arguments: Mapping[str, str] | None):
    study = mm.Study(trial(range(14)), design("m1", "m2", covariates=("x",)))
    dag = mm.CausalDAG.from_design(study.design, edges=["m1 -> m2", "t -> y"])
    return study.audit(dag, arguments, draws=DRAWS)


#: Text of a page by its name; a report unless the name says otherwise.
PAGES: Mapping[str, Callable[[], str]] = {
    "five": lambda: render_report(analysed(mm.Study(trial(range(5)), design("m1")))),
    "star": lambda: render_report(stamped()),
    "thousands": lambda: render_report(analysed(thousands())),
    "three": lambda: render_report(analysed(three_mediators())),
    "unbounded": lambda: render_report(analysed(mm.Study(mm.data.star("math_two_mediators")))),
    "disjoint": lambda: render_report(disjoint()),
    "hostile": lambda: render_report(analysed(hostile_study(), {"ii": "<script>alert(1)</script> " + "z" * 300})),
    "audit": lambda: render_audit(drawn_audit({"ii": TWO_PAGES, "v": "\u202eX < Y & \"Z\""})),
    "checklist": lambda: checklist(audit=drawn_audit({"ii": TWO_PAGES})),
    "checklist_empty": checklist,
    "decomposition": lambda: render_decomposition(decompose(mm.data.star())),
    "decomposition_hostile": lambda: render_decomposition(decompose(hostile_study().moments)),
}  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a page by its name; made when it is first asked for."""
    folder, files = tmp_path_factory.mktemp("pages"), {}

    def page(name: str) -> Path:
        if name not in files:
            files[name] = folder / f"{name}.html"
            files[name].write_text(PAGES[name](), encoding="utf-8")
        return files[name]

    return page


@pytest.fixture(scope="session")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium")
    with api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()

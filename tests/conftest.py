"""What all tests share: a Hypothesis profile that is the same on every run, and the golden folder."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.moments.engine_contract")
settings.register_profile(
    "msmmiv",
    deadline=None,
    derandomize=True,
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("msmmiv")


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of results without pages and figures, which take most of the time and are tested elsewhere."""
    from msmmiv.show import outputs

    for name in ("gallery", "audit_pictures", "decomposition_pictures", "rank_pictures"):
        monkeypatch.setattr(outputs, name, lambda _: ())
    for name in ("render_report", "render_audit", "render_decomposition"):
        monkeypatch.setattr(outputs, name, lambda *_, **__: "page")


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, so that their names are known, and neither stand on pages nor in files: these are empty."""
    from msmmiv.show.plots import Picture

    monkeypatch.setattr(Picture, "svg", lambda _: "<svg></svg>")
    monkeypatch.setattr(Picture, "_bytes", lambda *_: b"")


#: Files that read the same figures, which take long to draw.
GALLERY = {f"tests/show/test_{name}.py" for name in ("outputs", "plots", "rank_report", "report")}
#: What takes longest goes first, so that at the end no process is alone with it.
LONGEST = (
    "tests/show/browser/test_browser.py", "gallery", "tests/test_cli.py", "tests/show/test_reproduce.py",
    "tests/test_designs_b.py", "tests/moments/test_engines.py", "tests/diagnose/test_q_small_samples.py",
    "tests/audit/test_audit.py",
)  # fmt: skip


def together(nodeid: str) -> str:
    """Tests that share what takes long to make: those of a file, of the gallery, or of one example."""
    file, _, test = nodeid.partition("::")
    if file == "tests/test_examples.py" and "[" in test:
        return test.partition("[")[2]
    return "gallery" if file in GALLERY else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(together(item.nodeid), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2`` one process runs what belongs together, so that it is made once, in the order of above.

    (``--dist loadgroup`` would ask for marks, and pytest-xdist 3.8 with pytest 9 does not see them.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False
    return Together(config, log)


def pytest_collection_finish() -> None:
    """The search for cyclic garbage passes over what thousands of tests brought with them, and comes less often.

    It took an eighth of the time of drawing. What is left open is still found: at the end pytest collects everything.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_unconfigure() -> None:
    """Libraries that count what is left of theirs at the end find nothing of ours."""
    gc.unfreeze()

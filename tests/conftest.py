"""What all tests share: a Hypothesis profile that is the same on every run, and the golden folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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

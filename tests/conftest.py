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

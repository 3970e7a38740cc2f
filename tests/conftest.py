"""What all tests share: the checkout, optional shared data, and how hypothesis searches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent

# bin/tradebot prefers .venv; a test that starts it means the Python that runs the tests.
os.environ.setdefault("TRADEBOT_PYTHON", sys.executable)

# No deadline anywhere: a slow machine is no error. In CI the examples are the same each time, so that a red build is
# red for its change; at home they vary, so that new ones are found.
settings.register_profile("home", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("home"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "home")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional directory of shared data: $TRADEBOT_SHARED, else `shared` beside the checkout. Skips without it."""
    place = Path(os.environ.get("TRADEBOT_SHARED", REPO.parent / "shared"))
    if not (place / "data").is_dir():
        pytest.skip(f"no shared data at {place} (set TRADEBOT_SHARED to where it is)")
    return place

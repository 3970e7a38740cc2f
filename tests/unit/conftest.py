"""Fixtures of several folders of unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.store_helpers import Logged


@pytest.fixture
def logged() -> Iterator[Logged]:
    """A log that keeps its lines."""
    kept = Logged()
    yield kept
    kept.log.close()

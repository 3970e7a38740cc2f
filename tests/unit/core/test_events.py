"""What is said of events beside their fields."""

from __future__ import annotations

import pytest

from tradebot.core.events import FINAL_STATUSES, NoticeKind, NoticeOrigin, origin_of


@pytest.mark.parametrize(
    ("kind", "origin"),
    [
        ("GAP", "INPUT"),
        ("LINK_LOST", "INPUT"),
        ("HALT", "INPUT"),
        ("RESUME", "INPUT"),
        ("RESTART", "INPUT"),
        ("BREAKER_TRIPPED", "DERIVED"),
        ("BREAKER_RELEASED", "DERIVED"),
        ("SPILL_ORPHANED", "STORAGE"),
    ],
)
def test_origins_of_notices(kind: NoticeKind, origin: NoticeOrigin) -> None:
    assert origin_of(kind) == origin


def test_final_statuses() -> None:
    assert sorted(FINAL_STATUSES) == ["CANCELED", "EXPIRED", "FILLED", "REJECTED"]

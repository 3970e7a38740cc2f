"""The fields that a feed's status gives a log line."""

from tradebot.feeds.status import NO_LINK, FeedStatus, SymbolsLook

LINKED = FeedStatus("up", frames=7, last_frame_age_ms=12, overdue_ms=0)
FIELDS = {"link": "up", "frames": 7, "last_frame_age_ms": 12, "overdue_ms": 0, "retry_after_s": None}


def test_a_feed_without_a_link_has_no_fields() -> None:
    assert NO_LINK.log_fields() == {}


def test_a_link_gives_all_its_fields() -> None:
    assert LINKED.log_fields() == FIELDS


def test_symbols_are_counted_and_not_named() -> None:
    symbols = SymbolsLook(requested=9, refused={"A": "no"}, refused_count=1, silent=("B",), silent_count=2)
    status = FeedStatus("up", frames=7, last_frame_age_ms=12, overdue_ms=0, symbols=symbols)
    assert status.log_fields() == FIELDS | {"symbols_refused": 1, "symbols_silent": 2}

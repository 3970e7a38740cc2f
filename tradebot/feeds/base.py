"""What every feed gives the ingest thread, whatever it reads from."""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Struct

from tradebot.core.events import Notice, Tick
from tradebot.feeds.status import FeedStatus

NOTES_MAX: Final = 20
"""Malformed lines described in one batch; the rest is only counted."""

READ_WAIT_S: Final = 0.5
"""The longest a `Feed.read` may block, so that a stop is noticed in time."""


class Malformed(Struct, frozen=True, gc=False):
    """One line or frame that could not be understood: its number (from 1) in the input, and why."""

    line: int
    reason: str


class FeedBatch(Struct):
    """What one `Feed.read` found: good ticks in arrival order, and what could not be understood beside them.

    `malformed` counts lines or frames since the previous batch; `notes` describes the first NOTES_MAX of them.
    `notices` are (index, notice): each comes before the tick of that index, len(ticks) meaning after the last.
    `duplicates`, `history_dropped` and `out_of_band` count trades that the feed left out. An empty batch means that
    nothing came within READ_WAIT_S.
    """

    ticks: list[Tick]
    malformed: int = 0
    notes: tuple[Malformed, ...] = ()
    notices: tuple[tuple[int, Notice], ...] = ()
    duplicates: int = 0
    history_dropped: int = 0
    out_of_band: int = 0


class Feed(Protocol):
    """A source of ticks. Used by one thread (ingest), except `position` and `total`."""

    @property
    def push(self) -> bool:
        """True: the world does not wait, so overload ends the run. False (replay): every full channel waits."""
        ...

    @property
    def total(self) -> int | None:
        """What `position` will be at the end, or None when that is unknown. Any thread; never blocks."""
        ...

    @property
    def position(self) -> int:
        """How far the feed has read, in bytes or rows, for a progress bar. Any thread; never blocks."""
        ...

    def status(self) -> FeedStatus:
        """The state of its link; `NO_LINK` for a feed without a link. Any thread; never blocks."""
        ...

    def read(self) -> FeedBatch | None:
        """The next ticks, or None when the feed has ended.

        Blocks at most READ_WAIT_S. Raises ConfigError when the input cannot be read and ParseError when it cannot be
        accepted; everything good before that has been handed out by earlier calls.
        """
        ...

    def close(self) -> None:
        """Give back files and sockets. Idempotent; never while another thread is inside `read`."""
        ...

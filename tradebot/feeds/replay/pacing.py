"""Replay at the speed of the recording, or a multiple of it (`--speed=realtime|Nx`)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from tradebot.config.validation import InvalidValue, show
from tradebot.core.cancellation import Cancellation
from tradebot.core.events import Notice, Tick, as_unix_ms
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.feeds.base import READ_WAIT_S, Feed, FeedBatch
from tradebot.feeds.status import FeedStatus
from tradebot.output.log import Log

LONG_WAIT_S: Final = 60.0
SAY_EVERY_S: Final = 600.0
_SPEED_MIN: Final = 0.001
_SPEED_MAX: Final = 1_000_000.0


def parse_speed(text: str) -> float | None:
    """How many times as fast as it was recorded a session is replayed, None for "max". Raises InvalidValue."""
    word = text.lower()
    if word in ("max", "realtime"):
        return None if word == "max" else 1.0
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)x", word)
    if match is None:
        raise InvalidValue(f"must be max, realtime or a multiple such as 10x, not {show(text)}")
    if not _SPEED_MIN <= float(match[1]) <= _SPEED_MAX:
        raise InvalidValue(f"must be between {_SPEED_MIN:g}x and {_SPEED_MAX:.0f}x, not {show(text)}")
    return float(match[1])


class Pacer:
    """When recorded ticks are due. Pure. The first is due immediately, each other one as much later as its ts is later.

    The schedule is fixed by the first tick: a late reader catches up, and delays do not accumulate. A ts below the
    latest seen (out of order, or a clock set back) was due before its predecessor, that is at once.
    """

    def __init__(self, speed: float) -> None:
        if not (speed > 0 and math.isfinite(speed)):
            raise ValueError(f"speed {speed} is not above 0 and finite")
        self._ms_per_s = 1000 * speed
        self._first_ms: int | None = None

    def due_s(self, tick: Tick) -> float:
        """Seconds after the first tick at which this one is due. Give every tick, in order."""
        ts_ms = as_unix_ms(tick.ts)
        if self._first_ms is None:
            self._first_ms = ts_ms
        return (ts_ms - self._first_ms) / self._ms_per_s


class PacedFeed:
    """A replay feed that returns the ticks of another feed when they are due. It owns the other feed.

    Malformed lines are reported as soon as they are read, so up to one batch ahead of the ticks beside it. A wait of
    more than LONG_WAIT_S for the next tick is logged when it begins, and every SAY_EVERY_S while it lasts.
    """

    def __init__(self, feed: Feed, speed: float, runtime: Runtime, cancel: Cancellation, log: Log) -> None:
        self._feed = feed
        self._pacer = Pacer(speed)
        self._runtime = runtime
        self._cancel = cancel
        self._position = feed.position
        self._batch_span = (feed.position, feed.position)
        self._waiting: Sequence[Tick] = ()
        self._notices: tuple[tuple[int, Notice], ...] = ()
        self._next = 0
        self._next_due_s = 0.0
        self._start_s: float | None = None
        self._log = log.bind("feed")
        self._say_at_s = 0.0

    @property
    def push(self) -> bool:
        """That of the paced feed (False: only replays are paced)."""
        return self._feed.push

    @property
    def total(self) -> int | None:
        """That of the paced feed."""
        return self._feed.total

    @property
    def position(self) -> int:
        """That of the paced feed, in proportion to what of its last batch was handed out."""
        return self._position

    def read(self) -> FeedBatch | None:
        """What is due, after a wait of at most READ_WAIT_S for it; possibly nothing. Either waits or reads on, so
        that both together never block for longer than that.
        """
        if self._next < len(self._waiting):
            return self._wait_and_take()
        before = self._feed.position
        batch = self._feed.read()
        if batch is None:
            self._position = self._feed.position
            return None
        self._batch_span = (before, self._feed.position)
        self._waiting, self._notices, self._next = batch.ticks, batch.notices, 0
        if batch.ticks:
            self._next_due_s = self._pacer.due_s(batch.ticks[0])
            if self._start_s is None:
                self._start_s = self._runtime.monotonic()
        due = self._take()
        return replace(batch, ticks=due.ticks, notices=due.notices)

    def _elapsed_s(self) -> float:
        return 0.0 if self._start_s is None else self._runtime.monotonic() - self._start_s

    def _wait_and_take(self) -> FeedBatch:
        wait_s = self._next_due_s - self._elapsed_s()
        if wait_s > 0:
            if wait_s > LONG_WAIT_S:
                self._say(wait_s)
            self._cancel.wait(min(wait_s, READ_WAIT_S))
        return self._take()

    def _say(self, wait_s: float) -> None:
        now_s = self._elapsed_s()
        if now_s < self._say_at_s:
            return
        self._say_at_s = now_s + SAY_EVERY_S
        self._log.warning(
            "waiting for the next tick of the recording", event=LogEvent.REPLAY_WAITS, wait_s=round(wait_s, 1),
            next_ts=self._waiting[self._next].ts, hint="--speed=Nx replays faster, --speed=max without any wait",
        )  # fmt: skip

    def _take(self) -> FeedBatch:
        """The ticks at the front that are due now, with the notices among them.

        Asks the pacer about each tick once, in order.
        """
        # Grace for waits that end a rounding error early.
        now_s = self._elapsed_s() + 1e-6
        start = self._next
        while self._next < len(self._waiting) and self._next_due_s <= now_s:
            self._next += 1
            self._say_at_s = 0.0
            if self._next < len(self._waiting):
                self._next_due_s = self._pacer.due_s(self._waiting[self._next])
        begin, end = self._batch_span
        self._position = begin + (end - begin) * self._next // len(self._waiting) if self._waiting else end
        notices = tuple((index - start, notice) for index, notice in self._notices if index <= self._next)
        self._notices = self._notices[len(notices) :]
        return FeedBatch(list(self._waiting[start : self._next]), notices=notices)

    def status(self) -> FeedStatus:
        """That of the paced feed."""
        return self._feed.status()

    def close(self) -> None:
        """Close the paced feed. Idempotent."""
        self._feed.close()

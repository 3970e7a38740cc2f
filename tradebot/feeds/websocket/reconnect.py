"""When a feed connects again, and when it gives up. Pure: the monotonic time and the random fraction are arguments.

The first retry after a loss is made at once, the following ones after a capped exponential delay with full jitter
(any time from none to the whole delay, so that many clients of one server do not come back together). Only a
connection that was up for `stable_after_s` when it was lost lets the delay start small again: a server that accepts
and hangs up is not stormed. The budget is another matter: it bounds the time without a completed handshake, and
restarts with each loss. The time that a server requested with Retry-After does not count against it.
"""

from __future__ import annotations

from typing import Final

from tradebot.feeds.websocket.http import RETRY_AFTER_MAX_S

BASE_S: Final = 1.0
"""The first delay before jitter; it doubles with each attempt."""

ATTEMPT_LEAST_S: Final = 0.1
"""An attempt is never given less time than this: a timeout of nearly nothing could not succeed."""

_EXPONENT_MAX: Final = 30


class ReconnectPolicy:
    """The state machine of one link: `begin`, then `connected` or `failed` per attempt, `lost` per connection.

    `backoff_max_s` caps the delay, `stable_after_s` is how long a connection must be up to count as good, `budget_s`
    bounds the time from `begin` or a loss to a completed handshake, less what the server asked for; 0 means a single
    attempt. Seconds, at least 0. No delay is longer than half the budget: it would be giving up in disguise.
    """

    def __init__(self, backoff_max_s: float, stable_after_s: float, budget_s: float) -> None:
        self._delay_max_s = min(backoff_max_s, budget_s / 2 if budget_s > 0 else BASE_S)
        self._stable_after_s = stable_after_s
        self._budget_s = budget_s
        self._exponent = 0
        self._at_once = True
        self._next_attempt_s = 0.0
        self._deadline_s: float | None = None
        self._connected_at_s: float | None = None
        self._attempts = 0

    @property
    def next_attempt_s(self) -> float:
        """The earliest time of the next attempt; meaningless while connected."""
        return self._next_attempt_s

    @property
    def deadline_s(self) -> float | None:
        """When the budget ends, or None while connected."""
        return self._deadline_s

    @property
    def attempts(self) -> int:
        """Attempts that have ended since `begin` or the last loss, the successful one included."""
        return self._attempts

    def begin(self, now_s: float, asked_s: float = 0.0) -> None:
        """The feed starts: the first attempt may be made at once, or after the `asked_s` that the server asked an
        earlier process for. Then the budget runs.
        """
        self._wait(now_s + asked_s, now_s + asked_s)

    def connected(self, now_s: float) -> None:
        """A handshake was completed."""
        self._attempts += 1
        self._connected_at_s = now_s
        self._deadline_s = None

    def lost(self, now_s: float, fraction: float, asked_s: float = 0.0) -> None:
        """The connection has ended. `fraction`: a random number from 0 to below 1.

        `asked_s`: how much is left of the time that the server asked for while it was up. Then the budget runs.
        """
        if self._connected_at_s is None:
            raise ValueError("lost, but not connected")
        if now_s - self._connected_at_s >= self._stable_after_s:
            self._exponent = 0
            self._at_once = True
        delay_s = 0.0 if self._at_once else self._next_delay_s(fraction)
        self._at_once = False
        self._wait(now_s + asked_s, now_s + max(delay_s, asked_s))

    def failed(self, now_s: float, fraction: float, retry_after_s: float | None = None) -> None:
        """An attempt ended without a completed handshake. `fraction` as for `lost`.

        `retry_after_s`: the server (429 or 503) asked to be left alone so long; that counts even beyond the largest
        delay, up to RETRY_AFTER_MAX_S, and moves the deadline by as much.
        """
        if self._connected_at_s is not None:
            raise ValueError("failed, but connected")
        self._attempts += 1
        self._at_once = False
        delay_s = self._next_delay_s(fraction)
        if retry_after_s is not None and retry_after_s > 0:
            asked_s = min(retry_after_s, RETRY_AFTER_MAX_S)
            delay_s = max(delay_s, asked_s)
            assert self._deadline_s is not None  # there is one whenever an attempt is made
            self._deadline_s += asked_s
        self._next_attempt_s = now_s + delay_s

    def exhausted(self, now_s: float) -> bool:
        """Whether the budget has passed without a completed handshake. Never before the first attempt."""
        return self._attempts > 0 and self._deadline_s is not None and now_s >= self._deadline_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next attempt or the end of the budget. Never below 0."""
        until_s = self._next_attempt_s
        if self._attempts > 0 and self._deadline_s is not None:
            until_s = min(until_s, self._deadline_s)
        return max(0.0, until_s - now_s)

    def attempt_timeout_s(self, now_s: float, connect_timeout_s: float) -> float:
        """The timeout of an attempt made now: `connect_timeout_s`, or the rest of the budget if that is less.

        At least ATTEMPT_LEAST_S (or `connect_timeout_s` where that is less); the first attempt gets all of
        `connect_timeout_s` when less than that is left.
        """
        left_s = connect_timeout_s if self._deadline_s is None else self._deadline_s - now_s
        if self._attempts == 0 and left_s < ATTEMPT_LEAST_S:
            return connect_timeout_s
        return min(connect_timeout_s, max(left_s, ATTEMPT_LEAST_S))

    def _wait(self, now_s: float, next_attempt_s: float) -> None:
        """The link has been down since `now_s`."""
        self._connected_at_s = None
        self._deadline_s = now_s + self._budget_s
        self._next_attempt_s = next_attempt_s
        self._attempts = 0

    def _next_delay_s(self, fraction: float) -> float:
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction {fraction} is not from 0 to below 1")
        delay_s = fraction * min(self._delay_max_s, BASE_S * 2.0**self._exponent)
        self._exponent = min(self._exponent + 1, _EXPONENT_MAX)
        return delay_s

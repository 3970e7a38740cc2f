"""Decides from deadlines whether an open connection is alive. Pure: the monotonic time is an argument.

A half-open connection, a peer that is mute and one that stops in the middle of a frame all look alike: no whole frame
comes. Any frame is life, pongs included, so that a quiet market is not a dead feed.

Pings are due at a fixed interval, whether or not frames come: several exchanges hang up on clients that say nothing
for a while, however much they themselves have to say, and so do some routers.
"""

from __future__ import annotations


class Liveness:
    """The deadlines of one link; `opened` restarts them for each connection.

    `idle_timeout_s`: the longest time without a frame. `subscribe_timeout_s`: the longest time from opening to the
    first ack or trade, where the exchange confirms subscriptions. All in seconds, above 0.
    """

    def __init__(self, idle_timeout_s: float, ping_interval_s: float, subscribe_timeout_s: float) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._ping_interval_s = ping_interval_s
        self._subscribe_timeout_s = subscribe_timeout_s
        self._idle_at_s = 0.0
        self._ping_at_s = 0.0
        self._confirm_by_s: float | None = None

    def opened(self, now_s: float, expects_ack: bool) -> None:
        """The handshake was completed, which counts as a frame and as a ping."""
        self._idle_at_s = now_s + self._idle_timeout_s
        self._ping_at_s = now_s + self._ping_interval_s
        self._confirm_by_s = now_s + self._subscribe_timeout_s if expects_ack else None

    def received(self, now_s: float) -> None:
        """A complete frame of any kind was received."""
        self._idle_at_s = now_s + self._idle_timeout_s

    def confirmed(self) -> None:
        """The subscription is confirmed: by the exchange, or by a trade."""
        self._confirm_by_s = None

    def pinged(self, now_s: float) -> None:
        """A ping was sent."""
        self._ping_at_s = now_s + self._ping_interval_s

    def ping_due(self, now_s: float) -> bool:
        """Whether to send a ping."""
        return now_s >= self._ping_at_s

    def dead(self, now_s: float) -> str | None:
        """Why the connection must be closed, or None. Of two reasons, the earlier one.

        Ask only after everything that had arrived was taken in with `received`: a process that was stopped for a
        while would otherwise blame the peer.
        """
        confirm_by_s = self._confirm_by_s
        if confirm_by_s is not None and now_s >= confirm_by_s and confirm_by_s < self._idle_at_s:
            return f"subscription not confirmed within {self._subscribe_timeout_s:g} s"
        if now_s >= self._idle_at_s:
            return f"no frame for {self._idle_timeout_s:g} s"
        return None

    def wait_s(self, now_s: float, most_s: float) -> float:
        """How long a receive may block: until the next ping or deadline, from 0 to `most_s`."""
        until_s = min(self._idle_at_s, self._ping_at_s)
        if self._confirm_by_s is not None:
            until_s = min(until_s, self._confirm_by_s)
        return max(0.0, min(until_s - now_s, most_s))

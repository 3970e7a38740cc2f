"""How many log lines of one kind may be written. Pure: time is an argument, in seconds on a monotonic clock."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, NamedTuple

WINDOW_S: Final = 1.0
MAX_KINDS: Final = 256
MAX_KIND_CHARS: Final = 200
OTHER_KINDS: Final = "(other messages)"


class Suppressed(NamedTuple):
    """How many lines of a kind were held back since this was last asked."""

    kind: str
    event: object
    """That of the first line of this kind; None if it had none, and for OTHER_KINDS."""
    lines: int


class _Kind:
    """State of one kind: the times of its last lines, and how many were held back and reported so far."""

    __slots__ = ("blocked_until_s", "event", "reported", "suppressed", "times")

    def __init__(self, limit: int, event: object) -> None:
        self.event = event
        self.times: deque[float] = deque(maxlen=limit)
        self.blocked_until_s = -inf
        self.suppressed = 0
        self.reported = 0


class RateLimiter:
    """Admits at most `limit` lines of one kind in any `window_s` seconds (a sliding window), and counts the rest.

    Memory is bounded: at most `max_kinds` kinds are distinguished; while more are active, the further ones share one
    allowance under the name OTHER_KINDS. Used by one thread, except `take_suppressed`, which another thread may call
    if no two threads call it at once; nothing blocks.
    """

    __slots__ = ("_kinds", "_limit", "_max_kinds", "_sweep_at_s", "_window_s", "report_at_s")

    def __init__(self, limit: int, window_s: float = WINDOW_S, max_kinds: int = MAX_KINDS) -> None:
        self._limit = limit
        self._window_s = window_s
        self._max_kinds = max_kinds
        self._kinds: dict[str, _Kind] = {}
        self._sweep_at_s = -inf
        self.report_at_s = inf
        """From when on held-back lines are due to be reported; infinity while there are none."""

    def admit(self, kind: str, now_s: float, event: object = None) -> bool:
        """Whether a line of this kind may be written now: if so it counts as written, otherwise as held back."""
        state = self._kinds.get(kind) or self._state_of(kind, now_s, event)
        if now_s < state.blocked_until_s:
            self._hold_back(state, 1, now_s)
            return False
        times = state.times
        times.append(now_s)
        if len(times) == self._limit:
            state.blocked_until_s = times[0] + self._window_s
        return True

    def has_room(self, kind: str, now_s: float, lines: int = 1) -> bool:
        """Whether `admit` would say yes now. A no counts as `lines` lines held back, a yes as nothing."""
        state = self._kinds.get(kind)
        if state is None or now_s >= state.blocked_until_s:
            return True
        self._hold_back(state, lines, now_s)
        return False

    def _hold_back(self, state: _Kind, lines: int, now_s: float) -> None:
        state.suppressed += lines
        if self.report_at_s == inf:
            self.report_at_s = now_s + self._window_s

    def take_suppressed(self) -> list[Suppressed]:
        """Each kind with lines held back since the last call, and how many."""
        # Before the counts are read: a line held back from here on sets it again and is not forgotten.
        self.report_at_s = inf
        taken = []
        for kind, state in list(self._kinds.items()):
            lines = state.suppressed - state.reported
            if lines:
                state.reported += lines
                taken.append(Suppressed(kind, state.event, lines))
        return taken

    def _state_of(self, kind: str, now_s: float, event: object) -> _Kind:
        """The state of a kind that is not in the table under its full text."""
        kinds = self._kinds
        kind = kind[:MAX_KIND_CHARS]
        if kind not in kinds and len(kinds) >= self._max_kinds:
            self._sweep(now_s)
            if len(kinds) >= self._max_kinds:
                kind, event = OTHER_KINDS, None
        state = kinds.get(kind)
        if state is None:
            state = kinds[kind] = _Kind(self._limit, event)
        return state

    def _sweep(self, now_s: float) -> None:
        """Forget the kinds that were quiet for a window, looking at them all at most once a window."""
        if now_s < self._sweep_at_s:
            return
        self._sweep_at_s = now_s + self._window_s
        for kind, state in list(self._kinds.items()):
            quiet = not state.times or now_s - state.times[-1] >= self._window_s
            if quiet and state.suppressed == state.reported:
                del self._kinds[kind]

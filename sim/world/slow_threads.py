"""A runtime in which chosen threads are slow, crash or hang: faults are injected in the seam, not in the product."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from tradebot.core.runtime import Condition, Lock, Runtime

_FOR_EVER_S: Final = 1e6


class InjectedCrash(Exception):
    """A crash requested by a scenario."""


class FaultyRuntime:
    """Wraps a runtime, real or simulated, and delays or crashes threads by name when they use a channel.

    Each time a thread enters a condition, it first sleeps `delays_s[name]` seconds; at the `crashes[name]`-th time it
    raises InjectedCrash instead. Everything else is the wrapped runtime's.
    """

    def __init__(
        self, inner: Runtime, delays_s: Mapping[str, float] | None = None, crashes: Mapping[str, int] | None = None
    ) -> None:
        self._inner = inner
        self._delays_s = dict(delays_s or {})
        self._crashes = dict(crashes or {})
        self._entries: dict[str, int] = {}
        self._hangs: dict[str, Callable[[], None]] = {}
        self._on_injected: Callable[[], None] = lambda: None
        self.crashed = False
        """Whether a thread was made to crash."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def condition(self, lock: Lock | None = None) -> Condition:
        """A condition of the wrapped runtime that delays threads on entry."""
        return _DelayedCondition(self, self._inner.condition(lock))

    def delay_thread(self, name: str, delay_s: float) -> None:
        """Delay the thread called `name` from now on; 0: no delay."""
        self._delays_s[name] = delay_s

    def crash(self, name: str, nth: int, on_injected: Callable[[], None]) -> None:
        """Have the thread called `name` raise InjectedCrash at its `nth` entry; `on_injected` is called just before."""
        self._crashes[name] = nth
        self._on_injected = on_injected

    def hang(self, name: str, on_injected: Callable[[], None]) -> None:
        """Make the thread called `name` hang at its next entry; `on_injected` is called when it does."""
        self._hangs[name] = on_injected

    def release(self) -> None:
        """Stop injecting delays, crashes and hangs; a hung thread keeps hanging."""
        self._hangs.clear()
        self._delays_s.clear()
        self._crashes.clear()

    def hold(self) -> None:
        """Inject faults into a thread that is about to enter a condition."""
        name = threading.current_thread().name
        if name in self._hangs:
            self._hangs.pop(name)()
            self._inner.sleep(_FOR_EVER_S)
        if name in self._crashes:
            self._entries[name] = self._entries.get(name, 0) + 1
            if self._entries[name] == self._crashes[name]:
                self.crashed = True
                self._on_injected()
                raise InjectedCrash(f"thread {name} crashed by the scenario")
        delay_s = self._delays_s.get(name, 0.0)
        if delay_s:
            self._inner.sleep(delay_s)


class _DelayedCondition:
    def __init__(self, owner: FaultyRuntime, inner: Condition) -> None:
        self._owner = owner
        self._inner = inner

    def __enter__(self) -> object:
        self._owner.hold()
        return self._inner.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object:
        return self._inner.__exit__(kind, error, trace)

    def wait(self, timeout: float | None = None) -> bool:
        return self._inner.wait(timeout)

    def notify(self, n: int = 1) -> None:
        self._inner.notify(n)

    def notify_all(self) -> None:
        self._inner.notify_all()

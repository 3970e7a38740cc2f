"""How a contract test is driven: one body, the real runtime once and the simulated one over several seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tradebot.core.runtime import Runtime, Thread

LONG_S = 20.0
"""A wait that only a failing test waits out."""


@dataclass(frozen=True)
class Stage:
    """What a body gets: a runtime, a short time in seconds that is worth waiting for, and a way to send SIGTERM."""

    runtime: Runtime
    short_s: float
    send_signal: Callable[[], None]

    def finish(self, *threads: Thread) -> None:
        """Join all; fail when one does not end."""
        for thread in threads:
            thread.join(LONG_S)
            assert not thread.is_alive(), f"thread {thread.name} hangs"


Body = Callable[[Stage], None]
Drive = Callable[[Body], None]

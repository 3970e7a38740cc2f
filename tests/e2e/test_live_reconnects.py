"""A hundred lost connections do not increase the number of threads and sockets, nor the memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from mockws_server import actions
from tests.e2e.live import Live, notices, now_ms
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import Engine, wait_until

RECONNECTS = 100
GROWTH_KIB_MAX = 1536
"""An allowance for the allocator: below a quarter of a receive buffer (64 KiB) for each connection."""

LOSSES: tuple[tuple[actions.Action, ...], ...] = (
    (actions.Disconnect(1012),),
    (actions.Reset(),),
    (actions.Disconnect(1006),),
    (actions.FrameOut(11),),  # after which the engine must close the connection
    (actions.Reject(503), actions.Refuse(count=1, reset=True), actions.Disconnect(1001)),  # two attempts that fail
)


class Held(NamedTuple):
    """Resources of a process, from /proc."""

    threads: int
    descriptors: int
    sockets: int

    @classmethod
    def by(cls, pid: int) -> Held:
        place = Path(f"/proc/{pid}")
        targets = []
        for entry in (place / "fd").iterdir():
            try:
                targets.append(os.readlink(entry))
            except FileNotFoundError:  # closed in the meantime
                continue
        return cls(len(list((place / "task").iterdir())), len(targets), sum(t.startswith("socket:") for t in targets))

    def within(self, before: Held) -> bool:
        """Whether they do not exceed those of `before`."""
        return all(now <= then for now, then in zip(self, before, strict=True))


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.slow
def test_a_hundred_reconnects_leave_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    """Threads and sockets as after ten reconnects, memory nearly so; every loss has a notice, ticks in between."""
    with MockWsProcess(tmp_path) as mockws:
        live = Live(engine, f"--ws-url={mockws.url}", feed__backoff_max_s=0.1)
        mockws.wait_said(" connected from ")
        pid = live.running.pid

        def lose(number: int) -> None:
            tick = {"symbol": "X", "price": 100.0, "volume": 1.0, "ts": now_ms(), "seq": number}
            mockws.control(actions.OneTick(tick))
            for action in LOSSES[number % len(LOSSES)]:
                mockws.control(action)
            mockws.wait_said(" connected from ", number + 1)

        for number in range(1, 11):
            lose(number)
        live.wait_notice("LINK_RESTORED", 10)
        before, before_kib = Held.by(pid), resident_kib(pid)
        for number in range(11, 11 + RECONNECTS):
            lose(number)
        live.wait_notice("LINK_RESTORED", 10 + RECONNECTS)
        after_kib = resident_kib(pid)
        print(f"\n{before}, {before_kib} KiB; {RECONNECTS} reconnects later {Held.by(pid)}, {after_kib} KiB")
        assert before.sockets == 1
        wait_until(lambda: Held.by(pid).within(before), f"no more than {before}", 5.0)
        assert after_kib <= before_kib + GROWTH_KIB_MAX
        ledger = live.stop().ledger
    assert ledger["stored"] == ledger["received"] == 10 + RECONNECTS
    assert len(notices(live.db, "LINK_LOST")) == 10 + RECONNECTS

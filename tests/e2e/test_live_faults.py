"""Faults of a live feed with real processes: detected in time, recovered, stored once, explained.

Each test prints rows of the table fault | deadline | detected after | result (`pytest -s` shows them).
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mockws_server import actions
from tests.e2e.live import BACKOFF_S, CONNECT_S, IDLE_S, SLACK_S, Live, in_time, logged, notices, now_ms, stored_ticks
from tests.e2e.live_peers import Link
from tests.e2e.mockws import MockWsProcess
from tests.e2e.process import Engine, wait_until
from tradebot.core.log_events import LogEvent

PER_S = 100.0
UNTIL_THE_END = 1_000_000


@pytest.fixture
def mockws(tmp_path: Path) -> Iterator[MockWsProcess]:
    with MockWsProcess(tmp_path) as process:
        yield process


def listening(engine: Engine, mockws: MockWsProcess, url: str | None = None, **keys: Any) -> Live:
    """An engine that has received its first ticks and receives a hundred a second."""
    live = Live(engine, f"--ws-url={url or mockws.url}", **keys)
    mockws.wait_said(" connected from ")
    mockws.control(actions.Ticks(UNTIL_THE_END, PER_S))
    live.wait_ticks(10)
    return live


@pytest.mark.parametrize("silence", [actions.Stall(60), actions.HalfFrame()], ids=actions.name_of)
def test_a_peer_that_falls_silent(engine: Engine, mockws: MockWsProcess, silence: actions.Action) -> None:
    """A mute peer, also in the middle of a frame: lost at idle_timeout_s, restored immediately, the gap is reported."""
    live = listening(engine, mockws)
    fault_ms = now_ms()
    mockws.control(silence)
    lost = live.wait_notice("LINK_LOST")
    in_time(actions.name_of(silence), fault_ms, lost.ts, IDLE_S)
    assert lost.detail == "no frame for 1 s"
    restored = live.wait_back()
    in_time("restored after it", lost.ts, restored.ts, 0)
    done = live.stop()
    [gap] = notices(live.db, "GAP")
    assert gap.missing is not None and gap.missing >= (IDLE_S - 0.2) * PER_S * 0.5
    assert len(done.all(LogEvent.LINK_LOST)) == 1


ENDS: tuple[tuple[actions.Action, str], ...] = (
    (actions.Disconnect(1000), "1000"),
    (actions.Disconnect(1001), "1001"),
    (actions.Disconnect(1006), "1006"),
    (actions.Disconnect(1011, "internal error"), "1011"),
    (actions.Disconnect(1013, "try again later"), "1013"),
    (actions.Reset(), "reset by peer (close code 1006)"),
)


def test_connections_that_are_ended(engine: Engine, mockws: MockWsProcess) -> None:
    """Close codes, the end of the stream, a TCP reset: detected and restored immediately, in any sequence."""
    live = listening(engine, mockws)
    for number, (end, said) in enumerate(ENDS, 1):
        fault_ms = now_ms()
        mockws.control(end)
        lost = live.wait_notice("LINK_LOST", number)
        in_time(actions.describe(end), fault_ms, lost.ts, 0)
        assert said in lost.detail
        restored = live.wait_back(number)
        in_time("restored after it", lost.ts, restored.ts, 0)
    live.stop()


def test_a_handshake_that_never_ends(engine: Engine, mockws: MockWsProcess) -> None:
    """The attempt is abandoned at connect_timeout_s, and the next one follows."""
    live = listening(engine, mockws)
    mockws.control(actions.DelayHandshake(3600))
    mockws.control(actions.Disconnect(1001))
    lost = live.wait_notice("LINK_LOST")
    live.wait_back()
    [(failed_ms, failed)] = logged(live.stop(), LogEvent.CONNECT_FAILED)
    in_time("delay_handshake", lost.ts, failed_ms, CONNECT_S)
    assert "no answer of 127.0.0.1 to the WebSocket handshake within 0.8 s" in failed["reason"]


@pytest.mark.slow
def test_429_then_503_with_retry_after(engine: Engine, mockws: MockWsProcess) -> None:
    """The next attempt comes when Retry-After has passed, which is longer than any backoff here, and not earlier."""
    live = listening(engine, mockws)
    mockws.control(actions.Reject(429, retry_after_s=1))
    mockws.control(actions.Reject(503, retry_after_s=1))
    fault_ms = now_ms()
    mockws.control(actions.Disconnect(1013))
    restored = live.wait_back()
    done = live.stop()
    (first_ms, first), (second_ms, second) = logged(done, LogEvent.CONNECT_FAILED)
    assert (first["status"], second["status"]) == (429, 503)
    in_time("reject 429", fault_ms, first_ms, 0)
    in_time("reject 503 after Retry-After: 1", first_ms, second_ms, 1)
    in_time("restored after Retry-After: 1", second_ms, restored.ts, 1)


def test_garbage_below_the_limit_and_at_it(engine: Engine, mockws: MockWsProcess) -> None:
    """Malformed frames: counted, logged at most once a second, saved; exit 11 at parse_error_limit."""
    limit = 20
    live = listening(engine, mockws, feed__parse_error_limit=limit)
    held = len(stored_ticks(live.db))
    mockws.control(actions.Garbage(limit - 1))
    live.wait_ticks(held + 20)
    assert not notices(live.db, "LINK_LOST")
    fault_ms = now_ms()
    mockws.control(actions.Garbage(limit))
    done = live.end(11)
    [(ledger_ms, ledger)] = logged(done, LogEvent.LEDGER)
    in_time("garbage at the limit", fault_ms, ledger_ms, 0, "exit 11")
    assert ledger["malformed"] == 2 * limit - 1
    assert f"{limit} frames in a row from ws://127.0.0.1" in done.stderr
    told = done.all(LogEvent.MALFORMED_INPUT)
    more = done.all(LogEvent.MALFORMED_SUPPRESSED)
    assert 1 <= len(told) <= 4
    assert len(told) + sum(fields["frames"] for fields in more) == ledger["malformed"]
    kept = [json.loads(line) for line in engine.path("x.db.quarantine.jsonl").read_text().splitlines()]
    assert len(kept) == ledger["malformed"]
    assert all(one["reason"] and ("text" in one or "base64" in one) for one in kept)
    assert not any(notice.kind != "LINK_UP" for notice in notices(live.db))


def test_a_burst_of_duplicates_and_a_gap(engine: Engine, mockws: MockWsProcess) -> None:
    """Repeated ticks are dropped and counted; missing numbers are a gap of that size, detected at the next tick."""
    live = listening(engine, mockws)
    mockws.control(actions.Duplicate(10))
    held = len(stored_ticks(live.db))
    live.wait_ticks(held + 3)
    assert not notices(live.db, "GAP")
    fault_ms = now_ms()
    mockws.control(actions.Skip(7))
    gap = live.wait_notice("GAP")
    live.wait_ticks(gap.ticks_before + 3)
    in_time("skip of 7 numbers", fault_ms, gap.ts, 8 / PER_S)
    assert (gap.symbol, gap.missing) == ("SOL/USDC", 7)
    ledger = live.stop().ledger
    assert ledger["duplicates"] == 10
    assert len(notices(live.db, "GAP")) == 1


def test_the_server_is_killed_and_started_again(engine: Engine, tmp_path: Path) -> None:
    """SIGKILL: the loss is detected immediately; attempts continue while the server is down; the numbers continue."""
    with MockWsProcess(tmp_path) as first:
        live = Live(engine, f"--ws-url={first.url}")
        first.wait_said(" connected from ")
        for seq in range(1, 11):
            first.tick(seq=seq)
        live.wait_ticks(10)
        fault_ms = now_ms()
        first.process.kill()
        lost = live.wait_notice("LINK_LOST")
        in_time("server killed", fault_ms, lost.ts, 0)
        assert "(close code 1006)" in lost.detail
        live.running.wait_for(LogEvent.CONNECT_FAILED)
        port = first.address[1]
    with MockWsProcess(tmp_path, f"--port={port}") as second:
        begun_ms = now_ms()  # a moment after it began to listen
        second.wait_said(" connected from ")
        for seq in range(15, 21):
            second.tick(seq=seq)
        restored = live.wait_notice("LINK_RESTORED")
        in_time("restored after the restart", begun_ms, restored.ts, BACKOFF_S, least_s=-SLACK_S)
        live.wait_ticks(16)
        done = live.stop()
    for fields in done.all(LogEvent.CONNECT_FAILED):
        # "reset": the attempt came before the system had released the resources of the dead process.
        assert fields["reason"].endswith(("127.0.0.1 connection refused", "connection reset by peer"))
    assert [(gap.ticks_before, gap.missing) for gap in notices(live.db, "GAP")] == [(10, 4)]


@pytest.mark.slow
def test_a_link_that_is_down_for_a_while(engine: Engine, mockws: MockWsProcess) -> None:
    """Nothing passes, without an error: lost at idle_timeout_s, restored with the link, the gap is reported."""
    with Link(mockws.address) as link:
        live = listening(engine, mockws, link.url)
        fault_ms = now_ms()
        link.cut()
        lost = live.wait_notice("LINK_LOST")
        in_time("link down", fault_ms, lost.ts, IDLE_S)
        live.running.wait_for(LogEvent.CONNECT_FAILED)
        mended_ms = now_ms()
        link.mend()
        restored = live.wait_back()
        # An attempt may end at this moment without an answer; then a backoff follows.
        in_time("restored when it is mended", mended_ms, restored.ts, BACKOFF_S, least_s=0)
        done = live.stop()
    for _ms, failed in logged(done, LogEvent.CONNECT_FAILED):
        assert "no answer of 127.0.0.1 to the WebSocket handshake within 0.8 s" in failed["reason"]
    [gap] = notices(live.db, "GAP")
    assert gap.missing is not None and gap.missing > 0


@pytest.mark.slow
def test_a_link_that_stays_down_ends_with_10(engine: Engine, mockws: MockWsProcess) -> None:
    """Exit 10 without a completed handshake for reconnect_budget_s, from the start or later."""
    budget_s = 1.2
    with Link(mockws.address) as link, Link(mockws.address, cut=True) as dead, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and no server listens
        live = listening(engine, mockws, link.url, feed__reconnect_budget_s=budget_s)
        downs = {
            "link down from the start": dead.url,
            "nobody listens": f"ws://127.0.0.1:{unused.getsockname()[1]}",
        }
        for fault, url in downs.items():
            down = Live(engine, f"--ws-url={url}", name=fault, feed__reconnect_budget_s=budget_s)
            done = down.end(10)
            [(started_ms, _)], [(ended_ms, _)] = (
                logged(done, LogEvent.INITIAL_DATABASE_STATE),
                logged(done, LogEvent.LEDGER),
            )
            in_time(fault, started_ms, ended_ms, budget_s, "exit 10")
            assert "within feed.reconnect_budget_s (1.2 s); the last attempt: " in done.stderr
            assert not notices(down.db)
        fault_ms = now_ms()
        link.cut()
        done = live.end(10)
    lost, [(ended_ms, _)] = notices(live.db, "LINK_LOST")[0], logged(done, LogEvent.LEDGER)
    in_time("link down", fault_ms, lost.ts, IDLE_S, "then:")
    in_time("and stays down", lost.ts, ended_ms, budget_s, "exit 10")
    assert "no answer of 127.0.0.1 to the WebSocket handshake" in done.stderr


@pytest.mark.slow
def test_a_stop_is_served_in_any_state_of_the_link(engine: Engine, mockws: MockWsProcess) -> None:
    """S13: SIGTERM while mute, waiting to connect, connecting and receiving: exit 0 within 2 s."""
    patient: dict[str, Any] = {
        "feed__idle_timeout_s": 60, "feed__ping_interval_s": 20, "feed__connect_timeout_s": 60,
        "feed__reconnect_budget_s": 600,
    }  # fmt: skip

    def start(name: str, said: str) -> Live:
        live = Live(engine, f"--ws-url={mockws.url}", name=name, **patient)
        mockws.wait_said(said)
        return live

    states = {"mute": start("mute", "client 1 connected")}
    mockws.control(actions.Stall(60))
    mockws.control(actions.Reject(429, retry_after_s=300))
    states["waiting"] = start("waiting", "rejecting a handshake")
    assert states["waiting"].running.wait_for(LogEvent.CONNECT_FAILED)["retry_in_s"] > 100
    mockws.control(actions.DelayHandshake(60))
    states["connecting"] = start("connecting", "delaying a handshake")
    states["receiving"] = start("receiving", "client 2 connected")
    mockws.control(actions.Ticks(UNTIL_THE_END, 1000.0))
    states["receiving"].wait_ticks(100)
    begun_s = time.monotonic()
    for live in states.values():
        live.ask_to_stop()
    done = {state: live.running.finish() for state, live in states.items()}
    took_s = time.monotonic() - begun_s
    print(f"\n| SIGTERM while {', '.join(states)} | 2 s | {took_s:.3f} s | exit 0 |")
    assert took_s < 2
    for state, live in states.items():
        assert done[state].code == 0, state
        assert live.end(0).ledger["stored"] >= (100 if state == "receiving" else 0)


def test_mockws_that_does_not_run_is_said_after_the_first_attempt(engine: Engine) -> None:
    """Regression: the hint to start bin/mockws came only with exit 10, two minutes later."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    running = engine.start("--ingest=mockws", f"--ws-url=ws://127.0.0.1:{port}", "--db=x.db")
    assert running.wait_for(LogEvent.CONNECT_FAILED)["hint"].startswith("is bin/mockws running?")
    wait_until(
        lambda: len([one for one in running._logs if one.get("event") == LogEvent.CONNECT_FAILED]) >= 2, "another try"
    )
    running.send(signal.SIGTERM)
    assert ["hint" in fields for fields in running.finish().expect(0).all(LogEvent.CONNECT_FAILED)][:2] == [True, False]


def test_a_ban_outlasts_the_budget_and_a_restart(engine: Engine, mockws: MockWsProcess) -> None:
    """Budget 1 s, Retry-After 4 s: no exit 10 in that time, and no request before it has passed."""
    mockws.control(actions.Reject(429, retry_after_s=4))
    first = Live(engine, f"--ws-url={mockws.url}", feed__reconnect_budget_s=1)
    first.running.wait_for(LogEvent.CONNECT_FAILED)
    [(refused_ms, _)] = logged(first.stop(), LogEvent.CONNECT_FAILED)
    again = Live(engine, f"--ws-url={mockws.url}", feed__reconnect_budget_s=1)
    assert again.running.wait_for(LogEvent.RETRY_AFTER)["wait_s"] <= 4.0
    assert again.wait_notice("LINK_UP").ts >= refused_ms + 4000 - 50
    assert not list(engine.home.glob("*.retry_after.json"))
    again.stop()

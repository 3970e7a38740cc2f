"""Alerts from statuses: one per occasion, and one at its end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.telemetry.test_engine_side import status_of
from tradebot.core.events import DAILY_LOSS, STALE_MARKET
from tradebot.execution.trips import BreakersView, Trip, trip_text
from tradebot.telemetry.alerts import Alert, Alerts, exit_alert, ladder_alert
from tradebot.telemetry.status_file import Status
from tradebot.threads.counters import COUNTERS


def begun(**limits: Any) -> Alerts:
    """Alerts that have reported the start already."""
    alerts = Alerts(**limits)
    alerts.look(status_of(written_s=0.0))
    return alerts


def told(alerts: Alerts, **changes: Any) -> list[tuple[str, str, str]]:
    return [(alert.event, alert.severity, alert.text) for alert in alerts.look(status_of(**changes))]


def refused(now_s: float, count: int, name: str = "risk_vetoes") -> Status:
    return status_of(written_s=now_s, counters=dict.fromkeys(COUNTERS, 0) | {name: count})


def test_the_start_is_told_once() -> None:
    """S9: the first message says that all is simulated."""
    alerts = Alerts()
    assert alerts.look(status_of(sample_every=5)) == [
        Alert(
            "start",
            "info",
            "tradebot 0.1.0 runs: SHADOW mockws, keeping 1 of 5 ticks; all fills are simulated",
            {"mode": "SHADOW", "ingest": "mockws", "source": "s", "sample_every": 5},
        )
    ]
    assert told(alerts) == []


def test_a_stop_and_the_end() -> None:
    alerts = begun()
    assert [event for event, _s, _t in told(alerts, state="draining")] == ["stop"]
    assert told(alerts, state="draining") == []
    assert told(alerts, state="ended", exit_code=13) == [
        (
            "exit_code",
            "error",
            "the engine has ended with 13 OVERLOAD: a push feed outpaced the pipeline, or the database stayed locked"
            " or full",
        )
    ]


def test_a_halt_and_its_end_are_told_once_also_when_the_start_is_halted() -> None:
    halted = BreakersView(7, "tradebot halt: news")
    for alerts in (begun(), Alerts()):
        assert told(alerts, breakers=halted)[-1] == (
            "halt", "warning", "halted by tradebot halt: news: orders that add exposure are refused",
        )  # fmt: skip
        assert told(alerts, breakers=halted) == []
        assert told(alerts, breakers=BreakersView(resumed_ms=9)) == [("halt", "info", "the halt has ended")]
        assert told(alerts, breakers=BreakersView(resumed_ms=9)) == []


def test_breakers_that_trip_and_are_released_are_told_by_code() -> None:
    alerts, loss = begun(), Trip(DAILY_LOSS, 7, 120.0, 100.0)
    (alert,) = alerts.look(status_of(breakers=BreakersView(tripped=(loss,))))
    assert alert == Alert("breaker", "error", f"tripped: {trip_text(loss)}", {"tripped": {DAILY_LOSS: 1}})
    assert told(alerts, breakers=BreakersView(tripped=(loss,))) == []
    stale = tuple(Trip(STALE_MARKET, 8, 2.0, 1.0, symbol) for symbol in "AB")
    more = told(alerts, breakers=BreakersView(tripped=(loss, *stale), stale_symbols=2))
    assert more == [("breaker", "error", f"tripped: {trip_text(stale[0])}; {trip_text(stale[1])}")]
    assert told(alerts, breakers=BreakersView(tripped=(loss, stale[0]), stale_symbols=1)) == []
    assert told(alerts, breakers=BreakersView()) == [("breaker", "info", f"released: {DAILY_LOSS}, {STALE_MARKET}")]


@pytest.mark.parametrize(("code", "severity"), [(0, "info"), (1, "error"), (10, "error"), (77, "error")])
def test_how_bad_an_end_is(code: int, severity: str) -> None:
    alert = exit_alert(code, "because")
    assert (alert.severity, alert.fields) == (severity, {"exit_code": code})
    assert alert.text.startswith(f"the engine has ended with {code}") and alert.text.endswith("; because")


def test_a_stall_is_told_once_for_each_stage_and_its_end_once() -> None:
    alerts = begun()
    assert told(alerts, still_s={"persist": 61.0}) == [("stall", "error", "stalled: persist for 61 s")]
    assert told(alerts, still_s={"persist": 62.0}) == []
    both = {"persist": 63.0, "ingest": 30.0}
    assert told(alerts, still_s=both) == [("stall", "error", "stalled: ingest for 30 s, persist for 63 s")]
    assert told(alerts, still_s={"persist": 64.0}) == []
    assert told(alerts) == [("stall", "info", "all stages make progress again")]
    assert told(alerts) == []


def linked(alerts: Alerts, now_s: float, down_s: float | None) -> list[str]:
    """The alerts about a link that has been down for `down_s` (None: is up) at `now_s`."""
    status = status_of(written_s=now_s, link="up" if down_s is None else "down", link_down_s=down_s)
    return [f"{alert.event} {alert.severity}: {alert.text}" for alert in alerts.look(status)]


def test_a_lost_link_is_told_once_per_outage() -> None:
    alerts = begun(link_lost_s=30.0)
    for start_s in (100.0, 300.0):
        assert linked(alerts, start_s + 30, 30.0) == []
        assert linked(alerts, start_s + 31, 31.0) == ["link_lost warning: the link has been down for 31 s"]
        assert linked(alerts, start_s + 90, 90.0) == []
        assert linked(alerts, start_s + 91, None) == []
        assert linked(alerts, start_s + 101, None) == ["link_lost info: the link is up again and stable"]
        assert linked(alerts, start_s + 102, None) == []


def test_short_outages_are_not_told_at_all() -> None:
    alerts = begun(link_lost_s=30.0)
    for start_s in range(100, 400, 50):
        assert linked(alerts, start_s + 29, 29.0) == []
        assert linked(alerts, start_s + 30, None) == []
        assert linked(alerts, start_s + 40, None) == []


def test_a_link_that_is_back_is_not_told_as_lost() -> None:
    """An outage just short of the limit, and then up: until it holds it is not back, but neither is it lost."""
    alerts = begun(link_lost_s=30.0)
    assert linked(alerts, 125.0, 25.0) == []
    assert [linked(alerts, now_s, None) for now_s in (126.0, 131.0, 135.9, 136.0, 137.0)] == [[]] * 5


def test_a_link_that_comes_and_goes_is_lost() -> None:
    """A subscription that is refused: each connection lasts for a moment, and no alert was ever sent."""
    alerts = begun(link_lost_s=30.0)
    heard = [
        text
        for start_s in range(100, 200, 5)
        for now_s, down_s in ((start_s, 0.0), (start_s + 2, 2.0), (start_s + 3, None), (start_s + 4, None))
        for text in linked(alerts, now_s, down_s)
    ]
    assert heard == ["link_lost warning: the link has been unstable for 32 s"]
    assert linked(alerts, 209.0, None) == ["link_lost info: the link is up again and stable"]
    assert linked(alerts, 210.0, 0.5) == []


@pytest.mark.parametrize("name", ["risk_vetoes", "stale_vetoes", "bp_drops_signal"])
def test_a_burst_of_refusals_is_told_once_until_it_has_ebbed(name: str) -> None:
    alerts = begun(refusals_per_minute=10)
    assert alerts.look(refused(10.0, 10, name)) == []
    (alert,) = alerts.look(refused(11.0, 11, name))
    assert (alert.event, alert.severity, alert.text) == (
        "refusal_burst", "warning", "11 signals were refused within a minute"
    )  # fmt: skip
    assert alert.fields["within_60_s"] == 11 and alert.fields[name] == 11
    assert alerts.look(refused(60.0, 30, name)) == []
    assert alerts.look(refused(80.0, 36, name)) == [], "25 within the minute: still the same burst"
    assert alerts.look(refused(200.0, 36, name)) == []
    assert [alert.event for alert in alerts.look(refused(201.0, 47, name))] == ["refusal_burst"]


def test_refusals_that_trickle_are_no_burst() -> None:
    alerts = begun(refusals_per_minute=10)
    assert [alerts.look(refused(float(second), second // 7)) for second in range(1, 500)] == [[]] * 499


def test_what_was_refused_before_the_first_look_is_no_burst() -> None:
    assert [alert.event for alert in Alerts(refusals_per_minute=10).look(refused(0.0, 1000))] == ["start"]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 8)), max_size=80))
def test_a_burst_is_told_only_when_more_than_the_limit_came_within_a_minute(steps: list[tuple[int, int]]) -> None:
    alerts = begun(refusals_per_minute=10)
    looks = [(0, 0)]
    for seconds, more in steps:
        now, total = looks[-1][0] + seconds, looks[-1][1] + more
        looks.append((now, total))
        before = max(count for at, count in looks if at <= now - 60 or at == 0)
        found = alerts.look(refused(float(now), total))
        assert len(found) <= 1
        if found:
            assert total - before > 10


def test_the_ladder() -> None:
    assert ladder_alert("THROTTLE1", 5, "CPU 48.0") == Alert(
        "ladder",
        "warning",
        "soak: THROTTLE1, 1 of 5 ticks kept: CPU 48.0",
        {"state": "THROTTLE1", "sample_every": 5},
    )
    assert ladder_alert("NORMAL", 1, "x").severity == "info"

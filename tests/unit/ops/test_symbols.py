"""Symbols that are refused or silent, and announcements, in health, alerts, metrics, the status view and one line."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.conftest import REPO
from tests.unit.ops.test_health import LOOK
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.feeds.status import SymbolsLook
from tradebot.ops.health import Health, judge
from tradebot.telemetry.alerts import Alerts
from tradebot.telemetry.prometheus import families
from tradebot.telemetry.publisher import status_line
from tradebot.telemetry.status_file import read_status

GOOD = SymbolsLook(requested=3, confirmed=True)
REFUSED = replace(GOOD, refused={"TYPO": "no such symbol"}, refused_count=1)
NEVER: dict[str, Any] = {"stored_age_s": None, "last_stored_ms": None, "uptime_s": 75.0}


def judged(symbols: SymbolsLook | None, **changes: Any) -> Health:
    return judge(replace(LOOK, status=status_of(symbols=symbols, **changes)), 60.0)


class TestHealth:
    def test_notices_alone_are_no_progress_however_alive_the_link_is(self) -> None:
        health = judged(GOOD, **NEVER)
        assert not health.ok and "no trade has arrived since the start 75 s ago" in health.text
        assert judged(GOOD, **{**NEVER, "uptime_s": 59.0}).ok

    def test_an_exchange_that_confirms_nothing_it_was_asked_for(self) -> None:
        health = judged(replace(REFUSED, confirmed=False), **NEVER)
        assert not health.ok
        assert "the exchange has confirmed no symbol; refused: TYPO (no such symbol)" in health.text

    def test_one_that_refuses_all_after_they_had_traded(self) -> None:
        health = judged(replace(REFUSED, requested=1), stored_age_s=61.0)
        assert not health.ok and "refuses every symbol" in health.text

    @pytest.mark.parametrize("symbols", [None, GOOD, replace(GOOD, confirmed=None)])
    def test_a_market_that_has_traded_may_be_quiet(self, symbols: SymbolsLook | None) -> None:
        assert judged(symbols, stored_age_s=3600.0).ok

    def test_while_the_others_flow_the_wrong_ones_are_named(self) -> None:
        silent = replace(REFUSED, silent=("A",), silent_count=1, untraded=tuple("BCDEFG"), untraded_count=6)
        assert judged(silent) == (
            True,
            "last stored 1.4 s ago; refused: TYPO (no such symbol); silent: A; no trade yet: B, C, D, E, F and 1 more",
        )


class TestAlerts:
    def told(self, alerts: Alerts, symbols: SymbolsLook) -> list[tuple[str, str, str]]:
        return [(alert.event, alert.severity, alert.text) for alert in alerts.look(status_of(symbols=symbols))]

    def begun(self) -> Alerts:
        alerts = Alerts()
        alerts.look(status_of())
        return alerts

    def test_a_refused_symbol_once(self) -> None:
        alerts = self.begun()
        assert self.told(alerts, REFUSED) == [
            ("symbol_refused", "error", "the exchange refuses symbols: TYPO: no such symbol")
        ]
        assert self.told(alerts, REFUSED) == self.told(alerts, GOOD) == self.told(alerts, REFUSED) == []

    def test_a_silent_symbol_each_time_it_falls_silent(self) -> None:
        alerts = self.begun()
        silent = replace(GOOD, silent=("A",), silent_count=1)
        expected = [("symbol_silent", "warning", "no trades of A while other symbols trade")]
        assert [self.told(alerts, look) for look in (silent, silent, GOOD, silent)] == [expected, [], [], expected]

    def test_each_announcement_between_two_looks(self) -> None:
        alerts = self.begun()
        first = replace(GOOD, announced=2, announcements=("one", "two"))
        later = replace(GOOD, announced=3, announcements=("one", "two", "three"))
        found = [[text for _event, _severity, text in self.told(alerts, look)] for look in (first, first, later)]
        assert found == [
            ["the exchange announces: one", "the exchange announces: two"], [], ["the exchange announces: three"]
        ]  # fmt: skip


def test_metrics() -> None:
    look = replace(REFUSED, silent_count=2, untraded_count=4, announced=5)
    found = {family.name: family for family in families(status_of(symbols=look), 101.0)}
    by_reason = {sample.labels["reason"]: sample.value for sample in found["tradebot_symbols_silent"].samples}
    assert by_reason == {"refused": 1, "silent": 2, "no_trade_yet": 4}
    assert found["tradebot_symbols_requested"].samples[0].value == 3
    assert found["tradebot_exchange_notices"].samples[0].value == 5
    none = {family.name: family for family in families(status_of(), 101.0)}
    assert none["tradebot_symbols_silent"].samples == none["tradebot_exchange_notices"].samples == []


def test_one_line() -> None:
    assert "1 of 3 symbols refused or silent" in status_line(status_of(symbols=REFUSED))
    assert "refused" not in status_line(status_of(symbols=GOOD))


def test_a_status_file_of_schema_3_is_still_read() -> None:
    status = read_status(REPO / "fixtures" / "schema3" / "push.db.status.json")
    assert status is not None and status.symbols is None

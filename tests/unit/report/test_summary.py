"""The summary at the end of a run (S9): complete, aligned, safe to show, and clear about simulation."""

from __future__ import annotations

import msgspec
import pytest

from tradebot.core.errors import ExitCode
from tradebot.core.events import DAILY_LOSS
from tradebot.core.ledger import Ledger, NotStored
from tradebot.execution.trips import BreakersView, Trip, blocked_texts
from tradebot.report.summary import MAX_SYMBOLS, PositionLine, RunSummary, render

SUMMARY = RunSummary(
    run_id="r0123456789ab",
    run_no=3,
    mode="SHADOW",
    ingest="replay",
    source="fixtures/session.jsonl",
    db_path="/tmp/my data/x.db",
    elapsed_s=2.0,
    ledger=Ledger(received=14_001, malformed=1, accepted=14_000, stored=14_000),
    signals=400,
    orders_by_status={"REJECTED": 20, "FILLED": 380},
    refusals_by_reason={"RISK_CAP": 20},
    fills=380,
    fees=1234.56789,
    profit=-1244.36789,
    unit="unit unknown",
    realized=-11.3,
    unrealized=1.5,
    positions=(
        PositionLine(
            symbol="BTCUSDT", net_qty=-0.0123, avg_price=43123.45, last_price=43000.1, realized=-12.3,
            unrealized=1.5,
        ),
        PositionLine(
            symbol="ETH", net_qty=0.0, avg_price=None, last_price=2000.0, realized=1.0, unrealized=-0.0
        ),
    ),
    exit_code=ExitCode.COMPLETE,
    hints=("bin/tradebot show-config",),
)  # fmt: skip

EXPECTED = """\
SHADOW run: all fills are simulated, no order has left this program.

run         r0123456789ab
input       replay, fixtures/session.jsonl
database    /tmp/my data/x.db
time        2.00 s, 7,000 ticks/s
exit code   0 COMPLETE: replay finished, --seconds over, or stopped by SIGINT/SIGTERM/SIGHUP

Ticks
  ticks read          14,001
  malformed                1
  kept                14,000
  stored              14,000
  ledger balances: every tick read is accounted for

Signals, orders, fills
  signals                    400
  orders FILLED              380
  orders REJECTED             20
  refused RISK_CAP            20
  fills (simulated)          380
  fees                1,234.5679 (unit unknown)

Positions (profit before fees)
  symbol         net qty  avg price  last price  realized  unrealized     unit
  BTCUSDT        -0.0123  43,123.45   43,000.10  -12.3000      1.5000  unknown
  ETH               0.00          -    2,000.00    1.0000      0.0000  unknown
  all 2 symbols                                  -11.3000      1.5000  unknown
  profit after fees: -1,244.3679 (unit unknown)

What to try next
  sqlite3 -header -column '/tmp/my data/x.db' \\
    "SELECT symbol, side, count(*), sum(fill_qty), sum(fees) FROM trades WHERE run = 3 GROUP BY symbol, side"
  bin/tradebot show-config
"""


def changed(**fields: object) -> str:
    """The summary with some fields replaced, for a UTF-8 stream."""
    return render(msgspec.structs.replace(SUMMARY, **fields), "utf-8")


def position(number: int, symbol: str | None = None) -> PositionLine:
    return PositionLine(
        symbol=symbol or f"S{number}",
        net_qty=float(number),
        avg_price=1.0,
        last_price=2.0,
        realized=0.0,
        unrealized=float(number),
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_whole_summary(encoding: str) -> None:
    assert render(SUMMARY, encoding) == EXPECTED


@pytest.mark.parametrize("mode", ["SHADOW", "PAPER"])
def test_the_first_line_says_that_fills_are_simulated(mode: str) -> None:
    """S9: shadow is marked wherever results are shown."""
    assert changed(mode=mode).splitlines()[0] == f"{mode} run: all fills are simulated, no order has left this program."


def test_a_resumed_run_says_so() -> None:
    assert "r0123456789ab (resumed)\n" in changed(resumed=True)


def test_a_run_that_stored_nothing_offers_no_query() -> None:
    text = changed(
        db_path=None, hints=(), ledger=Ledger(received=5, accepted=5, not_stored=5, cause=NotStored.BY_DESIGN)
    )
    assert "database    none: nothing was stored\n" in text
    assert "  not stored          5\n  not stored because this run stores nothing by design\n" in text
    assert "sqlite3" not in text
    assert "What to try next" not in text


def test_every_way_a_tick_can_go_is_shown_when_it_was_gone() -> None:
    ledger = Ledger(
        received=36, malformed=1, duplicates=2, history_dropped=3, sampled_out=4, already_stored=5, refused=6,
        accepted=15, stored=15,
    )  # fmt: skip
    lines = changed(ledger=ledger).splitlines()
    for label, count in {
        "ticks read": 36, "malformed": 1, "duplicates": 2, "history dropped": 3, "sampled out": 4,
        "already stored": 5, "refused": 6, "kept": 15, "stored": 15,
    }.items():  # fmt: skip
        assert f"  {label:<18}  {count:>2}" in lines
    assert "  duplicates" not in changed()


def test_an_unbalanced_ledger_is_shouted() -> None:
    text = changed(ledger=Ledger(received=5, accepted=4, stored=4))
    assert "  THE LEDGER DOES NOT BALANCE, which is a bug in tradebot:\n    received 5, but" in text
    assert "ledger balances" not in text


def test_how_the_run_ended() -> None:
    text = changed(exit_code=ExitCode.OVERLOAD, error="tick channel full at wss://bob:pw@h\nforged line")
    assert f"\nexit code   13 OVERLOAD: {ExitCode.OVERLOAD.meaning}\n" in text
    assert "\nbecause     tick channel full at wss://***@h\\nforged line\n" in text


def test_what_blocked_orders_at_the_end_is_named() -> None:
    view = BreakersView(7, "tradebot halt: news", (Trip(DAILY_LOSS, 8, 120.0, 100.0),))
    text = changed(blocked=blocked_texts(view))
    assert "  blocked at the end: HALTED by tradebot halt: news, until `tradebot resume`\n" in text
    assert "  blocked at the end: DAILY_LOSS: the loss of the day was 120.0, breakers.daily_loss_usd = 100.0;" in text
    assert "blocked" not in render(SUMMARY, "utf-8")


def test_credentials_of_the_source_are_masked() -> None:
    assert "input       mockws, wss://***@h/?token=***\n" in changed(
        ingest="mockws", source="wss://bob:pw@h/?token=abc"
    )


def test_no_time_at_all_is_no_error() -> None:
    assert "0.00 s, 0 ticks/s" in changed(elapsed_s=0.0)


def test_lost_log_lines_are_told() -> None:
    assert "  1,234 log lines could not be written to standard error\n" in changed(lost_log_lines=1234)


def test_a_run_without_fills() -> None:
    text = changed(positions=(), fills=0, fees=0.0, orders_by_status={}, refusals_by_reason={}, signals=0)
    assert "\nPositions\n  none: nothing was filled\n" in text


def test_one_symbol_needs_no_total() -> None:
    text = changed(positions=(position(1),))
    assert "symbols" not in text
    assert "  profit after fees: -1,244.3679 (unit unknown)\n" in text


def test_at_most_forty_symbols_the_largest_then_how_many_more() -> None:
    text = changed(positions=tuple(position(n) for n in range(1, MAX_SYMBOLS + 1003)))
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("  S") and line.endswith("unknown")]
    assert rows == [f"S{n}" for n in range(1042, 1002, -1)]
    assert "  ... and 1,002 more\n  all 1,042 symbols" in text


def test_equal_positions_are_in_order_of_their_names() -> None:
    """S8: the order never depends on the one in which symbols came."""
    one, other = position(1, "B"), position(1, "A")
    assert changed(positions=(one, other)) == changed(positions=(other, one))


@pytest.mark.parametrize(
    ("quantity", "shown"),
    [
        (0.1, "0.10"),
        (1234567.0, "1,234,567.00"),
        (0.00000001, "0.00000001"),
        (-0.0000000012, "-0.0000000012"),
        (0.0000001234, "0.0000001234"),
        (1.5e-30, "1.5e-30"),
        (-0.0, "0.00"),
        (-0.5, "-0.50"),
        (1 / 3, "0.33333333"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_quantities_show_the_digits_that_say_something(quantity: float, shown: str) -> None:
    text = changed(positions=(msgspec.structs.replace(position(1), net_qty=quantity),))
    (row,) = [line.split() for line in text.splitlines() if line.startswith("  S1")]
    assert row[1] == shown


def test_columns_are_aligned_whatever_the_values() -> None:
    lines = changed(positions=(position(1, "X" * 64), position(10**9), position(2))).splitlines()
    start = lines.index("Positions (profit before fees)")
    table = lines[start + 1 : start + 6]
    assert len({len(line) for line in table}) == 1
    assert table[3].startswith("  " + "X" * 26 + "..  ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ANSI_X3.4-1968", "cp1252"])
def test_plain_ascii_unless_the_stream_is_utf_8(encoding: str) -> None:
    summary = msgspec.structs.replace(SUMMARY, positions=(position(1, "币安USDT"),), source="/tmp/ü")
    assert render(summary, encoding).isascii()
    assert "\\u5e01\\u5b89USDT" in render(summary, encoding)
    for name in ("utf-8", "UTF8", "utf_8"):
        assert "币安USDT" in render(summary, name)


def test_feeds_cannot_act_on_the_terminal_and_any_path_can_be_written() -> None:
    text = changed(positions=(position(1, "\x1b[2J\u202e\n"),), db_path="/tmp/\udcff.db", run_id="a\nb")
    assert "\x1b" not in text
    assert "  \\x1b[2J\\u202e\\n  " in text
    assert "run         a\\nb\n" in text
    text.encode("utf-8")


def test_amounts_of_the_smallest_prices_are_shown() -> None:
    """A fee of 0.1 x 0.0000001234 x 0.001 was shown as 0.0000."""
    line = msgspec.structs.replace(position(1), last_price=0.0000001234, realized=-1.2e-9, unrealized=0.0)
    text = changed(fees=1.234e-11, profit=-1.21234e-9, positions=(line,))
    words = " ".join(text.split())
    assert " fees 0.00000000001234 (unit unknown) " in words
    assert " 0.0000001234 -0.0000000012 0.0000 " in words
    assert "  profit after fees: -0.000000001212 (unit unknown)\n" in text


def test_a_run_that_continues_earlier_ones_says_whose_positions_these_are() -> None:
    assert "\nPositions (profit before fees, with the fills of earlier runs)\n" in changed(continued=True)


def test_a_run_of_earlier_has_no_time() -> None:
    assert "time  " not in changed(elapsed_s=None)

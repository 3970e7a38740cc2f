"""The second calculation of PAPER, held against answers worked out by hand and against rules that always hold.

It is what the program is compared with, so its own mistakes must be found here. The program must give the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.checks.commanded_paper import compare
from sim.paper_reference.calculation import NO_GAPS, calculate
from sim.paper_reference.invariants import check
from sim.paper_reference.schedule import schedule
from sim.paper_reference.values import (
    Amend,
    Cancel,
    Command,
    Instrument,
    Outcome,
    Print,
    Request,
    Settings,
    Submit,
    a_print,
)
from tests.paper_reference.series import instruments_of, made_up

AB = Instrument("AB", tick_size=Fraction(1, 10), lot_size=Fraction(1, 100), taker_fee=Fraction(1, 1000))
AT_ONCE = Settings(latency_ms=0, cancel_latency_ms=0, participation=Fraction(1, 2))


def tape(*lines: str) -> list[Print]:
    """Prints written as `price volume taker`, 100 ms apart from time 10**12; a fourth word is the time after that."""
    prints = []
    for place, line in enumerate(lines):
        price, volume, taker, *time = line.split()
        ts = 10**12 + (int(time[0]) if time else 100 * place)
        prints.append(a_print("AB", price, volume, ts, {"B": "BUY", "S": "SELL", "-": None}[taker]))
    return prints


def buy(qty: str, **more: object) -> Submit:
    return order("BUY", qty, **more)


def order(side: str, qty: str, **more: object) -> Submit:
    amounts = {
        name: Fraction(value) if isinstance(value, str) and name != "type" and name != "time_in_force" else value
        for name, value in more.items()
    }
    return Submit(0, Request("AB", side, Fraction(qty), **amounts))  # type: ignore[arg-type]


def told(
    prints: list[Print],
    settings: Settings,
    *commands: Command,
    at: int = 1,
    later: Mapping[int, list[Command]] | None = None,
    gaps: Mapping[int, str | None] = NO_GAPS,
) -> tuple[list[str], Outcome]:
    """What became of it, a word or two an event: `tick STATUS`, with the reason where it is another, and the fills."""
    outcome = compare(prints, {at: commands, **(later or {})}, settings, [AB], gaps)
    fills = list(outcome.fills)
    lines = []
    for event in outcome.events:
        line = f"{event.tick} {event.status}"
        if event.status in ("FILLED", "PARTIAL_FILL"):
            fill = fills.pop(0)
            line += f" {float(fill.qty):g} at {float(fill.price):g} {fill.liquidity}"
        elif event.reason != event.status:
            line += f" {event.reason}"
        lines.append(line)
    return lines, outcome


def test_it_knows_nothing_of_the_program(repo: Path) -> None:
    for path in (repo / "sim" / "paper_reference").glob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.strip().startswith(("import tradebot", "from tradebot")), f"{path.name}: {line}"


def test_a_market_order_takes_its_share_of_each_print_at_the_worse_of_print_and_quote() -> None:
    # 3: a sale at 100 leaves the ask at 101; half of 4 and half of 1 are its share.
    lines, outcome = told(tape("100 1 B", "101 4 B", "100 1 S", "101 9 B"), AT_ONCE, buy("3"))
    assert lines == [
        "1 SUBMITTED",
        "2 ACKNOWLEDGED",
        "2 PARTIAL_FILL 2 at 101 TAKER",
        "3 PARTIAL_FILL 0.5 at 101 TAKER",
        "4 FILLED 0.5 at 101 TAKER",
    ]
    assert outcome.cash == 10_000 - 303 - Fraction("0.303")
    assert [fill.slippage_bps for fill in outcome.fills] == [100, 100, 100]


def test_a_touch_is_no_fill_and_a_print_through_is_one_at_the_limit() -> None:
    prints = tape("100 1 B", "99 5 S", "99 5 S", "98.9 2 S", "98.9 2 B")
    lines, _ = told(prints, AT_ONCE, buy("3", type="LIMIT", limit="99"))
    assert lines == ["1 SUBMITTED", "2 ACKNOWLEDGED", "4 PARTIAL_FILL 2 at 99 MAKER", "5 FILLED 1 at 99 MAKER"]


@pytest.mark.parametrize(
    ("queue", "fills"),
    [
        ("front", ["2 FILLED 1 at 99 MAKER"]),
        # One print of size 1 before: 20 are ahead; the sales at 99 are 8, 8 and 4.5.
        ("trades", ["4 PARTIAL_FILL 0.5 at 99 MAKER"]),
        ("through", []),
    ],
)
def test_how_much_waits_ahead_is_an_assumption(queue: str, fills: list[str]) -> None:
    settings = Settings(latency_ms=0, queue=queue)
    lines, _ = told(
        tape("100 1 B", "99 8 S", "99 8 S", "99 4.5 S", "99 9 B"), settings, buy("1", type="LIMIT", limit="99")
    )
    assert lines == ["1 SUBMITTED", "2 ACKNOWLEDGED", *fills]


def test_a_limit_takes_until_the_market_leaves_it_and_then_rests_for_good() -> None:
    prints = tape("100 1 B", "100 2 B", "100.1 2 B", "100 8 B", "99.8 1 S")
    lines, _ = told(prints, AT_ONCE, buy("3", type="LIMIT", limit="100"))
    assert lines == [
        "1 SUBMITTED",
        "2 ACKNOWLEDGED",
        "2 PARTIAL_FILL 1 at 100 TAKER",
        "5 PARTIAL_FILL 1 at 100 MAKER",
    ]


def test_post_only_is_refused_when_it_would_take() -> None:
    lines, _ = told(tape("100 1 B", "99 9 S"), AT_ONCE, buy("3", type="LIMIT", limit="100", post_only=True))
    assert lines == ["1 SUBMITTED", "2 REJECTED POST_ONLY"]


@pytest.mark.parametrize(
    ("time_in_force", "qty", "ends"),
    [
        ("IOC", "3", ["2 PARTIAL_FILL 2 at 100 TAKER", "2 CANCELED IOC"]),
        ("FOK", "3", ["2 CANCELED FOK"]),
        ("FOK", "2", ["2 FILLED 2 at 100 TAKER"]),
    ],
)
def test_at_once_or_not_at_all(time_in_force: str, qty: str, ends: list[str]) -> None:
    lines, _ = told(tape("100 1 B", "100 4 B", "100 9 B"), AT_ONCE, buy(qty, time_in_force=time_in_force))
    assert lines == ["1 SUBMITTED", "2 ACKNOWLEDGED", *ends]


def test_latency_counts_from_the_signal_and_a_print_at_that_very_time_activates() -> None:
    settings = Settings(latency_ms=150)
    lines, _ = told(tape("100 1 B 0", "100 9 B 149", "100 9 B 150"), settings, buy("1"))
    assert lines == ["1 SUBMITTED", "3 ACKNOWLEDGED", "3 FILLED 1 at 100 TAKER"]


def test_a_stop_is_triggered_by_one_print_and_filled_by_a_later_one() -> None:
    # The print that activates it is through the stop already, and triggers nothing.
    prints = tape("100 1 B", "101 9 B", "101 9 B", "102 9 B")
    lines, _ = told(prints, AT_ONCE, buy("1", type="STOP", stop="101"))
    assert lines == ["1 SUBMITTED", "2 ACKNOWLEDGED", "3 TRIGGERED", "4 FILLED 1 at 102 TAKER"]


def test_a_trailing_stop_follows_and_never_goes_back() -> None:
    # Lowest print 99 less its way back of 1: triggered at 100.
    prints = tape("100 1 B", "101 9 B", "99 9 S", "99.9 9 B", "100 9 B", "100.5 9 B")
    lines, _ = told(prints, AT_ONCE, buy("1", type="TRAILING_STOP", trail_amount="1"))
    assert lines == ["1 SUBMITTED", "2 ACKNOWLEDGED", "5 TRIGGERED", "6 FILLED 1 at 100.5 TAKER"]


def test_the_exits_of_a_bracket_share_what_was_entered() -> None:
    prints = tape("100 1 B", "100 9 B", "101 9 B", "102.1 1 B", "98 9 S", "98 9 S", "98 9 S")
    lines, _ = told(prints, AT_ONCE, buy("3", take_profit="102", stop_loss="98"))
    assert lines == [
        "1 SUBMITTED",
        "2 ACKNOWLEDGED",
        "2 FILLED 3 at 100 TAKER",
        "2 SUBMITTED",
        "2 SUBMITTED",
        "3 ACKNOWLEDGED",
        "3 ACKNOWLEDGED",
        "4 PARTIAL_FILL 1 at 102 MAKER",
        "4 ACKNOWLEDGED OCO",  # 2 are left to stop
        "5 TRIGGERED",
        "5 CANCELED OCO",
        "6 FILLED 2 at 98 TAKER",
    ]


def test_what_a_market_order_has_not_got_in_time_is_canceled() -> None:
    prints = tape("100 1 B 0", "100 2 B 100", "100 2 B 5099", "100 2 B 5100")
    lines, _ = told(prints, AT_ONCE, buy("3"))
    assert lines[2:] == ["2 PARTIAL_FILL 1 at 100 TAKER", "3 PARTIAL_FILL 1 at 100 TAKER", "4 CANCELED NO_LIQUIDITY"]


def test_an_order_expires_before_the_print_of_that_time() -> None:
    prints = tape("100 1 B 0", "100 9 B 100", "90 9 S 200")
    expiring = buy("3", type="LIMIT", limit="95", time_in_force="GTD", expire_ts=10**12 + 200)
    assert told(prints, AT_ONCE, expiring)[0] == ["1 SUBMITTED", "2 ACKNOWLEDGED", "3 EXPIRED"]


def test_a_cancel_takes_its_time_too() -> None:
    settings = Settings(latency_ms=0, cancel_latency_ms=150)
    prints = tape("100 1 B", "100 9 B", "94 1 S", "94 1 S")
    lines, _ = told(prints, settings, buy("3", type="LIMIT", limit="95"), later={2: [Cancel(0)]})
    assert lines == [
        "1 SUBMITTED",
        "2 ACKNOWLEDGED",
        "3 PARTIAL_FILL 1 at 95 MAKER",
        "4 CANCELED CANCEL_REQUESTED",
    ]


def test_a_late_print_does_nothing() -> None:
    lines, _ = told(tape("100 1 B 500", "90 9 S 499", "99 9 S 500"), AT_ONCE, buy("1", type="LIMIT", limit="99.5"))
    assert lines == ["1 SUBMITTED", "3 ACKNOWLEDGED", "3 FILLED 1 at 99.5 MAKER"]


def test_the_side_that_is_not_said_is_that_of_the_last_change_of_price() -> None:
    # Sides: unknown, BUY, BUY, SELL. At the front of the queue the sale at 100 fills; the purchases at 101 do not.
    settings = Settings(latency_ms=0, queue="front")
    prints = tape("100 1 -", "101 1 -", "101 1 -", "100.5 1 -")
    lines, _ = told(prints, settings, buy("1", type="LIMIT", limit="100.5"), at=2)
    assert lines == ["2 SUBMITTED", "3 ACKNOWLEDGED", "4 FILLED 1 at 100.5 MAKER"]


def test_spot_spends_and_delivers_no_more_than_there_is() -> None:
    prints = tape("100 1 B", "100 900 B", "200 900 B")
    refused, _ = told(prints, AT_ONCE, buy("100"))  # the fee is missing
    assert refused == ["1 REJECTED NO_BALANCE"]
    assert told(prints, AT_ONCE, order("SELL", "0.01"))[0] == ["1 REJECTED NO_BALANCE"]
    late = Settings(latency_ms=200, participation=Fraction(1))
    lines, outcome = told(prints, late, buy("99"))
    # 10000 / (200 x 1.001), cut to the lot of 0.01
    assert lines == ["1 SUBMITTED", "3 ACKNOWLEDGED", "3 PARTIAL_FILL 49.95 at 200 TAKER", "3 CANCELED NO_BALANCE"]
    assert outcome.cash == Fraction("0.001") * 10


def test_all_or_nothing_is_nothing_when_the_money_is_short() -> None:
    prints = tape("100 1 B", "200 900 B", "100 900 B")
    lines, outcome = told(prints, AT_ONCE, buy("99", time_in_force="FOK"))
    assert lines == ["1 SUBMITTED", "2 ACKNOWLEDGED", "2 CANCELED FOK"]
    assert outcome.cash == 10_000


def test_a_replacement_loses_what_the_order_filled_before_it_was_canceled() -> None:
    settings = Settings(latency_ms=0, cancel_latency_ms=150, participation=Fraction(1, 2), allow_short=True)
    prints = tape("100 1 B", "100 2 B", "100 2 B", "100 1 B", "97.9 9 S")
    replacement = Request("AB", "BUY", Fraction(4), "LIMIT", limit=Fraction(98))
    commands: dict[int, list[Command]] = {1: [buy("9")], 2: [Amend(0, 1, replacement)]}
    outcome = compare(prints, commands, settings, [AB])
    # 1 before the request, 1 after it, then 4 less that.
    assert [(fill.tick, fill.order, int(fill.qty)) for fill in outcome.fills] == [
        (2, (1, 1), 1),
        (3, (1, 1), 1),
        (5, (2, 1), 3),
    ]


@pytest.mark.parametrize("qty", ["1", "4"])
def test_a_replacement_that_ends_before_it_is_active_gives_up_all_that_it_asked_for(qty: str) -> None:
    settings = Settings(latency_ms=1000, cancel_latency_ms=150, participation=Fraction(1, 2), allow_short=True)
    prints = tape("100 1 B 0", "100 2 B 1000", "100 4 B 1100", "100 1 B 1160", "100 1 B 1200", "90 9 S 9000")
    expiring = buy(qty, type="LIMIT", limit="98", time_in_force="GTD", expire_ts=10**12 + 1200).request
    outcome = compare(prints, {1: [buy("9")], 2: [Amend(0, 1, expiring)]}, settings, [AB])
    assert [(event.tick, event.status, event.remaining) for event in outcome.events if event.order == (2, 1)] == [
        (2, "SUBMITTED", Fraction(qty)),
        (5, "EXPIRED", Fraction(qty)),
    ]


@pytest.mark.parametrize(("on_gap", "end"), [("keep", "3 FILLED 3 at 100 TAKER"), ("cancel", "3 CANCELED GAP")])
def test_a_gap_is_remembered_by_the_orders_that_were_open(on_gap: str, end: str) -> None:
    settings = Settings(latency_ms=0, participation=Fraction(1), on_gap=on_gap)
    prints = tape("100 1 B", "100 2 B", "100 9 B")
    lines, outcome = told(prints, settings, buy("5"), gaps={3: "AB"})
    assert lines == ["1 SUBMITTED", "2 ACKNOWLEDGED", "2 PARTIAL_FILL 2 at 100 TAKER", end]
    assert [fill.after_gap for fill in outcome.fills] == [False, True][: len(outcome.fills)]


@given(
    seed=st.integers(0, 10**6),
    every=st.sampled_from((2, 5)),
    queue=st.sampled_from(("through", "trades", "front")),
    latency_ms=st.sampled_from((0, 100, 1000)),
    participation=st.sampled_from((Fraction(1, 10), Fraction(1, 4), Fraction(1))),
    slippage_bps=st.sampled_from((Fraction(0), Fraction(5, 2))),
    allow_short=st.booleans(),
    known=st.booleans(),
)
def test_the_rules_hold_in_made_up_markets(
    seed: int,
    every: int,
    queue: str,
    latency_ms: int,
    participation: Fraction,
    slippage_bps: Fraction,
    allow_short: bool,
    known: bool,
) -> None:
    prints = made_up(seed, 150, ("AB", "CD"))
    instruments = instruments_of(prints, known)
    settings = Settings(latency_ms, 100, participation, slippage_bps, queue, allow_short=allow_short)
    outcome = calculate(prints, schedule(prints, instruments, seed, every, amends=True), settings, instruments)
    check(prints, instruments, settings, outcome)

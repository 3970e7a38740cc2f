"""Ticks made up, what becomes of them on their way out, the frames they end in, and who is let in."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockws_server.actions import (
    MEMORY_TICKS,
    Burst,
    DelayHandshake,
    Disconnect,
    Duplicate,
    FrameOut,
    Garbage,
    OneTick,
    Refuse,
    Reject,
    Reorder,
    Skip,
    Text,
    Ticks,
    Wait,
)
from mockws_server.frames import OutgoingFrame, Sender
from mockws_server.handshake_policy import WAITING_MAX, HandshakePolicy
from mockws_server.hub import close_frame, frame_bytes
from mockws_server.market import STYLES, Market, TickShaper, first_seq_at
from tradebot.core.events import BUY, SELL, Tick
from tradebot.feeds.exchanges.base import Unparseable
from tradebot.feeds.exchanges.mockws import MockWs

SYMBOLS = ("SOL/USDC", "BTC/USD", "ETH/USD")


class TestMarket:
    def test_the_same_seed_gives_the_same_ticks(self) -> None:
        """These very ticks, on every version of Python: scenarios would else differ between machines."""
        first, second = (Market(SYMBOLS, 7).ticks(500, 5) for _ in range(2))
        assert first == second
        assert first != Market(SYMBOLS, 8).ticks(500, 5)
        assert first[:2] == [
            Tick("SOL/USDC", 159.99, 9.92, 5, "mock-7-SOL/USDC-1", 1),
            Tick("BTC/USD", 91.02, 5.15, 5, "mock-7-BTC/USD-1", 1),
        ]

    @given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([None, ("BTC/USD",), SYMBOLS[:2]]))))
    def test_each_symbol_counts_from_1_without_a_hole(self, asked: list[tuple[int, tuple[str, ...] | None]]) -> None:
        market = Market(SYMBOLS)
        seen: Counter[str] = Counter()
        for count, symbols in asked:
            ticks = market.ticks(count, 9, symbols)
            assert len(ticks) == count
            for tick in ticks:
                seen[tick.symbol] += 1
                assert tick.symbol in (symbols or SYMBOLS)
                assert tick.seq == seen[tick.symbol]
                assert tick.event_id == f"mock-1-{tick.symbol}-{tick.seq}"

    def test_a_symbol_does_not_depend_on_the_others(self) -> None:
        alone = Market(("BTC/USD",)).ticks(50, 1)
        among = [tick for tick in Market(SYMBOLS).ticks(150, 1) if tick.symbol == "BTC/USD"]
        assert alone == among

    def test_symbols_take_turns(self) -> None:
        market = Market(SYMBOLS)
        assert [tick.symbol for n in (1, 3, 2) for tick in market.ticks(n, 1)] == [*SYMBOLS, *SYMBOLS]

    def test_prices_walk_on_a_grid_and_never_below_1(self) -> None:
        ticks = Market(("X",), 3).ticks(20_000, 1)
        assert all(tick.price >= 1 and tick.volume > 0 for tick in ticks)
        assert all(round(tick.price * 100) / 100 == tick.price for tick in ticks)
        steps = {round((after.price - before.price) * 100) for before, after in pairwise(ticks)}
        assert steps == set(range(-7, 8))


class TestMarketsWithTakers:
    @pytest.mark.parametrize("name", STYLES)
    def test_a_buy_trades_at_the_ask_and_a_sell_at_the_bid(self, name: str) -> None:
        """Where the taker changes, the price rises for a BUY and falls for a SELL, unless it jumps at that moment."""
        style = STYLES[name]
        ticks = Market(("X",), 3, style=style).ticks(5_000, 1)
        assert {tick.taker for tick in ticks} == {BUY, SELL}
        assert all(0 < tick.volume <= style.volume / 100 and tick.price >= 1 for tick in ticks)
        turned = [
            after.price - before.price if after.taker == BUY else before.price - after.price
            for before, after in pairwise(ticks)
            if before.taker != after.taker
        ]
        assert sum(difference >= 0 for difference in turned) / len(turned) > 0.95
        assert sum(difference > 0 for difference in turned) / len(turned) > 0.6

    def test_the_same_seed_gives_the_same_ticks(self) -> None:
        """These very ticks, on every version of Python."""
        for name, style in STYLES.items():
            first, second = (Market(SYMBOLS, 7, style=style).ticks(500, 5) for _ in range(2))
            assert first == second != Market(SYMBOLS, 8, style=style).ticks(500, 5), name
        assert Market(("X",), 1, style=STYLES["thin"]).ticks(2, 5) == [
            Tick("X", 137.0, 0.04, 5, "mock-1-X-1", 1, SELL),
            Tick("X", 137.29, 0.02, 5, "mock-1-X-2", 2, BUY),
        ]

    def test_how_they_differ(self) -> None:
        """Thin: wide and small. Fast: long series of one side. Gapping: jumps."""
        ticks = {name: Market(("X",), 5, style=style).ticks(5_000, 1) for name, style in STYLES.items()}
        series = {name: 5_000 / len(list(groupby(tick.taker for tick in found))) for name, found in ticks.items()}
        largest = {name: max(tick.volume for tick in found) for name, found in ticks.items()}
        jump = {
            name: max(abs(after.price / before.price - 1) for before, after in pairwise(found))
            for name, found in ticks.items()
        }
        assert series["fast"] > 10 > series["gapping"] > series["thin"]
        assert largest["thin"] <= 0.05 < 1 < largest["fast"]
        assert jump["fast"] < 0.001 < jump["thin"] < 0.01 < jump["gapping"] < 0.04

    def test_an_engine_reads_the_takers(self) -> None:
        made = Sender(("X",), style=STYLES["thin"]).messages(Burst(20), 5)
        read = [tick for frame in made for tick in MockWs().parse(frame.data.decode()).ticks]
        assert read == Market(("X",), style=STYLES["thin"]).ticks(20, 5)

    def test_a_given_tick_keeps_its_taker(self) -> None:
        tick = {"symbol": "X", "price": 1.0, "volume": 1.0, "ts": 5, "taker": "SELL"}
        (frame,) = Sender().messages(OneTick(tick), 9)
        assert MockWs().parse(frame.data.decode()).ticks == [Tick("X", 1.0, 1.0, 5, taker=SELL)]


def texts(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


class TestShaper:
    def test_skipping_leaves_out_the_next_ones(self) -> None:
        shaper = TickShaper()
        shaper.skip(2)
        shaper.skip(1)
        assert shaper.pass_on(texts(1, 2)) == []
        assert shaper.pass_on(texts(3, 4, 5)) == texts(4, 5)
        assert shaper.skipped == 3

    def test_reordering_holds_back_until_there_are_enough(self) -> None:
        shaper = TickShaper()
        shaper.reorder(3)
        assert shaper.pass_on(texts(1, 2)) == []
        assert shaper.pass_on(texts(3, 4)) == texts(3, 2, 1, 4)
        assert shaper.pass_on(texts(5)) == texts(5)

    def test_the_last_ones_are_sent_again_as_they_were_sent(self) -> None:
        shaper = TickShaper()
        assert shaper.again(3) == []
        shaper.reorder(2)
        shaper.pass_on(texts(1, 2, 3))
        assert shaper.again(2) == texts(1, 3)
        assert shaper.again(2) == texts(1, 3)
        assert shaper.again(9) == texts(2, 1, 3)

    def test_memory_is_bounded(self) -> None:
        shaper = TickShaper()
        shaper.pass_on(texts(*range(5 * MEMORY_TICKS)))
        assert len(shaper.again(10 * MEMORY_TICKS)) == MEMORY_TICKS
        for _ in range(5):
            shaper.reorder(MEMORY_TICKS)
        assert len(shaper.pass_on(texts(*range(MEMORY_TICKS)))) == MEMORY_TICKS

    @given(st.lists(st.one_of(st.tuples(st.just("skip"), st.integers(1, 5)), st.tuples(st.just("reorder"),
           st.integers(2, 5)), st.tuples(st.just("ticks"), st.integers(0, 9)))))  # fmt: skip
    def test_no_tick_is_made_up_or_sent_twice(self, steps: list[tuple[str, int]]) -> None:
        shaper, given_in, out = TickShaper(), 0, list[bytes]()
        for what, count in steps:
            if what == "ticks":
                out += shaper.pass_on(texts(*range(given_in, given_in + count)))
                given_in += count
            else:
                getattr(shaper, what)(count)
        assert len(set(out)) == len(out)
        assert given_in - len(out) - shaper.skipped in range(MEMORY_TICKS)


class TestSender:
    def test_ticks_are_frames_in_the_form_the_engine_expects(self) -> None:
        sender = Sender(SYMBOLS, 7)
        messages = sender.messages(Burst(4), 1_700_000_000_000)
        ticks = [tick for message in messages for tick in MockWs().parse(message.data.decode()).ticks]
        assert ticks == Market(SYMBOLS, 7).ticks(4, 1_700_000_000_000)
        assert [message.opcode for message in messages] == [1] * 4
        assert sender.ticks == 4

    def test_ticks_with_a_pace_are_the_players_business(self) -> None:
        assert len(Sender().messages(Ticks(3, 1.0), 1)) == 3

    def test_order_and_numbers_of_made_up_and_of_foreign_ticks(self) -> None:
        sender = Sender(("A",))

        def sent(messages: list[OutgoingFrame]) -> list[int]:
            return [json.loads(message.data)["seq"] for message in messages]

        sender.messages(Skip(2), 1)
        assert sent(sender.messages(Burst(3), 1)) == [3]
        sender.messages(Reorder(2), 1)
        assert sent(sender.messages(Burst(1), 1)) == []
        assert sent(sender.external([b'{"seq":99}'])) == [99, 4]
        assert sent(sender.messages(Duplicate(2), 1)) == [99, 4]
        assert sent(sender.messages(OneTick({"seq": -1}), 1)) == [-1]
        assert sender.ticks == 6

    @pytest.mark.parametrize("action", [Skip(1), Reorder(2), Wait(1.0), Disconnect(1000), Refuse(1)])
    def test_other_weather_is_no_frame(self, action: Skip | Reorder | Wait | Disconnect | Refuse) -> None:
        assert Sender().messages(action, 1) == []

    def test_texts_and_frames_are_as_they_are(self) -> None:
        assert Sender().messages(Text("é"), 1) == [OutgoingFrame("é".encode())]
        assert Sender().messages(FrameOut(9, b"\xff", fin=False), 1) == [OutgoingFrame(b"\xff", 9, False)]

    def test_every_kind_of_garbage_is_refused_by_the_engine(self) -> None:
        """So that a run of it counts towards parse_error_limit."""
        found = {message.data for message in Sender().messages(Garbage(100), 1_700_000_000_000)}
        assert len(found) == 12
        for data in found:
            with pytest.raises(Unparseable):
                MockWs().parse(data.decode())

    def test_half_a_frame_is_half_of_a_tick(self) -> None:
        sender = Sender()
        assert MockWs().parse(sender.half(5).data.decode()).ticks[0].ts == 5
        assert sender.messages(Duplicate(1), 5) == []


class TestFrameBytes:
    @pytest.mark.parametrize(
        ("size", "head"),
        [(0, "8100"), (125, "817d"), (126, "817e007e"), (65_535, "817effff"), (65_536, "817f0000000000010000")],
    )
    def test_lengths(self, size: int, head: str) -> None:
        assert frame_bytes(OutgoingFrame(b"x" * size)) == bytes.fromhex(head) + b"x" * size

    def test_opcodes_and_fin(self) -> None:
        assert frame_bytes(OutgoingFrame(b"", 9)) == b"\x89\x00"
        assert frame_bytes(OutgoingFrame(b"", 15, fin=False)) == b"\x0f\x00"

    def test_close_frames(self) -> None:
        assert close_frame(1011, "é") == b"\x88\x04\x03\xf3" + "é".encode()
        assert close_frame(1005, "") == b"\x88\x00"


class TestDoor:
    def test_one_weather_after_the_other(self) -> None:
        policy = HandshakePolicy()
        late, busy, shut = DelayHandshake(2.0), Reject(429, count=2), Refuse(count=2)
        for weather in (busy, shut, late):
            policy.add(weather, 0.0)
        knocks = []
        for _ in range(6):
            refused = policy.on_accept(0.0)
            knocks.append(refused or policy.on_request())
        assert knocks == [busy, busy, shut, shut, late, None]

    def test_a_refusal_for_a_time_stands_before_all_others(self) -> None:
        policy = HandshakePolicy()
        busy, shut = Reject(503), Refuse(seconds=3.0)
        policy.add(busy, 0.0)
        policy.add(shut, 10.0)
        assert [policy.on_accept(at) for at in (10.0, 12.9)] == [shut, shut]
        assert policy.on_accept(13.0) is None
        assert policy.on_request() is busy
        assert policy.on_request() is None

    def test_what_waits_is_bounded_and_can_be_forgotten(self) -> None:
        policy = HandshakePolicy()
        assert all(policy.add(Reject(503), 0.0) for _ in range(WAITING_MAX))
        assert not policy.add(Reject(503), 0.0)
        assert policy.add(Refuse(seconds=9.0), 0.0)
        policy.clear()
        assert (policy.on_accept(1.0), policy.on_request()) == (None, None)
        policy.add(Reject(429, count=2), 0.0)
        assert [bool(policy.on_request()) for _ in range(3)] == [True, True, False]

    def test_nothing_happens_without_weather(self) -> None:
        assert HandshakePolicy().on_accept(5.0) is None
        assert HandshakePolicy().on_request() is None


def test_a_tick_is_what_msgspec_makes_of_it() -> None:
    assert msgspec.json.decode(Sender().messages(Burst(1), 5)[0].data, type=Tick).ts == 5


def test_a_server_started_later_numbers_far_below_one_started_earlier() -> None:
    """However short the pause and however fast the first one sent: else its ticks would pass for repeated ones."""
    earlier_ms, up_ms, ticks_per_ms = 1_790_000_000_000, 1000, 300
    earlier = first_seq_at(earlier_ms) + up_ms * ticks_per_ms
    assert 0 < first_seq_at(earlier_ms + up_ms) < earlier - 4096
    assert first_seq_at(earlier_ms) < 2**53


def test_numbers_begin_where_asked() -> None:
    assert [tick.seq for tick in Market(("A",), first_seq=70).ticks(3, 1)] == [70, 71, 72]

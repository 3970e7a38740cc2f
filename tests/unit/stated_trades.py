"""What other projects state about frames of exchanges (shared data, `data/frames/stated`), as rows to compare with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.unit.frames import TAKERS, NewExchange, json_lines
from tradebot.core.events import Side, Tick
from tradebot.feeds.exchanges.base import Exchange, iso_ms


class Stated(NamedTuple):
    """A trade as another project states it; its symbols are in capitals and without a prefix of the exchange."""

    symbol: str
    price: float
    volume: float
    ts: int
    event_id: str | None
    taker: Side | None


def check_tardis(
    new: NewExchange, shared: Path, exchange: str, *, other: Callable[[Any], bool] = lambda message: False
) -> int:
    """All pairs of one exchange through one adapter object; returns the number of trades compared.

    `other` tells the messages of older protocols, which must only pass. What is normalised to anything but a trade
    (books, tickers, liquidations) must yield no tick.
    """
    adapter, compared = new(), 0
    for message, normalized in _pairs(shared, exchange):
        parsed = adapter.parse(json.dumps(message))
        if other(message):
            continue
        wanted = [
            Stated(
                row["symbol"],
                row["price"],
                row["amount"],
                iso_ms(row["timestamp"], "timestamp"),
                row["id"],
                TAKERS[row["side"]],
            )
            for row in normalized
            if row["type"] == "trade"
        ]
        found = [_plain(tick) for tick in parsed.ticks]
        assert found == wanted, message
        compared += len(wanted)
    return compared


def check_msg_parser(exchange: Exchange, shared: Path, name: str, tests: set[str]) -> int:
    """The named single-trade tests of crypto-msg-parser; returns how many there were."""
    rows = [
        row
        for row in json_lines(shared / "data" / "frames" / "stated" / "crypto_msg_parser.jsonl")
        if row["exchange"] == name and row["test"] in tests
    ]
    for row in rows:
        said = {key.split(".")[-1]: value for key, value in row["asserted"].items()}
        contracts = said["quantity_contract"].removeprefix("Some(").removesuffix(")")
        (tick,) = exchange.parse(row["frame"]).ticks
        assert tick.ts == int(said["extract_timestamp"]), row
        assert tick.volume == float(said["quantity_base"] if contracts == "None" else contracts), row
        assert tick.price == float(said["price"]), row
        assert tick.taker and said["side"] == f"TradeSide::{tick.taker.capitalize()}", row
    return len(rows)


def _pairs(shared: Path, exchange: str) -> Iterator[tuple[Any, Any]]:
    for row in json_lines(shared / "data" / "frames" / "stated" / "tardis_node.jsonl"):
        if row["exchange"] == exchange:
            yield row["message"], row["normalized"]


def _plain(tick: Tick) -> Stated:
    # Bitfinex: tBTCUSD is a trading pair (t) of that name.
    symbol = tick.symbol.removeprefix("t").upper()
    return Stated(symbol, tick.price, tick.volume, tick.ts, tick.event_id, tick.taker)

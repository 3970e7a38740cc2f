"""Recorded exchange frames (shared data, `data/frames`) and broken ones: how the adapters' tests get and compare them.

`check_file(Okx, shared_data, "okx")` compares a recorded file with what is expected of it; `survives_mutations(Okx,
SAMPLES)` and `survives(Okx, text)` for the texts of `frames_like(SAMPLES)` show that only Unparseable is raised.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from tradebot.core.events import BUY, SELL, Side, Tick
from tradebot.feeds.exchanges.base import DETAIL_CHARS_MAX, Exchange, ParsedFrame, Unparseable

NewExchange = Callable[[], Exchange]


class Line(NamedTuple):
    """One recorded frame; `label` is the gatherer's rough kind, `trades` what `expected/` says (empty: no trade)."""

    number: int
    text: str
    connection: str
    label: str
    trades: list[dict[str, Any]]


def load(shared: Path, name: str) -> list[Line]:
    """The frames of `data/frames/NAME.jsonl` in order, with their index and expectations."""
    place = shared / "data" / "frames"
    texts = (place / f"{name}.jsonl").read_text().removesuffix("\n").split("\n")
    index = [row.split("\t") for row in (place / "index" / f"{name}.tsv").read_text().removesuffix("\n").split("\n")]
    expected = {row["line"]: row["trades"] for row in json_lines(place / "expected" / f"{name}.jsonl")}
    assert index[0][:4] == ["line", "recv_ts", "conn", "kind"] and len(index) == len(texts) + 1, name
    return [
        Line(int(row[0]), text, row[2], row[3], expected.get(int(row[0]), []))
        for row, text in zip(index[1:], texts, strict=True)
    ]


def json_lines(path: Path) -> list[Any]:
    """The values of a JSONL file."""
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def check_file(
    new: NewExchange, shared: Path, name: str, *, unparseable: Collection[int] = (), other: Collection[int] = ()
) -> list[tuple[Line, ParsedFrame]]:
    """Every frame of a file through an adapter (one object per connection): ticks, history and order as expected.

    `unparseable`: the numbers of lines that must raise Unparseable; `other`: lines whose ticks are, for a reason the
    caller states, not those of `expected/`. All the others must neither raise nor differ. Returns the parsed frames.
    """
    exchanges: dict[str, Exchange] = {}
    result, raised, differing = [], {}, []
    for line in load(shared, name):
        exchange = exchanges.setdefault(line.connection, new())
        try:
            parsed = exchange.parse(line.text)
        except Unparseable as error:
            raised[line.number] = str(error)
            continue
        result.append((line, parsed))
        if line.number not in other and (found := rows(parsed)) != (wanted := wanted_rows(line.trades)):
            differing.append((line.number, wanted, found))
        assert bool(parsed.ticks or parsed.history) <= (parsed.kind == "trades"), (name, line.number, parsed)
    assert set(raised) == set(unparseable), (name, raised)
    assert not differing, (name, len(differing), differing[:3])
    return result


Row = tuple[bool, str, float, float, int, str | None, str | None]


def rows(parsed: ParsedFrame) -> list[Row]:
    """What a frame said, history first, as (history, symbol, price, volume, ts, event_id, taker)."""
    return [
        (is_history, tick.symbol, tick.price, tick.volume, tick.ts, tick.event_id, tick.taker)
        for is_history, ticks in ((True, parsed.history), (False, parsed.ticks))
        for tick in ticks
    ]


def wanted_rows(trades: list[dict[str, Any]]) -> list[Row]:
    """The same from a line of `expected/`: price and qty are the sender's digits, side is the taker's."""
    found: list[Row] = [
        (trade.get("snapshot", False), trade["symbol"], float(trade["price"]), float(trade["qty"]), trade["ts"],
         None if trade.get("id") is None else str(trade["id"]), trade["side"] and trade["side"].upper())
        for trade in trades
    ]  # fmt: skip
    return sorted(found, key=lambda row: not row[0])


def check_tardis(new: NewExchange, shared: Path, exchange: str) -> int:
    """Compare with what tardis-node makes of messages (`stated/`), under its name of an exchange; how many trades.

    It leaves out what was replayed at subscription.
    """
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    count = 0
    for pair in json_lines(shared / "data" / "frames" / "stated" / "tardis_node.jsonl"):
        if pair["exchange"] == exchange:
            wanted = [
                (trade["symbol"], trade["price"], trade["amount"],
                 (datetime.fromisoformat(trade["timestamp"]) - epoch) // timedelta(milliseconds=1), trade["id"],
                 TAKERS[trade["side"]])
                for trade in pair["normalized"] or []
                if trade["type"] == "trade"
            ]  # fmt: skip
            found = [row[1:] for row in rows(new().parse(_dump(pair["message"]))) if not row[0]]
            assert found == wanted, (exchange, pair["n"])
            count += len(wanted)
    return count


TAKERS: Mapping[str, Side | None] = {"buy": BUY, "sell": SELL, "unknown": None}
"""tardis-node's names of a taker's side."""


def crypto_msg_parser(shared: Path, exchange: str) -> list[Any]:
    """What crypto-msg-parser states of an exchange's frames: objects with `test`, `frame` and `asserted`."""
    stated = json_lines(shared / "data" / "frames" / "stated" / "crypto_msg_parser.jsonl")
    return [row for row in stated if row["exchange"] == exchange]


ABSENT = "absent"


def spoil(fields: dict[str, Any], key: str, odd: object) -> None:
    """Set one field of a frame, in place; ABSENT removes it."""
    if odd == ABSENT:
        del fields[key]
    else:
        fields[key] = odd


def survives(new: NewExchange, text: str) -> ParsedFrame | None:
    """What an adapter makes of any text: a sound ParsedFrame, or None for Unparseable. Others are failures."""
    try:
        parsed = new().parse(text)
    except Unparseable as error:
        assert str(error) and str(error).isprintable(), repr(str(error))
        return None
    assert parsed.kind in ("trades", "heartbeat", "ack", "error", "announcement", "ignored")
    assert len(parsed.detail) <= DETAIL_CHARS_MAX and "\n" not in parsed.detail
    assert parsed.kind == "trades" or not (parsed.ticks or parsed.history)
    for tick in parsed.ticks + parsed.history:
        assert msgspec.json.decode(msgspec.json.encode(tick), type=Tick) == tick  # holds all limits of Tick
    return parsed


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2.5, 10**400, 2**63, 1e308, "", "x", "1", "-1", "1.5", "NaN", "Infinity", "1e999",
    "\x00", "\u0660", "9" * 100, "trade", [], [[]], [None], ["1"], {}, {"": None}, {"e": "trade"}, [{}],
]  # fmt: skip


def mutations(text: str) -> Iterator[str]:
    """Every variant of a JSON frame with one key or element left out, doubled or replaced by each of ODD."""
    for path in _paths(json.loads(text)):
        for odd in ODD:
            yield _dump(_replaced(json.loads(text), path, odd))
        if path:
            removed, doubled = json.loads(text), json.loads(text)
            del _at(removed, path[:-1])[path[-1]]
            yield _dump(removed)
            if isinstance(parent := _at(doubled, path[:-1]), list):
                parent.insert(path[-1], copy.deepcopy(parent[path[-1]]))
                yield _dump(doubled)


def survives_mutations(new: NewExchange, samples: Sequence[str]) -> None:
    """All `mutations` and all beginnings of the samples (JSON texts) through an adapter."""
    for sample in samples:
        for text in mutations(sample):
            survives(new, text)
        for end in range(len(sample)):
            survives(new, sample[:end])


def frames_like(samples: Sequence[str]) -> st.SearchStrategy[str]:
    """Any text, any JSON, and the samples (JSON texts) with up to three places changed to any JSON."""
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(ODD)
    value = st.recursive(leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)

    @st.composite
    def changed(draw: st.DrawFn) -> str:
        frame = json.loads(draw(st.sampled_from(list(samples))))
        for _ in range(draw(st.integers(1, 3))):
            frame = _replaced(frame, draw(st.sampled_from(_paths(frame))), draw(value))
        return _dump(frame)

    return st.text() | value.map(_dump) | changed()


_Path = tuple[Any, ...]


def _paths(value: Any, here: _Path = ()) -> list[_Path]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in inner for path in _paths(item, (*here, key)))]


def _at(value: Any, path: _Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _replaced(value: Any, path: _Path, new: Any) -> Any:
    if not path:
        return copy.deepcopy(new)
    _at(value, path[:-1])[path[-1]] = copy.deepcopy(new)
    return value


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

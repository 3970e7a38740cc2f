"""Turns actions into frames, for the server and for the simulator. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from mockws_server.actions import (
    Action,
    Burst,
    Duplicate,
    FrameOut,
    Garbage,
    OneTick,
    Reorder,
    Skip,
    Text,
    Ticks,
)
from mockws_server.market import DEFAULT_SYMBOLS, Market, MarketStyle, TickShaper

OP_TEXT: Final = 1


class OutgoingFrame(NamedTuple):
    """A frame to send: its payload and kind."""

    data: bytes
    opcode: int = OP_TEXT
    fin: bool = True


class Sender:
    """Makes the frames of actions from one market. Used by one thread at a time.

    `ticks` counts the ticks returned, including repeated ones.
    """

    def __init__(
        self,
        symbols: Sequence[str] = DEFAULT_SYMBOLS,
        seed: int = 1,
        first_seq: int = 1,
        style: MarketStyle | None = None,
    ) -> None:
        self._market = Market(symbols, seed, first_seq, style)
        self._shaper = TickShaper()
        self._garbage = 0
        self.ticks = 0

    def messages(self, action: Action, ts_ms: int) -> list[OutgoingFrame]:
        """All frames of `action` if it is performed at `ts_ms` (Unix ms); none for an action that sends no frames."""
        match action:
            case Ticks() | Burst():
                made = self._market.ticks(action.count, ts_ms, action.symbols)
                return self._ticks(self._shaper.pass_on([msgspec.json.encode(tick) for tick in made]))
            case OneTick():
                return self._ticks(self._shaper.pass_on([msgspec.json.encode(action.tick)]))
            case Duplicate():
                return self._ticks(self._shaper.again(action.count))
            case Skip():
                self._shaper.skip(action.count)
            case Reorder():
                self._shaper.reorder(action.count)
            case Text():
                return [OutgoingFrame(action.data.encode())]
            case FrameOut():
                return [OutgoingFrame(action.data, action.opcode, action.fin)]
            case Garbage():
                return [OutgoingFrame(self._bad(ts_ms)) for _ in range(action.count)]
            case _:
                pass
        return []

    def external(self, ticks: Sequence[bytes]) -> list[OutgoingFrame]:
        """The frames of ticks (JSON texts) from another source; skipping and reordering apply to them too."""
        return self._ticks(self._shaper.pass_on(ticks))

    def half(self, ts_ms: int) -> OutgoingFrame:
        """The frame whose first half `half_frame` sends: a tick that is neither counted nor kept for repetition."""
        tick = {"symbol": DEFAULT_SYMBOLS[0], "price": 1.0, "volume": 0.0, "ts": ts_ms}
        return OutgoingFrame(msgspec.json.encode(tick))

    def _ticks(self, ticks: Sequence[bytes]) -> list[OutgoingFrame]:
        self.ticks += len(ticks)
        return [OutgoingFrame(tick) for tick in ticks]

    def _bad(self, ts_ms: int) -> bytes:
        """A malformed message of the next kind, in turn. A correct reader rejects every one of them."""
        self._garbage += 1
        return _GARBAGE[(self._garbage - 1) % len(_GARBAGE)].replace(b"TS", str(ts_ms).encode())


_GARBAGE: Final = (
    b'{"symbol":"SOL/USDC","price":101.5,"volume":',
    b'{"symbol":"SOL/USDC","price":"abc","volume":1.0,"ts":TS}',
    b"!!! not json !!!",
    b'{"symbol":"SOL/USDC","price":-5.0,"volume":1.0,"ts":TS}',
    b"[1, 2, 3]",
    b'{"symbol":"SOL/USDC","volume":1.0,"ts":TS}',
    b'{"symbol":"","price":100.0,"volume":1.0,"ts":TS}',
    b'{"symbol":"SOL/USDC","price":NaN,"volume":1.0,"ts":TS}',
    b'{"symbol":"SOL/USDC","price":1e999,"volume":1.0,"ts":TS}',
    b'{"symbol":"SOL/USDC","price":100.0,"volume":1.0,"ts":"yesterday"}',
    b"<html><body>502 Bad Gateway</body></html>",
    b"null",
)

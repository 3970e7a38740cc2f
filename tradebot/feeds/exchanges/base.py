"""The interface of exchange adapters, and the conversions that they share. Pure: no socket, clock, file or log."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from typing import Any, ClassVar, Final, Literal

import msgspec
from msgspec import Struct

from tradebot.core.currencies import Pair, pair_of_form
from tradebot.core.events import (
    AMOUNT_MAX,
    BUY,
    INT64_MAX,
    MAX_ID_CHARS,
    MAX_SYMBOL_CHARS,
    SELL,
    TS_MS_MAX,
    Side,
    Tick,
)

Kind = Literal["trades", "heartbeat", "ack", "error", "announcement", "ignored"]

DETAIL_CHARS_MAX: Final = 200


class Unparseable(ValueError):
    """A frame that cannot be parsed; the message gives the reason on one line, without quoting the frame."""


class Announcement(Struct, frozen=True, gc=False):
    """An announcement of the exchange to all clients, verbatim, e.g. of maintenance.

    `reconnect`: it will close this connection, and asks for a new one before that.
    """

    text: str
    reconnect: bool = False


class ParsedFrame(Struct, frozen=True, gc=False):
    """The content of one frame.

    `ticks` are live trades in the sender's order; `history` are trades from before the subscription that the exchange
    sends with it. `skipped` are (symbol, seq) of entries that use up a number of the sender's but are no market trades,
    so that their absence is no gap. `detail` is the exchange's own word in an ack or an error. `reply` is a text that
    the protocol of the exchange wants to be sent back (an application-level pong).

    `confirmed` and `refused` are symbols as they were asked for, where the adapter knows which ones an ack or an error
    is about; `ask_alone` are symbols that may be good, but were refused because of another one in their message.
    """

    kind: Kind
    ticks: list[Tick] = []
    history: list[Tick] = []
    skipped: list[tuple[str, int]] = []
    detail: str = ""
    reply: str | None = None
    confirmed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    ask_alone: tuple[str, ...] = ()
    announcement: Announcement | None = None


IGNORED: Final = ParsedFrame("ignored")
HEARTBEAT: Final = ParsedFrame("heartbeat")


class Exchange(ABC):
    """The protocol of one exchange. An object is used for one connection and may keep its state.

    `url` is the public endpoint used when none is given; `acknowledges`: the exchange confirms a subscription (so that
    a connection on which neither an ack nor a trade has come is known not to be subscribed).
    """

    name: ClassVar[str]
    url: ClassVar[str]
    acknowledges: ClassVar[bool] = True
    unreachable_hint: ClassVar[str | None] = None
    """What to do where no server answers at `url`, beside looking at the network."""
    message_bytes: ClassVar[int] = 0
    """How large a message of the exchange can be, where that is more than feed.max_message_bytes is by default."""
    streams_max: ClassVar[int | None] = None
    """How many symbols a connection takes, as the exchange documents it; None where it documents no limit."""
    messages_per_s: ClassVar[float | None] = None
    """How many messages a second the exchange accepts on a connection, as documented; None where nothing is."""
    token_url: str | None = None
    """Where a connection token is to be asked for (HTTPS POST) before each connection; see `url_with_token`."""

    @classmethod
    def market_of(cls, url: str) -> str:
        """The market of the endpoint `url`; empty for the default market of the exchange.

        Positions, windows and sequence state of two markets are kept apart (`store.feed_identity`).
        """
        return ""

    @classmethod
    def pair(cls, symbol: str, market: str = "") -> Pair | None:
        """Base and quote of `symbol`, as ticks carry it, and whether its quantities are contracts; None: not known.

        `market` is that of the endpoint (`market_of`); empty also for a recording, whose endpoint is not known. Pure.
        """
        return pair_of_form(symbol)

    def connection_url(self, url: str, symbols: Sequence[str]) -> str:
        """The URL to connect to, for exchanges that put the symbols there. Others return `url` unchanged."""
        return url

    def stored_symbol(self, asked: str) -> str:
        """The symbol in the ticks of `asked` (as given to `subscriptions`), if it differs.

        It names the market wherever one connection can bring two symbols of one name. Call `connection_url` before.
        """
        return asked

    def url_with_token(self, url: str, answer: str) -> str:
        """The URL to connect to, given the answer of `token_url`. Raises Unparseable."""
        return url

    @abstractmethod
    def subscriptions(self, symbols: Sequence[str]) -> list[str]:
        """The messages that subscribe to the trades of `symbols`, in the order to send them."""

    def keepalive(self) -> str | None:
        """The exchange's own ping message; None: WebSocket pings are used."""
        return None

    @abstractmethod
    def parse(self, text: str) -> ParsedFrame:
        """The content of a frame. Frames of other channels are "ignored". Raises only Unparseable, for any text."""


_is_number: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII).fullmatch
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ISO: Final = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?", re.ASCII)
_decode: Final = msgspec.json.Decoder().decode
_SIDES: Final[dict[str, Side]] = {"buy": BUY, "b": BUY, "sell": SELL, "s": SELL}


def decode_json(text: str) -> Any:
    """The JSON value of a frame. Raises Unparseable."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Unparseable("not JSON") from None


def number(value: object, name: str) -> float:
    """The double nearest to what was sent, as text or as a number. Raises Unparseable unless it is finite."""
    if type(value) is str:
        if not _is_number(value) or len(value) > 64:
            raise Unparseable(f"{name}: not a number")
        found = float(value)
    elif type(value) is float or type(value) is int:
        try:
            found = float(value)
        except OverflowError:
            raise Unparseable(f"{name}: not a finite number") from None
    else:
        raise Unparseable(f"{name}: missing or not a number")
    if not isfinite(found):
        raise Unparseable(f"{name}: not a finite number")
    return found


def integer(value: object, name: str) -> int:
    """A whole number from 0 to 2**63 - 1, sent as a number or as text. Raises Unparseable."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise Unparseable(f"{name}: not a whole number")
    return value


def text(value: object, name: str, chars_max: int = MAX_ID_CHARS) -> str:
    """A text of 1 to `chars_max` printable characters. Raises Unparseable."""
    if type(value) is str and 1 <= len(value) <= chars_max and value.isprintable():
        return value
    # Python calls more characters unprintable, such as a no-break space, than are refused here.
    if type(value) is not str or not 1 <= len(value) <= chars_max or _UNPRINTABLE.search(value):
        raise Unparseable(f"{name}: missing or not a text of 1 to {chars_max} printable characters")
    return value


def iso_ms(value: object, name: str) -> int:
    """Unix ms of an ISO 8601 time with up to nine decimals, cut down to the millisecond. Raises Unparseable.

    In UTC unless it ends with another offset, such as +02:00.
    """
    match = _ISO.fullmatch(value) if type(value) is str else None
    if match is None:
        raise Unparseable(f"{name}: not a time")
    try:
        seconds = int(datetime.fromisoformat(match[1] + (match[3] or "Z")).timestamp())
    except (ValueError, OverflowError):
        raise Unparseable(f"{name}: not a time") from None
    if seconds < 0:
        raise Unparseable(f"{name}: before 1970")
    return seconds * 1000 + int(((match[2] or "") + "000")[:3])


def side(value: object) -> Side | None:
    """The side that an exchange names with a word or its first letter, in capitals or not.

    None for anything else: a trade without a side, or with one that is not known here, is a trade nevertheless.
    """
    return _SIDES.get(value.lower()) if type(value) is str else None


def opposite(maker: Side | None) -> Side | None:
    """The taker's side, given the maker's."""
    return None if maker is None else SELL if maker == BUY else BUY


def make_tick(
    symbol: object,
    price: object,
    volume: object,
    ts_ms: int,
    trade_id: object = None,
    seq: int | None = None,
    taker: Side | None = None,
) -> Tick:
    """A tick from the fields as sent; `trade_id` a text or a whole number. Raises Unparseable naming the field."""
    if type(trade_id) is int:
        trade_id = str(trade_id)
    found_price, found_volume = number(price, "price"), number(volume, "volume")
    if not (0 < found_price <= AMOUNT_MAX and 0 <= found_volume <= AMOUNT_MAX and 0 <= ts_ms <= TS_MS_MAX):
        raise Unparseable(_out_of_range(found_price, found_volume))
    return Tick(
        text(symbol, "symbol", MAX_SYMBOL_CHARS),
        found_price,
        found_volume,
        ts_ms,
        None if trade_id is None else text(trade_id, "trade id"),
        seq,
        taker,
    )


def _out_of_range(price: float, volume: float) -> str:
    """What is wrong with a tick of these numbers; if it is neither, it is the time."""
    if price <= 0:
        return "price: not above 0"
    if volume < 0:
        return "volume: below 0"
    if price > AMOUNT_MAX or volume > AMOUNT_MAX:
        return f"{'price' if price > AMOUNT_MAX else 'volume'}: above {AMOUNT_MAX:g}"
    return "time: not between 1970 and 2100 (Unix milliseconds)"


def skipped(symbol: object, seq: object) -> ParsedFrame:
    """A frame whose one entry is no market trade, but uses up a number where it has one."""
    if type(symbol) is str and 1 <= len(symbol) <= MAX_SYMBOL_CHARS and type(seq) is int and 0 <= seq <= INT64_MAX:
        return ParsedFrame("ignored", skipped=[(symbol, seq)])
    return IGNORED


def announcement(value: object, *, reconnect: bool = False) -> ParsedFrame:
    """A frame in which the exchange announces something."""
    shown = detail(value)
    return ParsedFrame("announcement", detail=shown, announcement=Announcement(shown, reconnect))


def detail(value: object) -> str:
    """Anything as a short printable text, for acks and errors."""
    try:
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except RecursionError:
        shown = "(nested too deep to show)"
    return _UNPRINTABLE.sub(" ", shown)[:DETAIL_CHARS_MAX]

"""The actions of mockws as typed values; a scenario file, a control message or the simulator requests them.

Each action is a table (TOML) or an object (JSON) whose `do` names it: `{"do": "disconnect", "code": 1011}`. Anything
unknown is refused. Bytes are base64 text. An action applies to the connections that are open when it is performed; an
action on handshakes applies to later connections. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import Meta, Struct

from tradebot.config.validation import did_you_mean, show
from tradebot.core.events import MAX_SYMBOL_CHARS

Symbol = Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_CHARS)]
Symbols = Annotated[list[Symbol], Meta(min_length=1, max_length=1000)]

MEMORY_TICKS: Final = 1000
"""The number of recent ticks that can be repeated, and of ticks that can be held back for reordering."""

DATA_BYTES_MAX: Final = 1 << 24

_Count = Annotated[int, Meta(ge=1, le=10_000_000)]
_Times = Annotated[int, Meta(ge=1, le=1_000_000)]
_Few = Annotated[int, Meta(ge=1, le=MEMORY_TICKS)]
_Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class _Action(Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", omit_defaults=True):
    """Base of all actions."""


class Ticks(_Action, frozen=True, tag="ticks"):
    """`count` ticks of the market, evenly spaced, `per_s` a second; of `symbols` in turn, by default of all symbols.

    Takes count / per_s seconds.
    """

    count: _Count
    per_s: Annotated[float, Meta(ge=0.001, le=1e6)]
    symbols: Symbols | None = None


class Burst(_Action, frozen=True, tag="burst"):
    """`count` ticks of the market, spread evenly over `seconds`; 0: as fast as possible. Takes `seconds`."""

    count: _Count
    seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    symbols: Symbols | None = None


class OneTick(_Action, frozen=True, tag="tick"):
    """The JSON object `tick`, sent unchanged, whether or not it is a valid tick."""

    tick: dict[str, Any]


class Text(_Action, frozen=True, tag="text"):
    """One text message."""

    data: Annotated[str, Meta(max_length=DATA_BYTES_MAX)]


class Raw(_Action, frozen=True, tag="raw"):
    """Bytes (base64) written directly to the TCP stream, outside any frame."""

    data: Annotated[bytes, Meta(max_length=DATA_BYTES_MAX)]


class FrameOut(_Action, frozen=True, tag="frame"):
    """One WebSocket frame: `opcode` 0 to 15, `data` in base64 (need not be UTF-8 in a text frame), final by default."""

    opcode: Annotated[int, Meta(ge=0, le=15)]
    data: Annotated[bytes, Meta(max_length=DATA_BYTES_MAX)] = b""
    fin: bool = True


class Garbage(_Action, frozen=True, tag="garbage"):
    """`count` text messages that are not valid ticks: truncated or malformed JSON, missing fields, wrong types."""

    count: _Times = 1


class Wait(_Action, frozen=True, tag="wait"):
    """A quiet market: nothing is sent, pings are answered. Takes `seconds`; only scenarios can use it."""

    seconds: _Seconds


class Stall(_Action, frozen=True, tag="stall"):
    """Mute connections: for `seconds` they stay open but send nothing, not even pongs; ticks for them are discarded.

    Connections opened in the meantime are not affected. Takes `seconds`.
    """

    seconds: _Seconds


class HalfFrame(_Action, frozen=True, tag="half_frame"):
    """The first half of a tick's frame, then nothing more on these connections until they are closed."""


class Disconnect(_Action, frozen=True, tag="disconnect"):
    """A close frame with `code` and `reason`, then the end of the connection.

    1005 is a close frame without a code, 1006 the end of the TCP stream without a close frame. Connections that are
    mute, or that have been sent half a frame, end as with 1006.
    """

    code: Annotated[int, Meta(ge=0, le=65_535)] = 1000
    reason: Annotated[str, Meta(max_length=123)] = ""

    def __post_init__(self) -> None:
        if len(self.reason.encode()) > 123:
            raise ValueError("reason: longer than 123 bytes")


class Reset(_Action, frozen=True, tag="reset"):
    """End the connections with a TCP reset."""


class Refuse(_Action, frozen=True, tag="refuse"):
    """Accept TCP connections and end them before the handshake: the next `count`, or all of them for `seconds`.

    With `reset` they end with a TCP reset.
    """

    count: _Times | None = None
    seconds: _Seconds | None = None
    reset: bool = False

    def __post_init__(self) -> None:
        if (self.count is None) == (self.seconds is None):
            raise ValueError("refuse: needs either count or seconds")


class DelayHandshake(_Action, frozen=True, tag="delay_handshake"):
    """Delay the answers to the next `count` handshakes by `seconds`."""

    seconds: _Seconds
    count: _Times = 1


class Reject(_Action, frozen=True, tag="reject"):
    """Answer the next `count` handshakes with HTTP `status`, and with Retry-After if `retry_after_s` is set."""

    status: Annotated[int, Meta(ge=300, le=599)]
    count: _Times = 1
    retry_after_s: Annotated[int, Meta(ge=0, le=86_400)] | None = None


class DropPings(_Action, frozen=True, tag="drop_pings"):
    """Do not answer pings for `seconds`; ticks are still sent. Takes no time."""

    seconds: _Seconds


class Duplicate(_Action, frozen=True, tag="duplicate"):
    """Send the last `count` ticks again, unchanged."""

    count: _Few = 1


class Skip(_Action, frozen=True, tag="skip"):
    """Do not send the next `count` ticks: their numbers are missing."""

    count: _Times = 1


class Reorder(_Action, frozen=True, tag="reorder"):
    """Hold back the next `count` ticks, then send them in reverse order."""

    count: Annotated[int, Meta(ge=2, le=MEMORY_TICKS)] = 2


class Quit(_Action, frozen=True, tag="quit"):
    """Close all connections with 1001 and exit with 0."""


Action = (
    Ticks
    | Burst
    | OneTick
    | Text
    | Raw
    | FrameOut
    | Garbage
    | Wait
    | Stall
    | HalfFrame
    | Disconnect
    | Reset
    | Refuse
    | DelayHandshake
    | Reject
    | DropPings
    | Duplicate
    | Skip
    | Reorder
    | Quit
)

NAMES: Final = tuple(str(kind.__struct_config__.tag) for kind in get_args(Action))
"""The names of all actions."""


class BadAction(ValueError):
    """An invalid action; the message gives the reason on one line."""


_decoder: Final = msgspec.json.Decoder(Action)


def decode(data: bytes) -> Action:
    """The action that a JSON object describes. Raises BadAction for invalid input, whatever the bytes are."""
    try:
        action: Action = _decoder.decode(data)
    except (ValueError, RecursionError) as error:  # DecodeError, ValidationError and UnicodeDecodeError are ValueErrors
        raise BadAction(_explain(error, {})) from None
    return action


def from_table(table: Mapping[str, Any]) -> Action:
    """The action that a TOML table describes. Raises BadAction."""
    try:
        action: Action = msgspec.convert(table, Action)
    except (ValueError, RecursionError) as error:
        raise BadAction(_explain(error, table)) from None
    return action


def encode(action: Action) -> bytes:
    """The JSON object from which `decode` makes this action."""
    return msgspec.json.encode(action)


def name_of(action: Action) -> str:
    """The action's name, as in `do`."""
    return str(action.__struct_config__.tag)


def describe(action: Action) -> str:
    """The action on one line, for people: `disconnect code=1011 reason="busy"`; long data is shown as its size."""
    words = [name_of(action)]
    for field, default in zip(action.__struct_fields__, _defaults(action), strict=True):
        value = getattr(action, field)
        if value is None or (value == default and field != "code"):
            continue
        shown = f"{len(value)} bytes" if isinstance(value, bytes) else show(value) if type(value) is str else value
        words.append(f"{field}={shown:g}" if isinstance(shown, float) else f"{field}={shown}")
    text = " ".join(str(word) for word in words)
    return text if len(text) <= 160 else text[:157] + "..."


def _defaults(action: Action) -> list[object]:
    return [info.default for info in msgspec.structs.fields(type(action))]


def _explain(error: Exception, table: Mapping[str, Any]) -> str:
    text = str(error).partition("\n")[0]
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if "missing required field `do`" in text:
        return f"do: missing; it is one of {', '.join(NAMES)}"
    if text.endswith("`$.do`"):
        word = table.get("do")
        hint = did_you_mean(word, NAMES) if isinstance(word, str) else ""
        return (
            f"do: unknown action{' ' + show(word) if word is not None else ''}{hint or '; one of ' + ', '.join(NAMES)}"
        )
    body, at, where = text.partition(" - at `$")
    body = body[:1].lower() + body[1:] if not body.startswith("JSON") else body
    return f"{where.rstrip('`').lstrip('.')}: {body}" if at else body

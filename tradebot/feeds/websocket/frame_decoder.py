"""The receiving half of the WebSocket protocol (RFC 6455) without I/O: bytes in, messages and control frames out.

Why not websocket-client's own reader: it makes two or three system calls a frame, checks UTF-8 byte by byte in Python,
reserves memory for whatever length a header announces, joins fragments in quadratic time, and lets some broken control
frames pass. Here every bound binds at the header, and a chunk of hundreds of small frames costs one pass.
"""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

from tradebot.feeds.websocket.transport import CLOSE_BAD_PAYLOAD, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG, Frame
from tradebot.output.redaction import clip, escape, mask

CLOSE_WITHOUT_CODE: Final = 1005
"""Never sent: what one reports for a close frame that carries no code."""

_FIN: Final = 0x80
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_OPCODES: Final = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})
_WHOLE_TEXT: Final = _FIN | _TEXT
_CONTROL_BYTES_MAX: Final = 125
EMPTY_FRAGMENTS_MAX: Final = 100
"""Fragments without content in one message. They add nothing to its length, so that the bound on that never binds."""

# The smallest length that may be written in two bytes, and in eight.
_SHORT, _LONG = 126, 1 << 16
# 1004 to 1006 and 1015 are reserved for reports, 1016 to 2999 for later versions of the protocol.
_CLOSE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
_REASON_CHARS_MAX: Final = 200


class Ending(Struct, frozen=True):
    """How the stream of frames ended: the close code to report, why, and the payload of the close frame to send."""

    code: int
    reason: str
    answer: bytes


class _Violation(Exception):
    """The peer broke the protocol or a bound."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class FrameDecoder:
    """Decodes the bytes that a server sends after the handshake into frames.

    Keeps at most what `feed` was given since the last `take`, one frame and one unfinished message: bounded by
    `max_message_bytes` when `feed` is only called after a `take` that returned less than its limit.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self.ending: Ending | None = None
        """Set by `take` once it met a close frame or a broken rule. Nothing is decoded after that."""
        self._limit = max_message_bytes
        self._buffer = bytearray()
        # The fragmented message that is being received; opcode 0 without one.
        self._opcode = 0
        self._parts = bytearray()
        self._empty_fragments = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def take(self, limit: int) -> list[Frame]:
        """At most `limit` of the complete frames, in order. An incomplete frame is kept. See `ending` too."""
        frames: list[Frame] = []
        buffer, at = self._buffer, 0
        size = len(buffer)
        try:
            while size - at >= 2 and len(frames) < limit and self.ending is None:
                first, length = buffer[at], buffer[at + 1]
                start = at + 2
                if length > 125:
                    if length > 127:
                        raise _Violation(CLOSE_PROTOCOL_ERROR, "a masked frame")
                    start = at + (4 if length == 126 else 10)
                    if start > size:
                        break
                    least, length = _SHORT if length == 126 else _LONG, int.from_bytes(buffer[at + 2 : start], "big")
                    if length < least and length <= self._limit:  # over the limit, that is the better reason
                        raise _Violation(CLOSE_PROTOCOL_ERROR, f"the length {length} in {start - at - 2} bytes")
                if first != _WHOLE_TEXT or self._opcode or length > self._limit:
                    self._check_header(first, length)
                end = start + length
                if end > size:
                    break
                payload = buffer[start:end]
                at = end
                if first == _WHOLE_TEXT:
                    frames.append(Frame("text", payload.decode()))
                else:
                    self._take_other(first & 15, bool(first & _FIN), payload, frames)
        except _Violation as error:
            self._end(error.code, f"the peer sent {error}", struct.pack("!H", error.code))
        except UnicodeDecodeError as error:
            reason = f"the peer sent a text that is not UTF-8 ({error.reason} at byte {error.start})"
            self._end(CLOSE_BAD_PAYLOAD, reason, struct.pack("!H", CLOSE_BAD_PAYLOAD))
        if self.ending is not None:
            buffer.clear()
        else:
            del buffer[:at]
        return frames

    def _check_header(self, first: int, length: int) -> None:
        """Reject an invalid frame by its header, so that none of its content is stored."""
        opcode = first & 15
        if first & 0x70:
            raise _Violation(CLOSE_PROTOCOL_ERROR, "a frame with reserved bits set (no extension was agreed on)")
        if opcode not in _OPCODES:
            raise _Violation(CLOSE_PROTOCOL_ERROR, f"a frame of the unknown kind {opcode}")
        if opcode >= _CLOSE:
            if not first & _FIN or length > _CONTROL_BYTES_MAX:
                raise _Violation(CLOSE_PROTOCOL_ERROR, "a control frame that is fragmented or over 125 bytes")
            return
        if (opcode == _CONTINUATION) != bool(self._opcode):
            kind = (
                "a new message inside a fragmented one"
                if self._opcode
                else "a continuation frame without a message to continue"
            )
            raise _Violation(CLOSE_PROTOCOL_ERROR, kind)
        if len(self._parts) + length > self._limit:
            raise _Violation(CLOSE_TOO_BIG, f"a message of more than {self._limit} bytes (feed.max_message_bytes)")
        if not length and not first & _FIN:
            self._empty_fragments += 1
            if self._empty_fragments > EMPTY_FRAGMENTS_MAX:
                raise _Violation(CLOSE_PROTOCOL_ERROR, f"a message of more than {EMPTY_FRAGMENTS_MAX} empty fragments")

    def _take_other(self, opcode: int, final: bool, payload: bytearray, frames: list[Frame]) -> None:
        """Process everything except a text message in one frame: control frames, binary messages, fragments."""
        if opcode in (_PING, _PONG):
            frames.append(Frame("ping" if opcode == _PING else "pong", data=bytes(payload)))
        elif opcode == _CLOSE:
            self._take_close(payload)
        else:
            self._opcode = opcode or self._opcode
            self._parts += payload
            if final:
                text, message = self._opcode == _TEXT, self._parts
                self._opcode, self._parts, self._empty_fragments = 0, bytearray(), 0
                frames.append(Frame("text", message.decode()) if text else Frame("binary", data=bytes(message)))

    def _take_close(self, payload: bytearray) -> None:
        if not payload:
            self._end(CLOSE_WITHOUT_CODE, "the peer closed the connection without a code", b"")
            return
        # A single byte cannot make a valid code either.
        code = int.from_bytes(payload[:2], "big")
        if code not in _CLOSE_CODES:
            raise _Violation(CLOSE_PROTOCOL_ERROR, f"a close frame with the invalid code {code}")
        reason = escape(clip(mask(payload[2:].decode()), _REASON_CHARS_MAX))
        self._end(code, f"the peer closed the connection with {code}{': ' + reason if reason else ''}", payload[:2])

    def _end(self, code: int, reason: str, answer: bytes | bytearray) -> None:
        self.ending = Ending(code, reason, bytes(answer))

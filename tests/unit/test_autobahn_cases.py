"""Cases like those of Autobahn's fuzzing server, sections 1 to 7 and 10, that need no fuzzing server.

An echo client on the real transport talks to a peer that sends raw bytes, whole and chopped. What the client must
answer is its echoes and pongs, then its close frame, then the end. (The real server: tests/autobahn.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.autobahn.client import echo
from tests.contract.peers import (
    BINARY,
    CLOSE,
    CONT,
    GENEROUS,
    PING,
    PONG,
    TEXT,
    Link,
    RealPeer,
    Received,
    close_frame,
    frame,
    never,
    upgrade_answer,
)
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.websocket.client import WebSocketTransport


@dataclass(frozen=True)
class Case:
    """What the peer sends, and what it must get back before the end."""

    name: str
    sent: bytes
    answers: tuple[Received, ...]

    @property
    def chops(self) -> tuple[int, ...]:
        """Sizes of the pieces that it is sent in: whole, and small ones as far as that does not take long."""
        size = len(self.sent)
        return (size, 1) if size <= 400 else (size, 997) if size > 1200 else (size, 13)


def closing(code: int | None, reason: bytes = b"") -> Received:
    return Received("close", b"" if code is None else struct.pack("!H", code) + reason)


NORMAL = close_frame(1000)


def good(name: str, sent: bytes, *answers: Received) -> Case:
    """The peer closes in good order at the end."""
    return Case(name, sent + NORMAL, (*answers, closing(1000)))


def bad(name: str, sent: bytes, code: int, *answers: Received) -> Case:
    """The client must give up with `code`."""
    return Case(name, sent, (*answers, closing(code)))


def text(data: bytes) -> Received:
    return Received("text", data)


def pong(data: bytes = b"") -> Received:
    return Received("pong", data)


def fragments(opcode: int, parts: Sequence[bytes]) -> list[bytes]:
    last = len(parts) - 1
    return [frame(CONT if at else opcode, part, fin=at == last) for at, part in enumerate(parts)]


def framing() -> Iterator[Case]:
    for size in (0, 125, 126, 127, 128, 65535, 65536):
        yield good(f"1.1 text of {size}", frame(TEXT, b"*" * size), text(b"*" * size))
        data = bytes([0, 0xFE, 0xFF, 7]) * (size // 4) + b"\xfe" * (size % 4)
        yield good(f"1.2 binary of {size}", frame(BINARY, data), Received("binary", data))


def pings() -> Iterator[Case]:
    for data in (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125):
        yield good(f"2.1 ping of {len(data)}", frame(PING, data), pong(data))
    yield bad("2.5 ping of 126", frame(PING, b"\xfe" * 126), 1002)
    yield bad("2.5 pong of 126", frame(PONG, b"\xfe" * 126), 1002)
    yield good("2.7 unsolicited pong", frame(PONG))
    yield good("2.8 unsolicited pong with payload", frame(PONG, b"unsolicited"))
    yield good("2.9 unsolicited pong, then ping", frame(PONG, b"unsolicited") + frame(PING, b"x"), pong(b"x"))
    many = [b"payload-%d" % n for n in range(10)]
    yield good("2.10 ten pings", b"".join(frame(PING, data) for data in many), *map(pong, many))


def reserved_bits() -> Iterator[Case]:
    for rsv in range(1, 8):
        yield bad(f"3 rsv {rsv}", frame(TEXT, b"Hello", rsv=rsv), 1002)
        yield bad(f"3 rsv {rsv} after a text", frame(TEXT, b"a") + frame(TEXT, b"b", rsv=rsv), 1002, text(b"a"))
    for opcode in (BINARY, PING, PONG, CLOSE):
        yield bad(f"3 rsv 4 on opcode {opcode}", frame(opcode, rsv=4), 1002)


def opcodes() -> Iterator[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield bad(f"4 opcode {opcode}", frame(opcode), 1002)
        after = frame(TEXT, b"a") + frame(opcode, b"reserved")
        yield bad(f"4 opcode {opcode} after a text", after + frame(PING), 1002, text(b"a"))


def fragmentation() -> Iterator[Case]:
    both = fragments(TEXT, [b"fragment1", b"fragment2"])
    whole = text(b"fragment1fragment2")
    yield bad("5.1 fragmented ping", b"".join(fragments(PING, [b"1", b"2"])), 1002)
    yield bad("5.2 fragmented pong", b"".join(fragments(PONG, [b"1", b"2"])), 1002)
    yield bad("5.2 fragmented close", frame(CLOSE, struct.pack("!H", 1000), fin=False), 1002)
    yield good("5.3 text in two", b"".join(both), whole)
    yield good("5.6 ping between", both[0] + frame(PING, b"between") + both[1], pong(b"between"), whole)
    yield good("5.6 pong between", both[0] + frame(PONG, b"between") + both[1], whole)
    yield bad("5.9 continuation of nothing, final", frame(CONT, b"x") + frame(TEXT, b"y"), 1002)
    yield bad("5.12 continuation of nothing", frame(CONT, b"x", fin=False) + frame(TEXT, b"y"), 1002)
    late = b"".join(both) + frame(CONT, b"late", fin=False)
    yield bad("5.15 continuation behind the last", late + frame(TEXT, b"y"), 1002, whole)
    yield bad("5.18 text inside a text", both[0] + frame(TEXT, b"fragment2"), 1002)
    yield bad("5.18 binary inside a text", both[0] + frame(BINARY, b"fragment2"), 1002)
    five = fragments(TEXT, [b"fragment%d" % n for n in range(1, 6)])
    between = five[0] + five[1] + frame(PING, b"one") + five[2] + five[3] + frame(PING, b"two") + five[4]
    answer = text(b"fragment1fragment2fragment3fragment4fragment5")
    yield good("5.19 five fragments, two pings", between, pong(b"one"), pong(b"two"), answer)
    empty = frame(BINARY, fin=False) + frame(CONT, fin=False) * 20 + frame(CONT)
    yield good("6.1.2 empty fragments", empty, Received("binary"))
    yield good("6.1.3 one that is not", b"".join(fragments(TEXT, [b"", b"middle", b""])), text(b"middle"))


GREEK = "\u03ba\u1f79\u03c3\u03bc\u03b5"
VALID_TEXTS = (
    "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!",
    GREEK,
    "\x00",
    "\u0080\u0800\U00010000",
    "\x7f\u07ff\uffff",
    "\ud7ff\ue000\ufffd",
    "\U0010ffff",
    "\ufffe\uffff\U0001fffe\U0001ffff\U0010fffe",
)
INVALID_TEXTS = (
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xce",
    b"\xce\xba\xe1",
    b"\xce\xba\xe1\xbd",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80\xbf",
    bytes(range(0x80, 0xC0)),
    b" ".join(bytes([lead]) for lead in range(0xC0, 0xFE)),
    b"\xc0",
    b"\xe0\x80",
    b"\xf0\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
)


def utf8() -> Iterator[Case]:
    for n, valid in enumerate(VALID_TEXTS):
        data = valid.encode("utf-8", "surrogatepass")
        single = b"".join(fragments(TEXT, [data[at : at + 1] for at in range(len(data))]))
        yield good(f"6.2 valid {n}", frame(TEXT, data), text(data))
        yield good(f"6.2 valid {n}, a fragment each byte", single, text(data))
    for n, data in enumerate(INVALID_TEXTS):
        yield bad(f"6.3 invalid {n}", frame(TEXT, data) + NORMAL, 1007)
        yield bad(f"6.3 invalid {n} in three", b"".join(fragments(TEXT, [data[:1], data[1:2], data[2:]])), 1007)
    yield bad("6.4 behind a good one", frame(TEXT, b"a") + frame(TEXT, b"\xff"), 1007, text(b"a"))
    yield good("6 binary need not be UTF-8", frame(BINARY, b"\xff\xc0"), Received("binary", b"\xff\xc0"))


def closes() -> Iterator[Case]:
    yield good("7.1.1 text, then close", frame(TEXT, b"a"), text(b"a"))
    yield Case("7.1.2 two closes", NORMAL + NORMAL, (closing(1000),))
    yield Case("7.1.3 ping behind the close", NORMAL + frame(PING), (closing(1000),))
    yield Case("7.1.4 text behind the close", NORMAL + frame(TEXT, b"a"), (closing(1000),))
    yield Case("7.1.5 close inside a text", frame(TEXT, b"a", fin=False) + NORMAL + frame(CONT), (closing(1000),))
    yield good("7.1.6 256 KiB, then close", frame(TEXT, b"*" * 262144), text(b"*" * 262144))
    yield Case("7.3.1 close without code", close_frame(None), (closing(None),))
    yield bad("7.3.2 close of one byte", frame(CLOSE, b"a"), 1002)
    yield Case("7.3.4 close with a reason", close_frame(1000, b"Hello World!"), (closing(1000),))
    yield Case("7.3.5 close of 125 bytes", close_frame(1000, b"*" * 123), (closing(1000),))
    yield bad("7.3.6 close of 126 bytes", close_frame(1000, b"*" * 124), 1002)
    yield bad("7.5.1 close reason that is not UTF-8", close_frame(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"), 1007)
    for code in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999):
        yield Case(f"7.7 close {code}", close_frame(code, b"why"), (closing(code),))
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield bad(f"7.9 close {code}", close_frame(code), 1002)


def auto_fragmentation() -> Iterator[Case]:
    parts = [b"*" * 1300] * 50 + [b"*" * 536]
    yield good("10.1.1 65536 bytes in fragments of 1300", b"".join(fragments(TEXT, parts)), text(b"*" * 65536))


CASES = [
    *(*framing(), *pings(), *reserved_bits(), *opcodes(), *fragmentation(), *utf8(), *closes(), *auto_fragmentation())
]


@pytest.fixture(scope="module")
def listening() -> Iterator[RealPeer]:
    with RealPeer() as peer:
        peer.answer_pings = False
        yield peer


@pytest.fixture
def peer(listening: RealPeer) -> Iterator[RealPeer]:
    """The peer of all cases; the connections of one are closed before the next."""
    yield listening
    listening.forget_links()


@pytest.mark.parametrize(
    ("case", "chop"), [pytest.param(case, chop, id=f"{case.name} by {chop}") for case in CASES for chop in case.chops]
)
def test_the_echo_client_answers(peer: RealPeer, case: Case, chop: int) -> None:
    def talk(link: Link, request: bytes) -> None:
        link.send_raw(upgrade_answer(request))
        for at in range(0, len(case.sent), chop):
            link.send_raw(case.sent[at : at + chop])
        peer.read(link)

    peer.on_attempt(talk)
    end = echo(WebSocketTransport(RealRuntime()).connect(peer.url, GENEROUS, never))
    answers = [peer.take()]
    while answers[-1].kind != "end":
        answers.append(peer.take())
    assert tuple(answers[:-1]) == case.answers
    expected = case.answers[-1].code
    assert end is not None and end.code == (1005 if expected is None else expected)

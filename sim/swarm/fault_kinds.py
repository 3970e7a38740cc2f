"""The kinds of faults that a swarm draws from: their times, durations and extent. Pure.

What each of them does to a process is in `sim.swarm.swarm`; which log lines and exit codes it explains, in
`sim.swarm.oracle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mockws_server.actions import (
    Action,
    DelayHandshake,
    Disconnect,
    DropPings,
    Duplicate,
    FrameOut,
    Garbage,
    HalfFrame,
    OneTick,
    Raw,
    Refuse,
    Reject,
    Reorder,
    Reset,
    Skip,
    Stall,
    Text,
)
from sim.swarm.plan import (
    ASKED_RETRY_AFTER_MAX_S,
    AT_END,
    FEEDS,
    MOCKWS,
    SYMBOLS,
    Draw,
    Fault,
    FaultKind,
    Moved,
    PlannedProcess,
    Point,
)

_LIVE: Final = frozenset({MOCKWS})
_ALL: Final = frozenset(FEEDS)
_CODES: Final = (1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 3000, 4000)
_FAR: Final = 1_000_000
_DAY_MS: Final = 86_400_000
_BREACHES: Final[tuple[Action, ...]] = (
    Raw(b"HTTP/1.1 200 OK\r\n\r\n"),
    FrameOut(0, b"continues nothing"),
    FrameOut(11),
    FrameOut(2, b"binary"),  # no breach, but nothing that can be understood
    Text("x" * 20_000),
)

KINDS: Final[dict[str, FaultKind]] = {}
"""By name, in the order of drawing."""


def _kind(
    name: str, feeds: frozenset[str]
) -> Callable[[Callable[[Draw, PlannedProcess], list[Fault]]], Callable[[Draw, PlannedProcess], list[Fault]]]:
    def register(draw: Callable[[Draw, PlannedProcess], list[Fault]]) -> Callable[[Draw, PlannedProcess], list[Fault]]:
        KINDS[name] = FaultKind(name, feeds, draw)
        return draw

    return register


def _network_fault(name: str, most: int, action: Callable[[Draw], Action]) -> None:
    """Register a kind that is a mockws action, performed up to `most` times."""

    def draw(d: Draw, planned: PlannedProcess) -> list[Fault]:
        return [Fault(name, at_s, what=action(d)) for at_s in d.times(planned.safety_s, most)]

    KINDS[name] = FaultKind(name, _LIVE, draw)


_network_fault("close_codes", 4, lambda d: Disconnect(d.pick(_CODES)))
_network_fault("reset", 3, lambda d: Reset())
_network_fault("half_frame", 2, lambda d: HalfFrame())
_network_fault("mute", 2, lambda d: Stall(d.seconds(0.5, 12.0)))
_network_fault("drop_pings", 2, lambda d: DropPings(d.seconds(1.0, 20.0)))
_network_fault("garbage", 4, lambda d: Garbage(d.pick((1, 3, 8, 25))))
_network_fault("duplicates", 6, lambda d: Duplicate(d.whole(1, 40)))
_network_fault("gaps", 5, lambda d: Skip(d.whole(1, 20)))
_network_fault("reorder", 5, lambda d: Reorder(d.whole(2, 8)))
_network_fault("broken_utf8", 3, lambda d: FrameOut(1, d.pick((b"\xc3\x28", b'{"symbol":"\xff', b"\xed\xa0\x80"))))
_network_fault("broken_bytes", 3, lambda d: d.pick(_BREACHES))


@_kind("numbering", _LIVE)
def _numbering(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """A sequence number far ahead: later numbers look like a restarted numbering."""
    found = []
    for n, at_s in enumerate(d.times(planned.safety_s, 2)):
        seq = _FAR * (10 * planned.number + n)
        tick = {"symbol": SYMBOLS[0], "price": 50.0, "volume": 1.0, "ts": 1, "event_id": f"far-{seq}", "seq": seq}
        found.append(Fault("numbering", at_s, what=OneTick(tick)))
    return found


@_kind("numbers_restart", _LIVE)
def _numbers_restart(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """The exchange's numbers restart at 1: known numbers arrive with other trades."""
    return [Fault("numbers_restart", at_s) for at_s in d.times(planned.safety_s, 2)]


@_kind("price_spikes", _LIVE)
def _price_spikes(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """Implausible prices, no three in a row alike."""
    times = d.times(planned.safety_s, 4)
    return [Fault("price_spikes", at_s, what=(1e5, 1e-3, 1e9, 1e-7)[n % 4]) for n, at_s in enumerate(times)]


def _at_handshake(name: str, action: Callable[[Draw], Action]) -> None:
    """Register a handshake fault: the link is lost first, unless the fault applies to the first connection."""

    def draw(d: Draw, planned: PlannedProcess) -> list[Fault]:
        return [
            Fault(name, 0.0 if d.chance(0.3) else at_s, what=(action(d), Disconnect(1001)))
            for at_s in d.times(planned.safety_s, 2)
        ]

    KINDS[name] = FaultKind(name, _LIVE, draw)


def _reject(status: int) -> Callable[[Draw], Action]:
    def draw(d: Draw) -> Action:
        return Reject(status, d.whole(1, 4), d.whole(0, ASKED_RETRY_AFTER_MAX_S) if d.chance(0.5) else None)

    return draw


_at_handshake(
    "refuse",
    lambda d: (
        Refuse(d.whole(1, 4), None, d.chance(0.5))
        if d.chance(0.5)
        else Refuse(None, d.seconds(0.5, 15.0), d.chance(0.5))
    ),
)
_at_handshake("http_429", _reject(429))
_at_handshake("http_503", _reject(503))
_at_handshake("slow_handshake", lambda d: DelayHandshake(d.seconds(0.5, 6.0), d.whole(1, 3)))
_at_handshake("no_handshake", lambda d: DelayHandshake(3600.0, d.whole(1, 3)))


def _window(
    name: str, feeds: frozenset[str], longest_s: float, what: Callable[[Draw], object] = lambda d: None
) -> None:
    """Register a kind with a duration; for a feed that ends within milliseconds it starts at the beginning or soon
    after.
    """

    def draw(d: Draw, planned: PlannedProcess) -> list[Fault]:
        at_s = d.seconds(0.0, planned.safety_s)
        if planned.by_step:
            at_s = round(at_s / 1e4, 6) if d.chance(0.5) else 0.0
        return [Fault(name, at_s, d.seconds(0.1, longest_s), what(d))]

    KINDS[name] = FaultKind(name, feeds, draw)


_window("server_away", _LIVE, 15.0)
_window("link_down", _LIVE, 15.0, lambda d: d.chance(0.3))
_window("latency", _LIVE, 20.0, lambda d: d.pick((0.1, 0.4, 1.5)))
_window("clock_skew", _LIVE, 20.0, lambda d: d.pick((1, -1)) * d.pick((900, 40_000, 3 * _DAY_MS)))
_window("slow_ingest", _ALL, 10.0, lambda d: d.pick((0.002, 0.05, 0.5)))
_window("slow_strategy", _ALL, 10.0, lambda d: d.pick((0.002, 0.05, 0.5)))
_window("slow_execution", _ALL, 10.0, lambda d: d.pick((0.01, 0.3, 2.0)))
_window("slow_persist", _ALL, 10.0, lambda d: d.pick((0.002, 0.05, 0.5)))
_window("storage_busy", _ALL, 15.0)
_window("storage_slow", _ALL, 15.0, lambda d: d.pick((0.01, 0.3, 2.0)))
_window("storage_full", _ALL, 15.0)


@_kind("hang", _ALL)
def _hang(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """A stage hangs where it uses a channel: in most histories early, so that the watchdog has time to act."""
    stage, at_s = (
        d.pick(("strategy", "execution", "persist", "commit")),
        d.seconds(0.0, d.pick((2.0, 2.0, planned.safety_s))),
    )
    return [Fault("hang", 0.0 if planned.by_step else at_s, what=stage)] if d.chance(0.6) else []


@_kind("full_channel", _LIVE)
def _full_channel(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """The tick channel is filled completely, then the link is lost: its notice finds no room."""
    return [Fault("full_channel", d.seconds(0.5, planned.safety_s))] if d.chance(0.4) else []


@_kind("file_moved", _ALL)
def _file_moved(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """The database is moved away under the engine, with or without its log, and perhaps replaced."""
    at_s, step = d.seconds(0.3, planned.safety_s), d.whole(60, 600)
    what = Moved(d.chance(0.5), d.chance(0.5), step if planned.by_step else None)
    return [Fault("file_moved", 0.0 if planned.by_step else at_s, what=what)] if d.chance(0.4) else []


@_kind("history", _LIVE)
def _history(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """An exchange that sends its last trades with each subscription: drawn once, with the first process."""
    snapshot = d.whole(1, 60)
    return [Fault("history", 0.0, what=snapshot)] if planned.number == 1 else []


@_kind("newest_first", _LIVE)
def _newest_first(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """An exchange that sends several trades per frame, newest first: drawn like `history`."""
    trades = d.whole(2, 6)
    return [Fault("newest_first", 0.0, what=trades)] if planned.number == 1 else []


@_kind("wall_jumps", _ALL)
def _wall_jumps(d: Draw, planned: PlannedProcess) -> list[Fault]:
    return [
        Fault("wall_jumps", at_s, what=d.pick((1, -1)) * d.whole(1, d.pick((3_000, 3_600_000, 2 * _DAY_MS))))
        for at_s in d.times(planned.safety_s, 3)
    ]


@_kind("storage_error", _ALL)
def _storage_error(d: Draw, _life: PlannedProcess) -> list[Fault]:
    """The n-th write reports an I/O error, or two consecutive writes do."""
    first = d.whole(1, 12)
    return [Fault("storage_error", 0.0, what=(first, first + d.whole(0, 1)))]


@_kind("commit_doubt", _ALL)
def _commit_doubt(d: Draw, _life: PlannedProcess) -> list[Fault]:
    """The n-th commit succeeds but reports an error."""
    return [Fault("commit_doubt", 0.0, what=(d.whole(1, 8), d.whole(1, 20)))]


@_kind("storage_torn", _ALL)
def _storage_torn(d: Draw, _life: PlannedProcess) -> list[Fault]:
    """In the middle of the n-th transaction the process is killed, or a statement reports an I/O error."""
    return [Fault("storage_torn", 0.0, what=(d.whole(1, 8), d.whole(1, 5), d.chance(0.5)))]


@_kind("disk_errors", _ALL)
def _disk_errors(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """The kernel limits the file size for a while, from the start or later."""
    at_s = 0.0 if d.chance(0.4) or planned.by_step else d.seconds(0.0, planned.safety_s)
    return [Fault("disk_errors", at_s, d.seconds(0.5, 20.0), d.pick((0, 1_000, 100_000)))] if d.chance(0.6) else []


@_kind("spill_fails", _ALL)
def _spill_fails(d: Draw, _life: PlannedProcess) -> list[Fault]:
    """No space for a spill file at the start (None), or a limited file size while the disk is full."""
    return [Fault("spill_fails", 0.0, what=None if d.chance(0.4) else d.whole(0, 6_000))]


def _ending(name: str) -> Callable[[Draw, PlannedProcess], Fault]:
    """A fault that happens once, at a time or at a step (then `what` is the step)."""

    def draw(d: Draw, planned: PlannedProcess) -> Fault:
        at_s, step, by_step = d.seconds(0.05, planned.safety_s), d.whole(1, 600), planned.by_step or d.chance(0.25)
        return Fault(name, 0.0, what=step) if by_step else Fault(name, at_s)

    return draw


@_kind("sigterm", _ALL)
def _sigterm(d: Draw, planned: PlannedProcess) -> list[Fault]:
    return [_ending("sigterm")(d, planned)]


@_kind("second_signal", _ALL)
def _second_signal(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """Two signals, the second one `for_s` after the first."""
    first, wait_s = _ending("second_signal")(d, planned), d.seconds(0.0, 1.5)
    return [Fault(first.kind, first.at_s, wait_s, first.what)] if d.chance(0.5) else []


@_kind("kill", _ALL)
def _kill(d: Draw, planned: PlannedProcess) -> list[Fault]:
    return [_ending("kill")(d, planned)]


@_kind("kill_in_call", _ALL)
def _kill_in_call(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """kill -9 before, after or inside the n-th disk call from the start or from a given time."""
    return [_in_call("kill_in_call", d, planned)]


@_kind("power_cut", _ALL)
def _power_cut(d: Draw, planned: PlannedProcess) -> list[Fault]:
    """A power loss: like either kill, or immediately after the end. `what`: a step, a point, or the end."""
    ending, in_call = _ending("power_cut")(d, planned), _in_call("power_cut", d, planned)
    return [d.pick((ending, in_call, in_call, Fault("power_cut", 0.0, what=AT_END)))]


def _in_call(name: str, d: Draw, planned: PlannedProcess) -> Fault:
    at_s = d.seconds(0.0, planned.safety_s)
    at_s = 0.0 if planned.by_step or d.chance(0.4) else at_s
    return Fault(name, at_s, what=Point(d.whole(1, d.pick((5, 5, 30, 90)))))


@_kind("crash", _ALL)
def _crash(d: Draw, _life: PlannedProcess) -> list[Fault]:
    """A stage raises at the n-th time it uses a channel."""
    what = (d.pick(("ingest", "strategy", "execution", "persist")), d.whole(1, 400))
    return [Fault("crash", 0.0, what=what)] if d.chance(0.5) else []

"""The command line of mockws: its usage text, and the values of its options. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from tradebot.config.validation import InvalidValue, show
from tradebot.core.errors import UsageError
from tradebot.feeds.replay.pacing import parse_speed

USAGE: Final = """\
Usage:
  mockws [options]

Feed options:
  --scenario=NAME    Play a scenario: a name shown by --list, or your own file (.toml).
  --once             Play the scenario once, even if it is set to repeat.
  --seed=N           Seed for generated prices. Default: the scenario's seed, else 1.
  --first-seq=N      Number of the first tick of each symbol. Default: far below all numbers of servers started earlier,
                     so that clients do not treat the ticks of a new server as duplicates.
  --replay=FILE      Play a recorded session: ticks or raw frames, one per line, or a capture (also .gz or .zst; - is
                     standard input).
  --speed=SPEED      With --replay: realtime, max, or a multiple of real time such as 10x. Default: realtime.
  --wait-clients=N   Start when N clients are connected; 0: immediately. Default: 1.
  --quit-at-end      At the end, close the connections with code 1000 and exit. Default: keep running without sending.

Server options:
  --host=HOST        Address to listen on. Default: 127.0.0.1.
  --port=PORT        Port to listen on; 0: any free port. Default: 9001.
  --ticks=ADDRESS    ZeroMQ address for ticks (PULL, one JSON tick per message). Default: tcp://127.0.0.1:*.
  --control=ADDRESS  ZeroMQ address for actions (PULL, one JSON action per message). Default: tcp://127.0.0.1:*.

Other options:
  --list             List the scenarios.
  --json             With --list: print one JSON object on one line.
  -V --version       Print the versions of mockws, Python, SQLite and the libraries.
  -h --help          Show this help.
"""

ABOUT: Final = "mockws sends ticks over WebSocket, with every kind of network fault, for trying tradebot.\n"

NOTES: Final = """
The first line on standard output has the addresses: {"ws":"ws://...","ticks":"tcp://...","control":"tcp://..."}.
Messages go to standard error, without colours. GET /healthz returns counters. Every client gets all ticks from the
moment it connects, whatever it subscribes to.

Examples:
  mockws --scenario=storm                        in another terminal: tradebot --ingest=mockws
  mockws --scenario=fast                         bursts of trades with the side of the taker
  mockws --replay=ticks.jsonl.zst --speed=10x    a recorded session, ten times as fast
"""

HINT: Final = "try mockws --help"
_PORT_MAX: Final = 65_535


class CommandLine(Struct, frozen=True):
    """The checked command line. `speed` None: as fast as possible."""

    scenario: str | None = None
    once: bool = False
    seed: int | None = None
    first_seq: int | None = None
    replay: str | None = None
    speed: float | None = 1.0
    wait_clients: int = 1
    quit_at_end: bool = False
    host: str = "127.0.0.1"
    port: int = 9001
    ticks: str = "tcp://127.0.0.1:*"
    control: str = "tcp://127.0.0.1:*"


def read(given: Mapping[str, str | bool]) -> CommandLine:
    """The values of the options for a server. Raises UsageError with one line and a hint."""
    if "--scenario" in given and "--replay" in given:
        raise UsageError(f"give --scenario or --replay, not both; {HINT}")
    for option, needs in _NEEDS.items():
        if option in given and not any(need in given for need in needs):
            raise UsageError(f"{option}: only with {' or '.join(needs)}; {HINT}")
    values: dict[str, Any] = {}
    for option, text in given.items():
        values[option.removeprefix("--").replace("-", "_")] = _VALUES.get(option, _text)(option, text)
    return CommandLine(**values)


def explain(word: str) -> str:
    """A hint for a command line that contains the name of a scenario without --scenario."""
    return f" (did you mean --scenario={word}?)" if re.fullmatch(r"[a-z]+|\S+\.toml", word) else ""


_NEEDS: Final = {
    "--json": ("--list",),
    "--once": ("--scenario",),
    "--speed": ("--replay",),
    "--wait-clients": ("--scenario", "--replay"),
    "--quit-at-end": ("--scenario", "--replay"),
}


def _text(option: str, text: str) -> str:
    if not text.isprintable() or len(text) > 4096:
        raise UsageError(f"{option}: unprintable or too long: {show(text)}")
    return text


def _flag(option: str, given: bool) -> bool:
    return given


def _between(low: int, high: int) -> Any:
    def number(option: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise UsageError(f"{option}: must be a whole number from {low} to {high}, not {show(text)}")
        return int(text)

    return number


def _speed(option: str, text: str) -> float | None:
    try:
        return parse_speed(text)
    except InvalidValue as error:
        raise UsageError(f"{option}: {error}") from None


def _address(option: str, text: str) -> str:
    match = re.fullmatch(r"tcp://\S+:(?:\*|([0-9]{1,5}))|ipc://\S+", text)
    if match is None or not text.isprintable() or int(match[1] or 0) > _PORT_MAX:
        raise UsageError(f"{option}: must be like tcp://127.0.0.1:5555 (port * is any free one), not {show(text)}")
    return text


_VALUES: Final = {
    "--once": _flag,
    "--quit-at-end": _flag,
    "--seed": _between(0, 2**63 - 1),
    "--first-seq": _between(0, 2**62),
    "--wait-clients": _between(0, 100),
    "--port": _between(0, _PORT_MAX),
    "--speed": _speed,
    "--ticks": _address,
    "--control": _address,
}

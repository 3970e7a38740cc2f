"""The command line of mockws: its usage text, and options made of it. Pure, but that scenarios and files are opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import docopt
from msgspec import Struct

from tradebot.config.validation import did_you_mean, show
from tradebot.core.errors import ConfigError

USAGE: Final = """\
mockws sends ticks over WebSocket, and every kind of bad weather, for tradebot to be tried with.

Usage:
  mockws [options]
  mockws --list
  mockws --version
  mockws --help

Options:
  --scenario=NAME    Play a scenario: one of --list, or a file of your own (.toml).
  --once             Play it once, even if it says to repeat.
  --seed=N           Of the prices that a scenario or a control message makes up; else the scenario's, else 1.
  --first-seq=N      Where the numbers of each symbol's ticks begin; unless told, far below those of any server started
                     earlier, so that listeners do not take a new server's ticks for repeated ones.
  --replay=FILE      Play a recorded session: ticks, raw frames or a capture, one a line (also .gz, .zst; - is standard
                     input).
  --speed=SPEED      Of --replay: realtime (unless told), max, or a multiple of real time such as 10x.
  --wait-clients=N   Begin when so many clients are connected; 1 unless told, 0 begins at once.
  --quit-at-end      When all is played, close with 1000 and leave; else stay, quiet.
  --host=HOST        Where to listen; 127.0.0.1 unless told.
  --port=PORT        The same; 9001 unless told, 0 is any free port.
  --ticks=ADDRESS    Where ticks come in by ZeroMQ (PULL, one JSON tick a message); tcp://127.0.0.1:* unless told.
  --control=ADDRESS  Where actions come in by ZeroMQ (PULL, one JSON action a message); tcp://127.0.0.1:* unless told.
  --list             Print the scenarios.
  --version          Print the version.
  -h --help          Print this.

The first line on standard output says where it listens: {"ws":"ws://...","ticks":"tcp://...","control":"tcp://..."}.
Messages go to standard error. GET /healthz answers with counters. SIGINT, SIGTERM or SIGHUP: it ends with 0.
Whatever a client asks for, it gets what all get, from the moment it connects.

Examples:
  mockws --scenario=storm                        in another terminal: tradebot --ingest=mockws
  mockws --replay=ticks.jsonl.zst --speed=10x    a recorded session, ten times as fast
"""

TAKES_VALUE: Final = {name: bool(value) for name, value in re.findall(r"^  (?:-h )?(--[a-z-]+)(=\S+)?  ", USAGE, re.M)}
"""Every option, and whether a value follows it."""

HINT: Final = "try mockws --help"
_SPEED_MIN: Final = 0.001
_SPEED_MAX: Final = 1_000_000.0
_PORT_MAX: Final = 65_535


class Arguments(Struct, frozen=True):
    """What the command line says, checked. `speed` None: as fast as possible."""

    command: str = "serve"
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


def parse(argv: Sequence[str]) -> Arguments:
    """The words after the program's name. Raises ConfigError with one line and a hint."""
    seen = _scan(argv)
    for command in ("--help", "--version", "--list"):
        if command in seen:
            return Arguments(command.removeprefix("--"))
    try:
        taken = docopt.docopt(USAGE, list(argv), help=False)
    except docopt.DocoptExit:
        raise ConfigError(f"cannot make sense of these arguments; {HINT}") from None
    given = {name: taken[name] for name in seen}
    if "--scenario" in given and "--replay" in given:
        raise ConfigError(f"give --scenario or --replay, not both; {HINT}")
    for option, needs in _NEEDS.items():
        if option in given and not any(need in given for need in needs):
            raise ConfigError(f"{option}: only with {' or '.join(needs)}; {HINT}")
    values: dict[str, Any] = {}
    for option, text in given.items():
        values[option.removeprefix("--").replace("-", "_")] = _VALUES.get(option, _text)(option, text)
    return Arguments(**values)


def _scan(argv: Sequence[str]) -> list[str]:
    """The options given, spelled out and well-formed: docopt would answer a mistake with all of the usage text.

    Raises ConfigError.
    """
    seen: list[str] = []
    waiting = iter(argv)
    for word in waiting:
        name, equals, value = word.partition("=")
        name = "--help" if name == "-h" else name
        if not word.startswith("-"):
            hint = f" (did you mean --scenario={word}?)" if re.fullmatch(r"[a-z]+|\S+\.toml", word) else ""
            raise ConfigError(f"unexpected argument {show(word)}{hint}; {HINT}")
        if name not in TAKES_VALUE:
            raise ConfigError(f"unknown option {show(name)}{did_you_mean(name, TAKES_VALUE)}; {HINT}")
        if name in seen:
            raise ConfigError(f"{name} is given twice; {HINT}")
        if not TAKES_VALUE[name] and equals:
            raise ConfigError(f"{name} takes no value; {HINT}")
        if TAKES_VALUE[name]:
            if not equals:
                value = next(waiting, "")
            if not value or (not equals and value.startswith("--")):
                raise ConfigError(f"{name} needs a value: {name}=...; {HINT}")
        seen.append(name)
    return seen


_NEEDS: Final = {
    "--once": ("--scenario",),
    "--speed": ("--replay",),
    "--wait-clients": ("--scenario", "--replay"),
    "--quit-at-end": ("--scenario", "--replay"),
}


def _text(option: str, text: str) -> str:
    if not text.isprintable() or len(text) > 4096:
        raise ConfigError(f"{option}: unprintable or too long: {show(text)}")
    return text


def _flag(option: str, given: bool) -> bool:
    return given


def _between(low: int, high: int) -> Any:
    def number(option: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise ConfigError(f"{option}: must be a whole number from {low} to {high}, not {show(text)}")
        return int(text)

    return number


def _speed(option: str, text: str) -> float | None:
    word = text.lower()
    if word in ("max", "realtime"):
        return None if word == "max" else 1.0
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)x", word)
    if match is None or not _SPEED_MIN <= float(match[1]) <= _SPEED_MAX:
        raise ConfigError(f"{option}: must be max, realtime or a multiple such as 10x, not {show(text)}")
    return float(match[1])


def _address(option: str, text: str) -> str:
    match = re.fullmatch(r"tcp://\S+:(?:\*|([0-9]{1,5}))|ipc://\S+", text)
    if match is None or not text.isprintable() or int(match[1] or 0) > _PORT_MAX:
        raise ConfigError(f"{option}: must be like tcp://127.0.0.1:5555 (port * is any free one), not {show(text)}")
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

"""Scenarios: TOML files of actions, and the schedule that says when each of them is due.

    description = "one line for people"
    symbols = ["SOL/USDC"]     # symbols of the ticks; this is the default
    seed = 1                   # seed of the prices
    market = "thin"            # ticks of a thin, fast or gapping market, with the side of the taker; default: without
    repeat = true              # true: for ever; a number: that many times; default: once
    [[step]]
    do = "ticks"
    count = 100
    per_s = 20

`load` reads files; everything else is pure.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from mockws_server.actions import Action, BadAction, Burst, Stall, Symbols, Ticks, Wait, from_table
from mockws_server.market import DEFAULT_SYMBOLS, STYLES, MarketStyle
from tradebot.config.toml_file import Document, parse_document, read_bytes
from tradebot.config.validation import did_you_mean, show
from tradebot.core.errors import ConfigError

FILE_BYTES_MAX: Final = 1 << 20
STEPS_MAX: Final = 10_000

ROUND_S_MIN: Final = 0.1
"""The shortest round of a repeating scenario: a shorter one would send without a pause."""

TICKS_AT_ONCE_MAX: Final = 500

_SCENARIOS: Final = "scenarios"
_STEP_LINE: Final = re.compile(rb"^[ \t]*\[\[[ \t]*step[ \t]*\]\]", re.MULTILINE)


class Script(Struct, frozen=True):
    """A scenario: its steps, the number of rounds (None: unlimited), and symbols, seed and market of its ticks."""

    name: str
    steps: tuple[Action, ...]
    description: str = ""
    symbols: tuple[str, ...] = DEFAULT_SYMBOLS
    seed: int = 1
    repeat: int | None = 1
    market: str | None = None

    @property
    def style(self) -> MarketStyle | None:
        """What `market` names, None for a market without takers."""
        return None if self.market is None else STYLES[self.market]

    @property
    def round_s(self) -> float:
        """Seconds that one round takes."""
        return math.fsum(duration_s(step) for step in self.steps)


def duration_s(action: Action) -> float:
    """Seconds until the next step begins."""
    match action:
        case Ticks():
            return action.count / action.per_s
        case Burst() | Wait() | Stall():
            return action.seconds
        case _:
            return 0.0


class ScriptSchedule:
    """Says which actions of a script are due. The script starts at `start_s` on any clock that counts seconds.

    Ticks spread over time are returned as `Burst(count=n)`: n ticks to send now. The result does not depend on how
    often the schedule is asked: a late call returns the same actions, with the ticks of a step merged.
    """

    def __init__(self, script: Script, start_s: float) -> None:
        self._script = script
        self._at_s = start_s
        self._round = 0
        self._step = 0
        self._sent = 0
        self._over = not script.steps

    @property
    def step(self) -> tuple[int, int, Action] | None:
        """The current or next step: its round (from 1), its number (from 1), the step. None at the end."""
        return None if self._over else (self._round + 1, self._step + 1, self._script.steps[self._step])

    def next_at(self) -> float | None:
        """When the next action is due, on the clock of `start_s`; None: the script has ended."""
        return None if self._over else self._tick_at(self._sent)

    def due(self, now_s: float) -> list[Action]:
        """The actions of the current step due at `now_s`, with at most TICKS_AT_ONCE_MAX ticks.

        More may be due, even if the list is empty (at the end of a wait): call again until `next_at` is later.
        """
        if self._over or self._tick_at(self._sent) > now_s:
            return []
        step = self._script.steps[self._step]
        if not isinstance(step, Ticks | Burst):
            self._advance(step)
            return [] if isinstance(step, Wait) else [step]
        count = self._ticks_due(step, now_s)
        self._sent += count
        if self._sent == step.count:
            self._advance(step)
        return [Burst(count, symbols=step.symbols)]

    def _tick_at(self, n: int) -> float:
        """When tick `n` (from 0) of the current step is due; for a step without ticks, when the step is due."""
        step = self._script.steps[self._step]
        return self._at_s + duration_s(step) * n / step.count if isinstance(step, Ticks | Burst) else self._at_s

    def _ticks_due(self, step: Ticks | Burst, now_s: float) -> int:
        most = min(step.count - self._sent, TICKS_AT_ONCE_MAX)
        # The times of the ticks of a step never decrease, so a binary search finds the first that is not yet due.
        return bisect_right(range(most), now_s, key=lambda n: self._tick_at(self._sent + n))

    def _advance(self, step: Action) -> None:
        self._at_s += duration_s(step)
        self._sent = 0
        self._step += 1
        if self._step == len(self._script.steps):
            self._step = 0
            self._round += 1
            self._over = self._round == self._script.repeat


class _Header(Struct, forbid_unknown_fields=True):
    """The keys of a scenario file other than its steps."""

    description: Annotated[str, Meta(min_length=1, max_length=200)]
    symbols: Symbols = msgspec.field(default_factory=lambda: list(DEFAULT_SYMBOLS))
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1
    repeat: bool | Annotated[int, Meta(ge=1, le=1_000_000)] = False
    market: str | None = None


def names() -> list[str]:
    """The names of the scenarios included in mockws, sorted. Reads the package's directory."""
    files = resources.files("mockws_server").joinpath(_SCENARIOS).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name_or_path: str) -> Script:
    """The scenario with that name, or in that file (a name with a slash or ending in .toml is a file). Blocks (I/O).

    Raises ConfigError with a message of one line, which begins with file:line for an error in the file.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        data = read_bytes(Path(name_or_path), "scenario", FILE_BYTES_MAX)
        return parse(data, shown=_printable(name_or_path))
    known = names()
    if name_or_path not in known:
        hint = did_you_mean(name_or_path, known) or f"; there are {', '.join(known)}"
        raise ConfigError(f"no scenario {show(name_or_path)}{hint}; a file of your own needs a name ending in .toml")
    file = resources.files("mockws_server").joinpath(_SCENARIOS, f"{name_or_path}.toml")
    return parse(file.read_bytes(), shown=f"{name_or_path}.toml", name=name_or_path)


def parse(data: bytes, shown: str, name: str | None = None) -> Script:
    """The scenario in the bytes of a file; `shown` is the name of the file in messages. Raises ConfigError."""
    document = parse_document(shown, data)
    header = _header(document)
    steps = _steps(document, data)
    repeat = {True: None, False: 1}[header.repeat] if isinstance(header.repeat, bool) else header.repeat
    script = Script(
        name or Path(shown).name.removesuffix(".toml"),
        steps,
        header.description,
        tuple(header.symbols),
        header.seed,
        repeat,
        header.market,
    )
    if repeat != 1 and script.round_s < ROUND_S_MIN:
        raise ConfigError(
            f"{document.place(('repeat',))}: repeat: a round must take at least {ROUND_S_MIN} s; add a step that waits"
        )
    return script


def _header(document: Document) -> _Header:
    values = {key: value for key, value in document.content.items() if key != "step"}
    for key in values:
        if key not in _Header.__struct_fields__:
            hint = did_you_mean(key, (*_Header.__struct_fields__, "step"))
            raise ConfigError(f"{document.place((key,))}: {_printable(key)}: unknown key{hint}")
    if "description" not in values:
        raise ConfigError(f'{document.name}:1: description: missing; add a line: description = "..."')
    try:
        header = msgspec.convert(values, _Header)
    except ValueError as error:
        body, _, where = str(error).partition(" - at `$.")
        name = re.split(r"\W", where)[0]
        raise ConfigError(f"{document.place((name,))}: {name}: {body[:1].lower()}{body[1:]}") from None
    if header.market is not None and header.market not in STYLES:
        raise ConfigError(
            f"{document.place(('market',))}: market: must be one of {', '.join(STYLES)}, not {show(header.market)}"
        )
    return header


def _steps(document: Document, data: bytes) -> tuple[Action, ...]:
    tables, place = document.content.get("step"), document.place(("step",))
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"{place}: step: needs at least one, written as [[step]]")
    if len(tables) > STEPS_MAX:
        raise ConfigError(f"{document.name}: more than {STEPS_MAX} steps")
    # Steps may also be written as an array of inline tables; then their line numbers are not determined.
    starts = [match.start() for match in _STEP_LINE.finditer(data)]
    found = []
    for n, table in enumerate(tables):
        if len(starts) == len(tables):
            line = data.count(b"\n", 0, starts[n]) + 1
            place = f"{document.name}:{line}"
        where = f"{place}: step {n + 1}"
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: must be a table, not {show(table)}")
        try:
            found.append(from_table(table))
        except BadAction as error:
            raise ConfigError(f"{where}: {error}") from None
    return tuple(found)


def _printable(text: str) -> str:
    return text if text.isprintable() else show(text)

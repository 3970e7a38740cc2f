"""What may stand on the command line: the usage text, and arguments taken apart with docopt.

docopt answers a mistake with the whole usage text, takes shortened options (whose meaning changes when an option is
added) and lets an option swallow the next one as its value. So the words are looked at first: every mistake gets one
line that says what is wrong, and options must be spelled out. What is left is docopt's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import docopt

from tradebot.configkeys import did_you_mean, show
from tradebot.exits import ConfigError, ExitCode
from tradebot.masking import mask

USAGE: Final = """\
tradebot watches market ticks, records the orders it would have sent, and stores everything in SQLite.
All fills are simulated: no order ever leaves this machine.

Usage:
  tradebot [run] [options]
  tradebot show-config [options]
  tradebot check-config [options] [FILE]
  tradebot sources [options]
  tradebot capture [options]
  tradebot --version
  tradebot --help

Commands:
  run           Run the engine; what happens when no command is given.
  show-config   Print the configuration as `run` would use it, with the source of each value. Takes the options of run.
  check-config  Say whether a configuration file is valid. Takes FILE or --config=FILE, else the file `run` would read.
  sources       List the exchanges that are known and the sources of ws_sources.toml. Takes --config and --ws-sources.
  capture       Record the frames of a live feed into compressed files, to be replayed with --replay-file=FILE. Takes
                the options of realws, --seconds, --out and --max-mb.

Options:
  --config=FILE       Configuration file (TOML), which must exist; else $TRADEBOT_CONFIG, else
                      ~/.config/tradebot/tradebot.toml where there is one. Options win over the file.
  --mode=MODE         shadow, paper or live.
  --ingest=FEED       Where ticks come from: synthetic, replay, mockws or realws.
  --db=FILE           Database to write; made when it does not exist.
  --symbol=SYM        Symbol of the synthetic feed; of realws: what to subscribe to, several with commas between.
  --strategy=NAME     What decides: sma_crossover, periodic, or one of your own.
  --sample-every=N    Keep every N-th tick.
  --seconds=N         Stop after N seconds.
  --replay-file=FILE  Replay ticks from a JSON lines file (also .gz, .zst; - is standard input).
  --replay-db=FILE    Replay the ticks of another database. With neither: those of --db, and nothing is written.
  --replay-run=ID     Which run of the database to replay; its newest unless told.
  --resume            Continue a replay that the database holds in part.
  --strict            End a replay at the first malformed line (exit 11).
  --speed=SPEED       Of a replay: max, realtime, or a multiple of real time such as 10x.
  --run-id=ID         Name of the run, for a replay from standard input.
  --history=CHOICE    What to do with past trades that a feed sends first: drop or keep.
  --exchange=NAME     Of realws: which exchange. Of a replay file: whose frames it holds.
  --ws-source=NAME    The same from an entry of ws_sources.toml.
  --ws-sources=FILE   That file, which must exist; else the one beside the configuration file, else
                      ~/.config/tradebot/ws_sources.toml, else the examples that come with tradebot.
  --ws-url=URL        Of mockws and realws: where to connect (ws:// or wss://).
  --out=DIR           Of capture: where the files go, made when it does not exist; else the working directory.
  --max-mb=N          Of capture: megabytes kept at most, the oldest file goes first; 1024 unless told.
  --log-level=LEVEL   debug, info, warning or error; else $TRADEBOT_LOG_LEVEL, else info.
  --log-format=FORM   json or text; else text on a terminal and json elsewhere.
  --version           Print the version.
  -h --help           Print this.
"""

EXAMPLES: Final = """\
Examples:
  tradebot --seconds=60                                   a minute of synthetic ticks
  tradebot --ingest=replay --replay-file=ticks.jsonl.zst  a recorded session, as fast as possible
  tradebot --ingest=realws --ws-source=binance-btcusdt    an exchange's trades, as they come
  tradebot --config=my.toml show-config                   what a configuration file comes to
"""

TAKES_VALUE: Final = {name: bool(value) for name, value in re.findall(r"^  (?:-h )?(--[a-z-]+)(=\S+)?  ", USAGE, re.M)}
"""Every option, and whether a value follows it."""

HINT: Final = "try tradebot --help"
RUN: Final = "run"
SHOW_CONFIG: Final = "show-config"
CHECK_CONFIG: Final = "check-config"
SOURCES: Final = "sources"
CAPTURE: Final = "capture"
HELP: Final = "help"
VERSION: Final = "version"
COMMANDS: Final = (RUN, SHOW_CONFIG, CHECK_CONFIG, SOURCES, CAPTURE)

_OF_CAPTURE_ONLY: Final = ("--out", "--max-mb")
# Commands that do not take all options of run, with those they do.
_TAKEN: Final = {
    CHECK_CONFIG: ("--config",),
    SOURCES: ("--config", "--ws-sources"),
    CAPTURE: (
        *("--config", "--exchange", "--ws-source", "--ws-sources", "--ws-url", "--symbol", "--ingest", "--seconds"),
        *(*_OF_CAPTURE_ONLY, "--log-level", "--log-format"),
    ),
}


class UsageError(ConfigError):
    """The command line itself is wrong (exit 12 for every command)."""


class Arguments(NamedTuple):
    """A command line taken apart: a command, `given` values by option ("--db"), True for options without a value."""

    command: str
    given: dict[str, str | bool]
    file: str | None = None


def help_text() -> str:
    """What --help prints: usage, examples, and the exit codes as the program itself knows them."""
    codes = "\n".join(f"  {code.value:2}  {code.name:9} {code.meaning}" for code in ExitCode)
    return (
        f"{USAGE}\n{EXAMPLES}\n"
        f"Exit codes of run:\n{codes}\n"
        "Other commands: 0 yes, 1 no, 12 misused.\n\n"
        "Configuration keys, their defaults and meanings: etc/tradebot/example.toml (installed: below share/tradebot)\n"
    )


def parse(argv: Sequence[str]) -> Arguments:
    """Take the words after the program's name apart. Pure. Raises UsageError with one line and a hint."""
    seen, words = _scan(argv)
    if "--help" in seen:
        return Arguments(HELP, {})
    if "--version" in seen:
        return Arguments(VERSION, {})
    command = words[0] if words else RUN
    if command not in COMMANDS:
        raise UsageError(_unknown_command(command))
    _check_taken(command, seen)
    room = 1 if command == CHECK_CONFIG else 0
    if len(words) > 1 + room:
        raise UsageError(f"unexpected argument {show(words[1 + room])}; {HINT}")
    if command == CHECK_CONFIG and "--config" in seen and len(words) > 1:
        raise UsageError(f"check-config: give FILE or --config=FILE, not both; {HINT}")
    try:
        taken = docopt.docopt(USAGE, list(argv), help=False)
    except docopt.DocoptExit:
        raise UsageError(f"cannot make sense of these arguments; {HINT}") from None
    return Arguments(command, {name: taken[name] for name in seen}, taken["FILE"])


def _check_taken(command: str, seen: Sequence[str]) -> None:
    """Raises UsageError for an option that the command would ignore."""
    taken = _TAKEN.get(command)
    for option in seen:
        if taken is None and option in _OF_CAPTURE_ONLY:
            raise UsageError(f"{option}: only for tradebot capture; {HINT}")
        if taken is not None and option not in taken:
            more = "; show-config takes all options" if command == CHECK_CONFIG else ""
            raise UsageError(f"{option}: {command} only takes {', '.join(taken)}{more}; {HINT}")


def _scan(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the options given, and the words that are none. Raises UsageError."""
    seen: list[str] = []
    words: list[str] = []
    waiting = iter(argv)
    for word in waiting:
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        name = "--help" if name == "-h" else name
        if word == "--":
            raise UsageError(f"unexpected --; {HINT}")
        if name not in TAKES_VALUE:
            raise UsageError(f"unknown option {_plain(name)}{did_you_mean(name, TAKES_VALUE)}; {HINT}")
        if name in seen:
            raise UsageError(f"{name} is given twice; {HINT}")
        if not TAKES_VALUE[name] and equals:
            raise UsageError(f"{name} takes no value; {HINT}")
        if TAKES_VALUE[name]:
            if not equals:
                value = next(waiting, "")
            if not value or (not equals and value.startswith("--")):
                raise UsageError(f"{name} needs a value: {name}=...; {HINT}")
        seen.append(name)
    return seen, words


def _unknown_command(word: str) -> str:
    ending = word.lower().removesuffix(".gz").removesuffix(".zst")
    if ending.endswith(".toml"):
        hint = " (did you mean --config=FILE?)"
    elif ending.endswith((".jsonl", ".json")):
        hint = " (did you mean --ingest=replay --replay-file=FILE?)"
    else:
        hint = did_you_mean(word, (*COMMANDS, "--help", "--version"))
    return f"unknown command {_plain(word)}{hint}; {HINT}"


def _plain(word: str) -> str:
    return mask(word) if word and word.isprintable() and len(word) <= 60 else show(word)

"""The program tradebot: all its commands, and the other texts of `tradebot --help`."""

from __future__ import annotations

from typing import Final

from tradebot.cli.commands import configure, look, operate, run
from tradebot.cli.program import Program, listed_codes

_ABOUT: Final = """\
tradebot watches market ticks, records the orders it would have sent, and stores everything in SQLite.
All fills are simulated: no order ever leaves this machine.

Usage:
  tradebot [COMMAND] [OPTIONS]    Run a command; without COMMAND: run.
  tradebot COMMAND --help         Explain a command and its options.
  tradebot --help, -h             Show this help.
  tradebot --version, -V          Print the versions of tradebot, Python, SQLite and the libraries.
"""

_EXAMPLES: Final = """\
Examples:
  tradebot --seconds=60                                   a minute of synthetic ticks
  tradebot --ingest=replay --replay-file=ticks.jsonl.zst  replay a recorded session, as fast as possible
  tradebot --ingest=realws --ws-source=binance-btcusdt    an exchange's trades, live
  tradebot --config=my.toml show-config                   show the settings that a configuration file gives
"""

_ENVIRONMENT: Final = """\
Environment:
  TRADEBOT_CONFIG       The configuration file; --config overrides it.
  TRADEBOT_LOG_LEVEL    The log level; --log-level overrides it.
  TRADEBOT_WS_URL       The feed's URL, which may contain credentials; overrides the configuration.
  TRADEBOT_WEBHOOK_URL  The webhook's URL; overrides the configuration.
  NO_COLOR              If set and not empty, turns colours off.
"""


def _notes() -> str:
    (codes,) = [command.exit_codes for command in run.COMMANDS if command.name == "run"]
    return (
        f"{_EXAMPLES}\n{_ENVIRONMENT}\n"
        f"Exit codes of run:\n{listed_codes(codes)}"
        "Other commands: 0 yes, 1 no, 12 usage error; see tradebot COMMAND --help.\n\n"
        "Configuration keys, their defaults and meanings: etc/tradebot/example.toml (installed: below share/tradebot)\n"
    )


def _explain(word: str) -> str:
    """A hint for a command line that has a file in the place of the command."""
    ending = word.lower().removesuffix(".gz").removesuffix(".zst")
    if ending.endswith(".toml"):
        return " (did you mean --config=FILE?)"
    if ending.endswith((".jsonl", ".json")):
        return " (did you mean --ingest=replay --replay-file=FILE?)"
    return ""


TRADEBOT: Final = Program(
    name="tradebot",
    about=_ABOUT,
    groups=(run.GROUP, look.GROUP, operate.GROUP, configure.GROUP),
    commands=(*run.COMMANDS, *look.COMMANDS, *operate.COMMANDS, *configure.COMMANDS),
    default="run",
    notes=_notes(),
    explain=_explain,
)

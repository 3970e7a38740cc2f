"""The usage text of the command line, and which command takes which option: what --help shows and docopt reads."""

from __future__ import annotations

import re
from typing import Final

USAGE: Final = """\
tradebot watches market ticks, records the orders it would have sent, and stores everything in SQLite.
All fills are simulated: no order ever leaves this machine.

Usage:
  tradebot [run] [options]
  tradebot show-config [options]
  tradebot check-config [options] [FILE]
  tradebot sources [options]
  tradebot capture [options]
  tradebot status [options]
  tradebot health [options]
  tradebot doctor [options]
  tradebot soak [options]
  tradebot prove [options]
  tradebot install-unit [options]
  tradebot prune [options]
  tradebot backup [options] [FILE]
  tradebot --version
  tradebot --help

Commands:
  run           Run the engine; what happens when no command is given.
  show-config   Print the configuration as `run` would use it, with the source of each value. Takes the options of run.
  check-config  Say whether a configuration file is valid. Takes FILE or --config=FILE, else the file `run` would read.
  sources       List the exchanges that are known and the sources of ws_sources.toml. Takes --config and --ws-sources.
  capture       Record the frames of a live feed into compressed files, to be replayed with --replay-file=FILE. Takes
                the options of realws, --seconds, --out and --max-mb.

  status        Say how the engine is: prices, positions, profit, depths, drops, what stands still.
  health        Exit 0 when the engine makes progress and 1 when not, for scripts.
  doctor        Look at everything an unattended engine depends on, each with what to do.
  soak          Supervise an engine under a service manager: throttle it under pressure, restart it when it stalls.
  prove         Run the proofs against a real engine and write the bundle that the LIVE gate asks for.
  install-unit  Install the systemd units, filled in for this installation.
  prune         Delete old events in small steps, also while an engine runs.
  backup        Copy the database to FILE, also while an engine runs.

  `tradebot COMMAND --help` lists the options of these.

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
  --ws-url=URL        Of mockws and realws: where to connect (ws:// or wss://). Visible to all users of the machine:
                      for credentials use engine.ws_url_file or $TRADEBOT_WS_URL.
  --log-level=LEVEL   debug, info, warning or error; else $TRADEBOT_LOG_LEVEL, else info.
  --log-format=FORM   json or text; else text on a terminal and json elsewhere.
  --version           Print the version.
  -h --help           Print this.

Other options:
  --out=DIR           Of capture: where the files go, made when it does not exist; else the working directory.
  --max-mb=N          Of capture: megabytes kept at most, the oldest file goes first; 1024 unless told.
  --json              Of status: one JSON object, for scripts.
  --watch             Of status: again every second.
  --max-age=S         Of health: seconds without progress that are still healthy; 60 unless told.
  --before-update     Of doctor: with a new version in place, before the restart: can it take over, is there a way back.
  --unit=NAME         Of soak: the engine's unit; else the installed one that runs with this configuration, else
                      tradebot.service.
  --systemctl=PROG    Of soak and prove: the program that stands for systemctl.
  --psi-root=DIR      Of soak and prove: where the kernel's pressure files are; /proc/pressure unless told.
  --poll=S            Of soak: seconds between two looks; 5 unless told.
  --psi-actions=WORD  Of soak: on unless told; off records what would have been done about pressure, and does nothing.
  --decisions=FILE    Of soak: where decisions are written, one JSON line each; beside the database unless told.
  --duration=S        Of soak: end after so many seconds; never unless told.
  --list              Of prove: name the proofs.
  --only=NAMES        Of prove: only these, with commas between; writes no bundle.
  --user              Of install-unit: for your own service manager, without root.
  --name=NAME         Of install-unit: of a second engine: its unit is NAME.service, its database in /var/lib/NAME.
  --replace           Of install-unit: have the installed unit run with another configuration than so far.
  --print             Of install-unit: write the engine's unit to standard output, and change nothing.
  --keep=AGE          Of prune: what is older goes, such as 30d or 12h.
  --dry-run           Of prune: only say what would go.
  --force             Of backup: replace FILE.
"""

EXAMPLES: Final = """\
Examples:
  tradebot --seconds=60                                   a minute of synthetic ticks
  tradebot --ingest=replay --replay-file=ticks.jsonl.zst  a recorded session, as fast as possible
  tradebot --ingest=realws --ws-source=binance-btcusdt    an exchange's trades, as they come
  tradebot --config=my.toml show-config                   what a configuration file comes to
"""


RUN: Final = "run"
SHOW_CONFIG: Final = "show-config"
CHECK_CONFIG: Final = "check-config"
SOURCES: Final = "sources"
CAPTURE: Final = "capture"
STATUS: Final = "status"
HEALTH: Final = "health"
DOCTOR: Final = "doctor"
SOAK: Final = "soak"
PROVE: Final = "prove"
INSTALL_UNIT: Final = "install-unit"
PRUNE: Final = "prune"
BACKUP: Final = "backup"

_FIND_DB: Final = ("--config", "--db")

TAKEN: Final[dict[str, tuple[str, ...]]] = {
    CHECK_CONFIG: ("--config",),
    SOURCES: ("--config", "--ws-sources"),
    CAPTURE: (
        *("--config", "--exchange", "--ws-source", "--ws-sources", "--ws-url", "--symbol", "--ingest", "--seconds"),
        *("--out", "--max-mb", "--log-level", "--log-format"),
    ),
    STATUS: (*_FIND_DB, "--json", "--watch"),
    HEALTH: (*_FIND_DB, "--max-age"),
    DOCTOR: (*_FIND_DB, "--before-update"),
    SOAK: (
        *(*_FIND_DB, "--unit", "--systemctl", "--psi-root", "--poll", "--psi-actions", "--decisions", "--duration"),
        *("--log-level", "--log-format"),
    ),
    PROVE: (*_FIND_DB, "--list", "--only", "--systemctl", "--psi-root"),
    INSTALL_UNIT: ("--config", "--user", "--name", "--replace", "--print"),
    PRUNE: (*_FIND_DB, "--keep", "--dry-run"),
    BACKUP: (*_FIND_DB, "--force"),
}
"""Commands that do not take the options of run, with those they take."""

OPERATIONS: Final = (STATUS, HEALTH, DOCTOR, SOAK, PROVE, INSTALL_UNIT, PRUNE, BACKUP)
"""What `tradebot.cli.commands` does."""

COMMANDS: Final = (RUN, SHOW_CONFIG, *TAKEN)

WITH_FILE: Final = (CHECK_CONFIG, BACKUP)
"""Commands that a FILE may follow."""


def _listed(text: str) -> dict[str, bool]:
    return {name: bool(value) for name, value in re.findall(r"^  (?:-h )?(--[a-z-]+)(=\S+)?  ", text, re.M)}


def of_command(command: str) -> str:
    """The part of the usage that is about one command of `TAKEN`: its line and its options."""
    file = " [FILE]" if command in WITH_FILE else ""
    lines = [f"Usage: tradebot {command} [options]{file}", "", _entry(command), "", "Options:"]
    return "\n".join([*lines, *(_entry(option) for option in TAKEN[command])]) + "\n"


def _entry(name: str) -> str:
    found = re.search(rf"^  {name}(?:=\S+)?  .*(?:\n {{14,}}\S.*)*", USAGE, re.M)
    assert found is not None, name
    return found[0]


TAKES_VALUE: Final = _listed(USAGE)
"""Every option, and whether a value follows it."""

OF_OTHERS: Final = frozenset(_listed(USAGE.partition("Other options:")[2]))
"""Options that run does not take."""

"""The group "Run": the engine itself, and the recorder of live feeds."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Mapping
from typing import Final

from tradebot.cli.answers import answer, answer_json
from tradebot.cli.commands.options import CONFIG, DB, HELP, JSON, LOGS, SET, WS_SOURCE, WS_SOURCES, WS_URL
from tradebot.cli.program import Arguments, Command
from tradebot.cli.resolve import resolve
from tradebot.core.errors import ExitCode

GROUP: Final = "Run"

RUN_OPTIONS: Final = f"""\
Configuration options:
{CONFIG}{SET}{DB}\
  --mode=MODE         shadow, paper or live. This release accepts only shadow.
  --strategy=NAME     The strategy: sma_crossover, periodic, or one of your own.

Feed options:
  --ingest=FEED       The source of ticks: synthetic, replay, mockws or realws.
  --sample-every=N    Keep every N-th tick.
  --symbol=SYM        The symbol of the synthetic feed. With realws: the symbols to subscribe to, separated by commas.
  --history=CHOICE    drop or keep trades from before the subscription, which some feeds send first.
  --seconds=N         Stop after N seconds.

Replay options:
  --replay-file=FILE  Replay ticks from a JSON lines file (also .gz or .zst; - is standard input).
  --replay-db=FILE    Replay a run of another database: its ticks and what else it met (link losses, gaps, halts).
                      Without --replay-file and --replay-db a run of --db is replayed, and nothing is written.
  --replay-run=ID     The run of the database to replay. Default: its newest.
  --resume            Continue a replay that is partly stored in the database.
  --strict            Stop at the first malformed line (exit code 11).
  --speed=SPEED       max, realtime, or a multiple of real time such as 10x. Default: max.
  --run-id=ID         The run id, for a replay from standard input.

Live feed options:
  --exchange=NAME     The exchange to connect to; in a replay, the exchange whose frames the file holds.
{WS_SOURCE}{WS_SOURCES}{WS_URL}"""
"""The options of run, which show-config takes as well."""

_RUN: Final = f"""\
Usage:
  tradebot [run] [--set=KEY=VALUE]... [options]

The run ends at the end of a replay, after --seconds, or on SIGINT, SIGTERM or SIGHUP; all accepted events are stored.

{RUN_OPTIONS}
Output options:
{LOGS}\
  --json              Print the summary at the end as one JSON object on one line.
{HELP}"""

_CAPTURE: Final = f"""\
Usage:
  tradebot capture [--set=KEY=VALUE]... [options]

Records for --seconds or until a stop signal. Select the feed with --ws-source, or with --exchange and --symbol.
Replay a file later with: tradebot --ingest=replay --replay-file=FILE --exchange=NAME

Feed options:
{CONFIG}{SET}\
  --ingest=FEED       realws or mockws. Default: realws, unless the configuration says mockws.
  --exchange=NAME     The exchange to connect to.
  --symbol=SYM        The symbols to subscribe to, as the exchange writes them, separated by commas.
{WS_SOURCE}\
  --ws-sources=FILE   Read this ws_sources.toml; it must exist. Default: as for run.
{WS_URL}\
  --seconds=N         Stop after N seconds.

Output options:
  --out=DIR           Write the files to this directory, which is created if necessary. Default: the working directory.
  --max-mb=N          Keep at most N megabytes; the oldest file is deleted first. Default: 1024.
{LOGS}{JSON}{HELP}"""


def _run(arguments: Arguments, environ: Mapping[str, str]) -> int:
    settings = resolve(arguments, environ)
    # Late: the engine brings in the database and the threads, which no other command needs.
    from tradebot.engine import run_engine

    # A crash in compiled code, and the watchdog's SIGABRT, leave the stacks of all threads on standard error.
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
    if "--json" in arguments.given:
        from tradebot.engine import Edges
        from tradebot.report.output import Output

        return run_engine(settings, Edges(output=Output(as_json=True)))
    return run_engine(settings)


def _capture(arguments: Arguments, environ: Mapping[str, str]) -> int:
    settings = resolve(arguments, environ)  # it sends no order, so that any mode will do
    from tradebot.ops.capture import run_capture

    captured = run_capture(settings)
    return answer_json({"format": 1, **captured._asdict()}) if "--json" in arguments.given else answer(captured.text())


_RUN_FIELDS: Final = (
    "run_id",
    "run_no",
    "mode",
    "ingest",
    "source",
    "db_path",
    "elapsed_s",
    "ledger",
    "signals",
    "orders_by_status",
    "refusals_by_reason",
    "fills",
    "fees",
    "profit",
    "unit",
    "realized",
    "unrealized",
    "positions",
    "exit_code",
    "error",
    "resumed",
    "continued",
    "paper",
    "blocked",
    "gaps",
    "reconnects",
    "lost_log_lines",
    "hints",
    "ticks_per_s",
)  # fmt: skip

COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "run",
        GROUP,
        "Run the engine. This is the default command.",
        _RUN,
        {code.value: f"{code.name:9} {code.meaning}" for code in ExitCode},
        _RUN_FIELDS,
        _run,
    ),
    Command(
        "capture",
        GROUP,
        "Record the frames of a live feed in compressed files, for later replays.",
        _CAPTURE,
        {
            0: "recorded until the end, or stopped by a signal",
            1: "no connection, an output directory that cannot be written, a full disk, or an invalid configuration",
            12: "the command line is wrong",
        },
        ("frames", "trades", "exchange", "file"),
        _capture,
    ),
)

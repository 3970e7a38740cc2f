"""Halts and resumes by the file beside the database: in their place, refused orders, and across kills and restarts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import Final

from sim.checks.checkers import check_database, check_run
from sim.scenarios.common import check_all, expect, run_id_of, scenario, synthetic_settings
from sim.world.world import Faults, ProcessOutcome, SimProcess, World
from tradebot.core.log_events import LogEvent
from tradebot.telemetry.halt_file import HaltRequest, halt_path, write_halt

_HEARD_S: Final = 2.0
"""A running engine looks once a second, between two reads of the feed that block for half a second at most."""

_FIRST_COMMAND_S: Final = 0.2

Command = tuple[float, bool]
"""When it is given, in seconds since the start of the process, and whether it is a halt."""


class Operator:
    """Gives commands while processes run; `halted` is what the file says, `given` counts them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.halted = False
        self.given = 0

    def give(self, halted: bool) -> None:
        """`tradebot halt` or `tradebot resume`."""
        self.given += 1
        self.halted = halted
        request = HaltRequest(halted, 1_700_000_000_000 + self.given, f"command {self.given}")
        write_halt(halt_path(self.world.db_path), request)

    def draw(self, run_s: float) -> list[Command]:
        """Commands for a run of that length, far enough apart that each of them is heard."""
        found: list[Command] = []
        at_s = max(_FIRST_COMMAND_S, self.world.between(2, 30) / 10)  # the first look is at the start
        while at_s < run_s - 2 * _HEARD_S:
            found.append((at_s, self.world.chance(0.6)))
            at_s += 2 * _HEARD_S + self.world.between(0, 40) / 10
        return found

    def begin(self, commands: list[Command], process: SimProcess) -> None:
        """Schedule `commands`."""
        for at_s, halted in commands:
            process.runtime.call_at(at_s, partial(self.give, halted))


def _expected(began_halted: bool, commands: list[Command]) -> list[tuple[float, str]]:
    """When each notice of a run is caused, and its kind: every change, and every resume, as it releases breakers."""
    halted, found = began_halted, [(0.0, "HALT")] if began_halted else []
    for at_s, wanted in commands:
        if not (wanted and halted):
            found.append((at_s, "HALT" if wanted else "RESUME"))
        halted = wanted
    return found


def _stored(world: World, outcome: ProcessOutcome) -> tuple[list[tuple[str, int]], int]:
    """Kind and place of the stored halts and resumes of a run, and how many ticks it has."""
    with closing(sqlite3.connect(world.db_path)) as db:
        found = db.execute("SELECT id, ticks FROM runs WHERE run_id = ?", (run_id_of(outcome),)).fetchone()
        if found is None:
            return [], 0
        query = "SELECT kind, ticks_before FROM notices WHERE run = ? AND kind IN ('HALT', 'RESUME') ORDER BY id"
        return db.execute(query, found[:1]).fetchall(), int(found[1])


def check_commands(
    world: World, outcome: ProcessOutcome, began_halted: bool, commands: list[Command], began_resumed: bool = False
) -> None:
    """Every command is a notice, in order and in time; a start while halted begins with a HALT.

    Of a process that did not complete, only the commands given before its end count.
    `began_resumed`: the last command before the start was a resume, which may come first, as it releases breakers.
    """
    if outcome.exit_code != 0:
        commands = [one for one in commands if one[0] <= outcome.sim_s]
    stored, ticks = _stored(world, outcome)
    lines = [
        (at_s, line["fields"]["event"])
        for line, at_s in zip(outcome.logs, outcome.times_s, strict=True)
        if line["fields"].get("event") in (LogEvent.HALT, LogEvent.RESUME)
    ]
    if began_resumed:
        stored = stored[1:] if stored[:1] == [("RESUME", 0)] else stored
        lines = lines[1:] if lines and lines[0][1] == LogEvent.RESUME and lines[0][0] < _FIRST_COMMAND_S else lines
    notices = _expected(began_halted, commands)
    expected = [kind for _at_s, kind in notices]
    kinds = [kind for kind, _place in stored]
    if outcome.exit_code == 0:
        assert kinds == expected, f"stored {kinds}, the operator gave {expected}"
    else:
        assert kinds == expected[: len(kinds)], f"stored {kinds}, the operator gave {expected}"
    if began_halted and ticks:
        assert stored and stored[0] == ("HALT", 0), f"halted before its start, but {ticks} ticks are stored: {stored}"
    for number, ((given, _kind), (heard, _event)) in enumerate(zip(notices, lines, strict=False), start=1):
        assert given <= heard <= given + _HEARD_S, f"command {number}: given at {given} s, heard at {heard} s"


@scenario
def halted_and_resumed(world: World) -> None:
    """Halts and resumes while an engine runs: what adds exposure is refused exactly between them."""
    operator = Operator(world)
    began_halted = world.chance(0.3)
    if began_halted:
        operator.give(True)
    commands = operator.draw(20.0)
    settings = synthetic_settings(world)
    outcome = world.run(settings, Faults(begin=partial(operator.begin, commands)))
    expect(outcome, 0)
    check_all(world, settings, outcome, push=True)
    check_commands(world, outcome, began_halted, commands)


@scenario
def halt_across_kills(world: World) -> None:
    """Kills and restarts, with commands while engines run and in between: a halt lasts until a resume."""
    operator = Operator(world)
    settings = synthetic_settings(world, persist__flush_interval_ms=world.between(100, 1000))
    for _ in range(4):
        if world.chance(0.3):
            operator.give(world.chance(0.6))
        began_halted, commands = operator.halted, operator.draw(20.0)
        kill_s = world.between(1, 200) / 10 if world.chance(0.7) else None
        outcome = world.run(settings, Faults(kill_at_s=kill_s, begin=partial(operator.begin, commands)))
        assert outcome.exit_code in (0, None), outcome.error
        if outcome.events(LogEvent.START):
            if outcome.exit_code == 0:
                check_all(world, settings, outcome, push=True)
            else:
                check_database(world.db_path)
                check_run(world.db_path, settings.config, run_id_of(outcome), whole=False)
            check_commands(world, outcome, began_halted, commands)

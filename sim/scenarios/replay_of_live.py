"""Replays of runs with a live feed (`--replay-db`): what such a run met besides ticks is repeated."""

from __future__ import annotations

from functools import partial

from mockws_server.actions import Action, Burst, Disconnect, Reset, Skip, Ticks
from sim.checks.checkers import check_accepted_stored, check_database
from sim.scenarios.common import check_all, expect, flat_values, run_id_of, scenario
from sim.scenarios.live import exchange_of, live_settings
from sim.world.world import Faults, ProcessOutcome, SimProcess, World, dump
from tradebot.telemetry.halt_file import HaltRequest, halt_path, write_halt

_SYMBOLS = ("SOL/USDC", "BTC/USD", "ETH/USD")


@scenario
def replay_of_live_run(world: World) -> None:
    """Links lost, gaps, halts, signals that were too old or found no room: the replay has the same rows and notices.

    Also when it is killed and resumed, whatever its sizes. It reads no halt file, although there is one beside it.
    """
    steps: list[Action] = []
    for _ in range(world.between(2, 5)):
        if world.chance(0.5):
            steps.append(Skip(world.between(1, 5)))
        rate = float(world.between(5, 40))
        steps.append(Ticks(world.between(20, 80), rate) if world.chance(0.7) else Burst(world.between(20, 80)))
        if world.chance(0.5):
            steps.append(Reset() if world.chance(0.3) else Disconnect(1012))
    exchange = exchange_of(world, *steps, Ticks(20, 10.0), symbols=_SYMBOLS[: world.between(1, 3)])
    settings = live_settings(
        world,
        engine__run_seconds=40.0,
        engine__signal_every_n_ticks=world.between(1, 3),
        execution__max_tick_age_ms=world.between(0, 4) * 500,
        channels__signal_channel_size=world.between(1, 20),
        risk_caps__max_symbol_exposure_usd=float(world.between(100, 1000)),
    )
    delays = {"tradebot-execution": world.between(0, 4) / 10}
    live = world.run(settings, Faults(network=exchange.online, delays_s=delays, begin=partial(_halts, world)))
    expect(live, 0)
    check_accepted_stored(live)
    check_all(world, settings, live, push=True)
    values = flat_values(settings) | {
        "engine.ingest_mode": "replay",
        "app.db_path": str(world.directory / "again.db"),
        "engine.run_seconds": None,
        "channels.tick_channel_size": world.between(1, 64),
        "channels.signal_channel_size": world.between(1, 16),
        "persist.batch_size": world.between(1, 100),
    }
    given = {name: value for name, value in values.items() if value is not None}
    again = world.settings(given, {"replay_db": str(world.db_path), "resume": True})
    write_halt(halt_path(world.directory / "again.db"), HaltRequest(True, 1_700_000_000_000, "not of a replay"))
    world.run(again, Faults(kill_at_step=world.between(1, 2500)))
    replay = world.run(again)
    expect(replay, 0)
    check_database(world.directory / "again.db")
    _check_equal(world, live, replay)


def _halts(world: World, process: SimProcess) -> None:
    """A halt and a resume while the engine runs, sometimes."""
    at_s = 0.0
    for number in range(world.between(0, 3)):
        at_s += world.between(2, 60) / 10
        request = HaltRequest(number % 2 == 0, 1_700_000_000_001 + number, f"command {number}")
        process.runtime.call_at(at_s, partial(write_halt, halt_path(world.db_path), request))


def _check_equal(world: World, live: ProcessOutcome, replay: ProcessOutcome) -> None:
    """The rows of every table are equal, run ids aside."""
    of_live, of_replay = dump(world.db_path), dump(world.directory / "again.db")
    for table, rows in of_live.items():
        wanted, found = _plain(rows, run_id_of(live)), _plain(of_replay[table], run_id_of(replay))
        if table == "orders":  # two threads store those of a live run
            wanted, found = sorted(wanted), sorted(found)
        assert found == wanted, f"{table}: the replay has {len(found)} rows, the run {len(wanted)}, or unequal"


def _plain(rows: list[tuple[object, ...]], run_id: str) -> list[str]:
    """Rows as text, without their ids and that of the run."""
    return [str(row[1:]).replace(run_id, "RUN") for row in rows]

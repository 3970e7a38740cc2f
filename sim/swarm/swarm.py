"""One swarm history: consecutive processes with drawn faults, then one without, and the liveness check.

The faults of a process end with its safety phase; then it has `recovery_s` to become live and catch up. A process that
exits earlier is followed by the next one, as under systemd; the last one has no faults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mockws_server.actions import Action, Burst, Ticks, Wait
from mockws_server.script import Script
from sim.kernel.runtime import SimRuntime
from sim.swarm.fault_injector import FaultInjector
from sim.swarm.fault_kinds import KINDS
from sim.swarm.plan import MOCKWS, REPLAY, SYNTHETIC, Fault, Plan, draw_plan, recovery_s
from sim.world.exchange import SimExchange
from sim.world.exchange_protocols import SimKraken
from sim.world.faults import StorageFaults
from sim.world.tick_inputs import tick_lines
from sim.world.world import Faults, ProcessOutcome, SimProcess, World
from tradebot.config.model import Settings
from tradebot.feeds.status import Link

CALM_S: Final = 10.0
"""How long a push feed is observed after its recovery time."""


HANG_S: Final = 40.0
"""Additional run time if a stage may hang, so that the watchdog can act."""

_ROOMY: Final = 20_000
"""Size of the tick channel of such a process, so that it hangs instead of overloading."""


class Probe(NamedTuple):
    """Counts of a process at one moment of the fault-free phase."""

    received: int
    accepted: int
    stored: int
    sent: int
    link: Link | None


class ProcessRun(NamedTuple):
    """One process of a swarm history with its results."""

    process: SimProcess
    outcome: ProcessOutcome
    injector: FaultInjector
    probes: list[Probe]
    run_seconds: float | None
    faulty: bool


class Swarm:
    """Plays a plan in a world. `process_runs` are the processes so far."""

    def __init__(self, world: World, paper: bool = False) -> None:
        self.world = world
        stream = SimRuntime(world.seed).stream
        self.plan: Plan = draw_plan(stream, tuple(KINDS.values()), world.only, world.safety_s, paper)
        world.drawn = self.plan.kinds
        self.exchange = self._exchange()
        self.lines: list[str] = []
        self.process_runs: list[ProcessRun] = []
        if self.plan.feed == REPLAY:
            self.lines = tick_lines(world, self.plan.lines)
            world.write_lines("input.jsonl", self.lines)

    def play(self, after_each: Callable[[Swarm], None]) -> None:
        """Run processes until one ends normally, or all planned processes have run; call `after_each` after each."""
        for faults in (*self.plan.process_faults, ()):
            run_seconds = None if self.plan.feed == REPLAY else self._until_s(bool(faults)) + CALM_S
            if run_seconds is not None and any(fault.kind == "hang" for fault in faults):
                run_seconds += HANG_S
            outcome = self._run(faults, run_seconds)
            after_each(self)
            stopped = self.process_runs[-1].injector.signals_s
            if outcome.exit_code == 0 and not stopped:
                return

    @property
    def safety_s(self) -> float:
        """How long faults may be injected."""
        return self.plan.safety_s

    def settings(self, run_seconds: float | None) -> Settings:
        """The settings of the plan for a process of `run_seconds`."""
        plan = self.plan
        values: dict[str, object] = {**plan.values, "engine.run_seconds": run_seconds}
        options: dict[str, Any] = dict(plan.options)
        if run_seconds is None:
            values.pop("engine.run_seconds")
        if plan.feed == REPLAY:
            values["engine.replay_file"] = str(self.world.directory / "input.jsonl")
        if "hang" in plan.kinds and plan.feed != REPLAY:
            values["channels.tick_channel_size"] = _ROOMY
        if isinstance(self.exchange, SimKraken):
            values |= {"engine.ingest_mode": "realws", "app.symbol": ",".join(plan.symbols)}
            options["exchange"] = "kraken"
        return self.world.settings(values, options)

    def _exchange(self) -> SimExchange | None:
        plan = self.plan
        if plan.feed != MOCKWS:
            return None
        steps: list[Action] = []
        for what, count, rate in plan.steps:
            if what == "ticks":
                steps.append(Ticks(int(count), rate))
            elif what == "burst":
                steps.append(Burst(int(count)))
            else:
                steps.append(Wait(count))
        script = Script("", tuple(steps), "", plan.symbols, self.world.seed, None, market=plan.market_style)
        drawn = {
            fault.kind: fault.what for fault in plan.process_faults[0] if fault.kind in ("history", "newest_first")
        }
        self.world.injected.update(drawn.keys())
        if drawn:
            return SimKraken(script, snapshot=drawn.get("history", 0), newest_first=drawn.get("newest_first", 0))
        return SimExchange(script)

    def _until_s(self, faulty: bool) -> float:
        """The time by which a push feed must be live and caught up."""
        return (self.safety_s if faulty else 0.0) + recovery_s(self.plan.values)

    def _run(self, faults: tuple[Fault, ...], run_seconds: float | None) -> ProcessOutcome:
        world, plan, exchange = self.world, self.plan, self.exchange
        storage = StorageFaults()
        injector: list[FaultInjector] = []
        probes: list[Probe] = []

        def begin(process: SimProcess) -> None:
            until_s = self.safety_s if faults else 0.0
            injector.append(FaultInjector(process, storage, exchange, world.injected, until_s))
            if faults:
                injector[0].arrange(faults)
            elif exchange is not None:
                exchange.heal()
            if run_seconds is not None:
                for before_s in (CALM_S, CALM_S / 2, 0.1):
                    process.runtime.call_at(run_seconds - before_s, lambda: self._probe(process, probes))

        outcome = world.run(
            self.settings(run_seconds),
            Faults(storage=storage, network=None if exchange is None else exchange.online, begin=begin),
        )
        if exchange is not None and plan.process_faults and outcome.sim_s < run_seconds_or(run_seconds):
            exchange.while_away(int(outcome.sim_s * 10) % 20)
        self.process_runs.append(
            ProcessRun(world.processes[-1], outcome, injector[0], probes, run_seconds, bool(faults))
        )
        return outcome

    def _probe(self, process: SimProcess, probes: list[Probe]) -> None:
        observer = process.observer
        if observer.began and observer.feed is not None:
            metrics = observer.metrics
            sent = 0 if self.exchange is None else len(self.exchange.sent)
            link = observer.feed.status().link
            probes.append(Probe(metrics.ingest_received, metrics.ingest_processed, observer.ticks_stored, sent, link))


def run_seconds_or(run_seconds: float | None) -> float:
    """`run_seconds`, or for ever."""
    return float("inf") if run_seconds is None else run_seconds


def check_live(process_run: ProcessRun, plan: Plan, exchange: SimExchange | None) -> None:
    """After its faults, a process that ran its full time was live, caught up and had stored everything."""
    if process_run.outcome.exit_code != 0 or process_run.injector.signals_s or process_run.run_seconds is None:
        return
    assert len(process_run.probes) == 3, f"only {len(process_run.probes)} looks at the calm phase"
    first, middle, last = process_run.probes
    if exchange is not None:
        assert first.link == last.link == "up", f"the link is {first.link}, then {last.link}, long after all faults"
        sent, received = middle.sent - first.sent, last.received - first.received
        assert received >= sent, f"{received} messages received of {sent} sent in calm weather"
    elif plan.feed == SYNTHETIC:
        interval_ms = plan.values["engine.tick_interval_ms"]
        assert isinstance(interval_ms, int)
        due = int((CALM_S - 0.5) * 1000 / interval_ms)
        received = last.received - first.received
        assert received >= due, f"{received} ticks in {CALM_S} s of calm, not {due}"
    assert last.stored >= first.accepted, (
        f"of {first.accepted} ticks accepted {CALM_S} s before the end, {last.stored} are stored"
    )

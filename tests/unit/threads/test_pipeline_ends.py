"""How a pipeline ends whose stages hang: simulated time, the real stages, and what is said to be the cause."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from sim.kernel.errors import SimExit
from sim.kernel.runtime import SimRuntime
from tests.unit.store_helpers import Logged, counts, new_run, tick
from tests.unit.threads.strategies import Always
from tradebot.config.model import Config
from tradebot.config.validation import build
from tradebot.core.errors import ExitCode
from tradebot.core.events import Order, Signal, Tick
from tradebot.core.ledger import NotStored
from tradebot.core.log_events import LogEvent
from tradebot.execution.risk import Refusal
from tradebot.execution.shadow import ShadowExecution
from tradebot.feeds.base import Feed, FeedBatch
from tradebot.feeds.status import NO_LINK, FeedStatus
from tradebot.portfolio.money import money_of
from tradebot.store.batch import StoredCounts
from tradebot.store.errors import StorageUnavailable
from tradebot.store.policy import FINAL_FLUSH_S
from tradebot.store.writer import SqliteWriter
from tradebot.strategy.base import Decision
from tradebot.strategy.decider import Decider
from tradebot.threads.pipeline import STAGES, Parts, Pipeline
from tradebot.threads.shutdown import Control

_DRAIN_S = 10.0
_GRACE_S = 1.0
_POLL_S = 0.1


class Endless:
    """A replay's feed: a tick each tenth of a second, until it is stopped."""

    push = False
    total = None
    position = 0

    def __init__(self, runtime: SimRuntime) -> None:
        self.runtime = runtime
        self.count = 0

    def read(self) -> FeedBatch | None:
        self.runtime.sleep(0.1)
        self.count += 1
        return FeedBatch([tick(self.count)])

    def status(self) -> FeedStatus:
        return NO_LINK

    def close(self) -> None:
        pass


class Hanging(Always):
    """Buys at each tick, and never returns from the `hangs_at`-th."""

    name = "hanging"

    def __init__(self, runtime: SimRuntime, hangs_at: int) -> None:
        self.runtime = runtime
        self.left = hangs_at

    def on_ticks(self, symbol: str, ticks: Sequence[Tick]) -> list[Decision]:
        for _ in ticks:
            self.left -= 1
            if self.left == 0:
                self.runtime.event().wait(1e6)
        return super().on_ticks(symbol, ticks)


class Stuck(ShadowExecution):
    """Execution that never comes back from its first signal."""

    def __init__(self, runtime: SimRuntime) -> None:
        config = Config()
        super().__init__(config.risk_caps, money_of(config.execution.fee_rate))
        self.runtime = runtime

    def execute(
        self,
        signal: Signal,
        now_ms: int | None = None,
        blocked: Refusal | None = None,
        repeated: Refusal | None = None,
    ) -> Order:
        self.runtime.event().wait(1e6)
        raise AssertionError("nobody sets it")


def _none() -> Generator[Tick, None, None]:
    yield from ()


class Ending:
    """A pipeline that is told to stop after five seconds; what came of it, once `play` is over."""

    def __init__(self, path: Path, hangs_at: int = 10**9, execution: Callable[[SimRuntime], Any] | None = None) -> None:
        self.runtime = runtime = SimRuntime(1, switch_chance=0.0, spurious_chance=0.0, grain="calls")
        self.logged = Logged(cast(Any, runtime))
        config = build(
            {
                "engine.run_seconds": 5.0,
                "channels.signal_channel_size": 1,
                "persist.batch_size": 1000,
                "persist.flush_interval_ms": 60_000,
                "persist.drain_timeout_s": _DRAIN_S,
            }
        )
        decider = Decider(Hanging(runtime, hangs_at), "r1", 0.1, 0.75)
        shadow = ShadowExecution(config.risk_caps, money_of(config.execution.fee_rate))
        self.control = Control(runtime, STAGES)
        parts = Parts(
            config, "r1", cast(Feed, Endless(runtime)), decider, shadow if execution is None else execution(runtime),
            SqliteWriter(path, "NORMAL", new_run(path)), None, StoredCounts(), _none(),
        )  # fmt: skip
        self.pipeline = Pipeline(parts, self.control, runtime, self.logged.log)
        self.code: ExitCode | None = None
        self.ended_s = 0.0
        self.running: list[str] = []

    def play(self) -> None:
        """Run it as the engine does, which ends the process when threads are left."""

        def main() -> None:
            self.code = self.pipeline.run()
            self.ended_s, self.running = self.runtime.elapsed_s, self.control.running()
            self.runtime.exit_now(0)

        with pytest.raises(SimExit):
            self.runtime.run(main, until_s=10_000.0)
        self.logged.log.close()


def test_what_reached_the_writer_is_stored_though_a_stage_hangs(tmp_path: Path) -> None:
    """The writer does not wait for ends that nobody will tell it; the process ends a little later."""
    ending = Ending(tmp_path / "x.db", hangs_at=20)
    ending.play()
    assert ending.code is ExitCode.OVERLOAD
    assert ending.running == ["strategy"], "the writer has ended"
    assert counts(tmp_path / "x.db")[0] == ending.pipeline.persist.ticks_stored == 20
    end_s = 5.0 + _DRAIN_S + FINAL_FLUSH_S + _GRACE_S
    assert ending.ended_s == pytest.approx(end_s, abs=3 * _POLL_S), "the final flush and a second"
    assert ending.pipeline.ledger().cause is NotStored.DRAIN_TIMEOUT
    assert ending.logged.one(LogEvent.DRAIN_TIMEOUT)["running"] == ["execution", "persist", "strategy"]


def test_a_stage_that_waits_for_one_that_hangs_is_let_go(tmp_path: Path) -> None:
    """In a replay the strategy waits for room in the signal channel; when the patience ends, the wait is cancelled."""
    ending = Ending(tmp_path / "x.db", execution=Stuck)
    ending.play()
    assert ending.code is ExitCode.OVERLOAD
    assert ending.running == ["execution"], "all others have ended"
    assert counts(tmp_path / "x.db")[0] == ending.pipeline.persist.ticks_stored > 0


def _overdue(tmp_path: Path, running: Sequence[str]) -> tuple[Ending, bool]:
    """A pipeline whose drain is out of time, with just these stages running; whether it is given more."""
    ending = Ending(tmp_path / "x.db")
    for stage in set(STAGES) - set(running):
        ending.control.ended(stage)
    ending.control.begin_stop(0.0)
    goes_on = ending.pipeline._draining()
    ending.logged.log.close()
    return ending, goes_on


def test_a_writer_at_its_final_flush_is_no_drain_out_of_time(tmp_path: Path) -> None:
    """Drained is what has reached the writer, whose last five seconds come after that."""
    ending, goes_on = _overdue(tmp_path, ["persist"])
    assert goes_on and ending.control.failure is None
    assert not ending.logged.all(LogEvent.DRAIN_TIMEOUT)


def test_any_other_stage_is(tmp_path: Path) -> None:
    ending, goes_on = _overdue(tmp_path, ["persist", "execution"])
    assert goes_on and ending.control.failure is not None and ending.control.failure.code is ExitCode.OVERLOAD


def _second_signal(pipeline: Pipeline) -> None:
    pipeline._second_signal = True


def _crash(pipeline: Pipeline) -> None:
    pipeline._control.fail(ExitCode.CRASH, "strategy", "a bug")


def _storage(pipeline: Pipeline) -> None:
    pipeline.persist._given_up = StorageUnavailable("SQLITE_FULL", "disk full", passing=True)
    pipeline._control.fail(ExitCode.OVERLOAD, "persist", "storage failed")


def _unusable(pipeline: Pipeline) -> None:
    pipeline._control.fail(ExitCode.CONFIG, "commit", "PRAGMAs had no effect")


def _drain(pipeline: Pipeline) -> None:
    pipeline._abort_at = 1.0
    pipeline._control.fail(ExitCode.OVERLOAD, "engine", "drain ran out of time")


@pytest.mark.parametrize(
    ("happened", "cause"),
    [
        ([], None),
        ([_drain], NotStored.DRAIN_TIMEOUT),
        ([_storage], NotStored.STORAGE_FAILED),
        ([_drain, _storage], NotStored.STORAGE_FAILED),
        ([_unusable], NotStored.STORAGE_FAILED),
        ([_unusable, _drain], NotStored.STORAGE_FAILED),
        ([_crash], NotStored.CRASHED),
        ([_storage, _drain, _crash], NotStored.CRASHED),
        ([_second_signal], NotStored.SECOND_SIGNAL),
        ([_crash, _storage, _drain, _second_signal], NotStored.SECOND_SIGNAL),
    ],
)
def test_why_something_is_not_stored(
    tmp_path: Path, happened: list[Callable[[Pipeline], None]], cause: NotStored | None
) -> None:
    """not_stored has its cause named: the one that outranks the others."""
    ending = Ending(tmp_path / "x.db")
    for happen in happened:
        happen(ending.pipeline)
    ending.pipeline.metrics.ingest_received = ending.pipeline.metrics.ingest_processed = 1
    assert ending.pipeline.ledger().cause is cause
    ending.logged.log.close()

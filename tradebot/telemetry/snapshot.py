"""From a running pipeline to a `Status`: which numbers are read where. Main thread; reads what other threads write."""

from __future__ import annotations

import os

from tradebot.config.model import Config
from tradebot.core.errors import ExitCode
from tradebot.core.runtime import Runtime
from tradebot.store.runs import RunInfo
from tradebot.telemetry.status_file import LastTick, State, Status
from tradebot.threads.heartbeat import depths
from tradebot.threads.pipeline import Pipeline
from tradebot.threads.stall_detector import StallTimer


class Observer:
    """Looks at one pipeline; call `look` about once a second."""

    def __init__(self, pipeline: Pipeline, config: Config, info: RunInfo, started_ms: int, runtime: Runtime) -> None:
        """`config` is the one in effect: its sample_every is the throttled one."""
        self._pipeline = pipeline
        self._config = config
        self._info = info
        self._started_ms = started_ms
        self._runtime = runtime
        self._began_s = runtime.monotonic()
        self._pid = os.getpid()
        self._down_since_s: float | None = None
        self._progress = StallTimer()

    def look(self, exit_code: int | None = None) -> Status:
        """What is to be said now; with an exit code the run is over."""
        pipeline, info, now_s = self._pipeline, self._info, self._runtime.monotonic()
        feed = pipeline.feed_status()
        tick = pipeline.strategy.last_tick
        still = self._progress.look(now_s, pipeline.marks())
        stored_s = pipeline.persist.last_stored_s
        return Status(
            version=info.version,
            pid=self._pid,
            run_id=info.run_id,
            mode=info.mode,
            ingest=info.ingest,
            source=info.source,
            config_hash=info.config_hash,
            sample_every=self._config.engine.sample_every,
            push=info.push,
            state=self._state(exit_code),
            exit_code=exit_code,
            complete=exit_code == ExitCode.COMPLETE and pipeline.done,
            started_ms=self._started_ms,
            uptime_s=round(now_s - self._began_s, 3),
            written_ms=self._runtime.now_ms(),
            written_s=now_s,
            running=tuple(pipeline.running()),
            still_s={stage: round(for_s, 3) for stage, for_s in still.items()},
            link=feed.link,
            link_age_ms=feed.last_frame_age_ms,
            link_down_s=self._down_s(now_s, feed.link == "down"),
            retry_after_s=feed.retry_after_s,
            symbols=feed.symbols,
            last_tick=None if tick is None else LastTick(tick.symbol, tick.price, tick.ts),
            last_stored_ms=pipeline.persist.last_stored_ms,
            stored_age_s=None if stored_s is None else round(max(0.0, now_s - stored_s), 3),
            book=pipeline.book(),
            counters=pipeline.metrics.snapshot(),
            depths=depths(pipeline.channels),
            commit_ms=pipeline.persist.commit_ms,
            breakers=pipeline.breakers.view,
            paper=pipeline.paper,
            spilled_events=pipeline.persist.events_waiting,
        )

    def _state(self, exit_code: int | None) -> State:
        if exit_code is not None:
            return "ended"
        return "draining" if self._pipeline.stopping else "running"

    def _down_s(self, now_s: float, down: bool) -> float | None:
        if not down:
            self._down_since_s = None
            return None
        if self._down_since_s is None:
            self._down_since_s = now_s
        return round(now_s - self._down_since_s, 3)

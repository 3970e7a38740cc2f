"""The planted bugs, by the part of the program they are in."""

from __future__ import annotations

from typing import Final

from tests.sim.planted.bug import Bug
from tests.sim.planted.bugs_disk import DISK_BUGS
from tests.sim.planted.bugs_feeds import FEED_BUGS
from tests.sim.planted.bugs_maintenance import UPKEEP_BUGS
from tests.sim.planted.bugs_messages import WORDS_BUGS
from tests.sim.planted.bugs_paper import PAPER_BUGS
from tests.sim.planted.bugs_replay import REPLAY_BUGS

_STAGE_BUGS: Final = (
    # ---- persist -----------------------------------------------------------------------------------------------------
    Bug(
        "lost_final_flush",
        "the open batch is not flushed at the end",
        "tradebot/threads/persist.py",
        "                return\n            for item in items:\n                self._batch.add(item)\n",
        "                self._batch = WriteBatch()\n                return\n"
        "            for item in items:\n                self._batch.add(item)\n",
        40,
    ),
    Bug(
        "stop_races_flush",
        "the writer leaves its loop on a stop request instead of at the end of its input",
        "tradebot/threads/persist.py",
        "        while True:\n            room, now = ",
        "        while not self._control.stop.is_requested():\n            room, now = ",
        40,
    ),
    Bug(
        "flush_by_wall_clock",
        "the flush interval is measured with the wall clock, which may be set back",
        "tradebot/threads/persist.py",
        "        return self._runtime.monotonic()\n",
        "        return self._runtime.now_ms() / 1000\n",
        200,
    ),
    Bug(
        "spill_forgets_notices",
        "ticks, signals and orders are spilled, but notices are not",
        "tradebot/store/spill_format.py",
        "        events.append(notice)\n",
        "",
        20,
        "notices_spilled",
    ),
    Bug(
        "first_batch_not_spilled",
        "the batch in commit when the storage failed is not spilled; only later ones are",
        "tradebot/threads/spilling.py",
        "self._spill.begin(self._run_id, counts, in_causal_order(first, counts.ticks))",
        "self._spill.begin(self._run_id, counts, [])",
        100,
    ),
    Bug(
        "storage_failure_hidden",
        "a permanent storage failure is handled by spilling, but the run ends with 0",
        "tradebot/threads/commit.py",
        '        self._control.fail(ExitCode.OVERLOAD, "persist", f"storage failed: {error}")\n',
        "        self._control.stop.request()\n",
        100,
    ),
    Bug(
        "later_events_overtake_the_spill",
        "while the spill is being stored, new batches go directly to the commit stage",
        "tradebot/threads/persist.py",
        "        if not self._spilling.is_on and not handover.offer(batch):\n",
        "        if not handover.offer(batch) and not self._spilling.is_on:\n",
        20,
        "database_locked_20_s",
    ),
    Bug(
        "spill_emptied_too_soon",
        "the spill file is reset when no batch is in commit, although its events are not stored",
        "tradebot/threads/handover.py",
        "        return self._batch is None and self._spill_at == self._spill_end\n",
        "        return self._batch is None\n",
        40,
        "kill_while_draining_spill",
    ),
    Bug(
        "first_batch_stored_twice",
        "the batch in commit when the spill began is stored again from the spill",
        "tradebot/threads/commit.py",
        "            if self._reader.offset != waiting.start:\n                self._reader.pass_over(waiting.start)\n",
        "",
        20,
        "database_locked_20_s",
    ),
    Bug(
        "spill_without_bound",
        "spill_max_mb has no effect: a permanent storage failure fills the disk",
        "tradebot/store/spill.py",
        "        if self.size + len(lines) > size_max:\n",
        "        if False:\n",
        10,
        "spill_full",
    ),
    Bug(
        "spill_reserves_no_space_for_the_end",
        "events in the pipeline when the spill file is full are accepted, but do not fit in it",
        "tradebot/store/spill.py",
        "size_max = self._size_max if at_end else self._size_max_before_end",
        "size_max = self._size_max",
        10,
        "spill_full",
    ),
    Bug(
        "files_not_compared",
        "the engine does not check whether the database is still the file that it opened",
        "tradebot/store/file_identity.py",
        "        now = identity_of(self._database) if self._opened is None else "
        "check_same(self._database, self._opened)\n",
        "        return\n",
        10,
        "database_moved",
    ),
    # ---- halts -------------------------------------------------------------------------------------------------------
    Bug(
        "halt_lost_in_a_restart",
        "a start does not look at the halt file before its first tick",
        "tradebot/telemetry/halt_file.py",
        "        self._next_s: float | None = None\n",
        "        self._next_s: float | None = runtime.monotonic() + POLL_S\n",
        20,
        "halt_across_kills",
    ),
    Bug(
        "halt_not_passed_on_with_signals",
        "signals do not say that their tick came after a halt, so orders are not refused",
        "tradebot/strategy/decider.py",
        "                        halted=halted,\n",
        "",
        20,
        "halted_and_resumed",
    ),
    Bug(
        "resume_not_heard_while_not_halted",
        "a resume is not passed on unless the engine is halted, so it releases no breaker",
        "tradebot/telemetry/halt_file.py",
        "if self._halted or found.written_ms != self._resumed_ms else None",
        "if self._halted else None",
        20,
        "halted_and_resumed",
    ),
    Bug(
        "breaker_not_restored",
        "a restart forgets which breakers have tripped",
        "tradebot/execution/inline_shadow.py",
        '        self.breakers.restore(found["breakers"])\n',
        "",
        20,
        "breakers_across_kills",
    ),
    Bug(
        "breakers_begin_without_a_state",
        "no checkpoint is stored before the first tick, so a kill soon after the start loses what has tripped",
        "tradebot/threads/inline.py",
        "        if self._save_first:\n",
        "        if False:\n",
        20,
        "breakers_across_kills",
    ),
    # ---- strategy and execution --------------------------------------------------------------------------------------
    Bug(
        "dropped_signal_not_recorded",
        "a signal dropped at a full channel is counted, but no refused order is stored",
        "tradebot/threads/strategy.py",
        "        self._persist.send(orders)\n",
        "",
        200,
    ),
    Bug(
        "signal_executed_before_stored",
        "a signal is sent to execution before the writer: its order can be stored first",
        "tradebot/threads/strategy.py",
        "        if new:\n            self._persist.send(new)\n"
        "        if not self._push:\n            self._signals.send(signals)\n            return\n"
        "        accepted = self._signals.offer(signals)\n",
        "        if not self._push:\n            self._signals.send(signals)\n"
        "            if new:\n                self._persist.send(new)\n            return\n"
        "        accepted = self._signals.offer(signals)\n"
        "        if new:\n            self._persist.send(new)\n",
        200,
    ),
    Bug(
        "signal_twice_after_reconnect",
        "when the link is restored, the newest signal is sent to execution a second time",
        "tradebot/threads/strategy.py",
        "        accepted = self._signals.offer(signals)\n        if accepted < len(signals):\n"
        "            self._drop(signals[accepted:])\n",
        "        accepted = self._signals.offer(signals)\n        if accepted < len(signals):\n"
        "            self._drop(signals[accepted:])\n"
        "        on_notice = self._decider._strategy.on_notice\n\n"
        "        def notice(notice: Notice) -> None:\n            on_notice(notice)\n"
        '            if notice.kind == "LINK_RESTORED" and accepted == len(signals):\n'
        "                self._signals.offer(signals[-1:])\n\n"
        "        self._decider.notice = notice  # type: ignore[method-assign]\n",
        100,
    ),
    Bug(
        "resume_skips_orders_twice",
        "after a resume, the number of orders to skip is not decremented",
        "tradebot/threads/execution.py",
        "        self._stored_orders -= len(orders) - len(fresh)\n",
        "",
        100,
    ),
    Bug(
        "resume_stores_a_signal_again",
        "off by one: a resumed run stores the last signal again",
        "tradebot/threads/strategy.py",
        "        self._stored_signals = stored.signals\n",
        "        self._stored_signals = max(0, stored.signals - 1)\n",
        100,
    ),
    Bug(
        "age_checked_in_replay",
        "a replay also checks the age of ticks, against the current time",
        "tradebot/threads/execution.py",
        "now_ms = self._runtime.now_ms() if self._push else None",
        "now_ms = self._runtime.now_ms()",
        100,
    ),
    Bug(
        "exposure_never_released",
        "total exposure grows with each fill, because the old value of a position is not subtracted",
        "tradebot/portfolio/positions.py",
        "        sums.exposure = add(sums.exposure, subtract(exposure, position.exposure))\n",
        "        sums.exposure = add(sums.exposure, exposure)\n",
        100,
    ),
    Bug(
        "rate_of_yesterday",
        "the first print of a symbol stays the rate: later prints do not change it",
        "tradebot/portfolio/rates.py",
        "self._prices.get(symbol) != price:",
        "symbol not in self._prices:",
        20,
        "rates_from_prints",
    ),
    Bug(
        "rate_lost_in_a_restart",
        "after a restart, the rate is not known until its symbol has traded again",
        "tradebot/execution/shadow.py",
        "            self.money.rates.on_price(symbol, price)\n",
        "",
        20,
        "rates_from_prints",
    ),
    Bug(
        "open_orders_cap_off_by_one",
        "one order more than the cap is allowed: > instead of >=",
        "tradebot/execution/risk.py",
        "if open_orders >= caps.max_open_orders:",
        "if open_orders > caps.max_open_orders:",
        100,
    ),
    # ---- ingest ------------------------------------------------------------------------------------------------------
    Bug(
        "overload_swallowed",
        "an overload stops the feed but is not reported: the process ends with 0",
        "tradebot/threads/ingest.py",
        "        self._control.fail(ExitCode.OVERLOAD, self.name, "
        'f"tick channel full: the {cause} stage is too slow")\n',
        "        self._control.stop.request()\n",
        100,
    ),
    Bug(
        "refused_tick_discarded",
        "a tick refused by the full channel is discarded, and the run continues",
        "tradebot/threads/ingest.py",
        "                if full:\n                    self._overload(waiting, sum(isinstance(left, Notice)"
        " for left in items[number:]))\n                    return True\n",
        "",
        100,
    ),
    Bug(
        "sampling_off_by_one",
        "sampling restarts with each batch instead of continuing from the previous one",
        "tradebot/feeds/sampling.py",
        "ticks[step - 1 - self.sequence % step :: step]",
        "ticks[step - 1 :: step]",
        40,
    ),
    Bug(
        "complete_though_stopped",
        "a replay that was stopped before its end is marked as complete",
        "tradebot/threads/pipeline.py",
        "        return self.ingest.complete and self._control.failure is None and not self._second_signal\n",
        "        return self._control.failure is None and not self._second_signal\n",
        100,
    ),
    # ---- threads and their end ---------------------------------------------------------------------------------------
    Bug(
        "dead_thread_ignored",
        "a stage that ends with an exception is logged, but the run does not fail",
        "tradebot/threads/stage.py",
        "        except Exception as error:\n"
        '            self._log.error("thread crashed", event=LogEvent.THREAD_CRASHED,'
        " stage=stage.name, exc_info=error)\n"
        '            control.fail(ExitCode.CRASH, stage.name, f"{type(error).__name__}: {error}")\n',
        "        except Exception as error:\n"
        '            self._log.error("thread crashed", event=LogEvent.THREAD_CRASHED,'
        " stage=stage.name, exc_info=error)\n",
        100,
    ),
    Bug(
        "heartbeat_ends_with_the_stop",
        "the heartbeat ends when the stop begins, not when the pipeline has finished",
        "tradebot/threads/heartbeat.py",
        "while not self._control.finished.wait(self._interval_s):",
        "while not self._control.stop.wait(self._interval_s):",
        200,
    ),
    Bug(
        "drain_deadline_moves",
        "each check of the drain resets its deadline, so that it never expires",
        "tradebot/threads/shutdown.py",
        "        if self.drain_deadline is None:\n            self.drain_deadline =",
        "        if self.drain_deadline is None or self._running:\n            self.drain_deadline =",
        10,
        "drain_timeout",
    ),
    Bug(
        "second_signal_ignored",
        "a second stop signal is not detected while the first one is being served",
        "tradebot/threads/pipeline.py",
        "            if signals >= 2:\n",
        "            if signals >= 2 and not control.stop.is_requested():\n",
        200,
    ),
    Bug(
        "abandon_wakes_no_producer",
        "a crashed consumer abandons its channel, but does not wake producers waiting for space",
        "tradebot/core/channel.py",
        "            self._gone = True\n            self.not_empty.notify_all()\n"
        "            self.not_full.notify_all()\n",
        "            self._gone = True\n            self.not_empty.notify_all()\n",
        40,
        "thread_crash",
    ),
    # ---- channel -----------------------------------------------------------------------------------------------------
    Bug(
        "channel_without_bound",
        "a chunk is added completely, whatever space the channel has",
        "tradebot/core/channel.py",
        "fits = min(total - start, self.maxsize - self._events)",
        "fits = total - start",
        40,
    ),
    Bug(
        "space_check_not_atomic",
        "check, then act: the space for a chunk is read under the lock, which is released before its use",
        "tradebot/core/channel.py",
        "                    self.not_full.wait()\n                start += self._put_part(item, start, total)\n",
        "                    self.not_full.wait()\n                room = self.maxsize - self._events\n"
        "            with self.not_full:\n                if self._gone or self._producers <= 0:\n"
        "                    raise ConsumerGone(self.name)\n"
        "                fits = min(total - start, room)\n"
        "                self.queue.append(item if fits == total else _part(item, start, start + fits))\n"
        "                self._events += fits\n                self.entered += fits\n"
        "                self.high_water = max(self.high_water, self._events)\n"
        "                self.not_empty.notify()\n"
        "                start += fits\n",
        20,
        "overload_by_persist",
    ),
    Bug(
        "close_wakes_no_consumer",
        "the last producer closes the channel, but a waiting consumer is not woken",
        "tradebot/core/channel.py",
        "            if self._producers <= 0:\n                self.not_empty.notify_all()\n"
        "                self.not_full.notify_all()\n",
        "            if self._producers <= 0:\n                self.not_full.notify_all()\n",
        100,
    ),
)

_STORE_BUGS: Final = (
    Bug(
        "commit_repeated",
        "after a failed commit nothing checks whether it succeeded after all: the batch is stored again",
        "tradebot/store/writer.py",
        "            if not (was_in_doubt and self._stored_counts(db) == after):\n",
        "            if True:\n",
        40,
    ),
    Bug(
        "no_transaction",
        "a batch is stored statement by statement, so that an order can be stored without its fill",
        "tradebot/store/writer.py",
        '        with db.atomic("IMMEDIATE"):\n            insert_batch(db, self._run.no, batch, after)\n',
        "        insert_batch(db, self._run.no, batch, after)\n        if True:\n",
        200,
    ),
    Bug(
        "fills_stored_later",
        "the fills of a batch are stored in a separate transaction after that of the orders",
        "tradebot/store/writer.py",
        '        with db.atomic("IMMEDIATE"):\n            insert_batch(db, self._run.no, batch, after)\n',
        '        with db.atomic("IMMEDIATE"):\n            orders, batch.orders = batch.orders, []\n'
        "            insert_batch(db, self._run.no, batch, after)\n"
        '        with db.atomic("IMMEDIATE"):\n            batch.orders = orders\n'
        "            if orders:\n                _insert_orders(db, self._run.no, orders)\n",
        200,
    ),
    Bug(
        "storage_retry_never_ends",
        "each failed attempt to store restarts storage_retry_s, so that retries never end",
        "tradebot/store/policy.py",
        "        if self._give_up_at is None:\n"
        "            self._give_up_at = now + self._storage_retry_s\n        end =",
        "        self._give_up_at = now + self._storage_retry_s\n        end =",
        200,
    ),
    Bug(
        "adopts_stored_events",
        "the whole spill file is adopted, including events that the database already has",
        "tradebot/store/adoption.py",
        "        if skip[kind] <= 0:\n",
        "        if True:\n",
        400,
    ),
    Bug(
        "last_prices_not_restored",
        "after a restart, positions are valued at the prices of their fills, not at the last prices",
        "tradebot/executor.py",
        "executor.restore((), marks, carried.positions)",
        "executor.restore((), (), carried.positions)",
        400,
    ),
    Bug(
        "last_side_not_restored",
        "after a restart, the strategy does not know the side of its last signal",
        "tradebot/executor.py",
        "SymbolHistory(known.prices, known.last_side, known.since_signal)",
        "SymbolHistory(known.prices, None, known.since_signal)",
        100,
    ),
)

BUGS: Final[tuple[Bug, ...]] = (
    *_STAGE_BUGS,
    *_STORE_BUGS,
    *DISK_BUGS,
    *FEED_BUGS,
    *UPKEEP_BUGS,
    *WORDS_BUGS,
    *REPLAY_BUGS,
    *PAPER_BUGS,
)

"""The soak supervisor with simulated engines: the real supervisor, the engine's own files, consecutive processes.

The supervisor outlives the engine's processes, so it is not one of their threads: the world calls it once per poll. Its
clock continues across processes; times that an engine reports are converted to it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from mockws_server.actions import Burst, Wait
from sim.kernel.clock import START_MS
from sim.scenarios.live import exchange_of
from sim.world import network as net
from sim.world.faults import StorageFaults
from sim.world.world import Faults, ProcessOutcome, SimProcess, World
from tradebot.config.model import Settings
from tradebot.core.errors import TradebotError
from tradebot.ops.soak.decision_log import DecisionLog, SoakDecision
from tradebot.ops.soak.last_tick import newest_tick
from tradebot.ops.soak.probes import Seams
from tradebot.ops.soak.psi import RESOURCES, read_psi
from tradebot.ops.soak.stall import STALL_S, Newest
from tradebot.ops.soak.supervisor import Supervisor
from tradebot.ops.soak.systemctl import ServiceError, UnitLook
from tradebot.telemetry.status_file import Status, read_status, status_path
from tradebot.telemetry.throttle_file import throttle_path, write_throttle

POLL_S: Final = 5
STOP_S: Final = 45.0
"""TimeoutStopSec of the unit."""
RESTART_S: Final = 2.0
"""RestartSec of the unit."""
_HANDOVER_S: Final = 0.1
_SLACK_S: Final = 2.0
_BYTES_MAX: Final = 256 * 1024
_FILES_KEPT: Final = 2
_DECISIONS_KEPT: Final = 100
_BOOT_S: Final = 10_000.0

Event = Callable[[], None]


class SoakWorld:
    """A supervisor, a service manager, an exchange and engines. `plan` lists events by second."""

    def __init__(
        self, world: World, settings: Settings, end_s: int, psi_actions: bool = True, forgetful: bool = False
    ) -> None:
        """The engines run with `settings`, which must last longer than `end_s`. `forgetful`: drop data of ended
        processes.
        """
        self.world = world
        self.exchange = exchange_of(world, Wait(1.0))
        self.plan: list[tuple[int, Event]] = []
        self.decisions: list[SoakDecision] = []
        """All of them; when forgetful the newest."""
        self.actions: Counter[str] = Counter()
        self.restarts_s: list[float] = []
        self.quiet_until_s = 0
        self.failing_until_s = 0
        self.per_s = 2
        """Ticks that the exchange makes every second."""
        self._forgetful = forgetful
        self.now_s = 0.0
        """On the supervisor's clock, from 0."""
        self._settings = settings
        self._end_s = end_s
        self._base_s = 0.0
        self._second = 0
        self._process: SimProcess | None = None
        self._frozen = False
        self._held = False
        self._storage = StorageFaults()
        self._asked = False
        self._over = False
        self._bases: dict[str, float] = {}
        self._good_s = self._bad_s = self._stall_s = self._unsure_s = 0.0
        self._newest = Newest(None, None)
        self._psi = world.directory / "psi"
        self.press(0.0)
        # Not .jsonl: the world closes what engines leave open of those.
        self._log = DecisionLog(world.directory / "decisions.txt", _BYTES_MAX, _FILES_KEPT)
        seams = Seams(
            now_s=lambda: self.now_s + _BOOT_S, now_ms=lambda: START_MS + round(self.now_s * 1000),
            psi=lambda: read_psi(self._psi), newest_tick=lambda: newest_tick(world.db_path), status=self._status,
            service=self, throttle=lambda throttle: write_throttle(throttle_path(world.db_path), throttle),
            record=self._record,
        )  # fmt: skip
        self.supervisor = Supervisor(seams, "tradebot.service", psi_actions=psi_actions)
        self.supervisor.begin()

    def play(self) -> None:
        """To the end, or to the supervisor's ABORT. Raises what the checks raise."""
        self.plan.sort(key=lambda entry: entry[0])
        try:
            while not self._over:
                outcome = self.world.run(
                    self._settings, Faults(storage=self._storage, network=self.exchange.online, begin=self._begin)
                )
                self._ended(outcome)
        finally:
            self._log.close()

    # ---- actions of a plan -----------------------------------------------------------------------------------------

    def at(self, second: int, do: Event) -> None:
        """Have `do` called at that second."""
        self.plan.append((second, do))

    def press(self, cpu: float) -> None:
        """Set the CPU pressure that the kernel reports from now on."""
        self._psi.mkdir(exist_ok=True)
        for resource in RESOURCES:
            value = cpu if resource == "cpu" else 0.0
            (self._psi / resource).write_text(f"some avg10={value:.2f} avg60=0.00 avg300=0.00 total=1\n")

    def freeze(self) -> None:
        """SIGSTOP: no thread of the engine runs until `thaw`."""
        process = self._process
        if process is None or self._frozen:
            return
        self._frozen = True
        scheduler: Any = process.runtime._scheduler
        pick = scheduler._pick

        def picks_nobody() -> Any:
            while self._frozen and scheduler.dead is None and self._process is process:
                scheduler._jump()
            return pick()

        scheduler._pick = picks_nobody

    def thaw(self) -> None:
        """SIGCONT."""
        self._frozen = False

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.runtime.kill()

    def hang(self, stage: str) -> None:
        """Hang the stage's thread for the rest of the process's life."""
        if self._process is not None:
            self._held = True
            self._process.seam.delay_thread(f"tradebot-{stage}", 1e6)

    def crash(self, stage: str) -> None:
        """The stage's thread raises."""
        if self._process is not None:
            self._process.seam.crash(f"tradebot-{stage}", 1, lambda: None)

    def lock_database(self, seconds: float) -> None:
        """Every write finds the database locked for `seconds`."""
        if self._process is not None:
            self._storage.busy_from_s = self._process.runtime.elapsed_s
            self._storage.busy_until_s = self._storage.busy_from_s + seconds

    def refuse(self, connections: bool) -> None:
        """Make the exchange refuse all connections and drop the open ones, or stop doing so."""
        self.exchange.answer_always(net.HandshakeRefused() if connections else None)
        if connections and self._process is not None:
            for peer in self.exchange.network.peers:
                if peer.open:
                    peer.reset()

    def mute(self) -> None:
        """Cut the link silently until it is restored or the process ends."""
        if self._process is not None:
            self.exchange.network.link_down()

    def garble_status(self) -> None:
        """Overwrite the status file with invalid content; the engine's next status replaces it."""
        status_path(self.world.db_path).write_bytes(b'{"format": 99')

    @property
    def sample_every(self) -> int | None:
        """The sampling that the running engine reports."""
        status = self._status()
        return None if status is None else status.sample_every

    @property
    def ticks(self) -> int:
        """Ticks stored so far, by their numbers."""
        return newest_tick(self.world.db_path).id or 0

    # ---- Service -------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Restart like systemd: SIGTERM, SIGCONT, after a while SIGKILL; then the next process."""
        if self.now_s < self.failing_until_s:
            raise ServiceError("restart: Connection timed out")
        self.restarts_s.append(self.now_s)
        del self.restarts_s[:-1000]
        self._asked = True
        self._stop()

    def show(self) -> UnitLook:
        """How the process is."""
        process = self._process
        if self.now_s < self.failing_until_s:
            raise ServiceError("show: Connection timed out")
        if process is None:
            return UnitLook(load="loaded", active="activating", sub="auto-restart")
        ready = process.manager.ready_s is not None
        return UnitLook(
            load="loaded", active="active" if ready else "activating", main_pid=os.getpid(),
            invocation=str(process.number),
        )  # fmt: skip

    def _stop(self) -> None:
        process = self._process
        if process is not None:
            self.thaw()
            runtime = process.runtime
            runtime.call_at(runtime.elapsed_s + STOP_S, runtime.kill)
            runtime.send_signal()

    # ---- processes -----------------------------------------------------------------------------------------------

    def _begin(self, process: SimProcess) -> None:
        self._process = process
        self._frozen = self._held = self._asked = False
        self._storage.busy_from_s = self._storage.busy_until_s = 0.0
        process.runtime.call_at(self._second + 1 - self._base_s, self._tick_of_clock)

    def _ended(self, outcome: ProcessOutcome) -> None:
        status = self._read_status()
        if status is not None:
            self._bases.setdefault(status.run_id, self._base_s)
        while len(self._bases) > 100:
            del self._bases[next(iter(self._bases))]
        self._base_s += outcome.sim_s
        self._process = None
        if self._forgetful:  # a day has hundreds of processes, and their traces would fill the memory
            self.exchange.sent.clear()
            self.exchange.networks[:] = self.exchange.networks[-1:]
            self.world.processes[:] = [None] * len(self.world.processes)  # type: ignore[list-item]
            self.world.outcomes.clear()
            self.world.journal.entries.clear()
            del self.decisions[:-_DECISIONS_KEPT]
        if outcome.exit_code == 12 or (outcome.exit_code == 0 and not self._asked and not self._over):
            raise AssertionError(f"the engine ended with {outcome.exit_code}: {outcome.error}")
        until_s = self._base_s + (_HANDOVER_S if self._asked else RESTART_S)
        self._asked = False
        while self._second + 1 <= until_s and not self._over:
            self._tick_of_clock()
            if self._asked:
                until_s = min(until_s, self.now_s + _HANDOVER_S)
        self._base_s = until_s

    def _tick_of_clock(self) -> None:
        """Every whole second, whether a process runs or not."""
        self._second += 1
        self.now_s = now_s = float(self._second)
        process = self._process
        if process is not None and now_s >= self.quiet_until_s:
            self.exchange.perform(Burst(self.per_s))
        while self.plan and self.plan[0][0] <= self._second:
            self.plan.pop(0)[1]()
            if process is not None and process.runtime.killed:
                return
        self._observe()
        if self._second % POLL_S == 0:
            self.supervisor.poll()
        elif now_s - 1.0 < self.supervisor.due_s - _BOOT_S <= now_s:
            self.supervisor.check_stall()
        self._check()
        if self._second >= self._end_s or self.supervisor.aborted:
            self._over = True
            self._stop()
        elif process is not None and not process.runtime.killed:
            process.runtime.call_at(self._second + 1 - self._base_s, self._tick_of_clock)

    # ---- checks --------------------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Record what the world knows about the engine: it works, it cannot work, or neither is certain."""
        now_s, process = self.now_s, self._process
        newest = newest_tick(self.world.db_path)
        moved = newest != self._newest
        self._newest = newest
        feed = None if process is None else process.observer.feed
        linked = feed is not None and feed.status().link == "up"
        sick = self._frozen or self._held or now_s < self._storage.busy_until_s + self._base_s
        if not linked or sick:
            self._unsure_s = now_s
        # What lasts for less than a poll and a status need not be seen.
        if moved or now_s - self._unsure_s > POLL_S + 1:
            self._good_s = now_s
        if moved or (linked and not self._frozen) or now_s < self.failing_until_s:
            self._bad_s = now_s

    def _check(self) -> None:
        """Every stall is handled: a restart follows at most one limit and one poll after the engine stopped working."""
        since_s = self.now_s - max(self._bad_s, self._stall_s)
        assert since_s <= STALL_S + POLL_S + _SLACK_S, (
            f"at {self.now_s} s the engine has been unable to work for {since_s} s, and no STALL came"
        )

    def _record(self, decision: SoakDecision) -> None:
        self._log.write(decision)
        self.decisions.append(decision)
        self.actions[decision.action] += 1
        if decision.action == "STALL":
            # Of a link that was up between two polls the supervisor need not know: for it that ended at the first one.
            assert self.now_s - self._good_s >= STALL_S - POLL_S - _SLACK_S, (
                f"STALL at {self.now_s} s, but at {self._good_s} s the engine worked: {decision.reason}"
            )
            assert self.now_s - self._stall_s >= STALL_S or not self._stall_s, "two STALL restarts close together"
            self._stall_s = self.now_s

    def _read_status(self) -> Status | None:
        try:
            return read_status(status_path(self.world.db_path))
        except TradebotError:
            return None

    def _status(self) -> Status | None:
        """The newest status, in the supervisor's time."""
        status = read_status(status_path(self.world.db_path))
        if status is None:
            return None
        base_s = self._bases.get(status.run_id, self._base_s)
        return replace(status, written_s=status.written_s + base_s)

"""Injects each kind of fault into a running process. The plan determines time and extent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

from mockws_server.actions import Action, Burst, Reset, describe
from sim.swarm.plan import AT_END, Fault, Moved, Point
from sim.world.exchange import SimExchange
from sim.world.faults import StorageFaults, bound_files
from sim.world.torn_writes import TornTransaction
from sim.world.world import SimProcess

_SOON_S: Final = 0.05
_HELD_S: Final = 1.0
_BURST_MAX: Final = 3_000
_DELAYED: Final = {f"slow_{stage}": f"tradebot-{stage}" for stage in ("ingest", "strategy", "execution", "persist")}


class FaultInjector:
    """Schedules the faults of one process and records what was injected, for the expected result."""

    def __init__(
        self,
        process: SimProcess,
        storage: StorageFaults,
        exchange: SimExchange | None,
        injected: Counter[str],
        until_s: float,
    ) -> None:
        self._process = process
        self._runtime = process.runtime
        self._storage = storage
        self._exchange = exchange
        self._injected = injected
        self._until_s = until_s
        self._spill_bytes: int | None = None
        self.signals_s: list[float] = []
        self.disk_failing_s = 0.0
        """The longest time for which files cannot be written."""
        self.hung: tuple[str, float] | None = None
        """A hung stage and the time since when."""
        self.file_moved_s: float | None = None
        """When the database was moved away under the running engine."""

    def arrange(self, faults: tuple[Fault, ...]) -> None:
        """Schedule all `faults`, and the end of all faults when the safety phase is over."""
        for fault in faults:
            if fault.kind == "spill_fails":
                self._spill_fails(fault)
        for fault in faults:
            if fault.kind not in ("spill_fails", "history", "newest_first"):
                _INJECTORS.get(fault.kind, FaultInjector._network_fault)(self, fault)
        self._runtime.call_at(self._until_s, self.heal)

    def heal(self) -> None:
        """Stop all faults."""
        self._runtime.say("faults stop")
        self._process.seam.release()
        storage = self._storage
        storage.busy_until_s = storage.full_until_s = storage.slow_s = 0.0
        storage.fail_calls = storage.fail_after_commit = ()
        storage.torn_transactions = ()
        self._process.disk.spare()
        bound_files(None)
        if self._exchange is not None:
            self._exchange.heal()

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _do(self, fault: Fault, text: str, action: Callable[[], None]) -> None:
        """Inject the fault now."""
        self._injected[fault.kind] += 1
        self._runtime.say(f"FAULT {fault.kind}: {text}")
        action()

    def _at(self, at_s: float, fault: Fault, text: str, action: Callable[[], None]) -> None:
        """Inject the fault at `at_s`, unless faults have stopped by then."""
        if at_s <= self._until_s:
            self._runtime.call_at(at_s, partial(self._do, fault, text, action))

    def _window(self, fault: Fault, text: str, begin: Callable[[], None], end: Callable[[], None]) -> None:
        if fault.at_s > self._until_s:
            return
        self._at(fault.at_s, fault, f"{text} for {fault.for_s:g} s", begin)
        self._runtime.call_at(min(fault.at_s + fault.for_s, self._until_s), end)

    def _when(self, fault: Fault, text: str, action: Callable[[], None]) -> None:
        """Inject the fault at its time, or at the step in `what`."""
        if fault.what is None:
            self._at(fault.at_s, fault, text, action)
        else:
            self._runtime.call_at_step(fault.what, partial(self._do, fault, f"{text} at step {fault.what}", action))

    # ---- the network -----------------------------------------------------------------------------------------------

    def _network_fault(self, fault: Fault) -> None:
        """Perform one action at its time, or a handshake fault with a preceding loss of the link."""
        exchange = self._exchange
        assert exchange is not None
        actions: tuple[Action, ...] = fault.what if isinstance(fault.what, tuple) else (fault.what,)
        if isinstance(fault.what, tuple) and fault.at_s == 0.0:
            actions = actions[:1]
        for action in actions:
            self._at(fault.at_s, fault, describe(action), partial(exchange.perform, action))

    def _server_away(self, fault: Fault) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._window(fault, "the server quits", exchange.quit, exchange.return_if_away)

    def _link_down(self, fault: Fault) -> None:
        network = self._process.network
        assert network is not None
        self._window(fault, "the link is down", partial(network.link_down, bool(fault.what)), network.link_up)

    def _latency(self, fault: Fault) -> None:
        network = self._process.network
        assert network is not None
        self._window(fault, f"latency {fault.what} s", partial(network.slow_down, fault.what), network.slow_down)

    def _clock_skew(self, fault: Fault) -> None:
        exchange = self._exchange
        assert exchange is not None
        begin, end = partial(exchange.set_clock, fault.what), partial(exchange.set_clock, 0)
        self._window(fault, f"the exchange's clock is {fault.what} ms off", begin, end)

    def _numbers_restart(self, fault: Fault) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._at(fault.at_s, fault, "numbers start at 1 again", exchange.restart_numbering)

    def _price_spike(self, fault: Fault) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._at(fault.at_s, fault, f"a price of {fault.what:g}", partial(exchange.spike, fault.what))

    # ---- stages and clock ------------------------------------------------------------------------------------------

    def _slow(self, fault: Fault) -> None:
        seam, name = self._process.seam, _DELAYED[fault.kind]
        begin, end = partial(seam.delay_thread, name, fault.what), partial(seam.delay_thread, name, 0.0)
        self._window(fault, f"{fault.what} s at each use of a channel", begin, end)

    def _wall_jump(self, fault: Fault) -> None:
        self._at(fault.at_s, fault, f"{fault.what} ms", partial(self._runtime.jump_wall, fault.what))

    def _crash(self, fault: Fault) -> None:
        stage, nth = fault.what
        self._process.seam.crash(f"tradebot-{stage}", nth, partial(self._do, fault, f"{stage} raises", lambda: None))

    def _hang(self, fault: Fault) -> None:
        stage, process = fault.what, self._process

        def hangs() -> None:
            self.hung = self.hung or (stage, self._runtime.elapsed_s)
            self._runtime.say(f"{stage} hangs")

        def arrange() -> None:
            process.seam.hang(f"tradebot-{stage}", hangs)
            process.manager.kill_if_starved()

        self._at(fault.at_s, fault, f"{stage} is to hang", arrange)

    def _full_channel(self, fault: Fault) -> None:
        """Delay the strategy while it processes one tick, fill its channel, and lose the link."""
        process, exchange, runtime = self._process, self._exchange, self._runtime
        assert exchange is not None

        def perform(action: Action) -> None:
            runtime.call_at(runtime.elapsed_s + _SOON_S, partial(exchange.perform, action))

        def fill() -> None:
            tick = process.observer.channels[0]
            room = (tick.maxsize - tick.depth) * process.observer.stages["ingest"]._intake.sample_every
            if 0 < room <= _BURST_MAX:
                exchange.perform(Burst(room))
            perform(Reset())
            runtime.call_at(runtime.elapsed_s + _HELD_S, lambda: process.seam.delay_thread("tradebot-strategy", 0.0))

        def hold() -> None:
            if process.observer.began:
                process.seam.delay_thread("tradebot-strategy", _HELD_S)
                exchange.perform(Burst(process.observer.stages["ingest"]._intake.sample_every))
                runtime.call_at(runtime.elapsed_s + _SOON_S, fill)

        self._at(fault.at_s, fault, "the tick channel is filled, then the link is lost", hold)

    # ---- storage ---------------------------------------------------------------------------------------------------

    def _storage_busy(self, fault: Fault) -> None:
        self._fails_for(fault)
        self._storage.busy_from_s = fault.at_s
        self._storage.busy_until_s = min(fault.at_s + fault.for_s, self._until_s)
        self._window(fault, "the database is locked", self._tighten, self._loosen)

    def _storage_full(self, fault: Fault) -> None:
        self._fails_for(fault)
        self._storage.full_from_s = fault.at_s
        self._storage.full_until_s = min(fault.at_s + fault.for_s, self._until_s)
        self._window(fault, "the disk is full", self._tighten, self._loosen)

    def _storage_slow(self, fault: Fault) -> None:
        def set_slow(seconds: float) -> None:
            self._storage.slow_s = seconds

        self._window(fault, f"each write takes {fault.what} s", partial(set_slow, fault.what), partial(set_slow, 0.0))

    def _storage_error(self, fault: Fault) -> None:
        self._storage.fail_calls = fault.what
        self._at(0.0, fault, f"writes {fault.what} fail", lambda: None)

    def _commit_doubt(self, fault: Fault) -> None:
        self._storage.fail_after_commit = fault.what
        self._at(0.0, fault, f"commits {fault.what} are reported as failed", lambda: None)

    def _storage_torn(self, fault: Fault) -> None:
        transaction, statement, kill = fault.what
        description = f"{'kill -9' if kill else 'an I/O error'} at statement {statement} of transaction {transaction}"
        self._storage.torn_transactions += (
            TornTransaction(transaction, statement, kill, partial(self._do, fault, description, lambda: None)),
        )

    def _spill_fails(self, fault: Fault) -> None:
        if fault.what is None:
            self._storage.no_spill = True
            self._at(0.0, fault, "no room for the spill file", lambda: None)
        else:
            self._spill_bytes = fault.what
            self._at(0.0, fault, f"files end at {fault.what} bytes while the storage fails", lambda: None)

    def _disk_errors(self, fault: Fault) -> None:
        self._fails_for(fault)
        begin, end = partial(bound_files, fault.what), partial(bound_files, None)
        if fault.at_s == 0.0 and self._until_s > 0:  # before the process has taken its first step
            self._do(fault, f"files end at {fault.what} bytes for {fault.for_s:g} s", begin)
            self._runtime.call_at(min(fault.for_s, self._until_s), end)
        else:
            self._window(fault, f"files end at {fault.what} bytes", begin, end)

    def _fails_for(self, fault: Fault) -> None:
        if self._spill_bytes is not None or fault.kind == "disk_errors":
            lasts_s = min(fault.at_s + fault.for_s, self._until_s) - fault.at_s
            self.disk_failing_s = max(self.disk_failing_s, lasts_s)

    def _tighten(self) -> None:
        if self._spill_bytes is not None:
            bound_files(self._spill_bytes)

    def _loosen(self) -> None:
        bound_files(None)

    def _file_moved(self, fault: Fault) -> None:
        moved = fault.what
        assert isinstance(moved, Moved)

        def move() -> None:
            disk, runtime = self._process.disk, self._runtime
            if self._process.observer.began and self._process.storage is not None and not disk.is_away:
                self.file_moved_s = runtime.elapsed_s
                disk.move_away(moved.log_too, moved.replace)
                runtime.say("the database is moved away")

        description = "the database is moved away" + (", and another one is put there" if moved.replace else "")
        if moved.step is None:
            self._at(fault.at_s, fault, description, move)
        else:
            self._runtime.call_at_step(
                moved.step, partial(self._do, fault, f"{description} at step {moved.step}", move)
            )

    # ---- ends ------------------------------------------------------------------------------------------------------

    def _signal(self) -> None:
        self.signals_s.append(self._runtime.elapsed_s)
        self._runtime.send_signal()

    def _sigterm(self, fault: Fault) -> None:
        self._when(fault, "SIGTERM", self._signal)

    def _second_signal(self, fault: Fault) -> None:
        def both() -> None:
            self._signal()
            self._runtime.call_at(self._runtime.elapsed_s + fault.for_s, self._signal)

        self._when(fault, f"SIGTERM, and another one {fault.for_s:g} s later", both)

    def _kill(self, fault: Fault) -> None:
        self._when(fault, "kill -9", self._runtime.kill)

    def _kill_in_call(self, fault: Fault) -> None:
        self._in_call(fault, "kill -9", self._runtime.kill)

    def _power_cut(self, fault: Fault) -> None:
        process = self._process
        if fault.what == AT_END:
            process.power_cut = True
            self._do(fault, "the power is cut when the process has ended", lambda: None)
        elif isinstance(fault.what, Point):
            self._in_call(fault, "the power is cut", process.cut_power)
        else:
            self._when(fault, "the power is cut", process.cut_power)

    def _in_call(self, fault: Fault, description: str, kill: Callable[[], None]) -> None:
        """Kill at a later point of the disk, counted from its time."""
        points, disk = fault.what.number, self._process.disk
        self._at(
            fault.at_s,
            fault,
            f"{description} at point {points} of the disk from now",
            lambda: disk.cut_after(points, kill),
        )


_INJECTORS: Final[dict[str, Callable[[FaultInjector, Fault], None]]] = {
    "server_away": FaultInjector._server_away,
    "link_down": FaultInjector._link_down,
    "latency": FaultInjector._latency,
    "clock_skew": FaultInjector._clock_skew,
    "numbers_restart": FaultInjector._numbers_restart,
    "price_spikes": FaultInjector._price_spike,
    **dict.fromkeys(_DELAYED, FaultInjector._slow),
    "wall_jumps": FaultInjector._wall_jump,
    "crash": FaultInjector._crash,
    "hang": FaultInjector._hang,
    "full_channel": FaultInjector._full_channel,
    "file_moved": FaultInjector._file_moved,
    "storage_busy": FaultInjector._storage_busy,
    "storage_full": FaultInjector._storage_full,
    "storage_slow": FaultInjector._storage_slow,
    "storage_error": FaultInjector._storage_error,
    "commit_doubt": FaultInjector._commit_doubt,
    "storage_torn": FaultInjector._storage_torn,
    "disk_errors": FaultInjector._disk_errors,
    "sigterm": FaultInjector._sigterm,
    "second_signal": FaultInjector._second_signal,
    "kill": FaultInjector._kill,
    "kill_in_call": FaultInjector._kill_in_call,
    "power_cut": FaultInjector._power_cut,
}
"""By kind; all other kinds are actions of mockws."""

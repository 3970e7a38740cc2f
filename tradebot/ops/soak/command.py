"""`tradebot soak`: the loop around the supervisor, its line for the person at the terminal, and its verdict."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from tradebot.core.errors import ConfigError, TradebotError, UsageError
from tradebot.core.log_events import LogEvent
from tradebot.core.runtime import Runtime
from tradebot.ops.soak.decision_log import DecisionLog, SoakDecision, SoakLock, check_apart, decisions_path
from tradebot.ops.soak.last_tick import newest_tick
from tradebot.ops.soak.probes import Seams
from tradebot.ops.soak.psi import DEFAULT_ROOT, RESOURCES, read_psi
from tradebot.ops.soak.reasons import Cause, Obstacle, SkipReason, SoakEnding
from tradebot.ops.soak.stall import STALL_S
from tradebot.ops.soak.supervisor import Supervisor
from tradebot.ops.soak.systemctl import DEFAULT_SYSTEMCTL, DEFAULT_UNIT, Service, ServiceError, Systemctl, command_words
from tradebot.ops.soak.throttle_ladder import RUNGS, Rung, rung_of
from tradebot.output.json_answer import json_answer
from tradebot.output.log import Log, setup_logging
from tradebot.output.redaction import clip, escape
from tradebot.output.streams import GuardedStream
from tradebot.store.checks import check_existing
from tradebot.store.database import beside, refuse_foreign
from tradebot.store.errors import StorageUnavailable
from tradebot.telemetry.alerts import ladder_alert, stall_alert
from tradebot.telemetry.status_file import read_status, status_path
from tradebot.telemetry.throttle_file import Throttle, read_throttle, throttle_path, write_throttle
from tradebot.telemetry.webhook import Webhook

POLL_S: Final = 5.0
_SLICE_S: Final = 0.1
_LINE_EVERY_S: Final = 1.0
_MANAGER_TRIES: Final = 3
_MANAGER_PAUSE_S: Final = 0.5


class SoakOrder(NamedTuple):
    """What the command line asks for. Only tests give another `stall_s`."""

    db_path: Path
    unit: str = DEFAULT_UNIT
    systemctl: str = DEFAULT_SYSTEMCTL
    psi_root: Path = DEFAULT_ROOT
    poll_s: float = POLL_S
    psi_actions: bool = True
    decisions: Path | None = None
    """None: beside the database."""
    duration_s: float | None = None
    stall_s: float = STALL_S
    webhook_url: str | None = None
    log_level: str = "info"
    log_format: str | None = None
    as_json: bool = False


def run_soak(order: SoakOrder, runtime: Runtime, out: TextIO | None, errors: TextIO | None) -> int:
    """Supervise until the duration is over (0, or 1 when the engine is not healthy by then), ABORT (1) or a signal (0).

    Main thread; blocks. Raises ConfigError, and TradebotError where no manager answers, when it cannot begin.
    """
    log = setup_logging(order.log_level, order.log_format, runtime, errors)
    service = Systemctl(order.systemctl, order.unit, runtime)
    path = decisions_path(order.db_path) if order.decisions is None else order.decisions
    _check(order, path)
    _require_manager(service, runtime)
    lock = SoakLock(order.db_path)
    try:
        run_id = f"soak-{runtime.now_ms()}"
        webhook = None if order.webhook_url is None else Webhook(order.webhook_url, run_id, runtime, log)
        journal = _Journal(DecisionLog(path), log, webhook)
        try:
            rung, found = _found_throttle(order)
            supervisor = Supervisor(
                _seams(order, runtime, service, journal), order.unit, rung, order.psi_actions, order.stall_s
            )
            runtime.catch_stop_signals()
            live = LiveLine(GuardedStream(errors))
            log.around_writes(live.aside)
            loop = _Loop(order, supervisor, runtime, live, log)
            log.info(
                "soak starting", event=LogEvent.SOAK_START, database=str(order.db_path), unit=order.unit,
                poll_s=order.poll_s, psi_actions=order.psi_actions, state=rung.state, decisions=str(path),
                detail=found or None,
            )  # fmt: skip
            ending = loop.run(found)
            live.end()
            good, text = _verdict(order, supervisor, journal, ending, loop.elapsed_s)
        finally:
            journal.close()
    finally:
        lock.release()
    log_line = log.info if good else log.error
    log_line("soak ended", event=LogEvent.SOAK_END, good=good, ending=ending.value, state=supervisor.rung.state)
    answers = GuardedStream(out)
    if order.as_json:
        text = json_answer({
            "format": 1, "good": good, "ending": ending, "state": supervisor.rung.state, "verdict": text,
            "elapsed_s": round(loop.elapsed_s, 3), "restarts": supervisor.restarts, "stalls": supervisor.stalls,
            "decisions": str(path),
        })  # fmt: skip
    answers.write(text.removesuffix("\n") + "\n")
    answers.close()
    log.close()
    return 0 if good else 1


class LiveLine:
    """One status line on a terminal, rewritten in place; nothing if the stream is not a terminal."""

    def __init__(self, stream: GuardedStream) -> None:
        self._stream = stream
        self.shown = stream.isatty()
        self._text = ""

    def show(self, text: str) -> None:
        """Draw it in place of what was there."""
        if self.shown:
            self._text = text[: max(20, shutil.get_terminal_size().columns - 1)]
            self._stream.write(f"\r{self._text}\x1b[K")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Off the screen, so that something else can be written."""
        if self.shown and self._text:
            self._stream.write("\r\x1b[K")
        yield
        if self.shown and self._text:
            self._stream.write(self._text)

    def end(self) -> None:
        """Leave the last state on the screen."""
        if self.shown and self._text:
            self._stream.write("\n")
        self._text = ""


class _Journal:
    """Records decisions in their file, says what matters in the log and to the webhook.

    A full disk ends nothing, and is counted.
    """

    def __init__(self, decisions: DecisionLog, log: Log, webhook: Webhook | None = None) -> None:
        self._webhook = webhook
        self._decisions = decisions
        self._log = log.bind("soak")
        self._withheld: dict[Cause | None, SkipReason | Obstacle] = {}
        self.path = decisions.path
        self.lost = 0

    def record(self, decision: SoakDecision) -> None:
        try:
            self._decisions.write(decision)
        except OSError as error:
            self.lost += 1
            self._log.error("a decision could not be recorded", event=LogEvent.DECISION_LOST, detail=error.strerror)
        refused = self._newly_refused(decision)
        log_line: Callable[..., None] = self._log.debug
        if decision.action != "NONE" or refused:
            log_line = self._log.warning
        elif decision.detail is not None:
            log_line = self._log.info
        log_line(
            "soak decision", event=LogEvent(decision.action), state=decision.state, reason=decision.reason,
            unit=decision.unit_state, since_progress_s=decision.seconds_since_progress, detail=decision.detail,
            **{f"psi_{name}": decision.pressure.some_avg10(name) for name in RESOURCES},
        )  # fmt: skip
        if self._webhook is not None and (decision.action == "STALL" or (refused and decision.cause == "STALL")):
            self._webhook.send(stall_alert(decision.reason, decision.seconds_since_progress))
        elif self._webhook is not None and decision.action != "NONE":
            self._webhook.send(ladder_alert(decision.state, decision.sample_every, decision.reason))

    def _newly_refused(self, decision: SoakDecision) -> bool:
        """Whether a restart was withheld, and not for the reason of the decision before with the same cause."""
        cause, why = decision.cause, decision.withheld
        if why is None:
            self._withheld.clear()
            return False
        before, self._withheld[cause] = self._withheld.get(cause), why
        return before != why

    def close(self) -> None:
        self._decisions.close()
        if self._webhook is not None:
            self._webhook.close()


class _Loop:
    """When to look: every `poll_s`, and in between when a stall is due."""

    def __init__(self, order: SoakOrder, supervisor: Supervisor, runtime: Runtime, live: LiveLine, log: Log) -> None:
        self._order = order
        self._supervisor = supervisor
        self._runtime = runtime
        self._live = live
        self._log = log
        self._began_s = runtime.monotonic()
        self._drawn_s = self._began_s

    @property
    def elapsed_s(self) -> float:
        return self._runtime.monotonic() - self._began_s

    def run(self, found: str) -> SoakEnding:
        """To the end; what ended it."""
        supervisor, monotonic = self._supervisor, self._runtime.monotonic
        duration_s = self._order.duration_s
        end_s = float("inf") if duration_s is None else self._began_s + duration_s
        supervisor.begin(found)
        poll_s = self._began_s
        while not supervisor.aborted:
            # Polls keep their beat; those that a long restart has taken the place of are not made up for.
            poll_s += self._order.poll_s * max(1, -(-(monotonic() - poll_s) // self._order.poll_s))
            due_s = supervisor.due_s
            if monotonic() < due_s < min(poll_s, end_s):
                if self._stopped_before(due_s):
                    break
                supervisor.check_stall()
            if self._stopped_before(min(poll_s, end_s)):
                break
            if monotonic() >= end_s:
                return self._end(SoakEnding.DURATION_OVER)
            supervisor.poll()
        return SoakEnding.ABORTED if supervisor.aborted else self._end(SoakEnding.STOP_SIGNAL)

    def _end(self, ending: SoakEnding) -> SoakEnding:
        self._supervisor.end(ending)
        return ending

    def _stopped_before(self, until_s: float) -> bool:
        """Wait until then; True when a stop signal came first."""
        while (left_s := until_s - (now_s := self._runtime.monotonic())) > 0:
            if self._runtime.stop_signals():
                return True
            if self._live.shown and now_s >= self._drawn_s:
                self._drawn_s = now_s + _LINE_EVERY_S
                self._live.show(live_text(self._supervisor, self.elapsed_s))
            self._runtime.sleep(min(_SLICE_S, left_s))
        return self._runtime.stop_signals() > 0


def live_text(supervisor: Supervisor, elapsed_s: float) -> str:
    """The line for people."""
    look, rung = supervisor.last, supervisor.rung
    parts = [f"soak {_clock(elapsed_s)}", f"{rung.state} (1 of {rung.sample_every})"]
    if look is not None:
        values = ((name, look.pressure.some_avg10(name)) for name in RESOURCES)
        parts.append("PSI " + " ".join(f"{name} {'-' if value is None else f'{value:.1f}'}" for name, value in values))
        parts.append(f"unit {'?' if look.unit is None else look.unit.active or '?'}")
    progress_s, tick_s = supervisor.since_s()
    parts.append(f"progress {progress_s:.0f} s, tick {tick_s:.0f} s ago")
    parts.append(f"{supervisor.restarts} restarts, {supervisor.stalls} stalls")
    return " | ".join(parts)


def _check(order: SoakOrder, decisions: Path) -> None:
    """Refuse what cannot be meant, before anything is written or restarted. Raises UsageError, ConfigError."""
    folder = beside(order.db_path, "").parent
    if not folder.is_dir():
        raise UsageError(f"--db: {folder} is not a directory; name the database that the engine of {order.unit} writes")
    program = command_words(order.systemctl)[0]
    if shutil.which(program) is None:
        raise UsageError(f"--systemctl: {escape(clip(program, 200))} is not an executable program")
    if not decisions.parent.is_dir():
        raise UsageError(f"--decisions: there is no directory {decisions.parent}")
    check_apart(decisions, order.db_path)
    if order.psi_root != DEFAULT_ROOT and not any((order.psi_root / name).is_file() for name in RESOURCES):
        raise UsageError(f"--psi-root: {order.psi_root} holds none of the files {', '.join(RESOURCES)}")
    try:
        if not order.db_path.is_symlink() and not order.db_path.exists():
            return  # the engine makes it
        if not order.db_path.is_file() or order.db_path.stat().st_size:
            check_existing(order.db_path)
            refuse_foreign(order.db_path)
    except StorageUnavailable:
        pass  # locked for the moment: looked at again and again
    except OSError as error:
        raise ConfigError(f"database {order.db_path}: cannot be examined: {error.strerror}") from error


def _require_manager(service: Service, runtime: Runtime) -> None:
    """Ask the manager about the unit, three times at most: a message bus may be starting. Raises TradebotError."""
    for left in reversed(range(_MANAGER_TRIES)):
        try:
            service.show()
            return
        except ServiceError as error:
            if not left:
                raise TradebotError(
                    f"no service manager answers: {error}; soak needs one: run it where systemd runs, or name"
                    " another program with --systemctl (your own manager: --systemctl='systemctl --user')"
                ) from None
        runtime.sleep(_MANAGER_PAUSE_S)


def _found_throttle(order: SoakOrder) -> tuple[Rung, str]:
    """The rung that an earlier soak has left behind, where this one goes on, and a note on it. Raises ConfigError."""
    path = throttle_path(order.db_path)
    try:
        throttle = read_throttle(path)
    except ConfigError as error:
        # The engine ignores such a file, and would keep all ticks whatever the ladder says.
        if not order.psi_actions:
            return RUNGS[0], f"{error}; not removed, because PSI actions are off"
        try:
            path.unlink()
        except OSError as failure:
            raise ConfigError(f"{error}; soak could not remove it: {failure.strerror}") from error
        return RUNGS[0], f"{error}: removed"
    if throttle is None or throttle.sample_every == 1:
        return RUNGS[0], ""
    rung = rung_of(throttle.sample_every)
    state = escape(clip(throttle.state, 20))
    return rung, f"continuing at {rung.state}: the throttle file says {state}, 1 of {throttle.sample_every} ticks"


def _seams(order: SoakOrder, runtime: Runtime, service: Systemctl, journal: _Journal) -> Seams:
    db_path, status_file, throttle_file = order.db_path, status_path(order.db_path), throttle_path(order.db_path)

    def write(throttle: Throttle) -> None:
        write_throttle(throttle_file, throttle)

    return Seams(
        now_s=runtime.monotonic,
        now_ms=runtime.now_ms,
        psi=lambda: read_psi(order.psi_root),
        newest_tick=lambda: newest_tick(db_path),
        status=lambda: read_status(status_file),
        service=service,
        throttle=write,
        record=journal.record,
        throttle_broken=lambda: _broken(throttle_file),
        database=str(db_path),
    )


def _broken(throttle_file: Path) -> bool:
    try:
        read_throttle(throttle_file)
    except ConfigError:
        return True
    return False


def _verdict(
    order: SoakOrder, supervisor: Supervisor, journal: _Journal, ending: SoakEnding, elapsed_s: float
) -> tuple[bool, str]:
    """Whether all is well, and the last line."""
    rung, wrong = supervisor.rung, supervisor.unwell()
    if not supervisor.polls:
        wrong.append("no decision was made: it ended before the first poll")
    if journal.lost:
        wrong.append(f"{journal.lost} decisions could not be recorded")
    stopped = ending is SoakEnding.STOP_SIGNAL
    good = not supervisor.aborted and (stopped or not wrong)
    word = "ABORT" if supervisor.aborted else "GOOD" if not wrong else "STOPPED" if stopped else "FAILED"
    maxima = ", ".join(f"{name} {value:g}" for name, value in supervisor.maxima.items()) or "unknown"
    parts = [
        f"soak: {word} after {_clock(elapsed_s)}: {ending.value}",
        *wrong,
        f"{supervisor.polls} polls, {supervisor.restarts} restarts ({supervisor.stalls} for a stall),"
        f" greatest PSI some avg10: {maxima}",
    ]
    if others := supervisor.other_starts:
        starts = "a further start" if others == 1 else f"{others} further starts"
        parts.append(f"{starts} of the engine, not requested by this soak: the log of {order.unit} says why")
    if rung.sample_every > 1:
        which = "the engine stays throttled" if supervisor.throttled else "the engine's next start is throttled"
        parts.append(
            f"{which}: {rung.state}, 1 of {rung.sample_every} ticks; the next soak continues from"
            f" there, or remove {throttle_path(order.db_path)} and {order.systemctl} restart {order.unit}"
        )
    return good, "; ".join([*parts, f"decisions: {journal.path}"])


def _clock(seconds: float) -> str:
    minutes, left_s = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left_s:02}"

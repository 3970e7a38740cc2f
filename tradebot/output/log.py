"""Structured logs on standard error: loguru behind a facade that bounds what logging costs and how much is written.

One object a line, `{"timestamp", "level", "fields": {"message", ...}, "target"}`, or columns for people. A message is
constant text and names the kind of line; what varies goes into fields, as numbers where they are numbers. Per target
and kind at most MAX_INFO_PER_S INFO lines and MAX_TROUBLE_PER_S WARNING and ERROR lines are written in any second; the
rest is counted and summed up in one line a kind. DEBUG is not limited: anyone who enables it wants all lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, TextIO

from loguru import logger as _loguru

from tradebot.core.errors import ConfigError
from tradebot.core.runtime import Runtime
from tradebot.output.log_format import Fields, exception_fields, json_line, text_columns
from tradebot.output.log_rate_limit import RateLimiter
from tradebot.output.streams import GuardedStream

if TYPE_CHECKING:
    from loguru import Message, Record

LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
FORMATS: Final = ("json", "text")
MAX_INFO_PER_S: Final = 50
MAX_TROUBLE_PER_S: Final = 200

_DEBUG, _INFO, _WARNING, _ERROR = LEVELS.values()
_TEXT_FORMAT: Final = (
    "<green>{extra[stamp]}</green> <level>{level.name: <7}</level> <cyan>{extra[target]: <9}</cyan>"
    " <level>{extra[message]}</level>{extra[fields]}\n"
)


class Log:
    """Writes the lines of one target (a stage or module); `bind` gives the facade of another.

    Any thread may use it. A call never raises and waits only as long as the stream blocks. Of the seam it uses the two
    clocks, and those before loguru's lock is taken, so that in simulation no thread is parked while holding that lock.
    """

    __slots__ = ("_children", "_info", "_minimum", "_monotonic", "_runtime", "_stream", "_target", "_trouble")

    def __init__(
        self, runtime: Runtime, stream: GuardedStream, minimum: int, target: str, children: dict[str, Log]
    ) -> None:
        """Use `setup_logging` instead. `children` is shared by all facades of one set-up: target to facade."""
        self._runtime = runtime
        self._monotonic: Callable[[], float] = runtime.monotonic
        self._stream = stream
        self._minimum = minimum
        self._target = target
        self._children = children
        self._info = RateLimiter(MAX_INFO_PER_S)
        # One limiter for both levels: a message is either a warning or an error.
        self._trouble = RateLimiter(MAX_TROUBLE_PER_S)

    def bind(self, target: str) -> Log:
        """The facade for `target`, the same one each time. Targets are names in the code, never data: they are kept."""
        child = self._children.get(target)
        if child is None:
            child = Log(self._runtime, self._stream, self._minimum, target, self._children)
            child = self._children.setdefault(target, child)
        return child

    def enabled(self, level: str) -> bool:
        """Whether lines of this level are written: ask before building costly fields. KeyError: no such level."""
        return LEVELS[level] >= self._minimum

    def allows(self, message: str, lines: int = 1) -> bool:
        """Whether `info(message)` would write now, for hot loops.

        After a no skip the calls that `lines` lines would take: they are counted as held back.
        """
        return self._minimum <= _INFO and self._info.has_room(message, self._monotonic(), lines)

    def debug(self, message: str, **fields: object) -> None:
        """Log at DEBUG; not limited in volume."""
        if self._minimum <= _DEBUG:
            self._write("DEBUG", message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Log at INFO; held back and counted beyond MAX_INFO_PER_S lines of this message a second."""
        if self._minimum <= _INFO:
            now_s = self._monotonic()
            limiter = self._info
            if now_s >= limiter.report_at_s:
                self._report("INFO", limiter)
            if limiter.admit(message, now_s, fields.get("event")):
                self._write("INFO", message, fields)

    def warning(self, message: str, exc_info: BaseException | None = None, **fields: object) -> None:
        """Log at WARNING; `exc_info` adds an exception's type, text and traceback as fields."""
        if self._minimum <= _WARNING:
            self._write_trouble("WARNING", message, exc_info, fields)

    def error(self, message: str, exc_info: BaseException | None = None, **fields: object) -> None:
        """Log at ERROR; `exc_info` adds an exception's type, text and traceback as fields."""
        if self._minimum <= _ERROR:
            self._write_trouble("ERROR", message, exc_info, fields)

    def flush_suppressed(self) -> None:
        """Write one line for each kind of which lines were held back and not yet reported, of all targets.

        Called by the heartbeat and at exit. Two threads must not call it at once.
        """
        for log in list(self._children.values()):
            log._report("INFO", log._info)
            log._report("WARNING", log._trouble)

    def around_writes(self, around: Callable[[], AbstractContextManager[object]]) -> None:
        """Write every line inside a context that `around` makes, so that a progress bar can step aside."""
        self._stream.around_writes(around)

    @property
    def lost_lines(self) -> int:
        """Lines that could not be written: the stream was closed, its reader gone, or its disk full."""
        return self._stream.lost

    def close(self) -> None:
        """Report what was held back and flush, once, at the end of the process. The stream itself stays open."""
        self.flush_suppressed()
        self._stream.close()

    def _write_trouble(self, level: str, message: str, error: BaseException | None, fields: dict[str, object]) -> None:
        now_s = self._monotonic()
        limiter = self._trouble
        if now_s >= limiter.report_at_s:
            self._report("WARNING", limiter)
        if limiter.admit(message, now_s, fields.get("event")):
            if error is not None:
                fields.update(exception_fields(error))
            self._write(level, message, fields)

    def _report(self, level: str, limiter: RateLimiter) -> None:
        for kind, event, count in limiter.take_suppressed():
            # Not limited itself: at most one line a kind and window, of a bounded number of kinds.
            named = {} if event is None else {"event": event}
            self._write(level, f"{count} more suppressed: {kind}", {**named, "suppressed": count})

    def _write(self, level: str, message: str, fields: Fields) -> None:
        now_ms = self._runtime.now_ms()
        # As bound values, not as arguments: with arguments loguru would format the message, and feeds may send braces.
        _loguru.bind(now_ms=now_ms, fields=fields, target=self._target).log(level, message)


def setup_logging(level: str, format_: str | None, runtime: Runtime, stream: TextIO | None = None) -> Log:
    """Send all logs to `stream` (standard error by default) from `level` on, and return the facade for "tradebot".

    `format_` is "json", "text" or None: text on a terminal, else JSON. Level and format are accepted in any case.
    loguru is global: whatever was set up before is removed. Main thread, before the stages start.
    Raises ConfigError for an unknown level or format.
    """
    minimum = LEVELS.get(level.upper())
    if minimum is None:
        raise ConfigError(f"log level {level!r} is unknown: use one of {', '.join(LEVELS)}")
    if format_ is not None and format_.lower() not in FORMATS:
        raise ConfigError(f"log format {format_!r} is unknown: use one of {', '.join(FORMATS)}")
    guarded = GuardedStream(sys.stderr if stream is None else stream)
    as_text = guarded.isatty() if format_ is None else format_.lower() == "text"

    _loguru.remove()
    if as_text:
        _loguru.add(
            guarded.write,
            level=minimum,
            format=_text_formatter(runtime),
            colorize=guarded.isatty() and not os.environ.get("NO_COLOR"),
            backtrace=False,
            diagnose=False,
            catch=False,
        )
    else:
        _loguru.add(
            _json_sink(guarded, runtime),
            level=minimum,
            format=lambda _record: "",
            colorize=False,
            backtrace=False,
            diagnose=False,
            catch=False,
        )
    children: dict[str, Log] = {}
    return children.setdefault("tradebot", Log(runtime, guarded, minimum, "tradebot", children))


def _parts(record: Record, runtime: Runtime) -> tuple[int, Fields, str]:
    """Time, fields and target of a record: the facade's, or made up for a library that uses loguru by itself."""
    extra = record["extra"]
    if "now_ms" in extra:
        return extra["now_ms"], extra["fields"], extra["target"]
    fields = dict(extra)
    error = record["exception"]
    if error is not None and error.value is not None:
        fields.update(exception_fields(error.value))
    return runtime.now_ms(), fields, record["name"] or "unknown"


def _json_sink(stream: GuardedStream, runtime: Runtime) -> Callable[[Message], None]:
    def write(message: Message) -> None:
        record = message.record
        now_ms, fields, target = _parts(record, runtime)
        stream.write(json_line(now_ms, record["level"].name, record["message"], fields, target) + "\n")

    return write


def _text_formatter(runtime: Runtime) -> Callable[[Record], str]:
    def prepare(record: Record) -> str:
        now_ms, fields, target = _parts(record, runtime)
        stamp, message, shown = text_columns(now_ms, record["message"], fields)
        # Through the record, never through the returned format, which loguru searches for colour tags and braces.
        record["extra"] = {"stamp": stamp, "message": message, "fields": shown, "target": target}
        return _TEXT_FORMAT

    return prepare

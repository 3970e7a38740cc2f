"""The log facade (G4): what is written, what is held back, and that it never harms the pipeline."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from loguru import logger as loguru_logger

from tradebot.core.errors import ConfigError
from tradebot.core.runtime import RealRuntime
from tradebot.output.log import MAX_INFO_PER_S, MAX_TROUBLE_PER_S, Log, setup_logging

REPO = Path(__file__).resolve().parents[3]


class Clock(RealRuntime):
    """The real runtime with clocks that only the test advances."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 0.0

    def now_ms(self) -> int:
        return 1_700_000_000_000 + round(self.elapsed_s * 1000)

    def monotonic(self) -> float:
        return 500.0 + self.elapsed_s


class Terminal(io.StringIO):
    """A stream that says a person is looking."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def leave_no_sink() -> Iterator[None]:
    yield
    loguru_logger.remove()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(clock: Clock, stream: io.StringIO) -> Log:
    return setup_logging("INFO", "json", clock, stream)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def messages(stream: io.StringIO) -> list[str]:
    return [record["fields"]["message"] for record in records(stream)]


def test_a_line_has_the_contracts_form_and_the_seams_time(log: Log, clock: Clock, stream: io.StringIO) -> None:
    clock.elapsed_s = 0.25
    log.bind("strategy").info("signal generated", event="signal generated", reason_code="SMA_CROSSOVER", n=2)
    assert stream.getvalue() == (
        '{"timestamp":"2023-11-14T22:13:20.250Z","level":"INFO","fields":{"message":"signal generated",'
        '"event":"signal generated","reason_code":"SMA_CROSSOVER","n":2},"target":"strategy"}\n'
    )


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "info"])
def test_lines_below_the_level_are_not_written(level: str, clock: Clock, stream: io.StringIO) -> None:
    log = setup_logging(level, "json", clock, stream)
    for write, name in ((log.debug, "DEBUG"), (log.info, "INFO"), (log.warning, "WARNING"), (log.error, "ERROR")):
        write(name)
    order = ["DEBUG", "INFO", "WARNING", "ERROR"]
    expected = order[order.index(level.upper()) :]
    assert messages(stream) == [record["level"] for record in records(stream)] == expected
    assert [name for name in order if log.enabled(name)] == expected


def test_unknown_level_or_format_is_a_configuration_error(clock: Clock, stream: io.StringIO) -> None:
    with pytest.raises(ConfigError, match=r"'LOUD'.*DEBUG, INFO, WARNING, ERROR"):
        setup_logging("LOUD", "json", clock, stream)
    with pytest.raises(ConfigError, match=r"'xml'.*json, text"):
        setup_logging("INFO", "xml", clock, stream)


@pytest.mark.parametrize(
    "text", ["{}", "{0}", "{symbol}", "{", "<red>x</red>", "</>", "%s", "{extra[target]}", "\\<red>"]
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_braces_and_tags_are_plain_text(form: str, text: str, clock: Clock) -> None:
    """loguru would format the one and colour the other."""
    stream = Terminal()
    log = setup_logging("INFO", form, clock, stream)
    log.bind("x").info(text, symbol=text)
    log.bind(text).info("m")
    if form == "json":
        assert records(stream)[0]["fields"] == {"message": text, "symbol": text}
    else:
        assert stream.getvalue().count(text) == 3


def test_a_terminal_gets_coloured_text_a_pipe_gets_json(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    setup_logging("INFO", None, clock, terminal).info("hello", n=1)
    assert "\x1b[" in terminal.getvalue()
    setup_logging("INFO", None, clock, pipe).info("hello")
    assert messages(pipe) == ["hello"]


def test_a_person_may_want_no_colour(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    setup_logging("INFO", None, clock, terminal).info("hello")
    assert terminal.getvalue() == "2023-11-14 22:13:20.000Z INFO    tradebot  hello\n"


def test_text_on_a_pipe_has_no_colour(clock: Clock, stream: io.StringIO) -> None:
    setup_logging("INFO", "text", clock, stream).bind("ingest").warning("gap", n=1)
    assert stream.getvalue() == "2023-11-14 22:13:20.000Z WARNING ingest    gap n=1\n"


def test_feeds_cannot_act_on_the_terminal(clock: Clock) -> None:
    terminal = Terminal()
    setup_logging("INFO", "text", clock, terminal).info("m", symbol="\x1b[2J\n\u202e")
    assert r"symbol=\x1b[2J\n\u202e" in terminal.getvalue()
    assert terminal.getvalue().count("\n") == 1


def test_credentials_are_masked_in_message_and_fields(log: Log, stream: io.StringIO) -> None:
    log.info("connecting to wss://bob:pw@h", url="wss://h/?token=abc", error=ValueError("wss://bob:pw@h"))
    assert "pw" not in stream.getvalue()
    assert "abc" not in stream.getvalue()


def test_one_kind_of_info_is_written_fifty_times_a_second_then_counted(
    log: Log, clock: Clock, stream: io.StringIO
) -> None:
    """Volume is bounded, and nothing is held back without being counted."""
    for _ in range(MAX_INFO_PER_S + 30):
        log.info("tick", event="TICK")
    log.info("other")
    assert messages(stream) == ["tick"] * 50 + ["other"]
    clock.elapsed_s = 1.0
    log.info("tick")
    summary, line = records(stream)[51:]
    assert summary["level"] == "INFO"
    assert summary["fields"] == {"message": "30 more suppressed: tick", "event": "TICK", "suppressed": 30}
    assert line["fields"] == {"message": "tick"}


def test_what_was_held_back_is_reported_while_more_is_held_back(log: Log, clock: Clock, stream: io.StringIO) -> None:
    for number in range(4000):
        clock.elapsed_s = number / 1000
        log.info("tick", n=number)
    log.flush_suppressed()
    written = [record for record in records(stream) if "n" in record["fields"]]
    summaries = [record["fields"]["suppressed"] for record in records(stream) if "suppressed" in record["fields"]]
    assert len(written) == 200
    assert len(summaries) == 4
    assert sum(summaries) == 3800


@pytest.mark.parametrize("level", ["warning", "error"])
def test_warnings_and_errors_are_bounded_too(level: str, log: Log, stream: io.StringIO) -> None:
    for _ in range(MAX_TROUBLE_PER_S + 7):
        getattr(log, level)("malformed line")
    log.flush_suppressed()
    assert len(messages(stream)) == MAX_TROUBLE_PER_S + 1
    assert records(stream)[-1]["fields"]["suppressed"] == 7


@pytest.mark.parametrize("level", ["warning", "error"])
def test_warnings_held_back_are_reported_by_the_next_one(
    level: str, log: Log, clock: Clock, stream: io.StringIO
) -> None:
    for _ in range(MAX_TROUBLE_PER_S + 7):
        getattr(log, level)("malformed line")
    clock.elapsed_s = 1.0
    getattr(log, level)("malformed line")
    assert [record["fields"].get("suppressed") for record in records(stream)[MAX_TROUBLE_PER_S:]] == [7, None]


def test_debug_is_not_limited(clock: Clock, stream: io.StringIO) -> None:
    """At DEBUG each tick has its SMA_CALC line."""
    log = setup_logging("DEBUG", "json", clock, stream)
    for _ in range(300):
        log.debug("SMA_CALC")
    assert len(messages(stream)) == 300


def test_flushing_reports_every_target_once(log: Log, stream: io.StringIO) -> None:
    for target, extra in (("a", 2), ("b", 3)):
        for _ in range(MAX_INFO_PER_S + extra):
            log.bind(target).info("tick")
    log.flush_suppressed()
    log.flush_suppressed()
    assert [(r["target"], r["fields"]["suppressed"]) for r in records(stream)[100:]] == [("a", 2), ("b", 3)]


def test_close_reports_what_was_held_back(log: Log, stream: io.StringIO) -> None:
    for _ in range(MAX_INFO_PER_S + 1):
        log.info("tick")
    log.close()
    assert records(stream)[-1]["fields"]["suppressed"] == 1


def test_allows_spares_the_caller_the_fields(log: Log, stream: io.StringIO) -> None:
    for _ in range(MAX_INFO_PER_S + 20):
        if log.allows("tick"):
            log.info("tick")
    log.flush_suppressed()
    assert len(messages(stream)) == MAX_INFO_PER_S + 1
    assert records(stream)[-1]["fields"]["suppressed"] == 20


def test_allows_counts_all_lines_that_the_caller_skips(log: Log, stream: io.StringIO) -> None:
    """G4: hot loops ask once for a chunk, so that logging never governs speed; each line is counted all the same."""
    for _ in range(3):
        if log.allows("tick", 40):
            for _line in range(40):
                log.info("tick")
    log.flush_suppressed()
    assert len(messages(stream)) == MAX_INFO_PER_S + 1
    assert records(stream)[-1]["fields"]["suppressed"] == 3 * 40 - MAX_INFO_PER_S


def test_allows_nothing_when_info_is_off(clock: Clock, stream: io.StringIO) -> None:
    assert not setup_logging("WARNING", "json", clock, stream).allows("tick")


def test_a_line_held_back_costs_no_loguru_call(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(MAX_INFO_PER_S):
        log.info("tick")
    monkeypatch.setattr("tradebot.output.log._loguru", None)
    log.info("tick")
    with pytest.raises(AttributeError):
        log.info("another kind")


def test_bind_gives_one_facade_a_target(log: Log) -> None:
    assert log.bind("a") is log.bind("b").bind("a")


def test_exceptions_become_fields(log: Log, stream: io.StringIO) -> None:
    try:
        raise ZeroDivisionError("by {zero}")
    except ZeroDivisionError as error:
        log.error("thread crashed", exc_info=error, thread="ingest")
    fields = records(stream)[0]["fields"]
    assert fields["thread"] == "ingest"
    assert fields["error_type"] == "ZeroDivisionError"
    assert fields["error"] == "by {zero}"
    assert "in test_exceptions_become_fields" in fields["traceback"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_library_that_uses_loguru_by_itself_is_logged_alike(form: str, clock: Clock, stream: io.StringIO) -> None:
    setup_logging("INFO", form, clock, stream)
    try:
        raise KeyError("wss://a:b@c")
    except KeyError:
        loguru_logger.bind(n=1).exception("by itself {}")
    assert "2023-11-14" in stream.getvalue()
    assert "by itself {}" in stream.getvalue()
    assert "a:b" not in stream.getvalue()
    if form == "json":
        (record,) = records(stream)
        assert record["fields"]["n"] == 1
        assert record["fields"]["error_type"] == "KeyError"


def test_setting_up_again_replaces_what_was_there(clock: Clock, stream: io.StringIO, log: Log) -> None:
    second = io.StringIO()
    setup_logging("INFO", "json", clock, second).info("once")
    assert messages(stream) == []
    assert messages(second) == ["once"]


def test_writes_happen_inside_the_given_context(log: Log, stream: io.StringIO) -> None:
    @contextmanager
    def aside() -> Iterator[None]:
        stream.write("[")
        yield
        stream.write("]")

    def around() -> AbstractContextManager[None]:
        return aside()

    log.around_writes(around)
    log.info("m")
    assert stream.getvalue().startswith("[{")
    assert stream.getvalue().endswith("}\n]")


def test_a_failing_stream_is_counted_and_never_raises(clock: Clock) -> None:
    class Full(io.StringIO):
        full = True

        def write(self, text: str) -> int:
            if self.full:
                raise OSError(28, "No space left on device")
            return super().write(text)

    stream = Full()
    log = setup_logging("INFO", "json", clock, stream)
    log.info("lost")
    log.error("lost too")
    assert log.lost_lines == 2
    stream.full = False
    log.info("kept")
    assert messages(stream) == ["kept"]
    stream.close()
    log.info("closed")
    assert log.lost_lines == 3
    log.close()


def test_the_seams_time_counts_when_the_librarys_is_frozen(log: Log, clock: Clock, stream: io.StringIO) -> None:
    """Under the simulator freezegun freezes what loguru sees; the line tells the simulated time all the same."""
    with freeze_time("2030-01-01"):
        clock.elapsed_s = 86_400.5
        log.info("m")
    assert records(stream)[0]["timestamp"] == "2023-11-15T22:13:20.500Z"


CLOSED_PIPE = """
import sys
from tradebot.output.log import setup_logging
from tradebot.core.runtime import RealRuntime
log = setup_logging("INFO", "json", RealRuntime())
sys.stdin.read()
for n in range(40):
    log.info("m", text="x" * 5000)
log.close()
print(log.lost_lines)
"""


def test_a_reader_that_went_away_changes_neither_the_run_nor_its_exit_code() -> None:
    """`tradebot 2>&1 | head`: Python by itself would end with 120, which is no exit code of ours (G5)."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLOSED_PIPE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPO,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stderr.close()
    process.stdin.close()
    assert int(process.stdout.read()) == 40
    process.stdout.close()
    assert process.wait(30) == 0


def test_a_standard_error_that_was_never_open_changes_nothing() -> None:
    script = f'exec "{sys.executable}" -c "$CODE" 2>&-'
    done = subprocess.run(
        ["sh", "-c", script], input="", capture_output=True, text=True, cwd=REPO, timeout=30, check=False,
        env={**os.environ, "CODE": CLOSED_PIPE},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "40\n")

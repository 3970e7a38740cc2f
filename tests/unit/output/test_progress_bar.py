"""The progress bar: for a person at a terminal, nothing on a pipe, and never in the way of log lines."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tqdm import TMonitor

from tradebot.core.runtime import RealRuntime
from tradebot.output.log import setup_logging
from tradebot.output.progress_bar import ProgressBar


class Terminal(io.StringIO):
    """A stream that says a person is looking, and may vanish."""

    gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def last_drawn(terminal: Terminal) -> str:
    return terminal.getvalue().rstrip("\n").rpartition("\r")[2]


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_nothing_where_nobody_is_looking(stream: io.StringIO | None) -> None:
    progress = ProgressBar(stream, 100, "B")
    assert not progress.shown
    progress.update(50, 5)
    with progress.clear():
        pass
    progress.close()
    assert stream is None or stream.getvalue() == ""


def test_a_closed_stream_has_no_bar() -> None:
    terminal = Terminal()
    terminal.close()
    assert not ProgressBar(terminal, 100, "B").shown


def test_the_last_state_stays_on_the_screen() -> None:
    terminal = Terminal()
    progress = ProgressBar(terminal, 2000, "B")
    assert progress.shown
    progress.update(500, 10)
    progress.update(2000, 40)
    progress.close()
    assert "100%" in last_drawn(terminal)
    assert "2.00k/2.00k" in last_drawn(terminal)
    assert re.search(r"[0-9,]+ ticks/s", last_drawn(terminal))
    assert terminal.getvalue().endswith("\n")


def test_closing_twice_and_updating_after_it_do_nothing() -> None:
    terminal = Terminal()
    progress = ProgressBar(terminal, 10, "rows")
    progress.close()
    before = terminal.getvalue()
    progress.close()
    progress.update(5, 5)
    assert terminal.getvalue() == before
    assert not progress.shown


def test_an_unknown_total_shows_no_percentage() -> None:
    terminal = Terminal()
    progress = ProgressBar(terminal, None, "rows")
    progress.update(1234, 1234)
    progress.close()
    assert "%" not in terminal.getvalue()
    assert "1.23k rows" in last_drawn(terminal)


def test_numbers_that_go_back_are_ignored() -> None:
    terminal = Terminal()
    progress = ProgressBar(terminal, 100, "rows")
    progress.update(50, 5)
    progress.update(20, 0)
    progress.close()
    assert "50.0/100" in last_drawn(terminal)
    assert " 0 ticks/s" not in last_drawn(terminal)


def test_log_lines_stand_alone_while_a_bar_is_shown() -> None:
    terminal = Terminal()
    log = setup_logging("INFO", "json", RealRuntime(), terminal)
    progress = ProgressBar(terminal, 100, "rows")
    log.around_writes(progress.clear)
    log.info("one line")
    progress.close()
    before, _, after = terminal.getvalue().partition('{"timestamp"')
    assert re.search(r"\r +\r$", before), "the bar was not wiped from the line"
    assert re.match(r'[^\r\n]*"target":"tradebot"}\n\r', after), "the bar was not drawn again below"


def test_a_terminal_that_goes_away_ends_the_bar_and_nothing_else() -> None:
    terminal = Terminal()
    progress = ProgressBar(terminal, 100, "rows")
    terminal.gone = True
    progress.close()
    assert not progress.shown


def test_no_thread_watches_the_bar() -> None:
    """The seam is the only place that starts threads; tqdm would start one with its first bar of the process."""
    progress = ProgressBar(Terminal(), 100, "rows")
    assert [thread for thread in threading.enumerate() if isinstance(thread, TMonitor)] == []
    progress.close()


def test_without_a_terminal_tqdm_is_not_even_imported() -> None:
    """It would be a good part of the time that a start takes."""
    code = "import io, sys, tradebot.engine, tradebot.cli.main; from tradebot.output.progress_bar import ProgressBar\n"
    code += "ProgressBar(io.StringIO(), 1, 'B'); sys.exit('tqdm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], timeout=30).returncode == 0

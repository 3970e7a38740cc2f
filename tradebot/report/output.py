"""Where a run talks to people: the summary on standard output, progress and logs on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tradebot.feeds.base import Feed
from tradebot.output.log import Log
from tradebot.output.progress_bar import ProgressBar
from tradebot.output.streams import GuardedStream
from tradebot.report.summary import RunSummary, as_object_line, render


class Output:
    """The two standard streams of a run. Main thread only. Never raises for a stream that is gone."""

    def __init__(self, answers: TextIO | None = None, errors: TextIO | None = None, as_json: bool = False) -> None:
        """Standard output and standard error, unless others are given. `as_json`: the summary is for scripts."""
        self._as_json = as_json
        self._answers = GuardedStream(sys.stdout if answers is None else answers)
        self.errors = sys.stderr if errors is None else errors

    def print(self, text: str) -> None:
        """Write an answer for people; nothing where the answer is for scripts."""
        if not self._as_json:
            self._answers.write(text)

    def print_summary(self, summary: RunSummary) -> None:
        """Write the summary at the end of a run."""
        as_json = self._as_json
        self._answers.write(as_object_line(summary) if as_json else render(summary, self._answers.encoding))

    def close(self) -> None:
        """Flush for the last time, so that the interpreter finds nothing left that could fail."""
        self._answers.close()

    @contextmanager
    def progress(self, feed: Feed, unit: str, log: Log) -> Iterator[Callable[[int], None]]:
        """A progress bar while the block runs, if a person looks on; call what it gives with the ticks read so far."""
        shown = ProgressBar(None if feed.push else self.errors, feed.total, "B" if unit == "B" else "rows")
        log.around_writes(shown.clear)
        try:
            yield lambda ticks: shown.update(feed.position, ticks)
        finally:
            shown.update(feed.position, 0)
            shown.close()

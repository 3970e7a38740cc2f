"""A progress bar for people at a terminal; without a terminal it does nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from tradebot.output.tick_progress import TickBar


class ProgressBar:
    """A bar on `stream` if that is a terminal; otherwise every call does nothing.

    One thread updates and closes it. Pass `clear` to `Log.around_writes` when the logs go to the same terminal.
    """

    def __init__(self, stream: TextIO | None, total: int | None, unit: Literal["B", "rows"]) -> None:
        """`total` in `unit` ("B": bytes, shown as kB, MB ...), None when it is unknown: then there is no percentage."""
        self._stream = stream
        self._bar: TickBar | None = None
        if stream is not None and not stream.closed and stream.isatty():
            from tradebot.output.tick_progress import TickBar  # only where there is a terminal: tqdm is slow to import

            self._bar = TickBar(
                total=total,
                unit=unit if unit == "B" else f" {unit}",
                unit_scale=True,
                file=stream,
                dynamic_ncols=True,
                # Only time decides when to draw: a count learnt in a fast stretch would freeze the bar in a slow one.
                miniters=1,
                # The time left comes from the average of the whole run: --speed hands ticks out in fits and starts.
                smoothing=0,
            )

    @property
    def shown(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def update(self, position: int, ticks: int | None) -> None:
        """The input has been read up to `position` (in the bar's unit, from its start) and gave `ticks` ticks so far.

        None where it is not about ticks.
        Neither goes back: a smaller number than before is ignored.
        Cheap: draws ten times a second at most. Blocks as the terminal does; a terminal that went away ends the bar.
        """
        bar = self._bar
        if bar is None:
            return
        bar.ticks = None if ticks is None else max(bar.ticks or 0, ticks)
        try:
            bar.update(max(0, position - int(bar.n)))
        except (OSError, ValueError):
            self._drop(bar)

    def clear(self) -> AbstractContextManager[None]:
        """A context in which the bar is off the screen, so that something else can be written there. Any thread."""
        bar = self._bar
        return nullcontext() if bar is None else bar.external_write_mode(file=self._stream)

    def close(self) -> None:
        """Draw the last state and leave it on the screen. Idempotent."""
        bar, self._bar = self._bar, None
        if bar is None:
            return
        try:
            bar.close()
        except (OSError, ValueError):
            self._drop(bar)

    def _drop(self, bar: TickBar) -> None:
        # The terminal is gone: the run continues without a bar.
        self._bar = None
        bar.disable = True

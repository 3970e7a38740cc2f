"""Standard output and standard error when their reader may go away or the disk below them may fill up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final, NoReturn, TextIO

READER_GONE: Final = 141
"""The exit code of a tool whose standard output lost its reader: what a shell reports for an end by SIGPIPE."""


class GuardedStream:
    """A text stream whose failures never reach the writer: what cannot be written is counted in `lost`.

    Once the reader is gone (closed pipe, closed file) nothing more is tried, and the file descriptor is pointed at the
    null device: Python would otherwise turn the exit code into 120 when it cannot flush the stream at exit.
    Any failure that can pass, such as a full disk, loses that text only. A write blocks as long as the stream does.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """`stream` may be None: the interpreter was started with the descriptor closed, so all is lost and counted."""
        self._stream = stream
        self._gone = stream is None
        self._around: Callable[[], AbstractContextManager[object]] = nullcontext
        self.lost = 0

    @property
    def encoding(self) -> str:
        """The stream's encoding, or ascii where it has none."""
        return getattr(self._stream, "encoding", None) or "ascii"

    @property
    def gone(self) -> bool:
        """Whether nothing can be written any longer."""
        return self._gone

    def isatty(self) -> bool:
        """Whether a person is looking."""
        try:
            return self._stream is not None and not self._gone and self._stream.isatty()
        except ValueError:  # closed
            return False

    def around_writes(self, around: Callable[[], AbstractContextManager[object]]) -> None:
        """Do every write inside a context that `around` makes: a progress bar steps aside in it."""
        self._around = around

    def write(self, text: str) -> None:
        """Write and flush `text`. Blocks as the stream does; never raises for the stream's sake."""
        stream = self._stream
        if stream is None or self._gone:
            self.lost += 1
            return
        try:
            if self._around is nullcontext:
                stream.write(text)
                stream.flush()
            else:
                with self._around():
                    stream.write(text)
                    stream.flush()
        except (BrokenPipeError, ConnectionError):
            self.lost += 1
            self._give_up(stream)
        except OSError:
            self.lost += 1
        except UnicodeEncodeError:
            spelled_out = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            if spelled_out == text:
                self.lost += 1
            else:
                self.write(spelled_out)
        except ValueError:  # already closed
            self.lost += 1
            self._gone = True

    def close(self) -> None:
        """Flush for the last time; the stream stays open. If that fails the rest is given up. Never raises."""
        if self._stream is None or self._gone:
            return
        try:
            self._stream.flush()
        except OSError:
            self._give_up(self._stream)
        except ValueError:
            self._gone = True

    def _give_up(self, stream: TextIO) -> None:
        self._gone = True
        # A stream without a descriptor needs none of this; without a null device nothing better is left to do.
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, stream.fileno())
            finally:
                os.close(null)


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """End the process with the exit code of `main`, which prints to standard output; None counts as 0.

    A reader of standard output that goes away (`| head`) ends it without a traceback, with READER_GONE if `main` was
    not done.
    """
    stream = GuardedStream(sys.stdout)
    try:
        sys.exit(main())
    except BrokenPipeError:
        stream.write("\n")
        if not stream.gone:
            raise  # it was another pipe
        sys.exit(READER_GONE)
    finally:
        stream.close()

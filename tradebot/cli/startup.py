"""The entry point of the installed programs, and Ctrl-C during their imports.

Importing takes about a tenth of a second, during which nothing has started: an interrupt then ends the process
immediately and without a traceback. Therefore this module imports nothing of the program before it has arranged this.
bin/launch.py does the same for a checkout, before it can import anything.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def tradebot() -> int:
    """The console script `tradebot`."""
    end_quietly(_code_of(sys.argv[1:]))
    from tradebot.cli.main import main

    return main()


def end_quietly(exit_code: int) -> None:
    """Make SIGINT end the process with this code. Main thread; if SIGINT is ignored, it stays ignored."""

    def end(_number: int, _frame: FrameType | None) -> None:
        os._exit(exit_code)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)


def interrupts_raise() -> None:
    """Make SIGINT raise KeyboardInterrupt again, for a command that handles it. Main thread."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _code_of(arguments: list[str]) -> int:
    """0 for `run`, which counts an interrupt as served, 1 for a command that has not answered."""
    command = arguments[0] if arguments and not arguments[0].startswith("-") else "run"
    return 0 if command == "run" else 1

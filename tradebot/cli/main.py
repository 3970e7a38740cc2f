"""The entry point of the command line: finds the command, and reports every error.

Answers go to standard output, complaints to standard error. `main` never lets an exception out.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping

from tradebot.cli.answers import answer
from tradebot.cli.arguments import parse
from tradebot.cli.program import HELP, VERSION, Arguments
from tradebot.cli.registry import TRADEBOT
from tradebot.cli.startup import interrupts_raise
from tradebot.core.errors import ExitCode, TradebotError, UsageError
from tradebot.output.redaction import mask
from tradebot.output.streams import GuardedStream

_RUN = TRADEBOT.default


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. `argv`: the words after the program's name, None: those of the process.

    Blocks as long as the command takes; main thread only. Raises nothing: every error becomes a message on stderr.
    """
    command = _RUN
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        command = arguments.command
        code = _dispatch(arguments, os.environ)
    except UsageError as error:
        code = _complain(error, ExitCode.CONFIG)
    except TradebotError as error:
        # Commands other than run answer no: the file they were asked about is not usable.
        code = _complain(error, error.exit_code if command == _RUN else 1)
    except KeyboardInterrupt:
        # Before the engine catches signals itself. SIGINT is a served request of run; other commands did not answer.
        _say("interrupted")
        code = ExitCode.COMPLETE if command == _RUN else 1
    except Exception as error:
        _say(f"internal error, a bug: {type(error).__name__}: {mask(str(error))}; where it happened:")
        _say(mask(traceback.format_exc()))
        code = ExitCode.CRASH
    # The interpreter flushes once more at exit, and would report an error for a pipe without a reader.
    GuardedStream(sys.stdout).close()
    return int(code)


def _dispatch(arguments: Arguments, environ: Mapping[str, str]) -> int:
    if arguments.command == _RUN:
        return TRADEBOT.command(_RUN).function(arguments, environ)
    interrupts_raise()  # run has nothing to say before its engine serves signals itself
    if arguments.command == HELP:
        return answer(TRADEBOT.help_text(arguments.file))
    if arguments.command == VERSION:
        return answer(TRADEBOT.version_text())
    try:
        return TRADEBOT.command(arguments.command).function(arguments, environ)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        advice = "; run it as the service's user, or as root" if isinstance(error, PermissionError) else ""
        raise TradebotError(f"{where}{error.strerror or error}{advice}") from error


def _complain(error: TradebotError, code: int) -> int:
    _say("\n  ".join(str(error).splitlines()))
    return code


def _say(text: str) -> None:
    # If no message can be written, the exit code must suffice.
    GuardedStream(sys.stderr).write(f"tradebot: {text}\n")

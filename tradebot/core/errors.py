"""Exit codes of the engine and the errors that lead to them: the one list that code, tests and documentation read."""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """What `tradebot run` ends with. Other commands use only 0 (yes), 1 (no) and 12 (misused)."""

    COMPLETE = 0
    CRASH = 1
    NETWORK = 10
    PARSE = 11
    CONFIG = 12
    OVERLOAD = 13

    @property
    def meaning(self) -> str:
        """One line for people: when the engine ends with this code."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.COMPLETE: "replay finished, --seconds over, or stopped by SIGINT/SIGTERM/SIGHUP",
    ExitCode.CRASH: "a bug (uncaught exception in a thread, ledger that does not balance), or a second stop signal",
    ExitCode.NETWORK: "no completed handshake within the reconnect budget",
    ExitCode.PARSE: "too many malformed frames, input without a single tick, or a malformed line with --strict",
    ExitCode.CONFIG: "usage or configuration error, unusable input or database, or an unmet condition of the LIVE gate",
    ExitCode.OVERLOAD: "a push feed outpaced the pipeline, or the database stayed locked or full",
}

HINT: Final = "try tradebot run --help"
"""Ends the message of a UsageError where the help has more to say."""

PASSING_ERRNOS: Final = frozenset({
    errno.EIO,  # a failing disk, or one that is being replaced
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,  # Linux remounts a file system read-only when it finds an error in it
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOLCK,
    errno.EAGAIN,
    errno.EINTR,
    errno.EBUSY,
    errno.ESTALE,  # a network file system whose server comes back
    errno.ETIMEDOUT,
})  # fmt: skip
"""Errors of the operating system after which the same operation may succeed later. The only such list."""


class TradebotError(Exception):
    """An error whose text is written for the person at the terminal: what is wrong, where, what to do.

    `exit_code` is what the process ends with when nobody handles it; it is never shown with a traceback.
    """

    exit_code: ExitCode = ExitCode.CRASH


class ConfigError(TradebotError):
    """Usage, configuration, input path or database is unusable (exit 12)."""

    exit_code = ExitCode.CONFIG


class AdvisedError(ConfigError):
    """A ConfigError whose problem and advice stand apart, for reports that show them in different places."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem
        self.advice = advice


class UsageError(ConfigError):
    """The command line, or a variable of the environment, is wrong (exit 12 for every command)."""


class NetworkError(TradebotError):
    """No connection within the reconnect budget (exit 10)."""

    exit_code = ExitCode.NETWORK


class ParseError(TradebotError):
    """The input cannot be understood (exit 11)."""

    exit_code = ExitCode.PARSE


class OverloadError(TradebotError):
    """The pipeline or its storage could not keep up (exit 13)."""

    exit_code = ExitCode.OVERLOAD


class UnreadableNow(ConfigError):
    """A file cannot be read for a reason that can pass: 13 instead of 12, so that a service is started again."""

    exit_code = ExitCode.OVERLOAD


def unreadable(error: OSError | ValueError, text: str) -> ConfigError:
    """The error to raise when reading a configuration file or an input failed so. `text` says which, and why."""
    passing = isinstance(error, OSError) and error.errno in PASSING_ERRNOS
    return UnreadableNow(text) if passing else ConfigError(text)

"""The ways in which a history ends other than by the return of `main`."""

from __future__ import annotations


class SimKilled(BaseException):
    """The simulated process was killed: raised at every park point and by every later blocking call.

    A BaseException, so that the engine's `except Exception` does not catch it.
    """


class SimExit(SimKilled):
    """A thread called `exit_now`: like a kill, with a code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit_now({code})")
        self.code = code


class SimError(Exception):
    """The history cannot continue, or ended incorrectly. Where useful, the text contains the stacks of all threads."""


class Deadlock(SimError):
    """No thread can run and no timer is pending."""


class Livelock(SimError):
    """More steps than `max_steps`, or one thread polls endlessly without blocking."""


class TimeLimit(SimError):
    """Simulated time exceeded `until_s`."""


class ThreadsLeft(SimError):
    """`main` returned before other threads had ended."""


class ThreadCrashed(SimError):
    """A thread other than `main` ended with an uncaught exception (the first is the cause; see `thread_errors`)."""


class Stuck(SimError):
    """The thread with the baton made no step for `machine.STUCK_AFTER_S` real seconds: it blocks outside the seam."""

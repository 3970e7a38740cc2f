"""What all tests share: how their process starts, the checkout, optional shared data, and how hypothesis searches."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent

# Variables that change what tradebot does or how it words it; the tests' own stay.
INHERITED = re.compile(
    r"TRADEBOT_(?!PYTHON|SHARED|OTHER_PYTHONS|SIM_|KILLS).*|LANG|LANGUAGE|LC_.*|TZ|COLUMNS|NO_COLOR|FORCE_COLOR|CLICOLOR.*"
    r"|NOTIFY_SOCKET|WATCHDOG_.*|LISTEN_.*|STATE_DIRECTORY|XDG_(CONFIG_HOME|RUNTIME_DIR)|SSL_CERT_.*"
)


def start_afresh() -> None:
    """Undo what this process inherited and would pass on to its children: signals, umask, locale, time zone, settings.

    A script's background jobs ignore SIGINT and SIGQUIT, nohup ignores SIGHUP, cron has no locale. A signal that is
    ignored or blocked stays so in every child; one that is caught has its default action there.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        if signal.getsignal(number) is signal.SIG_IGN:
            # So the tests themselves survive a logout as before.
            signal.signal(number, lambda _number, _frame: None)
    os.umask(0o022)
    for name in [name for name in os.environ if INHERITED.fullmatch(name)]:
        del os.environ[name]
    # Far from UTC everywhere: what takes local time for UTC fails on every machine.
    os.environ["TZ"] = "<+1345>-13:45"
    time.tzset()


start_afresh()

# bin/tradebot prefers .venv; a test that starts it means the Python that runs the tests.
os.environ.setdefault("TRADEBOT_PYTHON", sys.executable)

# No deadline anywhere: a slow machine is no error. In CI the examples are the same each time, so that a red build is
# red for its change; at home they vary, so that new ones are found: forty a run are many after a week of runs.
# HYPOTHESIS_PROFILE=deep searches long, for what was changed; tests that set a number of their own keep it.
settings.register_profile("home", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.access(REPO, os.W_OK):  # failing examples cannot be kept in a checkout that is read-only
    settings.register_profile("home", settings.get_profile("home"), database=None)
settings.register_profile("ci", settings.get_profile("home"), derandomize=True, print_blob=True)
settings.register_profile("deep", settings.get_profile("home"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "home"))


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional directory of shared data: $TRADEBOT_SHARED, else `shared` beside the checkout. Skips without it."""
    place = Path(os.environ.get("TRADEBOT_SHARED", REPO.parent / "shared"))
    if not (place / "data").is_dir():
        pytest.skip(f"no shared data at {place} (set TRADEBOT_SHARED to where it is)")
    return place

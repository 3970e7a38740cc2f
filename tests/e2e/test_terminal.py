"""Output for people: the summary and, on a terminal, a progress bar and coloured text."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import termios
from collections.abc import Mapping

import pytest

from tests.e2e.process import CROSSOVER, SESSION, SESSION_CONFIG, Engine, rows

COLOUR = re.compile(r"\x1b\[\d+(;\d+)*m")


def on_a_terminal(engine: Engine, *args: str, env: Mapping[str, str] | None = None, code: int = 0) -> str:
    """Run with a pseudo-terminal as all three streams; returns its output. The exit code must be `code`."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 120))
    try:
        running = engine.start(*args, stdin=slave, stdout=slave, stderr=slave, env={"TERM": "xterm", **(env or {})})
    finally:
        os.close(slave)
    shown = b""
    try:
        while True:
            try:
                block = os.read(master, 65536)
            except OSError as error:  # Linux returns this error when the last process has closed the other side
                assert error.errno == errno.EIO
                break
            if not block:
                break
            shown += block
    finally:
        os.close(master)
    running.finish().expect(code)
    return shown.decode()


def test_a_terminal_shows_a_bar_coloured_text_and_the_summary(engine: Engine) -> None:
    """Coloured text and a progress bar on a terminal."""
    args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db")
    shown = on_a_terminal(engine, *args)
    assert "100%|" in shown
    assert "ticks/s" in shown
    assert COLOUR.search(shown)
    assert "tradebot starting" in shown
    assert '{"timestamp"' not in shown
    assert "SHADOW run: all fills are simulated" in shown
    assert "13,932" in shown
    assert "Traceback" not in shown


def test_no_color_is_respected_and_json_may_be_asked_for(engine: Engine) -> None:
    """For people, and for programs that read the log."""
    args = ("--ingest=replay", f"--replay-file={CROSSOVER}")
    plain = on_a_terminal(engine, *args, "--db=x.db", env={"NO_COLOR": "1"})
    assert "tradebot starting" in plain
    assert not COLOUR.search(plain)
    assert '{"timestamp"' in on_a_terminal(engine, *args, "--db=y.db", "--log-format=json")


def test_a_push_feed_has_no_bar(engine: Engine) -> None:
    """A feed without an end has no progress to show."""
    assert "%|" not in on_a_terminal(engine, "--seconds=0.2", "--db=x.db")


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_pipe_gets_no_bar_and_no_colour(engine: Engine, form: str) -> None:
    """Logs on standard error, the answer on standard output, and nothing else on either."""
    args = (f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db", f"--log-format={form}")
    done = engine.run(*args).expect(0)
    for text in (done.stdout, done.stderr):
        assert "\x1b" not in text
        assert "\r" not in text
        assert "%|" not in text
    assert done.stdout.startswith("SHADOW run: all fills are simulated")
    if form == "json":
        assert done.complaint == ""
        assert all(json.loads(line)["fields"]["message"] for line in done.stderr.splitlines())


def test_the_summary_says_what_the_database_holds(engine: Engine) -> None:
    """Ticks, signals, orders, refusals by reason, fills, fees, profit, the path, and hints."""
    args = ("--ingest=replay", f"--replay-file={SESSION}", "--db=x.db")
    # With the default order size of 0.1 every order exceeds the cap of 5000 per symbol.
    refused = engine.run(*args).expect(0).stdout
    assert re.search(r"refused RISK_CAP +384\n", refused)
    assert re.search(r"orders REJECTED +384\n", refused)
    assert "nothing was filled" in refused
    stored = rows(engine.path("x.db"), "SELECT status, reason, COUNT(*) FROM orders GROUP BY 1, 2")
    assert stored == [("REJECTED", "RISK_CAP", 384)]

    engine.path("x.db").unlink()
    summary = engine.run(f"--config={SESSION_CONFIG}", *args[1:]).expect(0).stdout
    for label, number in (("ticks read", "13,932"), ("malformed", "0"), ("kept", "13,932"), ("stored", "13,932")):
        assert re.search(rf"  {label} +{number}\n", summary), label
    for label, number in (("signals", "384"), ("orders FILLED", "384"), (r"fills \(simulated\)", "384")):
        assert re.search(rf"  {label} +{number}\n", summary), label
    fees = rows(engine.path("x.db"), "SELECT SUM(fees) FROM trades")[0][0]
    assert re.search(rf"  fees +{fees:.4f} \(unit unknown\)\n", summary)
    assert re.search(r"time +[\d.]+ s, [\d,]+ ticks/s\n", summary)
    assert "ledger balances" in summary
    assert re.search(r" realized +unrealized +unit\n", summary)
    assert "BTCUSDT" in summary
    assert "sqlite3 -header -column x.db" in summary
    assert max(map(len, summary.splitlines())) <= 110

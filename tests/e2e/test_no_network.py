"""The engine opens no socket in shadow mode."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.audited_engine import SOCKET_USED
from tests.e2e.process import REPO, SESSION, SESSION_CONFIG, Engine, Finished, counts

SCRIPT = REPO / "tests" / "e2e" / "audited_engine.py"


def run(engine: Engine, *args: str) -> Finished:
    return engine.run(*args, command=(sys.executable, SCRIPT))


def test_the_hook_notices_a_socket(engine: Engine) -> None:
    done = run(engine, "--open-a-socket")
    assert done.code == SOCKET_USED
    assert "audit: socket.__new__" in done.stderr


def test_a_replay_with_orders_opens_no_socket(engine: Engine) -> None:
    """I1: ingest, strategy, execution and writer, with hundreds of orders."""
    run(engine, f"--config={SESSION_CONFIG}", f"--replay-file={SESSION}", "--db=x.db").expect(0)
    assert counts(engine.path("x.db"))["trades"] > 100


@pytest.mark.parametrize("strategy", ["periodic", "sma_crossover"])
def test_a_push_feed_opens_no_socket(engine: Engine, strategy: str) -> None:
    """I1: the same on synthetic ticks."""
    config = engine.config("fast.toml", "[engine]\ntick_interval_ms = 2\n")
    run(engine, config, f"--strategy={strategy}", "--seconds=0.5", "--db=x.db").expect(0)
    assert counts(engine.path("x.db"))["ticks"] > 50
    assert counts(engine.path("x.db"))["orders"] > 0 or strategy == "sma_crossover"

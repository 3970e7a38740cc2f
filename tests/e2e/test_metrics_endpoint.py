"""The metrics endpoint of a real engine with misbehaving clients: it answers others, and the run continues."""

from __future__ import annotations

import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest

from tests.e2e.process import Engine, assert_sound, ticks_stored, wait_for_ticks
from tests.e2e.test_ops_commands import KEYS, free_port

IDLE = 1000


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit of this process to IDLE open sockets; the engine keeps the ordinary limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this process may not open {needed} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def scrape(port: int, host: str = "localhost") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.usefixtures("many_files")
def test_it_answers_while_a_thousand_wait_and_one_drips(engine: Engine) -> None:
    pytest.importorskip(
        "prometheus_client", reason="prometheus-client is not installed (pip install 'tradebot[metrics]')"
    )
    port = free_port()
    running = engine.start(engine.config("c.toml", f"{KEYS}[metrics]\nport = {port}\n"))
    db = engine.path("a.db")
    wait_for_ticks(db, 5)
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        dripping = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        began = time.monotonic()
        for byte in b"GET /":
            dripping.sendall(bytes([byte]))
            code, text = scrape(port)
            assert code == 200 and "\ntradebot_events_stored_total " in text
        assert time.monotonic() - began < 5.0, "five scrapes, each while the connections wait"
        assert scrape(port, "rebound.example")[0] == 403
        wait_for_ticks(db, ticks_stored(db) + 20)
    running.send(signal.SIGTERM)
    done = running.finish().expect(0)
    assert done.ledger["stored"] == done.ledger["accepted"] == done.ledger["received"]
    assert_sound(db)

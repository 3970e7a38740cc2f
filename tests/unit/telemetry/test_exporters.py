"""Metrics and webhook as a run uses them: off by default, and nothing of them outlives or holds up the run."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any

import pytest
from msgspec.structs import replace

from sim import SimRuntime
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.config.model import Config, MetricsConfig, NotifyConfig
from tradebot.core.errors import ConfigError, ExitCode
from tradebot.core.runtime import RealRuntime, Thread
from tradebot.output.log import setup_logging
from tradebot.telemetry.exporters import Exporters

TOLD = Config(notify=NotifyConfig("https://h/x", link_lost_s=5.0, refusals_per_minute=10))


class Posted:
    """A `Post` that keeps what was sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        self.bodies.append(json.loads(body))
        return 200

    @property
    def events(self) -> list[str]:
        return [body["event"] for body in self.bodies]


def told(*steps: Any, config: Config = TOLD) -> Posted:
    """What was posted after these statuses (or failures: a code and a cause), in simulation."""
    runtime, posted = SimRuntime(1), Posted()

    def main() -> None:
        log = setup_logging("INFO", "json", runtime, StringIO())
        outlets = Exporters(config, "r1", runtime, log, posted)
        for step in steps:
            if isinstance(step, tuple):
                outlets.failed(*step)
            else:
                outlets.look(step)
        outlets.close()
        outlets.close()

    runtime.run(main, until_s=100.0)
    return posted


ENDED = status_of(state="ended", exit_code=0)


def test_a_run_from_start_to_end() -> None:
    posted = told(status_of(), status_of(), status_of(link="down", link_down_s=5.5), status_of(), ENDED)
    assert posted.events == ["start", "link_lost", "stop", "exit_code"]
    assert {body["run_id"] for body in posted.bodies} == {"r1"}


def test_a_run_that_could_not_begin() -> None:
    posted = told((ExitCode.OVERLOAD, "database x: locked"))
    assert posted.events == ["exit_code"]
    assert posted.bodies[0]["text"].endswith("; database x: locked")
    assert posted.bodies[0]["fields"] == {"exit_code": 13}


def test_an_end_is_told_once() -> None:
    assert told(status_of(), ENDED, (ExitCode.CRASH, "x")).events == ["start", "stop", "exit_code"]
    assert told(status_of(), (ExitCode.CRASH, "x"), (ExitCode.CRASH, "y")).events == ["start", "exit_code"]


class NoThreads(RealRuntime):
    def spawn(self, name: str, target: Callable[[], None]) -> Thread:
        raise AssertionError(f"thread {name} was started")


def test_nothing_at_all_by_default() -> None:
    runtime = NoThreads()
    outlets = Exporters(Config(), "r1", runtime, setup_logging("INFO", "json", runtime, StringIO()))
    outlets.look(status_of())
    outlets.failed(ExitCode.CRASH, "x")
    outlets.close()


def test_a_port_in_use_ends_the_run_before_it_begins() -> None:
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = replace(TOLD, metrics=MetricsConfig(port=taken.getsockname()[1]))
        runtime, posted = RealRuntime(), Posted()
        with pytest.raises(ConfigError, match=r"choose another metrics\.port"):
            Exporters(config, "r1", runtime, setup_logging("INFO", "json", runtime, StringIO()), posted)
        outlets = Exporters.of_refused(config, runtime, setup_logging("INFO", "json", runtime, StringIO()), posted)
        outlets.failed(ExitCode.CONFIG, "the port")
        outlets.close()
    assert [body["fields"] for body in posted.bodies] == [{"exit_code": 12}]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "tradebot.telemetry.prometheus", raising=False)
    runtime = RealRuntime()
    config = replace(TOLD, metrics=MetricsConfig(port=1))
    with pytest.raises(ConfigError, match=r"package prometheus_client is missing: pip install 'tradebot\[metrics\]'"):
        Exporters(config, "r1", runtime, setup_logging("INFO", "json", runtime, StringIO()))

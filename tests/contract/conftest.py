"""The two runtimes that every contract test runs on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from sim import SimRuntime
from tests.contract.driving import Body, Drive, Stage
from tradebot.core.runtime import RealRuntime

SEEDS = range(12)


def drive_real(body: Body) -> None:
    body(Stage(RealRuntime(), short_s=0.02, send_signal=lambda: os.kill(os.getpid(), signal.SIGTERM)))


def drive_simulated(body: Body) -> None:
    for seed in SEEDS:
        runtime = SimRuntime(seed)
        stage = Stage(runtime, short_s=0.123456789, send_signal=runtime.send_signal)
        try:
            runtime.run(lambda stage=stage: body(stage))  # type: ignore[misc]  # mypy does not infer a lambda's default
        except BaseException as error:
            error.add_note(f"SimRuntime({seed})\n{runtime.trace.tail(30)}")
            raise


@pytest.fixture(params=[drive_real, drive_simulated], ids=["real", "sim"])
def drive(request: pytest.FixtureRequest) -> Iterator[Drive]:
    """Runs a body on one of the runtimes; the process's signal handlers are as before afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield request.param
    for number, handler in handlers.items():
        signal.signal(number, handler)

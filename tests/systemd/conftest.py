"""One real systemd for all tests here, and the units as `tradebot install-unit` writes them for the Python in use."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from tests.systemd.namespace import Systemd, why_not
from tradebot.config.model import Config
from tradebot.ops.units import ENGINE, UNITS, InstallRequest, filled, run_install_unit, this_installation


@pytest.fixture(scope="session")
def printed() -> dict[str, str]:
    """The units by name; the engine's as `--print` gives it."""
    out, errors = io.StringIO(), io.StringIO()
    assert run_install_unit(InstallRequest(Config(), None, user=False, print_only=True), {}, out, errors) == 0
    if errors.getvalue():
        pytest.skip(f"a service could not run this installation: {errors.getvalue()}")
    installation = this_installation(None, Config())
    return {name: filled(name, installation, user=False) for name in UNITS} | {ENGINE: out.getvalue()}


@pytest.fixture(scope="session")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    """A running service manager; skips where none can run."""
    reason = why_not()
    if reason is not None:
        pytest.skip(f"no systemd of our own: {reason}")
    with Systemd(tmp_path_factory.mktemp("systemd")) as running:
        yield running

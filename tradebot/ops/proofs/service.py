"""An engine that an experiment starts and restarts: a unit of the service manager, or without one a child process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tradebot.ops.proofs.base import Means
from tradebot.ops.proofs.lab import ChildProcess, Lab
from tradebot.ops.proofs.manager import RESTART_S, Manager


class ProvedService(Protocol):
    """Both calls block. They raise ManagerError, NotInTime or ProofStopped."""

    how: str

    def restart(self) -> None:
        """Start it; when it runs, stop it before."""
        ...

    def stop(self) -> None:
        """Stop it, and wait for its end."""
        ...


class UnitService:
    """A unit, started immediately."""

    def __init__(self, lab: Lab, manager: Manager, name: str, words: Sequence[str]) -> None:
        self._manager = manager
        self.unit = manager.write_engine(lab, name, words)
        self.how = f"a unit of systemd {manager.version}"
        manager.reload()

    def restart(self) -> None:
        """See ProvedService."""
        self._manager.call("restart", self.unit, within_s=RESTART_S)

    def stop(self) -> None:
        """See ProvedService."""
        self._manager.call("stop", self.unit, within_s=RESTART_S)


class ChildService:
    """A child process."""

    def __init__(self, lab: Lab, name: str, words: Sequence[str]) -> None:
        self._lab = lab
        self._name = name
        self._words = words
        self._process: ChildProcess | None = None
        self.how = "a child process of the prover"

    def restart(self) -> None:
        """See ProvedService."""
        self.stop()
        self._process = self._lab.start(self._name, self._words)

    def stop(self) -> None:
        """See ProvedService."""
        if self._process is not None:
            self._lab.stop(self._process)


def service_of(lab: Lab, means: Means, name: str, words: Sequence[str]) -> ProvedService:
    """Whichever there is here. Raises ManagerError."""
    if means.manager is not None:
        return UnitService(lab, means.manager, name, words)
    return ChildService(lab, name, words)

"""What a proof is: a claim, how long its experiment may take, and the experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from tradebot.ops.proofs.bundle import Verdict
from tradebot.ops.proofs.lab import Evidence, Lab
from tradebot.ops.proofs.manager import Manager


class ProofOutcome(NamedTuple):
    """What an experiment came to."""

    verdict: Verdict
    reason: str
    evidence: Evidence


class Means(Struct, frozen=True):
    """What the prover was given. `manager` is None without a service manager, and `no_manager` says why."""

    psi_root: Path
    manager: Manager | None
    no_manager: str


class Experiment(NamedTuple):
    """One proof as `prove --list` shows it. `run` may raise NotInTime (it failed) and ProofStopped."""

    name: str
    claim: str
    at_most_s: int
    needs_systemd: bool
    run: Callable[[Lab, Means], ProofOutcome]


def passed(reason: str, evidence: Evidence) -> ProofOutcome:
    """The claim was seen to be true."""
    return ProofOutcome(Verdict.PASSED, reason, evidence)


def failed(reason: str, evidence: Evidence) -> ProofOutcome:
    """The claim was seen to be wrong."""
    return ProofOutcome(Verdict.FAILED, reason, evidence)


def inconclusive(reason: str, evidence: Evidence) -> ProofOutcome:
    """What the experiment needs is not here."""
    return ProofOutcome(Verdict.INCONCLUSIVE, reason, evidence)


def judged(faults: Sequence[str], reason: str, evidence: Evidence) -> ProofOutcome:
    """Failed with all `faults`; without faults, passed for `reason`."""
    return failed("; ".join(faults), evidence) if faults else passed(reason, evidence)

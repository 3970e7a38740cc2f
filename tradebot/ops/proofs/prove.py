"""`tradebot prove`: runs the experiments one after the other, prints the table of verdicts and writes the bundle."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tradebot.config.model import Config, config_hash
from tradebot.config.validation import show
from tradebot.core.errors import TradebotError, UsageError
from tradebot.core.runtime import Runtime
from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, failed, inconclusive
from tradebot.ops.proofs.bundle import (
    ABOUT,
    NAMES,
    Bundle,
    Proof,
    Verdict,
    bundle_path,
    code_version,
    iso,
    seal,
    write_bundle,
)
from tradebot.ops.proofs.deterministic_replay import EXPERIMENT as DETERMINISTIC_REPLAY
from tradebot.ops.proofs.exit_codes import EXPERIMENT as EXIT_CODES
from tradebot.ops.proofs.lab import Lab, NotInTime, ProofStopped, rounded
from tradebot.ops.proofs.manager import Manager, ManagerError, find_manager
from tradebot.ops.proofs.psi_integrity import EXPERIMENT as PSI_INTEGRITY
from tradebot.ops.proofs.reading_while_writing import EXPERIMENT as READING_WHILE_WRITING
from tradebot.ops.proofs.stall_detection import EXPERIMENT as STALL_DETECTION
from tradebot.ops.proofs.throttling import EXPERIMENT as THROTTLING
from tradebot.ops.soak.psi import DEFAULT_ROOT
from tradebot.output.json_answer import json_answer
from tradebot.output.redaction import clip, escape
from tradebot.output.streams import GuardedStream
from tradebot.store.database import beside

EXPERIMENTS: Final[tuple[Experiment, ...]] = (
    PSI_INTEGRITY,
    STALL_DETECTION,
    EXIT_CODES,
    READING_WHILE_WRITING,
    THROTTLING,
    DETERMINISTIC_REPLAY,
)
"""In the order in which they are made."""

NICE: Final = 10

_WIPE: Final = "\r\x1b[K"
_REASON_CHARS_MAX: Final = 500


def list_proofs(answers: GuardedStream, as_json: bool = False) -> int:
    """What `prove --list` says; 0."""
    if as_json:
        proofs = [
            {"name": each.name, "claim": each.claim, "at_most_s": each.at_most_s, "needs_systemd": each.needs_systemd}
            for each in EXPERIMENTS
        ]
        answers.write(json_answer({"format": 1, "proofs": proofs}))
        return 0
    for experiment in EXPERIMENTS:
        needs = "; needs systemd" if experiment.needs_systemd else ""
        answers.write(f"{experiment.name:<22} {experiment.claim} (at most {experiment.at_most_s} s{needs})\n")
    return 0


def choose(names: str) -> tuple[Experiment, ...]:
    """The experiments that --only names, with commas between. Raises UsageError."""
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        raise UsageError(f"--only: no proof is called {show(unknown[0])}; there are {', '.join(NAMES)}")
    return tuple(experiment for experiment in EXPERIMENTS if experiment.name in wanted)


def run_prove(
    config: Config,
    db_path: Path,
    only: str | None,
    systemctl: str | None,
    psi_root: Path | None,
    environ: Mapping[str, str],
    runtime: Runtime,
    answers: GuardedStream,
    errors: GuardedStream,
    as_json: bool = False,
) -> int:
    """Make the experiments; 0 when all of them passed, else 1. Main thread; blocks for minutes.

    `config` and `db_path`: of the run that is to be let through the gate; the database itself is never opened.
    With `only` no bundle is written. Raises UsageError, TradebotError (all proofs are asked for, and no service manager
    answers; state directory or bundle cannot be written).
    """
    chosen = EXPERIMENTS if only is None else choose(only)
    began_ms, began_s = runtime.now_ms(), runtime.monotonic()
    runtime.catch_stop_signals()
    # No more eager than the engine's unit (Nice=10): one that works beside this must not be pushed aside.
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), NICE))
    try:
        with _folder(db_path, errors) as folder, _means(systemctl, psi_root, environ, runtime) as means:
            if only is None:
                _require_manager(means)
            prover = _Prover(config, folder, means, runtime, errors)
            proofs = [prover.prove(number, chosen) for number in range(len(chosen))]
    except ProofStopped:
        wipe = _WIPE if errors.isatty() else ""
        errors.write(f"{wipe}tradebot: interrupted: the experiments were ended and removed, no bundle was written\n")
        return 1
    took_s = runtime.monotonic() - began_s
    all_passed = all(proof.verdict == Verdict.PASSED for proof in proofs)
    if not as_json:
        answers.write(table(proofs, took_s))
    path, bundle = bundle_path(db_path), None
    if only is None:
        bundle = Bundle(
            version=code_version(),
            config_hash=config_hash(config),
            made_ms=began_ms,
            made_at=iso(began_ms),
            took_s=rounded(took_s),
            machine=_machine(means),
            proofs=tuple(proofs),
        )
        write_bundle(path, seal(bundle))
    if as_json:
        answers.write(_as_json(proofs, took_s, all_passed, path, bundle))
    else:
        answers.write(_closing(path, bundle, all_passed))
    return 0 if all_passed else 1


def _as_json(proofs: Sequence[Proof], took_s: float, passed: bool, path: Path, bundle: Bundle | None) -> str:
    """The verdicts for scripts; the bundle's path and hash are null where none was written."""
    return json_answer(
        {
            "format": 1,
            "passed": passed,
            "took_s": rounded(took_s),
            "bundle": None if bundle is None else str(path),
            "config_hash": None if bundle is None else bundle.config_hash,
            "proofs": proofs,
        }
    )


def _closing(path: Path, bundle: Bundle | None, all_passed: bool) -> str:
    if bundle is None:
        return "No bundle was written: --only skips proofs, and the LIVE gate requires all of them.\n"
    meaning = "valid for 7 days, for this code and this configuration" if all_passed else "the LIVE gate stays closed"
    return f"{escape(str(path))}: configuration {bundle.config_hash}, {meaning}\n{ABOUT}\n"


@contextmanager
def _folder(db_path: Path, errors: GuardedStream) -> Iterator[Path]:
    """A directory for the experiments beside the state, so on the same disk. Raises TradebotError."""
    state = beside(db_path, "").parent
    try:
        state.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="tradebot-proof-", dir=state))
    except OSError as error:
        raise TradebotError(f"{state}: cannot create a directory in it: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            errors.write(f"tradebot: {escape(str(folder))} could not be removed; remove it by hand\n")


def _require_manager(means: Means) -> None:
    """Experiments that cannot pass are not started: without a manager the bundle would keep the gate shut. Raises
    TradebotError.
    """
    need = [experiment.name for experiment in EXPERIMENTS if experiment.needs_systemd]
    if means.manager is None and need:
        others = ",".join(experiment.name for experiment in EXPERIMENTS if not experiment.needs_systemd)
        raise TradebotError(
            f"no service manager answers: {means.no_manager}; the LIVE gate requires all proofs, and {', '.join(need)}"
            " needs one: run prove where systemd runs, as root, or with --systemctl='systemctl --user' for your own"
            f" manager. To run only the others: --only={others}"
        )


@contextmanager
def _means(
    systemctl: str | None, psi_root: Path | None, environ: Mapping[str, str], runtime: Runtime
) -> Iterator[Means]:
    manager: Manager | None = None
    why = ""
    try:
        manager = find_manager(systemctl, environ, runtime.token())
    except ManagerError as error:
        why = str(error)
    try:
        yield Means(DEFAULT_ROOT if psi_root is None else psi_root, manager, why)
    finally:
        if manager is not None:
            manager.close()


class _Prover:
    def __init__(self, config: Config, folder: Path, means: Means, runtime: Runtime, errors: GuardedStream) -> None:
        self._config = config
        self._folder = folder
        self._means = means
        self._runtime = runtime
        self._errors = errors
        self._terminal = errors.isatty()

    def prove(self, number: int, chosen: Sequence[Experiment]) -> Proof:
        experiment = chosen[number]
        if self._terminal:
            count = f"[{number + 1}/{len(chosen)}]"
            self._errors.write(f"{_WIPE}{count} {experiment.name}: at most {experiment.at_most_s} s (Ctrl-C ends it)")
        folder = self._folder / experiment.name
        folder.mkdir()
        began_s = self._runtime.monotonic()
        lab = Lab(folder, self._config, self._runtime, experiment.at_most_s)
        try:
            outcome = self._outcome(experiment, lab)
        finally:
            lab.close()
            if self._means.manager is not None:
                self._means.manager.close()
        took_s = rounded(self._runtime.monotonic() - began_s)
        if self._terminal:
            self._errors.write(f"{_WIPE}{experiment.name}: {outcome.verdict} after {took_s:.0f} s\n")
        if outcome.verdict == Verdict.FAILED:  # --only keeps it nowhere else
            evidence = json.dumps(outcome.evidence, indent=1, default=str)
            self._errors.write(f"tradebot: evidence of {experiment.name}: {evidence}\n")
        reason = clip(escape(outcome.reason), _REASON_CHARS_MAX)
        return Proof(experiment.name, experiment.claim, outcome.verdict, reason, took_s, outcome.evidence)

    def _outcome(self, experiment: Experiment, lab: Lab) -> ProofOutcome:
        means = self._means
        if experiment.needs_systemd and means.manager is None:
            return inconclusive(f"needs a service manager: {means.no_manager}", {"no_manager": means.no_manager})
        lab.check_stop()
        try:
            return experiment.run(lab, means)
        except (NotInTime, TradebotError, OSError) as error:
            lab.check_stop()
            return failed(str(error), {"commands": lab.shown_commands(), "log": _logs(lab)})
        except ManagerError as error:
            lab.check_stop()
            return inconclusive(f"the service manager: {error}", {"commands": lab.shown_commands()})


def _logs(lab: Lab) -> dict[str, list[str]]:
    """The last lines of every process of an experiment."""
    return {path.name: lab.tail(path.read_text(errors="replace")) for path in sorted(lab.folder.glob("*.log"))}


def _machine(means: Means) -> dict[str, str]:
    system = platform.uname()
    return {
        "system": f"{system.system} {system.release} {system.machine}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "service_manager": "none" if means.manager is None else f"systemd {means.manager.version}",
    }


def table(proofs: Sequence[Proof], took_s: float) -> str:
    """The verdicts for people."""
    lines = [f"{proof.verdict:<12} {proof.name:<22} {proof.took_s:5.0f} s  {proof.reason}\n" for proof in proofs]
    passed = sum(proof.verdict == Verdict.PASSED for proof in proofs)
    return "".join(lines) + f"{passed} of {len(proofs)} passed in {took_s:.0f} s.\n"

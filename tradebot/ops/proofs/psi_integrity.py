"""Proof: the kernel's pressure files are parsed correctly, recorded verbatim, and labelled as stall time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, failed, inconclusive, judged
from tradebot.ops.proofs.lab import Evidence, Lab
from tradebot.ops.soak.decision_log import SoakDecision
from tradebot.ops.soak.psi import DEFAULT_ROOT as KERNEL_ROOT
from tradebot.ops.soak.psi import RESOURCES, Pressure, read_psi

ENGINE_S: Final = 1.5
END_S: Final = 25.0
LOOKS: Final = 3
_BYTES_MAX: Final = 4096
_LINE: Final = re.compile(
    r"(some|full) avg10=([0-9]+\.[0-9]{2}) avg60=([0-9]+\.[0-9]{2}) avg300=([0-9]+\.[0-9]{2}) total=([0-9]+)"
)
# Names under which stall time must never appear.
_MISNAMED: Final = re.compile(r"usage|utili[sz]ation|percent|pct|load", re.IGNORECASE)


def run(lab: Lab, means: Means) -> ProofOutcome:
    """See the module."""
    root = means.psi_root
    evidence: Evidence = {"root": str(root), "lines": [], "looks": []}
    missing = [str(root / name) for name in RESOURCES if not (root / name).exists()]
    if missing:
        return inconclusive(f"this kernel has no pressure files ({', '.join(missing)}): boot it with psi=1", evidence)
    engine = lab.start(
        "engine", ["run", f"--db={lab.path('engine.db')}", f"--seconds={ENGINE_S}", lab.config("engine.toml")]
    )
    faults: list[str] = []
    totals: dict[str, list[int]] = {}
    for _ in range(LOOKS):
        faults += _look(root, evidence, totals)
        lab.pause(ENGINE_S / LOOKS)
    ended = lab.wait(engine.ended, "the end of the engine", END_S)
    evidence |= {"stall_us_total": totals, "commands": lab.shown_commands()}
    if ended.code:
        return failed(
            f"the engine that ran in the meantime exited with {ended.code}", evidence | {"log": lab.tail(ended.log)}
        )
    faults += [f"the total of {name} decreased" for name, seen in totals.items() if seen != sorted(seen)]
    if not faults and root.resolve() != KERNEL_ROOT:
        # What lies elsewhere anybody may have written, and a bundle with this proof passed counts for the LIVE gate.
        return inconclusive(f"{root} is not the kernel's {KERNEL_ROOT}: run without --psi-root", evidence)
    summary = f"{len(evidence['lines'])} lines of the kernel read and recorded unchanged"
    return judged(list(dict.fromkeys(faults)), summary, evidence)


def _look(root: Path, evidence: Evidence, totals: dict[str, list[int]]) -> list[str]:
    """Read the files through the supervisor's reader, and by the kernel's format on the way."""
    faults = []
    before = {name: _read(root / name) for name in RESOURCES}
    found = read_psi(root)
    after = {name: _read(root / name) for name in RESOURCES}
    faults += list(found.problems)
    fields = found.pressure.as_fields()
    evidence["looks"].append(fields)
    for resource in RESOURCES:
        for kind in ("some", "full"):
            raw, avg10 = fields[f"{resource}_{kind}_raw"], fields[f"{resource}_{kind}_avg10"]
            if raw is None:
                if kind == "some" or any(line.startswith("full ") for line in before[resource]):
                    faults.append(f"{resource}: its line {kind!r} was not recorded")
                continue
            evidence["lines"].append(f"{resource}: {raw}")
            faults += _line_faults(resource, str(raw), avg10, totals)
            # The kernel recomputes them every 2 s: between two readings that agree, ours must be one of them.
            if before[resource] == after[resource] and raw not in before[resource]:
                faults.append(f"{resource}: the recorded line differs from the kernel's: {raw!r}")
    decision = json.loads(_decision(found.pressure).as_line())
    if fields.items() - decision.items():
        faults.append("a decision of the supervisor does not record the fields unchanged")
    faults += [f"a decision labels stall time as {name}" for name in decision if _MISNAMED.search(name)]
    return faults


def _decision(pressure: Pressure) -> SoakDecision:
    """As the supervisor would record this look."""
    return SoakDecision(
        timestamp="",
        ts_ms=0,
        state="NORMAL",
        action="NONE",
        reason="",
        pressure=pressure,
        seconds_since_progress=0.0,
        seconds_since_tick=0.0,
        sample_every=1,
        restarts=0,
        stalls=0,
        engine_starts=0,
        unit_state=None,
        detail=None,
    )


def _line_faults(resource: str, raw: str, avg10: object, totals: dict[str, list[int]]) -> list[str]:
    match = _LINE.fullmatch(raw)
    if match is None:
        return [f"{resource}: not the kernel's format: {raw!r}"]
    totals.setdefault(f"{resource} {match[1]}", []).append(int(match[5]))
    if avg10 != float(match[2]) or not 0 <= float(match[2]) <= 100:
        return [f"{resource}: avg10 read as {avg10} from {raw!r}"]
    return []


def _read(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.read(_BYTES_MAX).decode("utf-8", "backslashreplace").splitlines()


EXPERIMENT: Final = Experiment(
    "psi_integrity",
    "the kernel's pressure files are parsed correctly, recorded verbatim, and labelled as stall time",
    30,
    False,
    run,
)

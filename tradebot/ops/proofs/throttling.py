"""Proof: the throttle file lowers the rate at which ticks are stored, to what it says and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from tradebot.core.errors import TradebotError
from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, inconclusive, judged
from tradebot.ops.proofs.lab import Evidence, Lab, rounded
from tradebot.ops.proofs.service import ProvedService, service_of
from tradebot.ops.soak.last_tick import newest_tick
from tradebot.telemetry.status_file import Status
from tradebot.telemetry.throttle_file import Throttle, throttle_path, write_throttle

INTERVAL_MS: Final = 4
TICKS_PER_S_MIN: Final = 100
PHASES: Final = (("BASELINE", 1), ("THROTTLE1", 5), ("THROTTLE2", 10), ("RESTORED", 1))
MEASURE_S: Final = 6.0
START_S: Final = 40.0
TOLERANCE: Final = 0.1
ENGINE_S: Final = 300


class Rate(NamedTuple):
    """Ticks stored a second in one phase."""

    phase: str
    sample_every: int
    ticks_per_s: float


def run(lab: Lab, means: Means) -> ProofOutcome:
    """See the module."""
    db = lab.path("engine.db")
    words = [
        "run",
        f"--db={db}",
        f"--seconds={ENGINE_S}",
        lab.config("engine.toml", engine__tick_interval_ms=INTERVAL_MS),
    ]
    service = service_of(lab, means, "engine", words)
    evidence: Evidence = {"feed_interval_ms": INTERVAL_MS, "seconds_each": MEASURE_S, "engine": service.how}
    measured: list[Rate] = []
    evidence["phases"] = phases = []
    for phase, sample_every in PHASES:
        rate, status = _measure(lab, service, db, phase, sample_every)
        measured.append(rate)
        phases.append(
            {
                "phase": phase,
                "sample_every": sample_every,
                "ticks_per_s": rounded(rate.ticks_per_s),
                "of_baseline": rounded(rate.ticks_per_s / measured[0].ticks_per_s, 4) if measured[0].ticks_per_s else 0,
                "wanted": rounded(1 / sample_every, 4),
                "sample_every_in_status": status.sample_every,
                "ingest_received": status.counters["ingest_received"],
                "ingest_processed": status.counters["ingest_processed"],
            }
        )
    service.stop()
    evidence["commands"] = lab.shown_commands()
    return judge(measured, evidence)


def _measure(lab: Lab, service: ProvedService, db: Path, phase: str, sample_every: int) -> tuple[Rate, Status]:
    """Have the engine restarted with the throttle, and count what it stores, by the prover's own clock."""
    runtime = lab.runtime
    asked_ms = runtime.now_ms()
    write_throttle(throttle_path(db), Throttle(sample_every, phase, asked_ms))
    before_id = _newest_id(db)
    service.restart()

    def in_effect() -> Status | None:
        status = lab.status(db)
        new = status is not None and status.started_ms >= asked_ms and _newest_id(db) > before_id
        return status if new else None

    lab.wait(in_effect, f"ticks with one of {sample_every} kept", START_S)
    first_id, began_s = _newest_id(db), runtime.monotonic()
    lab.pause(MEASURE_S)
    last_id, took_s = _newest_id(db), runtime.monotonic() - began_s
    status = lab.status(db)
    assert status is not None
    return Rate(phase, sample_every, (last_id - first_id) / took_s), status


def _newest_id(db: Path) -> int:
    try:
        return newest_tick(db).id or 0
    except TradebotError:  # while it is being made
        return 0


def judge(measured: list[Rate], evidence: Evidence) -> ProofOutcome:
    """Whether each rate is what the first one and sample_every ask for. Pure."""
    base = measured[0].ticks_per_s
    if base < TICKS_PER_S_MIN:
        return inconclusive(f"only {base:.0f} ticks/s of {1000 / INTERVAL_MS:g}: this machine is overloaded", evidence)
    faults = []
    for rate in measured[1:]:
        wanted = base / rate.sample_every
        if abs(rate.ticks_per_s - wanted) > TOLERANCE * wanted:
            faults.append(f"{rate.phase}: {rate.ticks_per_s:.1f} ticks/s, expected {wanted:.1f}")
    rates = ", ".join(f"{rate.phase} {rate.ticks_per_s:.1f}" for rate in measured)
    return judged(faults, f"ticks/s: {rates}", evidence)


EXPERIMENT: Final = Experiment(
    "throttling",
    "the throttle file lowers the rate of stored ticks to 1/5 and 1/10 and restores it, each within 10 %",
    120,
    False,
    run,
)

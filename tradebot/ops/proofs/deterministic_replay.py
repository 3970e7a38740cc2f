"""Proof: one input replayed twice gives the same rows to the last byte, whatever hash order and sizes are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, failed, judged
from tradebot.ops.proofs.inputs import write_input
from tradebot.ops.proofs.lab import Evidence, Lab
from tradebot.store.database import connect_readonly, reading
from tradebot.store.models import EVENT_MODELS

TICKS: Final = 12_000
RUN_S: Final = 40.0
STEP_MS: Final = 50

# One run with the default sizes, one with everything else that must not matter.
_RUNS: Final[tuple[tuple[str, str, dict[str, object]], ...]] = (
    ("first", "0", {}),
    (
        "second",
        "4242",
        {
            "channels__tick_channel_size": 7,
            "channels__signal_channel_size": 3,
            "channels__persist_channel_size": 11,
            "persist__batch_size": 37,
            "persist__flush_interval_ms": 5,
        },
    ),
)


def dump(db_path: Path) -> tuple[bytes, dict[str, int]]:
    """The four tables as text, every digit of every number; and how many rows each has. Raises as `reading`."""
    lines: list[str] = []
    counts: dict[str, int] = {}
    db = connect_readonly(db_path)
    try:
        with reading(db):
            for model in EVENT_MODELS:
                table: Any = model._meta
                before = len(lines)
                rows = model.select().order_by(table.primary_key).tuples().execute(db)
                lines.append(f"{table.table_name}: {sorted(table.columns)}")
                lines += map(repr, rows)
                counts[table.table_name] = len(lines) - before - 1
    finally:
        db.close()
    return "\n".join(lines).encode(), counts


def run(lab: Lab, means: Means) -> ProofOutcome:
    """See the module."""
    source = lab.path("input.jsonl")
    write_input(source, TICKS, STEP_MS)
    evidence: Evidence = {
        "input_ticks": TICKS,
        "input_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "runs": {},
    }
    dumps = []
    for name, hash_seed, sizes in _RUNS:
        db = lab.path(f"{name}.db")
        words = ["run", "--ingest=replay", f"--replay-file={source}", f"--db={db}", lab.config(f"{name}.toml", **sizes)]
        ended = lab.run(name, words, RUN_S, {"PYTHONHASHSEED": hash_seed})
        if ended.code:
            evidence["log"] = lab.tail(ended.log)
            return failed(f"the {name} replay ended with {ended.code}", evidence | {"commands": lab.shown_commands()})
        text, counts = dump(db)
        dumps.append(text)
        evidence["runs"][name] = {
            "PYTHONHASHSEED": hash_seed,
            "sizes": {key.replace("__", "."): size for key, size in sizes.items()} or "by default",
            "rows": counts,
            "bytes": len(text),
            "sha256": hashlib.sha256(text).hexdigest(),
        }
    evidence["commands"] = lab.shown_commands()
    return compare(lab, dumps, evidence)


def compare(lab: Lab, dumps: list[bytes], evidence: Evidence) -> ProofOutcome:
    """Whether two dumps are one and the same; the first difference goes into the evidence."""
    faults = []
    rows = evidence["runs"]["first"]["rows"]
    if not rows["ticks"]:
        faults.append("no tick was stored")
    if dumps[0] != dumps[1]:
        pairs = zip(dumps[0].splitlines(), dumps[1].splitlines(), strict=False)
        differ = next(((one, other) for one, other in pairs if one != other), (b"(one has more rows)", b""))
        evidence["first_difference"] = [lab.shown(line.decode()) for line in differ]
        faults.append("two replays of one input stored different rows")
    return judged(faults, f"{sum(rows.values()):,} rows, the same to the last byte", evidence)


EXPERIMENT: Final = Experiment(
    "deterministic_replay",
    "one input replayed twice, with other hash seeds and sizes, stores the same bytes",
    90,
    False,
    run,
)

"""Derived identifiers: from run id and tick number, never random, growing within a run so that indexes stay cheap."""

from __future__ import annotations

import hashlib
from typing import Final

_DIGEST_BYTES: Final = 6


def short_digest(*parts: str | bytes) -> str:
    """12 hex digits that depend on every part and on where one part ends and the next begins."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()[: 2 * _DIGEST_BYTES]


def replay_run_id(input_digest: str, result_hash: str) -> str:
    """Run id of a replay: a function of its input's content and of the settings that can change a result."""
    return "r" + short_digest("replay", input_digest, result_hash)


def live_run_id(started_ms: int, token: str) -> str:
    """A new run id for a push feed: start time (Unix ms) and a random token, so it sorts by start."""
    return f"l{started_ms:013d}{token}"


def event_prefix(run_id: str, tick_number: int) -> str:
    """Common stem of everything decided from the `tick_number`-th kept tick (from 1) of a run."""
    return f"{run_id}-{tick_number:010d}"


def signal_id(prefix: str, n: int = 1) -> str:
    """Id of the `n`-th signal (from 1) of the tick that `prefix` stands for."""
    return f"{prefix}-S" if n == 1 else f"{prefix}-S{n}"


def order_id(prefix: str, n: int = 1) -> str:
    """Id of the `n`-th order (from 1) that the tick created."""
    return f"{prefix}-O" if n == 1 else f"{prefix}-O{n}"


def fill_id(prefix: str, n: int = 1) -> str:
    """Id of the `n`-th fill (from 1) that the tick allowed."""
    return f"{prefix}-T" if n == 1 else f"{prefix}-T{n}"


def arrival_of(event_id: str) -> tuple[str, int]:
    """Orders the ids of a run's signals, orders or fills as they arose: as texts, `-T10` would come before `-T2`."""
    stem, _, last = event_id.rpartition("-")
    digits = last[1:]
    return stem, int(digits) if digits.isdecimal() else 1


def tick_number_of(event_id: str) -> int:
    """The number of the tick that caused a signal, order or fill. Raises ValueError for an id without a tick number."""
    return int(event_id.rsplit("-", 2)[1])

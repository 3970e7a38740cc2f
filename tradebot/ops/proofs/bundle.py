"""The proof bundle: verdicts and evidence of all proofs in one file, with a hash over it all.

The file is canonical JSON, so that any changed byte is found: what is read must be, byte for byte, what would be
written. The hash detects accidental changes. It is not a signature: anyone who can write the file can forge one.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

import tradebot
from tradebot import __version__
from tradebot.core.errors import TradebotError
from tradebot.core.ids import short_digest
from tradebot.core.private_files import replace_private, sync_directory
from tradebot.store.database import beside

FILE_NAME: Final = "proof_bundle.json"
FORMAT: Final = 1
BYTES_MAX: Final = 4_000_000
ABOUT: Final = (
    "Verdicts and evidence of tradebot prove. The sha256 is over this file without it; it shows accidental changes."
    " It is not a signature: anyone who can write this file can forge it."
)
NAMES: Final = (
    "psi_integrity",
    "stall_detection",
    "exit_codes",
    "reading_while_writing",
    "throttling",
    "deterministic_replay",
)
"""All proofs; a bundle that passed has each of them."""


class Verdict(StrEnum):
    """INCONCLUSIVE: what the experiment needs is not here. That is not passed."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"


class Proof(Struct, frozen=True, forbid_unknown_fields=True):
    """What one proof came to: `reason` for people, `evidence` are numbers, raw lines and commands."""

    name: str
    claim: str
    verdict: Verdict
    reason: str
    took_s: float
    evidence: dict[str, Any]


class Bundle(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All proofs of one `tradebot prove`; for which code and configuration, and when."""

    about: str = ABOUT
    format: int = FORMAT
    version: str
    config_hash: str
    made_ms: int
    made_at: str
    took_s: float
    machine: dict[str, str]
    proofs: tuple[Proof, ...]
    sha256: str = ""

    def unpassed(self) -> list[str]:
        """Every proof that has not passed, each as "name VERDICT"; those that are missing too."""
        found = {proof.name: proof.verdict for proof in self.proofs}
        verdicts = {**dict.fromkeys(NAMES, "MISSING"), **found}
        return [f"{name} {verdict}" for name, verdict in verdicts.items() if verdict != Verdict.PASSED]


class BundleAltered(Exception):
    """The text is not one that `render` has made."""


def bundle_path(db_path: Path) -> Path:
    """Where the bundle for engines that write `db_path` lies: in the same directory."""
    return beside(db_path, "").parent / FILE_NAME


@cache
def code_version() -> str:
    """The version, and a digest of the package's sources: a checkout changes without its version. Blocks (reads)."""
    root = Path(tradebot.__file__).parent
    files = sorted(path for path in root.rglob("*.py"))
    parts = [part for path in files for part in (path.relative_to(root).as_posix(), path.read_bytes())]
    return f"{__version__} (sources {short_digest(*parts)})"


def iso(ms: int) -> str:
    """Unix milliseconds as UTC for people, to the second."""
    try:
        return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # an impossible date, in a forged bundle
        return f"{ms} ms"


def seal(bundle: Bundle) -> Bundle:
    """The bundle with the hash over everything else in it."""
    return replace(bundle, sha256=hashlib.sha256(_canonical(replace(bundle, sha256=""))).hexdigest())


def render(bundle: Bundle) -> bytes:
    """The bundle's one text. Raises ValueError for evidence that is no JSON."""
    return _canonical(bundle)


def _canonical(bundle: Bundle) -> bytes:
    text = json.dumps(msgspec.to_builtins(bundle), indent=1, sort_keys=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def parse(data: bytes) -> Bundle:
    """The sealed bundle whose text this is. Raises BundleAltered."""
    try:
        bundle = msgspec.convert(json.loads(data), Bundle)
        whole = render(bundle) == data and seal(bundle).sha256 == bundle.sha256
    except (ValueError, RecursionError) as error:
        raise BundleAltered(f"it is not a proof bundle: {error}") from None
    if not whole:
        raise BundleAltered("its hash does not match its content")
    return bundle


def write_bundle(path: Path, bundle: Bundle) -> None:
    """Put the sealed bundle in the place of an earlier one, on disk before this returns. Raises TradebotError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_private(path, render(bundle))
        sync_directory(path.parent)
    except OSError as error:
        raise TradebotError(f"proof bundle {path}: cannot be written: {error.strerror}") from error

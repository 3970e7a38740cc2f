"""The proof bundle: one text for one content, any changed byte found, written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import tradebot
from tradebot.core.errors import TradebotError
from tradebot.ops.proofs.bundle import (
    FILE_NAME,
    NAMES,
    Bundle,
    BundleAltered,
    Proof,
    Verdict,
    bundle_path,
    code_version,
    iso,
    parse,
    render,
    seal,
    write_bundle,
)


def proof_of(name: str, verdict: Verdict = Verdict.PASSED, **evidence: Any) -> Proof:
    """A proof with a little evidence."""
    return Proof(name, "claim", verdict, "seen", 1.5, evidence or {"lines": ["some avg10=0.10"], "rate": 49.9})


def bundle_of(**changes: Any) -> Bundle:
    """A sealed bundle in which everything passed, with changes."""
    bundle = Bundle(
        version="1.0 (sources abc)",
        config_hash="0123456789ab",
        made_ms=1_700_000_000_000,
        made_at=iso(1_700_000_000_000),
        took_s=109.0,
        machine={"python": "3.11.7"},
        proofs=tuple(proof_of(name) for name in NAMES),
    )
    return seal(replace(bundle, **changes))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_what_was_sealed_is_read_back(evidence: dict[str, Any]) -> None:
    bundle = bundle_of(proofs=(Proof("psi_integrity", "c", Verdict.FAILED, "r", 0.1, evidence),))
    assert parse(render(bundle)) == bundle


def test_any_one_byte_changed_is_found() -> None:
    """G1: every byte of the file, by its lowest bit, by case, by becoming a blank, by going away."""
    data = render(bundle_of())
    for at, byte in enumerate(data):
        for other in {byte ^ 1, byte ^ 0x20, 0x20, 0x0A} - {byte}:
            with pytest.raises(BundleAltered):
                parse(data[:at] + bytes([other]) + data[at + 1 :])
        with pytest.raises(BundleAltered):
            parse(data[:at] + data[at + 1 :])


@given(st.binary(max_size=200))
def test_nothing_else_is_a_bundle(data: bytes) -> None:
    with pytest.raises(BundleAltered):
        parse(data)
    with pytest.raises(BundleAltered):
        parse(render(bundle_of()) + (data or b"\n"))


def test_text_of_any_depth_is_refused() -> None:
    with pytest.raises(BundleAltered):
        parse(b"[" * 1_000_000)


def test_a_value_replaced_is_found_unless_the_hash_is_made_anew() -> None:
    """The hash finds accidents, not a forger; the file says so."""
    bundle = bundle_of(proofs=(proof_of("psi_integrity", Verdict.FAILED),))
    forged = replace(bundle, proofs=(proof_of("psi_integrity"),))
    with pytest.raises(BundleAltered, match="its hash does not match"):
        parse(render(forged))
    assert parse(render(seal(forged))).proofs[0].verdict == Verdict.PASSED
    assert b"accidental changes" in render(bundle) and b"can forge it" in render(bundle)


def test_evidence_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        bundle_of(proofs=(proof_of("psi_integrity", rate=float("nan")),))


def test_what_has_not_passed_is_named() -> None:
    assert bundle_of().unpassed() == []
    some = (proof_of("exit_codes", Verdict.INCONCLUSIVE), proof_of("throttling", Verdict.FAILED))
    others = [name for name in NAMES if name not in ("exit_codes", "throttling")]
    proofs = (*some, *(proof_of(name) for name in others[1:]))
    named = bundle_of(proofs=proofs).unpassed()
    assert sorted(named) == sorted([f"{others[0]} MISSING", "exit_codes INCONCLUSIVE", "throttling FAILED"])
    more = (*bundle_of().proofs, proof_of("exit_codes", Verdict.FAILED))
    assert bundle_of(proofs=more).unpassed() == ["exit_codes FAILED"]


def test_it_lies_beside_the_database_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "state" / "x.db")
    assert bundle_path(tmp_path / "state" / "x.db") == tmp_path / "state" / FILE_NAME
    assert bundle_path(tmp_path / "link.db") == tmp_path / "state" / FILE_NAME


def test_it_replaces_the_earlier_one_whole_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / FILE_NAME
    write_bundle(path, bundle_of())
    done: list[str] = []
    fsync, move = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def moved(source: Path, target: Path) -> None:
        assert parse(source.read_bytes()) == bundle_of(took_s=1.0)
        done.append("replace")
        move(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved)
    write_bundle(path, bundle_of(took_s=1.0))
    assert done == ["file", "replace", "directory"]
    assert parse(path.read_bytes()) == bundle_of(took_s=1.0)
    assert [entry.name for entry in path.parent.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / FILE_NAME
    write_bundle(path, bundle_of())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TradebotError, match="cannot be written: No space left"):
        write_bundle(path, bundle_of(took_s=1.0))
    assert parse(path.read_bytes()) == bundle_of()
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE_NAME]


def test_the_version_of_the_code_changes_with_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout moves on without a new version."""
    package = tmp_path / "tradebot"
    package.mkdir()
    seen = []
    monkeypatch.setattr(tradebot, "__file__", str(package / "__init__.py"))
    for name, text in (("__init__.py", ""), ("a.py", "x = 1\n"), ("a.py", "x = 2\n"), ("b.py", ""), ("note.txt", "")):
        (package / name).write_text(text)
        code_version.cache_clear()
        seen.append(code_version())
    code_version.cache_clear()
    assert len(set(seen)) == 4 and seen[-1] == seen[-2]
    assert all(version.startswith(tradebot.__version__) for version in seen)

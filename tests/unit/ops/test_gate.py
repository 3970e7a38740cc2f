"""The LIVE gate: fails closed, and names each condition that is not met with what to do (G0, G1)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.unit.ops.test_bundle import bundle_of, proof_of
from tests.unit.telemetry.test_engine_side import status_of
from tradebot.config.model import Config, EngineConfig, config_hash
from tradebot.core.runtime import RealRuntime
from tradebot.ops.gate import NO_GATEWAY, BundleFile, live_conditions, read_bundle, read_health, unmet
from tradebot.ops.proofs.bundle import BYTES_MAX, NAMES, Verdict, bundle_path, code_version, render, write_bundle
from tradebot.store.database import connect, migrate
from tradebot.telemetry.status_file import status_path, write_status

ARMED = Config(mode="LIVE", live_armed=True)
VERSION = "1.0 (sources abc)"
MADE_MS = 1_700_000_000_000
WEEK_MS = 7 * 24 * 3600 * 1000
PATH = Path("/state/proof_bundle.json")


def sealed(**changes: Any) -> bytes:
    return render(bundle_of(**{"config_hash": config_hash(ARMED), **changes}))


def conditions(data: bytes | None, config: Config = ARMED, now_ms: int = MADE_MS, **more: Any) -> list[str]:
    """All unmet ones but the last, which is always there."""
    found = unmet(config, BundleFile(PATH, data), now_ms, **{"version": VERSION, "health": (), **more})
    assert found[-1] == NO_GATEWAY
    return found[:-1]


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def test_with_everything_met_it_still_has_no_gateway() -> None:
    """G0: this release sends no order anywhere."""
    assert conditions(sealed()) == []
    assert "no live gateway is available" in NO_GATEWAY


def test_not_armed() -> None:
    assert only(conditions(sealed(), Config(mode="LIVE"))).startswith("live_armed is not true: set it")


def test_no_bundle() -> None:
    assert only(conditions(None)).startswith(f"there is no proof bundle {PATH}; run tradebot prove")


def test_unreadable_bundle() -> None:
    found = unmet(ARMED, BundleFile(PATH, None, "Permission denied"), MADE_MS, VERSION, ())
    assert found[0].startswith(f"the proof bundle {PATH} cannot be read: Permission denied; run tradebot prove")
    assert len(found) == 2


def test_altered_bundle() -> None:
    data = sealed()
    for changed in (data.replace(b"PASSED", b"FAILED", 1), data.replace(b"49.9", b"50.0", 1), data[:-1], b"", b"\xff"):
        assert only(conditions(changed)).startswith(f"the proof bundle {PATH} was altered or damaged: ")


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.INCONCLUSIVE])
@pytest.mark.parametrize("name", NAMES)
def test_a_proof_that_has_not_passed(name: str, verdict: Verdict) -> None:
    """INCONCLUSIVE is not passed."""
    proofs = tuple(proof_of(one, verdict if one == name else Verdict.PASSED) for one in NAMES)
    assert f"has not passed: {name} {verdict}; run" in only(conditions(sealed(proofs=proofs)))


def test_a_proof_that_is_missing() -> None:
    proofs = tuple(proof_of(name) for name in NAMES[1:])
    assert f"has not passed: {NAMES[0]} MISSING" in only(conditions(sealed(proofs=proofs)))
    assert only(conditions(sealed(proofs=()))).count("MISSING") == len(NAMES)


def test_age() -> None:
    assert conditions(sealed(), now_ms=MADE_MS + WEEK_MS) == []
    told = only(conditions(sealed(), now_ms=MADE_MS + WEEK_MS + 1))
    assert "is 7 d 0 h old (of 2023-11-14T22:13:20Z), more than 7 days; run" in told
    told = only(conditions(sealed(), now_ms=MADE_MS - 1))
    assert "is dated in the future (2023-11-14T22:13:20Z, now is 2023-11-14T22:13:19Z): correct the clock" in told


def test_version() -> None:
    told = only(conditions(sealed(), version="1.1 (sources abc)"))
    assert "was made by another version (1.0 (sources abc), this is 1.1 (sources abc))" in told


def test_configuration() -> None:
    """Every key but mode and live_armed counts."""
    other = replace(ARMED, engine=EngineConfig(sample_every=2))
    told = only(conditions(sealed(), other))
    assert f"was made with another configuration ({config_hash(ARMED)}, this is {config_hash(other)}" in told
    assert conditions(render(bundle_of(config_hash=config_hash(Config())))) == []


def test_health() -> None:
    assert only(conditions(sealed(), health=["disk: 1 MB free; free space"])) == (
        "the health check fails: disk: 1 MB free; free space"
    )


def test_each_is_named_when_several_are_unmet() -> None:
    proofs = tuple(proof_of(name, Verdict.FAILED) for name in NAMES)
    data = sealed(proofs=proofs, version="0.9", config_hash="ffffffffffff")
    found = conditions(data, Config(mode="LIVE"), MADE_MS + 2 * WEEK_MS, health=["a", "b"])
    words = ("live_armed", "has not passed", "more than 7 days", "another version", "another configuration", "a", "b")
    assert len(found) == len(words)
    assert all(word in told for word, told in zip(words, found, strict=True))


@given(st.data())
def test_any_one_byte_changed_shuts_the_gate(data: st.DataObject) -> None:
    text = sealed()
    at = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda other: other != text[at]))
    assert "was altered or damaged" in only(conditions(text[:at] + bytes([byte]) + text[at + 1 :]))


@given(st.none() | st.binary(max_size=100), st.booleans(), st.integers(), st.text(max_size=5))
def test_no_input_opens_it(data: bytes | None, armed: bool, now_ms: int, version: str) -> None:
    assert NO_GATEWAY in unmet(Config(live_armed=armed), BundleFile(PATH, data), now_ms, version, ())


def test_what_is_read_as_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    assert read_bundle(path) == BundleFile(path, None)
    path.write_bytes(b"x")
    assert read_bundle(path) == BundleFile(path, b"x")
    path.write_bytes(bytes(BYTES_MAX + 1))
    assert read_bundle(path) == BundleFile(path, None, "it is larger than any bundle")
    path.unlink()
    os.mkfifo(path)
    assert read_bundle(path) == BundleFile(path, None, "it is not a regular file")
    assert read_bundle(path / "below") == BundleFile(path / "below", None, "Not a directory")


class TestHealth:
    """What the doctor calls FAIL, as far as it can be seen before a start."""

    def test_nothing_there_yet(self, tmp_path: Path) -> None:
        assert read_health(Config(), tmp_path / "new" / "x.db", RealRuntime()) == []

    def test_a_good_database(self, tmp_path: Path) -> None:
        db = connect(tmp_path / "x.db")
        migrate(db)
        db.close()
        assert read_health(Config(), tmp_path / "x.db", RealRuntime()) == []

    def test_a_damaged_database(self, tmp_path: Path) -> None:
        (tmp_path / "x.db").write_bytes(b"SQLite format 3\x00" + bytes(range(256)) * 8)
        [told] = read_health(Config(), tmp_path / "x.db", RealRuntime())
        assert "x.db" in told and "put back the last backup" in told

    def test_a_clock_behind_what_was_written(self, tmp_path: Path) -> None:
        later_ms = RealRuntime().now_ms() + 3_600_000
        write_status(status_path(tmp_path / "x.db"), status_of(written_ms=later_ms, state="ended", exit_code=0))
        [told] = read_health(Config(), tmp_path / "x.db", RealRuntime())
        assert re.search(r"the wall clock is (59 min|1 h)", told) and "correct the clock" in told

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        db = connect(tmp_path / "x.db")
        migrate(db)
        db.close()
        statvfs = os.statvfs(tmp_path)
        small = os.statvfs_result([*statvfs[:4], 1, *statvfs[5:]])
        monkeypatch.setattr(os, "statvfs", lambda path: small)
        [told] = read_health(Config(), tmp_path / "x.db", RealRuntime())
        assert "0.0 GB free" in told and "free space" in told


def test_read_for_a_run(tmp_path: Path) -> None:
    """The bundle beside the database, the clock, this code."""
    db, runtime = tmp_path / "x.db", RealRuntime()
    assert [told.split(" ")[0] for told in live_conditions(ARMED, db, runtime)] == ["there", "no"]
    now_ms = runtime.now_ms()
    good = bundle_of(config_hash=config_hash(ARMED), version=code_version(), made_ms=now_ms)
    write_bundle(bundle_path(db), good)
    assert live_conditions(ARMED, db, runtime) == [NO_GATEWAY]
    write_bundle(bundle_path(db), bundle_of(config_hash=config_hash(ARMED), made_ms=now_ms + 60_000))
    found = live_conditions(ARMED, db, runtime)
    assert len(found) == 3 and "dated in the future" in found[0] and "another version" in found[1]

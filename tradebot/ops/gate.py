"""The LIVE gate: which conditions of trading with real orders are not met. It fails closed: G0, G1.

`unmet` decides and is pure; `live_conditions` reads what it needs. As this release has no live gateway, the gate is
never open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tradebot.config.model import Config, config_hash, db_path
from tradebot.config.validation import listed
from tradebot.core.errors import ConfigError
from tradebot.core.runtime import Runtime
from tradebot.ops.doctor.checks import check_clock
from tradebot.ops.doctor.database import check_disk, check_shape, read_database, unreadable
from tradebot.ops.doctor.finding import Finding
from tradebot.ops.doctor.permissions import Files, Judge, check_permissions
from tradebot.ops.doctor.readings import ClockReading, read_file, user_name
from tradebot.ops.health import look_at, span
from tradebot.ops.proofs.bundle import (
    BYTES_MAX,
    Bundle,
    BundleAltered,
    bundle_path,
    code_version,
    iso,
    parse,
)
from tradebot.store.database import beside
from tradebot.store.errors import StorageUnavailable

AGE_MS_MAX: Final = 7 * 86_400_000
NO_GATEWAY: Final = "no live gateway is available: this release never sends an order; use mode SHADOW"
_AGAIN: Final = "run tradebot prove with the --config and --db of this run"
_RESTORE: Final = "put back the last backup"


class BundleFile(NamedTuple):
    """The content of the bundle's file: `data`, or None and the reason (`problem` None: there is no file)."""

    path: Path
    data: bytes | None
    problem: str | None = None


def unmet(config: Config, found: BundleFile, now_ms: int, version: str, health: Sequence[str]) -> list[str]:
    """Every unmet condition of LIVE, each with what to do; never empty. Pure.

    `version`: of this code, as `code_version` has it. `health`: what is wrong with database, disk or clock.
    """
    conditions = [] if config.live_armed else ["live_armed is not true: set it in the configuration file"]
    conditions += _of_bundle(config, found, now_ms, version)
    conditions += [f"the health check fails: {trouble}" for trouble in health]
    return [*conditions, NO_GATEWAY]


def _of_bundle(config: Config, found: BundleFile, now_ms: int, version: str) -> list[str]:
    path = found.path
    if found.problem is not None:
        return [f"the proof bundle {path} cannot be read: {found.problem}; {_AGAIN}"]
    if found.data is None:
        return [f"there is no proof bundle {path}; {_AGAIN}"]
    try:
        bundle = parse(found.data)
    except BundleAltered as error:
        return [f"the proof bundle {path} was altered or damaged: {error}; {_AGAIN}"]
    return [f"the proof bundle {path} {what}" for what in _wrong_with(bundle, config, now_ms, version)]


def _wrong_with(bundle: Bundle, config: Config, now_ms: int, version: str) -> list[str]:
    wrong = []
    unpassed = bundle.unpassed()
    if unpassed:
        wrong.append(f"has not passed: {', '.join(unpassed)}; {_AGAIN} and fix what it reports")
    age_ms = now_ms - bundle.made_ms
    if age_ms > AGE_MS_MAX:
        wrong.append(f"is {span(age_ms / 1000)} old (of {iso(bundle.made_ms)}), more than 7 days; {_AGAIN}")
    if age_ms < 0:
        wrong.append(
            f"is dated in the future ({iso(bundle.made_ms)}, now is {iso(now_ms)}): correct the clock, or {_AGAIN}"
        )
    if bundle.version != version:
        wrong.append(f"was made by another version ({bundle.version}, this is {version}); {_AGAIN}")
    here = config_hash(config)
    if bundle.config_hash != here:
        wrong.append(f"was made with another configuration ({bundle.config_hash}, this is {here}); {_AGAIN}")
    return wrong


def read_bundle(path: Path) -> BundleFile:
    """The file's content, or why it cannot be read. Blocks (I/O); raises nothing."""
    try:
        if path.exists() and not path.is_file():
            return BundleFile(path, None, "it is not a regular file")
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return BundleFile(path, None)
    except OSError as error:
        return BundleFile(path, None, error.strerror or str(error))
    return BundleFile(path, data) if len(data) <= BYTES_MAX else BundleFile(path, None, "it is larger than any bundle")


def read_health(config: Config, database: Path, runtime: Runtime) -> list[str]:
    """Reasons against a start that are visible before one: database, directory, disk and clock.

    Blocks for a moment. The findings are those that `tradebot doctor` calls FAIL.
    """
    findings: list[Finding] = []
    target = beside(database, "")
    try:
        look = look_at(database, runtime)
        findings += check_clock(ClockReading(0.0, 0.0, None), look)
        directory = read_file(target.parent)
        if directory is not None:
            file = read_file(target)
            findings += check_permissions(Files(directory, [] if file is None else [file]), Judge(user_name()))
        if look.database_exists:
            reading = read_database(database)
            findings += [
                *check_shape(reading, config.persist.synchronous, str(database)),
                check_disk(reading, str(database)),
            ]
    except (ConfigError, StorageUnavailable) as error:
        findings.append(unreadable(error, _RESTORE))
    except OSError as error:
        return [f"{target}: {error.strerror}; check the file system that holds it"]
    return [f"{finding.text}; {finding.advice}" for finding in findings if finding.level == "FAIL"]


def live_conditions(config: Config, database: Path, runtime: Runtime) -> list[str]:
    """`unmet` for a run that would write `database`, now and with this code. Blocks for a moment (files, database)."""
    found = read_bundle(bundle_path(database))
    return unmet(config, found, runtime.now_ms(), code_version(), read_health(config, database, runtime))


def unavailable(config: Config, runtime: Runtime, environ: Mapping[str, str] | None = None) -> list[str]:
    """Why this release cannot run a valid configuration; empty when it can.

    `environ` None means the process's. Blocks for a moment with mode LIVE: see `live_conditions`.
    """
    reasons = []
    if config.mode == "LIVE":
        conditions = live_conditions(config, db_path(config, environ), runtime)
        reasons.append("\n- ".join(["mode LIVE is refused:", *conditions]))
    return reasons


def require_available(config: Config, runtime: Runtime, environ: Mapping[str, str] | None = None) -> None:
    """Raises ConfigError naming everything asked for that this release cannot do, LIVE's unmet conditions included."""
    reasons = unavailable(config, runtime, environ)
    if reasons:
        raise ConfigError(listed(reasons))

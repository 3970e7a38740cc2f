"""What `doctor --before-update` adds: whether this version can take over the database, and whether there is a way back.

Run it with the new version in place and before the restart: the engine that is running is still the one before. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tradebot.ops.doctor.advice import Advice
from tradebot.ops.doctor.database import DatabaseReading
from tradebot.ops.doctor.finding import Finding, fail, ok, warn
from tradebot.store.models import SCHEMA_VERSION

_SPARE_BYTES: Final = 64_000_000


def check_update(found: DatabaseReading, path: str, running: str | None, version: str) -> Iterator[Finding]:
    """`path` of the database as a shell takes it; `running`: the version of the engine at work, None for none."""
    now = "no engine is running" if running is None else f"tradebot {running} is running"
    yield ok("update", f"this is tradebot {version}; {now}")
    need = found.size + found.wal_bytes + _SPARE_BYTES
    sizes = f"a backup needs about {need / 1e6:,.0f} MB; {found.disk_free / 1e6:,.0f} MB are free beside the database"
    if found.disk_free < need:
        advice = (
            f"write it to another disk (tradebot backup FILE --db={path}), or `tradebot prune --keep=30d --db={path}`"
        )
        yield fail("update", sizes, Advice.UPDATE_NO_ROOM, advice)
    else:
        yield ok("update", sizes)
    if found.schema == SCHEMA_VERSION or found.bare:
        yield ok("update", f"the schema stays {SCHEMA_VERSION}: the previous version can still use this file")
        return
    yield warn(
        "update",
        f"the next start raises the schema from {found.schema} to {SCHEMA_VERSION}; versions that know only"
        f" {found.schema} refuse the file after that, so a downgrade needs a backup",
        Advice.UPDATE_SCHEMA,
        f"`tradebot backup {path}.before-update --force --db={path}`",
    )

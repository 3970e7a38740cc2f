"""The newest tick of a database, looked up without disturbing its writer."""

from __future__ import annotations

from pathlib import Path

from peewee import fn

from tradebot.core.errors import ConfigError
from tradebot.ops.soak.stall import Newest
from tradebot.store.database import connect_readonly, reading
from tradebot.store.models import TickRow


def newest_tick(db_path: Path) -> Newest:
    """MAX(id) and MAX(ts) of the ticks, over a read-only connection of its own; none where there is no table yet.

    A connection for each look: a kept one would go on reading a replaced file. Two queries,
    each answered by the end of an index, whatever the table's size. Blocks at most the busy timeout. Raises
    StorageUnavailable (locked, failing disk), ConfigError (no database of ours).
    """
    try:
        if not db_path.exists():
            return Newest(None, None, made=False)
    except OSError as error:
        raise ConfigError(f"database {db_path}: cannot be examined: {error.strerror}") from error
    db = connect_readonly(db_path)
    try:
        with reading(db):
            if not db.table_exists("ticks"):
                return Newest(None, None, made=False)
            newest = (TickRow.select(fn.MAX(column)).scalar(db) for column in (TickRow.id, TickRow.ts))
            return Newest(*newest)
    finally:
        db.close()

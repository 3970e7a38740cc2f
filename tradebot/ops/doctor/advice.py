"""Every piece of advice that the doctor can give, by its name: a test carries each of them out and starts the service.

What stands between backticks in the text of an advice is a command, for root where the service's files are meant.
"""

from __future__ import annotations

from enum import StrEnum, auto


class Advice(StrEnum):
    """Names of the advice; the texts stand where they are given, for they hold paths."""

    PYTHON = auto()
    SQLITE_WITHDRAWN = auto()
    SQLITE_RACE = auto()
    CONFIG_INVALID = auto()
    CONFIG_CHANGEABLE = auto()
    CONFIG_SECRET_SHOWN = auto()
    CONFIG_CLOSED = auto()
    CONFIG_HIDDEN = auto()
    INPUT_CLOSED = auto()
    DATABASE_UNNAMED = auto()
    DATABASE_UNUSABLE = auto()
    DATABASE_MISSING = auto()
    DATABASE_EMPTY = auto()
    DATABASE_LOST = auto()
    DATABASE_UNREADABLE = auto()
    DATABASE_LOCKED = auto()
    DATABASE_DISK = auto()
    SCHEMA_NEWER = auto()
    SCHEMA_OLDER = auto()
    JOURNAL_MODE = auto()
    WAL_HELD = auto()
    WAL_LEFT = auto()
    DISK_FULL = auto()
    INTEGRITY = auto()
    INTEGRITY_UNFINISHED = auto()
    DIRECTORY_CLOSED = auto()
    DIRECTORY_OPEN = auto()
    FILES_CLOSED = auto()
    FILE_OPEN = auto()
    CLOCK_STEPS = auto()
    CLOCK_BEHIND = auto()
    CLOCK_UNKEPT = auto()
    FEED_AHEAD = auto()
    FEED_LATE = auto()
    UNIT_MISSING = auto()
    UNIT_OF_ANOTHER_CONFIG = auto()
    UNIT_WRONG = auto()
    UNIT_FOREIGN = auto()
    PORT_TAKEN = auto()
    MOCKWS_AWAY = auto()
    METRICS_AWAY = auto()
    STATUS_UNREADABLE = auto()
    ENGINE_SILENT = auto()
    ENGINE_WITHOUT_LOCK = auto()
    ENGINE_HANGS = auto()
    ENGINE_KILLED = auto()
    RUN_WITHOUT_END = auto()
    RUN_FAILED = auto()
    SPILL_FOREIGN = auto()
    SPILL_GROWS = auto()
    SPILL_WAITS = auto()
    SPILL_ORPHANED = auto()
    THROTTLE_UNREADABLE = auto()
    THROTTLED = auto()
    UPDATE_NO_ROOM = auto()
    UPDATE_SCHEMA = auto()

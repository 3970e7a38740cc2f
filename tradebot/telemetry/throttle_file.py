"""The throttle file: how the soak supervisor tells the next start of an engine to keep fewer ticks.

It lies beside the database (`<database>.throttle.json`). To an engine with a push feed its `sample_every` counts more
than the configuration file's where it is larger, and less than the command line's; replays never read it, and it is no
part of the configuration hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from tradebot.config.model import Settings, on_command_line
from tradebot.core.errors import ConfigError
from tradebot.core.log_events import LogEvent
from tradebot.output.log import Log
from tradebot.store.database import beside
from tradebot.telemetry.command_file import read_command, write_command

SUFFIX: Final = ".throttle.json"
MAX_SAMPLE_EVERY: Final = 1000


class Throttle(Struct, frozen=True, forbid_unknown_fields=True):
    """Every how manieth tick is kept (1: all), the ladder's state that asks for it, and when it was written."""

    sample_every: Annotated[int, Meta(ge=1, le=MAX_SAMPLE_EVERY)]
    state: str
    written_ms: int


def throttle_path(db_path: Path) -> Path:
    """Where the throttle of the engine that writes `db_path` lies."""
    return beside(db_path, SUFFIX)


def write_throttle(path: Path, throttle: Throttle) -> None:
    """Replace the file, on disk before this returns. Blocks. Raises OSError."""
    write_command(path, throttle)


def read_throttle(path: Path) -> Throttle | None:
    """What the file says; None if it does not exist.

    Raises ConfigError when it cannot be understood, or when another user could have written it. Never waits.
    """
    return read_command(path, Throttle, "throttle file", "remove it to keep all ticks")


def apply_throttle(settings: Settings, path: Path, log: Log) -> Settings:
    """The settings of a start with the throttle file's in them: a push feed keeps fewer ticks while it asks for that.

    It never keeps more than configured, and what the command line says stays. A file that cannot be used is ignored
    with a warning: any user may have left it there.
    """
    engine = settings.config.engine
    if engine.ingest_mode == "replay":
        return settings
    try:
        throttle = read_throttle(path)
    except ConfigError as error:
        log.warning("throttle file ignored", event=LogEvent.THROTTLE_IGNORED, detail=str(error))
        return settings
    if throttle is None or throttle.sample_every <= engine.sample_every:
        return settings
    fields: dict[str, Any] = {
        "state": throttle.state,
        "asked": throttle.sample_every,
        "configured": engine.sample_every,
    }
    if on_command_line(settings.sources, "engine.sample_every"):
        log.warning(
            "throttle file ignored: the command line sets the sampling",
            event=LogEvent.THROTTLE_IGNORED,
            sample_every=engine.sample_every,
            **fields,
        )
        return settings
    log.warning(
        "throttle file in effect: fewer ticks are kept",
        event=LogEvent.THROTTLED,
        sample_every=throttle.sample_every,
        **fields,
    )
    engine = replace(engine, sample_every=throttle.sample_every)
    return replace(settings, config=replace(settings.config, engine=engine))

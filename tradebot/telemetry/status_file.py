"""The status file: what a running engine reports about itself once a second, readable without disturbing it.

It lies beside the database (`<database>.status.json`), is replaced whole, and stays after the end with the exit code in
it. It is no record: what must be known later is in the database and the log.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from tradebot.core.errors import AdvisedError
from tradebot.core.events import LIQUIDATED
from tradebot.core.private_files import replace_private
from tradebot.execution.paper_view import PaperView
from tradebot.execution.trips import BreakersView
from tradebot.feeds.status import Link, SymbolsLook
from tradebot.portfolio.book import Book
from tradebot.store.database import beside

AS_ENGINE: Final = "run this as the user of the engine, or as root"
"""What to do where this user may not read."""

SUFFIX: Final = ".status.json"
FORMAT: Final = 1
FRESH_S: Final = 10.0
"""A status of a living engine is never older than this: it is written once a second."""

State = Literal["running", "draining", "ended"]
_BYTES_MAX: Final = 1_000_000


class LastTick(Struct, frozen=True):
    """The newest accepted tick that the strategy has seen. `ts_ms` is the exchange's time."""

    symbol: str
    price: float
    ts_ms: int


class Status(Struct, frozen=True, kw_only=True):
    """One look at an engine. Counters as in `tradebot.threads.counters`, depths of channels in events."""

    format: int = FORMAT
    version: str
    pid: int
    run_id: str
    mode: str
    ingest: str
    source: str
    config_hash: str
    sample_every: int
    """In effect, with the throttle file's in it."""
    push: bool
    state: State
    exit_code: int | None
    complete: bool = False
    """Whether the run ended because all was done: a replay read to its end, or --seconds over; not by a signal."""
    started_ms: int
    written_ms: int
    written_s: float
    """On the monotonic clock, which all processes of one boot share: tells the age whatever the wall clock does."""
    running: tuple[str, ...]
    """Stages whose thread has not ended."""
    still_s: dict[str, float]
    """Stages that have had work at hand and made no progress for too long, and for how many seconds; empty when all
    is well, also on a quiet market."""
    link: Link | None
    """None for a feed without a link."""
    link_age_ms: int | None
    """Since the peer last showed life (any frame or pong)."""
    link_down_s: float | None
    """How long the link has been down; None while it is up."""
    retry_after_s: float | None = None
    """How much is left of the time that the server asked to be left alone for; None when it asked for none."""
    symbols: SymbolsLook | None = None
    """What has become of the symbols that were asked for, and what the exchange announced; None for a feed without a
    link, and of versions before 0.2."""
    last_tick: LastTick | None
    last_stored_ms: int | None
    """When a batch with more than notices in it was last committed: what the engine reports is no progress."""
    stored_age_s: float | None = None
    """How long ago that was, whatever the wall clock has done since."""
    uptime_s: float = 0.0
    """For how long the pipeline has been there, whatever the wall clock has done since."""
    book: Book | None
    counters: dict[str, int]
    depths: dict[str, int]
    commit_ms: float | None
    """How long the last commit took."""
    breakers: BreakersView | None = None
    """What keeps orders from being sent; None in the files of versions before 0.2."""
    paper: PaperView | None = None
    """The account of PAPER; None in SHADOW."""
    spilled_events: int = 0
    """Accepted events that wait in the spill file until the database can be written again."""

    def fresh(self, now_s: float) -> bool:
        """Whether an engine wrote this moments ago (`now_s`: monotonic clock) and has not ended."""
        return self.state != "ended" and 0 <= now_s - self.written_s <= FRESH_S

    @property
    def blocking(self) -> tuple[str, ...]:
        """The codes of all that keeps orders from being sent: a halt, breakers, an account that is used up."""
        codes = () if self.breakers is None else self.breakers.codes
        return (*codes, LIQUIDATED) if self.paper is not None and self.paper.liquidated else codes

    def ingest_alive(self, now_s: float) -> bool:
        """Whether ingest works and its link, where it has one, is up: then no tick means a quiet market."""
        at_work = "ingest" in self.running and "ingest" not in self.still_s
        return self.fresh(now_s) and at_work and self.link in ("up", None)


def status_path(db_path: Path) -> Path:
    """Where the engine that writes `db_path` keeps its status."""
    return beside(db_path, SUFFIX)


def write_status(path: Path, status: Status) -> None:
    """Replace the file: a reader sees the old one or the new one. Raises OSError. Not synced: it is worth a second."""
    replace_private(path, msgspec.json.encode(status) + b"\n", sync=False)


def read_status(path: Path) -> Status | None:
    """The newest status; None when no engine has written one. Raises AdvisedError when it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a fifo would wait for a writer
            raise AdvisedError(f"status file {path}: is not a regular file", "remove it, the engine creates a new one")
        with path.open("rb") as file:
            return _decode(file.read(_BYTES_MAX))
    except FileNotFoundError:
        return None
    except OSError as error:
        advice = AS_ENGINE if isinstance(error, PermissionError) else "check the file system that holds it"
        raise AdvisedError(f"status file {path}: cannot be read: {error.strerror}", advice) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"status file {path}: {error}; it was written by another version of tradebot, or is damaged"
        raise AdvisedError(problem, "the next start of the engine replaces it") from error


def _decode(data: bytes) -> Status:
    """Raises msgspec.DecodeError (ValidationError is one), UnicodeDecodeError."""
    value = msgspec.json.decode(data)
    if isinstance(value, dict) and isinstance(book := value.get("book"), dict):
        # Version 0.1 called every amount USD, whatever it was; nothing says what its unit is.
        value["book"] = {name.removesuffix("_usd"): figure for name, figure in book.items()}
    return msgspec.convert(value, Status)

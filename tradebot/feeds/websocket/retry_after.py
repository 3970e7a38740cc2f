"""What a server asked for with Retry-After, kept beside the database, so that a restarted engine keeps to it too.

Without it a service manager that restarts the engine every two seconds would storm a server that has banned it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tradebot.core.private_files import read_trusted, replace_private
from tradebot.feeds.websocket.http import RETRY_AFTER_MAX_S
from tradebot.store.database import beside

_BYTES_MAX: Final = 4096


class _Asked(Struct, frozen=True):
    """The content of the file: no request to `server` before `until_ms` (Unix ms), `seconds` after the answer."""

    server: str
    until_ms: int
    seconds: float


def retry_after_path(db_path: Path) -> Path:
    """The path of the file for a database."""
    return beside(db_path, ".retry_after.json")


def server_of(url: str) -> str:
    """Host and port of a URL, without credentials, to which a Retry-After applies. "" without a URL."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}:{parts.port or ''}"
    except ValueError:  # it is refused when it is connected to
        return ""


class RetryAfterFile:
    """The newest Retry-After of one server (host and port). One thread (ingest); blocks as the disk does.

    No method raises: where the file cannot be written or read, the text that is returned says so, and the request holds
    for this process alone.
    """

    def __init__(self, path: Path, server: str) -> None:
        self._path = path
        self._server = server

    def keep(self, seconds: float, now_ms: int) -> str | None:
        """Save a request of the server to wait `seconds` from `now_ms`; returns None, or why that failed."""
        asked = _Asked(self._server, now_ms + round(seconds * 1000), seconds)
        try:
            replace_private(self._path, msgspec.json.encode(asked) + b"\n")
        except OSError as error:
            return self._problem(error)
        return None

    def remaining_s(self, now_ms: int) -> tuple[float, str | None]:
        """The seconds for which this server must still not be contacted (0: none), and why they are not known.

        Never longer than was asked for, so that a clock that was set back does not prolong it.
        """
        try:
            asked = msgspec.json.decode(read_trusted(self._path, _BYTES_MAX), type=_Asked)
        except FileNotFoundError:
            return 0.0, None
        except OSError as error:
            return 0.0, self._problem(error)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return 0.0, f"{self._path}: damaged ({error}); the server's last Retry-After is unknown"
        if asked.server != self._server:
            return 0.0, None
        return max(0.0, min((asked.until_ms - now_ms) / 1000, asked.seconds, RETRY_AFTER_MAX_S)), None

    def clear(self) -> None:
        """The server has accepted a connection: remove the request."""
        with suppress(OSError):  # what is left ends by itself
            self._path.unlink(missing_ok=True)

    def _problem(self, error: OSError) -> str:
        return f"{self._path}: {error.strerror or error}; a restart will not know how long the server asked to wait"

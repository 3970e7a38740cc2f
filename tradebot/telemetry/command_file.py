"""Command files: small JSON files beside the database by which other processes reach an engine and its next starts."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from tradebot.core.errors import ConfigError
from tradebot.core.private_files import read_trusted, replace_private

_BYTES_MAX: Final = 10_000

C = TypeVar("C", bound=Struct)


def write_command(path: Path, command: Struct) -> None:
    """Replace the file, on disk before this returns. Blocks. Raises OSError."""
    replace_private(path, msgspec.json.encode(command) + b"\n")


def read_command(path: Path, kind: type[C], name: str, advice: str, passing: Container[int] = ()) -> C | None:
    """The content of the file; None if it does not exist. `name` and `advice` begin and end the messages.

    Raises ConfigError if the file is not a command of this kind, cannot be read, or could have been written by another
    user; OSError as it comes if its errno is in `passing`. Never waits.
    """
    try:
        return msgspec.json.decode(read_trusted(path, _BYTES_MAX), type=kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in passing:
            raise
        raise ConfigError(f"{name} {path}: {error.strerror}; {advice}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} {path}: {error}; {advice}") from error

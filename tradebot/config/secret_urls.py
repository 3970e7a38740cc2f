"""URLs with credentials, from places that other users cannot read: the environment or a file.

A command line is shown to every user of the machine by `ps`, and a configuration file is often shared. So the feed's
URL and the webhook may also come from a variable of the environment, or from a file that the configuration names.
They are kept out of `Config`, so that no hash and no listing of the configuration depends on them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tradebot.config.model import Config, Secrets, expand_home, on_command_line
from tradebot.config.validation import InvalidValue, check_value
from tradebot.core.errors import ConfigError, UsageError
from tradebot.output.redaction import escape, mask

ENV_WS_URL: Final = "TRADEBOT_WS_URL"
ENV_WEBHOOK_URL: Final = "TRADEBOT_WEBHOOK_URL"
ENV_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what LoadCredential= names; file names that are not absolute are looked up there."""

_BYTES_MAX: Final = 4096
_LIVE: Final = ("mockws", "realws")


def find_secrets(config: Config, sources: Mapping[str, str], environ: Mapping[str, str]) -> Secrets:
    """The URLs in the environment and in files. Blocks (reads files). `sources`: see Settings.

    Raises ConfigError (a file) or UsageError (the environment), never quoting what it found.
    """
    return Secrets(_find("engine.ws_url", config, sources, environ), find_webhook(config, sources, environ))


def find_webhook(config: Config, sources: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """The webhook in the environment or in a file; None without one. Like `find_secrets`."""
    return _find("notify.webhook_url", config, sources, environ)


def _find(key: str, config: Config, sources: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    place = _place(key, config, sources, environ)
    if place is None:
        return None
    if place.file is None:
        try:
            return _checked(key, environ[place.variable].strip())
        except InvalidValue as error:
            raise UsageError(f"environment {place.variable}: {error}") from None
    path = secret_path(place.file, environ)
    try:
        return _checked(key, _read_line(path))
    except InvalidValue as error:
        named_in = sources.get(f"{key}_file", "default")
        raise ConfigError(f"{named_in}: {key}_file: {path}: {error}") from None


def _checked(key: str, text: str) -> str:
    if not text.isprintable():  # said here, because the value would be quoted elsewhere
        raise InvalidValue("contains control characters")
    return str(check_value(key, text))


def secret_place(key: str, config: Config, sources: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """The place from which a run reads `key`, for people; None if it is not a secret place. Reads nothing."""
    place = _place(key, config, sources, environ)
    if place is None:
        return None
    return f"environment {place.variable}" if place.file is None else escape(str(secret_path(place.file, environ)))


class _Place(NamedTuple):
    """Where a URL is read from: the file that the configuration names, or without one a variable."""

    variable: str
    file: str | None


def _place(key: str, config: Config, sources: Mapping[str, str], environ: Mapping[str, str]) -> _Place | None:
    """The place that wins; None when the URL is not secret, or not wanted. Reads nothing."""
    if key == "engine.ws_url":
        variable, file, is_wanted = ENV_WS_URL, config.engine.ws_url_file, config.engine.ingest_mode in _LIVE
    else:
        variable, file, is_wanted = ENV_WEBHOOK_URL, config.notify.webhook_url_file, True
    if not is_wanted or _on_command_line(key, config, sources):
        return None
    if environ.get(variable) and not (file is not None and on_command_line(sources, f"{key}_file")):
        return _Place(variable, None)  # an empty variable counts as not set
    return None if file is None else _Place(variable, file)


def visible_credentials(config: Config, sources: Mapping[str, str]) -> list[str]:
    """A warning for each URL with credentials on the command line; the path of a webhook is always one. Pure."""
    warnings = []
    ws_url = config.engine.ws_url
    if ws_url is not None and mask(ws_url) != ws_url and _on_command_line("engine.ws_url", config, sources):
        warnings.append(
            "the command line contains the feed's credentials, which ps shows to every user: use engine.ws_url_file"
        )
    if _on_command_line("notify.webhook_url", config, sources):
        warnings.append(
            "the command line contains the webhook's URL, which ps shows to every user: use notify.webhook_url_file"
        )
    return warnings


def _on_command_line(key: str, config: Config, sources: Mapping[str, str]) -> bool:
    """Whether the command line contains the URL, which then overrides environment and files."""
    url = config.engine.ws_url if key == "engine.ws_url" else config.notify.webhook_url
    return url is not None and on_command_line(sources, key)


def secret_path(file: str, environ: Mapping[str, str]) -> Path:
    """The file to which a key such as `engine.ws_url_file` refers. Raises ConfigError: no such home directory."""
    path = Path(expand_home(file))
    credentials = environ.get(ENV_CREDENTIALS)
    return path if path.is_absolute() or not credentials else Path(credentials) / path


def _read_line(path: Path) -> str:
    """The only line of a file. Raises InvalidValue."""
    try:
        # O_NONBLOCK: opening a fifo would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidValue("is not a regular file")
            data = file.read(_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InvalidValue):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidValue(f"cannot be read: {reason}") from None
    if len(data) > _BYTES_MAX:
        raise InvalidValue(f"is larger than {_BYTES_MAX} bytes: it must contain one line, the URL")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise InvalidValue("is not UTF-8 text") from None
    if not text:
        raise InvalidValue("is empty: it must contain one line, the URL")
    if len(text.splitlines()) > 1:
        raise InvalidValue("has more than one line: it must contain only the URL")
    return text

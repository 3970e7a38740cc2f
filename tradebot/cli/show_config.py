"""The output of `tradebot show-config`: every setting with its value and source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tradebot import __version__
from tradebot.config.model import Live, Settings, config_hash, db_path
from tradebot.config.secret_urls import secret_place
from tradebot.config.validation import WITH_CREDENTIALS, flatten, toml
from tradebot.output.redaction import escape, mask, mask_path

_COMMENT_COLUMN = 46


def describe(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """The lines of show-config: a configuration file with the source of each value; credentials are masked.

    Raises ConfigError when there is no home directory for the default database.
    """
    config, sources = settings.config, settings.sources
    yield f"# tradebot {__version__}, configuration {config_hash(config)}, file: {sources['config file']}"
    unset = _stand_ins(settings, environ)
    section = ""
    for name, value in shown_values(settings).items():
        prefix, _, leaf = name.rpartition(".")
        if prefix != section:
            section = prefix
            yield f"\n[{section}]"
        line = f"# {leaf} is not set{unset.get(name, '')}" if value is None else f"{leaf} = {toml(value)}"
        replaced = f", but{unset[name][1:]}" if name in WITH_CREDENTIALS and name in unset and value is not None else ""
        yield f"{line:{_COMMENT_COLUMN}}  # {sources.get(name, 'default')}{replaced}"
    yield "\n# Only on the command line or in the environment:"
    for field in settings.options.__struct_fields__:
        value = getattr(settings.options, field)
        if field == "speed":
            value = "max" if value is None else f"{value:g}x"
        line = f"# {field} is not set" if value is None else f"# {field} = {toml(value)}"
        yield f"{line:{_COMMENT_COLUMN}}  # {sources[field]}"
    if settings.live is not None:
        yield f"\n# {_listening(settings, settings.live, environ)}"


def as_object(settings: Settings, environ: Mapping[str, str]) -> dict[str, object]:
    """The same as JSON. A null value is not set; `used` is the value used in its place, if there is one."""
    keys: dict[str, dict[str, object]] = {
        name: {"value": value, "source": settings.sources.get(name, "default")}
        for name, value in shown_values(settings).items()
    }
    for name, value in _used(settings, environ).items():
        if keys[name]["value"] is None:
            keys[name]["used"] = value
    for name, place in _secret_places(settings, environ).items():
        keys[name]["read_from"] = place
    options = {
        field: {"value": getattr(settings.options, field), "source": settings.sources[field]}
        for field in settings.options.__struct_fields__
    }
    return {
        "format": 1,
        "version": __version__,
        "config_hash": config_hash(settings.config),
        "config_file": settings.sources["config file"],
        "keys": keys,
        "options": options,
        "listens": None if settings.live is None else _listening(settings, settings.live, environ),
    }


def shown_values(settings: Settings) -> dict[str, object]:
    """All values by dotted key; credentials are masked, even in a URL in another key."""
    values: dict[str, object] = flatten(settings.config)
    for name, value in values.items():
        if isinstance(value, str):
            values[name] = mask_path(value) if name == "notify.webhook_url" else mask(value)
    return values


def _listening(settings: Settings, live: Live, environ: Mapping[str, str]) -> str:
    if not live.url:
        return f"Replays recorded frames of {live.exchange}."
    symbols = escape(", ".join(live.symbols)) or "all that it sends"
    place = secret_place("engine.ws_url", settings.config, settings.sources, environ)
    return f"Listens to {live.exchange} at {mask(live.url) if place is None else f'the URL in {place}'}: {symbols}."


def _used(settings: Settings, environ: Mapping[str, str]) -> dict[str, object]:
    """The values used for keys that are not set."""
    config = settings.config
    sizes = config.channels.sizes(push=config.engine.ingest_mode != "replay")
    used: dict[str, object] = {f"channels.{stage}_channel_size": size for stage, size in sizes._asdict().items()}
    if config.app.db_path is None:
        used["app.db_path"] = str(db_path(config, environ))
    return used


def _secret_places(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    places = {key: secret_place(key, settings.config, settings.sources, environ) for key in WITH_CREDENTIALS}
    return {key: place for key, place in places.items() if place is not None}


def _stand_ins(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The text after a key that is not set, or that a secret from another place replaces."""
    words = {name: f": {toml(value)}" for name, value in _used(settings, environ).items()}
    return words | {key: f": read from {place}" for key, place in _secret_places(settings, environ).items()}

"""The command line: what each command does, and how every error reaches the person at the terminal.

Answers go to standard output, complaints to standard error. `main` never lets an exception out.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Iterator, Mapping

from tradebot import __version__
from tradebot.cli.arguments import HELP, VERSION, Arguments, help_text, parse
from tradebot.cli.resolve import resolve
from tradebot.cli.startup import interrupts_raise
from tradebot.cli.usage import CAPTURE, CHECK_CONFIG, OPERATIONS, RUN, SHOW_CONFIG, SOURCES
from tradebot.config import toml_file as configfile
from tradebot.config.model import Live, Settings, config_hash, db_path
from tradebot.config.secret_urls import secret_place
from tradebot.config.validation import WITH_CREDENTIALS, flatten, toml
from tradebot.core.errors import ConfigError, ExitCode, TradebotError, UsageError
from tradebot.core.runtime import RealRuntime
from tradebot.feeds import sources_file as source_files
from tradebot.ops.gate import unavailable
from tradebot.output.redaction import escape, mask, mask_path
from tradebot.output.streams import GuardedStream
from tradebot.strategy.registry import CHECKS

_COMMENT_COLUMN = 46


def main(argv: list[str] | None = None) -> int:
    """Run one command and answer its exit code. `argv`: the words after the program's name, None for the process's.

    Blocks as long as the command takes; main thread only. Raises nothing: every error becomes a message on stderr.
    """
    command = RUN
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        command = arguments.command
        code = _dispatch(arguments, os.environ)
    except UsageError as error:
        code = _complain(error, ExitCode.CONFIG)
    except TradebotError as error:
        # Commands other than run answer no: the file they were asked about is not usable.
        code = _complain(error, error.exit_code if command == RUN else 1)
    except KeyboardInterrupt:
        # Before the engine catches signals itself. SIGINT is a served request of run; other commands did not answer.
        _say("interrupted")
        code = ExitCode.COMPLETE if command == RUN else 1
    except Exception as error:
        _say(f"internal error, a bug: {type(error).__name__}: {mask(str(error))}; where it happened:")
        _say(mask(traceback.format_exc()))
        code = ExitCode.CRASH
    # The interpreter flushes once more at its end, and would complain about a pipe that nobody reads any more.
    GuardedStream(sys.stdout).close()
    return int(code)


def _dispatch(arguments: Arguments, environ: Mapping[str, str]) -> int:
    if arguments.command != RUN:  # run has nothing to tell before its engine serves signals itself
        interrupts_raise()
    if arguments.command == HELP:
        return _answer(help_text(arguments.file))
    if arguments.command == VERSION:
        return _answer(f"tradebot {__version__}\n")
    if arguments.command == CHECK_CONFIG:
        return _check_config(arguments, environ)
    if arguments.command == SOURCES:
        return _sources(arguments, environ)
    if arguments.command in OPERATIONS:
        from tradebot.cli.commands import run_operation

        return run_operation(arguments, environ)
    if arguments.command == SHOW_CONFIG:  # who asks may not be allowed to read the secrets that a run reads
        settings = resolve(arguments, environ, with_secrets=False)
        return _answer("\n".join(describe(settings, environ)) + "\n")
    settings = resolve(arguments, environ)
    if arguments.command == CAPTURE:  # it sends no order, so that any mode will do
        from tradebot.ops.capture import run_capture

        return _answer(run_capture(settings))
    # Late: the engine brings in the database and the threads, which no other command needs.
    from tradebot.engine import run_engine

    # A crash in compiled code, and the watchdog's SIGABRT, leave the stacks of all threads on standard error.
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
    return run_engine(settings)


def _check_config(arguments: Arguments, environ: Mapping[str, str]) -> int:
    explicit = arguments.given.get("--config") if arguments.file is None else arguments.file
    found = configfile.find(None if explicit is None else str(explicit), environ)
    if found is None:
        return _answer("no configuration file: the defaults apply\n")
    path, named_by = found
    try:
        config = configfile.load(path, CHECKS)
    except ConfigError as error:
        _answer(f"{error}\n")
        return 1
    notes = "".join(f"note: run would refuse it: {reason}\n" for reason in unavailable(config, RealRuntime()))
    return _answer(f"{path}: valid{'' if arguments.file else f' ({named_by})'}\n{notes}")


def _sources(arguments: Arguments, environ: Mapping[str, str]) -> int:
    explicit, file = (arguments.given.get(name) for name in ("--config", "--ws-sources"))
    found = configfile.find(None if explicit is None else str(explicit), environ)
    place = source_files.find(None if file is None else str(file), None if found is None else found[0], environ)
    known = {} if place is None else source_files.load(place[0])
    return _answer("\n".join(source_files.describe(place, known.values())) + "\n")


def describe(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """The lines of show-config: a configuration file with the source of each value; credentials are masked.

    Raises ConfigError when there is no home directory for the default database.
    """
    config, sources = settings.config, settings.sources
    yield f"# tradebot {__version__}, configuration {config_hash(config)}, file: {sources['config file']}"
    unset = _stand_ins(settings, environ)
    section = ""
    for name, value in flatten(config).items():
        prefix, _, leaf = name.rpartition(".")
        if prefix != section:
            section = prefix
            yield f"\n[{section}]"
        if name in WITH_CREDENTIALS and value is not None:
            value = mask_path(value) if name == "notify.webhook_url" else mask(value)
        line = f"# {leaf} is not set{unset.get(name, '')}" if value is None else f"{leaf} = {toml(value)}"
        replaced = f", but{unset[name][1:]}" if name in WITH_CREDENTIALS and name in unset and value is not None else ""
        yield f"{line:{_COMMENT_COLUMN}}  # {sources[name]}{replaced}"
    yield "\n# Only on the command line or in the environment:"
    for field in settings.options.__struct_fields__:
        value = getattr(settings.options, field)
        if field == "speed":
            value = "max" if value is None else f"{value:g}x"
        line = f"# {field} is not set" if value is None else f"# {field} = {toml(value)}"
        yield f"{line:{_COMMENT_COLUMN}}  # {sources[field]}"
    if settings.live is not None:
        yield f"\n# {_listening(settings, settings.live, environ)}"


def _listening(settings: Settings, live: Live, environ: Mapping[str, str]) -> str:
    if not live.url:
        return f"Replays recorded frames of {live.exchange}."
    symbols = escape(", ".join(live.symbols)) or "all that it sends"
    place = secret_place("engine.ws_url", settings.config, settings.sources, environ)
    return f"Listens to {live.exchange} at {mask(live.url) if place is None else f'the URL in {place}'}: {symbols}."


def _stand_ins(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """What is used for keys that are not set, where something is."""
    config = settings.config
    sizes = config.channels.sizes(push=config.engine.ingest_mode != "replay")
    used: dict[str, object] = {f"channels.{stage}_channel_size": size for stage, size in sizes._asdict().items()}
    if config.app.db_path is None:
        used["app.db_path"] = str(db_path(config, environ))
    stand_ins = {name: f": {toml(value)}" for name, value in used.items()}
    for key in WITH_CREDENTIALS:
        place = secret_place(key, config, settings.sources, environ)
        if place is not None:
            stand_ins[key] = f": read from {place}"
    return stand_ins


def _complain(error: TradebotError, code: int) -> int:
    _say("\n  ".join(str(error).splitlines()))
    return code


def _say(text: str) -> None:
    # Where nobody can be told, the exit code has to do.
    GuardedStream(sys.stderr).write(f"tradebot: {text}\n")


def _answer(text: str) -> int:
    """Write `text` to standard output, as much as the reader wants; always 0. Raises TradebotError on a full disk."""
    if sys.stdout is None:
        return 0
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # `tradebot show-config | head`: the reader has enough
    except OSError as error:
        raise TradebotError(f"cannot write to standard output: {error.strerror}") from None
    return 0

"""The program `mockws`: starts a server from the command line and reports errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from mockws_server import options, script
from mockws_server.bus import Addresses
from mockws_server.console import Console
from mockws_server.recording import messages
from mockws_server.server import MockServer, Recording, ServerOptions, stop_signals
from tradebot.cli.program import HELP, VERSION, Arguments, Command, Program
from tradebot.cli.words import take_apart
from tradebot.core.errors import ConfigError, ExitCode
from tradebot.feeds.replay.byte_source import Source, open_source
from tradebot.feeds.replay.decompress import unpack
from tradebot.output.json_answer import json_answer
from tradebot.output.streams import GuardedStream

_COMPLAINTS_MAX = 20


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal arrives. Returns the exit code; an error is one line on stderr. Main thread."""
    try:
        arguments = take_apart(MOCKWS, sys.argv[1:] if argv is None else argv)
        if arguments.command == HELP:
            return _answer(MOCKWS.help_text())
        if arguments.command == VERSION:
            return _answer(MOCKWS.version_text())
        return MOCKWS.command(arguments.command).function(arguments, os.environ)
    except ConfigError as error:
        GuardedStream(sys.stderr).write(f"mockws: {error}\n")
        return ExitCode.CONFIG
    except KeyboardInterrupt:
        return ExitCode.COMPLETE


def _serve_or_list(arguments: Arguments, _environ: Mapping[str, str]) -> int:
    if "--list" not in arguments.given:
        return _serve(options.read(arguments.given))
    scenarios = {name: script.load(name).description for name in script.names()}
    if "--json" in arguments.given:
        rows = [{"name": name, "description": description} for name, description in scenarios.items()]
        return _answer(json_answer({"format": 1, "scenarios": rows}))
    return _answer("".join(f"{name:12} {description}\n" for name, description in scenarios.items()))


MOCKWS: Final = Program(
    name="mockws",
    about=options.ABOUT,
    groups=(),
    commands=(
        Command(
            "serve",
            "Run",
            "Send ticks over WebSocket, with every kind of network fault.",
            options.USAGE,
            {
                ExitCode.COMPLETE: "stopped by SIGINT, SIGTERM or SIGHUP; --quit-at-end: everything was played; --list",
                ExitCode.CRASH: "an internal error (a bug)",
                ExitCode.CONFIG: "the command line, a scenario or a recording is invalid, or an address is in use",
            },
            ("scenarios",),
            _serve_or_list,
        ),
    ),
    default="serve",
    notes=options.NOTES,
    explain=options.explain,
)


def _serve(arguments: options.CommandLine) -> int:
    played = None if arguments.scenario is None else script.load(arguments.scenario)
    if played is not None and arguments.once:
        played = msgspec.structs.replace(played, repeat=1)
    console = Console(GuardedStream(sys.stderr))
    source, recording = _recording(arguments, console)
    # From here on a signal is a request that `run` serves, even if it arrives before `run` has started.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        server = MockServer(
            ServerOptions(
                arguments.host,
                arguments.port,
                Addresses(arguments.ticks, arguments.control),
                arguments.seed,
                played,
                recording,
                arguments.wait_clients,
                arguments.quit_at_end,
                arguments.first_seq,
            ),
            console,
        )
        _answer(msgspec.json.encode(server.announcement).decode() + "\n")
        return server.run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if source is not None:
            source.close()


def _recording(arguments: options.CommandLine, console: Console) -> tuple[Source | None, Recording | None]:
    if arguments.replay is None:
        return None, None
    source = open_source(arguments.replay, "--replay")
    complaints = 0

    def complain(line: int, reason: str) -> None:
        nonlocal complaints
        complaints += 1
        if complaints <= _COMPLAINTS_MAX:
            more = "; further such lines are skipped without a message" if complaints == _COMPLAINTS_MAX else ""
            console.say(f"warning: {source.name}:{line}: skipped: {reason}{more}")

    return source, Recording(source.name, messages(unpack(source.blocks()), complain), arguments.speed)


def _answer(text: str) -> int:
    GuardedStream(sys.stdout).write(text)
    return ExitCode.COMPLETE


if __name__ == "__main__":
    sys.exit(main())

"""The command `mockws`: options to a running server, and how every error reaches the person at the terminal."""

from __future__ import annotations

import signal
import sys

import msgspec

from mockws_server import options, script
from mockws_server.bus import Addresses
from mockws_server.console import Console
from mockws_server.recording import messages
from mockws_server.server import MockServer, Recording, ServerOptions, stop_signals
from tradebot import __version__
from tradebot.core.errors import ConfigError, ExitCode
from tradebot.feeds.replay.byte_source import Source, open_source
from tradebot.feeds.replay.decompress import unpack
from tradebot.output.streams import GuardedStream

_COMPLAINTS_MAX = 20


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal; the process's exit code. Main thread. Raises nothing: errors become one line on stderr."""
    try:
        arguments = options.parse(sys.argv[1:] if argv is None else argv)
        match arguments.command:
            case "help":
                return _answer(options.USAGE)
            case "version":
                return _answer(f"mockws {__version__}\n")
            case "list":
                return _answer("".join(f"{name:12} {script.load(name).description}\n" for name in script.names()))
        return _serve(arguments)
    except ConfigError as error:
        GuardedStream(sys.stderr).write(f"mockws: {error}\n")
        return ExitCode.CONFIG
    except KeyboardInterrupt:
        return ExitCode.COMPLETE


def _serve(arguments: options.Arguments) -> int:
    played = None if arguments.scenario is None else script.load(arguments.scenario)
    if played is not None and arguments.once:
        played = msgspec.structs.replace(played, repeat=1)
    console = Console(GuardedStream(sys.stderr))
    source, recording = _recording(arguments, console)
    # From here on a signal is a request that `run` serves, whenever it comes.
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


def _recording(arguments: options.Arguments, console: Console) -> tuple[Source | None, Recording | None]:
    if arguments.replay is None:
        return None, None
    try:
        source = open_source(arguments.replay)
    except ConfigError as error:
        raise ConfigError(str(error).replace("--replay-file", "--replay")) from None
    complaints = 0

    def complain(line: int, reason: str) -> None:
        nonlocal complaints
        complaints += 1
        if complaints <= _COMPLAINTS_MAX:
            more = "; more such lines are left out without a word" if complaints == _COMPLAINTS_MAX else ""
            console.say(f"warning: {source.name}:{line}: left out: {reason}{more}")

    return source, Recording(source.name, messages(unpack(source.blocks()), complain), arguments.speed)


def _answer(text: str) -> int:
    GuardedStream(sys.stdout).write(text)
    return ExitCode.COMPLETE


if __name__ == "__main__":
    sys.exit(main())

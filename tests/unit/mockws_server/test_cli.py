from __future__ import annotations

import io
import json
import platform
import re
import sqlite3
from pathlib import Path

import pytest

import tradebot
from mockws_server.cli import MOCKWS, main
from mockws_server.console import Console
from mockws_server.options import CommandLine, read
from mockws_server.script import names
from tradebot.cli.program import HELP, VERSION, Arguments
from tradebot.cli.words import take_apart
from tradebot.core.errors import ConfigError
from tradebot.output.streams import GuardedStream


def parse(words: list[str]) -> CommandLine:
    return read(take_apart(MOCKWS, words).given)


def test_defaults() -> None:
    assert parse([]) == CommandLine()
    assert CommandLine().host == "127.0.0.1"
    assert CommandLine().port == 9001
    assert {CommandLine().ticks, CommandLine().control} == {"tcp://127.0.0.1:*"}


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("--scenario=storm --once --seed=3 --quit-at-end", CommandLine(scenario="storm", once=True, seed=3,
                                                                     quit_at_end=True)),
        ("--scenario storm", CommandLine(scenario="storm")),
        ("--replay=x.jsonl --speed=max --wait-clients=2", CommandLine(replay="x.jsonl", speed=None, wait_clients=2)),
        ("--replay=- --speed=REALTIME", CommandLine(replay="-", speed=1.0)),
        ("--replay=x --speed=2.5x", CommandLine(replay="x", speed=2.5)),
        ("--host=0.0.0.0 --port=0", CommandLine(host="0.0.0.0", port=0)),
        ("--ticks=tcp://127.0.0.1:5555 --control=ipc:///tmp/x", CommandLine(ticks="tcp://127.0.0.1:5555",
                                                                          control="ipc:///tmp/x")),
    ],
)  # fmt: skip
def test_options(words: str, arguments: CommandLine) -> None:
    assert parse(words.split()) == arguments


@pytest.mark.parametrize(
    ("words", "command"), [("--scenario=x --help", HELP), ("-h", HELP), ("--version", VERSION), ("-V", VERSION)]
)
def test_help_and_version_win(words: str, command: str) -> None:
    assert take_apart(MOCKWS, words.split()) == Arguments(command, {})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("storm", 'unexpected argument "storm" (did you mean --scenario=storm?)'),
        ("--prot=1", "unknown option --prot (did you mean --port?)"),
        ("--scen=storm", "unknown option --scen"),
        ("--port=1 --port=2", "--port is given twice"),
        ("--port", "--port needs a value"),
        ("--port --once", "--port needs a value"),
        ("--once=yes", "--once takes no value"),
        ("--port=65536", "--port: must be a whole number from 0 to 65535"),
        ("--port=-1", "--port: must be a whole number"),
        ("--seed=x", "--seed: must be a whole number"),
        ("--replay=x --wait-clients=101", "--wait-clients: must be a whole number from 0 to 100"),
        ("--replay=x --speed=fast", "--speed: must be max, realtime or a multiple such as 10x"),
        ("--replay=x --speed=0x", "--speed: must be between 0.001x and 1000000x"),
        ("--ticks=127.0.0.1:5555", "--ticks: must be like tcp://127.0.0.1:5555"),
        ("--ticks=tcp://127.0.0.1:65536", "--ticks: must be like tcp://127.0.0.1:5555"),
        ("--control=tcp://127.0.0.1", "--control: must be like tcp://127.0.0.1:5555"),
        ("--scenario=storm --replay=x", "give --scenario or --replay, not both"),
        ("--once", "--once: only with --scenario"),
        ("--json", "--json: only with --list"),
        ("--scenario=storm --speed=max", "--speed: only with --replay"),
        ("--quit-at-end", "--quit-at-end: only with --scenario or --replay"),
        ("--", "unexpected --"),
    ],
)
def test_mistakes_get_one_line(words: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(words.split())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_option_of_the_usage_is_known_and_spelled_out() -> None:
    named = set(re.findall(r"--[a-z-]+", MOCKWS.help_text())) - {"--ingest"}
    assert named == set(MOCKWS.command("serve").options)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--scenario=strom", 'no scenario "strom" (did you mean storm?)'),
        ("--scenario=/does/not/exist.toml", "no such scenario"),
        ("--replay=/does/not/exist", "No such file or directory; check --replay"),
        ("--replay=/", "is a directory"),
        ("--host=256.0.0.1 --port=0", "cannot listen on 256.0.0.1:0"),
        ("--port=0 --ticks=tcp://256.0.0.1:5555", "--ticks: cannot bind tcp://256.0.0.1:5555"),
        ("--port=0 --control=ipc:///does/not/exist/x", "--control: cannot bind"),
        ("what", "unexpected argument"),
    ],
)
def test_errors_are_one_line_and_12(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 12
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("mockws: ") and said.err.count("\n") == 1
    assert says in said.err
    assert "--replay-file" not in said.err


def test_a_mistake_in_a_file_is_said_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\n[[step]]\ndo = "rest"\n')
    assert main([f"--scenario={path}"]) == 12
    assert capsys.readouterr().err.startswith(f"mockws: {path}:2: step 1: do: unknown action")


def test_help_version_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"mockws {tradebot.__version__}"
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == MOCKWS.help_text()
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert all(len(line.split()) > 5 for line in lines)


class Stream(io.StringIO):
    """A text stream that may claim to be a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class TestConsole:
    def test_one_plain_line_for_each_event(self) -> None:
        stream = Stream(terminal=False)
        console = Console(GuardedStream(stream))
        console.status("never seen")
        console.say("bad \x1b[31m news\n" + "x" * 1000)
        [line] = stream.getvalue().splitlines()
        assert re.match(r"\d\d:\d\d:\d\d bad \\x1b\[31m news\\nxxx", line)
        assert len(line) < 400

    def test_on_a_terminal_the_status_stays_below(self) -> None:
        stream = Stream(terminal=True)
        console = Console(GuardedStream(stream))
        console.status("3 clients")
        console.say("news")
        console.status("")
        before, _, after = stream.getvalue().partition(" news\n")
        assert before.startswith("\r\x1b[K3 clients\r\x1b[K")
        assert after == "3 clients\r\x1b[K"


def test_the_list_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in answer["scenarios"]] == names()
    assert all(row["description"] for row in answer["scenarios"])


def test_the_versions_of_what_it_runs_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"Python {platform.python_version()}" in lines and f"SQLite {sqlite3.sqlite_version}" in lines
    assert any(line.startswith("pyzmq ") for line in lines)

"""The commands: what they answer, their exit codes, and how errors reach people."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tradebot import __version__
from tradebot.cli.main import main
from tradebot.cli.registry import TRADEBOT
from tradebot.config.model import Settings
from tradebot.config.toml_file import load
from tradebot.core.errors import ConfigError, ExitCode, NetworkError, OverloadError, ParseError
from tradebot.feeds.capture_file import CaptureFailed
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.ops.capture import Captured
from tradebot.strategy.registry import CHECKS

REPO = Path(__file__).resolve().parents[3]
Engine = Callable[[Callable[[Settings], Any]], list[Settings]]


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TRADEBOT_", "XDG_")) or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def _replaced(monkeypatch: pytest.MonkeyPatch, module_name: str, function: str) -> Engine:
    """Installs a function in place of a module's entry point; returns the list of the settings it is called with."""

    def install(run: Callable[[Settings], Any]) -> list[Settings]:
        calls: list[Settings] = []

        def record(settings: Settings) -> Any:
            calls.append(settings)
            return run(settings)

        module = types.ModuleType(module_name)
        setattr(module, function, record)
        monkeypatch.setitem(sys.modules, module_name, module)
        return calls

    return install


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return _replaced(monkeypatch, "tradebot.engine", "run_engine")


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return _replaced(monkeypatch, "tradebot.ops.capture", "run_capture")


def complete(_settings: Settings) -> ExitCode:
    return ExitCode.COMPLETE


def fail(error: BaseException) -> Callable[[Settings], Any]:
    def run(_settings: Settings) -> Any:
        raise error

    return run


@pytest.mark.parametrize("words", [["--sample-every=5"], ["run", "--sample-every=5"]])
def test_run_hands_the_settings_to_the_engine(engine: Engine, words: list[str]) -> None:
    calls = engine(complete)
    assert main(words) == 0
    assert [call.config.engine.sample_every for call in calls] == [5]


@pytest.mark.parametrize("code", ExitCode)
def test_run_answers_what_the_engine_answers(engine: Engine, code: ExitCode) -> None:
    """G5: exit codes."""
    engine(lambda settings: code)
    answer = main([])
    assert answer == code
    assert type(answer) is int


def test_words_come_from_the_process_when_none_are_given(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = engine(complete)
    monkeypatch.setattr(sys, "argv", ["tradebot", "--sample-every=7"])
    assert main() == 0
    assert calls[0].config.engine.sample_every == 7


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("no such thing\nlook there"), 12), (ParseError("line 3"), 11), (OverloadError("full"), 13)],
)
def test_an_error_of_the_engine_is_a_message_and_its_code(
    engine: Engine, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    engine(fail(error))
    assert main([]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "tradebot: " + str(error).replace("\n", "\n  ") + "\n")


def test_a_bug_says_where_and_ends_1(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine(fail(KeyError("ws://user:hunter2@host/")))
    assert main([]) == 1
    err = capsys.readouterr().err
    assert err.startswith("tradebot: internal error, a bug: KeyError")
    assert "test_main.py" in err
    assert "hunter2" not in err


def test_an_interrupt_before_the_engine_takes_over_is_a_served_stop(
    engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S13: SIGINT served is 0."""
    engine(fail(KeyboardInterrupt()))
    assert main([]) == 0
    assert capsys.readouterr().err == "tradebot: interrupted\n"

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tradebot.cli.show_config.describe", interrupted)
    assert main(["show-config"]) == 1


MISTAKES: dict[str, str | bytes] = {
    "bad TOML": "mode = ",
    "unknown key": "mod = 'SHADOW'",
    "unknown section": "[engin]\nx = 1",
    "wrong type": "[engine]\nsample_every = 'x'",
    "negative cap": "[risk_caps]\nmax_exposure_usd = -1",
    "zero channel size": "[channels]\ntick_channel_size = 0",
    "unknown mode": "mode = 'DRY'",
    "not UTF-8": b"\xff\xfe",
    "no exchange": "[engine]\ningest_mode = 'realws'",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_run_refuses_each_mistake_with_12_and_one_message(
    engine: Engine, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    """G5, G0: exit 12, readable, no traceback, and the engine never starts."""
    calls = engine(complete)
    content = MISTAKES[mistake]
    Path("bad.toml").write_bytes(content.encode() if isinstance(content, str) else content)
    assert main(["--config=bad.toml"]) == 12
    out, err = capsys.readouterr()
    assert (calls, out) == ([], "")
    assert err.startswith("tradebot: ")
    assert all(line.startswith("  ") for line in err.splitlines()[1:])
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_the_engine_itself_refuses_live_before_it_touches_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text("mode = 'LIVE'\nlive_armed = true\n")
    assert main(["--config=c.toml", "--db=x.db"]) == 12
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tradebot: ") and "mode LIVE" in err
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


@pytest.mark.parametrize(
    "words",
    [
        ["--config=missing.toml"], ["--config=."], ["--frobnicate"], ["frobnicate"], ["--mode=dry"],
        ["--ingest=replay", "--symbol=x"], ["--sample-every=0"], ["--db=:memory:"], ["--resume"],
    ],
)  # fmt: skip
def test_run_refuses_each_wrong_word_with_12(
    engine: Engine, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """G5: bad usage is 12, in one line."""
    calls = engine(complete)
    assert main(words) == 12
    out, err = capsys.readouterr()
    assert (calls, out, err.count("\n")) == ([], "", 1)


def test_check_config_says_yes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("good.toml").write_text("mode = 'SHADOW'\n")
    assert main(["check-config", "good.toml"]) == 0
    assert main(["check-config", "--config=good.toml"]) == 0
    assert main(["check-config"]) == 0
    monkeypatch.setenv("TRADEBOT_CONFIG", "good.toml")
    assert main(["check-config"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "good.toml: valid",
        "good.toml: valid (command line --config)",
        "no configuration file: the defaults apply",
        "good.toml: valid (environment TRADEBOT_CONFIG)",
    ]


def test_check_config_takes_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config=a.toml", "b.toml"]) == 12
    told = "tradebot: give FILE or --config=FILE, not both; try tradebot check-config --help\n"
    assert capsys.readouterr() == ("", told)


def test_check_config_says_no_with_all_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.toml").write_text("mod = 3\n[engine]\nsample_every = 0\n")
    assert main(["check-config", "bad.toml"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "2 things are wrong:",
        "bad.toml:1: mod: unknown key (did you mean mode?)",
        "bad.toml:3: engine.sample_every: must be at least 1, not 0",
    ]
    assert err == ""
    assert main(["check-config", "missing.toml"]) == 1
    assert main(["check-config", ""]) == 1


def test_check_config_notes_what_run_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    Path("live.toml").write_text("mode = 'live'\n")
    assert main(["check-config", "live.toml"]) == 0
    noted = "note: run would refuse it: mode LIVE is refused:\n- live_armed is not true: set it in"
    assert noted in capsys.readouterr().out


def test_commands_other_than_run_answer_0_1_or_12(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-config", "--config=missing.toml"]) == 1
    assert main(["show-config", "--frobnicate"]) == 12
    assert main(["show-config", "--sample-every=0"]) == 12
    assert main(["check-config", "--db=x"]) == 12
    assert capsys.readouterr().out == ""


def test_show_config_tells_values_and_sources(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("c.toml").write_text(
        "\n[engine]\nws_url = 'wss://user:hunter2@example.org/?token=hunter2'\ntick_interval_ms=9\n"
    )
    assert main(["show-config", "--config=c.toml", "--seconds=3", "--log-level=debug"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "hunter2" not in out
    assert lines[0].startswith(f"# tradebot {__version__}, configuration ")
    assert lines[0].endswith("file: c.toml (command line --config)")
    for line in (
        'mode = "SHADOW" # default',
        "tick_interval_ms = 9 # c.toml:4",
        "run_seconds = 3.0 # command line --seconds",
        "# tick_channel_size is not set: 256 # default",
        f'# db_path is not set: "{tmp_path}/.local/state/tradebot/tradebot.db" # default',
        '# log_level = "DEBUG" # command line --log-level',
        '# speed = "max" # default',
    ):
        assert line in lines
    assert any(line.startswith('ws_url = "wss://***@example.org/') and line.endswith("# c.toml:3") for line in lines)


def test_show_config_prints_a_configuration_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-config", "--config", str(REPO / "etc/tradebot/session.toml")]) == 0
    Path("again.toml").write_text(capsys.readouterr().out)
    assert load(Path("again.toml"), CHECKS) == load(REPO / "etc/tradebot/session.toml", CHECKS)


def sources_file(tmp_path: Path) -> Path:
    place = tmp_path / ".config" / "tradebot" / "ws_sources.toml"
    place.parent.mkdir(parents=True)
    place.write_text(
        "[main]\nexchange = 'kraken'\nsymbols = ['BTC/USD', 'ETH/USD']\nidle_timeout_s = 5\nhistory = 'keep'\n"
        "url = 'wss://user:hunter2@example.org/ws'\n"
    )
    return place


def test_show_config_tells_what_a_source_sets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = sources_file(tmp_path)
    assert main(["show-config", "--ingest=realws", "--ws-source=main", "--history=drop"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "hunter2" not in out
    for line in (
        f"idle_timeout_s = 5.0 # {place} [main]",
        "ping_interval_s = 10.0 # default",
        'history = "drop" # command line --history',
        'ws_source = "main" # command line --ws-source',
    ):
        assert line in lines
    assert lines[-1] == "# Listens to kraken at wss://***@example.org/ws: BTC/USD, ETH/USD."
    Path("again.toml").write_text(out)
    assert load(Path("again.toml"), CHECKS).feed.idle_timeout_s == 5.0


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["--ingest=mockws"], "# Listens to mockws at ws://localhost:9001: all that it sends."),
        (["--ingest=replay", "--replay-file=x", "--exchange=okx"], "# Replays recorded frames of okx."),
        (["--ingest=realws", "--exchange=okx", "--symbol=A\u202e"],
         "# Listens to okx at wss://ws.okx.com:8443/ws/v5/public: A\\u202e."),
        (["--seconds=3"], "# run_id is not set # default"),
    ],
)  # fmt: skip
def test_show_config_tells_what_is_listened_to(capsys: pytest.CaptureFixture[str], words: list[str], last: str) -> None:
    assert main(["show-config", *words]) == 0
    assert " ".join(capsys.readouterr().out.splitlines()[-1].split()) == last


def test_show_config_needs_to_know_the_exchange(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-config", "--ingest=realws"]) == 12
    assert capsys.readouterr().err.startswith("tradebot: the feed realws needs --ws-source=NAME, or --exchange=NAME")


def test_sources_lists_what_is_known_and_configured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = sources_file(tmp_path)
    assert main(["sources"]) == 0
    out = capsys.readouterr().out
    assert f"sources (--ws-source=NAME) of {place} (default place):" in out
    assert "main  kraken    BTC/USD ETH/USD  wss://***@example.org/ws" in out
    assert "hunter2" not in out
    for name in EXCHANGES:
        assert f"\n  {name} " in out


def test_sources_beside_the_configuration_or_where_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.toml").write_text("")
    Path("ws_sources.toml").write_text("[beside]\nexchange = 'okx'\nsymbols = ['A']\n")
    assert main(["sources", "--config=c.toml"]) == 0
    assert "(beside the configuration file)" in capsys.readouterr().out
    assert main(["sources", "--ws-sources=ws_sources.toml"]) == 0
    assert "(command line --ws-sources)" in capsys.readouterr().out


def test_sources_says_no(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.toml").write_text("[x]\nexchange = 'okx'\n")
    assert main(["sources", "--ws-sources=bad.toml"]) == 1
    assert main(["sources", "--ws-sources=missing.toml"]) == 1
    assert main(["sources", "--db=x"]) == 12
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("tradebot: bad.toml:1: x: has no symbols")


@pytest.mark.parametrize("mode", ["SHADOW", "PAPER", "LIVE"])
def test_capture_answers_what_was_captured_in_any_mode(
    capture: Engine, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """It sends no order, so that no gate is in its way."""
    Path("c.toml").write_text(f"mode = '{mode}'\n")
    calls = capture(lambda _settings: Captured(3, 2, "okx", "okx-1.jsonl"))
    assert main(["capture", "--config=c.toml", "--exchange=okx", "--symbol=A"]) == 0
    assert capsys.readouterr().out.startswith("3 frames (2 trades) captured, the last of them in okx-1.jsonl\n")
    assert calls[0].live is not None and calls[0].live.exchange == "okx"


@pytest.mark.parametrize("error", [NetworkError("no connection"), ConfigError("no place"), CaptureFailed("disk full")])
def test_a_capture_that_fails_answers_no(capture: Engine, capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    """Other commands than run: 0 yes, 1 no, 12 misused."""
    capture(fail(error))
    assert main(["capture", "--exchange=okx", "--symbol=A"]) == 1
    assert capsys.readouterr().err == f"tradebot: {error}\n"


@pytest.mark.parametrize(
    "words", [[], ["--exchange=okx"], ["--ingest=replay"], ["--exchange=okx", "--symbol=A", "--max-mb=0"], ["--db=x"]]
)
def test_a_misused_capture_answers_12(capture: Engine, words: list[str]) -> None:
    calls = capture(lambda _settings: Captured(0, 0, "okx", None))
    assert main(["capture", *words]) == 12
    assert calls == []


@pytest.mark.parametrize("words", [["--ingest=mockws"], ["--ingest=realws", "--exchange=okx", "--symbol=A"]])
def test_run_hands_live_feeds_to_the_engine(engine: Engine, words: list[str]) -> None:
    calls = engine(complete)
    assert main(words) == 0
    assert calls[0].live is not None


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"tradebot {__version__}"
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage:" in out
    assert "13  OVERLOAD" in out


def python(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": ""} | options.pop("environ", {})
    return subprocess.run([sys.executable, *words], env=environ, text=True, check=False, **options)


def tradebot(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return python("-m", "tradebot", *words, **options)


PRINTING_ENGINE = """
import sys, types
engine = types.ModuleType("tradebot.engine")
engine.run_engine = lambda settings: print("summary") or 0
sys.modules["tradebot.engine"] = engine
from tradebot.cli.main import main
from tradebot.cli.registry import TRADEBOT
sys.exit(main([]))
"""


@pytest.mark.parametrize("words", [("-m", "tradebot", "show-config"), ("-c", PRINTING_ENGINE)])
def test_a_reader_that_has_enough_is_no_error(words: tuple[str, ...]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = python(*words, stdout=write_end, stderr=subprocess.PIPE)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_written_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = tradebot("--version", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "tradebot: cannot write to standard output: No space left on device\n")


def test_python_m_and_a_terminal_that_only_knows_ascii() -> None:
    Path("c.toml").write_text("[app]\nsymbol = 'é'\n", encoding="utf-8")
    environ = {"PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "ignore"}
    done = tradebot("show-config", "--config=c.toml", environ=environ, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'symbol = "\\xe9"' in done.stdout


@pytest.mark.parametrize(
    ("command", "code"),
    [
        *((command, 12) for command in ("run", "status", "health", "soak", "backup", "prune", "install-unit")),
        *((command, 1) for command in ("capture", "doctor", "prove", "show-config", "check-config")),
    ],
)
def test_a_wrong_configuration_file_ends_with_the_code_that_the_registry_names(command: str, code: int) -> None:
    """Where a script asks about an engine it must not take a mistake in the file for the answer no."""
    Path("bad.toml").write_text("mod = 3\n")
    words = {"backup": ["copy.db"], "prune": ["--keep=1d"], "install-unit": ["--print"]}.get(command, [])
    assert main([command, "--config=bad.toml", *words]) == code
    meaning = TRADEBOT.command(command).exit_codes[code]
    assert any(word in meaning for word in ("configuration", "a check failed", "file cannot be used", "not valid"))

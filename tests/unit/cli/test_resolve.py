"""Arguments, environment and file put together: who wins, what fits together, what this release can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.command_lines import words_of
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.config.model import RunOptions, Settings
from tradebot.core.errors import ConfigError, UsageError
from tradebot.core.runtime import RealRuntime
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.ops.gate import require_available
from tradebot.strategy.registry import strategies


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An empty home."""
    return {"HOME": str(tmp_path)}


def settle(words: str, environ: dict[str, str]) -> Settings:
    return resolve(parse(words_of(words)), environ)


def refused(words: str, environ: dict[str, str]) -> str:
    with pytest.raises(UsageError) as caught:
        settle(words, environ)
    return str(caught.value)


def test_nothing_said_means_defaults(environ: dict[str, str]) -> None:
    settings = settle("", environ)
    assert settings.options == RunOptions()
    assert settings.sources.pop("config file") == "none"  # type: ignore[attr-defined]
    assert set(settings.sources.values()) == {"default"}
    assert settings.sources.keys() >= {"mode", "engine.sample_every", "log_level", "speed"}


@pytest.mark.parametrize(
    ("option", "key", "value"),
    [
        ("--mode=paper", "mode", "PAPER"),
        ("--ingest=REPLAY", "engine.ingest_mode", "replay"),
        ("--ingest=mock_ws", "engine.ingest_mode", "mockws"),
        ("--db=x.db", "app.db_path", "x.db"),
        ("--symbol=A/B", "app.symbol", "A/B"),
        ("--strategy=PERIODIC", "strategy.name", "periodic"),
        ("--sample-every=1_000", "engine.sample_every", 1000),
        ("--seconds=2.5", "engine.run_seconds", 2.5),
        ("--ingest=replay --replay-file=-", "engine.replay_file", "-"),
        ("--ingest=replay --history=KEEP", "feed.history", "keep"),
        ("--ingest=mockws --ws-url=ws://localhost:9001", "engine.ws_url", "ws://localhost:9001"),
    ],
)
def test_options_that_say_a_configuration_key(environ: dict[str, str], option: str, key: str, value: object) -> None:
    settings = settle(option, environ)
    found: Any = settings.config
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert settings.sources[key] == f"command line {option.split()[-1].split('=')[0]}"


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--replay-db=o.db", "replay_db", "o.db"),
        ("--replay-run=r1", "replay_run", "r1"),
        ("--replay-db=o.db --resume", "resume", True),
        ("--strict", "strict", True),
        ("--speed=max", "speed", None),
        ("--speed=RealTime", "speed", 1.0),
        ("--speed=10x", "speed", 10.0),
        ("--speed=0.5X", "speed", 0.5),
        ("--log-level=debug", "log_level", "DEBUG"),
        ("--log-format=JSON", "log_format", "json"),
        ("--replay-file=- --run-id=a.b-1", "run_id", "a.b-1"),
    ],
)
def test_options_of_the_run_alone(environ: dict[str, str], option: str, field: str, value: object) -> None:
    settings = settle(f"--ingest=replay {option}", environ)
    assert getattr(settings.options, field) == value
    assert settings.sources[field] == f"command line {option.split()[-1].split('=')[0]}"


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--ingest=realws --symbol=A --exchange=Kraken_Futures", "exchange", "kraken_futures"),
        ("--ingest=replay --replay-file=x --exchange=binance", "exchange", "binance"),
        ("capture --exchange=okx --symbol=A --out=here", "out", "here"),
        ("capture --exchange=okx --symbol=A --max-mb=1", "max_mb", 1),
        ("capture --exchange=okx --symbol=A --max-mb=1000000", "max_mb", 1_000_000),
    ],
)
def test_options_of_live_feeds(environ: dict[str, str], words: str, field: str, value: object) -> None:
    settings = settle(words, environ)
    assert getattr(settings.options, field) == value
    assert settings.sources[field] == f"command line --{field.replace('_', '-')}"


@pytest.mark.parametrize("feed", ["realws", "replay --replay-file=x"])
def test_a_source_is_a_key_of_its_own(environ: dict[str, str], feed: str) -> None:
    settings = settle(f"--ingest={feed} --ws-source=okx-btcusdt", environ)
    assert settings.config.engine.ws_source == "okx-btcusdt"
    assert settings.sources["engine.ws_source"] == "command line --ws-source"


def test_command_line_over_environment_over_file_over_defaults(environ: dict[str, str], tmp_path: Path) -> None:
    file, other = tmp_path / "a.toml", tmp_path / "b.toml"
    file.write_text("[engine]\nsample_every = 2\nrun_seconds = 9\n")
    other.write_text("[engine]\nsample_every = 3\n")
    environ |= {"TRADEBOT_CONFIG": str(other), "TRADEBOT_LOG_LEVEL": "warning"}
    by_environment = settle("", environ)
    assert by_environment.config.engine.sample_every == 3
    assert by_environment.sources["config file"] == f"{other} (environment TRADEBOT_CONFIG)"
    assert by_environment.options.log_level == "WARNING"
    assert by_environment.sources["log_level"] == "environment TRADEBOT_LOG_LEVEL"
    by_option = settle(f"--config={file} --sample-every=5 --log-level=error", environ)
    assert by_option.config.engine.sample_every == 5
    assert by_option.sources["engine.sample_every"] == "command line --sample-every"
    assert by_option.options.log_level == "ERROR"
    assert by_option.sources["log_level"] == "command line --log-level"
    assert (by_option.config.engine.run_seconds, by_option.sources["engine.run_seconds"]) == (9.0, f"{file}:3")
    assert by_option.sources["engine.tick_interval_ms"] == "default"


def test_an_empty_variable_counts_as_not_set(environ: dict[str, str]) -> None:
    settings = settle("", environ | {"TRADEBOT_CONFIG": "", "TRADEBOT_LOG_LEVEL": ""})
    assert settings.options.log_level == "INFO"


def test_a_tilde_in_a_path_is_home(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    file = tmp_path / "c.toml"
    file.write_text("[app]\ndb_path = '~/in-file.db'\n")
    assert settle(f"--config={file}", environ).config.app.db_path == "/h/in-file.db"
    settings = settle("--ingest=replay --db=~/a --replay-file=~/b", environ)
    assert (settings.config.app.db_path, settings.config.engine.replay_file) == ("/h/a", "/h/b")
    assert settle("--ingest=replay --replay-db=~/c", environ).options.replay_db == "/h/c"


def test_named_files_must_exist(environ: dict[str, str]) -> None:
    """An explicit configuration file that is missing is an error, a default one is not."""
    with pytest.raises(ConfigError, match=r"no-such\.toml: no such configuration file"):
        settle("--config=no-such.toml", environ)
    with pytest.raises(ConfigError, match=r"no-such\.toml: no such configuration file"):
        settle("", environ | {"TRADEBOT_CONFIG": "no-such.toml"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--mode=shadwo", '--mode: "shadwo" is not one of LIVE, PAPER, SHADOW (did you mean SHADOW?)'),
        ("--ingest=kafka", '--ingest: "kafka" is not one of mockws, realws, replay, synthetic'),
        ("--strategy=sma", f'--strategy: "sma" is not one of {", ".join(strategies())}'),
        ("--sample-every=0", "--sample-every: must be at least 1, not 0"),
        ("--sample-every=-1", "--sample-every: must be at least 1, not -1"),
        ("--sample-every=1.5", '--sample-every: must be a whole number, not "1.5"'),
        ("--sample-every=\u0663", '--sample-every: must be a whole number, not "\u0663"'),
        ("--seconds=soon", '--seconds: must be a number, not "soon"'),
        ("--seconds=nan", "--seconds: must be a finite number, not nan"),
        ("--seconds=0", "--seconds: must be more than 0, not 0.0"),
        ("--speed=10", '--speed: must be max, realtime or a multiple such as 10x, not "10"'),
        ("--speed=0x", '--speed: must be between 0.001x and 1000000x, not "0x"'),
        ("--speed=-1x", '--speed: must be max, realtime or a multiple such as 10x, not "-1x"'),
        ("--log-level=loud", '--log-level: "loud" is not one of DEBUG, INFO, WARNING, ERROR'),
        ("--log-format=xml", '--log-format: "xml" is not one of json, text'),
        ("--history=forget", '--history: "forget" is not one of drop, keep'),
        ("--ws-url=http://u:hunter2@h", "--ws-url: must begin with ws:// or wss://"),
        ("--db=:memory:", "--db: must be a file: every thread has its own connection, "
                          "and :memory: would give each its own"),
        ("--db=\udcff", "--db: is not valid UTF-8"),
        ("--replay-db=\udcff", "--replay-db: is not valid UTF-8"),
        ("--exchange=nasdaq", f'--exchange: "nasdaq" is not one of {", ".join(EXCHANGES)}'),
        ("--exchange=krakn", f'--exchange: "krakn" is not one of {", ".join(EXCHANGES)} (did you mean kraken?)'),
        (
            "--ws-source=a/b",
            '--ws-source: "a/b" is not a valid name: use up to 64 letters and digits, with . _ : - between them',
        ),
        ("capture --max-mb=0", '--max-mb: must be a whole number of megabytes from 1 to 1_000_000, not "0"'),
        ("capture --max-mb=1000001", "--max-mb: must be a whole number of megabytes from 1 to 1_000_000, "
                                     'not "1000001"'),
        ("capture --max-mb=1.5", '--max-mb: must be a whole number of megabytes from 1 to 1_000_000, not "1.5"'),
        ("capture --out=\udcff", "--out: is not valid UTF-8"),
        (
            "--run-id=a/b",
            '--run-id: "a/b" is not a valid name: use up to 64 letters and digits, with . _ : - between them',
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_never_replaced_by_a_default(environ: dict[str, str], words: str, expected: str) -> None:
    assert refused(words, environ) == expected


def test_a_wrong_variable_is_named(environ: dict[str, str]) -> None:
    text = refused("", environ | {"TRADEBOT_LOG_LEVEL": "loud"})
    assert text == 'environment TRADEBOT_LOG_LEVEL: "loud" is not one of DEBUG, INFO, WARNING, ERROR'


def test_all_wrong_values_are_said_at_once(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("mode = 3\n[engine]\nsample_every = 0\n")
    with pytest.raises(ConfigError) as caught:
        settle(f"--config={file} --seconds=x --speed=y", environ)
    assert not isinstance(caught.value, UsageError)
    said = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert said == ["4 things are wrong:", f"{file}:1", f"{file}:3", "--seconds", "--speed"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--replay-file=x", "--replay-file: only for the feed replay, but the feed is synthetic (default); "
                            "add --ingest=replay"),
        ("--ingest=synthetic --replay-file=x",
         "--replay-file: only for the feed replay, but the feed is synthetic (command line --ingest)"),
        ("--replay-db=x", "--replay-db: only for the feed replay, but"),
        ("--replay-run=x", "--replay-run: only for the feed replay, but"),
        ("--resume", "--resume: only for the feed replay, but"),
        ("--strict", "--strict: only for the feed replay, but"),
        ("--speed=max", "--speed: only for the feed replay, but"),
        ("--run-id=x", "--run-id: only for the feed replay, but"),
        ("--history=drop", "--history: only for the feed replay or mockws or realws, but"),
        ("--exchange=okx", "--exchange: only for the feed realws or replay, but"),
        ("--ws-source=x", "--ws-source: only for the feed realws or replay, but"),
        ("--ws-source=x --ws-sources=y", "2 things are wrong:\n--ws-source: only for the feed realws or replay, but"),
        ("--ingest=mockws --exchange=okx", "--exchange: only for the feed realws or replay, but"),
        ("--ingest=mockws --ws-source=x", "--ws-source: only for the feed realws or replay, but"),
        ("--ingest=mockws --symbol=x", "--symbol: only for the feed synthetic or realws, but"),
        ("--ingest=replay --exchange=okx", "--exchange: says how recorded frames are read; name their file with "
                                           "--replay-file"),
        ("--ingest=replay --replay-db=x --ws-source=okx", "--ws-source: says how recorded frames are read; name"),
        ("--ingest=replay --ws-url=ws://h", "--ws-url: only for the feed mockws or realws, but"),
        ("--ws-url=ws://h", "--ws-url: only for the feed mockws or realws, but"),
        ("--ingest=replay --symbol=x", "--symbol: only for the feed synthetic or realws, but the feed is "
                                       "replay (command line --ingest)"),
        ("--ingest=replay --replay-file=x --replay-db=y", "--replay-file and --replay-db: give one of them"),
        ("--ingest=replay --replay-file=x --replay-run=y", "--replay-run: chooses a run of a database, but a file is "
                                                           "replayed (command line --replay-file); use --replay-db"),
        ("--ingest=replay --replay-file=x --run-id=y", "--run-id: only for a replay from standard input"),
        ("--ingest=replay --run-id=y", "--run-id: only for a replay from standard input"),
        ("--ingest=replay --resume", "--resume: nothing is written when a database replays itself"),
    ],
)  # fmt: skip
def test_options_for_another_feed_are_refused(environ: dict[str, str], words: str, expected: str) -> None:
    assert refused(words, environ).startswith(expected)


@pytest.mark.parametrize(
    "words",
    [
        "--seconds=3 --sample-every=5",
        "--ingest=replay --seconds=3 --sample-every=5",
        "--ingest=replay",
        "--ingest=replay --replay-run=x",
        "--ingest=replay --replay-file=x --resume --strict --speed=2x",
        "--ingest=replay --replay-file=- --resume",
        "--ingest=replay --replay-db=x --replay-run=y --resume",
        "--symbol=X",
        "--ingest=mockws --history=keep --ws-url=ws://h",
        "--ingest=realws --exchange=okx --symbol=X,Y --ws-url=wss://h --history=keep",
        "--ingest=realws --ws-source=okx-btcusdt",
        "--ingest=replay --replay-file=- --exchange=okx --history=keep --strict",
    ],
)
def test_options_that_fit_together_are_taken(environ: dict[str, str], words: str) -> None:
    require_available(settle(words, environ).config, RealRuntime())


def test_a_feed_named_by_the_file_counts(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[engine]\ningest_mode = 'replay'\nreplay_file = 'a.jsonl'\n")
    assert settle(f"--config={file} --strict", environ).options.strict
    assert "(command line --ingest)" in refused(f"--config={file} --strict --ingest=synthetic", environ)
    assert f"({file}:3)" in refused(f"--config={file} --replay-run=x", environ)
    # Keys of a file that another feed would read are no mistake: a file serves many runs.
    settle(f"--config={file} --ingest=synthetic", environ)


def test_a_database_to_replay_replaces_the_file_of_the_configuration(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[engine]\ningest_mode = 'replay'\nreplay_file = 'a.jsonl'\n")
    settings = settle(f"--config={file} --replay-db=o.db --replay-run=r", environ)
    assert settings.config.engine.replay_file is None
    assert settings.sources["engine.replay_file"] == "command line --replay-db"


def test_paper_is_available(environ: dict[str, str]) -> None:
    require_available(settle("--mode=paper", environ).config, RealRuntime())


def test_live_names_each_unmet_condition(environ: dict[str, str], tmp_path: Path) -> None:
    """G0: live fails closed, armed or not; the gate itself is tested beside it."""
    bundle = tmp_path / ".local/state/tradebot/proof_bundle.json"
    no_bundle = f"there is no proof bundle {bundle}; run tradebot prove with the --config and --db of this run"
    no_gateway = "no live gateway is available: this release never sends an order; use mode SHADOW"
    with pytest.raises(ConfigError) as caught:
        require_available(settle("--mode=live", environ).config, RealRuntime(), environ)
    armed = "live_armed is not true: set it in the configuration file"
    assert str(caught.value).split("\n- ") == ["mode LIVE is refused:", armed, no_bundle, no_gateway]
    file = tmp_path / "c.toml"
    file.write_text("mode = 'LIVE'\nlive_armed = true\n")
    with pytest.raises(ConfigError) as caught:
        require_available(settle(f"--config={file} --db={tmp_path}/x.db", environ).config, RealRuntime(), environ)
    no_bundle = no_bundle.replace(str(bundle), f"{tmp_path}/proof_bundle.json")
    assert str(caught.value).split("\n- ") == ["mode LIVE is refused:", no_bundle, no_gateway]

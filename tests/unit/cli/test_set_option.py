"""`--set KEY=VALUE`: any key, as strong as an option, checked and masked like the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tradebot.cli.arguments import parse
from tradebot.cli.given import Given
from tradebot.cli.main import main
from tradebot.cli.resolve import resolve
from tradebot.cli.set_option import read_sets
from tradebot.config.model import Config, Settings, config_hash
from tradebot.config.secret_urls import visible_credentials
from tradebot.config.validation import KEYS, flatten
from tradebot.core.errors import ConfigError, UsageError

HOOK = "https://chat.example/hook/hunter2-hunter2-hunter2-1"
WS = "wss://user:hunter2@feed.example/ws"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An empty home."""
    return {"HOME": str(tmp_path)}


def settle(words: list[str], environ: dict[str, str]) -> Settings:
    return resolve(parse(words), environ)


def refused(words: list[str], environ: dict[str, str]) -> str:
    with pytest.raises(UsageError) as caught:
        settle(words, environ)
    return str(caught.value)


EXAMPLES: dict[str, str] = {
    "mode": "paper", "live_armed": "TRUE", "app.symbol": "A/B", "app.db_path": "x.db",
    "engine.ingest_mode": "mock_ws", "engine.ws_url": "ws://h", "engine.ws_url_file": "/x",
    "engine.ws_source": "okx-btcusdt", "engine.replay_file": "x.jsonl", "persist.synchronous": "full",
    "feed.max_message_bytes": "99",
    "strategy.name": "PERIODIC", "strategy.long_window": "30", "strategy.short_window": "3", "feed.history": "keep",
    "metrics.address": "::1", "metrics.hosts": "a,b", "notify.webhook_url": "https://h/x",
    "notify.webhook_url_file": "/x", "account.allow_short": "TRUE", "execution.fee_rate": "0.5",
    "strategy.confidence": "0.5", "breakers.cancel_open": "true",
    "execution.order_type": "limit", "execution.post_only": "true", "paper.participation": "0.5",
    "paper.queue": "front", "paper.on_gap": "cancel",
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_set(environ: dict[str, str], key: str) -> None:
    """Whatever its type: the value arrives as the file's would, and its source says where it is from."""
    words = [f"--set={key}={EXAMPLES.get(key, '2')}"]
    feeds = {"app.symbol": "synthetic", "engine.ws_url": "mockws", "feed.history": "mockws"}
    feeds |= {"engine.replay_file": "replay"}
    if key in feeds:
        words.append(f"--ingest={feeds[key]}")
    if key == "execution.post_only":
        words.append("--set=execution.order_type=limit")
    if key == "engine.ws_source":
        words += ["--ingest=replay", "--replay-file=x"]
    settings = resolve(parse(words), environ, with_secrets=False)
    assert settings.sources[key] == f"command line --set {key}"
    value, default = flatten(settings.config)[key], flatten(Config())[key]
    assert value != default or key == "engine.sample_every"
    assert isinstance(value, type(default)) or default is None


def test_it_is_above_environment_file_and_source_and_hashes_like_the_file(
    environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[engine]\nsample_every = 2\nrun_seconds = 9\n[strategy]\nshort_window = 7\n")
    settings = settle([f"--config={file}", "--set", "engine.sample_every=5"], environ)
    assert settings.config.engine.sample_every == 5
    assert settings.config.engine.run_seconds == 9.0
    same = tmp_path / "same.toml"
    same.write_text("[engine]\nsample_every = 5\nrun_seconds = 9\n[strategy]\nshort_window = 7\n")
    written = settle([f"--config={same}"], environ)
    assert config_hash(settings.config) == config_hash(written.config)
    assert settings.config == written.config

    sources = tmp_path / "ws.toml"
    sources.write_text("[main]\nexchange = 'okx'\nsymbols = ['A']\nidle_timeout_s = 5\n")
    live = ["--ingest=realws", "--ws-source=main", f"--ws-sources={sources}"]
    assert settle(live, environ).config.feed.idle_timeout_s == 5.0
    assert settle([*live, "--set=feed.idle_timeout_s=77"], environ).config.feed.idle_timeout_s == 77.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["foo"], '--set: "foo" has no value; write --set KEY=VALUE'),
        (["mode"], '--set: "mode" has no value; write --set KEY=VALUE'),
        (["engine.sample_evry"],
         '--set: "engine.sample_evry" has no value (did you mean engine.sample_every?); write --set KEY=VALUE'),
        (["engine.sample_evry=3"], "--set engine.sample_evry: unknown key (did you mean engine.sample_every?); "
                                   "tradebot show-config lists all keys"),
        (["sample_every=3"], "--set sample_every: unknown key (did you mean engine.sample_every?); "
                             "tradebot show-config lists all keys"),
        (["feed.sample_every=3"], "--set feed.sample_every: unknown key (did you mean engine.sample_every?); "
                                  "tradebot show-config lists all keys"),
        (["engine.zzz=3"], "--set engine.zzz: unknown key; tradebot show-config lists all keys"),
        (["zzz=3"], "--set zzz: unknown key; tradebot show-config lists all keys"),
        (["engine=3"], "--set engine: is a section; name one of its keys, for example engine.ingest_mode"),
        (["=3"], '--set "": unknown key; tradebot show-config lists all keys'),
        (["a\x1b[2J=3"], '--set "a\\u001b[2J": unknown key; tradebot show-config lists all keys'),
        (["engine.sample_every=0"], "--set engine.sample_every: must be at least 1, not 0"),
        (["engine.sample_every=x"], '--set engine.sample_every: must be a whole number, not "x"'),
        (["engine.sample_every="], '--set engine.sample_every: must be a whole number, not ""'),
        (["live_armed=yes"], '--set live_armed: must be true or false, not "yes"'),
        (["mode=shadwo"], '--set mode: "shadwo" is not one of LIVE, PAPER, SHADOW (did you mean SHADOW?)'),
        (["engine.sample_every=2", "engine.sample_every=2"], "--set engine.sample_every: is given twice; give it once"),
        (["metrics.port=1", "metrics.port=2"], "--set metrics.port: is given twice; give it once"),
        (["notify.webhook_url=ftp://u:hunter2@h"], "--set notify.webhook_url: must begin with http:// or https://"),
        (["strategy.short_window=50"],
         "--set strategy.short_window: strategy.short_window: must be smaller than strategy.long_window, but 50 is not "
         "smaller than 20"),
        (["strategy.long_window=2"],
         "--set strategy.long_window: strategy.short_window: must be smaller than strategy.long_window, but 5 is not "
         "smaller than 2"),
        (["notify.webhook_url=https://h/x", "notify.webhook_url_file=/x"],
         "--set notify.webhook_url_file: notify.webhook_url_file: notify.webhook_url is set, too; keep one of them"),
        # The rule between two keys is left out where one of them is wrong by itself.
        (["strategy.short_window=50", "strategy.long_window=x"],
         '--set strategy.long_window: must be a whole number, not "x"'),
        (["engine.replay_file=x"], "--set engine.replay_file: only for the feed replay, but the feed is synthetic "
                                   "(default); add --ingest=replay"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(environ: dict[str, str], words: list[str], expected: str) -> None:
    assert refused([f"--set={word}" for word in words], environ) == expected


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--sample-every=2", "engine.sample_every=2"),
        ("--db=x", "app.db_path=x"),
        ("--seconds=1", "engine.run_seconds=1"),
    ],
)
def test_a_key_is_given_once_whichever_way(environ: dict[str, str], option: str, key: str) -> None:
    said = refused([option, "--set", key], environ)
    name = option.partition("=")[0]
    assert said == f"{name} and --set {key.partition('=')[0]}: give one of them; try tradebot run --help"


def test_options_and_keys_are_compared(environ: dict[str, str]) -> None:
    """What holds between options holds for a key in an option's place."""
    replay = ["--ingest=replay", "--set=engine.replay_file=x"]
    assert settle([*replay, "--resume"], environ).options.resume
    assert "give one of them" in refused([*replay, "--replay-db=y"], environ)
    assert settle(["--set=engine.ingest_mode=replay", "--strict"], environ).options.strict
    said = refused(["--set=engine.ingest_mode=synthetic", "--strict"], environ)
    assert said == (
        "--strict: only for the feed replay, but the feed is synthetic (command line --set engine.ingest_mode)"
    )


def test_all_mistakes_are_said_with_those_of_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("mode = 3\n")
    with pytest.raises(ConfigError) as caught:
        settle([f"--config={file}", "--set=a=1", "--set=metrics.port=x", "--speed=y"], environ)
    said = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    assert said == ["4 things are wrong:", f"{file}:1", "--set a", "--speed", "--set metrics.port"]


def test_a_secret_is_never_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["show-config", "--ingest=mockws", f"--set=engine.ws_url={WS}", f"--set=notify.webhook_url={HOOK}"]
    assert main(words) == 0
    assert main([*words, "--json"]) == 0
    for mistake in (f"engine.ws_url{WS}", f"engine.ws_ulr={WS}", f"{WS}=1", f"app.symbol={WS}", f"metrics.port={WS}"):
        assert main(["show-config", "--set", mistake]) in (0, 12)
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
    assert 'ws_url = "wss://***@feed.example/ws"' in out and 'webhook_url = "https://chat.example/***"' in out


def test_a_url_of_the_command_line_wins_over_environment_and_files(environ: dict[str, str], tmp_path: Path) -> None:
    """--set is a command line option like --ws-url: above $TRADEBOT_WS_URL and above what a file names."""
    file = tmp_path / "c.toml"
    file.write_text("[engine]\nws_url_file = '/nowhere'\n[notify]\nwebhook_url_file = '/nowhere'\n")
    environ |= {"TRADEBOT_WS_URL": "ws://of-environment", "TRADEBOT_WEBHOOK_URL": "https://of-environment/"}
    words = [f"--config={file}", "--ingest=mockws", "--set=engine.ws_url=ws://here", f"--set=notify.webhook_url={HOOK}"]
    settings = settle(words, environ)
    assert settings.live is not None and settings.live.url == "ws://here"
    assert settings.secrets.webhook_url is None and settings.config.notify.webhook_url == HOOK
    assert settings.config.engine.ws_url_file is settings.config.notify.webhook_url_file is None

    (tmp_path / "url").write_text("ws://of-file\n")
    (tmp_path / "hook").write_text("https://of-file/\n")
    files = [f"--set=engine.ws_url_file={tmp_path}/url", f"--set=notify.webhook_url_file={tmp_path}/hook"]
    settings = settle(["--ingest=mockws", *files], environ)
    assert settings.live is not None and settings.live.url == "ws://of-file"
    assert settings.secrets.webhook_url == "https://of-file/"


def test_commands_that_look_after_an_engine_use_it(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[app]\ndb_path = '/of/file.db'\n")
    given = Given(parse(["status", f"--config={file}", "--set", "app.db_path=/here.db"]), environ)
    assert given.found().db_path == Path("/here.db")
    given = Given(parse(["soak", "--set", f"notify.webhook_url={HOOK}"]), environ)
    assert given.found().config.notify.webhook_url == HOOK
    for words in (["status", "--set=app.db_pth=x"], ["status", "--db=x", "--set=app.db_path=x"]):
        with pytest.raises(UsageError, match=r"did you mean app\.db_path|give one of them"):
            Given(parse(words), environ).found()


def test_words_are_only_split_at_the_first_equals_sign() -> None:
    assert read_sets(["app.symbol=A=B", "notify.webhook_url=https://h/?a=b"]).texts == {
        "app.symbol": "A=B",
        "notify.webhook_url": "https://h/?a=b",
    }


def test_credentials_on_the_command_line_are_warned_of(environ: dict[str, str], tmp_path: Path) -> None:
    """`ps` shows them to every user, whichever option holds them; those of a file or the environment are not there."""

    def warnings(*words: str) -> list[str]:
        settings = settle(["--ingest=mockws", *words], environ)
        return visible_credentials(settings.config, settings.sources)

    for words in ([f"--ws-url={WS}"], [f"--set=engine.ws_url={WS}"]):
        [warning] = warnings(*words)
        assert "engine.ws_url_file" in warning
    [warning] = warnings(f"--set=notify.webhook_url={HOOK}")
    assert "notify.webhook_url_file" in warning and "hunter2" not in warning
    file = tmp_path / "c.toml"
    file.write_text(f"[engine]\nws_url = '{WS}'\n[notify]\nwebhook_url = '{HOOK}'\n")
    assert warnings("--set=engine.ws_url=ws://h") == warnings(f"--config={file}") == warnings() == []


def test_the_log_level_of_a_command_comes_from_its_option_else_from_the_environment() -> None:
    variable = {"TRADEBOT_LOG_LEVEL": "error"}
    assert Given(parse(["soak"]), {}).log_level() == "INFO"
    assert Given(parse(["soak"]), variable).log_level() == "ERROR"
    assert Given(parse(["soak", "--log-level=debug"]), variable).log_level() == "DEBUG"
    with pytest.raises(UsageError, match=r"^environment TRADEBOT_LOG_LEVEL: .* is not one of"):
        Given(parse(["soak"]), {"TRADEBOT_LOG_LEVEL": "loud"}).log_level()
    with pytest.raises(UsageError, match=r"^--log-level: .* is not one of .*; try tradebot soak --help$"):
        Given(parse(["soak", "--log-level=loud"]), variable).log_level()


def test_the_hint_names_the_command(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"give one of them; try tradebot status --help$"):
        Given(parse(["status", "--db=x", "--set", "app.db_path=y"]), environ).found()

"""Secret URLs from the environment and from files: who wins, what is wrong, and that none of them is ever shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.command_lines import words_of
from tradebot.cli.arguments import parse
from tradebot.cli.main import main
from tradebot.cli.resolve import resolve
from tradebot.cli.show_config import describe
from tradebot.config.model import Secrets, Settings, config_hash
from tradebot.core.errors import ConfigError, TradebotError, UsageError
from tradebot.output.redaction import mask_path

WS = "wss://user:hunter2@feed.example/ws"
HOOK = "https://chat.example/x?id=hunter2"


class Case:
    """A configuration file, an environment, and what comes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"HOME": str(folder)}
        self.words = "--exchange=binance --ingest=realws --symbol=BTCUSDT"

    def config(self, text: str) -> None:
        """Write the configuration file."""
        (self.folder / "c.toml").write_text(text)
        self.environ["TRADEBOT_CONFIG"] = str(self.folder / "c.toml")

    def file(self, text: str = f"{WS}\n", name: str = "url") -> Path:
        """Write a file for a secret."""
        path = self.folder / name
        path.write_text(text)
        return path

    def settings(self, more: str = "", with_secrets: bool = True) -> Settings:
        """What a run would get."""
        return resolve(parse(words_of(f"{self.words} {more}".strip())), self.environ, with_secrets)

    def refused(self, kind: type[TradebotError] = ConfigError) -> str:
        """Why there is no run."""
        with pytest.raises(kind) as caught:
            self.settings()
        assert "hunter2" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def url_of(settings: Settings) -> str:
    assert settings.live is not None
    return settings.live.url


def test_the_feeds_url_from_a_file(case: Case) -> None:
    case.config(f"[engine]\nws_url_file = '{case.file()}'\n")
    settings = case.settings()
    assert url_of(settings) == settings.secrets.ws_url == WS
    assert settings.config.engine.ws_url is None, "no listing or hash of the configuration can show it"


def test_the_webhook_from_a_file(case: Case) -> None:
    case.config(f"[notify]\nwebhook_url_file = '{case.file(HOOK)}'\n")
    assert case.settings().secrets == Secrets(None, HOOK)


def test_the_environment_beats_the_file_and_the_command_line_beats_both(case: Case) -> None:
    case.config(f"[engine]\nws_url_file = '{case.folder / 'missing'}'\n[notify]\nwebhook_url = 'https://h/other'\n")
    case.environ |= {"TRADEBOT_WS_URL": WS, "TRADEBOT_WEBHOOK_URL": HOOK}
    settings = case.settings()
    assert (url_of(settings), settings.secrets.webhook_url) == (WS, HOOK)
    told = case.settings("--ws-url=wss://here.example")
    assert (url_of(told), told.secrets.ws_url, told.config.engine.ws_url_file) == ("wss://here.example", None, None)


def test_a_source_keeps_its_exchange_and_symbols(case: Case) -> None:
    """Only where it listens comes from the secret."""
    sources = case.file('[x]\nexchange = "binance"\nsymbols = ["BTCUSDT"]\nurl = "wss://a.example"\n', "s.toml")
    case.words = f"--ingest=realws --ws-source=x --ws-sources={sources}"
    case.config(f"[engine]\nws_url_file = '{case.file()}'\n")
    settings = case.settings()
    assert settings.live is not None
    assert (settings.live.exchange, settings.live.symbols, settings.live.url) == ("binance", ("BTCUSDT",), WS)
    assert "feed.example" not in settings.live.source


def test_mockws_too(case: Case) -> None:
    case.words = "--ingest=mockws"
    case.environ["TRADEBOT_WS_URL"] = WS
    settings = case.settings()
    assert url_of(settings) == WS and settings.live is not None and "hunter2" not in settings.live.source


@pytest.mark.parametrize("words", ["--ingest=synthetic", "--ingest=replay --replay-file=x"])
def test_other_feeds_read_no_url(case: Case, words: str) -> None:
    case.words = words
    case.config(f"[engine]\nws_url_file = '{case.folder / 'missing'}'\n")
    case.environ["TRADEBOT_WS_URL"] = "nonsense"
    assert case.settings().secrets == Secrets()


def test_relative_names_are_credentials_of_systemd(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    (case.folder / "credentials").mkdir()
    case.file(WS, "credentials/feed")
    case.config("[engine]\nws_url_file = 'feed'\n")
    case.environ["CREDENTIALS_DIRECTORY"] = str(case.folder / "credentials")
    assert url_of(case.settings()) == WS
    del case.environ["CREDENTIALS_DIRECTORY"]
    monkeypatch.chdir(case.folder / "credentials")
    assert url_of(case.settings()) == WS, "without systemd it is a file like any other"


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)  # opening it would wait for a writer


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "cannot be read: No such file or directory"),
        (folder, "cannot be read: Is a directory"),
        (fifo, "is not a regular file"),
        (lambda path: path.write_text(""), "is empty: it must contain one line, the URL"),
        (lambda path: path.write_text(" \n\n"), "is empty"),
        (lambda path: path.write_text(f"{WS}\n{WS}\n"), "has more than one line"),
        (lambda path: path.write_text(WS + "x" * 5000), "is larger than 4096 bytes"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
        (lambda path: path.write_text("wss://user:hunter2@h/\x01"), "contains control characters"),
        (lambda path: path.write_text("http://user:hunter2@h/"), "must begin with ws:// or wss://"),
    ],
)
def test_what_is_wrong_with_a_file_names_place_key_and_file(
    case: Case, spoil: Callable[[Path], object], said: str
) -> None:
    path = case.file()
    case.config(f"[engine]\nws_url_file = '{path}'\n")
    spoil(path)
    assert case.refused().startswith(f"{case.folder / 'c.toml'}:2: engine.ws_url_file: {path}: {said}")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_file_of_somebody_else(case: Case) -> None:
    path = case.file()
    path.chmod(0)
    case.config(f"[engine]\nws_url_file = '{path}'\n")
    assert "cannot be read: Permission denied" in case.refused()


def test_what_is_wrong_with_a_variable_names_it(case: Case) -> None:
    case.environ["TRADEBOT_WEBHOOK_URL"] = "ftp://hunter2@h"
    assert case.refused(UsageError) == "environment TRADEBOT_WEBHOOK_URL: must begin with http:// or https://"
    case.environ["TRADEBOT_WEBHOOK_URL"] = ""
    assert case.settings().secrets == Secrets(), "empty counts as not set"


def test_no_hash_depends_on_what_they_hold(case: Case) -> None:
    case.config(f"[engine]\nws_url_file = '{case.file()}'\n")
    before = config_hash(case.settings().config)
    case.file(WS.replace("hunter2", "renewed"))
    assert config_hash(case.settings().config) == before == config_hash(case.settings(with_secrets=False).config)
    case.environ |= {"TRADEBOT_WS_URL": WS, "TRADEBOT_WEBHOOK_URL": HOOK}
    assert config_hash(case.settings().config) == before


def test_show_config_names_the_places_and_reads_nothing(case: Case) -> None:
    """Who looks at a configuration may not be allowed to read its secrets."""
    missing = case.folder / "missing"
    case.config(f"[engine]\nws_url_file = '{missing}'\n[notify]\nwebhook_url = '{HOOK}'\n")
    case.environ["TRADEBOT_WEBHOOK_URL"] = HOOK
    shown = "\n".join(describe(case.settings(with_secrets=False), case.environ))
    assert f"# ws_url is not set: read from {missing}" in shown
    assert f"Listens to binance at the URL in {missing}: BTCUSDT." in shown
    assert 'webhook_url = "https://chat.example/***"' in shown
    assert "c.toml:4, but read from environment TRADEBOT_WEBHOOK_URL" in shown
    assert "hunter2" not in shown


def test_show_config_as_a_command(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.config(f"[engine]\ningest_mode = 'mockws'\nws_url_file = '{case.folder / 'missing'}'\n")
    for name, value in case.environ.items():
        monkeypatch.setenv(name, value)
    assert main(["show-config"]) == 0
    assert "missing" in capsys.readouterr().out


def test_the_secrets_show_themselves_to_nobody(case: Case) -> None:
    case.environ["TRADEBOT_WEBHOOK_URL"] = HOOK
    assert "hunter2" not in repr(case.settings())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://chat.example/x?id=1", "https://chat.example/***"),
        ("https://chat.example?id=1", "https://chat.example/***"),
        ("https://u:p@chat.example:8443/", "https://***@chat.example:8443/***"),
        ("https://chat.example", "https://chat.example"),
    ],
)
def test_of_a_webhook_only_the_host_is_shown(url: str, shown: str) -> None:
    assert mask_path(url) == shown

"""Which exchange a run listens to: options, configuration and ws_sources.toml put together, and what to do when not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.command_lines import words_of
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.config.model import Live, Settings
from tradebot.core.errors import ConfigError, UsageError
from tradebot.feeds import sources_file as source_files
from tradebot.feeds.exchanges import EXCHANGES

SOURCES = """
[main]
exchange = "kraken"
symbols = ["BTC/USD", "ETH/USD"]
url = "wss://user:hunter2@example.org/ws"
idle_timeout_s = 5
history = "keep"

[plain]
exchange = "binance"
symbols = ["btcusdt"]
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home with a sources file."""
    place = tmp_path / ".config" / "tradebot"
    place.mkdir(parents=True)
    (place / "ws_sources.toml").write_text(SOURCES)
    return {"HOME": str(tmp_path)}


def settle(words: str, environ: dict[str, str]) -> Settings:
    return resolve(parse(words_of(words)), environ)


def live_of(words: str, environ: dict[str, str]) -> Live:
    found = settle(words, environ).live
    assert found is not None
    return found


def refused(words: str, environ: dict[str, str]) -> str:
    with pytest.raises(UsageError) as caught:
        settle(words, environ)
    return str(caught.value)


class TestFeedsWithoutAnExchange:
    @pytest.mark.parametrize("words", ["", "--ingest=replay --replay-file=x", "--ingest=replay --replay-db=x"])
    def test_listen_to_nothing(self, environ: dict[str, str], words: str) -> None:
        assert settle(words, environ).live is None


class TestMockws:
    def test_the_local_server_unless_told(self, environ: dict[str, str]) -> None:
        """ws://localhost:9001."""
        live = live_of("--ingest=mockws", environ)
        assert live == Live("mockws", "ws://localhost:9001", (), "mockws:ws://localhost:9001")

    def test_elsewhere(self, environ: dict[str, str], tmp_path: Path) -> None:
        assert live_of("--ingest=mockws --ws-url=ws://127.0.0.1:7", environ).url == "ws://127.0.0.1:7"
        (tmp_path / "c.toml").write_text("[engine]\ningest_mode = 'mockws'\nws_url = 'ws://127.0.0.1:8'\n")
        assert live_of(f"--config={tmp_path}/c.toml", environ).url == "ws://127.0.0.1:8"

    def test_its_name_in_the_database_has_no_credentials(self, environ: dict[str, str]) -> None:
        live = live_of("--ingest=mockws --ws-url=ws://user:hunter2@localhost:7", environ)
        assert live.source == "mockws:ws://***@localhost:7"


class TestByExchange:
    def test_at_its_own_url(self, environ: dict[str, str]) -> None:
        live = live_of("--ingest=realws --exchange=BINANCE --symbol=btcusdt", environ)
        assert live == Live("binance", EXCHANGES["binance"].url, ("btcusdt",), "binance:btcusdt")

    def test_elsewhere(self, environ: dict[str, str]) -> None:
        live = live_of("--ingest=realws --exchange=kraken --symbol=A --ws-url=ws://localhost:7", environ)
        assert (live.url, live.source) == ("ws://localhost:7", "kraken:A")

    def test_a_list_of_symbols(self, environ: dict[str, str]) -> None:
        """In the order given, each once; a restart with another order finds its predecessor."""
        live = live_of("--ingest=realws --exchange=kraken --symbol=B,A,,B,", environ)
        assert (live.symbols, live.source) == (("B", "A"), "kraken:A,B")

    def test_symbols_of_the_configuration(self, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text("[engine]\ningest_mode = 'realws'\n[app]\nsymbol = 'A, B'\n")
        assert live_of(f"--config={tmp_path}/c.toml --exchange=kraken", environ).symbols == ("A", "B")

    @pytest.mark.parametrize("more", ["", " --symbol=,"])
    def test_without_a_symbol(self, environ: dict[str, str], more: str) -> None:
        """The symbol of the synthetic feed is no choice."""
        assert refused(f"--ingest=realws --exchange=kraken{more}", environ) == (
            "--exchange=kraken needs --symbol=SYM, as the exchange writes it (separate several with commas);"
            " try tradebot run --help"
        )

    def test_more_symbols_than_the_configuration_allows(self, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text("[feed]\nmax_symbols = 2\n")
        words = f"--config={tmp_path}/c.toml --ingest=realws --exchange=kraken --symbol"
        assert live_of(f"{words}=A,B", environ).symbols == ("A", "B")
        assert refused(f"{words}=A,B,C", environ) == "--symbol: has 3 symbols, but feed.max_symbols is 2"

    def test_of_recorded_frames(self, environ: dict[str, str]) -> None:
        live = live_of("--ingest=replay --replay-file=x --exchange=kraken", environ)
        assert (live.exchange, live.url, live.symbols) == ("kraken", "", ())


class TestBySource:
    def test_everything_is_in_it(self, environ: dict[str, str], tmp_path: Path) -> None:
        settings = settle("--ingest=realws --ws-source=main", environ)
        assert settings.live == Live(
            "kraken", "wss://user:hunter2@example.org/ws", ("BTC/USD", "ETH/USD"), "kraken:BTC/USD,ETH/USD"
        )
        assert (settings.config.feed.idle_timeout_s, settings.config.feed.history) == (5.0, "keep")
        path = tmp_path / ".config" / "tradebot" / "ws_sources.toml"
        assert settings.sources["feed.idle_timeout_s"] == settings.sources["feed.history"] == f"{path} [main]"
        assert settings.sources["feed.ping_interval_s"] == "default"

    def test_the_exchanges_own_url(self, environ: dict[str, str]) -> None:
        settings = settle("--ingest=realws --ws-source=plain", environ)
        assert settings.live is not None and settings.live.url == EXCHANGES["binance"].url
        assert settings.config.feed == settle("", environ).config.feed

    def test_over_the_configuration_file(self, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text(
            "[engine]\nws_url = 'ws://elsewhere'\n[app]\nsymbol = 'X'\n[feed]\nidle_timeout_s = 9\n"
            "ping_interval_s = 8\n"
        )
        settings = settle(f"--config={tmp_path}/c.toml --ws-sources={source_of(environ)} --ingest=realws"
                          " --ws-source=main", environ)  # fmt: skip
        assert settings.live is not None
        assert (settings.live.url, settings.live.symbols[0]) == ("wss://user:hunter2@example.org/ws", "BTC/USD")
        assert (settings.config.feed.idle_timeout_s, settings.config.feed.ping_interval_s) == (5.0, 8.0)

    def test_under_the_command_line(self, environ: dict[str, str]) -> None:
        settings = settle(
            "--ingest=realws --ws-source=main --history=drop --ws-url=ws://localhost:7 --symbol=X,Y", environ
        )
        assert settings.live == Live("kraken", "ws://localhost:7", ("X", "Y"), "kraken:X,Y")
        assert settings.config.feed.history == "drop"
        assert settings.sources["feed.history"] == "command line --history"

    def test_of_recorded_frames(self, environ: dict[str, str]) -> None:
        settings = settle("--ingest=replay --replay-file=x --ws-source=main", environ)
        assert settings.live is not None and settings.live.exchange == "kraken"
        assert settings.config.feed.history == "keep"

    def test_a_file_of_ones_own(self, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text("[x]\nexchange = 'okx'\nsymbols = ['A']\n")
        words = f"--ingest=realws --ws-source=x --ws-sources={tmp_path}/mine.toml"
        assert live_of(words, environ).exchange == "okx"

    def test_a_source_that_is_not_there(self, environ: dict[str, str]) -> None:
        with pytest.raises(ConfigError) as caught:
            settle("--ingest=realws --ws-source=mian", environ)
        assert str(caught.value) == (
            f"--ws-source: {source_of(environ)} has no source mian (did you mean main?); tradebot sources lists them"
        )

    def test_no_sources_file(self, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(source_files, "find", lambda *_args: None)
        assert refused("--ingest=realws --ws-source=x", environ) == (
            "--ws-source=x: there is no ws_sources.toml; name one with --ws-sources"
        )

    def test_a_sources_file_that_is_missing_or_wrong(self, environ: dict[str, str], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="nowhere"):
            settle("--ingest=realws --ws-source=x --ws-sources=nowhere", environ)
        (tmp_path / "bad.toml").write_text("[x]\nexchange = 'nasdaq'\n")
        with pytest.raises(ConfigError, match=r"bad\.toml:2"):
            settle(f"--ingest=realws --ws-source=x --ws-sources={tmp_path}/bad.toml", environ)

    def test_more_symbols_than_the_configuration_allows(self, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "c.toml").write_text("[feed]\nmax_symbols = 1\n")
        with pytest.raises(ConfigError, match=r"has 2 symbols, but feed\.max_symbols is 1"):
            settle(f"--config={tmp_path}/c.toml --ingest=realws --ws-source=main"
                   f" --ws-sources={source_of(environ)}", environ)  # fmt: skip


def source_of(environ: dict[str, str]) -> str:
    return f"{environ['HOME']}/.config/tradebot/ws_sources.toml"


class TestNothingNamed:
    def test_the_message_says_what_to_name(self, environ: dict[str, str]) -> None:
        assert refused("--ingest=realws", environ) == (
            "the feed realws needs --ws-source=NAME, or --exchange=NAME and --symbol=SYM; see tradebot sources"
        )

    def test_both(self, environ: dict[str, str]) -> None:
        for mode in ("realws", "replay --replay-file=x"):
            assert refused(f"--ingest={mode} --exchange=kraken --ws-source=main", environ) == (
                "--exchange and --ws-source: give one of them; try tradebot run --help"
            )

    def test_a_file_to_look_in_and_nothing_to_look_for(self, environ: dict[str, str]) -> None:
        assert refused("--ingest=realws --exchange=kraken --symbol=A --ws-sources=x", environ) == (
            "--ws-sources: has no effect without a source; name one with --ws-source; try tradebot run --help"
        )


class TestCapture:
    """A capture listens: no --ingest is needed for that, and no other feed will do."""

    def test_records_an_exchange(self, environ: dict[str, str]) -> None:
        assert live_of("capture --exchange=kraken --symbol=A", environ).exchange == "kraken"
        settings = settle("capture --ws-source=main", environ)
        assert settings.live is not None and settings.live.exchange == "kraken"
        assert settings.sources["engine.ingest_mode"] == "command line capture"

    def test_or_the_mock_server(self, environ: dict[str, str]) -> None:
        assert live_of("capture --ingest=mockws --ws-url=ws://h:1", environ).url == "ws://h:1"

    def test_what_the_configuration_says_of_the_feed_counts_where_it_can(
        self, environ: dict[str, str], tmp_path: Path
    ) -> None:
        for mode, more, expected in (
            ("mockws", "", "mockws"),
            ("mockws", " --exchange=kraken --symbol=A", "kraken"),
            ("replay", " --exchange=kraken --symbol=A", "kraken"),
            ("synthetic", " --exchange=kraken --symbol=A", "kraken"),
        ):
            (tmp_path / "c.toml").write_text(f"[engine]\ningest_mode = '{mode}'\n")
            assert live_of(f"capture --config={tmp_path}/c.toml{more}", environ).exchange == expected

    @pytest.mark.parametrize("mode", ["synthetic", "replay"])
    def test_no_other_feed(self, environ: dict[str, str], mode: str) -> None:
        assert refused(f"capture --ingest={mode}", environ) == (
            f"--ingest: only a live feed can be captured (realws or mockws), not {mode}"
        )

    def test_nothing_named(self, environ: dict[str, str]) -> None:
        assert refused("capture", environ).startswith("the feed realws needs --ws-source=NAME")


class TestASourceNamedByTheConfigurationFile:
    """A service is described by its file alone; the command line still wins."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        (tmp_path / "c.toml").write_text("[engine]\ningest_mode = 'realws'\nws_source = 'main'\n")
        return f"--config={tmp_path}/c.toml --ws-sources="

    def test_it_is_listened_to(self, environ: dict[str, str], file: str) -> None:
        by_file = settle(file + source_of(environ), environ)
        assert by_file.live == settle("--ingest=realws --ws-source=main", environ).live

    def test_an_exchange_on_the_command_line_wins(self, environ: dict[str, str], file: str) -> None:
        live = settle(f"{file}{source_of(environ)} --exchange=kraken --symbol=A/B", environ).live
        assert live is not None and live.exchange == "kraken" and live.symbols == ("A/B",)

    def test_a_replay_is_not_read_as_its_frames(self, environ: dict[str, str], tmp_path: Path, file: str) -> None:
        config = words_of(file.strip())[0]
        assert settle(f"{config} --ingest=replay --replay-file=x", environ).live is None

    def test_a_name_that_is_not_there(self, environ: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "d.toml").write_text("[engine]\ningest_mode = 'realws'\nws_source = 'mian'\n")
        with pytest.raises(ConfigError, match=r"^engine\.ws_source: .* has no source mian \(did you mean main\?\)"):
            settle(f"--config={tmp_path}/d.toml --ws-sources={source_of(environ)}", environ)


class TestSymbolsThatWouldMerge:
    @pytest.mark.parametrize(
        ("exchange", "symbols"),
        [("bitget", "BTCUSDT,SPOT:BTCUSDT"), ("binance", "btcusdt,BTCUSDT"), ("bitget", "MC:A,mc:A")],
    )
    def test_are_refused(self, environ: dict[str, str], exchange: str, symbols: str) -> None:
        message = refused(f"--ingest=realws --exchange={exchange} --symbol={symbols}", environ)
        first, second = symbols.split(",")
        assert f"the symbols {first} and {second} would both be stored as " in message

    def test_those_of_two_markets_are_two(self, environ: dict[str, str]) -> None:
        live = live_of("--ingest=realws --exchange=bitget --symbol=BTCUSDT,USDT-FUTURES:BTCUSDT", environ)
        assert live.symbols == ("BTCUSDT", "USDT-FUTURES:BTCUSDT")


class TestLimitsOfExchanges:
    """Limits belong to adapters, and a list of symbols is not bounded by the length of one."""

    def test_a_long_list_of_symbols_is_taken(self, environ: dict[str, str]) -> None:
        symbols = ",".join(f"COIN{number:04}USDT" for number in range(500))
        assert len(live_of(f"--ingest=realws --exchange=bybit --symbol={symbols}", environ).symbols) == 500

    def test_one_long_symbol_is_refused(self, environ: dict[str, str]) -> None:
        for words in (f"--ingest=realws --exchange=bybit --symbol={'A' * 65}", f"--symbol={'A' * 65}"):
            assert "more than 64 characters" in refused(words, environ)

    def test_more_symbols_than_a_connection_takes_are_refused(self, environ: dict[str, str]) -> None:
        symbols = ",".join(f"t{number}USD" for number in range(26))
        message = refused(f"--ingest=realws --exchange=bitfinex --symbol={symbols}", environ)
        assert "takes at most 25 symbols a connection, but 26 are named" in message

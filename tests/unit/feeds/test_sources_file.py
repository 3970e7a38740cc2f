"""ws_sources.toml: where it is searched for, what it may contain, and how its errors are reported."""

from __future__ import annotations

import os
import re
import sysconfig
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.config.test_toml_file import TOMLISH
from tradebot.cli.arguments import parse
from tradebot.cli.resolve import resolve
from tradebot.config.model import FeedConfig
from tradebot.config.validation import toml
from tradebot.core.errors import ConfigError
from tradebot.feeds import sources_file as sources
from tradebot.feeds.exchanges import EXCHANGES
from tradebot.feeds.sources_file import MAX_FILE_BYTES, Source, describe, find, load

EXAMPLE = Path(__file__).parents[3] / "etc" / "tradebot" / "ws_sources.toml"
GOOD = '[one]\nexchange = "okx"\nsymbols = ["BTC-USDT"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "s.toml"


def problems(file: Path, text: str) -> list[str]:
    """What is wrong with `text`, without the file's name; the count line of several is left out."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    lines = str(caught.value).splitlines()
    if re.fullmatch(r"\d+ things are wrong:", lines[0]):
        lines = lines[1:]
    assert all(line.startswith(f"{file}:") for line in lines), lines
    return [line.removeprefix(f"{file}:") for line in lines]


def test_sources_in_the_order_of_the_file(file: Path) -> None:
    file.write_text(
        '[b]\nexchange = "okx"\nsymbols = ["BTC-USDT", "ETH-USDT"]\n'
        '[a]\nexchange = "Crypto_Com"\nsymbols = ["BTC_USD"]\nurl = "wss://example.org/x"\nidle_timeout_s = 5\n'
        'history = "KEEP"\nmax_message_bytes = 2048\n'
    )
    found = load(file)
    assert list(found) == ["b", "a"]
    assert found["b"] == Source("b", "okx", ("BTC-USDT", "ETH-USDT"), None, {})
    limits = {"idle_timeout_s": 5.0, "max_message_bytes": 2048, "history": "keep"}
    assert found["a"] == Source("a", "crypto_com", ("BTC_USD",), "wss://example.org/x", limits)


def test_an_empty_file_has_no_sources(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert load(file) == {}


def test_the_limits_of_a_source_replace_those_of_feed() -> None:
    base = FeedConfig(idle_timeout_s=7.0, backoff_max_s=3.0)
    source = Source("a", "okx", ("X",), None, {"idle_timeout_s": 5.0, "history": "keep", "parse_error_limit": 3})
    assert source.feed_config(base) == FeedConfig(
        idle_timeout_s=5.0, backoff_max_s=3.0, history="keep", parse_error_limit=3
    )
    assert Source("a", "okx", ("X",), None, {}).feed_config(base) == base


def test_more_symbols_than_the_feed_may_have_are_refused_by_name() -> None:
    source = Source("many", "okx", ("A", "B", "C"), None, {})
    assert source.feed_config(FeedConfig(max_symbols=3)) == FeedConfig(max_symbols=3)
    with pytest.raises(ConfigError, match=r"^source many: has 3 symbols, but feed\.max_symbols is 2$"):
        source.feed_config(FeedConfig(max_symbols=2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[a]\nexchnge = "okx"\nsymbols = ["X"]', ["2: a.exchnge: unknown key (did you mean exchange?)",
                                                    f"1: a: has no exchange (one of {', '.join(EXCHANGES)})"]),
        (f"{GOOD}symbol = 'X'", ["4: one.symbol: unknown key (did you mean symbols?)"]),
        (f"{GOOD}idle_timeout = 3", ["4: one.idle_timeout: unknown key (did you mean idle_timeout_s?)"]),
        (f"{GOOD}zzz = 3", ["4: one.zzz: unknown key"]),
        (f"{GOOD}max_symbols = 3", ["4: one.max_symbols: is not a key of a source: set it in [feed] of the "
                                    "configuration file, for all sources"]),
        ('[a]\nexchange = "binnance"\nsymbols = ["X"]',
         [f'2: a.exchange: "binnance" is not one of {", ".join(EXCHANGES)} (did you mean binance?)']),
        ('[a]\nexchange = 3\nsymbols = ["X"]', ["2: a.exchange: must be text in quotes, not 3"]),
        ('[a]\nexchange = "okx"',
         ['1: a: has no symbols (such as symbols = ["BTC-USD"], as the exchange writes them)']),
        ('[a]\nexchange = "okx"\nsymbol = "X"',
         ["3: a.symbol: unknown key (did you mean symbols?)", "1: a: has no symbols"]),
        ('[a]\nexchange = "okx"\nsymbols = "X"', ['3: a.symbols: must be a list, such as ["BTC-USD"], not "X"']),
        ('[a]\nexchange = "okx"\nsymbols = []', ["3: a.symbols: must be 1 to 100_000 symbols, not 0"]),
        ('[a]\nexchange = "okx"\nsymbols = ["X", "Y", "X"]', ['3: a.symbols: "X" is listed twice']),
        ('[a]\nexchange = "okx"\nsymbols = ["X", 3]', ["3: a.symbols: each must be text in quotes, not 3"]),
        ('[a]\nexchange = "okx"\nsymbols = [""]', ["3: a.symbols: each must not be empty"]),
        ('[a]\nexchange = "okx"\nsymbols = [["X"]]', ["3: a.symbols: each must be text in quotes, not a list"]),
        (f'[a]\nexchange = "okx"\nsymbols = ["{"x" * 65}"]',
         ["3: a.symbols: each must have at most 64 characters, not 65"]),
        ('[a]\nexchange = "okx"\nsymbols = ["\\u001b[2J"]',
         ['3: a.symbols: each must not contain control characters: "\\u001b[2J"']),
        (f'{GOOD}url = "https://h"', ["4: one.url: must begin with ws:// or wss://"]),
        (f"{GOOD}url = 3", ["4: one.url: must be text in quotes, not 3"]),
        (f"{GOOD}idle_timeout_s = 0", ["4: one.idle_timeout_s: must be at least 0.1, not 0"]),
        (f"{GOOD}ping_interval_s = 'x'", ['4: one.ping_interval_s: must be a number, not "x"']),
        (f"{GOOD}connect_timeout_s = 1e9", ["4: one.connect_timeout_s: must be at most 86_400, not 1000000000.0"]),
        (f"{GOOD}max_message_bytes = 1", ["4: one.max_message_bytes: must be at least 64, not 1"]),
        (f"{GOOD}parse_error_limit = 1.5", ["4: one.parse_error_limit: must be a whole number, not 1.5"]),
        (f"{GOOD}history = 'keeep'", ['4: one.history: "keeep" is not one of drop, keep (did you mean keep?)']),
        ('exchange = "okx"', ['1: exchange: must be a source, [exchange], not "okx"']),
        ("[[a]]\nexchange = 'okx'", ["1: a: must be a source, [a], not a list"]),
        ('["a b"]\nexchange = "okx"\nsymbols = ["X"]',
         ['1: "a b": "a b" is not a valid name: use up to 64 letters and digits, with . _ : - between them']),
        ('[a.b]\nexchange = "okx"\nsymbols = ["X"]',
         ["1: a.b: unknown key", f"1: a: has no exchange (one of {', '.join(EXCHANGES)})",
          '1: a: has no symbols (such as symbols = ["BTC-USD"], as the exchange writes them)']),
    ],
)  # fmt: skip
def test_each_mistake_is_said_with_its_line(file: Path, text: str, expected: list[str]) -> None:
    assert problems(file, text) == expected


def test_the_mistakes_of_all_sources_are_said_at_once(file: Path) -> None:
    text = f'{GOOD}url = "x"\n[two]\nexchange = "nope"\nsymbols = ["A", "A"]\nhistory = 1\n'
    assert [line.split(": ")[:2] for line in problems(file, text)] == [
        ["4", "one.url"], ["6", "two.exchange"], ["7", "two.symbols"], ["8", "two.history"],
    ]  # fmt: skip


def test_a_name_with_dots_is_quoted_in_the_file_and_works(file: Path) -> None:
    file.write_text('["a.b:c"]\nexchange = "okx"\nsymbols = ["X"]\n')
    assert list(load(file)) == ["a.b:c"]


@pytest.mark.parametrize("name", ["a", "A.b_c:d-e", "1", "x" * 64, "", "-a", "a b", "x" * 65, "é", "a/b", "a\n"])
def test_a_source_may_be_called_what_the_command_line_takes(name: str, file: Path) -> None:
    file.write_text("")
    with pytest.raises(ConfigError) as caught:
        resolve(parse(["--ingest=realws", f"--ws-source={name}", f"--ws-sources={file}"]), {"HOME": str(file.parent)})
    taken = "has no source" in str(caught.value)
    file.write_text(f'[{toml(name)}]\nexchange = "okx"\nsymbols = ["X"]')
    if taken:
        assert list(load(file)) == [name]
    else:
        with pytest.raises(ConfigError, match="is not a valid name"):
            load(file)


def test_syntax_errors_and_what_is_no_file(file: Path, tmp_path: Path) -> None:
    assert problems(file, "[a\n")[0].startswith("1: not valid TOML: ")
    with pytest.raises(ConfigError, match=r"none\.toml: no such sources file$"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a directory, not a sources file"):
        load(tmp_path)
    file.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"s\.toml:1: not UTF-8 text"):
        load(file)
    file.write_text("#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1_048_576 bytes: too large for a sources file"):
        load(file)


def test_no_credentials_in_messages_or_tables(file: Path) -> None:
    assert "hunter2" not in str(problems(file, f'{GOOD}url = "http://u:hunter2@h"'))
    assert "hunter2" not in str(problems(file, f'{GOOD}history = "wss://u:hunter2@h/?token=hunter2"'))
    file.write_text(f'{GOOD}url = "wss://u:hunter2@h/?token=hunter2"')
    shown = "\n".join(describe((file, "here"), load(file).values()))
    assert "wss://***@h/?token=***" in shown and "hunter2" not in shown


@given(
    raw=st.one_of(
        TOMLISH.map(str.encode),
        st.lists(st.sampled_from(
            ["[a]\n", "[b]\n", "[[c]]\n", 'exchange = "okx"\n', "exchange = 3\n", 'symbols = ["X"]\n', "symbols = [",
             '"Y",', "]\n", 'url = "wss://h"\n', 'url = "\\u0000"\n', "history = {}\n", "idle_timeout_s = nan\n",
             "max_message_bytes = 99999999999999999999999999999999999\n", '"\\u001b" = 1\n', "x.y.z = 1\n"]
        ), max_size=12).map("".join).map(str.encode),
        st.binary(max_size=60),
    )
)  # fmt: skip
def test_garbage_gives_sources_or_one_readable_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage_sources.toml"
    file.write_bytes(raw)
    try:
        found = load(file)
    except ConfigError as error:
        assert all(line.isprintable() for line in str(error).splitlines())
        assert str(file) in str(error)
    else:
        assert all(line.isprintable() for line in describe((file, "here"), found.values()))
        assert list(found) == list(tomllib.loads(raw.decode("utf-8-sig")))
        for name, source in found.items():
            assert source.name == name and source.exchange in EXCHANGES and source.symbols
            source.feed_config(FeedConfig())


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    config = tmp_path / "conf" / "my.toml"
    assert find("x.toml", config, environ) == (Path("x.toml"), "command line --ws-sources")
    assert find(None, None, environ) == (EXAMPLE, "the example of the source tree")
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "site" / "tradebot" / "feeds" / "sources.py"))
    data = {"posix_prefix": tmp_path / "prefix", "posix_user": tmp_path / "user"}
    monkeypatch.setattr(sysconfig, "get_default_scheme", lambda: "posix_prefix")
    monkeypatch.setattr(sysconfig, "get_path", lambda name, scheme: str(data[scheme]) if name == "data" else "")
    # From the last place to the first: each goes before those behind it.
    assert find(None, config, environ) is None
    for directory, how in [
        (tmp_path / "user/share/tradebot/etc/tradebot", "the example"),
        (tmp_path / "prefix/share/tradebot/etc/tradebot", "the example"),
        (tmp_path / "xdg/tradebot", "default place"),
        (tmp_path / "conf", "beside the configuration file"),
    ]:
        directory.mkdir(parents=True)
        (directory / "ws_sources.toml").write_text("")
        assert find(None, config, environ) == (directory / "ws_sources.toml", how)


def test_who_has_no_home_gets_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert find(None, None, {}) == (EXAMPLE, "the example of the source tree")


def test_the_table_of_exchanges_and_sources() -> None:
    source = Source("mine", "okx", tuple(f"S{n}" for n in range(9)), "wss://h/p", {"history": "keep"})
    lines = describe((Path("/etc/s.toml"), "default place"), [source])
    assert lines[0] == "exchanges (--exchange=NAME --symbol=SYMBOL):"
    assert [line.split()[0] for line in lines[2 : 2 + len(EXCHANGES)]] == list(EXCHANGES)
    (kucoin,) = (line for line in lines if line.startswith("  kucoin"))
    assert kucoin.split(maxsplit=2)[1:] == ["wss://ws-api-spot.kucoin.com/", "requests a token before each connection"]
    assert lines[-3:] == [
        "sources (--ws-source=NAME) of /etc/s.toml (default place):",
        "  NAME  EXCHANGE  SYMBOLS                       URL        LIMITS",
        "  mine  okx       S0 S1 S2 S3 S4 S5 and 3 more  wss://h/p  history=keep",
    ]


def test_tables_without_sources() -> None:
    assert describe((Path("s.toml"), "x"), [])[-1] == "  none: the file has no sources"
    assert "there is no ws_sources.toml" in describe(None, [])[-1]
    assert describe((Path("a\nb"), "x"), [])[-2] == "sources (--ws-source=NAME) of a\\nb (x):"


def test_the_example_names_a_source_of_each_exchange_and_each_can_subscribe() -> None:
    found = load(EXAMPLE)
    assert {source.exchange for source in found.values()} == set(EXCHANGES) - {"mockws"}
    assert {"wss://stream.binance.us:9443/ws", "wss://fstream.binance.com/market/ws"} <= {
        source.url for source in found.values()
    }
    for source in found.values():
        exchange = EXCHANGES[source.exchange]()
        url = exchange.connection_url(source.url or exchange.url, source.symbols)
        assert url.startswith("wss://")
        said = url + "".join(exchange.subscriptions(source.symbols))
        assert all(symbol.rpartition(":")[2] in said for symbol in source.symbols), source.name
        source.feed_config(FeedConfig())

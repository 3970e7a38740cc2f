"""The configuration file: values, places, and every mistake said at once with file and line."""

from __future__ import annotations

import errno
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect as shapes

from tradebot.config.cross_checks import cross_problems
from tradebot.config.model import Config, RunOptions, Settings
from tradebot.config.toml_file import MAX_FILE_BYTES, find, key_lines, load, read
from tradebot.config.validation import (
    KEYS,
    InvalidValue,
    build,
    check_value,
    flatten,
    listed,
    show,
    toml,
)
from tradebot.core.errors import ConfigError, ExitCode
from tradebot.strategy.registry import CHECKS, strategies

REPO = Path(__file__).resolve().parents[3]
ETC = REPO / "etc" / "tradebot"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t.toml"


def problems(file: Path, text: str) -> list[str]:
    """What is wrong with a file of this `text`, without the file's name in front of each line number."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, CHECKS)
    assert caught.value.exit_code == ExitCode.CONFIG
    lines = str(caught.value).splitlines()
    if len(lines) > 1:
        assert lines.pop(0) == f"{len(lines)} things are wrong:"
    assert all(line.startswith(f"{file}:") for line in lines)
    return [line.removeprefix(f"{file}:") for line in lines]


def test_example_is_exactly_the_defaults() -> None:
    assert load(ETC / "example.toml", CHECKS) == Config()


def test_example_names_every_key() -> None:
    text = (ETC / "example.toml").read_text()
    # Keys without a default are there as comments; without the # the whole must still be valid.
    content = tomllib.loads("\n".join(line.removeprefix("#") if line[:1] == "#" and line[1:2].isalpha() else line
                                      for line in text.splitlines()))  # fmt: skip
    named = [key for key, value in content.items() if not isinstance(value, dict)]
    named += [f"{section}.{key}" for section, table in content.items() if isinstance(table, dict) for key in table]
    assert named == list(KEYS)


def test_session_replays_a_file_of_the_checkout_within_the_caps() -> None:
    config = load(ETC / "session.toml", CHECKS)
    assert config.engine.ingest_mode == "replay"
    assert config.engine.replay_file is not None
    assert (REPO / config.engine.replay_file).is_file()
    # At the session's prices, about 62 000 USD.
    assert config.strategy.desired_size * 70_000 < config.risk_caps.max_symbol_exposure_usd
    assert Config().strategy.desired_size * 60_000 > config.risk_caps.max_symbol_exposure_usd


def test_empty_file_is_the_defaults(file: Path) -> None:
    file.write_text("")
    assert load(file, CHECKS) == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode = 'shadwo'", "1: mode: \"shadwo\" is not one of LIVE, PAPER, SHADOW (did you mean SHADOW?)"),
        ("\nlive_arm = true", "2: live_arm: unknown key (did you mean live_armed?)"),
        ("live_armed = 'yes'", '1: live_armed: must be true or false, not "yes"'),
        ("live_armed = 1", "1: live_armed: must be true or false, not 1"),
        ("[engin]\nsample_every = 1", "1: engin: unknown section (did you mean engine?)"),
        ("[engine]\nsample_evry = 1", "2: engine.sample_evry: unknown key (did you mean engine.sample_every?)"),
        ("sample_every = 1", "1: sample_every: unknown key (did you mean engine.sample_every?)"),
        ("[engine]\nfee_rate = 1", "2: engine.fee_rate: unknown key (did you mean execution.fee_rate?)"),
        ("[engine]\nzzz = 1", "2: engine.zzz: unknown key"),
        ("engine = 3", "1: engine: must be a section, [engine], not 3"),
        ("[[engine]]\nsample_every = 1", "1: engine: must be a section, [engine], not a list"),
        ("[mode]\nx = 1", "1: mode: must be text in quotes, not a table"),
        ("[engine]\nsample_every = true", "2: engine.sample_every: must be a whole number, not true"),
        ("[engine]\nsample_every = 1.0", "2: engine.sample_every: must be a whole number, not 1.0"),
        ("[engine]\nsample_every = '1'", '2: engine.sample_every: must be a whole number, not "1"'),
        ("[engine]\nsample_every = 0", "2: engine.sample_every: must be at least 1, not 0"),
        ("[engine]\nsample_every = 1000001", "2: engine.sample_every: must be at most 1_000_000, not 1000001"),
        (f"[engine]\nsample_every = {'9' * 60}",
         "2: engine.sample_every: must be at most 1_000_000, not a number of more than 30 digits"),
        ("[engine]\nrun_seconds = 0", "2: engine.run_seconds: must be more than 0, not 0"),
        ("[engine]\nsample_every = 1979-05-27", "2: engine.sample_every: must be a whole number, not 1979-05-27"),
        ("[engine]\ningest_mode = 'kafka'",
         '2: engine.ingest_mode: "kafka" is not one of mockws, realws, replay, synthetic'),
        ("[engine]\nws_url = 'http://x'", "2: engine.ws_url: must begin with ws:// or wss://"),
        ("[notify]\nwebhook_url = 'ftp://x'", "2: notify.webhook_url: must begin with http:// or https://"),
        ("[engine]\nws_url = 'ws://h'\nws_url_file = 'u'",
         "3: engine.ws_url_file: engine.ws_url is set, too; keep one of them"),
        ("[notify]\nwebhook_url = 'http://h'\nwebhook_url_file = 'u'",
         "3: notify.webhook_url_file: notify.webhook_url is set, too; keep one of them"),
        ("[metrics]\nhosts = 'a, b:80'", '2: metrics.hosts: "b:80" is not a host name; separate several with commas,'
         " without ports"),
        ("[engine]\nws_url = 'ws://'", "2: engine.ws_url: is not a valid URL: it needs the form ws://HOST[:PORT][/PATH]"),
        ("[engine]\nws_url = 'ws://h:99999'", "2: engine.ws_url: is not a valid URL: bad port"),
        ("[engine]\nws_url = 'ws://[::1'", "2: engine.ws_url: is not a valid URL: bad host"),
        ("[risk_caps]\nmax_exposure_usd = -1", "2: risk_caps.max_exposure_usd: must be at least 0, not -1"),
        ("[risk_caps]\nmax_exposure_usd = nan", "2: risk_caps.max_exposure_usd: must be a finite number, not nan"),
        ("[risk_caps]\nmax_exposure_usd = inf", "2: risk_caps.max_exposure_usd: must be a finite number, not inf"),
        ("[risk_caps]\nmax_exposure_usd = false", "2: risk_caps.max_exposure_usd: must be a number, not false"),
        ("[risk_caps]\nmax_open_orders = -1", "2: risk_caps.max_open_orders: must be at least 0, not -1"),
        ("[channels]\ntick_channel_size = 0", "2: channels.tick_channel_size: must be at least 1, not 0"),
        ("[strategy]\nname = 'sma_crosover'",
         f'2: strategy.name: "sma_crosover" is not one of {", ".join(strategies())} (did you mean sma_crossover?)'),
        ("[strategy]\nshort_window = 20",
         "2: strategy.short_window: must be smaller than strategy.long_window, but 20 is not smaller than 20"),
        ("[strategy]\nlong_window = 3",
         "2: strategy.short_window: must be smaller than strategy.long_window, but 5 is not smaller than 3"),
        ("[app]\nsymbol = ''", "2: app.symbol: must not be empty"),
        ("[app]\nsymbol = 3", "2: app.symbol: must be text in quotes, not 3"),
        (f"[engine]\nws_source = '{'x' * 65}'", "2: engine.ws_source: must have at most 64 characters, not 65"),
        ('[app]\nsymbol = "a\\u001b[2Jb"', '2: app.symbol: must not contain control characters: "a\\u001b[2Jb"'),
        ("[app]\ndb_path = ':memory:'", "2: app.db_path: must be a file: every thread has its own connection, "
                                        "and :memory: would give each its own"),
    ],
)  # fmt: skip
def test_each_mistake_is_said_with_its_line(file: Path, text: str, expected: str) -> None:
    assert problems(file, text) == [expected]


def test_all_mistakes_are_said_at_once(file: Path) -> None:
    text = "mode = 3\nwhat = 1\n[engine]\nsample_every = 0\n[strategy]\nshort_window = 30\n"
    text += "[channels]\ntick_channel_size = 0\n"
    assert [line.split(": ")[:2] for line in problems(file, text)] == [
        ["1", "mode"],
        ["2", "what"],
        ["4", "engine.sample_every"],
        ["8", "channels.tick_channel_size"],
        ["6", "strategy.short_window"],
    ]


def test_a_wrong_window_is_not_blamed_for_the_other(file: Path) -> None:
    text = "[strategy]\nshort_window = 30\nlong_window = 'x'\n"
    assert problems(file, text) == ['3: strategy.long_window: must be a whole number, not "x"']


def test_of_very_many_mistakes_the_first_are_said() -> None:
    text = listed([f"problem {n}" for n in range(70)])
    assert text.splitlines()[0] == "70 things are wrong:"
    assert text.splitlines()[-2:] == ["problem 49", "and 20 more"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode = ", "1: not valid TOML: "),
        ("mode = shadow", "1: not valid TOML: Invalid value; text needs quotes (column 8)"),
        ("\n\nmode", "3: not valid TOML: "),
        ("a = 1\na = 2", "2: not valid TOML: "),
        ("x = '''\n\n", "2: not valid TOML: "),
        ("[engine\n", "1: not valid TOML: "),
        ("mode = \x00", "1: not valid TOML: "),
    ],
)
def test_syntax_errors_have_a_line(file: Path, text: str, expected: str) -> None:
    (said,) = problems(file, text)
    assert said.startswith(expected)


def test_deep_nesting_and_huge_numbers_are_refused(file: Path) -> None:
    assert "TOML" in problems(file, "x = " + "[" * 20_000)[0]
    assert "TOML" in problems_without_line(file, "x = " + "9" * 5000)


def problems_without_line(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, CHECKS)
    return str(caught.value)


def test_what_is_no_readable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing.toml: no such configuration file"):
        load(tmp_path / "missing.toml", CHECKS)
    with pytest.raises(ConfigError, match=r"is a directory, not a configuration file"):
        load(tmp_path, CHECKS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot read the configuration file: Not a directory"):
        load(tmp_path / "file" / "below", CHECKS)
    with pytest.raises(ConfigError, match=r"cannot read"):
        load(Path("nul\0byte"), CHECKS)
    large = tmp_path / "large.toml"
    large.write_text("#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match=r"larger than 65_536 bytes"):
        load(large, CHECKS)


def test_unreadable_file(file: Path) -> None:
    file.write_text("")
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("the superuser reads everything")
    with pytest.raises(ConfigError, match="Permission denied"):
        load(file, CHECKS)


@pytest.mark.parametrize(("number", "code"), [(errno.EIO, 13), (errno.EMFILE, 13), (errno.EACCES, 12)])
def test_a_file_that_may_be_readable_later_is_no_mistake(
    file: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """A passing error is 13, after which a service is started again, and never 12."""

    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(ConfigError, match=f"cannot read the configuration file: {os.strerror(number)}") as caught:
        load(file, CHECKS)
    assert caught.value.exit_code == code


def test_not_utf8_names_line_and_byte(file: Path) -> None:
    file.write_bytes(b"# fine\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"t.toml:2: not UTF-8 text \(byte 0xe9\)"):
        load(file, CHECKS)


def test_byte_order_mark_and_windows_line_ends_are_fine(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbfmode = "paper"\r\n[engine]\r\nsample_every = 3\r\n')
    assert read(file, CHECKS).places == {"mode": f"{file}:1", "engine.sample_every": f"{file}:3"}


@pytest.mark.parametrize("name", ["MOCK_WS", "mockws", "Mock_Ws", "mock_ws"])
def test_enumerations_in_any_case_with_or_without_underscore(file: Path, name: str) -> None:
    file.write_text(
        f"[engine]\ningest_mode = '{name}'\n[persist]\nsynchronous = 'full'\n[strategy]\nname='SmaCrossover'"
    )
    config = load(file, CHECKS)
    assert (config.engine.ingest_mode, config.persist.synchronous) == ("mockws", "FULL")
    assert config.strategy.name == "sma_crossover"


def test_whole_numbers_are_taken_for_float_keys(file: Path) -> None:
    file.write_text("[risk_caps]\nmax_exposure_usd = 7\n[execution]\nfee_rate = -0.0")
    config = load(file, CHECKS)
    assert isinstance(config.risk_caps.max_exposure_usd, float)
    assert str(config.execution.fee_rate) == "0.0"


def test_credentials_of_a_wrong_url_are_not_shown(file: Path) -> None:
    for url in ("ws://user:hunter2@h:99999", "http://user:hunter2@h/", "ws://user:hunter2@h/\\u0007"):
        assert "hunter2" not in str(problems(file, f'[engine]\nws_url = "{url}"'))
        assert "hunter2" not in str(problems(file, f'mode = "{url}"'))


LINES = '''\
mode = "LIVE"  # engine = 1
"live_armed" = true
engine.sample_every = 3
engine . 'tick_interval_ms' = [
  1, # ] comment
  "]", """
  x = 1
  """", {a = 1},
]
persist = { batch_size = 3, "synchronous" = 'a = }', deep = {x = """
""", y = 2} }

  [ "risk_caps" ]
  max_exposure_usd = \'\'\'
  [strategy]
  \'\'\'
[strategy] # [x]
name = "a \\" # b"
short_window = 1979-05-27 07:32:00
[[feed]]
history = 1
[[feed]]
history = 2
'''


def test_lines_of_keys_in_every_form() -> None:
    tomllib.loads(LINES)  # or it would show nothing
    assert {".".join(path): line for path, line in key_lines(LINES).items()} == {
        "mode": 1, "live_armed": 2, "engine": 3, "engine.sample_every": 3, "engine.tick_interval_ms": 4,
        "engine.tick_interval_ms.a": 8, "persist": 10, "persist.batch_size": 10, "persist.synchronous": 10,
        "persist.deep": 10, "persist.deep.x": 10, "persist.deep.y": 11, "risk_caps": 13,
        "risk_caps.max_exposure_usd": 14, "strategy": 17, "strategy.name": 18, "strategy.short_window": 19, "feed": 20,
        "feed.history": 21,
    }  # fmt: skip


def test_lines_of_the_example_are_right() -> None:
    lines = (ETC / "example.toml").read_text().splitlines()
    places = read(ETC / "example.toml", CHECKS).places
    assert len(places) == 53
    for name, place in places.items():
        assert lines[int(place.rpartition(":")[2]) - 1].startswith(name.rpartition(".")[2] + " = ")


def test_a_lost_finder_falls_back_to_the_section(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradebot.config.toml_file.key_lines", lambda text: {("engine",): 2})
    assert problems(file, "\n[engine]\n\nsample_every = 0") == ["2: engine.sample_every: must be at least 1, not 0"]


TOMLISH = st.lists(
    st.sampled_from(
        ["[", "]", "[[", "{", "}", "=", " = ", ".", ",", '"', "'", '"""',
         "'''", "\\", "#", "\n", "\r\n", " ", "\t", "1",
         "1.5", "nan", "true", "mode", "engine", "sample_every", "strategy", "short_window", "-", "_", "é", "\x00",
         "1979-05-27", "\\u0041", "[engine]\n", "[strategy]\n", "mode = 'paper'\n", "x = [1]\n"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@given(raw=st.one_of(TOMLISH.map(str.encode), st.binary(max_size=60), st.text(max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass"))))  # fmt: skip
def test_garbage_is_a_config_or_one_readable_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage.toml"
    file.write_bytes(raw)
    try:
        config = load(file, CHECKS)
    except ConfigError as error:
        assert all(line.isprintable() for line in str(error).splitlines())
        assert str(file) in str(error)
    else:
        assert build(flatten(config)) == config


@given(text=TOMLISH)
def test_every_key_of_valid_toml_is_found(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    found = key_lines(text)
    for key, value in document.items():
        assert (key,) in found
        if isinstance(value, dict):
            assert all((key, inner) in found for inner in value)


def values_of(name: str) -> st.SearchStrategy[Any]:
    shape = KEYS[name].shape
    if name == "notify.webhook_url":
        return st.sampled_from(["http://localhost:1", "https://example.org"])  # the rest would be masked
    if name == "metrics.hosts":
        return st.sampled_from(["a.example", "a.example, b"])
    if name == "engine.ws_source":
        return st.sampled_from(["binance-btcusdt", "a"])
    if name == "engine.ws_url":
        return st.sampled_from(["ws://localhost:9001", "wss://example.org/path"])
    if name == "strategy.name":
        return st.sampled_from(list(strategies()))
    if isinstance(shape, shapes.BoolType):
        return st.booleans()
    if isinstance(shape, shapes.IntType):
        return st.integers(shape.ge, shape.le)
    if isinstance(shape, shapes.FloatType):
        low = shape.ge if shape.ge is not None else shape.gt
        return st.floats(low, shape.le, exclude_min=shape.ge is None)
    if isinstance(shape, shapes.LiteralType):
        return st.sampled_from(shape.values)
    texts: st.SearchStrategy[str] = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=64)
    return texts.filter(str.strip)


CONFIGS = st.fixed_dictionaries({}, optional={name: values_of(name) for name in KEYS})


@given(values=CONFIGS)
def test_what_show_config_prints_reloads_equal(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    from tradebot.cli.show_config import describe

    config = build(values)
    if cross_problems(config):
        return
    sources = dict.fromkeys((*KEYS, *RunOptions.__struct_fields__, "config file"), "somewhere")
    text = "\n".join(describe(Settings(config, RunOptions(), sources), {"HOME": "/h"}))
    file = tmp_path_factory.getbasetemp() / "dump.toml"
    file.write_text(text)
    assert load(file, CHECKS) == config


@given(name=st.sampled_from(list(KEYS)), data=st.data())
def test_a_checked_value_is_accepted_again_and_nothing_else_is(name: str, data: st.DataObject) -> None:
    value = data.draw(values_of(name) | st.integers() | st.floats() | st.text() | st.booleans() | st.none())
    try:
        checked = check_value(name, value)
    except InvalidValue as error:
        assert str(error).isprintable()
    else:
        assert check_value(name, checked) == checked
        assert flatten(build({name: checked}))[name] == checked


@given(text=st.text(st.characters(codec="utf-8")))
def test_toml_text_reads_back_and_is_printable(text: str) -> None:
    assert tomllib.loads(f"x = {toml(text)}")["x"] == text
    assert toml(text).isprintable()


def test_long_values_are_shortened() -> None:
    assert len(show("x" * 10_000)) < 90


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert find(None, environ) is None
    default = tmp_path / ".config" / "tradebot" / "tradebot.toml"
    default.parent.mkdir(parents=True)
    default.write_text("")
    assert find(None, environ) == (default, "default place")
    assert find(None, environ | {"XDG_CONFIG_HOME": str(tmp_path / "other")}) is None
    assert find(None, environ | {"TRADEBOT_CONFIG": ""}) == (default, "default place")
    assert find(None, environ | {"TRADEBOT_CONFIG": "e"}) == (Path("e"), "environment TRADEBOT_CONFIG")
    assert find("c", environ | {"TRADEBOT_CONFIG": "e"}) == (Path("c"), "command line --config")

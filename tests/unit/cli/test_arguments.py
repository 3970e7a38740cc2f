"""The words of the command line: what is taken, and one clear line for each mistake."""

from __future__ import annotations

import re
from pathlib import Path

import docopt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tradebot.cli.usage import OF_OTHERS, OPERATIONS, TAKEN, TAKES_VALUE, USAGE

from tradebot.cli.arguments import Arguments, help_text, parse
from tradebot.core.errors import ExitCode, UsageError


def test_run_is_the_default_command() -> None:
    assert parse([]) == parse(["run"]) == Arguments("run", {})


def test_values_after_equals_sign_or_as_next_word() -> None:
    expected = Arguments("run", {"--db": "x", "--strict": True, "--replay-file": "-"})
    assert parse(["--db=x", "--strict", "--replay-file=-"]) == expected
    assert parse(["run", "--db", "x", "--strict", "--replay-file", "-"]) == expected


def test_options_may_stand_before_the_command() -> None:
    assert parse(["--db=x", "show-config"]) == Arguments("show-config", {"--db": "x"})


def test_check_config_takes_a_file() -> None:
    assert parse(["check-config", "a.toml"]) == Arguments("check-config", {}, "a.toml")
    assert parse(["check-config", "--config=a.toml"]) == Arguments("check-config", {"--config": "a.toml"})
    assert parse(["check-config", "--config", "a.toml"]) == Arguments("check-config", {"--config": "a.toml"})


def test_sources_and_capture() -> None:
    assert parse(["sources", "--ws-sources=a", "--config=b"]) == Arguments(
        "sources", {"--ws-sources": "a", "--config": "b"}
    )
    words = [
        "--exchange=okx",
        "--symbol=A,B",
        "--seconds=5",
        "--out=d",
        "--max-mb=9",
        "--ws-url=ws://h",
        "--ingest=realws",
    ]
    assert parse(["capture", *words]) == Arguments("capture", {**dict(word.split("=") for word in words)})


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["run", "--help"], ["--strict", "-h"], ["frobnicate", "--help"]])
def test_help_wins(words: list[str]) -> None:
    assert parse(words).command == "help"


def test_version() -> None:
    assert parse(["--version"]).command == "version"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--sample-evry=3", "unknown option --sample-evry (did you mean --sample-every?)"),
        ("--replay_file=3", "unknown option --replay_file (did you mean --replay-file?)"),
        ("-ingest=replay", "unknown option -ingest (did you mean --ingest?)"),
        ("--zzz", "unknown option --zzz"),
        ("-x", "unknown option -x"),
        ("--", "unexpected --"),
        # A shortened option would change its meaning when an option is added.
        ("--sec=3", "unknown option --sec (did you mean --seconds?)"),
        ("--symb=X", "unknown option --symb (did you mean --symbol?)"),
        ("--strict=yes", "--strict takes no value"),
        ("--db", "--db needs a value: --db=..."),
        ("--db=", "--db needs a value: --db=..."),
        ("--db --strict", "--db needs a value: --db=..."),
        ("--db=a --db=b", "--db is given twice"),
        ("--strict --strict", "--strict is given twice"),
        ("show-confg", "unknown command show-confg (did you mean show-config?)"),
        ("help", "unknown command help (did you mean --help?)"),
        ("my.toml", "unknown command my.toml (did you mean --config=FILE?)"),
        ("a.jsonl.gz", "unknown command a.jsonl.gz (did you mean --ingest=replay --replay-file=FILE?)"),
        ("frobnicate", "unknown command frobnicate"),
        ("run run", 'unexpected argument "run"'),
        ("check-config a b", 'unexpected argument "b"'),
        ("check-config --config=a b", "check-config: give FILE or --config=FILE, not both"),
        ("check-config --db=a", "--db: check-config only takes --config; show-config takes all options"),
        ("--version=3", "--version takes no value"),
        ("--out=x", "--out: only for tradebot capture"),
        ("show-config --max-mb=3", "--max-mb: only for tradebot capture"),
        ("sources --db=x", "--db: sources only takes --config, --ws-sources"),
        ("sources x", 'unexpected argument "x"'),
        ("source", "unknown command source (did you mean sources?)"),
        ("capture --db=x", "--db: capture only takes --config, --exchange, --ws-source, --ws-sources, --ws-url, "
                           "--symbol, --ingest, --seconds, --out, --max-mb, --log-level, --log-format"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_and_a_hint(words: str, expected: str) -> None:
    """G5: bad usage is 12."""
    with pytest.raises(UsageError) as caught:
        parse(words.split())
    assert str(caught.value) == f"{expected}; try tradebot --help"
    assert caught.value.exit_code == ExitCode.CONFIG


def test_odd_words_are_shown_harmless() -> None:
    for words in (["a\x1b[2J"], ["--a\x1b[2J"], ["run", "\x1b"], ["check-config", "x", "\udcff"], [""]):
        with pytest.raises(UsageError) as caught:
            parse(words)
        assert str(caught.value).isprintable()
    with pytest.raises(UsageError) as caught:
        parse(["run", "ws://user:hunter2@host"])
    assert "hunter2" not in str(caught.value)


@given(words=st.lists(st.one_of(st.sampled_from([*TAKES_VALUE, "run", "check-config", "-", "--db=x", "x"]), st.text())))
def test_any_words_are_arguments_or_one_line(words: list[str]) -> None:
    try:
        parse(words)
    except UsageError as error:
        assert str(error).endswith("; try tradebot --help")
        assert str(error).isprintable()


@given(
    given_=st.dictionaries(
        st.sampled_from(sorted({*TAKES_VALUE} - OF_OTHERS - {"--help", "--version"})),
        st.text(min_size=1).filter(lambda text: not text.startswith("--")),
    ),
    apart=st.booleans(),
)
def test_values_arrive_as_they_were_written(given_: dict[str, str], apart: bool) -> None:
    words: list[str] = []
    for name, value in given_.items():
        words += [name] if not TAKES_VALUE[name] else [name, value] if apart else [f"{name}={value}"]
    expected = {name: value if TAKES_VALUE[name] else True for name, value in given_.items()}
    assert parse(words) == Arguments("run", expected)


def test_the_list_of_options_is_docopts() -> None:
    options = docopt.parse_defaults(USAGE)  # type: ignore[attr-defined,unused-ignore]
    assert {option.name: option.argcount > 0 for option in options} == TAKES_VALUE


def test_help_has_every_option_of_run_and_every_exit_code() -> None:
    text = help_text()
    for name in (
        "--ingest=", "--mode=", "--config=", "--db=", "--replay-file=", "--replay-db=", "--replay-run=", "--exchange=",
        "--resume", "--strict", "--speed=", "--history=", "--ws-url=", "--ws-source=", "--symbol=", "--sample-every=",
        "--seconds=", "--strategy=", "--log-level=", "--log-format=", "--run-id=", "--ws-sources=",
        "--out=", "--max-mb=", "sources", "capture",
    ):  # fmt: skip
        assert f"  {name}" in text
    for code in ExitCode:
        assert f"{code.value:2}  {code.name}" in text
        assert code.meaning in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_file_that_help_names_is_there() -> None:
    assert "etc/tradebot/example.toml" in help_text()
    assert (Path(__file__).resolve().parents[3] / "etc/tradebot/example.toml").is_file()


def test_every_other_option_belongs_to_a_command_and_every_command_takes_known_ones() -> None:
    taken = {option for options in TAKEN.values() for option in options}
    assert taken >= OF_OTHERS
    assert taken <= set(TAKES_VALUE)


@pytest.mark.parametrize("command", OPERATIONS)
def test_each_operation_takes_its_options_and_no_other(command: str) -> None:
    for option, valued in TAKES_VALUE.items():
        word = f"{option}=x" if valued else option
        if option in TAKEN[command]:
            assert parse([command, word]) == Arguments(command, {option: "x" if valued else True})
        elif option not in ("--help", "--version"):
            with pytest.raises(UsageError, match=f"{option}: {command} only takes"):
                parse([command, word])


@pytest.mark.parametrize("command", TAKEN)
def test_the_help_of_one_command_lists_its_options_and_no_other(command: str) -> None:
    asked = parse([command, "--help"])
    assert asked == Arguments("help", {}, command)
    text = help_text(asked.file)
    listed = set(re.findall(r"^  (--[a-z-]+)", text, re.M))
    assert listed == set(TAKEN[command])
    assert f"Usage: tradebot {command} [options]" in text and len(text.splitlines()) < 40


def test_backup_takes_a_file() -> None:
    assert parse(["backup", "copy.db", "--force"]) == Arguments("backup", {"--force": True}, "copy.db")


def test_an_operations_option_given_to_run_says_whose_it_is() -> None:
    with pytest.raises(UsageError, match="--systemctl: only for tradebot soak and prove"):
        parse(["--systemctl=x"])

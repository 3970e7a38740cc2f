"""The words of the command line: what is taken, and one clear line for each mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradebot.cli.arguments import parse
from tradebot.cli.program import Arguments
from tradebot.cli.registry import TRADEBOT
from tradebot.core.errors import ExitCode, UsageError

TAKES_VALUE = TRADEBOT.takes_value()
RUN_OPTIONS = TRADEBOT.command("run").options
NAMES = [command.name for command in TRADEBOT.commands]


def line(command: str) -> list[str]:
    """The command with what it cannot do without, each with some value."""
    required = [f"{word.partition('=')[0]}=x" if "=" in word else word for word in TRADEBOT.command(command).required]
    return [command, *required]


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


def test_set_may_be_given_several_times_in_either_form() -> None:
    """Every KEY=VALUE arrives, in order, and is no option of its own."""
    words = ["--set=feed.idle_timeout_s=5", "--db=x", "--set", "mode=shadow"]
    expected = Arguments("run", {"--db": "x"}, None, ("feed.idle_timeout_s=5", "mode=shadow"))
    assert parse(words) == parse(["run", *words]) == expected
    assert parse(["--set", "app.symbol=A=B"]).sets == ("app.symbol=A=B",)
    # A value that is also the name of a command does not decide what may be repeated.
    assert parse(["--db", "doctor", *words[:1], *words[2:]]).given == {"--db": "doctor"}


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["run", "--help"], ["--strict", "-h"], ["frobnicate", "--help"]])
def test_help_wins(words: list[str]) -> None:
    assert parse(words).command == "help"


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["status", "-V"]])
def test_version(words: list[str]) -> None:
    assert parse(words).command == "version"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--sample-evry=3", "unknown option --sample-evry (did you mean --sample-every?); try tradebot run --help"),
        ("--replay_file=3", "unknown option --replay_file (did you mean --replay-file?); try tradebot run --help"),
        ("-ingest=replay", "unknown option -ingest (did you mean --ingest?); try tradebot run --help"),
        ("--zzz", "unknown option --zzz; try tradebot run --help"),
        ("-x", "unknown option -x; try tradebot run --help"),
        ("-v", "unknown option -v; try tradebot run --help"),
        ("--versoin", "unknown option --versoin (did you mean --version?); try tradebot run --help"),
        ("prune --keeep=3d", "unknown option --keeep (did you mean --keep?); try tradebot prune --help"),
        # The options of the command that is named come first: --database is no option of status, --watch is one.
        ("status --wach", "unknown option --wach (did you mean --watch?); try tradebot status --help"),
        ("run --keeep=3d", "unknown option --keeep (did you mean --keep of tradebot prune?); try tradebot run --help"),
        ("--", "unexpected --; try tradebot run --help"),
        # A shortened option would change its meaning when an option is added.
        ("--sec=3", "unknown option --sec (did you mean --seconds?); try tradebot run --help"),
        ("--symb=X", "unknown option --symb (did you mean --symbol?); try tradebot run --help"),
        ("--strict=yes", "--strict takes no value; try tradebot run --help"),
        ("--db", "--db needs a value: --db=...; try tradebot run --help"),
        ("--db=", "--db needs a value: --db=...; try tradebot run --help"),
        ("--db --strict", "--db needs a value: --db=...; try tradebot run --help"),
        ("--set", "--set needs a value: --set=...; try tradebot run --help"),
        ("--db=a --db=b", "--db is given twice; try tradebot run --help"),
        ("health --db=a --db=b", "--db is given twice; try tradebot health --help"),
        ("--strict --strict", "--strict is given twice; try tradebot run --help"),
        ("--db doctor --db=x", "--db is given twice; try tradebot doctor --help"),
        ("show-confg", "unknown command show-confg (did you mean show-config?); try tradebot --help"),
        ("help", "unknown command help (did you mean --help?); try tradebot --help"),
        ("my.toml", "unknown command my.toml (did you mean --config=FILE?); try tradebot --help"),
        ("a.jsonl.gz", "unknown command a.jsonl.gz (did you mean --ingest=replay --replay-file=FILE?); "
                       "try tradebot --help"),
        ("frobnicate", "unknown command frobnicate; try tradebot --help"),
        ("prun --keep=30d", "unknown command prun (did you mean prune?); try tradebot --help"),
        ("run run", 'unexpected argument "run"; try tradebot run --help'),
        ("check-config a b", 'unexpected argument "b"; try tradebot check-config --help'),
        ("check-config --db=a", "--db: check-config takes no such option; try tradebot check-config --help"),
        ("--version=3", "--version takes no value; try tradebot run --help"),
        ("--out=x", "--out: run takes no such option; it belongs to tradebot capture; try tradebot run --help"),
        ("show-config --max-mb=3", "--max-mb: show-config takes no such option; it belongs to tradebot capture; "
                                   "try tradebot show-config --help"),
        ("sources --db=x", "--db: sources takes no such option; try tradebot sources --help"),
        ("sources x", 'unexpected argument "x"; try tradebot sources --help'),
        ("source", "unknown command source (did you mean sources?); try tradebot --help"),
        ("--systemctl=x", "--systemctl: run takes no such option; it belongs to tradebot soak and tradebot prove; "
                          "try tradebot run --help"),
        ("prune", "prune needs --keep=AGE; try tradebot prune --help"),
        ("backup --force", "backup needs FILE; try tradebot backup --help"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_and_a_hint(words: str, expected: str) -> None:
    """G5: bad usage is 12."""
    with pytest.raises(UsageError) as caught:
        parse(words.split())
    assert str(caught.value) == expected
    assert caught.value.exit_code == ExitCode.CONFIG


def test_odd_words_are_shown_harmless() -> None:
    for words in (["a\x1b[2J"], ["--a\x1b[2J"], ["run", "\x1b"], ["check-config", "x", "\udcff"], [""]):
        with pytest.raises(UsageError) as caught:
            parse(words)
        assert str(caught.value).isprintable()
    with pytest.raises(UsageError) as caught:
        parse(["run", "ws://user:hunter2@host"])
    assert "hunter2" not in str(caught.value)


@given(words=st.lists(st.one_of(st.sampled_from([*TAKES_VALUE, *NAMES, "-", "--db=x", "--set=x", "x"]), st.text())))
def test_any_words_are_arguments_or_one_line(words: list[str]) -> None:
    try:
        parse(words)
    except UsageError as error:
        assert str(error).endswith(" --help")
        assert str(error).isprintable()


@given(
    given_=st.dictionaries(
        st.sampled_from(sorted({*RUN_OPTIONS} - {"--help", "--set"})),
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


@pytest.mark.parametrize("command", NAMES)
def test_each_command_takes_its_options_and_no_other(command: str) -> None:
    for option, valued in TAKES_VALUE.items():
        word = f"{option}=x" if valued else option
        if option in TRADEBOT.command(command).options:
            words = [other for other in line(command) if not other.startswith(option)]
            taken = parse([*words, word])
            if option == "--help":
                assert taken == Arguments("help", {}, command)
            elif option == "--set":
                assert taken.sets == ("x",)
            else:
                assert taken.given[option] == ("x" if valued else True)
        elif option != "--version":
            with pytest.raises(UsageError, match=f"{option}: {command} takes no such option"):
                parse([*line(command), word])


def test_backup_takes_a_file() -> None:
    assert parse(["backup", "copy.db", "--force"]) == Arguments("backup", {"--force": True}, "copy.db")

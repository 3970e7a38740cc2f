"""Scenario files and when what is due; recordings likewise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mockws_server.actions import (
    NAMES,
    Action,
    Burst,
    Disconnect,
    DropPings,
    Duplicate,
    Garbage,
    HalfFrame,
    Refuse,
    Reject,
    Reorder,
    Reset,
    Skip,
    Stall,
    Text,
    Ticks,
    Wait,
)
from mockws_server.frames import Sender
from mockws_server.market import STYLES
from mockws_server.recording import FRAMES_AT_ONCE_MAX, RecordedMessage, RecordingSchedule, messages
from mockws_server.script import TICKS_AT_ONCE_MAX, Script, ScriptSchedule, duration_s, load, names, parse
from tradebot.config.model import FeedConfig
from tradebot.core.errors import ConfigError
from tradebot.core.events import BUY, SELL
from tradebot.feeds.replay.decompress import Damaged, unpack

STEP = '[[step]]\ndo = "wait"\nseconds = 1\n'


def play(script: Script, until_s: float = 1e9, start_s: float = 0.0) -> list[tuple[float, Action]]:
    """What is due, each at its time, asking exactly then."""
    schedule, found = ScriptSchedule(script, start_s), list[tuple[float, Action]]()
    while (at_s := schedule.next_at()) is not None and at_s <= until_s:
        found += [(at_s, action) for action in schedule.due(at_s)]
    return found


class TestPlayer:
    def test_each_at_its_time(self) -> None:
        steps = (
            Ticks(3, 10.0), Text("a"), Wait(1.0), Burst(2), Stall(2.0), Burst(2, 1.0, ["X"]), Disconnect(1000), Reset()
        )  # fmt: skip
        found = play(Script("s", steps), start_s=100.0)
        assert [(round(at_s, 6), action) for at_s, action in found] == [
            (100.0, Burst(1)),
            (100.1, Burst(1)),
            (100.2, Burst(1)),
            (100.3, Text("a")),
            (101.3, Burst(2)),
            (101.3, Stall(2.0)),
            (103.3, Burst(1, symbols=["X"])),
            (103.8, Burst(1, symbols=["X"])),
            (104.3, Disconnect(1000)),
            (104.3, Reset()),
        ]

    def test_repeats_so_many_times(self) -> None:
        found = play(Script("s", (Text("a"), Wait(1.0)), repeat=3))
        assert found == [(0.0, Text("a")), (1.0, Text("a")), (2.0, Text("a"))]

    def test_repeats_for_ever(self) -> None:
        assert len(play(Script("s", (Text("a"), Wait(1.0)), repeat=None), until_s=1000.0)) == 1001

    def test_says_whose_turn_it_is(self) -> None:
        schedule = ScriptSchedule(Script("s", (Text("a"), Wait(1.0)), repeat=2), 0.0)
        turns = [schedule.step]
        for at_s in (0.0, 0.0, 0.5, 1.0, 1.0):
            schedule.due(at_s)
            turns.append(schedule.step)
        first, wait = (1, 1, Text("a")), (1, 2, Wait(1.0))
        # Once a wait has begun, the next one is the one to come.
        assert turns == [first, wait, (2, 1, Text("a")), (2, 1, Text("a")), (2, 2, Wait(1.0)), None]
        assert schedule.next_at() is None
        assert schedule.due(10.0) == []

    def test_nothing_is_due_too_early(self) -> None:
        schedule = ScriptSchedule(Script("s", (Ticks(5, 1.0),)), 10.0)
        assert schedule.next_at() == 10.0
        assert schedule.due(9.9) == []
        assert schedule.due(10.0) == [Burst(1)]
        assert schedule.due(10.9) == []

    def test_who_asks_late_gets_many_at_once_but_not_too_many(self) -> None:
        schedule = ScriptSchedule(Script("s", (Burst(1_000_000), Text("end"))), 0.0)
        counts = []
        while isinstance(action := schedule.due(0.0)[0], Burst):
            counts.append(action.count)
        assert sum(counts) == 1_000_000
        assert max(counts) == TICKS_AT_ONCE_MAX
        assert action == Text("end")

    @given(
        st.lists(
            st.one_of(
                st.builds(Ticks, st.integers(1, 700), st.sampled_from([0.3, 1.0, 7.0, 20.0, 30_000.0])),
                st.builds(Burst, st.integers(1, 700), st.sampled_from([0.0, 0.1, 1.0])),
                st.builds(Wait, st.sampled_from([0.1, 1.0])),
                st.builds(Text, st.sampled_from(["a", "b"])),
            ),
            min_size=1,
            max_size=5,
        ),
        st.integers(1, 3),
        st.lists(st.floats(0, 20), max_size=10),
    )
    def test_the_same_comes_out_however_often_one_asks(
        self, steps: list[Action], repeat: int, asked: list[float]
    ) -> None:
        script = Script("s", tuple(steps), repeat=repeat)

        def flat(actions: list[Action]) -> list[str]:
            return [
                name for action in actions
                for name in (["tick"] * action.count if isinstance(action, Burst) else [str(action)])
            ]  # fmt: skip

        exact = play(script)
        schedule, rarely, at_s = ScriptSchedule(script, 0.0), list[Action](), 0.0
        for step_s in [*asked, 1e9]:
            at_s += step_s
            while (next_s := schedule.next_at()) is not None and next_s <= at_s:
                rarely += schedule.due(at_s)
            assert len(flat(rarely)) == len(flat([action for due_s, action in exact if due_s <= at_s]))
        assert flat(rarely) == flat([action for _, action in exact])
        assert len([at_s for at_s, _ in exact]) == len(exact)
        assert sorted(at_s for at_s, _ in exact) == [at_s for at_s, _ in exact]

    def test_takes_as_long_as_its_steps(self) -> None:
        assert Script("s", (Ticks(30, 10.0), Burst(5, 2.0), Stall(1.0), Wait(4.0), Reset())).round_s == 10.0


class TestShipped:
    def test_the_names_of_the_issue(self) -> None:
        assert names() == [
            "burst", "disconnect", "fast", "gap", "gapping", "garbage", "mute", "quiet", "storm", "thin",
        ]  # fmt: skip

    @pytest.mark.parametrize("name", names())
    def test_each_loads_repeats_and_says_what_it_is(self, name: str) -> None:
        script = load(name)
        assert script.name == name
        assert script.repeat is None
        assert 20 <= len(script.description) <= 100

    @pytest.mark.parametrize("name", names())
    def test_an_engine_with_default_settings_lives_through_it(self, name: str) -> None:
        """Less garbage in a row than parse_error_limit, and never longer out than the budget can bear."""
        feed, script = FeedConfig(), load(name)
        steps = script.steps * 2
        run = worst = 0
        for step in steps:
            run = run + step.count if isinstance(step, Garbage) else 0 if duration_s(step) else run
            worst = max(worst, run)
        assert worst <= feed.parse_error_limit / 2
        assert not [step for step in steps if isinstance(step, Refuse) and (step.seconds or 0) > 10]
        assert not [step for step in steps if isinstance(step, Reject) and (step.retry_after_s or 0) > 1]

    def test_mute_outlasts_the_patience_of_a_feed(self) -> None:
        stalls = [step.seconds for step in load("mute").steps if isinstance(step, Stall)]
        assert min(stalls) > FeedConfig().idle_timeout_s

    def test_storm_has_a_bit_of_everything_soon_and_lets_the_link_recover(self) -> None:
        script, stable_s = load("storm"), FeedConfig().stable_after_s
        assert 60 <= script.round_s <= 100
        early = {type(action) for _, action in play(script, until_s=20.0)}
        assert {Garbage, Skip, Disconnect, Reject, Duplicate, Reorder} <= early
        # Long enough without a lost link for the backoff to begin anew, twice in a round.
        lost = [at_s for at_s, action in play(script, until_s=3 * script.round_s)
                if isinstance(action, Disconnect | Reset)]  # fmt: skip
        calm = [after - before for before, after in pairwise(lost) if after - before > stable_s + 5]
        assert len(calm) >= 4
        wanted = set(NAMES) - {"tick", "text", "raw", "frame", "quit"}
        assert {type(step).__struct_config__.tag for step in script.steps} == wanted
        codes = {step.code for step in script.steps if isinstance(step, Disconnect)}
        assert codes == {1006, 1011, 1013}
        assert HalfFrame() in script.steps and any(isinstance(step, DropPings) for step in script.steps)

    @pytest.mark.parametrize("name", names())
    def test_three_of_them_say_the_taker(self, name: str) -> None:
        script = load(name)
        sender = Sender(script.symbols, script.seed, style=script.style)
        actions = [action for _, action in play(script, until_s=script.round_s)]
        sent = [msgspec.json.decode(frame.data) for action in actions for frame in sender.messages(action, 5)
                if isinstance(action, Ticks | Burst)]  # fmt: skip
        assert {tick.get("taker") for tick in sent} == ({BUY, SELL} if name in ("thin", "fast", "gapping") else {None})

    def test_a_thin_market_has_few_trades_a_fast_one_has_bursts_and_a_gapping_one_has_gaps(self) -> None:
        thin, fast, gapping = load("thin"), load("fast"), load("gapping")
        assert sum(step.count for step in thin.steps if isinstance(step, Ticks)) / thin.round_s < 1
        assert max(step.count / step.seconds for step in fast.steps if isinstance(step, Burst)) > 500
        assert any(isinstance(step, Skip) for step in gapping.steps)


class TestFiles:
    def test_all_that_a_file_can_say(self) -> None:
        text = (
            'description = "mine"\nsymbols = ["A", "B"]\nseed = 9\nrepeat = 4\n'
            '[[step]]\ndo = "ticks"\ncount = 1\nper_s = 1\n'
        )
        assert parse(text.encode(), "dir/mine.toml") == Script("mine", (Ticks(1, 1.0),), "mine", ("A", "B"), 9, 4)

    def test_a_market_with_takers(self) -> None:
        script = parse(f'description = "x"\nmarket = "fast"\n{STEP}'.encode(), "x")
        assert (script.market, script.style) == ("fast", STYLES["fast"])
        assert parse(f'description = "x"\n{STEP}'.encode(), "x").style is None

    @pytest.mark.parametrize(("word", "repeat"), [("true", None), ("false", 1), ("1", 1), ("3", 3)])
    def test_repeat(self, word: str, repeat: int | None) -> None:
        assert parse(f'description = "x"\nrepeat = {word}\n{STEP}'.encode(), "x").repeat == repeat

    def test_steps_may_be_written_inline(self) -> None:
        text = 'description = "x"\nstep = [{do = "reset"}, {do = "wait", seconds = 1}]\n'
        assert parse(text.encode(), "x").steps == (Reset(), Wait(1.0))

    def test_a_path_or_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "quiet.toml").write_text(f'description = "mine"\n{STEP}')
        monkeypatch.chdir(tmp_path)
        assert load("quiet.toml").description == load("./quiet.toml").description == "mine"
        assert load("quiet").description != "mine"

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("description = ", "x.toml:1: not valid TOML: "),
            (f'description = "x"\n{STEP}\n[[step\n', "x.toml:6: not valid TOML: "),
            ("\ufeff" + STEP, 'x.toml:1: description: missing; add a line: description = "..."'),
            (f'description = "x"\nrepaet = true\n{STEP}', "x.toml:2: repaet: unknown key (did you mean repeat?)"),
            (f'description = "x"\n\nseed = "1"\n{STEP}', "x.toml:3: seed: expected `int`, got `str`"),
            (f'description = "x"\nseed = -1\n{STEP}', "x.toml:2: seed: expected `int` >= 0"),
            (f'description = "x"\nmarket = "thinn"\n{STEP}',
             'x.toml:2: market: must be one of thin, fast, gapping, not "thinn"'),
            (f'description = "x"\nmarket = 3\n{STEP}', "x.toml:2: market: expected `str | null`, got `int`"),
            (f'description = "x"\nrepeat = 0\n{STEP}', "x.toml:2: repeat: expected `int` >= 1"),
            (f'description = "x"\nsymbols = ["A", 3]\n{STEP}', "x.toml:2: symbols: expected `str`, got `int`"),
            ('description = "x"\n', "x.toml:1: step: needs at least one, written as [[step]]"),
            ('description = "x"\n[step]\ndo = "reset"\n', "x.toml:2: step: needs at least one, written as [[step]]"),
            (f'description = "x"\n{STEP}\n[[step]]\ndo = "rest"\n',
             'x.toml:6: step 2: do: unknown action "rest" (did you mean reset?)'),
            (f'description = "x"\n{STEP}{STEP}[[step]]\ndo = "ticks"\ncount = 0\nper_s = 1\n',
             "x.toml:8: step 3: count: expected `int` >= 1"),
            ('description = "x"\nstep = [3]\n', "x.toml:2: step 1: must be a table, not 3"),
            ('description = "x"\nrepeat = true\n[[step]]\ndo = "reset"\n',
             "x.toml:2: repeat: a round must take at least 0.1 s; add a step that waits"),
            (f'description = "x"\nseed = {"9" * 5000}\n{STEP}', "x.toml"),
            ('description = "x"\nstep = ' + "[" * 5000, "x.toml: not valid TOML: nested too deeply"),
        ],
    )  # fmt: skip
    def test_mistakes_are_said_on_one_line_with_their_place(self, text: str, says: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse(text.encode(), "x.toml")
        assert str(caught.value).startswith(says)
        assert "\n" not in str(caught.value)

    def test_bytes_that_are_no_text(self) -> None:
        with pytest.raises(ConfigError, match=r"^x:2: not UTF-8 text \(byte 0xff\)$"):
            parse(b"# \n\xff", "x")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "big.toml").write_bytes(b"#" * 2_000_000)
        for name, says in (
            ("none.toml", "no such scenario"),
            (".", "is a directory, not a scenario"),
            ("big.toml", "larger than"),
        ):
            with pytest.raises(ConfigError, match=says):
                load(f"{tmp_path}/{name}")

    @given(st.binary(max_size=60))
    def test_any_bytes_are_a_scenario_or_refused(self, data: bytes) -> None:
        with pytest.raises(ConfigError):  # too short to be one
            parse(data, "x")


def replay(*found: tuple[str, int | None]) -> Iterator[RecordedMessage]:
    return iter([RecordedMessage(text.encode(), at_ms) for text, at_ms in found])


class TestReplayer:
    def test_each_when_it_came_at_a_multiple_of_real_time(self) -> None:
        schedule = RecordingSchedule(replay(("a", 5000), ("b", 5500), ("c", 5400), ("d", 7000)), 2.0, 100.0)
        assert schedule.next_at() == 100.0
        assert schedule.due(100.0) == [b"a"]
        assert schedule.next_at() == 100.25
        assert schedule.due(100.24) == []
        assert schedule.due(100.25) == [b"b", b"c"]
        assert schedule.due(100.9) == []
        assert schedule.due(101.0) == [b"d"]
        assert schedule.next_at() is None

    def test_as_fast_as_possible_in_pieces(self) -> None:
        schedule = RecordingSchedule(replay(*[("x", n * 1000) for n in range(1200)]), None, 5.0)
        sizes = []
        while (at_s := schedule.next_at()) is not None:
            assert at_s == 5.0
            sizes.append(len(schedule.due(5.0)))
        assert sizes == [FRAMES_AT_ONCE_MAX, FRAMES_AT_ONCE_MAX, 200]

    def test_lines_without_a_time_come_evenly(self) -> None:
        schedule = RecordingSchedule(replay(("a", None), ("b", None), ("c", None)), 2.0, 0.0)
        times = []
        while (at_s := schedule.next_at()) is not None:
            times.append(at_s)
            schedule.due(at_s)
        assert times == pytest.approx([0.0, 0.005, 0.01])
        assert schedule.untimed == 3

    def test_between_lines_with_a_time_they_come_with_the_one_before(self) -> None:
        schedule = RecordingSchedule(replay(("a", 1000), ("b", None), ("c", 2000)), 1.0, 0.0)
        assert schedule.due(0.0) == [b"a", b"b"]
        assert schedule.next_at() == 1.0

    def test_nothing_yet_is_not_the_end(self) -> None:
        source = iter([RecordedMessage(b"a", 1), None, RecordedMessage(b"b", 1)])
        schedule = RecordingSchedule(source, 1.0, 0.0)
        assert schedule.due(0.0) == [b"a"]
        assert schedule.next_at() == 0.0
        assert schedule.due(0.0) == [b"b"]
        assert schedule.next_at() is None


class TestRecording:
    def read(self, data: bytes, piece: int = 7) -> tuple[list[RecordedMessage | None], list[tuple[int, str]]]:
        complaints: list[tuple[int, str]] = []
        pieces = iter([data[at : at + piece] for at in range(0, len(data), piece)])
        found = messages(unpack(pieces), lambda line, reason: complaints.append((line, reason)))
        return list(found), complaints

    def test_ticks_raw_frames_and_captures(self) -> None:
        tick = '{"symbol":"A","price":1.0,"volume":1,"ts":1700000000}'
        record = json.dumps({"received_ms": 5, "connection": 1, "text": '{"x": "\u00e9"}'})
        header = '{"tradebot_capture":1,"exchange":"okx","symbols":[],"started_ms":1}'
        text = f"\ufeff{tick}\r\n\n{header}\n{record}\npong\n[1]"
        for piece in (1, 7, 10_000):
            assert self.read(text.encode(), piece) == (
                [
                    RecordedMessage(tick.encode(), 1_700_000_000_000),  # old data in seconds
                    RecordedMessage('{"x": "é"}'.encode(), 5),
                    RecordedMessage(b"pong", None),
                    RecordedMessage(b"[1]", None),
                ],
                [],
            )

    def test_lines_that_are_no_good_are_left_out_and_told(self) -> None:
        text = b"a\n\xff\n" + b"x" * (1 << 20) + b"yz\nb\n" + b'{"received_ms":"x"}\n'
        found, complaints = self.read(text, 100_000)
        assert found == [RecordedMessage(b"a", None), RecordedMessage(b"b", None)]
        assert [line for line, _ in complaints] == [2, 3, 5]
        assert "not UTF-8" in complaints[0][1]
        assert "longer than" in complaints[1][1]

    def test_damaged_input_ends_with_what_was_good(self) -> None:
        def pieces() -> Iterator[bytes]:
            yield b"a\nb"
            raise Damaged("corrupt after 3 bytes")

        complaints: list[tuple[int, str]] = []
        found = list(messages(pieces(), lambda line, reason: complaints.append((line, reason))))
        assert found == [RecordedMessage(b"a", None)]
        assert complaints == [(2, "corrupt after 3 bytes")]

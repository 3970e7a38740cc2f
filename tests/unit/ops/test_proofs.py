"""The prover: what experiments are given, how they are judged, and what becomes of their verdicts."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from tradebot.cli.registry import TRADEBOT
from tradebot.config import toml_file as configfile
from tradebot.config.model import (
    ChannelsConfig,
    Config,
    EngineConfig,
    MetricsConfig,
    NotifyConfig,
    PersistConfig,
    StrategyConfig,
    config_hash,
)
from tradebot.core.errors import ConfigError, ExitCode, TradebotError, UsageError
from tradebot.core.runtime import RealRuntime
from tradebot.ops.proofs import (
    deterministic_replay,
    exit_codes,
    prove,
    psi_integrity,
    reading_while_writing,
    stall_detection,
    throttling,
)
from tradebot.ops.proofs.base import Experiment, Means, ProofOutcome, failed, inconclusive, passed
from tradebot.ops.proofs.bundle import NAMES, Verdict, bundle_path, parse
from tradebot.ops.proofs.lab import Ended, Lab, NotInTime, ProofStopped
from tradebot.ops.proofs.manager import CALL_S, Manager, ManagerError, find_manager, word
from tradebot.ops.proofs.throttling import PHASES, Rate
from tradebot.ops.soak.throttle_ladder import RUNGS
from tradebot.output.streams import GuardedStream
from tradebot.strategy.registry import CHECKS

KERNEL = "some avg10=1.25 avg60=0.50 avg300=0.10 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=6\n"


class Clock(RealRuntime):
    """Time passes by sleeping, and signals come when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.stops = 0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def catch_stop_signals(self) -> None:
        """Those of the tests stay as they are."""

    def stop_signals(self) -> int:
        return self.stops


class Pages:
    """A stream that keeps what was written."""

    def __init__(self) -> None:
        self.text = ""
        self.encoding = "utf-8"

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False


class Terminal(Pages):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lab(tmp_path: Path, clock: Clock) -> Iterator[Lab]:
    made = Lab(tmp_path, Config(), clock, 100.0)
    yield made
    made.close()


def test_the_list_is_the_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle that passed has all six; only the one that cannot be made at all without systemd says so."""
    assert tuple(experiment.name for experiment in prove.EXPERIMENTS) == NAMES
    pages = Pages()
    assert prove.list_proofs(GuardedStream(pages)) == 0  # type: ignore[arg-type]
    assert [line.split()[0] for line in pages.text.splitlines()] == list(NAMES)
    assert [line.split()[0] for line in pages.text.splitlines() if "needs systemd" in line] == ["stall_detection"]
    assert sum(experiment.at_most_s for experiment in prove.EXPERIMENTS) < 800


def test_only_takes_names_in_any_order() -> None:
    chosen = prove.choose("throttling, psi_integrity")
    assert [experiment.name for experiment in chosen] == ["psi_integrity", "throttling"]
    for names in ("throtling", "", "throttling,,", "throttling\x1b[2J"):
        with pytest.raises(UsageError, match=r"--only: no proof is called .*; there are psi_integrity, ") as caught:
            prove.choose(names)
        assert str(caught.value).isprintable()


class TestLab:
    def test_an_experiment_has_the_operators_decisions_and_none_of_the_places(self, lab: Lab, tmp_path: Path) -> None:
        """No alert is sent, no port is opened, no exchange is contacted, no file of the operator is written."""
        operators = Config(
            mode="LIVE",
            live_armed=True,
            app=replace(Config().app, db_path="/precious.db", symbol='odd "symbol"\\'),
            engine=EngineConfig(
                ingest_mode="realws", ws_url="wss://u:p@h", ws_source="s", sample_every=9, run_seconds=1
            ),
            strategy=StrategyConfig(short_window=3, long_window=4),
            channels=ChannelsConfig(1, 1, 1),
            persist=PersistConfig(8192, 60_000, "FULL", 0, 0),
            metrics=MetricsConfig(port=9100),
            notify=NotifyConfig(webhook_url="https://hooks/x"),
        )
        made = Lab(tmp_path, operators, lab.runtime, 1.0)
        option = made.config("c.toml", persist__batch_size=7, engine__replay_file=None)
        assert option == f"--config={tmp_path}/c.toml"
        read = configfile.load(tmp_path / "c.toml", CHECKS)
        assert (read.mode, read.live_armed, read.engine.ingest_mode) == ("SHADOW", False, "synthetic")
        assert (read.app.db_path, read.engine.ws_url, read.engine.ws_source) == (None, None, None)
        assert (read.metrics.port, read.notify.webhook_url, read.engine.run_seconds) == (0, None, None)
        assert (read.persist.batch_size, read.engine.sample_every, read.channels) == (7, 1, ChannelsConfig())
        assert (read.persist.flush_interval_ms, read.persist.drain_timeout_s) == (50, 30.0)
        assert read.persist.synchronous == "FULL"
        assert read.strategy == operators.strategy and read.app.symbol == operators.app.symbol

    def test_engines_inherit_nothing_that_changes_them(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("TRADEBOT_CONFIG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "STATE_DIRECTORY", "XDG_CONFIG_HOME",
                     "XDG_STATE_HOME", "PYTHONHASHSEED"):  # fmt: skip
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
        found = lab.environment({"A": "b"})
        assert not [name for name, value in found.items() if value == "x"]
        assert (found["HOME"], found["A"], found["XDG_RUNTIME_DIR"]) == (str(lab.folder), "b", "/run/user/7")

    def test_waiting_ends(self, lab: Lab, clock: Clock) -> None:
        with pytest.raises(NotInTime, match="a thing: timed out after 5"):
            lab.wait(lambda: None, "a thing", 5.0)
        assert 5.0 <= clock.now_s < 5.2
        with pytest.raises(NotInTime):  # the proof's own limit comes first
            lab.wait(lambda: False, "a thing", 500.0)
        assert clock.now_s < 100.2
        assert lab.wait(lambda: "here", "a thing", 5.0) == "here"

    def test_a_stop_ends_it_whenever_it_came(self, lab: Lab, clock: Clock) -> None:
        clock.stops = 1
        with pytest.raises(ProofStopped):
            lab.pause(1.0)
        assert clock.now_s == 0.0

    def test_evidence_does_not_tell_where_it_was_made(self, lab: Lab) -> None:
        assert lab.shown(f"--db={lab.folder}/x.db \x1b[2J") == "--db=x.db \\x1b[2J"


class TestPsi:
    @staticmethod
    def files(root: Path, text: str = KERNEL, **others: str) -> Path:
        for name in ("cpu", "memory", "io"):
            (root / name).write_text(others.get(name, text))
        return root

    def look(self, root: Path) -> tuple[list[str], dict[str, Any]]:
        evidence: dict[str, Any] = {"lines": [], "looks": []}
        return psi_integrity._look(root, evidence, {}), evidence

    def test_the_kernels_lines_are_kept_as_they_are(self, tmp_path: Path) -> None:
        faults, evidence = self.look(self.files(tmp_path))
        assert faults == []
        assert evidence["lines"][:2] == [f"cpu: {line}" for line in KERNEL.splitlines()]
        assert len(evidence["lines"]) == 6 and len(evidence["looks"][0]) == 12

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("some avg10=1.25\n", "not the kernel's format: 'some avg10=1.25'"),
            (KERNEL.replace("1.25", "101.00"), "no avg10 from 0 to 100"),
            ("full avg10=0.00 avg60=0.00 avg300=0.00 total=6\n", "its line 'some' was not recorded"),
            ("cpu usage 10 %\n", "unknown line"),
        ],
    )
    def test_anything_else_is_a_fault(self, tmp_path: Path, text: str, fault: str) -> None:
        faults, _evidence = self.look(self.files(tmp_path, memory=text))
        assert any(fault in told for told in faults), faults

    @pytest.mark.parametrize("name", ["cpu_usage", "cpu_utilisation", "cpu_percent", "load"])
    def test_stall_time_under_another_name_is_a_fault(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PSI is never called CPU usage."""
        decision = psi_integrity._decision

        class Misnamed:
            def __init__(self, pressure: Any) -> None:
                self.line = decision(pressure).as_line().replace(b'"detail"', f'"{name}"'.encode())

            def as_line(self) -> bytes:
                return self.line

        monkeypatch.setattr(psi_integrity, "_decision", Misnamed)
        faults, _evidence = self.look(self.files(tmp_path))
        assert faults == [f"a decision labels stall time as {name}"]

    def test_a_kernel_without_pressure_files_is_inconclusive(self, lab: Lab) -> None:
        outcome = psi_integrity.run(lab, Means(lab.folder / "none", None, ""))
        assert outcome.verdict == Verdict.INCONCLUSIVE and "psi=1" in outcome.reason

    def test_only_the_kernels_own_files_prove_anything(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """G1: made-up ones that look well are INCONCLUSIVE; a link to the kernel's own are those."""
        monkeypatch.setattr(lab, "start", lambda *words: SimpleNamespace(ended=lambda: Ended(0, "")))
        root = lab.folder / "pressure"
        root.mkdir()
        means = Means(self.files(root), None, "")
        outcome = psi_integrity.run(lab, means)
        assert outcome.verdict == Verdict.INCONCLUSIVE
        assert outcome.reason == f"{root} is not the kernel's /proc/pressure: run without --psi-root"
        (lab.folder / "link").symlink_to(root)
        with monkeypatch.context() as patch:
            patch.setattr(psi_integrity, "KERNEL_ROOT", root)
            assert psi_integrity.run(lab, Means(lab.folder / "link", None, "")).verdict == Verdict.PASSED
        self.files(root, io="io usage 10 %\n")
        assert psi_integrity.run(lab, means).verdict == Verdict.FAILED, "what is wrong goes before where it came from"


class TestJudgements:
    """The measurements of an experiment, and the verdict on them."""

    @staticmethod
    def rates(*rates: float) -> list[Rate]:
        return [Rate(phase, every, rate) for (phase, every), rate in zip(PHASES, rates, strict=True)]

    def test_throttling_uses_the_ladders_rungs(self) -> None:
        assert [(rung.state, rung.sample_every) for rung in RUNGS[1:3]] == list(PHASES[1:3])
        assert [every for _phase, every in PHASES] == [1, 5, 10, 1]
        assert 1000 / throttling.INTERVAL_MS >= throttling.TICKS_PER_S_MIN

    @pytest.mark.parametrize(
        ("rates", "faults"),
        [
            ((250, 50, 25, 250), []),
            ((250, 54.9, 22.6, 226), []),
            ((250, 55.1, 25, 250), ["THROTTLE1: 55.1 ticks/s, expected 50.0"]),
            ((250, 50, 22.4, 250), ["THROTTLE2: 22.4 ticks/s, expected 25.0"]),
            (
                (250, 250, 250, 250),
                ["THROTTLE1: 250.0 ticks/s, expected 50.0", "THROTTLE2: 250.0 ticks/s, expected 25.0"],
            ),
            ((250, 50, 25, 25), ["RESTORED: 25.0 ticks/s, expected 250.0"]),
            ((100, 20, 0, 100), ["THROTTLE2: 0.0 ticks/s, expected 10.0"]),
        ],
    )
    def test_throttling_within_ten_percent(self, rates: tuple[float, ...], faults: list[str]) -> None:
        outcome = throttling.judge(self.rates(*rates), {})
        assert outcome.verdict == (Verdict.FAILED if faults else Verdict.PASSED)
        assert outcome.reason == ("; ".join(faults) or f"ticks/s: {self.told(*rates)}")

    @staticmethod
    def told(*rates: float) -> str:
        return ", ".join(f"{phase} {rate:.1f}" for (phase, _every), rate in zip(PHASES, rates, strict=True))

    @pytest.mark.parametrize("base", [0, 99])
    def test_throttling_needs_a_feed_of_a_hundred_ticks_a_second(self, base: float) -> None:
        outcome = throttling.judge(self.rates(base, base / 5, base / 10, base), {})
        assert outcome.verdict == Verdict.INCONCLUSIVE and f"only {base} ticks/s of 250" in outcome.reason

    def test_exit_codes_are_those_of_the_engine(self) -> None:
        """G5: named by number, or the proof would agree with any."""
        assert {name: getattr(exit_codes, name) for name in ExitCode.__members__} == {
            name: int(code) for name, code in ExitCode.__members__.items()
        }

    @pytest.mark.parametrize("code", [0, 1, 10, 11, 12, 13])
    def test_exit_codes_as_systemd_should_see_them(self, code: int) -> None:
        """G5: restarted for all but 0 and 12."""
        again = code not in (0, 12)
        result, state = ("success", "inactive") if code == 0 else ("exit-code", "activating" if again else "failed")
        ends = [f"{result} exited {code}"] * (2 if again else 1)
        seen = {"NRestarts": "1" if again else "0", "ActiveState": state, "ExecMainStatus": f"{code}"}
        assert exit_codes.faults_of(code, seen, ends) == []
        other = [f"{result} exited 77", *ends[1:]]
        assert exit_codes.faults_of(code, seen, other) == [
            f"expected exit code {code}, but its first end was {other[0]!r}"
        ]
        assert exit_codes.faults_of(code, seen, [])[0] == f"expected exit code {code}, but its first end was 'none'"
        swapped = seen | {"NRestarts": "0" if again else "1"}
        [told] = exit_codes.faults_of(code, swapped, ends)
        assert told.startswith(f"not restarted after {code}" if again else f"restarted after {code}")
        if not again:
            for key, value in (("ExecMainStatus", "1"), ("ActiveState", "activating")):
                [told] = exit_codes.faults_of(code, seen | {key: value}, ends)
                assert told.startswith(f"after {code}: ")

    @pytest.mark.parametrize(
        ("actions", "stall_s", "restarted", "by_itself", "fault"),
        [
            (["NONE", "NONE", "STALL", "NONE"], 45.0, True, False, None),
            (["NONE", "STALL"], 50.0, True, False, None),
            (["NONE", "STALL"], 44.9, True, False, "STALL after 44.9 s"),
            (["NONE", "STALL"], 60.0, True, False, "STALL after 60.0 s"),
            (["NONE", "STALL"], 45.0, False, False, "the unit was not restarted"),
            (["NONE", "STALL"], 45.0, True, True, "systemd's watchdog restarted"),
            (["NONE", "STALL", "STALL"], 45.0, True, False, "expected exactly one STALL"),
            (
                ["NONE", "ENGINE_RESTART", "STALL"],
                45.0,
                True,
                False,
                "expected exactly one STALL and no other action, got: ENGINE_RESTART",
            ),
        ],
    )
    def test_stall(
        self, actions: list[str], stall_s: float, restarted: bool, by_itself: bool, fault: str | None
    ) -> None:
        faults = stall_detection.faults_of(actions, stall_s, restarted, by_itself)
        assert faults == [] if fault is None else faults[0].startswith(fault)

    @staticmethod
    def readers(*transactions: int, errors: Counter[str] | None = None, torn: int = 0) -> list[Any]:
        readers = []
        for count in transactions:
            reader = reading_while_writing.Reader(Path(), RealRuntime().event())
            reader.transactions = count
            readers.append(reader)
        readers[0].errors, readers[0].torn = errors or Counter(), torn
        return readers

    def test_reading_while_writing(self) -> None:
        judge = reading_while_writing.faults_of
        assert judge(self.readers(5, 6), [], 0, 5000, 4001) == []
        assert judge(self.readers(5, 6), [], 0, 5000, 3999) == ["3999 ticks/s stored beside readers, 5000 without"]
        assert judge(self.readers(5, 6), [], 0, 0, 0) == ["0 ticks/s stored beside readers, 0 without"]
        busy = self.readers(5, 6, errors=Counter({"SQLITE_BUSY": 2}))
        assert judge(busy, [], 0, 1, 1) == ["readers got 2 x SQLITE_BUSY"]
        assert judge(self.readers(5, 0), [], 0, 1, 1) == ["a reader completed no read"]
        assert judge(self.readers(5, torn=1), [], 0, 1, 1) == ["1 reads saw tables that contradict each other"]
        assert judge(self.readers(5), ["locked"], 13, 1, 1) == [
            "the writer logged: locked",
            "the engine ended with 13",
        ]

    def test_replays_must_be_the_same_bytes(self, lab: Lab) -> None:
        """S8."""

        def compare(one: bytes, other: bytes, ticks: int = 1) -> ProofOutcome:
            return deterministic_replay.compare(lab, [one, other], {"runs": {"first": {"rows": {"ticks": ticks}}}})

        assert compare(b"a\nb", b"a\nb").verdict == Verdict.PASSED
        changed = compare(b"a\nb", b"a\nc")
        assert (changed.verdict, changed.evidence["first_difference"]) == (Verdict.FAILED, ["b", "c"])
        assert compare(b"a\nb", b"a\nb\nc").verdict == Verdict.FAILED
        assert compare(b"", b"", ticks=0).reason == "no tick was stored"


@pytest.fixture
def no_space() -> Iterator[Path]:
    """A directory for units: systemd separates directories by spaces, and TMPDIR may have one in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


class TestManager:
    """Against a program that stands for systemctl."""

    @staticmethod
    def systemctl(folder: Path, places: str, load: str = "loaded") -> Path:
        program = folder / "systemctl"
        program.write_text(
            f'#!/bin/sh\necho "$@" >>"{folder}/calls"\ncase "$*" in\n'
            f'*UnitPath*) echo Version=252; echo "UnitPath={places}";;\n*LoadState*) echo LoadState={load};;\n'
            "*stop*) echo Unit not loaded. >&2; exit 5;;\nesac\n"
        )
        program.chmod(0o755)
        return program

    def test_units_go_where_they_do_not_stay_and_are_taken_away(self, lab: Lab, no_space: Path) -> None:
        runtime_dir = no_space / "run"
        units = runtime_dir / "systemd/user"
        program = self.systemctl(no_space, f"/etc/systemd/system {no_space}/other {units}")
        manager = find_manager(quote(str(program)), {"XDG_RUNTIME_DIR": str(runtime_dir)}, "t0")
        assert manager.folder == units
        name = manager.write_engine(lab, "x", ["run", "--db=a b%$c"])
        assert name == "tradebot-proof-t0-x.service"
        text = (units / name).read_text()
        for line in (
            "Type=notify",
            "Restart=on-failure",
            "RestartSec=2",
            "RestartPreventExitStatus=12",
            "WatchdogSec=60",
        ):
            assert f"\n{line}\n" in text
        assert '"--db=a b%%$$c"' in text and "DynamicUser" not in text and "[Install]" not in text
        manager.reload()
        manager.close()
        manager.close()
        assert list(units.iterdir()) == []
        calls = (no_space / "calls").read_text().splitlines()
        assert calls[-4:] == [f"kill --signal=KILL {name}", f"stop {name}", "daemon-reload", f"reset-failed {name}"]

    def test_never_where_units_stay(self, tmp_path: Path) -> None:
        program = self.systemctl(tmp_path, "/etc/systemd/system /usr/lib/systemd/system /lib/systemd/system")
        with pytest.raises(ManagerError, match="run it as root"):
            find_manager(quote(str(program)), {}, "t0")

    def test_a_manager_with_other_files_than_ours(self, lab: Lab, no_space: Path) -> None:
        program = self.systemctl(no_space, f"{no_space}/units", load="not-found")
        manager = find_manager(quote(str(program)), {}, "t0")
        manager.write_engine(lab, "x", [])
        with pytest.raises(ManagerError, match="sees other files than this process"):
            manager.reload()

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("echo no such thing >&2; exit 1", "exit 1: no such thing"),
            ("echo Running in chroot, ignoring command", "is not systemd"),
        ],
    )
    def test_no_manager(self, tmp_path: Path, text: str, why: str) -> None:
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        with pytest.raises(ManagerError, match=why):
            find_manager(quote(str(program)), {}, "t0")
        with pytest.raises(ManagerError, match="No such file"):
            find_manager(quote(str(tmp_path / "none")), {}, "t0")

    def test_a_manager_that_does_not_answer(self, tmp_path: Path) -> None:
        assert CALL_S <= 30
        program = tmp_path / "systemctl"
        program.write_text("#!/bin/sh\nexec sleep 60\n")
        program.chmod(0o755)
        manager = Manager([str(program)], tmp_path, "252", "t0")
        with pytest.raises(ManagerError, match=r"no answer within 0\.2 s"):
            manager.call("start", "x", within_s=0.2)

    def test_words_of_a_unit_file(self) -> None:
        assert word('a "b" \\ 5% $HOME') == '"a \\"b\\" \\\\ 5%% $$HOME"'


class TestProve:
    """With experiments that only say what they came to."""

    @pytest.fixture(autouse=True)
    def as_eager_as_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "setpriority", lambda *told: None)

    @staticmethod
    def run(
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        does: Callable[[Lab, Means], ProofOutcome],
        only: str | None = None,
        clock: Clock | None = None,
        errors: Pages | None = None,
        needs_systemd: bool = False,
        as_json: bool = False,
    ) -> tuple[int, str, str]:
        experiments = [
            Experiment(name, "claim", 10, False, lambda lab, means: passed("as wanted", {})) for name in NAMES
        ]
        experiments[2] = Experiment(NAMES[2], "claim", 10, needs_systemd, does)
        monkeypatch.setattr(prove, "EXPERIMENTS", tuple(experiments))
        answers, errors = Pages(), errors or Pages()
        code = prove.run_prove(
            Config(),
            tmp_path / "state" / "x.db",
            only,
            str(tmp_path / "no-systemctl"),
            None,
            {},
            clock or Clock(),
            GuardedStream(answers),  # type: ignore[arg-type]
            GuardedStream(errors),  # type: ignore[arg-type]
            as_json,
        )
        left = sorted(path.name for path in (tmp_path / "state").iterdir())
        assert left in ([], ["proof_bundle.json"]), "the experiments' directory is still there"
        return code, answers.text, errors.text

    def test_all_passed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        seen: list[Path] = []

        def does(lab: Lab, means: Means) -> ProofOutcome:
            seen.append(lab.folder)
            lab.path("rubbish").write_text("x")
            return passed("seen", {"number": 1})

        code, answers, errors = self.run(monkeypatch, tmp_path, does)
        assert (code, errors) == (0, "")
        lines = answers.splitlines()
        assert [line.split()[:2] for line in lines[:6]] == [["PASSED", name] for name in NAMES]
        assert lines[6].startswith("6 of 6 passed") and "valid for 7 days" in lines[7] and "can forge it" in lines[8]
        bundle = parse(bundle_path(tmp_path / "state" / "x.db").read_bytes())
        assert bundle.unpassed() == [] and bundle.proofs[2].evidence == {"number": 1}
        assert (bundle.config_hash, bundle.machine["service_manager"]) == (config_hash(Config()), "none")
        assert seen[0].is_relative_to(tmp_path / "state")

    @pytest.mark.parametrize("outcome", [inconclusive("no means", {}), failed("it is not so", {"rate": 7})])
    def test_not_all_passed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: ProofOutcome) -> None:
        """INCONCLUSIVE is not passed: exit 1; the bundle says so, and the gate stays shut."""
        code, answers, errors = self.run(monkeypatch, tmp_path, lambda lab, means: outcome)
        assert code == 1
        assert "5 of 6 passed" in answers and "the LIVE gate stays closed" in answers
        assert f"{outcome.verdict:<12} {NAMES[2]}" in answers
        bundle = parse(bundle_path(tmp_path / "state" / "x.db").read_bytes())
        assert bundle.unpassed() == [f"{NAMES[2]} {outcome.verdict}"]
        assert ('"rate": 7' in errors) == (outcome.verdict == Verdict.FAILED)

    def test_verdicts_for_scripts(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        outcome = failed("it is not so", {"rate": 7})
        code, text, _ = self.run(monkeypatch, tmp_path, lambda lab, means: outcome, as_json=True)
        answer = json.loads(text)
        assert (code, answer["passed"], text.count("\n")) == (1, False, 1)
        assert list(answer) == ["format", *TRADEBOT.command("prove").json_fields]
        assert answer["bundle"] == str(bundle_path(tmp_path / "state" / "x.db"))
        assert answer["config_hash"] == config_hash(Config())
        assert [proof["name"] for proof in answer["proofs"]] == list(NAMES)
        found = answer["proofs"][2]
        assert (found["verdict"], found["reason"], found["evidence"]) == ("FAILED", "it is not so", {"rate": 7})
        only = self.run(monkeypatch, tmp_path, lambda lab, means: passed("", {}), only=NAMES[2], as_json=True)
        answer = json.loads(only[1])
        assert (only[0], answer["passed"], answer["bundle"], len(answer["proofs"])) == (0, True, None, 1)

    def test_only_some_write_no_bundle(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        code, answers, _ = self.run(monkeypatch, tmp_path, lambda lab, means: passed("", {}), only=NAMES[2])
        assert code == 0 and "No bundle was written" in answers and answers.count("PASSED") == 1
        assert not bundle_path(tmp_path / "state" / "x.db").exists()
        assert self.run(monkeypatch, tmp_path, lambda lab, means: failed("", {}), only=NAMES[2])[0] == 1

    @pytest.mark.parametrize(
        "error", [NotInTime("ticks: timed out after 5 s"), ConfigError("broken"), OSError(28, "full")]
    )
    def test_an_experiment_that_cannot_be_ended_has_failed(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
    ) -> None:
        def does(lab: Lab, means: Means) -> ProofOutcome:
            lab.path("engine.log").write_text("last words\n")
            raise error

        code, answers, errors = self.run(monkeypatch, tmp_path, does)
        assert code == 1 and f"{Verdict.FAILED:<12} {NAMES[2]}" in answers and "last words" in errors

    def test_what_needs_systemd_is_inconclusive_without_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def does(lab: Lab, means: Means) -> ProofOutcome:
            raise AssertionError("it must not be tried")

        code, answers, _ = self.run(monkeypatch, tmp_path, does, only=NAMES[2], needs_systemd=True)
        assert code == 1
        assert f"{Verdict.INCONCLUSIVE:<12} {NAMES[2]}" in answers and "no-systemctl" in answers

    def test_all_of_them_fail_at_once_without_a_manager(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Found by use: two minutes of experiments, and then the word that the gate stays shut whatever they say."""

        def does(lab: Lab, means: Means) -> ProofOutcome:
            raise AssertionError("nothing must be tried")

        with pytest.raises(TradebotError, match=r"no service manager answers: .*no-systemctl.*--only=psi_integrity,"):
            self.run(monkeypatch, tmp_path, does, needs_systemd=True)
        assert list((tmp_path / "state").iterdir()) == []

    def test_a_manager_that_fails_is_inconclusive(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def does(lab: Lab, means: Means) -> ProofOutcome:
            raise ManagerError("start x: no answer")

        code, answers, _ = self.run(monkeypatch, tmp_path, does)
        assert code == 1 and f"{Verdict.INCONCLUSIVE:<12} {NAMES[2]}" in answers and "start x: no answer" in answers

    def test_a_stop_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Whatever the experiment makes of it: a systemctl that dies of the same Ctrl-C is no verdict."""
        clock = Clock()

        def does(lab: Lab, means: Means) -> ProofOutcome:
            clock.stops = 1
            raise ManagerError("systemctl: exit -2")

        code, answers, errors = self.run(monkeypatch, tmp_path, does, clock=clock)
        assert (code, answers) == (1, "")
        assert errors == "tradebot: interrupted: the experiments were ended and removed, no bundle was written\n"
        assert list((tmp_path / "state").iterdir()) == []

    def test_after_a_stop_no_other_experiment_begins(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        clock = Clock()

        def does(lab: Lab, means: Means) -> ProofOutcome:
            clock.stops = 1
            return passed("before it saw the signal", {})

        code, answers, errors = self.run(monkeypatch, tmp_path, does, clock=clock)
        assert (code, answers) == (1, "") and "interrupted" in errors

    def test_a_terminal_is_told_which_and_how_long(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        terminal = Terminal()
        self.run(monkeypatch, tmp_path, lambda lab, means: passed("", {}), errors=terminal)
        assert f"[3/6] {NAMES[2]}: at most 10 s (Ctrl-C ends it)" in terminal.text
        assert f"{NAMES[2]}: PASSED after 0 s\n" in terminal.text

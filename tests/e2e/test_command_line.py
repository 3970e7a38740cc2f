"""The command line of a process: help and versions in a pipe, --set, JSON answers, and NO_COLOR."""

from __future__ import annotations

import json
import platform
import re
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.process import CROSSOVER, REPO, Engine, rows
from tests.e2e.test_soak import FAKE
from tests.e2e.test_terminal import COLOUR, on_a_terminal
from tests.unit.ops.soak.test_psi import write_psi
from tradebot.cli.registry import TRADEBOT

NAMES = [command.name for command in TRADEBOT.commands]


def answer(engine: Engine, *args: str, code: int = 0) -> dict[str, Any]:
    """The JSON object that a command prints, on one line and in ASCII."""
    text = engine.run(*args, "--json").expect(code).stdout
    assert text.count("\n") == 1 and text.endswith("\n") and text.isascii()
    found: dict[str, Any] = json.loads(text)
    command = TRADEBOT.command(next((word for word in args if word in NAMES), "run"))
    if not {"--list", "--print"} & set(args):  # these options do something else
        assert list(found) == ["format", *command.json_fields], "the registry and docs/reference/commands.md say else"
    assert found.pop("format") == 1
    return found


@pytest.fixture
def replayed(engine: Engine) -> Engine:
    """A home directory with a database that contains a replay."""
    engine.run("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db").expect(0)
    return engine


@pytest.mark.parametrize("command", NAMES)
def test_help_of_each_command_in_a_pipe(engine: Engine, command: str) -> None:
    done = engine.run(command, "--help").expect(0)
    assert (done.stdout, done.stderr) == (TRADEBOT.help_text(command), "")
    assert engine.run("-h", command).expect(0).stdout == done.stdout


def test_versions(engine: Engine) -> None:
    lines = engine.run("-V").expect(0).stdout.splitlines()
    assert lines == engine.run("--version").expect(0).stdout.splitlines()
    assert lines[1:3] == [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    assert re.fullmatch(r"tradebot \d+\.\d+\.\d+", lines[0]) and any(line.startswith("peewee ") for line in lines)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("statsu",), "unknown command statsu (did you mean status?); try tradebot --help"),
        (("prune", "--keeep=3d"), "unknown option --keeep (did you mean --keep?); try tradebot prune --help"),
        (
            ("--set", "engine.sample_evry=2"),
            "--set engine.sample_evry: unknown key (did you mean engine.sample_every?)",
        ),
    ],
)
def test_mistakes_name_what_is_near_and_end_with_12(engine: Engine, words: tuple[str, ...], says: str) -> None:
    done = engine.run(*words).expect(12)
    assert done.stdout == "" and done.stderr.startswith(f"tradebot: {says}") and done.stderr.count("\n") == 1


def test_a_key_that_is_set_is_what_the_engine_runs_with(engine: Engine) -> None:
    args = ("--ingest=replay", f"--replay-file={CROSSOVER}")
    engine.run(*args, "--db=whole.db").expect(0)
    engine.run(*args, "--set", "app.db_path=half.db", "--set=engine.sample_every=2").expect(0)
    [(whole,)], [(half,)] = (rows(engine.path(name), "SELECT COUNT(*) FROM ticks") for name in ("whole.db", "half.db"))
    assert half == whole // 2
    run = "SELECT run_id FROM runs"
    engine.run(*args, "--sample-every=2", "--db=same.db").expect(0)
    assert rows(engine.path("same.db"), run) == rows(engine.path("half.db"), run) != rows(engine.path("whole.db"), run)


def test_the_summary_for_scripts(engine: Engine) -> None:
    """Nothing else is on standard output, also if there was nothing to do."""
    args = ("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db")
    summary = answer(engine, *args)
    [(ticks,)] = rows(engine.path("x.db"), "SELECT COUNT(*) FROM ticks")
    assert summary["ledger"]["stored"] == summary["ledger"]["received"] == ticks
    assert (summary["mode"], summary["exit_code"], summary["fills"]) == ("SHADOW", 0, 2)
    [(run_id,)] = rows(engine.path("x.db"), "SELECT run_id FROM runs")
    assert summary["run_id"] == run_id
    assert answer(engine, *args, "--resume")["run_id"] == run_id


def test_commands_that_look_answer_scripts(replayed: Engine) -> None:
    assert answer(replayed, "status", "--db=x.db")["last_run"]["complete"] is True
    health = answer(replayed, "health", "--db=x.db")
    assert health == {"healthy": True, "health": health["health"], "database": "x.db"}
    assert answer(replayed, "health", "--db=none.db", code=1)["healthy"] is False
    doctor = answer(replayed, "doctor", "--db=x.db")
    levels = [finding["level"] for finding in doctor["findings"]]
    counted = (levels.count("ok"), levels.count("warn"), levels.count("FAIL"))
    assert counted == (doctor["ok"], doctor["warnings"], doctor["failed"]) and doctor["ok"] > 5
    assert {"check", "level", "text", "advice", "name"} == set(doctor["findings"][0])


def test_commands_that_operate_answer_scripts(replayed: Engine) -> None:
    backup = answer(replayed, "backup", "copy.db", "--db=x.db")
    assert backup["bytes"] == replayed.path("copy.db").stat().st_size and backup["file"] == "copy.db"
    assert answer(replayed, "prune", "--keep=1s", "--dry-run", "--db=x.db")["dry_run"] is True
    with sqlite3.connect(
        replayed.path("x.db")
    ) as db:  # the run must be older than a second, even if the commands are fast
        db.execute("UPDATE runs SET first_start_ms = first_start_ms - 60000, last_end_ms = last_end_ms - 60000")
    db.close()
    prune = answer(replayed, "prune", "--keep=1s", "--db=x.db")
    assert prune["finished"] is True and prune["failure"] is None and prune["deleted"]["ticks"] > 0
    assert rows(replayed.path("x.db"), "SELECT COUNT(*) FROM ticks") == [(0,)]
    proofs = answer(replayed, "prove", "--list")["proofs"]
    assert len(proofs) == 6 and set(proofs[0]) == {"name", "claim", "at_most_s", "needs_systemd"}


def test_commands_that_configure_answer_scripts(engine: Engine) -> None:
    engine.config("c.toml", "[engine]\nsample_every = 2\n")
    shown = answer(engine, "show-config", "--config=c.toml", "--set=metrics.port=9100")
    assert shown["keys"]["engine.sample_every"] == {"value": 2, "source": "c.toml:2"}
    assert shown["keys"]["metrics.port"] == {"value": 9100, "source": "command line --set metrics.port"}
    assert shown["config_hash"] in engine.run("show-config", "--config=c.toml", "--set=metrics.port=9100").stdout
    checked = answer(engine, "check-config", "c.toml")
    assert checked == {
        "file": "c.toml", "named_by": "command line", "valid": True, "problems": [], "notes": []
    }  # fmt: skip
    engine.config("bad.toml", "mod = 3\n")
    assert answer(engine, "check-config", "bad.toml", code=1)["problems"] == [
        "bad.toml:1: mod: unknown key (did you mean mode?)"
    ]
    assert answer(engine, "check-config")["file"] is None
    sources = answer(engine, "sources")
    assert {"name", "exchange", "symbols", "url", "limits"} == set(sources["sources"][0])
    assert "kraken" in [exchange["name"] for exchange in sources["exchanges"]]
    unit = answer(engine, "install-unit", "--user", "--print")
    assert unit["name"] == "tradebot.service" and "[Service]\n" in unit["unit"]


COLOURED = {
    "run": ("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db"),
    "show-config": ("show-config",),
    "health": ("health", "--db=x.db"),
    "prune": ("prune", "--keep=9d", "--db=x.db"),
    "help": ("--help",),
}


@pytest.mark.parametrize("name", COLOURED)
def test_no_color_on_a_terminal(engine: Engine, name: str) -> None:
    """Only the log is coloured, and not with NO_COLOR; an empty NO_COLOR does not count."""
    if name in ("health", "prune"):
        engine.run(*COLOURED["run"]).expect(0)
    assert bool(COLOUR.search(on_a_terminal(engine, *COLOURED[name], env={"NO_COLOR": ""}))) == (name == "run")
    if name == "run":
        engine.path("x.db").unlink()
    assert not COLOUR.search(on_a_terminal(engine, *COLOURED[name], env={"NO_COLOR": "1"}))


CAPTURE = ("capture", "--exchange=okx", "--symbol=A", "--ws-url=ws://127.0.0.1:9", "--seconds=0.3")


def soak(engine: Engine) -> tuple[tuple[str, ...], dict[str, str]]:
    """A supervisor that runs for a second, for an engine that was never started: it reports a problem."""
    write_psi(engine.path("psi"), 1.0)
    engine.path("tradebot.service.json").write_text(json.dumps({"command": [], "cwd": "/", "env": {}, "stop_s": 1}))
    words = ("soak", "--db=x.db", "--psi-root=psi", f"--systemctl={FAKE}", "--duration=1", "--poll=0.5")
    return words, {"TRADEBOT_FAKE_UNITS": str(engine.home)}


@pytest.mark.parametrize("command", ["capture", "soak"])
def test_no_color_of_the_recorder_and_the_supervisor(engine: Engine, command: str) -> None:
    args, env = (CAPTURE, {}) if command == "capture" else soak(engine)
    args, code = (*args, "--log-level=debug", "--log-format=text"), 0 if command == "capture" else 1
    assert COLOUR.search(on_a_terminal(engine, *args, env={**env, "NO_COLOR": ""}, code=code))
    assert not COLOUR.search(on_a_terminal(engine, *args, env={**env, "NO_COLOR": "1"}, code=code))


def test_the_recorder_and_the_supervisor_answer_scripts(engine: Engine) -> None:
    assert answer(engine, *CAPTURE) == {"frames": 0, "trades": 0, "exchange": "okx", "file": None}
    args, env = soak(engine)
    done = engine.run(*args, "--json", env=env).expect(1)
    verdict = json.loads(done.stdout)
    assert list(verdict) == ["format", *TRADEBOT.command("soak").json_fields]
    assert (verdict["format"], verdict["good"], verdict["ending"]) == (1, False, "its duration is over")
    assert verdict["stalls"] == verdict["restarts"] == 0 and verdict["elapsed_s"] >= 1


def test_mockws_help_and_versions() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mockws_server", "-V"], cwd=REPO, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("mockws ") and f"SQLite {sqlite3.sqlite_version}\n" in done.stdout

"""`tradebot health`, `status` and `doctor` with a real engine, its metrics endpoint and its webhook."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import sys
import urllib.request
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.hook import Hook
from tests.e2e.process import Engine, Finished, Running, wait_until
from tradebot.core.log_events import LogEvent
from tradebot.threads.counters import COUNTERS

# Runs as another user, who may not be able to read this Python: therefore the modules are imported first.
AS_NOBODY = """
import email.parser, encodings.ascii, encodings.idna, importlib.metadata, os, sys
import tradebot.cli.commands, tradebot.ops.doctor.command, tradebot.ops.health, tradebot.ops.status_view
importlib.metadata.metadata("peewee")  # Python 3.13 imports a part of it only then
from tradebot.cli.main import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main())
"""
KEYS = """
[app]
db_path = "a.db"
[engine]
tick_interval_ms = 20
[persist]
flush_interval_ms = 50
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def begun(engine: Engine, *options: str) -> Running:
    """A running engine that has stored events and logged this."""
    running = engine.start(*options)
    running.wait_for(LogEvent.BATCH_FLUSHED)
    wait_until(lambda: status_of(engine)["counters"]["persist_count"], "stored events in the status")
    return running


def status_of(engine: Engine) -> dict[str, Any]:
    path = engine.path("a.db.status.json")
    return json.loads(path.read_text()) if path.exists() else {"counters": dict.fromkeys(COUNTERS, 0)}


def ask(engine: Engine, *commands: str) -> list[Finished]:
    """Run several commands at the same time (each takes a while to start); returns their answers."""
    started = [engine.start(*command.split(), "--db=a.db") for command in commands]
    done = [process.finish() for process in started]
    assert [answer.stderr for answer in done] == [""] * len(done)
    return done


def test_health_status_and_doctor_of_a_life(engine: Engine) -> None:
    running = begun(engine, engine.config("c.toml", KEYS))

    health, view, doctor = ask(engine, "health --max-age=5", "status --json", "doctor")
    assert (health.code, health.stdout.split()[:3]) == (0, ["healthy:", "last", "stored"])
    told = json.loads(view.expect(0).stdout)
    assert (told["engine"], told["healthy"], told["status"]["pid"]) == ("running", True, running.pid)
    assert told["last_run"]["ticks"] > 0 and told["last_run"]["exit_code"] is None
    assert f"one engine is running, process {running.pid}" in doctor.stdout
    assert "ok    feed times   the last tick was" in doctor.stdout
    assert doctor.expect(0).stdout.endswith(" 0 failed\n")

    running.send(signal.SIGTERM)
    running.finish().expect(0)
    (health,) = ask(engine, "health")
    assert health.code == 1 and health.stdout.startswith("UNHEALTHY: the engine was stopped, and ended with 0 COMPLETE")


def test_a_watched_engine_that_is_killed(engine: Engine) -> None:
    """Health waits until the status is old; the kernel says who holds the database. Ctrl-C exits with 0."""
    running = begun(engine, engine.config("c.toml", KEYS))
    watching = engine.start("status", "--db=a.db", "--watch", "--json")
    wait_until(lambda: len(watching._lines["stdout"]) >= 2, "two lines")
    watching.send(signal.SIGINT)
    views = [json.loads(line) for line in watching.finish().expect(0).stdout.splitlines()]
    assert all(view["engine"] == "running" for view in views)
    assert views[1]["now_ms"] - views[0]["now_ms"] >= 900

    running.kill()
    status = status_of(engine)
    path = engine.path("a.db.status.json")
    path.write_text(json.dumps(status | {"written_s": status["written_s"] - 30}))  # half a minute later
    view, doctor = ask(engine, "status", "doctor")
    assert "engine silent, UNHEALTHY: no status from the engine" in view.expect(0).stdout
    assert "was killed before it could record how it ended" in doctor.expect(0).stdout


def test_metrics_and_webhook_of_a_run(engine: Engine, hook: Hook) -> None:
    """The endpoint shows every counter as the status does; the webhook reports start, stop and end."""
    pytest.importorskip(
        "prometheus_client", reason="prometheus-client is not installed (pip install 'tradebot[metrics]')"
    )
    port = free_port()
    more = f'[metrics]\nport = {port}\n[notify]\nwebhook_url = "http://127.0.0.1:{hook.server_port}/hook/secret1"\n'
    running = begun(engine, engine.config("c.toml", KEYS + more))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[:1] != "#"}
    assert values["tradebot_events_stored_total"] > 0
    assert values["tradebot_ticks_received_total"] >= values["tradebot_ticks_accepted_total"] > 0
    assert 0 <= values["tradebot_status_age_seconds"] < 5

    refused = engine.run(engine.config("d.toml", KEYS.replace("a.db", "b.db") + more)).expect(12)
    assert f"port {port}" in refused.complaint and "choose another metrics.port" in refused.complaint

    running.send(signal.SIGTERM)
    done = running.finish().expect(0)
    told = hook.posted
    assert [message["event"] for message in told] == ["start", "exit_code", "stop", "exit_code"]
    assert [message["fields"].get("exit_code") for message in told[1:]] == [12, None, 0]
    assert {told[at]["run_id"] for at in (0, 2, 3)} == {done.one(LogEvent.START)["run_id"]}
    assert "secret1" not in done.stderr + refused.stderr


def test_a_webhook_that_does_not_answer_holds_nothing_up(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        running = begun(engine, engine.config("c.toml", f'{KEYS}[notify]\nwebhook_url = "{url}"\n'))
        running.send(signal.SIGTERM)
        done = running.finish().expect(0)
    assert done.ledger["stored"] == done.ledger["accepted"]
    assert done.one(LogEvent.WEBHOOK_END)["given_up"] >= 1


@pytest.mark.parametrize("command", ["status", "health", "doctor"])
def test_a_name_that_no_file_can_have_is_one_line(engine: Engine, command: str) -> None:
    """Regression: tracebacks for files that cannot be examined."""
    done = engine.run(command, f"--db={'a' * 300}.db").expect(12)
    assert "File name too long" in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["status --json", "health", "doctor"])
def test_what_can_be_no_database_is_misuse_and_holds_nobody_up(engine: Engine, command: str) -> None:
    """Exit 12 with one line, because a script would read 1 as an unhealthy engine."""
    os.mkfifo(engine.path("fifo"))
    started = [engine.start(*command.split(), f"--db={name}") for name in ("fifo", ".", "/dev/null")]
    for process, what in zip(started, ("is not a regular", "is a directory; name a", "is not a regular"), strict=True):
        done = process.finish().expect(12)
        said = done.stdout.replace("\n                   -> ", "; ") if command == "doctor" else done.stderr
        [line] = [line for line in said.splitlines() if what in line]
        assert command == "doctor" or (done.stdout, said.count("\n")) == ("", 1)
        assert "with --db or app.db_path" in line or "name a file, e.g. tradebot.db" in line, line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_who_may_not_look_at_the_database_is_told_so_in_one_line(engine: Engine) -> None:
    other = (sys.executable, "-c", AS_NOBODY)
    engine.home.chmod(0o700)
    no_home = {"HOME": "/nonexistent"}  # so that no unreadable configuration is found
    started = [engine.start(command, "--db=x.db", env=no_home, command=other) for command in ("status", "health")]
    doctor = engine.start("doctor", "--db=x.db", command=other)
    for process in started:
        done = process.finish().expect(12)
        assert (done.stdout, done.stderr) == (
            "", "tradebot: database x.db: cannot be read: Permission denied; run this as the user of the engine, or as"
            " root\n",
        )  # fmt: skip
    done = doctor.finish().expect(12)
    assert "FAIL  database     database x.db: cannot be read: Permission denied\n" in done.stdout
    assert done.stderr == "" and done.stdout.endswith(" 2 failed\n"), "the configuration cannot be read either"


def test_the_doctor_knows_a_database_of_another_program(engine: Engine) -> None:
    with closing(sqlite3.connect(engine.path("f.db"))) as db:
        db.execute("CREATE TABLE other (x)")
    done = engine.run("doctor", "--db=f.db").expect(1)
    assert "FAIL  database" in done.stdout and "belongs to another program (tables: other)" in done.stdout


def test_several_mistakes_of_a_configuration_stand_on_one_line(engine: Engine) -> None:
    option = engine.config("bad.toml", "[engine]\nsample_every = 0\nnonsense = 1\n")
    done = engine.run("doctor", option, "--db=x.db").expect(1)
    assert "\\n" not in done.stdout
    assert "sample_every" in done.stdout and "nonsense" in done.stdout


@pytest.mark.parametrize("command", ["health", "status", "soak", "prune", "backup"])
def test_a_configuration_that_is_not_there_is_misuse(engine: Engine, command: str) -> None:
    words = {"prune": ["--keep=1d"], "backup": ["copy.db"]}.get(command, [])
    assert "no such configuration file" in engine.run(command, "--config=nope.toml", *words).expect(12).stderr

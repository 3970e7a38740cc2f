"""Secret URLs in a real run: read from environment and files, used, and never shown."""

from __future__ import annotations

import os
import stat

import pytest

from tests.e2e.hook import Hook
from tests.e2e.process import Engine
from tests.e2e.test_ops_commands import KEYS, free_port
from tradebot.core.log_events import LogEvent

SECRET = "hunter2"


@pytest.mark.parametrize("by", ["environment", "file", "credential"])
def test_a_webhook_that_no_configuration_names(engine: Engine, hook: Hook, by: str) -> None:
    url = f"http://127.0.0.1:{hook.server_port}/x/{SECRET}?key={SECRET}"
    engine.path("credentials").mkdir()
    file = engine.path("credentials/webhook")
    file.write_text(f"{url}\n")
    env, keys = {
        "environment": ({"TRADEBOT_WEBHOOK_URL": url}, ""),
        "file": ({}, f'[notify]\nwebhook_url_file = "{file}"\n'),
        "credential": ({"CREDENTIALS_DIRECTORY": str(file.parent)}, '[notify]\nwebhook_url_file = "webhook"\n'),
    }[by]
    done = engine.run(engine.config("c.toml", KEYS + keys), "--seconds=0.3", env=env).expect(0)
    assert [message["event"] for message in hook.posted] == ["start", "stop", "exit_code"]
    assert SECRET not in done.stderr + done.stdout + str(hook.posted)
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in engine.path(".").glob("a.db*"))


def test_a_feeds_url_that_is_not_there_is_12_with_its_name(engine: Engine) -> None:
    config = engine.config("c.toml", "[engine]\nws_url_file = 'gone.secret'\n")
    done = engine.run(config, "--ingest=mockws").expect(12)
    assert "c.toml:2: engine.ws_url_file: gone.secret: cannot be read: No such file or directory" in done.complaint


def test_credentials_on_the_command_line_are_warned_of_and_masked(engine: Engine) -> None:
    config = engine.config("c.toml", f"{KEYS}[feed]\nreconnect_budget_s = 0\n")
    url = f"ws://user:{SECRET}@127.0.0.1:{free_port()}/?token={SECRET}"
    done = engine.run(config, "--ingest=mockws", f"--ws-url={url}").expect(10)
    assert "engine.ws_url_file" in str(done.one(LogEvent.CREDENTIALS_VISIBLE)["message"])
    assert SECRET not in done.stderr + done.stdout


def test_every_file_of_a_run_is_for_its_owner_only(engine: Engine) -> None:
    """Whatever the umask permits."""
    old = os.umask(0)
    try:
        engine.run(engine.config("c.toml", KEYS), "--seconds=0.3").expect(0)
        engine.run("backup", "copy.db", engine.config("c.toml", KEYS)).expect(0)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in engine.path(".").glob("*.db*")}
    assert {"a.db", "a.db.lock", "a.db.status.json", "copy.db"} <= modes.keys()
    assert set(modes.values()) == {0o600}, modes

"""A start that is refused before the pipeline runs exits with 12, and the webhook reports the reason."""

from __future__ import annotations

import pytest

from tests.e2e.hook import Hook
from tests.e2e.process import Engine


@pytest.mark.parametrize(
    ("keys", "words", "why"),
    [
        ('mode = "LIVE"\n[app]\ndb_path = "a.db"', (), "mode LIVE is refused"),
        ('[app]\ndb_path = "a.db"', ("--ingest=replay", "--replay-file=missing.jsonl"), "missing.jsonl"),
    ],
    ids=["the gate", "an input that is not there"],
)
def test_the_webhook_hears_why(engine: Engine, hook: Hook, keys: str, words: tuple[str, ...], why: str) -> None:
    url = f"http://127.0.0.1:{hook.server_port}/hook/secret1"
    config = engine.config("c.toml", f'{keys}\n[notify]\nwebhook_url = "{url}"\n')
    refused = engine.run(config, *words).expect(12)
    assert why in refused.complaint and "secret1" not in refused.stderr
    (message,) = hook.posted
    assert message["event"] == "exit_code" and why in message["text"]
    assert (message["run_id"], message["fields"]) == ("", {"exit_code": 12})

"""A strategy file that cannot be used: a run that asks for its strategy fails and names the line; other runs work."""

from __future__ import annotations

import shutil

from tests.e2e.process import CROSSOVER, REPO, Engine
from tradebot.core.log_events import LogEvent


def test_it_is_named_when_chosen_and_warned_of_otherwise(engine: Engine) -> None:
    shutil.copytree(REPO / "tradebot", engine.path("tradebot"), ignore=shutil.ignore_patterns("__pycache__"))
    file = engine.path("tradebot/strategy/mine.py")
    file.write_text("\ndef on_ticks(:\n")
    own = {"PYTHONPATH": str(engine.home)}
    replay = ("--ingest=replay", f"--replay-file={CROSSOVER}", "--db=x.db")
    done = engine.run(*replay, env=own).expect(0)
    assert f"{file}:2: SyntaxError" in str(done.one(LogEvent.STRATEGY_BROKEN)["detail"])
    refused = engine.run(*replay, "--strategy=mine", env=own).expect(12)
    assert f'--strategy: "mine" cannot be used: {file}:2: SyntaxError: invalid syntax' in refused.complaint
    assert "Traceback" not in refused.stderr

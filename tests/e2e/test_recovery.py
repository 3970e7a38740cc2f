"""The recovery test detects what it should; its points are those of `make recovery`, of which CI runs some."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.process import REPO, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc) on the search path"),
]


def lab(home: Path, module: str, *args: str) -> tuple[int, str]:
    """Run the recovery test; returns its exit code and output."""
    words = [sys.executable, "-m", *module.split(), *args]
    done = subprocess.run(words, cwd=REPO, env=environment(home), capture_output=True, text=True)
    said = done.stdout + done.stderr
    if "recovery: skipped" in said:
        pytest.skip(said.strip())
    return done.returncode, said


@pytest.mark.parametrize(
    ("fault", "args"),
    [
        ("spill-without-sync", ("--scenario=spill", "--kind=power", "--changes=80", "--images=4")),
        ("stored-too-early", ("--scenario=run", "--kind=kill", "--changes=12")),
    ],
)
def test_it_finds_what_it_is_there_for(tmp_path: Path, fault: str, args: tuple[str, ...]) -> None:
    code, said = lab(tmp_path, f"tests.recovery.broken {fault}", "--synchronous=NORMAL", *args)
    assert code == 1, said
    assert "lost: of run" in said, said

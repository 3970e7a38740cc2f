"""How the tests are started does not change them: what their process inherits, its children do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = r"""
import json, os, re, sys, time
status = open("/proc/self/status").read()
print(json.dumps({
    "ignored": int(re.search(r"SigIgn:\s+(\w+)", status)[1], 16),
    "blocked": int(re.search(r"SigBlk:\s+(\w+)", status)[1], 16),
    "umask": os.umask(0),
    "offset_s": time.localtime(0).tm_gmtoff,
    "settings": sorted(name for name in os.environ if name.startswith(("TRADEBOT_", "LC_ALL", "LANG"))),
}))
"""
STARTER = """
import signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
import tests.conftest
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
ODD = "trap '' INT HUP QUIT TERM USR1; umask 077; exec \"$@\""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="signal masks are read from /proc")
def test_children_start_as_from_a_shell(repo: Path) -> None:
    odd = {"LANG": "tr_TR.UTF-8", "LC_ALL": "C", "TZ": "Pacific/Apia", "TRADEBOT_DB": "x", "TRADEBOT_SHARED": "/x"}
    done = subprocess.run(
        ["/bin/sh", "-c", ODD, "sh", sys.executable, "-c", STARTER, CHILD],
        cwd=repo,
        env={"PYTHONPATH": str(repo), **odd},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    found["ignored"] &= ~(3 << 31)  # 32 and 33 belong to the C library: no program can reset them
    assert found == {
        # Python itself ignores SIGPIPE and, where there is one, SIGXFSZ.
        "ignored": 1 << 12 | 1 << 24,
        "blocked": 0,
        "umask": 0o022,
        "offset_s": 49_500,
        "settings": ["TRADEBOT_PYTHON", "TRADEBOT_SHARED"],
    }

"""Run Autobahn's fuzzing server against the real transport: `python -m tests.autobahn.run [CACHE_DIR]`.

The server is Python 2.7 code: it gets an environment of its own in CACHE_DIR (default var/autobahn), made once, and
runs in a network namespace, as it listens on all addresses. Sections 1 to 7 and 10 (9, 12 and 13 measure speed and
compression). Exit code 0: no case failed and no close code is wrong; 1: some did, and which; 77: it cannot run here,
and why.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.autobahn.client import AGENT

REPO = Path(__file__).resolve().parents[2]
PORT = 9001
SECTIONS = ("1", "2", "3", "4", "5", "6", "7", "10")
SUITE = "autobahntestsuite==25.10.1"
# The last one that can make environments for Python 2.7.
VIRTUALENV = "virtualenv<20.22"
CANNOT_RUN = 77
_GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
_START_S = 30.0


class CannotRun(Exception):
    """What is missing here."""


def python2() -> str:
    """A Python 2.7: $PYTHON2, python2.7 on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    pyenvs = sorted(str(path) for path in pyenv.glob("versions/2.7.*/bin/python2.7"))
    for candidate in (os.environ.get("PYTHON2"), shutil.which("python2.7"), *reversed(pyenvs)):
        # pyenv's shims are on the path without the version behind them.
        if candidate and subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
            return candidate
    raise CannotRun("no Python 2.7 found (set PYTHON2 to one)")


def run(*command: str) -> None:
    """Run a step of the set-up, quietly unless it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def server_program(cache: Path) -> Path:
    """The fuzzing server's command, installed when it is not yet."""
    program, ready = cache / "py27" / "bin" / "wstest", cache / f"ready-{SUITE}"
    if not ready.exists():
        old = python2()
        cache.mkdir(parents=True, exist_ok=True)
        run(sys.executable, "-m", "venv", str(cache / "maker"))
        run(str(cache / "maker/bin/pip"), "install", "--quiet", VIRTUALENV)
        run(str(cache / "maker/bin/virtualenv"), "--quiet", "--python", old, str(cache / "py27"))
        run(str(cache / "py27/bin/pip"), "install", "--quiet", SUITE)
        ready.touch()
    return program


def in_namespace(cache: Path) -> int:
    """Start this program again where nothing outside can be reached, and nobody outside can reach it."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        raise CannotRun("needs unshare and ip (util-linux, iproute2): the server listens on all addresses")
    namespace = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    tried = subprocess.run([*namespace, "true"], capture_output=True, text=True)
    if tried.returncode:
        raise CannotRun(f"no network namespace to be had here: {tried.stderr.strip()}")
    inside = 'ip link set lo up && exec "$@"'
    command = [*namespace, "sh", "-c", inside, "sh", sys.executable, "-m", "tests.autobahn.run", "--inside", str(cache)]
    return subprocess.run(command, cwd=REPO).returncode


def serve_and_run(cache: Path) -> int:
    """Inside the namespace: the server, the client, the verdict."""
    reports = cache / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    spec = cache / "spec.json"
    cases = [f"{section}.*" for section in SECTIONS]
    spec.write_text(json.dumps({"url": f"ws://127.0.0.1:{PORT}", "outdir": str(reports), "cases": cases}))
    with (cache / "server.log").open("w") as log:
        command = [str(server_program(cache)), "-m", "fuzzingserver", "-u", "0", "-s", str(spec)]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=cache)
        try:
            wait_for_server(server, log.name)
            begin = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "tests.autobahn.client", f"ws://127.0.0.1:{PORT}"], cwd=REPO, check=True
            )
            took_s = time.monotonic() - begin
        finally:
            server.terminate()
            server.wait(10)
    return verdict(json.loads((reports / "index.json").read_text())[AGENT], took_s)


def wait_for_server(server: subprocess.Popen[bytes], log: str) -> None:
    """Until the port answers."""
    end = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise CannotRun(f"the fuzzing server did not start, see {log}")


def verdict(results: dict[str, dict[str, object]], took_s: float) -> int:
    """Print what came out; the exit code."""
    failed = [f"{case}: {result['behavior']}" for case, result in results.items() if result["behavior"] not in _GOOD]
    wrong = [
        f"{case}: close {result['behaviorClose']} (code {result['remoteCloseCode']})"
        for case, result in results.items()
        if result["behaviorClose"] not in _GOOD
    ]
    counts: dict[str, int] = {}
    for result in results.values():
        counts[str(result["behavior"])] = counts.get(str(result["behavior"]), 0) + 1
    print("\n".join([*failed, *wrong]) or "all good")
    print(
        f"autobahn: {len(results)} cases in {took_s:.1f} s, {len(failed)} failed, {len(wrong)} wrong close codes "
        f"({', '.join(f'{kind} {count}' for kind, count in sorted(counts.items()))})"
    )
    return 1 if failed or wrong or not results else 0


def main(arguments: list[str]) -> int:
    """Run all; the exit code."""
    try:
        if arguments[:1] == ["--inside"]:
            return serve_and_run(Path(arguments[1]))
        cache = Path(arguments[0] if arguments else REPO / "var" / "autobahn").resolve()
        server_program(cache)
        return in_namespace(cache)
    except CannotRun as error:
        print(f"autobahn skipped: {error}")
        return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

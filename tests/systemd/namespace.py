"""A real systemd as PID 1 of namespaces of its own, for tests: root only, nothing of the host's manager is touched.

It shares the host's files and network, but has its own processes, mounts, control groups, /run, /var/lib, /var/log
and /var/tmp, and, where the kernel has overlayfs, changes to /etc stay inside. Units lie in a directory of the test
(inside it is /etc/systemd/system); each unit's output goes to a file there. Programs outside reach the manager by the
`systemctl` program that it writes. Where it cannot run, `why_not` says why.

    with Systemd(tmp_path) as manager:
        manager.write("hello.service", "[Service]\nExecStart=/bin/echo hello\n")
        manager.ctl("start", "hello.service")
        assert manager.log("hello.service") == "hello\n"
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

MANAGERS: Final = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
PROGRAMS: Final = ("unshare", "nsenter", "setpriv", "mount", "systemctl", "systemd-analyze")
START_S: Final = 20.0
STOP_S: Final = 15.0
POLL_S: Final = 0.05

# What units of an ordinary machine refer to; here it is all there from the beginning.
_TARGETS: Final = (
    *("basic", "default", "exit", "final", "local-fs", "local-fs-pre", "multi-user", "network", "network-online"),
    *("nss-user-lookup", "paths", "poweroff", "reboot", "shutdown", "slices", "sockets", "swap", "sysinit", "timers"),
    *("time-set", "umount"),
)

# Sent to a shell inside the new namespaces. Everything is mounted there only (unshare made all mounts private).
_BOOT: Final = r"""
set -e
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for place in /run /var/lib /var/log /var/tmp; do mount -t tmpfs -o mode=0755 tmpfs "$place"; done
chmod 1777 /var/tmp
mkdir -p /run/lock /run/user /run/etc/upper /run/etc/work
if mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc 2>/dev/null; then
    mkdir -p /etc/systemd/system
    mount --bind "$UNITS" /etc/systemd/system
    UNITS=/etc/systemd/system
    >/run/etc/own
fi
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=tradebot-test \
    SYSTEMD_UNIT_PATH="$UNITS:/run/systemd/system" "$MANAGER" --system --unit=basic.target --log-target=null \
    --show-status=no --default-standard-output=null --default-standard-error=inherit
"""


def why_not() -> str | None:
    """Why no systemd of our own can be started here; None when one can."""
    if os.geteuid() != 0:
        return "a systemd of its own needs root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages systemd, util-linux)"
    if _manager() is None:
        return f"no {' or '.join(MANAGERS)} (package systemd)"
    if _cgroup2() is None:
        return "no writable cgroup2 file system is mounted"
    flags = ["--mount", "--pid", "--fork", "--mount-proc", "--cgroup", "--uts", "--ipc"]
    tried = subprocess.run(["unshare", *flags, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"unshare: {tried.stderr.strip()}"


def _manager() -> str | None:
    return next((path for path in MANAGERS if os.access(path, os.X_OK)), None)


def _cgroup2() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(place)
    return None


class Systemd:
    """One service manager. Everything blocks; not for several threads at once but for `ctl` and `show`."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: for units, logs and the `systemctl` program; a temporary one unless given."""
        self._own = tempfile.TemporaryDirectory(prefix="tradebot-systemd.") if folder is None else None
        self.folder = Path(self._own.name) if self._own is not None else folder or Path()
        self.units = self.folder / "units"
        self.systemctl = self.folder / "systemctl"
        self.pid = 0
        """Of the manager, as seen from outside."""
        self._group: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Systemd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Boot, and wait until the manager answers. Raises RuntimeError with its console when it does not."""
        unit_folder = self.units
        unit_folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        for name in _TARGETS:
            (unit_folder / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
        mounted, manager = _cgroup2(), _manager()
        assert mounted is not None and manager is not None, why_not()
        self._group = Path(tempfile.mkdtemp(prefix=f"tradebot-{os.getpid()}.", dir=mounted))
        self._group.chmod(0o755)  # a user's own manager reads it
        # unshare dies with the test run, and with it everything inside, whatever ends the test run.
        enter = (
            'echo $$ >"$GROUP/cgroup.procs"; exec setpriv --pdeathsig=KILL unshare --mount --pid --fork'
            ' --kill-child=KILL --mount-proc --cgroup --uts --ipc sh -c "$BOOT"'
        )
        told = {"BOOT": _BOOT, "GROUP": str(self._group), "UNITS": str(unit_folder), "MANAGER": manager}
        with open(self.folder / "console.log", "wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", enter],
                env={**os.environ, **told},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._await_boot()

    def _await_boot(self) -> None:
        assert self._process is not None
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            with suppress(OSError, IndexError):
                self.pid = int(children.read_text().split()[0])
                self._write_systemctl()
                if self.ctl("is-system-running", check=False).strip() in ("running", "degraded"):
                    return
            time.sleep(POLL_S)
        console = self.console()
        self.stop()
        raise RuntimeError(f"systemd did not start:\n{console}")

    def stop(self) -> None:
        """Stop all services, then the manager; remove what it left. Idempotent."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            # Units that stop in order take their private directories below /tmp away.
            if self.pid:
                with suppress(subprocess.TimeoutExpired):
                    self.ctl("stop", "*.service", check=False, timeout_s=STOP_S)
            with suppress(ProcessLookupError):
                os.kill(self.pid or process.pid, signal.SIGKILL)
            process.wait(STOP_S)
        self.pid = 0
        group, self._group = self._group, None
        if group is not None:
            self._remove(group)
        if self._own is not None:
            self._own.cleanup()

    @staticmethod
    def _remove(group: Path) -> None:
        until = time.monotonic() + STOP_S
        for folder, _, _ in sorted(os.walk(group), reverse=True):
            while True:  # dead processes leave a moment after their parent has been waited for
                try:
                    os.rmdir(folder)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(POLL_S)

    @property
    def has_own_etc(self) -> bool:
        """Whether /etc may be written inside without changing the host's."""
        return self.run("sh", "-c", "test ! -e /run/etc/own || echo yes").strip() == "yes"

    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--"]

    def _write_systemctl(self) -> None:
        part = self.folder / "systemctl.part"
        part.write_text(f'#!/bin/sh\nexec {" ".join(self._inside())} systemctl "$@"\n')
        part.chmod(0o755)
        os.replace(part, self.systemctl)

    def run(self, *command: str, check: bool = True, timeout_s: float = 30.0) -> str:
        """Run a program inside; its standard output. Raises AssertionError with its complaint when it fails."""
        answer = subprocess.run([*self._inside(), *command], capture_output=True, text=True, timeout=timeout_s)
        if check:
            assert answer.returncode == 0, f"{' '.join(command)}: exit {answer.returncode}: {answer.stderr}"
        return answer.stdout

    def ctl(self, *words: str, check: bool = True, timeout_s: float = 30.0) -> str:
        """`systemctl WORDS...`; its standard output."""
        return self.run("systemctl", *words, check=check, timeout_s=timeout_s)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """`systemctl show`: properties of a unit by name."""
        lines = self.ctl("show", f"--property={','.join(properties)}", unit).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def write(self, name: str, text: str) -> None:
        """Write a unit or a drop-in (NAME.service.d/X.conf), and let the manager read it.

        The output of a service goes to its log: see `log`.
        """
        self.write_all({name: text})

    def write_all(self, units: dict[str, str]) -> None:
        """The same for several at once, by name."""
        for name, text in units.items():
            path = self.units / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if name.endswith(".service"):
                extra = self.units / f"{name}.d" / "zz-log.conf"
                extra.parent.mkdir(exist_ok=True)
                to = f"append:{self._log_path(name)}"
                extra.write_text(f"[Service]\nStandardOutput={to}\nStandardError={to}\n")
        self.ctl("daemon-reload")

    def _log_path(self, unit: str) -> Path:
        return self.folder / "logs" / f"{unit}.log"

    def log(self, unit: str) -> str:
        """What a service has written so far."""
        path = self._log_path(unit)
        return path.read_text(errors="replace") if path.exists() else ""

    def console(self) -> str:
        """What the manager itself has said."""
        return (self.folder / "console.log").read_text(errors="replace")

    def main_pid(self, unit: str) -> int:
        """The process id of a running service, as this side sees it. Raises AssertionError when it has none."""
        inner = int(self.show(unit, "MainPID")["MainPID"])
        assert inner, f"{unit} does not run: {self.log(unit)[-2000:]}"
        # The namespace's own ids are the last of NSpid; its processes are in the control group of the manager.
        assert self._group is not None
        for procs in self._group.rglob("cgroup.procs"):
            for word in procs.read_text().split():
                with suppress(OSError):
                    status = Path(f"/proc/{word}/status").read_text()
                    ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                    if ids[-1] == str(inner):
                        return int(word)
        raise AssertionError(f"{unit}: process {inner} is not in {self._group}")

    def wait(self, unit: str, what: Callable[[dict[str, str]], bool], *properties: str, within_s: float) -> float:
        """Wait until the unit's properties are as wanted; how long that took, in seconds."""
        begin = time.monotonic()
        while True:
            seen = self.show(unit, *properties)
            took_s = time.monotonic() - begin
            if what(seen):
                return took_s
            assert took_s < within_s, f"{unit} after {took_s:.1f} s: {seen}\n{self.log(unit)[-3000:]}"
            time.sleep(POLL_S)

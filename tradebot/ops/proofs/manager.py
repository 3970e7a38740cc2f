"""The service manager as the proofs use it: units of their own in its runtime directory, removed afterwards.

Never another unit: every name begins with tradebot-proof-. What restarts a proof's engine, and when, is what
etc/systemd/tradebot.service says.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tradebot.core.errors import ConfigError
from tradebot.ops.proofs.lab import ENGINE, Lab
from tradebot.ops.soak.systemctl import command_words
from tradebot.ops.units import ENGINE as ENGINE_UNIT
from tradebot.ops.units import find_template
from tradebot.output.redaction import clip, escape

PREFIX: Final = "tradebot-proof-"
CALL_S: Final = 20.0
RESTART_S: Final = 60.0
_ERROR_CHARS_MAX: Final = 300
_LASTING: Final = tuple(("/", place) for place in ("etc", "lib", "usr", "home", "root"))

# What a proof's unit has from the engine's: how the manager judges, restarts and stops it.
_TAKEN: Final = frozenset({
    "Type", "NotifyAccess", "Restart", "RestartSec", "RestartPreventExitStatus", "TimeoutStartSec", "TimeoutStopSec",
    "WatchdogSec", "Nice", "StartLimitIntervalSec", "StartLimitBurst",
})  # fmt: skip


class ManagerError(Exception):
    """The service manager did not do what it was asked to."""


class Manager:
    """One service manager, through systemctl. One thread; every call blocks, at most for a stated time."""

    def __init__(self, words: Sequence[str], folder: Path, version: str, token: str) -> None:
        """Made by `find_manager`. `folder`: where units go; `token` makes their names this prover's own."""
        self.words = tuple(words)
        self.version = version
        self.folder = folder
        self._token = token
        self._units: list[str] = []

    @property
    def command(self) -> str:
        """As --systemctl takes it."""
        return shlex.join(self.words)

    def call(self, *words: str, within_s: float = CALL_S) -> str:
        """`systemctl WORDS...`; its standard output. Raises ManagerError."""
        return _call([*self.words, *words], within_s)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit by name; empty where the manager says nothing. Raises ManagerError."""
        found = _values(self.call("show", f"--property={','.join(properties)}", unit))
        return {name: found.get(name, "") for name in properties}

    def write_engine(self, lab: Lab, name: str, words: Sequence[str]) -> str:
        """Write a unit that runs `tradebot WORDS...` for the lab; its name. To be followed by `reload`.

        Output goes to NAME.log there. Whenever it ends, NAME.ends gets a line: result, kind of end and status, as the
        manager saw them. Raises ManagerError.
        """
        unit = f"{PREFIX}{self._token}-{name}.service"
        lab.commands.append(" ".join([f"[{unit}]", "tradebot", *words]))
        text = _unit_text(lab, name, words)
        self._units.append(unit)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / unit).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ManagerError(f"{self.folder / unit}: {error.strerror}") from None
        return unit

    def reload(self) -> None:
        """Have it read the units. Raises ManagerError, also when it does not see them."""
        self.call("daemon-reload")
        for unit in self._units:
            if self.show(unit, "LoadState")["LoadState"] != "loaded":
                raise ManagerError(
                    f"does not see {self.folder / unit}: it sees other files than this process, as in a container; run"
                    " tradebot prove where the service manager runs"
                )

    def close(self) -> None:
        """Stop and remove every unit of this prover. Idempotent; raises nothing."""
        units, self._units = self._units, []
        if not units:
            return
        with suppress(ManagerError):  # those that do not run any more
            self.call("kill", "--signal=KILL", *units)
        with suppress(ManagerError):
            self.call("stop", *units)
        for unit in units:
            with suppress(OSError):
                (self.folder / unit).unlink()
        with suppress(ManagerError):
            self.call("daemon-reload")
        with suppress(ManagerError):
            self.call("reset-failed", *units)


def find_manager(command: str | None, environ: Mapping[str, str], token: str) -> Manager:
    """The service manager that `command` (--systemctl), or systemctl for this user, reaches.

    Blocks. Raises ManagerError saying why none can be reached, ConfigError for a command that makes no sense.
    """
    default = "systemctl" if os.geteuid() == 0 else "systemctl --user"
    words = command_words(default if command is None else command)
    properties = _values(_call([*words, "show", "--property=Version,UnitPath"], CALL_S))
    places = [Path(place) for place in properties.get("UnitPath", "").split()]
    if not properties.get("Version") or not places:
        raise ManagerError(f"{' '.join(words)}: does not list its unit directories: it is not systemd")
    return Manager(words, _runtime_folder(places, environ), properties["Version"], token)


def _runtime_folder(places: Sequence[Path], environ: Mapping[str, str]) -> Path:
    """The directory for units that do not outlive a boot; else, for a manager that was given others, one of those.

    Never one where units stay.
    """
    own = environ.get("XDG_RUNTIME_DIR", "")
    wanted = [Path("/run/systemd/system"), *([Path(own) / "systemd/user"] if os.path.isabs(own) else [])]
    others = [place for place in places if place.parts[:2] not in _LASTING and "systemd" not in place.parts]
    for place in [place for place in wanted if place in places] + others:
        existing = next(parent for parent in (place, *place.parents) if parent.exists())
        if os.access(existing, os.W_OK | os.X_OK):
            return place
    raise ManagerError(
        f"none of its runtime unit directories can be written by this user ({', '.join(map(str, wanted))}); run it as"
        " root, or with --systemctl='systemctl --user' for your own"
    )


def _unit_text(lab: Lab, name: str, words: Sequence[str]) -> str:
    try:
        template = find_template(ENGINE_UNIT).read_text(encoding="utf-8")
    except (ConfigError, OSError) as error:
        raise ManagerError(f"{ENGINE_UNIT}: {error}") from None
    shared = ("HOME", "PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    variables = {key: value for key, value in lab.environment().items() if key in shared}
    log, ends = lab.path(f"{name}.log"), lab.path(f"{name}.ends")
    noted = 'echo "$$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS" >>"$$0"'
    return "\n".join(
        [
            "[Unit]",
            "Description=Experiment of tradebot prove, removed when it is done",
            *_taken(template, "Unit"),
            "[Service]",
            *_taken(template, "Service"),
            *(f"Environment={word(f'{key}={value}')}" for key, value in variables.items()),
            f"WorkingDirectory={_path(lab.folder)}",
            f"ExecStart={' '.join(word(part) for part in (*ENGINE, *words))}",
            f"ExecStopPost=/bin/sh -c '{noted}' {word(str(ends))}",
            f"StandardOutput=append:{_path(log)}",
            f"StandardError=append:{_path(log)}",
            "",
        ]
    )


def _taken(template: str, section: str) -> list[str]:
    body = re.split(r"^\[(\w+)\]\n", template, flags=re.M)
    lines = dict(zip(body[1::2], body[2::2], strict=True)).get(section, "").splitlines()
    return [line for line in lines if line.partition("=")[0] in _TAKEN]


def word(text: str) -> str:
    """`text` as one word of a command or variable in a unit file: quoted, no % or $ meaning anything."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")


def _values(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _call(words: Sequence[str], within_s: float) -> str:
    shown = " ".join(words[:6])
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            timeout=within_s,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is for the prover, which still has to clear away
            env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
        )
    except subprocess.TimeoutExpired:
        raise ManagerError(f"{shown}: no answer within {within_s:g} s") from None
    except (OSError, ValueError) as error:
        raise ManagerError(f"{shown}: {getattr(error, 'strerror', None) or error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise ManagerError(
            f"{shown}: exit {done.returncode}: {clip(escape(said[0]), _ERROR_CHARS_MAX) if said else 'nothing said'}"
        )
    return done.stdout.decode("utf-8", "replace")

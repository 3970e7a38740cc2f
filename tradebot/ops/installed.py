"""The installed units of engines, and the configuration of each.

`install-unit` asks before it has a unit run with another configuration; `doctor` and `soak` find the unit of theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

WRITTEN: Final = "# Written by tradebot install-unit"
"""How the first line of a unit begins that install-unit has written."""
SYSTEM_FOLDERS: Final = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
                         "/usr/lib/systemd/system")  # fmt: skip
USER_FOLDERS: Final = ("~/.config/systemd/user", "/etc/systemd/user", "/usr/lib/systemd/user")

_UNIT_BYTES_MAX: Final = 1_000_000
_CONFIG: Final = re.compile(r'^Environment=("?)TRADEBOT_CONFIG=(.*)\1$', re.M)
_START: Final = re.compile(r'^ExecStart=("?)(/.*)\1 run\b', re.M)


class Names(NamedTuple):
    """The names of the files of one engine, derived from its name: units, state directory and polkit rule."""

    name: str = "tradebot"

    @property
    def engine(self) -> str:
        """The engine's unit."""
        return f"{self.name}.service"

    @property
    def soak(self) -> str:
        """The supervisor's unit."""
        return f"{self.name}-soak.service"

    @property
    def state_directories(self) -> tuple[str, str]:
        """Where its database is, as the service sees it and as it really lies."""
        return f"/var/lib/{self.name}", f"/var/lib/private/{self.name}"

    @property
    def example(self) -> str:
        """The drop-in in which every line is a comment."""
        return f"{self.engine}.d/example.conf"

    @property
    def rule(self) -> str:
        """The polkit rule that lets the supervisor restart the engine."""
        return f"50-{self.name}.rules"

    def put_into(self, template: str) -> str:
        """A file of etc/systemd with these names in place of the default ones. The user stays the same for all."""
        default = DEFAULT
        if self == default:
            return template
        for old, new in (
            (default.soak, self.soak),
            (default.engine, self.engine),
            (f"StateDirectory={default.name}\n", f"StateDirectory={self.name}\n"),
            *zip(reversed(default.state_directories), reversed(self.state_directories), strict=True),
        ):
            template = template.replace(old, new)
        return template


DEFAULT: Final = Names()


class InstalledUnit(NamedTuple):
    """An engine's unit as found: its file, the configuration that it names, and the program that it runs."""

    path: Path
    config: str | None
    program: str | None
    user: bool

    @property
    def name(self) -> str:
        """As systemctl takes it."""
        return self.path.name

    def runs_with(self, config: Path | None) -> bool:
        """Whether that is its configuration; None: no file."""
        if self.config is None or config is None:
            return self.config is None and config is None
        return os.path.realpath(self.config) == os.path.realpath(config)


def read_unit_file(path: Path, user: bool = False) -> InstalledUnit | None:
    """The engine's unit at `path`; None if the file is missing, cannot be read, or is not an engine's unit."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            text = file.read(_UNIT_BYTES_MAX).decode("utf-8", "replace").replace("\\\n", "")
    except OSError:  # below a home that this user may not enter
        return None
    start, config = _START.search(text), _CONFIG.search(text)
    if path.name != DEFAULT.engine and (start is None or not text.startswith(WRITTEN)):
        return None
    return InstalledUnit(
        path,
        None if config is None else config[2].replace("%%", "%"),
        None if start is None else start[2].replace("%%", "%"),
        user,
    )


def engine_units(home: Path | None, root: Path = Path("/")) -> list[InstalledUnit]:
    """Every engine's unit of this machine, and of the user with that home: tradebot.service, and what bears WRITTEN."""
    found = _units_in((root / folder.lstrip("/") for folder in SYSTEM_FOLDERS), user=False)
    own = [folder if home is None else folder.replace("~", str(home)) for folder in USER_FOLDERS]
    return found + _units_in((root / folder.lstrip("/") if folder[0] == "/" else Path(folder) for folder in own), True)


def _units_in(folders: Iterable[Path], user: bool) -> list[InstalledUnit]:
    found = []
    for folder in folders:
        try:
            paths = sorted(folder.glob("*.service"), key=lambda path: path.stem)
        except OSError:
            continue
        found += [unit for path in paths if (unit := read_unit_file(path, user)) is not None]
    return found


def unit_of(config: Path | None, units: Iterable[InstalledUnit]) -> str | None:
    """The name of the only unit that runs with this configuration; None if no unit or several units do."""
    names = {unit.name for unit in units if unit.runs_with(config)}
    return names.pop() if len(names) == 1 else None

"""What the engine's service may do with files, judged for its user: the doctor runs as root, to whom nothing is closed.

Permission bits decide; access control lists are not looked at. The service sees some paths whose directories its user
could not enter, because its unit binds them (see `tradebot.ops.units`).
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from tradebot.ops.installed import InstalledUnit

_READ, _WRITE, _ENTER = 4, 2, 1
_BOUND: Final = re.compile(r'^Bind(?:ReadOnly)?Paths="?-?([^"\n]+)"?$', re.M)
_USER: Final = re.compile(r"^User=(\S+)$", re.M)
_STATE: Final = re.compile(r"^StateDirectory=(\S+)$", re.M)


class ServiceUser(NamedTuple):
    """Who a service runs as, by name and numbers, and the paths that its unit shows it whatever lies above them."""

    name: str
    group: str
    uid: int
    gids: frozenset[int]
    shown: tuple[str, ...]

    def may(self, status: os.stat_result, want: int) -> bool:
        """Whether the permission bits of a file let this user do what is wanted (4 read, 2 write, 1 enter)."""
        mode = status.st_mode
        if status.st_uid == self.uid:
            bits = mode >> 6
        elif status.st_gid in self.gids:
            bits = mode >> 3
        else:
            bits = mode
        return bits & want == want

    def reads(self, path: Path) -> bool:
        """Whether the service can read the file itself; see `closed_above` for the directories above it."""
        return self.may(path.stat(), _READ)

    def works_in(self, path: Path) -> bool:
        """Whether it can read and write the file, or make files in the directory."""
        want = _WRITE | (_ENTER if path.is_dir() else _READ)
        return self.may(path.stat(), want)

    def closed_above(self, path: Path) -> Path | None:
        """The first directory on the way to `path` that the service cannot pass; None where it gets there."""
        place = os.path.realpath(path)
        shown = [top for top in self.shown if place == top or place.startswith(f"{top}/")]
        for parent in reversed(Path(place).parents):
            beyond = any(str(parent).startswith(f"{top}/") or str(parent) == top for top in shown)
            if not (beyond or any(top.startswith(f"{parent}/".replace("//", "/")) for top in shown)) and not self.may(
                parent.stat(), _ENTER
            ):
                return parent
        return None


def user_of(unit: InstalledUnit | None) -> ServiceUser | None:
    """The unprivileged user of a system service; None without one, or if this process cannot look it up.

    Only root can look on behalf of another. Blocks as reading a small file does.
    """
    if unit is None or unit.user or os.geteuid() != 0:
        return None
    try:
        text = unit.path.read_text(encoding="utf-8", errors="replace")
        found = _USER.findall(text)
        entry = pwd.getpwnam(found[-1]) if found else None
    except (OSError, KeyError):
        return None
    if entry is None or entry.pw_uid == 0:
        return None
    gids = {entry.pw_gid, *(group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem)}
    return ServiceUser(entry.pw_name, _group(entry.pw_gid), entry.pw_uid, frozenset(gids), tuple(_shown(text)))


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _shown(text: str) -> Iterable[str]:
    for path in _BOUND.findall(text):
        yield os.path.realpath(path.replace("%%", "%"))
    for name in _STATE.findall(text):
        yield from (f"/var/lib/{name}", f"/var/lib/private/{name}")

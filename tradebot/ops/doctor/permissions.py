"""The doctor's file checks: the engine's user can use the files, and no other user can change them. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tradebot.ops.doctor.advice import Advice
from tradebot.ops.doctor.finding import Finding, fail, ok, warn

_OTHERS_WRITE: Final = 0o002
_OTHERS_READ: Final = 0o004
_STICKY: Final = 0o1000


class FileReading(NamedTuple):
    """What a user may do with a file or directory; `mode` are its permission bits.

    `owned`: it belongs to that user; `of_group`: to the user's group. `closed_above`: a directory that the user cannot
    pass on the way to it. `secret`: it holds credentials.
    """

    path: str
    mode: int
    readable: bool = True
    writable: bool = True
    owned: bool = True
    of_group: bool = True
    closed_above: str | None = None
    secret: bool = False


class Judge(NamedTuple):
    """The user whose permissions are checked. `service`: it is the service's user, not the user who runs the doctor.

    `reinstall` is the command that rewrites the service's unit.
    """

    user: str
    group: str = ""
    service: bool = False
    reinstall: str = ""

    def chown(self, *paths: str) -> str:
        """The command that gives files to the user."""
        return f"chown {self.user}: {' '.join(map(shlex.quote, paths))}"


class Files(NamedTuple):
    """What is looked at: the database's directory, the database and what lies beside it, configuration, inputs."""

    directory: FileReading
    database: Sequence[FileReading] = ()
    config: FileReading | None = None
    inputs: Sequence[FileReading] = ()


def check_permissions(files: Files, judge: Judge) -> list[Finding]:
    """What keeps the engine from working with `files`, and what lets others change or read what they should not."""
    found = [*_directory(files.directory, judge), *_database(files.database, judge)]
    if files.config is not None:
        found += _config(files.config, judge)
    found += [finding for file in files.inputs for finding in _input(file, judge)]
    place = files.directory.path
    return found or [ok("permissions", f"{judge.user} can write in {place}, other users cannot")]


def _directory(directory: FileReading, judge: Judge) -> Iterator[Finding]:
    path = shlex.quote(directory.path)
    if not directory.writable:
        advice = "run the engine as the owner of the directory, or name another --db"
        yield fail(
            "permissions",
            f"directory {directory.path} is not writable for {judge.user} (SQLite keeps its WAL there)",
            Advice.DIRECTORY_CLOSED,
            f"`{judge.chown(directory.path)}`" if judge.service else advice,
        )
    elif directory.mode & _OTHERS_WRITE and not directory.mode & _STICKY:
        kept = directory.owned or not judge.service
        command = f"chmod o-w {path}" if kept else f"{judge.chown(directory.path)} && chmod o-w {path}"
        yield warn("permissions", f"every user can write in {directory.path}", Advice.DIRECTORY_OPEN, f"`{command}`")


def _database(files: Sequence[FileReading], judge: Judge) -> Iterator[Finding]:
    closed = [file.path for file in files if not (file.readable and file.writable)]
    if closed:
        advice = "run the doctor as the user of the engine; if it is that one, chown the file to it"
        yield fail(
            "permissions",
            f"{', '.join(closed)}: not readable and writable for {judge.user}",
            Advice.FILES_CLOSED,
            f"`{judge.chown(*closed)}`" if judge.service else advice,
        )
    for file in files:
        if file.path in closed or not file.mode & _OTHERS_WRITE:
            continue
        kept = file.owned or not judge.service
        command = f"chmod o-w {shlex.quote(file.path)}"
        command = command if kept else f"{judge.chown(file.path)} && {command}"
        yield warn("permissions", f"every user can change {file.path}", Advice.FILE_OPEN, f"`{command}`")


def _config(config: FileReading, judge: Judge) -> Iterator[Finding]:
    path = shlex.quote(config.path)
    if config.closed_above is not None and judge.service:
        yield fail(
            "permissions",
            f"{config.path}: {judge.user} cannot enter {config.closed_above}, and the unit does not expose the"
            " file to it: the service exits with 12",
            Advice.CONFIG_HIDDEN,
            f"`{judge.reinstall}`, which makes the unit expose it",
        )
    if not config.readable:
        yield fail(
            "permissions",
            f"{config.path}: {judge.user} cannot read it: the engine exits with 12",
            Advice.CONFIG_CLOSED,
            f"`chgrp {judge.group} {path} && chmod g+r {path}`"
            if judge.service
            else "run the engine as a user who can read it",
        )
    if config.mode & _OTHERS_WRITE:
        yield warn(
            "permissions", f"every user can change {config.path}", Advice.CONFIG_CHANGEABLE, f"`chmod o-w {path}`"
        )
    if config.secret and config.mode & _OTHERS_READ:
        # Without its group, the service would be one of the others who can read it no more.
        kept = not judge.service or config.owned
        command = f"chmod o-r {path}" if kept else f"chgrp {judge.group} {path} && chmod g+r,o-r {path}"
        yield warn(
            "permissions",
            f"every user can read {config.path}, which contains a webhook's URL or credentials",
            Advice.CONFIG_SECRET_SHOWN,
            f"`{command}`",
        )


def _input(file: FileReading, judge: Judge) -> Iterator[Finding]:
    if judge.service and not file.readable:
        path = shlex.quote(file.path)
        yield fail(
            "permissions",
            f"{file.path}: {judge.user} cannot read it: the engine exits with 12",
            Advice.INPUT_CLOSED,
            f"`chgrp {judge.group} {path} && chmod g+r {path}`",
        )

"""`tradebot install-unit`: the systemd units of etc/systemd, filled in for the installation that runs this.

The files there are whole units for a tradebot in /usr/local. What differs is put in: the programs' paths, the
configuration, and, as the units hide homes and /tmp from the service, the directories it needs from there. `--user`
takes out what a user's own service manager cannot do.
"""

from __future__ import annotations

import grp
import os
import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from tradebot import __version__
from tradebot.config.model import STDIN, Config, xdg_directory
from tradebot.config.validation import show
from tradebot.core.errors import ConfigError, UsageError
from tradebot.feeds.sources_file import FILE_NAME as SOURCES_FILE
from tradebot.ops.installed import DEFAULT, SYSTEM_FOLDERS, WRITTEN, InstalledUnit, Names, read_unit_file
from tradebot.ops.user_units import for_user
from tradebot.output.json_answer import json_answer

ENGINE: Final = DEFAULT.engine
SOAK: Final = DEFAULT.soak
MOCKWS: Final = "mockws.service"
UNITS: Final = (ENGINE, SOAK, MOCKWS)
EXAMPLE: Final = DEFAULT.example
POLKIT: Final = DEFAULT.rule
SYSUSERS: Final = "tradebot.sysusers.conf"

_PROGRAMS: Final = {"/usr/local/bin/tradebot": "tradebot", "/usr/local/bin/mockws": "mockws"}
_MARK: Final = "#:paths:\n"
_HOMES: Final = ("/home", "/root", "/run/user")
_TEMPORARY: Final = ("/tmp", "/var/tmp")
_LAUNCHER: Final = "bin/launch.sh"

_COMMAND_S: Final = 30
_USER: Final = "tradebot"


_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")


class Installation(NamedTuple):
    """What the units must know of this installation.

    `programs` by name, variables for the `environment`, paths that are `needed` for reading, and the directory of the
    database where that is not the service's own.
    """

    programs: dict[str, Path]
    environment: dict[str, str]
    needed: tuple[Path, ...]
    database: Path | None = None
    names: Names = DEFAULT


class InstallRequest(NamedTuple):
    """What install-unit was asked for: with which configuration (and its file), for whom, and whether only to print.

    `replace`: a unit that runs with another configuration is to have this one. `as_json`: answer for scripts.
    """

    config: Config
    config_path: Path | None
    user: bool
    print_only: bool
    names: Names = DEFAULT
    replace: bool = False
    as_json: bool = False


def run_install_unit(
    order: InstallRequest, environ: Mapping[str, str], out: TextIO, errors: TextIO, root: Path = Path("/")
) -> int:
    """Install the units, or print the engine's; 0. Main thread; blocks (files, systemctl).

    `root`: of the file system to install into. Raises ConfigError when it cannot be done.
    """
    check_config(order.config, order.user)
    names = order.names
    installation = this_installation(order.config_path, order.config, names)
    if order.user and names != DEFAULT:  # StateDirectory= is the system's
        state = xdg_directory(environ, "XDG_STATE_HOME", ".local/state") / names.name
        installation.environment["STATE_DIRECTORY"] = str(state)
    units = {names.engine: ENGINE, names.soak: SOAK}
    if names == DEFAULT:  # one local feed serves all
        units[MOCKWS] = MOCKWS
    texts = {name: filled(template, installation, order.user) for name, template in units.items()}
    for complaint in [] if order.user else unreadable(installation):
        errors.write(f"tradebot: warning: {complaint}\n")
    if order.print_only:
        unit = texts[names.engine]
        out.write(json_answer({"format": 1, "name": names.engine, "unit": unit}) if order.as_json else unit)
        return 0
    if not order.user and os.geteuid() != 0:
        raise ConfigError("only root can install units for the system; run it as root, or add --user for your own")
    if order.user:
        folder = xdg_directory(environ, "XDG_CONFIG_HOME", ".config") / "systemd" / "user"
    else:
        folder = root / "etc/systemd/system"
    files = {folder / name: text for name, text in texts.items()}
    _refuse_foreign(files, () if order.user else [root / place.lstrip("/") for place in SYSTEM_FOLDERS])
    before = read_unit_file(folder / names.engine, order.user)
    changes = [] if before is None else _changes(before, order, installation)
    if not (folder / names.example).exists():  # it may have been made use of
        files[folder / names.example] = names.put_into(find_template(EXAMPLE).read_text())
    if not order.user:
        files[root / "etc/polkit-1/rules.d" / names.rule] = names.put_into(find_template(POLKIT).read_text())
        files[root / "etc/sysusers.d/tradebot.conf"] = find_template(SYSUSERS).read_text()
    for path, text in files.items():
        _write(path, text)
        if not order.as_json:
            out.write(f"wrote {path}\n")
    steps = _next_steps(order, root == Path("/"))
    if order.as_json:
        written = [str(path) for path in files]
        out.write(json_answer({"format": 1, "written": written, "changes": changes, "to_do": steps}))
        return 0
    notes = [] if order.config_path else ["no configuration: the defaults apply, synthetic ticks (--config=FILE)"]
    out.write("".join(f"{line}\n" for line in (*changes, *notes, *(f"to do: {step}" for step in steps))))
    return 0


def names_of(text: str | None) -> Names:
    """The names that --name=NAME asks for; the default ones for None. Raises UsageError."""
    if text is None:
        return DEFAULT
    name = text.removesuffix(".service")
    if not _NAME.fullmatch(name) or name.endswith("-soak") or Names(name).engine == MOCKWS:
        raise UsageError(
            f"--name: {show(text)} cannot be the name of an engine's unit: lower-case letters, digits, - and _, such as"
            " tradebot-eth"
        )
    return Names(name)


def _refuse_foreign(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Raises ConfigError if a unit that tradebot did not write has one of the names, here or in the system's
    `folders`.
    """
    files = list(files)
    everywhere = [*files, *(folder / path.name for folder in folders for path in files)]
    for path in everywhere:
        if path.exists() and WRITTEN not in path.read_text(errors="replace"):
            raise ConfigError(
                f"{path} was not written by tradebot install-unit; move it elsewhere, change it by hand, or choose"
                " another --name"
            )


def _changes(before: InstalledUnit, order: InstallRequest, installation: Installation) -> list[str]:
    """What becomes of the unit that is there, a line each. Raises UsageError for a change that was not asked for."""
    found = []
    if not before.runs_with(order.config_path):
        old = before.config or "no configuration file"
        new = order.config_path or "no configuration file"
        if not order.replace:
            raise UsageError(
                f"{before.path} runs with {old}; this would change it to {new}. For a second engine:"
                " --name=NAME (its database is then in /var/lib/NAME); to change this one: --replace; to rewrite it"
                f" unchanged: --config={before.config or 'FILE'}"
            )
        found.append(f"{before.name}: ran with {old}, will run with {new} from its next start")
    program = str(installation.programs["tradebot"])
    if before.program not in (None, program):
        found.append(f"{before.name}: ran {before.program}, will run {program} from its next start")
    return found


def filled(template: str, installation: Installation, user: bool) -> str:
    """A unit for this installation, with a line above that says where it is from. Raises ConfigError."""
    own = " --user" if user else ""
    head = f"{WRITTEN}{own} of tradebot {__version__}, which replaces it: changes belong in a drop-in.\n"
    return head + fill(installation.names.put_into(find_template(template).read_text()), installation, user)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        part.chmod(0o644)  # whatever the umask: they hold no secret, and polkit reads as a user of its own
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _next_steps(order: InstallRequest, here: bool) -> list[str]:
    """The commands to give next.

    Where this is the machine installed for, the user is made and the manager reads its files.
    """
    systemctl = ["systemctl", *["--user"] * order.user]
    commands = [[*systemctl, "daemon-reload"]]
    if not order.user:
        commands.insert(0, ["systemd-sysusers", "tradebot.conf"])
    steps = [" ".join(command) for command in commands if not (here and _done(command))]
    both = f"{order.names.engine} {order.names.soak}"
    return [*steps, f"{' '.join(systemctl)} enable --now {both}    (restart, if they are running)"]


def _done(command: list[str]) -> bool:
    """Whether the command could be run, and well."""
    # For systemd-sysusers: a user that a running service has for as long as it runs does not count as one.
    environ = {**os.environ, "SYSTEMD_NSS_DYNAMIC_BYPASS": "1"}
    try:
        return subprocess.run(command, capture_output=True, timeout=_COMMAND_S, env=environ).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_template(name: str) -> Path:
    """A file of etc/systemd: of the checkout, else as installed. Raises ConfigError when it is nowhere."""
    places = [Path(__file__).parents[2] / "etc" / "systemd" / name]
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        places.append(Path(sysconfig.get_path("data", scheme), "share/tradebot/etc/systemd", name))
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        f"{name}: not found in {' or '.join(str(place.parent) for place in places)}; install tradebot again"
    )


def this_installation(config_path: Path | None, config: Config, names: Names = DEFAULT) -> Installation:
    """The installation whose code this is, running with the configuration given. Looks for files.

    Raises ConfigError when it is one that a service could not run.
    """
    root = Path(__file__).parents[2]
    checkout = (root / _LAUNCHER).is_file()
    folder = root / "bin" if checkout else _scripts()
    programs = {name: folder / name for name in _PROGRAMS.values()}
    environment = {"TRADEBOT_PYTHON": sys.executable} if checkout else {}
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    needed = [root, folder, *map(Path, prefixes), *map(Path, filter(os.path.isabs, sys.path))]
    if config_path is not None:
        config_path = config_path.absolute()
        environment["TRADEBOT_CONFIG"] = str(config_path)
        needed += [config_path, config_path.parent / SOURCES_FILE]
    if config.engine.ingest_mode == "replay" and config.engine.replay_file not in (None, STDIN):
        needed.append(Path(str(config.engine.replay_file)))
    # Names that are not absolute are systemd's credentials, which the manager reads itself.
    secrets = (config.engine.ws_url_file, config.notify.webhook_url_file)
    needed += [Path(file) for file in secrets if file is not None and os.path.isabs(file)]
    where = config.app.db_path
    elsewhere = where is not None and not any(_below(where, place) for place in names.state_directories)
    return Installation(programs, environment, tuple(needed), Path(str(where)).parent if elsewhere else None, names)


def _scripts() -> Path:
    folders = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    for folder in folders:
        if (folder / "tradebot").is_file():
            return folder
    raise ConfigError(
        f"there is no program tradebot in {' or '.join(map(str, folders))}: install tradebot into a virtual"
        " environment (python3 -m venv) and use the program there"
    )


def check_config(config: Config, user: bool) -> None:
    """Raises ConfigError for paths that a service would not find."""
    paths = {"app.db_path": config.app.db_path, "engine.replay_file": config.engine.replay_file}
    for key, text in paths.items():
        if text is None or text == STDIN:
            continue
        if not os.path.isabs(text) and not (user and text.startswith("~")):
            raise ConfigError(
                f"{key} = {text}: a service has no working directory and no home directory; give the absolute path"
            )
    secrets = {
        "engine.ws_url_file": config.engine.ws_url_file,
        "notify.webhook_url_file": config.notify.webhook_url_file,
    }
    for key, text in secrets.items():
        if text is not None and text.startswith("~") and not user:
            raise ConfigError(
                f"{key} = {text}: a service has no home directory; give the absolute path or a LoadCredential= name"
            )


def fill(template: str, installation: Installation, user: bool) -> str:
    """A unit of etc/systemd for this installation. Looks at the permissions of directories. Raises ConfigError."""
    for place, name in _PROGRAMS.items():
        template = template.replace(place, _word(str(installation.programs[name])))
    lines = [f"Environment={_word(f'{name}={value}')}" for name, value in installation.environment.items()]
    homes = False
    if not user:
        hiding = _Hiding(installation.needed)
        homes = hiding.homes
        hidden = [f"TemporaryFileSystem={_word(f'{place}:ro')}" for place in hiding.private]
        hidden += [f"BindReadOnlyPaths={_word(f'-{place}')}" for place in hiding.hidden]
        lines += ["# Paths that the directives below hide, but that the service must read:", *hidden] if hidden else []
    if installation.database is not None and not user:
        lines += ["# app.db_path:", f"BindPaths={_word(str(installation.database))}"]
    template = template.replace(_MARK, "".join(f"{line}\n" for line in lines))
    if homes:
        template = template.replace("\nProtectHome=yes\n", "\nProtectHome=tmpfs\n")
    return for_user(template) if user else template


class _Hiding:
    """The required paths that the unit would hide, or that only their owner can reach.

    `homes`: some are below a home; `private`: directories that others may not enter, to be covered; `hidden`: what is
    to be shown again.
    """

    def __init__(self, needed: Iterable[Path]) -> None:
        self.homes = False
        self.private: list[str] = []
        self.hidden: list[str] = []
        everything = {os.path.abspath(path) for path in needed}
        everything |= {os.path.realpath(path) for path in everything}
        for path in sorted(everything):
            if any(_below(path, seen) for seen in self.hidden):
                continue
            covered = self._covered(path)
            if covered:
                self.hidden.append(path)

    def _covered(self, path: str) -> bool:
        if any(_below(path, place) for place in _HOMES):
            self.homes = True
            return True
        if any(_below(path, place) for place in (*_TEMPORARY, *self.private)):
            return True
        closed = next((str(place) for place in reversed(Path(path).parents) if not _may_enter(place)), None)
        if closed is None:
            return False
        self.private.append(closed)
        return True


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _may_enter(place: Path) -> bool:
    """Whether every user may enter a directory; a missing directory does not count as closed."""
    try:
        return bool(place.stat().st_mode & stat.S_IXOTH)
    except OSError:
        return True


def unreadable(installation: Installation) -> list[str]:
    """What the service's user may not read, or perhaps not write, each with what to do."""
    files = [*installation.programs.values(), *installation.needed]
    found = []
    for path in dict.fromkeys(files):
        try:
            status = path.stat()
        except OSError:
            continue  # whether it must exist is for the engine to say
        folder = stat.S_ISDIR(status.st_mode)
        need = stat.S_IROTH | (stat.S_IXOTH if folder else 0)
        of_group = _group(status.st_gid) == _USER and status.st_mode >> 3 & need == need
        if status.st_mode & need != need and not of_group:
            found.append(
                f"{path}: the service's user may not read it: `chmod o+r{'x' * folder} {path}`, or if it holds a secret"
                f" `chgrp {_USER} {path}` and `chmod g+r {path}`"
            )
    if installation.database is not None:
        found.append(
            f"app.db_path: the service's user must own it: `chown {_USER} {installation.database}`,"
            f" or remove the key; the database is then in {installation.names.state_directories[0]}"
        )
    return found


def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def _word(text: str) -> str:
    """`text` as one word of a unit file. Raises ConfigError for what cannot stand there."""
    if re.search(r"[\"'\\$\s]", text.replace(" ", "")) or ":" in text.removesuffix(":ro"):
        raise ConfigError(
            f"{text}: quotes, backslashes, colons, dollars and line breaks cannot be used in a path of a unit file"
        )
    text = text.replace("%", "%%")
    return f'"{text}"' if " " in text else text

"""The commands of operations: what their options mean, and which module does the work (imported only then)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from tradebot.cli.arguments import Arguments
from tradebot.cli.usage import BACKUP, DOCTOR, HEALTH, INSTALL_UNIT, PROVE, PRUNE, RUN, SOAK, STATUS
from tradebot.config import toml_file as configfile
from tradebot.config.model import Config, db_path, expand_home
from tradebot.config.validation import InvalidValue, check_value, show
from tradebot.core.errors import HINT, ConfigError, TradebotError, UsageError
from tradebot.core.runtime import RealRuntime
from tradebot.output.streams import GuardedStream
from tradebot.strategy.registry import CHECKS

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DAY_S: Final = 86_400.0


class Found(NamedTuple):
    """What --config and --db come to: the configuration, its file where there is one, and the database."""

    config: Config
    config_path: Path | None
    db_path: Path


def run_operation(arguments: Arguments, environ: Mapping[str, str]) -> int:
    """Do one command and answer its exit code. Main thread; blocks as long as it takes. Raises TradebotError."""
    try:
        return _COMMANDS[arguments.command](_Given(arguments, environ))
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        advice = "; run it as the service's user, or as root" if isinstance(error, PermissionError) else ""
        raise TradebotError(f"{where}{error.strerror or error}{advice}") from error


class _Given:
    """The options of one command, each checked when it is asked for. All raise UsageError."""

    def __init__(self, arguments: Arguments, environ: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.environ = environ

    def flag(self, option: str) -> bool:
        return option in self.arguments.given

    def text(self, option: str) -> str | None:
        value = self.arguments.given.get(option)
        return None if value is None else str(value)

    def path(self, option: str) -> Path | None:
        text = self.text(option)
        if text is None:
            return None
        try:
            return Path(expand_home(str(check_value("engine.replay_file", text))))
        except InvalidValue as error:
            raise UsageError(f"{option}: {error}; {HINT}") from None

    def seconds(self, option: str, default: float, low: float, high: float) -> float:
        text = self.text(option)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise UsageError(f"{option}: must be seconds from {low:g} to {high:.0f}, not {show(text)}; {HINT}")
        return float(text)

    def age_ms(self, option: str) -> int:
        text = self.text(option)
        if text is None:
            raise UsageError(f"{self.arguments.command} needs {option}=AGE, such as {option}=30d; {HINT}")
        match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
        if match is None or not int(match[1]):
            raise UsageError(f"{option}: must be an age such as 30d, 12h, 90m or 3600s, not {show(text)}; {HINT}")
        return int(match[1]) * _UNITS_MS[match[2]]

    def choice(self, option: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(option)
        if text is None:
            return default
        if text.lower() not in choices:
            raise UsageError(f"{option}: must be {' or '.join(choices)}, not {show(text)}; {HINT}")
        return text.lower()

    def found(self) -> Found:
        """The configuration that `run` would read, and its database."""
        place = configfile.find(self.text("--config"), self.environ)
        try:
            config = Config() if place is None else configfile.load(place[0], CHECKS)
        except ConfigError as error:
            # Misuse (12), and not the answer "no" (1) that a script would take for a sick engine.
            raise UsageError(str(error)) from None
        named = self.path("--db")
        if named is not None:
            config = replace(config, app=replace(config.app, db_path=str(named)))
        return Found(config, None if place is None else place[0], db_path(config, self.environ))


def _status(given: _Given) -> int:
    from tradebot.ops.status_view import run_status

    return run_status(given.found().db_path, given.flag("--json"), given.flag("--watch"), RealRuntime(), _answers())


def _health(given: _Given) -> int:
    from tradebot.ops.health import run_health

    max_age_s = given.seconds("--max-age", 60.0, 1.0, _DAY_S)
    return run_health(given.found().db_path, max_age_s, RealRuntime(), _answers())


def _doctor(given: _Given) -> int:
    from tradebot.ops.doctor.command import run_doctor

    errors = GuardedStream(sys.stderr)
    config, db, before_update = given.text("--config"), given.path("--db"), given.flag("--before-update")
    return run_doctor(config, db, given.environ, RealRuntime(), _answers(), errors, before_update)


def _install_unit(given: _Given) -> int:
    from tradebot.ops.units import Order, names_of, run_install_unit

    names, found = names_of(given.text("--name")), given.found()
    order = Order(
        found.config, found.config_path, given.flag("--user"), given.flag("--print"), names, given.flag("--replace")
    )
    return run_install_unit(order, given.environ, sys.stdout, sys.stderr)


def _prune(given: _Given) -> int:
    from tradebot.ops.prune import run_prune

    keep_ms = given.age_ms("--keep")
    return run_prune(given.found().db_path, keep_ms, given.flag("--dry-run"), RealRuntime(), sys.stdout, sys.stderr)


def _backup(given: _Given) -> int:
    from tradebot.ops.backup import run_backup

    if given.arguments.file is None:
        raise UsageError(f"backup needs a file to write: tradebot backup FILE; {HINT}")
    target, force = Path(expand_home(given.arguments.file)), given.flag("--force")
    return run_backup(given.found().db_path, target, force, RealRuntime(), sys.stdout, sys.stderr)


def _soak(given: _Given) -> int:
    from tradebot.config.secret_urls import find_webhook
    from tradebot.ops.installed import engine_units, unit_of
    from tradebot.ops.soak.command import SoakOrder, run_soak

    found = given.found()
    webhook_url = find_webhook(found.config, {}, given.environ) or found.config.notify.webhook_url
    order = SoakOrder(found.db_path, webhook_url=webhook_url)
    duration_s = given.seconds("--duration", 0.0, 1.0, 366 * _DAY_S) if given.flag("--duration") else None
    order = order._replace(
        unit=given.text("--unit") or unit_of(found.config_path, engine_units(None)) or order.unit,
        systemctl=given.text("--systemctl") or order.systemctl,
        psi_root=given.path("--psi-root") or order.psi_root,
        poll_s=given.seconds("--poll", order.poll_s, 0.1, 60.0),
        psi_actions=given.choice("--psi-actions", "on", ("on", "off")) == "on",
        decisions=given.path("--decisions"),
        duration_s=duration_s,
        log_level=given.choice("--log-level", order.log_level, ("debug", "info", "warning", "error")).upper(),
        log_format=given.choice("--log-format", "json", ("json", "text")) if given.flag("--log-format") else None,
    )
    return run_soak(order, RealRuntime(), sys.stdout, sys.stderr)


def _prove(given: _Given) -> int:
    from tradebot.cli.resolve import resolve
    from tradebot.ops.proofs.prove import list_proofs, run_prove

    answers, errors = _answers(), GuardedStream(sys.stderr)
    if given.flag("--list"):
        return list_proofs(answers)
    # As run has it, with the limits of a source in it: the gate compares the hashes of both.
    named = {option: value for option, value in given.arguments.given.items() if option in ("--config", "--db")}
    config = resolve(Arguments(RUN, named), given.environ, with_secrets=False).config
    database, only, systemctl = db_path(config, given.environ), given.text("--only"), given.text("--systemctl")
    psi_root = given.path("--psi-root")
    return run_prove(config, database, only, systemctl, psi_root, given.environ, RealRuntime(), answers, errors)


def _answers() -> GuardedStream:
    return GuardedStream(sys.stdout)


_COMMANDS: Final[Mapping[str, Callable[[_Given], int]]] = {
    STATUS: _status,
    HEALTH: _health,
    DOCTOR: _doctor,
    INSTALL_UNIT: _install_unit,
    PRUNE: _prune,
    BACKUP: _backup,
    SOAK: _soak,
    PROVE: _prove,
}

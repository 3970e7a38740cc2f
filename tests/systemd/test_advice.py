"""Every advice of the doctor is carried out as root under a real systemd, and the service starts after it.

The commands between backticks are run as they stand; what an advice says in words is done by the scenario. An advice
that no scenario carries out fails `test_every_advice_is_carried_out`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.systemd.namespace import Systemd
from tradebot.ops.doctor.advice import Advice
from tradebot.store.models import SCHEMA_VERSION

REPO: Final = Path(__file__).resolve().parents[2]
HOME: Final = "/etc/tradebot"
CONFIG: Final = f"{HOME}/tradebot.toml"
DB: Final = "/var/lib/tradebot/tradebot.db"
STATE: Final = "/var/lib/private/tradebot"
KEPT: Final = "/var/lib/kept"
BACKUP: Final = "/var/lib/backup.db"
PORT: Final = 19464
UNIT: Final = "tradebot.service"
UNIT_FILE: Final = f"/etc/systemd/system/{UNIT}"
KEYS: Final = "[engine]\ntick_interval_ms = 50\n[persist]\nflush_interval_ms = 50\n"
SECRET: Final = '[notify]\nwebhook_url = "http://127.0.0.1:9/hook/secret"\n'
METRICS: Final = f"[metrics]\nport = {PORT}\n"

DOCTOR: Final = """
import json, os, sys
from pathlib import Path
from tradebot.ops.doctor import checks, command, database, readings
from tradebot.core.runtime import RealRuntime
from tradebot.output.streams import GuardedStream
config, db, patches = sys.argv[1:]
exec(patches)
look = command.Examination(
    config or None, Path(db) if db else None, dict(os.environ), RealRuntime(), GuardedStream(sys.stderr), True)
print(json.dumps([(finding.name, finding.advice) for finding in look.findings() if finding.name is not None]))
"""


class Box:
    """The service, its files, and root beside them."""

    def __init__(self, manager: Systemd) -> None:
        self.manager = manager
        self.unit = UNIT

    def sh(self, command: str) -> str:
        """Run a command as root, where the service is, with the checkout's programs on the path."""
        path = f"{REPO}/bin:{os.environ['PATH']}"
        environ = [f"PATH={path}", f"TRADEBOT_PYTHON={sys.executable}", "HOME=/root"]
        return self.manager.run("env", *environ, "sh", "-c", command, timeout_s=60.0)

    def py(self, code: str) -> None:
        """Run a few lines of Python there."""
        self.manager.run("env", f"PYTHONPATH={REPO}", sys.executable, "-c", code)

    def sql(self, statement: str) -> None:
        """Change the database of the stopped service."""
        self.py(f"import sqlite3; c = sqlite3.connect({DB!r}, isolation_level=None); c.execute({statement!r})")

    def write(self, path: str, text: str) -> None:
        """Write a file there as root, mode 0644."""
        self.py(f"from pathlib import Path; p = Path({path!r}); p.write_text({text!r}); p.chmod(0o644)")

    def configure(self, more: str = "") -> None:
        """Write the configuration."""
        self.write(CONFIG, KEYS + more)

    def advice(self, config: str = CONFIG, db: str = DB, patches: str = "pass") -> list[tuple[str, str]]:
        """What the doctor advises: names and texts."""
        environ = [f"PYTHONPATH={REPO}", "HOME=/root", f"PATH={os.environ['PATH']}"]
        words = ["env", "-i", *environ, sys.executable, "-c", DOCTOR, config, db, patches]
        return [(name, text) for name, text in json.loads(self.manager.run(*words, timeout_s=60.0))]

    def stop(self) -> None:
        """Stop the service."""
        self.manager.ctl("stop", self.unit, check=False)

    def start(self) -> None:
        """Start the service (again), and see that it works."""
        self.manager.ctl("daemon-reload")
        self.manager.ctl("reset-failed", self.unit, check=False)
        self.manager.ctl("restart", self.unit, check=False, timeout_s=60.0)
        self.manager.wait(
            self.unit,
            lambda it: it["ActiveState"] == "active" and bool(re.search(r" [1-9]\d* stored", it["StatusText"])),
            "ActiveState", "StatusText", "ExecMainStatus",
            within_s=30.0,
        )  # fmt: skip


Step = Callable[[Box], object]


def nothing(box: Box) -> None:
    """What is advised is no deed, or it is the start of the service itself."""


class Scenario(NamedTuple):
    """A state of affairs, the advice that the doctor must give then, and what it says in words.

    `before` is done while the service is stopped, `beside` while it runs. `patches`: what cannot be brought about here,
    such as another version of Python, is put into the doctor's readings.
    """

    advice: frozenset[Advice]
    before: Step = nothing
    beside: Step | None = None
    patches: str = "pass"
    by_hand: Step = nothing
    """Before the commands of the text."""
    config: str = CONFIG
    db: str = DB


def given(*names: Advice) -> frozenset[Advice]:
    return frozenset(names)


def files_of_root(box: Box) -> None:
    box.configure(SECRET)
    box.sh(f"chown root: {DB} {DB}.lock && chmod 666 {DB} && chmod 600 {DB}.lock")
    box.write(f"{DB}.throttle.json", "{")
    box.write(f"{DB}.spill", "[rubbish")
    box.write(f"{DB}.spill.orphan-r1", '["spill"]')
    status = f"p = Path({DB!r} + '.status.json'); s = json.loads(p.read_text())"
    dead = "s.update(state='running', exit_code=None, written_s=s['written_s'] - 60); p.write_text(json.dumps(s))"
    box.py(f"import json; from pathlib import Path; {status}; {dead}")
    box.sql("UPDATE runs SET exit_code = NULL")


def left_over(box: Box) -> None:
    box.sql("UPDATE runs SET exit_code = 13")
    box.write(f"{DB}.spill", '["spill",')
    box.write(f"{DB}.throttle.json", '{"sample_every":2,"state":"THROTTLE1","written_ms":1}')
    box.sh(f"chown tradebot: {DB}.spill {DB}.throttle.json")


def closed_inputs(box: Box) -> None:
    box.write(f"{HOME}/ws_sources.toml", "")
    box.sh(f"chmod 602 {CONFIG} && chmod 600 {HOME}/ws_sources.toml")


def hidden(box: Box) -> None:
    box.sh(f"chmod 700 {HOME}")


def elsewhere(mode: str) -> Step:
    def step(box: Box) -> None:
        box.configure('[app]\ndb_path = "/var/lib/other/x.db"\n')
        box.sh(f"rm -rf /var/lib/other && mkdir -m {mode} /var/lib/other && tradebot install-unit --config={CONFIG}")

    return step


def restored(box: Box) -> None:
    box.stop()
    box.sh(f"rm -f {DB} {DB}-wal {DB}-shm && cp {BACKUP} {DB}")


def damaged(box: Box) -> None:
    box.py(f"""
import sqlite3
c = sqlite3.connect({DB!r}, isolation_level=None)
c.execute("PRAGMA wal_checkpoint(TRUNCATE)")
root, = c.execute("SELECT rootpage FROM sqlite_master WHERE name = 'idx_ticks_ts'").fetchone()
size, = c.execute("PRAGMA page_size").fetchone()
c.close()
with open({DB!r}, "r+b") as file:
    file.seek((root - 1) * size)
    file.write(bytes(size))
""")


def moved_and_put_back(box: Box) -> None:
    box.stop()
    box.sh(f"mv {DB} /root/right.db && chown root: /root/right.db && mv /root/right.db {DB}")


def busy_port(box: Box) -> None:
    box.configure(METRICS)
    box.sh(
        f"systemd-run --unit=other --service-type=exec {sys.executable} -c 'import socket, time;"
        f' s = socket.create_server(("127.0.0.1", {PORT})); time.sleep(600)\''
    )
    box.py(f"import socket\nwhile socket.socket().connect_ex(('127.0.0.1', {PORT})): pass")


def another_port(box: Box) -> None:
    box.configure(f"[metrics]\nport = {PORT + 1}\n")
    box.sh("systemctl stop other")


def stopped_process(box: Box) -> None:
    box.sh(f"systemctl kill --signal=STOP {UNIT}")
    made_old = f"p = Path({DB!r} + '.status.json'); s = json.loads(p.read_text()); s['written_s'] -= 60"
    box.py(f"import json; from pathlib import Path; {made_old}; p.write_text(json.dumps(s))")


def unit_by_hand(box: Box) -> None:
    box.sh(f"mv {UNIT_FILE} /root/tradebot.service.old && tradebot install-unit --config={CONFIG}")


LOOKED_AT: Final = given(
    Advice.PYTHON, Advice.SQLITE_RACE, Advice.CLOCK_STEPS, Advice.CLOCK_BEHIND, Advice.CLOCK_UNKEPT, Advice.FEED_LATE,
    Advice.WAL_HELD, Advice.DISK_FULL, Advice.UPDATE_NO_ROOM, Advice.INTEGRITY_UNFINISHED, Advice.SPILL_GROWS,
    Advice.ENGINE_WITHOUT_LOCK,
)  # fmt: skip

SCENARIOS: Final[dict[str, Scenario]] = {
    "files that root left behind, after a kill": Scenario(
        given(
            Advice.CONFIG_SECRET_SHOWN, Advice.FILE_OPEN, Advice.FILES_CLOSED, Advice.THROTTLE_UNREADABLE,
            Advice.SPILL_FOREIGN, Advice.SPILL_ORPHANED, Advice.ENGINE_KILLED, Advice.RUN_WITHOUT_END,
        ),
        files_of_root,
        by_hand=lambda box: box.sh(f"rm {DB}.spill.orphan-r1"),
    ),
    "inputs that only root can read": Scenario(
        given(Advice.CONFIG_CLOSED, Advice.CONFIG_CHANGEABLE, Advice.INPUT_CLOSED), closed_inputs
    ),
    "a configuration below a closed directory": Scenario(given(Advice.CONFIG_HIDDEN), hidden),
    "a configuration with a mistake": Scenario(
        given(Advice.CONFIG_INVALID), lambda box: box.configure("[nonsense]\n"), by_hand=Box.configure
    ),
    "an open directory": Scenario(given(Advice.DIRECTORY_OPEN), elsewhere("777"), db="/var/lib/other/x.db"),
    "a closed directory": Scenario(given(Advice.DIRECTORY_CLOSED), elsewhere("755"), db="/var/lib/other/x.db"),
    "no unit": Scenario(given(Advice.UNIT_MISSING), lambda box: box.sh(f"rm {UNIT_FILE}")),
    "a unit with a mistake": Scenario(
        given(Advice.UNIT_WRONG), lambda box: box.sh(f"echo Nonsense=1 >>{UNIT_FILE}")
    ),
    "a unit of somebody else": Scenario(
        given(Advice.UNIT_FOREIGN),
        lambda box: box.sh(f"sed -i -e 1d {UNIT_FILE} && echo Nonsense=1 >>{UNIT_FILE}"),
        by_hand=unit_by_hand,
    ),
    "the unit has another configuration": Scenario(
        given(Advice.UNIT_OF_ANOTHER_CONFIG), lambda box: box.write("/etc/other.toml", ""), config="/etc/other.toml"
    ),
    "an older schema, another journal": Scenario(
        given(Advice.SCHEMA_OLDER, Advice.UPDATE_SCHEMA), lambda box: box.sql("PRAGMA user_version = 2")
    ),
    "a newer schema": Scenario(
        given(Advice.SCHEMA_NEWER),
        lambda box: box.sql("PRAGMA user_version = 99"),
        by_hand=lambda box: box.sql(f"PRAGMA user_version = {SCHEMA_VERSION}"),

    ),
    "another journal": Scenario(given(Advice.JOURNAL_MODE), lambda box: box.sql("PRAGMA journal_mode = delete")),
    "an empty database, a damaged status": Scenario(
        given(Advice.DATABASE_EMPTY, Advice.STATUS_UNREADABLE),
        lambda box: box.sh(f"rm -f {DB}-wal {DB}-shm && : >{DB} && echo x >{DB}.status.json"),
    ),
    "no database": Scenario(given(Advice.DATABASE_MISSING), lambda box: box.sh(f"rm {DB}*")),
    "no database at all": Scenario(
        given(Advice.DATABASE_UNREADABLE), lambda box: box.write(DB, "rubbish" * 999), by_hand=restored
    ),
    "damage": Scenario(given(Advice.INTEGRITY), damaged, by_hand=restored),
    "moved away while it runs": Scenario(
        given(Advice.DATABASE_LOST),
        beside=nothing,
        by_hand=moved_and_put_back,
        # The engine finds it out at its next flush and ends: the doctor seldom comes in time to see it at work.
        patches="command.database_trouble = lambda look, status: 'the database does not exist'",
    ),
    "locked": Scenario(
        given(Advice.DATABASE_LOCKED),
        patches="from tradebot.store.errors import StorageUnavailable\n"
        "def locked(path): raise StorageUnavailable('SQLITE_BUSY', 'database is locked', passing=True)\n"
        "command.read_database = locked",
    ),
    "a disk that fails": Scenario(
        given(Advice.DATABASE_DISK),
        patches="def broken(path): raise OSError(5, 'Input/output error')\ncommand.read_database = broken",
    ),
    "a path that can be no database": Scenario(given(Advice.DATABASE_UNUSABLE), db="/var/lib"),
    "no path": Scenario(
        given(Advice.DATABASE_UNNAMED),
        db="",
        patches="from tradebot.core.errors import ConfigError\n"
        "def nowhere(config, environ): raise ConfigError('no home')\ncommand.db_path = nowhere",
    ),
    "what can only be looked at, beside a running engine": Scenario(
        LOOKED_AT,
        beside=nothing,
        patches="checks.PYTHONS = ((3, 99), (4, 0))\nchecks._WAL_RESET_REPAIRED = ((9, 0, 0),)\n"
        "checks._WITHDRAWN = frozenset()\nchecks.STEP_MS_MAX = -1\nchecks.BEHIND_MS_MAX = -10**15\n"
        "readings.read_synchronised = lambda: False\nchecks.LATE_SKEW_MS = -10**15\ndatabase.WAL_BYTES_MAX = -1\n"
        "database.FREE_BYTES_MIN = 10**30\nfrom tradebot.ops.doctor import update\nupdate._SPARE_BYTES = 10**30\n"
        "command.read_integrity = lambda *_: database.Integrity('quick', (), True, 1.0)\n"
        "from tradebot.store.spill import SpillProbe\ncommand.probe_spill = lambda path: SpillProbe(10)\n"
        "readings.read_lock = lambda path: readings.LockReading(True, None)",
    ),
    "what can only be looked at, without an engine": Scenario(
        given(Advice.SQLITE_WITHDRAWN, Advice.WAL_LEFT, Advice.SPILL_WAITS, Advice.RUN_FAILED, Advice.THROTTLED),
        left_over,
        patches="import sqlite3\nchecks._WITHDRAWN = frozenset({sqlite3.sqlite_version_info[:3]})\n"
        "database.WAL_BYTES_MAX = -1",
    ),
    "a feed whose clock is ahead": Scenario(
        given(Advice.FEED_AHEAD), beside=nothing, patches="checks.AHEAD_SKEW_MS = -10**15"
    ),
    "a port that is taken": Scenario(given(Advice.PORT_TAKEN), busy_port, by_hand=another_port),
    "metrics that are not served yet": Scenario(given(Advice.METRICS_AWAY), beside=lambda box: box.configure(METRICS)),
    "no mockws": Scenario(
        given(Advice.MOCKWS_AWAY),
        lambda box: box.write(CONFIG, KEYS.replace("[engine]", '[engine]\ningest_mode = "MOCK_WS"')),
    ),
    "an engine that is stopped in its tracks": Scenario(given(Advice.ENGINE_SILENT), beside=stopped_process),
    "the same where the kernel tells no locks": Scenario(
        given(Advice.ENGINE_HANGS),
        beside=stopped_process,
        patches="readings.read_lock = lambda path: readings.LockReading(False, None)",
    ),
}  # fmt: skip


def test_every_advice_is_carried_out() -> None:
    """One without a scenario fails here, also where no systemd runs."""
    assert {name for scenario in SCENARIOS.values() for name in scenario.advice} == set(Advice)


def test_every_advice_stands_at_one_place_in_the_code() -> None:
    """A second text under a name that is carried out already would be carried out by nobody."""
    sources = [path.read_text() for path in (REPO / "tradebot/ops/doctor").glob("*.py") if path.name != "advice.py"]
    used = re.findall(r"\bAdvice\.([A-Z_]+)\b", "".join(sources))
    assert sorted(used) == sorted(name.name for name in Advice)


@pytest.fixture(scope="module")
def box(manager: Systemd) -> Iterator[Box]:
    """A service that was installed, has run, and has a backup."""
    if not manager.has_own_etc:
        pytest.skip("this kernel has no overlayfs, so /etc would be the host's")
    manager.ctl("stop", "*.service")
    box = Box(manager)
    box.sh(f"mkdir -p -m 755 {HOME} {KEPT}")
    log = manager.units / f"{UNIT}.d" / "zz-log.conf"
    log.parent.mkdir(exist_ok=True)
    to = f"append:{manager.folder}/logs/{UNIT}.log"
    log.write_text(f"[Service]\nStandardOutput={to}\nStandardError={to}\n")
    box.configure()
    box.sh(f"rm -f {UNIT_FILE} && tradebot install-unit --config={CONFIG}")
    box.start()
    box.stop()
    box.sh(f"tradebot backup {BACKUP} --force --db={DB} && cp -a {STATE} {KEPT}/ && cp {UNIT_FILE} {KEPT}/")
    yield box
    manager.ctl("stop", "*.service")


@pytest.fixture
def fresh(box: Box) -> Box:
    """The same with everything as install-unit and a first run left it, stopped."""
    box.stop()
    box.sh(f"chmod 755 {HOME} && rm -rf {STATE} {HOME}/ws_sources.toml {UNIT_FILE}")
    box.sh(f"cp -a {KEPT}/tradebot {STATE} && cp {KEPT}/{UNIT} {UNIT_FILE}")
    box.configure()
    return box


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario_name", SCENARIOS)
def test_after_it_the_service_starts(fresh: Box, scenario_name: str) -> None:
    scenario, box = SCENARIOS[scenario_name], fresh
    scenario.before(box)
    if scenario.beside is not None:
        box.start()
        scenario.beside(box)
    found = box.advice(scenario.config, scenario.db, scenario.patches)
    assert scenario.advice <= {name for name, _ in found}, found
    scenario.by_hand(box)
    for name, text in found:
        if name in scenario.advice:
            for command in re.findall(r"`([^`]+)`", text):
                box.sh(command)
    box.start()
    if scenario.patches == "pass" and scenario.config == CONFIG and scenario.db != "/var/lib":
        # A spill that was not tradebot's has been set aside, which is said in its turn.
        left = [(name, text) for name, text in box.advice(scenario.config, scenario.db) if name != "spill_orphaned"]
        assert not scenario.advice & {name for name, _ in left}, left

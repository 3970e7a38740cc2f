"""The rules of the house that a machine can hold: one seam for time and threads, sizes, no stray prints.

Others: test_purity.py (decisions are pure), test_layers.py (the order of the folders), test_names.py (one class
bears a name; docstrings), test_prose_decisions.py (nothing decides on texts for people). Each rule is a function from
source text to its breaches, so that the rules themselves are tested too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.unit.house import REPO, Rule, breaches, imports, sources, trees

PACKAGES = ("tradebot", "sim", "mockws_server", "bench")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Files and functions that may be longer, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

# Clocks, threads, queues and randomness: who may import what, and why.
SEAM = {
    "_thread", "asyncio", "concurrent", "multiprocessing", "queue", "random", "sched", "secrets", "selectors", "signal",
    "threading", "time", "uuid",
}  # fmt: skip
SEAM_ALLOWED = {
    "tradebot/core/runtime.py": {"time", "threading", "secrets", "signal"},  # it is the seam
    "tradebot/cli/startup.py": {"signal"},  # serves Ctrl-C before the seam is imported
    "tradebot/core/channel.py": {"queue"},  # counts events by the hooks of queue.Queue; its locks come from the seam
}

# Who may know that the storage is SQLite behind peewee: the store, and commands that look into a database file itself.
PEEWEE_ALLOWED = {
    "tradebot/store/": "the implementation",
    "tradebot/ops/doctor/database.py": "examines files that an engine would refuse: damaged, older, of other programs",
    "tradebot/ops/health.py": "reads the last run while an engine writes, and where none can start",
    "tradebot/ops/proofs/": "proves what SQLite does: reading while writing, a database that is locked",
    "tradebot/ops/prune.py": "reports what SQLite's file gains by a pruning",
    "tradebot/ops/soak/last_tick.py": "looks at the newest tick from outside the engine, on a connection of its own",
    "sim/world/faults.py": "makes transactions fail, below the store",
    "sim/world/side_process.py": "is another program that uses the same database",
    "sim/world/torn_writes.py": "makes single statements fail",
}

ROUND_THE_SEAM = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "os.urandom", "os.getrandom"}

# Where answers for people are printed; everything else logs.
MAY_PRINT = ("tradebot/cli/main.py", "tradebot/report/", "mockws_server/cli.py", "sim/__main__.py", "bench/")


def outside_the_seam(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports of clocks, threads, queues or randomness anywhere but in the seam; readings of the clock by datetime."""
    for line, imported in imports(tree):
        module = imported.split(".")[0]
        if module in SEAM and module not in SEAM_ALLOWED.get(name, set()):
            yield f"{line}: imports {module}; take it from tradebot.core.runtime.Runtime"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {dotted.split(".")[1] for dotted in ROUND_THE_SEAM}:
            dotted = ".".join(ast.unparse(node).split(".")[-2:])
            if dotted in ROUND_THE_SEAM:
                yield f"{node.lineno}: {dotted} goes round tradebot.core.runtime.Runtime"


def peewee_outside_the_store(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports of peewee by anything that should see `tradebot.store.protocol` only."""
    for line, imported in imports(tree):
        if imported.split(".")[0] in ("peewee", "playhouse") and not name.startswith(tuple(PEEWEE_ALLOWED)):
            yield f"{line}: imports peewee; use tradebot.store.protocol.Store or a reader of tradebot.store"


def too_long(name: str, tree: ast.Module) -> Iterator[str]:
    """Functions over the limit, but for the listed ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION_LINES and f"{name}::{node.name}" not in LONG_FUNCTIONS:
                yield f"{node.lineno}: {node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"


def prints(name: str, tree: ast.Module) -> Iterator[str]:
    """Calls of print() outside the places that talk to people."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id == "print" and not name.startswith(MAY_PRINT):
            yield f"{node.lineno}: print(); log it instead"


def asyncio_anywhere(name: str, tree: ast.Module) -> Iterator[str]:
    """Coroutines and asyncio: the program is plain threads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            yield f"{node.lineno}: async def {node.name}"
    for line, imported in imports(tree):
        if imported.split(".")[0] == "asyncio":
            yield f"{line}: imports asyncio"


def test_only_the_seam_has_clocks_threads_queues_and_randomness() -> None:
    """S8: one place reads clocks, starts threads, makes queues and draws randomness."""
    assert breaches(outside_the_seam, "tradebot") == []


def test_the_engine_and_its_stages_know_no_database() -> None:
    """A store is what `tradebot.store.protocol` says; what imports peewee all the same is listed, with a reason."""
    assert breaches(peewee_outside_the_store, "tradebot", "sim", "mockws_server") == []
    importing = {
        name
        for name, tree in trees("tradebot", "sim").items()
        if any(imported.split(".")[0] == "peewee" for _line, imported in imports(tree))
    }
    for listed in PEEWEE_ALLOWED:
        assert any(name.startswith(listed) for name in importing), f"{listed} no longer imports peewee: unlist it"


def test_no_asyncio() -> None:
    assert breaches(asyncio_anywhere, *PACKAGES) == []


def test_functions_stay_short() -> None:
    assert breaches(too_long, *PACKAGES) == []


def test_files_stay_short() -> None:
    lengths = {path.relative_to(REPO).as_posix(): len(path.read_text().splitlines()) for path in sources(*PACKAGES)}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES and name not in LONG_FILES} == {}


def test_exceptions_are_still_needed() -> None:
    for name in LONG_FILES:
        assert len((REPO / name).read_text().splitlines()) > MAX_FILE_LINES, f"{name} is no longer long: unlist it"
    for listed in LONG_FUNCTIONS:
        name, _, function = listed.partition("::")
        tree = ast.parse((REPO / name).read_text())
        spans = [
            (node.end_lineno or 0) - node.lineno + 1
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == function
        ]
        assert max(spans, default=0) > MAX_FUNCTION_LINES, f"{listed} is no longer long: unlist it"


def test_only_commands_print() -> None:
    assert breaches(prints, "tradebot", "sim", "mockws_server") == []


def test_every_test_has_a_timeout(request: pytest.FixtureRequest) -> None:
    """A test that hangs is a failure within a minute, not a build that never ends."""
    config = request.config
    assert config.pluginmanager.hasplugin("timeout"), "pytest-timeout is not installed"
    assert 0 < float(config.getini("timeout")) <= 60


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (outside_the_seam, "import time"),
        (outside_the_seam, "def f():\n    from threading import Lock"),
        (outside_the_seam, "import queue as q"),
        (outside_the_seam, "from concurrent.futures import ThreadPoolExecutor"),
        (outside_the_seam, "import datetime\ndatetime.datetime.now()"),
        (outside_the_seam, "from datetime import datetime\ndefault = datetime.utcnow"),
        (outside_the_seam, "import os\nos.urandom(4)"),
        (too_long, "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
        (prints, "def f():\n    print(1)"),
        (asyncio_anywhere, "async def f(): ..."),
        (peewee_outside_the_store, "from peewee import SqliteDatabase"),
        (peewee_outside_the_store, "def f():\n    import playhouse.migrate"),
    ],
)
def test_each_rule_sees_its_breach(rule: Rule, text: str) -> None:
    assert len(list(rule("tradebot/example.py", ast.parse(text)))) == 1


def test_rules_let_good_code_pass() -> None:
    text = (
        "from datetime import UTC, datetime\n"
        "from tradebot.core.events import Tick\n"
        "def f(ts):\n"
        "    return datetime.fromtimestamp(ts, UTC)\n"
    )
    tree = ast.parse(text)
    for rule in (outside_the_seam, too_long, prints, asyncio_anywhere, peewee_outside_the_store):
        assert list(rule("tradebot/example.py", tree)) == []

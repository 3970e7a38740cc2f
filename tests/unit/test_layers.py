"""The order of the folders: each imports only folders that stand lower, so that no change below needs a look above."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.unit.house import breaches, imports, trees

# From the ground up; evidence, plugins, dashboard and sweep are not built yet.
ORDER = (
    "core", "output", "config", "portfolio", "strategy", "plugins", "execution", "store", "feeds", "threads",
    "telemetry", "report", "evidence", "ops", "executor", "engine", "dashboard", "sweep", "cli", "mockws_server", "sim",
    "bench",
)  # fmt: skip
PACKAGES = ("tradebot", "mockws_server", "sim", "bench")
GROUND = ("tradebot/__init__.py", "tradebot.__version__")  # the version is everybody's, and needs nothing itself
TOP = {"tradebot/__main__.py": "cli"}


def folder_of(module: str) -> str | None:
    """The folder that a dotted name of ours lies in; None for what is not ours, or lies in none."""
    first, _, rest = module.partition(".")
    if module in ("tradebot", GROUND[1]):
        return None
    return rest.partition(".")[0] if first == "tradebot" else first if first in PACKAGES else None


def upward(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports of a folder that does not stand lower; those under TYPE_CHECKING count, as a reader follows them too."""
    here = TOP.get(name) or folder_of(name.removesuffix(".py").replace("/", "."))
    for line, imported in imports(tree):
        if imported.startswith("."):
            yield f"{line}: a relative import; write the whole name"
        there = folder_of(imported)
        if there is None or there == here:
            continue
        if there not in ORDER or here not in ORDER:
            yield f"{line}: {here} imports {there}: give both a place in ORDER"
        elif ORDER.index(there) > ORDER.index(here):
            yield f"{line}: imports {imported}, but {there} stands above {here}"


def test_a_folder_imports_only_lower_ones() -> None:
    assert breaches(upward, *PACKAGES) == []


def test_every_folder_has_a_place() -> None:
    found = {folder_of(name.removesuffix(".py").replace("/", ".")) for name in trees(*PACKAGES) if name not in TOP}
    assert found - {"__init__"} <= set(ORDER)
    assert list(imports(trees(GROUND[0])[GROUND[0]])) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tradebot/config/a.py", "from tradebot.strategy.registry import create"),
        ("tradebot/core/a.py", "def f():\n    import tradebot.output.log"),
        ("tradebot/feeds/websocket/a.py", "from tradebot.cli.arguments import Arguments"),
        ("tradebot/store/a.py", "if TYPE_CHECKING:\n    from tradebot.threads.counters import Counters"),
        ("tradebot/ops/soak/a.py", "from tradebot import engine"),
        ("tradebot/cli/a.py", "from mockws_server.cli import main"),
        ("mockws_server/a.py", "import sim"),
        ("tradebot/cli/a.py", "from . import usage"),
        ("tradebot/cli/a.py", "from tradebot.attic import old"),
        ("tradebot/attic/a.py", "from tradebot.core import ids"),
    ],
)
def test_the_rule_sees_a_breach(name: str, text: str) -> None:
    assert len(list(upward(name, ast.parse(text)))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tradebot/config/a.py", "from tradebot.output.redaction import mask"),
        ("tradebot/engine.py", "from tradebot import __version__\nfrom tradebot.ops.gate import require_available"),
        ("tradebot/ops/soak/a.py", "from tradebot.ops.soak import psi\nimport os.path"),
        ("tradebot/__main__.py", "from tradebot.cli.startup import tradebot"),
        ("sim/world/a.py", "import mockws_server.actions\nfrom tradebot.engine import run_engine"),
    ],
)
def test_the_rule_lets_good_code_pass(name: str, text: str) -> None:
    assert list(upward(name, ast.parse(text))) == []

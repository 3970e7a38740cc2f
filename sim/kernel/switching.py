"""Switch points inside the engine's own code, beside those where it blocks: where they stand, and where none may.

Two kinds, and a seed draws which it has. *Seam* points: after each look at a clock or flag, around the setting of an
event, after leaving a lock; so between `stop.is_set()` and what follows. *Statement* points: before each simple
statement of the engine's modules, by `sys.settrace`. Which statements is read from the source, not from the
interpreter's line events alone, because those differ between Python versions: only assignments and calls that fill
exactly one line, and none whose line an interpreter may announce twice (branches, comprehensions, yields).

A thread may not lose the baton while it holds a lock that the scheduler does not know: the next thread that wants that
lock would block for real. Such locks are held where a library calls the engine back (a log sink under loguru's handler
lock) and inside the storage, the log and the terminal's modules (an open SQLite transaction, tqdm's lock). Nor while
the simulator's own edges are in the middle of a change. `may_switch` tells from the stack.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

ENGINE: Final = (
    "tradebot.threads",
    "tradebot.core.channel",
    "tradebot.engine",
    "tradebot.feeds",
)
"""Modules (and packages) whose code may be interrupted: what threads share. The rest decides, alone."""
_PURE: Final = ("tradebot.feeds.exchanges", "tradebot.core.ledger", "tradebot.threads.stall_detector")
_LOCKING: Final = (
    "tradebot.store",
    "tradebot.output.log",
    "tradebot.output.log_format",
    "tradebot.output.streams",
    "tradebot.output.progress_bar",
    "tradebot.report",
)
_MACHINERY: Final = frozenset(
    [
        "sim.kernel.switching",
        "sim.kernel.scheduler",
        "sim.kernel.runtime",
        "sim.kernel.sync",
        "sim.world.slow_threads",
        "contextlib",
    ]
)

Tracer = Callable[[FrameType, str, Any], Any]


def _within(module: str, roots: tuple[str, ...]) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


class SwitchPoints:
    """Where threads of one history may be interrupted. `modules` are names of modules or packages."""

    def __init__(self, modules: tuple[str, ...] = ENGINE) -> None:
        self._modules = modules
        self._kinds: dict[str, str] = {}

    def _kind(self, module: str) -> str:
        kind = self._kinds.get(module)
        if kind is None:
            if _within(module, _LOCKING):
                kind = "locking"
            elif _within(module, self._modules) and not _within(module, _PURE):
                kind = "open"
            else:
                kind = "engine" if _within(module, ("tradebot",)) else "other"
            self._kinds[module] = kind
        return kind

    def may_switch(self, frame: FrameType | None) -> bool:
        """Whether the thread may lose the baton here. `frame` is the innermost of its stack.

        The innermost frame that is not the scheduler's must be of one of the modules, no frame of a locking module
        may be on the stack, and none of a library or the simulator between two of the engine.
        """
        while frame is not None and frame.f_globals.get("__name__") in _MACHINERY:
            frame = frame.f_back
        if frame is None or self._kind(frame.f_globals.get("__name__", "")) != "open":
            return False
        left_engine = False
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module not in _MACHINERY:
                kind = self._kind(module)
                if kind == "locking" or (left_engine and kind != "other"):
                    return False
                left_engine = left_engine or kind == "other"
            frame = frame.f_back
        return True

    def tracer(self, interrupt: Callable[[], None]) -> Tracer:
        """A function for `sys.settrace` that calls `interrupt` before each statement that may be interrupted."""
        locals_of: dict[Any, Tracer | None] = {}

        def trace(frame: FrameType, event: str, _arg: object) -> Tracer | None:
            code = frame.f_code
            try:
                return locals_of[code]
            except KeyError:
                local = locals_of[code] = self._local(frame, interrupt)
                return local

        return trace

    def _local(self, frame: FrameType, interrupt: Callable[[], None]) -> Tracer | None:
        if self._kind(frame.f_globals.get("__name__", "")) != "open":
            return None
        lines = statement_lines(frame.f_code.co_filename)

        def trace(frame: FrameType, event: str, _arg: object) -> Tracer:
            if event == "line" and frame.f_lineno in lines:
                interrupt()
            return trace

        return trace


@functools.cache
def statement_lines(filename: str) -> frozenset[int]:
    """Lines of a source file that hold exactly one simple statement of a function; empty when there is no source."""
    try:
        tree = ast.parse(Path(filename).read_bytes(), filename)
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(line for function in _functions(tree) for line in _lines_of(function.body))


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _lines_of(body: list[ast.stmt]) -> Iterator[int]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr):
            if statement.lineno == statement.end_lineno and not any(map(_announced_twice, ast.walk(statement))):
                yield statement.lineno
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from _lines_of(getattr(statement, name, []))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _lines_of(part.body)


def _announced_twice(node: ast.AST) -> bool:
    # Where a statement branches, or runs in pieces, some versions of Python announce its line once more.
    return isinstance(node, _BRANCHES) or (isinstance(node, ast.Compare) and len(node.ops) > 1)


_BRANCHES: Final = (
    ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.Yield,
    ast.YieldFrom,
)  # fmt: skip

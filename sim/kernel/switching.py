"""Switch points inside the engine's code, in addition to those where it blocks.

There are two kinds; the seed determines which are used. *Seam* points are after each read of a clock or flag, before
and after an event is set, and after a lock is released: for example between `stop.is_set()` and the next statement.
*Statement* points are before each simple statement of the engine's modules, by means of `sys.settrace`. The eligible
statements are determined from the source, because the line events of the interpreter differ between Python versions:
only assignments and calls that occupy exactly one line, and none whose line an interpreter may report twice (branches,
comprehensions, yields).

A thread must not lose the baton while it holds a lock that the scheduler does not know: the next thread that wants the
lock would really block. Such locks are held where a library calls the engine back (a log sink under loguru's handler
lock) and in the modules for storage, logging and the terminal (an open SQLite transaction, tqdm's lock). Nor may it
lose the baton while code of the simulator makes a change. `may_switch` decides this from the stack.
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
"""Modules (and packages) whose code may be interrupted: those with state that threads share."""
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
        """Whether the thread may lose the baton here. `frame` is the innermost frame of its stack.

        The innermost frame outside the scheduler must belong to one of the modules. No frame of a locking module may be
        on the stack, and no frame of a library or of the simulator between two frames of the engine.
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
    """The lines of a source file with exactly one simple statement of a function; empty without a source file."""
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
    # If a statement branches or runs in several parts, some versions of Python report its line more than once.
    return isinstance(node, _BRANCHES) or (isinstance(node, ast.Compare) and len(node.ops) > 1)


_BRANCHES: Final = (
    ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.Yield,
    ast.YieldFrom,
)  # fmt: skip

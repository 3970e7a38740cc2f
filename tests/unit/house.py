"""How the rules of the house are applied: a rule is a function from a file's name and syntax tree to its breaches."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

Rule = Callable[[str, ast.Module], Iterator[str]]


def sources(*roots: str) -> list[Path]:
    """All Python files under `roots` of the checkout."""
    found: list[Path] = []
    for root in roots:
        place = REPO / root
        found += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return [path for path in found if path.exists()]


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file, read once: every rule looks at it."""
    return ast.parse(path.read_text(encoding="utf-8"), path.relative_to(REPO).as_posix())


def trees(*roots: str) -> dict[str, ast.Module]:
    """The syntax tree of every file under `roots`, by its name in the checkout."""
    return {path.relative_to(REPO).as_posix(): tree_of(path) for path in sources(*roots)}


def breaches(rule: Rule, *roots: str) -> list[str]:
    """`file:...` for every breach of `rule` under `roots`."""
    return [f"{name}:{breach}" for name, tree in trees(*roots).items() for breach in rule(name, tree)]


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)

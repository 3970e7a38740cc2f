"""Names: one class bears a name, and what others use says in a docstring what it is."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from tests.unit.house import Rule, breaches, trees

PACKAGES = ("tradebot", "sim", "mockws_server")

# A protocol and what satisfies it may bear one name, each pair with its reason.
PROTOCOLS: dict[str, str] = {}

# Classes whose methods are documented elsewhere, each with the place.
DOCUMENTED_ELSEWHERE = {"RealRuntime": "the protocol Runtime above it"}


def shared_names(modules: Mapping[str, ast.Module]) -> list[str]:
    """Public classes of modules that bear one name: "NAME: file:line, file:line"."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree in modules.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{name}:{node.lineno}")
    return [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1 and name not in PROTOCOLS]


def undocumented(_name: str, tree: ast.Module) -> Iterator[str]:
    """The module, and its public classes, functions and methods, where they have no docstring.

    Special methods do what the language says, setters what the getter says; a nested Meta configures peewee.
    """
    if ast.get_docstring(tree) is None:
        yield "1: the module has no docstring"
    yield from _undocumented_in(tree)


def _undocumented_in(owner: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in owner.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_") or _says_elsewhere(node):
            continue
        if ast.get_docstring(node) is None:
            yield f"{node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef) and node.name not in DOCUMENTED_ELSEWHERE:
            yield from _undocumented_in(node)


def _says_elsewhere(node: ast.ClassDef | ast.FunctionDef) -> bool:
    if node.name == "Meta":
        return True
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
    return bool(marks & {"overload", "setter"})


# A second calculation of the same things, which shares no line with the first: its names make the two comparable.
SECOND_CALCULATION = "sim/paper_reference/"


def test_no_two_classes_bear_one_name() -> None:
    found = {name: tree for name, tree in trees(*PACKAGES).items() if not name.startswith(SECOND_CALCULATION)}
    assert shared_names(found) == []


def test_public_names_have_docstrings() -> None:
    assert breaches(undocumented, *PACKAGES, "bench") == []


def test_the_rule_of_names_sees_its_breach() -> None:
    twice = {"tradebot/a.py": "class Batch: ...", "sim/b.py": "import os\nclass Batch: ...\nclass _Own: ..."}
    assert shared_names({name: ast.parse(text) for name, text in twice.items()}) == [
        "Batch: tradebot/a.py:1, sim/b.py:2"
    ]
    apart = {"tradebot/a.py": "class Batch: ...\nclass _Own: ...", "sim/b.py": "class _Own:\n    class Batch: ..."}
    assert shared_names({name: ast.parse(text) for name, text in apart.items()}) == []


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        (undocumented, "x = 1", 1),
        (undocumented, '"""Module."""\ndef f(): ...', 1),
        (
            undocumented,
            '"""Module."""\nclass A:\n    """Doc."""\n    def f(self): ...\n    @property\n    def g(self): ...',
            2,
        ),
        (undocumented, '"""Module."""\nclass _A:\n    def f(self): ...\ndef _g(): ...', 0),
        (undocumented, '"""Module."""\nclass A:\n    """Doc."""\n    def __len__(self): ...', 0),
        (undocumented, '"""Module."""\nclass A:\n    """Doc."""\n    def f(self):\n        """Doc."""', 0),
    ],
)
def test_the_rule_of_docstrings_sees_its_breach(rule: Rule, text: str, found: int) -> None:
    assert len(list(rule("tradebot/example.py", ast.parse(text)))) == found

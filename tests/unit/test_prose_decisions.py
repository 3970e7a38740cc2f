"""Nothing decides on prose: a message, reason or detail is written for people, and may be worded anew at any time.

What code decides on is a typed field: an enum, a class of error, an attribute. A reason that is a code (RISK_CAP) is
compared with its constant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.unit.house import breaches

PACKAGES = ("tradebot", "sim", "mockws_server", "bench")
PROSE = {"message", "reason", "detail", "msg", "strerror"}
TAKEN_APART = {
    "startswith", "endswith", "find", "rfind", "index", "count", "partition", "rpartition", "split", "removeprefix",
    "removesuffix",
}  # fmt: skip
SEARCHED = {"search", "match", "fullmatch", "findall", "finditer", "sub", "split"}

# Where prose is all there is, each function with the reason.
ONLY_PROSE = {
    "tradebot/config/toml_file.py::_syntax_message": "tomllib puts the place of an error into its text only",
    "mockws_server/script.py::_header": "msgspec puts the place of an error into its text only",
    "mockws_server/actions.py::_explain": "likewise",
    "tradebot/feeds/replay/tick_lines.py::_explain": "likewise",
}
NEWLINE = ("'\\n'", "chr(10)")


def decided_on_prose(name: str, tree: ast.Module) -> Iterator[str]:
    """Comparisons and searches of texts for people."""
    texts_of_errors: set[tuple[str, str]] = set()
    for function, node in _nodes(tree):
        if f"{name}::{function}" in ONLY_PROSE:
            continue
        if isinstance(node, ast.Assign) and any(map(_is_text_of_error, ast.walk(node.value))):
            texts_of_errors |= {(function, ast.unparse(target)) for target in node.targets}
        for text in _examined(node):
            if _is_prose(text) or (function, ast.unparse(text)) in texts_of_errors:
                yield f"{text.lineno}: decides on the text {ast.unparse(text)} (in {function or 'the module'})"


def _nodes(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node but assertions, which decide nothing, with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Assert):
            continue
        inner = node.name if isinstance(node, ast.FunctionDef) else function
        yield inner, node
        yield from _nodes(node, inner)


def _examined(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions whose text a node looks at."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for (left, right), op in zip(pairwise(sides), node.ops, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                yield right
                # `reason in CODES` asks for a code.
                if not _is_reason(left) or (
                    isinstance(right, ast.Tuple | ast.Set) and any(map(_is_literal, right.elts))
                ):
                    yield left
            elif isinstance(op, ast.Eq | ast.NotEq) and (_is_literal(left) or _is_literal(right)):
                yield from (left, right)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        is_layout = any(ast.unparse(argument) in NEWLINE for argument in node.args)  # the first line of several
        if node.func.attr in TAKEN_APART and not is_layout:
            yield node.func.value
        if node.func.attr in SEARCHED:
            yield from node.args
    elif isinstance(node, ast.Match) and any(isinstance(case.pattern, ast.MatchValue) for case in node.cases):
        yield node.subject


def _is_reason(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).rpartition(".")[2] == "reason"


def _is_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_text_of_error(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=word)]):
            return word in {"error", "exc", "exception", "failure", "caught", "problem"}
    return False


def _is_prose(node: ast.expr) -> bool:
    match node:
        case _ if _is_text_of_error(node):
            return True
        case ast.Name(id=word) | ast.Attribute(attr=word):
            return word in PROSE
        case ast.Subscript(slice=ast.Constant(value=str(word))):
            return word in PROSE
        case ast.Call(func=ast.Name(id="str"), args=[inner]):
            return _is_prose(inner)
        case ast.Call(func=ast.Attribute(attr="lower" | "casefold" | "strip" | "get", value=inner), args=args):
            return _is_prose(inner) or any(isinstance(a, ast.Constant) and a.value in PROSE for a in args[:1])
        case ast.BoolOp(values=parts):
            return any(map(_is_prose, parts))
        case ast.JoinedStr(values=parts):
            return any(isinstance(part, ast.FormattedValue) and _is_prose(part.value) for part in parts)
    return False


def test_nothing_decides_on_prose() -> None:
    assert breaches(decided_on_prose, *PACKAGES) == []


def test_the_exceptions_are_still_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed in list(ONLY_PROSE):
        file, _, function = listed.partition("::")
        with monkeypatch.context() as patch:
            patch.delitem(ONLY_PROSE, listed)
            found = breaches(decided_on_prose, file)
        assert any(f"(in {function})" in breach for breach in found), f"{listed} needs no exception: unlist it"


@pytest.mark.parametrize(
    "text",
    [
        "if 'full' in str(error): ...",
        "if 'full' not in f'{error.strerror}': ...",
        "if line['fields']['message'] == 'second stop signal': ...",
        "if fields.get('detail').startswith('SQLITE'): ...",
        "if decision.reason.startswith(NO_PROGRESS): ...",
        "if reason == 'the link is down': ...",
        "if finding.reason in ('too old', 'too big'): ...",
        "if message in KNOWN: ...",
        "if re.search(PATTERN, error.msg): ...",
        "text = str(error)\nif 'missing' in text: ...",
        "text, _, advice = str(error).rpartition('; ')",
        "def f():\n    match outcome.message:\n        case 'done': ...",
        "if (fields.get('event') or fields['message']) in STOPPED_BY: ...",
    ],
)
def test_the_rule_sees_a_breach(text: str) -> None:
    assert len(list(decided_on_prose("tradebot/example.py", ast.parse(text)))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "if order.reason == RISK_CAP: ...",
        "if order.reason in REFUSALS: ...",
        "if order.reason is None or order.status == 'FILLED': ...",
        "assert 'full' in str(error)",
        "first = str(error).partition('\\n')[0]",
        "print(f'{error}: {reason}')",
        "if outcome.events(LogEvent.SECOND_SIGNAL): ...",
        "if error.errno == errno.ENOSPC: ...",
    ],
)
def test_the_rule_lets_good_code_pass(text: str) -> None:
    assert list(decided_on_prose("tradebot/example.py", ast.parse(text))) == []

"""The nodes of a source file that may be changed, each with the lines by which tests reach it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_LOGGERS = {"log", "logger", "logging"}


@dataclass(frozen=True)
class Place:
    """Where a change is: its line, and what a test must run to meet it.

    ``lines`` of the same file; or, for what runs when the module is imported, any line that
    names one of ``names``.
    """

    line: int
    function: str
    lines: frozenset[int]
    names: frozenset[str]


class Places:
    """The tree of a source, walked without what is left alone."""

    def __init__(self, source: bytes) -> None:
        self._tree = ast.parse(source)
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._following = {
            first: second
            for node in ast.walk(self._tree)
            for statements in (
                getattr(node, part, None) for part in ("body", "orelse", "finalbody")
            )
            if isinstance(statements, list)
            for first, second in pairwise(statements)
        }

    def following(self, statement: ast.stmt) -> ast.stmt | None:
        """Return the next statement of the same block."""
        return self._following.get(statement)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Return the first byte of a node and the one after its last."""
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        return start, end

    def of_nodes(self) -> Iterator[tuple[ast.AST, Place]]:
        """Yield every node that may be changed."""
        whole = Place(1, "<module>", frozenset(), frozenset())
        yield from self._walk(self._tree, whole)

    def _walk(self, node: ast.AST, place: Place) -> Iterator[tuple[ast.AST, Place]]:
        if _left_alone(node):
            return
        yield node, place
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = Place(node.lineno, _within(place, node.name), _lines(*node.body), frozenset())
            yield from self._walk(node.args, inside)
            for statement in node.body:
                yield from self._statement(statement, inside)
        elif isinstance(node, ast.ClassDef):
            inside = Place(node.lineno, _within(place, node.name), frozenset(), frozenset())
            for statement in node.body:
                yield from self._statement(statement, inside)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    yield from self._statement(child, place)
                elif not _is_hint(node, child):
                    yield from self._walk(child, self._moved(place, node, child))

    def _statement(self, node: ast.stmt, place: Place) -> Iterator[tuple[ast.AST, Place]]:
        compound = hasattr(node, "body")
        header_end = node.body[0].lineno - 1 if compound else node.end_lineno
        if place.lines:
            lines = frozenset(range(node.lineno, max(node.lineno, header_end or 0) + 1))
            yield from self._walk(node, Place(node.lineno, place.function, lines, frozenset()))
        else:
            names = frozenset(_assigned(node))
            yield from self._walk(node, Place(node.lineno, place.function, frozenset(), names))

    @staticmethod
    def _moved(place: Place, parent: ast.AST, child: ast.AST) -> Place:
        """A clause of a compound statement stands on lines of its own."""
        line = getattr(child, "lineno", place.line)
        if isinstance(child, ast.match_case | ast.ExceptHandler) and place.lines:
            first = child.pattern.lineno if isinstance(child, ast.match_case) else child.lineno
            lines = frozenset(range(first, child.body[0].lineno + 1))
            return Place(first, place.function, lines, frozenset())
        return Place(line, place.function, place.lines, place.names)


def is_log_line(node: ast.AST) -> bool:
    """Whether a statement only writes to the log."""
    call = node.value if isinstance(node, ast.Expr) else node
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    return isinstance(call.func.value, ast.Name) and call.func.value.id in _LOGGERS


def _left_alone(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True  # a docstring
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.Subscript(value=ast.Name(id="Literal" | "NDArray" | "Float" | "Int" | "Bool")):
            return True
        case ast.Call(func=ast.Name(id="cast" | "TypeVar" | "NewType" | "overload")):
            return True
        case ast.keyword(arg="strict", value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
    return is_log_line(node)


def _is_hint(parent: ast.AST, child: ast.AST) -> bool:
    match parent:
        case ast.AnnAssign():
            return child is parent.annotation
        case ast.arg():
            return True
    return False


def _lines(*nodes: ast.stmt) -> frozenset[int]:
    return frozenset(range(nodes[0].lineno, (nodes[-1].end_lineno or nodes[-1].lineno) + 1))


def _within(place: Place, name: str) -> str:
    return name if place.function == "<module>" else f"{place.function}.{name}"


def _assigned(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement gives a value, or that a class or function has."""
    match node:
        case ast.Assign():
            targets = node.targets
        case ast.AnnAssign() | ast.AugAssign():
            targets = [node.target]
        case _:
            return
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                yield part.id

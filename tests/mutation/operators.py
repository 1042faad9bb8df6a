"""Mutants of a source file: small wrong changes of its text, each with the lines that it is in.

Five kinds: a condition is negated; a call is dropped; an order is swapped, of operands, statements
or the first two arguments if they are of one form; a comparison is widened or narrowed; a constant
is changed. Left alone is what no test should hold: type hints, docstrings and prose (texts with a
space), log lines, decorators, f-strings, assertions and ``zip(strict=)``.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.mutation.places import Place, Places, is_log_line

_NEGATED: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: ">=", ast.LtE: ">", ast.Gt: "<=", ast.GtE: "<",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_WIDENED: dict[type[ast.cmpop], str] = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}
_UNCHANGED: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_ORDERED: dict[type[ast.operator], str] = {
    ast.Sub: "-", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.MatMult: "@",
}  # fmt: skip
_OTHER_NAME = {"min": "max", "max": "min", "asc": "desc", "desc": "asc"}
_TRANSPARENT = {"sorted", "reversed", "abs"}
_NOT_SWAPPED = {"isinstance", "cast", "getattr", "min", "max", "minimum", "maximum"}
"""Calls whose first two arguments can stand in no other order, or in any."""
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes ``start`` to ``end`` of the file at ``path`` become ``after``."""

    path: str
    function: str
    operator: str
    before: str
    after: str
    start: int
    end: int
    place: Place = field(repr=False)
    number: int = 1

    @property
    def key(self) -> str:
        """A name that stays while other lines of the file change."""
        name = f"{self.path} {self.function}: {self.operator}: {_short(self.before)} → "
        return name + _short(self.after) + (f" ({self.number})" if self.number > 1 else "")

    @property
    def line(self) -> int:
        """The first line of the change."""
        return self.place.line

    def applied(self, source: bytes) -> bytes:
        """Return the source with the change."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Return every mutant of a file, in the order of the text."""
    found = sorted(_Finder(path, source).find(), key=lambda mutant: (mutant.start, mutant.end))
    numbers: Counter[str] = Counter()
    numbered = []
    for mutant in found:
        numbers[mutant.key] += 1
        numbered.append(replace(mutant, number=numbers[mutant.key]))
    return numbered


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARACTERS else f"{flat[: _SHOWN_CHARACTERS - 1]}…"


class _Finder:
    def __init__(self, path: str, source: bytes) -> None:
        self.path = path
        self.source = source
        self.places = Places(source)

    def find(self) -> Iterator[Mutant]:
        for node, place in self.places.of_nodes():
            for finder in _FINDERS.get(type(node), ()):
                for operator, start, end, after in finder(self, node):
                    before = self.source[start:end].decode()
                    if after != before:
                        yield Mutant(
                            self.path, place.function, operator, before, after, start, end, place
                        )

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self.places.span(node)

    def text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()


Change = tuple[str, int, int, str]
Finding = Callable[[_Finder, ast.AST], Iterator[Change]]


def _comparison(finder: _Finder, node: ast.Compare) -> Iterator[Change]:
    for operator, table in (("negate", _NEGATED), ("widen", _WIDENED)):
        if operator == "negate" and len(node.ops) > 1:
            yield ("negate", *finder.span(node), f"not ({finder.text(node)})")
            continue
        for changed, op in enumerate(node.ops):
            if type(op) in table:
                parts = [_operand(finder, node.left)]
                for index, (other, right) in enumerate(
                    zip(node.ops, node.comparators, strict=True)
                ):
                    word = (table if index == changed else _UNCHANGED)[type(other)]
                    parts += [word, _operand(finder, right)]
                yield (operator, *finder.span(node), " ".join(parts))


def _operand(finder: _Finder, node: ast.expr) -> str:
    plain = (ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.Subscript)
    text = finder.text(node)
    return text if isinstance(node, plain) and "\n" not in text else f"({text})"


def _condition(finder: _Finder, node: ast.AST) -> Iterator[Change]:
    """Negate the test of a branch; comparisons, ``not`` and ``and`` have their own changes."""
    tests = node.ifs if isinstance(node, ast.comprehension) else [node.test]
    yield from _negations(finder, tests)


def _guard(finder: _Finder, node: ast.match_case) -> Iterator[Change]:
    yield from _negations(finder, [node.guard] if node.guard else [])


def _both(finder: _Finder, node: ast.BoolOp) -> Iterator[Change]:
    yield from _negations(finder, node.values)
    word = "or" if isinstance(node.op, ast.And) else "and"
    after = f" {word} ".join(f"({finder.text(value)})" for value in node.values)
    yield ("negate", *finder.span(node), after)


def _negations(finder: _Finder, tests: list[ast.expr]) -> Iterator[Change]:
    for test in tests:
        is_not = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        if not is_not and not isinstance(test, ast.Compare | ast.BoolOp | ast.Constant):
            yield ("negate", *finder.span(test), f"not ({finder.text(test)})")


def _not(finder: _Finder, node: ast.UnaryOp) -> Iterator[Change]:
    if isinstance(node.op, ast.Not):
        yield ("negate", *finder.span(node), f"({finder.text(node.operand)})")


def _statement(finder: _Finder, node: ast.Expr) -> Iterator[Change]:
    if _is_call(node):
        yield ("drop", *finder.span(node), "pass")
        following = finder.places.following(node)
        if following is not None and _is_call(following):
            yield _swapped(finder, node, following)


def _is_call(node: ast.stmt) -> bool:
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return call and not is_log_line(node)


def _call(finder: _Finder, node: ast.Call) -> Iterator[Change]:
    name = node.func
    called = name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")
    if called in _TRANSPARENT and node.args:
        yield ("drop", *finder.span(node), f"({finder.text(node.args[0])})")
    if called in _OTHER_NAME:
        end = finder.span(name)[1]
        yield ("swap", end - len(called), end, _OTHER_NAME[called])
    if called == "sorted" and not any(word.arg == "reverse" for word in node.keywords):
        given = ", ".join(finder.text(argument) for argument in (*node.args, *node.keywords))
        yield ("swap", *finder.span(node), f"sorted({given}, reverse=True)")
    if called not in _NOT_SWAPPED and _alike(node.args[:2]):
        yield _swapped(finder, *node.args[:2])


def _alike(arguments: list[ast.expr]) -> bool:
    """Whether two arguments could stand for each other; others are told apart by any test."""
    forms = {type(argument) for argument in arguments}
    names = {argument.id for argument in arguments if isinstance(argument, ast.Name)}
    two_of_a_form = len(arguments) == 2 and len(forms) == 1 and ast.Starred not in forms
    return two_of_a_form and "connection" not in names


def _arithmetic(finder: _Finder, node: ast.BinOp) -> Iterator[Change]:
    is_text = isinstance(node.left, ast.Constant | ast.JoinedStr) and isinstance(node.op, ast.Mod)
    if type(node.op) in _ORDERED and not is_text:
        right, left = finder.text(node.right), finder.text(node.left)
        yield ("swap", *finder.span(node), f"({right}) {_ORDERED[type(node.op)]} ({left})")


def _constant(finder: _Finder, node: ast.Constant) -> Iterator[Change]:
    after = None
    match node.value:
        case bool(value):
            after = repr(not value)
        case int(value):
            after = repr(value + 1)
        case float(value):
            after = repr(value * 2 if value else 1.0)
        case str(value) if not any(map(str.isspace, value)):
            after = repr(f"XX{value}")
    if after is not None:
        yield ("constant", *finder.span(node), after)


def _swapped(finder: _Finder, first: ast.AST, second: ast.AST) -> Change:
    (start, first_end), (second_start, end) = finder.span(first), finder.span(second)
    between = finder.source[first_end:second_start].decode()
    return ("swap", start, end, finder.text(second) + between + finder.text(first))


_FINDERS: dict[type[ast.AST], tuple[Finding, ...]] = {
    ast.Compare: (_comparison,),
    ast.If: (_condition,),
    ast.While: (_condition,),
    ast.IfExp: (_condition,),
    ast.comprehension: (_condition,),
    ast.match_case: (_guard,),
    ast.BoolOp: (_both,),
    ast.UnaryOp: (_not,),
    ast.Expr: (_statement,),
    ast.Call: (_call,),
    ast.BinOp: (_arithmetic,),
    ast.Constant: (_constant,),
}

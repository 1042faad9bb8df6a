"""YAML read as plain values plus the place of each; duplicate keys and aliases are refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from specs.errors import InvalidSpec, Problem

Place = tuple[int | str, ...]
DEPTH_MAX = 50
_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
}


@dataclass(frozen=True)
class Document:
    """One YAML document: its plain value and where each of its fields stands."""

    file: str
    value: Any
    marks: dict[Place, tuple[int, int]]

    def problem(self, place: Place, message: str) -> Problem:
        """Point at ``place``, or at the nearest enclosing field that is in the file."""
        line, column = next(
            (self.marks[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.marks),
            (0, 0),
        )
        return Problem(self.file, line, column, ".".join(str(step) for step in place), message)


def read_documents(text: str, file: str) -> Iterator[Document]:
    """Yield the non-empty documents of a YAML text; raise InvalidSpec when it is not YAML."""
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # check_node promised one
            reader = _Reader(file, loader)
            value = reader.value(node, ())
            if reader.problems:
                raise InvalidSpec(reader.problems)
            if value is not None:
                yield Document(file, value, reader.marks)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = f"not valid YAML: {error.problem or error.context}"
        raise InvalidSpec([Problem(file, line, column, "", message)]) from None
    except (yaml.YAMLError, RecursionError) as error:
        message = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidSpec([Problem(file, 0, 0, "", f"not valid YAML: {message}")]) from None


class _Reader:
    """Turns one node tree into values, noting marks and problems."""

    def __init__(self, file: str, loader: yaml.SafeLoader) -> None:
        self.file = file
        self.loader = loader
        self.marks: dict[Place, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.seen: set[int] = set()

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.marks.setdefault(place, (node.start_mark.line + 1, node.start_mark.column + 1))
        if id(node) in self.seen:
            return self._refuse(node, place, "aliases (*name) are not supported; write it out")
        self.seen.add(id(node))
        if len(place) > DEPTH_MAX:
            return self._refuse(node, place, f"nested deeper than {DEPTH_MAX} levels")
        if node.tag not in _TAGS:
            return self._refuse(node, place, f"the tag {node.tag} is not supported; remove it")
        match node:
            case yaml.MappingNode():
                return self._mapping(node, place)
            case yaml.SequenceNode():
                return [self.value(item, (*place, n)) for n, item in enumerate(node.value)]
            case _:
                return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag == "tag:yaml.org,2002:merge":
                self._refuse(key_node, place, "expected a plain text key")
                continue
            inner = (*place, key)
            if key in result:
                self._refuse(
                    key_node, inner, f"key given twice; first at line {self.marks[inner][0]}"
                )
                continue
            self.marks[inner] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.value(value_node, inner)
        return result

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        try:
            return self.loader.construct_object(node)
        except ValueError as error:
            return self._refuse(node, place, f"cannot be read: {error}")

    def _refuse(self, node: yaml.Node, place: Place, message: str) -> None:
        mark = node.start_mark
        field = ".".join(str(step) for step in place)
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, field, message))

"""YAML read as plain values plus the place of each; duplicate keys and aliases are refused.

Hostile files are expected: depth, number of values, length of numbers and number of problems are
bounded while the text is read, so that a small file cannot become a large one in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.yaml.errors import syntax_problem
from loopscope.specs.yaml.numbers import is_number, misread

Place = tuple[int | str, ...]
DEPTH_MAX = 50
VALUES_MAX = 100_000
NUMBER_CHARACTERS_MAX = 64
PROBLEMS_MAX = 100
_PREFIX = "tag:yaml.org,2002:"
_SCALARS = {f"{_PREFIX}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}
_NUMBERS = {f"{_PREFIX}int", f"{_PREFIX}float"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is forty times as fast


@dataclass(frozen=True)
class Document:
    """One YAML document: its plain value and where each of its fields stands."""

    file: str
    value: Json
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
        reader = _Reader(file, text)
    except yaml.YAMLError as error:  # the first characters are read at once
        raise InvalidSpec([syntax_problem(error, text, file)]) from None
    try:
        while reader.begins_document():
            marks: dict[Place, tuple[int, int]] = {}
            value = reader.document(marks)
            if reader.problems:
                raise InvalidSpec(reader.problems)
            if value is not None:
                yield Document(file, value, marks)
    except yaml.YAMLError as error:
        raise InvalidSpec([*reader.problems, syntax_problem(error, text, file)]) from None


class _Reader:
    """Turns the parser's events into values, noting marks and problems."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.loader: Any = _LOADER(text)
        self.marks: dict[Place, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.values = 0

    def begins_document(self) -> bool:
        """Whether a document follows; its start is then passed."""
        while self.loader.check_event(yaml.StreamStartEvent, yaml.DocumentEndEvent):
            self.loader.get_event()
        if self.loader.check_event(yaml.StreamEndEvent):
            return False
        self.loader.get_event()
        return True

    def document(self, marks: dict[Place, tuple[int, int]]) -> Json:
        self.marks = marks
        return self._value(())

    def _value(self, place: Place) -> Json:
        event = self.loader.get_event()
        self.marks.setdefault(place, _position(event))
        self.values += 1
        if self.values > VALUES_MAX:
            self._give_up(
                event, place, f"more than {VALUES_MAX:,} values; keep texts in files of their own"
            )
        if len(place) > DEPTH_MAX:
            self._give_up(event, place, f"nested deeper than {DEPTH_MAX} levels")
        match event:
            case yaml.MappingStartEvent():
                self._check_tag(event, place, "map")
                return self._mapping(place)
            case yaml.SequenceStartEvent():
                self._check_tag(event, place, "seq")
                return self._sequence(place)
            case yaml.ScalarEvent():
                return self._scalar(event, place)
            case _:
                self._refuse(event, place, "aliases (*name) are not supported; write it out")
                return None

    def _sequence(self, place: Place) -> list[Json]:
        items: list[Json] = []
        while not self.loader.check_event(yaml.SequenceEndEvent):
            items.append(self._value((*place, len(items))))
        self.loader.get_event()
        return items

    def _mapping(self, place: Place) -> JsonObject:
        result: JsonObject = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            event = self.loader.peek_event()
            key = self._key(event, place)
            if key is None:
                self._value((*place, ""))  # read, so that what follows is read from its start
                continue
            inner = (*place, key)
            if key in result:
                self._refuse(event, inner, f"key given twice; first at line {self.marks[inner][0]}")
                self._value(inner)
                continue
            self.marks[inner] = _position(event)
            result[key] = self._value(inner)
        self.loader.get_event()
        return result

    def _key(self, event: yaml.Event, place: Place) -> str | None:
        if isinstance(event, yaml.ScalarEvent):
            self.loader.get_event()
            if self._tag(event) != f"{_PREFIX}merge":
                return str(event.value)
        else:
            self._value((*place, ""))
        self._refuse(event, place, "expected a plain text key")
        return None

    def _tag(self, event: yaml.ScalarEvent) -> str:
        if event.tag is not None and event.tag != "!":
            return str(event.tag)
        return str(self.loader.resolve(yaml.ScalarNode, event.value, event.implicit))

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Json:
        tag = self._tag(event)
        if tag not in _SCALARS:
            self._refuse(event, place, f"the tag {tag} is not supported; remove it")
            return None
        if tag == f"{_PREFIX}timestamp":
            return str(event.value)
        if tag in _NUMBERS and len(event.value) > NUMBER_CHARACTERS_MAX:
            self._refuse(event, place, f"a number of {len(event.value)} characters")
            return None
        plain = event.style in (None, "") and event.tag is None
        advice = misread(event.value) if plain or tag in _NUMBERS else None
        if advice is not None:
            self._refuse(event, place, advice)
            return None
        if plain and is_number(event.value):
            tag = f"{_PREFIX}float"
        try:
            value: Json = self.loader.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, ArithmeticError, LookupError) as error:
            self._refuse(event, place, f"cannot be read: {error}")
            return None
        return value

    def _check_tag(
        self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, place: Place, wanted: str
    ) -> None:
        if event.tag not in (None, "!", f"{_PREFIX}{wanted}"):
            self._refuse(event, place, f"the tag {event.tag} is not supported; remove it")

    def _refuse(self, event: yaml.Event, place: Place, message: str) -> None:
        line, column = _position(event)
        field = ".".join(str(step) for step in place)
        self.problems.append(Problem(self.file, line, column, field, message))
        if len(self.problems) >= PROBLEMS_MAX:
            raise InvalidSpec(self.problems)

    def _give_up(self, event: yaml.Event, place: Place, message: str) -> None:
        self._refuse(event, place, message)
        raise InvalidSpec(self.problems)


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    assert mark is not None  # events of a text have one
    return mark.line + 1, mark.column + 1

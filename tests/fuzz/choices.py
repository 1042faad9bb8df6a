"""Bytes read as choices, so that any fuzzer can drive structured input; and bytes made worse."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**60, -0.0, 0.5, 1e-320, 1e308, "", " ", "0",
    "NaN", "yes", "~", "~root/x", "~nobody/x", "/", "..", "../../../etc/passwd", "/dev/zero",
    "a/../b", "x" * 300, "x" * 5000, "\x00", "a\x00b", "\x1b[2J", "\u202e", "\U0001f600",
    "e\u0301", "<script>alert(1)</script>", "'\"&<>", "*a", "&a", "!!python/object:os.system",
    "{{ 7 * 7 }}", "%s%n", "$(id)", "`id`", "C:\\x", "last", "all", "enforce",
    "blocks.0.hook_resid_pre",
    [], [[]], {}, {"": {}}, {"file": "x"}, {"texts": []}, {"texts": [1]}, [0] * 60, {"a": {"b": 1}},
)  # fmt: skip
"""Values that have broken parsers, in places where others are expected."""

_NUMBERS = [0, 1, 127, 128, 255, 2**15, 2**16, 2**31, 2**32 - 1, 2**48, 2**63, 2**64 - 1]


@dataclass
class Choices:
    """Decisions read off bytes from the front; when they are used up, every choice is the first."""

    data: bytes
    place: int = 0

    def number(self, below: int) -> int:
        """Return a number in [0, below)."""
        size = 1 if below <= 256 else 2
        taken = self.data[self.place : self.place + size]
        self.place += size
        return int.from_bytes(taken, "little") % below

    def one_of(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.number(len(options))]

    def rest(self) -> bytes:
        """Return the bytes that no choice has used."""
        return self.data[self.place :]

    @property
    def used_up(self) -> bool:
        """Whether nothing is left to choose from."""
        return self.place >= len(self.data)


def edited(value: Any, choices: Choices, edits_max: int = 6) -> Any:
    """Return a copy of a JSON value with some of its parts replaced, removed or added."""
    for _ in range(edits_max):
        if choices.used_up:
            break
        value = _edited_once(value, choices, choices.number(8))
    return value


def _edited_once(value: Any, choices: Choices, depth: int) -> Any:
    if depth and isinstance(value, dict) and value:
        name = choices.one_of(sorted(value))
        return {**value, name: _edited_once(value[name], choices, depth - 1)}
    if depth and isinstance(value, list) and value:
        place = choices.number(len(value))
        return [*value[:place], _edited_once(value[place], choices, depth - 1), *value[place + 1 :]]
    action = choices.number(4)
    if action == 1 and isinstance(value, dict) and value:
        gone = choices.one_of(sorted(value))
        return {name: item for name, item in value.items() if name != gone}
    if action == 2 and isinstance(value, dict):
        return {**value, str(choices.one_of(JUNK)): choices.one_of(JUNK)}
    if action == 3:
        return [value, value]
    return choices.one_of(JUNK)


def mutated(seed: bytes, random_: random.Random) -> bytes:
    """Return the bytes with up to eight small harms done to them."""
    data = bytearray(seed)
    for _ in range(random_.randint(0, 8)):
        place = random_.randint(0, len(data))
        end = min(len(data), place + random_.choice([1, 1, 2, 4, 8, 64]))
        match random_.randint(0, 5):
            case 0:
                data[place:end] = random_.randbytes(end - place)
            case 1:
                del data[place:end]
            case 2:
                data[place:place] = data[place:end] * random_.choice([1, 2, 300])
            case 3:
                form = random_.choice(["<B", "<H", "<I", "<Q"])
                number = random_.choice(_NUMBERS) % 2 ** (8 * struct.calcsize(form))
                data[place : place + struct.calcsize(form)] = struct.pack(form, number)
            case 4:
                del data[place:]
            case _:
                token = str(random_.choice(JUNK)).encode("utf-8", "replace")
                data[place:end] = token
    return bytes(data)

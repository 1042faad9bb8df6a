"""Write what ``docs/formats.md`` counts and lists: ``python docs/generate_dictionary_table.py``.

The counts say how much of SAELens' registry can be used, by ``loopscope.inputs.registered``; the
architectures are those of ``loopscope.inputs.architectures``. A test compares the committed page
with what this script returns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from loopscope.inputs.architectures import ARCHITECTURES, REFUSED
from loopscope.inputs.registered import RegisteredDictionary, registered_dictionaries

PAGE = Path(__file__).parent / "formats.md"
BLOCK = re.compile(r"<!-- counts of the registry -->\n.*?<!-- end -->", flags=re.DOTALL)
IN_A_ROW = re.compile(r"<!-- architectures -->.*?<!-- end -->")


def render(page: str) -> str:
    """Return the page with its counts as they are now."""
    found = list(registered_dictionaries())
    text = "\n".join(_lines(found))
    page = IN_A_ROW.sub(f"<!-- architectures -->{_architectures()}<!-- end -->", page)
    return BLOCK.sub(lambda _: f"<!-- counts of the registry -->\n{text}\n<!-- end -->", page)


def _architectures() -> str:
    applied = ", ".join(f"`{name}`" for name in ARCHITECTURES if name not in REFUSED)
    refused = "; ".join(f"`{name}`, since {why}" for name, why in REFUSED.items())
    return f"applied: {applied}. Refused: {refused}"


def _lines(found: list[RegisteredDictionary]) -> Iterator[str]:
    usable = sum(one.usable for one in found)
    models = Counter(one.model for one in found)
    served = Counter(one.model for one in found if one.usable)
    most = sum(served[model] >= 0.8 * number for model, number in models.items())
    yield f"Of {len(found):,} dictionaries {usable:,} can be used ({usable / len(found):.1%});"
    yield f"of {len(models)} models {most} with at least 80 % of their dictionaries."
    yield ""
    yield "| loader | dictionaries | can be used |"
    yield "|---|---|---|"
    for loader, number in _most_first(one.loader for one in found):
        yield f"| `{loader}` | {number:,} | {_usable(found, loader):,} |"
    yield ""
    yield "| why not | dictionaries |"
    yield "|---|---|"
    for cause, number in _most_first(one.cause for one in found if not one.usable):
        yield f"| {cause} | {number:,} |"


def _usable(found: list[RegisteredDictionary], loader: str) -> int:
    return sum(one.usable for one in found if one.loader == loader)


def _most_first(names: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(names).items(), key=lambda one: (-one[1], one[0]))


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Sources of texts: the ways in which a spec gives prompts, words and the like.

One module each. The fields that they are written in stand in ``specs/fields.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopscope.specs.texts.in_place import IN_PLACE
from loopscope.specs.texts.plain_file import AS_LINES, PLAIN_FILE
from loopscope.specs.texts.source import TextSource

TEXT_SOURCES: tuple[TextSource, ...] = (PLAIN_FILE, AS_LINES, IN_PLACE)
SOURCE_FIELDS = tuple(dict.fromkeys(source.field for source in TEXT_SOURCES))
"""The fields by which texts are given; each excludes the others."""
NAMING_FIELDS = tuple(name for name in SOURCE_FIELDS if name != IN_PLACE.field)
"""Those that name what is read; the texts that were read are stored beside them."""


def source_of(given: Mapping[str, Any]) -> TextSource | None:
    """Return the source that a set of texts asks for; None where its fields ask for none.

    A format that no source has is refused by the field itself; until then it counts as none.
    """
    asked = [s for s in TEXT_SOURCES if isinstance(given.get(s.field), s.written_as)]
    same = [s for s in asked if s.format == given.get("format")]
    return next(iter([*same, *asked]), None)

"""Sources of texts: the ways in which a spec gives prompts, words and the like.

One module each. The fields that they are written in stand in ``specs/fields.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopscope.specs.texts.dataset import DATASETS
from loopscope.specs.texts.in_place import IN_PLACE
from loopscope.specs.texts.plain_file import AS_LINES, PLAIN_FILE
from loopscope.specs.texts.source import TextSource
from loopscope.specs.texts.tables import TABLES
from loopscope.specs.texts.templates import TEMPLATES

_OF_FILES = (PLAIN_FILE, AS_LINES, *TABLES)
TEXT_SOURCES: tuple[TextSource, ...] = (*_OF_FILES, *DATASETS, TEMPLATES, IN_PLACE)
SOURCE_FIELDS = tuple(dict.fromkeys(source.field for source in TEXT_SOURCES))
"""The fields by which texts are given; each excludes the others."""
NAMING_FIELDS = tuple(name for name in SOURCE_FIELDS if name != IN_PLACE.field)
"""Those that name what is read; the texts that were read are stored beside them."""
OPTIONS = tuple(dict.fromkeys(option for source in TEXT_SOURCES for option in source.options))
"""The fields that say how it is read."""
WRITTEN_FIELDS = ("counted", "resolved")
"""The fields that Loopscope writes when texts are read."""
READING_FIELDS = (*NAMING_FIELDS, "format", *OPTIONS, *WRITTEN_FIELDS)
"""All that is beside texts which were read and says where they come from."""


def source_of(given: Mapping[str, Any]) -> TextSource | None:
    """Return the source that a set of texts asks for; None where its fields ask for none.

    None as well for a format that no source has: the field itself refuses it.
    """
    if given.get("format") not in [source.format for source in TEXT_SOURCES]:
        return None
    asked = [s for s in TEXT_SOURCES if isinstance(given.get(s.field), s.written_as)]
    same = [s for s in asked if s.format == given.get("format")]
    return next(iter([*same, *asked]), None)


def foreign_options(given: Mapping[str, Any], source: TextSource) -> str | None:
    """Return what is wrong with options that a source does not understand; None if nothing is."""
    for option in OPTIONS:
        if given.get(option) is not None and option not in source.options:
            owners = dict.fromkeys(
                f"{s.field} with format {s.format}" if s.format else s.field
                for s in TEXT_SOURCES
                if option in s.options
            )
            return f"{option} belongs to {', '.join(owners)} only"
    return None

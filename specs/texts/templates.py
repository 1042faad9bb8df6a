"""A generator: templates with the words of lists in their places."""

from __future__ import annotations

import hashlib
import itertools
import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

from loopscope.specs.suggest import did_you_mean
from loopscope.specs.texts.source import ReadTexts, TextFiles, TextSource

EXPANSIONS_MAX = 100_000
LABEL_CHARACTERS_MAX = 200
TEMPLATE_COLUMN = "template"
"""What ``groups.column`` names to keep the texts of a template together."""


def places_of(template: str) -> list[str]:
    """Return the names in the braces of a template, each once, in their order.

    Raises ValueError for braces that do not hold a plain name.
    """
    names = []
    try:
        for _, name, form, conversion in string.Formatter().parse(template):
            if name is None:
                continue
            if not name.isidentifier() or form or conversion:
                raise ValueError(f"{{{name}}} is no name of a list")
            names.append(name)
    except ValueError as error:
        raise ValueError(
            f"the template {template[:60]!r} cannot be read: {error}; write {{name}} for a word of "
            "lists.name, {{ and }} for braces"
        ) from None
    return list(dict.fromkeys(names))


def _read(given: Mapping[str, Any], _: TextFiles) -> ReadTexts:
    templates: Sequence[str] = given["templates"]
    lists: Mapping[str, Sequence[str]] = given.get("lists") or {}
    if TEMPLATE_COLUMN in lists:
        raise ValueError(f"no list may be called {TEMPLATE_COLUMN}: that names the templates")
    places = [places_of(template) for template in templates]
    used = {name for names in places for name in names}
    for name in sorted(used - set(lists)):
        raise ValueError(f"a template names {{{name}}}, but lists has no {name}"
                         f"{did_you_mean(name, lists) if lists else ''}")  # fmt: skip
    for name in sorted(set(lists) - used):
        raise ValueError(f"no template names {{{name}}}, so lists.{name} would change nothing")
    count = sum(math.prod(len(lists[name]) for name in names) for names in places)
    if count > EXPANSIONS_MAX:
        raise ValueError(
            f"the templates and lists stand for {count:,} texts, expected at most "
            f"{EXPANSIONS_MAX:,}; use fewer templates, or fewer words"
        )
    texts: list[str] = []
    columns: dict[str, list[str]] = {TEMPLATE_COLUMN: [], **{name: [] for name in lists}}
    for template, names in zip(templates, places, strict=True):
        for words in itertools.product(*(lists[name] for name in names)):
            filled = dict(zip(names, words, strict=True))
            texts.append(template.format_map(filled))
            columns[TEMPLATE_COLUMN].append(_label(template))
            for name in lists:
                columns[name].append(_label(filled.get(name, template)))
    return ReadTexts(texts, columns, count)


def _label(text: str) -> str:
    if len(text) <= LABEL_CHARACTERS_MAX:
        return text
    return f"{text[:100]}… {hashlib.sha256(text.encode()).hexdigest()[:16]}"


TEMPLATES = TextSource("templates", _read, written_as=list, options=("lists", "sample"))

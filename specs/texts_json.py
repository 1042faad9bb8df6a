"""Sets of texts as they are stored: a part of ``spec_json``, which has the kinds."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from loopscope.specs.json_values import JsonObject


class SampleJson(TypedDict):
    """How many of the texts that were read are taken."""

    size: int
    seed: int


class CountedJson(TypedDict):
    """How many texts were read and taken."""

    read: int
    matching: int
    duplicates: int
    taken: int


class ResolvedJson(TypedDict):
    """What the revision of a data set led to."""

    commit: str
    files: dict[str, str]


class TextsJson(TypedDict):
    """Texts, and where they were read from."""

    texts: list[str]
    file: NotRequired[str]
    format: NotRequired[str]
    column: NotRequired[str]
    where: NotRequired[JsonObject]
    dataset: NotRequired[str]
    revision: NotRequired[str]
    dataFiles: NotRequired[str]
    config: NotRequired[str]
    split: NotRequired[str]
    templates: NotRequired[list[str]]
    lists: NotRequired[dict[str, list[str]]]
    sample: NotRequired[SampleJson]
    counted: NotRequired[CountedJson]
    resolved: NotRequired[ResolvedJson]


class GroupsJson(TypedDict):
    """Which texts belong together."""

    by: NotRequired[str]
    file: NotRequired[str]
    column: NotRequired[str]
    labels: list[str]


class GroupedTextsJson(TextsJson):
    """Texts of which some may belong together."""

    groups: NotRequired[GroupsJson]

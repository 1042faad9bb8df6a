"""The shared shape of every spec: frozen, camelCase in YAML, unknown fields refused.

Reading files that a spec names is up to the caller: a ``FileReader`` travels in the
validation context. Without one (objects that come back from the store) nothing is read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from loopscope.specs.hooks import HOOK_PATTERN
from loopscope.specs.json_values import JsonObject
from loopscope.specs.texts import SOURCE_FIELDS, WRITTEN_FIELDS, foreign_options, source_of
from loopscope.specs.texts.in_place import IN_PLACE
from loopscope.specs.texts.plain_file import lines_of
from loopscope.specs.texts.reading import is_readable, is_value_or_values, with_texts
from loopscope.specs.texts.same import normalised
from loopscope.specs.texts.source import TextFiles


class Spec(BaseModel):
    """Base of all spec models."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=False,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _scalars_are_not_converted(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's ``true``, ``yes`` and ``on`` must not pass as 1, nor a quoted text as a number."""
        field = cls.model_fields.get(info.field_name or "")
        wanted = _without_none(field.annotation) if field is not None else None
        if isinstance(value, bool) and wanted is not bool:
            expected = _WORDS.get(wanted, "another value")
            raise ValueError(f"expected {expected}, found {str(value).lower()}")
        if isinstance(value, str) and wanted in _WORDS:
            advice = "; remove quotes" if _would_be(wanted, value) else ""
            raise ValueError(f"expected {_WORDS[wanted]}, found the text {value!r}{advice}")
        return value

    def canonical(self) -> JsonObject:
        """Return the defaulted spec as JSON values with the YAML's field names."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _without_none(annotation: Any) -> Any:
    """Return what a field holds where it is given: ``int`` of an optional, annotated ``int``."""
    given = [one for one in get_args(annotation) if one is not type(None)]
    if len(given) == 1 and type(None) in get_args(annotation):
        return get_args(given[0])[0] if get_origin(given[0]) is Annotated else given[0]
    return annotation


def _would_be(wanted: Any, text: str) -> bool:
    """Whether a text is ``wanted`` once its quotes are gone."""
    if wanted is bool:
        return text.lower() in ("true", "false", "yes", "no", "on", "off")
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii()


_WORDS: dict[Any, str] = {int: "a number", float: "a number", bool: "true or false"}


class FileReader(TextFiles, Protocol):
    """How a spec reaches the files it names; paths are relative to the YAML."""

    def locate(self, path: str) -> str:
        """Return the absolute path of an existing file or folder; raise ValueError otherwise."""


def exactly_one(*choices: tuple[str, ...]) -> ConfigDict:
    """Return the part of a model's config that shows editors which fields exclude one another.

    Each choice names the fields that are given together. The model's validator stays the judge.
    """
    return ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": list(names),
                    "properties": {name: {"not": {"type": "null"}} for name in names},
                }
                for names in choices
            ]
        }
    )


def file_reader(info: ValidationInfo) -> FileReader | None:
    """Return the reader that travels in the validation context, if there is one."""
    return info.context.get("files") if info.context else None


def located(path: str | None, info: ValidationInfo) -> str | None:
    """Resolve a path field against the YAML that names it."""
    reader = file_reader(info)
    return reader.locate(path) if path is not None and reader is not None else path


LocalPath = Annotated[str, Field(min_length=1, max_length=4096)]
LIST_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
COMMIT_PATTERN = r"^[0-9a-f]{40}$"
DATASET_PATTERN = r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]
ObjectName = Annotated[str, Field(pattern=NAME_PATTERN, min_length=1, max_length=63)]


class Unit:
    """What a number counts. Stands in a field's ``Annotated``; schema and reference show it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        schema[UNIT_KEYWORD] = self.name
        return schema


UNIT_KEYWORD = "x-unit"
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Cosine = Annotated[Share, Unit("cosine")]
Weight = Annotated[Share, Unit("weight")]
Label = Annotated[str, Field(min_length=1, max_length=200)]
HookName = Annotated[str, Field(pattern=HOOK_PATTERN)]


class Reference(Spec):
    """The name of another object in the same namespace."""

    name: ObjectName
    """The object's name."""


class Sample(Spec):
    """Some of the texts that were read, chosen by a keyed hash of each text."""

    size: Annotated[int, Field(ge=1, le=100_000), Unit("texts")]
    """How many."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Key of the hash."""


class Counted(Spec):
    """How many texts were read and taken. Written by Loopscope, beside the texts."""

    read: Annotated[int, Field(ge=0), Unit("rows")]
    """Rows of the table, texts of the templates or lines of the file."""
    matching: Annotated[int, Field(ge=0), Unit("rows")]
    """Those that ``where`` leaves."""
    duplicates: Annotated[int, Field(ge=0), Unit("texts")]
    """Texts that had come before, case and spacing aside; only the first was taken."""
    taken: Annotated[int, Field(ge=0), Unit("texts")]
    """What is left, after the sample."""


class Resolved(Spec):
    """What the revision of a data set led to. Written by Loopscope, beside the texts."""

    commit: Annotated[str, Field(pattern=COMMIT_PATTERN)]
    """The commit of the data set."""
    files: Annotated[dict[str, Sha256], Field(min_length=1)]
    """The sha256 of each file that was read, by its name in the repository."""


Value = str | int | float | bool
ListName = Annotated[str, Field(pattern=LIST_NAME_PATTERN, max_length=63)]
ColumnName = Annotated[str, Field(min_length=1, max_length=200)]
DatasetName = Annotated[str, Field(min_length=3, max_length=200, pattern=DATASET_PATTERN)]
DatasetRevision = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._/-]+$")]


class Texts(Spec):
    """An ordered set of texts: of a ``file``, a ``dataset``, ``templates``, or ``texts`` in place.

    What is read is embedded in the stored object, so an edit of the file is an edit of the spec.
    """

    model_config = exactly_one(*((name,) for name in SOURCE_FIELDS))

    file: str | None = None
    """Text file, relative to the YAML; UTF-8, one text per line, blank lines ignored; a table,
    where ``format`` says so."""
    format: Literal["lines", "csv", "tsv", "jsonl", "parquet"] | None = None
    """``csv``, ``tsv``, ``jsonl``, ``parquet``: ``file`` or ``dataset`` is a table (CSV with a
    header); ``column`` has the texts. ``lines``: take the lines of ``file`` as they stand. Without
    it a file that is JSON, JSON Lines, a table or the like, by its ending or as a whole, is
    refused."""
    column: ColumnName | None = None
    """The column of the table, or the field of the JSON objects, that holds the texts."""
    where: dict[ColumnName, Value | tuple[Value, ...]] | None = None
    """Which rows are taken: those that have this value, or one of these, in each named column. By
    a column of labels one file gives the prompts of several conditions."""
    dataset: DatasetName | None = None
    """A data set on the Hugging Face hub (``owner/name``) whose tables hold the texts."""
    revision: DatasetRevision | None = None
    """Commit, tag or branch of ``dataset``; a tag or branch stays at the commit that it led to when
    it was first read on this machine (``resolved``)."""
    data_files: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Names of files in the data set's repository; ``*`` stands for any part of a name, ``**`` for
    any folders."""
    config: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Which of the data set's configurations ``split`` belongs to, where there are several."""
    split: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """In place of ``dataFiles``: the files of this split, by the data set's card or their names."""
    templates: Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)] | None = None
    """Texts with names in braces (``The food in {country} was``); every combination of the words
    in ``lists`` is one text, up to 100,000."""
    lists: dict[ListName, Annotated[tuple[str, ...], Field(min_length=1)]] | None = None
    """The words for each name in ``templates``."""
    sample: Sample | None = None
    """Take some of what was read; left out, all of it."""
    texts: Annotated[tuple[str, ...], Field(max_length=100_000)] = ()
    """The texts themselves; as in a file, white space at the end of a text is not part of it."""
    counted: Counted | None = None
    """How many texts a table, templates or a sample had; written when they are read."""
    resolved: Resolved | None = None
    """Commit and files of ``dataset``; written when they are read."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any, info: ValidationInfo) -> Any:
        reader = file_reader(info)
        source = source_of(data) if reader is not None and isinstance(data, dict) else None
        if reader is None or source is None or not is_readable(data):
            return data
        exported = (info.context or {}).get("exported")
        written = [name for name in WRITTEN_FIELDS if data.get(name) is not None]
        if written and not exported:
            raise ValueError(f"{written[0]} is written by Loopscope when texts are read; remove it")
        others = [name for name in SOURCE_FIELDS if name in data and name != source.field]
        if source is IN_PLACE or not others:
            if (wrong := foreign_options(data, source)) is not None:
                raise ValueError(wrong)
            return with_texts(data, source, reader)
        if not exported or others != [IN_PLACE.field]:
            raise ValueError(f"give either {source.field} or {others[0]}, not both")
        return data

    @field_validator("where", mode="before")
    @classmethod
    def _names_values(cls, where: Any) -> Any:
        if not isinstance(where, dict):
            return where
        if not where:
            raise ValueError("where names no column; leave it out to take every row")
        for column, asked in where.items():
            if not is_value_or_values(asked):
                raise ValueError(
                    f"expected a value, or a list of values, of column {column!r}; found {asked!r}"
                )
        return where

    @field_validator("texts")
    @classmethod
    def _are_distinct_and_not_empty(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        seen: dict[str, int] = {}
        for index, text in enumerate(texts, start=1):
            same = normalised(text)
            if not same:
                raise ValueError(f"text {index} is blank, nothing of it can be seen; remove it")
            if BYTE_ORDER_MARK in text:
                raise ValueError(
                    f"text {index} holds a byte order mark (U+FEFF), as where two files were "
                    f"joined ({text[:60]!r}); remove it"
                )
            first = seen.setdefault(same, index)
            if first != index:
                raise ValueError(
                    f"texts {first} and {index} are the same ({text[:60]!r}); keep one"
                )
        return tuple(text.rstrip() for text in texts)

    @model_validator(mode="after")
    def _has_texts(self) -> Texts:
        if self.format is not None and self.file is None and self.dataset is None:
            raise ValueError("format belongs to file and dataset only")
        if not self.texts:
            none = f"none of {', '.join(SOURCE_FIELDS)} is given"
            where = f"{self.file} is empty" if self.file else none
            raise ValueError(f"expected at least one text, but {where}")
        return self


class Groups(Spec):
    """Which texts belong together: of one template or source, or mirrors of one another.

    Texts of one label, in whichever set, are one group. Whole groups are held out and drawn.
    """

    model_config = exactly_one(("by",), ("file",), ("column",), ("labels",))

    by: Literal["line"] | None = None
    """``line``: the texts at the same place of their sets, where these mirror one another."""
    file: str | None = None
    """Text file, relative to the YAML: one label per line, blank lines ignored."""
    column: ColumnName | None = None
    """The column of the texts' table that holds the labels; of texts from ``templates`` either
    ``template`` or the name of a list."""
    labels: Annotated[tuple[Label, ...], Field(max_length=100_000)] = ()
    """The labels themselves, one for each text."""

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any, info: ValidationInfo) -> Any:
        reader = file_reader(info)
        if reader is None or not isinstance(data, dict) or not isinstance(data.get("file"), str):
            return data
        if not data.get("labels"):
            content = reader.content(data["file"])
            return {**data, "labels": lines_of(content, data["file"], as_lines=True)}
        return data

    @model_validator(mode="after")
    def _one_way(self) -> Groups:
        given = [name for name in ("by", "file", "column", "labels") if getattr(self, name)]
        if given not in (["by"], ["file", "labels"], ["column", "labels"], ["labels"]):
            found = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of by, file, column, labels; found {found}")
        return self

    def of(self, texts: int) -> tuple[str, ...]:
        """Return the label of each of ``texts`` texts. Raises ValueError for another number."""
        if self.by is not None:
            return tuple(str(number) for number in range(1, texts + 1))
        if len(self.labels) != texts:
            raise ValueError(
                f"expected one label of groups for each of {texts} texts, found {len(self.labels)}"
            )
        return self.labels


class GroupedTexts(Texts):
    """Texts of which some may belong together."""

    groups: Groups | None = None
    """Which of them belong together; without it each stands for itself."""

    @model_validator(mode="after")
    def _each_has_a_label(self) -> GroupedTexts:
        if self.groups is not None:
            self.groups.of(len(self.texts))
        return self


BYTE_ORDER_MARK = "\ufeff"

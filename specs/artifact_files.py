"""Kinds of files that an artifact holds: tables, tensors and JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

ColumnType = Literal["text", "bool", "int32", "int64", "float32", "float64", "list of int32"]
TensorType = Literal["int32", "int64", "float32", "float64"]
Shape = TypeVar("Shape")


@dataclass(frozen=True)
class Column:
    """A column of a table; ``where``: the condition under which it is there, empty if always."""

    name: str
    type: ColumnType
    meaning: str
    unit: str = ""
    where: str = ""


def alike(names: Sequence[str], column: Column) -> tuple[Column, ...]:
    """Return columns that differ from ``column`` in their names only."""
    return tuple(
        Column(name, column.type, column.meaning, column.unit, column.where) for name in names
    )


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors file; ``shape`` names its axes."""

    name: str
    type: TensorType
    shape: str
    meaning: str = ""
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class ArtifactFile:
    """A payload file of an artifact.

    ``where``: the condition under which a stage writes it, empty if always. Artifacts of earlier
    versions lack one that was ``added`` since. ``bundled`` is the folder of the evidence bundle to
    which an export copies it as it is, None for a file that stays in the artifact.
    """

    name: str
    about: str
    where: str = ""
    added: bool = False
    bundled: str | None = None

    @property
    def can_lack(self) -> bool:
        """Whether a whole artifact may be without it."""
        return bool(self.where) or self.added


@dataclass(frozen=True, kw_only=True)
class Table(ArtifactFile):
    """A Parquet file with its columns, in their order."""

    columns: tuple[Column, ...]

    def named(self, *names: str) -> list[str]:
        """Return these names of columns. Raises KeyError for one that the table does not have."""
        known = {column.name for column in self.columns}
        if unknown := set(names) - known:
            raise KeyError(f"{self.name} has no column {', '.join(sorted(unknown))}")
        return list(names)

    def without(self, *names: str) -> tuple[Column, ...]:
        """Return all columns but these. Raises KeyError as ``named`` does."""
        left_out = self.named(*names)
        return tuple(column for column in self.columns if column.name not in left_out)


@dataclass(frozen=True, kw_only=True)
class Tensors(ArtifactFile):
    """A safetensors file with its tensors."""

    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Document(ArtifactFile, Generic[Shape]):
    """A JSON file; ``shape`` is a TypedDict of its keys."""

    shape: type[Shape]

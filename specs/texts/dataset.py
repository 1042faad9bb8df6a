"""Tables of a data set on the hub, at a revision: the same columns, filters and samples as files.

Which files are meant and where their copies lie is found out by whatever ``TextFiles`` is given;
here they are only read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NoReturn

from loopscope.specs.git_lfs import ADVICE, is_pointer
from loopscope.specs.texts.source import (
    DatasetAsked,
    DatasetFile,
    ReadTexts,
    TextFiles,
    TextSource,
)
from loopscope.specs.texts.table import TABLE_OPTIONS, Columns, Reader, check_rows, rows_of
from loopscope.specs.texts.tables import READERS

OPTIONS = ("revision", "dataFiles", "config", "split", *TABLE_OPTIONS)


def _source(format_: str, reader: Reader) -> TextSource:
    def read(given: Mapping[str, Any], files: TextFiles) -> ReadTexts:
        asked = _asked(given)
        found = files.dataset(asked)
        starts: list[int] = []

        def columns_of(wanted: Sequence[str]) -> Columns:
            return _joined(asked, found.files, reader, wanted, starts)

        def place_of(row: int) -> tuple[str, int]:
            at = bisect_right(starts, row) - 1
            return _name(asked, found.files[at]), row - starts[at]

        one = len(found.files) == 1
        name = _name(asked, found.files[0]) if one else f"{asked.name} ({len(found.files)} files)"
        texts = rows_of(given, name, columns_of, place_of)
        hashes = {file.name: file.sha256 for file in found.files}
        resolved = {"commit": found.commit, "files": hashes}
        return ReadTexts(texts.texts, texts.columns, texts.read, resolved)

    return TextSource("dataset", read, format=format_, options=OPTIONS)


def _asked(given: Mapping[str, Any]) -> DatasetAsked:
    """Return what a set of texts asks of the hub. Raises ValueError where that is incomplete."""
    data_files, config, split = (given.get(name) for name in ("dataFiles", "config", "split"))
    revision = given.get("revision")
    if not revision:
        raise ValueError("revision is needed: a commit of the data set, or a tag or branch of it")
    if (data_files is None) == (split is None):
        raise ValueError("expected either dataFiles (names in the repository) or split")
    if config is not None and split is None:
        raise ValueError("config belongs to split only")
    return DatasetAsked(given["dataset"], revision, data_files, config, split)


def _joined(
    asked: DatasetAsked,
    files: Sequence[DatasetFile],
    reader: Reader,
    wanted: Sequence[str],
    starts: list[int],
) -> Columns:
    """Return the columns of all files, one after the other; note at which row each begins."""
    columns: Columns = {name: [] for name in wanted}
    lengths: list[int] = []
    for file in files:
        name = _name(asked, file)
        content = file.path.read_bytes()
        if is_pointer(content):
            raise ValueError(f"{name} {ADVICE}")
        found = reader(content, name, wanted)
        del content  # the next file's bytes need not stand beside these
        for one in wanted:
            columns[one] += found[one]
        lengths.append(len(found[wanted[0]]))
        check_rows(asked.name, sum(lengths))
    starts[:] = accumulate(lengths[:-1], initial=0)
    return columns


def _name(asked: DatasetAsked, file: DatasetFile) -> str:
    return f"{asked.name}/{file.name}"


def _without_format(given: Mapping[str, Any], _: TextFiles) -> NoReturn:
    expected = f"expected {', '.join(READERS)}"
    if given.get("format") is None:
        raise ValueError(f"format is needed: no ending is believed; {expected}")
    raise ValueError(f"format {given['format']} is for files in place; {expected}")


DATASETS = (
    TextSource("dataset", _without_format, options=OPTIONS),
    *(_source(format_, reader) for format_, reader in READERS.items()),
)

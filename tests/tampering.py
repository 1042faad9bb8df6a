"""Alterations of a bundle: of its bytes, and of single values by somebody who seals it again."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from loopscope.reports.crate import METADATA, sealed, written
from loopscope.specs.canonical import digest
from loopscope.specs.pipeline import PIPELINE
from loopscope.state.artifacts.manifests import content_digest
from loopscope.state.files import file_sha256

Undo = Callable[[], None]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def altered_bytes(folder: Path, draw: random.Random) -> tuple[str, Undo]:
    """Alter a bundle somewhere; return what was done and what takes it back."""
    path = draw.choice(files_of(folder))
    before = path.read_bytes()
    name = path.relative_to(folder).as_posix()
    kind = draw.choice(["flip", "flip", "flip", "insert", "cut", "end", "gone", "more", "swap"])
    at = draw.randrange(len(before))
    match kind:
        case "flip":
            after = bytearray(before)
            after[at] ^= 1 << draw.randrange(8)
            path.write_bytes(after)
        case "insert":
            path.write_bytes(before[:at] + draw.choice([b" ", b"\n", b"0", b"\x00"]) + before[at:])
        case "cut":
            path.write_bytes(before[:at] + before[at + draw.randrange(1, 9) :])
        case "end":
            path.write_bytes(before + draw.choice([b" ", b"\n", b"{}"]))
        case "gone":
            path.unlink()
        case "more":
            added = folder / draw.choice(["", "capture"]) / f"added-{at}"
            added.write_bytes(before[:at])
            return f"a file more, {added.name}", added.unlink
        case "swap":
            other = draw.choice([one for one in files_of(folder) if one != path])
            theirs = other.read_bytes()
            if theirs == before:
                path.write_bytes(before + b" ")
            else:
                path.write_bytes(theirs)
                other.write_bytes(before)

                def swap_back() -> None:
                    path.write_bytes(before)
                    other.write_bytes(theirs)

                return f"{name} and {other.name} swapped", swap_back
    return f"{kind} at {at} of {name}", lambda: _put_back(path, before)


def _put_back(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value in a JSON document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*place, number))
    else:
        yield place


def another(value: Any, draw: random.Random) -> Any:
    """Return another value of the same kind."""
    if value is None or value != value:
        return 0.5
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + draw.choice([-2, -1, 1, 2, 10])
    if isinstance(value, float):
        change = max(abs(value), 0.01) * draw.choice([-1.0, -0.01, 0.0001, 0.5, 1.0])
        return value + change
    return f"{value} (edited)"


def altered_leaf(path: Path, place: tuple[Any, ...], draw: random.Random) -> None:
    """Give one value of a JSON file another one."""
    document = json.loads(path.read_text(encoding="utf-8"))
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = another(inner[place[-1]], draw)
    path.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")


def altered_cell(path: Path, column: str, row: int, draw: random.Random) -> None:
    """Give one value of a Parquet column another one."""
    table = pyarrow.parquet.read_table(path)
    values = table[column].to_pylist()
    values[row] = another(values[row], draw)
    place = table.column_names.index(column)
    kind = table.schema.field(column).type
    table = table.set_column(place, table.schema.field(column), pyarrow.array(values, kind))
    pyarrow.parquet.write_table(table, path)


def seal_again(folder: Path) -> None:
    """Make manifests, status and description say what the files are now."""
    contents = {}
    for node in PIPELINE:
        path = folder / "manifests" / f"{node.name}.json"
        if not path.is_file():
            continue
        manifest = json.loads(path.read_text())
        for name in manifest["files"]:
            if name.endswith(".parquet"):  # a table names the file that it was, not its own bytes
                continue
            own = next((p for p in files_of(folder) if _is_of(p, folder, node.name, name)), None)
            if own is not None:
                manifest["files"][name] = {
                    "sha256": file_sha256(own), "bytes": own.stat().st_size
                }  # fmt: skip
        for upstream, content in contents.items():
            if isinstance(manifest["inputs"].get(upstream), dict):
                manifest["inputs"][upstream]["contentDigest"] = content
        manifest["contentDigest"] = contents[node.name] = content_digest(manifest["files"])
        rest = {key: value for key, value in manifest.items() if key != "manifestDigest"}
        path.write_text(json.dumps({**rest, "manifestDigest": digest(rest)}))
    status = folder / "status.json"
    documents = json.loads(status.read_text())
    for one in documents:
        name = one["metadata"]["name"].rpartition("-")[2]
        if one["status"]["artifact"] is not None and name in contents:
            one["status"]["artifact"]["contentDigest"] = contents[name]
    status.write_text(json.dumps(documents))
    crate = json.loads((folder / METADATA).read_text())
    for one in crate["@graph"]:
        if one["@type"] == "File":
            own = folder / one["name"]
            one |= {"sha256": file_sha256(own), "contentSize": str(own.stat().st_size)}
    (folder / METADATA).write_text(written(sealed(crate["@graph"][1:])), encoding="utf-8")


IN_FOLDERS = ("capture", "splitting", "evidence", "ablation", "trace", "drift")
"""Stages whose files lie in a folder of a bundle that has their name."""


def _is_of(path: Path, folder: Path, stage: str, name: str) -> bool:
    """Whether a bundle's file is that of a stage's artifact, as it is."""
    place = path.relative_to(folder).as_posix()
    return place == (f"{stage}/{name}" if stage in IN_FOLDERS else name)


def copied(folder: Path, to: Path) -> Path:
    """Return a copy of a bundle, without bytes in common."""
    shutil.copytree(folder, to, copy_function=shutil.copy)
    return to


def alterations_wanted(fewer: int) -> int:
    """Return how many to try: ``fewer`` in the usual run, ALTERATIONS of the long one."""
    return int(os.environ.get("ALTERATIONS", fewer))

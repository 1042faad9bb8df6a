"""The splits of a data set: what its card says of them, else what the names of its files say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from loopscope.specs.suggest import did_you_mean

CARD = "README.md"
CARD_BYTES_MAX = 2**20
_HEAD = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
DEFAULT_SPLIT = "train"
"""Of files that a card names without one."""


def splits_of(
    card: Path | None, names: Iterable[str], config: str | None, split: str
) -> Sequence[str]:
    """Return patterns of the files of a split.

    ``card`` is the data set's README.md, ``names`` are those of all its files. Raises ValueError
    (the end of a sentence) where no split or configuration of that name is known.
    """
    configs = _configs(card) if card is not None else {}
    if not configs:
        return _by_name(names, config, split)
    if config is None and len(configs) > 1:
        if "default" not in configs:
            raise ValueError(f"has several configurations; write config: one of {_listed(configs)}")
        config = "default"
    chosen = config if config is not None else next(iter(configs))
    if chosen not in configs:
        raise ValueError(f"has no configuration {chosen!r}{did_you_mean(chosen, list(configs))}")
    splits = configs[chosen]
    if split not in splits:
        raise ValueError(f"has no split {split!r}{did_you_mean(split, list(splits))}")
    return splits[split]


def _by_name(names: Iterable[str], config: str | None, split: str) -> Sequence[str]:
    """Return the files that carry the split's name, as ``data/train-00000-of-00001.parquet``."""
    if config is not None:
        raise ValueError("has no card that tells its configurations; name its files with dataFiles")
    carries = re.compile(rf"(?:.*/)?{re.escape(split)}(?:[-._ 0-9][^/]*)?(?:/.*)?")
    found = [name for name in names if carries.fullmatch(name)]
    if not found:
        raise ValueError(
            f"has no card that tells its splits, and no file is called after {split!r}; name its "
            "files with dataFiles"
        )
    return [_literal(name) for name in found]


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _configs(card: Path) -> dict[str, dict[str, Sequence[str]]]:
    """Return the patterns by configuration and split that stand in the head of a card."""
    with card.open("rb") as stream:
        text = stream.read(CARD_BYTES_MAX).decode("utf-8", errors="replace")
    head = _HEAD.match(text.replace("\r\n", "\n"))
    try:
        values = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, RecursionError):
        return {}
    listed = values.get("configs") if isinstance(values, Mapping) else None
    found: dict[str, dict[str, Sequence[str]]] = {}
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, Mapping):
            splits = dict(_splits(one.get("data_files")))
            if splits:
                found[str(one.get("config_name", "default"))] = splits
    return found


def _splits(data_files: Any) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield split and patterns: of one pattern, of several, or of a list of splits with theirs."""
    if isinstance(data_files, str):
        yield DEFAULT_SPLIT, [data_files]
    elif isinstance(data_files, list) and all(isinstance(one, str) for one in data_files):
        yield DEFAULT_SPLIT, data_files
    elif isinstance(data_files, list):
        for one in data_files:
            path = one.get("path") if isinstance(one, Mapping) else None
            paths = [path] if isinstance(path, str) else path
            if isinstance(paths, list) and all(isinstance(each, str) for each in paths):
                yield str(one.get("split", DEFAULT_SPLIT)), paths


def _listed(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:20])

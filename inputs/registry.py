"""SAELens' registry of releases: one YAML file inside the package, read without importing it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import yaml

from loopscope.inputs.errors import InputRefused
from loopscope.specs.json_values import JsonObject

REGISTRY_BYTES_MAX = 64 * 2**20
OWN_LOADER = "sae_lens"
"""The conversion of a release that names none: SAELens' own folders."""

_RELEASE = re.compile(r"[^\s/:]+")
"""A key of the registry's outermost level; the text is searched for it, so it must be one line."""
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's safe loader in C where that was compiled: ten times as fast."""


class DictionaryEntry(TypedDict):
    """SAELens' registry entry of one dictionary of a release."""

    id: str
    path: str
    norm_scaling_factor: NotRequired[float]
    neuronpedia: NotRequired[str | None]


class ReleaseBlock(TypedDict):
    """SAELens' registry entry of a release."""

    repo_id: str
    model: NotRequired[str]
    conversion_func: NotRequired[str | None]
    config_overrides: NotRequired[JsonObject | None]
    saes: list[DictionaryEntry]


def registry_path() -> Path:
    """Return the registry's file. Raises ``InputRefused`` where SAELens is not installed."""
    # Finding a top-level package runs none of its code.
    spec = importlib.util.find_spec("sae_lens")
    places = list(spec.submodule_search_locations or []) if spec else []
    registry = Path(places[0]) / "pretrained_saes.yaml" if places else None
    if registry is None or not registry.is_file():
        raise InputRefused(
            "release",
            "SAELens' registry of releases is not installed; pip install 'loopscope[worker]' or "
            "sae-lens, or use path",
        )
    return registry


def release_names() -> list[str]:
    """Return the names of all releases, in the registry's order."""
    return re.findall(r"^(\S+):$", _registry_text(registry_path()), flags=re.MULTILINE)


def release_block(release: str) -> ReleaseBlock | None:
    """Return one release's entry: its block alone is parsed, the whole takes a second."""
    if not _RELEASE.fullmatch(release):
        return None
    text = _registry_text(registry_path())
    found = re.search(rf"^{re.escape(release)}:\n((?: .*\n?)*)", text, flags=re.MULTILINE)
    return _block(found[1]) if found else None


def release_blocks(model: str | None = None) -> Iterator[tuple[str, ReleaseBlock]]:
    """Yield every release with its entry; with ``model`` those of this model alone."""
    text = _registry_text(registry_path())
    for found in re.finditer(r"^(\S+):\n((?:[ -].*\n?)*)", text, flags=re.MULTILINE):
        if model is not None and f"\n  model: {model}\n" not in f"\n{found[2]}\n":
            continue
        block = _block(found[2])
        if block is not None:
            yield found[1], block


def texts_of_repository(repo: str) -> dict[str, str]:
    """Return the text of each release whose dictionaries lie in a hub repository."""
    try:
        text = _registry_text(registry_path())
    except InputRefused:  # not installed: then it has no hints either
        return {}
    found = {}
    for place in re.finditer(rf"^  repo_id: {re.escape(repo)}$", text, flags=re.MULTILINE):
        before = re.findall(r"^(\S+):$", text[: place.start()], flags=re.MULTILINE)
        block = re.search(r"^\S", text[place.end() :], flags=re.MULTILINE)
        start = text.rindex(f"\n{before[-1]}:\n", 0, place.start()) if len(before) > 1 else 0
        end = place.end() + block.start() if block else len(text)
        found[before[-1]] = text[start:end]
    return found


def loader_in(text: str) -> str:
    """Return the conversion that the text of a release names."""
    found = re.search(r"^  conversion_func: (\S+)$", text, flags=re.MULTILINE)
    return found[1] if found and found[1] != "null" else OWN_LOADER


def id_in(text: str, path: str) -> str | None:
    """Return the id of the dictionary that lies in a folder, from the text of its release."""
    for entry in re.split(r"^  - ", text, flags=re.MULTILINE)[1:]:
        if re.search(rf"^ *path: {re.escape(path)}$", entry, flags=re.MULTILINE):
            found = re.search(r"^ *id: (\S+)$", entry, flags=re.MULTILINE)
            return found[1] if found else None
    return None


@lru_cache(maxsize=1)
def _registry_text(path: Path) -> str:
    with path.open(encoding="utf-8") as stream:
        return stream.read(REGISTRY_BYTES_MAX)


def _block(text: str) -> ReleaseBlock | None:
    loader = _SAFE_LOADER(text)
    try:
        block = loader.get_single_data()
    finally:
        loader.dispose()
    return cast(ReleaseBlock, block) if isinstance(block, dict) else None

"""SAELens releases: the registry that ships inside the package, read without importing it."""

from __future__ import annotations

import difflib
import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import yaml

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.saelens_config import DECIDING
from loopscope.specs.hooks import Hook, all_streams
from loopscope.specs.json_values import JsonObject

REGISTRY_BYTES_MAX = 64 * 2**20
NAME_CHARACTERS_MAX = 100
"""So much of a name is compared with those that are known; that takes time for each of them."""
LOADERS = ("sae_lens", "gemma_2", "gemma_3")
"""The conversions that are supported: a SAELens folder, Gemma Scope, Gemma Scope 2."""
PICKLE_LOADERS = frozenset(
    {"connor_rob_hook_z", "deepseek_r1", "dictionary_learning_1", "goodfire", "qwen_scope"}
)
"""These conversions call ``torch.load``, which can run code that is hidden in the weights."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]*")
_RELEASE = re.compile(r"[^\s/:]+")
"""A key of the registry's outermost level; the text is searched for it, so it must be one line."""


class DictionaryEntry(TypedDict):
    """SAELens' registry entry of one dictionary of a release."""

    id: str
    path: str
    norm_scaling_factor: NotRequired[float]


class ReleaseBlock(TypedDict):
    """SAELens' registry entry of a release."""

    repo_id: str
    model: NotRequired[str]
    conversion_func: NotRequired[str | None]
    config_overrides: NotRequired[JsonObject | None]
    saes: list[DictionaryEntry]


@dataclass(frozen=True)
class ReleaseEntry:
    """One dictionary of a release: hub repository, folder in it and how it is read.

    ``said`` is what the registry records of its training, under the names of a ``cfg.json``: it
    takes precedence over the dictionary's own config.
    """

    repo: str
    path: str
    loader: str
    said: JsonObject


def find_release(release: str, sae_id: str) -> ReleaseEntry:
    """Return the entry of a release and id; ``InputRefused`` names what is unknown or refused.

    As in SAELens, a release that is not in the registry may be a hub repository
    (``owner/name``) in SAELens format, with ``sae_id`` the folder in it.
    """
    block = _release_block(release)
    if block is None:
        if re.fullmatch(rf"{_PART.pattern}/{_PART.pattern}", release):
            known = _as_release(release, sae_id)
            if known is not None:
                return find_release(*known)
            return ReleaseEntry(release, _safe_path(sae_id), "sae_lens", {})
        raise InputRefused("release", _unknown("release", release, _release_names()))
    loader = block.get("conversion_func") or "sae_lens"
    _refuse_loader(release, loader)
    entry = _entry_of(release, sae_id, block)
    path, repo = _safe_path(str(entry["path"])), str(block["repo_id"])
    overrides = block.get("config_overrides") or {}
    _refuse_changes(release, sae_id, entry, overrides)
    said: JsonObject = {"model_name": block.get("model"), **overrides}
    if loader != "sae_lens":
        said["hook_name"] = _hook_from_path(release, sae_id, repo, path, loader)
    return ReleaseEntry(repo, path, loader, said)


def release_hint(repo: str) -> str:
    """Return which releases hold a hub repository, as the end of a sentence; often empty."""
    names = list(_releases_of(repo))
    if not names:
        return ""
    listed = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"; SAELens knows the hub repository {repo} as release {listed}: write release and id"


def _as_release(repo: str, path: str) -> tuple[str, str] | None:
    """Return the release and id under which a folder of a hub repository is read in its format.

    None where the registry does not know it, and its format may be SAELens' own. Raises
    InputRefused, with what to write, where it is another format.
    """
    releases = _releases_of(repo)
    loaders = {name: _loader_of(text) for name, text in releases.items()}
    for name, text in releases.items():
        sae_id = _id_at(text, path)
        if sae_id is None:
            continue
        if loaders[name] == "sae_lens":
            return name, sae_id
        raise InputRefused(
            "release",
            f"{repo} is a hub repository, which SAELens knows as a release: write "
            f"release: {name}, id: {sae_id}",
        )
    if releases and "sae_lens" not in loaders.values():
        raise InputRefused("release", f"{repo} is not in SAELens' format{release_hint(repo)}")
    return None


def _releases_of(repo: str) -> dict[str, str]:
    """Return the text of each release whose dictionaries lie in a hub repository."""
    try:
        text = _registry_text(_registry())
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


def _loader_of(block: str) -> str:
    found = re.search(r"^  conversion_func: (\S+)$", block, flags=re.MULTILINE)
    return found[1] if found and found[1] != "null" else "sae_lens"


def _id_at(block: str, path: str) -> str | None:
    """Return the id of the dictionary that lies in a folder, from the text of its release."""
    for entry in re.split(r"^  - ", block, flags=re.MULTILINE)[1:]:
        if re.search(rf"^ *path: {re.escape(path)}$", entry, flags=re.MULTILINE):
            found = re.search(r"^ *id: (\S+)$", entry, flags=re.MULTILINE)
            return found[1] if found else None
    return None


def _entry_of(release: str, sae_id: str, block: ReleaseBlock) -> DictionaryEntry:
    entries = {str(entry["id"]): entry for entry in block["saes"]}
    if sae_id not in entries:
        raise InputRefused("id", _unknown(f"id of release {release}", sae_id, list(entries)))
    return entries[sae_id]


def _refuse_loader(release: str, loader: str) -> None:
    if loader in PICKLE_LOADERS:
        raise InputRefused(
            "release",
            f"release {release} needs SAELens' loader {loader}, which unpickles its weights "
            "(torch.load) and could run any code; choose a release in safetensors or npz",
        )
    if loader not in LOADERS:
        raise InputRefused(
            "release",
            f"release {release} needs SAELens' loader {loader}, which is not supported; "
            f"supported are {', '.join(LOADERS)}",
        )


def _refuse_changes(
    release: str, sae_id: str, entry: DictionaryEntry, overrides: JsonObject
) -> None:
    """Refuse what the registry would change in what the weights compute: workers read the files."""
    if "norm_scaling_factor" in entry or "normalize_activations" in overrides:
        raise InputRefused(
            "id",
            f"{release} {sae_id} expects activations that were rescaled before encoding, "
            "which is not supported; choose another dictionary",
        )
    if changed := sorted(DECIDING & overrides.keys()):
        raise InputRefused(
            "id",
            f"the registry changes {changed[0]} of {release} {sae_id}, which is not supported; "
            "choose another dictionary",
        )


def _hook_from_path(release: str, sae_id: str, repo: str, path: str, loader: str) -> str:
    """Return the hook of a Gemma Scope dictionary, from its place (as SAELens reads it)."""
    layer = re.search(r"(?:^|/)layer_(\d+)", path)
    residual = "-res" in repo if loader == "gemma_2" else "resid_post" in path
    if layer is None or not residual:
        raise InputRefused(
            "id",
            f"{release} {sae_id} does not read the residual stream; "
            f"supported are dictionaries of {all_streams()}",
        )
    return str(Hook(int(layer.group(1)), "resid_post"))


def _safe_path(path: str) -> str:
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise InputRefused("id", f"{path[:80]!r} is not a folder of a hub repository")
    return path


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name[:NAME_CHARACTERS_MAX], known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"unknown {what}: {name[:NAME_CHARACTERS_MAX]!r}{hint}"


def _registry() -> Path:
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


@lru_cache(maxsize=1)
def _registry_text(path: Path) -> str:
    with path.open(encoding="utf-8") as stream:
        return stream.read(REGISTRY_BYTES_MAX)


def _release_names() -> list[str]:
    return re.findall(r"^(\S+):$", _registry_text(_registry()), flags=re.MULTILINE)


def _release_block(release: str) -> ReleaseBlock | None:
    """Return one release's entry: its block alone is parsed, the whole takes a second."""
    if not _RELEASE.fullmatch(release):
        return None
    text = _registry_text(_registry())
    found = re.search(rf"^{re.escape(release)}:\n((?: .*\n?)*)", text, flags=re.MULTILINE)
    block = yaml.safe_load(found.group(1)) if found else None
    return cast(ReleaseBlock, block) if isinstance(block, dict) else None

"""Dictionaries of SAELens' releases: where each lies, and whether it can be used."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from loopscope.inputs.architectures import ARCHITECTURES
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.layouts import LOADERS, layout_of
from loopscope.inputs.layouts.layout import Entry, Known, Layout
from loopscope.inputs.layouts.saelens import SAELENS
from loopscope.inputs.registry import (
    OWN_LOADER,
    DictionaryEntry,
    ReleaseBlock,
    id_in,
    loader_in,
    release_block,
    release_names,
    texts_of_repository,
)
from loopscope.inputs.saelens_config import DECIDING
from loopscope.specs.hooks import Hook, all_streams
from loopscope.specs.json_values import JsonObject

NAME_CHARACTERS_MAX = 100
"""So much of a name is compared with those that are known; that takes time for each of them."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=:-]*")


@dataclass(frozen=True)
class ReleaseEntry:
    """One dictionary of a release: hub repository, folder in it and how it is read.

    ``said`` is what the registry records of its training, under the names of a ``cfg.json``: it
    takes precedence over the dictionary's own config. By ``norm_scaling_factor`` the input of some
    is multiplied. What is not ``registered`` may be in any layout.
    """

    repo: str
    path: str
    layout: Layout
    said: JsonObject
    norm_scaling_factor: float | None = None
    registered: bool = True

    @property
    def place(self) -> Entry:
        """Where it lies, as layouts ask for it."""
        return Entry(self.repo, self.path, norm_scaling_factor=self.norm_scaling_factor)


def find_release(release: str, sae_id: str) -> ReleaseEntry:
    """Return the entry of a release and id; ``InputRefused`` names what is unknown or refused.

    As in SAELens, a release that is not in the registry may be a hub repository
    (``owner/name``) in SAELens format, with ``sae_id`` the folder in it.
    """
    block = release_block(release)
    if block is None:
        if re.fullmatch(rf"{_PART.pattern}/{_PART.pattern}", release):
            known = _as_release(release, sae_id)
            if known is not None:
                return find_release(*known)
            return ReleaseEntry(release, _safe_path(sae_id), SAELENS, {}, registered=False)
        raise unknown_release(release)
    return registered(release, block, _entry_of(release, sae_id, block))


def registered(release: str, block: ReleaseBlock, entry: DictionaryEntry) -> ReleaseEntry:
    """Return an entry of the registry as it is used; ``InputRefused`` says why it cannot be."""
    place = Entry(str(block["repo_id"]), _safe_path(str(entry["path"])), str(entry["id"]))
    layout = _layout(release, block, place)
    overrides = block.get("config_overrides") or {}
    _refuse_changes(release, layout, entry, overrides)
    known = layout.known(place)
    _refuse_unknown(f"{release} {place.id}", known)
    said: JsonObject = {"model_name": block.get("model"), **overrides}
    if layout is not SAELENS and known.hook is not None:
        said["hook_name"] = known.hook
        if known.hook_out is not None:
            said["hook_name_out"] = known.hook_out
    factor = entry.get("norm_scaling_factor")
    return ReleaseEntry(place.repo, place.path, layout, said, factor)


def place_of(block: ReleaseBlock, entry: DictionaryEntry) -> Known:
    """Return what is known of an entry of the registry, whether it can be used or not."""
    place = Entry(str(block["repo_id"]), str(entry["path"]), str(entry["id"]))
    layout = layout_of(block.get("conversion_func") or OWN_LOADER, place)
    return layout.known(place) if layout else Known()


def release_hint(repo: str) -> str:
    """Return which releases hold a hub repository, as the end of a sentence; often empty."""
    names = list(texts_of_repository(repo))
    if not names:
        return ""
    listed = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    return f"; SAELens knows the hub repository {repo} as release {listed}: write release and id"


def _as_release(repo: str, path: str) -> tuple[str, str] | None:
    """Return the release and id under which a folder of a hub repository is read in its format.

    None where the registry does not know it, and its format may be SAELens' own. Raises
    InputRefused, with what to write, where it is another format.
    """
    releases = texts_of_repository(repo)
    loaders = {name: loader_in(text) for name, text in releases.items()}
    for name, text in releases.items():
        sae_id = id_in(text, path)
        if sae_id is None:
            continue
        if loaders[name] == OWN_LOADER:
            return name, sae_id
        raise InputRefused(
            "release",
            f"{repo} is a hub repository, which SAELens knows as a release: write "
            f"release: {name}, id: {sae_id}",
        )
    if releases and OWN_LOADER not in loaders.values():
        raise InputRefused("release", f"{repo} is not in SAELens' format{release_hint(repo)}")
    return None


def _entry_of(release: str, sae_id: str, block: ReleaseBlock) -> DictionaryEntry:
    entries = {str(entry["id"]): entry for entry in block["saes"]}
    if sae_id not in entries:
        raise InputRefused("id", _unknown(f"id of release {release}", sae_id, list(entries)))
    return entries[sae_id]


def _layout(release: str, block: ReleaseBlock, place: Entry) -> Layout:
    loader = block.get("conversion_func") or OWN_LOADER
    layout = layout_of(loader, place)
    if layout is None:
        raise InputRefused(
            "release",
            f"release {release} needs SAELens' loader {loader}, which is not supported; "
            f"supported are {', '.join(LOADERS)}",
            cause=f"loader {loader}",
        )
    return layout


def _refuse_unknown(name: str, known: Known) -> None:
    """Refuse what is not among the architectures and hooks that there are."""
    if known.architecture is not None and known.architecture not in ARCHITECTURES:
        raise InputRefused(
            "id",
            f"{name} is a {known.architecture}; "
            f"supported are {', '.join(ARCHITECTURES)} dictionaries of {all_streams()}",
            cause=f"architecture {known.architecture}",
        )
    for hook in (known.hook, known.hook_out):
        if hook is None:
            continue
        try:
            Hook.parse(hook)
        except ValueError:
            general = re.sub(r"\d+", "N", hook, count=1)
            raise InputRefused(
                "id",
                f"{name} belongs to {hook}; supported are dictionaries of {all_streams()}",
                cause=f"hook {general}",
            ) from None


def _refuse_changes(
    release: str, layout: Layout, entry: DictionaryEntry, overrides: JsonObject
) -> None:
    """Refuse what the registry would change in what the weights compute: workers read the files."""
    sae_id, own = entry["id"], layout.contents is None
    if (own and "norm_scaling_factor" in entry) or "normalize_activations" in overrides:
        raise InputRefused(
            "id",
            f"{release} {sae_id} expects activations that were rescaled before encoding, "
            "which is not supported; choose another dictionary",
            cause="its input is rescaled",
        )
    if changed := sorted(DECIDING & overrides.keys()):
        raise InputRefused(
            "id",
            f"the registry changes {changed[0]} of {release} {sae_id}, which is not supported; "
            "choose another dictionary",
            cause="the registry changes what its weights compute",
        )


def _safe_path(path: str) -> str:
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        raise InputRefused(
            "id",
            f"{path[:80]!r} is not a folder of a hub repository",
            cause="its folder has an odd name",
        )
    return path


def unknown_release(release: str) -> InputRefused:
    """Return the refusal of a release that the registry does not have."""
    return InputRefused("release", _unknown("release", release, release_names()))


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name[:NAME_CHARACTERS_MAX], known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"unknown {what}: {name[:NAME_CHARACTERS_MAX]!r}{hint}"

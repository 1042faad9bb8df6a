"""Every dictionary of SAELens' registry, and whether it can be used: judged as references are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from loopscope.inputs.errors import InputRefused
from loopscope.inputs.model_aliases import names_of
from loopscope.inputs.registry import (
    OWN_LOADER,
    DictionaryEntry,
    ReleaseBlock,
    release_block,
    release_blocks,
)
from loopscope.inputs.releases import place_of, registered, unknown_release
from loopscope.specs.contextual import CONTEXTUAL


@dataclass(frozen=True)
class RegisteredDictionary:
    """One entry of the registry.

    ``reason`` says why it is refused, empty where it is usable; ``cause`` is what it has in common
    with others that are refused. Of those that are ``pickled`` a spec must say ``convert: sealed``,
    along those that read ``whole_texts`` nothing is steered.
    ``hook_name`` is None where only its own config knows the hook.
    Of a usable entry the files may still be refused once they are seen: the registry alone was
    asked, and no network.
    """

    release: str
    id: str
    model: str
    loader: str
    hook_name: str | None
    reason: str
    cause: str
    pickled: bool = False
    whole_texts: bool = False

    @property
    def usable(self) -> bool:
        """Whether a spec that names it is accepted."""
        return not self.reason


def registered_dictionaries(
    release: str | None = None, model: str | None = None
) -> Iterator[RegisteredDictionary]:
    """Yield the registry's dictionaries in its order, all, of a release, or on a model.

    A model may have any of its usual names (``gemma-2-2b``, ``google/gemma-2-2b``). Raises
    ``InputRefused`` for a release that is not in the registry.
    """
    for name, block in _blocks(release, model):
        for entry in block["saes"]:
            yield _judged(name, block, entry)


def is_at(one: RegisteredDictionary, hook: str) -> bool:
    """Whether a dictionary belongs to a hook, or to a hook of any block where no block is named."""
    return one.hook_name is not None and f".{one.hook_name}".endswith(f".{hook}")


def counts(found: Iterable[RegisteredDictionary]) -> list[tuple[tuple[str, str], int]]:
    """Return the number of dictionaries of each loader and cause, most frequent loaders first.

    The cause of usable ones is empty; within a loader they come first.
    """
    each = Counter((one.loader, one.cause) for one in found)
    loaders = Counter[str]()
    for (loader, _), number in each.items():
        loaders[loader] += number
    return sorted(
        each.items(),
        key=lambda one: (-loaders[one[0][0]], one[0][0], one[0][1] != "", -one[1], one[0][1]),
    )


def _blocks(release: str | None, model: str | None) -> Iterator[tuple[str, ReleaseBlock]]:
    if release is None:
        names = (None,) if model is None else names_of(model)
        for name in names:
            yield from release_blocks(name)
        return
    block = release_block(release)
    if block is None:
        raise unknown_release(release)
    if model is None or block.get("model") in names_of(model):
        yield release, block


def _judged(release: str, block: ReleaseBlock, entry: DictionaryEntry) -> RegisteredDictionary:
    reason, cause, pickled = "", "", False
    try:
        pickled = registered(release, block, entry).layout.pickled
    except InputRefused as refused:
        reason, cause = refused.message, refused.cause
    loader = block.get("conversion_func") or OWN_LOADER
    known, model = place_of(block, entry), str(block.get("model"))
    whole_texts = known.architecture in CONTEXTUAL
    return RegisteredDictionary(
        release, str(entry["id"]), model, loader, known.hook, reason, cause, pickled, whole_texts
    )

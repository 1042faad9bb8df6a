"""Hooks beside a capture's, where a dictionary that does not reconstruct there would.

A dictionary is easily taken for another place: one block off, before the block in place of after
it. It then reconstructs worse than the mean vector does (FVU above 1), and only then is this asked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import structlog
import torch
from torch import Tensor

from loopscope.inputs.files import read_json_object
from loopscope.numerics.dictionaries.sparse import (
    BLOCK_BYTES_MAX,
    ReconstructionSums,
    SparseDictionary,
    block_shape,
    encode,
)
from loopscope.numerics.model.batching import pad, plan_batches
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.steering.reading import streams_of_batch
from loopscope.specs.artifacts.capture import CAPTURED_PROMPTS, WRITTEN
from loopscope.specs.hooks import Hook
from loopscope.specs.payloads.capture import CapturePayload
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.failures import Failure, TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.memory import ran_out_of_memory
from loopscope.worker.models import LoadedModel
from loopscope.worker.progress import ProgressReport
from loopscope.worker.stages.tables import read_columns

log = structlog.get_logger("decomposition")

PROMPTS_MAX = 16
MULTIPLICATIONS_MAX = 3 * 10**11
"""Encoder work of all hooks: about six seconds on two cores. It is a hint, not a measurement."""
TOKENS_MIN, TOKENS_MAX = 32, 2_048
"""Tokens read at each hook: fewer have no variance to explain, more would tell nothing new."""
TOKENS_PER_BATCH_MAX = 512
PHASE = "Trying hooks nearby"


@dataclass(frozen=True)
class Nearby:
    """FVU by hook over the same tokens of some prompts, the capture's own hook among them.

    Empty where that could not be found out.
    """

    hook: str
    fvu: Mapping[str, float]
    tokens: int

    @property
    def words(self) -> str:
        """Which hook would do, for a message."""
        others = {hook: fvu for hook, fvu in self.fvu.items() if hook != self.hook}
        if not others:
            return "hooks nearby could not be tried"
        best = min(others, key=others.__getitem__)
        there = f"{best} (FVU {others[best]:.2g} on {self.tokens:,} tokens of prompts"
        if others[best] <= 1:
            return (
                f"it would reconstruct at {there}, {self.fvu[self.hook]:.2g} here); use that hook"
            )
        return f"nor does it reconstruct at a hook nearby, least badly at {there})"


def nearby(dictionary: SparseDictionary, capture: Path, context: StageContext) -> Nearby:
    """Try a dictionary at the hooks beside that of a capture, on a few of its prompts.

    Never fails for what the model lacks or cannot do: then there is nothing to say.
    """
    try:
        payload = cast(CapturePayload, read_json_object(capture / MANIFEST)["inputs"])
        hook = payload["hook"]
    except (OSError, ValueError, KeyError):
        return Nearby("", {}, 0)
    nothing = Nearby(hook, {}, 0)
    if (capture / WRITTEN.name).exists():
        return nothing  # a transcoder belongs to two hooks
    try:
        return _tried(dictionary, payload, _texts(capture), context)
    except Failure as failure:
        log.warning("hooks nearby were not tried", why=str(failure))
        return nothing
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        log.warning("hooks nearby were not tried: model and dictionary do not fit together")
        return nothing


def _tried(
    dictionary: SparseDictionary,
    payload: CapturePayload,
    texts: Sequence[str],
    context: StageContext,
) -> Nearby:
    model = context.model(payload["model"])
    own = Hook.parse(payload["hook"])
    hooks = [own, *own.nearby(model.n_layers)]
    places = {hook: model.place(str(hook)) for hook in hooks if _fits(model, hook, dictionary)}
    if own not in places:
        return Nearby(str(own), {}, 0)
    encoded = encoded_texts(model, payload.get("chat"), texts, spans=False)
    tokens = beginnings([one.tokens for one in encoded], tokens_max(dictionary, len(places)))
    count = len(places) * sum(len(one) - 1 for one in tokens)
    if not count:
        return Nearby(str(own), {}, 0)
    blocks = _Blocks.of(dictionary, count, context)
    streams = _streams(model, list(places.values()), tokens, context.batch_divisor)
    # BOS is read in context, and then left out
    x = [torch.cat([rows[1:] for rows in streams[place]]) for place in places.values()]
    read = [
        torch.cat([dictionary.in_context(rows)[1:] for rows in streams[place]])
        for place in places.values()
    ]
    sums = _sums(dictionary, x, read, blocks, context.device)
    found = zip(places, sums, strict=True)
    measured = {str(hook): one.fvu for hook, one in found if math.isfinite(one.fvu)}
    if str(own) not in measured:
        return Nearby(str(own), {}, 0)
    return Nearby(str(own), measured, sums[0].rows)


def tokens_max(dictionary: SparseDictionary, hooks: int) -> int:
    """Return how many tokens are read at each of some hooks: a function of the widths alone."""
    fitting = MULTIPLICATIONS_MAX // (hooks * dictionary.d_in * dictionary.d_sae)
    return max(TOKENS_MIN, min(TOKENS_MAX, fitting))


def beginnings(texts: Sequence[Sequence[int]], room: int) -> list[Sequence[int]]:
    """Return the texts, each BOS and tokens, up to ``room`` tokens in all; the last may be cut."""
    kept: list[Sequence[int]] = []
    for text in texts:
        if room > 0:
            kept.append(text[: room + 1])
            room -= len(kept[-1]) - 1
    return kept


def _streams(
    model: LoadedModel, places: Sequence[HookPlace], tokens: Sequence[Sequence[int]], parts: int
) -> dict[HookPlace, list[Tensor]]:
    """Return each text's stream at each place, [tokens, width] with BOS."""
    found: dict[HookPlace, dict[int, Tensor]] = {place: {} for place in places}
    for rows in plan_batches([len(one) for one in tokens], TOKENS_PER_BATCH_MAX // parts):
        batch = pad([tokens[row] for row in rows], model.pad_token, "right", model.device)
        for place, values in streams_of_batch(model.causal, places, batch).items():
            found[place] |= {
                row: value[mask] for row, value, mask in zip(rows, values, batch.mask, strict=True)
            }
    return {place: [of[row] for row in range(len(tokens))] for place, of in found.items()}


@dataclass(frozen=True)
class _Blocks:
    """The blocks in which the rows of all hooks are encoded; each that is done is reported."""

    rows: int
    latents: int
    total: int
    progress: ProgressReport

    @staticmethod
    def of(dictionary: SparseDictionary, rows: int, context: StageContext) -> _Blocks:
        """Return the blocks for so many rows, none of them done."""
        bytes_max = BLOCK_BYTES_MAX // context.batch_divisor
        row_block, latent_block = block_shape(rows, dictionary.d_sae, bytes_max)
        total = -(-rows // row_block) * -(-dictionary.d_sae // latent_block)
        context.progress(PHASE, 0, total, "blocks")
        return _Blocks(row_block, latent_block, total, context.progress)

    def reported_by(self, dictionary: SparseDictionary) -> SparseDictionary:
        """Return the same dictionary, which gives each block back when it is done."""
        done = itertools.count(1)

        def release() -> None:
            dictionary.release()
            self.progress(PHASE, min(next(done), self.total), self.total, "blocks")

        return replace(dictionary, release=release)


def _sums(
    dictionary: SparseDictionary,
    x: Sequence[Tensor],
    read: Sequence[Tensor],
    blocks: _Blocks,
    device: str,
) -> list[ReconstructionSums]:
    """Return the sums of each hook's rows, ``x`` as they are and ``read`` as they are encoded.

    All are encoded together: a wide dictionary lies in a file, and its blocks are read once.
    """
    rows = torch.cat(list(read)).to(device)
    activations = encode(blocks.reported_by(dictionary), rows, blocks.rows, blocks.latents)
    found, start = [], 0
    for exact, one in zip(x, read, strict=True):
        part = activations[start : start + len(one)]
        rebuilt = dictionary.reconstruct(one.to(device), part)
        found.append(ReconstructionSums.of(exact.to(device), rebuilt, part))
        start += len(one)
    return found


def _fits(model: LoadedModel, hook: Hook, dictionary: SparseDictionary) -> bool:
    try:
        return model.width(str(hook)) == dictionary.d_in
    except TerminalFailure:  # this model has no such place
        return False


def _texts(capture: Path) -> list[str]:
    table = read_columns(capture / CAPTURED_PROMPTS.name)
    return [str(text) for text in table["text"][:PROMPTS_MAX]]

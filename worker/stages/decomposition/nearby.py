"""Hooks beside a capture's, where a dictionary that does not reconstruct there would.

A dictionary is easily taken for another place: one block off, before the block in place of after
it. It then reconstructs worse than the mean vector does (FVU above 1), and only then is this asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog

from loopscope.inputs.files import read_json_object
from loopscope.numerics.dictionaries.sparse import (
    BLOCK_BYTES_MAX,
    ReconstructionSums,
    SparseDictionary,
    block_shape,
    encode,
)
from loopscope.numerics.steering.reading import streams_of
from loopscope.specs.artifacts.capture import CAPTURED_PROMPTS, WRITTEN
from loopscope.specs.hooks import Hook
from loopscope.specs.payloads.capture import CapturePayload
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.failures import Failure, TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.memory import ran_out_of_memory
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.tables import read_columns

log = structlog.get_logger("decomposition")

PROMPTS_MAX = 16
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
    encoded = encoded_texts(model, payload.get("chat"), texts, spans=False)
    sums = {hook: ReconstructionSums.empty(dictionary.d_out, dictionary.d_sae) for hook in places}
    for number, one in enumerate(encoded):
        context.progress(PHASE, number, len(encoded), "prompts")
        found = streams_of(model.causal, list(places.values()), one.tokens, model.device)
        for hook, place in places.items():
            whole = found[place].to(context.device)
            x, read = whole[1:], dictionary.in_context(whole)[1:]  # without BOS
            shape = block_shape(len(x), dictionary.d_sae, BLOCK_BYTES_MAX // context.batch_divisor)
            activations = encode(dictionary, read, *shape)
            rebuilt = dictionary.reconstruct(read, activations)
            sums[hook] = sums[hook].merge(ReconstructionSums.of(x, rebuilt, activations))
    measured = {str(hook): one.fvu for hook, one in sums.items() if math.isfinite(one.fvu)}
    if str(own) not in measured:
        return Nearby(str(own), {}, 0)
    return Nearby(str(own), measured, sums[own].rows)


def _fits(model: LoadedModel, hook: Hook, dictionary: SparseDictionary) -> bool:
    try:
        return model.width(str(hook)) == dictionary.d_in
    except TerminalFailure:  # this model has no such place
        return False


def _texts(capture: Path) -> list[str]:
    table = read_columns(capture / CAPTURED_PROMPTS.name)
    return [str(text) for text in table["text"][:PROMPTS_MAX]]

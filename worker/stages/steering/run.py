"""The shared state of a steering run: model, arms, texts, and kept pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loopscope.numerics.model.capture import HookNeverFired, NotFinite
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.statistics.sampling import SamplingRule
from loopscope.numerics.steering.intervention import Intervention
from loopscope.specs.artifacts.capture import NORMS, Norms
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.steering.arms import PLACEBO_PROMPT, SYSTEM_PROMPT, Arms, build_arms
from loopscope.worker.stages.steering.cells import Cell, added_vectors
from loopscope.worker.stages.steering.clamp import ClampedLatents, clamped_latents
from loopscope.worker.stages.tables import read_document

Kept = TypeVar("Kept")
"""JSON: what is computed is what is read back."""


@dataclass(frozen=True)
class SteeringRun:
    """One job: what to generate, with what, and where pieces of it are kept.

    ``openings`` and ``neutral_texts`` are tokens with BOS, in the spec's order; ``prefixes`` maps
    each arm that is words before the opening to their tokens, without BOS.
    """

    payload: SteeringPayload
    context: StageContext
    model: LoadedModel
    arms: Arms
    openings: list[list[int]]
    prefixes: dict[str, list[int]]
    neutral_texts: list[list[int]]
    clamped: ClampedLatents | None = None
    """The latents that arms ablate before their vector is added; None where they only add."""

    @property
    def place(self) -> HookPlace:
        """Where the residual stream is steered."""
        return self.model.place(self.payload["hook"])

    @property
    def read_place(self) -> HookPlace:
        """Where the dictionaries' latents are read: elsewhere for transcoders."""
        return self.model.place(self.payload.get("readHook", self.payload["hook"]))

    def tokens_before(self, opening: int, arm: str) -> list[int]:
        """Return BOS and an opening's tokens, after the words where that is what the arm is."""
        bos, *tokens = self.openings[opening]
        return [bos, *self.prefixes.get(arm, ()), *tokens]

    def intervention(self, cells: Sequence[Cell]) -> Intervention:
        """Return what each cell does to the residual stream, on the device of the run."""
        vectors = added_vectors(self.arms, cells, self.model.width(self.payload["hook"]))
        ablation = self.clamped.of([cell.arm for cell in cells]) if self.clamped else None
        return Intervention(vectors, ablation).to(self.context.device)

    def steers(self, cell: Cell) -> bool:
        """Return whether the cell changes the residual stream."""
        return cell.norm > 0 or (self.clamped is not None and cell.arm in self.clamped.members)

    @property
    def sampling(self) -> SamplingRule:
        """How tokens are drawn."""
        rules = self.payload["sampling"]
        return SamplingRule(rules["temperature"], rules["topK"], rules["topP"], rules["greedy"])

    def kept(self, name: str, compute: Callable[[], Kept]) -> Kept:
        """Return the JSON shard ``name``, computing and sealing it if it is not there."""
        path = self.context.shards.sealed(name)
        if path is None:
            try:
                text = json.dumps(compute(), allow_nan=False)
            except HookNeverFired as error:
                raise TerminalFailure("HookNeverFired", str(error)) from error
            except NotFinite as error:
                raise TerminalFailure("NotFinite", str(error)) from error
            path = self.context.shards.seal(name, lambda part: _write_text(part, text))
        kept: Kept = json.loads(path.read_text())
        return kept

    def norms(self) -> Norms:
        """Return the residual norms that the capture measured."""
        capture = self.context.artifact("capture", self.payload["capture"]["digest"])
        return read_document(capture, NORMS)


def prepare(payload: SteeringPayload, context: StageContext) -> SteeringRun:
    """Load the model and build the arms.

    Raises TerminalFailure ``NothingToSteer``, ``PromptTooLong``, and what ``encode`` refuses.
    """
    model = context.model(payload["model"])
    arms = build_arms(payload, context, model.width(payload["hook"]))
    prefixes = _prefixes(payload, model)
    if not arms.vectors and "none" not in payload["arms"] and not prefixes:
        raise TerminalFailure(
            "NothingToSteer", f"no arm can be built ({'; '.join(arms.missing.values())})"
        )
    run = SteeringRun(
        payload=payload,
        context=context,
        model=model,
        arms=arms,
        openings=tokens_of(payload, model, [one["text"] for one in payload["openings"]]),
        neutral_texts=tokens_of(payload, model, payload["neutralText"]),
        prefixes=prefixes,
        clamped=clamped_latents(payload, context, arms),
    )
    _check_lengths(run)
    return run


def tokens_of(
    payload: SteeringPayload, model: LoadedModel, texts: Sequence[str]
) -> list[list[int]]:
    """Return each text's tokens with BOS, in the chat template if there is one."""
    encoded = encoded_texts(model, payload.get("chat"), texts, spans=False)
    return [one.tokens for one in encoded]


def _prefixes(payload: SteeringPayload, model: LoadedModel) -> dict[str, list[int]]:
    """Return the tokens of the system prompt and of its placebo, each kept apart from what follows.

    The placebo has as many tokens: its text is cut, or begun again, and ends in what separates the
    system prompt from the opening. Empty without a system prompt.
    """
    if "systemPrompt" not in payload:
        return {}
    alone = model.encode(payload["systemPrompt"])[1:]
    prefix = model.encode(payload["systemPrompt"] + payload["systemPromptSeparator"])[1:]
    prefixes = {SYSTEM_PROMPT: prefix}
    if payload.get("placeboPrompt"):
        own = sum(1 for _ in itertools.takewhile(_equal, zip(alone, prefix, strict=False)))
        text = itertools.cycle(model.encode(payload["placeboPrompt"])[1:])
        prefixes[PLACEBO_PROMPT] = [*itertools.islice(text, own), *prefix[own:]]
    return prefixes


def _equal(pair: tuple[int, int]) -> bool:
    return pair[0] == pair[1]


def _check_lengths(run: SteeringRun) -> None:
    limit = run.model.context_tokens_max
    before = max((len(prefix) for prefix in run.prefixes.values()), default=0)
    for opening, tokens in zip(run.payload["openings"], run.openings, strict=True):
        needed = before + len(tokens) + run.payload["maxNewTokens"]
        if limit is not None and needed > limit:
            raise TerminalFailure(
                "PromptTooLong",
                f"opening {opening['id']} has {len(tokens)} tokens; with maxNewTokens and the "
                f"system prompt that makes {needed}, above the model's {limit}",
            )
    for number, tokens in enumerate(run.neutral_texts, start=1):
        needed = before + len(tokens)
        if limit is not None and needed > limit:
            raise TerminalFailure(
                "PromptTooLong",
                f"text {number} of neutralText has {needed} tokens with BOS and the system prompt, "
                f"above the model's {limit}; shorten it",
            )


def not_finite(error: NotFinite, cells: Sequence[Cell]) -> TerminalFailure:
    """Name the arm and strength of the row that broke; ``cells`` are those of the batch's rows."""
    if error.row is None:
        return TerminalFailure("NotFinite", str(error))
    cell = cells[error.row]
    at = "unsteered" if cell.arm == "none" else f"arm {cell.arm} at strength {cell.strength:g}"
    return TerminalFailure("NotFinite", f"{error} ({at}); use dtype float32, or lower strengths")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")

"""The shared state of a steering run: model, arms, texts, and kept pieces."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from loopscope.numerics.model.capture import HookNeverFired, NotFinite
from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.model.logits import LargestLogits
from loopscope.numerics.statistics.sampling import SamplingRule
from loopscope.numerics.steering.generation import prepared_head
from loopscope.numerics.steering.intervention import Intervention
from loopscope.numerics.steering.reach import Reach
from loopscope.specs.artifacts.capture import NORMS, Norms
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import EncodedText, encoded_texts
from loopscope.worker.models import LoadedModel
from loopscope.worker.stages.steering.arms import Arms, build_arms
from loopscope.worker.stages.steering.cells import Cell, added_vectors
from loopscope.worker.stages.steering.clamp import ClampedLatents, clamped_latents
from loopscope.worker.stages.steering.prompted import Prompted, prompted_texts, shared_from
from loopscope.worker.stages.tables import read_document

Kept = TypeVar("Kept")
"""JSON: what is computed is what is read back."""
WITHOUT_SPANS = ("all", "opening", "generated", "last")
"""Positions for which nobody needs to know which characters a token stands for."""


@dataclass(frozen=True)
class SteeringRun:
    """One job: what to generate, with what, and where pieces of it are kept.

    ``openings`` and ``neutral_texts`` are tokens with BOS, in the spec's order; ``prompted`` maps
    each arm that is words to the same texts with them. ``steered`` has the places of each opening
    that are steered; ``steers_generated`` says whether what follows is. ``declared`` counts the
    openings of the spec, of which a run that stopped early has the first blocks.
    """

    payload: SteeringPayload
    context: StageContext
    model: LoadedModel
    arms: Arms
    openings: list[list[int]]
    neutral_texts: list[list[int]]
    prompted: dict[str, Prompted]
    steered: list[list[int]]
    steers_generated: bool
    declared: int
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
        """Return an opening's tokens with BOS, and with the words where that is what the arm is."""
        texts = self.prompted.get(arm)
        return (self.openings if texts is None else texts.openings)[opening]

    def shared_from(self, number: int) -> int:
        """Return the first token of a neutral text from which on every arm reads the same ones."""
        others = [texts.neutral_texts[number] for texts in self.prompted.values()]
        return shared_from(self.neutral_texts[number], others)

    def intervention(self, cells: Sequence[Cell]) -> Intervention:
        """Return what each cell does to the residual stream, on the device of the run."""
        vectors = added_vectors(self.arms, cells, self.model.width(self.payload["hook"]))
        ablation = self.clamped.of([cell.arm for cell in cells]) if self.clamped else None
        return Intervention(vectors, ablation).to(self.context.device)

    def steers(self, cell: Cell) -> bool:
        """Return whether the cell changes the residual stream."""
        return cell.norm > 0 or (self.clamped is not None and cell.arm in self.clamped.members)

    def reach(self, rows: Sequence[tuple[int, Cell]]) -> Reach:
        """Return where each row is steered: openings (their index) under cells; nowhere if idle."""
        acts = [self.steers(cell) for _, cell in rows]
        return Reach(
            tuple(len(self.tokens_before(opening, cell.arm)) for opening, cell in rows),
            tuple(
                tuple(self.steered[opening]) if acting else ()
                for (opening, _), acting in zip(rows, acts, strict=True)
            ),
            tuple(acting and self.steers_generated for acting in acts),
        )

    @property
    def sampling(self) -> SamplingRule:
        """How tokens are drawn."""
        rules = self.payload["sampling"]
        return SamplingRule(rules["temperature"], rules["topK"], rules["topP"], rules["greedy"])

    @cached_property
    def largest_logits(self) -> LargestLogits:
        """The output head, made ready once for the tokens of all batches."""
        return prepared_head(self.model.causal, self.sampling)

    def only(self, openings: Sequence[int]) -> SteeringRun:
        """Return the run of some of its openings alone (their places), as if no other were."""
        prompted = {
            arm: replace(texts, openings=[texts.openings[place] for place in openings])
            for arm, texts in self.prompted.items()
        }
        return replace(
            self,
            payload={**self.payload, "openings": [self.payload["openings"][p] for p in openings]},
            openings=[self.openings[place] for place in openings],
            prompted=prompted,
            steered=[self.steered[place] for place in openings],
        )

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

    Raises TerminalFailure ``NothingToSteer``, ``PromptTooLong``, ``NoSuchPosition``, and what
    ``encode`` refuses.
    """
    model = context.model(payload["model"])
    arms = build_arms(payload, context, model.width(payload["hook"]))
    encoded = _encoded_openings(payload, model)
    openings = [one.tokens for one in encoded]
    neutral_texts = tokens_of(payload, model, payload["neutralText"])
    prompted = prompted_texts(payload, model, openings, neutral_texts)
    if not arms.vectors and "none" not in payload["arms"] and not prompted:
        raise TerminalFailure(
            "NothingToSteer", f"no arm can be built ({'; '.join(arms.missing.values())})"
        )
    steered = _steered(payload, encoded)
    run = SteeringRun(
        payload=payload,
        context=context,
        model=model,
        arms=arms,
        openings=openings,
        neutral_texts=neutral_texts,
        prompted=prompted,
        steered=[places for places, _ in steered],
        steers_generated=all(generated for _, generated in steered),
        declared=len(openings),
        clamped=clamped_latents(payload, context, arms),
    )
    _check_lengths(run)
    return run


def _encoded_openings(payload: SteeringPayload, model: LoadedModel) -> list[EncodedText]:
    texts = [opening["text"] for opening in payload["openings"]]
    spans = payload.get("positions", "all") not in WITHOUT_SPANS
    return encoded_texts(model, payload.get("chat"), texts, spans=spans)


def _steered(
    payload: SteeringPayload, openings: Sequence[EncodedText]
) -> list[tuple[list[int], bool]]:
    """Return what is steered of each opening, and whether what it generates is."""
    positions, found = payload.get("positions", "all"), []
    for opening, one in zip(payload["openings"], openings, strict=True):
        try:
            found.append(one.steered(positions))
        except ValueError as error:
            raise TerminalFailure(
                "NoSuchPosition",
                f"opening {opening['id']} has no position {positions!r} to be steered: {error}",
            ) from None
    return found


def tokens_of(
    payload: SteeringPayload, model: LoadedModel, texts: Sequence[str]
) -> list[list[int]]:
    """Return each text's tokens with BOS, in the chat template if there is one."""
    encoded = encoded_texts(model, payload.get("chat"), texts, spans=False)
    return [one.tokens for one in encoded]


def _check_lengths(run: SteeringRun) -> None:
    limit = run.model.context_tokens_max
    if limit is None:
        return
    arms = ["none", *run.prompted]
    for number, opening in enumerate(run.payload["openings"]):
        longest = max(len(run.tokens_before(number, arm)) for arm in arms)
        needed = longest + run.payload["maxNewTokens"]
        if needed > limit:
            raise TerminalFailure(
                "PromptTooLong",
                f"opening {opening['id']} has {len(run.openings[number])} tokens; with "
                f"maxNewTokens and the system prompt that makes {needed}, above the model's "
                f"{limit}",
            )
    versions = [run.neutral_texts, *(texts.neutral_texts for texts in run.prompted.values())]
    for number, texts in enumerate(zip(*versions, strict=True), start=1):
        needed = max(map(len, texts))
        if needed > limit:
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

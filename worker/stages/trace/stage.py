"""Stage *trace*: which tokens of a steering's texts are steered, and the stream along some texts.

Nothing is generated again. Below its hook a steered text is what the unsteered model reads, so one
pass up to the hook has the stream there, and the arm's own code what it makes of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from loopscope.numerics.latents.nearest import unit_rows
from loopscope.numerics.model.batching import pad
from loopscope.numerics.steering.reading import residuals_of
from loopscope.specs.artifacts.mapping import DIRECTIONS
from loopscope.specs.artifacts.steering import ARMS, SAMPLES
from loopscope.specs.artifacts.trace import OPENING_TOKENS, SAMPLE_TOKENS, STEPS, STREAM
from loopscope.specs.payloads.trace import TraceMetrics, TracePayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.stages.evidence.stage import has_spans, token_texts, write_rows
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun, prepare
from loopscope.worker.stages.tables import read_columns, read_document
from loopscope.worker.stages.trace.cutting import token_ends

TEXTS_PER_PASS = 64
"""Texts that share a forward pass."""


@dataclass(frozen=True)
class _Text:
    """A generated text: its opening (the index), its cell, and where its tokens end."""

    opening: int
    cell: Cell
    sample: int
    text: str
    tokens: list[int]
    ends: list[int]

    def pieces(self) -> list[str]:
        """Return what each of its tokens adds to the text."""
        return [self.text[start:end] for start, end in pairwise([0, *self.ends])]


def run(payload: TracePayload, context: StageContext, out: Path) -> TraceMetrics:
    """Write tokens and steps; return the status numbers.

    Raises TerminalFailure ``NotFinite``, and what ``prepare`` raises.
    """
    run = prepare(payload["work"], context)
    made = context.artifact("steering", payload["steered"]["digest"])
    texts = list(_texts(run, made))
    ids = [opening["id"] for opening in run.payload["openings"]]
    _write_texts(out, run, texts, ids)
    _write_openings(out, run, ids)
    followed = _followed(texts, payload["openings"])
    steps = _write_steps(out, run, followed, ids)
    return {
        "texts": len(texts),
        "tokens": sum(len(text.tokens) for text in texts),
        "followed": len(followed),
        "steps": steps,
    }


def _texts(run: SteeringRun, made: Path) -> Iterator[_Text]:
    """Return the texts of a steering in its order, cut into tokens."""
    samples, arms = read_columns(made / SAMPLES.name), read_columns(made / ARMS.name)
    cells = {
        (arm, strength): Cell(str(arm), float(strength), float(norm))
        for arm, strength, norm in zip(arms["arm"], arms["strength"], arms["norm"], strict=True)
    }
    openings = {opening["id"]: n for n, opening in enumerate(run.payload["openings"])}
    rows = zip(*(samples[column.name] for column in SAMPLES.columns), strict=True)
    count = len(samples["sample"])
    for number, (prompt_id, arm, strength, sample, text, generated) in enumerate(rows):
        run.context.progress("CuttingTexts", number, count, "texts")
        opening, tokens = openings[prompt_id], [int(token) for token in generated]
        before = run.openings[opening]
        yield _Text(
            opening,
            cells[arm, strength],
            int(sample),
            text,
            tokens,
            token_ends(run.model, before, tokens, text),
        )


def _read_while_drawing(run: SteeringRun, text: _Text) -> int:
    """Return how many of a text's tokens were read to draw the next one.

    All, where the end was drawn; not the last one where the text was as long as it may be.
    """
    return min(len(text.tokens), run.payload["maxNewTokens"] - 1)


def _steered(run: SteeringRun, text: _Text) -> int:
    acts = run.steers(text.cell) and run.steers_generated
    return _read_while_drawing(run, text) if acts else 0


def _write_texts(out: Path, run: SteeringRun, texts: Sequence[_Text], ids: Sequence[str]) -> None:
    rows = [(*_named(text, ids), text.ends, _steered(run, text)) for text in texts]
    write_rows(out, SAMPLE_TOKENS, rows)


def _named(text: _Text, ids: Sequence[str]) -> tuple[str, str, float, int]:
    return ids[text.opening], text.cell.arm, text.cell.strength, text.sample


def _openings(run: SteeringRun) -> list[list[str]]:
    """Return what each token of each opening adds to it; BOS has nothing."""
    model, spans = run.model, has_spans(run.model)
    texts = [opening["text"] for opening in run.payload["openings"]]
    encoded = encoded_texts(model, run.payload.get("chat"), texts, spans=spans)
    return [
        token_texts(one) if spans else ["", *map(model.written, one.tokens[1:])] for one in encoded
    ]


def _write_openings(out: Path, run: SteeringRun, ids: Sequence[str]) -> None:
    rows = [
        (ids[number], place, words[place], place in run.steered[number])
        for number, words in enumerate(_openings(run))
        for place in range(1, len(words))
    ]
    write_rows(out, OPENING_TOKENS, rows)


def _followed(texts: Sequence[_Text], openings: int) -> list[_Text]:
    """Return the first sample of the first openings, each arm at its weakest strength."""
    weakest: dict[str, float] = {}
    for text in texts:
        arm, strength = text.cell.arm, text.cell.strength
        weakest[arm] = min(strength, weakest.get(arm, strength))
    return [
        text
        for text in texts
        if text.opening < openings
        and text.sample == 0
        and text.cell.strength == weakest[text.cell.arm]
    ]


def _write_steps(out: Path, run: SteeringRun, texts: Sequence[_Text], ids: Sequence[str]) -> int:
    """Write the steps of some texts with the stream on each; return how many there are."""
    openings = _openings(run)
    rows: list[tuple[object, ...]] = []
    streams: list[tuple[Tensor, Tensor]] = []
    for text, stream in zip(texts, _streams(run, texts), strict=True):
        streams.append(stream)
        acts = run.steers(text.cell)
        last = len(run.openings[text.opening]) - 1
        first = acts and last in run.steered[text.opening]
        pieces = [openings[text.opening][-1], *text.pieces()]
        steered = [first, *[acts and run.steers_generated] * len(text.tokens)]
        for step in range(_read_while_drawing(run, text) + 1):
            rows.append((*_named(text, ids), step, pieces[step], steered[step]))
    write_rows(out, STEPS, rows)
    width = run.model.width(run.payload.get("readHook", run.payload["hook"]))
    none = torch.zeros(0, width)
    tensors = {
        "residual": torch.cat([none, *(before for before, _ in streams)]),
        "steered": torch.cat([none, *(after for _, after in streams)]),
        "children": _children(run),
    }
    if not all(bool(torch.isfinite(one).all()) for one in tensors.values()):
        raise TerminalFailure("NotFinite", "the stream at the hook is NaN or infinite")
    save_file({name: one.contiguous() for name, one in tensors.items()}, out / STREAM.name)
    return len(rows)


def _streams(run: SteeringRun, texts: Sequence[_Text]) -> Iterator[tuple[Tensor, Tensor]]:
    """Return for each text the stream at its steps, before and behind what its arm does there."""
    size = max(1, TEXTS_PER_PASS // run.context.batch_divisor)
    for start in range(0, len(texts), size):
        run.context.progress("ReadingTexts", start, len(texts), "texts")
        yield from _streams_of(run, texts[start : start + size])


def _streams_of(run: SteeringRun, texts: Sequence[_Text]) -> Iterator[tuple[Tensor, Tensor]]:
    cells = [text.cell for text in texts]
    before = [run.tokens_before(text.opening, text.cell.arm) for text in texts]
    counts = [_read_while_drawing(run, text) for text in texts]
    read = [
        [*opening, *text.tokens[:count]]
        for opening, text, count in zip(before, texts, counts, strict=True)
    ]
    batch = pad(read, run.model.pad_token, "right", run.context.device)
    residual = residuals_of(run.model.causal, run.read_place, batch)
    steered = residual
    if run.read_place == run.place:
        mask = run.reach([(text.opening, text.cell) for text in texts]).mask(batch)
        steered = run.intervention(cells).applied(residual, mask)
    for row, (opening, count) in enumerate(zip(before, counts, strict=True)):
        steps = slice(len(opening) - 1, len(opening) + count)
        yield residual[row, steps].cpu(), steered[row, steps].cpu()


def _children(run: SteeringRun) -> Tensor:
    """Return the unit decoder rows of the steered anchor's children, float32."""
    mapping = run.context.artifact("mapping", run.payload["mapping"]["digest"])
    children = read_document(mapping, DIRECTIONS)["children"]
    if not children:
        return torch.zeros(0, run.model.width(run.payload["hook"]))
    decoder = run.context.dictionary(run.payload["fine"]["dictionary"]).w_dec
    return unit_rows(decoder, children).float().cpu()

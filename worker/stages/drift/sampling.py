"""Samples right after each anchor at each temperature, and how far they wander from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np
import torch

from loopscope.numerics.drift.wandering import wander
from loopscope.numerics.statistics.sampling import uniforms
from loopscope.numerics.steering.reach import Reach
from loopscope.specs.lexicon import folded, lexicon_pattern
from loopscope.specs.payloads.drift import DriftAnchor, DriftRules
from loopscope.worker.stages.drift.texts import DriftTexts, Tokens
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun

ROWS_PER_SHARD = 64
"""Samples that share their passes."""
NONE = Cell("none", 0.0)


class WanderedSample(TypedDict):
    """One sample and means over its steps, as ``numerics.drift.wandering`` returns them."""

    opening: int
    anchor: str
    temperature: float
    text: str
    wander: float
    surprisal: float
    concept_mass: float
    concept: float


@dataclass(frozen=True)
class _Anchor:
    """What stands before an opening, and which of it and of what follows is steered."""

    name: str
    words: Tokens
    cell: Cell
    on_words: bool = False
    behind: bool = False


@dataclass(frozen=True)
class ByTemperature:
    """One run over all anchors and temperatures."""

    run: SteeringRun
    texts: DriftTexts
    cell: Cell
    rules: DriftRules
    concept: list[int]
    anchors: tuple[DriftAnchor, ...]

    def samples(self) -> list[WanderedSample]:
        """Return the samples of all anchors, a shard for each part of an anchor's."""
        texts = self.texts
        anchors = [
            _Anchor("none", texts.placebo, NONE),
            _Anchor("systemPrompt", texts.system_prompt, NONE),
            _Anchor("otherWords", texts.other_words, NONE),
            _Anchor("steeredPrefix", texts.placebo, self.cell, on_words=True),
            _Anchor("steering", texts.placebo, self.cell, on_words=True, behind=True),
        ]
        there = [one for one in anchors if one.name in ("none", *self.anchors)]
        parts = [(anchor, rows) for anchor in there for rows in self._rows()]
        found: list[WanderedSample] = []
        for number, (anchor, rows) in enumerate(parts):
            report = partial(self._report, number, len(parts))
            compute = partial(self._sampled, anchor, rows, report)
            found += self.run.kept(f"wander-{number:03d}.json", compute)
        return found

    def _report(self, number: int, parts: int, step: int) -> None:
        steps = self.rules["newTokens"]
        self.run.context.progress("Sampling", number * steps + step, parts * steps, "steps")

    def _rows(self) -> Iterator[Sequence[tuple[int, float]]]:
        openings = range(len(self.texts.openings))
        rows = [(opening, heat) for opening in openings for heat in self.rules["temperatures"]]
        for start in range(0, len(rows), ROWS_PER_SHARD):
            yield rows[start : start + ROWS_PER_SHARD]

    def _sampled(
        self, anchor: _Anchor, rows: Sequence[tuple[int, float]], report: partial[None]
    ) -> list[WanderedSample]:
        run, ids = self.run, [opening["id"] for opening in self.run.payload["openings"]]
        tokens = [
            [self.texts.bos, *anchor.words, *self.texts.openings[opening]] for opening, _ in rows
        ]
        seed, steps = self.rules["seed"], self.rules["newTokens"]
        draws = np.stack([uniforms(seed, ids[opening], 0, steps) for opening, _ in rows])
        found = wander(
            run.model.causal,
            run.place,
            tokens,
            run.intervention([anchor.cell] * len(rows)),
            _reach(anchor, tokens),
            [heat for _, heat in rows],
            torch.from_numpy(draws).to(run.context.device),
            self.concept,
            eos_tokens=run.model.eos_tokens,
            pad_token=run.model.pad_token,
            on_step=report,
        )
        words = lexicon_pattern(run.payload["lexicon"])
        texts = [
            run.model.continuation(before, drawn)
            for before, drawn in zip(tokens, found.tokens, strict=True)
        ]
        return [
            {
                "opening": opening,
                "anchor": anchor.name,
                "temperature": heat,
                "text": texts[row],
                "wander": found.wander[row],
                "surprisal": found.surprisal[row],
                "concept_mass": found.concept[row],
                "concept": float(bool(words.search(folded(texts[row])))),
            }
            for row, (opening, heat) in enumerate(rows)
        ]


def _reach(anchor: _Anchor, texts: Sequence[Sequence[int]]) -> Reach:
    places = [
        range(1, len(text)) if anchor.behind else range(1, 1 + len(anchor.words) * anchor.on_words)
        for text in texts
    ]
    return Reach(tuple(map(len, texts)), tuple(map(tuple, places)), (anchor.behind,) * len(texts))

"""Anchors over ever longer filler: what each does to the next token after each opening."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor

from loopscope.numerics.drift.next_token import beside
from loopscope.numerics.drift.reading import Beginning, Piece, Reader, read_over_filler
from loopscope.specs.payloads.drift import DriftAnchor
from loopscope.worker.stages.drift.texts import DriftTexts, Tokens
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun

NONE = Cell("none", 0.0)
_AGAIN: tuple[DriftAnchor, ...] = ("systemPrompt", "steeredPrefix")
"""The anchors that are repeated behind the longest filler."""


class Point(TypedDict):
    """What one anchor does after one opening behind one filler."""

    opening: int
    filler: int
    anchor: str
    distance: int
    again: bool
    kl: float
    concept: float
    concept_unanchored: float


@dataclass
class _States:
    """Final states after an opening: ``first`` without an anchor, then with each of ``others``."""

    first: Tensor | None = None
    others: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class OverDistances:
    """One run over all distances: what anchors, and after which tokens it is looked for."""

    run: SteeringRun
    texts: DriftTexts
    cell: Cell
    distances: tuple[int, ...]
    concept: list[int]
    anchors: tuple[DriftAnchor, ...]

    def points(self) -> list[Point]:
        """Return what each anchor does, a shard for each filler."""
        found: list[Point] = []
        for filler in range(len(self.texts.fillers)):
            found += self.run.kept(f"filler-{filler:03d}.json", partial(self._points_of, filler))
        return found

    def _points_of(self, filler: int) -> list[Point]:
        """Read one filler behind each beginning, and look after each opening that has it."""
        openings = [n for n, own in enumerate(self.texts.filler_of) if own == filler]
        plain = {(d, o): _States() for d in range(len(self.distances)) for o in openings}
        again = {o: _States() for o in openings}
        fillers = [self.texts.filler(filler, distance) for distance in self.distances]
        beginnings = self._beginnings()
        for turn, (names, beginning) in enumerate(beginnings):
            done = filler * len(beginnings) + turn
            total = len(self.texts.fillers) * len(beginnings)
            self.run.context.progress("ReadingFillers", done, total, "passes")

            def visit(
                number: int,
                reader: Reader,
                names: tuple[str, ...] = names,
                beginning: Beginning = beginning,
            ) -> None:
                for opening in openings:
                    self._end(reader, beginning, number, opening, names, plain[number, opening])
                    if names[0] == "none" and number + 1 == len(self.distances):
                        self._end_again(reader, opening, again[opening])

            read_over_filler(self.run.model.causal, self.run.place, beginning, fillers, visit)
        points = [
            point
            for (number, opening), states in plain.items()
            for point in self._compared(states, opening, self.distances[number], again=False)
        ]
        return points + [
            point
            for opening, states in again.items()
            for point in self._compared(states, opening, self.distances[-1], again=True)
        ]

    def _beginnings(self) -> list[tuple[tuple[str, ...], Beginning]]:
        """Return what stands in front; the rows of the placebo differ in what is steered alone.

        The last of them steers nothing but a placebo that is repeated behind the filler.
        """
        texts, run = self.texts, self.run
        steering = run.intervention([NONE, self.cell, self.cell, self.cell])
        nothing = run.intervention([NONE])
        placebo = Beginning(
            (texts.bos, *texts.placebo),
            steering,
            (False, True, True, False),
            (False, False, True, False),
        )
        words = {"systemPrompt": texts.system_prompt, "otherWords": texts.other_words}
        return [
            (("none", "steeredPrefix", "steering", "again"), placebo),
            *(
                ((name,), Beginning((texts.bos, *tokens), nothing, (False,), (False,)))
                for name, tokens in words.items()
                if name in self.anchors
            ),
        ]

    def _end(
        self,
        reader: Reader,
        beginning: Beginning,
        number: int,
        opening: int,
        names: tuple[str, ...],
        states: _States,
    ) -> None:
        tokens = (*self.texts.ending(self.distances[number]), *self.texts.openings[opening])
        found = reader.ended([Piece(tokens, beginning.filler_steered)])
        for name, row in zip(names, found, strict=True):
            if name == "none":
                states.first = row
            elif name in self.anchors:
                states.others[name] = row

    def _end_again(self, reader: Reader, opening: int, states: _States) -> None:
        """Repeat words behind the filler: the placebo as it was and steered, the system prompt."""
        nowhere = (False,) * 4
        before = Piece(self.texts.ending(self.distances[-1]), nowhere)
        after = Piece(self.texts.openings[opening], nowhere)

        def behind(words: Tokens, steered: tuple[bool, ...]) -> Tensor:
            pieces = [before, Piece(words, steered), after]
            return reader.ended([piece for piece in pieces if piece.tokens])

        placebo = behind(self.texts.placebo, (False, False, False, True))
        states.first = placebo[0]
        states.others["systemPrompt"] = behind(self.texts.system_prompt, nowhere)[0]
        states.others["steeredPrefix"] = placebo[3]

    def _compared(
        self, states: _States, opening: int, distance: int, *, again: bool
    ) -> list[Point]:
        wanted = _AGAIN if again else self.anchors
        names = [name for name in self.anchors if name in wanted]
        assert states.first is not None  # each beginning was read
        rows = torch.stack([states.first, *(states.others[name] for name in names)])
        kl, mass = (
            found.tolist() for found in beside(self.run.model.causal.head, rows, self.concept)
        )
        return [
            {
                "opening": opening,
                "filler": self.texts.filler_of[opening],
                "anchor": name,
                "distance": distance,
                "again": again,
                "kl": kl[row],
                "concept": mass[row],
                "concept_unanchored": mass[0],
            }
            for row, name in enumerate(names, start=1)
        ]

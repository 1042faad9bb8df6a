"""Fixed text and questions under the cells of a steering: which tokens and options are hit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.steering.answering import (
    next_token_hits,
    preferred,
    text_log_probability,
)
from loopscope.numerics.steering.fixed_text import FixedText, hashed_positions, read_text
from loopscope.numerics.steering.intervention import Intervention
from loopscope.specs.choices import Choice
from loopscope.worker.encoding import encoded_texts
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun, not_finite

Floats = NDArray[np.float64]
Found = TypeVar("Found")
"""JSON, as ``SteeringRun.kept`` holds it."""
CELLS_PER_PASS_MAX = 64
PER_SHARD = 8
"""Texts, or items, between two places at which the stage can go on."""


@dataclass(frozen=True)
class Trial:
    """A run of the stage: the cells that act on fixed text, and where they are tried."""

    run: SteeringRun
    cells: Sequence[Cell]

    def next_tokens(self, texts: Sequence[str]) -> Floats:
        """Return the share of positions whose next token is hit, [cells, texts].

        A text of less than two tokens has none and is left out.
        """
        tokens = self._tokens(texts)
        long = [place for place, own in enumerate(tokens) if len(own) > 2]
        columns = self._kept("next-token", "ReadingText", long, lambda place: self._hit_share(
            texts[place], tokens[place]
        ))  # fmt: skip
        return np.array(columns).reshape(len(long), len(self.cells)).T

    def _hit_share(self, text: str, tokens: Sequence[int]) -> list[float]:
        positions = hashed_positions(text, 1, len(tokens) - 2)
        read = self._read(tokens, positions)
        found: list[float] = []
        for intervention in self._interventions():
            hits = self._tried(lambda own: next_token_hits(self.run.model.causal, read, own),
                               intervention)  # fmt: skip
            found += hits.double().mean(dim=1).tolist()
        return found

    def answers(self, items: Sequence[Choice]) -> list[list[list[float]]]:
        """Return the log-probability of each option of each item under each cell."""
        return self._kept(
            "choices", "AskingQuestions", range(len(items)), lambda place: self._asked(items[place])
        )

    def _asked(self, item: Choice) -> list[list[float]]:
        """Return the options' log-probabilities, [options][cells]."""
        prompt, *whole = self._tokens(
            [item["prompt"], *(item["prompt"] + option for option in item["options"])]
        )
        return [self._log_probability(prompt, own) for own in whole]

    def _log_probability(self, prompt: Sequence[int], whole: Sequence[int]) -> list[float]:
        shared = next(
            (place for place, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b),
            min(len(prompt), len(whole) - 1),
        )
        read = self._read(whole, range(max(1, shared) - 1, len(whole) - 1))
        found: list[float] = []
        for intervention in self._interventions():
            found += self._tried(
                lambda own: text_log_probability(self.run.model.causal, read, own), intervention
            ).tolist()
        return found

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return plain texts as tokens with BOS: ordinary text is no chat."""
        return [one.tokens for one in encoded_texts(self.run.model, None, texts, spans=False)]

    def _read(self, tokens: Sequence[int], positions: Sequence[int]) -> FixedText:
        model, place = self.run.model.causal, self.run.place
        return read_text(model, place, tokens, tuple(positions), self.run.context.device)

    def _interventions(self) -> Iterator[tuple[Intervention, Sequence[Cell]]]:
        size = max(1, CELLS_PER_PASS_MAX // self.run.context.batch_divisor)
        for start in range(0, len(self.cells), size):
            part = self.cells[start : start + size]
            yield self.run.intervention(part), part

    @staticmethod
    def _tried(
        measure: Callable[[Intervention], Tensor], part: tuple[Intervention, Sequence[Cell]]
    ) -> Tensor:
        intervention, cells = part
        try:
            return measure(intervention)
        except NotFinite as error:
            raise not_finite(error, [Cell("none", 0.0), *cells]) from error

    def _kept(
        self, name: str, phase: str, places: Sequence[int], measure: Callable[[int], Found]
    ) -> list[Found]:
        """Return what is measured of each place, sealing every few."""
        found: list[Found] = []
        for start in range(0, len(places), PER_SHARD):

            def compute(start: int = start) -> list[Found]:
                made: list[Found] = []
                for number, place in enumerate(places[start : start + PER_SHARD]):
                    self.run.context.progress(phase, start + number, len(places), "texts")
                    made.append(measure(place))
                return made

            found += self.run.kept(f"{name}-{start // PER_SHARD:03d}.json", compute)
        return found


def chosen(options: Sequence[Sequence[float]], cell: int) -> int:
    """Return the option that a cell finds likeliest."""
    return preferred([option[cell] for option in options])


def margin(options: Sequence[Sequence[float]], cell: int, right: int) -> float:
    """Return by how many nats the right option is likelier than the best other one."""
    others = [option[cell] for place, option in enumerate(options) if place != right]
    return options[right][cell] - max(others)

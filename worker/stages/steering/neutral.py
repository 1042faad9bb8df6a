"""Effects of each cell on the neutral texts: budget, divergence, and what else it moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import block_shape, encode
from loopscope.numerics.model.capture import NotFinite
from loopscope.numerics.steering.fixed_text import (
    FixedText,
    carried_on,
    hashed_order,
    hashed_positions,
    read_text,
)
from loopscope.numerics.steering.outcomes import changed_activation
from loopscope.numerics.steering.reading import residual_of
from loopscope.numerics.steering.scores import (
    read_prefixed,
    text_kl,
    text_kl_of_prefixes,
    text_loss_rise,
)
from loopscope.specs.payloads.references import Preflights
from loopscope.specs.payloads.steering import SIDES, Side
from loopscope.state.failures import TerminalFailure
from loopscope.worker.preflights import Preflight, require
from loopscope.worker.stages.steering.cells import Cell
from loopscope.worker.stages.steering.run import SteeringRun, not_finite

Floats = NDArray[np.float64]

CELLS_PER_PASS_MAX = 64
"""Cells whose effect is computed in one pass over a text."""
TEXTS_PER_SHARD = 4
BUDGETS = {"nextTokenKl": text_kl, "fluencyLoss": text_loss_rise}
"""What is made equal between arms, by the unit of the strengths: nats per token of a text."""
CARRIED_ON_MAX = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest accepted difference between a whole pass and one that begins at the hook, relative to the
largest final state."""


@dataclass(frozen=True)
class NeutralScores:
    """What all cells do to all neutral texts.

    ``kl`` [cells, texts] is the mean KL(clean ‖ cell) over a text's positions, in nats.
    ``collateral`` maps a dictionary to each cell's change of the latents that are not targets, as a
    share of what was there (``changed_activation``), NaN where nothing was.
    """

    kl: Floats
    collateral: dict[Side, Floats]


class CollateralOfTexts(TypedDict):
    """Of each cell the change of a dictionary's latents on some texts, and what was there."""

    changed: dict[Side, list[float]]
    before: dict[Side, float]


class EffectsOfTexts(CollateralOfTexts):
    """The same with the KL [cells that were measured, texts] in nats."""

    kl: list[list[float]]


@dataclass(frozen=True)
class NeutralTexts:
    """The neutral texts of a run, in the order of their hashes, each read when it is first needed.

    A pass over some of them is kept as one shard for each four texts.
    """

    run: SteeringRun
    _read: dict[int, FixedText] = field(default_factory=dict)

    @cached_property
    def order(self) -> list[int]:
        """The numbers of the texts in the spec, by their hash."""
        return hashed_order(self.run.payload["neutralText"])

    def __len__(self) -> int:
        return len(self.run.payload["neutralText"])

    def text(self, place: int) -> FixedText:
        """Return a text by its place in ``order``, read by the unsteered model once."""
        if place not in self._read:
            self._read[place] = self._read_now(place)
        return self._read[place]

    def _read_now(self, place: int) -> FixedText:
        number = self.order[place]
        text = self.run.payload["neutralText"][number]
        tokens = self.run.neutral_texts[number]
        predicts_none = self.run.payload["strengthUnit"] == "fluencyLoss"  # the last token
        last = len(tokens) - 1 - predicts_none
        if last < 1:
            raise TerminalFailure(
                "EmptyText",
                f"text {number + 1} of neutralText has {len(tokens) - 1} token, and fluencyLoss "
                "needs two; make it longer or take it out",
            )
        first = self.run.shared_from(number)
        if first > last:
            raise TerminalFailure(
                "EmptyText",
                f"text {number + 1} of neutralText has no token that stands alike with and without "
                "systemPrompt; make it longer or take it out",
            )
        positions = hashed_positions(text, first, last)
        model, place_of_hook = self.run.model.causal, self.run.place
        return read_text(model, place_of_hook, tokens, positions, self.run.context.device)

    def check_carried_on(self) -> Preflights:
        """Compare a pass that begins at the hook with a whole one, on the first text.

        Raises TerminalFailure ``PreflightFailed``.
        """
        error, allowed = self.run.kept("carried-on.json", self._carried_on_error)
        return require(
            [
                Preflight(
                    "difference of a pass that begins at the hook",
                    error,
                    0.0,
                    allowed,
                    "report it: this model cannot be carried on from its hook",
                )
            ]
        )

    def _carried_on_error(self) -> list[float]:
        text = self.text(0)
        nothing = self.run.intervention([Cell("none", 0.0)])
        again = carried_on(self.run.model.causal, text, nothing)[0]
        error = (again - text.states).abs().max() / text.states.abs().max()
        return [float(error), CARRIED_ON_MAX[text.states.dtype]]

    def effects(
        self,
        cells: Sequence[Cell],
        places: Sequence[int],
        name: str,
        unit: str,
        report: Callable[[int], None],
    ) -> Floats:
        """Return each cell's mean effect over the positions of some texts, [cells, texts], nats.

        ``unit`` is one of ``BUDGETS``, ``report(texts done)`` is called before each shard.
        """
        columns: list[list[float]] = []
        for start in range(0, len(places), TEXTS_PER_SHARD):
            report(start)
            part = places[start : start + TEXTS_PER_SHARD]
            compute = partial(self._effects, cells, part, unit)
            columns += self.run.kept(f"{name}-{start // TEXTS_PER_SHARD:03d}.json", compute)
        return np.array(columns, dtype=np.float64).reshape(len(places), len(cells)).T

    def _effects(
        self, cells: Sequence[Cell], places: Sequence[int], unit: str
    ) -> list[list[float]]:
        """Return each text's mean effect of each cell, all texts in one pass over the head."""
        texts = [self.text(place) for place in places]
        means: list[list[float]] = [[] for _ in texts]
        at_once = CELLS_PER_PASS_MAX // self.run.context.batch_divisor
        for start in range(0, len(cells), at_once):
            part = cells[start : start + at_once]
            try:
                nats = BUDGETS[unit](self.run.model.causal, texts, self.run.intervention(part))
            except NotFinite as error:
                raise not_finite(error, [Cell("none", 0.0), *part]) from error
            for of_text, found in zip(means, nats, strict=True):
                of_text.extend(found.mean(dim=1).tolist())
        return means

    def scores(
        self, cells: Sequence[Cell], known_kl: Floats, report: Callable[[int], None]
    ) -> NeutralScores:
        """Return what every cell does to all texts.

        ``known_kl`` [cells, texts] is what was measured when budgets were solved; rows of NaN are
        measured now.
        """
        kl = known_kl.copy()
        changed = {side: np.zeros(len(cells)) for side in SIDES}
        before = dict.fromkeys(SIDES, 0.0)
        wanted = [index for index in range(len(cells)) if np.isnan(kl[index]).any()]
        for start in range(0, len(self), TEXTS_PER_SHARD):
            report(start)
            places = range(start, min(len(self), start + TEXTS_PER_SHARD))
            compute = partial(self._scores, cells, wanted, places)
            found = self.run.kept(f"neutral-{start // TEXTS_PER_SHARD:03d}.json", compute)
            measured = np.array(found["kl"], dtype=np.float64)
            kl[np.ix_(wanted, places)] = measured.reshape(len(wanted), len(places))
            for side in SIDES:
                changed[side] += found["changed"][side]
                before[side] += found["before"][side]
        return NeutralScores(
            kl,
            {
                side: changed[side] / before[side] if before[side] else np.full(len(cells), np.nan)
                for side in SIDES
            },
        )

    def _scores(
        self, cells: Sequence[Cell], wanted: Sequence[int], places: Sequence[int]
    ) -> EffectsOfTexts:
        prefixed = {
            (arm, place): read_prefixed(
                self.run.model.causal, self.text(place), texts.neutral_texts[self.order[place]]
            )
            for arm, texts in self.run.prompted.items()
            for place in places
        }
        kl = np.zeros((len(wanted), len(places)))
        prompts = [arm for arm in self.run.prompted if any(cells[i].arm == arm for i in wanted)]
        if prompts:
            nats = text_kl_of_prefixes(
                self.run.model.causal,
                [self.text(place) for place in places],
                [[prefixed[arm, place] for arm in prompts] for place in places],
            )
            means = np.stack([of_text.mean(dim=1).cpu().numpy() for of_text in nats], axis=1)
            by_prompt = dict(zip(prompts, means, strict=True))
            for row, index in enumerate(wanted):
                if cells[index].arm in by_prompt:
                    kl[row] = by_prompt[cells[index].arm]
        moved = [row for row, index in enumerate(wanted) if self.run.steers(cells[index])]
        if moved:
            steered = [cells[wanted[row]] for row in moved]
            kl[moved] = np.array(self._effects(steered, places, "nextTokenKl")).T
        return {"kl": kl.tolist(), **self._collateral(cells, places, prefixed)}

    def _read_by_latents(self, text: FixedText) -> Tensor:
        """Return the rows that latents read where effects on a text are measured."""
        run = self.run
        if run.read_place == run.place:
            return text.measured
        tokens = text.tokens[: max(text.positions) + 1]
        rows = residual_of(run.model.causal, run.read_place, tokens, run.context.device)
        return rows[list(text.positions)]

    def _collateral(
        self,
        cells: Sequence[Cell],
        places: Sequence[int],
        prefixed: dict[tuple[str, int], FixedText],
    ) -> CollateralOfTexts:
        """Return Σ |a − b| of each cell and Σ b over some texts' positions, for each dictionary."""
        rows = torch.cat([self._read_by_latents(self.text(place)) for place in places])
        steered = [cell for cell in cells if cell.arm not in self.run.prompted]
        everywhere = torch.ones(len(steered), len(rows), dtype=torch.bool, device=rows.device)
        if self.run.read_place == self.run.place:
            moved = iter(self.run.intervention(steered).applied(rows[None], everywhere))
        else:  # what is written above moves nothing that is read below
            moved = iter(rows.expand(len(steered), *rows.shape))
        states: list[Tensor] = [
            torch.cat([self._read_by_latents(prefixed[cell.arm, place]) for place in places])
            if cell.arm in self.run.prompted
            else next(moved)
            for cell in cells
        ]
        changed: dict[Side, list[float]] = {}
        before: dict[Side, float] = {}
        for side in SIDES:
            reference = self.run.payload[side]["dictionary"]
            dictionary = self.run.context.dictionary(reference).to(self.run.context.device)
            everything = torch.cat([rows, *states]).float()
            activations = encode(
                dictionary, everything, *block_shape(len(everything), dictionary.d_sae)
            )
            clean, *moved_rows = (
                activations[start : start + len(rows)]
                for start in range(0, len(everything), len(rows))
            )
            targets = self.run.arms.targets[side]
            found = [changed_activation(part, clean, targets) for part in moved_rows]
            changed[side] = [change for change, _ in found]
            before[side] = found[0][1]
        return {"changed": changed, "before": before}

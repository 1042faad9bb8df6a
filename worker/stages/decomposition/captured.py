"""The rows of a capture, as a decomposition's dictionary takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from loopscope.numerics.dictionaries.sparse import SparseDictionary
from loopscope.numerics.steering.reading import residual_of
from loopscope.specs.artifacts.capture import CALIBRATION, CAPTURED_PROMPTS, REFERENCE, RESIDUAL
from loopscope.specs.payloads.capture import CapturePayload
from loopscope.specs.payloads.decomposition import DecompositionPayload
from loopscope.state.failures import TerminalFailure
from loopscope.worker.context import StageContext
from loopscope.worker.stages.capture.in_context import Beginnings, rows_read
from loopscope.worker.stages.capture.stage import (
    calibration_pieces,
    captured_shards,
    encoded_prompts,
    in_prompt_order,
    kept_rows,
    read_places,
)
from loopscope.worker.stages.capture.written import written_rows
from loopscope.worker.stages.tables import read_columns

SHARDS = "in-context-"


@dataclass(frozen=True)
class CapturedRows:
    """The rows of a capture: residual f32 [rows, d_in], their prompt and position.

    ``written`` f32 [rows, d_out] is what stands where the dictionary writes: the same, but for a
    transcoder. ``text`` and ``text_written`` are those of the calibration text.

    ``prompts`` are the columns of the capture's table of them.
    """

    residual: Tensor
    written: Tensor
    text: Tensor
    text_written: Tensor
    prompt_index: NDArray[np.int32]
    position: NDArray[np.int32]
    prompts: dict[str, NDArray[Any]]

    @staticmethod
    def read(folder: Path) -> CapturedRows:
        """Read a capture. Raises TerminalFailure ``NotFinite``."""
        tensors = load_file(folder / RESIDUAL.name)
        residual = tensors["residual"]
        text = load_file(folder / CALIBRATION.name)["residual"]
        written = written_rows(folder, "residual", residual)
        if not all(bool(torch.isfinite(one).all()) for one in (residual, written)):
            raise TerminalFailure(
                "NotFinite",
                "the captured residual holds NaN or infinite numbers; capture again in float32",
            )
        return CapturedRows(
            residual=residual,
            written=written,
            text=text,
            text_written=written_rows(folder, "calibration", text),
            prompt_index=tensors["prompt_index"].numpy(),
            position=tensors["position"].numpy(),
            prompts=read_columns(folder / CAPTURED_PROMPTS.name),
        )

    @property
    def population(self) -> str:
        """Name the rows, for example ``400 last tokens`` or ``5,812 tokens``."""
        rows = len(self.prompt_index)
        if rows != len(self.prompts["prompt_id"]):
            return f"{rows:,} tokens"
        are_last = np.array_equal(self.position, self.prompts["n_tokens"][self.prompt_index])
        return f"{rows:,} last tokens" if are_last else f"{rows:,} tokens, one of each prompt"


@dataclass(frozen=True)
class RowsRead:
    """A capture's rows as a dictionary takes them, and those of its calibration text.

    ``compared`` are rows of a few prompts, and the same as plain Hugging Face has them.
    """

    captured: Tensor
    text: Tensor
    compared: tuple[Tensor, Tensor]

    @staticmethod
    def of(
        dictionary: SparseDictionary,
        payload: DecompositionPayload,
        capture: Path,
        rows: CapturedRows,
        context: StageContext,
    ) -> RowsRead:
        """Return the rows as they are, or in their texts, for which the prompts are run again."""
        reference = load_file(capture / REFERENCE.name)
        numbers = reference["prompt_index"].numpy()
        chosen = torch.from_numpy(np.isin(rows.prompt_index, numbers))
        if not dictionary.reads_context:
            compared = (rows.residual[chosen], reference["residual"])
            return RowsRead(rows.residual, rows.text, compared)
        again = _Again.of(dictionary, payload["captured"], context)
        captured = torch.cat(again.prompts())
        expected = again.expected(sorted(set(numbers.tolist())))
        return RowsRead(captured, again.text(rows.text), (captured[chosen], torch.cat(expected)))


@dataclass(frozen=True)
class _Again:
    """The texts of a capture, read once more from their beginnings on."""

    dictionary: SparseDictionary
    captured: CapturePayload
    beginnings: Beginnings
    context: StageContext
    tokens: list[list[int]]
    places: list[list[int]]

    @staticmethod
    def of(
        dictionary: SparseDictionary,
        captured: CapturePayload,
        context: StageContext,
    ) -> _Again:
        model = context.model(captured["model"])
        encoded = encoded_prompts(model, captured)
        return _Again(
            dictionary,
            captured,
            Beginnings(model, captured["hook"]),
            context,
            [one.tokens for one in encoded],
            read_places(captured, encoded),
        )

    def prompts(self) -> list[Tensor]:
        """Return the kept rows of each prompt."""
        model, hook = self.beginnings.model, self.beginnings.hook
        ids = [prompt["id"] for prompt in self.captured["prompts"]]
        shards = captured_shards(model, hook, self.tokens, ids, self.context, prefix=SHARDS)
        found = self._read(in_prompt_order(shards, len(ids)), self.tokens)
        return [kept_rows(row, kept) for row, kept in zip(found, self.places, strict=True)]

    def expected(self, numbers: Sequence[int]) -> list[Tensor]:
        """Return the kept rows of some prompts, as plain Hugging Face has their texts."""
        model = self.beginnings.model
        place = model.place(self.beginnings.hook)
        texts = [
            residual_of(model.causal, place, self.tokens[number], model.device)[1:]
            for number in numbers
        ]
        found = self._read(texts, [self.tokens[number] for number in numbers])
        return [
            kept_rows(row, self.places[number]) for row, number in zip(found, numbers, strict=True)
        ]

    def text(self, rows: Tensor) -> Tensor:
        """Return the rows of the calibration text, piece by piece as it was captured."""
        pieces = [tokens for _, tokens in calibration_pieces(self.beginnings.model, self.captured)]
        texts = torch.split(rows, [len(tokens) - 1 for tokens in pieces])
        return torch.cat(self._read(texts, pieces))

    def _read(self, texts: Sequence[Tensor], tokens: Sequence[Sequence[int]]) -> list[Tensor]:
        first = [one[0] for one in tokens]
        found = rows_read(self.dictionary, texts, first, self.beginnings, self.context)
        return [rows.cpu() for rows in found]

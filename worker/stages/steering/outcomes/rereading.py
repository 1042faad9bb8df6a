"""Outcomes of generated texts that the unsteered model reads again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loopscope.numerics.model.hooks import HookPlace
from loopscope.numerics.steering.generation import Generated
from loopscope.numerics.steering.intervention import LatentReader
from loopscope.numerics.steering.outcomes import LinearProbe, distinct_share
from loopscope.numerics.steering.reading import (
    Continuation,
    Reading,
    TextsRead,
    read_kept,
    read_whole,
    reading_of,
    text_means,
)
from loopscope.worker.stages.steering.cells import Cell, GeneratedText, Row, TextOutcomes
from loopscope.worker.stages.steering.outcomes.probing import FittedProbe
from loopscope.worker.stages.steering.run import SteeringRun

Outcomes = dict[str, dict[Row, float]]
UNREAD = TextOutcomes(log_perplexity=None, probe=None, target_latent=None)
"""What is known of a text that was not read again."""


def outcomes_of(generated: dict[Row, GeneratedText]) -> Outcomes:
    """Return each outcome of each row, NaN where unknown; ``distinct_2`` beside those read."""
    found: Outcomes = {
        name: {row: _number(text["outcomes"][name]) for row, text in generated.items()}
        for name in ("log_perplexity", "probe", "target_latent")
    }
    found["distinct_2"] = {row: distinct_share(text["tokens"]) for row, text in generated.items()}
    return found


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def read_places(run: SteeringRun, probe: FittedProbe) -> list[HookPlace]:
    """Return where texts are read: for the steered anchor and for the probe."""
    return [*{run.read_place: None, run.model.place(probe["hook"]): None}]


def read_again(
    run: SteeringRun,
    cells: list[Cell],
    rows: Sequence[Row],
    found: Generated,
    probe: FittedProbe,
) -> list[TextOutcomes]:
    """Return what the unsteered model makes of each row; equal texts of an opening are read once.

    A text that followed its opening alone is read from what decoding kept, one that followed a
    prompt as a whole, without it.
    """
    texts = [
        Continuation(row.opening, tuple(tokens))
        for row, tokens in zip(rows, found.tokens, strict=True)
    ]
    decoded: dict[Continuation, int] = {}
    whole: list[Continuation] = []
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if text.tokens and cells[row.cell].arm not in run.prompted:
            decoded.setdefault(text, number)
    whole = [text for text in dict.fromkeys(texts) if text.tokens and text not in decoded]
    places = read_places(run, probe)
    read: list[TextsRead] = []
    model, pad_token = run.model.causal, run.model.pad_token
    if decoded and found.kept is not None:
        read.append(read_kept(model, found.kept, [*decoded.values()], [*decoded], places))
    if whole:
        read.append(read_whole(model, run.openings, whole, places, pad_token, run.context.device))
    made = _outcomes(run, probe, reading_of(model, read, places))
    of_text = dict(zip([*decoded, *whole], made, strict=True))
    return [of_text.get(text, UNREAD) for text in texts]


def _outcomes(run: SteeringRun, probe: FittedProbe, reading: Reading) -> list[TextOutcomes]:
    if not reading.lengths:
        return []
    fitted = LinearProbe(np.array(probe["weight"]), probe["bias"])
    means = text_means(reading.states[run.model.place(probe["hook"])], reading.lengths)
    scores = fitted.score(means.cpu().numpy())
    target = _target_activations(run, reading)
    return [
        {
            "log_perplexity": float(nll),
            "probe": float(scores[number]),
            "target_latent": None if target is None else float(target[number]),
        }
        for number, nll in enumerate(reading.nll)
    ]


def _target_activations(run: SteeringRun, reading: Reading) -> NDArray[np.float64] | None:
    """Return the steered anchor's mean activation over each text, None without an anchor."""
    anchors = run.arms.targets["coarse"]
    if not anchors:
        return None
    dictionary = run.context.dictionary(run.payload["coarse"]["dictionary"])
    reader = LatentReader.of(dictionary, anchors[:1]).to(run.context.device)
    states = reading.states[run.read_place]
    tokens = reader.activations(states)[:, 0].double().cpu().numpy()
    starts = np.cumsum([0, *reading.lengths[:-1]])
    sums = np.add.reduceat(tokens, starts) if reading.lengths else np.zeros(0)
    return np.asarray(sums / np.array(reading.lengths), dtype=np.float64)

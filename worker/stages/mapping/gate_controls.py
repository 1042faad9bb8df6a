"""The controls of one gate: fine dictionaries that are independent of the concept."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from loopscope.numerics.gate.controls import (
    CONTROL_DRAWS,
    Control,
    ControlKind,
    drawn_row_counts,
    permuted_pair_counts,
)
from loopscope.numerics.gate.row_law import RowLaw
from loopscope.numerics.latents.mapping import Indices
from loopscope.specs.artifacts.capture import CALIBRATION
from loopscope.specs.artifacts.gate import DecidingControl, GateControl
from loopscope.worker.context import StageContext
from loopscope.worker.stages.capture.written import written_rows
from loopscope.worker.stages.mapping.anchors import Anchor
from loopscope.worker.stages.mapping.pair import Pair
from loopscope.worker.stages.mapping.sides import Rules, Side


def gate_controls(
    coarse: Side,
    anchors: list[Anchor],
    cosines: NDArray[np.float32],
    pair: Pair,
    capture: Path,
    rules: Rules,
    context: StageContext,
) -> list[Control]:
    """Return the controls that the rule must beat, and beside them those that are reported.

    Rows that spread as the fine decoder's decide; rows that spread as the stream does on the
    calibration text, where some was captured, are reported. Permuted pairs leave every cosine as
    it is: they decide under the strict rule, and are reported of the reading *match* under the
    cosine rule. ``cosines`` is [anchors, fine].
    """
    if not anchors:
        return gate_without_anchors()
    strict = rules.rule == "strict"
    rows = coarse.decoder[torch.tensor([anchor.coarse for anchor in anchors], dtype=torch.long)]
    aligned = cosines >= rules.child.cosine_min
    behaves = np.stack([anchor.behaves for anchor in anchors])
    correlated = np.stack([anchor.correlated for anchor in anchors])
    most = _largest((aligned & behaves).sum(axis=1))
    laws: dict[ControlKind, RowLaw] = {"decoder rows": pair.law}
    if (capture / CALIBRATION.name).exists():
        read = load_file(capture / CALIBRATION.name)["residual"]
        stream = written_rows(capture, "calibration", read).to(coarse.decoder)
        key = hashlib.sha256(stream.contiguous().cpu().numpy().data).hexdigest()
        laws["stream rows"] = _stream_law(_Stream(key, stream))
    drawn = [
        Control(
            kind,
            most,
            drawn_row_counts(
                rows,
                behaves,
                law,
                rules.child.cosine_min,
                (kind, rules.seed),
                on_draw=lambda n: context.progress("Controlling", n, CONTROL_DRAWS, "dictionaries"),
            ),
            decides=kind == "decoder rows",
            effective_dimensions=law.effective_dimensions,
        )
        for kind, law in laws.items()
    ]
    context.progress("Controlling", CONTROL_DRAWS, CONTROL_DRAWS, "dictionaries")
    dealt = behaves if strict else correlated
    return [*drawn, _permuted(aligned, dealt, rules.seed, decides=strict)]


def deciding_controls(
    rows: torch.Tensor,
    aligned: NDArray[np.bool_],
    behaves: NDArray[np.bool_],
    law: RowLaw,
    cosine_min: float,
    rules: Rules,
) -> list[Control]:
    """Return the controls that decide for some anchors at some setting, as ``gate_controls`` does.

    ``rows`` [anchors, d_in] are their decoder rows; ``aligned`` and ``behaves`` [anchors, fine].
    """
    if not len(rows):
        return gate_without_anchors()
    key = ("decoder rows", rules.seed)
    counts = drawn_row_counts(rows, behaves, law, cosine_min, key)
    most = _largest((aligned & behaves).sum(axis=1))
    found = [Control("decoder rows", most, counts, decides=True)]
    if rules.rule == "strict":
        found.append(_permuted(aligned, behaves, rules.seed, decides=True))
    return found


def gate_without_anchors() -> list[Control]:
    """Return the control of no anchor: nothing was beaten."""
    return [Control("decoder rows", 0, np.zeros(CONTROL_DRAWS, dtype=np.int64), decides=True)]


def _permuted(
    aligned: NDArray[np.bool_], dealt: NDArray[np.bool_], seed: int, *, decides: bool
) -> Control:
    best = permuted_pair_counts(aligned, dealt, (seed,)).max(axis=1, initial=0)
    return Control("permuted pairs", _largest((aligned & dealt).sum(axis=1)), best, decides=decides)


@dataclass(frozen=True)
class _Stream:
    """Rows [tokens, d_in] that are equal if their bytes are."""

    digest: str
    rows: torch.Tensor = field(compare=False)


@functools.lru_cache(maxsize=1)
def _stream_law(stream: _Stream) -> RowLaw:
    """Return the law of a calibration text's rows, which concepts of one model share."""
    return RowLaw.of_stream(stream.rows)


def control_record(controls: Sequence[Control]) -> DecidingControl:
    """Return the numbers for ``gate.json``: of the hardest control that decides, then of each."""
    hardest = max((c for c in controls if c.decides), key=lambda control: control.p)
    return {**_numbers(hardest), "controls": [_numbers(control) for control in controls]}


def _numbers(control: Control) -> GateControl:
    return {
        "kind": control.kind,
        "decides": control.decides,
        "dictionaries": len(control.counts),
        "observed": control.observed,
        "p": control.p,
        "median_count": float(np.median(control.counts)),
        "max_count": int(control.counts.max()),
        "effective_dimensions": control.effective_dimensions,
    }


def _largest(counts: Indices) -> int:
    return int(counts.max(initial=0))

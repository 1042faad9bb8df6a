"""Two mappings, and two steerings: what parted them."""

from __future__ import annotations

import numpy as np
import pandas

from loopscope.specs.artifacts.gate import Gate
from loopscope.specs.artifacts.mapping import DIRECTIONS_VECTORS, GATE
from loopscope.specs.artifacts.steering import SAMPLES, VERDICT
from loopscope.views.replication.run import StageRun
from loopscope.views.replication.step import Cause, State, Step, step_of

COSINE_SAME = 1 - 1e-6
_TEXT_KEYS = ["prompt_id", "arm", "strength", "sample"]


def mapping_step(first: StageRun, second: StageRun) -> Step:
    """Return how two mappings differ. Raises Corrupt."""
    gates = [run.document(GATE) for run in (first, second)]
    if gates[0] is None or gates[1] is None:
        return step_of("mapping", first, second, "missing", "its gate is not there")
    one, two = gates[0], gates[1]
    words = [f"gate {one['verdict']} and {two['verdict']}"]
    causes = []
    if one["verdict"] != two["verdict"]:
        causes.append(Cause("gate", f"{one['verdict']} and {two['verdict']}"))
    same_latents = _latents(one) == _latents(two)
    if not same_latents:
        words.append("other anchors or children")
    cosines = _direction_cosines(first, second)
    words += [f"{name} direction at cosine {cosine:.4f}" for name, cosine in cosines.items()]
    same = not causes and same_latents and all(one >= COSINE_SAME for one in cosines.values())
    state: State = "same numbers" if same else "different"
    return step_of("mapping", first, second, state, ", ".join(words), causes)


def _latents(gate: Gate) -> list[tuple[int, tuple[int, ...]]]:
    return [(int(one["coarse"]), tuple(one["children"])) for one in gate["anchors"]]


def _direction_cosines(first: StageRun, second: StageRun) -> dict[str, float]:
    """Return the cosine of each arm's vector in the two runs; none where widths differ."""
    one, two = (run.tensors(DIRECTIONS_VECTORS.name) or {} for run in (first, second))
    return {
        name: float(one[name].astype(np.float64) @ two[name].astype(np.float64))
        for name in sorted({*one} & {*two})
        if one[name].shape == two[name].shape
    }


def steering_step(first: StageRun, second: StageRun) -> Step:
    """Return how two steerings differ. Raises Corrupt."""
    tables = [run.table(SAMPLES) for run in (first, second)]
    verdicts = [run.document(VERDICT) for run in (first, second)]
    if tables[0] is None or tables[1] is None:
        return step_of("steering", first, second, "missing", "its texts are not there")
    one, two = (pandas.DataFrame(table) for table in tables)
    both = one.merge(two, on=_TEXT_KEYS, suffixes=("", "_of_second"))
    same = int((both["text"] == both["text_of_second"]).sum())
    words = f"{same} of {max(len(one), len(two))} texts are the same"
    causes = []
    if verdicts[0] and verdicts[1] and verdicts[0]["verdict"] != verdicts[1]["verdict"]:
        causes.append(Cause("verdict", f"{verdicts[0]['verdict']} and {verdicts[1]['verdict']}"))
    state: State = "same numbers" if same == len(one) == len(two) and not causes else "different"
    return step_of("steering", first, second, state, words, causes)

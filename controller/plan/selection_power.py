"""Power of a selection, as far as a spec determines it: whether any latent could pass at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import cast

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from loopscope.numerics.statistics.perfect import perfect_latents_needed, perfect_p_value
from loopscope.reconcilers.references import InputReference
from loopscope.specs import study, sweep
from loopscope.specs.errors import Problem
from loopscope.specs.json_values import JsonObject
from loopscope.specs.pipeline import OWNER_KINDS
from loopscope.specs.spec_json import DictionaryJson, ExperimentJson
from loopscope.specs.splits import Splits, prompts_of
from loopscope.specs.yaml.loading import LoadedObject
from loopscope.state.db import inputs
from loopscope.state.folder import StateFolder

WIDTH_IF_UNKNOWN = 16_384
"""Latents of a dictionary that is not resolved yet: the smallest width in common use."""


def selection_warnings(state: StateFolder | None, loaded: Sequence[LoadedObject]) -> list[Problem]:
    """Return a note for each experiment whose prompts may be too few for any latent to pass."""
    memo = HashMemo()
    notes: dict[Problem, None] = {}
    for item in loaded:
        if item.manifest.kind in OWNER_KINDS:
            for spec in _experiments(item.manifest.kind, item.manifest.canonical_spec()):
                words = _words(state, spec, memo)
                if words is not None:
                    field = "spec.concepts" if item.manifest.kind == "Study" else "spec.prompts"
                    notes[item.problem(field, words)] = None
    return list(notes)


def _experiments(kind: str, spec: JsonObject) -> Iterator[ExperimentJson]:
    if kind == "Study":
        yield from (cast(ExperimentJson, one.spec) for one in study.concept_experiments(spec))
    elif "matrix" not in spec:
        yield cast(ExperimentJson, spec)
    else:
        yield from (cast(ExperimentJson, cell.spec) for cell in sweep.cells(spec))


def _words(state: StateFolder | None, spec: ExperimentJson, memo: HashMemo) -> str | None:
    """Return what such prompts allow at best, where that may be nothing."""
    q_max, top = spec["selection"]["maxQ"], spec["selection"]["top"]
    choosing = _discovering(spec)
    targets, neutrals = choosing["target"], choosing["neutral"]
    smallest = perfect_p_value(targets, neutrals)
    known = _width(state, spec["dictionaries"]["coarse"], memo)
    width = known or WIDTH_IF_UNKNOWN
    needed = perfect_latents_needed(smallest, width, q_max)
    if needed <= min(top, width):
        return None
    enough = math.floor(top * q_max / smallest)
    counted = f"all {width:,} latents" if known else f"{width:,} latents (how many is not known)"
    return (
        f"{targets} target and {neutrals} neutral prompts choose latents: the smallest p that they "
        f"allow is {smallest:.2g}, so if {counted} were tested it would take {needed:,} perfect "
        f"ones to pass selection.maxQ {q_max:g}, and selection.top keeps {top}; with more than "
        f"{enough:,} tested ones and no candidate the gate will say INCONCLUSIVE. Use more prompts"
    )


def _discovering(spec: ExperimentJson) -> Counter[str]:
    """Return how many prompts of each condition choose latents; the others only confirm."""
    prompts = prompts_of(spec["prompts"])
    sides = Splits.model_validate(spec.get("splits", {})).of_prompts(prompts)
    return Counter(
        prompt.condition for prompt, side in zip(prompts, sides, strict=True) if side == "discover"
    )


def _width(state: StateFolder | None, dictionary: DictionaryJson, memo: HashMemo) -> int | None:
    try:
        facts = describe_dictionary(dictionary, hub=Hub(offline=True), memo=memo)
    except (InputRefused, ResolutionPending):
        if state is None:
            return None
        with state.database.read() as connection:
            known = inputs.get(connection, InputReference("dictionary", dictionary).digest)
        return known.dictionary["d_sae"] if known is not None and known.facts else None
    return facts.d_sae

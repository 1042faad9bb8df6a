"""Drift: how fast an anchoring fades over neutral text, and what temperature adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from loopscope.reconcilers.after_mapping import after_mapping
from loopscope.reconcilers.after_steering import (
    NothingSteered,
    after_steering,
    how_it_steers,
    narrowed,
)
from loopscope.reconcilers.plan import Answered, Blocked, Desired, Snapshot, Wanted
from loopscope.reconcilers.stage import reference_json
from loopscope.reconcilers.steering import directions_of
from loopscope.specs.actions import Action
from loopscope.specs.artifacts.steering import ARMS
from loopscope.specs.drift import STAND_IN, filler_texts, other_words, why_no_drift
from loopscope.specs.neutral import packaged_placebo
from loopscope.specs.payloads.drift import ANCHORS, DriftPayload, DriftRules
from loopscope.specs.pipeline import NodeName
from loopscope.specs.rules import SYSTEM_PROMPT_SEPARATOR
from loopscope.specs.spec_json import DriftJson, ExperimentJson, SteeringJson

_RULES = ("distances", "fillers", "arm", "strength", "temperatures", "newTokens", "seed")


def desired(snapshot: Snapshot) -> Desired:
    """Return the drift that the spec asks for, once all that it names is Ready."""
    found = after_mapping(snapshot)
    if isinstance(found, Blocked):
        return found
    steered = after_steering(snapshot, found)
    if isinstance(steered, Blocked):
        return steered
    if isinstance(steered, NothingSteered):
        message = f"there is no arm that could anchor: {steered.why}"
        return Answered("NothingSteered", message, {"openings": 0, "reason": message})
    spec = cast(DriftJson, snapshot.object.spec)
    steering = cast(SteeringJson, steered.record.spec)
    lexicon = list(steering["lexicon"]["texts"])
    own = spec["fillerText"]["texts"] if "fillerText" in spec else None
    if why := why_no_drift(
        chat="chat" in steered.work,
        lexicon=lexicon,
        filler_text=own,
    ):
        return Blocked("InputMismatch", why, terminal=True)
    given: Mapping[str, object] = spec
    prompted = "systemPrompt" in steered.work
    payload: DriftPayload = {
        "rules": cast(DriftRules, {name: given[name] for name in _RULES if name in given}),
        "fillerText": list(filler_texts(lexicon, own)),
        "otherWords": other_words(lexicon),
        "anchors": [one for one in ANCHORS if prompted or one != "systemPrompt"],
        "work": narrowed(steered.work, lexicon=lexicon, **({} if prompted else _words(lexicon))),
        "steered": reference_json(steered.made),
    }
    work = payload["work"]
    declared = {
        **how_it_steers(work, found),
        "mapping": directions_of(found.mapped),
        **{name: payload[name] for name in ("rules", "fillerText", "otherWords", "anchors")},
        "openings": work["openings"],
        "lexicon": lexicon,
        "arms": work["arms"],
        "model": work["model"]["identity"],
        "norms": steered.made.files[ARMS.name].sha256,
    }
    return Wanted(Action("drift", declared, payload), steered.inputs(found))


def _words(lexicon: Sequence[str]) -> dict[str, str]:
    """Return the placebo of an experiment that has no system prompt, and what tells its length."""
    return {
        "systemPrompt": STAND_IN,
        "systemPromptSeparator": SYSTEM_PROMPT_SEPARATOR,
        "placeboPrompt": packaged_placebo(STAND_IN, lexicon),
    }


def owned(experiment: ExperimentJson, _: NodeName) -> Mapping[str, object]:
    """Return the spec, without its references, of the drift that an experiment owns."""
    return experiment["drift"]

"""All stages one after the other on a tiny model, with every optional part or with none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.architectures.transcoder import Transcoder
from loopscope.specs.actions import Stage
from loopscope.specs.choices import choices
from loopscope.specs.payloads.drift import ANCHORS
from loopscope.specs.rules import Gate, Selection
from loopscope.specs.scoring import JUDGE_PROMPT
from loopscope.specs.splitting import SplittingRules
from loopscope.worker.stages.ablation import stage as ablation
from loopscope.worker.stages.capture import stage as capture
from loopscope.worker.stages.damage import stage as damage
from loopscope.worker.stages.decomposition import stage as decomposition
from loopscope.worker.stages.drift import stage as drift
from loopscope.worker.stages.evidence import stage as evidence
from loopscope.worker.stages.geometry import stage as geometry
from loopscope.worker.stages.mapping import stage as mapping
from loopscope.worker.stages.question import stage as question
from loopscope.worker.stages.scores import stage as scores
from loopscope.worker.stages.scores.judge.endpoint import ALLOWED_VARIABLE
from loopscope.worker.stages.scoring import stage as scoring
from loopscope.worker.stages.splitting import stage as splitting
from loopscope.worker.stages.steering import stage as steering
from loopscope.worker.stages.trace import stage as trace
from tests.judge_endpoint import judging, says
from tests.stage_world import HOOK, NEUTRAL, TARGET, World, capture_payload, steering_payload, table

HARD_NEGATIVES = ["the capital of spain is madrid", "people in rome drank wine"]
COARSE, FINE = 8, 16
WRITE_HOOK = "blocks.2.hook_mlp_out"


def run_stages(world: World, *, everything: bool) -> dict[Stage, Path]:
    """Return the folder that each stage wrote; of the decompositions the coarse one.

    ``everything`` asks for all that a spec may leave out: hard negatives, a test split, groups,
    siblings, a system prompt with its placebo, budgets, a position by its meaning, transcoders.
    Without it there is no candidate either.
    """
    made = Transcoder if everything else Standard
    world.dictionaries = {
        name: _dictionary(world, n, made) for name, n in (("c", COARSE), ("f", FINE))
    }
    texts = [(text, "target") for text in TARGET] + [(text, "neutral") for text in NEUTRAL]
    texts += [(text, "hard-negative") for text in HARD_NEGATIVES if everything]
    prompts = [
        {"id": f"p{number}", "text": text, "condition": condition}
        for number, (text, condition) in enumerate(texts)
    ]
    positions = "lastContent" if everything else "last"  # the same token of plain text
    written = {"writeHook": WRITE_HOOK} if everything else {}
    payload = capture_payload(prompts=prompts, positions=positions, **written)
    world.run(capture, payload, "capture", "capture")
    splits = ["discover", "test"] * 5 if everything else ["discover"] * 8
    divided: dict[str, Any] = {"splits": splits[: len(prompts)], "aggregation": "last"}
    if everything:
        divided["groups"] = list(range(len(prompts)))
    for name in world.dictionaries:
        payload = {"capture": {"digest": "c"}, "dictionary": {"identity": name}, **divided}
        world.run(decomposition, payload, f"decomposition-{name}", name)
    pair = {"coarse": {"identity": "c"}, "fine": {"identity": "f"}}
    world.run(geometry, pair, "geometry", "geometry")
    mapped = mapping_payload([0, 1] if everything else [])
    if everything:
        mapped["gate"]["sensitivity"] = True
    world.run(mapping, mapped, "mapping", "mapping")
    world.run(splitting, splitting_payload([0, 1] if everything else []), "splitting", "splitting")
    world.run(evidence, evidence_payload(everything), "evidence", "evidence")
    world.run(ablation, ablation_payload(world, everything), "ablation", "ablation")
    world.run(steering, _steering_payload(everything), "steering", "steering")
    work = {**_steering_payload(everything), "neutralText": [], "lexicon": [], "siblings": []}
    followed = {"openings": 1, "work": work, "steered": {"digest": "s"}}
    world.run(trace, followed, "trace", "trace")
    tried = {
        "texts": NEUTRAL, "choices": choices(["france"])[::9], "sides": {"japan": ["japan"]},
        "work": work, "steered": {"digest": "s"},
    }  # fmt: skip
    world.run(damage, tried, "damage", "damage")
    world.run(drift, drift_payload(everything), "drift", "drift")
    world.run(question, question_payload(world, everything), "question", "question")
    _run_scoring(world, everything)
    return {
        "capture": world.folder / "capture",
        "decomposition": world.folder / "decomposition-c",
        "geometry": world.folder / "geometry",
        "mapping": world.folder / "mapping",
        "splitting": world.folder / "splitting",
        "evidence": world.folder / "evidence",
        "ablation": world.folder / "ablation",
        "steering": world.folder / "steering",
        "scores": world.folder / ("scores-judge" if everything else "scores-repetition"),
        "scoring": world.folder / "scoring",
        "damage": world.folder / "damage",
        "trace": world.folder / "trace",
        "drift": world.folder / "drift",
        "question": world.folder / "question",
    }


def _run_scoring(world: World, everything: bool) -> None:
    """Score the texts by repetition, and with everything by a judge that always says A."""
    openings = _steering_payload(everything)["openings"]
    common = {"openings": openings, "steered": {"digest": "s"}}
    asked: dict[str, dict[str, Any]] = {"repetition": {}}
    if everything:
        asked["judge"] = {
            "model": "judge", "question": "Is it?", "prompt": JUDGE_PROMPT, "maxAnswerTokens": 1,
        }  # fmt: skip
    with judging(says("A")) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(world.folder / "cache"))
        patch.setenv(ALLOWED_VARIABLE, server.address)
        way = {"endpoint": server.address, "requestsPerMinute": 60_000, "maxRequests": 10_000}
        for name, own in asked.items():
            payload = {"outcome": name, "asked": own, "beside": way, **common}
            world.run(scores, payload, f"scores-{name}", f"scores-{name}")
    payload = {
        "primary": "judge" if everything else "concept", "minDifference": 0.15,
        "maxArmCosine": 0.98, "scores": {name: {"digest": name} for name in asked}, **common,
    }  # fmt: skip
    world.run(scoring, payload, "scoring", "scoring")


def _dictionary(world: World, latents: int, made: type[Standard]) -> Standard:
    """Return latents along the first axes of the stream, in pairs of opposite rows."""
    rows = torch.eye(world.model.d_model)[: latents // 2].repeat_interleave(2, dim=0)
    rows[1::2] *= -1
    bias = torch.zeros(world.model.d_model)
    parts = (rows.T.contiguous(), torch.zeros(latents), rows, bias)
    return made(*parts, apply_b_dec_to_input=made is Standard)


def mapping_payload(candidates: list[int]) -> dict[str, Any]:
    sides = {
        side: {"digest": name, "dictionary": {"identity": name}, "candidates": found}
        for side, name, found in (("coarse", "c", candidates), ("fine", "f", []))
    }
    gate = {**Gate(resamples=20).canonical(), "minSubfeatures": 1}
    return {
        "capture": {"digest": "c"}, "geometry": {"digest": "g"}, **sides,
        "selection": Selection().canonical(), "minCosine": 0.3,
        "partialCosine": 0.1, "minCorrelation": 0.2, "topK": 2, "permutations": 19, "seed": 0,
        "gate": gate,
    }  # fmt: skip


def splitting_payload(candidates: list[int]) -> dict[str, Any]:
    sides = {
        side: {"digest": name, "dictionary": {"identity": name}, "candidates": candidates}
        for side, name in (("coarse", "c"), ("fine", "f"))
    }
    rules = SplittingRules(draws=20, resamples=20).canonical()
    return {**sides, "geometry": {"digest": "g"}, **rules, "minCosine": 0.3, "minCorrelation": 0.2}


def evidence_payload(everything: bool) -> dict[str, Any]:
    sides = {
        side: {"digest": name, "dictionary": {"identity": name}}
        for side, name in (("coarse", "c"), ("fine", "f"))
    }
    return {
        "model": {}, "hook": HOOK, **({"writeHook": WRITE_HOOK} if everything else {}),
        "positions": "lastContent" if everything else "last", "topPrompts": 2, "randomPrompts": 1,
        "selection": Selection().canonical(), "mapping": {"digest": "m"},
        "geometry": {"digest": "g"}, **sides,
    }  # fmt: skip


def ablation_payload(world: World, everything: bool) -> dict[str, Any]:
    """Return what is taken out: what the mapping found, or an anchor without children."""
    alone = world.folder / "mapping-alone"
    alone.mkdir()
    found = {"anchor": 0, "anchors": [0], "children": [], "children_of_all": []}
    (alone / "directions.json").write_text(json.dumps(found))
    sides = {
        side: {"digest": name, "dictionary": {"identity": name}}
        for side, name in (("coarse", "c"), ("fine", "f"))
    }
    return {
        "prompts": 8, "draws": 2, "seed": 0, "lexicon": ["france", "paris"], "hook": HOOK,
        "model": {}, "mapping": {"digest": "m" if everything else "alone"},
        "geometry": {"digest": "g"}, **sides,
    }  # fmt: skip


def drift_payload(everything: bool) -> dict[str, Any]:
    rules: dict[str, Any] = {
        "distances": [0, 3, 9], "fillers": 2, "temperatures": [0.5, 1.0] if everything else [],
        "newTokens": 3, "seed": 0, **({} if everything else {"arm": "random-0"}),
    }  # fmt: skip
    work = {**_steering_payload(everything), "neutralText": [], "siblings": []}
    words = {"systemPrompt": "people liked wine", "systemPromptSeparator": "",
             "placeboPrompt": "people sold bread"}  # fmt: skip
    return {
        "rules": rules, "fillerText": ["the quiet city sold old bread", "a garden in summer"],
        "otherWords": "the old house", "anchors": list(ANCHORS),
        "work": {**work, **words}, "steered": {"digest": "s"},
    }  # fmt: skip


def question_payload(world: World, steered: bool) -> dict[str, Any]:
    """Return what is asked: an arm of the steering that was run, or latents of both sides."""
    asked: dict[str, Any] = {"model": {}, "hook": HOOK, "text": TARGET[0]}
    if not steered:
        dictionaries = {"coarse": {"identity": "c"}, "fine": {"identity": "f"}}
        return {**asked, "latents": {"coarse": [0], "fine": [0, 3]}, "dictionaries": dictionaries}
    work = {**_steering_payload(everything=True), "neutralText": [], "samplesPerPrompt": 1}
    work["openings"] = [{"id": "question", "text": TARGET[0]}]
    arms = table(world.folder / "steering" / "arms.parquet")
    arm, strength = next(
        (arm, strength)
        for arm, strength in zip(arms["arm"], arms["strength"], strict=True)
        if strength > 0
    )
    steered_work = {
        "asked": {"arm": arm, "strength": strength}, "work": work, "answered": {"digest": "s"},
    }  # fmt: skip
    return {**asked, "steered": steered_work}


def _steering_payload(everything: bool) -> dict[str, Any]:
    sides = {
        side: {"digest": name, "dictionary": {"identity": name}}
        for side, name in (("coarse", "c"), ("fine", "f"))
    }
    if not everything:
        return steering_payload(**sides, arms=["none", "random"])
    return steering_payload(
        **sides,
        hook=WRITE_HOOK,
        readHook=HOOK,
        arms=["none", "coarse", "fine", "multi", "meanDifference", "random"],
        strengthUnit="nextTokenKl",
        strengths=[0.001, 0.002],
        siblings=["japan", "tokyo"],
        systemPrompt="people liked wine",
        systemPromptSeparator="",
        placeboPrompt="people sold bread",
    )

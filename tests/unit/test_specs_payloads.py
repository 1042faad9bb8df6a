"""Each stage has a payload and metrics of a declared type, and both sides keep to it."""

import importlib
from typing import get_args, get_type_hints, is_typeddict

import pytest

from loopscope.controller.reconcile.resolution import resolve
from loopscope.specs.actions import CODE_REVISIONS, Stage
from loopscope.specs.pipeline import ALONE, PIPELINE, SHARED
from loopscope.worker.stages.steering import stage as steering
from tests.artifact_world import run_stages
from tests.simulated import Simulation, canonical, experiment_spec, texts
from tests.stage_world import World, steering_payload
from tests.typed_json import misfits
from tests.unit.conftest import HOOK

STAGES = get_args(Stage)
NAMED = {"captureRef": {"name": "france-capture"}, "mappingRef": {"name": "france-mapping"}}
LATENTS = {**NAMED, "text": "Paris is", "latents": {"coarse": [1], "fine": [2, 3]}}
STEERED = {
    **NAMED,
    "steeringRef": {"name": "france-steering"},
    "text": "We went to",
    "steered": {"arm": "multi", "strength": 1.0},
}


def types_of(stage):
    """The declared types of a stage's payload and metrics."""
    run = importlib.import_module(f"loopscope.worker.stages.{stage}.stage").run
    hints = get_type_hints(run)
    return hints["payload"], hints["return"]


def payloads_of(simulation):
    return {job.stage: job.payload for job in simulation.jobs()}


@pytest.fixture
def planned(tmp_path, experiment):
    """Plan an experiment of real files to its end; return the payload of each stage."""

    def plan(questions=(), **changes):
        simulation = Simulation(tmp_path / "state")
        simulation.inputs.resolve = resolve
        simulation.restart()
        files = {
            "model": {"name": "tiny", "source": {"folder": str(tmp_path / "model")}},
            "dictionaries": {name: {"path": str(tmp_path / name)} for name in ("coarse", "fine")},
        }
        simulation.apply(experiment_spec(hook=HOOK, **{**files, **changes}))
        simulation.settle()
        for asked in questions:
            simulation.apply(canonical("Question", asked), name="q", kind="Question")
        simulation.settle()
        return payloads_of(simulation)

    return plan


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_declares_its_payload_and_its_metrics(stage):
    assert stage in CODE_REVISIONS and stage in {
        node.stage for node in (*PIPELINE, *SHARED, *ALONE)
    }
    for declared in types_of(stage):
        assert is_typeddict(declared)
        assert declared.__module__ == f"loopscope.specs.payloads.{stage}"


def test_what_the_reconcilers_build_is_what_the_stages_declare(planned):
    given = experiment_spec()
    payloads = planned(
        **{node.name: given.get(node.name, {}) for node in PIPELINE if node.optional}
    )
    assert set(payloads) == set(STAGES) - {alone.stage for alone in ALONE}
    for stage, payload in payloads.items():
        assert misfits(payload, types_of(stage)[0]) == []


@pytest.mark.parametrize("asked", [LATENTS, STEERED], ids=["latents", "steered"])
def test_what_a_question_builds_is_what_its_stage_declares(planned, asked):
    payload = planned(questions=[asked])["question"]
    assert misfits(payload, types_of("question")[0]) == []


def test_what_an_experiment_may_ask_for_besides_is_declared_as_well(planned):
    grouped = {"groups": {"by": "line"}}
    spec = experiment_spec()
    payloads = planned(
        prompts={name: {**spec["prompts"][name], **grouped} for name in ("target", "neutral")},
        calibration={
            "text": texts("Some words."),
            "coarse": {"l0": [0, 9], "fvu": [0, 1]},
            "fine": {"l0": [0, 9], "fvu": [0, 1]},
        },
        evidence={"topPrompts": 3},
        steering={
            **spec["steering"],
            "prompts": {**texts("We went to", "We saw"), "groups": {"labels": ["a", "a"]}},
            "systemPrompt": "Speak of Paris.",
            "siblings": texts("rome"),
            "method": "clamp",
            "positions": {"token": "We"},
            "probeHook": HOOK,
        },
    )
    assert {"splits", "groups", "calibration"} <= payloads["decomposition"].keys()
    optional = {"systemPrompt", "systemPromptSeparator", "placeboPrompt", "method", "probeHook"}
    optional |= {"positions"}
    assert optional <= payloads["steering"].keys()
    for stage, payload in payloads.items():
        assert misfits(payload, types_of(stage)[0]) == []


def test_a_field_too_few_or_too_many_is_noticed(planned):
    payload = planned()["mapping"]
    declared = types_of("mapping")[0]
    assert misfits({**payload, "more": 1}, declared) == ["$.more is not declared"]
    assert misfits({**payload, "seed": "0"}, declared) == ["$.seed: '0' is not int"]
    del payload["gate"]["rule"]
    assert misfits(payload, declared) == ["$.gate.rule is missing"]


@pytest.mark.parametrize("everything", [True, False], ids=["everything", "nothing"])
def test_what_the_stages_return_is_what_they_declare(rope_model, tmp_path, everything):
    """With all that a spec may leave out, and with nothing of it, not even a candidate."""
    world = World(rope_model, tmp_path)
    folders = run_stages(world, everything=everything)
    for stage, folder in folders.items():
        assert misfits(world.metrics[folder.name], types_of(stage)[1]) == []


def test_what_a_steering_returns_of_clamped_latents_is_declared(steering_world):
    _, metrics = steering_world.run(steering, steering_payload(method="clamp"))
    assert metrics["method"] == "clamp"
    assert misfits(metrics, types_of("steering")[1]) == []

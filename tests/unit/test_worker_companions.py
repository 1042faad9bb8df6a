"""What a capture does for others while it runs: they get what they would have made, or nothing."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from functools import partial
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.reconcilers import capture as reconciler
from loopscope.reconcilers.plan import Snapshot
from loopscope.reconcilers.references import input_references
from loopscope.specs import actions
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.specs.kinds.capture import CaptureSpec
from loopscope.specs.payloads.capture import CapturePayload
from loopscope.state.db import jobs
from loopscope.state.failures import TerminalFailure
from loopscope.state.records import InputRecord
from loopscope.worker.companions import _seen_of_a_text, pending_companions
from loopscope.worker.makers import maker_of
from loopscope.worker.stages.capture import stage as capture
from tests.simulated import Simulation, capture_spec, new_state, texts
from tests.stage_world import HOOK, NEUTRAL, TARGET, World, capture_payload, contents

KEY = Key("Capture", "default", "c")
BASE = capture_payload(model={"identity": "one"}, calibrationText=NEUTRAL[:2])
EVERY_TURN = "{% for turn in messages %}{{ turn['content'] }} {% endfor %}"
CHAT = {"template": EVERY_TURN, "addGenerationPrompt": True}
FULL = {**BASE, "chat": CHAT, "writeHook": "blocks.1.hook_mlp_out"}
"""All fields of a payload, also those that stand in some only."""

a_text = st.sampled_from([*TARGET, *NEUTRAL, "a garden in summer"])


@st.composite
def other_prompts(draw):
    """Prompts of which one is gone, moved, another text, or another thing with the same text."""
    prompts = [dict(prompt) for prompt in BASE["prompts"]]
    place = draw(st.integers(0, len(prompts) - 1))
    one = prompts.pop(place)
    match draw(st.sampled_from(["gone", "moved", "text", "id", "condition"])):
        case "gone":
            return prompts
        case "moved":
            place = draw(st.integers(0, len(prompts)))
        case "text":
            one["text"] = draw(a_text)
        case "id":
            one["id"] = "another"
        case "condition":
            one["condition"] = draw(st.sampled_from(["target", "neutral", "hard-negative"]))
    return [*prompts[:place], one, *prompts[place:]]


OTHER_VALUES = {
    "model": st.sampled_from([{"identity": "other"}, {"identity": "one", "folder": "/elsewhere"}]),
    "hook": st.sampled_from(
        ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_post", "blocks.99.hook_resid_post"]
    ),
    "positions": st.just("all"),
    "maxTokens": st.sampled_from([3, 7, 64]),
    "prompts": other_prompts(),
    "calibrationText": st.lists(a_text, min_size=1, max_size=3),
    "writeHook": st.sampled_from(["blocks.1.hook_attn_out", "blocks.1.hook_resid_post"]),
    "chat": st.sampled_from(
        [
            {**CHAT, "system": "the quiet city"},
            {**CHAT, "assistantPrefix": "in summer"},
            {**CHAT, "template": EVERY_TURN + "{% if add_generation_prompt %}wine{% endif %}"},
            {**CHAT, "addGenerationPrompt": False},
        ]
    ),
}
"""Other values of each field of a capture's payload."""


@pytest.fixture(scope="module")
def run(rope_model, learned_position_model, tmp_path_factory):
    """Run captures, each in a folder of its own; return the folder of their shards."""
    models = {"one": rope_model, "other": learned_position_model}
    numbers = itertools.count()

    def run(payload, shards=None, companions=lambda kind: []):
        folder = tmp_path_factory.mktemp(f"run-{next(numbers)}")
        world = World(models[payload["model"]["identity"]], folder)
        plain = world.context("own")
        shards = shards or plain.shards
        world.context = lambda _: replace(plain, shards=shards, companions=companions)
        world.run(capture, payload)
        return shards.kept.folder

    return run


@given(st.data())
@settings(max_examples=40)
def test_a_companion_gets_what_it_would_have_made_or_nothing(run, tmp_path_factory, data):
    field = data.draw(st.sampled_from(sorted(OTHER_VALUES)), "field")
    base = data.draw(st.sampled_from([BASE, FULL]), "base")
    other = {**base, field: data.draw(OTHER_VALUES[field], "value")}
    pair = [base, other] if data.draw(st.booleans(), "in this order") else [other, base]
    state = new_state(tmp_path_factory.mktemp("companions") / "state")
    with state.database.write() as connection:
        ids = [
            jobs.enqueue(connection, Action("capture", {"n": n}, payload), KEY, 1, now=1.0)[0]
            for n, payload in enumerate(pair)
        ]
        jobs.claim(connection, ids[0], "w", 30.0, now=1.0)
        first = jobs.get(connection, ids[0])
        second = jobs.get(connection, ids[1])
    received = state.artifacts.work_folder(second.digest)
    with contextlib.suppress(TerminalFailure):  # what it gave before must be right all the same
        run(pair[0], companions=partial(pending_companions, state, first, device="cpu"))
    state.database.close()
    got = given(received) if received.exists() else {}
    try:
        made = contents(run(pair[1]))
    except TerminalFailure:
        made = {}
    assert got.items() <= made.items()


def test_the_property_changes_every_field_that_a_payload_can_hold(tmp_path):
    simulation = Simulation(tmp_path / "state")
    prompts = capture_spec()["prompts"] | {"chat": {"templateText": EVERY_TURN}}
    everything = capture_spec(
        calibrationText=texts("a", "b"), writeHook="blocks.3.hook_mlp_out", prompts=prompts
    )
    every_field = {field.alias for field in CaptureSpec.model_fields.values()}
    assert everything.keys() == every_field, "all that may be written is"
    simulation.apply(everything, "c", "Capture")
    record = simulation.get("c")
    (reference,) = input_references(record)
    facts = {"ref": {"identity": "one"}, "n_layers": 4, "d_model": 8}
    known = InputRecord(
        reference.digest, "model", reference.reference, facts, None, None, False, 0.0
    )
    snapshot = Snapshot(record, 0.0, inputs={reference.digest: known})
    payload = reconciler.desired(snapshot).action.payload
    assert payload.keys() == OTHER_VALUES.keys() == get_type_hints(CapturePayload).keys()
    assert payload.keys() == FULL.keys()


def given(folder):
    """Return the shards in a folder by the names that a stage knows them by."""
    mark = f"{maker_of('cpu')}."
    found = contents(folder)
    assert all(name.startswith(mark) for name in found)
    return {name.removeprefix(mark): content for name, content in found.items()}


def companions_of(state, payload, other, kind):
    with state.database.write() as connection:
        for n, one in enumerate((payload, other)):
            jobs.enqueue(connection, Action("capture", {"n": n}, one), KEY, 1, now=1.0)
        jobs.claim(connection, 1, "w", 30.0, now=1.0)
        job = jobs.get(connection, 1)
    return pending_companions(state, job, kind, device="cpu")


def test_other_calibration_text_is_served_prompts_only(tmp_path):
    state = new_state(tmp_path / "state")
    other = {**BASE, "calibrationText": ["wine"]}
    assert companions_of(state, BASE, other, "calibration") == []
    with state.database.read() as connection:
        job = jobs.get(connection, 1)
    assert [one.hook for one in pending_companions(state, job, "capture", device="cpu")] == [HOOK]


def test_a_field_that_nobody_thought_of_makes_no_companion(tmp_path):
    other = {**BASE, "prefix": "Once upon a time"}
    assert companions_of(new_state(tmp_path / "state"), BASE, other, "capture") == []


def test_a_job_that_another_code_revision_names_is_no_companion(tmp_path, monkeypatch):
    state = new_state(tmp_path / "state")
    with state.database.write() as connection:
        jobs.enqueue(connection, Action("capture", {"n": 0}, BASE), KEY, 1, now=1.0)
    monkeypatch.setitem(actions.CODE_REVISIONS, "capture", 99)
    with state.database.write() as connection:
        jobs.enqueue(connection, Action("capture", {"n": 1}, BASE), KEY, 1, now=1.0)
        jobs.claim(connection, 2, "w", 30.0, now=1.0)
        job = jobs.get(connection, 2)
    assert pending_companions(state, job, "capture", device="cpu") == []


def test_a_companion_with_the_same_texts_is_served_whole(run, tmp_path):
    state = new_state(tmp_path / "state")
    every = {**BASE, "positions": "all"}
    assert companions_of(state, BASE, every, "calibration")
    with state.database.read() as connection:
        first, second = jobs.get(connection, 1), jobs.get(connection, 2)
    run(BASE, companions=partial(pending_companions, state, first, device="cpu"))
    received = state.artifacts.work_folder(second.digest)
    assert given(received) == contents(run(every))


def test_the_passes_see_of_a_prompt_everything_but_its_name_and_its_condition():
    prompt = {"id": "t1", "condition": "target", "text": "Paris is", "group": "g"}
    assert _seen_of_a_text(prompt) == {"text": "Paris is", "group": "g"}
    assert _seen_of_a_text("Paris is") == {"text": "Paris is"}

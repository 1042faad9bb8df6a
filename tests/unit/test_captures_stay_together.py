"""What was captured elsewhere is never mixed in: in a steering, and between captures at work."""

import copy

import pytest

from loopscope.reconcilers import steering
from loopscope.reconcilers.plan import Blocked, Wanted
from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.worker.companions import pending_companions
from tests.hand_built import CAPTURED, artifact, made_ready, stored
from tests.simulated import capture_spec, new_state
from tests.stage_world import capture_payload
from tests.unit.test_reconcilers_downstream import steering_snapshot

# -- steering ------------------------------------------------------------------------------------


def with_capture(snapshot, **changes):
    """Return the snapshot with another capture in the place of the one that was mapped."""
    made = artifact(
        "capture", changes.get("digest", CAPTURED.digest),
        changes.get("content", CAPTURED.content_digest),
    )  # fmt: skip
    key = Key("Capture", "default", "cap")
    taken = made_ready(
        stored("Capture", "cap", capture_spec()), made,
        inputs=snapshot.references[key].status.inputs,
    )  # fmt: skip
    snapshot.references[key] = taken
    snapshot.artifacts[made.digest] = made
    return snapshot


def test_a_mapping_of_another_capture_does_not_steer():
    """Its directions were found in other vectors, so its strengths would be in other units."""
    desired = steering.desired(with_capture(steering_snapshot(), digest="x", content="other"))
    assert isinstance(desired, Blocked) and desired.terminal
    assert desired.reason == "InputMismatch"
    assert "mapping/map" in desired.message and "capture/cap" in desired.message


def test_a_gate_that_forbids_steering_does_not_hide_that_the_captures_differ():
    snapshot = steering_snapshot(gate="NO-GO", policy="enforce")
    desired = steering.desired(with_capture(snapshot, digest="x", content="other"))
    assert isinstance(desired, Blocked) and desired.reason == "InputMismatch"


def test_a_capture_with_the_same_bytes_under_another_name_is_the_same_capture():
    snapshot = with_capture(steering_snapshot(), digest="another-digest")
    assert isinstance(steering.desired(snapshot), Wanted)


# -- captures at work ----------------------------------------------------------------------------

DEEPER = "blocks.2.hook_resid_post"


def hooks_served(tmp_path, *edits):
    """Queue a capture, and one at another hook for each edit; return the hooks it serves."""
    state = new_state(tmp_path / "state")
    own = {**capture_payload(), "model": {"identity": "m", "folder": "/m"}}
    key = Key("Capture", "default", "c")
    with state.database.write() as connection:
        first, _ = jobs.enqueue(connection, Action("capture", {"n": -1}, own), key, 1, now=1.0)
        for number, edit in enumerate(edits):
            payload = {**copy.deepcopy(own), "hook": DEEPER}
            edit(payload)
            action = Action("capture", {"n": number}, payload)
            jobs.enqueue(connection, action, key, 1, now=1.0)
        jobs.claim(connection, first, "w", 30.0, now=1.0)
        job = jobs.get(connection, first)
    return [one.hook for one in pending_companions(state, job, "capture", device="cpu")]


def nothing_else(payload):
    pass


def one_word(payload):
    payload["prompts"][0]["text"] = "Another text"


def one_sign(payload):
    payload["prompts"][-1]["text"] += "."


def order(payload):
    payload["prompts"].reverse()


def swapped_texts(payload):
    first, second = payload["prompts"][:2]
    first["text"], second["text"] = second["text"], first["text"]


def model(payload):
    payload["model"]["identity"] = "n"


def fewer(payload):
    del payload["prompts"][-1]


def test_a_capture_that_differs_in_its_hook_alone_is_served(tmp_path):
    assert hooks_served(tmp_path, nothing_else) == [DEEPER]


@pytest.mark.parametrize(
    "edit", [one_word, one_sign, order, swapped_texts, model, fewer], ids=lambda edit: edit.__name__
)
def test_a_capture_whose_passes_would_see_anything_else_is_not_served(tmp_path, edit):
    """However many prompts it has, and of whichever model."""
    assert hooks_served(tmp_path, edit) == []

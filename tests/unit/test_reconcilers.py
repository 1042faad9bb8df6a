"""Plans are pure: a frozen snapshot in, what to do out."""

from dataclasses import replace

import pytest

from loopscope.reconcilers import capture, decomposition
from loopscope.reconcilers.plan import Blocked, Done, Failed, LookAgain, Observed, Snapshot, Wanted
from loopscope.reconcilers.stage import needed_json, pause_words, plan_stage
from loopscope.specs.actions import Action
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.packaged import packaged_texts
from loopscope.specs.status import Condition, Status
from tests.hand_built import (
    CAPTURE_KEY,
    CAPTURED,
    DECOMPOSITION,
    DICTIONARY,
    MODEL,
    artifact,
    condition_of,
    digest_of,
    job,
    made_ready,
    stored,
    with_inputs,
)
from tests.simulated import canonical, capture_spec, texts

# -- Capture -----------------------------------------------------------------------------


def capture_snapshot(facts=MODEL, spec=None, **changes):
    record = stored("Capture", "cap", spec or capture_spec(), **changes)
    inputs = {} if facts is None else with_inputs(record, facts)
    return Snapshot(record, 5.0, inputs=inputs)


def test_a_capture_waits_until_its_model_is_known():
    desired = capture.desired(capture_snapshot(facts=None))
    assert isinstance(desired, Blocked)
    assert (desired.reason, desired.terminal, desired.keep_wanted) == ("Resolving", False, True)


@pytest.mark.parametrize(
    ("reason", "terminal", "said"),
    [
        ("InputRefused", True, "InputRefused: there is no /m"),
        ("HubUnreachable", False, "Resolving: HubUnreachable: there is no /m"),
    ],
)
def test_a_reason_is_not_said_twice(reason, terminal, said):
    record = stored("Capture", "cap", capture_spec())
    answer = {"reason": reason, "message": "there is no /m", "terminal": terminal}
    desired = capture.desired(Snapshot(record, 5.0, inputs=with_inputs(record, None, **answer)))
    assert f"{desired.reason}: {desired.message}" == said


def test_what_identifies_a_capture_enters_its_digest_and_nothing_else_does():
    base = digest_of(capture.desired(capture_snapshot()))
    moved = {**MODEL, "ref": {"identity": "model-id", "folder": "/elsewhere"}}
    named = capture_spec(model={"name": "other", "source": {"folder": "/x"}})
    for same in (capture_snapshot(moved), capture_snapshot(spec=named)):
        assert digest_of(capture.desired(same)) == base
    one = {"target": texts("Paris is"), "neutral": texts("Rome is", "Oslo is")}
    turned = {"target": texts("Lyon is", "Paris is"), "neutral": texts("Rome is", "Oslo is")}
    others = [
        capture_snapshot({**MODEL, "ref": {"identity": "other-id"}}),
        *(
            capture_snapshot(spec=capture_spec(**change))
            for change in (
                {"hook": "blocks.1.hook_resid_post"},
                {"positions": "all"},
                {"maxTokens": 64},
                {"prompts": one},
                {"prompts": turned},
            )
        ),
    ]
    digests = {base, *(digest_of(capture.desired(other)) for other in others)}
    assert len(digests) == 1 + len(others)


@pytest.mark.parametrize(("layer", "fits"), [(3, True), (4, False)])
def test_the_last_layer_can_be_hooked_and_the_one_after_it_cannot(layer, fits):
    spec = capture_spec(hook=f"blocks.{layer}.hook_resid_post")
    desired = capture.desired(capture_snapshot(spec=spec))
    assert isinstance(desired, Wanted) if fits else desired.reason == "InputMismatch"


# -- from a desired action to a plan --------------------------------------------------------


def plan(snapshot=None, **observed):
    snapshot = snapshot or capture_snapshot()
    return plan_stage(snapshot, capture.desired(snapshot), Observed(**observed))


def test_the_same_snapshot_gives_the_same_plan():
    assert plan() == plan()


def test_work_that_nobody_does_is_queued():
    made = plan()
    assert made.enqueue is not None and made.wanted_digest == made.enqueue.digest
    assert condition_of(made) == ("False", "JobPending")
    assert condition_of(made, "Reconciling")[0] == "True"
    assert made.status.observed_generation == 1 and made.result == Done()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (job("pending"), "JobPending"),
        (job("running"), "JobRunning"),
        (job("pending", attempts=1, reason="InputDamaged", message="gone"), "RetryingLater"),
        (job("pending", reason="DiskFull", message="full"), "DiskFull"),
    ],
)
def test_work_under_way_is_not_queued_again(found, reason):
    made = plan(job=found)
    assert made.enqueue is None and condition_of(made) == ("False", reason)


@pytest.mark.parametrize("state", ["cancelled", "succeeded"])
def test_a_job_that_ended_without_an_artifact_is_queued_again(state):
    assert plan(job=job(state)).enqueue is not None


def test_an_artifact_makes_ready_and_is_adopted_only_if_the_index_lacks_it():
    made = plan(artifact=artifact("capture", "d", metrics={"tokens": 9}), job=job("succeeded"))
    assert condition_of(made) == ("True", "Succeeded")
    assert condition_of(made, "Reconciling") is None
    assert made.status.summary == {"tokens": 9} and made.status.artifact.digest == "d"
    assert (made.enqueue, made.adopt) == (None, None)
    assert [event.reason for event in made.events] == ["Ready"]
    unindexed = artifact("capture", "d")
    assert plan(artifact=unindexed, unindexed=True).adopt == unindexed


def test_passed_preflights_are_a_condition_with_their_numbers():
    checks = {"parity": {"measured": 1.25e-6, "low": 0.0, "high": 1e-3}}
    made = plan(artifact=artifact("capture", "d", metrics={"preflights": checks}))
    found = made.status.condition("PreflightsPassed")
    assert (found.status, found.reason) == ("True", "WithinLimits")
    assert found.message == "parity: 1.25e-06 (allowed 0 to 0.001)"
    without = plan(artifact=artifact("capture", "d"))
    assert without.status.condition("PreflightsPassed") is None


def test_a_ready_object_plans_exactly_what_it_is():
    snapshot = capture_snapshot()
    observed = {"artifact": artifact("capture", "d"), "job": job("succeeded")}
    first = plan(snapshot, **observed)
    record = replace(snapshot.object, status=first.status, wanted_digest=first.wanted_digest)
    second = plan(replace(snapshot, object=record, now=99.0), **observed)
    assert second.status == first.status and second.events == ()


def test_a_damaged_artifact_is_set_aside_and_made_again():
    bad = artifact("capture", "d")
    made = plan(artifact=bad, damage="sha256 differs", job=job("succeeded"))
    assert made.quarantine == bad and made.enqueue is not None
    assert condition_of(made)[0] == "False" and made.status.artifact is None
    assert [event.reason for event in made.events] == ["ArtifactDamaged"]
    assert plan(artifact=bad, damage="x", job=job("running")).enqueue is None


FAILED = replace(
    job("failed", reason="PromptTooLong", message="129 tokens", attempts=1),
    payload=capture.desired(capture_snapshot()).action.payload,
    way=capture.desired(capture_snapshot()).action.way,
)


def test_a_failed_job_stalls_with_its_reason_and_says_so_once():
    snapshot = capture_snapshot()
    made = plan(snapshot, job=FAILED)
    assert condition_of(made, "Stalled") == ("True", "PromptTooLong")
    assert made.enqueue is None and made.result == Failed("PromptTooLong", terminal=True)
    assert [(event.type, event.reason) for event in made.events] == [("Warning", "PromptTooLong")]
    again = replace(snapshot, object=replace(snapshot.object, status=made.status))
    assert plan(again, job=FAILED).events == ()


def test_an_edit_after_the_failure_tries_again_but_only_of_the_object_that_queued_it():
    edited = capture_snapshot()
    edited = replace(edited, object=replace(edited.object, generation=2))
    assert plan(edited, job=FAILED).enqueue is not None
    other = replace(FAILED, object=Key("Capture", "default", "twin"))
    assert plan(edited, job=other).enqueue is None


def test_a_job_that_failed_on_another_way_to_the_same_inputs_is_tried_again():
    moved = {**FAILED.payload, "model": {**FAILED.payload["model"], "folder": "/elsewhere"}}
    made = plan(job=replace(FAILED, payload=moved, way=digest(moved)))
    assert made.enqueue is not None and made.enqueue.payload == FAILED.payload


def test_an_artifact_outweighs_a_failed_job():
    assert condition_of(plan(artifact=artifact("capture", "d"), job=FAILED))[0] == "True"


# -- blocked ---------------------------------------------------------------------------------


def test_a_blocked_plan_asks_to_be_looked_at_again_and_keeps_its_wanted_digest_if_told():
    snapshot = capture_snapshot(facts=None, wanted_digest="w")
    made = plan(snapshot)
    assert made.wanted_digest == "w" and isinstance(made.result, LookAgain)
    assert not made.result.at_once  # as soon as the controller asks for inputs again
    assert condition_of(made, "InputsReady") == ("False", "Resolving")


@pytest.mark.parametrize("terminal", [True, False])
def test_an_input_without_facts_stalls_only_if_a_human_must_act(terminal):
    record = stored("Capture", "cap", capture_spec(), wanted_digest="w")
    inputs = with_inputs(record, None, reason="R", message="why", terminal=terminal)
    made = plan(Snapshot(record, 5.0, inputs=inputs))
    assert (condition_of(made, "Stalled") is not None) == terminal
    assert made.wanted_digest == (None if terminal else "w")
    assert "R: why" in made.status.condition("Ready").message


EXPECTED = {"l0": [1, 2], "fvu": [0, 1]}


def decomposition_snapshot(upstream=None, facts=DICTIONARY, spec=DECOMPOSITION, used="cap-digest"):
    inputs = {"capture": {"digest": used}}
    record = stored("Decomposition", "dec", spec)
    record = replace(record, status=Status(1, inputs=inputs), wanted_digest="w")
    if upstream is None:
        upstream = made_ready(stored("Capture", "cap", capture_spec()), CAPTURED)
    return Snapshot(
        record, 5.0, {CAPTURE_KEY: upstream} if upstream else {},
        artifacts={CAPTURED.digest: CAPTURED}, inputs=with_inputs(record, facts),
    )  # fmt: skip


def test_a_reference_to_nothing_needs_a_human():
    desired = decomposition.desired(decomposition_snapshot(upstream=False))
    assert (desired.reason, desired.terminal) == ("ReferenceNotFound", True)


def test_a_stalled_upstream_is_named_with_its_reason():
    stalled = Condition("Stalled", "True", "DiskFull", "no space", 1)
    upstream = replace(stored("Capture", "cap", capture_spec()), status=Status(1, (stalled,)))
    desired = decomposition.desired(decomposition_snapshot(upstream))
    assert (desired.reason, desired.terminal) == ("UpstreamStalled", True)
    assert "DiskFull: no space" in desired.message


def test_an_upstream_that_rebuilds_the_same_artifact_keeps_the_work_and_an_edited_one_drops_it():
    ready = made_ready(stored("Capture", "cap", capture_spec()), CAPTURED)
    waiting = replace(ready, status=Status(1, (Condition("Ready", "False", "JobPending", "", 1),)))
    same = plan_stage(*blocked(decomposition_snapshot(waiting)), Observed())
    assert same.wanted_digest == "w" and same.status.inputs["capture"]["digest"] == "cap-digest"
    edited = replace(waiting, wanted_digest="another")
    other = plan_stage(*blocked(decomposition_snapshot(edited)), Observed())
    assert other.wanted_digest is None and other.status.inputs == {}


def blocked(snapshot):
    desired = decomposition.desired(snapshot)
    assert isinstance(desired, Blocked) and desired.reason == "InputsNotReady"
    return snapshot, desired


def test_an_upstream_that_is_ready_for_an_older_generation_is_not_ready():
    ready = made_ready(stored("Capture", "cap", capture_spec()), CAPTURED)
    blocked(decomposition_snapshot(replace(ready, generation=2)))


@pytest.mark.parametrize(
    ("facts", "spec", "words"),
    [
        ({**DICTIONARY, "d_in": 9}, {}, "width 9"),
        ({**DICTIONARY, "hook_name": "blocks.1.hook_resid_pre"}, {}, "trained at"),
        (DICTIONARY, {"aggregation": "max"}, "positions: all"),
    ],
)
def test_a_dictionary_that_does_not_fit_needs_a_human(facts, spec, words):
    desired = decomposition.desired(
        decomposition_snapshot(facts=facts, spec={**DECOMPOSITION, **spec})
    )
    assert desired.reason == "InputMismatch" and desired.terminal and words in desired.message


def test_a_dictionary_that_reads_whole_texts_gets_what_its_capture_was_made_from():
    plain = decomposition.desired(decomposition_snapshot()).action
    assert "captured" not in plain.payload
    of_capture = capture.desired(capture_snapshot()).action
    upstream = made_ready(
        stored("Capture", "cap", capture_spec()), CAPTURED, inputs={"model": MODEL}
    )
    facts = {**DICTIONARY, "architecture": "temporal"}
    found = decomposition.desired(decomposition_snapshot(upstream, facts)).action
    assert found.payload == {**plain.payload, "captured": of_capture.payload}
    assert found.declared == {**plain.declared, "captured": of_capture.declared}


def test_a_dictionary_of_another_model_needs_a_human_or_leave_to_use_it():
    other = capture_spec(model={"name": "google/gemma-3-270m"})
    upstream = made_ready(stored("Capture", "cap", other), CAPTURED)
    facts = {**DICTIONARY, "model_names": ["gpt2-small", "gpt2"]}
    desired = decomposition.desired(decomposition_snapshot(upstream, facts))
    assert desired.reason == "InputMismatch" and "trained on gpt2-small" in desired.message
    dictionary = {**DECOMPOSITION["dictionary"], "usableOn": "any"}
    spec = {**DECOMPOSITION, "dictionary": dictionary}
    assert decomposition.desired(decomposition_snapshot(upstream, facts, spec)).action


def decomposed(metrics, model="google/gemma-2-2b-it", **source):
    """Plan a finished decomposition with a dictionary of Gemma 2 2B on a model."""
    spec = capture_spec(model={"name": model, **({"source": source} if source else {})})
    upstream = made_ready(stored("Capture", "cap", spec), CAPTURED)
    facts = {**DICTIONARY, "model_names": ["gemma-2-2b", "google/gemma-2-2b"]}
    dictionary = {**DECOMPOSITION["dictionary"], "usableOn": "any"}
    snapshot = decomposition_snapshot(upstream, facts, {**DECOMPOSITION, "dictionary": dictionary})
    desired = decomposition.desired(snapshot)
    made = artifact("decomposition", desired.action.digest, metrics=metrics)
    return plan_stage(snapshot, desired, Observed(artifact=made))


MEASURED = {"text_fvu": 0.31, "text_l0": 71.2, "text_tokens": 2412}


def test_on_another_model_a_condition_says_with_numbers_whether_the_dictionary_still_fits():
    made = decomposed(MEASURED)
    fits = made.status.condition("DictionaryFits")
    assert (fits.status, fits.reason) == ("True", "Reconstructs")
    assert fits.message == (
        "trained on gemma-2-2b, applied to google/gemma-2-2b-it: FVU 0.31 and L0 71.2 on 2,412 "
        "tokens of calibration text: it explains 69% of the variance; how much on its own model "
        "was not measured"
    )
    assert [event.reason for event in made.events] == ["Ready"]


def test_a_model_that_was_tuned_at_home_is_told_as_well_and_the_same_one_in_a_folder_is_not():
    fits = decomposed(MEASURED, "mine", folder="/models/mine").status.condition("DictionaryFits")
    assert fits.message.startswith("trained on gemma-2-2b, applied to mine: FVU 0.31 and L0 71.2")
    same = decomposed(MEASURED, "gemma-2-2b", folder="/models/x")
    assert same.status.condition("DictionaryFits") is None


def test_a_dictionary_that_does_not_reconstruct_is_a_condition_and_a_warning():
    there = "it would reconstruct at blocks.3.hook_resid_post"
    for model in ("google/gemma-2-2b-it", "google/gemma-2-2b"):
        made = decomposed({**MEASURED, "text_fvu": 1.7, "nearby": there}, model)
        fits = made.status.condition("DictionaryFits")
        assert (fits.status, fits.reason) == ("False", "DoesNotReconstruct")
        assert fits.message.endswith(f"worse than the mean vector; {there}")
        assert [event.reason for event in made.events] == ["Ready", "DoesNotReconstruct"]


def test_on_its_own_model_a_dictionary_that_reconstructs_is_no_condition():
    assert decomposed(MEASURED, "google/gemma-2-2b").status.condition("DictionaryFits") is None
    assert decomposed({}).status.condition("DictionaryFits") is None, "measured before that was"


def test_a_dictionary_of_another_hook_may_be_used_by_leave():
    facts = {**DICTIONARY, "hook_name": "blocks.1.hook_resid_pre"}
    dictionary = {**DECOMPOSITION["dictionary"], "usableAt": "any"}
    spec = {**DECOMPOSITION, "dictionary": dictionary}
    assert decomposition.desired(decomposition_snapshot(facts=facts, spec=spec)).action


def test_a_decomposition_rests_on_content_not_on_thresholds():
    base = digest_of(decomposition.desired(decomposition_snapshot()))
    loose = {**DECOMPOSITION, "selection": {**DECOMPOSITION["selection"], "top": 1}}
    assert digest_of(decomposition.desired(decomposition_snapshot(spec=loose))) == base
    other = replace(CAPTURED, content_digest="other")
    snapshot = replace(decomposition_snapshot(), artifacts={CAPTURED.digest: other})
    assert digest_of(decomposition.desired(snapshot)) != base


SPLIT = capture_spec(
    prompts={name: texts(*(f"{name} {n}" for n in range(12))) for name in ("target", "neutral")}
)


@pytest.mark.parametrize("splits", [{"test": 1.0}, {"test": 0.9}, {"test": 1.0, "seed": 1}])
def test_an_edit_of_a_split_decomposes_again_and_never_captures_again(splits):
    edited = canonical("Capture", {**SPLIT, "splits": splits})
    assert digest_of(capture.desired(capture_snapshot(spec=edited))) == digest_of(
        capture.desired(capture_snapshot(spec=SPLIT))
    )
    whole, divided = (
        decomposition.desired(
            decomposition_snapshot(made_ready(stored("Capture", "cap", spec), CAPTURED))
        )
        for spec in (SPLIT, edited)
    )
    assert digest_of(whole) != digest_of(divided)
    assert whole.action.payload["splits"] == ["discover"] * 24
    assert divided.action.payload["splits"].count("test") in (10, 12)


def test_an_edit_that_leaves_every_prompt_on_its_side_is_no_reason_to_decompose_again():
    upstreams = (
        stored("Capture", "cap", canonical("Capture", {**SPLIT, "splits": splits}))
        for splits in ({"test": 1.0}, {"test": 0.5, "discover": 0.5}, {"test": 1.0, "seed": 0})
    )
    digests = {
        digest_of(decomposition.desired(decomposition_snapshot(made_ready(one, CAPTURED))))
        for one in upstreams
    }
    assert len(digests) == 1


def test_without_a_text_of_its_own_a_capture_takes_the_one_that_is_packaged():
    payload = capture.desired(capture_snapshot()).action.payload
    assert payload["calibrationText"] == list(packaged_texts("calibration"))
    assert len(payload["calibrationText"]) == 106


def test_what_a_dictionary_must_do_on_the_calibration_text_is_part_of_the_work():
    text = {"calibrationText": {"texts": ["ordinary words"]}}
    upstream = made_ready(stored("Capture", "cap", {**capture_spec(), **text}), CAPTURED)
    spec = {**DECOMPOSITION, "calibration": EXPECTED}
    plain = decomposition.desired(decomposition_snapshot(upstream))
    checked = decomposition.desired(decomposition_snapshot(upstream, spec=spec))
    assert checked.action.payload["calibration"] == EXPECTED
    assert digest_of(checked) != digest_of(plain)
    plain_capture, checked_capture = (
        capture.desired(capture_snapshot(spec={**capture_spec(), **more})) for more in ({}, text)
    )
    assert digest_of(plain_capture) != digest_of(checked_capture)
    assert checked_capture.action.payload["calibrationText"] == ["ordinary words"]


def test_without_the_artifact_of_a_ready_upstream_nothing_is_wanted_yet():
    snapshot = replace(decomposition_snapshot(), artifacts={})
    desired = decomposition.desired(snapshot)
    assert (desired.reason, desired.terminal) == ("InputsNotReady", False)
    assert desired.message == "waits for the artifact of capture/cap"


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("all", "everything is paused; loopscope resume --all"),
        ("stage/capture", "the stage capture is paused; loopscope resume --stage capture"),
        ("experiment/default/x", "experiment/x is paused; loopscope resume experiment x"),
        ("experiment/lab/x", "experiment/x is paused; loopscope -n lab resume experiment x"),
    ],
)
def test_a_pause_says_how_it_ends(scope, words):
    assert pause_words(scope) == words


def test_a_shared_artifact_is_named_by_what_it_is_made_from():
    action = Action("capture", {"model": "m"}, {"model": {"identity": "m"}})
    assert needed_json(action) == {
        "digest": action.digest, "contentDigest": None,
        "stage": "capture", "codeRevision": action.code_revision,
    }  # fmt: skip

"""Mapping, steering and the experiment itself: how far a change travels."""

from dataclasses import replace

import pytest

from loopscope.reconcilers import experiment, mapping, steering
from loopscope.reconcilers.plan import Answered, Blocked, Done, Observed, Snapshot
from loopscope.reconcilers.references import object_references
from loopscope.reconcilers.stage import plan_stage
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.specs.packaged import packaged_texts
from loopscope.specs.status import Condition, Status
from tests.hand_built import (
    CAPTURED,
    DECOMPOSITION,
    DICTIONARY,
    MODEL,
    artifact,
    condition_of,
    digest_of,
    made_ready,
    stored,
)
from tests.simulated import canonical, capture_spec, experiment_spec

# -- Mapping and Steering: cut-off early -------------------------------------------------------

MAPPING = canonical("Mapping", {"coarseRef": {"name": "co"}, "fineRef": {"name": "fi"}})


def mapping_snapshot(
    spec=MAPPING, candidates=(3, 1), selection=None, content="a", capture="x", prompts="p"
):
    references, artifacts = {}, {}
    for name in ("co", "fi"):
        table = "p" if name == "co" else prompts
        made = artifact(
            "decomposition", f"{name}-digest", f"{name}-{content}", prompts_parquet=table
        )
        artifacts[made.digest] = made
        taken = "cap-content" if name == "co" else {"x": "cap-content"}.get(capture, capture)
        inputs = {"capture": {"digest": "c", "contentDigest": taken}, "dictionary": DICTIONARY}
        side = {**DECOMPOSITION, "selection": {**DECOMPOSITION["selection"], **(selection or {})}}
        record = stored("Decomposition", name, side)
        summary = {"candidates": list(candidates)}
        references[record.key] = made_ready(record, made, summary, inputs)
    return Snapshot(stored("Mapping", "map", spec), 5.0, references, artifacts=artifacts)


def test_a_mapping_runs_again_when_candidates_or_the_rule_that_chose_them_change():
    base = digest_of(mapping.desired(mapping_snapshot()))
    # the gate's resamples choose candidates again, so ``top`` matters beyond the candidates
    assert digest_of(mapping.desired(mapping_snapshot(selection={"top": 9}))) != base
    assert digest_of(mapping.desired(mapping_snapshot(candidates=(3,)))) != base
    assert digest_of(mapping.desired(mapping_snapshot(content="b"))) != base


def test_the_gates_policy_is_no_reason_to_map_again_and_its_rule_is():
    base = digest_of(mapping.desired(mapping_snapshot()))
    changes = (
        ({"policy": "enforce"}, True),
        ({"sensitivity": False}, True),
        ({"sensitivity": True}, False),
        ({"rule": "strict"}, False),
    )
    for change, same in changes:
        spec = {**MAPPING, "gate": {**MAPPING["gate"], **change}}
        assert (digest_of(mapping.desired(mapping_snapshot(spec))) == base) == same
    assert digest_of(mapping.desired(mapping_snapshot({**MAPPING, "minCosine": 0.4}))) != base


def test_an_anchor_that_the_spec_names_is_part_of_what_a_mapping_is_and_must_be_a_candidate():
    base = digest_of(mapping.desired(mapping_snapshot()))
    assert digest_of(mapping.desired(mapping_snapshot({**MAPPING, "anchor": 1}))) != base
    refused = mapping.desired(mapping_snapshot({**MAPPING, "anchor": 2}))
    assert refused.reason == "InputMismatch" and refused.terminal
    assert "mapping.anchor 2 is no candidate" in refused.message
    assert "3, 1; name one of these" in refused.message


def test_decompositions_of_different_captures_cannot_be_mapped():
    desired = mapping.desired(mapping_snapshot(capture="another"))
    assert desired.reason == "InputMismatch" and desired.terminal


def test_decompositions_that_divide_the_same_capture_differently_cannot_be_mapped():
    desired = mapping.desired(mapping_snapshot(prompts="another"))
    assert desired.reason == "InputMismatch" and desired.terminal
    assert "divide or group their prompts differently" in desired.message


def test_decompositions_that_aggregate_in_two_ways_cannot_be_mapped():
    snapshot = mapping_snapshot()
    fine = snapshot.references[Key("Decomposition", "default", "fi")]
    other = replace(fine, spec={**fine.spec, "aggregation": "max"})
    references = {**snapshot.references, fine.key: other}
    desired = mapping.desired(replace(snapshot, references=references))
    assert desired.reason == "InputMismatch" and desired.terminal
    assert "/co aggregates by last, " in desired.message
    assert "/fi by max; use one" in desired.message


SIDES = {
    name: {
        "object": name, "digest": f"{name}-digest", "contentDigest": f"{name}-content",
        "dictionary": {"identity": f"{name}-dictionary"},
    }
    for name in ("coarse", "fine")
}  # fmt: skip


def steering_snapshot(
    gate="GO", arms=("coarse", "fine"), policy="report", content="m", rules=None, **hashes
):
    spec = canonical("Steering", {
        **experiment_spec()["steering"], "captureRef": {"name": "cap"},
        "mappingRef": {"name": "map"}, "gatePolicy": policy, **(rules or {}),
    })  # fmt: skip
    files = {"directions_safetensors": "s", "directions_json": "j", "pairs_parquet": "p", **hashes}
    mapped = artifact("mapping", "map-digest", content, **files)
    taken = made_ready(stored("Capture", "cap", capture_spec()), CAPTURED, inputs={"model": MODEL})
    ready = made_ready(
        stored("Mapping", "map", MAPPING), mapped, {"verdict": gate, "arms": list(arms)},
        {"capture": {"contentDigest": "cap-content"}, **SIDES},
    )  # fmt: skip
    return Snapshot(
        stored("Steering", "st", spec), 5.0, {taken.key: taken, ready.key: ready},
        artifacts={CAPTURED.digest: CAPTURED, mapped.digest: mapped},
    )  # fmt: skip


def test_a_mapping_with_the_same_directions_does_not_steer_again():
    base = digest_of(steering.desired(steering_snapshot()))
    pairs = steering_snapshot(pairs_parquet="edited", content="edited")
    assert digest_of(steering.desired(pairs)) == base
    turned = steering_snapshot(directions_safetensors="turned")
    assert digest_of(steering.desired(turned)) != base


def test_adding_has_the_payload_that_it_had_before_there_was_clamping():
    """Byte for byte: hashes of the canonical JSON from before the field ``method``."""
    then = {"samplesPerPrompt": 1, "randomDraws": 3}  # the defaults of that time
    for rules in (then, {**then, "method": "add"}):
        action = steering.desired(steering_snapshot(rules=rules)).action
        assert digest(action.payload) == (
            "34f46790c6ce579e8d6938b593f26bfbaf210d797ff54a03b0940c96a92c6eab"
        )
        assert digest(action.declared) == (
            "e875d6f8774fe9652b4a7491195004f7ffbbb1c3696db4fd54cd8946465e27b7"
        )


def test_clamping_is_other_work_than_adding():
    added = steering.desired(steering_snapshot()).action
    clamped = steering.desired(steering_snapshot(rules={"method": "clamp"})).action
    assert clamped.digest != added.digest
    assert clamped.declared == {**added.declared, "method": "clamp"}
    assert clamped.payload == {**added.payload, "method": "clamp"}


@pytest.mark.parametrize("positions", ["generated", "opening", "last", {"index": 0}])
def test_steering_other_tokens_is_other_work_than_steering_all(positions):
    every = steering.desired(steering_snapshot()).action
    assert steering.desired(steering_snapshot(rules={"positions": "all"})).action == every
    narrow = steering.desired(steering_snapshot(rules={"positions": positions})).action
    assert narrow.digest != every.digest
    assert narrow.declared == {**every.declared, "positions": positions}
    assert narrow.payload == {**every.payload, "positions": positions}


@pytest.mark.parametrize("positions", ["assistant", "afterTemplate"])
def test_tokens_of_a_template_cannot_be_steered_after_a_capture_of_plain_text(positions):
    found = steering.desired(steering_snapshot(rules={"positions": positions}))
    assert found == Blocked(
        "InputMismatch",
        f"steering.positions {positions} needs prompts.chat: there is no template without",
        terminal=True,
    )


def test_nothing_is_steered_along_latents_that_read_the_tokens_before(monkeypatch):
    fine = {**SIDES["fine"], "dictionary": {"identity": "x", "architecture": "temporal"}}
    monkeypatch.setitem(SIDES, "fine", fine)
    found = steering.desired(steering_snapshot())
    assert isinstance(found, Blocked) and (found.reason, found.terminal) == ("InputMismatch", True)
    assert "fine of mapping/map: the latents of a temporal dictionary read the" in found.message


def test_a_spec_that_was_stored_before_there_was_clamping_adds():
    now = steering_snapshot()
    new = ("method", "positions")
    older = {name: value for name, value in now.object.spec.items() if name not in new}
    before = replace(now, object=replace(now.object, spec=older))
    assert digest_of(steering.desired(before)) == digest_of(steering.desired(now))


def test_a_steering_without_neutral_texts_takes_the_packaged_ones_without_its_words():
    now = steering_snapshot(rules={"lexicon": {"texts": ["museum", "Paris"]}})
    spec = {name: value for name, value in now.object.spec.items() if name != "neutralText"}
    without = replace(now, object=replace(now.object, spec=spec))
    texts = steering.desired(without).action.payload["neutralText"]
    assert [text for text in packaged_texts("neutral") if text not in texts] == [
        text for text in packaged_texts("neutral") if "museum" in text
    ]
    assert len(texts) == 39
    assert steering.desired(now).action.payload["neutralText"] == spec_texts(now)


def spec_texts(snapshot):
    return snapshot.object.spec["neutralText"]["texts"]


def test_a_system_prompt_brings_a_placebo_and_nothing_else_does():
    assert "placeboPrompt" not in steering.desired(steering_snapshot()).action.payload
    prompted = {"systemPrompt": "Everything here is about one thing."}
    action = steering.desired(steering_snapshot(rules=prompted)).action
    placebo = action.payload["placeboPrompt"]
    assert len(placebo) >= 8 * len(prompted["systemPrompt"])
    assert action.declared["placeboPrompt"] == placebo
    own = steering.desired(steering_snapshot(rules={**prompted, "placeboPrompt": "Well."})).action
    assert own.payload["placeboPrompt"] == "Well."
    assert own.digest != action.digest


@pytest.mark.parametrize(
    ("gate", "policy", "reason"),
    [
        ("NO-GO", "enforce", "GateNoGo"),
        ("INCONCLUSIVE", "enforce", "GateInconclusive"),
        ("NO-GO", "report", None),
        ("GO", "enforce", None),
    ],
)
def test_only_an_enforced_gate_keeps_from_steering(gate, policy, reason):
    desired = steering.desired(steering_snapshot(gate, policy=policy))
    assert (desired.reason if isinstance(desired, Answered) else None) == reason


@pytest.mark.parametrize(("name", "key"), [("capture", "cap"), ("mapping", "map")])
def test_a_steering_keeps_its_work_while_what_it_rests_on_is_made_again_as_it_was(name, key):
    ready = steering_snapshot()
    plan = plan_stage(ready, steering.desired(ready), Observed())
    record = replace(ready.object, status=plan.status, wanted_digest=plan.wanted_digest)
    references = {
        one.key: replace(one, status=Status(1)) if one.key.name == key else one
        for one in ready.references.values()
    }
    waiting = replace(ready, object=record, references=references)
    assert steering.desired(waiting).keep_wanted, name


def test_an_answer_that_rests_on_work_of_older_rules_says_so():
    snapshot = steering_snapshot("NO-GO", policy="enforce")
    answer = steering.desired(snapshot)
    assert condition_of(plan_stage(snapshot, answer, Observed()), "RulesCurrent") is None
    older = Condition("RulesCurrent", "False", "RulesChanged", "mapping revision 1 -> 2", 1)
    references = {
        key: replace(one, status=replace(one.status, conditions=(*one.status.conditions, older)))
        for key, one in snapshot.references.items()
    }
    made = plan_stage(replace(snapshot, references=references), answer, Observed())
    assert condition_of(made, "RulesCurrent") == ("False", "RulesChanged")
    assert condition_of(made, "InputsReady") == ("True", "InputsResolved")


def test_without_a_direction_the_answer_is_not_testable():
    snapshot = steering_snapshot("NO-GO", arms=())
    desired = steering.desired(snapshot)
    made = plan_stage(snapshot, desired, Observed())
    assert made.status.summary["verdict"] == "NotTestable"
    assert condition_of(made) == ("True", "NoAnchor")
    assert (made.enqueue, made.wanted_digest, made.result) == (None, None, Done())


# -- Experiment ------------------------------------------------------------------------------


def test_an_experiment_stands_for_its_children_and_names_them_to_one_another():
    record = stored("Experiment", "x", experiment_spec())
    children = {child.key: child.spec for child in experiment.child_manifests(record)}
    assert set(children) == set(object_references(record)) and len(children) == 5
    for key, spec in children.items():
        assert canonical(key.kind, spec) == spec, "a child's spec is valid and canonical"
        child = stored(key.kind, key.name, spec)
        assert set(object_references(child)) <= set(children)


def experiment_snapshot(ready=(), stalled=(), **changes):
    record = stored("Experiment", "x", experiment_spec(**changes))
    children = []
    for number, child in enumerate(experiment.child_manifests(record)):
        found = replace(stored(child.key.kind, child.key.name, child.spec), owner_uid=record.uid)
        stage = child.key.name.removeprefix("x-")
        conditions = ()
        if ready == "all" or stage in ready:
            conditions = (Condition("Ready", "True", "Succeeded", "", 1),)
        if stage in stalled:
            conditions = (Condition("Stalled", "True", "DiskFull", f"full {number}", 1),)
        children.append(replace(found, status=Status(1, conditions)))
    return Snapshot(record, 5.0, {c.key: c for c in children}, tuple(children))


def test_a_new_experiment_applies_all_its_children_and_is_not_ready():
    snapshot = replace(experiment_snapshot(ready="all"), references={}, children=())
    made = experiment.plan(snapshot)
    assert len(made.apply) == 5 and condition_of(made)[0] == "False"


def test_an_experiment_is_ready_when_all_of_its_children_are():
    made = experiment.plan(experiment_snapshot(ready="all"))
    assert condition_of(made) == ("True", "ChildrenReady")
    assert (made.apply, made.remove) == ((), ())
    waiting = experiment.plan(experiment_snapshot(ready=("capture", "coarse")))
    assert waiting.status.condition("Ready").message.startswith("fine:")
    assert condition_of(waiting, "Stalled") is None


def test_a_stalled_stage_is_named_the_root_first():
    made = experiment.plan(experiment_snapshot(stalled=("steering", "coarse")))
    assert condition_of(made, "Stalled") == ("True", "ChildStalled")
    assert made.status.condition("Ready").message.startswith("coarse needs a human: DiskFull")


def test_an_edited_child_is_put_right_and_a_superfluous_one_removed():
    snapshot = experiment_snapshot(ready="all")
    edited = replace(snapshot.children[3], spec={**snapshot.children[3].spec, "minCosine": 0.9})
    extra = replace(snapshot.children[0], key=Key("Capture", "default", "x-old"))
    made = experiment.plan(
        replace(snapshot, children=(*snapshot.children[:3], edited, snapshot.children[4], extra))
    )
    assert [child.key.name for child in made.apply] == ["x-mapping"]
    assert made.remove == (extra.key,)
    assert condition_of(made)[0] == "False", "not ready while its children are being put right"


def test_a_child_name_that_is_taken_stalls_and_touches_nothing():
    snapshot = experiment_snapshot(ready="all")
    foreign = replace(snapshot.children[3], owner_uid=None)
    taken = replace(
        snapshot,
        children=snapshot.children[:3],
        references={**snapshot.references, foreign.key: foreign},
    )
    made = experiment.plan(taken)
    assert condition_of(made, "Stalled") == ("True", "OwnedByAnother")
    assert (made.apply, made.remove) == ((), ())

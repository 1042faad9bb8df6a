"""What Loopscope computes another way since an upgrade is made again once somebody confirms."""

import json
from dataclasses import replace

import pytest
import yaml

from loopscope.controller.plan import cached
from loopscope.controller.sources.folder_source import RESCAN_SECONDS, FolderSource
from loopscope.reconcilers import experiment as reconciler
from loopscope.specs import actions, former_defaults
from loopscope.specs.actions import CODE_REVISIONS, REVISION_NOTES
from loopscope.specs.former_defaults import is_new_default
from loopscope.specs.merging import asked_fields, leaves
from loopscope.specs.outcomes import OUTCOMES
from loopscope.specs.revisions import revision_words, revisions_of
from loopscope.specs.splits import Splits
from loopscope.state.db import applied, objects
from tests.simulated import Simulation, experiment_spec

STEERING = {
    "strengths": [0.1],
    "prompts": {"texts": ["We went to"]},
    "neutralText": {"texts": ["A plain sentence."]},
    "lexicon": {"texts": ["paris"]},
}
STAGE_NAMES = ("x-capture", "x-coarse", "x-fine", "x-mapping", "x-steering")


def with_steering(spec):
    spec["steering"] = STEERING


@pytest.fixture
def settled(loopscope, experiment, tmp_path):
    """An applied experiment with all of its artifacts."""
    loopscope("apply", "-f", experiment(with_steering))
    simulation = Simulation(tmp_path / "state")
    simulation.settle()
    return simulation


@pytest.fixture
def upgrade(monkeypatch):
    """Return a function that raises the revisions of stages, as another Loopscope does."""

    def to(*stages):
        for stage in stages:
            monkeypatch.setitem(CODE_REVISIONS, stage, 99)
            monkeypatch.setitem(REVISION_NOTES, stage, {99: f"another {stage}"})
        monkeypatch.setattr(cached, "code_identity", lambda: "another")

    return to


def planned(loopscope, path):
    code, out, err = loopscope("plan", "-f", path, "-o", "json")
    assert code == 0, err
    document = json.loads(out)
    return document, {stage["name"]: stage for stage in document["stages"]}


def after_upgrade(simulation):
    """Let the new controller look at everything; return what it ran."""
    simulation.restart()
    return simulation.settle()


def rules(simulation, name):
    condition = simulation.get(name).status.condition("RulesCurrent")
    return condition.message if condition is not None else None


def test_a_controller_of_other_rules_runs_nothing_and_every_object_says_which_rule(
    settled, upgrade
):
    before, was = {name: settled.get(name) for name in STAGE_NAMES}, CODE_REVISIONS["mapping"]
    upgrade("capture", "mapping")
    assert after_upgrade(settled) == []
    assert settled.resync() == []
    for name in STAGE_NAMES:
        record = settled.get(name)
        assert record.ready and record.status.artifact == before[name].status.artifact
        assert record.status.summary == before[name].status.summary
        assert record.wanted_digest == before[name].wanted_digest
    assert f"mapping revision {was} -> 99: another mapping" in rules(settled, "x-mapping")
    assert "--confirm" in rules(settled, "x-mapping")
    assert "mapping/x-mapping" in rules(settled, "x-steering"), "its rules are those of now"
    assert "RulesChanged" in settled.event_reasons("x-mapping")
    experiment = settled.get("x", "Experiment")
    assert experiment.ready and "capture, coarse, fine" in rules(settled, "x")


def test_apply_asks_first_and_plan_names_each_object_with_its_rule_and_its_cost(
    loopscope, experiment, settled, upgrade
):
    path = experiment(with_steering)
    upgrade("mapping", "steering")
    document, stages = planned(loopscope, path)
    assert document["needsConfirmation"] and document["discardsSeconds"] > 0
    assert stages["x-mapping"]["state"] == "to do"
    assert stages["x-mapping"]["why"][0].endswith("-> 99: another mapping")
    assert stages["x-mapping"]["estimatedSeconds"] == 200.0
    assert stages["x-steering"]["ruleChanged"].endswith("-> 99: another steering")
    assert stages["x-fine"]["state"] == "cached" and stages["x-fine"]["ruleChanged"] is None
    assert "asks for --confirm" in loopscope("plan", "-f", path)[1]

    rows = settled.rows()
    code, out, err = loopscope("apply", "-f", path)
    assert (code, out) == (1, "") and "ConfirmationNeeded" in err
    assert "another mapping (mapping/x-mapping)" in err
    assert "another steering (steering/x-steering)" in err
    assert loopscope("apply", "-f", path, "--dry-run") == (code, out, err)
    assert loopscope("apply", "-f", path, "--dry-run", "--confirm")[0] == 0
    assert settled.rows() == rows


def test_confirmed_it_runs_once_and_rests_on_the_rules_of_now(
    loopscope, experiment, settled, upgrade
):
    path = experiment(with_steering)
    upgrade("mapping")
    after_upgrade(settled)
    code, out, _ = loopscope("apply", "-f", path, "--confirm")
    assert code == 0 and "mapping/x-mapping is made again: mapping revision" in out
    assert "RulesConfirmed" in settled.event_reasons("x-mapping")
    assert settled.words()["x-mapping"].startswith("False RulesChanged: it is made again: mapping")
    assert settled.settle()[0] == "mapping"
    assert {rules(settled, name) for name in (*STAGE_NAMES, "x")} == {None}
    assert all(settled.get(name).ready for name in STAGE_NAMES)
    assert loopscope("apply", "-f", path) == (0, "experiment/x unchanged\n", "")
    assert planned(loopscope, path)[0]["needsConfirmation"] is False
    assert settled.resync() == []


def test_an_outcome_that_is_measured_another_way_runs_nothing_until_somebody_confirms(
    loopscope, experiment, settled, upgrade, monkeypatch
):
    path, before = experiment(with_steering), settled.get("x-steering")
    for revision, words in ((2, "1 -> 2: counts twice"), (3, "2 -> 3: counts once")):
        notes = {revision: words.partition(": ")[2]}
        newer = replace(OUTCOMES["lexicon"], revision=revision, notes=notes)
        monkeypatch.setitem(OUTCOMES, "lexicon", newer)
        upgrade()
        assert after_upgrade(settled) == []
        record = settled.get("x-steering")
        assert record.ready and record.status.artifact == before.status.artifact
        assert f"outcome lexicon revision {words}" in rules(settled, "x-steering")
        assert rules(settled, "x-mapping") is None
        stages = planned(loopscope, path)[1]
        assert stages["x-steering"]["ruleChanged"] == f"outcome lexicon revision {words}"
        assert stages["x-mapping"]["state"] == "cached"
        assert loopscope("apply", "-f", path)[0] == 1
        assert loopscope("apply", "-f", path, "--confirm")[0] == 0
        assert settled.settle() == ["steering"]
        before = settled.get("x-steering")
        assert before.ready and rules(settled, "x-steering") is None
        assert settled.resync() == []


def test_a_file_that_did_not_change_asks_also_once_a_controller_has_seen_everything(
    loopscope, experiment, settled, upgrade
):
    path = experiment(with_steering)
    upgrade("steering")
    after_upgrade(settled)
    assert "unchanged, nothing to run" not in loopscope("plan", "-f", path)[1]
    for _ in range(2):
        code, _, err = loopscope("apply", "-f", path)
        assert code == 1 and "another steering" in err


def test_an_edit_needs_the_same_word_and_then_all_of_it_runs(
    loopscope, experiment, settled, upgrade
):
    path = experiment(lambda spec: (with_steering(spec), spec.update(mapping={"minCosine": 0.5})))
    upgrade("capture")
    after_upgrade(settled)
    assert loopscope("apply", "-f", path)[0] == 1
    assert loopscope("apply", "-f", path, "--confirm")[0] == 0
    assert settled.settle()[0] == "capture"
    assert settled.get("x-mapping").ready and rules(settled, "x-capture") is None


def test_an_edit_that_nobody_confirmed_makes_it_wait_for_somebody(settled, upgrade):
    """A watched folder applies edits without asking."""
    upgrade("capture", "decomposition", "mapping", "steering")
    after_upgrade(settled)
    spec = settled.get("x", "Experiment").spec
    settled.apply({**spec, "mapping": {**spec["mapping"], "minCosine": 0.5}}, "x")
    assert settled.settle() == []
    record = settled.get("x-mapping")
    assert record.stalled and record.status.condition("Stalled").reason == "RulesChanged"
    assert "its spec was edited" in rules(settled, "x-mapping")
    assert record.status.artifact is not None, "nothing is lost"


def test_an_edit_that_nobody_confirmed_is_taken_back_and_all_is_as_before(settled, upgrade):
    before = {name: settled.get(name).status for name in STAGE_NAMES}
    upgrade("mapping")
    after_upgrade(settled)
    spec = settled.get("x", "Experiment").spec
    for cosine in (0.5, 0.6):
        settled.apply({**spec, "mapping": {**spec["mapping"], "minCosine": cosine}}, "x")
        assert settled.settle() == []
        assert settled.get("x-mapping").stalled
    settled.apply(spec, "x")
    assert settled.settle() == []
    record = settled.get("x-mapping")
    assert record.ready and not record.stalled
    assert record.status.artifact == before["x-mapping"].artifact
    assert "its spec was edited" not in rules(settled, "x-mapping")
    assert settled.get("x", "Experiment").ready and settled.get("x-steering").ready


def test_what_is_new_does_not_rest_on_work_of_older_rules(loopscope, settled, upgrade, tmp_path):
    upgrade("decomposition")
    after_upgrade(settled)
    own = {
        "apiVersion": "loopscope.dev/v1alpha1",
        "kind": "Mapping",
        "metadata": {"name": "own"},
        "spec": {
            "coarseRef": {"name": "x-coarse"}, "fineRef": {"name": "x-fine"}, "minCosine": 0.7,
        },
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    assert loopscope("apply", "-f", tmp_path / "own.yaml")[0] == 0
    assert settled.settle() == []
    stalled = settled.get("own").status.condition("Stalled")
    assert stalled.reason == "RulesChanged" and "decomposition/x-coarse" in stalled.message


def test_a_new_experiment_beside_an_old_one_runs_at_once(
    loopscope, experiment, settled, upgrade, tmp_path
):
    upgrade("capture", "decomposition", "mapping", "steering")
    after_upgrade(settled)
    text = experiment(with_steering).read_text().replace("name: x\n", "name: y\n", 1)
    (tmp_path / "specs" / "y.yaml").write_text(text)
    assert loopscope("apply", "-f", tmp_path / "specs" / "y.yaml", "--root", tmp_path)[0] == 0
    assert settled.settle()[0] == "capture"
    assert settled.get("y-mapping").ready and rules(settled, "y") is None
    assert [job for _ in range(4) for job in settled.resync()] == []
    assert settled.get("x-steering").ready and rules(settled, "x") is None, "equal work is there"


def test_a_protected_experiment_is_left_as_it_is(loopscope, experiment, settled, upgrade):
    def protect(text):
        return text.replace(
            "name: x\n", 'name: x\n  annotations: {loopscope.dev/protect: "true"}\n'
        )

    path = experiment(with_steering, protect)
    loopscope("apply", "-f", path)
    upgrade("mapping")
    after_upgrade(settled)
    assert loopscope("apply", "-f", path) == (0, "experiment/x unchanged\n", "")
    assert loopscope("apply", "-f", path, "--confirm")[0] == 0
    assert settled.settle() == [] and settled.get("x-mapping").ready
    assert planned(loopscope, path)[0]["needsConfirmation"] is False

    def edit(spec):
        with_steering(spec)
        spec["mapping"] = {"minCosine": 0.5}

    code, _, err = loopscope("apply", "-f", experiment(edit, protect), "--confirm")
    assert code == 1 and "Protected" in err


def test_what_is_of_older_rules_can_be_protected_as_it_is(loopscope, experiment, settled, upgrade):
    def protect(text):
        return text.replace(
            "name: x\n", 'name: x\n  annotations: {loopscope.dev/protect: "true"}\n'
        )

    before = settled.get("x-mapping").status.artifact
    upgrade("mapping")
    after_upgrade(settled)
    path = experiment(with_steering, protect)
    assert planned(loopscope, path)[0]["needsConfirmation"] is False
    code, out, err = loopscope("apply", "-f", path)
    assert code == 0 and "made again" not in out, err
    assert settled.settle() == [] and settled.get("x-mapping").status.artifact == before
    assert loopscope("apply", "-f", experiment(with_steering))[0] == 0, "it asks for the next one"
    assert settled.settle() == []
    assert loopscope("apply", "-f", experiment(with_steering))[0] == 1


def test_a_protected_experiment_does_not_follow_another_that_had_the_same_work(
    loopscope, experiment, settled, upgrade, tmp_path
):
    twin = '  annotations: {loopscope.dev/protect: "true"}\n'
    path = experiment(with_steering)
    text = path.read_text().replace("name: x\n", f"name: y\n{twin}", 1)
    (tmp_path / "specs" / "y.yaml").write_text(text)
    assert loopscope("apply", "-f", tmp_path / "specs" / "y.yaml", "--root", tmp_path)[0] == 0
    settled.settle()
    before = settled.get("y-mapping").status
    upgrade("mapping")
    after_upgrade(settled)
    assert loopscope("apply", "-f", path, "--confirm")[0] == 0
    assert settled.settle()[0] == "mapping"
    assert [job for _ in range(3) for job in settled.resync()] == []
    assert rules(settled, "x-mapping") is None
    assert settled.get("y-mapping").ready
    assert settled.get("y-mapping").status.artifact == before.artifact
    assert "mapping/y-mapping" in rules(settled, "y-steering")


@pytest.mark.parametrize("asked", ["x", "y"])
def test_nothing_that_a_protected_experiment_rests_on_is_made_anew_on_request(
    loopscope, experiment, settled, tmp_path, asked
):
    shield = '  annotations: {loopscope.dev/protect: "true"}\n'
    text = experiment(with_steering).read_text().replace("name: x\n", f"name: y\n{shield}", 1)
    (tmp_path / "specs" / "y.yaml").write_text(text)
    assert loopscope("apply", "-f", tmp_path / "specs" / "y.yaml", "--root", tmp_path)[0] == 0
    settled.settle()
    rows = settled.rows()
    code, _, err = loopscope("rerun", asked, "--from", "mapping")
    assert code == 1 and "Protected" in err and "experiment/y" in err
    assert settled.rows() == rows


def test_new_code_alone_edits_no_child(settled, upgrade, monkeypatch):
    old = reconciler.child_manifests

    def other_manifests(record):
        return [
            type(child)(child.key, {**child.spec, "maxTokens": 77}, child.labels)
            if child.key.kind == "Capture"
            else child
            for child in old(record)
        ]

    upgrade("capture")
    monkeypatch.setattr(reconciler, "child_manifests", other_manifests)
    generation = settled.get("x-capture").generation
    assert after_upgrade(settled) == []
    assert settled.get("x-capture").generation == generation and settled.get("x-capture").ready


def test_a_sweep_says_it_of_its_cells_and_is_confirmed_as_a_whole(
    loopscope, experiment, tmp_path, upgrade
):
    matrix = {"tokens": {"few": {"maxTokens": 64}, "many": {"maxTokens": 128}}}
    path = experiment(lambda spec: spec.update(matrix=matrix))
    assert loopscope("apply", "-f", path)[0] == 0
    simulation = Simulation(tmp_path / "state")
    simulation.settle()
    upgrade("mapping")
    assert after_upgrade(simulation) == []
    assert "x-few, x-many rest on work of older rules" in rules(simulation, "x")
    assert simulation.get("x", "Experiment").ready
    stages = planned(loopscope, path)[1]
    assert stages["x-few-mapping"]["state"] == stages["x-many-mapping"]["state"] == "to do"
    assert stages["x-few-fine"]["state"] == "cached"
    assert "mapping/x-few-mapping, mapping/x-many-mapping" in loopscope("apply", "-f", path)[2]
    assert loopscope("apply", "-f", path, "--confirm")[0] == 0
    assert set(simulation.settle()) == {"mapping"} and rules(simulation, "x") is None


def test_why_names_the_rule_before_and_after_it_was_confirmed(
    loopscope, experiment, settled, upgrade
):
    path = experiment(with_steering)
    upgrade("mapping")
    after_upgrade(settled)
    out = loopscope("why", "experiment", "x")[1]
    assert "because mapping/x-mapping: of older rules" in out and "another mapping" in out
    assert "condition  RulesCurrent=False RulesChanged" in out
    assert "next (you): nothing runs before that is confirmed" in out
    loopscope("apply", "-f", path, "--confirm")
    settled.step_until_running()
    assert "-> 99: another mapping" in loopscope("why", "mapping", "x")[1]


def test_nothing_is_made_anew_from_work_of_older_rules_on_request_either(
    loopscope, settled, upgrade
):
    upgrade("mapping")
    after_upgrade(settled)
    rows = settled.rows()
    code, _, err = loopscope("rerun", "x", "--from", "steering")
    assert code == 1 and "RulesChanged" in err and "mapping/x-mapping" in err
    assert settled.rows() == rows


# -- defaults ---------------------------------------------------------------------------


@pytest.fixture
def former(settled, monkeypatch):
    """The settled experiment as another default had made it; return the words for the change."""
    stored = settled.get("x", "Experiment")
    default = stored.spec["steering"]["maxNewTokens"]
    steering = {**stored.spec["steering"], "maxNewTokens": default + 7}
    spec = {**stored.spec, "steering": steering}
    now = settled.clock.now()
    with settled.state.database.write() as connection:
        objects.apply(connection, stored.key, spec, now=now, annotations=stored.annotations)
        last = applied.get(connection, stored.key, stored.uid)
        applied.record(connection, replace(last, fields=asked_fields(spec)))
    settled.settle()
    field = "steering.maxNewTokens"
    monkeypatch.setitem(former_defaults.FORMER_DEFAULTS, field, (default + 7,))
    return f"spec.{field}: {default + 7} -> {default} (the default changed)"


def test_a_default_that_changed_is_named_and_asks_before_work_is_discarded(
    loopscope, experiment, settled, former
):
    path = experiment(with_steering)
    assert former in loopscope("plan", "-f", path)[1]
    code, _, err = loopscope("apply", "-f", path)
    assert code == 1 and "ConfirmationNeeded" in err and former in err
    assert loopscope("apply", "-f", path, "--confirm")[0] == 0
    assert settled.settle() == []
    assert settled.get("x-steering").ready, "its first artifact is there again"


def test_a_watched_folder_does_not_apply_a_default_that_would_discard_work(
    loopscope, experiment, settled, former, tmp_path
):
    path = experiment(with_steering)
    source = FolderSource(settled.state, path.parent, tmp_path, lambda: None, settled.clock)
    settled.clock.advance(RESCAN_SECONDS)
    assert source.scan_if_due() == []
    assert settled.settle() == []
    record = settled.get("x", "Experiment")
    assert record.ready and record.status.condition("SourceValid").status == "False"
    assert former in record.status.condition("SourceValid").message
    assert loopscope("apply", "-f", path, "--confirm", "--root", tmp_path)[0] == 0
    settled.clock.advance(RESCAN_SECONDS)
    source.scan_if_due()
    settled.settle()
    assert settled.get("x", "Experiment").status.condition("SourceValid") is None


@pytest.mark.parametrize(
    ("field", "stated", "expected"),
    [
        ("steering.samplesPerPrompt", {}, True),
        ("steering.samplesPerPrompt", {"steering": {"samplesPerPrompt": 2}}, False),
        ("splits.test", {}, True),
        ("splits.test", {"splits": {"seed": 3}}, False),
        ("steering.maxNewTokens", {}, False),
    ],
)
def test_a_field_that_the_file_does_not_say_changed_by_its_default(field, stated, expected):
    before = leaves({"steering": {"samplesPerPrompt": 1, "maxNewTokens": 24}})
    after = leaves(
        {"steering": {"samplesPerPrompt": 2, "maxNewTokens": 25}, "splits": {"test": 0.5}}
    )
    given = set(leaves(stated)) if stated else set()
    assert is_new_default("Experiment", tuple(field.split(".")), before, after, given) is expected


def test_an_object_of_its_own_has_the_same_new_defaults():
    before, after = leaves({"samplesPerPrompt": 1}), leaves({"samplesPerPrompt": 2})
    assert is_new_default("Steering", ("samplesPerPrompt",), before, after, set())
    assert not is_new_default("Steering", ("samplesPerPrompt",), before, after, set(before))
    assert not is_new_default("Mapping", ("samplesPerPrompt",), before, after, set())


def test_former_defaults_are_fields_of_a_spec():
    spec = {**experiment_spec(), "splits": Splits(test=0.5).canonical()}
    known = {".".join(path) for path in leaves(spec)}
    assert set(former_defaults.FORMER_DEFAULTS) <= known


# -- the table --------------------------------------------------------------------------


def test_every_revision_of_now_and_later_says_what_it_changed():
    for stage in CODE_REVISIONS:
        assert CODE_REVISIONS[stage] in REVISION_NOTES[stage] or CODE_REVISIONS[stage] <= 2
        told = sorted(REVISION_NOTES[stage]) or [1]
        assert told == list(range(told[0], told[-1] + 1)), "no revision is left out"
    for outcome in OUTCOMES.values():
        assert sorted(outcome.notes) == list(range(2, outcome.revision + 1))


def test_revision_words_join_what_each_step_changed(monkeypatch):
    monkeypatch.setitem(actions.CODE_REVISIONS, "mapping", 5)
    monkeypatch.setitem(actions.REVISION_NOTES, "mapping", {4: "one thing", 5: "another"})
    assert revision_words("mapping", 3) == "mapping revision 3 -> 5: one thing; another"


def test_a_manifest_names_the_rules_that_made_it():
    counted = {"lexicon": "3 texts", "lexiconRevision": 4, "hook": "blocks.1.hook_resid_post"}
    manifest = {"stage": "steering", "codeRevision": 7, "inputs": counted}
    assert revisions_of(manifest) == {"steering": 7, "outcome lexicon": 4}
    del counted["lexiconRevision"]
    assert revisions_of(manifest)["outcome lexicon"] == 1, "made before revisions were counted"
    assert revisions_of({**manifest, "stage": "mapping"}) == {"mapping": 7}


# -- going back: an older Loopscope over a state of this schema ------------------------------


def test_going_back_finds_the_work_of_before_and_runs_nothing(
    loopscope, experiment, settled, upgrade, monkeypatch
):
    path = experiment(with_steering)
    with monkeypatch.context() as newer:
        for stage in ("mapping", "steering"):
            newer.setitem(CODE_REVISIONS, stage, 99)
        after_upgrade(settled)
        assert loopscope("apply", "-f", path, "--confirm")[0] == 0
        assert settled.settle() == ["mapping", "steering"]
    assert after_upgrade(settled) == []
    assert all(settled.get(name).ready for name in STAGE_NAMES)
    assert rules(settled, "x-mapping") is None


def test_going_back_makes_again_without_asking_what_only_newer_rules_made(
    loopscope, experiment, tmp_path, monkeypatch
):
    """An older Loopscope cannot know what a newer one changed."""
    with monkeypatch.context() as newer:
        newer.setitem(CODE_REVISIONS, "mapping", 99)
        loopscope("apply", "-f", experiment(with_steering))
        simulation = Simulation(tmp_path / "state")
        simulation.settle()
    assert after_upgrade(simulation)[0] == "mapping"


def test_a_field_of_a_newer_loopscope_goes_when_the_older_one_applies_the_file(
    loopscope, experiment, settled, upgrade
):
    path = experiment(with_steering)
    stored = settled.get("x", "Experiment")
    with settled.state.database.write() as connection:
        spec = {**stored.spec, "ofTomorrow": True}
        objects.apply(
            connection, stored.key, spec, now=settled.clock.now(), annotations=stored.annotations
        )
        last = applied.get(connection, stored.key, stored.uid)
        applied.record(connection, replace(last, fields=asked_fields(spec)))
    upgrade()
    assert after_upgrade(settled) == []
    assert loopscope("apply", "-f", path) == (0, "experiment/x configured\n", "")
    assert settled.settle() == []
    assert settled.get("x", "Experiment").spec == stored.spec
    assert all(settled.get(name).ready for name in (*STAGE_NAMES,))

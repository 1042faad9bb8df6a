"""A change is looked at once by whom it concerns, and by nobody whom it cannot concern."""

from dataclasses import replace

import pytest

from loopscope.controller.reconcile import looks as looks_module
from loopscope.controller.reconcile.dependants import Dependants
from loopscope.controller.reconcile.looks import Looks
from loopscope.reconcilers.newest_job import job_words
from loopscope.specs.keys import PROTECT_ANNOTATION, Key
from loopscope.specs.status import Condition, Status
from loopscope.state.db import objects
from loopscope.state.records import ObjectRecord
from tests.simulated import Simulation, capture_spec, experiment_spec

OWNER = Key("Experiment", "default", "e")


def record(kind, name, spec=None, owner=OWNER, **changes):
    key = Key(kind, "default", name)
    made = ObjectRecord(key, f"uid of {name}", 1, 1, spec or {}, Status(), 0.0, owner=owner)
    return replace(made, **changes)


CAPTURE = record("Capture", "e-capture", capture_spec())
COARSE = record(
    "Decomposition",
    "e-coarse",
    {"captureRef": {"name": "e-capture"}, "dictionary": {"path": "/coarse"}},
)
EXPERIMENT = record("Experiment", "e", experiment_spec(), owner=None)
FAMILY = (CAPTURE, COARSE, EXPERIMENT)


@pytest.fixture
def looks():
    """An experiment whose objects were all looked at as of version 10."""
    known = Looks(Dependants())
    known.dependants.replace(FAMILY)
    known.asked_for({one.key: 10 for one in FAMILY}, FAMILY)
    known.asked_for({}, [])
    for one in FAMILY:
        known.took(one.key, 10)
    return known


def test_a_change_asks_for_the_object_then_for_what_names_it_and_last_for_its_owner(looks):
    assert looks.asked_for({CAPTURE.key: 11}, [CAPTURE]) == [CAPTURE.key, COARSE.key]
    assert looks.asked_for({}, []) == [EXPERIMENT.key]
    assert looks.asked_for({}, []) == []


def test_a_look_that_has_seen_the_change_already_is_not_taken_again(looks):
    looks.took(COARSE.key, 11)
    assert looks.asked_for({CAPTURE.key: 11}, [CAPTURE]) == [CAPTURE.key]
    looks.took(EXPERIMENT.key, 11)
    assert looks.asked_for({}, []) == []


def test_a_look_that_had_read_before_the_change_is_taken_again(looks):
    looks.took(COARSE.key, 10)
    assert COARSE.key in looks.asked_for({CAPTURE.key: 11}, [CAPTURE])


def test_a_status_that_answers_its_own_plan_asks_for_the_others_alone(looks):
    looks.answered(CAPTURE.key, 11)
    assert looks.asked_for({CAPTURE.key: 11}, [CAPTURE]) == [COARSE.key]
    assert CAPTURE.key in looks.asked_for({CAPTURE.key: 12}, [CAPTURE]), "somebody else's write"


def test_the_status_of_an_owner_is_nothing_to_what_it_owns_and_its_annotations_are(looks):
    assert looks.asked_for({OWNER: 11}, [EXPERIMENT]) == [OWNER]
    protected = replace(EXPERIMENT, annotations={PROTECT_ANNOTATION: "true"})
    assert looks.asked_for({OWNER: 12}, [protected]) == [CAPTURE.key, COARSE.key, OWNER]
    assert looks.asked_for({OWNER: 13}, [protected]) == [OWNER]
    edited = replace(protected, generation=2)
    assert CAPTURE.key in looks.asked_for({OWNER: 14}, [edited])


def waiting(record, reason, since=0.0, **changes):
    said = Condition("Ready", "False", reason, reason, record.generation, since)
    status = Status(record.generation, (said,))
    return replace(record, status=status, **changes)


def test_a_step_of_what_is_under_way_concerns_its_owner_alone(looks):
    queued = waiting(CAPTURE, "JobPending", wanted_digest="d")
    assert COARSE.key in looks.asked_for({CAPTURE.key: 11}, [queued])
    runs = waiting(CAPTURE, "JobRunning", wanted_digest="d")
    assert looks.asked_for({CAPTURE.key: 12}, [runs]) == [CAPTURE.key]
    assert looks.asked_for({}, []) == [OWNER]


@pytest.mark.parametrize(
    "then",
    [
        waiting(CAPTURE, "JobPending", wanted_digest="e"),
        waiting(CAPTURE, "JobPending", wanted_digest="d", since=9.0),
        waiting(CAPTURE, "JobPending", wanted_digest="d", uid="another"),
        replace(CAPTURE, status=Status(1, (Condition("Ready", "True", "Succeeded", "", 1),))),
        replace(CAPTURE, status=Status(1, (Condition("Stalled", "True", "Bad", "", 1),))),
    ],
    ids=["wants other work", "was Ready in between", "another one", "Ready", "Stalled"],
)
def test_what_decides_for_those_that_wait_concerns_them(looks, then):
    queued = waiting(CAPTURE, "JobPending", wanted_digest="d")
    looks.asked_for({CAPTURE.key: 11}, [queued])
    assert COARSE.key in looks.asked_for({CAPTURE.key: 12}, [then])
    assert COARSE.key in looks.asked_for({CAPTURE.key: 13}, [queued]), "and so does the way back"


def test_every_change_of_what_is_ready_or_stalled_concerns_what_names_it(looks):
    ready = replace(CAPTURE, status=Status(1, (Condition("Ready", "True", "Succeeded", "", 1),)))
    for version in (11, 12):
        assert COARSE.key in looks.asked_for({CAPTURE.key: version}, [ready])


def test_a_deleted_object_concerns_what_named_it_and_its_successor_is_looked_at(looks):
    assert looks.asked_for({CAPTURE.key: 11}, []) == [CAPTURE.key, COARSE.key]
    looks.took(COARSE.key, 11)
    assert looks.asked_for({}, []) == [OWNER], "it names what it should own"
    assert CAPTURE.key in looks.asked_for({CAPTURE.key: 12}, [CAPTURE])


def test_after_another_history_versions_mean_nothing(looks):
    looks.forget_all()
    changed = dict.fromkeys((one.key for one in FAMILY), 3)
    assert looks.asked_for(changed, FAMILY) == [one.key for one in FAMILY]


def test_an_owner_gets_its_turn_however_much_goes_on(looks):
    for version in range(11, 11 + looks_module.OWNERS_WAIT_ROUNDS_MAX):
        assert OWNER not in looks.asked_for({CAPTURE.key: version}, [CAPTURE])
    assert OWNER in looks.asked_for({CAPTURE.key: 1000}, [CAPTURE])


# -- with the loop ---------------------------------------------------------------------------------


def test_a_job_that_was_added_and_waits_changes_no_word(tmp_path):
    simulation = Simulation(tmp_path / "state", slots=0)
    simulation.apply()
    for _ in range(3):
        simulation.step()
    (job,) = simulation.jobs()
    assert job.state == "pending" and job_words("capture", job) == job_words("capture", None)


def test_while_an_experiment_runs_most_looks_write(tmp_path, monkeypatch):
    """Those that do not are the ones that a resync asks for, and one or two at each edge."""
    simulation = Simulation(tmp_path / "state", slots=4, resync_seconds=3600.0)
    taken, took = [], Looks.took
    monkeypatch.setattr(
        Looks, "took", lambda self, key, at: (taken.append(key), took(self, key, at))
    )
    simulation.apply()
    simulation.settle()
    with simulation.state.database.read() as connection:
        written = objects.resource_version(connection)
    assert len(taken) < 1.5 * written


def test_an_annotation_of_an_owner_reaches_what_it_owns_at_once(tmp_path):
    simulation = Simulation(tmp_path / "state", resync_seconds=3600.0)
    simulation.apply()
    simulation.settle()
    seen = []
    process = simulation.controller._reconciling.process
    simulation.controller._reconciling.process = lambda key: (seen.append(key), process(key))
    with simulation.state.database.write() as connection:
        owner = objects.get(connection, Key("Experiment", "default", "france"))
        objects.annotate(connection, owner, PROTECT_ANNOTATION, "true")
    simulation.step()
    assert {key.name for key in seen} >= {"france-capture", "france-steering", "france"}

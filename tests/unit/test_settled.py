"""Settled: every object was acted on as it is now, and no work is left."""

from dataclasses import replace

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import jobs, objects
from loopscope.state.retry_policy import RetryPolicy
from loopscope.views.settled import Family, family, is_settled
from tests.simulated import Simulation, experiment_spec

FRANCE = Key("Experiment", "default", "france")


def settled_by_itself(simulation):
    with simulation.state.database.read() as connection:
        return is_settled(connection, family(connection, [FRANCE]))


def rewrite(simulation, name, edit):
    """Write a status as somebody might who was overtaken by an edit."""
    with simulation.state.database.write() as connection:
        record = objects.get(connection, simulation.get(name).key)
        objects.update_status(connection, record, edit(record.status), record.wanted_digest)


def test_an_edited_object_is_not_settled_however_ready_it_was(settled):
    assert settled_by_itself(settled)
    settled.apply(experiment_spec(maxTokens=99))
    assert not settled_by_itself(settled)
    settled.settle()
    assert settled_by_itself(settled)


@pytest.mark.parametrize("type_", ["Ready", "Stalled"])
@pytest.mark.parametrize("observed", ["status", "condition", "both"])
def test_what_was_seen_of_an_older_generation_settles_nothing(settled, type_, observed):
    """Whichever of the two generations of a status is the older one."""
    settled.apply(experiment_spec(gate={"policy": "enforce"}))
    settled.settle()
    record = settled.get("france")
    assert record.generation == 2 == record.status.observed_generation
    told = replace(record.status.condition("Ready"), type=type_, status="True")
    with settled.state.database.write() as connection:
        status_of = 1 if observed in ("status", "both") else 2
        condition_of = 1 if observed in ("condition", "both") else 2
        status = replace(
            record.status,
            observed_generation=status_of,
            conditions=(replace(told, observed_generation=condition_of),),
        )
        connection.execute(
            objects.tables.objects.update()
            .where(objects.tables.objects.c.name == "france")
            .values(status=status.to_json())
        )
    assert not settled_by_itself(settled)


def test_a_child_that_is_not_settled_keeps_its_owner_from_it(settled):
    def not_ready(status):
        told = [replace(c, status="False") for c in status.conditions]
        return replace(status, conditions=tuple(told))

    rewrite(settled, "france-steering", not_ready)
    assert settled.get("france").ready and not settled_by_itself(settled)


def test_an_active_job_of_a_ready_object_keeps_it_from_being_settled(settled):
    """As when a job is retried by hand although its artifact exists."""
    done = next(job for job in settled.jobs() if job.stage == "mapping")
    with settled.state.database.write() as connection:
        again = jobs.retry(connection, done.id, now=settled.clock.now())
    assert not settled_by_itself(settled), "it is pending"
    with settled.state.database.write() as connection:
        job = jobs.claim(connection, again, "w", 30.0, now=settled.clock.now())
    assert not settled_by_itself(settled), "it is running"
    with settled.state.database.write() as connection:
        jobs.fail(connection, job.id, job.token, "Odd", "m", transient=True,
                  now=settled.clock.now(), policy=RetryPolicy())  # fmt: skip
    assert not settled_by_itself(settled), "it waits for its next try"
    with settled.state.database.write() as connection:
        jobs.cancel(connection, job.id, "Cancelled", "by hand", now=settled.clock.now())
    assert settled_by_itself(settled)


def test_a_stalled_object_is_settled(settled):
    settled.workers.failures["mapping"] = ("Odd", False)
    settled.apply(experiment_spec(mapping={"minCosine": 0.5}))
    settled.settle()
    assert settled.get("france-mapping").stalled and settled_by_itself(settled)


def test_whoever_looks_often_reads_a_family_again_only_once_an_object_changed(settled, monkeypatch):
    """At each step of a run of many experiments; of a family it reads what was modified."""
    looked, reads = Family([FRANCE]), []
    monkeypatch.setattr(objects, "owned_by", reading(reads, objects.owned_by))

    def now():
        with settled.state.database.read() as connection:
            reads.clear()
            found = looked.read(connection)
            asked = list(reads)
            assert found == family(connection, [FRANCE])
            return found, asked

    found, asked = now()
    assert {record.ready for record in found} == {True} and asked
    assert now() == (found, [])
    settled.apply(experiment_spec(maxTokens=99))
    found, asked = now()
    assert found[0].generation == 2 and asked == []
    settled.apply(experiment_spec(maxTokens=99, ablation={}))
    settled.step()
    found, asked = now()
    assert "Ablation" in {record.key.kind for record in found} and asked == []


@pytest.mark.parametrize("change", ["a child more", "a child less", "gone", "a long absence"])
def test_a_family_that_changed_in_any_way_is_what_a_first_look_finds(settled, change, monkeypatch):
    looked = Family([FRANCE])

    def same():
        with settled.state.database.read() as connection:
            assert looked.read(connection) == family(connection, [FRANCE])

    same()
    if change == "a child more":
        settled.apply(experiment_spec(ablation={}))
    elif change == "a child less":
        settled.apply({k: v for k, v in experiment_spec().items() if k != "steering"})
    elif change == "gone":
        settled.delete("france")
    else:
        monkeypatch.setattr(objects, "CHANGES_KEPT", 1)
        for tokens in (50, 60, 70):
            settled.apply(experiment_spec(maxTokens=tokens))
    same()
    settled.settle()
    same()


def test_a_family_takes_in_what_is_born_owners_and_owned_in_any_order(tmp_path):
    """An object of the keys that was not there yet, with all that it makes."""
    simulation = Simulation(tmp_path / "state")
    keys = [Key("Experiment", "default", name) for name in ("peru", "france", "nobody")]
    looked = Family(keys)
    for name in ("france", "peru", "chile"):
        simulation.apply(experiment_spec(), name)
        for _ in range(3):
            with simulation.state.database.read() as connection:
                assert looked.read(connection) == family(connection, keys)
                words = {record.key: record.ready for record in looked.unsettled}
                assert set(words.values()) <= {False}
            simulation.step()
    simulation.settle()
    with simulation.state.database.read() as connection:
        found = looked.read(connection)
        assert found == family(connection, keys) and {one.ready for one in found} == {True}
        assert looked.unsettled == [] and looked.is_settled(connection)


def test_only_what_can_own_something_is_asked_what_it_owns(settled, monkeypatch):
    reads = []
    monkeypatch.setattr(objects, "owned_by", reading(reads, objects.owned_by))
    with settled.state.database.read() as connection:
        found = family(connection, [FRANCE])
    assert len(found) > 4 and reads == [found[0].uid]


def reading(reads, owned_by):
    """Return the reader of what an object owns that notes whom it was asked of."""
    return lambda connection, uid: reads.append(uid) or owned_by(connection, uid)

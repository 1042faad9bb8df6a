"""A namespace holds no more than its quota; who waits for it is told by whom it is held."""

import json

import pytest

from loopscope.controller.config import load_config
from loopscope.controller.jobs.queue_view import read_view
from loopscope.controller.jobs.scheduling import Limits, RunningJob, schedule
from loopscope.controller.settings import Settings
from loopscope.reports.tables.queue import queue_lines
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.keys import Key
from loopscope.state.db import objects
from tests.simulated import Simulation, capture_spec
from tests.unit.test_controller_scheduling import SLOT, job, snapshot, started, waits

TWO = Limits(resource_quotas={"a": {"slots": 2}})


def running(number, namespace, experiment="x"):
    return RunningJob(number, "cpu", experiment, 0, namespace)


def test_a_namespace_fills_its_slots_and_no_more_and_others_pass_it():
    found = snapshot(
        *(job(n, namespaces=("a",)) for n in (1, 2, 3)),
        job(4, namespaces=("b",)),
        limits=TWO,
        places=(SLOT,) * 4,
    )
    assert waits(found) == {3: "Quota"}
    assert [one.job_id for one in schedule(found) if one.place] == [1, 2, 4]


def test_the_message_names_the_quota_and_who_holds_it():
    held = tuple(running(n, "a", f"experiment/a/e{n}") for n in (7, 8))
    (decision,) = schedule(snapshot(job(1, namespaces=("a",)), limits=TWO, running=held))
    said = decision.wait.message
    assert said == "namespace a has 2 of 2 slots: held by experiment/a/e7, experiment/a/e8"


def test_a_quota_of_no_slots_holds_a_namespace_still():
    limits = Limits(resource_quotas={"a": {"slots": 0}})
    assert waits(snapshot(job(1, namespaces=("a",)), limits=limits)) == {1: "Quota"}


def test_work_that_another_namespace_wants_too_waits_for_no_quota_while_that_one_has_room():
    held = (running(8, "a"), running(9, "a"))
    assert started(snapshot(job(1, namespaces=("a", "b")), limits=TWO, running=held)) == 1
    both = Limits(resource_quotas={"a": {"slots": 2}, "b": {"slots": 0}})
    assert waits(snapshot(job(1, namespaces=("a", "b")), limits=both, running=held)) == {1: "Quota"}


def test_a_full_store_starts_nothing_more_and_what_is_below_it_does():
    limits = Limits(resource_quotas={"a": {"requests.storage": 1000}})
    one = job(1, namespaces=("a",))
    assert started(snapshot(one, limits=limits, stored_bytes={"a": 999})) == 1
    assert waits(snapshot(one, limits=limits, stored_bytes={"a": 1000})) == {1: "Quota"}


@pytest.fixture
def tenants(tmp_path):
    """Two namespaces with three captures each on three slots; ``a`` may take one slot."""
    quotas = {"a": {"slots": 1, "requests.storage": 10**9}}
    simulation = Simulation(tmp_path / "state", slots=3, resource_quotas=quotas)
    with simulation.state.database.write() as connection:
        for namespace in ("a", "b"):
            for number in range(3):
                key = Key("Capture", namespace, f"cap-{number}")
                spec = capture_spec(maxTokens=10 * number + (7 if namespace == "a" else 8))
                objects.apply(connection, key, spec, now=1_000_000.0)
    return simulation


def view(simulation):
    with simulation.state.database.read() as connection:
        path, at = simulation.state.path, simulation.clock.now()
        return read_view(connection, path, simulation.settings, at)


def test_the_quota_holds_in_a_controller_all_along_and_everything_is_done_in_the_end(tenants):
    most = 0
    for _ in range(60):
        tenants.step()
        held = [one for one in view(tenants).jobs if one.job.state == "running"]
        most = max(most, sum(one.job.object.namespace == "a" for one in held))
        tenants.workers.complete()
        tenants.clock.advance(0.5)
    assert most == 1
    assert all(record.ready for record in tenants.objects())


def test_queue_names_quota_and_holder(tenants):
    tenants.step_until_running()
    tenants.step()
    found = view(tenants)
    assert any(line.startswith("Quota of a: 1 of 1 slots, 0 B of") for line in queue_lines(found))
    waiting = [one.waiting for one in found.jobs if one.job.object.namespace == "a" and one.waiting]
    assert {one.reason for one in waiting} == {"Quota"}
    assert "held by capture/a/cap-" in waiting[0].message


def test_what_a_namespace_stores_is_counted_once_an_artifact_and_stops_its_jobs(tmp_path):
    simulation = Simulation(
        tmp_path / "state", resource_quotas={"default": {"requests.storage": 1}}
    )
    simulation.apply(capture_spec(), "one", "Capture")
    simulation.apply(capture_spec(), "same", "Capture")
    assert simulation.settle() == ["capture"]
    size = sum(f.stat().st_size for f in simulation.artifact_folder("one").iterdir()
               if f.name != "manifest.json")  # fmt: skip
    assert view(simulation).quotas["default"]["requests.storage"].taken == size
    simulation.apply(capture_spec(maxTokens=9), "two", "Capture")
    for _ in range(5):
        simulation.step()
        simulation.clock.advance(1)
    (waiting,) = [one.waiting for one in view(simulation).jobs]
    assert waiting.reason == "Quota" and "then `loopscope gc`" in waiting.message
    simulation.delete("one", "Capture")
    simulation.delete("same", "Capture")
    assert simulation.settle() == ["capture"]


def test_a_file_gives_quotas_with_the_field_names_of_kubernetes(tmp_path):
    path = tmp_path / "limits.conf"
    path.write_text("resourceQuotas: {team-a: {hard: {slots: 4, requests.storage: 2GiB}}}\n")
    settings = Settings(**load_config(path).settings())
    assert settings.resource_quotas == {"team-a": {"slots": 4, "requests.storage": 2 * 2**30}}
    announced = json.loads(json.dumps(settings.to_json()))
    assert Settings.from_json(announced).limits.resource_quotas == settings.resource_quotas


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{team-a: {slots: 4}}", "team-a.hard: field required"),
        ("{Team: {hard: {slots: 4}}}", "Team: string should match"),
        ("{team-a: {hard: {slots: -1}}}", "hard.slots: input should be greater than or equal to 0"),
        ("{team-a: {hard: {cpu: 4}}}", "hard.cpu: unknown field"),
        ("{team-a: {hard: {requests.storage: much}}}", "expected a size"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, text, says):
    path = tmp_path / "limits.conf"
    path.write_text(f"resourceQuotas: {text}\n")
    with pytest.raises(InvalidSpec) as refused:
        load_config(path)
    assert any(says in str(problem) for problem in refused.value.problems), refused.value.problems

"""What waits for another object says so once; who reads it is told what that one is doing."""

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.views.present import present
from tests.simulated import Simulation


@pytest.fixture
def running(tmp_path):
    """The capture of an experiment runs, and all the rest waits."""
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    simulation.step()
    return simulation


def shown(simulation):
    """Return by name what every command, report and page is given."""
    with simulation.state.database.read() as connection:
        records = present(connection, objects.listed(connection))
    return {record.key.name: record.status.condition("Ready").message for record in records}


def versions(simulation):
    return {record.key.name: record.resource_version for record in simulation.objects()}


def test_a_status_names_what_is_waited_for_and_no_more(running):
    words = running.words()
    assert words["france-fine"] == "False InputsNotReady: waits for capture/france-capture"
    assert words["france-mapping"] == "False InputsNotReady: waits for decomposition/france-coarse"


def test_what_is_shown_names_the_root_of_it(running):
    words = shown(running)
    (job,) = running.jobs()
    first = f"waits for capture/france-capture: {words['france-capture']}"
    assert words["france-fine"] == first and f"job {job.id}" in first
    assert words["france-mapping"] == f"waits for decomposition/france-coarse: {first}"
    assert words["france-steering"] == first, "of several the first that is not Ready"


def test_one_of_a_chain_is_shown_as_it_is_in_a_list_of_all(running):
    everything = shown(running)
    with running.state.database.read() as connection:
        mapping = objects.get(connection, Key("Mapping", "default", "france-mapping"))
        (alone,) = present(connection, [mapping])
    assert alone.status.condition("Ready").message == everything["france-mapping"]
    assert alone.status.condition("InputsReady").message == everything["france-mapping"]


def test_a_step_of_an_early_stage_writes_nothing_to_those_that_wait_for_it(tmp_path):
    simulation = Simulation(tmp_path / "state", slots=0)
    simulation.apply()
    for _ in range(4):
        simulation.step()
    before = versions(simulation)
    simulation.workers.slots = 1
    simulation.step_until_running()
    simulation.step()
    after = versions(simulation)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"france-capture", "france"}


def test_what_a_human_must_mend_is_in_the_status_of_all_behind_it(running):
    running.workers.failures["capture"] = ("Trouble", False)
    running.workers.complete()
    running.step()
    running.step()
    assert "Trouble" in running.words()["france-mapping"]
    assert "Trouble" in shown(running)["france-mapping"]


def test_where_what_is_waited_for_is_gone_the_status_is_shown_as_it_was_written(running):
    written = running.words()["france-fine"]
    running.delete("france-capture", "Capture")
    assert written.endswith(f": {shown(running)['france-fine']}")

"""``why`` tells one chain from the spec to the condition, and who must act."""

import json
import shutil

import pytest

from loopscope.controller.runtime import leadership
from loopscope.specs.canonical import digest
from loopscope.specs.keys import Key
from loopscope.state.db import pauses
from tests.simulated import Simulation, canonical, experiment_spec, settled_experiment


@pytest.fixture
def simulation(tmp_path):
    return Simulation(tmp_path / "state")


@pytest.fixture
def why(loopscope, monkeypatch):
    """Ask while a controller works; return the names of the chain, the last link, the answer."""

    def asked(simulation, *words, controlled=True):
        monkeypatch.setattr("loopscope.commands.objects.why.now", simulation.clock.now)
        if controlled:
            with leadership(simulation.state):
                code, out, err = loopscope("why", *words, "-o", "json")
        else:
            code, out, err = loopscope("why", *words, "-o", "json")
        assert code == 0, err
        answer = json.loads(out)
        return [link["name"] for link in answer["chain"]], answer["chain"][-1], answer

    return asked


def test_what_is_done_needs_nobody(why, tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    names, last, answer = why(simulation, "exp", "france")
    assert (names, last["state"], answer["who"]) == (["france"], "ready", "nobody")


def test_a_waiting_stage_is_followed_to_the_job_that_it_waits_for(why, simulation):
    simulation.apply()
    simulation.step_until_running()
    names, last, answer = why(simulation, "steering", "france")
    assert names == ["france-steering", "france-capture"]
    assert (last["state"], last["job"]["state"]) == ("running", "running")
    assert answer["who"] == "worker" and "job 1" in answer["next"]
    assert last["digest"] == simulation.get("france-capture").wanted_digest
    assert last["upstream"] == {"model": digest("tiny")}
    names, *_ = why(simulation, "exp", "france")
    assert names == ["france", "france-capture"]


def test_a_second_job_says_which_one_runs_before_it(why, simulation):
    simulation.apply()
    simulation.apply(experiment_spec(maxTokens=99), "spain")
    simulation.step_until_running()
    simulation.step()
    _, last, answer = why(simulation, "exp", "spain")
    assert last["state"] == "queued" and "job 1 (capture) runs before it" in answer["next"]


def test_a_job_that_a_quota_holds_back_says_which_one(why, simulation, tmp_path):
    simulation.apply()
    simulation.apply(experiment_spec(maxTokens=99), "spain")
    simulation.step_until_running()
    simulation.step()
    (tmp_path / "state.conf").write_text("resourceQuotas: {default: {hard: {slots: 0}}}")
    _, last, answer = why(simulation, "exp", "spain", controlled=False)
    assert last["state"] == "queued"
    assert "waits: Quota: namespace default has" in answer["next"]


def test_a_job_that_is_paused_says_that_you_resume_it(why, simulation):
    simulation.apply()
    simulation.apply(experiment_spec(maxTokens=99), "spain")
    simulation.step_until_running()
    simulation.step()
    with simulation.state.database.write() as connection:
        pauses.pause(connection, "experiment/default/spain", now=simulation.clock.now())
    _, last, answer = why(simulation, "exp", "spain")
    assert last["state"] == "queued" and answer["who"] == "you"
    assert answer["next"].startswith("`loopscope resume` lets job")


def test_an_edit_is_named_as_the_cause_of_the_run(why, tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    spec = simulation.get("france").spec
    simulation.apply({**spec, "mapping": {**spec["mapping"], "minCosine": 0.5}})
    simulation.step()
    _, last, _ = why(simulation, "exp", "france")
    assert (last["name"], last["state"]) == ("france-mapping", "running")
    assert last["changed"] == ["minCosine: 0.3 -> 0.5"]
    assert set(last["upstream"]) == {"coarse", "fine", "capture", "geometry"}


def test_an_edit_that_nobody_looked_at_yet_waits_for_the_controller(why, tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    simulation.apply({**simulation.get("france").spec, "maxTokens": 99})
    _, last, answer = why(simulation, "exp", "france")
    assert (last["state"], answer["who"]) == ("not seen", "controller")


def test_a_failed_stage_needs_you_and_says_the_command(why, simulation):
    simulation.workers.failures["capture"] = ("PromptTooLong", False)
    simulation.apply()
    simulation.settle()
    names, last, answer = why(simulation, "steering", "france")
    assert names[-1] == "france-capture" and last["state"] == "stalled"
    assert answer["who"] == "you" and "loopscope retry capture france-capture" in answer["next"]
    assert "PromptTooLong" in answer["next"]


def test_a_retried_job_needs_time(why, simulation):
    simulation.workers.failures["capture"] = ("HubBusy", True)
    simulation.apply()
    simulation.step_until_running()
    simulation.workers.complete()
    simulation.step()
    _, last, answer = why(simulation, "cap", "france")
    assert last["state"] == "queued" and answer["who"] == "time"
    assert "is tried again in" in answer["next"] and "HubBusy" in answer["next"]


def test_an_unknown_input_is_being_looked_at(why, simulation):
    answer = {"reason": "HubUnreachable", "message": "no route"}
    simulation.inputs.answers["tiny"] = answer
    simulation.apply()
    for _ in range(2):
        simulation.step()
    _, last, told = why(simulation, "exp", "france")
    assert last["state"] == "resolving" and "HubUnreachable: no route" in told["next"]


def test_a_missing_reference_stands_still(why, simulation):
    spec = {"coarseRef": {"name": "c"}, "fineRef": {"name": "f"}}
    simulation.apply(canonical("Mapping", spec), "m", "Mapping")
    simulation.step()
    _, last, answer = why(simulation, "map", "m")
    assert (last["state"], answer["who"]) == ("stalled", "you")
    assert "decomposition/c does not exist" in answer["next"]


def test_a_damaged_artifact_is_not_called_ready(why, tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    shutil.rmtree(simulation.artifact_folder("france-fine"))
    _, last, answer = why(simulation, "dec/france-fine")
    assert (last["state"], answer["who"]) == ("to do", "controller")


def test_without_a_controller_it_is_you_who_must_start_one(why, simulation):
    simulation.apply()
    _, _, answer = why(simulation, "exp", "france", controlled=False)
    assert answer["who"] == "you" and "loopscope run" in answer["next"]


def test_the_words_hold_the_whole_chain_and_asking_changes_nothing(loopscope, tmp_path):
    simulation = settled_experiment(tmp_path / "state")
    before = simulation.rows()
    code, out, _ = loopscope("why", "map", "france")
    assert code == 0 and out.startswith("mapping/france-mapping: ready\n")
    for word in ("digest", "rests on   geometry", "job", "condition", "next: nothing"):
        assert word in out
    assert simulation.rows() == before
    assert simulation.get("france-mapping").key == Key("Mapping", "default", "france-mapping")


@pytest.mark.parametrize(
    "words", [["exp"], ["exp", "nobody"], ["thing", "x"], ["exp", "france", "-o", "xml"]]
)
def test_a_mistyped_question_is_answered_in_one_sentence(loopscope, tmp_path, words):
    settled_experiment(tmp_path / "state")
    code, out, err = loopscope("why", *words)
    assert code in (1, 2) and out == "" and err.startswith("error: ")

"""``plan`` says what would run, and is right about it; nothing is written."""

import json
import shutil
import time

import pytest
import yaml

from loopscope.specs import actions
from tests.simulated import Simulation

STEERING = {
    "strengths": [0.1],
    "prompts": {"texts": ["We went to"]},
    "neutralText": {"texts": ["A plain sentence."]},
    "lexicon": {"texts": ["paris"]},
}


@pytest.fixture
def settled(loopscope, experiment, tmp_path):
    """An applied experiment with all of its artifacts."""
    loopscope("apply", "-f", experiment(with_steering))
    simulation = Simulation(tmp_path / "state")
    simulation.settle()
    return simulation


def with_steering(spec):
    spec["steering"] = STEERING


def stages(loopscope, path, *options):
    """Return state and the rest of each stage of a plan, by the stage's name."""
    code, out, err = loopscope("plan", "-f", path, *options, "-o", "json")
    assert code == 0, err
    return {stage["name"]: stage for stage in json.loads(out)["stages"]}


def states(loopscope, path, *options):
    return {name: stage["state"] for name, stage in stages(loopscope, path, *options).items()}


CACHED = {f"x-{stage}": "cached" for stage in ("capture", "coarse", "fine", "mapping", "steering")}


def test_what_is_done_is_cached_and_runs_nothing(loopscope, experiment, settled):
    path = experiment(with_steering)
    assert states(loopscope, path) == CACHED
    out = loopscope("plan", "-f", path)[1]
    assert out == "1 object unchanged, nothing to run\nplan: 5 cached\n"
    assert settled.resync() == []


def test_an_edit_of_the_cut_off_runs_the_mapping_and_says_why(loopscope, experiment, settled):
    path = experiment(lambda spec: (with_steering(spec), spec.update(mapping={"minCosine": 0.5})))
    found = stages(loopscope, path)
    assert {n: s["state"] for n, s in found.items()} == {
        **CACHED, "x-mapping": "to do", "x-steering": "unknown",
    }  # fmt: skip
    assert found["x-mapping"]["why"] == ["minCosine: 0.3 -> 0.5"]
    assert found["x-steering"]["until"] == "mapping/x-mapping has run"
    loopscope("apply", "-f", path)
    assert settled.settle() == ["mapping", "steering"]


def test_what_a_plan_calls_to_do_is_what_then_runs(loopscope, experiment, settled, tmp_path):
    def edit(spec):
        with_steering(spec)
        spec["dictionaries"]["fine"]["path"] = "../finer"

    shutil.copytree(tmp_path / "fine", tmp_path / "finer")
    path = experiment(edit)
    found = states(loopscope, path)
    assert found == {
        **CACHED, "x-fine": "to do", "x-mapping": "unknown", "x-steering": "unknown",
    }  # fmt: skip
    assert stages(loopscope, path)["x-fine"]["why"] == ["the dictionary changed"]
    loopscope("apply", "-f", path)
    assert settled.settle()[:3] == ["decomposition", "geometry", "mapping"]


def test_an_edited_prompt_file_is_an_edit_and_says_how_many(
    loopscope, experiment, settled, tmp_path
):
    path = experiment(with_steering)
    (tmp_path / "target.txt").write_text("Paris is\nLyon is\nLille is\nNantes is\nNice is\n")
    found = stages(loopscope, path)
    assert found["x-capture"]["state"] == "to do"
    assert found["x-capture"]["why"] == ["prompts: 1 new, 1 gone, of 10"]
    assert {s["state"] for n, s in found.items() if n != "x-capture"} == {"unknown"}


def test_a_policy_that_enters_no_digest_runs_nothing(loopscope, experiment, settled):
    path = experiment(lambda spec: (with_steering(spec), spec.update(gate={"nullAnchors": 500})))
    assert states(loopscope, path) == CACHED


def test_a_new_experiment_of_the_same_content_is_cached_where_it_can_be_told(
    loopscope, experiment, settled
):
    path = experiment(with_steering, lambda text: text.replace("name: x\n", "name: y\n", 1))
    assert set(states(loopscope, path).values()) == {"cached"}
    loopscope("apply", "-f", path)
    assert settled.settle() == []


def test_estimates_come_from_the_runs_before(loopscope, experiment, settled):
    path = experiment(lambda spec: (with_steering(spec), spec.update(mapping={"minCosine": 0.5})))
    mapping = stages(loopscope, path)["x-mapping"]
    assert (mapping["estimatedSeconds"], mapping["estimatedFrom"]) == (200.0, "the run before")
    assert mapping["estimatedBytes"] > 0
    assert "about 3m20s" in loopscope("plan", "-f", path)[1]


def test_without_a_past_run_the_plan_says_so(loopscope, experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    found = stages(loopscope, experiment())
    assert found["x-capture"]["state"] == "to do"
    assert found["x-capture"]["why"][-1] == "nothing was made for it yet"
    assert all(s["estimatedFrom"].startswith("no past run; ") for s in found.values())
    assert {s["estimatedSeconds"] for s in found.values()} == {None}
    assert not (tmp_path / "state").exists()


def test_a_plan_writes_nothing(loopscope, experiment, settled):
    before = settled.rows()
    path = experiment(lambda spec: (with_steering(spec), spec.update(maxTokens=99)))
    loopscope("plan", "-f", path)
    assert settled.rows() == before


def test_an_artifact_that_is_gone_is_made_again(loopscope, experiment, settled):
    shutil.rmtree(settled.artifact_folder("x-fine"))
    found = stages(loopscope, experiment(with_steering))
    assert found["x-fine"]["state"] == "to do" and "missing" in found["x-fine"]["why"][0]
    assert found["x-capture"]["state"] == found["x-coarse"]["state"] == "cached"


def test_newer_code_of_a_stage_makes_it_run_again(loopscope, experiment, settled, monkeypatch):
    loopscope("apply", "-f", experiment(with_steering))
    monkeypatch.setitem(actions.CODE_REVISIONS, "mapping", 99)
    monkeypatch.setattr("loopscope.controller.plan.cached.code_identity", lambda: "newer code")
    found = stages(loopscope, experiment(with_steering))
    assert found["x-mapping"]["state"] == "to do"
    assert found["x-coarse"]["state"] == "cached"


def test_a_failed_stage_stands_still_in_the_plan_too(loopscope, experiment, tmp_path):
    loopscope("apply", "-f", experiment())
    simulation = Simulation(tmp_path / "state")
    simulation.workers.failures["capture"] = ("PromptTooLong", False)
    simulation.settle()
    found = stages(loopscope, experiment())
    assert found["x-capture"]["state"] == "stalled"
    assert found["x-capture"]["why"] == ["PromptTooLong: capture went wrong"]


def test_an_object_of_its_own_that_rests_on_an_edited_one_is_in_the_plan(
    loopscope, experiment, settled, tmp_path
):
    own = {
        "apiVersion": "loopscope.dev/v1alpha1",
        "kind": "Mapping",
        "metadata": {"name": "own"},
        "spec": {"coarseRef": {"name": "x-coarse"}, "fineRef": {"name": "x-fine"}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    loopscope("apply", "-f", tmp_path / "own.yaml")
    settled.settle()
    path = experiment(lambda spec: (with_steering(spec), spec.update(maxTokens=99)))
    assert states(loopscope, path)["own"] == "unknown"


@pytest.mark.parametrize("note", ["", "# a note\n"], ids=["unchanged", "read again"])
def test_what_rests_on_an_edited_object_is_planned_once_and_after_it_whichever_file_comes_first(
    loopscope, experiment, settled, note
):
    own = {
        "apiVersion": "loopscope.dev/v1alpha1",
        "kind": "Mapping",
        "metadata": {"name": "own"},
        "spec": {"coarseRef": {"name": "x-coarse"}, "fineRef": {"name": "x-fine"}},
    }
    path = experiment(lambda spec: (with_steering(spec), spec.update(maxTokens=99)))
    first = path.with_name("a.yaml")
    first.write_text(yaml.safe_dump(own))
    loopscope("apply", "-f", first)
    settled.settle()
    first.write_text(first.read_text() + note)
    out = loopscope("plan", "-f", path.parent, "--root", path.parents[1], "-o", "json")[1]
    found = [(stage["name"], stage["state"]) for stage in json.loads(out)["stages"]]
    assert found.count(("own", "unknown")) == 1 and ("own", "cached") not in found


# -- plan files --------------------------------------------------------------------------


def test_a_plan_file_is_applied_when_nothing_moved(loopscope, experiment, settled):
    path = experiment(lambda spec: (with_steering(spec), spec.update(mapping={"minCosine": 0.5})))
    assert loopscope("plan", "-f", path, "-o", "plan.json")[0] == 0
    (planned,) = json.loads((path.parents[1] / "plan.json").read_text())["objects"]
    edit = {"field": "spec.mapping.minCosine", "before": 0.3, "after": 0.5, "defaultChanged": False}
    assert planned["changes"] == [edit]
    assert loopscope("apply", "--plan", "plan.json") == (0, "experiment/x configured\n", "")
    assert settled.settle() == ["mapping", "steering"]


def edit_a_spec(loopscope, settled, path, tmp_path):
    path.write_text(path.read_text().replace("0.5", "0.6"))


def edit_a_prompt_file(loopscope, settled, path, tmp_path):
    (tmp_path / "neutral.txt").write_text("A is\nB is\nC is\nD is\nE is\n")


def add_a_file(loopscope, settled, path, tmp_path):
    text = path.read_text().replace("name: x\n", "name: z\n", 1)
    (path.parent / "z.yaml").write_text(text)


def change_the_object(loopscope, settled, path, tmp_path):
    settled.apply({**settled.get("x").spec, "maxTokens": 77}, "x")


def lose_an_artifact(loopscope, settled, path, tmp_path):
    shutil.rmtree(settled.artifact_folder("x-fine"))


@pytest.mark.parametrize(
    ("move", "word"),
    [
        (edit_a_spec, "x.yaml"),
        (edit_a_prompt_file, "neutral.txt"),
        (add_a_file, "z.yaml"),
        (change_the_object, "object Experiment/default/x"),
        (lose_an_artifact, "what would run"),
    ],
)
def test_a_plan_is_refused_when_anything_moved(
    loopscope, experiment, settled, tmp_path, move, word
):
    path = experiment(lambda spec: (with_steering(spec), spec.update(mapping={"minCosine": 0.5})))
    loopscope("plan", "-f", path.parent, "--root", tmp_path, "-o", "plan.json")
    move(loopscope, settled, path, tmp_path)
    before = settled.rows()
    code, out, err = loopscope("apply", "--plan", "plan.json")
    assert (code, out) == (1, "") and "PlanOutdated" in err and word in err
    assert settled.rows() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "Plan"}', "\udcff", '{"a":' * 5000])
def test_what_is_no_plan_is_refused_in_one_sentence(loopscope, settled, tmp_path, text):
    (tmp_path / "plan.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    code, _, err = loopscope("apply", "--plan", "plan.json")
    assert code == 1 and "is no plan" in err and "Traceback" not in err
    assert loopscope("apply", "--plan", "nowhere.json")[0] == 1


def test_a_plan_file_goes_with_no_other_option(loopscope, experiment, settled):
    assert loopscope("apply", "--plan", "plan.json", "-f", experiment())[0] == 2
    assert loopscope("apply", "--plan", "plan.json", "--prune")[0] == 2
    assert loopscope("apply")[0] == 2


def test_work_under_way_is_running_and_an_edit_would_discard_its_seconds(
    loopscope, experiment, tmp_path
):
    path = experiment(with_steering)
    loopscope("apply", "-f", path)
    simulation = Simulation(tmp_path / "state")
    simulation.step_until_running()
    assert states(loopscope, path)["x-capture"] == "running"
    began = [job.started_at for job in simulation.jobs() if job.state == "running"]
    assert began != []
    edited = experiment(lambda spec: (with_steering(spec), spec.update(maxTokens=64)))
    found = stages(loopscope, edited)["x-capture"]
    assert found["state"] == "to do"
    assert found["discardsSeconds"] == pytest.approx(time.time() - began[0], abs=3600)


def test_what_only_an_input_that_is_asked_for_can_tell_is_unknown(loopscope, experiment, settled):
    def of_a_hub(spec):
        with_steering(spec)
        spec["model"] = {"name": "tiny", "source": {"hub": "someone/tiny"}}

    found = stages(loopscope, experiment(of_a_hub))
    assert found["x-capture"]["state"] == "unknown"
    assert found["x-capture"]["until"] == "finding out what the model is"

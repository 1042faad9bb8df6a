"""A study becomes an experiment for each concept, and nothing is computed that is there already."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from loopscope.specs.keys import Key
from loopscope.specs.study import seed_of
from loopscope.specs.yaml.loading import load_text
from loopscope.state import failpoints
from loopscope.state.db import objects
from loopscope.views.studies import load_study
from tests import fake_stages
from tests.simulated import Crash, Simulation, copy_state, experiment_spec
from tests.unit.test_controller_sweep import NoFiles

TEMPLATES = [f"template {number} about {{word}}" for number in range(4)]
FAMILIES = {
    "animals": {"cats": "cat kitten tabby", "dogs": "dog puppy hound", "birds": "wren robin gull"},
    "weather": {"rain": "rain drizzle shower", "snow": "snow sleet ice"},
}
TRUTH = {"cats": 0.3, "dogs": 0.3, "birds": 0.3, "rain": 0.3, "snow": 0.3, "fog": 0.3}


def families(**more):
    """Return the families as a file writes them; ``more`` are further concepts of the weather."""
    known = {**FAMILIES, "weather": {**FAMILIES["weather"], **more}}
    return {
        family: {
            "templates": TEMPLATES,
            "concepts": {name: {"words": words.split()} for name, words in concepts.items()},
        }
        for family, concepts in known.items()
    }


def study_spec(found=None, **changes):
    """Return what apply stores for a study of five concepts in two families."""
    whole = experiment_spec()
    own = {name: v for name, v in whole["steering"].items() if name not in ("lexicon", "siblings")}
    template = {**whole, "steering": own, **changes.pop("experiment", {})}
    del template["prompts"]
    spec = {"experiment": template, "families": found or families(), "minTestable": 3, **changes}
    head = "apiVersion: loopscope.dev/v1alpha1\nkind: Study\nmetadata: {name: s}\nspec:\n"
    (item,) = load_text(f"{head}  {json.dumps(spec)}\n", "s.yaml", NoFiles())
    return item.manifest.canonical_spec()


def planted(truth):
    """Return a stage that finds the planted difference of each concept, by its lexicon."""

    def steering(payload, upstream):
        files, _ = fake_stages._steering(payload, upstream)
        words = payload["lexicon"]
        name = next(n for f in families(fog="fog mist haze").values()
                    for n, c in f["concepts"].items() if c["words"] == words)  # fmt: skip
        if truth[name] is None:
            return files, {"verdict": "NotTestable", "reason": "no single arm moved the score"}
        ends = {"estimate": truth[name], "low": truth[name] - 0.1, "high": truth[name] + 0.1}
        found = {**ends, "n": 20, "contrast": "multi-fine", "reason": "seen"}
        p = {"supported": 0.001, "refuted": 1.0, "no_difference": 1.0}
        primary = {"multi-coarse": ends, "multi-fine": ends}
        return files, {"verdict": "Supported", **found, "p": p, "primary": primary}

    return steering


@pytest.fixture(autouse=True)
def _planted(monkeypatch):
    monkeypatch.setitem(fake_stages._RUN, "steering", planted(TRUTH))


@pytest.fixture
def world(tmp_path):
    return Simulation(tmp_path / "state", slots=8, job_starts_per_minute=10_000)


@functools.cache
def _settled_once():
    folder = Path(tempfile.mkdtemp(prefix="loopscope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    world = Simulation(folder / "state", slots=8, job_starts_per_minute=10_000)
    apply(world, study_spec())
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(fake_stages._RUN, "steering", planted(TRUTH))
        world.settle(400)
    world.state.database.close()
    return folder / "state"


def settled_study(path):
    """Return a settled study s of five concepts, 1000 s after it was applied."""
    copy_state(_settled_once(), path)
    world = Simulation(path, slots=8, job_starts_per_minute=10_000)
    world.clock.time += 1000
    return world


@pytest.fixture
def settled(tmp_path):
    return settled_study(tmp_path / "state")


def apply(world, spec):
    return world.apply(spec, "s", "Study")


def study(world):
    with world.state.database.read() as connection:
        return load_study(connection, Key("Study", "default", "s"))


def experiments(world):
    return {r.key.name for r in world.objects() if r.key.kind == "Experiment"}


def test_each_concept_becomes_an_experiment_that_belongs_to_the_study(settled):
    assert experiments(settled) == {"s-cats", "s-dogs", "s-birds", "s-rain", "s-snow"}
    owner = settled.get("s")
    cats = settled.get("s-cats")
    assert (cats.owner, cats.owner_uid) == (owner.key, owner.uid)
    assert cats.labels["study.loopscope.dev/family"] == "animals"
    assert settled.get("s-cats-steering").labels["loopscope.dev/study"] == "s"
    assert all(record.ready for record in settled.objects())


def test_prompts_lexicon_and_siblings_of_a_concept_come_from_its_family(world):
    apply(world, study_spec())
    world.step()
    spec = world.get("s-cats").spec
    target, neutral = spec["prompts"]["target"], spec["prompts"]["neutral"]
    assert set(target["texts"]) == {
        t.format(word=w) for t in TEMPLATES for w in ("cat", "kitten", "tabby")
    }
    others = ["dog", "puppy", "hound", "wren", "robin", "gull"]
    every = {t.format(word=w) for t in TEMPLATES for w in others}
    assert len(neutral["texts"]) == len(target["texts"]) and set(neutral["texts"]) <= every
    assert target["groups"]["labels"].count("cat") == len(TEMPLATES)
    assert spec["steering"]["lexicon"]["texts"] == ["cat", "kitten", "tabby"]
    assert sorted(spec["steering"]["siblings"]["texts"]) == sorted(others)


def test_concepts_draw_with_seeds_of_their_own(world):
    apply(world, study_spec())
    world.step()
    seeds = {n: world.get(n).spec["steering"]["sampling"]["seed"] for n in experiments(world)}
    assert len(set(seeds.values())) == 5 and seeds["s-cats"] == seed_of(0, "cats")


def test_a_settled_study_writes_no_row_and_starts_no_job(settled):
    before = settled.rows()
    settled.resync()
    settled.restart()
    assert settled.settle() == []
    assert apply(settled, study_spec()) == "unchanged"
    assert settled.settle() == [] and settled.rows() == before


def test_the_planted_truth_is_the_answer(settled):
    found = study(settled)
    assert found.answer.word == "Supported" and found.answer.reason == ""
    mean = found.answer.mean
    assert mean.low < 0.3 < mean.high and mean.estimate == pytest.approx(0.3)
    assert found.answer.spread.new.low > 0
    assert all(one.row.corrected == "Supported" for one in found.concepts)


def test_concepts_that_cannot_be_tested_are_counted_and_not_pooled(world, monkeypatch):
    truth = {**TRUTH, "cats": None, "snow": None}
    monkeypatch.setitem(fake_stages._RUN, "steering", planted(truth))
    apply(world, study_spec())
    world.settle(400)
    found = study(world)
    assert (found.testable, len(found.untested), found.answered) == (3, 2, 5)
    assert found.answer.word == "Supported" and found.answer.pooled.cells == 3
    summary = world.get("s").status.summary
    assert (summary["concepts"], summary["testable"], summary["notTestable"]) == (5, 3, 2)
    assert "2 could not (40 %)" in " ".join(found.sentences)


def test_with_too_few_that_could_be_tested_the_answer_is_inconclusive(world, monkeypatch):
    truth = {**TRUTH, "cats": None, "snow": None, "rain": None}
    monkeypatch.setitem(fake_stages._RUN, "steering", planted(truth))
    apply(world, study_spec())
    world.settle(400)
    answer = study(world).answer
    assert answer.word == "Inconclusive"
    assert answer.reason == "2 concepts could be tested, 3 are needed"


def test_while_a_concept_has_no_answer_the_study_has_none(settled):
    apply(settled, study_spec(families(fog="fog mist haze")))
    settled.step()
    answer = study(settled).answer
    assert answer.word == "" and "without an answer yet" in answer.reason


def test_a_concept_that_is_added_to_a_family_with_siblings_of_its_own_runs_alone(world):
    def spec(**more):
        found = families(**more)
        found["weather"]["siblings"] = ["stone", "chair", "wheel"]
        return study_spec(found)

    apply(world, spec())
    world.settle(400)
    before = {r.key: r.generation for r in world.objects() if r.key.name != "s"}
    apply(world, spec(fog="fog mist haze"))
    assert sorted(world.settle(400)) == ["capture", *["decomposition"] * 2, "mapping", "steering"]
    assert {r.key: r.generation for r in world.objects() if r.key in before} == before
    assert study(world).testable == 6


def test_a_concept_that_is_added_becomes_a_sibling_where_a_family_names_none(settled):
    apply(settled, study_spec(families(fog="fog mist haze")))
    settled.settle(400)
    generations = {name: settled.get(name).generation for name in experiments(settled)}
    assert generations == {
        "s-cats": 1, "s-dogs": 1, "s-birds": 1, "s-rain": 2, "s-snow": 2, "s-fog": 1
    }  # fmt: skip


def test_a_family_that_is_added_runs_alone(settled, monkeypatch):
    more = {**families(), "moods": families()["weather"]}
    more["moods"] = {
        "templates": TEMPLATES,
        "concepts": {"joy": {"words": ["glad", "merry"]}, "fear": {"words": ["afraid", "timid"]}},
    }
    before = {r.key: r.generation for r in settled.objects() if r.key.name != "s"}
    monkeypatch.setitem(fake_stages._RUN, "steering", fake_stages._steering)
    apply(settled, study_spec(more))
    ran = settled.settle(400)
    assert {stage: ran.count(stage) for stage in set(ran)} == {
        "capture": 2,
        "decomposition": 4,
        "mapping": 2,
        "steering": 2,
    }
    assert {r.key: r.generation for r in settled.objects() if r.key in before} == before


def test_a_listed_concept_that_is_added_runs_alone(settled):
    texts = {
        "target": {"texts": ["the fog is", "a haze was"]},
        "neutral": {"texts": ["the sun is", "a tree was"]},
    }
    fog = {"family": "weather", "prompts": texts, "lexicon": {"texts": ["fog", "mist", "haze"]}}
    before = {r.key: r.generation for r in settled.objects() if r.key.name != "s"}
    apply(settled, study_spec(concepts={"fog": fog}))
    assert sorted(settled.settle(400)) == [
        *["capture"], *["decomposition"] * 2, *["mapping"], *["steering"]
    ]  # fmt: skip
    assert {r.key: r.generation for r in settled.objects() if r.key in before} == before
    assert study(settled).answer.word == "Supported" and study(settled).testable == 6


def test_a_rule_of_the_template_reaches_every_concept(settled):
    edited = study_spec(experiment={"mapping": {"minCosine": 0.5}})
    assert edited["experiment"]["mapping"]["minCosine"] == 0.5
    apply(settled, edited)
    assert set(settled.settle(400)) <= {"mapping", "steering"}
    assert all(settled.get(name).generation == 2 for name in experiments(settled))


def test_a_crash_in_the_middle_loses_and_repeats_nothing(world):
    apply(world, study_spec())
    world.step_until_running()
    done = world.workers.complete()
    world.step()

    def crash(name):
        if name == "plan-committed":
            raise Crash

    with failpoints.handled_by(crash), pytest.raises(Crash):
        world.workers.complete()
        for _ in range(20):
            world.step()
    world.restart()
    world.settle(400)
    assert study(world).answer.word == "Supported" and len(done) > 0
    succeeded = [job.digest for job in world.jobs() if job.state == "succeeded"]
    assert len(succeeded) == len(set(succeeded))


def test_a_concept_that_is_taken_out_goes_with_its_stages_and_no_other(settled):
    concepts = dict(study_spec()["concepts"])
    kept = {name: one for name, one in concepts.items() if name != "snow"}
    uids = {r.key: r.uid for r in settled.objects() if not r.key.name.startswith("s-snow")}
    apply(settled, {**study_spec(), "concepts": kept})
    assert settled.settle() == []
    assert {r.key: r.uid for r in settled.objects()} == uids


def test_deleting_the_study_deletes_its_experiments_and_their_stages(settled):
    settled.delete("s", "Study")
    assert settled.settle() == [] and settled.objects() == []


def test_an_experiment_edited_by_hand_is_brought_back(settled):
    with settled.state.database.write() as connection:
        record = objects.get(connection, Key("Experiment", "default", "s-cats"))
        spec = {**record.spec, "hook": "blocks.1.hook_resid_post"}
        owner = objects.get(connection, Key("Study", "default", "s"))
        objects.apply(connection, record.key, spec, now=0.0, owner=owner)
    settled.settle(400)
    assert settled.get("s-cats").spec["hook"] == "blocks.2.hook_resid_post"


def test_a_name_that_somebody_else_has_stalls_the_study_with_the_reason(world):
    world.apply(experiment_spec(steering=None), "s-cats")
    apply(world, study_spec())
    world.settle(400)
    ready = world.get("s").status.condition("Ready")
    assert ready.reason == "OwnedByAnother" and "s-cats" in ready.message
    assert experiments(world) == {"s-cats"}

"""Whether so many prompts could find anything is said before anything is computed."""

import json
import shutil

import numpy as np
import pytest
import scipy.sparse

from loopscope.controller.plan.selection_power import selection_warnings
from loopscope.numerics.latents.features import mann_whitney
from loopscope.numerics.statistics.perfect import perfect_latents_needed, perfect_p_value
from loopscope.reconcilers.references import InputReference
from loopscope.specs.yaml.loading import load_path
from loopscope.state.db import inputs
from tests.simulated import new_state


@pytest.mark.parametrize("targets", [5, 6, 10, 37, 200])
@pytest.mark.parametrize("neutrals", [1, 5, 8, 37, 200])
def test_the_p_of_a_perfect_latent_is_that_of_the_test_itself(targets, neutrals):
    is_target = np.arange(targets + neutrals) < targets
    column = np.where(is_target, np.arange(1.0, targets + neutrals + 1), 0.0)
    _, p = mann_whitney(scipy.sparse.csr_array(column[:, None]), is_target)
    assert perfect_p_value(targets, neutrals) == pytest.approx(float(p[0]), rel=1e-9)


@pytest.mark.parametrize(("targets", "neutrals"), [(0, 0), (4, 100), (5, 0)])
def test_too_few_prompts_allow_no_test(targets, neutrals):
    assert perfect_p_value(targets, neutrals) == 1.0


def test_perfect_latents_pass_together_as_benjamini_and_hochberg_say():
    assert perfect_latents_needed(1e-9, 1000, 0.05) == 1
    assert perfect_latents_needed(0.008, 100, 0.05) == 16
    assert perfect_latents_needed(0.008, 100, 0.0) == 101
    assert perfect_latents_needed(1.0, 100, 1.0) == 1


def test_prompts_that_may_let_nothing_pass_are_warned_of_at_apply_and_in_the_plan(
    loopscope, experiment
):
    path = experiment(lambda spec: spec.update(selection={"top": 1, "maxQ": 0.05}))
    code, _, err = loopscope("plan", "-f", path)
    assert code == 0 and "x.yaml:" in err and "spec.prompts" in err
    assert "5 target and 5 neutral prompts" in err and "smallest p" in err and "0.0075" in err
    assert "if all 8 latents were tested it would take 2 perfect ones" in err
    assert loopscope("plan", "-f", path, "-o", "json")[1].count("0.0075") == 1
    (note,) = json.loads(loopscope("plan", "-f", path, "-o", "json")[1])["notes"]
    assert note.startswith("warning: ") and "INCONCLUSIVE" in note
    code, _, told = loopscope("apply", "-f", path)
    assert code == 0 and told == err, "a warning, not a refusal"


@pytest.mark.parametrize("selection", [{"top": 5}, {"maxQ": 1.0, "top": 1}])
def test_prompts_that_suffice_are_not_warned_of(loopscope, experiment, selection):
    path = experiment(lambda spec: spec.update(selection=selection))
    assert loopscope("plan", "-f", path)[2] == ""


def test_only_prompts_that_choose_count(loopscope, experiment, tmp_path):
    for name in ("target", "neutral"):
        lines = "".join(f"{name} number {n} is\n" for n in range(10))
        (tmp_path / f"{name}.txt").write_text(lines)
    whole = experiment(lambda spec: spec.update(selection={"top": 1}, splits={"test": 0}))
    assert loopscope("plan", "-f", whole)[2] == ""
    half = {"discover": 0.5, "test": 0.5}
    path = experiment(lambda spec: spec.update(selection={"top": 1}, splits=half))
    assert "5 target and 5 neutral prompts" in loopscope("plan", "-f", path)[2]


def test_a_dictionary_that_is_not_here_is_as_wide_as_it_was_found_to_be(experiment, tmp_path):
    path = experiment(lambda spec: spec.update(selection={"top": 1, "maxQ": 0.05}))
    loaded, state = load_path(path, tmp_path), new_state(tmp_path / "state")
    shutil.rmtree(tmp_path / "coarse")
    (note,) = selection_warnings(state, loaded)
    assert "16,384 latents (how many is not known)" in note.message
    named = loaded[0].manifest.canonical_spec()["dictionaries"]["coarse"]
    reference = InputReference("dictionary", named)
    for facts, said in ((None, "(how many is not known)"), ({"d_sae": 4096}, "all 4,096 latents")):
        with state.database.write() as connection:
            inputs.record(connection, reference.digest, "dictionary", named, now=0.0, facts=facts)
        (note,) = selection_warnings(state, loaded)
        assert said in note.message

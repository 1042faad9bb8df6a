"""A chat in a spec: what is asked for enters the digests, and what cannot be is refused at once."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from loopscope.controller.apply.admission import check_chat, check_inputs
from loopscope.controller.apply.unchanged import named_by
from loopscope.controller.reconcile.resolution import resolve
from loopscope.reconcilers.references import InputReference, input_references
from loopscope.specs.chat_words import needs_template
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.yaml.loading import load_path
from loopscope.views.documents.objects import applicable_document
from tests.chat_templates import CHATML, DROPS_SYSTEM, GEMMA, LLAMA3, TWO_BOS
from tests.hand_built import stored
from tests.simulated import Simulation, canonical, capture_spec, experiment_spec, texts
from tests.unit.test_specs_loading import document

FILE = {"template": "t.jinja", "templateText": CHATML}


def prompts(chat):
    return {"target": texts("Paris is", "Lyon is"), "neutral": texts("Rome is", "Oslo is"),
            "chat": chat}  # fmt: skip


def digests(simulation):
    simulation.settle()
    return {job.object.name.partition("-")[2]: job.digest for job in simulation.jobs()}


def payload(simulation, stage):
    return next(job.payload for job in simulation.jobs()[::-1] if job.stage == stage)


def test_capture_and_steering_get_the_template_and_depend_on_all_of_it(tmp_path):
    simulation = Simulation(tmp_path / "state")
    seen = {}
    for name, chat in {
        "plain": None, "file": FILE, "other": {**FILE, "templateText": LLAMA3},
        "system": {**FILE, "system": "Be brief."}, "prefix": {**FILE, "assistantPrefix": "Well,"},
        "end": {**FILE, "addGenerationPrompt": False},
    }.items():  # fmt: skip
        given = prompts(chat) if chat else experiment_spec()["prompts"]
        simulation.apply(experiment_spec(prompts=given))
        simulation.settle()
        stages = {s: simulation.get("france-" + s).status.artifact for s in ("capture", "steering")}
        seen[name] = {stage: artifact.digest for stage, artifact in stages.items()}
        if name == "system":
            for stage in stages:
                assert payload(simulation, stage)["chat"] == {
                    "template": CHATML, "system": "Be brief.", "addGenerationPrompt": True,
                }  # fmt: skip
    for stage in ("capture", "steering"):
        assert len({found[stage] for found in seen.values()}) == len(seen)


def test_the_name_of_a_template_file_is_no_part_of_the_digest(tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply(experiment_spec(prompts=prompts(FILE)))
    before = digests(simulation)
    simulation.apply(experiment_spec(prompts=prompts({**FILE, "template": "u.jinja"})))
    assert digests(simulation) == before


def test_the_template_of_the_model_is_what_the_model_came_with(tmp_path):
    simulation = Simulation(tmp_path / "state")

    def comes_with(template):
        facts = {"ref": {"identity": "tiny"}, "d_model": 8, "n_layers": 4}
        simulation.inputs.answers["tiny"] = {"facts": {**facts, "chat_template": template}}

    comes_with(GEMMA)
    simulation.apply(experiment_spec(prompts=prompts({"template": "model"})))
    simulation.settle()
    assert payload(simulation, "capture")["chat"]["template"] == GEMMA
    assert payload(simulation, "steering")["chat"]["template"] == GEMMA


def test_a_plain_spec_asks_for_no_template_and_stores_no_word_of_it():
    record = canonical("Capture", capture_spec())
    assert "chat" not in record["prompts"] and record["positions"] == "last"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"hidden_size": 8, "num_hidden_layers": 4}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(save({"w": np.zeros(2, dtype=np.float32)}))
    return folder


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        ({}, "comes without a chat template"),
        ({"template": "t", "templateText": DROPS_SYSTEM, "system": "Hi"}, "drops the system"),
        ({"template": "t", "templateText": TWO_BOS}, "begins with two BOS tokens"),
        ({"template": "t", "templateText": GEMMA, "system": "Hi"}, "System role not supported"),
        ({"template": "t", "templateText": "{% if %}"}, "no valid Jinja"),
        ({"template": "t", "templateText": CHATML, "system": "Hi"}, None),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_before_anything_is_stored(model, chat, words):
    spec = capture_spec(
        model={"name": "tiny", "source": {"folder": str(model)}}, prompts=prompts(chat)
    )
    problems = check_inputs("Capture", spec)
    assert [field for field, _ in problems] == (["spec.prompts.chat"] if words else [])
    assert not words or words in problems[0][1]


def test_a_resolved_model_has_its_template_where_that_is_asked_for(model):
    (model / "chat_template.jinja").write_text(CHATML)
    plain = {"name": "tiny", "source": {"folder": str(model)}}
    asked = resolve(InputReference("model", {**plain, "chatTemplate": True}))
    found = resolve(InputReference("model", plain))
    assert asked.facts["chat_template"] == CHATML and "chat_template" not in found.facts
    assert asked.facts["ref"] == found.facts["ref"]
    (model / "chat_template.jinja").unlink()
    assert "comes without a chat template" in resolve(asked.reference).message


def test_a_template_file_is_read_beside_the_yaml(tmp_path):
    (tmp_path / "t.jinja").write_text(CHATML)
    given = {"target": {"texts": ["Paris"]}, "neutral": {"texts": ["Rome"]},
             "chat": {"template": "t.jinja"}}  # fmt: skip
    (tmp_path / "x.yaml").write_text(document(prompts=given))
    (item,) = load_path(tmp_path / "x.yaml", tmp_path)
    assert item.manifest.canonical_spec()["prompts"]["chat"]["templateText"] == CHATML
    stored_prompts = item.manifest.canonical_spec()["prompts"]
    shown = applicable_document(stored("Capture", "cap", capture_spec(prompts=stored_prompts)))
    given["chat"] = shown["spec"]["prompts"]["chat"]
    assert given["chat"] == {"templateText": CHATML, "addGenerationPrompt": True}
    (tmp_path / "x.yaml").write_text(document(prompts=given))
    (again,) = load_path(tmp_path / "x.yaml", tmp_path)
    assert not needs_template(again.manifest.canonical_spec()["prompts"])
    given["chat"] = {"template": "t.jinja", "templateText": CHATML}
    (tmp_path / "x.yaml").write_text(document(prompts=given))
    with pytest.raises(InvalidSpec, match="give either a template that is a file"):
        load_path(tmp_path / "x.yaml", tmp_path)
    given["chat"] = {"template": "u.jinja"}
    (tmp_path / "x.yaml").write_text(document(prompts=given))
    with pytest.raises(InvalidSpec, match=r"no such file: u\.jinja"):
        load_path(tmp_path / "x.yaml", tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": "assistant"}, "positions assistant needs prompts.chat"),
        ({"positions": "afterTemplate"}, "positions afterTemplate needs prompts.chat"),
        ({"positions": "assistant", "chat": {}}, "needs prompts.chat.assistantPrefix"),
        ({"positions": {"token": "Paris"}}, "'Paris' is not in text 2 of target"),
        ({"positions": "lastContnt"}, "found 'lastContnt'; did you mean 'lastContent'?"),
        ({"positions": {"tokn": "is"}}, "tokn: unknown field; expected last, all"),
        ({"positions": 3}, "{index: …}; found 3"),
        ({"positions": {}}, "expected either token or index"),
        ({"positions": {"token": "is", "index": 1}}, "expected either token or index"),
        ({"aggregation": "mean"}, "aggregation mean needs positions: all"),
        ({"chat": {"assistantPrefix": "A", "addGenerationPrompt": False}}, "assistantPrefix needs"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(changes, words):
    given = {**experiment_spec(), **changes}
    if "chat" in given:
        given["prompts"] = {**given["prompts"], "chat": given.pop("chat")}
    with pytest.raises(ValueError) as error:
        SPEC_BY_KIND["Experiment"].model_validate(given)
    (problem,) = error.value.errors()
    assert words in problem["msg"] and problem["msg"].count("Value error") == 1


def test_an_edit_of_a_template_file_is_seen(tmp_path):
    (tmp_path / "t.jinja").write_text(CHATML)
    given = {"target": {"texts": ["Paris"]}, "neutral": {"texts": ["Rome"]},
             "chat": {"template": "t.jinja"}}  # fmt: skip
    (tmp_path / "x.yaml").write_text(document(prompts=given))
    (item,) = load_path(tmp_path / "x.yaml", tmp_path)
    assert ("file", str(tmp_path / "t.jinja")) in named_by(item)


def steered(chat, **rules):
    spec = experiment_spec()
    given = {"prompts": prompts(chat)} if chat else {}
    return experiment_spec(**given, steering={**spec["steering"], **rules})


def test_a_system_prompt_is_a_system_message_in_a_chat_and_only_there(tmp_path):
    simulation = Simulation(tmp_path / "state")
    rules = {"systemPrompt": "Speak of Lyon."}
    for chat, said in ((FILE, "systemMessage"), (None, None)):
        simulation.apply(steered(chat, **rules))
        simulation.settle()
        work = payload(simulation, "steering")
        assert work.get("systemPromptAs") == said and work["systemPrompt"] == "Speak of Lyon."
    simulation.apply(steered(FILE))
    simulation.settle()
    assert "systemPromptAs" not in payload(simulation, "steering")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (DROPS_SYSTEM, "the chat template drops the system message; leave it out"),
        (GEMMA, "System role not supported; without a system message"),
        (CHATML, None),
    ],
)
def test_a_template_without_a_place_for_the_system_prompt_is_refused_before_anything_runs(
    template, words
):
    chat = {"template": "t", "templateText": template}
    assert check_chat(steered(chat)) == [], "without the arm it can be used"
    problems = check_chat(steered(chat, systemPrompt="Speak of Lyon."))
    assert [field for field, _ in problems] == (["spec.steering.systemPrompt"] if words else [])
    assert not words or words in problems[0][1]


@pytest.mark.parametrize(
    ("positions", "chat", "words"),
    [
        ("generatd", FILE, "found 'generatd'; did you mean 'generated'?"),
        ("lastPrompt", FILE, "expected all, opening, generated, assistant, last, lastContent"),
        ({"tokn": "is"}, FILE, "tokn: unknown field; expected all, opening"),
        ("assistant", None, "steering.positions assistant needs prompts.chat"),
        ("afterTemplate", None, "steering.positions afterTemplate needs prompts.chat"),
        ({"token": " Lyon"}, FILE, "positions.token ' Lyon' is not in text 1 of prompts ("),
    ],
)
def test_a_place_that_cannot_be_steered_is_refused_in_one_line(positions, chat, words):
    given = experiment_spec(**({"prompts": prompts(chat)} if chat else {}))
    given["steering"] = {**given["steering"], "positions": positions}
    with pytest.raises(ValueError) as error:
        SPEC_BY_KIND["Experiment"].model_validate(given)
    (problem,) = error.value.errors()
    assert words in problem["msg"] and problem["msg"].count("Value error") == 1


def test_a_token_that_an_opening_does_not_hold_is_named_with_its_file_and_number(tmp_path):
    (tmp_path / "openings.txt").write_text("We went to Lyon\nWe saw Rome\n")
    given = {**experiment_spec()["steering"], "prompts": {"file": "openings.txt"}}
    (tmp_path / "x.yaml").write_text(document(steering={**given, "positions": {"token": "Lyon"}}))
    with pytest.raises(InvalidSpec) as error:
        load_path(tmp_path / "x.yaml", tmp_path)
    (problem,) = error.value.problems
    expected = "positions.token 'Lyon' is not in text 2 of openings.txt ('We saw Rome')"
    assert expected in str(problem)


def test_only_the_assistants_tokens_need_no_prefix_to_be_steered():
    spec = steered(FILE, positions="assistant")
    assert spec["steering"]["positions"] == "assistant"


@pytest.mark.parametrize("chat", [None, {"templateText": CHATML}, {"template": "model"}])
def test_only_a_template_of_the_model_makes_another_reference_of_it(chat):
    sets = prompts(chat) if chat else experiment_spec()["prompts"]
    spec = capture_spec(prompts=sets)
    (reference,) = input_references(stored("Capture", "cap", spec))
    assert (reference == InputReference("model", spec["model"])) == (chat != {"template": "model"})

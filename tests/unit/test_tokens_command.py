"""``tokens`` shows what a model gets of a spec: which token is what, read, and steered."""

import json

import pytest
import yaml

from loopscope.worker.token_listing import listed
from tests.chat_templates import CHATML, DROPS_SYSTEM, TURNS
from tests.simulated import experiment_spec, texts
from tests.tiny_models import folder_reference, save_chat_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("model"), CHATML, TURNS[CHATML])


def test_each_token_says_what_it_is_and_what_is_done_with_it(folder, tmp_path):
    sets = [
        {"name": "target", "texts": ["Is it?", "No."], "positions": "lastContent",
         "steered": None},
        {"name": "opening", "texts": ["We"], "positions": None, "steered": "all"},
        {"name": "narrow", "texts": ["We"], "positions": None, "steered": "assistant"},
        {"name": "narrow", "texts": ["We"], "positions": None, "steered": "lastContent"},
    ]  # fmt: skip
    chat = {"template": CHATML, "addGenerationPrompt": True, "assistantPrefix": "So"}
    request = {"model": folder_reference(folder), "cache": str(tmp_path), "chat": chat,
               "sets": sets}  # fmt: skip
    first, second, opening, assistant, content = listed(request)
    assert (first["name"], second["name"], opening["name"]) == (
        "target-0000", "target-0001", "opening-0000",
    )  # fmt: skip
    assert first["tokens"][0]["part"] == "bos"
    for part, words in (("text", "Is it?"), ("assistant", "So")):
        own = [token["text"] for token in first["tokens"] if token["part"] == part]
        assert "".join(own) == words
    assert [token["text"] for token in first["tokens"] if token["read"]] == ["?"]
    assert not any(token["steered"] for token in first["tokens"])
    assert [token["steered"] for token in opening["tokens"]] == [False] + [True] * (
        len(opening["tokens"]) - 1
    )
    for one, words in ((assistant, "\nSo"), (content, "e")):
        assert "".join(token["text"] for token in one["tokens"] if token["steered"]) == words
    said = [one["generatedSteered"] for one in (first, opening, assistant, content)]
    assert said == [False, True, True, False]


@pytest.fixture
def spec_file(folder, tmp_path):
    def spec_file(steering=None, **chat):
        steering = {**experiment_spec()["steering"], **(steering or {})}
        spec = experiment_spec(
            steering=steering,
            model={"name": "tiny", "source": {"folder": str(folder)}},
            hook="blocks.1.hook_resid_post",
            prompts={"target": texts("Is it?"), "neutral": texts("No."), "chat": chat},
            positions="afterTemplate",
            dictionaries={"coarse": {"path": str(tmp_path)}, "fine": {"path": str(tmp_path)}},
        )
        item = {"apiVersion": "loopscope.dev/v1alpha1", "kind": "Experiment",
                "metadata": {"name": "x"}, "spec": spec}  # fmt: skip
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump(item))
        return path

    return spec_file


@pytest.mark.integration
def test_the_command_shows_a_spec_and_says_what_is_wrong_with_it(loopscope, spec_file, tmp_path):
    code, out, problem = loopscope("tokens", "-f", spec_file(), "-o", "json")
    assert code == 0, problem
    (found,) = json.loads(out)
    names = [text["name"] for text in found["texts"]]
    assert code == 0 and names == ["target-0000", "neutral-0000", "opening-0000",
                                   "neutral-text-0000"]  # fmt: skip
    last = [token["read"] for token in found["texts"][0]["tokens"]]
    assert last == [False] * (len(last) - 1) + [True], "the answer begins after the template"
    code, out, _ = loopscope("tokens", "-f", spec_file())
    assert "afterTemplate" in out and "tokens are generated" in out and "read" in out
    rules = {"systemPrompt": "Speak of Rome."}
    code, out, _ = loopscope("tokens", "-f", spec_file(rules, system="Be brief."), "-o", "json")
    (prompted,) = [
        text for text in json.loads(out)[0]["texts"] if text["name"] == "opening-systemPrompt-0000"
    ]
    words = "".join(token["text"] for token in prompted["tokens"])
    assert "system\nBe brief.\nSpeak of Rome.<|im_end|>" in words
    assert not any(token["steered"] for token in prompted["tokens"])
    for positions, at in (
        ("generated", "each decided at a steered one"),
        ("opening", "the first decided at a steered one, the others not"),
        ({"token": "We"}, "none decided at a steered one"),
    ):
        code, out, problem = loopscope("tokens", "-f", spec_file({"positions": positions}))
        assert f"tokens are generated, {at}" in out, problem
    (tmp_path / "t.jinja").write_text(DROPS_SYSTEM)
    code, _, problem = loopscope("tokens", "-f", spec_file(template="t.jinja", system="Hi"))
    assert code == 2 and problem.count("ChatTemplateRefused: ") == 1
    assert "drops the system" in problem

"""A chat template is a foreign program: it gets little, and what it returns is checked."""

import json
import struct

import pytest

from loopscope.inputs import chat_rendering
from loopscope.inputs.chat_rendering import SECOND_BOS, ChatRefused, render, why_refused
from loopscope.inputs.chat_templates import chat_template_of
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.hub import Hub
from tests.chat_templates import (
    BREAKS_OUT,
    CHATML,
    DROPS_SYSTEM,
    ENDLESS,
    GEMMA,
    GREEDY,
    LLAMA3,
    TWO_BOS,
)

NAMES = {"bos_token": "<bos>", "eos_token": "<eos>"}


def chat(template, **more):
    return {"template": template, "addGenerationPrompt": True, **more}


def test_the_parts_of_a_rendered_text_are_known():
    given = chat(CHATML, system="Be brief.", assistantPrefix="Well,")
    texts = ["What is wine?", "assistant", "  two\nlines"]
    for text, found in zip(texts, render(given, texts, NAMES), strict=True):
        start, end = found.content
        assert found.text[start:end] == text
        assert found.text[found.template_end :] == "Well,"
        assert found.text[:start] == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
        assert found.text[end : found.template_end] == "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [GEMMA, LLAMA3])
def test_a_template_may_trim_a_text(template):
    (found,) = render(chat(template), ["  What is wine?"], NAMES)
    start, end = found.content
    assert found.text[start:end] == "What is wine?" and found.text.startswith("<bos>")


def test_a_template_renders_as_transformers_has_it():
    from transformers.utils.chat_template_utils import render_jinja_template

    for template, system in ((CHATML, "Be brief."), (LLAMA3, "Be brief."), (GEMMA, None)):
        messages = [{"role": "user", "content": "What is wine?"}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        (expected,), _ = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=True, **NAMES
        )
        more = {"system": system} if system else {}
        assert render(chat(template, **more), ["What is wine?"], NAMES)[0].text == expected


def test_words_of_the_assistant_are_only_begun_where_that_is_asked_for():
    given = {"template": CHATML, "addGenerationPrompt": False}
    assert render(given, ["Hi"], NAMES)[0].text == "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (DROPS_SYSTEM, "drops the system message"),
        (GEMMA, "refuses the conversation: System role not supported"),
        ("{{ messages[-1]['content'] }", "no valid Jinja: line 1"),
        ("{{ nothing.of.it }}", "refuses the conversation: 'nothing' is undefined"),
        ("{{ 'always the same' }}", "leaves the text out"),
        ("{% for one in [1] %}" * 25 + "{% endfor %}" * 25, "no valid Jinja: too many statically"),
        (f"{{{{ {'1' * 5000} }}}}", "no valid Jinja: Exceeds the limit"),
        ("{{ '\\ud800' + messages[-1]['content'] }}", "no text (U+0000 or half a pair)"),
        ("{{ '\\x00' + messages[-1]['content'] }}", "no text (U+0000 or half a pair)"),
        ("{{ messages[-1]['content'] * 2 }}", "repeats or changes"),
        ("{{ messages[0].content }}{{ messages[-1].content | upper }}", "leaves the text out"),
        ("{{ strftime_now('%d') }}", "'strftime_now' is undefined"),
        ("{{ messages.append(1) }}", "refuses the conversation"),
        (BREAKS_OUT, "refuses the conversation"),
        ("{{ cycler.__init__.__globals__ }}", "refuses the conversation"),
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError"),
        ("{% for i in range(9999999) %}{% endfor %}", "fails: OverflowError"),
        (GREEDY, "takes more than 1024 MB of memory"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused_in_one_line(template, words):
    with pytest.raises(ChatRefused) as refused:
        render(chat(template, system="Be brief."), ["What is wine?"], NAMES)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_a_template_without_an_end_is_ended(monkeypatch):
    monkeypatch.setattr(chat_rendering, "SECONDS_MIN", 1)
    with pytest.raises(ChatRefused, match="takes more than 1 seconds of a processor"):
        render(chat(ENDLESS), ["What is wine?"], NAMES)


def test_a_text_that_a_template_changes_is_refused_by_itself():
    template = "{{ messages[-1]['content'] | replace('z', 's') }}!"
    assert render(chat(template), ["a house"], NAMES)
    with pytest.raises(ChatRefused, match="changes the text 'a zoo'"):
        render(chat(template), ["a house", "a zoo"], NAMES)


def test_a_second_bos_is_seen_before_there_is_a_tokenizer():
    assert why_refused(chat(TWO_BOS), "Hi") == SECOND_BOS
    assert why_refused(chat(LLAMA3), "Hi") is None
    assert "System role" in str(why_refused(chat(GEMMA, system="Be brief."), "Hi"))


def reference(folder):
    return {"name": "tiny", "source": {"kind": "folder", "path": str(folder)}}


def test_the_template_of_a_folder_is_its_own_file_before_that_in_the_config(tmp_path):
    config = {"chat_template": [{"name": "tool_use", "template": "t"},
                                {"name": "default", "template": GEMMA}]}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat_template_of(reference(tmp_path), Hub(offline=True)) == GEMMA
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": LLAMA3}))
    assert chat_template_of(reference(tmp_path), Hub(offline=True)) == LLAMA3
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert chat_template_of(reference(tmp_path), Hub(offline=True)) == CHATML


@pytest.mark.parametrize("config", [None, {}, {"chat_template": None}, {"chat_template": [{}]}])
def test_a_model_without_a_template_is_refused_with_what_to_do(tmp_path, config):
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputRefused, match="tiny comes without a chat template; use an instruct"):
        chat_template_of(reference(tmp_path), Hub(offline=True))


def _text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def test_the_template_of_a_gguf_file_stands_behind_its_vocabulary(tmp_path):
    words = struct.pack("<IIQ", 9, 8, 2) + _text("a") + _text("b")
    keys = [_text("tokenizer.ggml.tokens") + words,
            _text("tokenizer.chat_template") + struct.pack("<I", 8) + _text(CHATML)]  # fmt: skip
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))
    ref = {"name": "tiny", "source": {"kind": "gguf", "path": str(path)}}
    assert chat_template_of(ref, Hub(offline=True)) == CHATML

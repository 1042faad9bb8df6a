"""SAELens' registry as a list: each entry judged as a spec that names it is judged."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.hub import Hub
from loopscope.inputs.registered import is_at, registered_dictionaries
from loopscope.specs.hooks import Hook


@pytest.fixture(scope="module")
def everything():
    return list(registered_dictionaries())


def test_every_entry_of_every_loader_is_listed_once(everything):
    assert len(everything) == 13_857
    assert len({one.loader for one in everything}) == 14
    twice = [
        key for key, n in Counter((one.release, one.id) for one in everything).items() if n > 1
    ]
    assert twice == []


def test_each_kind_of_answer_is_that_which_a_spec_gets(everything):
    each = {(one.loader, one.cause): one for one in everything}
    assert len(each) > 15
    for one in each.values():
        expected = ResolutionPending if one.usable else InputRefused
        named = {
            "release": one.release,
            "id": one.id,
            **({"convert": "sealed"} if one.pickled else {}),
        }
        with pytest.raises(expected) as answer:
            describe_dictionary(named, hub=Hub(offline=True))
        if not one.usable:
            assert answer.value.message == one.reason


def test_what_is_refused_says_why_in_short_and_in_full(everything):
    assert all(bool(one.reason) == bool(one.cause) == (not one.usable) for one in everything)


def test_hooks_are_known_without_a_file_but_for_few(everything):
    usable = [one for one in everything if one.usable]
    named = [one for one in usable if one.hook_name is not None]
    assert len(named) > 0.95 * len(usable)
    for one in named:
        assert str(Hook.parse(one.hook_name)) == one.hook_name


def test_dictionaries_are_found_by_release_model_and_hook():
    release = "gemma-scope-2b-pt-res-canonical"
    found = list(registered_dictionaries(release, "google/gemma-2-2b"))
    assert len(found) == 58 and {one.model for one in found} == {"gemma-2-2b"}
    at = [one for one in found if is_at(one, "blocks.3.hook_resid_post")]
    assert {one.id for one in at} == {"layer_3/width_16k/canonical", "layer_3/width_65k/canonical"}
    assert all(is_at(one, "hook_resid_post") for one in at)
    assert not any(is_at(one, "resid_post") or is_at(one, "hook_resid_pre") for one in at)
    assert not list(registered_dictionaries(release, "gpt2"))
    with pytest.raises(InputRefused, match="did you mean gemma-scope-2b-pt-res-canonical"):
        list(registered_dictionaries("gemma-scope-2b-pt-res-canonial"))


def test_the_command_prints_rows_documents_and_counts(loopscope):
    release = ("dictionaries", "--release", "gpt2-small-mlp-out-v5-32k")
    code, rows, _ = loopscope(*release, "--hook", "blocks.2.hook_mlp_out")
    assert code == 0 and rows.splitlines()[0].split()[:3] == ["RELEASE", "ID", "HOOK"]
    assert "blocks.2.hook_mlp_out" in rows and len(rows.splitlines()) == 2
    code, text, _ = loopscope(*release, "-o", "json")
    assert code == 0 and len(json.loads(text)) == 12
    assert {"release", "id", "usable", "reason"} <= json.loads(text)[0].keys()
    code, counted, _ = loopscope("dictionaries")
    assert code == 0 and " of 13857 are usable" in counted and "gemma_3" in counted


def test_the_command_says_what_is_wrong_and_when_nothing_is_found(loopscope):
    code, _, error = loopscope("dictionaries", "--release", "no-such-release")
    assert code == 2 and "unknown release" in error
    code, _, error = loopscope("dictionaries", "-o", "yaml")
    assert code == 2 and "expected json" in error
    code, text, _ = loopscope("dictionaries", "--model", "no-such-model")
    assert code == 0 and "no such dictionary" in text


def test_the_list_needs_neither_torch_nor_sae_lens():
    script = (
        "import sys\nfrom loopscope.inputs.registered import registered_dictionaries\n"
        "next(registered_dictionaries('gpt2-small-res-jb'))\n"
        "print({'torch', 'sae_lens', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"

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
from tests.layouts import REPOSITORIES

TEMPORAL = "temporal-sae-gemma-2-2b"


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


def test_most_of_every_loader_and_of_nearly_every_model_can_be_used(everything):
    usable = [one for one in everything if one.usable]
    assert len(usable) >= 0.85 * len(everything)
    assert {one.loader for one in everything} == {one.loader for one in usable}
    of_model, served = (Counter(one.model for one in some) for some in (everything, usable))
    assert len(of_model) == 38
    assert sum(served[model] >= 0.8 * number for model, number in of_model.items()) >= 30


def test_each_loader_that_can_be_used_is_compared_with_saelens_own(everything):
    loaders = {one.loader for one in everything if one.usable}
    assert {name.partition("-")[0] for name in REPOSITORIES} == loaders


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


def test_a_usable_one_that_cannot_be_steered_says_so(loopscope):
    told = json.loads(loopscope("dictionaries", "--release", TEMPORAL, "-o", "json")[1])
    assert [(one["usable"], one["steered"]) for one in told] == [(True, False)]
    assert "no steering" in loopscope("dictionaries", "--release", TEMPORAL)[1]
    plain = loopscope("dictionaries", "--release", "gpt2-small-hook-z-kk", "-o", "json")[1]
    assert all(one["steered"] for one in json.loads(plain))

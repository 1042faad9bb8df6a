"""Hooks have one grammar, and each stream that it knows has its place in a model's modules."""

import pytest

from loopscope.numerics.model.hooks import STREAMS as MODULES
from loopscope.specs.fields import HOOK_PATTERN
from loopscope.specs.hooks import STREAMS, Hook
from loopscope.specs.yaml.messages import hook_message


def test_the_grammar_and_the_modules_know_the_same_streams():
    assert set(STREAMS) == set(MODULES)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_name_is_read_and_written(stream):
    hook = Hook(12, stream)
    assert Hook.parse(str(hook)) == hook


def test_the_names_are_those_of_transformer_lens():
    assert str(Hook(3, "resid_post")) == "blocks.3.hook_resid_post"
    assert str(Hook(3, "attn.z")) == "blocks.3.attn.hook_z"
    assert str(Hook(3, "ln2.normalized")) == "blocks.3.ln2.hook_normalized"


@pytest.mark.parametrize(
    "name",
    [
        "blocks.1.hook_q",
        "blocks.1.hook_z",
        "blocks.01.hook_resid_post",
        "resid",
        "blocks.1.hook_resid_post ",
    ],
)
def test_an_unknown_hook_is_refused(name):
    with pytest.raises(ValueError, match=r"is not blocks\.N\. and one of hook_resid_pre, "):
        Hook.parse(name)


def test_a_block_that_the_model_has_not_is_refused():
    assert Hook(3, "resid_pre").within(4) == Hook(3, "resid_pre")
    with pytest.raises(ValueError, match=r"names block 4, the model has 4"):
        Hook(4, "resid_pre").within(4)


def test_a_wrong_name_is_told_the_nearest_right_one():
    told = hook_message("blocks.3.hook_resid_pst")
    assert told.endswith("did you mean 'blocks.3.hook_resid_post'?")
    assert "did you mean" not in hook_message("blocks.10000.hook_resid_post")
    assert hook_message("blocks.3.attn.hook_zz").endswith("did you mean 'blocks.3.attn.hook_z'?")
    assert HOOK_PATTERN.startswith("^blocks")

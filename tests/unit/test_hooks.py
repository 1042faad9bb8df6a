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
    hook = Hook.parse(f"blocks.12.hook_{stream}")
    assert (hook.block, hook.stream, str(hook)) == (12, stream, f"blocks.12.hook_{stream}")


@pytest.mark.parametrize(
    "name",
    ["blocks.1.hook_mlp_out", "blocks.01.hook_resid_post", "resid", "blocks.1.hook_resid_post "],
)
def test_an_unknown_hook_is_refused(name):
    with pytest.raises(ValueError, match=r"is not blocks\.N\.hook_resid_pre or "):
        Hook.parse(name)


def test_a_block_that_the_model_has_not_is_refused():
    assert Hook(3, "resid_pre").within(4) == Hook(3, "resid_pre")
    with pytest.raises(ValueError, match=r"names block 4, the model has 4"):
        Hook(4, "resid_pre").within(4)


def test_a_wrong_name_is_told_the_nearest_right_one():
    told = hook_message("blocks.3.hook_resid_pst")
    assert told.endswith("did you mean 'blocks.3.hook_resid_post'?")
    assert HOOK_PATTERN.startswith("^blocks")

"""A cfg.json means what SAELens takes it for, or is refused: every field, every architecture."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import asdict, fields

import pytest

from loopscope.inputs.architectures import ARCHITECTURES, REFUSED
from loopscope.inputs.dictionary_training import NOTED, read_training
from loopscope.inputs.saelens_config import DECIDING, read_saelens_config
from loopscope.numerics import architectures as computed

D_IN, D_SAE = 8, 24
ABSENT = object()
VERSIONS = (
    {},
    {"sae_lens_version": "3.22.1"},
    {"sae_lens_version": "5.11.0", "metadata": {}},
    {"metadata": {"sae_lens_version": "5.0.0"}},
    {"metadata": {"sae_lens_version": "6.0.0-rc.0"}},
    {"metadata": {"sae_lens_version": "6.54.12"}},
    {"sae_lens_version": "6.0.0", "metadata": {"sae_lens_version": "5.0.0"}},
    {"sae_lens_version": "10.1"},
)
HOOK = "blocks.1.hook_resid_post"
READ_NOT_DECIDING = {"metadata", "dtype", "device"}
"""Who trained it where, and where and in which precision SAELens would put it."""


def without_absent(config: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in config.items() if value is not ABSENT}


def test_the_architectures_read_are_those_that_are_computed_and_of_the_same_tensors():
    read = {name: stored.tensors for name, stored in ARCHITECTURES.items()}
    assert read == {name: one.required_tensors for name, one in computed.ARCHITECTURES.items()}


def of_before_6(**more):
    return {"d_in": D_IN, "d_sae": D_SAE, **more}


def of_6(**more):
    return {**of_before_6(**more), "metadata": {"sae_lens_version": "6.54.0"}}


@pytest.mark.parametrize(
    ("config", "k"),
    [
        (of_before_6(architecture="topk", k=20, activation_fn_kwargs={"k": 7}), 7),
        (of_before_6(activation_fn_str="topk", k=20, activation_fn_kwargs={"k": 7}), 7),
        (of_before_6(architecture="topk", k=20), 20),
        (of_6(architecture="topk", k=7, activation_fn_kwargs={"k": 20}), 7),
        (of_6(architecture="topk", k=7.0), 7),
    ],
)
def test_k_is_that_of_the_activation_before_version_6_and_a_field_since(config, k):
    assert read_saelens_config(config).k == k


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (of_6(architecture="topk", activation_fn_kwargs={"k": 7}), "expected k"),
        (of_6(architecture="topk", k=True), "expected k"),
        (of_6(architecture="topk", k=7.5), "expected k"),
        (of_6(architecture="standard", activation_fn="topk", k=7), "activation_fn 'topk'"),
        (of_before_6(activation_fn="topk"), "activation_fn 'topk'"),
        (of_6(), "architecture None"),
        (of_6(architecture="batchtopk", k=7), "rescale_acts_by_decoder_norm is missing"),
        (of_6(architecture="topk", k=7, rescale_acts_by_decoder_norm=None), "true or false"),
        (of_6(architecture="standard", apply_b_dec_to_input=0), "apply_b_dec_to_input"),
        (of_before_6(normalize_activations=True), "fold_activation_norm_scaling_factor"),
        (of_before_6(hook_point=HOOK, reshape_activations="hook_z"), "hook_z"),
        (of_before_6(d_out=D_IN + 1), "d_out"),
        (of_before_6(sae_lens_version=6.54), "sae_lens_version"),
        (of_before_6(metadata=[]), "metadata"),
    ],
)
def test_what_could_be_taken_in_two_ways_is_refused_by_name(config, named):
    with pytest.raises(ValueError, match=named):
        read_saelens_config(config)


def test_a_field_is_believed_where_the_files_version_keeps_it():
    old = of_before_6(hook_point=HOOK, metadata={"hook_point": "blocks.0.hook_resid_post"})
    assert read_training(read_saelens_config(old).said).hook_name == HOOK
    new = of_6(architecture="standard", hook_name="blocks.0.hook_resid_post")
    new["metadata"]["hook_name"] = HOOK
    assert read_training(read_saelens_config(new).said).hook_name == HOOK


def as_saelens_reads(config: dict[str, object]):
    """Return SAELens' own config of a file, of its training class where it has no other."""
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    told = handle_config_defaulting(copy.deepcopy(config))
    _, config_class = (
        SAE_CLASS_REGISTRY.get(told["architecture"])
        or SAE_TRAINING_CLASS_REGISTRY[told["architecture"]]
    )
    return config_class.from_dict(told)


def check_parity(config: dict[str, object]) -> bool:
    """Check that a file is refused, or read as SAELens reads it; return whether it was read.

    Files that SAELens itself cannot read say nothing of its meaning.
    """
    config = json.loads(json.dumps(without_absent(config)))
    try:
        ours = read_saelens_config(config)
        transcoder = ARCHITECTURES[ours.architecture].transcoder
        told = read_training(ours.said, transcoder=transcoder)
    except ValueError as error:
        assert str(error)
        return False
    try:
        theirs = as_saelens_reads(config)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    found = asdict(ours)
    if not transcoder:
        assert found.pop("d_out") == ours.d_in
    if ARCHITECTURES[ours.architecture].rescaled == "never":
        assert not found.pop("rescale_acts_by_decoder_norm")
    if ours.architecture != "topk":
        assert found.pop("k") is None  # a stored threshold stands for the k of a batch
    del found["said"]
    expected = {name: getattr(theirs, name) for name in found if name != "architecture"}
    assert found == {"architecture": theirs.architecture(), **expected}, config
    assert theirs.normalize_activations == "none", config
    told_hook = told.hook_name or "hook_z"
    assert theirs.reshape_activations != "hook_z" or told_hook.endswith("hook_z"), config
    assert theirs.metadata.hook_name in (None, told.hook_name), config
    return True


def registered() -> dict[str, set[str]]:
    """Return every architecture that SAELens knows, and the fields of all its configs."""
    import sae_lens  # noqa: F401 - it fills its registries
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    found: dict[str, set[str]] = {}
    for registry in (SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY):
        for architecture, (_, config_class) in registry.items():
            found.setdefault(architecture, set()).update(f.name for f in fields(config_class))
    return found


VALUES = (
    ABSENT, None, True, False, 0, 1, 7, 7.0, 7.5, D_IN, D_SAE, D_SAE + 1, "", "none", "relu",
    "topk", "tanh-relu", "hook_z", "layer_norm", "expected_average_only_in",
    "constant_norm_rescale", "covariance_whitening", "float16", "cuda", "standard",
    "jumprelu", "batchtopk", "gated", HOOK, "blocks.1.attn.hook_z", {}, {"k": 7}, {"k": None},
    {"hook_name": HOOK}, [],
)  # fmt: skip
OF_BEFORE_6 = {
    "architecture", "activation_fn", "activation_fn_str", "activation_fn_kwargs", "d_out",
    "finetuning_scaling_factor", "hook_name", "hook_point", "hook_point_head_index",
    "hook_head_index", "model_name", "prepend_bos", "sae_lens_version", "use_error_term",
}  # fmt: skip


@pytest.mark.integration  # importing SAELens takes ten seconds
def test_every_field_of_every_architecture_means_what_it_means_to_saelens():
    read = dict.fromkeys(ARCHITECTURES.keys() - REFUSED.keys(), 0)
    for architecture, named in registered().items():
        for version, name, value in itertools.product(VERSIONS, named | OF_BEFORE_6, VALUES):
            plain = {"architecture": architecture, "k": 5, "dtype": "float32"}
            rescale = {"rescale_acts_by_decoder_norm": "batchtopk" in architecture}
            config = of_before_6(**plain, **rescale, **version)
            if "transcoder" in architecture:
                config |= {"d_out": D_SAE, "apply_b_dec_to_input": False, "hook_name_out": HOOK}
            if check_parity({**config, name: value}):
                read[read_saelens_config(without_absent({**config, name: value})).architecture] += 1
    assert min(read.values()) > 1000, read


@pytest.mark.integration
def test_what_speaks_of_the_activation_means_together_what_it_means_to_saelens():
    read = 0
    for version, architecture, activation, spelled, options, k, rescaled in itertools.product(
        VERSIONS,
        (ABSENT, None, "standard", "topk", "jumprelu", "batchtopk", "gated"),
        (ABSENT, None, "relu", "topk", "tanh-relu"),
        ("activation_fn", "activation_fn_str"),
        (ABSENT, None, {}, {"k": 7}, {"k": None}),
        (ABSENT, None, 20),
        (ABSENT, True, False),
    ):
        read += check_parity(
            of_before_6(
                dtype="float32", architecture=architecture, activation_fn_kwargs=options, k=k,
                rescale_acts_by_decoder_norm=rescaled, **version, **{spelled: activation},
            )
        )  # fmt: skip
    assert read > 1000


@pytest.mark.integration
def test_each_field_by_which_saelens_configures_a_supported_architecture_is_looked_at():
    import sae_lens  # noqa: F401
    from sae_lens.registry import SAE_CLASS_REGISTRY

    for architecture in ARCHITECTURES.keys() & SAE_CLASS_REGISTRY.keys() - REFUSED.keys():
        named = {field.name for field in fields(SAE_CLASS_REGISTRY[architecture][1])}
        assert named <= DECIDING | READ_NOT_DECIDING
    assert not DECIDING & NOTED.keys()
    assert ARCHITECTURES

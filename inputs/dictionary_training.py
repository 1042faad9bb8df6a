"""Training metadata of dictionaries: each field is applied, refused or noted.

One table for all formats, for releases and for local folders. Fields have SAELens' names, of any
version; Gemma Scope 2 brings its own for the hook.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from loopscope.inputs.model_aliases import names_of
from loopscope.specs.hooks import Hook, all_streams
from loopscope.specs.json_values import Json

SHOWN_CHARACTERS_MAX = 80
UNKNOWN_SHOWN_MAX = 8
_HUGGING_FACE_BLOCK = re.compile(
    r"(?:(?:model|language_model|transformer|gpt_neox)\.)*(?:layers|h)\.(\d+)(?:\.(input|output))?"
)
_HUGGING_FACE_PART = re.compile(
    r"(?:(?:model|language_model)\.)*layers\.(\d+)\.(\w+(?:\.\w+)?\.(?:input|output))"
)
_STREAM_BY_PART = {
    "self_attn.o_proj.input": "attn.z",
    "pre_feedforward_layernorm.input": "resid_mid",
    "pre_feedforward_layernorm.output": "mlp.in",
    "post_feedforward_layernorm.output": "mlp_out",
}
"""Places in a block of Gemma 2 and 3, as Gemma Scope 2 names them."""
_READ_FROM = ("hook_name", "hook_point", "hf_hook_name", "hf_hook_point_in")
_WRITTEN_TO = ("hook_name_out", "hf_hook_name_out", "hf_hook_point_out")
_HEADS = ("hook_head_index", "hook_point_head_index", "hook_head_index_out")
"""One head of an attention."""


@dataclass(frozen=True)
class Training:
    """Where a dictionary was trained, as far as that is recorded.

    ``hook_name`` is None and ``model_names`` is empty where it is not. ``write_hook`` is where a
    transcoder writes, None for what writes where it reads. ``notes`` are remarks
    for the reader of results: what is declared, and neither applied here nor refused.
    """

    hook_name: str | None
    model_names: tuple[str, ...]
    notes: tuple[str, ...]
    write_hook: str | None = None


def read_training(said: Mapping[str, Json], *, transcoder: bool = False) -> Training:
    """Return the training that a dictionary's config records; ``ValueError`` names what misfits.

    A ``transcoder`` has to say where it writes, and nothing else may write elsewhere.
    """
    told = {name: value for name, value in said.items() if value is not None}
    hook, written = _hooks(told, transcoder=transcoder)
    model = told.get("model_name")
    if model is not None and not isinstance(model, str):
        raise ValueError(f"expected model_name to be a text, found {_short(model)}")
    notes = list(_notes(told))
    if model:
        notes.append(f"it says that it was trained on {_short(model)}")
    if hook is None:
        notes.append("it does not say at which hook it was trained, so that is not checked")
    return Training(hook, names_of(model) if model else (), tuple(notes), written)


def _hooks(told: Mapping[str, Json], *, transcoder: bool) -> tuple[str | None, str | None]:
    """Return where a dictionary reads, and where it writes if that is another place."""
    for name in _HEADS:
        if name in told and told[name] is not False:
            raise ValueError(
                f"{name} is {_short(told[name])}: it reads one head of an attention; supported are "
                "dictionaries of all heads together (hook_z)"
            )
    if not transcoder and told.get("affine_connection", False) is not False:
        raise ValueError(
            f"affine_connection is {_short(told['affine_connection'])}: only a transcoder has one"
        )
    read = _one_place(told, _READ_FROM)
    if transcoder:
        written = _one_place(told, _WRITTEN_TO)
        if written is None:
            raise ValueError("hook_name_out is missing: a transcoder has to say where it writes")
        return read, written
    both = _one_place(told, (*_READ_FROM, *_WRITTEN_TO))
    return (None if read is None else both), None


def _one_place(told: Mapping[str, Json], fields: tuple[str, ...]) -> str | None:
    """Return the place that these fields name, all of them the same."""
    found: dict[str, str] = {}
    for name in fields:
        if name in told:
            found.setdefault(_known_hook(told[name]), name)
    if len(found) > 1:
        (first, one), (second, other), *_ = found.items()
        raise ValueError(f"{one} is {first}, but {other} is {second}; they cannot both be right")
    return next(iter(found), None)


def _known_hook(place: Json) -> str:
    """Return TransformerLens' name of a place, which may have Hugging Face's name."""
    if isinstance(place, str):
        if block := _HUGGING_FACE_BLOCK.fullmatch(place):
            return str(Hook(int(block[1]), "resid_pre" if block[2] == "input" else "resid_post"))
        part = _HUGGING_FACE_PART.fullmatch(place)
        if part and part[2] in _STREAM_BY_PART:
            return str(Hook(int(part[1]), _STREAM_BY_PART[part[2]]))
        with contextlib.suppress(ValueError):
            return str(Hook.parse(place))
    raise ValueError(
        f"it was trained at {_short(place)}; supported are dictionaries of {all_streams()}"
    )


def _notes(told: Mapping[str, Json]) -> Iterator[str]:
    for name, note in NOTED.items():
        if name in told and (text := note(told[name])) is not None:
            yield text
    known = {*_READ_FROM, *_WRITTEN_TO, *_HEADS, "affine_connection", *NOTED, "model_name"}
    unknown = sorted(name for name in told.keys() - known if not _has_no_effect(name))
    if unknown:
        shown = ", ".join(name[:SHOWN_CHARACTERS_MAX] for name in unknown[:UNKNOWN_SHOWN_MAX])
        more = f" and {len(unknown) - UNKNOWN_SHOWN_MAX} more" * (len(unknown) > UNKNOWN_SHOWN_MAX)
        yield f"fields that are not known here and have no effect: {shown}{more}"


def _loaded_with(options: Json) -> str | None:
    asked = options if isinstance(options, dict) else {"": options}
    listed = ", ".join(f"{name}={value}" for name, value in sorted(asked.items()) if value)
    if not listed:
        return None
    return (
        f"it was trained on a model loaded with {listed[:SHOWN_CHARACTERS_MAX]}; "
        "here the model is as published"
    )


def _without_bos(prepended: Json) -> str | None:
    if prepended is True:
        return None
    return (
        f"it was trained with prepend_bos {_short(prepended)}, on text without BOS in front; here "
        "each text begins with one"
    )


def _positions(slice_: Json) -> str | None:
    if not isinstance(slice_, list) or all(bound is None for bound in slice_):
        return None
    return f"it was trained on the positions {_short(slice_)} of each text only (seqpos_slice)"


def _model_class(name: Json) -> str | None:
    if name in ("HookedTransformer", "HookedTransformerProxyLM", "AutoModelForCausalLM"):
        return None
    return f"it was trained on a model of the class {_short(name)}"


def _chat(formatted: Json) -> str | None:
    return "it was trained on text in a chat format" if formatted else None


NOTED: Mapping[str, Callable[[Json], str | None]] = {
    "model_from_pretrained_kwargs": _loaded_with,
    "model_kwargs": _loaded_with,
    "prepend_bos": _without_bos,
    "seqpos_slice": _positions,
    "model_class_name": _model_class,
    "use_chat_formatting": _chat,
}
_WEIGHTS = frozenset(
    """
    architecture type width dtype device d_in d_sae d_out d_head k metadata apply_b_dec_to_input
    normalize_activations reshape_activations rescale_acts_by_decoder_norm activation_fn
    activation_fn_str activation_fn_kwargs finetuning_scaling_factor use_error_term
    exclude_special_tokens
    """.split()  # noqa: SIM905 - words read better than quotes
)
"""What the weights are, read elsewhere. Special tokens are never captured here."""
_TRAINING = re.compile(
    r"(wandb|log|lr|adam|l0|l1|lp|jumprelu|eval|dead_feature|dataset|compile)_.+"
)
_TRAINING_NAMES = frozenset(
    """
    act_store_device activations_mixing_fraction autocast autocast_lm aux_loss_coefficient
    b_dec_init_method begin_batch_token begin_sequence_token buffer_size_gb cached_activations_path
    checkpoint_path column_name context_size data_dir data_files decoder_heuristic_init
    decoder_heuristic_init_norm decoder_init_norm decoder_orthogonal_init disable_concat_sequences
    expansion_factor feature_sampling_method feature_sampling_window feature_reinit_scale
    finetuning_method finetuning_tokens from_pretrained_path hf_is_private_repo hf_num_shards
    hf_repo_id hf_revision hook_eval hook_layer hook_point_eval hook_point_layer id
    init_encoder_as_decoder_transpose is_dataset_tokenized l0 l1 llm_compilation_mode llm_device
    logger lr model_batch_size mse_loss_normalization n_batches_for_norm_estimate
    n_batches_in_buffer n_checkpoints n_eval_batches n_eval_seqs n_restart_cycles neuronpedia_id
    new_cached_activations_path noise normalize_sae_decoder num_dead_features num_proc output_path
    pre_act_loss_coefficient prefetch_llm_batches pretokenize_batch_size resume
    resume_from_checkpoint run_name sae sae_compilation_mode sae_lens_training_version
    sae_lens_version save_final_checkpoint save_path scale_sparsity_penalty_by_decoder_norm seed
    sequence_separator_token shuffle split store_batch_size store_batch_size_prompts streaming
    target_l0 tokenizer_name tokens_per_buffer topk_threshold_lr total_training_steps
    total_training_tokens train_batch_size train_batch_size_tokens training_architecture
    training_architecture_details training_tokens unique_id use_cached_activations use_ghost_grads
    use_sparse_activations variance_explained verbose version
    """.split()  # noqa: SIM905 - words read better than quotes
)
"""How training went, in the words of SAELens' runners: nothing to apply to the weights."""


def _has_no_effect(name: str) -> bool:
    return name in _WEIGHTS or name in _TRAINING_NAMES or _TRAINING.fullmatch(name) is not None


def _short(value: Json) -> str:
    return repr(value)[:SHOWN_CHARACTERS_MAX]

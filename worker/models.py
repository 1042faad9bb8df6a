"""Language models, loaded once: TransformerLens' bridge for capture, Hugging Face for decoding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from loopscope.numerics.model.causal_model import CausalModel, OutputHead
from loopscope.numerics.model.half_precision import widen_products
from loopscope.numerics.model.hooks import HookPlace, NoSuchPlace, width_at
from loopscope.specs.hooks import Hook
from loopscope.specs.payloads.references import ModelReference
from loopscope.state.failures import TerminalFailure
from loopscope.worker.block_parts import block_parts
from loopscope.worker.mapped_weights import FilePages
from loopscope.worker.model_sources import ModelView, local_model_folder, only_its_files
from loopscope.worker.progress import ProgressReport
from loopscope.worker.quantised import (
    bridged,
    check_quantisation,
    is_rounded,
    rounding,
    second_skeleton,
)
from loopscope.worker.tokenizers import TextEncoder, load_tokenizer, loading

AGREEMENT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
"""Largest accepted difference between bridge and Hugging Face logits, relative to the largest."""

COMPARED_TOGETHER = 4 * 2**20
"""Numbers of two copies of a weight that are held against each other at a time."""


@dataclass(frozen=True)
class LoadedModel(TextEncoder):
    """A frozen model in evaluation mode. ``bridge`` and ``hf_model`` share their weights.

    ``causal`` is the same Hugging Face model as numerics takes it: body, blocks, output head.
    ``eos_tokens`` end a generation; ``pad_token`` fills padding and is always masked.
    """

    bridge: Any = field(repr=False)
    hf_model: Any = field(repr=False)
    causal: CausalModel = field(repr=False)
    d_model: int
    n_layers: int
    dtype: str
    device: str
    identity: str
    pad_token: int
    eos_tokens: frozenset[int]
    context_tokens_max: int | None

    def continuation(self, opening: list[int], generated: list[int]) -> str:
        """Return the text that ``generated`` adds after ``opening``, its leading space kept."""
        before = self.decode(opening)
        whole = self.decode([*opening, *generated])
        return whole[len(before) :] if whole.startswith(before) else self.decode(generated)

    def place(self, hook: str) -> HookPlace:
        """Return the place that a hook names. Raises TerminalFailure ``UnknownHook``."""
        try:
            found = Hook.parse(hook).within(self.n_layers)
        except ValueError as error:
            raise TerminalFailure("UnknownHook", str(error)) from None
        place = HookPlace(found.block, found.stream)
        try:
            width_at(self.causal, place)
        except NoSuchPlace as error:
            raise TerminalFailure("UnknownHook", f"there is no {hook}: {error}") from None
        return place

    def width(self, hook: str) -> int:
        """Return how wide the vectors of a hook are. Raises TerminalFailure ``UnknownHook``."""
        return width_at(self.causal, self.place(hook))


def load_model(
    ref: ModelReference, cache: Path, device: str, progress: ProgressReport
) -> LoadedModel:
    """Load the model that ``ref`` names, after its files were verified.

    Weights are raw (no folding, no centring), in evaluation mode and without gradients; code
    from a repository is never run. Nothing but the files of the identity is seen, whatever else
    lies beside them. Raises TerminalFailure and TransientFailure.
    """
    folder = local_model_folder(ref, cache, progress)
    with only_its_files(folder, ref) as view:
        return _loaded(view, ref, device, progress)


def _loaded(
    view: ModelView, ref: ModelReference, device: str, progress: ProgressReport
) -> LoadedModel:
    check_quantisation(view.path, ref, device)
    loaded = partial(_percent_loaded, progress)
    loaded(0)
    encoder = load_tokenizer(view, ref)
    tokenizer, bos_token = encoder.tokenizer, encoder.bos_token
    loaded(45)
    eos_token = tokenizer.eos_token_id
    bridge, plain = _load_twice_share_once(view, ref, device, tokenizer, loaded)
    loaded(90)
    blocks = _blocks(bridge, plain, ref)
    causal = CausalModel(_body(plain), blocks, _output_head(plain), block_parts(bridge))
    _check_agreement(bridge, plain, causal, bos_token, ref)
    loaded(100)
    return LoadedModel(
        bridge=bridge,
        hf_model=plain,
        tokenizer=tokenizer,
        causal=causal,
        d_model=int(causal.head.weight.shape[1]),
        n_layers=len(blocks),
        dtype=ref["dtype"],
        device=device,
        identity=ref["identity"],
        bos_token=bos_token,
        plain_bos=encoder.plain_bos,
        pad_token=bos_token if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        eos_tokens=_eos_tokens(eos_token, plain),
        context_tokens_max=getattr(_text_config(plain), "max_position_embeddings", None),
    )


def _percent_loaded(progress: ProgressReport, percent: int) -> None:
    """Report how much of loading is done, by the processor time of Gemma 3 270M."""
    progress("LoadingModel", percent, 100, "percent")


def _load_twice_share_once(
    view: ModelView,
    ref: ModelReference,
    device: str,
    tokenizer: Any,
    loaded: Callable[[int], None],
) -> tuple[Any, Any]:
    """Return the bridge and the plain Hugging Face model over one copy of the weights.

    The bridge replaces modules by its own, slower ones (eager attention, a hook at each
    tensor); the plain model decodes about a fifth faster. Safetensors files are mapped, so the
    second skeleton costs no second reading.
    """
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    dtype = getattr(torch, ref["dtype"])
    plain, report = loading(
        view,
        lambda: AutoModelForCausalLM.from_pretrained(
            str(view.path),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in plain words
            **rounding(ref, device),
        ),
    )
    _check_complete(view.folder, report)
    boot = partial(
        TransformerBridge.boot_transformers,
        str(view.path), device=device, dtype=dtype, tokenizer=tokenizer, trust_remote_code=False,
    )  # fmt: skip
    if is_rounded(plain):
        loaded(65)
        bridge = bridged(partial(boot, hf_model=second_skeleton(plain)), ref["name"])
    else:
        plain = plain.to(device)
        loaded(65)
        bridge = loading(view, boot)
        share_weights(plain, bridge.original_model, ref["name"])
    for model in (bridge, plain):
        model.eval()
        model.requires_grad_(requires_grad=False)
    for model in (bridge.original_model, plain):
        widen_products(model)
    return bridge, plain


class LoadingReport(TypedDict):
    """What transformers reports of a model's weights; shapes are found, then expected."""

    missing_keys: Collection[str]
    mismatched_keys: Collection[tuple[str, Sequence[int], Sequence[int]]]


def _check_complete(folder: Path, report: LoadingReport) -> None:
    """Refuse what transformers would make up: random matrices, neutral norms."""
    wrong = [
        *(f"{name} is missing" for name in sorted(report["missing_keys"])),
        *(
            f"{name} is {tuple(found)}, expected {tuple(expected)}"
            for name, found, expected in sorted(report["mismatched_keys"])
        ),
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise TerminalFailure(
            "ModelNotLoadable",
            f"weights and configuration in {folder} do not fit: {wrong[0]}{more}; "
            "get the files again",
        )


def share_weights(plain: nn.Module, bridged: nn.Module, name: str) -> int:
    """Let ``plain`` use the bridge's tensors; return how many parameters are shared.

    Raises TerminalFailure ``WeightsProcessed`` when a weight differs: dictionaries are trained
    on raw weights, so the bridge must not fold or centre them; ``NotFinite`` for NaN, which
    differs from itself.
    """
    of_bridge = {
        key.replace("._original_component", ""): tensor
        for key, tensor in bridged.named_parameters(remove_duplicate=False)
    }
    shared, pages = 0, FilePages.now()
    for key, own in list(plain.named_parameters(remove_duplicate=False)):
        other = of_bridge.get(key)
        if other is None:
            continue
        if other.shape != own.shape or not _same(other, own, pages):
            if not bool(torch.isfinite(own).all()):
                raise TerminalFailure("NotFinite", f"{name}: {key} holds NaN or infinity")
            raise TerminalFailure("WeightsProcessed", f"{name}: {key} differs from the file's")
        owner, _, attribute = key.rpartition(".")
        setattr(plain.get_submodule(owner), attribute, other)
        shared += 1
    return shared


def _same(of_bridge: Tensor, own: Tensor, pages: FilePages) -> bool:
    """Compare two tensors of one shape; what was seen of ``own`` is given back as it goes along.

    Else both maps of a file would be resident at once.
    """
    flat = [torch.split(one.reshape(-1), COMPARED_TOGETHER) for one in (of_bridge, own)]
    for kept, seen in zip(*flat, strict=True):
        if not torch.equal(kept, seen):
            return False
        pages.release(seen)
    return True


def _blocks(bridge: Any, plain: Any, ref: ModelReference) -> list[nn.Module]:
    if not hasattr(bridge, "blocks"):
        raise TerminalFailure("UnsupportedModel", f"{ref['name']} is not a stack of blocks")
    return [plain.get_submodule(block.name) for block in bridge.blocks]


def _body(plain: Any) -> Any:
    return plain.get_decoder() if hasattr(plain, "get_decoder") else plain.base_model


def _text_config(plain: Any) -> Any:
    return plain.config.get_text_config()


def _output_head(plain: Any) -> OutputHead:
    head = plain.get_output_embeddings()
    config = _text_config(plain)
    divisor = getattr(config, "logits_scaling", None)
    factor = getattr(config, "logit_scale", None)
    return OutputHead(
        weight=head.weight.detach(),
        bias=None if getattr(head, "bias", None) is None else head.bias.detach(),
        scale=float(factor or 1.0) / float(divisor or 1.0),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


@torch.no_grad()
def _check_agreement(
    bridge: Any, plain: Any, causal: CausalModel, bos_token: int, ref: ModelReference
) -> None:
    """Check that bridge, Hugging Face and our output head give the same logits on a few tokens."""
    last = causal.head.vocabulary - 1
    tokens = torch.tensor([[bos_token, last // 3, last // 2, last // 5]], device=plain.device)
    inputs = {
        "attention_mask": torch.ones_like(tokens),
        "position_ids": torch.arange(tokens.shape[1], device=plain.device)[None],
        "use_cache": False,
    }
    expected = plain(input_ids=tokens, **inputs).logits[0].float()
    if not bool(torch.isfinite(expected).all()):
        raise TerminalFailure(
            "NotFinite",
            f"{ref['name']} returns NaN or infinity on four ordinary tokens in {ref['dtype']}; use "
            "dtype float32, or check the weights",
        )
    body = causal.body(input_ids=tokens, **inputs).last_hidden_state
    found = {"output head": causal.head(body[0]), "bridge": bridge(tokens, **inputs)[0].float()}
    for part, logits in found.items():
        error = float((logits - expected).abs().max() / expected.abs().max())
        if not error <= AGREEMENT_TOLERANCE[ref["dtype"]]:
            raise TerminalFailure(
                "UnsupportedModel",
                f"{part} of {ref['name']} differs from Hugging Face by {error:.1e} of the logits",
            )


def _eos_tokens(eos_token: int | None, plain: Any) -> frozenset[int]:
    named = getattr(getattr(plain, "generation_config", None), "eos_token_id", None)
    many = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in (eos_token, *many) if token is not None)

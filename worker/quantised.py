"""Weights that are rounded to few bits: what loading them needs, and how it is done.

Either the model was published so (the method stands in ``config.json``, whose hash is part of its
identity), or a spec asks for it (``model.quantised``). bitsandbytes computes with both kinds of
its weights on CPUs and GPUs; what other methods need is said before it is tried. No GPU ran any of
this.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from loopscope.inputs.files import read_json_object
from loopscope.specs.json_values import Json
from loopscope.specs.payloads.references import ModelReference
from loopscope.state.failures import TerminalFailure

BITSANDBYTES = "bitsandbytes"
PACKAGES: Mapping[str, str] = {BITSANDBYTES: BITSANDBYTES, "gptq": "gptqmodel", "awq": "gptqmodel"}
"""The package of Python by which a ``quant_method`` is computed. Other methods are left to
transformers, which loads or refuses them."""
ON_A_GPU_ALONE = frozenset({"gptq", "awq"})
INSTALL = "pip install 'loopscope[quantised]'"


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def check_quantisation(
    folder: Path,
    ref: ModelReference,
    device: str,
    is_installed: Callable[[str], bool] = _is_installed,
) -> None:
    """Raise TerminalFailure ``UnsupportedModel`` where a model's weights are of no use here."""
    if "quantised" in ref:
        if not is_installed(BITSANDBYTES):
            raise TerminalFailure(
                "UnsupportedModel",
                f"quantised: {ref['quantised']} needs the package {BITSANDBYTES}, and that is not "
                f"installed; {INSTALL}, or leave quantised out",
            )
        return
    try:
        given = read_json_object(folder / "config.json").get("quantization_config")
    except (OSError, ValueError):
        return  # loading says what is wrong with it
    if not isinstance(given, dict):
        return
    method = str(given.get("quant_method"))
    package = PACKAGES.get(method)
    if package is None:
        return
    what = f"{ref['name']} was published quantised ({_words(given)})"
    advice = "name the model as it was before, or a GGUF file, which is dequantised"
    if method in ON_A_GPU_ALONE and not device.startswith("cuda"):
        raise TerminalFailure(
            "UnsupportedModel",
            f"{what}, and such weights are computed with on a GPU alone (--device cuda); {advice}",
        )
    if not is_installed(package):
        how = INSTALL if package == BITSANDBYTES else "install it"
        raise TerminalFailure(
            "UnsupportedModel",
            f"{what}, which needs the package {package}, and that is not installed; {how}, or "
            f"{advice}",
        )


def _words(given: Mapping[str, Json]) -> str:
    """Return method and kind as people call them: ``bitsandbytes nf4``, ``gptq 4 bits``."""
    method = str(given["quant_method"])[:40]
    if given.get("load_in_8bit"):
        return f"{method} int8"
    if given.get("load_in_4bit"):
        return f"{method} {str(given.get('bnb_4bit_quant_type', '4 bits'))[:20]}"
    bits = given.get("bits")
    return f"{method} {bits} bits" if isinstance(bits, int) else method


def rounding(ref: ModelReference, device: str) -> dict[str, Any]:
    """Return what ``from_pretrained`` is told so that it rounds as the reference says.

    Linear layers alone: embeddings, norms and the output head stay as they are.
    """
    kind = ref.get("quantised")
    if kind is None:
        return {}
    from transformers import BitsAndBytesConfig

    config = (
        BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
        if kind == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, ref["dtype"]),
        )
    )
    return {"quantization_config": config, "device_map": {"": device}}


def is_rounded(plain: Any) -> bool:
    """Whether bitsandbytes computes with a model's weights."""
    given = getattr(plain.config, "quantization_config", None)
    method = given.get("quant_method") if isinstance(given, dict) else given
    method = getattr(method, "quant_method", method)
    return str(getattr(method, "value", method)) == BITSANDBYTES


def second_skeleton(plain: Any) -> Any:
    """Return a copy of a rounded model's modules over the same tensors, for the bridge to change.

    What would make a result depend on the batch or the processor is switched off: LLM.int8()
    treats columns apart in which some row of a batch has an outlier, and 4-bit layers compute in
    bfloat16 on processors that have such instructions.
    """
    logging.getLogger(BITSANDBYTES).setLevel(logging.ERROR)  # it warns in each product
    same: list[Any] = [*plain.parameters(), *plain.buffers()]
    for module in plain.modules():
        match type(module).__name__:  # the package may be missing where this is checked
            case "Linear8bitLt":
                module.state.threshold = 0.0
                module.init_8bit_state()
                same.append(module.state)
            case "Linear4bit":
                module.support_avx512bf16_for_cpu = False
    skeleton = copy.deepcopy(plain, {id(one): one for one in same})
    skeleton.set_attn_implementation("eager")
    return skeleton


def bridged(boot: Callable[[], Any], name: str) -> Any:
    """Call ``boot`` for a rounded model. Raises TerminalFailure ``UnsupportedModel``."""
    try:
        return boot()
    except NotImplementedError as error:
        raise TerminalFailure(
            "UnsupportedModel",
            f"the attention of {name} keeps query, key and value in one matrix, which "
            "TransformerLens cannot take apart once it is rounded; leave quantised out, or name "
            "the original",
        ) from error

"""Files of one steering vector, in the layouts that other programs read.

Equal inputs give equal bytes. The metadata of each is the same: a passport and a self-test, both
JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopscope.specs.hooks import Hook
from loopscope.specs.vectors import PASSPORT, SELF_TEST, TENSOR, Passport, SelfTest, VectorFormat
from loopscope.state.failures import TerminalFailure

Vector = NDArray[np.float32]
CONTROL_VECTOR = "controlvector"
"""The architecture that llama.cpp gives such files (``tools/cvector-generator``)."""


def write_vector(
    path: Path, layout: VectorFormat, vector: Vector, passport: Passport, test: SelfTest, hint: str
) -> None:
    """Write a vector of width [d]; ``hint`` is the family of the model in Hugging Face's words.

    Raises TerminalFailure ``NotExpressible`` where the layout has no word for the vector's place.
    """
    metadata = {
        PASSPORT: json.dumps(passport, ensure_ascii=False, allow_nan=False),
        SELF_TEST: json.dumps(test, ensure_ascii=False, allow_nan=False),
    }
    _WRITERS[layout](path, vector, passport, metadata, hint)


def _safetensors(
    path: Path, vector: Vector, _passport: Passport, metadata: Mapping[str, str], _hint: str
) -> None:
    """Write it by hand: the library's order of metadata differs from run to run.

    A length of 8 bytes, a JSON header padded with spaces, the numbers
    (https://github.com/huggingface/safetensors#format).
    """
    data = np.ascontiguousarray(vector, dtype="<f4").tobytes()
    tensor = {"dtype": "F32", "shape": [len(vector)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": dict(metadata), TENSOR: tensor}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def _llama_cpp(
    path: Path, vector: Vector, passport: Passport, metadata: Mapping[str, str], hint: str
) -> None:
    """Write llama.cpp's control vector: ``direction.N`` is added to the output of block N.

    Its loader refuses N = 0 (``common_control_vector_load_one``).
    """
    block = block_after(passport)
    if block == 0:
        raise TerminalFailure(
            "NotExpressible",
            "llama.cpp adds no control vector behind the first block (it refuses direction.0), and "
            f"this one is added at {passport['place']['hook']}; use --format safetensors or repeng",
        )
    _control_vector(path, {block: vector}, metadata, hint)


def _repeng(
    path: Path, vector: Vector, passport: Passport, metadata: Mapping[str, str], hint: str
) -> None:
    """Write what ``repeng.ControlVector.import_gguf`` reads: the same, the first block included."""
    _control_vector(path, {block_after(passport): vector}, metadata, hint)


def block_after(passport: Passport) -> int:
    """Return the block at whose output the vector is added. Raises TerminalFailure."""
    hook = Hook.parse(passport["place"]["hook"])
    block = {"resid_post": hook.block, "resid_pre": hook.block - 1}.get(hook.stream, -1)
    if block < 0:
        raise TerminalFailure(
            "NotExpressible",
            f"control vectors are added behind a block, and this one at {hook}; use --format "
            "safetensors",
        )
    return block


def _control_vector(
    path: Path, directions: Mapping[int, Vector], metadata: Mapping[str, str], hint: str
) -> None:
    from gguf import GGUFWriter  # late: only these two layouts need it

    writer = GGUFWriter(path, CONTROL_VECTOR)
    writer.add_string(f"{CONTROL_VECTOR}.model_hint", hint)
    writer.add_int32(f"{CONTROL_VECTOR}.layer_count", len(directions))
    for name, text in metadata.items():
        writer.add_string(name, text)
    for block, vector in directions.items():
        writer.add_tensor(f"direction.{block}", np.ascontiguousarray(vector, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_WRITERS: Mapping[
    VectorFormat, Callable[[Path, Vector, Passport, Mapping[str, str], str], None]
] = {"safetensors": _safetensors, "gguf": _llama_cpp, "repeng": _repeng}

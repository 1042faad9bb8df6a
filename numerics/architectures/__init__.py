"""Architectures of sparse dictionaries: what their latents read of a row.

One module and one class each, under SAELens' name. What their files look like stands in
``loopscope.inputs.architectures`` under the same names; a test compares the two tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from loopscope.numerics.architectures.batchtopk import BatchTopK, MatryoshkaBatchTopK
from loopscope.numerics.architectures.gated import Gated
from loopscope.numerics.architectures.jumprelu import JumpRelu
from loopscope.numerics.architectures.standard import Standard
from loopscope.numerics.architectures.temporal import Temporal
from loopscope.numerics.architectures.topk import TopK
from loopscope.numerics.architectures.transcoder import (
    JumpReluSkipTranscoder,
    JumpReluTranscoder,
    SkipTranscoder,
    Transcoder,
)
from loopscope.numerics.dictionaries.sparse import SparseDictionary

ARCHITECTURES: Mapping[str, type[SparseDictionary]] = {
    one.architecture: one
    for one in (
        Standard,
        JumpRelu,
        TopK,
        BatchTopK,
        MatryoshkaBatchTopK,
        Gated,
        Temporal,
        Transcoder,
        JumpReluTranscoder,
        SkipTranscoder,
        JumpReluSkipTranscoder,
    )
}


def dictionary_of(
    architecture: str,
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any] | None = None,
    *,
    apply_b_dec_to_input: bool = True,
    release: Callable[[], None] = lambda: None,
) -> SparseDictionary:
    """Return the dictionary that float32 tensors make. Raises ``ValueError`` where they make none.

    ``settings`` are the numbers beside the tensors: ``k`` for ``topk``. ``release`` gives back the
    pages of tensors that lie in a mapped file.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}")
    made = ARCHITECTURES[architecture]
    missing = sorted(made.required_tensors.keys() - tensors.keys())
    if missing:
        raise ValueError(f"{architecture} needs {', '.join(missing)}; found {sorted(tensors)}")
    parts = {name: tensors[name] for name in made.required_tensors}
    return made(
        **parts,
        **(settings or {}),
        apply_b_dec_to_input=apply_b_dec_to_input,
        release=release,
    )

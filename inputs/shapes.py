"""Shapes of SAELens' own dictionaries and of Gemma Scope, from their configs and headers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from loopscope.inputs.architectures import ARCHITECTURES, Axis
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.gemma_scope import GEMMA_SCOPE_ARCHITECTURE
from loopscope.inputs.headers import TensorHeader
from loopscope.inputs.saelens_config import SaelensConfig
from loopscope.inputs.stored import DTYPES

_OLD_SCALINGS = frozenset({"scaling_factor", "finetuning_scaling_factor"})
"""Stored by old SAELens versions, usually all ones; the worker looks at the values."""


@dataclass(frozen=True)
class Shape:
    """What config and headers agree on; ``d_out`` is None where it writes what it reads."""

    architecture: str
    d_in: int
    d_sae: int
    dtype: str
    d_out: int | None = None


def shape_of(config: SaelensConfig | None, headers: dict[str, TensorHeader], field: str) -> Shape:
    """Return the shape that config and headers agree on; Gemma Scope needs no config."""
    if config is None:
        return _checked_shape(GEMMA_SCOPE_ARCHITECTURE, headers, field)
    tensors = {name: headers[name] for name in headers.keys() - _OLD_SCALINGS}
    shape = _checked_shape(config.architecture, tensors, field)
    if (shape.d_in, shape.d_sae) != (config.d_in, config.d_sae):
        raise InputRefused(
            field,
            f"cfg.json says d_in {config.d_in}, d_sae {config.d_sae}, but the weights have "
            f"{shape.d_in} and {shape.d_sae}; the files do not belong together",
        )
    if shape.d_out not in (None, config.d_out):
        raise InputRefused(
            field,
            f"cfg.json says d_out {config.d_out}, but the decoder writes vectors of width "
            f"{shape.d_out}; the files do not belong together",
        )
    return shape


def _checked_shape(architecture: str, headers: dict[str, TensorHeader], field: str) -> Shape:
    encoder = headers.get("w_enc")
    if encoder is None or len(encoder.shape) != 2 or 0 in encoder.shape:
        listed = ", ".join(sorted(headers))[:200]
        raise InputRefused(field, f"expected an encoder matrix W_enc, found {listed or 'nothing'}")
    d_in, d_sae = encoder.shape
    sizes: dict[Axis, int] = {"d_in": d_in, "d_sae": d_sae, "d_out": d_in}
    decoder = headers.get("w_dec")
    if ARCHITECTURES[architecture].transcoder and decoder and len(decoder.shape) == 2:
        sizes["d_out"] = decoder.shape[1]
    expected = _expected_shapes(architecture, headers.keys(), sizes)
    for name, shape in expected.items():
        found = headers[name].shape if name in headers else "nothing"
        if found != shape:
            raise InputRefused(field, f"expected {name} of shape {shape}, found {found}")
    extra = sorted(headers.keys() - expected.keys())
    if extra:
        raise InputRefused(
            field,
            f"tensor {extra[0][:80]} has no meaning for a {architecture} dictionary",
        )
    if encoder.dtype not in DTYPES:
        raise InputRefused(field, f"W_enc is stored as {encoder.dtype}, expected floats")
    d_out = sizes["d_out"] if ARCHITECTURES[architecture].transcoder else None
    return Shape(architecture, d_in, d_sae, DTYPES[encoder.dtype], d_out)


def _expected_shapes(
    architecture: str, present: Collection[str], sizes: Mapping[Axis, int]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its stored name, in lower case."""
    stored = ARCHITECTURES[architecture]
    expected: dict[str, tuple[int, ...]] = {}
    for tensor, axes in stored.tensors.items():
        name = stored.stored_name(tensor).lower()
        single = stored.one_for_all.get(tensor)
        if single is None or name in present:
            expected[name] = tuple(sizes[axis] for axis in axes)
        else:
            expected[single] = ()
    return expected

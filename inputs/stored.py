"""Descriptions of dictionaries in other layouts than SAELens' own, from configs and headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loopscope.inputs.architectures import ARCHITECTURES
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import read_json_object
from loopscope.inputs.headers import TensorHeader
from loopscope.inputs.layouts.layout import Contents, Entry, Reading
from loopscope.inputs.yaml_objects import read_yaml_object
from loopscope.specs.json_values import JsonObject


@dataclass(frozen=True)
class StoredShape:
    """What configs and headers agree on; ``dtype`` is that of the stored encoder."""

    reading: Reading
    d_in: int
    d_sae: int
    dtype: str


def config_object(path: Path, field: str) -> JsonObject:
    """Return the object in a small JSON or YAML file. Raises ``InputRefused``."""
    try:
        return read_yaml_object(path) if path.suffix == ".yaml" else read_json_object(path)
    except ValueError as error:
        raise InputRefused(field, f"{path.name}: {error}") from None


def read_stored(
    contents: Contents, configs: Mapping[str, JsonObject], entry: Entry, field: str
) -> Reading:
    """Return what configs mean, of an architecture that there is. Raises ``InputRefused``."""
    try:
        reading = contents.read(configs, entry)
    except ValueError as error:
        raise InputRefused(field, f"{', '.join(configs) or entry.path}: {error}") from None
    if reading.architecture not in ARCHITECTURES:
        raise InputRefused(
            field,
            f"architecture {reading.architecture!r} is not supported; supported are "
            f"{', '.join(ARCHITECTURES)}",
        )
    return reading


def stored_shape(
    contents: Contents, reading: Reading, headers: Mapping[str, TensorHeader], field: str
) -> StoredShape:
    """Return the widths that configs and tensors agree on. Raises ``InputRefused`` by name."""
    needed = ARCHITECTURES[reading.architecture].tensors
    places = contents.places(needed, headers)
    missing = needed.keys() - places.keys() - contents.absent_is_zero - reading.numbers.keys()
    if missing:
        listed = ", ".join(sorted(headers))[:200]
        raise InputRefused(field, f"no {min(missing)} among its tensors; found {listed or 'none'}")
    name, stored = places["w_enc"]
    encoder = stored.shape_of(headers[name].shape)
    if len(encoder) != 2 or 0 in encoder:
        raise InputRefused(field, f"{name} has the shape {headers[name].shape}, expected a matrix")
    sizes = {"d_in": encoder[0], "d_sae": encoder[1]}
    said = {"d_in": reading.d_in, "d_sae": reading.d_sae}
    if any(said[axis] not in (None, size) for axis, size in sizes.items()):
        raise InputRefused(
            field,
            f"its config says d_in {reading.d_in}, d_sae {reading.d_sae}, but the weights have "
            f"{encoder[0]} and {encoder[1]}; the files do not belong together",
        )
    for tensor, (name, stored) in places.items():
        shape = stored.shape_of(headers[name].shape)
        expected = tuple(sizes[axis] for axis in needed[tensor])
        if shape != expected and not (len(expected) == 1 and shape == ()):
            raise InputRefused(
                field,
                f"{name} has the shape {headers[name].shape}, expected {expected} as {tensor}",
            )
    read = {name for name, _ in places.values()}
    extra = sorted(headers.keys() - read - contents.ignored)
    if extra:
        raise InputRefused(
            field,
            f"tensor {extra[0][:80]} has no meaning for a {reading.architecture} dictionary",
        )
    dtype = DTYPES.get(headers[places["w_enc"][0]].dtype)
    if dtype is None:
        raise InputRefused(field, f"{places['w_enc'][0]} does not hold floats")
    return StoredShape(reading, encoder[0], encoder[1], dtype)


DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The element types of weights, by their names in safetensors."""

"""Descriptions of dictionaries in other layouts than SAELens' own, from configs and headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loopscope.inputs.architectures import ARCHITECTURES, Axis
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.files import read_json_object
from loopscope.inputs.headers import TensorHeader
from loopscope.inputs.layouts.layout import Contents, Entry, Layout, Reading, whole
from loopscope.inputs.yaml_objects import read_yaml_object
from loopscope.specs.json_values import JsonObject

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The element types of weights, by their names in safetensors."""
NUMBER_BYTES_MAX = 8
FREE_BYTES = 2**20
"""Of a file of weights beside the numbers themselves: names, shapes, alignment."""


@dataclass(frozen=True)
class StoredFacts:
    """What configs and headers agree on; ``dtype`` is that of the stored encoder.

    ``d_out`` is None for a dictionary that writes where it reads.
    """

    reading: Reading
    d_in: int
    d_sae: int
    dtype: str
    d_out: int | None = None


def check_conversion(layout: Layout, convert: str | None, what: str) -> None:
    """Refuse pickled weights without a wish to read them, and the wish where none are pickled."""
    if layout.pickled and convert is None:
        raise InputRefused(
            "convert",
            f"the weights of {what} are pickled, and unpickling could run any code; write convert: "
            "sealed to have them read once by a child process that can do nothing else, or name a "
            "dictionary in safetensors or npz",
        )
    if convert is not None and not layout.pickled:
        raise InputRefused(
            "convert", f"convert is for pickled weights, and those of {what} are none; remove it"
        )


def stored_facts(
    layout: Layout,
    entry: Entry,
    configs: Mapping[str, Path],
    headers: Mapping[str, TensorHeader],
    sizes: Mapping[str, int],
    field: str,
) -> StoredFacts:
    """Return what the files of a layout with known contents hold. Raises ``InputRefused`` by name.

    Of pickled weights there are no headers: the config says the widths, and the file's size must
    fit to them.
    """
    contents = layout.contents
    assert contents is not None  # SAELens' own folders are described elsewhere
    needed = (name for name in layout.files(entry).configs if name not in contents.optional)
    missing = [name for name in needed if name not in configs]
    if missing:
        raise InputRefused(field, f"{missing[0]} is missing beside the weights")
    objects = {name: _config_object(path, field) for name, path in configs.items()}
    reading = _read(contents, objects, entry, field)
    if not contents.pickled:
        return _agreed(contents, reading, headers, field)
    d_in, d_sae = whole(reading.d_in, "d_in"), whole(reading.d_sae, "d_sae")
    most = NUMBER_BYTES_MAX * (2 * d_in * d_sae + 4 * d_sae + d_in) + FREE_BYTES
    for name, size in sizes.items():
        if size > most:
            raise InputRefused(
                field,
                f"{name} has {size} bytes, but a {reading.architecture} dictionary of {d_sae} "
                f"latents and width {d_in} has at most {most}; it is not opened",
            )
    return StoredFacts(reading, d_in, d_sae, "float32")


def _config_object(path: Path, field: str) -> JsonObject:
    """Return the object in a small JSON or YAML file."""
    try:
        return read_yaml_object(path) if path.suffix == ".yaml" else read_json_object(path)
    except ValueError as error:
        raise InputRefused(field, f"{path.name}: {error}") from None


def _read(
    contents: Contents, configs: Mapping[str, JsonObject], entry: Entry, field: str
) -> Reading:
    """Return what configs mean, of an architecture that there is."""
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


def _agreed(
    contents: Contents, reading: Reading, headers: Mapping[str, TensorHeader], field: str
) -> StoredFacts:
    """Return the widths that configs and tensors agree on."""
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
    sizes: dict[Axis, int] = {"d_in": encoder[0], "d_sae": encoder[1], "d_out": encoder[0]}
    if reading.d_attn is not None:
        sizes["d_attn"] = reading.d_attn
    transcoder = ARCHITECTURES[reading.architecture].transcoder
    if transcoder and "w_dec" in places:
        decoder, how = places["w_dec"]
        sizes["d_out"] = how.shape_of(headers[decoder].shape)[-1]
    said: dict[Axis, int | None] = {"d_in": reading.d_in, "d_sae": reading.d_sae}
    if any(said[axis] not in (None, sizes[axis]) for axis in said):
        raise InputRefused(
            field,
            f"its config says d_in {reading.d_in}, d_sae {reading.d_sae}, but the weights have "
            f"{encoder[0]} and {encoder[1]}; the files do not belong together",
        )
    for tensor, (place, stored) in places.items():
        shape, axes = stored.shape_of(headers[place].shape), needed[tensor]
        expected = tuple(sizes[axis] for axis in axes)
        if shape != expected and not (len(expected) == 1 and shape == ()):
            raise InputRefused(
                field,
                f"{place} has the shape {headers[place].shape}, expected {expected} as {tensor}",
            )
    extra = sorted(headers.keys() - {place for place, _ in places.values()} - contents.ignored)
    if extra:
        raise InputRefused(
            field,
            f"tensor {extra[0][:80]} has no meaning for a {reading.architecture} dictionary",
        )
    dtype = DTYPES.get(headers[name].dtype)
    if dtype is None:
        raise InputRefused(field, f"{name} is stored as {headers[name].dtype}, expected floats")
    d_out = sizes["d_out"] if transcoder else None
    return StoredFacts(reading, encoder[0], encoder[1], dtype, d_out)

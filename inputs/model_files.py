"""The files of a model folder: which hold weights, and which must not be opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from loopscope.specs.json_values import Json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def shards_of(index: Mapping[str, Json]) -> list[str]:
    """Return the files that an index of weights names, in order; none where it names no file."""
    places = index.get("weight_map")
    return sorted(set(map(str, places.values()))) if isinstance(places, dict) else []


def not_safetensors(names: Iterable[str]) -> list[str]:
    """Return those of the shards that another loader would open: they might be unpickled."""
    return [name for name in names if not name.endswith(".safetensors")]


def pickled_among(names: Iterable[str]) -> list[str]:
    """Return the names of weights that would have to be unpickled, in order."""
    return sorted(name for name in names if name.endswith(_PICKLED))


def asks_for_code(config: Mapping[str, Json]) -> bool:
    """Whether a config names code of the model's own repository."""
    return "auto_map" in config

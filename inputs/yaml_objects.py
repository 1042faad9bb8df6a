"""Small YAML files beside weights, read with PyYAML's safe loader."""

from __future__ import annotations

from pathlib import Path

import yaml

from loopscope.specs.json_values import JsonObject

YAML_BYTES_MAX = 2**20


def read_yaml_object(path: Path) -> JsonObject:
    """Return the object in a small YAML file; ``ValueError`` when it is anything else."""
    with path.open("rb") as stream:
        content = stream.read(YAML_BYTES_MAX + 1)
    if len(content) > YAML_BYTES_MAX:
        raise ValueError(f"larger than {YAML_BYTES_MAX} bytes")
    try:
        value = yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    return value

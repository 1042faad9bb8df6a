"""The origin of a table: what it carries with it into a notebook or a file."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from loopscope.specs.actions import Stage
from loopscope.specs.artifact_files import Table
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.keys import Key
from loopscope.state.records import ArtifactRecord

PANDAS_ATTRIBUTES = "PANDAS_ATTRS"
"""Under this name in a Parquet file's metadata pandas writes and finds a frame's ``attrs``."""


def origin_of(
    experiment: Key, artifact: ArtifactRecord, file: str = "", columns: Collection[str] = ()
) -> dict[str, Any]:
    """Return experiment, namespace, stage and action digest as a JSON object.

    For a declared table ``file`` it has ``units``, too: those of the ``columns`` that have one.
    """
    found: dict[str, Any] = {
        "experiment": experiment.name,
        "namespace": experiment.namespace,
        "stage": artifact.stage,
        "digest": artifact.digest,
    }
    for one in FILES_BY_STAGE[cast(Stage, artifact.stage)]:
        if isinstance(one, Table) and one.name == file:
            units = {column.name: column.unit for column in one.columns if column.unit}
            found["units"] = {name: unit for name, unit in units.items() if name in columns}
    return found

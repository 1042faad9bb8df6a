"""All files of all stages: what tests, documents and exports walk over."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from loopscope.specs.actions import CODE_REVISIONS, Stage
from loopscope.specs.artifact_files import ArtifactFile


def _files_of(stage: Stage) -> tuple[ArtifactFile, ...]:
    files: tuple[ArtifactFile, ...] = import_module(f"loopscope.specs.artifacts.{stage}").FILES
    return files


FILES_BY_STAGE: Mapping[Stage, tuple[ArtifactFile, ...]] = {
    stage: _files_of(stage) for stage in CODE_REVISIONS
}
"""The ``FILES`` of the module of each stage's name."""

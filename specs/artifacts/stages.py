"""All files of all stages: what tests, documents and exports walk over."""

from __future__ import annotations

from collections.abc import Mapping

from loopscope.specs.actions import Stage
from loopscope.specs.artifact_files import ArtifactFile
from loopscope.specs.artifacts import capture, decomposition, geometry, mapping, steering

FILES_BY_STAGE: Mapping[Stage, tuple[ArtifactFile, ...]] = {
    "capture": capture.FILES,
    "decomposition": decomposition.FILES,
    "geometry": geometry.FILES,
    "mapping": mapping.FILES,
    "steering": steering.FILES,
}

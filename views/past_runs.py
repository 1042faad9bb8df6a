"""Past runs of a stage: the base of every estimate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from statistics import median

from loopscope.specs.actions import Action
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.manifests import Manifest
from loopscope.state.artifacts.store import ArtifactStore, Corrupt
from loopscope.state.db.connection import Connection
from loopscope.state.records import ArtifactRecord

RUNS_MAX = 20
"""Newest runs of a stage that are looked at."""
NO_PAST_RUN = "no past run"


@dataclass(frozen=True)
class Estimate:
    """Seconds and payload bytes of a run that is still to come; None without a past run."""

    seconds: float | None = None
    bytes: int | None = None
    basis: str = NO_PAST_RUN
    is_alike: bool = False
    """Whether it was of the same object, or of the same model and dictionaries."""


@dataclass
class PastRuns:
    """The artifacts that exist, with the times in their manifests."""

    connection: Connection
    store: ArtifactStore
    _manifests: dict[str, Manifest] = field(default_factory=dict)
    _known: list[ArtifactRecord] | None = None

    def estimate(self, stage: str, own: str | None, action: Action | None) -> Estimate:
        """Return what a run of ``stage`` will take.

        Best guess first: the run before of the same object (``own`` is its digest), the median
        of runs with the same model and dictionaries, the median of all runs of the stage.
        """
        runs = self._runs(stage)
        before = [run for run in runs if run.digest == own]
        if before:
            return replace(self._median(before, "the run before"), is_alike=True)
        wanted = set(_identities(action.payload)) if action is not None else set()
        alike = [run for run in runs if wanted and wanted == self._identities_of(run)]
        if alike:
            words = f"{_runs(alike)} with the same model and dictionaries"
            return replace(self._median(alike, words), is_alike=True)
        return self._median(runs, f"{_runs(runs)} of other inputs") if runs else Estimate()

    def made(self, stage: str, digest: str) -> list[ArtifactRecord]:
        """Return the artifact of a digest, if it exists."""
        found = artifact_index.get(self.connection, digest)
        return [found] if found is not None and found.stage == stage else []

    def seconds(self, artifact: ArtifactRecord) -> float:
        """Return the recorded run time of an artifact; 0.0 when none was recorded."""
        found = self._manifest(artifact).get("seconds")
        return float(found) if isinstance(found, (int, float)) and found > 0 else 0.0

    def _runs(self, stage: str) -> list[ArtifactRecord]:
        if self._known is None:
            self._known = artifact_index.listed(self.connection)
        newest = sorted(self._known, key=lambda run: run.created_at, reverse=True)
        return [run for run in newest if run.stage == stage][:RUNS_MAX]

    def _median(self, runs: list[ArtifactRecord], basis: str) -> Estimate:
        times = [seconds for run in runs if (seconds := self.seconds(run)) > 0]
        return Estimate(
            round(median(times), 3) if times else None,
            int(median(run.bytes for run in runs)),
            basis,
        )

    def _identities_of(self, run: ArtifactRecord) -> set[str]:
        return set(_identities(self._manifest(run).get("inputs")))

    def _manifest(self, artifact: ArtifactRecord) -> Manifest:
        if artifact.digest not in self._manifests:
            try:
                manifest = self.store.manifest(artifact.stage, artifact.digest)
            except (Corrupt, OSError):
                manifest = {}
            self._manifests[artifact.digest] = manifest
        return self._manifests[artifact.digest]


def _runs(runs: list[ArtifactRecord]) -> str:
    return "1 past run" if len(runs) == 1 else f"{len(runs)} past runs"


def _identities(value: object) -> Iterator[str]:
    """Yield the identities of all models and dictionaries in a payload."""
    if isinstance(value, dict):
        if isinstance(value.get("identity"), str):
            yield value["identity"]
        for inner in value.values():
            yield from _identities(inner)

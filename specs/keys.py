"""Names of objects, of the API, of our annotations. No pydantic here: all commands need these."""

from __future__ import annotations

from typing import NamedTuple

API_VERSION = "loopscope.dev/v1alpha1"
PROTECT_ANNOTATION = "loopscope.dev/protect"
PIN_ANNOTATION = "loopscope.dev/pin"
SOURCE_ANNOTATION = "loopscope.dev/source"
SOURCE_PROBLEM_ANNOTATION = "loopscope.dev/source-problem"
PRIORITY_ANNOTATION = "loopscope.dev/priority"
MEMORY_ANNOTATION = "loopscope.dev/memory"
PARALLELISM_ANNOTATION = "loopscope.dev/parallelism"
AUTHOR_ANNOTATION = "loopscope.dev/author"
LICENCE_ANNOTATION = "loopscope.dev/license"
OWN_PREFIX = "loopscope.dev/"
ANNOTATIONS = (
    PROTECT_ANNOTATION,
    PIN_ANNOTATION,
    PRIORITY_ANNOTATION,
    MEMORY_ANNOTATION,
    PARALLELISM_ANNOTATION,
    AUTHOR_ANNOTATION,
    LICENCE_ANNOTATION,
    SOURCE_ANNOTATION,
    SOURCE_PROBLEM_ANNOTATION,
)
"""All that begin with ``OWN_PREFIX``; the last two are written by us."""
SWEEP_LABEL = "loopscope.dev/sweep"
AXIS_LABEL_PREFIX = "sweep.loopscope.dev/"
REPLICATES_LABEL = "loopscope.dev/replicates"
"""Of a sweep that tries an experiment again: that experiment's name."""
MATCHES_LABEL = "loopscope.dev/matches"
"""Of a sweep that holds an experiment's dictionaries beside those of other pairs: its name."""
STUDY_LABEL = "loopscope.dev/study"
BLINDED_REASON = "Blinded"
"""Why a stage that is done shows nothing: fewer openings or samples than were registered."""
FAMILY_LABEL = "study.loopscope.dev/family"


class Key(NamedTuple):
    """The name of an object. What travels through the work queue: a name, never an event."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        prefix = "" if self.namespace == "default" else f"{self.namespace}/"
        return f"{self.kind.lower()}/{prefix}{self.name}"

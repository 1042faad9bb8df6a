"""The registry of kinds: the module that plans each."""

from __future__ import annotations

from collections.abc import Callable

from loopscope.reconcilers import capture, decomposition, mapping, steering
from loopscope.reconcilers.plan import Desired, Snapshot

DESIRED_BY_KIND: dict[str, Callable[[Snapshot], Desired]] = {
    "Capture": capture.desired,
    "Decomposition": decomposition.desired,
    "Mapping": mapping.desired,
    "Steering": steering.desired,
}

"""The order of a steering as it would be given now: what it is made from, and where that lies."""

from __future__ import annotations

from typing import cast

from loopscope.controller.reconcile.snapshots import read_snapshot
from loopscope.reconcilers.plan import Wanted
from loopscope.reconcilers.registry import DESIRED_BY_KIND
from loopscope.specs.keys import Key
from loopscope.specs.payloads.steering import SteeringPayload
from loopscope.state.db.connection import Connection


def steering_order(connection: Connection, key: Key, now: float) -> SteeringPayload:
    """Return the present payload of a steering that is done.

    Raises LookupError where what is wanted now is not what was done, or cannot be known.
    """
    snapshot = read_snapshot(connection, key, now)
    if snapshot is None:
        raise LookupError(f"there is no {key}")
    desired = DESIRED_BY_KIND[key.kind](snapshot)
    if not isinstance(desired, Wanted):
        raise LookupError(f"{key}: {desired.reason}: {desired.message}")
    made = snapshot.object.status.artifact
    if made is None or made.digest != desired.action.digest:
        raise LookupError(
            f"{key} wants something else now than what was steered; `loopscope why {key}` says what"
        )
    return cast(SteeringPayload, desired.action.payload)

"""The number of questions that may stand: each has a client waiting, and no queue is unlimited."""

from __future__ import annotations

from collections.abc import Sequence

from loopscope.controller.apply.intents import Intent
from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.db.connection import Connection
from loopscope.state.failures import TerminalFailure
from loopscope.state.records import ObjectRecord

KIND = "Question"
WAITING_MAX = 20
"""Questions without an answer, in all namespaces."""
HELD_MAX = 200
"""Questions at all; their answers are kept from collection."""
HISTORY = 100
"""Of the answered ones that ``loopscope ask`` made it keeps so many."""
ASKED_LABEL = "loopscope.dev/asked"


def refuse_too_many(connection: Connection, wanted: Sequence[Intent]) -> None:
    """Raise TerminalFailure where new questions would be more than may stand."""
    new = sum(one.key.kind == KIND and one.stored is None for one in wanted)
    if not new:
        return
    held = objects.listed(connection, KIND)
    waiting = sum(not (one.ready or one.stalled) for one in held)
    if waiting + new > WAITING_MAX:
        raise TerminalFailure(
            "TooManyQuestions",
            f"{waiting} questions wait for an answer, and at most {WAITING_MAX} may; look with "
            "`loopscope queue`, or delete some (`loopscope delete question NAME`)",
        )
    if len(held) + new > HELD_MAX:
        raise TerminalFailure(
            "TooManyQuestions",
            f"{len(held)} questions are kept, and at most {HELD_MAX} may be; delete what is not "
            f"needed (`loopscope delete questions -l {ASKED_LABEL}`)",
        )


def outlived(asked: Sequence[ObjectRecord], kept: Key) -> list[Key]:
    """Return the answered questions that make room for newer ones, the oldest first.

    Only those that ``ask`` made: what was applied from a file stays. Their artifacts stay as well,
    until they are collected.
    """
    done = [
        one
        for one in asked
        if one.labels.get(ASKED_LABEL) == "true" and (one.ready or one.stalled) and one.key != kept
    ]
    done.sort(key=lambda one: (one.creation_timestamp, one.key))
    return [one.key for one in done[: max(0, len(done) - HISTORY + 1)]]

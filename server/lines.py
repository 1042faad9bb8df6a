"""Lines of watches: made once for all watchers that ask for the same form, as far as there is room.

One commit may change ten thousand objects, and their lines are a hundred times what a server may
hold. Watchers go on side by side, so what one was sent just now is what the next asks for.
"""

from __future__ import annotations

from collections import OrderedDict

from loopscope.server.answers import encoded
from loopscope.server.changes import Change
from loopscope.server.documents import Shape, shaped
from loopscope.specs.keys import Key

BYTES_MAX = 8 * 1024 * 1024


class Lines:
    """The lines that were asked for last."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[Key, int, str, Shape], bytes] = OrderedDict()
        self._bytes = 0

    def line(self, change: Change, word: str, shape: Shape, *, now: float) -> bytes:
        """Return the line of a watch that says what became of an object."""
        asked = (change.key, change.version, word, shape)
        found = self._made.get(asked)
        if found is None:
            document = {"type": word, "object": shaped(change.object, shape, now=now)}
            found = self._made[asked] = encoded(document) + b"\n"
            self._bytes += len(found)
            while self._bytes > BYTES_MAX:
                _, oldest = self._made.popitem(last=False)
                self._bytes -= len(oldest)
        return found

"""The two ways in which a reference fails to resolve: a human must act, or later it may work."""

from __future__ import annotations


class InputRefused(Exception):
    """The reference is wrong and stays wrong until the spec or a file is edited.

    ``field`` is the path below the reference, for example ``source.sha256``; ``message`` has
    what was expected, what was found and what to do.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class ResolutionPending(Exception):
    """The reference may be right, but the answer cannot be had now (no network, busy hub)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

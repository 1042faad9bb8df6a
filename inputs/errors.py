"""The two ways in which a reference fails to resolve: a human must act, or later it may work."""

from __future__ import annotations


class InputRefused(Exception):
    """The reference is wrong and stays wrong until the spec or a file is edited.

    ``field`` is the path below the reference, for example ``source.sha256``; ``message`` has
    what was expected, what was found and what to do. ``cause`` says in a few words what many such
    references have in common, where they are counted.
    """

    def __init__(self, field: str, message: str, *, cause: str = "") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.cause = cause


class ResolutionPending(Exception):
    """The reference may be right, but the answer cannot be had now (no network, busy hub)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

"""The observer of the loop, for metrics; by default it does nothing."""

from __future__ import annotations

from typing import Literal, Protocol

from loopscope.specs.keys import Key

Result = Literal["success", "error", "requeue", "requeue_after"]
"""How a reconcile ended, in the words of controller-runtime."""


class Observer(Protocol):
    """Takes note of the steps of work queue and reconciles; times are ``Clock.elapsed``."""

    def added(self, key: Key, now: float) -> None:
        """A key that was not waiting now waits."""

    def taken(self, key: Key, now: float) -> None:
        """A key is being processed."""

    def done(self, key: Key, now: float) -> None:
        """The processing of a key ended."""

    def retried(self, key: Key) -> None:
        """A key was put back with a delay."""

    def reconciled(self, key: Key, result: Result, seconds: float) -> None:
        """A reconcile ended."""


class Unobserved:
    """Takes note of nothing."""

    def added(self, key: Key, now: float) -> None:
        """Take no note."""

    def taken(self, key: Key, now: float) -> None:
        """Take no note."""

    def done(self, key: Key, now: float) -> None:
        """Take no note."""

    def retried(self, key: Key) -> None:
        """Take no note."""

    def reconciled(self, key: Key, result: Result, seconds: float) -> None:
        """Take no note."""

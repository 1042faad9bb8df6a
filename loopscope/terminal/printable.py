"""Text from outside, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text in which every sign that would steer a terminal is a ``?``; line ends stay."""
    return "".join(sign if sign.isprintable() or sign in "\t\n" else "?" for sign in text)

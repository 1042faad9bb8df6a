"""Rules of ``writeHook``: a transcoder reads one place of a model and writes another."""

from __future__ import annotations

from loopscope.specs.hooks import Hook

CLAMP_NEEDS_ONE_PLACE = (
    "method: clamp reads latents where it steers, but with writeHook they are read elsewhere; "
    "leave method out (add)"
)


def check_write_hook(hook: str, write_hook: str | None) -> None:
    """Raise ValueError for a transcoder that would write where it reads, or below."""
    if write_hook is None:
        return
    if write_hook == hook or Hook.parse(write_hook).block < Hook.parse(hook).block:
        raise ValueError(
            f"writeHook {write_hook} does not lie above hook {hook}, and a transcoder writes later "
            "than it reads; leave writeHook out for a dictionary that writes where it reads"
        )


def wrong_write_hook(written: str | None, write_hook: str | None, *, any_place: bool) -> str | None:
    """Return why a dictionary that writes at ``written`` does not fit a spec's ``writeHook``.

    None where it does. ``written`` is None for a dictionary that writes where it reads,
    ``any_place`` what ``usableAt: any`` asks for.
    """
    if written == write_hook:
        return None
    if written is None:
        return (
            f"this dictionary writes where it reads, but writeHook is {write_hook}; take writeHook "
            "out, or choose a transcoder"
        )
    if write_hook is None:
        return f"this is a transcoder that writes at {written}; write writeHook: {written}"
    if any_place:
        return None
    return (
        f"this transcoder writes at {written}, but writeHook is {write_hook}; write writeHook: "
        f"{written}, or usableAt: any"
    )

"""Ablation: where it works."""

from __future__ import annotations

from loopscope.specs.contextual import CONTEXTUAL


def why_not_ablated(*, write_hook: bool, architecture: str | None = None) -> str | None:
    """Return why latents cannot be taken out of the stream where they are read; None if they can.

    Taken out is a · w at the hook itself: the dictionary's error and all other latents stay.
    """
    if write_hook:
        return (
            "ablation takes out at the hook what a latent writes there, and with writeHook it "
            "writes elsewhere; leave ablation out"
        )
    if architecture in CONTEXTUAL:
        return (
            f"the latents of a {architecture} dictionary read the tokens before as well, and "
            "ablation reads each token by itself; leave ablation out"
        )
    return None

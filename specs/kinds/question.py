"""Question: a text of one's own, asked of the model of an experiment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from loopscope.specs.fields import Reference, Spec, Unit, exactly_one
from loopscope.specs.shown_latents import ASKED_LATENTS_MAX

TEXT_CHARACTERS_MAX = 2_000
"""A question is read while somebody waits: a page of text, not a book."""

Latent = Annotated[int, Field(ge=0)]


class AskedLatents(Spec):
    """Latents by their index, of each dictionary."""

    coarse: tuple[Latent, ...] = ()
    """Latents of the coarse dictionary."""
    fine: tuple[Latent, ...] = ()
    """Latents of the fine dictionary."""

    @model_validator(mode="after")
    def _some_but_few(self) -> AskedLatents:
        number = len(self.coarse) + len(self.fine)
        if not 1 <= number <= ASKED_LATENTS_MAX:
            raise ValueError(f"expected 1 to {ASKED_LATENTS_MAX} latents, found {number}")
        for side, latents in (("coarse", self.coarse), ("fine", self.fine)):
            if len(set(latents)) < len(latents):
                raise ValueError(f"{side} names a latent twice")
        return self


class Steered(Spec):
    """One arm at one strength of the Steering that ``steeringRef`` names."""

    arm: Annotated[str, Field(min_length=1, max_length=100)]
    """An arm by its name in `arms.parquet`: ``coarse``, ``multi``, ``random-0``."""
    strength: Annotated[float, Field(ge=0.0, le=1e6)]
    """In the unit of that Steering. Where this is a budget, a strength that was steered there."""
    max_new_tokens: Annotated[int, Field(ge=1, le=200), Unit("tokens")] | None = None
    """How many tokens to generate; left out, as many as the Steering."""


class QuestionSpec(Spec):
    """A text and what is asked of it: latents token by token, or what follows under an arm.

    No Experiment owns one. It is a job like any other, of the priority class ``interactive``.
    """

    model_config = exactly_one(("latents",), ("steeringRef", "steered"))

    capture_ref: Reference
    """Capture whose model, hook and chat template are used."""
    mapping_ref: Reference
    """Mapping whose two dictionaries are used."""
    steering_ref: Reference | None = None
    """Steering whose arms, strengths, sampling and seed are used."""
    text: Annotated[str, Field(min_length=1, max_length=TEXT_CHARACTERS_MAX), Unit("characters")]
    """The text to be read, or the opening to go on from."""
    latents: AskedLatents | None = None
    """Ask for the activations of these latents on each token of the text."""
    steered: Steered | None = None
    """Ask how the text goes on under an arm, beside how it goes on without."""

    @model_validator(mode="after")
    def _one_of_both(self) -> QuestionSpec:
        if (self.latents is None) == (self.steered is None):
            raise ValueError("give either latents or steered")
        if (self.steering_ref is None) != (self.steered is None):
            raise ValueError("steered goes with steeringRef, latents without it")
        if not self.text.strip():
            raise ValueError("the text is blank")
        return self

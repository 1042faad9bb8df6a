"""Capture: activations of contrasted prompt sets at one place in the model."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import Field, model_validator

from loopscope.specs.chat import Chat, Positions, check_positions
from loopscope.specs.fields import GroupedTexts, HookName, Spec, Texts, Unit
from loopscope.specs.sources import Model
from loopscope.specs.spec_json import PromptSetsJson
from loopscope.specs.splits import Splits, check_prompts
from loopscope.specs.texts.same import normalised
from loopscope.specs.transcoding import check_write_hook


class PromptSets(Spec):
    """The two conditions that are contrasted, and a third that is only looked at."""

    target: GroupedTexts
    """Prompts about the concept."""
    neutral: GroupedTexts
    """Prompts of the same shape that are not about it."""
    hard_negatives: GroupedTexts | None = None
    """Prompts about the concept's nearest neighbours (other countries); reported apart, never
    mixed into neutral."""
    chat: Chat | None = None
    """How they are put into a chat template; left out, they are read as plain text."""

    @property
    def conditions(self) -> dict[str, tuple[str, ...]]:
        """The texts of each condition that is given, in the order of the tables."""
        return {
            condition: texts.texts
            for condition, texts in (
                ("target", self.target),
                ("neutral", self.neutral),
                ("hard-negative", self.hard_negatives),
            )
            if texts is not None
        }

    @model_validator(mode="after")
    def _disjoint(self) -> PromptSets:
        known: dict[str, str] = {}
        for condition, texts in self.conditions.items():
            both = {normalised(text) for text in texts} & set(known)
            if both:
                example = min(both)
                raise ValueError(
                    f"{len(both)} prompts are in both sets, {known[example]} and {condition}, for "
                    f"example {example!r}"
                )
            known |= {normalised(text): condition for text in texts}
        return self


class CaptureSpec(Spec):
    """Activations of the prompt sets at one hook."""

    model: Model
    """The language model."""
    hook: HookName
    """TransformerLens name of a place in the model, for example ``blocks.12.hook_resid_post``."""
    write_hook: HookName | None = None
    """Where transcoders write, for example ``blocks.12.hook_mlp_out``: what they reconstruct is
    captured there, and steering acts there. Only for transcoders, which need it."""
    prompts: PromptSets
    """Target and neutral prompts."""
    positions: Positions = "last"
    """Which tokens of each prompt are kept, never BOS: the last, all, the last of the text itself
    (``lastContent``), the last of the template (``afterTemplate``, the one that the model answers
    after), those of ``assistantPrefix`` (``assistant``), or one by its text or number."""
    max_tokens: Annotated[int, Field(ge=2, le=8192), Unit("tokens")] = 128
    """Longest allowed prompt in tokens, BOS not counted; a longer one is refused, never cut."""
    splits: Splits = Splits()
    """Which prompts choose latents, and which only test."""
    calibration_text: Texts | None = None
    """Ordinary text, captured apart: decompositions measure their dictionaries on it. A text over
    ``maxTokens`` is read in pieces. Default: 106 lines of English that come with Loopscope."""

    @model_validator(mode="after")
    def _has_its_positions(self) -> CaptureSpec:
        check_positions(self.positions, self.prompts.chat, self.prompts.conditions)
        return self

    @model_validator(mode="after")
    def _writes_later(self) -> CaptureSpec:
        check_write_hook(self.hook, self.write_hook)
        return self

    @model_validator(mode="after")
    def _divisible(self) -> CaptureSpec:
        check_prompts(self.splits, cast(PromptSetsJson, self.prompts.canonical()))
        return self

"""Experiment: all stages in one spec, from two prompt sets to a verdict."""

from __future__ import annotations

from typing import Annotated, cast

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from loopscope.specs.ablation import why_not_ablated
from loopscope.specs.chat import Positions, check_positions, check_steered
from loopscope.specs.chat_words import SEVERAL
from loopscope.specs.drift import why_no_drift
from loopscope.specs.fields import HookName, Spec, Texts, Unit
from loopscope.specs.kinds.capture import PromptSets
from loopscope.specs.kinds.decomposition import Aggregation
from loopscope.specs.rules import (
    AblationRules,
    DamageRules,
    DriftRules,
    EvidenceRules,
    Expected,
    Gate,
    MappingRules,
    Selection,
    SteeringRules,
    TraceRules,
)
from loopscope.specs.scoring import ScoringRules
from loopscope.specs.sources import Dictionary, Model
from loopscope.specs.spec_json import PromptSetsJson
from loopscope.specs.splits import Splits, check_prompts, labelled
from loopscope.specs.splitting import SplittingRules, check_listed
from loopscope.specs.stopping import why_not_early
from loopscope.specs.sweep import AXES_MAX, AxisName, Matrix
from loopscope.specs.texts.same import normalised
from loopscope.specs.texts_json import GroupedTextsJson
from loopscope.specs.transcoding import CLAMP_NEEDS_ONE_PLACE, check_write_hook


class Dictionaries(Spec):
    """The two resolutions."""

    coarse: Dictionary
    """The dictionary with fewer latents."""
    fine: Dictionary
    """The dictionary with more latents."""


class _OrChain:
    """Lets a schema have a list of dictionaries in place of two: the loader writes it out."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        pair = handler(schema)
        one = handler.resolve_ref_schema(pair)["properties"]["coarse"]
        items = {name: value for name, value in one.items() if name != "description"}
        return {"anyOf": [pair, {"type": "array", "items": items, "minItems": 2}]}


class Calibration(Spec):
    """A blocking check of both dictionaries on text on which they were measured before.

    A dictionary for another model, hook or scale reconstructs badly or fires too often.
    """

    text: Texts | None = None
    """Ordinary text, one sequence per line; all its tokens but BOS count. A text over ``maxTokens``
    is read in pieces. Default: 106 lines of English that come with Loopscope."""
    coarse: Expected
    """Ranges for the coarse dictionary."""
    fine: Expected
    """Ranges for the fine dictionary."""


class ExperimentSpec(Spec):
    """The whole experiment, from two prompt sets to a verdict on steering."""

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
    aggregation: Aggregation = "last"
    """How a prompt's tokens become one value; ``max`` and ``mean`` need ``positions: all`` (or
    ``assistant``)."""
    max_tokens: Annotated[int, Field(ge=2, le=8192), Unit("tokens")] = 128
    """Longest allowed prompt in tokens, BOS not counted; a longer one is refused, never cut."""
    splits: Splits = Splits()
    """Which texts choose latents and strengths, and which only test."""
    dictionaries: Annotated[Dictionaries, _OrChain()]
    """The coarse and the fine sparse autoencoder. A list of several, from coarse to fine, is
    stored as an axis ``pair`` of ``matrix``: a value for each two neighbours."""
    calibration: Calibration | None = None
    """What the dictionaries must do on ordinary text before anything is believed."""
    selection: Selection = Selection()
    """Which latents are candidates for the concept."""
    mapping: MappingRules = MappingRules()
    """When a fine latent belongs to a coarse one."""
    gate: Gate = Gate()
    """When the pair of dictionaries counts as resolving the concept further."""
    splitting: SplittingRules | None = None
    """Follows the coarse candidates to the fine latents, with ``mapping``'s limits: which split,
    merged, were absorbed, and which fine ones are born; ``{}`` asks for it with its defaults.
    Nothing rests on it; leave out to go without."""
    evidence: EvidenceRules | None = None
    """Shows in the report what the latents fire on, token by token, with their nearest latents and
    the tokens that they push; ``{}`` asks for it with its defaults. It runs some of the capture's
    prompts again, and nothing rests on it; leave out to go without."""
    steering: SteeringRules | None = None
    """How to steer; leave out to stop after the mapping."""
    trace: TraceRules | None = None
    """Shows in the report which tokens are steered, and the path of the residual stream through
    some texts under each arm; ``{}`` asks for it with its defaults. It reads the texts that were
    generated once more, and nothing rests on it; leave out to go without."""
    ablation: AblationRules | None = None
    """Measures how much of the concept target prompts lose where the steered anchor, its children
    or both are taken out of the stream, beside matched latents; ``{}`` asks for it with its
    defaults. Nothing rests on it; leave out to go without."""
    scoring: ScoringRules | None = None
    """Further outcomes of the texts that steering generates, and which of all answers. It reads the
    texts: nothing is generated again where it changes."""
    damage: DamageRules | None = None
    """What the arms take from the model beside what they are for: the next token on ordinary text,
    easy questions, other concepts, openings moved the wrong way; ``{}`` asks for it with its
    defaults. Nothing rests on it; leave out to go without."""
    drift: DriftRules | None = None
    """Measures how fast the anchoring by ``steering.systemPrompt`` and by steering fades over
    neutral text, and how far samples at a temperature wander from it; ``{}`` asks for it with its
    defaults. Nothing rests on it; leave out to go without."""
    matrix: Matrix | None = None
    """Makes this a sweep: axis, value, then the fields that the value sets, each by its path
    (``hook``, ``steering.lexicon``) and as a whole. Each combination becomes an Experiment
    ``<name>-<value>-<value>``, values in the order of their axes' names."""
    hold_over: Annotated[tuple[AxisName, ...], Field(min_length=1, max_length=AXES_MAX)] | None = (
        None
    )
    """Axes of the matrix over which the verdict is asked to hold (sampling rules, openings). It
    does where cells say the same word at every value of these axes; the status says where."""

    @model_validator(mode="after")
    def _aggregation_fits_positions(self) -> ExperimentSpec:
        if self.aggregation != "last" and self.positions not in SEVERAL:
            raise ValueError(f"aggregation {self.aggregation} needs positions: all")
        check_positions(self.positions, self.prompts.chat, self.prompts.conditions)
        if self.steering is not None:
            check_steered(self.steering.positions, self.prompts.chat is not None)
        return self

    @model_validator(mode="after")
    def _holds_over_axes(self) -> ExperimentSpec:
        known = sorted(self.matrix or {})
        unknown = [axis for axis in self.hold_over or () if axis not in known]
        if unknown:
            axes = f"its axes are {', '.join(known)}" if known else "which is not given"
            raise ValueError(f"holdOver names the axis {unknown[0]} of matrix: {axes}")
        return self

    @model_validator(mode="after")
    def _is_not_pooled(self) -> ExperimentSpec:
        early = self.steering is not None and self.steering.stop_early is not None
        values = [value for axis in (self.matrix or {}).values() for value in axis.values()]
        paths = [path for value in values for path in value]
        if self.matrix is not None and (
            early or any(path.startswith("steering.stopEarly") for path in paths)
        ):
            raise ValueError(why_not_early("a matrix"))
        return self

    @model_validator(mode="after")
    def _there_are_texts(self) -> ExperimentSpec:
        if self.trace is not None and self.steering is None:
            raise ValueError("trace reads what was generated under steering, which is not given")
        if self.scoring is not None and self.steering is None:
            raise ValueError("scoring reads what was generated under steering, which is not given")
        if self.damage is not None and self.steering is None:
            raise ValueError("damage tries the arms of steering, which is not given")
        return self

    @model_validator(mode="after")
    def _drift_has_anchors(self) -> ExperimentSpec:
        if self.drift is None:
            return self
        if self.steering is None:
            raise ValueError(
                "drift needs openings, lexicon and vectors of steering, which is not given"
            )
        if why := why_no_drift(
            chat=self.prompts.chat is not None,
            lexicon=self.steering.lexicon.texts,
            filler_text=self.drift.filler_text.texts if self.drift.filler_text else None,
        ):
            raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _ablation_has_words(self) -> ExperimentSpec:
        if self.ablation is None:
            return self
        if self.ablation.lexicon is None and self.steering is None:
            raise ValueError("ablation needs the words of the concept: give ablation.lexicon")
        if why := why_not_ablated(write_hook=self.write_hook is not None):
            raise ValueError(why)
        return self

    @field_validator("splitting")
    @classmethod
    def _is_listed(
        cls, splitting: SplittingRules | None, known: ValidationInfo
    ) -> SplittingRules | None:
        mapping = known.data.get("mapping")  # not there where it is wrong itself
        if splitting is not None and mapping is not None:
            check_listed(mapping.min_cosine, "mapping.minCosine")
        return splitting

    @model_validator(mode="after")
    def _writes_later(self) -> ExperimentSpec:
        check_write_hook(self.hook, self.write_hook)
        clamps = self.steering is not None and self.steering.method == "clamp"
        if self.write_hook is not None and clamps:
            raise ValueError(CLAMP_NEEDS_ONE_PLACE)
        return self

    @model_validator(mode="after")
    def _divisible(self) -> ExperimentSpec:
        check_prompts(self.splits, cast(PromptSetsJson, self.prompts.canonical()))
        if self.steering is not None:
            self.splits.check_openings(
                labelled(cast(GroupedTextsJson, self.steering.prompts.canonical()))
            )
        return self

    @model_validator(mode="after")
    def _openings_are_new(self) -> ExperimentSpec:
        """A text that chose the latents would not be a new text to score them on."""
        openings = self.steering.prompts.texts if self.steering is not None else ()
        prompts = {normalised(t) for texts in self.prompts.conditions.values() for t in texts}
        both = {normalised(text) for text in openings} & prompts
        if both:
            raise ValueError(
                f"{len(both)} openings of steering are prompts as well, for example "
                f"{min(both)!r}; use texts that chose nothing"
            )
        return self

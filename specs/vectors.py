"""Vectors that travel: what the file of one says of itself, so that it needs no state folder.

Keys are written in snake_case. What is not known is None.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from loopscope.specs.payloads.references import UpstreamArtifact
from loopscope.specs.spec_json import SamplingJson, SteeredPositionsJson

VectorFormat = Literal["safetensors", "gguf", "repeng"]
FORMATS: tuple[VectorFormat, ...] = ("safetensors", "gguf", "repeng")
LAYOUT = "loopscope vector 1"
"""The name of this layout; another number where a key is removed or means something else."""
TENSOR = "vector"
"""The tensor of a safetensors file: what is added, at its calibrated length."""
PASSPORT, SELF_TEST = "loopscope.passport", "loopscope.self_test"
"""The entries of a file's metadata, each a JSON text."""
NO_VECTOR: dict[str, str] = {
    "none": "the unsteered model",
    "systemPrompt": "words before the text",
    "placeboPrompt": "words before the text",
}
"""Arms that add nothing, by what they are."""


class VectorModel(TypedDict):
    """The model that the vector was calibrated on.

    ``identity`` covers all of ``files`` with how they are read; ``source`` is a repository of the
    hub at its commit or a package, None for what lay on one machine.
    """

    name: str
    source: str | None
    identity: str
    dtype: str
    quantised: str | None
    files: dict[str, str]


class VectorDictionary(TypedDict):
    """A dictionary that the mapping compared; ``latents`` are those that this arm is made of."""

    identity: str
    architecture: str
    files: dict[str, str]
    latents: list[int]


class VectorPlace(TypedDict):
    """Where the vector is added.

    ``module`` is the module of the Hugging Face model whose input or output (``side``) the hook is;
    None where the hook is neither of a block. ``positions`` is the declared rule, ``rule`` the same
    in words. BOS is never steered.
    """

    hook: str
    block: int
    module: str | None
    side: Literal["input", "output"] | None
    width: int
    positions: SteeredPositionsJson
    rule: str


class VectorStrength(TypedDict):
    """How long the vector is, and by what that was calibrated.

    ``norm`` in units of the residual stream; ``strength`` in ``unit``. The two medians are those of
    the stream there.
    """

    strength: float
    unit: str
    norm: float
    median_norm: float
    median_centred_norm: float


class VectorEffect(TypedDict):
    """The concept rate under the vector minus that of unsteered text, paired by opening."""

    outcome: str
    rate: float
    rate_low: float
    rate_high: float
    unsteered_rate: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_two_sided: float | None
    openings: int
    texts: int


class VectorDamage(TypedDict):
    """What the vector does to texts beside the concept; ``unsteered_…`` is without it."""

    next_token_kl: float
    median_perplexity: float | None
    unsteered_median_perplexity: float | None
    intact_rate: float | None
    unsteered_intact_rate: float | None
    sibling_rate: float | None
    unsteered_sibling_rate: float | None


class VectorTested(TypedDict):
    """On what all of that was measured, and what the experiment concluded."""

    experiment: str
    gate: str | None
    verdict: str
    reason: str
    method: str
    openings: int
    samples_per_opening: int
    new_tokens_max: int
    neutral_texts: int
    sampling: SamplingJson
    in_chat_template: bool


class Measured(TypedDict):
    """What an experiment measured of a vector.

    ``artifacts`` are the steering, the mapping and the capture behind it, by their digests.
    """

    arm: str
    strength: VectorStrength
    effect: VectorEffect
    damage: VectorDamage
    tested: VectorTested
    artifacts: dict[str, UpstreamArtifact]
    made_by: dict[str, str]


class Passport(Measured):
    """What a file says of its vector: what it is, where it acts, what it does, how it is known."""

    layout: str
    model: VectorModel
    coarse: VectorDictionary
    fine: VectorDictionary
    place: VectorPlace


class NextTokens(TypedDict):
    """The likeliest next tokens after a text, highest logit first."""

    tokens: list[int]
    logits: list[float]


class SelfTest(TypedDict):
    """What a program sees that applies the vector as it should.

    ``tokens`` are those of ``text`` with BOS, ``steered`` the places among them at which the vector
    is added; ``steers_generated``: also at every token that is generated. ``everywhere`` is for
    programs that know no places and steer BOS as well. Logits agree within ``tolerance``.
    ``greedy`` are the tokens that follow when each is the likeliest one, of equal ones the first,
    without what ends the text.
    """

    text: str
    tokens: list[int]
    steered: list[int]
    steers_generated: bool
    unsteered: NextTokens
    expected: NextTokens
    everywhere: NextTokens
    unsteered_greedy: list[int]
    greedy: list[int]
    tolerance: float

"""The starter of an experiment: the texts that ``init`` writes, and pairs of dictionaries known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

Reference = Mapping[str, object]
"""A model or a dictionary as a spec names it."""


@dataclass(frozen=True)
class Known:
    """A model of the hub with two dictionaries of SAELens' registry at one place in it."""

    model: str
    hook: str
    coarse: Reference
    fine: Reference
    needs: str


KNOWN = (
    Known(
        "gpt2-small",
        "blocks.8.hook_resid_pre",
        {
            "release": "gpt2-small-res-jb-feature-splitting",
            "id": "blocks.8.hook_resid_pre_768",
        },
        {
            "release": "gpt2-small-res-jb-feature-splitting",
            "id": "blocks.8.hook_resid_pre_24576",
        },
        "the Hugging Face hub (no token), about 1 GB of disk and 2 GB of memory, by arithmetic",
    ),
    Known(
        "google/gemma-3-270m",
        "blocks.12.hook_resid_post",
        {"release": "gemma-scope-2-270m-pt-res", "id": "layer_12_width_16k_l0_medium"},
        {"release": "gemma-scope-2-270m-pt-res", "id": "layer_12_width_262k_l0_medium"},
        "the Hugging Face hub with HF_TOKEN of an account that accepted Gemma's terms, about 3 GB "
        "of disk and 4 GB of memory, by arithmetic",
    ),
    Known(
        "gemma-2-2b",
        "blocks.12.hook_resid_post",
        {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical"},
        {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_262k/canonical"},
        "the Hugging Face hub with HF_TOKEN of an account that accepted Gemma's terms, about 16 GB "
        "of disk and 20 GB of memory, by arithmetic",
    ),
)
"""The pairs of ``examples/``; the first is taken when nothing is said."""


def spec_text(
    name: str, model: Reference, hook: str, coarse: Reference, fine: Reference, needs: str
) -> str:
    """Return the commented spec."""
    return f"""\
# An experiment of your own: are there several fine latents where a coarse one stands for your
# concept, and is the model steered better along one of the two, or along both together?
#
# Needs: {needs}.
# What every field means: loopscope explain experiment.spec
apiVersion: loopscope.dev/v1alpha1
kind: Experiment
metadata:
  name: {name}
spec:
  model: {_flow(model)}
  # The place in the model that both dictionaries were trained on.
  hook: {hook}
  dictionaries:
    coarse: {_flow(coarse)}
    fine: {_flow(fine)}
  prompts:
    # One prompt a line. `groups: {{by: line}}` says that line 1 of one file and line 1 of the other
    # belong together, so that both are used to choose latents, or both to test them.
    target: {{file: prompts/target.txt, groups: {{by: line}}}}
    neutral: {{file: prompts/neutral.txt, groups: {{by: line}}}}
  selection:
    # Which coarse latents answer to the concept. Declare it before you look.
    minSelectivity: 0.8
    minFiringRateTarget: 0.3
    maxFiringRateNeutral: 0.2
    maxQ: 0.05
    top: 5
  mapping:
    minCosine: 0.3      # how near a fine latent must point to be a child
  gate:
    minSubfeatures: 3   # how many children are splitting
    policy: report      # enforce: no steering without GO
  # What the latents fire on, token by token, in the report: a few seconds.
  evidence: {{}}
  # Which tokens are steered, and where each arm leads the model on the way: a few seconds.
  trace: {{}}
  # Leave this and trace out if you only ask for the structure.
  steering:
    arms: [none, coarse, fine, multi, random]
    strengthUnit: nextTokenKl
    strengths: [0.1]    # the disturbance of neutral text, the same for every arm, in nats
    maxNewTokens: 24
    prompts: {{file: prompts/openings.txt}}
    # The words by which a text counts as being about the concept.
    lexicon: {{file: prompts/words.txt}}
"""


def _flow(value: Reference) -> str:
    """Return a mapping on one line, as YAML reads it."""
    return json.dumps(value, ensure_ascii=False)


ADVICE = """\
# Prompts

These files are a start, about the sea. Replace them by your concept: one text a line, no comments.

- `target.txt`: beginnings of sentences about the concept, cut off where the model would have to
  know it. 100 are enough for most concepts; with very few no latent can be told from chance, and
  `loopscope apply` says so.
- `neutral.txt`: the same sentences about something else: as long, as varied, in the same forms.
  Line by line the counterpart of `target.txt`, so that the concept is all that differs. No word of
  `words.txt` may stand here.
- `openings.txt`: beginnings that could go on in any direction, for steering. None may hold the
  concept.
- `words.txt`: the words by which a text counts as being about the concept.

`loopscope tokens -f experiment.yaml` shows how the model reads each text, and which token is looked
at: the last one, unless the spec says otherwise.
"""
WORDS = """\
sea ocean tide tides wave waves ship ships sailor sailors harbour harbor beach coast surf reef
"""
_PAIRS = (
    ("The tide came in over the", "The train came in over the"),
    ("The old sailor looked out at the", "The old farmer looked out at the"),
    ("Waves broke against the", "Leaves fell against the"),
    (
        "The ship left the harbour and sailed into the",
        "The bus left the station and drove into the",
    ),
    ("Whales cross the ocean every", "Herds cross the plain every"),
    ("Salt water dripped from the", "Cold soup dripped from the"),
    ("The lighthouse warned every ship near the", "The sign warned every driver near the"),
    ("Fishermen pulled their nets out of the", "Gardeners pulled their tools out of the"),
    ("At low tide the beach is covered with", "At harvest time the field is covered with"),
    ("The captain steered the ship through the", "The guide led the group through the"),
    ("Coral grows on the reef below the", "Moss grows on the wall below the"),
    ("The storm drove the waves onto the", "The storm drove the dust onto the"),
    ("Seagulls circled above the fishing", "Pigeons circled above the market"),
    ("We swam far out into the", "We walked far out into the"),
    ("The submarine sank to the bottom of the", "The bucket sank to the bottom of the"),
    ("Sand and shells lay along the", "Boxes and papers lay along the"),
    ("The surf was high at the", "The noise was loud at the"),
    ("Our boat rocked on the deep blue", "Our cart shook on the long dusty"),
    ("The ferry crosses the strait to the", "The tram crosses the square to the"),
    ("Divers found the wreck on the floor of the", "Builders found the coin on the floor of the"),
)
TARGET = "\n".join(pair[0] for pair in _PAIRS)
NEUTRAL = "\n".join(pair[1] for pair in _PAIRS)
OPENINGS = """\
The woman at the next table turned around and
When I came home, my brother had already
On the back of the photograph somebody had written
They had been married for eleven years when
The first thing he noticed in the room was
My grandmother used to say that the best
For a long time nobody said a word, and then
She opened the letter and began to
The children were asked to draw a picture of
Before the lecture began, the professor told us about
In the newspaper there was a story about
He had always dreamed of
"""


def texts() -> dict[str, str]:
    """Return the files of the folder ``prompts`` by name."""
    return {
        "README.md": ADVICE,
        "target.txt": TARGET + "\n",
        "neutral.txt": NEUTRAL + "\n",
        "openings.txt": OPENINGS,
        "words.txt": "\n".join(WORDS.split()) + "\n",
    }

"""The pipeline: the nodes of an experiment, in the order of the work, and what each rests on.

Everything that walks over stages is derived from ``PIPELINE``: names of owned objects, fields that
refer to other objects, the closure of ``rerun --from``, columns, words of commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from loopscope.specs.actions import Stage

NodeName = Literal[
    "capture",
    "coarse",
    "fine",
    "mapping",
    "splitting",
    "evidence",
    "ablation",
    "steering",
    "scoring",
    "damage",
    "trace",
    "drift",
]


@dataclass(frozen=True)
class Node:
    """One step of an experiment.

    An Experiment owns the object ``<experiment>-<name>`` of ``kind``; ``stage`` computes it.
    ``upstream`` maps the fields of its spec that name other objects to their nodes; ``sees`` are
    nodes that it reads through these. ``loads`` is what its spec names beside objects. An
    ``optional`` node is there only if the experiment's spec has a field of its name. ``words`` name
    it in a sentence, ``short`` on the command line. Of one that is not ``reproducible``, as the
    answers of a judge outside, other bytes would come another time: what was made is replayed, and
    not made again with what it rests on.
    """

    name: NodeName
    kind: str
    stage: Stage
    words: str
    short: str
    upstream: Mapping[str, NodeName]
    sees: tuple[NodeName, ...] = ()
    loads: Literal["model", "dictionary"] | None = None
    optional: bool = False
    reproducible: bool = True

    def is_in(self, spec: Mapping[str, object]) -> bool:
        """Whether an experiment's spec asks for this node."""
        return not self.optional or self.name in spec

    @property
    def reads(self) -> tuple[NodeName, ...]:
        """The nodes whose artifacts it was made from, in the order of the work."""
        direct = {*self.upstream.values(), *self.sees}
        return tuple(node.name for node in PIPELINE if node.name in direct)


PIPELINE: tuple[Node, ...] = (
    Node("capture", "Capture", "capture", "the capture", "cap", {}, loads="model"),
    Node(
        "coarse",
        "Decomposition",
        "decomposition",
        "the coarse decomposition",
        "dec",
        {"captureRef": "capture"},
        loads="dictionary",
    ),
    Node(
        "fine",
        "Decomposition",
        "decomposition",
        "the fine decomposition",
        "dec",
        {"captureRef": "capture"},
        loads="dictionary",
    ),
    Node(
        "mapping",
        "Mapping",
        "mapping",
        "the mapping",
        "map",
        {"coarseRef": "coarse", "fineRef": "fine"},
        sees=("capture",),
    ),
    Node(
        "splitting",
        "Splitting",
        "splitting",
        "the splitting graph",
        "split",
        {"coarseRef": "coarse", "fineRef": "fine"},
        optional=True,
    ),
    Node(
        "evidence",
        "Evidence",
        "evidence",
        "the evidence",
        "ev",
        {"captureRef": "capture", "mappingRef": "mapping"},
        sees=("coarse", "fine"),
        optional=True,
    ),
    Node(
        "ablation",
        "Ablation",
        "ablation",
        "the ablation",
        "abl",
        {"captureRef": "capture", "mappingRef": "mapping"},
        sees=("coarse", "fine"),
        optional=True,
    ),
    Node(
        "steering",
        "Steering",
        "steering",
        "the steering",
        "steer",
        {"captureRef": "capture", "mappingRef": "mapping"},
        optional=True,
    ),
    Node(
        "scoring",
        "Scoring",
        "scoring",
        "the scoring",
        "sc",
        {"steeringRef": "steering"},
        optional=True,
    ),
    Node(
        "damage",
        "Damage",
        "damage",
        "the damage",
        "dmg",
        {"captureRef": "capture", "mappingRef": "mapping", "steeringRef": "steering"},
        sees=("coarse", "fine"),
        optional=True,
    ),
    Node(
        "trace",
        "Trace",
        "trace",
        "the trace",
        "tr",
        {"captureRef": "capture", "mappingRef": "mapping", "steeringRef": "steering"},
        sees=("coarse", "fine"),
        optional=True,
    ),
    Node(
        "drift",
        "Drift",
        "drift",
        "the drift",
        "dr",
        {"captureRef": "capture", "mappingRef": "mapping", "steeringRef": "steering"},
        sees=("coarse", "fine"),
        optional=True,
    ),
)


@dataclass(frozen=True)
class Shared:
    """A step that belongs to no object: what it makes depends on what it ``loads`` or ``reads``.

    The nodes named in ``needed_by`` wait for it; it is made once for all that have the same inputs.
    """

    stage: Stage
    words: str
    needed_by: tuple[NodeName, ...]
    loads: tuple[NodeName, ...]
    """The nodes whose dictionaries it compares."""
    reads: tuple[NodeName, ...] = ()
    """The nodes whose artifacts it reads."""


SHARED: tuple[Shared, ...] = (
    Shared(
        "geometry",
        "the geometry of the two dictionaries",
        ("mapping", "splitting", "evidence", "ablation"),
        ("coarse", "fine"),
    ),
    Shared("scores", "the scores of texts by one outcome", ("scoring",), (), ("steering",)),
)


@dataclass(frozen=True)
class Alone:
    """A kind that no Experiment owns: each object is applied by itself, beside those it rests on.

    The fields mean what they mean in ``Node``.
    """

    kind: str
    stage: Stage
    words: str
    short: str
    upstream: Mapping[str, NodeName]


ALONE: tuple[Alone, ...] = (
    Alone(
        "Question",
        "question",
        "the question",
        "q",
        {"captureRef": "capture", "mappingRef": "mapping", "steeringRef": "steering"},
    ),
)

_OBJECTS: tuple[Node | Alone, ...] = (*PIPELINE, *ALONE)
NODES: Mapping[str, Node] = {node.name: node for node in PIPELINE}
NODE_NAMES: tuple[NodeName, ...] = tuple(node.name for node in PIPELINE)
STAGE_KINDS: tuple[str, ...] = tuple(dict.fromkeys(node.kind for node in _OBJECTS))
"""The kinds that a stage makes, in the order of the work."""
OWNER_KINDS: tuple[str, ...] = ("Experiment", "Study")
"""The kinds that have no work of their own: they own objects. A Study owns Experiments."""
SHORT_BY_KIND: Mapping[str, str] = {
    "Experiment": "exp",
    "Study": "st",
    **{node.kind: node.short for node in _OBJECTS},
}
PLURAL_BY_KIND: Mapping[str, str] = {
    kind: "studies" if kind == "Study" else f"{kind.lower()}s" for kind in SHORT_BY_KIND
}
"""What several objects of a kind are called on the command line and in addresses."""
REFERENCE_KINDS: Mapping[str, str] = {
    field: NODES[name].kind for node in _OBJECTS for field, name in node.upstream.items()
}
"""The kind of object that each reference field names."""
LOADED_BY_KIND: Mapping[str, Literal["model", "dictionary"]] = {
    node.kind: node.loads for node in PIPELINE if node.loads is not None
}
"""What a kind's spec names beside objects: the field has the same name."""


def nodes_of(spec: Mapping[str, object]) -> Iterator[Node]:
    """Yield the nodes that an experiment's spec asks for, in the order of the work."""
    return (node for node in PIPELINE if node.is_in(spec))


def made_again_with(name: str) -> tuple[NodeName, ...]:
    """Return a node and all that rest on it, the last first. Raises KeyError for an unknown one.

    What is not reproducible stays, unless it is the one that is named.
    """
    found = {NODES[name].name}
    for node in PIPELINE:
        if found & set(node.reads):
            found.add(node.name)
    again = (one for one in reversed(PIPELINE) if one.reproducible or one.name == name)
    return tuple(node.name for node in again if node.name in found)

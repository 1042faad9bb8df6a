"""The five kinds, one module each: Experiment, Capture, Decomposition, Mapping, Steering.

An Experiment is what people write; it owns one object of each other kind (two
Decompositions). Every kind can also be applied on its own. What an Experiment and one of its
objects both say, such as the rules of a mapping, is a part of its own: ``rules``, ``sources``,
``splits``.
"""

from __future__ import annotations

from loopscope.specs.fields import Spec
from loopscope.specs.kinds.capture import CaptureSpec
from loopscope.specs.kinds.decomposition import DecompositionSpec
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.kinds.mapping import MappingSpec
from loopscope.specs.kinds.steering import SteeringSpec

SPEC_BY_KIND: dict[str, type[Spec]] = {
    "Experiment": ExperimentSpec,
    "Capture": CaptureSpec,
    "Decomposition": DecompositionSpec,
    "Mapping": MappingSpec,
    "Steering": SteeringSpec,
}

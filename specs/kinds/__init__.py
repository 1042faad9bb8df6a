"""The kinds, one module each.

An Experiment is what people write; it owns one object of each kind of the pipeline that it asks
for (two Decompositions). A Study owns one Experiment for each of its concepts. Every kind can also
be applied on its own, and Question only so.
What an Experiment and one of its objects both say, such as the rules of a mapping, is a part of
its own: ``rules``, ``sources``, ``splits``.
"""

from __future__ import annotations

from importlib import import_module

from loopscope.specs.fields import Spec
from loopscope.specs.pipeline import OWNER_KINDS, STAGE_KINDS


def _spec_of(kind: str) -> type[Spec]:
    spec: type[Spec] = getattr(import_module(f"{__name__}.{kind.lower()}"), f"{kind}Spec")
    return spec


SPEC_BY_KIND: dict[str, type[Spec]] = {
    kind: _spec_of(kind) for kind in (*OWNER_KINDS, *STAGE_KINDS)
}
"""The spec of each kind: ``<Kind>Spec`` in the module of its name."""

"""Quotas of namespaces: how much of what is shared one may hold. Pure functions.

The names are those of Kubernetes' ResourceQuota: ``hard`` is the limit, ``used`` what is held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loopscope.controller.settings import SLOTS, STORAGE
from loopscope.views.numbers import byte_size

HOLDERS_MAX = 3

Quotas = Mapping[str, Mapping[str, int]]
"""By namespace: ``hard``, by what is limited."""


def over_quota(
    namespaces: Sequence[str],
    quotas: Quotas,
    holders: Mapping[str, Sequence[str]],
    stored: Mapping[str, int],
) -> str | None:
    """Return why none of the namespaces that want a job may start it; None if one has room.

    ``holders`` names the experiment of each running job, by the namespace that is charged for it.
    """
    reasons = [_full(name, quotas.get(name, {}), holders, stored) for name in namespaces]
    return reasons[0] if reasons and all(reasons) else None


def _full(
    namespace: str,
    hard: Mapping[str, int],
    holders: Mapping[str, Sequence[str]],
    stored: Mapping[str, int],
) -> str | None:
    held = holders.get(namespace, ())
    if SLOTS in hard and len(held) >= hard[SLOTS]:
        by = f": {_names(held)}" if held else ""
        return f"namespace {namespace} has {len(held)} of {hard[SLOTS]} slots{by}"
    used = stored.get(namespace, 0)
    if STORAGE in hard and used >= hard[STORAGE]:
        return (
            f"namespace {namespace} stores {byte_size(used)} of "
            f"{byte_size(hard[STORAGE])}; delete objects of it, then `loopscope gc`"
        )
    return None


def _names(held: Sequence[str]) -> str:
    names = sorted(set(held))
    more = f" and {len(names) - HOLDERS_MAX} more" if len(names) > HOLDERS_MAX else ""
    return f"held by {', '.join(names[:HOLDERS_MAX])}{more}"

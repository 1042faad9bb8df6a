"""Messages before finished work is made again because Loopscope changed."""

from __future__ import annotations

from loopscope.controller.apply.planned import FieldChange, Planned, PlannedObject
from loopscope.controller.plan.reasons import change_words

NAMED_MAX = 10
"""Objects that are named for each rule that changed; ``loopscope plan`` names all."""


def confirmation_words(planned: Planned) -> str:
    """Return what would be made again, which rule or default changed, what it costs, what to do."""
    by_rule: dict[str, list[str]] = {}
    for stage in planned.of_older_rules:
        by_rule.setdefault(stage.rule or "", []).append(str(stage.key))
    for item in planned.of_older_defaults:
        by_rule.setdefault(_default_words(item), []).append(str(item.key))
    listed = "; ".join(f"{rule} ({_names(keys)})" for rule, keys in by_rule.items())
    roots = {stage.root for stage in planned.of_older_rules}
    roots |= {item.key for item in planned.of_older_defaults}
    behind = [
        str(stage.key)
        for stage in planned.of("to do", "unknown")
        if stage.root in roots and stage.rule is None
    ]
    listed += f"; and what rests on these ({_names(behind)})" if behind else ""
    lost = planned.discards_seconds
    cost = f"nothing would rest on {lost / 60:.1f} min of finished work any more"
    return (
        f"this Loopscope has other rules or defaults than the one that did the work, and {cost}: "
        f"{listed}. Look with `loopscope plan`, then apply with --confirm; until then everything "
        "stays as it is. The artifacts stay in any case"
    )


def default_words(change: FieldChange) -> str:
    """Return how a default changed, or that the field is new."""
    why = "the field is new, with this default" if change.before is None else "the default changed"
    return f"{change_words(change.field, change.before, change.after)} ({why})"


def _default_words(item: PlannedObject) -> str:
    return ", ".join(default_words(change) for change in item.changes if change.is_default)


def _names(keys: list[str]) -> str:
    more = len(keys) - NAMED_MAX
    return ", ".join(keys[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")

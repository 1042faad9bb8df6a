"""Revisions of the rules that made an artifact: of a stage's code, and of the outcomes it measured.

A rule is called by its stage (``steering``) or by its outcome (``outcome lexicon``).
"""

from __future__ import annotations

from collections.abc import Mapping

from loopscope.specs.actions import CODE_REVISIONS, REVISION_NOTES
from loopscope.specs.outcomes import OUTCOMES, revision_field

Rule = str


def revisions_of(manifest: Mapping[str, object]) -> dict[Rule, int]:
    """Return the revision of each rule by which an artifact was made, from its manifest.

    Its own stage comes first, then those of the shared artifacts that it needed, then the outcomes
    of a steering. What is not recorded, or no longer exists, is left out.
    """
    found = manifest.get("inputs")
    inputs: Mapping[str, object] = found if isinstance(found, dict) else {}
    named = [one for one in (manifest, *inputs.values()) if isinstance(one, Mapping)]
    revisions = [(one.get("stage"), one.get("codeRevision")) for one in named]
    if manifest.get("stage") == "steering":
        revisions += [
            (f"outcome {name}", inputs.get(revision_field(name), 1))
            for name in OUTCOMES
            if name in inputs
        ]
    known = _rules()
    return {
        rule: revision
        for rule, revision in revisions
        if isinstance(rule, str) and rule in known and isinstance(revision, int)
    }


def changed_rules(made_by: Mapping[Rule, int]) -> list[str]:
    """Return in words each rule whose revision is another one now, older or newer."""
    rules = _rules()
    return [revision_words(rule, n) for rule, n in made_by.items() if n != rules[rule][0]]


def newer_rules(made_by: Mapping[Rule, int]) -> list[str]:
    """Return in words each rule whose revision has risen since."""
    rules = _rules()
    return [revision_words(rule, n) for rule, n in made_by.items() if n < rules[rule][0]]


def revision_words(rule: Rule, before: int) -> str:
    """Return which revision of a rule follows ``before`` now, and what it changed."""
    now, changes = _rules()[rule]
    notes = [changes[revision] for revision in range(before + 1, now + 1) if revision in changes]
    changed = f": {'; '.join(notes)}" if notes else ""
    return f"{rule} revision {before} -> {now}{changed}"


def _rules() -> dict[Rule, tuple[int, Mapping[int, str]]]:
    """Return the revision of each rule now, and what each of its revisions changed."""
    return {
        **{stage: (CODE_REVISIONS[stage], REVISION_NOTES[stage]) for stage in CODE_REVISIONS},
        **{f"outcome {name}": (one.revision, one.notes) for name, one in OUTCOMES.items()},
    }

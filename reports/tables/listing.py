"""The listing of ``get``: one line per object, with the columns of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loopscope.reports.text_table import TextTable
from loopscope.specs.pipeline import PIPELINE, STAGE_KINDS
from loopscope.state.records import ObjectRecord
from loopscope.views.numbers import (
    MINUS,
    MISSING,
    age,
    count,
    decimal,
    percent,
    signed,
    signed_interval,
    testable,
)
from loopscope.views.stages import stage_word

Children = Mapping[str, Sequence[ObjectRecord]]
Column = Callable[[ObjectRecord, Mapping[str, ObjectRecord]], str]
TEXT_CHARACTERS_MAX = 40
_PLAIN = str.maketrans({MISSING: "-", MINUS: "-"})
"""A terminal's table is also read by programs: ASCII signs there."""


def listing(
    kind: str,
    records: Sequence[ObjectRecord],
    *,
    now: float,
    children: Children | None = None,
    wide: bool = False,
    namespaces: bool = False,
) -> TextTable:
    """Return the table of ``get`` for objects of one kind.

    ``children`` maps the uid of an Experiment to its stages (see ``by_owner``); ``wide`` adds
    columns, ``namespaces`` puts the namespace first. A stage that none of the experiments asks for
    has a column only if ``wide``. Raises KeyError for an unknown kind.
    """
    cells: dict[str, Column] = {
        "NAMESPACE": lambda record, _: record.key.namespace,
        "NAME": lambda record, _: record.key.name,
        **_COLUMNS[kind],
        "BEST": _best,
        "AGE": lambda record, _: age(now - record.creation_timestamp),
        **_WIDE[kind],
    }
    names = column_names(kind, records, wide=wide, namespaces=namespaces)
    columns = {name: cells[name] for name in names}
    rows = []
    for record in records:
        prefix = f"{record.key.name}-"
        owned = (children or {}).get(record.uid, ())
        stages = {child.key.name.removeprefix(prefix): child for child in owned}
        rows.append([column(record, stages).translate(_PLAIN) for column in columns.values()])
    return TextTable(list(columns), rows)


def column_names(
    kind: str, records: Sequence[ObjectRecord], *, wide: bool = False, namespaces: bool = False
) -> list[str]:
    """Return the columns that the table of ``get`` has, in their order; see ``listing``."""
    specs = [record.spec for record in records] if kind == "Experiment" else []
    unasked: set[str] = set()
    if kind == "Experiment" and not wide:
        unasked = {n.name.upper() for n in PIPELINE if not any(map(n.is_in, specs)) and n.optional}
    return [
        *(["NAMESPACE"] if namespaces else []),
        "NAME",
        *(name for name in _COLUMNS[kind] if name not in unasked),
        *(["BEST"] if any("matrix" in spec for spec in specs) else []),
        "AGE",
        *(_WIDE[kind] if wide else []),
    ]


def _ready(record: ObjectRecord, _: Mapping[str, ObjectRecord]) -> str:
    """Return the Ready condition; an answer about an older spec is Unknown."""
    ready = record.status.condition("Ready")
    if ready is None or record.status.observed_generation != record.generation:
        return "Unknown"
    summary = record.status.summary
    of = "concepts" if record.key.kind == "Study" else "cells"
    if of in summary:
        return f"{summary['ready']}/{summary[of]}"
    return ready.status


def _share_of_ready(record: ObjectRecord, name: str) -> str:
    """Return how many of a study's concepts that have an answer are counted under a name."""
    summary = record.status.summary
    return f"{summary[name]}/{summary['ready']}" if summary.get("ready") else MISSING


def _answer(record: ObjectRecord, cells: Mapping[str, ObjectRecord]) -> tuple[str, str]:
    """Return a study's word, and its difference with the interval, once all concepts are ready."""
    if not record.ready:
        return MISSING, MISSING
    from loopscope.views.studies import study_of_records  # late: numpy takes its time

    answer = study_of_records(record, list(cells.values())).answer
    return answer.word, answer.difference


def _best(record: ObjectRecord, cells: Mapping[str, ObjectRecord]) -> str:
    """Return a sweep's best cells, each with its verdict or, without steering, its gate.

    A word that does not stay after the correction over all cells has the one after it beside it.
    """
    best = record.status.summary.get("best", ()) if "matrix" in record.spec else ()
    after = _after_correction(cells) if any(one.get("verdict") for one in best) else {}
    words = []
    for one in best:
        word = one.get("verdict") or one.get("gate")
        corrected = after.get(one["cell"], word)
        both = word if corrected == word else f"{word}, corrected {corrected or 'not recorded'}"
        words.append(f"{one['cell']} ({both})")
    return ", ".join(words) or MISSING


def _after_correction(cells: Mapping[str, ObjectRecord]) -> dict[str, str | None]:
    from loopscope.views.several import several  # late: numpy takes its time

    suffixes = {cell.key.name: suffix for suffix, cell in cells.items()}
    found = several(list(cells.values()))
    return {suffixes[row.name]: row.corrected for row in found.rows} if found else {}


def _reason(record: ObjectRecord, _: Mapping[str, ObjectRecord]) -> str:
    ready = record.status.condition("Ready")
    return ready.reason if ready else MISSING


def _stage(name: str) -> Column:
    return lambda _, stages: stage_word(stages.get(name))


def _stage_summary(stage: str, name: str) -> Column:
    def column(_: ObjectRecord, stages: Mapping[str, ObjectRecord]) -> str:
        child = stages.get(stage)
        value = child.status.summary.get(name) if child is not None and child.ready else None
        return MISSING if value is None else str(value)

    return column


def _summary(name: str, form: Callable[[Any], str] = str) -> Column:
    def column(record: ObjectRecord, _: Mapping[str, ObjectRecord]) -> str:
        value = testable(record.status.summary).get(name) if record.ready else None
        return MISSING if value is None else form(value)

    return column


def _confirmed(record: ObjectRecord | None) -> str:
    """Return how many of a mapping's candidates passed again on test prompts, or that none did."""
    summary = record.status.summary if record is not None and record.ready else {}
    if "confirmation" not in summary:
        return MISSING
    confirmed = summary.get("confirmed")
    return "not confirmed" if confirmed is None else count(confirmed)


def _interval(record: ObjectRecord, _: Mapping[str, ObjectRecord]) -> str:
    summary = testable(record.status.summary) if record.ready else {}
    return signed_interval(summary.get("low"), summary.get("high"))


def _digest(record: ObjectRecord, _: Mapping[str, ObjectRecord]) -> str:
    return record.status.artifact.digest[:12] if record.status.artifact else MISSING


def _content(record: ObjectRecord, _: Mapping[str, ObjectRecord]) -> str:
    return record.status.artifact.content_digest[:12] if record.status.artifact else MISSING


def _owner(record: ObjectRecord, _: Mapping[str, ObjectRecord]) -> str:
    return str(record.owner) if record.owner else MISSING


def _asked(record: ObjectRecord) -> str:
    """Return what a question asks of its text: how many latents, or which arm how strongly."""
    if "steered" in record.spec:
        steered = record.spec["steered"]
        return f"{steered['arm']} at {steered['strength']:g}"
    return f"{sum(map(len, record.spec['latents'].values()))} latents"


def _lost(record: ObjectRecord, part: str) -> str:
    """Return the nats that a part is worth, and what is said of it."""
    found = record.status.summary.get("parts", {}).get(part) if record.ready else None
    return MISSING if found is None else f"{decimal(found['loss'], 3)} ({found['answer']})"


def _fates(record: ObjectRecord, side: str) -> str:
    """Return how many latents of a side had each fate, those that none had left out."""
    found = record.status.summary.get(side, {}) if record.ready else {}
    return ", ".join(f"{number} {fate}" for fate, number in found.items() if number) or MISSING


def _half_life(record: ObjectRecord, anchor: str) -> str:
    """Return the half-life of an anchor in tokens, or what is said where it has none."""
    found = record.status.summary.get("anchors", {}).get(anchor) if record.ready else None
    if found is None:
        return MISSING
    if found["fade"] == "no effect":
        return "no effect"
    return "not reached" if found["half_life"] is None else decimal(found["half_life"], 0)


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= TEXT_CHARACTERS_MAX else f"{words[: TEXT_CHARACTERS_MAX - 2]} …"


_STATE: dict[str, Column] = {"READY": _ready, "REASON": _reason}
_PROVENANCE: dict[str, Column] = {
    "GENERATION": lambda record, _: str(record.generation),
    "DIGEST": _digest,
    "CONTENT": _content,
    "OWNER": _owner,
}
_COLUMNS: dict[str, dict[str, Column]] = {
    "Experiment": {
        **{node.name.upper(): _stage(node.name) for node in PIPELINE},
        "READY": _ready,
        "GATE": _stage_summary("mapping", "verdict"),
        "VERDICT": _stage_summary("steering", "verdict"),
    },
    "Study": {
        "READY": _ready,
        "TESTABLE": lambda record, _: _share_of_ready(record, "testable"),
        "GATE-OPEN": lambda record, _: _share_of_ready(record, "gateOpen"),
        "ANSWER": lambda record, cells: _answer(record, cells)[0],
        "DIFFERENCE": lambda record, cells: _answer(record, cells)[1],
    },
    "Capture": {
        **_STATE,
        "PROMPTS": _summary("prompts", count),
        "TOKENS": _summary("tokens", count),
        "NORM": _summary("median_norm", lambda value: decimal(value, 1)),
        "CENTRED": _summary("median_centred_norm", lambda value: decimal(value, 1)),
    },
    "Decomposition": {
        **_STATE,
        "LATENTS": _summary("d_sae", count),
        "L0": _summary("l0", lambda value: decimal(value, 1)),
        "FVU": _summary("fvu", lambda value: decimal(value, 3)),
        "ALIVE": _summary("alive", count),
        "CANDIDATES": _summary("candidates", lambda value: count(len(value))),
    },
    "Mapping": {
        **_STATE,
        "GATE": _summary("verdict"),
        "ANCHORS": _summary("anchors", count),
        "CHILDREN": _summary("children", count),
        "PERCENTILE": _summary("percentile", lambda value: decimal(value, 1)),
        "STABILITY": _summary("stability", lambda value: percent(value, 0)),
        "CONFIRMED": lambda record, _: _confirmed(record),
        "PASS-OF-ALL": _summary("share_of_all", percent),
        "PASS-OF-FIRING": _summary("share_of_firing", percent),
    },
    "Splitting": {
        **_STATE,
        "COARSE": lambda record, _: _fates(record, "coarse"),
        "FINE": lambda record, _: _fates(record, "fine"),
        "EDGES": _summary("edges", count),
        "BY-CHANCE": _summary("by_chance", lambda value: decimal(value, 1)),
        "STABILITY": _summary("stability", lambda value: percent(value, 0)),
    },
    "Evidence": {
        **_STATE,
        "LATENTS": _summary("latents", count),
        "PROMPTS": _summary("prompts", count),
        "TOKENS": _summary("tokens", count),
    },
    "Ablation": {
        **_STATE,
        "ANCHOR": lambda record, _: _lost(record, "anchor"),
        "CHILDREN": lambda record, _: _lost(record, "children"),
        "BOTH": lambda record, _: _lost(record, "both"),
        "PROMPTS": _summary("prompts", count),
    },
    "Steering": {
        **_STATE,
        "VERDICT": _summary("verdict"),
        "CONTRAST": _summary("contrast"),
        "ESTIMATE": _summary("estimate", signed),
        "INTERVAL": _interval,
        "N": _summary("n", count),
    },
    "Scoring": {
        **_STATE,
        "VERDICT": _summary("verdict"),
        "PRIMARY": _summary("primary"),
        "ESTIMATE": _summary("estimate", signed),
        "INTERVAL": _interval,
        "N": _summary("n", count),
        "FOUND": _summary("secondary_found", count),
        "OF": _summary("secondary", count),
    },
    "Damage": {
        **_STATE,
        "TEXTS": _summary("texts", count),
        "ITEMS": _summary("items", count),
        "NEXT-TOKEN": _summary("next_token", percent),
        "LOSS": _summary("multi_next_token_loss", percent),
        "CHOICES": _summary("choices", percent),
        "CHOICES-LOSS": _summary("multi_choices_loss", percent),
        "HOLDS": _summary("holds", lambda value: "yes" if value else "no"),
    },
    "Trace": {
        **_STATE,
        "TEXTS": _summary("texts", count),
        "TOKENS": _summary("tokens", count),
        "FOLLOWED": _summary("followed", count),
        "STEPS": _summary("steps", count),
    },
    "Drift": {
        **_STATE,
        "ARM": _summary("arm"),
        "SYSTEMPROMPT": lambda record, _: _half_life(record, "systemPrompt"),
        "STEEREDPREFIX": lambda record, _: _half_life(record, "steeredPrefix"),
        "STEERING": lambda record, _: _half_life(record, "steering"),
        "OPENINGS": _summary("openings", count),
        "TOKENS": _summary("tokens", count),
    },
    "Question": {
        **_STATE,
        "ASKED": lambda record, _: _asked(record),
        "TOKENS": _summary("tokens", count),
        "FIRINGS": _summary("firings", count),
        "TEXT": lambda record, _: _beginning(str(record.spec.get("text", ""))),
    },
}
_WIDE: dict[str, dict[str, Column]] = {
    "Experiment": {
        "REASON": _reason,
        "CONFIRMED": lambda _, stages: _confirmed(stages.get("mapping")),
        "MODEL": lambda record, _: str(record.spec.get("model", {}).get("name", MISSING)),
        "HOOK": lambda record, _: str(record.spec.get("hook", MISSING)),
        "GENERATION": lambda record, _: str(record.generation),
    },
    "Study": {"REASON": _reason, "GENERATION": lambda record, _: str(record.generation)},
    **dict.fromkeys(STAGE_KINDS, _PROVENANCE),
}

"""One object in full, as ``kubectl describe`` would print it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loopscope.specs.keys import STUDY_LABEL
from loopscope.state.records import ArtifactRecord, EventRecord, JobHead, ObjectRecord
from loopscope.state.share import Share
from loopscope.views.forecasts import Forecast
from loopscope.views.numbers import (
    NOT_RECORDED,
    age,
    byte_size,
    duration,
    iso,
    magnitude,
    testable,
)
from loopscope.views.quantisation import Quantisation

if TYPE_CHECKING:
    from loopscope.views.chain import Chain
    from loopscope.views.sensitivity.rows import ShownLooks

WIDTH = 24
VALUE_CHARACTERS_MAX = 160
SUMMARY_CHARACTERS_MAX = 1000
"""The reason of a verdict is read to its end."""


def describe_text(
    record: ObjectRecord,
    events: Sequence[EventRecord],
    jobs: Sequence[JobHead],
    artifact: ArtifactRecord | None,
    *,
    now: float,
    children: Sequence[ObjectRecord] = (),
    took: float | None = None,
    foreseen: Forecast | None = None,
    quantised: Sequence[Quantisation] = (),
    rated: Sequence[Sequence[str]] = (),
    looked_at: ShownLooks | None = None,
    chained: Sequence[Chain] = (),
    robust: Sequence[Sequence[str]] = (),
    letters: Sequence[Sequence[str]] = (),
    shares: Mapping[int, Share] = MappingProxyType({}),
) -> str:
    """Return metadata, spec, status, artifact, jobs and events of one object as plain text.

    Ages count back from ``now`` (Unix seconds). Long texts are shortened, with their length. With
    the seconds that the artifact ``took`` stands what is ``foreseen`` for its shapes; ``quantised``
    is what quantising a model did to its dictionaries, ``rated`` the table of what people said of a
    steering's texts, with its head, ``looked_at`` the verdict under other choices, ``chained`` the
    chains of dictionaries that the cells of a sweep make up, ``robust`` the arms under other
    sampling rules and openings, and ``letters`` those of a blinded steering, each with its head.
    ``shares`` say which of the jobs make shards of another one.
    """
    lines = [
        *_metadata(record, now),
        "Spec:",
        *_tree(record.spec, 1, VALUE_CHARACTERS_MAX),
        "Status:",
        *_status(record, now),
        *_artifact(record, artifact, now),
        *_time(took, foreseen),
        *(_line("Quantised", f"{one.object.name}: {one.words}") for one in quantised),
        *_children(children),
        *_grid(record, children),
        *(line for chain in chained for line in _chain(chain)),
        *_headed("Blinded arms", letters),
        *_headed("Ratings", rated),
        *_looked_at(looked_at),
        *_headed("Robustness", robust),
        *_jobs(jobs, shares, now),
        *_events(events, now),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _metadata(record: ObjectRecord, now: float) -> Iterator[str]:
    yield _line("Name", record.key.name)
    yield _line("Namespace", record.key.namespace)
    yield _line("Kind", record.key.kind)
    for title, values in (("Labels", record.labels), ("Annotations", record.annotations)):
        yield _line(title, ", ".join(f"{k}={v}" for k, v in sorted(values.items())) or "<none>")
    created = f"{iso(record.creation_timestamp)} ({age(now - record.creation_timestamp)} ago)"
    yield _line("Created", created)
    if record.deletion_timestamp is not None:
        waits = ", ".join(record.finalizers)
        yield _line("Deleting since", f"{iso(record.deletion_timestamp)} (waits for {waits})")
    if record.owner is not None:
        yield _line("Controlled by", str(record.owner))
    yield _line("UID", record.uid)
    observed = record.status.observed_generation
    seen = "observed" if observed == record.generation else f"observed: {observed}"
    yield _line("Generation", f"{record.generation} ({seen})")
    yield _line("Resource version", str(record.resource_version))


def condition_rows(record: ObjectRecord, now: float) -> list[list[str]]:
    """Return type, status, reason, age and message of each condition; stale ones say so."""
    return [
        [
            c.type,
            c.status if c.observed_generation == record.generation else f"{c.status} (stale)",
            c.reason,
            age(now - c.last_transition_time),
            c.message,
        ]
        for c in record.status.conditions
    ]


def _status(record: ObjectRecord, now: float) -> Iterator[str]:
    if record.status.conditions:
        yield "  Conditions:"
        heads = ("TYPE", "STATUS", "REASON", "AGE", "MESSAGE")
        yield from _columns([heads, *condition_rows(record, now)], 4)
    else:
        yield "  Conditions:           <none yet>"
    summary = testable(record.status.summary)
    if record.key.kind == "Decomposition" and "l0" in summary:
        summary = {"near_edge": NOT_RECORDED, **summary}
    if summary:
        yield "  Summary:"
        yield from _tree(_rounded(summary), 2, SUMMARY_CHARACTERS_MAX)
    if record.status.inputs:
        yield "  Inputs:"
        yield from _tree(record.status.inputs, 2, VALUE_CHARACTERS_MAX)


def _artifact(record: ObjectRecord, artifact: ArtifactRecord | None, now: float) -> Iterator[str]:
    reference = record.status.artifact
    if artifact is None:
        if reference is not None:
            yield _line("Artifact", f"{reference.stage}/{reference.digest} (not in the index)")
        return
    yield "Artifact:"
    yield _line("  Digest", f"{artifact.stage}/{artifact.digest}")
    yield _line("  Content digest", artifact.content_digest)
    yield _line("  Made", f"{iso(artifact.created_at)} ({age(now - artifact.created_at)} ago)")
    yield "  Files:"
    yield from _columns(
        [(name, byte_size(f.bytes), f.sha256[:12]) for name, f in sorted(artifact.files.items())], 4
    )


def _time(took: float | None, foreseen: Forecast | None) -> Iterator[str]:
    if not took:
        return
    if foreseen is None or foreseen.seconds is None:
        yield _line("  Took", duration(took))
    else:
        predicted = f"predicted {duration(foreseen.seconds)} {foreseen.basis}"
        yield _line("  Took", f"{duration(took)} ({predicted})")


def _children(children: Sequence[ObjectRecord]) -> Iterator[str]:
    if not children:
        return
    cells = children[0].key.kind == "Experiment"
    of_study = STUDY_LABEL in children[0].labels
    yield ("Concepts:" if of_study else "Cells:") if cells else "Stages:"
    rows = [("OBJECT", "READY", "REASON", "MESSAGE")]
    for child in children:
        ready = child.status.condition("Ready")
        words = (ready.status, ready.reason, ready.message) if ready else ("<none>",) * 3
        rows.append((str(child.key), *words))
    yield from _columns(rows, 2)


def _grid(record: ObjectRecord, children: Sequence[ObjectRecord]) -> Iterator[str]:
    """Yield a sweep's cells with their axes, verdicts and effects, corrected and pooled."""
    if record.key.kind == "Study":
        yield from _concepts(record, children)
    if "matrix" not in record.spec:
        return
    from loopscope.views.sweeps import sweep_of  # late: numpy takes its time

    sweep = sweep_of(record, children)
    yield "Grid:"
    head = ("CELL", *(title.upper() for title in sweep.columns))
    yield from _columns([head, *((cell.name, *cell.cells) for cell in sweep.cells)], 2)
    if sweep.together is not None:
        yield from (f"  {sentence}" for sentence in sweep.together.sentences)
    yield from (f"  {sentence}" for sentence in sweep.held)


def _chain(chain: Chain) -> Iterator[str]:
    """Yield a chain: what becomes of latents from one dictionary to the next, steering at each."""
    from loopscope.views.chain_levels import FATE_COLUMNS
    from loopscope.views.chain_rows import (
        STEERED_COLUMNS,
        fate_rows,
        steered_rows,
    )  # late: as above

    yield f"Chain: {chain.words}"
    for head, rows in ((FATE_COLUMNS, fate_rows(chain)), (STEERED_COLUMNS, steered_rows(chain))):
        if rows:
            yield from _columns([[title.upper() for title in head], *rows], 2)
    yield from (f"  {one}" for one in chain.missing)


def _concepts(record: ObjectRecord, children: Sequence[ObjectRecord]) -> Iterator[str]:
    """Yield a study's concepts with what each came to, and the one answer."""
    from loopscope.views.studies import study_lines, study_of_records  # late: as above

    study = study_of_records(record, children)
    head, *rows = study_lines(study)
    yield "Answers:"
    yield from _columns([[title.upper() for title in head], *rows], 2)
    yield from (f"  {one.name} is not testable: {one.reason}" for one in study.untested)
    yield "Answer:"
    yield from (f"  {sentence}" for sentence in study.sentences)


def _looked_at(found: ShownLooks | None) -> Iterator[str]:
    """Yield what would have changed a verdict."""
    if found is None or not found.rows:
        return
    from loopscope.views.sensitivity.rows import HEAD  # late: numpy takes its time

    yield "Sensitivity:"
    yield from _columns([[title.upper() for title in HEAD], *found.rows], 2)
    if found.hidden:
        yield f"  {found.hidden} more words, each taken out alone, leave the word as it is"
    yield from (f"  {sentence}" for sentence in found.sentences)


def _headed(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield f"{title}:"
        head, *others = rows
        yield from _columns([[word.upper() for word in head], *others], 2)


def _jobs(jobs: Sequence[JobHead], shares: Mapping[int, Share], now: float) -> Iterator[str]:
    if not jobs:
        return
    yield "Jobs:"
    rows = [("ID", "STAGE", "STATE", "ATTEMPTS", "AGE", "REASON")]
    for job in jobs:
        which = shares[job.id].words if job.id in shares else ""
        said = f"{job.reason}: {job.message}" if job.reason else ""
        why = "; ".join(word for word in (which, said) if word)
        state, attempts = job.state, str(job.attempts)
        rows.append((str(job.id), job.stage, state, attempts, age(now - job.created_at), why))
    yield from _columns(rows, 2)


def _events(events: Sequence[EventRecord], now: float) -> Iterator[str]:
    if not events:
        yield _line("Events", "<none>")
        return
    yield "Events:"
    rows = [("TYPE", "REASON", "AGE", "MESSAGE")]
    for event in events:
        seen = age(now - event.last_seen_at)
        if event.count > 1:
            seen += f" (x{event.count} over {age(now - event.first_seen_at)})"
        rows.append((event.type, event.reason, seen, event.message))
    yield from _columns(rows, 2)


def _tree(value: Mapping[str, Any], depth: int, longest: int) -> Iterator[str]:
    """Yield a mapping as indented lines; prompt texts are counted, not printed."""
    indent = "  " * depth
    for name, item in value.items():
        if isinstance(item, dict) and "texts" in item:
            yield _line(f"{indent}{name}", _texts_counted(item))
        elif isinstance(item, dict) and item:
            yield f"{indent}{name}:"
            yield from _tree(item, depth + 1, longest)
        else:
            yield _line(f"{indent}{name}", _short(item, longest))


def _texts_counted(item: Mapping[str, Any]) -> str:
    """Return how many texts there are, and what is known of where they come from."""
    parts = [item["file"]] if item.get("file") else []
    if resolved := item.get("resolved"):
        parts.append(f"{item['dataset']} at {resolved['commit'][:12]}")
    if counted := item.get("counted"):
        parts.append(f"{counted['matching']:,} of {counted['read']:,} read")
        parts += [f"{counted['duplicates']:,} duplicates"] if counted["duplicates"] else []
    return f"{len(item['texts'])} texts" + (f" ({', '.join(parts)})" if parts else "")


def _rounded(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return measured numbers as people read them; what was declared is shown as it was."""
    return {
        name: _rounded(value)
        if isinstance(value, Mapping)
        else magnitude(value)
        if isinstance(value, float)
        else value
        for name, value in values.items()
    }


def _short(value: object, longest: int) -> str:
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value) or "<none>"
    text = "<none>" if value is None else str(value)
    if not text.strip():
        return json.dumps(text)  # quoted, as in YAML: white space would not be seen
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text)} characters)"


def _line(name: str, value: str) -> str:
    return f"{name + ':':<{WIDTH}}{'' if len(name) < WIDTH - 1 else ' '}{value}"


def _columns(rows: Sequence[Sequence[str]], indent: int) -> Iterator[str]:
    """Yield rows as aligned columns; the last column keeps its length."""
    if not rows:
        return
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield " " * indent + "  ".join(cells)

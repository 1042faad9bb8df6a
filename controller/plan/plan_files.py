"""Plan files: written by ``plan -o``, compared with reality by ``apply --plan``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from loopscope.controller.apply.appliers import Applier
from loopscope.controller.apply.code_identity import code_identity
from loopscope.controller.apply.planned import Planned, PlannedStage
from loopscope.controller.plan.requests import Reading, Request
from loopscope.specs.files import read_at_most
from loopscope.specs.json_values import Json
from loopscope.specs.keys import API_VERSION, Key
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state.failures import TerminalFailure

PLAN_BYTES_MAX = 256 * 1024 * 1024
MOVED_SHOWN_MAX = 5


class KeyJson(TypedDict):
    """The name of an object."""

    kind: str
    namespace: str
    name: str


class ChangeJson(TypedDict):
    """A field that an apply would change."""

    field: str
    before: Json
    after: Json
    defaultChanged: bool


class ObjectJson(KeyJson):
    """What would become of an object."""

    outcome: str
    changes: list[ChangeJson]


class StageJson(KeyJson):
    """Whether a stage would run, why, and what that takes."""

    root: str
    state: str
    why: list[str]
    ruleChanged: str | None
    until: str | None
    digest: str | None
    estimatedSeconds: float | None
    estimatedBytes: int | None
    estimatedMemoryBytes: int | None
    estimatedFrom: str | None
    tookSeconds: float | None
    discardsSeconds: float


class SourceJson(TypedDict):
    """A file or folder of specs, and the folder in which files that they name must lie."""

    filename: str
    root: str


class RequestJson(TypedDict):
    """What was asked for."""

    sources: list[SourceJson]
    namespace: str | None
    manager: str
    forceConflicts: bool
    prune: bool
    allowEmpty: bool


class PlanDocument(TypedDict):
    """A plan with everything that was looked at to make it."""

    apiVersion: str
    kind: str
    createdAt: float
    code: str
    request: RequestJson
    files: dict[str, str | None]
    editions: dict[str, str]
    objects: list[ObjectJson]
    stages: list[StageJson]
    prune: list[KeyJson]
    discardsSeconds: float
    needsConfirmation: bool
    notes: list[str]


def plan_document(
    planned: Planned, reading: Reading, *, now: float, notes: Sequence[str] = ()
) -> PlanDocument:
    """Return a plan as JSON values; ``notes`` are the notes printed beside it."""
    request = reading.request
    return {
        "apiVersion": API_VERSION,
        "kind": "Plan",
        "createdAt": now,
        "code": code_identity(),
        "request": {
            "sources": [
                {"filename": str(source.path.absolute()), "root": str(source.root)}
                for source in request.sources
            ],
            "namespace": request.namespace,
            "manager": request.applier.manager,
            "forceConflicts": request.applier.force,
            "prune": request.prune,
            "allowEmpty": request.allow_empty,
        },
        "files": reading.memory.files(reading.loaded),
        "editions": {_name(key): v for key, v in sorted(planned.observed.items())},
        "objects": [
            {
                **_key(item.key),
                "outcome": item.outcome,
                "changes": [
                    {
                        "field": c.field,
                        "before": c.before,
                        "after": c.after,
                        "defaultChanged": c.is_default,
                    }
                    for c in item.changes
                ],
            }
            for item in planned.objects
        ],
        "stages": [_stage(stage) for stage in planned.stages],
        "prune": [_key(key) for key in planned.prune],
        "discardsSeconds": round(planned.discards_seconds, 3),
        "needsConfirmation": planned.needs_confirmation,
        "notes": list(notes),
    }


def read_plan(file: Path) -> PlanDocument:
    """Return the document of a plan file. Raises TerminalFailure when it is none."""
    try:
        document = json.loads(read_at_most(file, PLAN_BYTES_MAX))
        if document["apiVersion"] != API_VERSION or document["kind"] != "Plan":
            raise ValueError("it is of another kind or version")
        request_of(document, confirm=False)
        for name in ("files", "editions"):
            if not isinstance(document[name], dict):
                raise ValueError(f"{name} is not an object")
    except OSError as error:
        raise TerminalFailure("NoPlan", f"{file}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TerminalFailure(
            "NoPlan", f"{file} is no plan ({error}); write one with `loopscope plan -o {file}`"
        ) from None
    return cast(PlanDocument, document)  # checked above, field by field


def request_of(document: PlanDocument, *, confirm: bool) -> Request:
    """Return the request that a plan was made for."""
    given = document["request"]
    sources = [(one["filename"], one["root"]) for one in given["sources"]]
    namespace = given["namespace"]
    words = [given["manager"], *(word for one in sources for word in one), namespace or ""]
    flags = [given["forceConflicts"], given["prune"], given["allowEmpty"]]
    are_whole = all(isinstance(w, str) for w in words) and all(isinstance(f, bool) for f in flags)
    if not sources or not are_whole:
        raise ValueError("request is not whole")
    return Request(
        tuple(SpecSource(Path(path), Path(root)) for path, root in sources),
        Applier(words[0], flags[0]),
        namespace,
        prune=flags[1],
        allow_empty=flags[2],
        confirm=confirm,
    )


def refuse_if_moved(document: PlanDocument, fresh: PlanDocument) -> None:
    """Raise TerminalFailure (PlanOutdated) when anything is not as it was when planned."""
    moved = [
        *_differing("file", document["files"], fresh["files"]),
        *_differing("object", document["editions"], fresh["editions"]),
    ]
    if document.get("code") != fresh["code"]:
        moved.insert(0, "Loopscope itself")
    if not moved and _decisions(document) != _decisions(fresh):
        moved.append("what would run")
    if moved:
        more = len(moved) - MOVED_SHOWN_MAX
        words = ", ".join(moved[:MOVED_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
        raise TerminalFailure(
            "PlanOutdated", f"this changed since the plan was made: {words}; plan again"
        )


def _differing(
    what: str, before: Mapping[str, str | None], after: Mapping[str, str | None]
) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [f"{what} {name}" for name in names if before.get(name) != after.get(name)]


def _decisions(document: PlanDocument) -> list[object]:
    planned: Sequence[Mapping[str, object]] = document.get("stages", [])
    stages = [
        {name: stage.get(name) for name in ("kind", "namespace", "name", "state", "digest")}
        for stage in planned
    ]
    return [stages, document.get("objects"), document.get("prune")]


def _stage(stage: PlannedStage) -> StageJson:
    return {
        **_key(stage.key),
        "root": _name(stage.root),
        "state": stage.state,
        "why": list(stage.why),
        "ruleChanged": stage.rule,
        "until": stage.until,
        "digest": stage.digest,
        "estimatedSeconds": stage.seconds,
        "estimatedBytes": stage.bytes,
        "estimatedMemoryBytes": stage.memory,
        "estimatedFrom": stage.basis or None,
        "tookSeconds": stage.took,
        "discardsSeconds": round(stage.discards_seconds, 3),
    }


def _key(key: Key) -> KeyJson:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}


def _name(key: Key) -> str:
    return "/".join(key)

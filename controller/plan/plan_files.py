"""Plan files: written by ``plan -o``, compared with reality by ``apply --plan``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loopscope.controller.apply.appliers import Applier
from loopscope.controller.apply.code_identity import code_identity
from loopscope.controller.apply.planned import Planned, PlannedStage
from loopscope.controller.plan.requests import Reading, Request
from loopscope.specs.files import read_at_most
from loopscope.specs.keys import API_VERSION, Key
from loopscope.specs.spec_sources import SpecSource
from loopscope.state.failures import TerminalFailure

PLAN_BYTES_MAX = 256 * 1024 * 1024
MOVED_SHOWN_MAX = 5


def plan_document(
    planned: Planned, reading: Reading, *, now: float, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a plan as JSON values; ``notes`` are what was told beside it."""
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


def read_plan(file: Path) -> dict[str, Any]:
    """Return the document of a plan file. Raises TerminalFailure when it is none."""
    try:
        document = json.loads(read_at_most(file, PLAN_BYTES_MAX))
        if document["apiVersion"] != API_VERSION or document["kind"] != "Plan":
            raise ValueError("it is of another kind or version")
        request_of(document, confirm=False)
        for name in ("files", "editions"):
            if not isinstance(document[name], dict):
                raise ValueError(f"{name} is no object")
    except OSError as error:
        raise TerminalFailure("NoPlan", f"{file}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TerminalFailure(
            "NoPlan", f"{file} is no plan ({error}); write one with `loopscope plan -o {file}`"
        ) from None
    return document  # type: ignore[no-any-return]  # checked above, field by field


def request_of(document: dict[str, Any], *, confirm: bool) -> Request:
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


def refuse_if_moved(document: dict[str, Any], fresh: dict[str, Any]) -> None:
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


def _differing(what: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [f"{what} {name}" for name in names if before.get(name) != after.get(name)]


def _decisions(document: dict[str, Any]) -> Any:
    stages = [
        {name: stage.get(name) for name in ("kind", "namespace", "name", "state", "digest")}
        for stage in document.get("stages", [])
    ]
    return [stages, document.get("objects"), document.get("prune")]


def _stage(stage: PlannedStage) -> dict[str, Any]:
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
        "estimatedFrom": stage.basis or None,
        "discardsSeconds": round(stage.discards_seconds, 3),
    }


def _key(key: Key) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}


def _name(key: Key) -> str:
    return "/".join(key)

"""Requests that write, as they are sent: parameters, and bodies as values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from loopscope.server.answers import Refused
from loopscope.server.resources import Resource
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION, Key
from loopscope.specs.yaml.nodes import read_documents
from loopscope.specs.yaml.spec_sources import REQUEST

JSON, YAML = ("application/json", ""), ("application/yaml", "application/x-yaml")
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
MANAGER_CHARACTERS_MAX = 128
DEPTH_MAX = 50
PROPAGATIONS = ("", "Background", "Foreground")
"""What an object owns goes with it, in one transaction; so the first two are the same."""


@dataclass(frozen=True)
class Write:
    """The parameters of a request that writes."""

    resource: Resource
    namespace: str
    manager: str
    dry_run: bool = False
    force: bool = False
    confirm: bool = False
    """Discard finished work, as ``--confirm`` of ``apply``."""

    def key(self, name: str) -> Key:
        """Return the name of an object of the path."""
        return Key(self.resource.kind, self.namespace, name)


def write_of(
    resource: Resource, namespace: str, query: Mapping[str, str], user_agent: str
) -> Write:
    """Read the parameters of a write; raises Refused."""
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise Refused(400, f"dryRun={dry_run}: expected All")
    manager = query.get("fieldManager") or user_agent.partition("/")[0] or "unknown"
    if len(manager) > MANAGER_CHARACTERS_MAX or not manager.isprintable():
        raise Refused(
            400, f"fieldManager: expected at most {MANAGER_CHARACTERS_MAX} printable characters"
        )
    return Write(
        resource,
        namespace,
        manager,
        dry_run == "All",
        query.get("force") == "true",
        query.get("confirm") == "true",
    )


def json_object(content: bytes) -> JsonObject:
    """Return a body as a JSON object; raises Refused."""
    try:
        found = json.loads(content, parse_constant=_no_number, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body is not a JSON object")
    _refuse_deep(found, DEPTH_MAX)
    return found


def yaml_object(content: bytes) -> JsonObject:
    """Return a body as one object of YAML, of which JSON is a part; raises Refused."""
    if content.lstrip()[:1] == b"{":
        return json_object(content)
    try:
        found = [one.value for one in read_documents(content.decode(), str(REQUEST))]
    except (InvalidSpec, UnicodeDecodeError) as error:
        raise Refused(400, f"the body is not YAML: {error}") from None
    if len(found) != 1 or not isinstance(found[0], dict):
        raise Refused(400, "the body is not one YAML object")
    return found[0]


def metadata_of(document: JsonObject) -> JsonObject:
    """Return the metadata of an object; raises Refused."""
    found = document.get("metadata", {})
    if not isinstance(found, dict):
        raise Refused(400, "metadata: expected a mapping")
    return found


def with_names(document: JsonObject, write: Write, name: str | None) -> JsonObject:
    """Return an object whose kind, namespace and name are those of the path; raises Refused.

    What is null in its metadata is not there.
    """
    given = {field: value for field, value in metadata_of(document).items() if value is not None}
    wanted: list[tuple[str, Json, Json]] = [
        ("apiVersion", document.get("apiVersion", API_VERSION), API_VERSION),
        ("kind", document.get("kind", write.resource.kind), write.resource.kind),
        ("metadata.namespace", given.get("namespace", write.namespace), write.namespace),
    ]
    if name is not None:
        wanted.append(("metadata.name", given.get("name", name), name))
        given["name"] = name
    for field, found, expected in wanted:
        if found != expected:
            raise Refused(400, f"{field}: {found} in the body, {expected} in the path")
    made = {**document, "apiVersion": API_VERSION, "kind": write.resource.kind}
    return {**made, "metadata": {**given, "namespace": write.namespace}}


def version_of(metadata: JsonObject) -> int | None:
    """Return the version that an object was read at, if it says so; raises Refused."""
    found = metadata.get("resourceVersion")
    if found in (None, ""):
        return None
    if not isinstance(found, str | int) or not re.fullmatch("[0-9]{1,18}", str(found)):
        raise Refused(400, f"metadata.resourceVersion: {found}: expected a version that was read")
    return int(found)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _no_key_twice(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice in one object")
    return found


def _refuse_deep(value: Json, levels: int) -> None:
    if isinstance(value, dict | list):
        if levels == 0:
            raise Refused(400, f"the body is nested deeper than {DEPTH_MAX} levels")
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_deep(inner, levels - 1)

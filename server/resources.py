"""Resources of the API: the kinds by the words of their paths, and what may be done with each."""

from __future__ import annotations

from typing import NamedTuple

from loopscope.server.answers import GROUP, VERSION, Refused
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import API_VERSION
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.pipeline import PLURAL_BY_KIND, SHORT_BY_KIND

READING = ("get", "list", "watch")
WRITING = ("create", "delete", "patch", "update")
CATEGORY = "loopscope"
"""``kubectl get loopscope`` lists every kind. Not ``all``: ``delete all`` means other things."""
PREFERENCE = {"groupVersion": API_VERSION, "version": VERSION}


class Resource(NamedTuple):
    """A kind and the words for it."""

    kind: str
    plural: str
    short: str


RESOURCES = {
    PLURAL_BY_KIND[kind]: Resource(kind, PLURAL_BY_KIND[kind], SHORT_BY_KIND[kind])
    for kind in SPEC_BY_KIND
}
"""By the word in a path."""


def resource_of(plural: str) -> Resource:
    """Return the resource of a path; raises Refused."""
    if plural not in RESOURCES:
        raise Refused(404, "the server could not find the requested resource")
    return RESOURCES[plural]


def api_versions(address: str) -> JsonObject:
    """Return what ``/api`` says: core has one version."""
    served: Json = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": served}


def core_resources(*, writable: bool) -> JsonObject:
    """Return what ``/api/v1`` says: namespaces, which are only read, and events."""
    told = (*READING, "create") if writable else READING
    resources: Json = [
        _resource("namespaces", "Namespace", "ns", READING, namespaced=False),
        _resource("events", "Event", "ev", told, namespaced=True),
    ]
    return {"kind": "APIResourceList", "groupVersion": "v1", "resources": resources}


def groups() -> JsonObject:
    """Return what ``/apis`` says."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}


def group() -> JsonObject:
    """Return what ``/apis/<group>`` says."""
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [{**PREFERENCE}],
        "preferredVersion": {**PREFERENCE},
    }


def kind_resources(*, writable: bool) -> JsonObject:
    """Return what ``/apis/<group>/<version>`` says: the kinds, with what may be done here."""
    verbs = (*READING, *WRITING) if writable else READING
    resources: list[Json] = []
    for one in RESOURCES.values():
        found = _resource(one.plural, one.kind, one.short, verbs, namespaced=True)
        resources.append({**found, "categories": [CATEGORY]})
        status = _resource(f"{one.plural}/status", one.kind, None, ("get",), namespaced=True)
        resources.append(status)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": API_VERSION,
        "resources": resources,
    }


def _resource(
    plural: str, kind: str, short: str | None, verbs: tuple[str, ...], *, namespaced: bool
) -> JsonObject:
    may: list[Json] = [*sorted(verbs)]
    found: JsonObject = {
        "name": plural,
        "singularName": kind.lower(),
        "namespaced": namespaced,
        "kind": kind,
        "verbs": may,
    }
    return {**found, "shortNames": [short]} if short else found

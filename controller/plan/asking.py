"""Asking: a question is stored as an object like any other, under a name of its content."""

from __future__ import annotations

from pathlib import Path

from loopscope.controller.apply.appliers import Applier, api_manager
from loopscope.controller.apply.questions import ASKED_LABEL, KIND, outlived
from loopscope.controller.plan.editing import load_edited, store_edited
from loopscope.specs.canonical import digest
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import API_VERSION, Key
from loopscope.specs.yaml.nodes import Document
from loopscope.state.db import objects
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import StateFolder

ASKER = Applier(api_manager("ask"), edits=True)


def question_name(spec: JsonObject) -> str:
    """Return the name of a question: the same question is the same object."""
    return f"q-{digest(spec)[:16]}"


def ask(state: StateFolder, namespace: str, spec: JsonObject, *, now: float) -> Key:
    """Store a question, and delete the oldest answered ones beyond what is kept.

    Raises InvalidSpec, and TerminalFailure ``TooManyQuestions``; then nothing was stored.
    """
    metadata: JsonObject = {
        "name": question_name(spec),
        "namespace": namespace,
        "labels": {ASKED_LABEL: "true"},
    }
    value: JsonObject = {
        "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec,
    }  # fmt: skip
    folder = Path.cwd()
    loaded = load_edited([Document("the question", value, {})], folder, folder)
    key = loaded[0].manifest.key
    if not _is_stored(state, key):
        try:
            store_edited(state, loaded, {key: None}, now=now, applier=ASKER)
        except TerminalFailure:
            if not _is_stored(state, key):  # else somebody asked the same meanwhile
                raise
    with state.database.write() as connection:
        for one in outlived(objects.listed(connection, KIND), key):
            objects.remove(connection, one, now=now)
    return key


def _is_stored(state: StateFolder, key: Key) -> bool:
    with state.database.read() as connection:
        return objects.get(connection, key) is not None

"""Targets that read what a state folder holds: manifests, payloads, seals, markers, hashes."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopscope.inputs.files import HashMemo
from loopscope.specs.canonical import digest
from loopscope.state.artifacts.folder_store import FolderStore
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.shard_folder import ShardFolder
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.files import file_sha256
from tests.fuzz.choices import Choices, edited, mutated

UNIT_TESTS = Path(__file__).parents[1] / "unit"
DIGEST = "d" * 64


def manifest_target(folder: Path) -> Callable[[bytes], None]:
    """Any bytes as a manifest, or edits of a whole one, beside a payload."""
    store = FolderStore(folder / "artifacts")
    staging = store.staging_folder(DIGEST, 1)
    (staging / "x.json").write_text("{}")
    told = {"stage": "mapping", "digest": DIGEST, "metrics": {"n": 1}, "createdAt": 5.0}
    store.publish(staging, store.seal(staging, told))
    path = store.folder("mapping", DIGEST) / MANIFEST
    whole = json.loads(path.read_text())

    def run(data: bytes) -> None:
        choices = Choices(data)
        if choices.number(2):
            manifest = edited(whole, choices)
            if choices.number(2) and isinstance(manifest, dict):
                manifest = _consistent(manifest)
            path.write_text(json.dumps(manifest))
        else:
            path.write_bytes(choices.rest())
        try:
            record = store.record("mapping", DIGEST)
            store.verify(record)
        except Corrupt as damage:
            str(damage).encode(errors="backslashreplace")
            return
        _can_be_indexed(record)

    return run


def _consistent(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest with the digests that somebody who knows them would write."""
    rest = {name: value for name, value in manifest.items() if name != "manifestDigest"}
    try:
        files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        rest["contentDigest"] = digest(files)
        return {**rest, "manifestDigest": digest(rest)}
    except (KeyError, TypeError, AttributeError, ValueError):
        return manifest


def _can_be_indexed(record: Any) -> None:
    """A record that was accepted has the types of the table that will hold it."""
    assert isinstance(record.created_at, float | int)
    json.dumps(record.metrics, allow_nan=False).encode()
    assert isinstance(record.metrics, dict)


def report_target(folder: Path) -> Callable[[bytes], None]:
    """Any bytes as a payload file or edits of a manifest, behind the check of their hashes."""
    sys.path.insert(0, str(UNIT_TESTS))
    from reports_case import build

    from loopscope.reports.page.html import render_report
    from loopscope.views.experiment import ExperimentView

    view = ExperimentView.load(*build(folder))
    names = [name for name, stage in view.stages.items() if stage.available]

    def run(data: bytes) -> None:
        choices = Choices(data)
        name = choices.one_of(names)
        stage = view.stages[name]
        assert stage.folder is not None
        if choices.number(3) == 0:
            changed = replace(stage, manifest=_edited_manifest(dict(stage.manifest), choices))
        else:
            copy = folder / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(stage.folder, copy)
            path = choices.one_of(sorted(copy.iterdir()))
            mutate = random.Random(choices.rest())
            path.write_bytes(mutated(path.read_bytes(), mutate))
            changed = replace(stage, folder=copy, _read={})
        try:
            page = render_report(replace(view, stages={**view.stages, name: changed}))
        except Corrupt as damage:
            str(damage).encode(errors="backslashreplace")
            return
        page.encode()

    return run


def _edited_manifest(manifest: dict[str, Any], choices: Choices) -> dict[str, Any]:
    changed = edited(manifest, choices)
    return changed if isinstance(changed, dict) else manifest


def hashes_target(folder: Path) -> Callable[[bytes], None]:
    """Any bytes as the memory of hashes, a shard's seal or a converted model's marker."""
    from loopscope.worker.model_sources import MARKER, _is_complete

    file = folder / "file"
    file.write_text("content")
    true = file_sha256(file)
    memo, shards = HashMemo(folder / "memo.json"), ShardFolder(folder)

    def run(data: bytes) -> None:
        choices = Choices(data)
        match choices.number(3):
            case 0:
                memo.path.write_bytes(choices.rest())
                assert memo.sha256(file) == true
            case 1:
                (folder / "file.seal.json").write_bytes(choices.rest())
                shards.sealed("file")
            case _:
                (folder / MARKER).write_bytes(choices.rest())
                _is_complete(folder, DIGEST)

    return run

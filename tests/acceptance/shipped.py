"""Shipped examples, cut to what a test has time for, and run by the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.command_line import succeeded
from tests.tree import ROOT


def shipped(example: Path) -> dict[str, Any]:
    """Return an example's document with its paths as they are from anywhere."""
    document: dict[str, Any] = yaml.safe_load((example / "experiment.yaml").read_text())
    _resolve(document, example)
    return document


def _resolve(value: object, folder: Path) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("file", "path"):
                value[name] = str((folder / inner).resolve())
            _resolve(inner, folder)


def cut(steering: dict[str, Any], **kept: int) -> None:
    """Leave of each named set of texts so many of the first lines of its file."""
    for name, count in kept.items():
        lines = Path(steering[name]["file"]).read_text().splitlines()[:count]
        steering[name] = {"texts": lines}


def bundle_of(document: dict[str, Any], folder: Path) -> Path:
    """Run a document in a folder; return its evidence bundle."""
    (folder / "experiment.yaml").write_text(yaml.safe_dump(document))
    succeeded("run", "experiment.yaml", "--root", ROOT, cwd=folder)
    succeeded("export", document["metadata"]["name"], "bundle", cwd=folder)
    return folder / "bundle"

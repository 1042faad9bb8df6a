"""A bundle, opened: its documents, tables and tensors, each read once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas
import pyarrow
import pyarrow.parquet

from loopscope.reconcilers.registry import OWNED_BY_KIND
from loopscope.specs.artifact_files import Document, Shape, Table
from loopscope.specs.artifacts.steering import ARMS
from loopscope.specs.kinds.experiment import ExperimentSpec
from loopscope.specs.pipeline import NODES, NodeName
from loopscope.specs.revisions import changed_rules, revisions_of
from loopscope.specs.spec_json import ExperimentJson
from loopscope.specs.yaml.nodes import read_documents
from loopscope.state.artifacts.store import Corrupt
from loopscope.views.documents.objects import ApplicableDocument
from loopscope.views.origin import PANDAS_ATTRIBUTES

DOCUMENT_BYTES_MAX = 256 * 1024 * 1024


@dataclass
class OpenBundle:
    """The files of a bundle below ``folder``, read when they are asked for.

    What is asked for and not there is None; what cannot be read raises Corrupt.
    """

    folder: Path
    _read: dict[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a file of that name is there."""
        return (self.folder / name).is_file()

    def json(self, name: str) -> Any:
        """Return a JSON file."""
        return self._once(name, lambda path: json.loads(_text(path)))

    def document(self, document: Document[Shape]) -> Shape | None:
        """Return a document of a stage."""
        found: Shape | None = self.json(_place(document))
        return found

    def table(self, table: Table) -> pandas.DataFrame | None:
        """Return a table of a stage."""
        return self.frame(_place(table))

    def frame(self, name: str) -> pandas.DataFrame | None:
        """Return a table by its name in the bundle."""
        found: pandas.DataFrame | None = self._once(
            name, lambda path: pyarrow.parquet.read_table(path).to_pandas()
        )
        return found

    def origin(self, name: str) -> Any:
        """Return what a table says of where it is from: file, sha256, stage and digest."""
        return self._once(
            f"{name} origin",
            lambda _: json.loads(
                pyarrow.parquet.read_schema(self.folder / name).metadata[PANDAS_ATTRIBUTES.encode()]
            ),
            self.folder / name,
        )

    def manifest(self, name: NodeName) -> Any:
        """Return the manifest of a stage."""
        return self.json(f"manifests/{name}.json")

    def changed_rules(self, name: NodeName) -> list[str]:
        """Return by which other rules than those of now a stage was made, in words."""
        manifest = self.manifest(name)
        return changed_rules(revisions_of(manifest)) if manifest is not None else []

    def arms_steered(self) -> set[str]:
        """Return the arms that have a row in the table of arms."""
        table = self.table(ARMS)
        return set() if table is None else set(table["arm"])

    @property
    def experiment(self) -> ExperimentJson:
        """The experiment's spec, with its defaults."""
        found: ExperimentJson = self._once(
            "spec.yaml with defaults",
            lambda _: ExperimentSpec.model_validate(self.applicable["spec"]).canonical(),
            self.folder / "spec.yaml",
        )
        if found is None:
            raise Corrupt("spec.yaml is missing")
        return found

    @property
    def applicable(self) -> ApplicableDocument:
        """The experiment as it could be applied again."""
        found: ApplicableDocument | None = self._once("spec.yaml", _applicable)
        if found is None:
            raise Corrupt("spec.yaml is missing")
        return found

    def spec(self, name: NodeName) -> Any:
        """Return the spec of a stage, which follows from the experiment's."""
        return OWNED_BY_KIND[NODES[name].kind](self.experiment, name)

    def _once(self, name: str, read: Any, at: Path | None = None) -> Any:
        if name not in self._read:
            path = at or self.folder / name
            if not path.is_file():
                return None
            try:
                self._read[name] = read(path)
            except (pyarrow.ArrowException, ValueError, OSError, RecursionError) as error:
                raise Corrupt(f"{name} cannot be read: {error}") from None
        return self._read[name]


def _place(file: Document[Any] | Table) -> str:
    return f"{file.bundled}/{file.name}".lstrip("/")


def _text(path: Path) -> str:
    if path.stat().st_size > DOCUMENT_BYTES_MAX:
        raise ValueError(f"it has more than {DOCUMENT_BYTES_MAX:,} bytes")
    return path.read_text(encoding="utf-8")


def _applicable(path: Path) -> ApplicableDocument:
    (document,) = read_documents(_text(path), path.name)
    return cast(ApplicableDocument, document.value)

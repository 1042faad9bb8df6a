"""YAML text to validated objects, with file, line, column and field for every problem."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from pydantic import ValidationError

from loopscope.specs import sweep
from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.fields import FileReader, Spec
from loopscope.specs.files import DatasetReader, RootedFiles, read_at_most, read_stream
from loopscope.specs.git_lfs import ADVICE, is_pointer
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import API_VERSION
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.kinds.study import StudySpec
from loopscope.specs.objects import Metadata, ObjectManifest
from loopscope.specs.reference import kind_facts
from loopscope.specs.suggest import closest, did_you_mean
from loopscope.specs.yaml import study_loading, sweep_loading
from loopscope.specs.yaml.chain import written_out
from loopscope.specs.yaml.errors import decoding_problem
from loopscope.specs.yaml.exported import as_written, is_exported, objects_in
from loopscope.specs.yaml.messages import message_of, short
from loopscope.specs.yaml.nodes import Document, Place, read_documents
from loopscope.specs.yaml.spec_sources import REQUEST, STANDARD_INPUT, SpecSource, files_of

FILE_BYTES_MAX = 4 * 1024 * 1024
_ENVELOPE = ("apiVersion", "kind", "metadata", "spec")
_LISTED = ", ".join(_ENVELOPE)
_READ_ONLY = ("status",)


class Envelope(TypedDict):
    """An object as it stands in a file, its spec not looked at yet."""

    apiVersion: str
    kind: str
    metadata: JsonObject
    spec: JsonObject


@dataclass(frozen=True)
class LoadedObject:
    """A validated object and the places of its fields in the file, for later problems."""

    manifest: ObjectManifest
    document: Document

    @property
    def written(self) -> Envelope:
        """The object as it stands in the file."""
        return _envelope(self.document)

    @property
    def is_exported(self) -> bool:
        """Whether it was printed by ``get``, with what the store knows of it."""
        return is_exported(self.document.value)

    @property
    def source(self) -> Path | None:
        """The absolute path of the file that it stands in; None for what came in no file.

        Links stay links: where one leads may change, as a deployment swaps it.
        """
        file = Path(self.document.file)
        return None if file in (STANDARD_INPUT, REQUEST) else file.absolute()

    def problem(self, field: str, message: str) -> Problem:
        """Point at ``field`` (dotted YAML path) of this object's file."""
        return self.document.problem(tuple(field.split(".")), message)


def load_path(path: Path, root: Path, datasets: DatasetReader | None = None) -> list[LoadedObject]:
    """Load a file, or every ``*.yaml`` and ``*.yml`` below a folder, in name order.

    Raises InvalidSpec with every problem of every file; then nothing of it may be used.
    """
    return load_all([SpecSource(path, root)], datasets=datasets)


def load_all(
    sources: Sequence[SpecSource],
    namespace: str | None = None,
    datasets: DatasetReader | None = None,
) -> list[LoadedObject]:
    """Load every file that the paths stand for, each once; the rest as for ``load_file``.

    Raises InvalidSpec with every problem of every file; then nothing of it may be used.
    """
    roots = files_of(sources)
    loaded, problems = load_files(roots, namespace, datasets)
    if not problems and not loaded:
        paths = ", ".join(str(source.path) for source in sources)
        problems.append(nothing_found(paths, list(roots)))
    if problems:
        raise InvalidSpec(problems)
    return loaded


def nothing_found(path: str, files: Sequence[Path]) -> Problem:
    """Return what is wrong with paths below which ``files`` hold no object."""
    found = "no objects" if files else "a folder without *.yaml and *.yml files"
    return Problem(path, 0, 0, "", f"{found}; expected YAML documents with {_LISTED}")


def load_files(
    roots: Mapping[Path, Path],
    namespace: str | None = None,
    datasets: DatasetReader | None = None,
) -> tuple[list[LoadedObject], list[Problem]]:
    """Load YAML files, each with its root; return what they hold, and every problem found."""
    loaded: list[LoadedObject] = []
    problems: list[Problem] = []
    for file, root in roots.items():
        try:
            loaded.extend(load_file(file, root, namespace, datasets))
        except InvalidSpec as invalid:
            problems.extend(invalid.problems)
    problems.extend(_named_twice(loaded))
    return loaded, problems


def load_file(
    file: Path,
    root: Path,
    namespace: str | None = None,
    datasets: DatasetReader | None = None,
) -> list[LoadedObject]:
    """Load the documents of one YAML file; files that it names must lie under ``root``.

    Paths in standard input are relative to the current folder. ``namespace`` is that of objects
    which name none; those which name another are refused. Without ``datasets`` no data set of the
    hub can be named.
    """
    content, name, folder = b"", str(file), file.parent
    try:
        if file == STANDARD_INPUT:
            folder = Path.cwd()
            content = read_stream(sys.stdin.buffer, name, FILE_BYTES_MAX)
        else:
            content = read_at_most(file, FILE_BYTES_MAX)
        if is_pointer(content):
            raise InvalidSpec([Problem(name, 0, 0, "", f"the file {ADVICE}")])
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSpec([decoding_problem(content, error, name)]) from None
    except ValueError as error:
        raise InvalidSpec([Problem(name, 0, 0, "", f"{error}; split it")]) from None
    except OSError as error:
        raise InvalidSpec([Problem(name, 0, 0, "", error.strerror or str(error))]) from None
    return load_text(text, name, RootedFiles(folder, root, datasets), namespace)


def load_text(
    text: str, file: str, files: FileReader, namespace: str | None = None
) -> list[LoadedObject]:
    """Load the documents of a YAML text; raise InvalidSpec with all of its problems."""
    return load_documents(
        (one for document in read_documents(text, file) for one in objects_in(document)),
        files,
        namespace,
    )


def load_documents(
    documents: Iterable[Document], files: FileReader, namespace: str | None = None
) -> list[LoadedObject]:
    """Load objects that were read; raise InvalidSpec with all of their problems."""
    loaded: list[LoadedObject] = []
    problems: list[Problem] = []
    for document in map(written_out, documents):
        found = list(_envelope_problems(document))
        manifest = None if found else _validated(document, files, namespace, found)
        problems.extend(found)
        if manifest is not None:
            loaded.append(LoadedObject(manifest, document))
    if problems:
        once = dict.fromkeys(problems)  # two pairs of a chain have the dictionary between them
        raise InvalidSpec(sorted(once, key=lambda problem: (problem.line, problem.column)))
    return loaded


def _named_twice(loaded: list[LoadedObject]) -> Iterator[Problem]:
    first: dict[tuple[str, str, str], LoadedObject] = {}
    for item in loaded:
        key = item.manifest.key
        if key in first:
            yield item.problem(
                "metadata.name", f"{key} is also defined in {first[key].document.file}; rename one"
            )
        first.setdefault(key, item)


def _envelope_problems(document: Document) -> Iterator[Problem]:
    value = document.value
    if not isinstance(value, dict):
        yield document.problem((), f"expected an object with {_LISTED}; found {short(value)}")
        return
    for name in value:
        if name not in _ENVELOPE and name not in _READ_ONLY:
            yield document.problem((name,), f"unknown field{did_you_mean(name, _ENVELOPE)}")
    if value.get("apiVersion") != API_VERSION:
        yield document.problem(
            ("apiVersion",), f"expected {API_VERSION!r}, found {short(value.get('apiVersion'))}"
        )
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in SPEC_BY_KIND:
        close = closest(str(kind), SPEC_BY_KIND)
        hint = f"; did you mean {close!r}?" if close else ""
        known = ", ".join(SPEC_BY_KIND)
        yield document.problem(("kind",), f"expected one of {known}; found {short(kind)}{hint}")
    for name in ("metadata", "spec"):
        if not isinstance(value.get(name), dict):
            yield document.problem((name,), f"expected a mapping, found {short(value.get(name))}")


def _envelope(document: Document) -> Envelope:
    return cast(Envelope, document.value)  # ``_envelope_problems`` found none


def _validated(
    document: Document, files: FileReader, namespace: str | None, problems: list[Problem]
) -> ObjectManifest | None:
    envelope, exported = _envelope(document), is_exported(document.value)
    kind = envelope["kind"]
    metadata = as_written(envelope["metadata"]) if exported else envelope["metadata"]
    if namespace is not None:
        problems.extend(_of_another_namespace(document, namespace))
        metadata = {**metadata, "namespace": namespace}
    context = {"files": files, "exported": exported}
    parts: dict[str, Spec] = {}
    for name, model, given in (
        ("metadata", Metadata, metadata),
        ("spec", SPEC_BY_KIND[kind], envelope["spec"]),
    ):
        try:
            parts[name] = model.model_validate(given, context=context)
        except ValidationError as error:
            problems.extend(_problems_of(error, document, name, kind))
    if problems:
        return None
    found = cast(Metadata, parts["metadata"])
    manifest = ObjectManifest(kind=kind, metadata=found, spec=parts["spec"])
    return _with_cells_checked(manifest, document, files, problems)


def _of_another_namespace(document: Document, namespace: str) -> Iterator[Problem]:
    named = _envelope(document)["metadata"].get("namespace", namespace)
    if named != namespace:
        message = f"{short(named)}, but --namespace says {namespace!r}; leave one of them out"
        yield document.problem(("metadata", "namespace"), message)


def _with_cells_checked(
    manifest: ObjectManifest, document: Document, files: FileReader, problems: list[Problem]
) -> ObjectManifest | None:
    """Return a sweep or a study as it is stored; anything else as it is."""
    if isinstance(manifest.spec, StudySpec):
        return _with_concepts_checked(manifest, manifest.spec, document, files, problems)
    matrix = getattr(manifest.spec, "matrix", None)
    if matrix is None:
        return manifest
    found = list(sweep_loading.shape_problems(manifest.metadata.name, matrix))
    problems.extend(document.problem(("spec", *place), message) for place, message in found)
    if found:
        return None
    given, model = _envelope(document)["spec"], type(manifest.spec)
    stored, invalid = sweep_loading.canonical_matrix(
        model, given, files, exported=is_exported(document.value)
    )
    problems.extend(_problems_of_cells(invalid, document, manifest.kind))
    if invalid:
        return None
    return replace(manifest, spec=manifest.spec.model_copy(update={"matrix": stored}))


def _with_concepts_checked(
    manifest: ObjectManifest,
    spec: StudySpec,
    document: Document,
    files: FileReader,
    problems: list[Problem],
) -> ObjectManifest | None:
    found = list(study_loading.name_problems(manifest.metadata.name, spec))
    problems.extend(document.problem(("spec", *place), message) for place, message in found)
    if found:
        return None
    stored = study_loading.canonical_study(
        spec, _envelope(document)["spec"], files, exported=is_exported(document.value)
    )
    known: dict[tuple[Place, str], Problem] = {}
    for one in stored.invalid:
        for item in one.error.errors(include_url=False):
            place = one.place(item["loc"])
            message = message_of(item, kind_facts("Experiment"), ("spec", *item["loc"]))
            where: Place = ("spec", *place)
            words = f"{message} (in {one.name})"
            known.setdefault((where, message), document.problem(where, words))
    problems.extend(known.values())
    return replace(manifest, spec=stored.spec) if not stored.invalid else None


def _problems_of_cells(
    invalid: list[sweep_loading.InvalidCell], document: Document, kind: str
) -> list[Problem]:
    """Point at the value that a cell's problem comes from; each is reported once."""
    matrix = sweep.matrix_of(_envelope(document)["spec"])
    problems: dict[tuple[Place, str], Problem] = {}
    for one in invalid:
        for item in one.error.errors(include_url=False):
            place = sweep.origin(matrix, one.cell, item["loc"])
            message = message_of(item, kind_facts(kind), ("spec", *item["loc"]))
            where: Place = ("spec", *(place or ("matrix",)))
            known = f"{message} (in {one.cell.suffix})" if place is None else message
            problems.setdefault((where, message), document.problem(where, known))
    return list(problems.values())


def _problems_of(
    error: ValidationError, document: Document, part: str, kind: str
) -> Iterator[Problem]:
    items = error.errors(include_url=False)
    places = [item["loc"] for item in items]
    for item in items:
        length = len(item["loc"])
        refused_inside = any(len(p) > length and p[:length] == item["loc"] for p in places)
        if item["type"] == "too_short" and refused_inside:
            continue  # its entries were refused: that is why there are too few
        place: Place = (part, *item["loc"])
        yield document.problem(place, message_of(item, kind_facts(kind), place))

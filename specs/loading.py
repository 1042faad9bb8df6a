"""YAML text to validated objects, with file, line, column and field for every problem."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from specs.errors import InvalidSpec, Problem
from specs.fields import FileReader
from specs.files import RootedFiles, read_at_most
from specs.keys import API_VERSION
from specs.kinds import SPEC_BY_KIND
from specs.objects import Metadata, ObjectManifest
from specs.spec_files import spec_files
from specs.yaml_nodes import Document, Place, read_documents

FILE_BYTES_MAX = 4 * 1024 * 1024
_ENVELOPE = ("apiVersion", "kind", "metadata", "spec")
_READ_ONLY = ("status",)


@dataclass(frozen=True)
class LoadedObject:
    """A validated object and the places of its fields in the file, for later problems."""

    manifest: ObjectManifest
    document: Document

    def problem(self, field: str, message: str) -> Problem:
        """Point at ``field`` (dotted YAML path) of this object's file."""
        return self.document.problem(tuple(field.split(".")), message)


def load_path(path: Path, root: Path) -> list[LoadedObject]:
    """Load a file, or every ``*.yaml`` and ``*.yml`` below a folder, in name order.

    Raises InvalidSpec with every problem of every file; then nothing of it may be used.
    """
    loaded, problems = load_files(spec_files(path), root)
    if not problems and not loaded:
        problems.append(Problem(str(path), 0, 0, "", "no objects found; expected YAML documents"))
    if problems:
        raise InvalidSpec(problems)
    return loaded


def load_files(files: Iterable[Path], root: Path) -> tuple[list[LoadedObject], list[Problem]]:
    """Load YAML files; return what they hold, and every problem found."""
    loaded: list[LoadedObject] = []
    problems: list[Problem] = []
    for file in files:
        try:
            loaded.extend(load_file(file, root))
        except InvalidSpec as invalid:
            problems.extend(invalid.problems)
    problems.extend(_named_twice(loaded))
    return loaded, problems


def load_file(file: Path, root: Path) -> list[LoadedObject]:
    """Load the documents of one YAML file; files that it names must lie under ``root``."""
    try:
        text = read_at_most(file, FILE_BYTES_MAX).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSpec(
            [_whole(file, f"not UTF-8 at byte {error.start}; save it as UTF-8")]
        ) from None
    except ValueError as error:
        raise InvalidSpec([_whole(file, f"{error}; split it")]) from None
    except OSError as error:
        raise InvalidSpec([_whole(file, error.strerror or str(error))]) from None
    return load_text(text, str(file), RootedFiles(file.parent, root))


def load_text(text: str, file: str, files: FileReader) -> list[LoadedObject]:
    """Load the documents of a YAML text; raise InvalidSpec with all of its problems."""
    loaded: list[LoadedObject] = []
    problems: list[Problem] = []
    for document in read_documents(text, file):
        found = list(_envelope_problems(document))
        manifest = None if found else _validated(document, files, found)
        problems.extend(found)
        if manifest is not None:
            loaded.append(LoadedObject(manifest, document))
    if problems:
        raise InvalidSpec(problems)
    return loaded


def _whole(file: Path, message: str) -> Problem:
    return Problem(str(file), 0, 0, "", message)


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
        yield document.problem((), f"expected an object with {', '.join(_ENVELOPE)}")
        return
    for name in value:
        if name not in _ENVELOPE and name not in _READ_ONLY:
            yield document.problem((name,), f"unknown field{_did_you_mean(name, _ENVELOPE)}")
    if value.get("apiVersion") != API_VERSION:
        yield document.problem(
            ("apiVersion",), f"expected {API_VERSION!r}, found {value.get('apiVersion')!r}"
        )
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in SPEC_BY_KIND:
        close = difflib.get_close_matches(str(kind), list(SPEC_BY_KIND), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        yield document.problem(
            ("kind",), f"expected one of {', '.join(SPEC_BY_KIND)}; found {kind!r}{hint}"
        )
    for name in ("metadata", "spec"):
        if not isinstance(value.get(name), dict):
            yield document.problem((name,), f"expected a mapping, found {value.get(name)!r}")


def _validated(
    document: Document, files: FileReader, problems: list[Problem]
) -> ObjectManifest | None:
    kind = document.value["kind"]
    parts: dict[str, Any] = {}
    for name, model in (("metadata", Metadata), ("spec", SPEC_BY_KIND[kind])):
        try:
            parts[name] = model.model_validate(document.value[name], context={"files": files})
        except ValidationError as error:
            problems.extend(_problems_of(error, document, name, model))
    if problems:
        return None
    return ObjectManifest(kind=kind, metadata=parts["metadata"], spec=parts["spec"])


def _problems_of(
    error: ValidationError, document: Document, part: str, model: type[BaseModel]
) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        place: Place = (part, *item["loc"])
        yield document.problem(place, _message(dict(item), model))


def _message(item: dict[str, Any], model: type[BaseModel]) -> str:
    match item["type"]:
        case "extra_forbidden":
            known = _field_names(model, item["loc"][:-1])
            return f"unknown field{_did_you_mean(str(item['loc'][-1]), known)}"
        case "missing":
            return "required, but not given"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a mapping, found {_short(item['input'])}"
        case "value_error":
            return str(item["ctx"]["error"])
        case _:
            message = item["msg"][0].lower() + item["msg"][1:]
            return f"{message}; found {_short(item['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _field_names(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the YAML names of the fields of the model at ``place`` below ``model``."""
    for step in place:
        field = next((f for f in model.model_fields.values() if f.alias == step), None)
        if field is None:
            continue
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        model = next((a for a in inner if issubclass(a, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"

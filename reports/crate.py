"""The research object that a bundle is: its files with sizes and hashes, how they came about.

``ro-crate-metadata.json`` is RO-Crate 1.2 (https://w3id.org/ro/crate/1.2), sealed: the identifier
of the bundle is a digest of all that stands in that file, so of every byte of the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loopscope.specs.artifacts.decomposition import FEATURES, bundled_features
from loopscope.specs.artifacts.robustness import ROBUSTNESS, ROBUSTNESS_TEXTS
from loopscope.specs.artifacts.sensitivity import SENSITIVITY
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.specs.canonical import digest
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import AUTHOR_ANNOTATION, LICENCE_ANNOTATION
from loopscope.specs.pipeline import NODES, PIPELINE
from loopscope.state.files import file_sha256
from loopscope.views.experiment import ExperimentView, StageView
from loopscope.views.numbers import iso
from loopscope.views.owner import owner_json, owner_words

METADATA = "ro-crate-metadata.json"
CITATION = "citation.txt"
REGISTER = "register.json"
OWNER = "owner.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.2"
ROOT, SEAL, PROGRAM, WHOLE = "./", "#content", "#loopscope", "#owner"
NO_LICENCE = (
    "No licence was given for this bundle. The model, the dictionaries and the texts in it may be "
    "under terms of their own."
)
_FORMATS = {
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/octet-stream",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}
_ABOUT = {
    "spec.yaml": "the experiment, with all texts in place; it can be applied again",
    "status.json": "what each object said of itself when the bundle was made",
    "report.html": "one page to explore",
    "report-static.html": "the same page without any script",
    CITATION: "how to cite this bundle",
    REGISTER: "what was expected, written down before the outcome existed",
    OWNER: "the sweep or the study that the experiment is one of, with all texts in place",
    **{one.name: one.about for one in (SENSITIVITY, ROBUSTNESS, ROBUSTNESS_TEXTS)},
    **{bundled_features(side): FEATURES.about for side in ("coarse", "fine")},
    **{f"manifests/{name}.json": f"how {node.words} was made" for name, node in NODES.items()},
    **{
        f"{file.bundled}/{file.name}".lstrip("/"): file.about
        for files in FILES_BY_STAGE.values()
        for file in files
        if file.bundled is not None
    },
}

Entity = JsonObject


def write_crate(view: ExperimentView, folder: Path) -> None:
    """Describe the files of a bundle that is otherwise complete, and add the citation."""
    (folder / CITATION).write_text(citation_of(view), encoding="utf-8")
    names = sorted(files_of(folder))
    entities: list[Entity] = [
        _root(view, names),
        *(_file(folder, name) for name in names),
        *_inputs(view),
        *(_action(stage, names) for stage in view.stages.values() if stage.artifact is not None),
        *_people(view),
        *_owner(view),
        _licence(view),
        {
            "@id": PROGRAM,
            "@type": "CreativeWork",
            "name": "Loopscope",
            "version": _version(),
        },
        {
            "@id": SEAL,
            "@type": "PropertyValue",
            "name": "digest of all entities here, with an empty value in this one",
            "propertyID": "sha256",
            "value": "",
        },
    ]
    (folder / METADATA).write_text(written(sealed(entities)), encoding="utf-8")


def files_of(folder: Path) -> Iterator[str]:
    """Yield the paths of a bundle's files within it; the description itself is none of them."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name != METADATA:
            yield name


def sealed(entities: list[Entity]) -> JsonObject:
    """Return the description of ``entities``, the value of the seal in place."""
    graph: list[Json] = [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": {"@id": ROOT},
            "conformsTo": {"@id": SPECIFICATION},
        },
        *entities,
    ]
    value = seal_of(graph)
    for entity in entities:
        if entity["@id"] == SEAL:
            entity["value"] = value
    return around(graph)


def around(graph: list[Any]) -> JsonObject:
    """Return the description that holds a graph, and nothing else."""
    return {"@context": f"{SPECIFICATION}/context", "@graph": graph}


def seal_of(graph: list[Any]) -> str:
    """Return the digest of all entities, that of the seal without its value."""
    return digest([{**one, "value": ""} if one["@id"] == SEAL else one for one in graph])


def written(crate: Mapping[str, Json]) -> str:
    """Return a description as its file has it: equal content, equal bytes."""
    return json.dumps(crate, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def citation_of(view: ExperimentView) -> str:
    """Return the text by which a bundle is cited."""
    people = _authors(view)
    by = f"{'; '.join(people)}. " if people else ""
    answers = [f"Gate {gate}." for gate in [_answer(view, "gate")] if gate]
    answers += [f"Verdict {verdict}." for verdict in [_answer(view, "verdict")] if verdict]
    return (
        f"{by}{_title(view)}. {' '.join([*answers, ''])}Evidence bundle, {_date(view)}. Made with "
        f"Loopscope {_version()}. Name the digest of the bundle as well: it is the value "
        f"of {SEAL} in {METADATA}.\n"
    )


def _version() -> str:
    try:
        return version("loopscope")
    except PackageNotFoundError:  # it lies on the path and was not installed
        return "of an unknown version"


def _title(view: ExperimentView) -> str:
    spec = view.experiment.spec
    return f"Loopscope experiment {view.name} on {spec['model']['name']} at {spec['hook']}"


def _answer(view: ExperimentView, name: str) -> str:
    return str(view.experiment.status.summary.get(name) or "")


def _date(view: ExperimentView) -> str:
    """Return the day on which the last of the results was made: the bundle is no younger."""
    made = [stage.artifact.created_at for stage in view.stages.values() if stage.artifact]
    return (iso(max(made, default=view.experiment.creation_timestamp)) or "")[:10]


def _authors(view: ExperimentView) -> list[str]:
    named = view.experiment.annotations.get(AUTHOR_ANNOTATION, "")
    return [one.strip() for one in named.split(";") if one.strip()]


def _references(names: list[str]) -> Json:
    """Return what refers to entities: one as it is, several as a list."""
    found: list[Json] = [{"@id": name} for name in names]
    return found[0] if len(found) == 1 else found


def _root(view: ExperimentView, names: list[str]) -> Entity:
    reasons = [
        str(stage.metrics["reason"])
        for stage in (view.stage("mapping"), view.stage("steering"))
        if stage.metrics.get("reason")
    ]
    root: Entity = {
        "@id": ROOT,
        "@type": "Dataset",
        "name": _title(view),
        "description": ". ".join(
            ["Which latents answer to a concept, and do they steer", *reasons]
        ),
        "datePublished": _date(view),
        "license": {"@id": _licence(view)["@id"]},
        "creditText": citation_of(view).strip(),
        "identifier": {"@id": SEAL},
        "hasPart": _references([quote(name) for name in names]),
        "mentions": _references([_action_id(s) for s in view.stages.values() if s.artifact]),
    }
    if view.owner is not None:
        root["isPartOf"] = {"@id": WHOLE}
    if people := _authors(view):
        root["author"] = _references([_person_id(n) for n, _ in enumerate(people)])
    return root


def _person_id(number: int) -> str:
    return f"#author-{number}"


def _people(view: ExperimentView) -> Iterator[Entity]:
    for number, name in enumerate(_authors(view)):
        yield {"@id": _person_id(number), "@type": "Person", "name": name}


def _owner(view: ExperimentView) -> Iterator[Entity]:
    """Yield what the experiment is one of, by the digest of its spec."""
    if view.owner is None:
        return
    found = owner_json(view.owner, view.experiment)
    yield {
        "@id": WHOLE,
        "@type": "CreativeWork",
        "name": f"Loopscope {'study' if view.owner.key.kind == 'Study' else 'sweep'} "
        f"{view.owner.key.name}",
        "description": f"This experiment is {owner_words(found, view.name)}",
        "identifier": f"sha256:{found['digest']}",
        "subjectOf": {"@id": OWNER},
    }


def _licence(view: ExperimentView) -> Entity:
    given = view.experiment.annotations.get(LICENCE_ANNOTATION, "").strip()
    is_link = given.startswith(("http://", "https://"))
    return {
        "@id": given if is_link else "#licence",
        "@type": "CreativeWork",
        "name": given or "no licence given",
        "description": f"named by the annotation {LICENCE_ANNOTATION}" if given else NO_LICENCE,
    }


def _file(folder: Path, name: str) -> Entity:
    path = folder / name
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name,
        "description": _ABOUT.get(name, name),
        "encodingFormat": _FORMATS.get(path.suffix, "application/octet-stream"),
        "contentSize": str(path.stat().st_size),
        "sha256": file_sha256(path),
    }


def _action_id(stage: StageView) -> str:
    return f"#{stage.name}"


def _action(stage: StageView, names: list[str]) -> Entity:
    """Return how a stage's files were made: from what, when, by which revision of the code."""
    artifact, node = stage.artifact, NODES[stage.name]
    assert artifact is not None, "only what was made is described"
    own = {
        f"{file.bundled}/{file.name}".lstrip("/")
        for file in FILES_BY_STAGE[node.stage]
        if file.bundled is not None and file.name in artifact.files
    }
    if node.stage == "decomposition":  # of the one both have, the bundle takes the coarse
        own = (
            {bundled_features("coarse"), *own}
            if stage.name == "coarse"
            else {bundled_features("fine")}
        )
    results = [f"manifests/{stage.name}.json", *sorted(own & set(names))]
    loaded = [_input_id(stage.name)] if node.loads is not None else []
    return {
        "@id": _action_id(stage),
        "@type": "CreateAction",
        "name": f"{node.words} (revision {stage.manifest.get('codeRevision')})",
        "instrument": {"@id": PROGRAM},
        "object": _references([*loaded, *(f"manifests/{one}.json" for one in node.reads)]),
        "result": _references([quote(name) for name in results]),
        "endTime": iso(artifact.created_at),
        "identifier": f"sha256:{artifact.digest}",
    }


def _input_id(name: str) -> str:
    return f"#{name}-{NODES[name].loads}"


def _inputs(view: ExperimentView) -> Iterator[Entity]:
    """Yield the model and the dictionaries, by the hash of all their bytes."""
    for node in PIPELINE:
        stage = view.stage(node.name)
        found = stage.manifest.get("inputs", {}).get(node.loads) if node.loads else None
        if node.loads is not None and stage.artifact is not None:
            reference = found if isinstance(found, Mapping) else {}
            yield {
                "@id": _input_id(node.name),
                "@type": "CreativeWork",
                "name": str(reference.get("name") or f"the {node.name} dictionary"),
                "identifier": f"sha256:{reference.get('identity', 'not recorded')}",
            }

"""What is fuzzed: each target takes any bytes and may end only in the product's own refusals.

``make(folder)`` prepares files under an empty folder and returns the function that takes an
input. An input whose first byte chooses among files or kinds carries the content behind it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import HashMemo
from loopscope.inputs.gguf_header import read_gguf_facts
from loopscope.inputs.headers import (
    HeaderError,
    read_npz_headers,
    read_safetensors_header,
)
from loopscope.inputs.hub import Hub
from loopscope.inputs.models import describe_model
from loopscope.specs.canonical import canonical_json
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.kinds import SPEC_BY_KIND
from loopscope.specs.yaml.loading import LoadedObject, load_path
from loopscope.state.failures import Failure
from loopscope.state.files import file_sha256
from tests.fuzz import seeds
from tests.fuzz.choices import JUNK, Choices, edited
from tests.fuzz.commands import command_target
from tests.fuzz.reading import hashes_target, manifest_target, report_target

Run = Callable[[bytes], None]
OFFLINE = Hub(offline=True)


@dataclass(frozen=True)
class Target:
    """A door of the product. ``share`` is its part of all inputs: slow ones get fewer."""

    name: str
    make: Callable[[Path], Run]
    seeds: tuple[bytes, ...]
    share: float = 1.0


def prepared(folder: Path) -> Path:
    """Write the files that the seeds name."""
    (folder / "target.txt").write_text("Paris is\nLyon is\n")
    for name in ("coarse", "fine"):
        write(folder / name / "cfg.json", seeds.encoded(seeds.config()))
        write(folder / name / "sae_weights.safetensors", seeds.safetensors())
    for name, value in seeds.MODEL_FILES.items():
        if name != "model.safetensors.index.json":
            write(folder / "model" / name, seeds.encoded(value))
    write(folder / "model" / "model.safetensors", seeds.safetensors())
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "out.txt").symlink_to("/etc/hostname")
    return folder


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _yaml(folder: Path) -> Run:
    prepared(folder)

    def run(data: bytes) -> None:
        (folder / "x.yaml").write_bytes(data)
        _load(folder)

    return run


def _spec(folder: Path) -> Run:
    prepared(folder)

    def run(data: bytes) -> None:
        choices = Choices(data)
        document = edited(seeds.document(choices.one_of(sorted(seeds.SPECS))), choices)
        (folder / "x.yaml").write_text(json.dumps(document))
        _load(folder)

    return run


def _load(folder: Path) -> None:
    try:
        loaded = load_path(folder / "x.yaml", folder)
    except InvalidSpec as invalid:
        assert invalid.problems
        for problem in invalid.problems:
            str(problem).encode(errors="backslashreplace")
        return
    for item in loaded:
        _is_sound(item)


def _is_sound(item: LoadedObject) -> None:
    """What is accepted can be stored, and reads back as the same."""
    spec = item.manifest.canonical_spec()
    canonical_json([spec, dict(item.manifest.metadata.annotations)]).encode()
    again = SPEC_BY_KIND[item.manifest.kind].model_validate(spec)
    assert again.canonical() == spec


def _safetensors(_: Path) -> Run:
    return _header(read_safetensors_header)


def _npz(_: Path) -> Run:
    return _header(lambda stream, _: read_npz_headers(stream))


def _gguf(_: Path) -> Run:
    return _header(lambda stream, _: read_gguf_facts(stream))


def _header(read: Callable[[Any, int], object]) -> Run:
    def run(data: bytes) -> None:
        try:
            read(io.BytesIO(data), len(data))
        except HeaderError:
            return

    return run


def _described(describe: Callable[[dict[str, Any]], Any], reference: dict[str, Any]) -> None:
    try:
        facts = describe(reference)
    except (InputRefused, ResolutionPending) as refused:
        str(refused).encode(errors="backslashreplace")
        return
    canonical_json(facts.ref).encode()


def _dictionary(folder: Path) -> Run:
    names = ("cfg.json", "sae_weights.safetensors", "params.npz", "params.safetensors")
    memo = HashMemo(folder / "memo.json")

    def describe(reference: dict[str, Any]) -> Any:
        return describe_dictionary(reference, hub=OFFLINE, memo=memo)

    def run(data: bytes) -> None:
        choices = Choices(data)
        name = choices.one_of(names)
        shutil.rmtree(folder / "sae", ignore_errors=True)
        if name in ("cfg.json", "sae_weights.safetensors"):
            write(folder / "sae" / "cfg.json", seeds.encoded(seeds.config()))
            write(folder / "sae" / "sae_weights.safetensors", seeds.safetensors())
        write(folder / "sae" / name, choices.rest())
        _described(describe, {"path": str(folder / "sae")})

    return run


def _config(folder: Path) -> Run:
    """Edits of a SAELens config that stay JSON: the reader behind the parser."""
    run_dictionary = _dictionary(folder)

    def run(data: bytes) -> None:
        choices = Choices(data)
        architecture = choices.one_of(["standard", "jumprelu", "topk", "batchtopk"])
        config = edited(seeds.config(architecture=architecture), choices)
        run_dictionary(b"\x00" + seeds.encoded(config))

    return run


def _release(_: Path) -> Run:
    words = [str(item) for item in JUNK]
    known = ["gemma-scope-2b-pt-res-canonical", "gpt2-small-res-jb", "  saes", "  conversion_func"]

    def run(data: bytes) -> None:
        choices = Choices(data)
        release = choices.one_of([*known, *words, choices.rest().decode(errors="replace")])
        id_ = choices.one_of(["layer_3/width_16k/canonical", *words])
        _described(
            lambda ref: describe_dictionary(ref, hub=OFFLINE), {"release": release, "id": id_}
        )

    return run


def _model(folder: Path) -> Run:
    names = sorted(seeds.MODEL_FILES)
    memo = HashMemo(folder / "memo.json")
    model = {"name": "tiny", "source": {"folder": str(folder / "model")}}

    def run(data: bytes) -> None:
        choices = Choices(data)
        name = choices.one_of([*names, "model.safetensors"])
        shutil.rmtree(folder / "model", ignore_errors=True)
        for file, value in seeds.MODEL_FILES.items():
            write(folder / "model" / file, seeds.encoded(value))
        if name != "model.safetensors.index.json":
            write(folder / "model" / "model.safetensors", seeds.safetensors())
        content = choices.rest()
        if content[:1] == b"\x00" and name in seeds.MODEL_FILES:  # edit what is there
            content = seeds.encoded(edited(seeds.MODEL_FILES[name], choices))
        write(folder / "model" / name, content)
        _described(lambda ref: describe_model(ref, hub=OFFLINE, memo=memo), model)

    return run


def _weights(folder: Path) -> Run:
    """The worker's own reader, behind the controller's: bytes that it was told to expect."""
    from loopscope.worker.dictionaries import load_dictionary

    formats = {"saelens": "sae_weights.safetensors", "gemma-scope-npz": "params.npz"}
    formats["gemma-scope-safetensors"] = "params.safetensors"

    def run(data: bytes) -> None:
        choices = Choices(data)
        format_ = choices.one_of(sorted(formats))
        architecture = choices.one_of(["standard", "jumprelu", "topk", "batchtopk"])
        files = {formats[format_]: choices.rest()}
        if format_ == "saelens":
            files["cfg.json"] = seeds.encoded(seeds.config(architecture=architecture))
        for name, content in files.items():
            write(folder / name, content)
        reference = {
            "identity": hashlib.sha256(data).hexdigest(),
            "format": format_,
            "source": {"kind": "folder", "path": str(folder)},
            "files": {name: file_sha256(folder / name) for name in files},
            "architecture": architecture if format_ == "saelens" else "jumprelu",
            "d_in": seeds.D_IN,
            "d_sae": seeds.D_SAE,
        }
        try:
            load_dictionary(reference)
        except Failure:
            return

    return run


_DOCUMENTS = tuple(seeds.encoded(seeds.document(kind)) for kind in seeds.SPECS)
_YAML_SEEDS = (
    *_DOCUMENTS,
    b"a: &x [1, *x]\n---\n!!python/object:os.system {}\n",
    b'? [a]\n: |\n  text\n<<: {b: 1}\n"\\uD800\\0": 0x1f\n1:30: 2026-01-01\n',
)
_WEIGHTS = (seeds.safetensors(), seeds.npz(), seeds.npz(compressed=True))

TARGETS = {
    target.name: target
    for target in (
        Target("yaml", _yaml, _YAML_SEEDS, 3),
        Target("spec", _spec, (b"\x00", b"\x01\x02\x00\x05", b"\x02\x01\x00\x17"), 2),
        Target("command", command_target, (b"\x00", b"\x01\x07\x20"), 0.12),
        Target("manifest", manifest_target, (b"\x00{}", b"\x01\x02\x03"), 2),
        Target("report", report_target, (b"\x00", b"\x05\x01"), 0.02),
        Target("safetensors", _safetensors, (seeds.safetensors(), b""), 4),
        Target("npz", _npz, (seeds.npz(), seeds.npz(compressed=True)), 3),
        Target("gguf", _gguf, (seeds.gguf(),), 4),
        Target(
            "dictionary",
            _dictionary,
            tuple(bytes([n]) + w for n in (1, 2, 3) for w in _WEIGHTS),
            0.5,
        ),
        Target("config", _config, (b"\x00", b"\x02\x01\x05\x09"), 0.7),
        Target("release", _release, (b"\x00\x00", b"\x01\x01", b"\x02\x00\x03"), 0.1),
        Target("model", _model, tuple(bytes([n]) + b"\x00\x01\x02" for n in range(6)), 0.5),
        Target(
            "weights", _weights, tuple(bytes([n, 0]) + w for n in (0, 1, 2) for w in _WEIGHTS), 0.4
        ),
        Target("hashes", hashes_target, (b"\x00{}", b"\x01{}", b"\x02{}"), 1),
    )
}

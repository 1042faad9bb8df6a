"""What a stage writes is what is declared of it, file by file, column by column, key by key.

What was declared once is promised: ``python -m tests.unit.test_artifact_files`` adds what is new to
``PROMISES``, and takes nothing away.
"""

from __future__ import annotations

import ast
import json
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.specs.artifact_files import Document, Table, Tensors
from loopscope.specs.artifacts.mapping import COSINE_HISTOGRAM
from loopscope.specs.artifacts.stages import FILES_BY_STAGE
from loopscope.state.artifacts.manifests import Manifest
from loopscope.worker.stages.tables import write_table
from tests.artifact_world import run_stages
from tests.stage_world import World
from tests.typed_json import misfits, required_keys

ROOT = Path(__file__).parents[2]
ARROW_WORDS = {
    "string": "text", "double": "float64", "float": "float32", "int32": "int32", "int64": "int64",
    "bool": "bool", "list<element: int32>": "list of int32", "list<item: int32>": "list of int32",
}  # fmt: skip
PROMISES = ROOT / "tests/data/artifact_names.json"
PROMISED = json.loads(PROMISES.read_text(encoding="utf-8"))
"""By stage and file: names are added, none is taken away."""
KEYS = [(stage, file.name) for stage, files in FILES_BY_STAGE.items() for file in files]


@pytest.fixture(scope="module")
def worlds(rope_model, tmp_path_factory):
    """Return the stages' folders of two worlds: one with all that is optional, one with nothing."""
    return {
        everything: run_stages(
            World(rope_model, tmp_path_factory.mktemp("stages")), everything=everything
        )
        for everything in (True, False)
    }


def files_of(kind):
    return [
        pytest.param(stage, file, id=f"{stage}/{file.name}")
        for stage, files in FILES_BY_STAGE.items()
        for file in files
        if isinstance(file, kind)
    ]


def written(worlds, stage, file):
    """Return where the worlds that have the file hold it."""
    paths = [folders[stage] / file.name for folders in worlds.values()]
    return [path for path in paths if path.exists()]


def test_every_stage_has_declared_files_and_no_name_is_given_twice():
    assert set(FILES_BY_STAGE) == set(CODE_REVISIONS)
    assert len(set(KEYS)) == len(KEYS)


def promised(file):
    """Return what users' notebooks and finished artifacts know of a file: place, names, types."""
    if isinstance(file, Table):
        names = {column.name: column.type for column in file.columns}
    elif isinstance(file, Tensors):
        names = {tensor.name: tensor.type for tensor in file.tensors}
    else:
        names = dict.fromkeys(sorted(required_keys(file.shape)), "key")
    return {"bundled": file.bundled, "names": names}


def promised_keys(declared):
    return {"bundled": None, "names": dict.fromkeys(sorted(get_type_hints(declared)), "key")}


def metrics_of(stage):
    payloads = import_module(f"loopscope.specs.payloads.{stage}")
    return getattr(payloads, f"{stage.title()}Metrics")


DECLARED = {
    **{
        f"{stage}/{file.name}": promised(file)
        for stage, files in FILES_BY_STAGE.items()
        for file in files
    },
    **{f"{stage}/metrics": promised_keys(metrics_of(stage)) for stage in FILES_BY_STAGE},
    "every stage/manifest.json": promised_keys(Manifest),
}


@pytest.mark.parametrize("file", sorted(PROMISED.keys() | DECLARED.keys()))
def test_no_file_column_tensor_or_key_is_renamed_moved_or_gone_and_a_new_one_is_promised(file):
    assert DECLARED.get(file) == PROMISED.get(file)


def with_what_is_new(promised, declared):
    """Return the promises and what is declared besides; raises ValueError for a broken one."""
    for file, found in promised.items():
        now = declared.get(file, {"bundled": None, "names": {}})
        kept = found["names"].items() <= now["names"].items()
        if not kept or found["bundled"] != now["bundled"]:
            raise ValueError(
                f"{file}: what was promised of it is gone, elsewhere or called otherwise"
            )
    return promised | {
        file: now | {"names": promised.get(file, now)["names"] | now["names"]}
        for file, now in declared.items()
    }


def test_what_is_new_is_added_to_the_promises_and_what_is_gone_is_refused():
    file = "mapping/gate_draws.parquet"
    kept = PROMISED[file]["names"]
    more = {**PROMISED[file], "names": {"first": "int64", **kept}}
    new = {"bundled": None, "names": {"prompt_id": "key"}}
    grown = with_what_is_new(PROMISED, DECLARED | {file: more, "new/new.json": new})
    assert list(grown[file]["names"]) == [*kept, "first"]
    assert {**grown, file: PROMISED[file]} == {**PROMISED, "new/new.json": new}
    for less in ({**more, "names": {}}, {**more, "bundled": "elsewhere"}):
        with pytest.raises(ValueError, match="what was promised"):
            with_what_is_new(PROMISED, DECLARED | {file: less})


@pytest.mark.parametrize("stage", FILES_BY_STAGE)
def test_a_stage_writes_the_declared_files_and_no_other(worlds, stage):
    declared = {file.name for file in FILES_BY_STAGE[stage]}
    always = {file.name for file in FILES_BY_STAGE[stage] if not file.where}
    rich, bare = ({path.name for path in worlds[e][stage].iterdir()} for e in (True, False))
    assert rich == declared
    assert bare == always


@pytest.mark.parametrize(("stage", "file"), files_of(Table))
def test_a_table_has_the_declared_columns_in_their_order_with_their_types(worlds, stage, file):
    found = [pyarrow.parquet.read_schema(path) for path in written(worlds, stage, file)]
    known = {column.name: column.type for column in file.columns}
    for schema in found:
        kinds = {field.name: ARROW_WORDS[str(field.type)] for field in schema}
        assert kinds.items() <= known.items()
        assert list(kinds) == [name for name in known if name in kinds]
    assert list(known) == found[0].names, "the world with everything has all columns"
    always = {column.name for column in file.columns if not column.where}
    assert set.intersection(*(set(schema.names) for schema in found)) >= always


@pytest.mark.parametrize(("stage", "file"), files_of(Tensors))
def test_a_file_of_tensors_has_the_declared_ones(worlds, stage, file):
    for path in written(worlds, stage, file):
        found = {name: value.dtype.name for name, value in load_file(path).items()}
        known = {tensor.name: tensor.type for tensor in file.tensors}
        assert found.items() <= known.items()
        assert {tensor.name for tensor in file.tensors if not tensor.where} <= set(found)


@pytest.mark.parametrize(("stage", "file"), files_of(Document))
def test_a_document_has_the_declared_keys_with_values_of_their_types(worlds, stage, file):
    for path in written(worlds, stage, file):
        assert misfits(json.loads(path.read_text()), file.shape, file.name) == []


ROOMS = (
    "controller", "inputs", "loopscope", "reconcilers", "reports", "server", "state", "views",
    "worker",
)  # fmt: skip


def string_constants(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in found if isinstance(value, str)}


def test_no_other_module_writes_a_name_of_a_file_by_hand():
    declared = {name for _, name in KEYS}
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    by_hand = {
        path.relative_to(ROOT).as_posix(): names
        for path in sources
        if (names := string_constants(path) & declared)
    }
    assert len(sources) > 100
    assert by_hand == {}


HISTOGRAM = {"coarse": [1], "bin_low": [0.0], "bin_high": [0.5], "count": [3]}


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({**HISTOGRAM, "share": [0.1]}, "has the columns coarse, bin_low, bin_high, count, share"),
        ({name: HISTOGRAM[name] for name in ("coarse", "bin_low", "bin_high")}, "declared are"),
        (dict(reversed(HISTOGRAM.items())), "has the columns count"),
        ({**HISTOGRAM, "count": [3.5]}, "count is double, declared is int64"),
        ({**HISTOGRAM, "count": [None]}, "count is null, declared is int64"),
    ],
    ids=["one more", "one less", "another order", "another type", "no type"],
)
def test_a_table_other_than_declared_is_not_written(tmp_path, columns, complaint):
    with pytest.raises(ValueError, match=complaint):
        write_table(tmp_path, COSINE_HISTOGRAM, columns)
    assert list(tmp_path.iterdir()) == []


def test_a_table_without_rows_needs_no_types(tmp_path):
    write_table(tmp_path, COSINE_HISTOGRAM, {name: [] for name in HISTOGRAM})
    assert pyarrow.parquet.read_table(tmp_path / COSINE_HISTOGRAM.name).num_rows == 0


if __name__ == "__main__":
    grown = with_what_is_new(PROMISED, DECLARED)
    PROMISES.write_text(json.dumps(grown, indent=1) + "\n", encoding="utf-8")

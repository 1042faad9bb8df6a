"""Prompts from a data set of the hub: one commit, bounded, hashed, and then without a network."""

import io
import json
import threading

import huggingface_hub.constants as hub_constants
import pyarrow
import pyarrow.parquet
import pytest

from loopscope.controller.sources.datasets_beside import DatasetsBeside
from loopscope.controller.sources.folder_source import RESCAN_SECONDS, FolderSource
from loopscope.inputs import datasets
from loopscope.inputs.datasets import Datasets
from loopscope.inputs.hub import Hub
from loopscope.specs.fields import GroupedTexts
from loopscope.specs.files import RootedFiles
from loopscope.specs.texts.source import DatasetAsked
from loopscope.state.files import file_sha256
from tests.fake_hub import FakeHub, sha256
from tests.simulated import Simulation

ROWS = [
    {"text": "Paris is", "country": "France", "kind": "city"},
    {"text": "Rome is", "country": "Italy", "kind": "city"},
    {"text": "The Loire is", "country": "France", "kind": "river"},
    {"text": "paris  IS", "country": "France", "kind": "city"},
]
NAME = "owner/places"
FRENCH = {"format": "parquet", "column": "text", "where": {"country": "France"}}
CARD = """---
license: cc0-1.0
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: [data/test-*, more/**]
- config_name: rivers
  data_files: rivers/*.jsonl
---
# Places
"""


def parquet(rows):
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def lines(rows):
    return "\n".join(map(json.dumps, rows)).encode()


FILES = {
    "README.md": CARD.encode(),
    "data/train-00000-of-00002.parquet": parquet(ROWS[:2]),
    "data/train-00001-of-00002.parquet": parquet(ROWS[2:]),
    "data/test-00000-of-00001.parquet": parquet([{**ROWS[0], "text": "Lyon is"}]),
    "more/deep/er.parquet": parquet([{**ROWS[0], "text": "Nice is"}]),
    "rivers/all.jsonl": lines(ROWS[2:3]),
    "pictures.py": b"raise SystemExit",
    "rows.csv.gz": b"\x1f\x8b",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    with FakeHub() as fake:
        fake.add(f"datasets/{NAME}", FILES)
        yield fake


@pytest.fixture
def client(hub, tmp_path):
    return Datasets(Hub(hub.endpoint, tmp_path / "hub-cache", timeout_seconds=5))


@pytest.fixture
def read(client, tmp_path):
    def read(reader=client.find, **given):
        files = RootedFiles(tmp_path, tmp_path, reader)
        asked = {"dataset": NAME, "revision": "main", **FRENCH, **given}
        asked = {name: value for name, value in asked.items() if value is not None}
        return GroupedTexts.model_validate(asked, context={"files": files})

    return read


@pytest.fixture
def refusal(read):
    def refusal(**given):
        with pytest.raises(ValueError) as error:
            read(**given)
        (problem,) = error.value.errors()
        return problem["msg"]

    return refusal


def test_rows_of_a_data_set_are_chosen_as_those_of_a_file_and_its_commit_is_stored(read, hub):
    found = read(dataFiles="data/train-*.parquet", groups={"column": "kind"})
    assert found.texts == ("Paris is", "The Loire is") and found.groups.labels == ("city", "river")
    assert found.counted.canonical() == {"read": 4, "matching": 3, "duplicates": 1, "taken": 2}
    names = [f"data/train-0000{i}-of-00002.parquet" for i in (0, 1)]
    assert found.resolved.canonical() == {
        "commit": hub.repositories[f"datasets/{NAME}"].commit,
        "files": {name: sha256(FILES[name]) for name in names},
    }
    assert GroupedTexts.model_validate(found.canonical()) == found


def test_a_split_is_what_the_card_says(read):
    assert read(split="train").texts == ("Paris is", "The Loire is")
    assert read(split="test", config="default").texts == ("Lyon is", "Nice is")
    assert read(split="train", config="rivers", format="jsonl").texts == ("The Loire is",)


def test_without_a_card_a_split_is_the_files_that_carry_its_name(read, hub):
    files = {
        "data/train-0.parquet": FILES["data/test-00000-of-00001.parquet"],
        "data/trainer.parquet": FILES["data/train-00000-of-00002.parquet"],
        "train/x[1].parquet": FILES["more/deep/er.parquet"],
    }
    hub.add("datasets/owner/bare", files)
    assert read(dataset="owner/bare", split="train").texts == ("Lyon is", "Nice is")


def test_what_was_read_once_is_read_again_without_a_network(read, client, hub, tmp_path):
    found = read(split="train")
    hub.broken_with = 503
    assert read(split="train") == found
    offline = Datasets(Hub(offline=True, cache=tmp_path / "hub-cache"))
    assert read(offline.find, split="train") == found
    assert offline.cached(DatasetAsked(NAME, "main", split="test")) is None


def test_a_branch_stays_at_the_commit_that_it_led_to_at_first(read, hub):
    found = read(split="train")
    hub.add(f"datasets/{NAME}", {**FILES, "new.jsonl": lines(ROWS)})
    assert read(split="train") == found
    commit = hub.repositories[f"datasets/{NAME}"].commit
    assert read(revision=commit, split="train").resolved.commit == commit != found.resolved.commit


def test_a_file_that_is_too_large_is_refused_before_a_byte_of_it_is_fetched(refusal, hub):
    hub.repositories[f"datasets/{NAME}"].said_sizes["rivers/all.jsonl"] = 40 * 10**9
    before = hub.bytes_sent
    message = refusal(dataFiles="rivers/all.jsonl", format="jsonl")
    assert f"{NAME}/rivers/all.jsonl has 40,000,000,000 bytes, at most" in message
    assert hub.bytes_sent - before < 10_000, "the listing alone"


def test_many_files_count_together(refusal, monkeypatch):
    size = len(FILES["data/train-00000-of-00002.parquet"])
    monkeypatch.setattr(datasets, "BYTES_MAX", size + 1)
    assert "2 files of owner/places have" in refusal(split="train")
    monkeypatch.setattr(datasets, "FILES_MAX", 1)
    assert "2 files of owner/places are asked for, at most 1" in refusal(split="train")


def test_code_is_never_run_and_is_refused_by_name(refusal, hub):
    assert f"{NAME}/pictures.py is a script" in refusal(dataFiles="pictures.py")
    hub.add("datasets/owner/scripted", {"scripted.py": b"raise SystemExit", "train.jsonl": b"{}"})
    message = refusal(dataset="owner/scripted", split="train")
    assert "made by a script (scripted.py)" in message and "dataFiles" in message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dataFiles": "data/trian*.parquet"}, "has no file that 'data/trian*.parquet' stands for"),
        ({"dataFiles": "rows.csv.gz", "format": "csv"}, "rows.csv.gz is packed"),
        ({"split": "validation"}, "has no split 'validation'; known: train, test"),
        ({"split": "train", "config": "cities"}, "has no configuration 'cities'"),
        (
            {"split": "train", "dataFiles": "x"},
            "expected either dataFiles (names in the repository) or split",
        ),
        ({}, "expected either dataFiles (names in the repository) or split"),
        ({"config": "rivers", "dataFiles": "x"}, "config belongs to split only"),
        ({"split": "train", "revision": None}, "revision is needed"),
        ({"split": "train", "revision": "v9"}, "has no revision v9"),
        ({"split": "train", "format": None}, "format is needed: no ending is believed"),
        ({"split": "train", "format": "lines"}, "format lines is for files in place"),
        ({"split": "train", "dataset": "owner/nowhere"}, "no repository owner/nowhere"),
        ({"split": "train", "dataset": "../../etc"}, "is no data set of the hub"),
        ({"split": "train", "column": "txt"}, "has no column 'txt'; did you mean 'text'?"),
        ({"split": "train", "file": "x.parquet"}, "give either file or dataset, not both"),
        ({"split": "train", "lists": {"a": ["b"]}}, "lists belongs to templates only"),
        ({"split": "train", "resolved": {"commit": "0" * 40}}, "resolved is written by Loopscope"),
        (
            {"split": "train", "where": {"country": "Spain"}},
            "no row of owner/places (2 files) has country 'Spain'",
        ),
    ],
)
def test_each_mistake_is_one_clear_sentence(refusal, given, words):
    assert words in refusal(**given)


def test_a_row_is_named_by_its_file_and_its_place_there(refusal, hub):
    files = {"a.jsonl": lines(ROWS[:2]), "b.jsonl": lines([ROWS[2], {**ROWS[0], "text": ""}])}
    hub.add("datasets/owner/holes", files)
    message = refusal(dataset="owner/holes", dataFiles="*.jsonl", format="jsonl")
    assert "owner/holes/b.jsonl, row 2, column text: a blank text" in message


def test_a_copy_that_was_changed_is_fetched_again(read, client):
    found = read(split="train")
    asked = DatasetAsked(NAME, "main", split="train")
    path = client.find(asked).files[0].path
    path.resolve().write_bytes(b"x" * path.stat().st_size)
    assert client.cached(asked) is None
    assert read(split="train") == found
    assert file_sha256(client.find(asked).files[0].path) == client.find(asked).files[0].sha256


def test_a_hub_that_does_not_answer_is_said_and_nothing_is_remembered(refusal, read, hub):
    hub.broken_with = 503
    assert "the hub answered 503" in refusal(split="train")
    hub.broken_with = None
    assert len(read(split="train").texts) == 2


CAPTURE = """apiVersion: loopscope.dev/v1alpha1
kind: Capture
metadata: {name: places}
spec:
  model: {name: gpt2}
  hook: blocks.1.hook_resid_post
  prompts:
    target: {dataset: owner/places, revision: main, split: train, format: parquet, column: text}
    neutral: {texts: [Bern is, Oslo is]}
"""


def test_apply_stores_the_commit_and_asks_the_hub_no_more(hub, tmp_path, monkeypatch, loopscope):
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    (tmp_path / "places.yaml").write_text(CAPTURE)
    code, out, err = loopscope("apply", "-f", "places.yaml")
    assert code == 0 and "created" in out, err
    hub.broken_with = 503
    commit = hub.repositories[f"datasets/{NAME}"].commit
    assert f"owner/places at {commit[:12]}" in loopscope("describe", "capture", "places")[1]
    exported = loopscope("get", "capture", "places", "-o", "yaml")[1]
    (tmp_path / "places.yaml").write_text(CAPTURE + "# read again\n")
    assert "unchanged" in loopscope("apply", "-f", "places.yaml")[1]
    (tmp_path / "exported.yaml").write_text(exported)
    code, out, err = loopscope("apply", "-f", "exported.yaml")
    assert code == 0 and "unchanged" in out, err


def test_a_watched_folder_does_not_wait_for_a_download(client, tmp_path):
    simulation = Simulation(tmp_path / "state")
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "places.yaml").write_text(CAPTURE)
    arrived = threading.Event()
    source = FolderSource(
        simulation.state,
        folder,
        tmp_path,
        lambda: None,
        simulation.clock,
        datasets=DatasetsBeside(arrived.set, client).find,
    )

    def scan():
        simulation.clock.advance(RESCAN_SECONDS)
        return [item.key.name for item in source.scan_if_due()]

    assert scan() == []
    assert "owner/places is being downloaded" in str(source.problems[0])
    assert arrived.wait(60)
    assert scan() == ["places"] and not source.problems


def test_a_download_that_failed_beside_the_loop_is_said_and_tried_again(client, hub):
    arrived = threading.Event()
    beside = DatasetsBeside(arrived.set, client)
    asked = DatasetAsked(NAME, "main", split="train")
    hub.broken_with = 503
    with pytest.raises(ValueError, match="being downloaded"):
        beside.find(asked)
    assert arrived.wait(60)
    with pytest.raises(ValueError, match="answered 503"):
        beside.find(asked)
    hub.broken_with = None
    arrived.clear()
    with pytest.raises(ValueError, match="being downloaded"):
        beside.find(asked)
    assert arrived.wait(60)
    assert len(beside.find(asked).files) == 2

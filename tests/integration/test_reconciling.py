"""Real processes on a tiny model: what runs, what does not, and what is noticed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.real import Place, eventually, workers_of

pytestmark = pytest.mark.integration

ALL_STAGES = ["capture", "decomposition", "decomposition", "geometry", "mapping", "steering"]


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("settled"))
    place.write()
    place.settle()
    return place


@pytest.fixture
def kept(settled: Place):
    """The settled place; the spec is put back afterwards."""
    yield settled
    settled.write()
    settled.settle()


def test_a_second_run_starts_no_job_no_worker_and_writes_no_row(settled: Place) -> None:
    assert sorted(job["stage"] for job in settled.jobs()) == ALL_STAGES
    rows, log = settled.settled_rows(), settled.worker_log()
    settled.settle()
    assert settled.settled_rows() == rows
    assert settled.worker_log() == log


def test_a_new_cut_off_runs_the_mapping_and_at_most_what_follows(kept: Place) -> None:
    before = len(kept.jobs())
    kept.write(mapping={"minCosine": 0.7, "topK": 4})
    kept.settle()
    assert kept.stages_since(before) in (["mapping"], ["mapping", "steering"])


def test_new_prompts_run_what_reads_them_and_the_old_ones_nothing(kept: Place) -> None:
    before = len(kept.jobs())
    texts = kept.folder / "texts" / "target.txt"
    original = texts.read_text()
    texts.write_text(original + "the bread in old paris was\n")
    kept.settle()
    assert kept.stages_since(before) == [stage for stage in ALL_STAGES if stage != "geometry"]
    texts.write_text(original)
    before = len(kept.jobs())
    kept.settle()
    assert kept.stages_since(before) == []


def test_damaged_artifacts_are_noticed_and_only_their_stages_run_again(settled: Place) -> None:
    before, contents = len(settled.jobs()), settled.payloads()
    _delete(settled.artifact("decomposition", "tiny-coarse"))
    _flip_a_bit(settled.artifact("decomposition", "tiny-fine") / "features.parquet")
    _truncate(settled.artifact("mapping", "tiny-mapping") / "pairs.parquet")
    controller = settled.start("controller", "--resync-seconds", "1")
    try:
        eventually(lambda: len(settled.rows()["jobs"]) > before)
        eventually(lambda: settled.payloads() == contents)
        code, output = settled.call(
            "wait", "experiment", "tiny", "--for=condition=Ready", "--timeout=180s"
        )
        assert code == 0, output
    finally:
        controller.send_signal(signal.SIGTERM)
        controller.communicate(timeout=90)
    assert settled.stages_since(before) == ["decomposition", "decomposition", "mapping"]
    noticed = [line for line in settled.call("events")[1].splitlines() if "ArtifactDamaged" in line]
    assert len(noticed) == 3


def _delete(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _truncate(table: Path) -> None:
    table.write_bytes(table.read_bytes()[:100])


def _flip_a_bit(table: Path) -> None:
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(bytes(content))


def test_two_experiments_share_one_capture_job(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write("one")
    place.write("two", gate={"minSubfeatures": 2})
    place.settle()
    stages = [job["stage"] for job in place.jobs()]
    assert stages.count("capture") == 1
    assert stages.count("decomposition") == 2


def test_a_watched_folder_is_the_source_of_truth(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write()
    place.settle()
    before = len(place.jobs())
    words = ("controller", "--watch", str(place.specs), "--root", str(place.folder))
    controller: subprocess.Popen[str] = place.start(*words)
    try:
        eventually(lambda: workers_of(place) == [] and controller.poll() is None)
        place.write(mapping={"minCosine": 0.7, "topK": 4})
        eventually(lambda: "mapping" in place.stages_since(before))
        (place.specs / "tiny.yaml").write_text("apiVersion: nonsense\n")
        eventually(lambda: "InvalidSpec" in place.call("events")[1])
        assert place.call("get", "experiment", "tiny", "-o", "name") == (0, "experiment/tiny\n")
    finally:
        controller.send_signal(signal.SIGTERM)
        controller.communicate(timeout=90)
    assert controller.returncode == 0

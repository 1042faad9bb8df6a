"""Jobs that are killed at their limit, or stop before it, end with the bytes of one long run."""

import json

import pytest

from tests.integration.real import Place
from tests.slurm import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.long]

FREEZES = {"LOOPSCOPE_FAILPOINT": "shard-sealed:stop@1"}
"""So that no machine is too fast: a worker seals one shard, then stands still until it is ended."""


def digests(artifacts):
    found = artifacts.glob("[a-z]*/*/manifest.json")
    return {path.parent.name: json.loads(path.read_text())["contentDigest"] for path in found}


def test_three_jobs_give_the_bytes_of_one(tmp_path):
    place = Place(tmp_path)
    place.write()
    cluster = Cluster(tmp_path / "cluster")
    cluster.folder.mkdir()
    cluster.environment = {
        "LOOPSCOPE_CACHE": str(tmp_path / "cache"),
        "LOOPSCOPE_TORCH_THREADS": "1",
        "LOOPSCOPE_SECONDS_TO_SAVE": "30",
    }
    specs = (str(place.specs), "--root", str(tmp_path))
    artifacts = cluster.shared / "artifacts"

    def shards():
        return {path for path in (artifacts / ".work").glob("*/*") if path.is_file()}

    killed = cluster.sbatch(*specs, limit=lambda: bool(shards()), **FREEZES)
    assert killed.status is None and not digests(artifacts), killed.log
    assert not (cluster.shared / "state.snapshot").exists(), "it had no time to say a word"
    sealed = shards()

    stopped = cluster.sbatch(*specs, seconds=30 + 15 + 60, **FREEZES)
    assert (stopped.status, stopped.asked_to_go_on) == (75, True), stopped.log
    assert "stopped before the time limit; kept: 0 of 5 stages, " in stopped.log
    assert sealed <= shards() and not digests(artifacts), "what the first one sealed is kept"

    last = cluster.sbatch(*specs)
    assert (last.status, last.asked_to_go_on) == (0, False), last.log
    assert "restored" in last.log and "experiment/tiny is ready" in last.log

    place.settle()
    assert digests(artifacts) == digests(place.state / "artifacts")

"""The worst day, with real processes: the database is gone, then damaged, then replaced."""

import shutil
import signal

import pytest

from tests.integration.real import Place, eventually, workers_of

pytestmark = pytest.mark.integration


def test_a_lost_database_comes_back_without_a_job_and_a_lost_artifact_with_one(tmp_path):
    place = Place(tmp_path)
    place.write()
    place.settle()
    before = place.payloads()
    rebuild = ("rebuild", str(place.specs), "--root", str(tmp_path))

    (place.state / "state.db").write_bytes(b"what is left after a bad day" * 1000)
    assert place.call("fsck")[0] == 1
    code, output = place.call(*rebuild)
    assert code == 0, output
    place.settle()
    assert place.jobs() == [] and place.payloads() == before

    shutil.rmtree(place.artifact("mapping", "tiny-mapping"))
    code, output = place.call("fsck")
    assert code == 1 and "ArtifactMissing" in output
    place.settle()
    assert place.stages_since(0) == ["mapping"] and place.payloads() == before
    code, output = place.call("fsck")
    assert code == 0, output


def test_a_controller_whose_database_is_deleted_ends_clearly_and_leaves_nobody_behind(tmp_path):
    place = Place(tmp_path)
    place.write()
    assert place.call("apply", "-f", str(place.specs), "--root", str(tmp_path))[0] == 0
    controller = place.start("controller")
    eventually(lambda: workers_of(place))
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (place.state / name).unlink(missing_ok=True)
    output, _ = controller.communicate(timeout=180)
    assert controller.returncode == 1
    assert "DatabaseReplaced" in output and "loopscope rebuild" in output
    assert controller.returncode != -signal.SIGKILL and workers_of(place) == []
    assert place.call("rebuild", str(place.specs), "--root", str(tmp_path))[0] == 0
    place.settle()

"""The files of Loopscope change under a running controller: nothing is computed by other code."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from loopscope.specs.actions import CODE_REVISIONS
from tests.integration.real import REPOSITORY, Place, eventually
from tests.integration.real_worker import RealWorker
from tests.tiny_experiment import HOOK
from tests.tiny_models import folder_reference

pytestmark = pytest.mark.integration

OLD, NEW = CODE_REVISIONS["capture"], CODE_REVISIONS["capture"] + 1


class Installed(Place):
    """A place whose Loopscope is a copy of its own, that can be upgraded."""

    @property
    def package(self) -> Path:
        return self.folder / "site" / "loopscope"

    def install(self) -> None:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "loopscope", self.package, ignore=ignored)

    def upgrade(self) -> None:
        """Let the capture stage compute something else, under a higher revision."""
        self._edit("specs/actions.py", f'"capture": {OLD}', f'"capture": {NEW}')
        old = 'save_file({"mean": norms.mean'
        self._edit("worker/stages/capture/stage.py", old, 'save_file({"mean": 2 * norms.mean')

    def _edit(self, name: str, old: str, new: str) -> None:
        path = self.package / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def controller(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "loopscope", "--state", str(self.state)]
        environment = {**self.environment(), "PYTHONPATH": str(self.package.parent)}
        return subprocess.Popen(
            [*command, "controller"], env=environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def conditions(self) -> dict[str, str]:
        output = self.call("get", "capture", "a", "-o", "json")[1]
        found = json.loads(output)["status"]["conditions"]
        return {one["type"]: f"{one['status']} {one['reason']}" for one in found}


def stopped(controller: subprocess.Popen[str]) -> str:
    controller.send_signal(signal.SIGTERM)
    return controller.communicate(timeout=90)[0]


def test_new_code_computes_nothing_under_an_old_digest_and_a_restart_goes_on(
    tmp_path: Path,
) -> None:
    place = Installed(tmp_path)
    place.install()
    place.write()
    capture = {
        "apiVersion": "loopscope.dev/v1alpha1", "kind": "Capture", "metadata": {"name": "a"},
        "spec": {
            "model": {"name": "tiny", "source": {"folder": "model"}}, "hook": HOOK,
            "prompts": {side: {"file": f"texts/{side}.txt"} for side in ("target", "neutral")},
        },
    }  # fmt: skip
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(capture))
    controller = place.controller()
    try:
        eventually(lambda: place.state.exists() and place.rows()["controllers"])
        place.upgrade()
        code, output = place.call("apply", "-f", str(file), "--root", str(tmp_path))
        assert code == 0, output
        eventually(lambda: place.conditions().get("Ready") == "False CodeChanged")
        (job,) = place.jobs()
        assert (job["state"], job["attempts"], job["reason"]) == ("pending", 0, "CodeChanged")
        assert f"revision {OLD}" in job["message"] and f"revision {NEW}" in job["message"]
        assert "Restart the controller" in place.call("queue")[1]
        assert "restart the controller" in place.call("why", "capture", "a")[1]
        assert "CodeChanged" in place.call("events")[1]
        assert place.payloads() == {}, "published under another revision's name"
    finally:
        log = stopped(controller)
    assert "restart this controller" in log
    controller = place.controller()
    try:
        eventually(lambda: place.conditions().get("Ready") == "True Succeeded")
    finally:
        stopped(controller)
    (digest,) = place.payloads()
    manifest = json.loads(
        (place.state / "artifacts/capture" / digest / "manifest.json").read_text()
    )
    assert manifest["codeRevision"] == NEW and len(manifest["codeHash"]) == 64
    assert [one["state"] for one in place.jobs()] == ["cancelled", "succeeded"]


@pytest.mark.parametrize("other", [{"code_revision": NEW}, {"code": "0" * 64}, {"stage": ""}])
def test_a_worker_of_other_code_gives_the_job_back_before_it_loads_anything(
    tmp_path: Path, rope_model_folder: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    worker = RealWorker(tmp_path, folder_reference(rope_model_folder))
    given = worker.order
    monkeypatch.setattr(worker, "order", lambda job: replace(given(job), **other))
    process = worker.start()
    assert process.wait(60) == 0
    assert process.stdout is not None and process.stdout.read() == b"", "it did not begin"
    job = worker.job()
    assert (job.state, job.attempts, job.losses) == ("pending", 0, 0)
    assert job.reason == "CodeChanged" and job.not_before > 1.0

"""An operator written with kopf, as a foreign controller beside our own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time

import pytest

from loopscope.specs.keys import Key
from loopscope.specs.status import Condition, Status
from loopscope.state.db import events, objects
from tests.api.conftest import SECONDS_MAX, missing

OPERATOR = """
import kopf

WHERE = ("loopscope.dev", "v1alpha1", "experiments")


@kopf.on.event(*WHERE)
def seen(body, patch, **_):
    conditions = body["status"]["conditions"]
    ready = next((one["status"] for one in conditions if one["type"] == "Ready"), "Unknown")
    if body["metadata"]["annotations"].get("example.org/ready") != ready:
        patch.metadata.annotations["example.org/ready"] = ready
        kopf.info(body, reason="Noted", message=f"Ready is {ready}")
"""


@pytest.fixture
def operator(kubeconfig, tmp_path):
    """The operator as a process of its own, which knows the server from the kubeconfig."""
    if importlib.util.find_spec("kopf") is None:
        missing("kopf is not installed: make test-api installs it")
    path = tmp_path / "noting.py"
    path.write_text(OPERATOR)
    words = ["run", "--standalone", "--namespace", "default", str(path)]
    with (tmp_path / "operator.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", *words],
            cwd=tmp_path,
            env={**_environment(), "KUBECONFIG": str(kubeconfig)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        yield process
        process.terminate()
        process.wait(SECONDS_MAX)


def _environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}


def until(state, operator, word, tmp_path):
    """Wait until the operator has noted a word on the experiment; return the object."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        assert operator.poll() is None, (tmp_path / "operator.log").read_text()
        with state.database.read() as connection:
            found = objects.get(connection, Key("Experiment", "default", "x"))
        if found.annotations.get("example.org/ready") == word:
            return found
        time.sleep(0.05)
    pytest.fail((tmp_path / "operator.log").read_text())


def test_it_annotates_what_it_watches_and_reacts_to_the_status(server, operator, tmp_path):
    state = server.state
    before = until(state, operator, "Unknown", tmp_path)
    with state.database.write() as connection:
        record = objects.get(connection, before.key)
        condition = Condition("Ready", "True", "Done", "all stages are", record.generation, 1.0)
        objects.update_status(connection, record, Status(record.generation, (condition,)), None)
    after = until(state, operator, "True", tmp_path)
    assert (after.generation, after.spec) == (before.generation, before.spec)
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        with state.database.read() as connection:
            noted = [e.message for e in events.listed(connection, before.key)]
        if "Ready is True" in noted:
            return
        time.sleep(0.05)
    pytest.fail((tmp_path / "operator.log").read_text())

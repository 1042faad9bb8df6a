"""kubectl as a user types it, against a server that runs."""

import re
import signal
import time

import pytest
import yaml

from loopscope.specs.keys import Key
from loopscope.specs.status import Condition, Status
from loopscope.state.db import objects
from loopscope.state.folder import open_state
from tests.api.conftest import SECONDS_MAX

SPEC = "specs/x.yaml"
SERVER_SIDE_FROM = 22
"""Minor version from which a kubectl knows OpenAPI 3, or does without it."""


def out(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(folder):
    with open_state(folder / "state").database.read() as connection:
        return objects.get(connection, Key("Experiment", "default", "x"))


def edited(folder, value):
    path = folder / SPEC
    document = yaml.safe_load(path.read_text())
    document["spec"]["maxTokens"] = value
    path.write_text(yaml.safe_dump(document))


def test_get_describe_explain_and_events(kubectl, tmp_path, loopscope):
    assert out(kubectl("get", "experiments")).split()[:3] == ["NAME", "CAPTURE", "COARSE"]
    assert "HOOK" in out(kubectl("get", "exp", "x", "-o", "wide"))
    name = out(kubectl("get", "experiments", "-o", "jsonpath={.items[*].metadata.name}"))
    assert name == "x"
    assert out(kubectl("get", "exp", "-l", "colour=red", "-o", "name")) == ""
    assert "experiment.loopscope.dev/x" in out(kubectl("get", "loopscope", "-A", "-o", "name"))
    assert "Min Cosine" in out(kubectl("describe", "experiment", "x"))
    assert kubectl("get", "experiment", "y").stderr == (
        'Error from server (NotFound): experiments.loopscope.dev "y" not found\n'
    )
    kubectl("get", "events")
    if kubectl.minor >= SERVER_SIDE_FROM:
        assert "minCosine" in out(kubectl("explain", "experiment.spec.mapping"))
        assert "Server Version" in out(kubectl("version"))


ANSWERED = {
    "get experiments,mappings -o name": "experiment.loopscope.dev/x\n",
    "get experiments x y --ignore-not-found -o name": "experiment.loopscope.dev/x\n",
    "get experiments --no-headers -o custom-columns=A:.metadata.name,B:.spec.maxTokens": "x 128\n",
    "get experiments --field-selector metadata.name=x -o name": "experiment.loopscope.dev/x\n",
    "get experiments --field-selector metadata.name!=x -o name": "",
    "get experiments --sort-by=.metadata.name -o name": "experiment.loopscope.dev/x\n",
    "get experiments -l loopscope.dev/none -o name": "",
    "get experiments -o go-template={{range.items}}{{.kind}}{{end}}": "Experiment",
    "get ns -o name": "namespace/default\n",
    "api-versions": "loopscope.dev/v1alpha1\nv1\n",
}
"""What is asked, and the answer with its spaces made one."""
REFUSED = {
    "get all": "doesn't have a resource type",
    "scale --replicas=2 experiment/x": "could not find the requested resource",
    "logs experiment/x": "",
    "rollout history experiment/x": "",
    "patch exp x -p {}": "is not supported; expected",
    "patch exp x --type=json -p []": "is not supported; expected",
    "delete experiment x --cascade=orphan": "",
    "replace -f specs/none.yaml": "does not exist",
}
"""What there is not, and a part of why."""


def test_what_can_be_asked_in_one_line_is_answered(kubectl):
    said = {asked: out(kubectl(*asked.split())) for asked in ANSWERED}
    assert {asked: re.sub(" +", " ", text) for asked, text in said.items()} == ANSWERED


def test_what_there_is_not_is_refused_with_a_reason_and_changes_nothing(kubectl, tmp_path):
    before = stored(tmp_path)
    for asked, why in REFUSED.items():
        done = kubectl(*asked.split())
        assert done.returncode == 1 and why in done.stderr, (asked, done.stdout, done.stderr)
        assert done.stderr.strip() and "panic" not in done.stderr, asked
    assert stored(tmp_path) == before


def test_a_watch_prints_what_changes_and_ends_with_the_server(kubectl, tmp_path, loopscope):
    watch = kubectl.start("get", "experiments", "-w")
    assert watch.stdout.readline().startswith("NAME")
    assert watch.stdout.readline().startswith("x ")
    edited(tmp_path, 64)
    assert loopscope("apply", "-f", SPEC)[0] == 0
    assert watch.stdout.readline().startswith("x ")
    watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=SECONDS_MAX)


def until_it_watches(server, client):
    while server.watches.count == 0:
        assert client.poll() is None, client.communicate()
        time.sleep(0.01)


def test_wait_for_a_field_and_for_a_deletion(kubectl, tmp_path, loopscope, server):
    if kubectl.minor >= SERVER_SIDE_FROM:
        field = "--for=jsonpath={.spec.maxTokens}=64"
        waiting = kubectl.start("wait", "experiment/x", field, "--timeout=60s")
        until_it_watches(server, waiting)
        edited(tmp_path, 64)
        assert loopscope("apply", "-f", SPEC)[0] == 0
        said, wrong = waiting.communicate(timeout=SECONDS_MAX)
        assert "condition met" in said, wrong
        while server.watches.count:
            time.sleep(0.01)
    waiting = kubectl.start("wait", "experiment/x", "--for=delete", "--timeout=60s")
    until_it_watches(server, waiting)
    assert loopscope("delete", "experiment", "x")[0] == 0
    said, wrong = waiting.communicate(timeout=SECONDS_MAX)
    assert (waiting.returncode, wrong) == (0, "") and "condition met" in said
    missed = kubectl("wait", "experiment/x", "--for=condition=Ready", "--timeout=1s")
    assert missed.returncode == 1


def test_apply_on_the_server_conflicts_with_the_command_until_forced(kubectl, tmp_path, loopscope):
    if kubectl.minor < SERVER_SIDE_FROM:
        pytest.skip("this kubectl wants OpenAPI 2 for it")
    edited(tmp_path, 64)
    words = ("apply", "--server-side", "-f", SPEC)
    refused = kubectl(*words)
    assert refused.returncode == 1 and "an apply without --apply-set" in refused.stderr
    assert stored(tmp_path).spec["maxTokens"] == 128
    assert "serverside-applied" in out(kubectl(*words, "--force-conflicts"))
    assert stored(tmp_path).spec["maxTokens"] == 64
    edited(tmp_path, 32)
    dry = kubectl(*words, "--dry-run=server")
    assert "server dry run" in out(dry)
    different = kubectl("diff", "--server-side", "-f", SPEC)
    assert different.returncode == 1 and "maxTokens: 32" in different.stdout, different.stderr
    assert stored(tmp_path).spec["maxTokens"] == 64
    assert "serverside-applied" in out(kubectl(*words))
    assert kubectl("diff", "--server-side", "-f", SPEC).returncode == 0


def test_apply_by_the_client_creates_and_changes(kubectl, tmp_path, loopscope):
    assert loopscope("delete", "experiment", "x")[0] == 0
    words = ["apply", "-f", SPEC]
    words += ["--validate=false"] if kubectl.minor < SERVER_SIDE_FROM else []
    assert "created" in out(kubectl(*words))
    out(kubectl(*words))  # "configured": the server keeps absolute paths where the file has others
    assert stored(tmp_path).generation == 1
    edited(tmp_path, 64)
    assert "configured" in out(kubectl(*words))
    assert stored(tmp_path).spec["maxTokens"] == 64


def test_a_mistake_is_named_by_field(kubectl, tmp_path, loopscope):
    path = tmp_path / SPEC
    path.write_text(path.read_text().replace("hook:", "hok:"))
    words = ["create", "--validate=false", "-f", SPEC]
    assert loopscope("delete", "experiment", "x")[0] == 0
    done = kubectl(*words)
    assert done.returncode == 1
    assert "spec.hok" in done.stderr and "did you mean 'hook'?" in done.stderr


def test_patch_label_annotate_and_edit(kubectl, tmp_path, loopscope):
    patch = '{"spec": {"maxTokens": 64}}'
    assert "patched" in out(kubectl("patch", "exp", "x", "--type=merge", "-p", patch))
    assert "labeled" in out(kubectl("label", "exp", "x", "colour=red"))
    assert "annotated" in out(kubectl("annotate", "exp", "x", "example.org/note=a"))
    found = stored(tmp_path)
    assert (found.spec["maxTokens"], found.labels) == (64, {"colour": "red"})
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/maxTokens: 64/maxTokens: 32/" "$1"\n')
    editor.chmod(0o700)
    words = ["edit", "exp", "x"]
    words += ["--validate=false"] if kubectl.minor < SERVER_SIDE_FROM else []
    done = kubectl(*words, KUBE_EDITOR=str(editor))
    assert "edited" in done.stdout, done.stderr
    assert stored(tmp_path).spec["maxTokens"] == 32


def test_delete_by_name_and_by_file(kubectl, tmp_path, loopscope):
    assert 'experiment.loopscope.dev "x" deleted' in out(kubectl("delete", "experiment", "x"))
    assert loopscope("get", "experiment", "x")[0] == 1
    assert loopscope("apply", "-f", SPEC)[0] == 0
    out(kubectl("delete", "-f", SPEC))
    assert loopscope("get", "experiment", "x")[0] == 1


def test_create_and_replace_store_what_a_file_says(kubectl, tmp_path, loopscope):
    assert loopscope("delete", "experiment", "x")[0] == 0
    lenient = ["--validate=false"] if kubectl.minor < SERVER_SIDE_FROM else []
    assert "created" in out(kubectl("create", "-f", SPEC, *lenient))
    assert "AlreadyExists" in kubectl("create", "-f", SPEC, *lenient).stderr
    document = yaml.safe_load(out(kubectl("get", "exp", "x", "-o", "yaml")))
    document["spec"]["maxTokens"] = 64
    whole = tmp_path / "whole.yaml"
    whole.write_text(yaml.safe_dump(document))
    assert "replaced" in out(kubectl("replace", "-f", str(whole), *lenient))
    assert stored(tmp_path).spec["maxTokens"] == 64
    stale = kubectl("replace", "-f", str(whole), *lenient)
    assert stale.returncode == 1 and "Conflict" in stale.stderr


def test_a_dry_run_of_a_deletion_leaves_the_object_and_labels_choose_what_goes(kubectl, tmp_path):
    dry = kubectl("delete", "experiment", "x", "--dry-run=server")
    if kubectl.minor >= SERVER_SIDE_FROM:
        assert "server dry run" in out(dry)
    else:
        assert "doesn't support dry-run" in dry.stderr  # it looks that up in OpenAPI 2
    assert stored(tmp_path) is not None
    out(kubectl("label", "exp", "x", "colour=red"))
    out(kubectl("delete", "exp", "-l", "colour=blue"))
    assert stored(tmp_path) is not None
    assert '"x" deleted' in out(kubectl("delete", "exp", "-l", "colour=red"))
    assert stored(tmp_path) is None


def test_delete_all_is_all_of_a_kind(kubectl, tmp_path):
    assert '"x" deleted' in out(kubectl("delete", "experiments", "--all"))
    assert stored(tmp_path) is None


def test_wait_ends_with_the_condition(kubectl, tmp_path, server):
    waiting = kubectl.start("wait", "exp/x", "--for=condition=Ready", "--timeout=60s")
    until_it_watches(server, waiting)
    with server.state.database.write() as connection:
        record = objects.get(connection, Key("Experiment", "default", "x"))
        condition = Condition("Ready", "True", "Done", "all stages are", record.generation, 1.0)
        objects.update_status(connection, record, Status(record.generation, (condition,)), None)
    said, wrong = waiting.communicate(timeout=SECONDS_MAX)
    assert (waiting.returncode, wrong) == (0, "") and "condition met" in said


def test_a_watch_of_what_comes_only_prints_no_more_than_that(kubectl, tmp_path, loopscope, server):
    watch = kubectl.start("get", "experiments", "--watch-only", "--no-headers")
    until_it_watches(server, watch)
    edited(tmp_path, 64)
    assert loopscope("apply", "-f", SPEC)[0] == 0
    assert watch.stdout.readline().startswith("x ")
    watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=SECONDS_MAX)

"""Which source a stage is made of, and that nothing of ours is imported that is not of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.specs.actions import CODE_REVISIONS
from loopscope.state.orders import Order
from loopscope.state.source_code import PACKAGE, ROOMS, CodeChanged, SourceCode, source_at_start
from loopscope.worker.import_guard import ImportGuard
from loopscope.worker.refusing import check_code

LOADED = """
import importlib, json, sys
from loopscope.state.source_code import source_at_start
importlib.import_module("loopscope.worker.stages.{stage}.stage")
importlib.import_module("loopscope.worker.runner")
loaded = [name for name in sys.modules if name.startswith("loopscope.")]
print(json.dumps(loaded))
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the source, to be edited."""
    for room in ROOMS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE / room, tmp_path / "loopscope" / room, ignore=ignored)
    return tmp_path / "loopscope"


def edit(package, name):
    path = package / f"{name}.py"
    path.write_text(path.read_text() + "\n# edited\n")


@pytest.mark.parametrize("stage", CODE_REVISIONS)
def test_all_that_a_stage_loads_of_ours_is_among_its_sources(stage):
    """Found without importing anything; the interpreter is asked what it really loads."""
    command = [sys.executable, "-c", LOADED.format(stage=stage)]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(json.loads(asked.stdout.splitlines()[-1])) - {"loopscope.state.source_code"}
    assert f"loopscope.worker.stages.{stage}.stage" in loaded
    assert loaded <= set(source_at_start().modules_of(stage))


def test_a_stage_has_another_hash_when_something_changes_that_it_imports(package):
    before = {stage: SourceCode.read(package).of_stage(stage) for stage in CODE_REVISIONS}
    edit(package, "numerics/gate/rule")  # imported by the mapping's modules alone
    after = {stage: SourceCode.read(package).of_stage(stage) for stage in CODE_REVISIONS}
    assert [stage for stage in CODE_REVISIONS if before[stage] != after[stage]] == ["mapping"]


@pytest.mark.parametrize(
    "name", ["worker/runner", "worker/warm", "worker/models", "state/db/jobs", "numerics/__init__"]
)
def test_what_hands_a_stage_its_inputs_counts_for_every_stage(package, name):
    before = SourceCode.read(package)
    edit(package, name)
    after = SourceCode.read(package)
    assert all(before.of_stage(stage) != after.of_stage(stage) for stage in CODE_REVISIONS)


def test_a_copy_elsewhere_is_the_same_code(package):
    assert SourceCode.read(package).of_stage("capture") == source_at_start().of_stage("capture")


def test_a_file_that_changes_appears_or_goes_is_noticed_and_no_other(package):
    source = SourceCode.read(package)
    edit(package, "worker/models")
    (package / "worker/new.py").touch()
    (package / "worker/warm.py").unlink()
    names = ["models", "new", "warm", "runner", "stages", "nowhere"]
    changed = [name for name in names if source.has_changed(f"loopscope.worker.{name}")]
    assert changed == ["models", "new", "warm"]
    foreign = ("json", "torch.nn", "loopscope", "loopscope.commands.jobs.queue")
    assert not any(source.has_changed(name) for name in foreign)


def test_a_module_whose_file_changed_is_not_imported_late(package):
    guard = ImportGuard(SourceCode.read(package))
    assert guard.find_spec("loopscope.worker.models", None) is None
    edit(package, "worker/models")
    with pytest.raises(CodeChanged, match=r"worker\.models is not as it was"):
        guard.find_spec("loopscope.worker.models", None)


def order(**changes):
    code = source_at_start().of_stage("capture")
    values = {"stage": "capture", "code_revision": CODE_REVISIONS["capture"], "code": code}
    return Order(job=1, token=2, **{**values, **changes})


def test_an_order_comes_through_as_it_was_given():
    assert Order.from_line(order().to_line().decode()) == order()


def test_an_order_for_this_code_is_followed():
    check_code(order(), source_at_start())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"code_revision": 99}, "named by code revision 99"),
        ({"code": "0" * 64}, "source of the stage capture was 000000000000"),
        ({"stage": "dreaming"}, "code revision"),
    ],
)
def test_an_order_for_other_code_is_refused_and_asks_for_a_restart(other, words):
    with pytest.raises(CodeChanged, match=words) as refused:
        check_code(order(**other), source_at_start())
    assert "Restart it" in refused.value.message


def test_the_order_of_an_older_controller_is_refused_and_of_a_newer_one_is_read():
    with pytest.raises(CodeChanged):
        check_code(Order.from_line('{"job": 1, "token": 2}'), source_at_start())
    newer = {**json.loads(order().to_line()), "colour": "red"}
    assert Order.from_line(json.dumps(newer)) == order()


def test_the_controller_needs_no_torch_to_know_the_code():
    script = (
        "import sys; from loopscope.state.source_code import source_at_start; "
        "source_at_start().of_stage('steering'); "
        "sys.exit('torch' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert Path(PACKAGE / "worker/stages/steering/stage.py").is_file()

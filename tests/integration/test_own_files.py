"""A folder of specs may hold files of any name: none of them is imported or run."""

import os
import subprocess
import sys
from importlib import metadata

import pytest

from tests.tiny_experiment import make_experiment
from tests.tree import ROOMS

pytestmark = pytest.mark.integration
SECONDS_MAX = 600
LOOKED_FOR = """
import os, sys

class Watch:
    "Notes each room that somebody looks for under its bare name."
    def find_spec(self, name, path=None, target=None):
        if name in {rooms!r}:
            with open({mark!r}, "a") as mark:
                mark.write(name + " by " + " ".join(sys.argv) + chr(10))

sys.meta_path.insert(0, Watch())
with open({seen!r}, "a") as seen:
    seen.write(" ".join(sys.orig_argv) + chr(10))
"""

ASKED = """
import sys, loopscope
state = loopscope.open({state!r})
found = state.experiments["tiny"]
told = len(state.experiments.table()) and len(found.scores()) and len(found.features("coarse"))
sys.stdout.write(f"{{found.name}} {{told > 0}}")
"""


@pytest.fixture
def folder(tmp_path):
    """A folder full of files named like our rooms, Python's modules and everything installed."""
    home = tmp_path / "experiments"
    home.mkdir()
    installed = {name.partition(".")[0] for name in metadata.packages_distributions()}
    for name in sorted({*ROOMS, *sys.stdlib_module_names, *installed} - {"loopscope"}):
        if name.isidentifier():
            (home / f"{name}.py").write_text(
                f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})"
            )
    for room in ROOMS:
        (home / room).mkdir()
        (home / room / "__init__.py").write_text((home / f"{room}.py").read_text())
    make_experiment(tmp_path / "tiny")
    return home


def environment(tmp_path, path):
    return {**os.environ, "LOOPSCOPE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": path,
            "LOOPSCOPE_TORCH_THREADS": "1"}  # fmt: skip


def test_a_run_in_a_folder_full_of_such_files_ends_ready_and_executes_none(folder, tmp_path):
    watch = tmp_path / "watch"
    watch.mkdir()
    mark, seen = str(tmp_path / "bare"), str(tmp_path / "seen")
    (watch / "sitecustomize.py").write_text(LOOKED_FOR.format(rooms=ROOMS, mark=mark, seen=seen))
    specs, state = tmp_path / "tiny" / "specs", tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "loopscope", "--state", state, "run", specs,
         "--root", tmp_path / "tiny"],
        cwd=folder, env=environment(tmp_path, str(watch)), capture_output=True, text=True,
        timeout=SECONDS_MAX,
    )  # fmt: skip
    logs = "".join(path.read_text() for path in (state / "logs").glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    started = (tmp_path / "seen").read_text()
    assert "loopscope.worker" in started, "the worker was watched as well"
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()
    assert not (tmp_path / "bare").exists(), (tmp_path / "bare").read_text()
    opened = subprocess.run(
        [sys.executable, "-c", ASKED.format(state=str(state))],
        cwd=folder, env=environment(tmp_path, ""), capture_output=True, text=True,
        timeout=SECONDS_MAX,
    )  # fmt: skip
    assert (opened.returncode, opened.stdout) == (0, "tiny True"), opened.stderr
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@pytest.mark.parametrize("path", ["", os.pathsep])
def test_a_worker_looks_for_nothing_there_even_where_pythonpath_has_an_empty_entry(
    folder, tmp_path, path
):
    from loopscope.controller.jobs.local_processes import WORKER_COMMAND
    from loopscope.state.child_processes import child_environment

    inherited = os.environ.get("PYTHONPATH", "")
    told = child_environment(PYTHONPATH=f"{inherited}{path}{os.pathsep}")
    done = subprocess.run(
        [*WORKER_COMMAND, "--help"], cwd=folder, env=told, capture_output=True, text=True,
        timeout=SECONDS_MAX,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()

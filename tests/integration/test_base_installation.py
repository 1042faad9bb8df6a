"""The base installation: everything but computing, without torch and what needs it."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from packaging.requirements import Requirement

from loopscope.controller.jobs.local_processes import WORKER_LIBRARIES
from tests.chat_templates import CHATML
from tests.latest import plain
from tests.tree import ROOT
from tests.upgrade_state import unpack

pytestmark = pytest.mark.integration
SECONDS_MAX = 180
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def with_all_that_they_need(asked: list[str]) -> set[str]:
    """Return the installed distributions that these requirements bring, as pip would."""
    found: set[str] = set()
    waiting = [Requirement(one) for one in asked]
    while waiting:
        wanted = waiting.pop()
        if plain(wanted.name) in found:
            continue
        found.add(plain(wanted.name))
        for line in importlib.metadata.requires(wanted.name) or []:
            needed = Requirement(line)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(needed)
    return found


def top_level(distribution: str) -> set[Path]:
    """Return what a distribution puts into site-packages."""
    found = importlib.metadata.distribution(distribution)
    parts = {file.parts[0] for file in found.files or [] if not file.parts[0].startswith("..")}
    return {Path(str(found.locate_file(part))) for part in parts if part != "__pycache__"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds what the base installs, and this checkout."""
    environment = tmp_path_factory.mktemp("base") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    for distribution in with_all_that_they_need(PROJECT["dependencies"]):
        for place in top_level(distribution):
            if not (site / place.name).exists():
                (site / place.name).symlink_to(place)
    (site / "loopscope.pth").write_text(f"{ROOT / 'dev'}\n")
    return environment / "bin" / "python"


@pytest.fixture(scope="module")
def computed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with specs and the finished state that another machine made of them."""
    folder = tmp_path_factory.mktemp("computed")
    unpack(folder)
    done = call(base, folder, "pause", "experiment", "tiny")
    assert done.returncode == 0, done.stderr
    return folder


def call(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), "-P", "-m", "loopscope", "--state", "state", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX
    )


def test_the_libraries_of_a_worker_are_those_of_the_extra():
    declared = {Requirement(one).name for one in PROJECT["optional-dependencies"]["worker"]}
    assert {name.replace("-", "_") for name in declared} == set(WORKER_LIBRARIES)


def test_nothing_that_computes_comes_with_the_base():
    brought = with_all_that_they_need(PROJECT["dependencies"])
    assert not brought & {plain(name) for name in WORKER_LIBRARIES}


@pytest.mark.parametrize(
    "words",
    [
        ("get", "experiments"),
        ("describe", "experiment", "tiny"),
        ("why", "experiment", "tiny"),
        ("queue",),
        ("explain", "mapping.spec"),
        ("plan", "-f", "specs", "--root", "."),
        ("report", "tiny"),
        ("fsck",),
        ("gc",),
    ],
    ids=lambda words: words[0],
)
def test_the_base_shows_and_plans_what_other_machines_computed(base, computed, words):
    done = call(base, computed, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_the_base_exports_a_bundle_and_verifies_it(base, computed, tmp_path):
    done = call(base, computed, "export", "tiny", str(tmp_path / "bundle"))
    assert done.returncode == 0, done.stdout + done.stderr
    done = call(base, computed, "verify", str(tmp_path / "bundle"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not re-computed:" in done.stdout and "differ" not in done.stdout


def test_the_base_reads_tables_and_fills_chat_templates(base, computed):
    spec = yaml.safe_load((computed / "specs" / "tiny.yaml").read_text())
    (computed / "texts" / "rows.jsonl").write_text('{"text": "the food in lyon"}\n')
    pyarrow.parquet.write_table(
        pyarrow.table({"text": ["the food in oslo"]}), computed / "texts" / "rows.parquet"
    )
    (computed / "texts" / "t.jinja").write_text(CHATML)
    for condition, form in (("target", "jsonl"), ("neutral", "parquet")):
        table = {"file": f"../texts/rows.{form}", "format": form, "column": "text"}
        spec["spec"]["prompts"][condition] = table
    spec["spec"]["prompts"]["chat"] = {"template": "../texts/t.jinja", "system": "Be brief."}
    (computed / "specs" / "chat.yaml").write_text(yaml.safe_dump(spec))
    words = ("apply", "-f", "specs/chat.yaml", "--root", ".", "--dry-run", "--confirm")
    done = call(base, computed, *words)
    assert (done.returncode, done.stderr) == (0, "") and "experiment/tiny configured" in done.stdout
    (computed / "specs" / "chat.yaml").unlink()


def test_dictionaries_need_the_registry_of_saelens_and_their_protections_do_not(base, tmp_path):
    done = call(base, tmp_path, "dictionaries")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "pip install 'loopscope[worker]'" in done.stderr
    assert call(base, tmp_path, "dictionaries", "--protections").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ("run", "specs"),
        ("controller",),
        ("tokens", "-f", "specs"),
        ("fetch", "-f", "specs"),
        ("export", "vector", "tiny", "--arm", "multi", "file"),
    ],
    ids=lambda words: words[0],
)
def test_what_computes_is_refused_in_one_line_before_anything_is_stored(base, tmp_path, words):
    (tmp_path / "specs").mkdir()
    done = call(base, tmp_path, *words)
    assert done.returncode == 2
    assert "torch" in done.stderr and "pip install 'loopscope[worker]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "state").exists()

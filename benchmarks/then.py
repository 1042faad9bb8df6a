"""France by the spec and texts of commit 620b04e: that commit beside this one, in turns.

The commit is taken out of the repository into ``build/620b04e`` and runs with the libraries of this
environment. Both run in state folders of their own, warm: a run that had to convert the model is
run again. That commit does not know the marks that a conversion bears now and converts anew, so it
has a cache of its own, filled by a capture that is not counted. With fewer openings both have the
same ones, the first. Processor time is that of all processes of a run together.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from loopscope.inputs.files import default_cache

ROOT = Path(__file__).parents[1]
COMMIT = "620b04e"
CACHE = f"cache-{COMMIT}"
SPEC = ROOT / "benchmarks/france.yaml"

Found = dict[str, Any]


def cut(spec: Path, to: Path, openings: int) -> Path:
    """Write a spec with the first ``openings`` of the example's (0: all) in place of their file.

    ``to`` stands in a folder beside the spec's, so that its other files are found from there.
    """
    document = yaml.safe_load(spec.read_text())
    lines = (ROOT / "examples/france/prompts/openings.txt").read_text().splitlines()
    texts = [line.strip() for line in lines if line.strip()]
    document["spec"]["steering"]["prompts"] = {"texts": texts[: openings or len(texts)]}
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return to


def capture_of(spec: Path, to: Path) -> Path:
    """Write the capture of an experiment as a spec of its own, in the same folder."""
    document = yaml.safe_load(spec.read_text())
    capture = {field: document["spec"][field] for field in ("model", "hook", "prompts")}
    to.write_text(yaml.safe_dump({**document, "kind": "Capture", "spec": capture}))
    return to


def run(spec: Path, state: Path, checkout: Path, more: Mapping[str, str] | None = None) -> Found:
    """Run a spec afresh; return seconds to the first line and to the end, and the peak."""
    shutil.rmtree(state, ignore_errors=True)
    command = [sys.executable, "-m", "loopscope", "--state", str(state), "run", str(spec)]
    began = time.monotonic()
    with subprocess.Popen(
        command, cwd=checkout, env={**os.environ, **(more or {})}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.monotonic() - began
        process.stdout.read()
        # with what its own children took, and no others
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"the run of {spec} ended with status {process.returncode}")
    return {
        "first line": first,
        "seconds": time.monotonic() - began,
        "processor": used.ru_utime + used.ru_stime,
        "peak GiB": used.ru_maxrss / 2**20,
    }


def now(build: Path, openings: int) -> Found:
    """Run the spec by this checkout, and once more if the model had to be converted for it.

    The state stays in ``build/bench-state``.
    """
    spec, state = cut(SPEC, build / "france.yaml", openings), build / "bench-state"
    before = conversions()
    found = run(spec, state, ROOT)
    return found if before == conversions() else run(spec, state, ROOT)


def conversions() -> dict[str, int]:
    """Return the converted models of this machine, and when each was written."""
    models = default_cache() / "loopscope/models"
    return {str(mark): mark.stat().st_mtime_ns for mark in models.glob("*/identity.json")}


def then(build: Path, openings: int) -> Found:
    """Run the same by the commit of then."""
    checkout = build / COMMIT
    if not checkout.exists():
        half = build / f"half-{COMMIT}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "archive", COMMIT], cwd=ROOT, stdout=subprocess.PIPE, check=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", str(half)], input=archive, check=True)
        half.rename(checkout)
    example, state, cache = checkout / "examples/france", build / "then-state", build / CACHE
    more = {"PYTHONPATH": str(checkout), "LOOPSCOPE_CACHE": str(cache)}
    filled = cache / "filled"
    if not filled.exists():
        capture = capture_of(example / "experiment.yaml", example / "capture.yaml")
        run(capture, state, checkout, more)
        filled.touch()
    spec = cut(example / "experiment.yaml", example / "cut.yaml", openings)
    return run(spec, state, checkout, more)

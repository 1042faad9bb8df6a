"""The program in a process of its own, called as a user calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tree import ROOT

SECONDS_MAX = 1800
"""A guard against hanging."""


def called(
    *words: str | Path, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Call the program of this checkout; ``variables`` are added to the environment."""
    return subprocess.run(
        [sys.executable, "-m", "loopscope", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )


def succeeded(*words: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Return what the program prints, which ends well."""
    done = called(*words, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

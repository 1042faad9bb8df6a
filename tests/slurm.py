"""A stand-in for SLURM: jobs get a limit and a node of their own, and are killed at the limit."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.tree import ROOT

SCRIPT = ROOT / "examples" / "slurm" / "loopscope.sbatch"
POLL_SECONDS = 0.05
SCONTROL = """#!/bin/sh
echo "$*" >> "$REQUEUED"
"""
LOOPSCOPE = f"""#!/bin/sh
exec {sys.executable} -m loopscope "$@"
"""


@dataclass
class Job:
    """How one job ended."""

    status: int | None
    """None: it was killed at its limit."""
    asked_to_go_on: bool
    log: str


@dataclass
class Cluster:
    """A shared folder, and nodes that forget everything between two jobs."""

    folder: Path
    loopscope: str = LOOPSCOPE
    """The program of that name on the nodes' path."""
    environment: dict[str, str] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    @property
    def shared(self) -> Path:
        """The folder that all nodes see."""
        return self.folder / "shared"

    def node(self, number: int) -> Path:
        """Return the disk of the node that a job got."""
        return self.folder / f"node-{number}"

    def sbatch(
        self,
        *words: str,
        seconds: float = 3600.0,
        limit: Callable[[], bool] = lambda: False,
        **environment: str,
    ) -> Job:
        """Run one job with a time limit; it is killed, with all its children, once ``limit()``."""
        number = len(self.jobs)
        self.node(number).mkdir(parents=True)
        log = self.folder / f"job-{number}.log"
        with log.open("w") as written:
            process = subprocess.Popen(
                ["bash", str(SCRIPT), *words],
                cwd=ROOT, stdout=written, stderr=subprocess.STDOUT, start_new_session=True,
                env=self._environment(number, seconds) | environment,
            )  # fmt: skip
            while process.poll() is None and not limit():
                time.sleep(POLL_SECONDS)
            was_killed = process.poll() is None
            if was_killed:
                _kill_all(process.pid)
                process.wait()
        status = None if was_killed else process.returncode
        job = Job(status, self._requeued(number).exists(), log.read_text())
        self.jobs.append(job)
        return job

    def _requeued(self, number: int) -> Path:
        return self.folder / f"requeued-{number}"

    def _environment(self, number: int, seconds: float) -> dict[str, str]:
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        for name, text in (("scontrol", SCONTROL), ("loopscope", self.loopscope)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        return {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_END_TIME": str(int(time.time() + seconds)),
            "SLURM_TMPDIR": str(self.node(number)),
            "LOOPSCOPE_SHARED": str(self.shared),
            "REQUEUED": str(self._requeued(number)),
            **self.environment,
        }


def _kill_all(pid: int) -> None:
    """Kill a job's processes, as a control group does, also those with a session of their own."""
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            process.kill()

"""The control plane's share of a finished run's wall time, from jobs, events and manifests.

Run with ``.venv/bin/python benchmarks/control_share.py --state DIR``. The wall time goes from the
first event to the last. A worker's time is from a job's claim to its end, of which what the
manifest does not hold is the start of a process (importing torch) and the handing over; the rest,
while no job runs, is the control plane's. Starting the command itself is not in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loopscope.state.artifacts import index
from loopscope.state.db import events, jobs
from loopscope.state.read_only import looking_at

Span = tuple[float, float]


@dataclass(frozen=True)
class Share:
    """Seconds of a run: all of it, while a job ran, and inside the stages."""

    wall: float
    working: float
    stages: float

    @property
    def control(self) -> float:
        """The part of the wall time in which no job ran."""
        return (self.wall - self.working) / self.wall

    @property
    def starting(self) -> float:
        """The part in which a worker started, or took a job or gave it back."""
        return (self.working - self.stages) / self.wall


def covered(spans: Iterable[Span]) -> float:
    """Return the seconds that at least one of the spans covers."""
    total, end = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return total


def share_of(path: Path) -> Share:
    """Return the shares of what ran in a state folder; ValueError where nothing did."""
    with looking_at(path) as state, state.database.read() as connection:
        happened = events.listed(connection)
        ended = [job for job in jobs.listed(connection, ended=True) if job.state == "succeeded"]
        stages = [
            state.artifacts.manifest(one.stage, one.digest) for one in index.listed(connection)
        ]
    if not happened or not ended:
        raise ValueError(f"nothing ran in {path}")
    spans = [(job.started_at or 0.0, job.finished_at or 0.0) for job in ended]
    began = min(*(event.first_seen_at for event in happened), *(span[0] for span in spans))
    return Share(
        wall=max(span[1] for span in spans) - began,
        working=covered(spans),
        stages=sum(float(manifest["seconds"]) for manifest in stages),
    )


def main() -> None:
    """Print the shares as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    found = share_of(parser.parse_args().state)
    print(
        json.dumps(
            {
                "wall seconds": round(found.wall, 2),
                "control plane percent": round(100 * found.control, 2),
                "starting and handing over percent": round(100 * found.starting, 2),
            }
        )
    )


if __name__ == "__main__":
    main()

"""``python -m tests.simulation``: many seeds in parallel, one seed again, or the mutants.

``--seeds 10000 [--first 0] [--processes 2] [--record FILE]`` plays seeds and prints totals; with
a record, seeds that are in it are not played again, so an interrupted soak goes on.
``--seed 17 --trace`` replays one seed and shows every step. ``--mutation NAME`` plants a defect.
``--mutants 60`` searches, for every planted defect, the first seed below 60 that notices it.
The exit code is 1 when an invariant broke, or when a mutant that must be caught was not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from tests.simulation.mutations import MUTATIONS, NOT_CAUGHT
from tests.simulation.play import Played, play, prepare

PROGRESS_SECONDS = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds to play")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--record", type=Path, help="a file of finished seeds, to go on from")
    parser.add_argument("--seed", type=int, help="play this seed only")
    parser.add_argument("--trace", action="store_true", help="show every step of --seed")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS))
    parser.add_argument("--mutants", type=int, help="search this many seeds for each mutation")
    options = parser.parse_args()
    if options.seed is not None:
        return _replay(options.seed, options.trace, options.mutation)
    if options.mutants:
        return _hunt(options.mutants, options.processes, options.mutation)
    return _soak(options.first, options.seeds, options.processes, options.record)


def _replay(seed: int, trace: bool, mutation: str | None) -> int:
    prepare()
    planted = MUTATIONS[mutation].planted() if mutation else nullcontext()
    with planted:
        played = play(seed)
    if trace:
        print("\n".join(played.trace))
    print(f"seed {seed}: {played.broken or 'all invariants held'} (trace {played.trace_digest})")
    return int(played.broken is not None)


def _soak(first: int, number: int, processes: int, record: Path | None) -> int:
    done = _recorded(record)
    seeds = [seed for seed in range(first, first + number) if seed not in done]
    sums = Counter(done_before=number - len(seeds))
    broken: list[Played] = []
    shown_at = started_at = time.monotonic()
    with (
        multiprocessing.Pool(processes, prepare) as pool,
        record.open("a") if record else nullcontext() as log,
    ):
        for played in pool.imap_unordered(play, seeds, chunksize=5):
            sums += played.totals
            if log is not None:
                log.write(json.dumps({"seed": played.seed, "broken": played.broken}) + "\n")
                log.flush()
            if played.broken is not None:
                broken.append(played)
                print(f"seed {played.seed} BROKE: {played.broken}\n  {played.replay}", flush=True)
            if time.monotonic() > shown_at + PROGRESS_SECONDS:
                shown_at = time.monotonic()
                print(f"{sums['seeds']} of {len(seeds)} seeds", flush=True)
    for name, count in sorted(sums.items()):
        print(f"{name:24}{count:>12,}")
    print(f"{'seconds':24}{time.monotonic() - started_at:>12,.0f}")
    print(f"{'broken seeds':24}{len(broken):>12,}")
    return int(bool(broken))


def _recorded(record: Path | None) -> set[int]:
    """Return the seeds that a record says were played and held."""
    if record is None or not record.exists():
        return set()
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return {line["seed"] for line in lines if line["broken"] is None}


def _hunt(number: int, processes: int, name: str | None) -> int:
    mutations = [m for m in MUTATIONS if m not in NOT_CAUGHT and name in (None, m)]
    missed = []
    with multiprocessing.Pool(processes, prepare) as pool:
        tasks = [(mutation, number) for mutation in mutations]
        for mutation, seed, says in pool.imap_unordered(_seed_that_notices, tasks):
            print(f"{mutation:24}{seed if says else 'no seed':>8}  {says}", flush=True)
            if not says:
                missed.append(mutation)
    print(f"{len(mutations) - len(missed)} of {len(mutations)} mutants were caught")
    if missed:
        print(f"missed: {', '.join(missed)}")
    return int(bool(missed))


def _seed_that_notices(task: tuple[str, int]) -> tuple[str, int, str]:
    name, number = task
    for seed in range(number):
        with MUTATIONS[name].planted():
            played = play(seed)
        if played.broken is not None:
            return name, seed, played.broken.splitlines()[0]
    return name, number, ""


if __name__ == "__main__":
    sys.exit(main())

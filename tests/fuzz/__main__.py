"""``python -m tests.fuzz --inputs 100000``: every target, each in a process of its own.

Guided by coverage where atheris is installed, else by random harm to the seeds. Prints a line
per target and ends with 1 when an input was answered by anything but a refusal; the input is
then written under the folder of ``--crashes``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run the targets one after the other; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="Inputs, all targets together.")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--crashes", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    chosen = [TARGETS[name] for name in arguments.target or TARGETS]
    whole = sum(target.share for target in chosen)
    results = []
    for target in chosen:
        inputs = max(1, round(arguments.inputs * target.share / whole))
        results.append(_in_a_process(target.name, inputs, arguments.seed, arguments.crashes))
        sys.stdout.write(f"{_line(results[-1])}\n")
        sys.stdout.flush()
    total = sum(result["inputs"] for result in results)
    failed = [result["target"] for result in results if result["failure"]]
    slowest = max(result["slowestSeconds"] for result in results)
    memory = max(result["memoryBytes"] for result in results) / 1e6
    sys.stdout.write(
        f"{total:,} inputs, slowest {slowest:.2f} s, largest growth {memory:.0f} MB, "
        f"failed: {', '.join(failed) or 'none'}\n"
    )
    return 1 if failed else 0


def _in_a_process(name: str, inputs: int, seed: int, crashes: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.fuzz.one", name, str(inputs), str(seed), folder]
        ended = subprocess.run([*command, str(crashes)], capture_output=True, text=True)
        if result.is_file():
            return json.loads(result.read_text())  # type: ignore[no-any-return]
    told = (ended.stderr or ended.stdout)[-3000:]
    nothing = {"inputs": 0, "slowestSeconds": 0.0, "memoryBytes": 0, "engine": "none"}
    return {"target": name, **nothing, "failure": f"ended with {ended.returncode}: {told}"}


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['target']:<12} {result['inputs']:>8,} inputs  {result['engine']:<8} "
        f"slowest {result['slowestSeconds']:.3f} s  growth {result['memoryBytes'] / 1e6:.0f} MB"
        + (f"\n  FAILED {result['failure']}" if result["failure"] else "")
    )


if __name__ == "__main__":
    sys.exit(main())

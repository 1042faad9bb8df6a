"""What do 100,000 prompts cost when a spec is read? From every kind of file, in a cold process.

Run with ``PYTHONPATH=. .venv/bin/python benchmarks/many_prompts.py [prompts]``. Half are target,
half neutral. ``hub`` is the Parquet file as a data set of a hub on loopback, downloaded; ``cached``
the same once more, with the hub off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fake_hub import FakeHub

SENTENCE = "the old wine of a small town by the river was known for its colour and its price"
SPEC = {
    "apiVersion": "loopscope.dev/v1alpha1",
    "kind": "Capture",
    "metadata": {"name": "many"},
    "spec": {"model": {"name": "gpt2"}, "hook": "blocks.1.hook_resid_post"},
}
READ = """
import resource, sys, time
start = time.process_time()
from pathlib import Path
from loopscope.inputs.datasets import Datasets
from loopscope.specs.yaml.loading import load_path
imported = time.process_time()
(one,) = load_path(Path(sys.argv[1]), Path(sys.argv[1]).parent, Datasets().find)
sets = one.manifest.canonical_spec()["prompts"]
count = len(sets["target"]["texts"]) + len(sets["neutral"]["texts"])
end = time.process_time()
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{count:,} prompts: {end - imported:.1f} s of a processor, with imports "
      f"{end - start:.1f} s, {megabytes:.0f} MB at most")
"""


def main() -> None:
    """Measure, and print one line a kind of file."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for form, prompts in _write(folder, count).items():
            spec = {**SPEC, "spec": {**SPEC["spec"], "prompts": prompts}}  # type: ignore[dict-item]
            file = folder / f"{form}.yaml"
            file.write_text(json.dumps(spec))
            if form != "hub":
                _measure(form, file, {})
                continue
            home = {"HF_HOME": str(folder / "home"), "LOOPSCOPE_CACHE": str(folder / "cache")}
            with FakeHub() as hub:
                hub.add("datasets/owner/many", {"t.parquet": (folder / "t.parquet").read_bytes()})
                _measure(form, file, {**home, "HF_ENDPOINT": hub.endpoint})
            _measure("cached", file, {**home, "HF_HUB_OFFLINE": "1"})


def _measure(form: str, file: Path, environment: dict[str, str]) -> None:
    """Read a spec in a process of its own, and print what it took."""
    command = [sys.executable, "-c", READ, str(file)]
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    sys.stdout.write(f"{form:10} {done.stdout or done.stderr}")


def _write(folder: Path, count: int) -> dict[str, dict[str, object]]:
    """Write the same prompts in every format; return what a spec says of each."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "text": f"Number {i}: {SENTENCE[i % 20 :]}",
            "label": ("target", "neutral")[i % 2],
        }
        for i in range(count)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "t.parquet")
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "t.csv").write_text("\n".join(["text,label", *map(",".join, _values(rows))]))
    given: dict[str, dict[str, object]] = {}
    for side in ("target", "neutral"):
        own = [row["text"] for row in rows if row["label"] == side]
        (folder / f"{side}.txt").write_text("\n".join(own))
        given.setdefault("lines", {})[side] = {"file": f"{side}.txt"}
        for form in ("csv", "jsonl", "parquet"):
            table = {"file": f"t.{form}", "format": form, "column": "text"}
            given.setdefault(form, {})[side] = {**table, "where": {"label": side}}
        table = {"format": "parquet", "column": "text", "where": {"label": side}}
        dataset = {"dataset": "owner/many", "revision": "main", "dataFiles": "t.parquet"}
        given.setdefault("hub", {})[side] = {**dataset, **table}
        words = [str(i) for i in range(count // 2)]
        template = {"templates": [f"A {side} {{number}} is"], "lists": {"number": words}}
        if count <= 100_000:  # a YAML file has at most so many values
            given.setdefault("templates", {})[side] = {
                **template,
                "lists": {"number": words[:40_000]},
            }
    return given


def _values(rows: list[dict[str, str]]) -> list[list[str]]:
    return [[row["text"], row["label"]] for row in rows]


if __name__ == "__main__":
    main()

"""A folder of many experiment specs and a state folder in which all of them are done.

One experiment is settled by the real controller with simulated workers; its objects are then copied
under the other names: equal work is done once and shared anyway. A resync proves the copies.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fake_stages import D_MODEL
from tests.simulated import Simulation

HOOK = "blocks.1.hook_resid_post"
TEMPLATE = "e00000"
SPEC = """apiVersion: loopscope.dev/v1alpha1
kind: Experiment
metadata:
  name: {name}
  labels: {{team: benchmark}}
spec:
  model: {{name: tiny, source: {{folder: ../model}}}}
  hook: blocks.1.hook_resid_post
  prompts:
    target: {{file: ../target.txt}}
    neutral: {{file: ../neutral.txt}}
  dictionaries:
    coarse: {{path: ../coarse}}
    fine: {{path: ../fine}}
  mapping: {{minCosine: 0.3, topK: 10}}
  steering:
    strengths: [0.05, 0.1, 0.2]
    prompts: {{texts: [We went to, They came from, Once upon a time]}}
    neutralText: {{texts: [A plain sentence about nothing.]}}
    lexicon: {{texts: [paris, lyon, nantes]}}
"""


def write_specs(folder: Path, count: int) -> Path:
    """Write ``count`` experiments with the files that they name; return the folder of specs."""
    specs = folder / "specs"
    specs.mkdir(parents=True)
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(f'{{"hidden_size": {D_MODEL}, "num_hidden_layers": 2}}')
    (model / "tokenizer.json").write_text("{}")
    save_file({"w": np.zeros(2, np.float32)}, model / "model.safetensors")
    for name, d_sae in (("coarse", 8), ("fine", 16)):
        _write_dictionary(folder / name, d_sae)
    for name in ("target", "neutral"):
        lines = (f"prompt {number} about {name}" for number in range(20))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    for number in range(count):
        name = f"e{number:05d}"
        (specs / f"{name}.yaml").write_text(SPEC.format(name=name))
    return specs


def _write_dictionary(folder: Path, d_sae: int) -> None:
    folder.mkdir()
    shapes = {"W_enc": (D_MODEL, d_sae), "W_dec": (d_sae, D_MODEL), "b_enc": (d_sae,)}
    shapes["b_dec"] = (D_MODEL,)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "sae_weights.safetensors")
    cfg = {"architecture": "standard", "d_in": D_MODEL, "d_sae": d_sae}
    (folder / "cfg.json").write_text(json.dumps({**cfg, "metadata": {"hook_name": HOOK}}))


def settle_all(state: Path) -> int:
    """Let everything that was applied be done; return the number of objects."""
    with closing(sqlite3.connect(state / "state.db")) as connection:
        others = connection.execute(
            "select name, uid from objects where name != ? order by name", (TEMPLATE,)
        ).fetchall()
        held_back = list(_rows(connection, "select * from objects where name != ?", TEMPLATE))
        connection.execute("delete from objects where name != ?", (TEMPLATE,))
        connection.commit()
    simulation = Simulation(state)
    simulation.settle()
    simulation.state.database.close()
    with closing(sqlite3.connect(state / "state.db")) as connection:
        family = list(_rows(connection, "select * from objects"))
        _insert(connection, held_back)
        (version,) = connection.execute(
            "select value from counters where name = 'resource_version'"
        ).fetchone()
        root = next(row for row in family if row["kind"] == "Experiment")
        children = [row for row in family if row["kind"] != "Experiment"]
        for name, uid in others:
            version += 1
            connection.execute(
                "update objects set status = ?, resource_version = ? where uid = ?",
                (root["status"].replace(TEMPLATE, name), version, uid),
            )
        copies = []
        for name, uid in others:
            for child in children:
                version += 1
                text = json.dumps(child).replace(TEMPLATE, name)
                copies.append(
                    {**json.loads(text), "uid": str(uuid.uuid4()), "owner_uid": uid,
                     "resource_version": version}
                )  # fmt: skip
        _insert(connection, copies)
        connection.execute(
            "update counters set value = ? where name = 'resource_version'", (version,)
        )
        connection.execute("delete from changes")
        connection.execute(
            "insert into changes values (?, 'MODIFIED', 'Experiment', 'default', ?)",
            (version, TEMPLATE),
        )
        connection.commit()
        return int(connection.execute("select count(*) from objects").fetchone()[0])


def _rows(connection: sqlite3.Connection, query: str, *values: Any) -> Iterator[dict[str, Any]]:
    cursor = connection.execute(query, values)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


def _insert(connection: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = list(rows[0])
        marks = ", ".join(f":{name}" for name in names)
        connection.executemany(f"insert into objects ({', '.join(names)}) values ({marks})", rows)

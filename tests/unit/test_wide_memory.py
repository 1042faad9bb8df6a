"""A wide dictionary costs a process little memory of its own, from its file to its geometry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEASURED = """
import json, sys, threading
from pathlib import Path
import numpy as np, torch
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.numerics.dictionaries.edge import encode_to_the_edge, encoder_norms
from loopscope.numerics.dictionaries.sparse import decode
from loopscope.numerics.latents.neighbours import neighbours_of
from loopscope.worker.dictionaries import load_dictionary

WIDTH, LATENTS = 128, 2**18
torch.set_num_threads(1)
torch.set_grad_enabled(False)
folder = Path(sys.argv[1])

def written():
    rows = np.random.default_rng(0).standard_normal((LATENTS, WIDTH), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    zeros = np.zeros(LATENTS, dtype=np.float32)
    np.savez(folder / "params.npz", W_dec=rows, W_enc=np.ascontiguousarray(rows.T), b_enc=zeros,
             b_dec=np.zeros(WIDTH, dtype=np.float32), threshold=zeros + 3.5)

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024

written()
ref = describe_dictionary({"path": str(folder / "params.npz")}).ref
before, peak, ended = anonymous(), [0], threading.Event()

def watch():
    while not ended.wait(0.005):
        peak[0] = max(peak[0], anonymous())

threading.Thread(target=watch, daemon=True).start()
dictionary = load_dictionary(ref)
x = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(0))
found, _ = encode_to_the_edge(dictionary, x, 64, 4096, encoder_norms(dictionary))
decode(dictionary, found)
pairs = neighbours_of(
    dictionary.w_dec[:64], dictionary.w_dec, 4096, lambda done: dictionary.release()
)
ended.set()
weights = dictionary.w_enc.nbytes + dictionary.w_dec.nbytes
print(json.dumps({"weights": weights, "peak": peak[0] - before, "active": found.nnz,
                  "itself": bool((pairs.fine[pairs.indptr[:-1]] == np.arange(64)).all())}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's")
def test_conversion_encoding_and_cosines_take_a_fraction_of_the_weights(tmp_path):
    environment = {**os.environ, "LOOPSCOPE_CACHE": str(tmp_path / "cache")}
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(run.stdout)
    assert found["active"] > 0 and found["itself"]
    assert found["weights"] == 2**28
    assert found["peak"] < found["weights"] / 2

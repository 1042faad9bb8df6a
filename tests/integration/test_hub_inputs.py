"""From names to loaded weights over a hub, in a process that starts without any cache."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fake_hub import FakeHub

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
RESOLVE = """
import json, sys
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.models import describe_model
model = describe_model({"name": "tiny/gemma-2", "dtype": "float32"})
release = {"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_3/width_16k/canonical"}
dictionary = describe_dictionary(release)
assert dictionary.d_in == model.d_model and model.n_layers == 4, (dictionary, model)
assert dictionary.hook_name == "blocks.3.hook_resid_post"
assert not {"torch", "transformers", "sae_lens"} & set(sys.modules)
json.dump([model.ref, dictionary.ref], sys.stdout)
"""
LOAD = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from loopscope.worker.dictionaries import load_dictionary
from loopscope.worker.models import load_model
from loopscope.numerics.dictionaries.sparse import encode
model_ref, dictionary_ref = json.load(sys.stdin)
model = load_model(model_ref, Path(sys.argv[1]), "cpu", lambda *_: None)
dictionary = load_dictionary(dictionary_ref)
assert (model.d_model, model.n_layers) == (dictionary.d_in, 4)
assert model.identity == model_ref["identity"]
tokens = torch.tensor([model.encode("the capital of france is paris")])
hidden = model.hf_model(tokens, output_hidden_states=True).hidden_states[4][0].detach()
latents = encode(dictionary, hidden, 4, 16)
assert latents.shape == (tokens.shape[1], dictionary.d_sae) and latents.nnz > 0
print("loaded")
"""


def gemma_scope(d_in: int, d_sae: int) -> bytes:
    draw = np.random.default_rng(0)
    stream = io.BytesIO()
    np.savez(
        stream,
        w_enc=draw.normal(size=(d_in, d_sae)).astype(np.float32),
        w_dec=draw.normal(size=(d_sae, d_in)).astype(np.float32),
        b_enc=np.zeros(d_sae, dtype=np.float32),
        b_dec=np.zeros(d_in, dtype=np.float32),
        threshold=np.full(d_sae, 0.1, dtype=np.float32),
    )
    return stream.getvalue()


def run(code: str, environment: dict[str, str], folder: Path, text: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=environment, input=text, capture_output=True, text=True, cwd=folder, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_become_commits_and_hashes_and_those_become_loaded_weights(
    rope_model_folder, tmp_path
):
    with FakeHub() as hub:
        files = {path.name: path.read_bytes() for path in rope_model_folder.iterdir()}
        hub.add("tiny/gemma-2", {**files, "pytorch_model.bin": b"never to be fetched"})
        hub.add(
            "google/gemma-scope-2b-pt-res",
            {"layer_3/width_16k/average_l0_59/params.npz": gemma_scope(32, 64)},
        )
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "huggingface"),
            "LOOPSCOPE_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": str(ROOT),
        }
        references = run(RESOLVE, environment, tmp_path)
        assert run(RESOLVE, environment, tmp_path) == references
        assert run(LOAD, environment, tmp_path, references).strip().endswith("loaded")
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert run(LOAD, offline, tmp_path, references).strip().endswith("loaded"), "now from the cache"


REFUSED = """
from loopscope.state.failures import Failure
from loopscope.worker.dictionaries import load_dictionary
from loopscope.worker.model_sources import local_model_folder
source = {"kind": "hub", "repo": "tiny/model", "revision": "COMMIT", "path": "x"}
for load in (
    lambda: load_dictionary(
        {"format": "saelens", "identity": "x", "source": source, "files": {"cfg.json": "0"}}
    ),
    lambda: local_model_folder(
        {"name": "tiny", "source": source, "files": {"x/cfg.json": "0"}}, None, lambda *_: None
    ),
):
    try:
        load()
    except Failure as failure:
        print(type(failure).__name__, failure.reason, "HF_TOKEN" in failure.message)
"""


@pytest.mark.parametrize("status", [401, 403])
def test_a_worker_that_may_not_read_asks_for_a_token_and_does_not_try_on(tmp_path, status):
    with FakeHub() as hub:
        commit = hub.add("tiny/model", {"x/cfg.json": b"{}"})
        hub.broken_with = status
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "huggingface"),
            "PYTHONPATH": str(ROOT),
        }
        said = run(REFUSED.replace("COMMIT", commit), environment, tmp_path)
    assert said.splitlines() == [
        "TerminalFailure InputMissing True",
        "TerminalFailure NotFound True",
    ]

"""A small, repeatable dose of what ``make fuzz`` does at length; and proof that the watch bites."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import time
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopscope.inputs import headers
from tests.fuzz import seeds, targets
from tests.fuzz.choices import mutated
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.watch import Hang, Watch
from tests.tree import ROOT

EXAMPLES = {"report": 6, "command": 25, "release": 15}
EXAMPLES_OTHERWISE = 120


def inputs_of(target: Target) -> st.SearchStrategy[bytes]:
    """Seeds with some harm done to them, decisions for structured targets, and plain noise."""
    harmed = st.builds(mutated, st.sampled_from(target.seeds), st.randoms(note_method_calls=False))
    return st.one_of(harmed, harmed, st.binary(max_size=200))


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_end_in_an_answer_or_a_refusal(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target, watch = TARGETS[name], Watch()
    run = target.make(tmp_path)
    run(target.seeds[0])  # late imports are not the input's fault

    @settings(
        max_examples=EXAMPLES.get(name, EXAMPLES_OTHERWISE),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs_of(target))
    def feed(data: bytes) -> None:
        with watch.input(data):
            run(data)

    feed()
    assert watch.inputs >= EXAMPLES.get(name, EXAMPLES_OTHERWISE) // 2


def test_the_watch_ends_what_works_too_long(monkeypatch):
    monkeypatch.setattr("tests.fuzz.watch.SECONDS_MAX", 0.05)
    with pytest.raises(Hang), Watch().input(b""):
        while True:
            pass


def test_the_watch_ends_what_waits_for_nothing(monkeypatch):
    monkeypatch.setattr("tests.fuzz.watch.WAIT_SECONDS_MAX", 0.05)
    with pytest.raises(Hang), Watch().input(b""):
        time.sleep(600)


def test_the_watch_notices_memory_that_was_given_back_meanwhile():
    """In a process of its own: the system may take pages of files from a large one meanwhile."""
    program = f"""
from tests.fuzz import watch
watch.MEMORY_BYTES_MAX = {50 * 10**6}
with watch.Watch().input(b""):
    bytearray({400 * 10**6})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Hungry: " in done.stderr


def test_a_reader_that_forgets_a_refusal_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "_NPZ_DAMAGE", (zipfile.BadZipFile,))
    target = TARGETS["npz"]
    run, generator = target.make(tmp_path), random.Random(1)
    with pytest.raises((zlib.error, ValueError, NotImplementedError, RuntimeError)):
        for _ in range(20_000):
            run(mutated(generator.choice(target.seeds), generator))


def test_every_target_accepts_its_own_good_input(tmp_path):
    """Else a target would only fuzz its own refusal."""
    for kind in seeds.SPECS:
        (tmp_path / kind).mkdir()
        folder = targets.prepared(tmp_path / kind)
        (folder / "x.yaml").write_bytes(seeds.encoded(seeds.document(kind)))
        assert len(targets.load_path(folder / "x.yaml", folder)) == 1
    stream, size = io.BytesIO(seeds.safetensors()), len(seeds.safetensors())
    assert set(targets.read_safetensors_header(stream, size)) == set(seeds.arrays())
    assert len(targets.read_npz_headers(io.BytesIO(seeds.npz(compressed=True)))) == 5
    assert targets.read_gguf_facts(io.BytesIO(seeds.gguf())).d_model == 640
    (tmp_path / "all").mkdir()
    folder = targets.prepared(tmp_path / "all")
    assert targets.describe_dictionary({"path": str(folder / "fine")}).d_sae == seeds.D_SAE
    model = {"name": "m", "source": {"folder": str(folder / "model")}}
    assert targets.describe_model(model).d_model == seeds.D_IN

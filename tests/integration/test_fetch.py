"""What specs name is fetched ahead of time; then everything runs with the hub switched off."""

import shutil

import pytest
import yaml

from tests.command_line import called
from tests.fake_hub import FakeHub
from tests.tiny_experiment import make_experiment

pytestmark = pytest.mark.integration

MODEL = {"name": "tiny/model", "source": {"hub": "tiny/model"}}
SIDES = {side: {"release": "tiny/saes", "id": side} for side in ("coarse", "fine")}
SAID = ("model tiny/model", "dictionary coarse of release tiny/saes", "dictionary fine of")


class Home:
    """A machine with caches of its own, and a spec all of whose inputs lie on a hub."""

    def __init__(self, folder, hub):
        self.folder = folder
        self.hub = hub
        self.switches = {"HF_HUB_OFFLINE": "0"}
        make_experiment(folder, model=MODEL, dictionaries=SIDES)
        model = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
        hub.add("tiny/model", {**model, "pytorch_model.bin": b"never to be fetched"})
        saes = {
            f"{side}/{path.name}": path.read_bytes()
            for side in SIDES
            for path in (folder / side).iterdir()
        }
        hub.add("tiny/saes", saes)
        for name in ("model", *SIDES):
            shutil.rmtree(folder / name)

    def __call__(self, *words):
        own = {"LOOPSCOPE_CACHE": str(self.folder / "cache"), "HF_HOME": str(self.folder / "hf")}
        there = {"HF_ENDPOINT": self.hub.endpoint, "HF_HUB_DISABLE_XET": "1"}
        state = ("--state", str(self.folder / "state"))
        done = called(*state, *words, **own, **there, **self.switches)
        return done.returncode, done.stdout, done.stderr

    def fetch(self):
        root = ("--root", str(self.folder))
        return self("fetch", "-f", str(self.folder / "specs"), *root)


@pytest.fixture
def home(tmp_path):
    with FakeHub() as hub:
        yield Home(tmp_path, hub)


def test_after_a_fetch_everything_runs_with_the_hub_off(home):
    code, out, error = home.fetch()
    assert code == 0, error
    lines = out.splitlines()
    assert [line.split(":")[0][: len(start)] for line, start in zip(lines, SAID, strict=True)] == [
        *SAID
    ]
    assert all("downloaded, hashes right" in line for line in lines), out
    commit = home.hub.repositories["tiny/model"].commit
    assert f"at {commit[:12]}" in lines[0] and "kB" in lines[0]
    assert not (home.folder / "state").exists(), "it is the caches that it fills"

    home.hub.broken_with = 503
    home.switches = {"HF_HUB_OFFLINE": "1"}
    code, out, error = home.fetch()
    assert (code, out.count("there already")) == (0, 3), error
    spec = yaml.safe_load((home.folder / "specs" / "tiny.yaml").read_text())["spec"]
    capture = {
        "apiVersion": "loopscope.dev/v1alpha1",
        "kind": "Capture",
        "metadata": {"name": "alone"},
        "spec": {name: spec[name] for name in ("model", "hook", "prompts")},
    }
    (home.folder / "alone").mkdir()
    (home.folder / "alone" / "capture.yaml").write_text(yaml.safe_dump(capture))
    root = ("--root", str(home.folder))
    code, out, error = home("run", str(home.folder / "alone"), *root)
    assert code == 0, out + error
    assert "capture/alone is ready" in out


def test_what_cannot_be_had_is_one_line_and_keeps_nothing_else_back(home):
    del home.hub.repositories["tiny/saes"]
    code, out, error = home.fetch()
    assert code == 2
    refused = [line for line in error.splitlines() if line.startswith("dictionary")]
    assert len(refused) == 2 and "the hub has no repository tiny/saes" in refused[0]
    assert out.startswith("model tiny/model: ") and "downloaded" in out

"""Every example is a valid spec, also without a network."""

import socket
from pathlib import Path

import pytest

from controller.applying import load_admitted
from loopscope.context import root_of

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*/experiment.yaml"))


@pytest.fixture
def without_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("an example was checked over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_promised_examples_are_there():
    assert {file.parent.name for file in FILES} >= {
        "france",
        "gemma-2-2b",
        "gemma-3-270m-scope",
        "gpt2-small",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_an_example_validates_offline(file, without_network):
    (item,) = load_admitted(file, root_of(file, None))
    spec = item.manifest.canonical_spec()
    assert item.manifest.kind == "Experiment"
    assert spec["prompts"]["target"]["texts"] and spec["prompts"]["neutral"]["texts"]
    assert "steering" in spec, "an example shows the whole journey"


def test_no_two_examples_share_a_name():
    names = [load_admitted(file, root_of(file, None))[0].manifest.key for file in FILES]
    assert len(set(names)) == len(names)

"""Looking at models and dictionaries: what becomes of an answer, and of none."""

import pytest

from loopscope.controller.reconcile import resolution
from loopscope.controller.reconcile.resolution import (
    TRIES_MAX,
    Resolution,
    Resolver,
    is_local,
    resolve,
)
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.reconcilers.references import InputReference
from loopscope.state.records import UNAVAILABLE
from tests.simulated import Immediately

MODEL = InputReference("model", {"name": "x"})


@pytest.mark.parametrize(
    ("error", "reason", "message", "terminal"),
    [
        (InputRefused("model.name", "no such model"), "InputRefused",
         "model.name: no such model", True),
        (InputRefused("", "it is no model"), "InputRefused", "it is no model", True),
        (ResolutionPending("HubUnreachable", "no answer"), "HubUnreachable", "no answer", False),
        (PermissionError("not yours"), "InputUnreadable", "not yours", False),
        (KeyError("architectures"), "UnexpectedError", "KeyError: 'architectures'", False),
    ],
)  # fmt: skip
def test_a_look_that_fails_has_a_reason_and_only_a_refusal_is_final(
    monkeypatch, error, reason, message, terminal
):
    def described(reference):
        raise error

    monkeypatch.setattr(resolution, "_described", described)
    found = resolve(MODEL)
    assert (found.facts, found.reason, found.message) == (None, reason, message)
    assert found.terminal is terminal


@pytest.mark.parametrize(
    ("reference", "local"),
    [
        (InputReference("dictionary", {"path": "/d"}), True),
        (InputReference("dictionary", {"release": "r", "id": "i"}), False),
        (MODEL, False),
        (InputReference("model", {"name": "x", "source": {"hub": "y"}}), False),
        (InputReference("model", {"name": "x", "source": {"folder": "/m"}}), True),
        (InputReference("model", {"name": "x", "source": {"gguf": "/m.gguf"}}), True),
        (InputReference("model", {"name": "x", "source": {"package": "p"}}), True),
    ],
)
def test_only_what_lies_on_this_machine_is_looked_at_without_a_network(reference, local):
    assert is_local(reference) is local


def test_what_an_earlier_version_found_out_is_kept_under_the_name_that_this_one_looks_for():
    """Else an upgrade would ask for every model and dictionary anew, which may need a network."""
    assert MODEL.digest == "26e607226f642d98548c83c64cf21113e80eee82ff9b5506d346dcb7f40666b7"


@pytest.mark.parametrize(
    "reason", ["HubUnreachable", "HubBusy", "InputUnreadable", "InputChanging"]
)
def test_after_some_tries_in_vain_an_input_is_unavailable_unless_a_writer_is_at_work(reason):
    def answer(reference):
        return Resolution(reference, None, reason, "no answer")

    resolver, found = Resolver(Immediately(), lambda: None, answer), []
    for _ in range(TRIES_MAX):
        resolver.request(MODEL)
        found += resolver.finished()
    assert {one.reason for one in found[:-1]} == {reason}
    last = reason if reason == "InputChanging" else UNAVAILABLE
    assert (found[-1].reason, reason in (found[-1].message or "")) == (last, last != reason)

"""What was fetched ahead of time holds where the hub cannot be asked, and nowhere else."""

import pytest

from loopscope.commands.writing.fetch import _FetchedDatasets, _resolution
from loopscope.commands.writing.tokens import _resolved
from loopscope.context import CommandError, Globals
from loopscope.controller.plan.unchecked import _what_is_not_known
from loopscope.controller.reconcile import resolution
from loopscope.controller.reconcile.resolution import resolve
from loopscope.inputs import fetched as fetched_module
from loopscope.inputs import models
from loopscope.inputs.datasets import Datasets
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.fetched import fetched, remember_fetched
from loopscope.inputs.hub import Hub
from loopscope.reconcilers.references import InputReference, model_reference
from loopscope.specs.texts.source import DatasetAsked
from loopscope.state.db import inputs
from tests.fake_hub import FakeHub
from tests.simulated import new_state

REFERENCE = InputReference("model", {"name": "owner/model"})
FACTS = {"ref": {"identity": "abc"}, "d_model": 8, "architecture": "Odd"}


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """A cache of one's own, and a hub that answers with what it is told."""
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))

    def with_(error):
        def describe(model):
            raise error

        for module in (resolution, models):
            monkeypatch.setattr(module, "describe_model", describe)

    return with_


@pytest.mark.parametrize("reason", ["HubOffline", "HubUnreachable"])
def test_without_a_hub_it_is_where_a_fetch_found_it(answer, reason):
    answer(ResolutionPending(reason, "no route"))
    assert resolve(REFERENCE).reason == reason, "nothing was fetched"
    for _ in range(2):
        remember_fetched(REFERENCE.digest, FACTS)
    found = resolve(REFERENCE)
    assert (found.facts, found.reason) == (FACTS, None)
    other = InputReference("model", {"name": "owner/model", "source": {"revision": "v2"}})
    assert resolve(other).facts is None, "another revision was not fetched"


@pytest.mark.parametrize(
    "error", [ResolutionPending("HubBusy", "503"), InputRefused("name", "no such repository")]
)
def test_an_answer_of_the_hub_goes_before_what_was_fetched(answer, error):
    answer(error)
    remember_fetched(REFERENCE.digest, FACTS)
    assert resolve(REFERENCE).facts is None


def test_what_an_older_reader_fetched_or_something_damaged_counts_for_nothing(answer, monkeypatch):
    remember_fetched(REFERENCE.digest, FACTS)
    assert fetched(REFERENCE.digest) == FACTS
    monkeypatch.setattr(fetched_module, "READER_REVISION", 99)
    assert fetched(REFERENCE.digest) is None
    remember_fetched(REFERENCE.digest, FACTS)
    fetched_module._path(REFERENCE.digest).write_text("{")
    assert fetched(REFERENCE.digest) is None


def test_what_a_state_folder_knows_is_fetched_at_its_commit(answer, tmp_path):
    answer(AssertionError("the hub is not asked"))
    state = new_state(tmp_path / "state")
    with state.database.write() as connection:
        inputs.record(
            connection, REFERENCE.digest, "model", REFERENCE.reference, now=1.0, facts=FACTS
        )
    options = Globals(str(tmp_path / "state"), "default")
    assert _resolution(options, REFERENCE).facts == FACTS


def test_tokens_are_shown_without_the_hub_by_the_template_that_was_fetched(answer):
    answer(ResolutionPending("HubOffline", "no route"))
    spec = {"model": {"name": "owner/model"}, "prompts": {"chat": {"template": "model"}}}
    with pytest.raises(CommandError, match="HubOffline"):
        _resolved(spec)
    reference = model_reference(spec["model"], spec["prompts"])
    remember_fetched(reference.digest, {**FACTS, "chat_template": "{{ x }}"})
    assert _resolved(spec) == (FACTS["ref"], "{{ x }}")


def test_what_was_fetched_is_not_said_to_be_unchecked(answer):
    assert "not checked" in (_what_is_not_known(None, REFERENCE) or "")
    remember_fetched(REFERENCE.digest, FACTS)
    assert _what_is_not_known(None, REFERENCE) is None


def test_data_sets_are_fetched_and_each_is_said_once(answer, tmp_path):
    with FakeHub() as fake:
        commit = fake.add("datasets/owner/places", {"rows.csv": b"text\nParis is\n"})
        hub = Hub(endpoint=fake.endpoint, cache=tmp_path / "hf")
        asked = DatasetAsked("owner/places", "main", "rows.csv")
        for how in ("downloaded", "there already"):
            fetching = _FetchedDatasets(Datasets(hub))
            found = [fetching.find(asked) for _ in range(2)]
            assert found[0].files[0].path.read_bytes() == b"text\nParis is\n"
            line = f"data set owner/places: 1 file, 14 B at {commit[:12]}, {how}, hashes right"
            assert list(fetching.lines.values()) == [line]

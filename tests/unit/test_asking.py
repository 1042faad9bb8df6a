"""Asking: what may be asked of an experiment, how many questions may stand, what is refused."""

import io
import json

import pytest

from loopscope.controller.apply import questions
from loopscope.controller.plan import asking
from loopscope.controller.plan.asking import ask, question_name
from loopscope.controller.plan.editing import store_edited
from loopscope.state.db import objects
from loopscope.state.failures import TerminalFailure
from loopscope.views.experiment import ExperimentView
from loopscope.views.questions import asks_latents
from tests.unit.reports_case import build
from tests.unit.test_question import LATENTS


def text(number):
    return {**LATENTS, "text": f"Paris is {number}"}


def asked(simulation, number):
    key = ask(simulation.state, "default", text(number), now=simulation.clock.now())
    simulation.clock.advance(1.0)
    return key.name


def names(simulation):
    return {one.key.name for one in simulation.objects() if one.key.kind == "Question"}


def test_the_same_question_is_the_same_object(settled):
    assert asked(settled, 1) == asked(settled, 1) == question_name(text(1))
    assert settled.settle() == ["question"]
    assert asked(settled, 1) and settled.settle() == []


def test_who_asks_the_same_at_the_same_moment_gets_the_same_object(settled, monkeypatch):
    def somebody_is_quicker(*given, **more):
        store_edited(*given, **more)
        return store_edited(*given, **more)

    monkeypatch.setattr(asking, "store_edited", somebody_is_quicker)
    assert asked(settled, 1) == question_name(text(1))
    assert settled.settle() == ["question"]


def test_questions_that_wait_are_few_and_one_more_is_refused_in_words(settled, monkeypatch):
    monkeypatch.setattr(questions, "WAITING_MAX", 2)
    asked(settled, 1), asked(settled, 2)
    with pytest.raises(TerminalFailure, match="2 questions wait for an answer, and at most 2 may"):
        asked(settled, 3)
    assert len(names(settled)) == 2
    settled.settle()
    asked(settled, 3)


def test_one_that_is_there_is_asked_again_however_many_wait(settled, monkeypatch):
    monkeypatch.setattr(questions, "WAITING_MAX", 1)
    assert asked(settled, 1) == asked(settled, 1)


def test_no_more_are_kept_than_may_be(settled, monkeypatch):
    monkeypatch.setattr(questions, "HELD_MAX", 1)
    asked(settled, 1)
    settled.settle()
    with pytest.raises(TerminalFailure, match="1 questions are kept, and at most 1 may be"):
        asked(settled, 2)


def test_the_oldest_answered_go_and_what_was_applied_by_hand_stays(settled, monkeypatch):
    monkeypatch.setattr(questions, "HISTORY", 2)
    settled.apply(text(0), name="mine", kind="Question")
    first = [asked(settled, number) for number in (1, 2)]
    settled.settle()
    newer = asked(settled, 3)
    settled.settle()
    assert names(settled) == {"mine", first[1], newer}


def test_a_deleted_question_leaves_its_answer_for_the_next_time(settled):
    name = asked(settled, 1)
    settled.settle()
    settled.delete(name, "Question")
    asked(settled, 1)
    assert settled.settle() == []


@pytest.fixture
def state(tmp_path):
    return build(tmp_path)[0]


def test_what_may_be_asked_is_told(state, loopscope):
    code, out, _ = loopscope("ask", "france")
    assert code == 0 and "coarse latents:" in out and "multi" in out
    found = json.loads(loopscope("ask", "france", "-o", "json")[1])
    assert found["strengthUnit"] and found["arms"]["multi"] and found["latents"]["coarse"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--steer", "nowhere"), "france has no arm 'nowhere'; it has"),
        (("--steer", "multi", "--strength", "0.77"), "its strengths are"),
        (("--strength", "1"), "belong to --steer"),
        (("--latent", "coarse-1"), "'coarse-1' is no latent; expected for example coarse/279"),
        (("--latent", "coarse/1", "--steer", "multi"), "either --latent or --steer"),
        (("-o", "yaml"), "unknown output 'yaml'"),
        (("--timeout", "soon"), "--timeout: 'soon' is not a duration"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_nothing_is_stored(state, loopscope, words, complaint):
    code, _, err = loopscope("ask", "france", "We met in", *words)
    assert code != 0 and complaint in err
    with state.database.read() as connection:
        assert objects.listed(connection, "Question") == []


@pytest.mark.parametrize("word", ["caf\udce9", "-"])
def test_a_text_that_is_not_utf_8_is_refused_in_words(state, loopscope, monkeypatch, word):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"))
    code, _, err = loopscope("ask", "france", word, "--no-wait")
    assert code == 2 and err == "error: the text is not UTF-8; nothing was asked\n"


def test_a_question_left_to_the_queue_is_stored_and_says_what_it_waits_for(state, loopscope):
    code, out, _ = loopscope("ask", "france", "We met in", "--no-wait", "-o", "json")
    found = json.loads(out)
    assert code == 0 and found["problem"].startswith("Pending")
    with state.database.read() as connection:
        (record,) = objects.listed(connection, "Question")
    assert record.key.name == found["name"] and record.spec["text"] == "We met in"
    assert record.spec["captureRef"] == {"name": "france-capture"}


def test_latents_that_are_asked_for_by_default_are_those_that_the_evidence_shows(tmp_path):
    view = ExperimentView.load(*build(tmp_path, evidence=True))
    shown = view.stage("evidence").table_named("latents.parquet")
    spec = asks_latents(view, "We met in")
    for side, latents in spec["latents"].items():
        assert latents == sorted(shown[shown["side"] == side]["latent"])

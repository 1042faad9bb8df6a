"""Questions of the live page: who may ask, what is stored, what is answered, what is refused."""

import pytest

from loopscope.state.db import objects
from tests.answered import STRONGEST, answer, asked_in_process
from tests.unit.reports_case import build

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from tests.served import served

OWN = {"X_Loopscope_Page": "1"}
NOW = 1_760_000_000.0
ASKED = {"namespace": "default", "experiment": "france", "text": "We met in Paris"}


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return build(tmp_path_factory.mktemp("asked"))[0]


@pytest.fixture(scope="module")
def api(state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    with asked_in_process(), served(state, folder, lambda: NOW, writable=True) as running:
        yield running


def ask(api, headers=OWN, **changes):
    return api("/page/questions", "POST", {**ASKED, **changes}, **headers)


def questions(state):
    with state.database.read() as connection:
        return {one.key.name: one for one in objects.listed(connection, "Question")}


def test_what_may_be_asked_is_told(api):
    found = api("/page/questions/default/france").body
    assert found["arms"]["multi"] and found["latents"]["coarse"] and found["strengthUnit"]


def test_a_text_is_stored_as_a_question_and_answered_when_it_is(api, state):
    found = ask(api).body
    assert found["problem"].startswith("Pending")
    assert ask(api).body["name"] == found["name"]
    assert questions(state)[found["name"]].spec["text"] == ASKED["text"]
    answer(state, found["name"], NOW)
    found = ask(api).body
    assert "".join(token["text"] for token in found["tokens"]) == ASKED["text"]
    assert max(map(max, (one["activations"] for one in found["latents"]))) == STRONGEST


def test_an_opening_goes_on_unsteered_and_under_the_arm_with_concept_words_told(api, state):
    steered = {
        "arm": "multi",
        "strength": api("/page/questions/default/france").body["arms"]["multi"][0],
    }
    found = ask(api, **steered).body
    answer(state, found["name"], NOW)
    texts = ask(api, **steered).body["texts"]
    assert [one["arm"] for one in texts] == ["none", "multi"]
    assert texts[1]["concept"] == [[1, 6]] and texts[1]["text"][1:6] == "Paris"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"text": " "}, "text: expected 1 to 2,000 characters"),
        ({"text": "-"}, "text: expected 1 to 2,000 characters"),
        ({"text": "x" * 2001}, "text: expected 1 to 2,000 characters"),
        ({"text": 3}, "text: expected a text, found 3"),
        ({"arm": "--state"}, "arm: expected a text, found '--state'"),
        ({"strength": "1"}, "strength: expected a number, found '1'"),
        ({"text": "\ud800"}, "text: expected a text without NUL and lone surrogates"),
        ({"arm": "a\0b"}, "arm: expected a text without NUL and lone surrogates"),
        ({"arm": "multi", "strength": 10**400}, "strength: expected at most 1,000,000"),
        ({"arm": "multi", "strength": float("nan")}, "strength: expected at most 1,000,000"),
        ({"state": "/"}, "state: expected one of arm, experiment"),
        ({"arm": "nowhere"}, "france has no arm 'nowhere'"),
        ({"experiment": "peru"}, "no experiment named 'peru'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words_and_stores_nothing(
    api, state, changes, complaint
):
    before = set(questions(state))
    answered = ask(api, **changes)
    assert answered.code in (400, 404, 409) and complaint in answered.body["message"]
    assert set(questions(state)) == before


def test_a_text_that_looks_like_an_option_is_a_text(api, state):
    found = ask(api, text="--help me to Paris").body
    assert questions(state)[found["name"]].spec["text"] == "--help me to Paris"


def test_only_the_page_may_ask_and_only_of_a_server_that_writes(api, state, tmp_path):
    assert ask(api, headers={}).code == 403
    with served(state, tmp_path, lambda: NOW) as reading:
        refused = ask(reading)
        assert refused.code == 405 and "--write" in refused.body["message"]

"""Outcomes of texts by their measures: repetition, words, embeddings, ratings."""

import importlib.util
import json
import math
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from loopscope.numerics.steering.outcomes import sibling_margin
from loopscope.specs.lexicon import inflected
from loopscope.specs.ratings import FORMAT, Rated
from loopscope.specs.scoring import NEGATIONS
from loopscope.worker import sentence_encoder
from loopscope.worker.stages.scores.embedding import embedding
from loopscope.worker.stages.scores.ratings import ratings
from loopscope.worker.stages.scores.repetition import compression, repetition
from loopscope.worker.stages.scores.scored_texts import ScoredText
from loopscope.worker.stages.scores.words import words

HAS_ENCODER = importlib.util.find_spec(sentence_encoder.PACKAGE) is not None
NO_ENCODER = "the extra embedding is not installed; pip install 'loopscope[embedding]'"


def text(words, tokens=(), opening="", place=0):
    return ScoredText(Rated(f"o{place}", "none", 0.0, 0), opening, words, tuple(tokens))


def test_a_loop_has_few_distinct_n_grams_and_compresses_well():
    loop, plain = text("the cat " * 30, [1, 2] * 30), text("a quick brown fox", [1, 2, 3, 4])
    found = repetition([loop, plain, text("", [])]).columns
    assert found["distinct_1_grams"][:2] == [2 / 60, 1.0]
    assert found["distinct_3_grams"][:2] == [2 / 58, 1.0]
    assert all(math.isnan(column[2]) for column in found.values())
    assert found["compression"][0] > 10 > 1.2 > found["compression"][1]


@pytest.mark.parametrize("words", ["Paris", "été à Nîmes", "x" * 1000, "\ud800"])
def test_compression_is_that_of_the_whole_stream_less_its_frame(words):
    plain = words.encode("utf-8", "surrogatepass")
    frame = 6  # RFC 1950: two bytes before, four behind
    expected = len(plain) / (len(zlib.compress(plain, 9)) - frame)
    assert compression(words) == pytest.approx(expected)


WORDS = {"lexicon": ["Paris", "baker", "café au lait", "city", "box"], "forms": "inflected",
         "negations": list(NEGATIONS), "negationReach": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "hit", "negated"),
    [
        ("We saw Paris.", 1, 0), ("bakers and boxes", 1, 0), ("the cities", 1, 0),
        ("the baker's shop", 1, 0), ("CAFÉ  AU\nLAIT", 1, 0), ("cafe au lait", 1, 0),
        ("Parisian", 0, 0), ("Pariss", 0, 0), ("it is not Paris", 0, 1),
        ("It isn\u2019t in Paris", 0, 1),
        ("no bakers here", 0, 1), ("not here. Paris is", 1, 0),
        ("never far away from old Paris", 1, 0),
        ("not Paris but a city in the north, far from Paris", 1, 1), ("knot Paris", 1, 0),
        ("", 0, 0),
    ],
)  # fmt: skip
def test_a_word_counts_in_its_forms_and_not_where_it_is_negated(said, hit, negated):
    found = words([text(said)], WORDS).columns
    assert (found["words"], found["negated_words"]) == ([hit], [negated])


def test_a_negation_that_ends_the_opening_negates_what_follows():
    assert words([text(" Paris", opening="It was not")], WORDS).columns["words"] == [0.0]
    assert words([text("Paris", opening="It was Pa")], WORDS).columns["words"] == [0.0]


def test_without_reach_or_forms_the_words_stand_as_they_are():
    plain = {**WORDS, "forms": "exact", "negationReach": 0}
    assert words([text("not Paris"), text("bakers")], plain).columns["words"] == [1.0, 0.0]


def test_a_name_has_no_plural():
    assert inflected(["France", "French baker", "C++", "toy"]) == [
        "France", "French baker", "French bakers", "C++", "toy", "toys",
    ]  # fmt: skip


def rated(rater, date, *said):
    rows = [
        {"prompt_id": f"o{place}", "arm": "none", "strength": 0.0, "sample": 0, "rating": rating}
        for place, rating in said
    ]
    return json.dumps(
        {"format": FORMAT, "experiment": "x", "steering": "0" * 64, "rater": rater, "date": date,
         "seed": 0, "ratings": rows}
    )  # fmt: skip


def test_people_are_averaged_and_who_rated_twice_counts_by_the_later_rating():
    sets = [
        rated("ada", "2026-11-30T10:00", (0, 1), (1, 0)),
        rated("ada", "2026-11-29T10:00", (0, 0)),
        rated("bob", "2026-11-30T10:00", (0, 0)),
    ]
    found = ratings([text("", place=place) for place in range(3)], {"sets": sets}).columns["rating"]
    assert found[:2] == [0.5, 0.0]
    assert math.isnan(found[2])


def test_a_margin_is_the_cosine_to_the_concept_less_the_mean_of_those_to_siblings():
    generator = np.random.default_rng(0)
    texts, concept, siblings = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (generator.normal(size=(n, 6)) for n in (5, 2, 3))
    )
    found = sibling_margin(texts, concept, siblings)
    for row, margin in zip(texts, found, strict=True):
        middle = sum(concept) / 2
        own = row @ middle / math.sqrt(middle @ middle)
        assert margin == pytest.approx(own - sum(row @ one for one in siblings) / 3)
    assert sibling_margin(concept[:1], concept[:1], -concept[:1])[0] == pytest.approx(2.0)


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sentence_encoder, "PACKAGE", "no_such_package")
    with pytest.raises(sentence_encoder.TerminalFailure, match="install the extra `embedding`"):
        sentence_encoder.SentenceEncoder.load()


def test_other_weights_are_refused(monkeypatch):
    if not HAS_ENCODER:
        pytest.skip(NO_ENCODER)
    monkeypatch.setattr(sentence_encoder, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(sentence_encoder.TerminalFailure, match="expected 000000000000"):
        sentence_encoder.SentenceEncoder.load()


@pytest.mark.skipif(not HAS_ENCODER, reason=NO_ENCODER)
def test_texts_about_the_concept_are_nearer_to_it_than_those_about_siblings():
    asked = {
        "concept": ["France", "Life in France"],
        "siblings": ["Germany", "Italy", "Japan"],
        "threshold": 0.0,
    }
    said = [
        "the Louvre and the cafés along the Seine", "we ate croissants in Lyon",
        "temples and gardens in Kyoto", "the Berlin wall came down", "", " ",
        "the Louvre and the cafés along the Seine",
    ]  # fmt: skip
    context = SimpleNamespace(progress=lambda *_: None)
    found = embedding([text(one) for one in said], asked, context).columns
    margins = found["embedding"]
    assert min(margins[:2]) > 0.1 > 0.0 > max(margins[2:4])
    assert found["embedding_hit"][:4] == [1.0, 1.0, 0.0, 0.0]
    assert all(math.isnan(one) for one in (*margins[4:6], *found["embedding_hit"][4:6]))
    assert margins[6] == margins[0]

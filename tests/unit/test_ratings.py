"""Ratings: read, refused, kept beside the run that they belong to, shown with their agreement."""

import csv
import io
import json

import pytest

from loopscope.reports.page.html import render_report
from loopscope.specs.ratings import COLUMNS, Rated, RatingSet, read_ratings
from loopscope.state import ratings as kept
from loopscope.views.experiment import ExperimentView
from loopscope.views.ratings import LEXICON, ratings_of
from tests.unit.reports_case import build


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("rated"))


@pytest.fixture
def view(built):
    return ExperimentView.load(*built)


def document(view, rater="Anna", say=lambda text, concept: concept, **changes):
    stage = view.stage("steering")
    scores = stage.table_named("steering_scores.parquet")
    rows = [
        {
            "prompt_id": row.prompt_id,
            "arm": row.arm,
            "strength": row.strength,
            "sample": int(row.sample),
            "rating": say(row, int(row.concept > 0)),
        }
        for row in scores.itertuples()
    ]
    return {
        "format": "loopscope ratings 1",
        "experiment": "france",
        "steering": stage.artifact.content_digest,
        "rater": rater,
        "date": "2026-11-29T12:00:00.000Z",
        "seed": 7,
        "ratings": rows,
    } | changes


def text_of(document):
    return json.dumps(document)


def csv_of(document):
    common = {name: value for name, value in document.items() if name != "ratings"}
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*common, *COLUMNS])
    for row in document["ratings"]:
        writer.writerow([*common.values(), *(row[name] for name in COLUMNS)])
    return out.getvalue()


def test_json_and_csv_say_the_same(view):
    given = document(view)
    assert read_ratings(text_of(given)) == read_ratings(csv_of(given))
    assert read_ratings(text_of(given)).to_json() == given


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": "other"}, "format: expected 'loopscope ratings 1', found 'other'"),
        ({"steering": "abc"}, "steering: expected a digest, found 'abc'"),
        ({"rater": "  "}, "rater: expected a name"),
        ({"rater": "a\x1b[31m"}, "rater: expected a name"),
        ({"date": "yesterday"}, "date: expected ISO 8601, found 'yesterday'"),
        ({"seed": -1}, "seed: expected a whole number, found -1"),
        ({"ratings": []}, "ratings: expected 1 to 20,000"),
        ({"ratings": [{"prompt_id": "a"}]}, r"ratings\[0\]: expected prompt_id and arm"),
        ({"experiment": "x" * 100}, "experiment: expected a name"),
        (
            {"ratings": [{"prompt_id": "a", "arm": "b", "strength": 10**400, "sample": 0}]},
            r"ratings\[0\].strength: expected at most 1,000,000",
        ),
    ],
)
def test_what_is_no_set_of_ratings_is_refused_with_place_and_reason(view, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_ratings(text_of(document(view, **changes)))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"format":' + "[" * 100_000, "nested too deeply"),
        ("format," + "x" * 200_000 + "\n", "it is not CSV"),
    ],
)
def test_a_file_that_a_reader_gives_up_on_is_refused_in_words(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_ratings(text)


@pytest.mark.parametrize("rating", [2, True, None, "1", 0.5])
def test_a_rating_is_0_or_1(view, rating):
    given = document(view)
    given["ratings"][3]["rating"] = rating
    with pytest.raises(ValueError, match=r"ratings\[3\].rating: expected 0 or 1"):
        read_ratings(text_of(given))


def test_a_text_that_is_rated_twice_is_refused(view):
    given = document(view)
    given["ratings"].append(given["ratings"][0])
    with pytest.raises(ValueError, match="is rated twice"):
        read_ratings(text_of(given))


def test_what_is_stored_twice_is_there_once_and_a_changed_file_is_left_out(tmp_path):
    one = RatingSet(
        "france", "a" * 64, "Anna", "2026-11-29T12:00:00Z", 1, {Rated("o", "a", 1.0, 0): 1}
    )
    assert kept.store(tmp_path / "ratings", one) and not kept.store(tmp_path / "ratings", one)
    assert kept.stored(tmp_path / "ratings", "a" * 64) == [one]
    (path,) = (tmp_path / "ratings" / ("a" * 64)).iterdir()
    path.write_text(path.read_text().replace("Anna", "Bert"))
    assert kept.stored(tmp_path / "ratings", "a" * 64) == []


def test_a_rater_who_says_what_the_lexicon_says_agrees_wholly(view):
    sets = [read_ratings(text_of(document(view)))]
    (row,) = ratings_of(sets, view.stage("steering")).compared
    assert (row.rater, row.other) == ("Anna", LEXICON)
    assert row.agreement.kappa == row.agreement.observed == 1.0


def test_raters_are_compared_with_one_another_and_the_later_word_of_one_counts(view):
    flipped = document(view, say=lambda text, concept: 1 - concept)
    sets = [
        read_ratings(text_of(flipped)),
        read_ratings(text_of(document(view, date="2026-11-30T12:00:00Z"))),
        read_ratings(text_of({**flipped, "rater": "Bert"})),
    ]
    found = {
        (r.rater, r.other): r.agreement for r in ratings_of(sets, view.stage("steering")).compared
    }
    assert set(found) == {("Anna", LEXICON), ("Bert", LEXICON), ("Anna", "Bert")}
    assert found["Anna", LEXICON].kappa == 1.0 and found["Anna", "Bert"].observed == 0.0


def test_a_report_without_ratings_does_not_speak_of_them(view):
    assert 'id="ratings"' not in render_report(view)


def test_imported_ratings_stand_in_report_and_describe(
    built, view, loopscope, tmp_path, monkeypatch
):
    state, key = built
    (tmp_path / "state").symlink_to(state.path)
    file = tmp_path / "ratings.json"
    file.write_text(text_of(document(view)), encoding="utf-8")
    code, out, _ = loopscope("rate", "import", file)
    assert code == 0 and "ratings by Anna of experiment/france stored" in out
    assert "the lexicon" in out and "+1.00" in out
    assert "were there already" in loopscope("rate", "import", file)[1]
    code, out, _ = loopscope("describe", "steering", "france")
    assert code == 0 and "Ratings:" in out and "Anna" in out
    again = ExperimentView.load(state, key)
    for explorable in (True, False):
        assert 'id="ratings"' in render_report(again, explorable=explorable)
    texts = render_report(again)
    assert texts == render_report(ExperimentView.load(state, key))


def test_a_file_of_another_run_is_refused_and_nothing_is_stored(built, view, loopscope, tmp_path):
    state, _ = built
    (tmp_path / "state").symlink_to(state.path)
    before = kept.stored(state.ratings, view.stage("steering").artifact.content_digest)
    for changes, complaint in (
        (
            {"steering": "b" * 64},
            "texts of the steering bbbbbbbbbbbb of 'france', and experiment/france rests on",
        ),
        (
            {"steering": "b" * 64, "experiment": "peru"},
            "there is no steering of experiment/peru here",
        ),
    ):
        file = tmp_path / "other.json"
        file.write_text(text_of(document(view, **changes)), encoding="utf-8")
        code, _, err = loopscope("rate", "import", file)
        assert code != 0 and complaint in err and "nothing was stored" in err
    given = document(view)
    given["ratings"][0]["arm"] = "nowhere"
    file.write_text(text_of(given), encoding="utf-8")
    code, _, err = loopscope("rate", "import", file)
    assert code != 0 and "has no text" in err and "nowhere" in err
    assert kept.stored(state.ratings, view.stage("steering").artifact.content_digest) == before

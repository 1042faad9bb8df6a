"""A register only grows, and shows what was done to it."""

import json
import threading

import pytest

from loopscope.specs.registration import BrokenChain, check_chain, hypothesis_of, seal_of
from loopscope.state.register import append, extract, registrations

ARMS = ["none", "coarse", "fine", "multi", "random"]


def intention(experiment="default/france", **changes):
    return {
        "experiment": experiment, "spec": {"mapping": "m"}, "inputs": {"model": "i"},
        "hypotheses": [hypothesis_of("multi-fine>0", ARMS)], "known": {}, "note": "",
        "plan": {}, "code": {}, **changes,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "register"


def grown(folder, many):
    return [append(folder, intention(note=str(n)), f"at {n}") for n in range(many)]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_record_names_the_one_before_it(folder):
    first, second, third = grown(folder, 3)
    assert first["previous"] is None
    assert (second["previous"], third["previous"]) == (first["digest"], second["digest"])
    assert registrations(folder) == [first, second, third]
    assert files(folder) == ["000001.json", "000002.json", "000003.json"]


def test_the_same_intention_twice_is_two_records(folder):
    first, second = (append(folder, intention(), "now") for _ in range(2))
    assert first["digest"] != second["digest"]
    assert len(registrations(folder)) == 2


def test_an_empty_register_holds_nothing(folder):
    assert registrations(folder) == []
    assert extract(folder, "default/france") is None


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_edit_of_any_record_is_seen_and_nothing_is_written_behind_it(folder, number):
    grown(folder, 3)
    path = folder / f"{number:06d}.json"
    path.chmod(0o600)
    record = json.loads(path.read_text())
    record["note"] = "I always knew"
    path.write_text(json.dumps(record))
    with pytest.raises(BrokenChain, match=f"registration {number} was edited"):
        registrations(folder)
    with pytest.raises(BrokenChain):
        append(folder, intention(), "later")
    assert len(files(folder)) == 3


@pytest.mark.parametrize("number", [1, 2])
def test_a_record_that_is_sealed_again_no_longer_stands_before_the_next(folder, number):
    records = grown(folder, 3)
    changed = [dict(one) for one in records]
    changed[number - 1]["note"] = "I always knew"
    changed[number - 1]["digest"] = seal_of(changed[number - 1])
    with pytest.raises(BrokenChain, match=f"registration {number + 1} does not follow"):
        check_chain(changed)


def test_a_record_that_was_taken_out_is_missed(folder):
    grown(folder, 3)
    (folder / "000002.json").unlink()
    with pytest.raises(BrokenChain, match="lacks 000002"):
        registrations(folder)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"digest": 1}', "\x00"])
def test_a_file_that_is_no_record_breaks_the_chain(folder, content):
    grown(folder, 1)
    (folder / "000002.json").write_text(content)
    with pytest.raises(BrokenChain):
        registrations(folder)


def test_of_many_that_write_at_once_each_gets_its_place(folder):
    folder.mkdir()
    threads = [
        threading.Thread(target=append, args=(folder, intention(note=str(n)), "now"))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one["note"] for one in registrations(folder)) == [str(n) for n in range(8)]


def test_a_bundle_gets_its_own_records_and_the_digests_of_all(folder):
    own = append(folder, intention("default/rome"), "now")
    other = append(folder, intention(), "now")
    assert extract(folder, "default/rome") == {
        "chain": [own["digest"], other["digest"]], "records": [own],
    }  # fmt: skip
    assert extract(folder, "default/oslo") is None


@pytest.mark.parametrize("word", ["multi-fine", "fine-multi>0", "multi-fine>1", "multi-moon>0", ""])
def test_a_hypothesis_is_about_a_contrast_that_a_verdict_holds(word):
    with pytest.raises(ValueError, match="is no hypothesis"):
        hypothesis_of(word, ARMS)


def test_a_hypothesis_has_a_sign():
    assert hypothesis_of("coarse-none < 0", ARMS) == {
        "contrast": "coarse-none", "sign": "less", "outcome": "concept",
    }  # fmt: skip

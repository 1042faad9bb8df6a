"""``init``: what it writes is applied as it is, and says what to change."""

import pytest
import yaml

from loopscope.commands.writing.starter import KNOWN, texts


def test_what_it_writes_for_a_local_model_is_applied_and_planned(loopscope, experiment, tmp_path):
    experiment()  # for the model and the dictionaries
    words = ("--model", "model", "--coarse", "coarse", "--fine", "fine")
    code, out, _ = loopscope("init", "sea", *words)
    assert code == 0 and "loopscope run sea/experiment.yaml" in out
    spec = yaml.safe_load((tmp_path / "sea" / "experiment.yaml").read_text())["spec"]
    assert spec["hook"] == "blocks.1.hook_resid_post"
    assert loopscope("apply", "-f", "sea/experiment.yaml", "--root", ".")[:2] == (
        0, "experiment/sea created\n",
    )  # fmt: skip
    assert "steering/sea-steering" in loopscope("plan", "-f", "sea", "--root", ".")[1]


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.model)
def test_every_known_pair_is_written_and_checked_offline(loopscope, known):
    code, _, err = loopscope("init", "mine", "--model", known.model)
    assert code == 0 and "only the hub knows" in err
    assert loopscope("apply", "-f", "mine", "--dry-run")[:2] == (
        0, "experiment/mine created (dry run)\n",
    )  # fmt: skip


def test_the_texts_are_pairs_and_neutral_ones_hold_no_word_of_the_concept():
    written = texts()
    target, neutral = (written[f"{name}.txt"].splitlines() for name in ("target", "neutral"))
    assert len(target) == len(neutral) == len(set(target)) == len(set(neutral))
    words = set(written["words.txt"].split())
    neutral_and_openings = " ".join([*neutral, written["openings.txt"]]).lower().split()
    assert words.isdisjoint(neutral_and_openings)
    assert sum(not words.isdisjoint(line.lower().split()) for line in target) > 5


def test_a_name_comes_from_the_folder_or_is_given(loopscope, tmp_path):
    loopscope("init", "The Deep Sea!")
    document = yaml.safe_load((tmp_path / "The Deep Sea!" / "experiment.yaml").read_text())
    assert document["metadata"]["name"] == "the-deep-sea"
    loopscope("init", "other", "--name", "mine")
    assert "name: mine\n" in (tmp_path / "other" / "experiment.yaml").read_text()


def test_an_empty_folder_may_be_the_present_one(loopscope, tmp_path, monkeypatch):
    (tmp_path / "sea").mkdir()
    monkeypatch.chdir(tmp_path / "sea")
    assert loopscope("init", ".")[0] == 0
    assert "name: sea\n" in (tmp_path / "sea" / "experiment.yaml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sea"]
    assert loopscope("apply", "-f", "experiment.yaml", "--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["full"], "exists"),
        (["new", "--model", "gpt-9"], "known are those of gpt2-small"),
        (["new", "--coarse", "coarse"], "both --coarse and --fine"),
        (["new", "--coarse", "coarse", "--fine", "fine"], "name the --model"),
        (["new", "--hook", "blocks.1.hook_resid_post"], "--hook goes with"),
        (["new", "--model", "model", "--coarse", "coarse", "--fine", "wide"], "fine"),
        (["new", "--model", "model", "--coarse", "nowhere", "--fine", "fine"], "no path and no"),
        (["new", "--name", "No Name"], "metadata.name"),
        (["+"], "give --name"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(loopscope, experiment, tmp_path, words, what):
    experiment()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = loopscope("init", *words)
    assert (code, out) == (2, "") and what in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]

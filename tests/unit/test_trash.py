"""The trash: nothing is lost on its way in, nothing is replaced on its way back."""

import shutil
from pathlib import Path

import pytest

from loopscope.state import failpoints
from loopscope.state.artifacts.trash import Trash
from tests.moments import power_fails, somebody
from tests.simulated import Crash
from tests.simulation.faulty_disk import FaultyDisk

ROOT = Path(__file__).parents[2]
DIGEST = "d" * 64


class Bin:
    """A trash, and one place for an artifact with two payload files."""

    def __init__(self, root):
        self.artifacts = root / "artifacts"
        self.trash = Trash(self.artifacts)
        self.place = self.artifacts / "capture" / DIGEST
        self.place.parent.mkdir(parents=True)

    @property
    def entry(self):
        return self.trash.root / "capture" / DIGEST

    def make(self, words="rows"):
        self.place.mkdir()
        for name in ("manifest.json", "a.bin", "b.bin"):
            (self.place / name).write_text(words)
        return self

    def put(self, now=5.0):
        self.trash.put(self.place, "capture", DIGEST, now=now)

    def take_back(self):
        return self.trash.take_back("capture", DIGEST)


@pytest.fixture
def bin(tmp_path):
    return Bin(tmp_path)


def words(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


WHOLE = dict.fromkeys(("manifest.json", "a.bin", "b.bin"), "rows")


def test_what_is_thrown_away_again_takes_the_place_of_what_lay_there_before(bin):
    bin.make("old").put()
    bin.make("rows").put(now=7.0)
    assert words(bin.entry) == WHOLE and not bin.place.exists()
    assert [(entry.path, entry.since) for entry in bin.trash.entries()] == [(bin.entry, 7.0)]


def test_what_was_thrown_away_lies_where_the_manual_says(bin):
    page = (ROOT / "docs/how-to/collect-garbage.md").read_text(encoding="utf-8")
    bin.make().put()
    assert words(bin.artifacts / ".trash" / "capture" / DIGEST) == WHOLE
    assert "`artifacts/.trash`" in page


def test_what_is_not_there_is_not_thrown_away(bin):
    bin.make().put()
    bin.put(now=9.0)
    assert words(bin.entry) == WHOLE
    assert [entry.since for entry in bin.trash.entries()] == [5.0]


def test_a_link_is_thrown_away_and_what_it_leads_to_stays_untouched(bin, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    before = (tmp_path / "elsewhere").stat()
    bin.place.symlink_to(tmp_path / "elsewhere")
    bin.put()
    assert bin.entry.is_symlink() and not bin.place.is_symlink()
    assert (tmp_path / "elsewhere").stat() == before
    for _ in range(2):
        bin.make().put()
    assert words(bin.entry) == WHOLE and (tmp_path / "elsewhere").is_dir()


def an_artifact(place):
    place.mkdir()
    (place / "manifest.json").write_text("newer")


def an_empty_folder(place):
    place.mkdir()


def a_file(place):
    place.write_text("newer")


def a_dead_link(place):
    place.symlink_to("nowhere")


@pytest.mark.parametrize("occupant", [an_artifact, an_empty_folder, a_file, a_dead_link])
def test_what_lies_in_its_place_is_never_overwritten_by_what_comes_back(bin, occupant):
    bin.make().put()
    occupant(bin.place)
    before = bin.place.lstat()
    assert not bin.take_back()
    assert bin.place.lstat() == before and words(bin.entry) == WHOLE


def test_what_has_no_manifest_does_not_come_back(bin):
    bin.make()
    (bin.place / "manifest.json").unlink()
    bin.put()
    assert not bin.take_back() and not bin.place.exists() and bin.entry.is_dir()


def test_what_comes_back_is_whole_and_gone_from_the_trash(bin):
    bin.make().put()
    assert bin.take_back() and words(bin.place) == WHOLE
    assert list(bin.trash.entries()) == [] and not bin.take_back()


@pytest.mark.parametrize("how", ["empty", "put again"])
def test_of_what_is_being_removed_nobody_takes_half_back(bin, monkeypatch, how):
    """The process is killed when some files are deleted and others are not."""

    def half(folder, **_):
        for path in sorted(folder.iterdir())[:2]:
            path.unlink()
        raise Crash

    bin.make().put()
    if how == "put again":
        bin.make("newer")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Crash):
            bin.trash.empty(9.0) if how == "empty" else bin.put()
    if how == "empty":
        assert not bin.take_back() and not bin.place.exists()
    else:
        assert words(bin.place) == dict.fromkeys(WHOLE, "newer")
    assert list(bin.trash.entries()) == []
    bin.trash.empty(9.0)
    assert not any(path.is_file() for path in bin.trash.root.rglob("*"))


def test_emptying_takes_what_is_old_enough_to_the_second_and_nothing_younger(bin):
    bin.make().put(now=5.0)
    bin.trash.empty(4.9)
    assert words(bin.entry) == WHOLE
    bin.trash.empty(5.0)
    assert list(bin.trash.entries()) == []


def test_what_is_thrown_away_again_while_the_trash_is_emptied_stays(bin):
    """Who empties was stopped between its look and the removal."""
    bin.make("old").put(now=5.0)
    comings = []

    def put_again(name):
        if name == "trash-empty" and not comings:
            comings.append(name)
            bin.make().put(now=9.0)

    with failpoints.handled_by(put_again):
        bin.trash.empty(7.0)
    assert comings and words(bin.entry) == WHOLE


def test_what_was_thrown_away_survives_a_power_cut_in_the_trash(bin, tmp_path):
    bin.make()
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        bin.put()
        disk.cut_power(lambda: False)
    assert words(bin.entry) == WHOLE and not bin.place.exists()


@pytest.mark.parametrize("nth", range(1, 5))
def test_a_power_cut_on_the_way_leaves_it_in_one_of_its_two_places(bin, tmp_path, nth):
    bin.make()
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        with somebody(power_fails, at="fsync", nth=nth) as cut, pytest.raises(Crash):
            bin.put()
        assert cut
        disk.cut_power(lambda: False)
    assert WHOLE in [words(path) for path in (bin.place, bin.entry) if path.exists()]


def test_what_came_back_survives_a_power_cut_in_its_place(bin, tmp_path):
    bin.make().put()
    disk = FaultyDisk(tmp_path)
    with disk.watched():
        assert bin.take_back()
        disk.cut_power(lambda: False)
    assert words(bin.place) == WHOLE

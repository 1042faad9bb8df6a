"""An odd entry of a folder is a problem of that entry alone, told in words that can be printed."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from loopscope.controller.plan.applying import load_admitted
from loopscope.controller.sources.folder_files import FileContent, folders_of_weights
from loopscope.controller.sources.folder_watch import FolderWatch
from loopscope.specs.errors import InvalidSpec, Problem
from loopscope.specs.files import RootedFiles
from loopscope.specs.keys import Key
from loopscope.specs.legible import encodable, is_encodable, legible
from loopscope.specs.yaml.spec_files import files_below, spec_files
from loopscope.state.db import events, inputs, objects
from tests.unit.test_controller_folder_source import MAPPING, World

TEXT = MAPPING.format(name="odd", cosine=0.3, annotations="")


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.write("good.yaml")
    world.write("other.yaml")
    world.scan()
    return world


def a_name_that_is_no_utf8(folder):
    Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff.yaml")).write_text(TEXT)


def a_folder_whose_name_is_no_utf8(folder):
    inside = Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff"))
    inside.mkdir()
    (inside / "odd.yaml").write_text(TEXT)


def a_link_to_itself(folder):
    (folder / "odd.yaml").symlink_to("odd.yaml")


def two_links_to_each_other(folder):
    (folder / "odd.yaml").symlink_to("odd-too.yaml")
    (folder / "odd-too.yaml").symlink_to("odd.yaml")


def a_link_that_leads_nowhere(folder):
    (folder / "odd.yaml").symlink_to("/nowhere/at/all.yaml")


def a_link_to_a_name_that_is_no_utf8(folder):
    target = Path(os.fsdecode(os.fsencode(folder.parent) + b"/target\xff"))
    target.write_text(TEXT)
    (folder / "odd.yaml").symlink_to(target)


def a_pipe(folder):
    os.mkfifo(folder / "odd.yaml")


def a_socket(folder):
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket must be short
    try:
        socket.socket(socket.AF_UNIX).bind("odd.yaml")
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    "make",
    [
        a_name_that_is_no_utf8,
        a_folder_whose_name_is_no_utf8,
        a_link_to_itself,
        two_links_to_each_other,
        a_link_that_leads_nowhere,
        a_link_to_a_name_that_is_no_utf8,
        a_pipe,
        a_socket,
    ],
)
def test_an_odd_entry_stalls_nobody_else_and_is_told_by_its_name(world, loopscope, make):
    make(world.folder)
    world.write("good.yaml", cosine=0.5)
    (world.folder / "other.yaml").unlink()
    assert world.scan() == {"good": "configured"}
    assert world.names() == {"good", "other"}, "what is gone may lie behind the odd entry"
    for problem in world.source.problems:
        assert "odd" in str(problem) and str(problem).isprintable()
    before = world.simulation.rows()
    assert world.scan() == {} and world.simulation.rows() == before, "said once"
    code, out, err = loopscope("apply", "-f", str(world.folder), "--root", str(world.folder))
    assert code == 2 and "nothing was applied" in err and "odd" in err and out == ""


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\x1b[31mb.yaml", "ä b.yaml", " .yaml"])
def test_a_name_with_odd_signs_is_a_name_and_is_shown_on_one_line(world, name):
    (world.folder / name).write_text(TEXT)
    assert world.scan() == {"odd": "created"}
    (world.folder / name).write_text("kind: [")
    world.scan()
    (problem,) = world.source.problems
    assert str(problem).isprintable()
    world.simulation.step()
    told = world.simulation.get("odd").status.condition("SourceValid")
    assert told is not None and told.message.isprintable(), "it is put on its own object"


def test_a_link_to_a_folder_above_is_not_followed(world):
    (world.folder / "above.yaml").symlink_to("..")
    (world.folder / "above").symlink_to("..")
    assert world.scan() == {} and world.source.problems == []


def test_hidden_odd_entries_concern_nobody(world):
    """As the lock is that an editor leaves beside an open file."""
    (world.folder / ".#good.yaml").symlink_to("user@host.1234")
    assert world.scan() == {} and world.source.problems == []


def test_what_a_file_system_keeps_for_itself_is_not_looked_into(world):
    (world.folder / "lost+found").mkdir()
    (world.folder / "lost+found" / "x.yaml").write_text("kind: [")
    assert files_below(world.folder).problems == []


def refusing(monkeypatch, name, error):
    """Let the system refuse to list a folder of this name."""
    real = os.scandir

    def scandir(path):
        if Path(path).name == name:
            raise error
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(116, "Stale")])
def test_a_folder_that_cannot_be_read_is_a_problem_of_its_own_and_hides_nothing(
    world, monkeypatch, error
):
    (world.folder / "inside").mkdir()
    world.write("inside/c.yaml", name="c")
    world.scan()
    refusing(monkeypatch, "inside", error)
    world.write("good.yaml", cosine=0.5)
    assert world.scan() == {"good": "configured"}
    (problem,) = world.source.problems
    assert problem.file.endswith("/inside") and "c" in world.names()
    with pytest.raises(InvalidSpec, match="inside"):
        spec_files(world.folder)


def test_a_folder_that_as_a_whole_cannot_be_read_is_refused_in_words(world, monkeypatch):
    refusing(monkeypatch, "specs", PermissionError(13, "Permission denied"))
    with pytest.raises(InvalidSpec, match="specs: Permission denied"):
        load_admitted(world.folder, world.folder)


# -- what is kept of such names ----------------------------------------------------------------

ODD = os.fsdecode(b"/data/odd\xff")


def test_names_are_made_legible():
    assert legible(ODD) == "/data/odd\\xff" and legible("a\nb") == "a\\nb"
    assert legible("/data/größe.yaml") == "/data/größe.yaml"
    assert encodable("\ud800") == "\\ud800" and not is_encodable(ODD) and is_encodable("🎉")
    shown = "/data/odd\\xff"
    assert str(Problem(ODD, 1, 2, "spec", f"no {ODD}")) == f"{shown}:1:2: spec: no {shown}"


def test_nothing_can_be_stored_that_is_no_utf8(settled):
    key, facts = Key("Capture", "default", "france-capture"), {"🎉": {"path": ODD, ODD: ["🎉"]}}
    with settled.state.database.write() as connection:
        events.record(connection, key, "Warning", "Odd", f"no {ODD}", now=1.0)
        inputs.record(connection, "0" * 64, "model", {"name": "x"}, now=1.0, facts=facts)
    with settled.state.database.read() as connection:
        assert "no /data/odd\\xff" in [event.message for event in events.listed(connection, key)]
        kept = inputs.get(connection, "0" * 64)
        assert objects.get(connection, Key("Capture", "default", ODD)) is None, "looked for in vain"
    shown = "/data/odd\\xff"
    assert kept is not None and kept.facts == {"🎉": {"path": shown, shown: ["🎉"]}}


def test_a_path_of_a_spec_that_leads_to_such_a_name_is_refused(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff"))
    odd.mkdir()
    (tmp_path / "model").symlink_to(odd)
    with pytest.raises(ValueError, match=r"odd\\xff, which is not UTF-8"):
        RootedFiles(tmp_path, tmp_path).locate("model")


def test_an_error_that_names_such_a_path_ends_no_controller(capture, monkeypatch):
    def unreadable(*_args):
        raise ValueError(f"{ODD} is odd")

    monkeypatch.setattr(capture.controller._artifacts, "observe", unreadable)
    capture.step()
    assert "ReconcileError" in capture.event_reasons("cap")


# -- watching ------------------------------------------------------------------------------------


def test_weights_whose_folder_cannot_be_looked_at_stop_no_scan(monkeypatch):
    def refused(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refused)
    named = {Path("/a.yaml"): FileContent((Key("Mapping", "default", "a"),), (("path", "/w/sae"),))}
    assert folders_of_weights(named) == {Path("/w")}


def test_a_watched_folder_that_cannot_be_looked_at_does_not_end_the_watch(tmp_path, monkeypatch):
    class Odd(type(tmp_path)):
        looks = 0

        def is_dir(self):
            Odd.looks += 1
            if Odd.looks > 1:
                watch.stop()
            raise PermissionError(13, "Permission denied")

    said = []
    log = SimpleNamespace(error=lambda _, fault: said.append(fault))
    monkeypatch.setattr("loopscope.controller.sources.folder_watch.log", log)
    monkeypatch.setattr("loopscope.controller.sources.folder_watch.AGAIN_SECONDS", 0.0)
    watch = FolderWatch(lambda _: None, tmp_path / "state", recursive=False)
    watch.watch({Odd(tmp_path)})
    watch._run()
    assert Odd.looks == 2, "it was taken up again"
    assert len(said) == 1, "what stays as it is is told once"

"""What else lies in a watched folder, links that are swapped, and an object in two files."""

import shutil
from dataclasses import replace

import pytest

from loopscope.controller.sources.folder_files import FileContent, still_known
from tests.unit.test_controller_folder_source import MAPPING, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def cosine_of(world, name):
    return world.simulation.get(name).spec["minCosine"]


# -- hidden names ------------------------------------------------------------------------


def leave_beside(folder, kind):
    text = MAPPING.format(name="a", cosine=0.9, annotations="")
    if kind == "a notebook's checkpoint":
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / "a-checkpoint.yaml").write_text(text)
    elif kind == "a double of macOS":
        (folder / "._a.yaml").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        \0\2\xb0\xff")
    elif kind == "an editor's copy":
        (folder / ".a.yaml").write_text(text)
    else:
        (folder / ".#a.yaml").symlink_to("somebody@somewhere.123")


HIDDEN = ["a notebook's checkpoint", "a double of macOS", "an editor's copy", "an editor's lock"]


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_editors_and_systems_leave_beside_specs_is_no_spec(world, kind):
    world.write("a.yaml")
    leave_beside(world.folder, kind)
    assert world.scan() == {"a": "created"} and world.source.problems == []
    assert cosine_of(world, "a") == 0.3


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_folder_is_applied_without_its_hidden_names(loopscope, experiment, kind):
    path = experiment()
    leave_beside(path.parent, kind)
    assert loopscope("apply", "-f", path.parent, "--root", ".")[:2] == (
        0, "experiment/x created\n",
    )  # fmt: skip


def test_a_hidden_file_or_folder_that_is_named_itself_is_read(loopscope, experiment, tmp_path):
    path = experiment()
    hidden = path.rename(path.with_name(".x.yaml"))
    assert loopscope("apply", "-f", hidden)[1] == "experiment/x created\n"
    hidden.rename(path)
    shutil.move(path.parent, tmp_path / ".specs")
    assert loopscope("apply", "-f", tmp_path / ".specs", "--root", ".")[0] == 0


def test_a_hidden_file_that_comes_and_goes_is_no_reason_to_compare_all(tmp_path):
    spec, known = tmp_path / "a.yaml", {tmp_path / "a.yaml": FileContent((), ())}
    assert still_known([spec], known, {tmp_path / ".a.yaml"}) == known
    assert still_known([spec], known, {tmp_path / "b.yaml"}) is None


# -- links that are swapped --------------------------------------------------------------


def revision(tmp_path, name, files):
    folder = tmp_path / name / "specs"
    folder.mkdir(parents=True)
    for file, cosine in files.items():
        text = MAPPING.format(name=file[:-5], cosine=cosine, annotations="")
        (folder / file).write_text(text)


def swap(link, target):
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(target)
    new.replace(link)


@pytest.fixture
def deployed(world, tmp_path):
    """A watched folder behind a link to a revision, as a deployment makes it."""
    revision(tmp_path, "one", {"a.yaml": 0.3, "b.yaml": 0.3})
    swap(tmp_path / "current", "one")
    folder = tmp_path / "current" / "specs"
    world.source = replace(world.source, folder=folder, find_root=folder.resolve)
    world.scan()
    return world


def test_a_swapped_link_is_followed_with_edits_additions_and_deletions(deployed, tmp_path):
    revision(tmp_path, "two", {"a.yaml": 0.4, "c.yaml": 0.3})
    swap(tmp_path / "current", "two")
    assert deployed.scan() == {"a": "configured", "c": "created"}
    deployed.scan()
    assert deployed.names() == {"a", "c"} and deployed.source.problems == []
    before = deployed.simulation.rows()
    assert deployed.scan() == {} and deployed.simulation.rows() == before


def test_a_swapped_link_is_seen_also_when_another_path_was_noticed(deployed, tmp_path):
    revision(tmp_path, "two", {"a.yaml": 0.4, "b.yaml": 0.3})
    swap(tmp_path / "current", "two")
    deployed.source._notice({tmp_path / "current"})
    assert [item.outcome for item in look(deployed)] == ["configured"]
    assert cosine_of(deployed, "a") == 0.4


def look(world):
    """Let the source look at what it noticed, before a rescan is due."""
    import inspect

    takes_time = inspect.signature(world.source.scan_if_due).parameters
    return world.source.scan_if_due(world.now + 1) if takes_time else world.source.scan_if_due()


def test_the_root_is_found_again_when_the_link_is_swapped(deployed, tmp_path):
    assert deployed.source.root == tmp_path, "as it was given"
    revision(tmp_path, "two", {"a.yaml": 0.4, "b.yaml": 0.3})
    swap(tmp_path / "current", "two")
    deployed.scan()
    assert deployed.source.root == tmp_path / "two" / "specs"


def test_an_edit_behind_a_link_is_no_reading_of_all(deployed, tmp_path, monkeypatch):
    from loopscope.controller.sources import folder_source

    read = []
    original = folder_source.load_admitted

    def noted(path, *more):
        read.append(path.name)
        return original(path, *more)

    monkeypatch.setattr(folder_source, "load_admitted", noted)
    real = tmp_path / "one" / "specs" / "a.yaml"
    real.write_text(real.read_text().replace("0.3", "0.5"))
    deployed.source._notice({real})
    assert [item.outcome for item in look(deployed)] == ["configured"]
    assert read == ["a.yaml"]


def test_the_new_revision_may_be_there_before_the_old_one_is_gone_or_after(deployed, tmp_path):
    shutil.rmtree(tmp_path / "one")
    assert deployed.scan() == {} and deployed.names() == {"a", "b"}
    revision(tmp_path, "two", {"a.yaml": 0.4, "b.yaml": 0.3})
    swap(tmp_path / "current", "two")
    assert deployed.scan() == {"a": "configured"}


def mount_config_map(folder, version, files):
    """Lay files out as a ConfigMap is mounted: links over ``..data`` to a hidden folder."""
    data = folder / f"..{version}"
    data.mkdir()
    for file, cosine in files.items():
        (data / file).write_text(MAPPING.format(name=file[:-5], cosine=cosine, annotations=""))
    swap(folder / "..data", data.name)
    for link in folder.glob("*.yaml"):
        if link.name not in files:
            link.unlink()
    for file in files:
        if not (folder / file).is_symlink():
            (folder / file).symlink_to(f"..data/{file}")
    for old in folder.glob("..2*"):
        if old.name != data.name and not old.is_symlink():
            shutil.rmtree(old)


def test_a_config_map_is_read_once_and_its_updates_are_followed(world):
    mount_config_map(world.folder, "2026_1", {"a.yaml": 0.3, "b.yaml": 0.3, "c.yaml": 0.3})
    assert world.scan() == {"a": "created", "b": "created", "c": "created"}
    mount_config_map(world.folder, "2026_2", {"a.yaml": 0.4, "b.yaml": 0.3})
    world.source._notice({world.folder / "..data", world.folder / "..2026_2"})
    assert "configured" in [item.outcome for item in look(world)]
    world.scan()
    world.scan()
    assert world.names() == {"a", "b"} and cosine_of(world, "a") == 0.4
    assert world.source.problems == []


# -- the same object in two files --------------------------------------------------------


def source_valid(world, name):
    world.simulation.step()
    return world.simulation.get(name).status.condition("SourceValid")


def test_an_object_in_two_files_says_so_in_an_event_a_condition_and_get(world, loopscope):
    world.write("a.yaml", name="same", cosine=0.4)
    world.scan()
    world.write("b.yaml", name="same", cosine=0.5)
    world.scan()
    told = source_valid(world, "same")
    assert (told.status, told.reason) == ("False", "InvalidSpec")
    assert "b.yaml:4:" in told.message and f"also defined in {world.folder / 'a.yaml'}" in (
        told.message
    )
    assert world.simulation.event_reasons("same")[0] == "InvalidSpec"
    code, out, err = loopscope("get", "mappings")
    assert code == 0 and "same" in out and "b.yaml" in err and "also defined in" in err
    world.scan()  # the first file is read once more: its object bears the note now
    before = world.simulation.rows()
    assert world.scan() == {} and world.simulation.rows() == before, "said once"


def test_the_condition_goes_with_the_second_definition(world):
    world.write("a.yaml", name="same", cosine=0.4)
    world.write("b.yaml", name="same", cosine=0.5)
    world.scan()
    assert source_valid(world, "same") is not None
    (world.folder / "b.yaml").unlink()
    world.scan()
    assert source_valid(world, "same") is None and cosine_of(world, "same") == 0.4


def test_the_file_that_an_object_came_from_keeps_it_when_both_are_edited(world):
    world.write("b.yaml", name="same", cosine=0.4)
    world.scan()
    world.write("a.yaml", name="same", cosine=0.5)  # read first, and no reason to win
    world.write("b.yaml", name="same", cosine=0.6)
    assert world.scan() == {"same": "configured"}
    assert cosine_of(world, "same") == 0.6
    (problem,) = world.source.problems
    assert problem.file.endswith("a.yaml")


def test_an_object_whose_own_file_is_refused_is_not_taken_over_by_another(world):
    world.write("b.yaml", name="same", cosine=0.4)
    world.scan()
    world.write("a.yaml", name="same", cosine=0.5)
    (world.folder / "b.yaml").write_text("kind: [")
    assert world.scan() == {} and cosine_of(world, "same") == 0.4
    assert {problem.file[-6:] for problem in world.source.problems} == {"a.yaml", "b.yaml"}


def test_an_object_may_move_into_another_file_in_one_edit_of_both(world):
    text = MAPPING.format(name="same", cosine=0.4, annotations="")
    other = MAPPING.format(name="other", cosine=0.4, annotations="")
    for before, after in (("b.yaml", "a.yaml"), ("a.yaml", "b.yaml")):
        (world.folder / before).write_text(f"{other}\n---\n{text}")
        (world.folder / after).write_text(other.replace("other", "third"))
        world.scan()
        world.scan()
        assert world.source.problems == []
        (world.folder / before).write_text(other)
        (world.folder / after).write_text(
            f"{other.replace('other', 'third')}\n---\n{text.replace('0.4', '0.7')}"
        )
        world.scan()
        assert world.source.problems == [] and cosine_of(world, "same") == 0.7

"""Files and names that were made to do harm end in a refusal with file, line and field."""

import os
import threading

import pytest

from loopscope.controller.sources.folder_source import FolderSource
from loopscope.inputs.dictionaries import describe_dictionary
from loopscope.inputs.errors import InputRefused
from loopscope.inputs.hub import Hub
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.files import RootedFiles
from loopscope.specs.yaml.loading import FILE_BYTES_MAX, load_path
from loopscope.state.db import objects
from tests.fuzz.seeds import SPECS, document, encoded
from tests.simulated import new_state


def capture(prompt_file="target.txt", **changes):
    prompts = {"target": {"file": prompt_file}, "neutral": {"texts": ["Rome is"]}}
    return encoded(
        document("Capture", {"model": {"name": "m"}, "hook": SPECS["Capture"]["hook"],
                             "prompts": prompts, **changes})
    )  # fmt: skip


@pytest.fixture
def problems(tmp_path):
    def load(content):
        (tmp_path / "x.yaml").write_bytes(content)
        with pytest.raises(InvalidSpec) as invalid:
            load_path(tmp_path / "x.yaml", tmp_path)
        return invalid.value.problems

    return load


def test_a_file_without_an_end_is_not_read_to_its_end(tmp_path):
    with pytest.raises(InvalidSpec, match="larger than"):
        load_path(tmp_path.joinpath("/dev/zero"), tmp_path)


def test_a_file_of_50_megabytes_is_refused_before_it_is_parsed(problems):
    (found,) = problems(b"a: " + b"x" * 50_000_000)
    assert f"larger than {FILE_BYTES_MAX:,} bytes" in found.message


def test_a_spec_may_come_through_a_pipe(tmp_path):
    pipe = tmp_path / "x.yaml"
    os.mkfifo(pipe)
    (tmp_path / "target.txt").write_text("Paris is\n")
    writer = threading.Thread(target=pipe.write_bytes, args=(capture(),))
    writer.start()
    assert len(load_path(pipe, tmp_path)) == 1
    writer.join()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("~nobody-of-this-name/x.txt", "leads nowhere"),
        ("circle.txt", "leads nowhere"),
        ("x" * 300, "cannot read"),
        ("a\0b", "null byte"),
        ("pipe", "is no file (a folder, a pipe or a device)"),
        (".", "is no file (a folder, a pipe or a device)"),
        ("\ud800", "Unicode"),
    ],
)
def test_a_prompt_file_that_leads_nowhere_is_a_problem_with_a_place(
    problems, tmp_path, file, words
):
    (tmp_path / "circle.txt").symlink_to(tmp_path / "circle.txt")
    os.mkfifo(tmp_path / "pipe")
    (found,) = problems(capture(file))
    assert words in found.message and found.line == 1


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "circle", "x" * 300])
def test_a_model_or_dictionary_path_that_leads_nowhere_is_a_problem_too(tmp_path, path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(ValueError, match=r"leads nowhere|cannot look at"):
        RootedFiles(tmp_path, tmp_path).locate(path)


def test_a_watched_folder_outlives_a_file_that_names_nonsense(tmp_path):
    watched = tmp_path / "specs"
    watched.mkdir()
    (watched / "a.yaml").write_bytes(capture("x" * 300))
    (watched / "b.yaml").write_bytes(capture("target.txt").replace(b'"x"', b'"b"'))
    (watched / "target.txt").write_text("Paris is\n")
    state = new_state(tmp_path / "state")
    source = FolderSource(state, watched, watched, lambda: None)
    source.scan_if_due()
    assert [problem.file for problem in source.problems] == [str(watched / "a.yaml")]
    with state.database.read() as connection:
        assert [record.key.name for record in objects.listed(connection)] == ["b"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", "a\0", "x.html", "A", "a b", "é"])
def test_names_that_could_become_other_paths_are_no_names(problems, name):
    content = encoded({**document("Capture"), "metadata": {"name": name}})
    assert any(found.field == "metadata.name" for found in problems(content))


@pytest.mark.parametrize(
    "release", ["  saes", "  config_overrides", "  conversion_func", "a:\n  b", "-", " ", "a/b/c"]
)
def test_only_a_whole_key_of_the_registry_is_a_release(release):
    with pytest.raises(InputRefused, match="unknown release"):
        describe_dictionary({"release": release, "id": "x"}, hub=Hub(offline=True))


@pytest.mark.parametrize("id_", ["../../x", "/etc", "a//b", "a/./b", ".hidden", ""])
def test_an_id_stays_inside_its_repository(id_):
    with pytest.raises(InputRefused, match="not a folder of a hub repository"):
        describe_dictionary({"release": "owner/name", "id": id_}, hub=Hub(offline=True))

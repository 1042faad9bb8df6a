"""Whatever is wrong with a file is named with file, line, column and field, all at once."""

import textwrap

import pytest
import yaml

from loopscope.specs.errors import InvalidSpec
from loopscope.specs.files import TEXT_BYTES_MAX
from loopscope.specs.yaml import loading
from loopscope.specs.yaml.loading import load_path
from loopscope.specs.yaml.nodes import PROBLEMS_MAX

SPEC = {
    "model": {"name": "tiny"},
    "hook": "blocks.2.hook_resid_post",
    "prompts": {"target": {"texts": ["Paris"]}, "neutral": {"texts": ["Rome"]}},
    "dictionaries": {
        "coarse": {"release": "r", "id": "a"},
        "fine": {"release": "r", "id": "b"},
    },
}
HEAD = "apiVersion: loopscope.dev/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n"


def document(spec=SPEC, name="x", kind="Experiment", **changes):
    return HEAD.format(kind=kind, name=name) + textwrap.indent(
        yaml.safe_dump({**spec, **changes}, sort_keys=False), "  "
    )


@pytest.fixture
def load(tmp_path):
    def load(text, file="x.yaml", root=tmp_path):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_path(path, root)

    return load


@pytest.fixture
def problems(load):
    def problems(text, **options):
        with pytest.raises(InvalidSpec) as invalid:
            load(text, **options)
        return invalid.value.problems

    return problems


@pytest.fixture
def problem(problems):
    def problem(text, **options):
        found = problems(text, **options)
        assert len(found) == 1, found
        return found[0]

    return problem


def with_prompts(target=("Paris",), neutral=("Rome",)):
    def side(value):
        return {"file": value} if isinstance(value, str) else {"texts": list(value)}

    return {"prompts": {"target": side(target), "neutral": side(neutral)}}


def test_a_good_file_loads_with_its_defaults(load):
    (item,) = load(document())
    assert str(item.manifest.key) == "experiment/x"
    spec = item.manifest.canonical_spec()
    assert (spec["positions"], spec["maxTokens"]) == ("last", 128)
    assert spec["selection"]["minSelectivity"] == 0.8 and spec["mapping"]["minCosine"] == 0.3
    assert "steering" not in spec


# -- the place of a problem -------------------------------------------------------------


def test_a_wrong_value_is_shown_with_line_column_field_and_what_was_found(problem, tmp_path):
    text = document(hook="blocks.2.hook_mlp_mid")
    found = problem(text)
    line = next(n for n, row in enumerate(text.split("\n"), 1) if "hook:" in row)
    assert (found.line, found.column, found.field) == (line, 3, "spec.hook")
    assert "hook_mlp_mid" in found.message
    assert str(found).startswith(f"{tmp_path}/x.yaml:{line}:3: spec.hook: ")


def test_a_problem_inside_a_list_names_the_item(problem):
    text = document(**with_prompts(neutral=("Rome", 3)))
    found = problem(text)
    assert found.field == "spec.prompts.neutral.texts.1"
    assert text.split("\n")[found.line - 1].strip() == "- 3"


def test_a_missing_field_points_at_what_should_hold_it(problem):
    text = document(prompts={"target": {"texts": ["Paris"]}})
    found = problem(text)
    assert found.field == "spec.prompts.neutral" and "required" in found.message
    assert "prompts:" in text.split("\n")[found.line - 1]


def test_several_problems_are_told_at_once(problems):
    text = document(
        hook="nowhere", maxTokens=0, selection={"minSelectivity": 2}, dictionaries={"coarse": {}}
    )
    fields = {found.field for found in problems(text)}
    assert fields >= {"spec.hook", "spec.maxTokens", "spec.selection.minSelectivity"}
    assert {"spec.dictionaries.coarse", "spec.dictionaries.fine"} <= fields


def test_problems_of_all_documents_and_files_are_told_at_once(load, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(document(hook="x") + "---\n" + document(positions=1))
    with pytest.raises(InvalidSpec) as invalid:
        load_path(tmp_path, tmp_path)
    found = [(p.file[-6:], p.field) for p in invalid.value.problems]
    assert found == [
        (f"{name}.yaml", f"spec.{field}") for name in "ab" for field in ("hook", "positions")
    ]


def test_a_cut_off_below_what_the_geometry_lists_is_named_beside_the_field_that_needs_it(problems):
    (found,) = problems(document(mapping={"minCosine": 0.1}, splitting={}))
    assert found.field == "spec.splitting"
    assert "found mapping.minCosine 0.1" in found.message


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        (document(slection={}), "spec.slection", "'selection'"),
        (document(mapping={"minCosin": 0.3}), "spec.mapping.minCosin", "'minCosine'"),
        (document(mapping={"min_cosine": 0.3}), "spec.mapping.min_cosine", "'minCosine'"),
        (document(model={"name": "m", "source": {"hubb": "x"}}), "spec.model.source.hubb", "'hub'"),
        (document() + "extra: 1\n", "extra", "known: apiVersion"),
        (document(kind="Experimnt"), "kind", "'Experiment'"),
    ],
)
def test_a_typo_is_an_error_with_a_suggestion(problems, text, field, hint):
    found = next(p for p in problems(text) if p.field == field)
    assert hint in found.message


def test_a_wrong_version_or_envelope_is_refused(problem, problems):
    assert problem(document().replace("v1alpha1", "v2")).field == "apiVersion"
    assert problem("- a\n- b\n").line == 1
    assert {p.field for p in problems("a: 1\n")} == {"a", "apiVersion", "kind", "metadata", "spec"}
    assert problem(HEAD.format(kind="Capture", name="x")).field == "spec"


# -- YAML ----------------------------------------------------------------------------------


def test_a_key_given_twice_is_refused_with_both_lines(problem):
    text = document() + "  hook: blocks.1.hook_resid_pre\n"
    found = problem(text)
    first = next(n for n, row in enumerate(text.split("\n"), 1) if "hook:" in row)
    assert found.field == "spec.hook" and f"line {first}" in found.message
    assert found.line == text.count("\n")


@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ("  model: {name: &a tiny}\n  hook: *a\n", "aliases"),
        ("  model: !model {name: tiny}\n", "tag"),
        ("  hook: !hook x\n", "tag"),
        ("  model: !!python/object/apply:os.system {args: [ls]}\n", "tag"),
        ("  positions: !!python/name:os.system x\n", "tag"),
        ("  positions: !!binary aGk=\n", "tag"),
        ("  model: {<<: {name: tiny}}\n", "plain text key"),
        ("  ? [a, b]\n  : c\n", "plain text key"),
        ("  a: " + "[" * 60 + "]" * 60 + "\n", "nested deeper"),
        ("  a: " + "[" * 800 + "]" * 800 + "\n", "nested deeper"),
        ("  a: [1\n", "not valid YAML"),
        ("  a: \x07\n", "not valid YAML"),
        ("\ta: 1\n", "not valid YAML"),
        ("  a: 2026-99-99T99:99:99\n", ""),
        ("  a: *nobody\n", "aliases"),
        ("  a: &a [x, x]\n  b: &b [*a, *a]\n  c: [*b, *b]\n", "aliases"),
        ("  a: 1" + ":1" * 200_000 + "\n", "a number of 400001 characters"),
        ("  a: 1" + ":1" * 200 + ".0\n", "a number of 403 characters"),
        ("  a: 0x" + "f" * 5000 + "\n", "a number of 5002 characters"),
        ("  a: " + "9" * 5000 + "\n", "a number of 5000 characters"),
        ("  a: " + "[" * 300_000 + "\n", "nested deeper"),
        ("  a: " + "{x: " * 300_000 + "\n", "nested deeper"),
        ("  a: [" + "1," * 200_000 + "]\n", "more than 100,000 values"),
        ("  a: \x00\n", "not valid YAML"),
    ],
)
def test_yaml_beyond_plain_data_is_refused_never_a_crash(problems, addition, words):
    found = problems(HEAD.format(kind="Capture", name="x") + addition)
    assert any(words in problem.message for problem in found), found
    assert all("\n" not in problem.message.strip() or words for problem in found)


def test_a_file_full_of_mistakes_tells_the_first_hundred(problems):
    found = problems(document() + "  same: 1\n" * 100_000)
    assert len(found) == PROBLEMS_MAX and found[0].message.startswith("key given twice")


def test_numbers_and_words_are_not_taken_for_one_another(problems):
    fields = {
        p.field for p in problems(document(model={"name": 5}, maxTokens="many", positions=True))
    }
    assert fields == {"spec.model.name", "spec.maxTokens", "spec.positions"}
    assert problems(document(mapping={"minCosine": float("nan")}))[0].field == (
        "spec.mapping.minCosine"
    )


# -- files as a whole ------------------------------------------------------------------------


def test_a_file_without_objects_is_an_error_not_an_empty_answer(problem):
    for text in ("", "# only a comment\n", "---\n---\n"):
        assert "no objects" in problem(text).message


def test_a_file_that_is_not_utf_8_is_refused_with_the_byte(problem):
    found = problem(document().encode() + b"# caf\xe9\n")
    assert "UTF-8" in found.message and str(len(document().encode()) + 5) in found.message


def test_a_file_that_is_too_large_is_refused_unread(problem, monkeypatch):
    monkeypatch.setattr(loading, "FILE_BYTES_MAX", 100)
    assert "larger than 100" in problem(document()).message


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidSpec, match="no such file"):
        load_path(tmp_path / "nowhere.yaml", tmp_path)


def test_a_folder_is_read_recursively_in_name_order(load, tmp_path):
    load(document(name="b"), "sub/b.yml")
    load(document(name="a"), "a.yaml")
    (tmp_path / "notes.txt").write_text("not yaml: [")
    assert [item.manifest.metadata.name for item in load_path(tmp_path, tmp_path)] == ["a", "b"]


def test_an_object_defined_twice_is_refused(load, tmp_path):
    load(document(), "a.yaml")
    load(document(), "b.yaml")
    with pytest.raises(InvalidSpec) as invalid:
        load_path(tmp_path, tmp_path)
    (found,) = invalid.value.problems
    assert found.file.endswith("b.yaml") and "a.yaml" in found.message


@pytest.mark.parametrize("name", ["X", "a_b", "-a", "a" * 53, ""])
def test_a_name_that_is_no_name_or_leaves_no_room_for_children_is_refused(problem, name):
    assert problem(document(name=f"'{name}'")).field == "metadata.name"


def test_a_name_of_52_characters_is_fine(load):
    assert load(document(name="a" * 52))


# -- prompts -----------------------------------------------------------------------------------


@pytest.fixture
def texts(tmp_path):
    def write(name, data):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    write("target.txt", "Paris is\n\n  Lyon is \nNice\r\n")
    return write


def test_the_text_of_a_prompt_file_is_embedded(load, texts):
    (item,) = load(document(**with_prompts(target="target.txt")))
    target = item.manifest.canonical_spec()["prompts"]["target"]
    assert target == {"file": "target.txt", "texts": ["Paris is", "  Lyon is", "Nice"]}


def test_a_byte_order_mark_is_not_part_of_the_first_prompt(load, texts):
    texts("target.txt", b"\xef\xbb\xbfParis is\n")
    (item,) = load(b"\xef\xbb\xbf" + document(**with_prompts(target="target.txt")).encode())
    assert item.manifest.canonical_spec()["prompts"]["target"]["texts"] == ["Paris is"]


def test_prompt_files_are_found_beside_the_yaml_not_beside_the_reader(load, texts, tmp_path):
    (item,) = load(document(**with_prompts(target="../target.txt")), "specs/x.yaml")
    assert len(item.manifest.spec.prompts.target.texts) == 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"caf\xe9\n", "not UTF-8 (byte 3)"),
        (b"x" * (TEXT_BYTES_MAX + 1), "larger than"),
        (b"Paris is\nLyon\nparis  IS\n", "texts 1 and 3 are the same"),
        (b"Rome\n", "in both sets"),
    ],
)
def test_a_prompt_file_that_cannot_be_used_is_refused(problem, texts, data, words):
    if data is not None:
        texts("t.txt", data)
    text = document(**with_prompts(target="t.txt"))
    found = problem(text)
    assert words in found.message and found.field.startswith("spec.prompts")
    assert found.line > 0


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/hostname", "link.txt"])
def test_a_prompt_file_outside_the_root_is_refused(problem, tmp_path, path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.txt").write_text("secret\n")
    (inside / "link.txt").symlink_to(tmp_path / "outside.txt")
    text = document(**with_prompts(target=path))
    found = problem(text, file="inside/x.yaml", root=inside)
    assert "outside" in found.message and "--root" in found.message


def test_file_and_texts_together_are_refused(problem, texts):
    both = {"target": {"file": "target.txt", "texts": ["x"]}, "neutral": {"texts": ["y"]}}
    found = problem(document(prompts=both))
    assert found.field == "spec.prompts.target" and "not both" in found.message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (with_prompts(target=()), "none of file, dataset, templates, texts is given"),
        (with_prompts(target=("a", " ")), "text 2 is blank"),
        (with_prompts(target=("a", "b", "A ")), "texts 1 and 3"),
        (with_prompts(target=("a", "b"), neutral=(" B", "c")), "in both sets"),
    ],
)
def test_prompts_given_in_place_are_checked_alike(problem, spec, words):
    assert words in problem(document(**spec)).message


def test_a_model_folder_that_does_not_exist_is_refused_and_an_existing_one_made_absolute(
    load, problem, tmp_path
):
    text = document(model={"name": "m", "source": {"folder": "model"}})
    assert problem(text).field == "spec.model.source.folder"
    (tmp_path / "model").mkdir()
    (item,) = load(text)
    folder = item.manifest.canonical_spec()["model"]["source"]["folder"]
    assert folder == str(tmp_path / "model")


# -- what is no edit ---------------------------------------------------------------------------


def test_comments_labels_order_and_spelt_out_defaults_do_not_change_the_spec(load):
    (plain,) = load(document())
    reordered = {name: SPEC[name] for name in reversed(SPEC)}
    for text in (
        document().replace("spec:", "# a comment\nspec: # another"),
        document().replace("  name: x\n", "  name: x\n  labels: {team: a}\n"),
        document(reordered),
        document(positions="last", mapping={"minCosine": 0.3}, gate={}, steering=None),
    ):
        (item,) = load(text)
        assert item.manifest.canonical_spec() == plain.manifest.canonical_spec()

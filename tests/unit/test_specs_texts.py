"""A line is a prompt only if it is one: other formats, twins and blanks are refused with advice."""

import json
import unicodedata

import pytest

from loopscope.specs import fields, texts
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.fields import Texts
from loopscope.specs.files import RootedFiles
from loopscope.specs.texts.same import normalised
from loopscope.specs.texts.source import ReadTexts, TextSource
from loopscope.specs.yaml.loading import load_path
from loopscope.views.documents.objects import applicable_document
from tests.hand_built import stored
from tests.simulated import capture_spec
from tests.unit.test_specs_loading import SPEC, document

LINES = ["the food in old france was", '{"a prompt may" begin with a brace', "[1] is a list, is"]
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 107\n"


@pytest.fixture
def target(tmp_path):
    """Load an experiment whose target prompts are given; return their texts."""

    def load(content=None, name="target.txt", **given):
        if content is not None:
            (tmp_path / name).write_text(content, encoding="utf-8")
            given = {"file": name, **given}
        prompts = {"target": given, "neutral": {"texts": ["Rome"]}}
        (tmp_path / "x.yaml").write_text(document(prompts=prompts))
        (item,) = load_path(tmp_path / "x.yaml", tmp_path)
        return list(item.manifest.spec.prompts.target.texts)

    return load


@pytest.fixture
def refusal(target):
    def refusal(*content, **given):
        with pytest.raises(InvalidSpec) as invalid:
            target(*content, **given)
        (problem,) = invalid.value.problems
        assert problem.field.startswith("spec.prompts.target") and problem.line > 0
        return problem.message

    return refusal


@pytest.fixture
def data_sets(monkeypatch):
    """Another source of texts, which is no file."""
    source = TextSource("dataset", lambda given, _: ReadTexts([f"a text of {given['dataset']}"]))
    monkeypatch.setattr(texts, "TEXT_SOURCES", (*texts.TEXT_SOURCES, source))
    monkeypatch.setattr(fields, "SOURCE_FIELDS", (*texts.SOURCE_FIELDS, "dataset"))


@pytest.mark.parametrize("exported", [False, True])
def test_each_field_that_names_texts_excludes_every_other_one(data_sets, tmp_path, exported):
    context = {"files": RootedFiles(tmp_path, tmp_path), "exported": exported}
    with pytest.raises(ValueError, match="give either file or dataset, not both"):
        Texts.model_validate({"file": "t.txt", "dataset": "d"}, context=context)


JSON_LINES = "".join(json.dumps({"text": line}) + "\n" for line in LINES)


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (JSON_LINES, "t.jsonl", "JSON Lines by its name"),
        (JSON_LINES, "t.txt", "JSON Lines from its first line"),
        (json.dumps(LINES), "t.JSON", "JSON by its name"),
        (json.dumps(LINES), "t.txt", "JSON from its first line"),
        (json.dumps(LINES, indent=1), "t.txt", "JSON from its first line"),
        (json.dumps({"texts": LINES}, indent=1), "t.txt", "JSON from its first line"),
        ("text,label\nParis is,1\n", "t.csv", "a table by its name"),
        ("- Paris is\n", "t.yaml", "YAML by its name"),
        ("Paris is\n", "t.txt.gz", "compressed by its name"),
    ],
)
def test_a_file_in_another_format_is_refused_with_what_to_do(refusal, content, name, words):
    message = refusal(content, name)
    assert words in message and "write format: lines" in message and "name the column" in message


@pytest.mark.parametrize("content", [JSON_LINES, json.dumps(LINES, indent=1), "a,b\nc,d\n"])
@pytest.mark.parametrize("name", ["t.txt", "t.jsonl", "t.csv"])
def test_format_lines_takes_any_file_as_it_stands(target, content, name):
    assert target(content, name, format="lines") == content.splitlines()


@pytest.mark.parametrize("name", ["prompts", "prompts.txt", "prompts.md", "prompts.en"])
def test_lines_that_look_like_another_format_here_and_there_are_prompts(target, name):
    assert target("\n".join(LINES), name) == LINES
    some = ['{"text": "Paris is"}', "Lyon is"]
    assert target("\n".join(some), name) == some


def test_what_was_read_from_a_file_can_be_applied_again_without_it():
    own = {"file": "t.csv", "format": "lines", "texts": ["a,b", "c,d"]}
    spec = capture_spec(prompts={"target": own, "neutral": {"texts": ["Rome"]}})
    shown = applicable_document(stored("Capture", "cap", spec))["spec"]["prompts"]["target"]
    assert shown == {"texts": ["a,b", "c,d"]}


def test_format_belongs_to_a_file(refusal):
    assert "format belongs to file" in refusal(texts=["Paris is"], format="lines")


@pytest.mark.parametrize("options", [{}, {"format": "lines"}])
def test_a_git_lfs_pointer_is_no_prompt_file(refusal, options):
    assert "git lfs pull" in refusal(POINTER, **options)


def test_a_git_lfs_pointer_is_no_spec(tmp_path):
    (tmp_path / "x.yaml").write_text(POINTER)
    with pytest.raises(InvalidSpec, match="git lfs pull"):
        load_path(tmp_path / "x.yaml", tmp_path)


CAFE = "the café in nîmes was"


@pytest.mark.parametrize(
    "twin",
    [
        unicodedata.normalize("NFD", CAFE),
        CAFE.replace(" ", " \u200b", 1),
        CAFE.replace("caf", "caf\u00ad"),
        f"\u2060{CAFE.upper()}\u200f",
        CAFE.replace(" ", "\u00a0"),
        unicodedata.normalize("NFD", CAFE).replace("e\u0301", "e\u200d\u0301"),
    ],
)
def test_the_same_prompt_in_other_code_points_is_the_same(refusal, twin):
    assert twin != CAFE
    for given in (("\n".join([CAFE, "x", twin]),), ()):
        options = {} if given else {"texts": [CAFE, "x", twin]}
        assert "texts 1 and 3 are the same" in refusal(*given, **options)


def test_a_prompt_keeps_its_own_code_points(target):
    own = unicodedata.normalize("NFD", CAFE).replace(" ", " \u200c", 1)
    assert target(own) == target(texts=[own]) == [own]


@pytest.mark.parametrize("blank", ["\u200b", "\u00ad\u2060", "\u3164", "\u00a0", "\u2800 \u200e"])
def test_a_line_of_which_nothing_can_be_seen_is_refused(refusal, target, blank):
    assert "text 2 is blank" in refusal(texts=["Paris is", blank])
    if blank.strip():
        assert "text 2 is blank" in refusal(f"Paris is\n{blank}\n")


def test_a_byte_order_mark_inside_is_refused_where_two_files_were_joined(refusal, target):
    assert "text 2 holds a byte order mark" in refusal("\ufeffParis is\n\ufeffLyon is\n")
    assert target("\ufeffParis is\nLyon is\n") == ["Paris is", "Lyon is"]


def test_utf_16_without_a_mark_is_told_from_text(refusal):
    assert "UTF-16" in refusal("Paris is\n".encode("utf-16-le").decode())


def test_white_space_at_the_end_is_no_part_of_a_text_wherever_it_stands(target):
    written = ["Paris is ", "  Lyon is\t", "Nice\u3000"]
    assert target("\n".join(written)) == target(texts=written) == ["Paris is", "  Lyon is", "Nice"]


@pytest.mark.parametrize("field", ["prompts", "neutralText", "lexicon", "siblings"])
def test_every_set_of_texts_is_checked_alike(tmp_path, field):
    (tmp_path / "t.jsonl").write_text(JSON_LINES)
    steering = {"prompts": {"texts": ["we walked to"]}, "neutralText": {"texts": ["a hill"]},
                "lexicon": {"texts": ["cheese"]}}  # fmt: skip
    for given, words in (
        ({"file": "t.jsonl"}, "JSON Lines"),
        ({"texts": [CAFE, unicodedata.normalize("NFD", CAFE)]}, "are the same"),
        ({"texts": ["\u200b"]}, "is blank"),
        ({"texts": ["a\ufeffb"]}, "byte order mark"),
    ):
        spec = {**SPEC, "steering": {**steering, field: given}}
        (tmp_path / "x.yaml").write_text(document(spec))
        with pytest.raises(InvalidSpec, match=words) as invalid:
            load_path(tmp_path / "x.yaml", tmp_path)
        assert f"spec.steering.{field}" in {p.field.removesuffix(".texts")
                                            for p in invalid.value.problems}  # fmt: skip


def test_ordinary_texts_are_compared_as_they_always_were():
    for text in ("Paris  IS", "Ωραία Ελλάδα ΐ", "straße", "été"):
        assert normalised(text) == " ".join(text.split()).casefold()

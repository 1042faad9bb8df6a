"""Texts come from tables and templates: each row that is meant, once, and nothing in silence."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from loopscope.specs.fields import GroupedTexts, Texts
from loopscope.specs.files import RootedFiles
from loopscope.specs.texts import READING_FIELDS
from loopscope.views.documents.objects import applicable_document
from tests.hand_built import stored
from tests.simulated import capture_spec

ROWS = [
    {"text": "Paris is", "country": "France", "year": 1990, "kind": "city"},
    {"text": "Rome is", "country": "Italy", "year": 1990, "kind": "city"},
    {"text": "The Loire is", "country": "France", "year": 2001, "kind": "river"},
    {"text": "paris  IS", "country": "France", "year": 2001, "kind": "city"},
    {"text": "Nice, by the sea, is", "country": "France", "year": 2001, "kind": "city"},
]
FRENCH = ("Paris is", "The Loire is", "Nice, by the sea, is")


def as_csv(rows, delimiter=","):
    def cell(value):
        text = str(value)
        return f'"{text}"' if delimiter in text or "\n" in text else text

    lines = [rows[0].keys(), *(row.values() for row in rows)]
    return "\n".join(delimiter.join(map(cell, line)) for line in lines) + "\n"


WRITERS = {
    "csv": lambda path, rows: path.write_text(as_csv(rows)),
    "tsv": lambda path, rows: path.write_text(as_csv(rows, "\t")),
    "jsonl": lambda path, rows: path.write_text("\n".join(map(json.dumps, rows))),
    "parquet": lambda path, rows: pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), path
    ),
}


@pytest.fixture
def read(tmp_path):
    """Read a set of texts, of a table with these rows if there are any."""

    def read(rows=None, model=GroupedTexts, **given):
        if rows is not None:
            given = {"file": "t.data", "column": "text", **given}
            content = rows if isinstance(rows, str) else None
            path = tmp_path / "t.data"
            path.write_text(content) if content else WRITERS[given["format"]](path, rows)
        return model.model_validate(given, context={"files": RootedFiles(tmp_path, tmp_path)})

    return read


@pytest.fixture
def refusal(read):
    def refusal(*rows, **given):
        with pytest.raises(ValueError) as error:
            read(*rows, **given)
        (problem,) = error.value.errors()
        return problem["msg"]

    return refusal


@pytest.mark.parametrize("form", WRITERS)
def test_a_column_of_labels_makes_one_file_the_prompts_of_several_conditions(read, form):
    target = read(ROWS, format=form, where={"country": "France"})
    neutral = read(ROWS, format=form, where={"country": ["Italy", "Spain"]})
    assert target.texts == FRENCH and neutral.texts == ("Rome is",)
    assert target.counted.canonical() == {"read": 5, "matching": 4, "duplicates": 1, "taken": 3}


@pytest.mark.parametrize("form", WRITERS)
def test_a_number_means_the_same_in_every_format(read, form):
    assert read(ROWS, format=form, where={"year": 2001, "kind": "river"}).texts == FRENCH[1:2]


@pytest.mark.parametrize("form", WRITERS)
def test_a_column_labels_the_groups_of_the_texts_that_were_taken(read, form):
    found = read(ROWS, format=form, where={"country": "France"}, groups={"column": "kind"})
    assert found.groups.labels == ("city", "river", "city")


@pytest.mark.parametrize("form", WRITERS)
def test_what_was_read_is_stored_and_read_no_more(read, form):
    found = read(ROWS, format=form, groups={"column": "kind"}, sample={"size": 2})
    assert GroupedTexts.model_validate(found.canonical()) == found
    prompts = {"target": found.canonical(), "neutral": {"texts": ["Bern"]}}
    shown = applicable_document(stored("Capture", "cap", capture_spec(prompts=prompts)))
    kept = shown["spec"]["prompts"]["target"]
    assert not {*kept} & {*READING_FIELDS} and kept["texts"] == list(found.texts)
    assert read(**kept).texts == found.texts


@pytest.mark.parametrize("form", WRITERS)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(refusal, form):
    assert "t.data has no column 'txt'; did you mean 'text'?" in refusal(
        ROWS, format=form, column="txt"
    )
    assert "no column 'land'" in refusal(ROWS, format=form, where={"land": "x"})
    assert "no column 'sort'" in refusal(ROWS, format=form, groups={"column": "sort"})
    assert "column is needed" in refusal(ROWS, format=form, column=None)


@pytest.mark.parametrize("form", WRITERS)
def test_a_label_with_one_class_is_refused_with_what_was_found(refusal, form):
    one = [row for row in ROWS if row["country"] == "France"]
    message = refusal(one, format=form, where={"country": ["Spain", "Italy"]})
    assert "no row of t.data has country 'Spain' or 'Italy'; found 'France' (4 rows)" in message
    message = refusal(ROWS, format=form, where={"country": "Italy", "kind": "river"})
    assert "among the rows that are left; found 'city' (1 rows)" in message


@pytest.mark.parametrize("where", [{}, {"country": []}, {"country": None}, {"country": {"a": 1}}])
def test_a_filter_that_says_nothing_is_refused(refusal, where):
    message = refusal(ROWS, format="csv", where=where)
    assert "where names no column" in message or "of column 'country'; found" in message


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_row_without_a_text_is_refused_with_file_row_and_column(refusal, form):
    blank = [ROWS[0], {**ROWS[1], "text": " "}]
    assert "t.data, row 2, column text: a blank text" in refusal(blank, format=form)
    if form != "csv":
        none = [ROWS[0], {**ROWS[1], "text": None}]
        assert "t.data, row 2, column text: no text" in refusal(none, format=form)
        assert "row 1, column year: expected text, found 1990" in refusal(
            ROWS, format=form, column="year"
        )


@pytest.mark.parametrize(
    ("form", "content", "words"),
    [
        ("csv", "text,b\none\n", "row 1: 1 values, expected 2 as in the header (line 2)"),
        ("csv", 'text\n"one\n', "line 2: unexpected end of data"),
        ("csv", "text,text\na,b\n", "t.data has 2 columns 'text'"),
        ("csv", "text,b\n", "t.data has no rows"),
        ("csv", "\n", "no column 'text'"),
        ("jsonl", '{"text": "a"}\n{"text": \n', "row 2: not JSON"),
        ("jsonl", '{"text": "a"}\n["b"]\n', "row 2: expected a JSON object"),
        ("jsonl", '{"text": "\\ud800"}\n', "row 1, column text: a character that is no text"),
        ("jsonl", '{"text": "a"}\n{"label": "b"}\n', "row 2, column text: no text"),
        ("jsonl", "[" * 100_000, "row 1: not JSON"),
        ("parquet", "PAR1 and no more", "cannot be read as Parquet"),
        ("parquet", "text,b\none,two\n", "cannot be read as Parquet"),
        ("csv", f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 107\n",
         "git lfs pull"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_table_is_refused_in_one_line(refusal, form, content, words):
    message = refusal(content, format=form)
    assert words in message and "\n" not in message


def test_a_table_needs_its_format(refusal):
    assert "column belongs to file with format csv" in refusal(as_csv(ROWS), column="text")
    assert "where belongs to" in refusal(texts=["a"], where={"a": "b"})
    assert "lists belongs to templates only" in refusal(as_csv(ROWS), format="csv", lists={"a": []})


def test_a_text_may_hold_line_ends_and_commas_in_quotes(read):
    assert read('text,n\n"a,\nb",1\n', format="csv").texts == ("a,\nb",)


@pytest.mark.parametrize("form", WRITERS)
def test_a_sample_depends_on_seed_and_texts_and_not_on_their_order(read, refusal, form):
    rows = [{"text": f"Place {n} is", "country": "x"} for n in range(60)]
    first = read(rows, format=form, sample={"size": 20, "seed": 3})
    assert len(first.texts) == 20 == first.counted.taken
    assert list(first.texts) == [row["text"] for row in rows if row["text"] in first.texts]
    again = read(rows[::-1], format=form, sample={"size": 20, "seed": 3})
    assert set(again.texts) == set(first.texts)
    other = read(rows, format=form, sample={"size": 20, "seed": 4})
    assert set(other.texts) != set(first.texts)
    message = refusal(rows, format=form, sample={"size": 61})
    assert "sample.size is 61, but there are 60 texts" in message


def test_lines_may_be_sampled_and_still_differ(read, refusal, tmp_path):
    (tmp_path / "t.txt").write_text("a\nb\nc\n")
    found = read(file="t.txt", sample={"size": 2})
    assert len(found.texts) == 2
    assert found.counted.canonical() == {"read": 3, "matching": 3, "duplicates": 0, "taken": 2}
    (tmp_path / "t.txt").write_text("a\nb\nA\n")
    assert "texts 1 and 3 are the same" in refusal(file="t.txt")


LISTS = {"country": ["France", "Spain"], "food": ["bread", "wine"]}


def test_templates_are_expanded_in_order_and_recorded(read):
    templates = ["The {food} of {country} is", "In {country} we", "A {{plain}} one"]
    found = read(templates=templates, lists=LISTS, groups={"column": "template"})
    assert found.texts == (
        "The bread of France is", "The bread of Spain is", "The wine of France is",
        "The wine of Spain is", "In France we", "In Spain we", "A {plain} one",
    )  # fmt: skip
    assert len(set(found.groups.labels)) == 3 and found.groups.labels[4] == templates[1]
    assert GroupedTexts.model_validate(found.canonical()) == found
    by_country = read(templates=templates[:2], lists=LISTS, groups={"column": "country"})
    assert by_country.groups.labels == ("France", "Spain") * 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"templates": ["In {contry}"], "lists": LISTS}, "lists has no contry; did you mean"),
        ({"templates": ["In {country}"], "lists": LISTS}, "no template names {food}"),
        ({"templates": ["In {country}"]}, "lists has no country"),
        ({"templates": ["In {country.__class__}"], "lists": LISTS}, "is no name of a list"),
        ({"templates": ["In {country!r}"], "lists": LISTS}, "is no name of a list"),
        ({"templates": ["In {country:>9999999999}"], "lists": LISTS}, "is no name of a list"),
        ({"templates": ["In {"], "lists": LISTS}, "cannot be read"),
        ({"templates": ["In {template}"], "lists": {"template": ["a"]}}, "no list may be called"),
        ({"templates": ["{a}{b}{c}"], "lists": {n: [str(i) for i in range(400)] for n in "abc"}},
         "stand for 64,000,000 texts"),
        ({"templates": ["a"], "texts": ["b"]}, "give either templates or texts"),
        ({"templates": ["a"], "column": "b"}, "column belongs to file"),
        ({"texts": ["b"], "counted": {"read": 1, "matching": 1, "duplicates": 0, "taken": 1}},
         "counted is written by Loopscope"),
        ({"texts": ["b"], "groups": {"column": "kind"}}, "'kind' is no column of these texts"),
        ({"templates": ["a", 3]}, "valid string"),
        ({"templates": ["a"], "sample": {"size": "many"}}, "expected a number"),
    ],
)  # fmt: skip
def test_templates_that_mean_nothing_are_refused(refusal, given, words):
    assert words in refusal(**given)


def test_words_may_come_from_a_table_as_well(read):
    assert read(ROWS, model=Texts, format="csv", column="country").texts == ("France", "Italy")


CLOSE = [{"text": f"Place {n}", "n": n} for n in (0.1234567, 0.1234568, 1234567.0, 1234568.0)]


@pytest.mark.parametrize("form", WRITERS)
def test_numbers_that_differ_in_the_seventh_digit_are_two(read, form):
    assert read(CLOSE, format=form, where={"n": 0.1234568}).texts == ("Place 0.1234568",)
    if form not in ("csv", "tsv"):  # there 1234567.0 is a text
        assert read(CLOSE, format=form, where={"n": 1234567}).texts == ("Place 1234567.0",)


@pytest.fixture
def parquet_file(tmp_path):
    """Write a table of these columns, by name or in pairs."""

    def parquet_file(*columns, **named):
        names, arrays = zip(*(columns or named.items()), strict=True)
        table = pyarrow.Table.from_arrays([pyarrow.array(one) for one in arrays], names)
        pyarrow.parquet.write_table(table, tmp_path / "t.data", compression="zstd")
        return {"file": "t.data", "format": "parquet", "column": "text"}

    return parquet_file


def test_a_narrow_number_of_a_parquet_file_is_what_is_written_in_the_spec(read, parquet_file):
    given = parquet_file(text=["a", "b"], n=pyarrow.array([0.1, 0.2], pyarrow.float32()))
    assert read(**given, where={"n": 0.1}).texts == ("a",)


def test_a_parquet_file_with_a_column_twice_is_refused(refusal, parquet_file):
    given = parquet_file(("text", ["a"]), ("text", ["b"]))
    assert "t.data has 2 columns 'text'; rename all but one" in refusal(**given)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pyarrow.array([2**62], pyarrow.timestamp("ms")), "t.data, column label cannot be read"),
        (
            pyarrow.array([b"\xff"]).view(pyarrow.string()),
            "t.data, column label cannot be read: 'utf-8'",
        ),
        ([["a"]], "t.data, column label: expected texts, numbers, or true and false; found list"),
        (
            pyarrow.array([b"ab"], pyarrow.binary(2)),
            "t.data, column label: expected texts, numbers",
        ),
    ],
)
def test_values_of_a_parquet_file_that_are_no_labels_are_refused(
    refusal, parquet_file, values, words
):
    given = parquet_file(text=["a"], label=values)
    assert words in refusal(**given, groups={"column": "label"})


def test_a_text_that_a_parquet_file_repeats_counts_each_time(refusal, parquet_file):
    rows = 300_000
    once = pyarrow.DictionaryArray.from_arrays([0] * rows, ["x" * 1_000_000])
    given = parquet_file(text=once)
    message = refusal(**given)
    assert "text hold 10,000,000,000 bytes, expected at most 268,435,456" in message


def test_a_label_is_text_as_well(refusal):
    lines = '{"text": "a", "kind": "b"}\n{"text": "c", "kind": "\\ud800"}\n'
    message = refusal(lines, format="jsonl", groups={"column": "kind"})
    assert "t.data, row 2, column kind: a character that is no text" in message


def test_of_a_table_with_very_many_columns_some_are_named(refusal):
    header = ",".join(f"c{place}" for place in range(2000))
    assert refusal(header, format="csv").endswith("c49 and 1,950 others")
    assert refusal("\n", format="csv").endswith("no column 'text': it has none at all")


def test_a_format_that_is_not_known_is_refused_as_such(refusal):
    assert "'csv'" in refusal(as_csv(ROWS), format="CSV")
    assert "'csv'" in refusal(as_csv(ROWS), format="xlsx")


def test_a_size_that_is_written_with_a_point_is_a_number_of_texts(read):
    assert len(read(ROWS, format="csv", sample={"size": 2.0, "seed": 1.0}).texts) == 2


def test_what_is_no_file_is_refused_by_its_name(refusal, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "folder is no file" in refusal(file="folder")
    assert "leads nowhere" in refusal(file="a\0b")

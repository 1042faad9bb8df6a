"""A refusal says where, what was expected, what was found, and what was probably meant."""

import pytest
import yaml

from loopscope.specs.suggest import closest
from loopscope.specs.yaml.loading import FILE_BYTES_MAX
from tests.fuzz.seeds import SPECS, document

HEAD = "apiVersion: loopscope.dev/v1alpha1\nkind: Experiment\nmetadata: {name: x}\nspec:\n"


@pytest.fixture
def refused(loopscope, tmp_path):
    """Apply a text; return the lines of the refusal, after checking that nothing was stored."""
    for name in ("coarse", "fine", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "target.txt").write_text("Paris is\n")

    def apply(content):
        file = tmp_path / "x.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        code, out, err = loopscope("apply", "-f", "x.yaml")
        assert (code, out) == (2, "") and "Traceback" not in err
        assert not (tmp_path / "state").exists()
        *lines, last = err.splitlines()
        assert last == "nothing was applied"
        return lines

    return apply


def changed(path, value):
    """Return an Experiment's YAML in which one field is another."""
    made = document("Experiment", {**SPECS["Experiment"]})
    inner = made
    *place, last = path.split(".")
    for step in place:
        inner[step] = dict(inner.get(step, {}))
        inner = inner[step]
    inner[last] = value
    return yaml.safe_dump(made, sort_keys=False)


POSITIONS = "last, all, lastContent, assistant, afterTemplate, {token: …} or {index: …}"
SAID = {
    "spec.hook": [
        ("blocks.12.hook_resid_pots", "did you mean 'blocks.12.hook_resid_post'?"),
        ("blocks.012.resid_post", "did you mean 'blocks.12.hook_resid_post'?"),
        ("layers.3.resid_pre", "did you mean 'blocks.3.hook_resid_pre'?"),
        ("blocks.3.hook_q", "no other hook is supported), found 'blocks.3.hook_q'"),
    ],
    "spec.positions": [
        ("lasst", f"expected {POSITIONS}; found 'lasst'; did you mean 'last'?"),
        ("first", f"expected {POSITIONS}; found 'first'"),
    ],
    "spec.maxTokens": [
        ("64", "expected a number, found the text '64'; remove quotes"),
        (1.5, "expected a whole number, found 1.5"),
        (1, "expected at least 2, found 1"),
        (True, "expected a number, found true"),
    ],
    "spec.mapping.minCosine": [(3, "expected at most 1, found 3")],
    "spec.minCosine": [(0.3, "unknown field here; did you mean spec.mapping.minCosine?")],
    "spec.min_cosine": [(0.3, "unknown field here; did you mean spec.mapping.minCosine?")],
    "spec.Positions": [("all", "unknown field; did you mean 'positions'?")],
    "spec.gate": [(3, "expected a mapping with rule, minSubfeatures"), ([], "found []")],
    "spec.dictionaries": [({"coarse": {"path": "coarse"}}, "required, but not given")],
    "spec.dictionaries.fine.path": [("fien", "no such file or folder: fien")],
    "spec.dictionaries.coarse.path": [("../x/corse", "no such file or folder: ../x/corse (")],
    "spec.dictionaries.coarse": [({"path": "corse"}, "; did you mean 'coarse'?")],
    "spec.prompts.target.file": [("traget.txt", "; did you mean 'target.txt'?")],
    "spec.prompts.target": [({"texts": [1999, "a"]}, "expected text, found 1999; put it in")],
    "spec.steering.strengths": [
        (["0.5"], "expected a number, found '0.5'"),
        ([], "expected at least 1 entries, found 0"),
        (None, "expected a list, found nothing"),
    ],
    "spec.steering.arms": [(["coarse", "fien"], "found 'fien'; did you mean 'fine'?")],
    "spec.steering.sampling.greedy": [("yes", "expected true or false, found the text 'yes'")],
    "metadata.name": [("My_Name", "expected lower-case letters, digits and '-'")],
    "metadata.labels": [("a", "expected a mapping, found 'a'")],
    "spec.model.source.sha256": [("abc", "expected the 64 hexadecimal digits of a sha256")],
    "kind": [("Experimnt", "did you mean 'Experiment'?"), (None, "found nothing")],
    "apiVersion": [("v1", "expected 'loopscope.dev/v1alpha1', found 'v1'")],
}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [(path, value, words) for path, cases in SAID.items() for value, words in cases],
)
def test_a_wrong_value_is_told_with_what_was_expected_and_found(refused, path, value, words):
    text = changed(path, value)
    told = [line for line in refused(text) if words in line]
    assert len(told) == 1, refused(text)
    place, line, column, field, _ = told[0].split(":", 4)
    assert place == "x.yaml" and int(line) > 0 and int(column) > 0
    shared = min(path.split("."), field.strip().split("."), key=len)[:-1]
    assert field.strip().split(".")[: len(shared)] == path.split(".")[: len(shared)]


def test_the_advice_to_remove_quotes_is_given_only_where_that_helps(refused):
    for text, helps in (("64", True), ("1,000", False), ("64L", False)):
        (said,) = [line for line in refused(changed("spec.maxTokens", text)) if f"{text!r}" in line]
        assert ("remove quotes" in said) == helps, said


def test_all_problems_are_told_at_once_in_the_order_of_the_file(refused):
    text = HEAD + (
        "  hook: blocks.1.resid_post\n  positons: all\n  mapping: {minCosine: 3, topK: x}\n"
        "  model: tiny\n  prompts: {target: {texts: [1]}}\n"
    )
    places = [tuple(map(int, line.split(":")[1:3])) for line in refused(text)]
    assert len(places) == 8 and places == sorted(places)


# -- texts that are no YAML ------------------------------------------------------------------

NO_YAML = {
    "a tab for indentation": (HEAD + "\thook: a\n", 5, 1, "found a tab; indent with spaces"),
    "a tab after spaces": (HEAD + "  a:\n  \tb: c\n", 6, 3, "found a tab; indent with spaces"),
    "a quote that is not closed": (HEAD + '  hook: "abc\n', 6, 1, "which begins at line 5"),
    "a list that is not closed": (HEAD + "  a: [b\n  c: d\n", 6, 4, "which begins at line 5"),
    "a value that begins with @": (HEAD + "  a: @b\n", 5, 6, "put it in quotes"),
    "two colons": (HEAD + "  a: b: c\n", 5, 7, "found a ':' where none can be"),
    "a control character": (HEAD + "  é: \x07\n", 5, 6, "the control character U+0007"),
    "a null byte": ("\x00", 1, 1, "the control character U+0000"),
    "bytes that are no UTF-8": (HEAD.encode() + b"  caf\xe9: 1\n", 5, 6, "found 0xe9; save it as"),
    "UTF-16": ("a: 1\n".encode("utf-16"), 0, 0, "expected UTF-8, found UTF-16"),
    "a key given twice": (HEAD + "  hook: a\n  hook: b\n", 6, 3, "first at line 5"),
    "an alias": (HEAD + "  a: &x [1]\n  b: *x\n", 6, 6, "aliases (*name) are not supported"),
    "a text alone": ("just text\n", 1, 1, "found 'just text'"),
    "an empty file": ("", 0, 0, "expected YAML documents with apiVersion, kind"),
    "empty documents": ("---\n---\n# nothing\n---\nnull\n", 0, 0, "no objects; expected YAML"),
    "a file of 50 MB": (b"# " + b"x" * 50_000_000, 0, 0, f"larger than {FILE_BYTES_MAX:,} bytes"),
}


@pytest.mark.parametrize(("content", "line", "column", "words"), NO_YAML.values(), ids=NO_YAML)
def test_a_text_that_is_no_spec_is_refused_with_its_place(refused, content, line, column, words):
    (told,) = refused(content)
    place = f"x.yaml:{line}:{column}: " if line else "x.yaml: "
    assert told.startswith(place) and words in told


def test_a_bomb_of_aliases_is_refused_while_it_is_small(refused):
    rows = ["a0: &a0 [lol, lol]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    told = refused("\n".join(rows))
    assert len(told) == 81 and all("aliases" in line for line in told)


def test_a_folder_without_specs_is_told_apart_from_a_file_without_objects(loopscope, tmp_path):
    (tmp_path / "specs").mkdir()
    code, _, err = loopscope("apply", "-f", "specs")
    assert code == 2 and "a folder without *.yaml and *.yml files" in err


def test_a_problem_in_the_third_document_of_a_file_has_the_line_of_the_file(refused):
    good = yaml.safe_dump(document("Mapping"))
    bad = yaml.safe_dump({**document("Mapping"), "metadata": {"name": "y"}, "extra": 1})
    told = refused(f"{good}---\n# nothing here\n---\n{bad}")
    line = (good + "---\n# nothing here\n---\n" + bad).split("\n").index("extra: 1") + 1
    assert told == [
        f"x.yaml:{line}:1: extra: unknown field; known: apiVersion, kind, metadata, spec"
    ]


# -- suggestions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [("minCosin", "minCosine"), ("MINCOSINE", "minCosine"), ("zzz", None), ("", None)],
)
def test_a_suggestion_is_close_or_none(name, meant):
    assert closest(name, ["minCosine", "topK"]) == meant


def test_a_very_long_name_is_compared_in_no_time():
    assert closest("x" * 10_000_000, ["minCosine"] * 100) is None

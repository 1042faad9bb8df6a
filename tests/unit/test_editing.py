"""Edits by hand: checked and stored as an apply is, and no owner of what they change."""

import json
import re
from pathlib import Path

import pytest

from loopscope.specs.merging import merge_patched


@pytest.fixture
def applied(loopscope, experiment):
    """An experiment that was applied from its file; return the file."""
    path = experiment()
    loopscope("apply", "-f", path)
    return path


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Let a shell line be the editor; ``$1`` is the file."""

    def use(line):
        script = tmp_path / "editor"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", str(script))

    return use


def stored(loopscope, name="x"):
    return json.loads(loopscope("get", "exp", name, "-o", "json")[1])


def test_a_merge_patch_sets_replaces_and_takes_away():
    before = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    patch = {"a": {"b": None, "c": [3]}, "e": {"f": 1}}
    assert merge_patched(before, patch) == {"a": {"c": [3]}, "d": 3, "e": {"f": 1}}
    assert before["a"] == {"b": 1, "c": [1, 2]}


# -- patch and edit ------------------------------------------------------------------------


def test_a_patch_changes_a_field_and_raises_the_generation(loopscope, applied):
    before = stored(loopscope)
    said = loopscope("patch", "exp", "x", "-p", "{spec: {mapping: {minCosine: 0.4}}}")
    assert said == (0, "experiment/x configured\n", "")
    after = stored(loopscope)
    assert after["spec"]["mapping"]["minCosine"] == 0.4
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    same = loopscope("patch", "exp", "x", "-p", '{"spec": {"mapping": {"minCosine": 0.4}}}')
    assert same[1] == "experiment/x unchanged\n"


def test_the_file_keeps_what_it_does_not_name_and_sets_what_it_does(loopscope, applied):
    loopscope("patch", "exp", "x", "-p", "{spec: {mapping: {minCosine: 0.4}}}")
    applied.write_text(applied.read_text().replace("hook:", "maxTokens: 64\n  hook:"))
    assert loopscope("apply", "-f", applied)[1] == "experiment/x configured\n"
    assert stored(loopscope)["spec"]["mapping"]["minCosine"] == 0.4
    loopscope("patch", "exp", "x", "-p", "{spec: {maxTokens: 32}}")
    applied.write_text(applied.read_text() + "\n")
    loopscope("apply", "-f", applied)
    assert stored(loopscope)["spec"]["maxTokens"] == 64


@pytest.mark.parametrize(
    ("patch", "what"),
    [
        ("{spec: {mapping: {minCosne: 1}}}", "did you mean 'minCosine'"),
        ("{spec: {mapping: {minCosine: 7}}}", "spec.mapping.minCosine"),
        ("{metadata: {name: y}}", "cannot be changed"),
        ("{spec: {hook: blocks.7.hook_resid_post}}", "spec.hook"),
        ("[1]", "no mapping"),
        ("{", "neither JSON nor YAML"),
    ],
)
def test_a_patch_that_leads_nowhere_changes_nothing(loopscope, applied, patch, what):
    before = stored(loopscope)
    code, out, err = loopscope("patch", "exp", "x", "-p", patch)
    assert (code, out) == (2, "") and what in err
    assert stored(loopscope) == before


def test_an_edit_is_stored_as_it_was_saved(loopscope, applied, editor):
    editor('sed -i "s/minCosine: .*/minCosine: 0.45/" "$1"')
    assert loopscope("edit", "exp", "x")[1] == "experiment/x configured\n"
    assert stored(loopscope)["spec"]["mapping"]["minCosine"] == 0.45


@pytest.mark.parametrize("line", ["true", ': > "$1"'], ids=["unchanged", "emptied"])
def test_an_edit_that_says_nothing_changes_nothing(loopscope, applied, editor, line):
    before = stored(loopscope)
    editor(line)
    assert loopscope("edit", "exp", "x")[:2] == (0, "experiment/x not changed\n")
    assert stored(loopscope) == before


def test_a_refused_edit_is_opened_again_with_its_problem(loopscope, applied, editor, tmp_path):
    editor(
        f'cat "$1" >> {tmp_path}/seen\n'
        'if grep -q "^#!" "$1"; then sed -i "s/minC: .*/minCosine: 0.45/" "$1"\n'
        'else sed -i "s/minCosine: .*/minC: 0.45/" "$1"; fi'
    )
    assert loopscope("edit", "exp", "x")[1] == "experiment/x configured\n"
    assert "did you mean 'minCosine'?" in (tmp_path / "seen").read_text()
    assert stored(loopscope)["spec"]["mapping"]["minCosine"] == 0.45


def test_a_refused_edit_that_is_left_as_it_is_changes_nothing(loopscope, applied, editor):
    editor('sed -i "s/minCosine: .*/minC: 0.45/" "$1"')
    code, out, _ = loopscope("edit", "exp", "x")
    assert code == 1 and "not changed" in out and "spec.mapping.minC" in out


LEAVING = {
    "unchanged": "true",
    "emptied": ': > "$1"',
    "a failing editor": "exit 3",
    "no UTF-8": "printf '\\377' > \"$1\"",
    "a file that is gone": 'rm "$1"',
}


@pytest.mark.parametrize("line", LEAVING.values(), ids=list(LEAVING))
def test_what_was_saved_and_refused_is_kept_however_the_next_try_ends(
    loopscope, applied, editor, line
):
    before = stored(loopscope)
    editor(
        f'if grep -q "^#!" "$1"; then {line}\n'
        'else sed -i "s/minCosine: .*/minC: 0.45  # long thought about/" "$1"; fi'
    )
    code, out, err = loopscope("edit", "exp", "x")
    assert code in (1, 2) and stored(loopscope) == before
    (kept, *_) = re.findall(r"(/\S*loopscope-edit-[^\s;]+)", (out + err).rpartition("kept in")[2])
    assert "minC: 0.45  # long thought about" in Path(kept).read_text()


def test_an_edit_of_what_others_changed_meanwhile_is_refused(
    loopscope, applied, editor, tmp_path, monkeypatch
):
    from loopscope.commands.applying import editing

    def meanwhile(text):
        from loopscope.specs.keys import Key
        from loopscope.state.db import objects
        from loopscope.state.folder import open_state

        state = open_state(tmp_path / "state")
        with state.database.write() as connection:
            record = objects.get(connection, Key("Experiment", "default", "x"))
            objects.annotate(connection, record, "seen", "yes")
        return text.replace("minCosine: 0.3", "minCosine: 0.45")

    monkeypatch.setattr(editing, "_edited_by_hand", meanwhile)
    code, _, err = loopscope("edit", "exp", "x")
    assert code == 1 and "experiment/x has changed since it was read" in err
    assert stored(loopscope)["spec"]["mapping"]["minCosine"] == 0.3
    kept = Path(err.rsplit("kept in ", 1)[1].strip())
    assert "minCosine: 0.45" in kept.read_text() and kept.stat().st_mode & 0o077 == 0


def test_an_edit_that_is_not_utf_8_is_refused_in_words(loopscope, applied, editor):
    before = stored(loopscope)
    editor("printf 'spec: \\377' > \"$1\"")
    code, out, err = loopscope("edit", "exp", "x")
    assert (code, out) == (2, "") and "not UTF-8 at byte 6" in err
    kept = Path(err.rsplit("kept in ", 1)[1].strip())
    assert kept.read_bytes() == b"spec: \xff"
    assert stored(loopscope) == before


def test_a_patch_that_is_not_utf_8_is_refused_in_words(loopscope, applied, tmp_path):
    (tmp_path / "patch").write_bytes(b"\xffspec: {}")
    for words in (("--patch-file", tmp_path / "patch"), ("-p", "{spec: \udcff}")):
        code, out, err = loopscope("patch", "exp", "x", *words)
        assert (code, out) == (2, "") and "not UTF-8" in err


def test_a_patch_file_that_is_not_there_is_bad_input(loopscope, applied, tmp_path):
    code, out, err = loopscope("patch", "exp", "x", "--patch-file", tmp_path / "nowhere")
    assert (code, out) == (2, "") and "nowhere" in err


def test_an_owned_object_is_not_edited(loopscope, settled):
    code, _, err = loopscope("label", "mapping", "france", "a=b")
    assert code == 1 and "belongs to experiment/france; edit the owner" in err


# -- labels and annotations ----------------------------------------------------------------


def test_labels_are_set_replaced_on_demand_and_taken_away(loopscope, applied):
    assert loopscope("label", "exp/x", "team=geo", "old=1")[1] == "experiment/x configured\n"
    code, _, err = loopscope("label", "exp", "x", "team=other")
    assert code == 1 and "--overwrite" in err
    assert loopscope("label", "exp", "x", "team=other", "old-", "--overwrite")[0] == 0
    assert stored(loopscope)["metadata"]["labels"] == {"team": "other"}
    assert stored(loopscope)["metadata"]["generation"] == 1
    assert loopscope("apply", "-f", applied)[0] == 0
    assert stored(loopscope)["metadata"]["labels"] == {"team": "other"}


def test_annotations_of_all_of_a_kind_or_of_some(loopscope, applied):
    applied.with_name("y.yaml").write_text(applied.read_text().replace("name: x", "name: y"))
    loopscope("apply", "-f", applied.parent)
    loopscope("label", "exp", "y", "team=geo")
    assert loopscope("annotate", "exp", "--all", "note=a b")[1].count("configured") == 2
    assert loopscope("annotate", "exp", "-l", "team=geo", "note-")[1] == "experiment/y configured\n"
    assert stored(loopscope)["metadata"]["annotations"]["note"] == "a b"
    assert "note" not in stored(loopscope, "y")["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["exp", "x"], "a=b sets"),
        (["a=b"], "a=b sets"),
        (["exp", "a=b"], "name the objects"),
        (["exp", "x", "a=b", "--all"], "give names, or --selector, or --all"),
        (["exp", "x", "a=1", "a-"], "changed twice"),
        (["exp", "x", "no spaces=1"], "a=b sets"),
        (["exp", "x", "a=" + "b" * 64], "metadata.labels"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused(loopscope, applied, words, what):
    before = stored(loopscope)
    code, out, err = loopscope("label", *words)
    assert (code, out) == (2, "") and what in err
    assert stored(loopscope) == before


def test_protection_can_be_taken_away_by_hand(loopscope, applied):
    loopscope("annotate", "exp", "x", "loopscope.dev/protect=true")
    assert loopscope("delete", "exp", "x")[0] == 1
    loopscope("annotate", "exp", "x", "loopscope.dev/protect-")
    assert loopscope("delete", "exp", "x")[0] == 0

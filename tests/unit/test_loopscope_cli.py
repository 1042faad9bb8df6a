"""The front door: words, exit codes, and that a refused file leaves no trace."""

import json
import time
from importlib.metadata import version

import pytest
import yaml

from loopscope.specs.keys import PROTECT_ANNOTATION
from tests.simulated import Simulation

HOOK = "blocks.1.hook_resid_post"


# -- apply and diff ----------------------------------------------------------------------


def test_apply_creates_then_finds_unchanged_then_configures(loopscope, experiment):
    path = experiment()
    assert loopscope("apply", "-f", path) == (0, "experiment/x created\n", "")
    assert loopscope("apply", "-f", path)[1] == "experiment/x unchanged\n"
    (path.parent.parent / "target.txt").write_text("A is\nB is\nC is\nD is\nE is\n")
    assert loopscope("apply", "-f", path)[1] == "experiment/x configured\n"


def test_a_dry_run_stores_nothing(loopscope, experiment, tmp_path):
    code, out, _ = loopscope("apply", "-f", experiment(), "--dry-run")
    assert (code, out) == (0, "experiment/x created (dry run)\n")
    assert not (tmp_path / "state").exists()


BAD = {
    "unknown field": (lambda s: s.update(slection={}), "spec.slection"),
    "wrong hook": (lambda s: s.update(hook="blocks.1.attn.hook_q"), "spec.hook"),
    "dictionaries of another place": (
        lambda s: s.update(hook="blocks.1.hook_mlp_out"), "spec.dictionaries.coarse.path"
    ),
    "hook beyond the model": (lambda s: s.update(hook="blocks.2.hook_resid_post"), "spec.hook"),
    "missing prompt file": (
        lambda s: s["prompts"].update(target={"file": "nowhere.txt"}), "spec.prompts.target"
    ),
    "no neutral prompts": (lambda s: s["prompts"].pop("neutral"), "spec.prompts.neutral"),
    "dictionary of another width": (
        lambda s: s["dictionaries"].update(fine={"path": "../wide"}), "spec.dictionaries.fine.path"
    ),
    "wrong sha256": (
        lambda s: s["dictionaries"]["fine"].update(sha256="0" * 64), "spec.dictionaries.fine.sha256"
    ),
    "missing dictionary": (
        lambda s: s["dictionaries"].update(fine={"path": "../no"}), "spec.dictionaries.fine.path"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "field"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_with_file_line_and_field(
    loopscope, experiment, tmp_path, edit, field
):
    path = experiment(edit)
    code, out, err = loopscope("apply", "-f", path)
    place, *rest = err.split(": ")
    file, line, column = place.rsplit(":", 2)
    assert (code, out, file) == (2, "", str(path))
    assert int(line) > 0 and int(column) > 0 and rest[0] == field
    assert err.endswith("nothing was applied\n")
    assert not (tmp_path / "state").exists()


def test_a_duplicate_key_is_refused_and_what_was_stored_stays(loopscope, experiment):
    loopscope("apply", "-f", experiment())
    before = loopscope("get", "exp", "x", "-o", "yaml")[1]
    path = experiment(text=lambda text: text + f"  hook: {HOOK}\n")
    for words in (["apply", "-f"], ["diff", "-f"], ["run", "-f"], ["run"]):
        code, _, err = loopscope(*words, path)
        assert code == 2 and "given twice" in err
    assert loopscope("get", "exp", "x", "-o", "yaml")[1] == before


def test_a_run_of_nothing_says_how_to_name_what_to_run(loopscope):
    code, _, err = loopscope("run")
    assert code == 2 and "PATH, or -f PATH" in err


def test_one_bad_file_keeps_the_whole_folder_out(loopscope, experiment):
    path = experiment()
    (path.parent / "bad.yaml").write_text("kind: Nothing\n")
    assert loopscope("apply", "-f", path.parent, "--root", ".")[0] == 2
    assert loopscope("get", "exp")[0] == 2, "there is no state folder yet"


def test_a_file_outside_the_root_is_refused(loopscope, experiment):
    path = experiment()
    code, _, err = loopscope("apply", "-f", path, "--root", path.parent)
    assert code == 2 and "--root" in err


def test_diff_tells_the_changed_fields_and_exits_1(loopscope, experiment):
    loopscope("apply", "-f", experiment())
    assert loopscope("diff", "-f", experiment()) == (0, "", "")
    path = experiment(lambda spec: spec.update(mapping={"minCosine": 0.4}))
    code, out, _ = loopscope("diff", "-f", path)
    assert (code, out) == (1, "experiment/x\n  spec.mapping.minCosine: 0.3 -> 0.4\n")
    assert loopscope("diff", "-f", path)[1] == out, "diff changes nothing"


# -- reading -----------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["experiment", "experiments", "exp", "Experiment", "EXP"])
def test_a_kind_may_be_typed_in_its_usual_words(loopscope, settled, word):
    assert loopscope("get", word, "-o", "name") == (0, "experiment/france\n", "")


def test_every_kind_has_a_plural_and_a_short_word(loopscope, settled):
    for words in (("captures", "cap"), ("decompositions", "dec"), ("mappings", "map"),
                  ("steerings", "steer")):  # fmt: skip
        outputs = {loopscope("get", word, "-o", "name")[1] for word in words}
        assert len(outputs) == 1 and outputs.pop().startswith(words[0].removesuffix("s"))


def test_get_prints_a_table_with_one_row_per_object(loopscope, settled):
    header, *rows = loopscope("get", "dec")[1].splitlines()
    assert header.startswith("NAME")
    assert [row.split()[0] for row in rows] == ["france-coarse", "france-fine"]


def test_a_child_may_be_named_by_its_experiment(loopscope, settled):
    assert loopscope("get", "mapping", "france", "-o", "name")[1] == "mapping/france-mapping\n"
    assert loopscope("get", "dec/france", "-o", "name")[1].split() == [
        "decomposition/france-coarse", "decomposition/france-fine",
    ]  # fmt: skip


def test_documents_are_yaml_and_json_with_the_same_content(loopscope, settled):
    as_yaml = yaml.safe_load(loopscope("get", "exp", "france", "-o", "yaml")[1])
    as_json = json.loads(loopscope("get", "exp", "france", "-o", "json")[1])
    assert as_yaml == as_json and as_json["kind"] == "Experiment"
    assert as_json["status"]["observedGeneration"] == as_json["metadata"]["generation"] == 1
    assert json.loads(loopscope("get", "cap", "-o", "json")[1])["kind"] == "List"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["get", "thing"], "unknown kind 'thing'"),
        (["get", "exp", "nobody"], "france"),
        (["get", "exp", "a", "b"], "no experiment named 'a'"),
        (["retry", "exp", "a", "b"], "expected KIND NAME"),
        (["get", "exp", "-o", "xml"], "json, yaml, name, wide, jsonpath"),
        (["delete", "exp"], "name the experiment"),
        (["retry", "dec"], "needs a name"),
        (["events", "dec", "france"], "france-coarse, france-fine"),
        (["wait", "exp", "france", "--for", "condition=Redy"], "condition=TYPE"),
        (["wait", "exp", "france", "--for", "condition=Ready", "--timeout", "soon"], "duration"),
    ],
)
def test_a_mistyped_command_says_what_was_expected(loopscope, settled, words, hint):
    code, out, err = loopscope(*words)
    assert code in (1, 2) and out == "" and hint in err
    assert err.startswith("error: ") and "Traceback" not in err


def test_describe_tells_conditions_and_events(loopscope, settled):
    code, out, _ = loopscope("describe", "exp", "france")
    assert code == 0
    for word in ("france", "Ready", "ChildrenReady", "Created"):
        assert word in out


def test_events_are_told_for_all_or_for_one_object(loopscope, settled):
    everything = loopscope("events")[1].splitlines()
    ours = loopscope("events", "cap", "france")[1].splitlines()
    assert everything[0].split()[:2] == ["LAST", "SEEN"] and len(everything) > len(ours) > 1
    assert all("capture/france-capture" in row for row in ours[1:])


def test_queue_tells_what_waits_and_with_all_what_ended(loopscope, tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step_until_running()
    row = next(line for line in loopscope("queue")[1].splitlines() if line.startswith("1 "))
    assert row.split()[1:4] == ["capture", "running", "capture/france-capture"]
    simulation.workers.failures["capture"] = ("PromptTooLong", False)
    simulation.workers.complete()
    assert "1 " not in [line[:2] for line in loopscope("queue")[1].splitlines()]
    assert "PromptTooLong: capture went wrong" in loopscope("queue", "--all")[1]
    (job,) = json.loads(loopscope("queue", "--all", "-o", "json")[1])["jobs"]
    assert (job["state"], job["stage"]) == ("failed", "capture")
    simulation.settle()
    assert "is retried as job 2" in loopscope("retry", "cap", "france")[1]
    assert "no failed job" in loopscope("retry", "cap", "france")[1]


def test_a_namespace_of_its_own_is_empty(loopscope, settled):
    assert loopscope("-n", "elsewhere", "get", "exp")[1].startswith("No experiments found")
    assert loopscope("-n", "elsewhere", "get", "exp", "france")[0] == 1


def test_without_a_state_folder_reading_is_an_error_and_creates_none(loopscope, tmp_path):
    for words in (["get", "exp"], ["events"], ["queue"], ["delete", "exp", "x"]):
        code, _, err = loopscope(*words)
        assert code == 2 and "no state folder" in err
    assert not (tmp_path / "state").exists()


# -- waiting and deleting ----------------------------------------------------------------


def test_wait_returns_when_the_condition_holds(loopscope, settled):
    code, out, _ = loopscope("wait", "exp", "france", "--for", "condition=ready")
    assert (code, out) == (0, "experiment/france: Ready\n")
    assert loopscope("wait", "dec/france", "--for=condition=ArtifactsVerified")[0] == 0


def test_wait_gives_up_with_the_reason(loopscope, settled):
    settled.apply({**settled.get("france").spec, "maxTokens": 99})
    code, _, err = loopscope("wait", "exp", "france", "--for", "condition=Ready", "--timeout", "0")
    assert code == 1 and "timed out" in err
    assert loopscope("wait", "exp", "nobody", "--for", "condition=Ready")[0] == 1


def test_wait_for_a_deletion_ends_when_the_object_is_gone(loopscope, settled):
    assert loopscope("wait", "exp", "france", "--for", "delete", "--timeout", "0")[0] == 1
    settled.delete()
    assert loopscope("wait", "exp", "france", "--for", "delete")[0] == 0


def test_an_interrupt_exits_130(loopscope, settled, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert loopscope("wait", "exp", "france", "--for", "condition=Stalled")[0] == 130


def test_delete_tells_everything_that_went(loopscope, settled):
    code, out, _ = loopscope("delete", "exp", "france")
    assert code == 0 and len(out.splitlines()) == 6
    assert out.startswith("experiment/france deleted\n")
    assert settled.objects() == []
    assert loopscope("delete", "exp", "france")[0] == 1


def test_a_child_is_not_deleted_by_itself(loopscope, settled):
    code, _, err = loopscope("delete", "map", "france")
    assert code == 2 and "belongs to experiment/france" in err
    assert len(settled.objects()) == 6


def test_delete_by_file_ignores_what_is_already_gone(loopscope, experiment):
    path = experiment()
    loopscope("apply", "-f", path)
    assert loopscope("delete", "-f", path)[1] == "experiment/x deleted\n"
    assert loopscope("delete", "-f", path)[:2] == (0, "experiment/x not found\n")


def test_a_protected_experiment_is_not_deleted(loopscope, experiment):
    def protect(text):
        note = f"  annotations: {{{PROTECT_ANNOTATION}: 'true'}}"
        return text.replace("  name: x\n", f"  name: x\n{note}\n", 1)

    path = experiment(text=protect)
    loopscope("apply", "-f", path)
    code, _, err = loopscope("delete", "exp", "x")
    assert code == 1 and PROTECT_ANNOTATION in err
    assert loopscope("get", "exp", "x")[0] == 0


def test_a_refused_deletion_says_of_nothing_that_it_was_deleted(loopscope, experiment):
    def twice(text):
        note = f"  annotations: {{{PROTECT_ANNOTATION}: 'true'}}"
        return f"{text}\n---\n" + text.replace("  name: x\n", f"  name: y\n{note}\n", 1)

    path = experiment(text=twice)
    assert loopscope("apply", "-f", path)[0] == 0
    code, out, err = loopscope("delete", "-f", path)
    assert (code, out) == (1, "") and "experiment/y" in err
    assert loopscope("get", "exp", "x")[0] == loopscope("get", "exp", "y")[0] == 0


def test_the_program_says_its_version(loopscope):
    code, out, err = loopscope("--version")
    assert (code, out, err) == (0, f"loopscope {version('loopscope')}\n", "")

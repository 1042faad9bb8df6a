"""Whoever knows kubectl knows Loopscope: what may be typed, and that no input is lost."""

import io
import json

import pytest
import yaml


@pytest.fixture
def typed_in(monkeypatch):
    """Let a text be what comes through standard input."""

    def give(text):
        stream = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
        monkeypatch.setattr("sys.stdin", stream)

    return give


@pytest.fixture
def two_files(experiment):
    """Two spec files in the folder ``specs``, each with an experiment of its own."""
    first = experiment()
    second = first.with_name("y.yaml")
    second.write_text(first.read_text().replace("name: x", "name: y"))
    return first, second


# -- several files -----------------------------------------------------------------------


def test_every_file_of_several_is_applied_compared_planned_and_deleted(loopscope, two_files):
    words = ("-f", two_files[0], "--filename", two_files[1])
    said = loopscope("apply", *words)[1]
    assert said == "experiment/x created\nexperiment/y created\n"
    for path in two_files:
        path.write_text(path.read_text().replace("hook:", "maxTokens: 64\n  hook:"))
    code, different, _ = loopscope("diff", *words)
    assert code == 1 and "experiment/x" in different and "experiment/y" in different
    planned = loopscope("plan", *words)[1]
    assert "experiment/x configured" in planned and "experiment/y configured" in planned
    assert loopscope("apply", *words, "--dry-run")[1].count("configured (dry run)") == 2
    assert loopscope("delete", *words)[1] == "experiment/x deleted\nexperiment/y deleted\n"


def test_a_plan_of_several_files_is_applied_whole(loopscope, two_files):
    loopscope("plan", "-f", two_files[0], "-f", two_files[1], "-o", "plan.json")
    said = loopscope("apply", "--plan", "plan.json")[1]
    assert said == "experiment/x created\nexperiment/y created\n"


def test_a_file_that_is_named_twice_is_read_once(loopscope, two_files):
    first, second = two_files
    said = loopscope("apply", "-f", first, "-f", first.parent, "-f", second)[1]
    assert said == "experiment/x created\nexperiment/y created\n"


def test_one_bad_file_of_several_keeps_all_of_them_out(loopscope, two_files, tmp_path):
    two_files[1].write_text("kind: Nothing\n")
    code, _, err = loopscope("apply", "-f", two_files[0], "-f", two_files[1])
    assert code == 2 and "y.yaml" in err
    assert not (tmp_path / "state").exists()


def test_files_of_several_folders_have_the_root_that_each_would_have_alone(
    loopscope, experiment, tmp_path, monkeypatch
):
    path = experiment()
    text = path.read_text().replace("../", "")
    for name in ("one", "two"):
        folder = tmp_path / "apart" / name
        folder.mkdir(parents=True)
        for entry in ("model", "coarse", "fine", "target.txt", "neutral.txt"):
            kept = tmp_path / entry
            (folder / entry).symlink_to(kept) if kept.is_dir() else (folder / entry).write_text(
                kept.read_text()
            )
        (folder / "spec.yaml").write_text(text.replace("name: x", f"name: {name}"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    words = ("-f", "../apart/one/spec.yaml", "-f", "../apart/two/spec.yaml")
    assert loopscope("apply", *words)[1] == "experiment/one created\nexperiment/two created\n"
    assert loopscope("apply", *words)[1] == "experiment/one unchanged\nexperiment/two unchanged\n"


# -- nothing is dropped in silence -------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["get", "exp", "-o", "name", "--output", "yaml"], "--output is given twice"),
        (["get", "exp", "-l", "a=b", "-l", "c=d"], "--selector is given twice"),
        (["apply", "-f", "x", "--root", "a", "--root", "b"], "--root is given twice"),
        (["get", "exp", "-n", "a", "-n", "b"], "--namespace is given twice"),
        (["-n", "a", "get", "exp", "-n", "b"], "--namespace is given before and after"),
        (["get", "exp", "--state", "b"], "--state is given before and after"),
        (["run", "x", "--slots", "2", "--slots", "cpu=3"], "--slots is given twice for cpu"),
        (["delete", "exp", "x", "-f", "y.yaml"], "either KIND NAME or -f PATH"),
        (["-n", "a", "gc"], "leave out --namespace"),
        (["fsck", "-n", "a"], "leave out --namespace"),
        (["pause", "--all", "-n", "a"], "leave out --namespace"),
        (["apply", "--plan", "p", "-n", "a"], "--plan holds all other options"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_be_ignored_is_refused(loopscope, settled, words, what):
    code, out, err = loopscope(*words)
    assert (code, out) == (2, "") and what in " ".join(err.replace("│", " ").split())


# -- spellings ---------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["-o", "name"], ["-o=name"], ["-oname"], ["--output=name"]])
def test_an_output_may_be_asked_for_in_every_usual_form(loopscope, settled, words):
    assert loopscope("get", "exp", *words) == (0, "experiment/france\n", "")


def test_a_short_option_keeps_the_equal_signs_of_its_value(loopscope, settled):
    path = "-o=jsonpath={.items[?(@.kind=='Experiment')].metadata.name}"
    assert loopscope("get", "exp", path) == (0, "france\n", "")
    labelled = loopscope("get", "cap", "-l=loopscope.dev/experiment=france", "-o=name")[1]
    assert labelled == "capture/france-capture\n"


def test_namespace_and_state_may_stand_after_the_command(loopscope, settled, monkeypatch, capsys):
    assert loopscope("get", "exp", "-n", "default", "-o", "name")[1] == "experiment/france\n"
    assert loopscope("get", "exp", "-n=elsewhere")[1].startswith("No experiments found")
    monkeypatch.setenv("LOOPSCOPE_STATE", "nowhere")
    monkeypatch.setattr("sys.argv", ["loopscope", "get", "exp", "-o", "name", "--state", "state"])
    from loopscope import cli

    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out == "experiment/france\n"


def test_a_namespace_is_that_of_objects_which_name_none(loopscope, experiment):
    path = experiment()
    assert loopscope("apply", "-f", path, "-n", "team")[1] == "experiment/team/x created\n"
    assert loopscope("apply", "-f", path)[1] == "experiment/x created\n"
    assert loopscope("apply", "-n", "team", "-f", path)[1] == "experiment/team/x unchanged\n"
    assert loopscope("delete", "-f", path, "-n", "team")[1] == "experiment/team/x deleted\n"
    assert loopscope("get", "exp", "-o", "name")[1] == "experiment/x\n"


def test_an_object_of_another_namespace_than_the_one_asked_for_is_refused(loopscope, experiment):
    path = experiment(text=lambda text: text.replace("name: x", "name: x\n  namespace: mine", 1))
    code, _, err = loopscope("apply", "-f", path, "-n", "team")
    assert code == 2 and "metadata.namespace" in err and "'team'" in err
    assert loopscope("apply", "-f", path, "-n", "mine")[1] == "experiment/mine/x created\n"


def test_events_and_queue_are_those_of_the_namespace_that_was_asked_for(loopscope, settled):
    for words in (["events"], ["queue", "--all"]):
        assert "france" in loopscope(*words)[1]
        assert "france" in loopscope(*words, "-n", "default")[1]
        assert "france" not in loopscope(*words, "-n", "elsewhere")[1]


@pytest.mark.parametrize("form", ["--dry-run", "--dry-run=client", "--dry-run=server"])
def test_every_form_of_a_dry_run_stores_nothing(loopscope, experiment, tmp_path, form):
    path = experiment()
    said = loopscope("apply", form, "-f", path)
    assert said == (0, "experiment/x created (dry run)\n", "")
    assert loopscope("apply", "-f", path, form) == said
    assert not (tmp_path / "state").exists()


def test_a_dry_run_of_none_is_none_and_another_word_is_refused(loopscope, experiment):
    path = experiment()
    code, _, err = loopscope("apply", "-f", path, "--dry-run=sometimes")
    assert code == 2 and "client, server or none" in " ".join(err.replace("│", " ").split())
    assert loopscope("apply", "-f", path, "--dry-run=none")[1] == "experiment/x created\n"


CHANGES = [
    ("delete", "experiment", "x"),
    ("delete", "experiments", "--all"),
    ("patch", "experiment", "x", "-p", "{spec: {maxTokens: 64}}"),
    ("patch", "experiment", "x", "-p", "{spec: {maxTokens: many}}"),
    ("label", "experiment", "x", "team=geo"),
    ("annotate", "experiment", "x", "team=geo"),
]


@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.parametrize("protected", ["true", "false"])
def test_a_dry_run_says_what_a_change_would_say_and_changes_nothing(
    loopscope, experiment, words, protected
):
    assert loopscope("apply", "-f", experiment())[0] == 0
    assert loopscope("annotate", "experiment", "x", f"loopscope.dev/protect={protected}")[0] == 0
    before = loopscope("get", "experiment", "x", "-o", "json")
    code, said, refused = loopscope(*words, "--dry-run")
    assert loopscope("get", "experiment", "x", "-o", "json") == before
    assert loopscope(*words) == (code, said.replace(" (dry run)", ""), refused)
    assert said.count("(dry run)") == (0 if code else 1)


def test_standard_input_is_read_with_paths_from_here(loopscope, experiment, typed_in):
    text = experiment().read_text().replace("../", "")
    typed_in(text)
    assert loopscope("apply", "-f", "-")[1] == "experiment/x created\n"
    typed_in(text.replace("hook:", "maxTokens: 64\n  hook:"))
    code, out, _ = loopscope("diff", "-f", "-")
    assert (code, out) == (1, "experiment/x\n  spec.maxTokens: 128 -> 64\n")
    typed_in(text)
    assert loopscope("apply", "-f=-")[1] == "experiment/x unchanged\n"
    typed_in(text)
    assert loopscope("delete", "-f", "-")[1] == "experiment/x deleted\n"


def test_a_mistake_in_standard_input_is_told_with_its_line(loopscope, typed_in):
    typed_in("apiVersion: loopscope.dev/v1alpha1\nkind: Nothing\n")
    code, _, err = loopscope("apply", "-f", "-")
    assert code == 2 and "/dev/stdin:2:" in err


# -- what `get` prints can be applied ----------------------------------------------------


def printed(loopscope, *words):
    return loopscope("get", *words)[1]


@pytest.mark.parametrize("form", ["yaml", "json"])
@pytest.mark.parametrize("words", [["exp"], ["exp", "x"]], ids=["list", "one"])
def test_what_get_prints_can_be_applied_and_changes_nothing(
    loopscope, two_files, typed_in, form, words
):
    loopscope("apply", "-f", two_files[0].parent)
    before = printed(loopscope, "exp", "-o", "json")
    typed_in(printed(loopscope, *words, "-o", form))
    code, out, err = loopscope("apply", "-f", "-")
    assert (code, err) == (0, "") and set(out.split()) <= {
        "experiment/x", "experiment/y", "unchanged",
    }  # fmt: skip
    assert printed(loopscope, "exp", "-o", "json") == before


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_characters_that_yaml_takes_for_line_ends_come_back_as_they_were(
    loopscope, experiment, typed_in, form
):
    odd = [f"{number} a{sign} b" for number, sign in enumerate("\x7f\x85\x9f\u2028\u2029\ufffe")]
    target = {"target": {"texts": odd}}
    loopscope("apply", "-f", experiment(lambda spec: spec["prompts"].update(target)))
    before = json.loads(printed(loopscope, "exp", "x", "-o", "json"))
    assert before["spec"]["prompts"]["target"]["texts"] == odd
    typed_in(printed(loopscope, "exp", "x", "-o", form))
    assert loopscope("apply", "-f", "-")[:2] == (0, "experiment/x unchanged\n")
    assert json.loads(printed(loopscope, "exp", "x", "-o", "json")) == before


def test_an_edit_of_what_get_printed_is_applied(loopscope, experiment, typed_in):
    loopscope("apply", "-f", experiment())
    document = json.loads(printed(loopscope, "exp", "x", "-o", "json"))
    document["spec"]["mapping"]["minCosine"] = 0.4
    document["spec"]["prompts"]["target"]["texts"].append("Nice is")
    typed_in(json.dumps(document))
    assert loopscope("apply", "-f", "-")[1] == "experiment/x configured\n"
    stored = json.loads(printed(loopscope, "exp", "x", "-o", "json"))
    assert stored["spec"] == document["spec"]
    assert stored["metadata"]["generation"] == document["metadata"]["generation"] + 1
    assert stored["metadata"]["uid"] == document["metadata"]["uid"]


def test_another_file_beside_the_old_texts_is_not_lost_in_silence(
    loopscope, experiment, typed_in, tmp_path
):
    loopscope("apply", "-f", experiment())
    document = json.loads(printed(loopscope, "exp", "x", "-o", "json"))
    (tmp_path / "other.txt").write_text("A is\nB is\nC is\nD is\nE is\n")
    document["spec"]["prompts"]["target"]["file"] = "other.txt"
    typed_in(json.dumps(document))
    code, _, err = loopscope("apply", "-f", "-")
    assert code == 2 and "spec.prompts.target.file" in err and "remove texts" in err
    del document["spec"]["prompts"]["target"]["texts"]
    typed_in(json.dumps(document))
    assert loopscope("apply", "-f", "-")[1] == "experiment/x configured\n"


def test_what_get_printed_is_applied_after_a_deletion(loopscope, experiment, typed_in):
    path = experiment()
    loopscope("apply", "-f", path)
    before = json.loads(printed(loopscope, "exp", "x", "-o", "json"))
    loopscope("delete", "exp", "x")
    typed_in(json.dumps(before))
    assert loopscope("apply", "-f", "-")[1] == "experiment/x created\n"
    assert json.loads(printed(loopscope, "exp", "x", "-o", "json"))["spec"] == before["spec"]


def test_a_sweep_can_be_applied_as_it_is_printed(loopscope, experiment, typed_in):
    matrix = {"cosine": {"low": {"mapping.minCosine": 0.2}, "high": {"mapping.minCosine": 0.5}}}
    loopscope("apply", "-f", experiment(lambda spec: spec.update(matrix=matrix)))
    typed_in(printed(loopscope, "exp", "x", "-o", "yaml"))
    assert loopscope("apply", "-f", "-")[:2] == (0, "experiment/x unchanged\n")


@pytest.mark.parametrize("kind", ["cap", "dec", "map"])
def test_owned_objects_can_be_applied_as_they_are_printed_and_not_otherwise(
    loopscope, run_once, typed_in, kind
):
    before = json.loads(printed(loopscope, kind, "-o", "json"))
    typed_in(json.dumps(before))
    code, out, err = loopscope("apply", "-f", "-")
    assert (code, err) == (0, "") and all(line.endswith("unchanged") for line in out.splitlines())
    assert json.loads(printed(loopscope, kind, "-o", "json")) == before
    before["items"][0]["metadata"]["labels"]["mine"] = "yes"
    typed_in(json.dumps(before))
    code, _, err = loopscope("apply", "-f", "-")
    assert code == 1 and "belongs to experiment/x" in err
    typed_in(json.dumps(before))
    code, _, err = loopscope("delete", "-f", "-")
    assert code == 2 and "would come back" in err


@pytest.fixture
def run_once(loopscope, experiment, tmp_path):
    """An experiment whose owned objects a controller has made."""
    from loopscope.state.folder import open_state
    from tests.simulated import Simulation

    loopscope("apply", "-f", experiment())
    simulation = Simulation(tmp_path / "state")
    simulation.step()
    assert open_state(tmp_path / "state")
    return simulation


def test_a_list_that_is_none_is_refused_with_its_line(loopscope, typed_in):
    typed_in(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": {"a": 1}}))
    code, _, err = loopscope("apply", "-f", "-")
    assert code == 2 and "expected a list of objects" in err


def test_a_mistake_in_an_item_of_a_list_is_told_at_its_own_line(loopscope, experiment):
    path = experiment()
    item = yaml.safe_load(path.read_text())
    item["spec"]["hook"] = "blocks.1.attn.hook_q"
    listing = {"apiVersion": "loopscope.dev/v1alpha1", "kind": "List", "items": [item]}
    path.write_text(yaml.safe_dump(listing, sort_keys=False))
    code, _, err = loopscope("apply", "-f", path)
    line = 1 + next(n for n, t in enumerate(path.read_text().splitlines()) if "hook:" in t)
    assert code == 2 and f"x.yaml:{line}:" in err and "spec.hook" in err


def test_texts_beside_a_file_are_refused_in_what_somebody_wrote(loopscope, experiment):
    def both(spec):
        spec["prompts"]["target"]["texts"] = ["Paris is"]

    code, _, err = loopscope("apply", "-f", experiment(both))
    assert code == 2 and "not both" in err


# -- jsonpath ----------------------------------------------------------------------------


def test_a_label_with_dots_is_found_in_both_spellings(loopscope, settled):
    for path in (r"labels.loopscope\.dev/experiment", r"labels['loopscope\.dev/experiment']"):
        found = loopscope("get", "map", "france", "-o", f"jsonpath={{.metadata.{path}}}")
        assert found == (0, "france\n", "")


def test_a_path_that_finds_nothing_ends_as_it_does_for_kubectl(loopscope, settled):
    field = loopscope("get", "exp", "france", "-o", "jsonpath={.metadata.labels.mine}")
    assert field == (0, "", "")
    code, out, err = loopscope("get", "exp", "-l", "a=b", "-o", "jsonpath={.items[0].metadata}")
    assert (code, out) == (1, "") and "array index out of bounds: index 0, length 0" in err

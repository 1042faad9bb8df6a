"""Several hands on one object: each field keeps its owner, and nobody is overwritten unasked."""

import re
import threading

import pytest
import yaml

from loopscope.controller.apply.appliers import Applier
from loopscope.controller.plan.requests import Request, fulfil, read_files
from loopscope.controller.sources.folder_source import FolderSource
from loopscope.specs.keys import PROTECT_ANNOTATION, Key
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.state import failpoints
from loopscope.state.db import objects
from loopscope.state.folder import open_state
from tests.simulated import Simulation
from tests.unit.test_plan import with_steering

KEY = Key("Mapping", "default", "m")


def mapping(name="m", labels=None, annotations=None, **spec):
    return yaml.safe_dump(
        {
            "apiVersion": "loopscope.dev/v1alpha1",
            "kind": "Mapping",
            "metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}},
            "spec": {"coarseRef": {"name": "c"}, "fineRef": {"name": "f"}, **spec},
        }
    )


@pytest.fixture
def write(tmp_path):
    def written(file, text):
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    return written


def stored(tmp_path, key=KEY):
    with open_state(tmp_path / "state").database.read() as connection:
        return objects.get(connection, key)


def names(tmp_path):
    with open_state(tmp_path / "state").database.read() as connection:
        return {record.key.name for record in objects.listed(connection)}


def set_by_others(tmp_path, spec=None, labels=None):
    """Do what a script does that changes an object without a file."""
    old = stored(tmp_path)
    with open_state(tmp_path / "state").database.write() as connection:
        objects.apply(
            connection,
            KEY,
            {**old.spec, **(spec or {})},
            now=0.0,
            labels={**old.labels, **(labels or {})},
            annotations=old.annotations,
        )


# -- three-way ---------------------------------------------------------------------------


def test_what_others_set_stays_and_what_the_file_says_holds(loopscope, write, tmp_path):
    path = write("m.yaml", mapping(minCosine=0.4, labels={"team": "a"}))
    loopscope("apply", "-f", path)
    set_by_others(tmp_path, {"topK": 7, "minCosine": 0.9}, {"seen": "yes"})
    path = write("m.yaml", mapping(minCosine=0.5, labels={"team": "b"}))
    assert loopscope("diff", "-f", path)[0] == 1
    assert loopscope("apply", "-f", path)[1] == "mapping/m configured\n"
    found = stored(tmp_path)
    assert (found.spec["topK"], found.spec["minCosine"]) == (7, 0.5)
    assert found.labels == {"team": "b", "seen": "yes"}
    for _ in range(2):
        assert loopscope("apply", "-f", path)[1] == "mapping/m unchanged\n"
    assert stored(tmp_path).spec["topK"] == 7, "a second apply does not forget the others' field"


def test_an_object_of_which_no_file_is_recorded_becomes_what_the_file_says(
    loopscope, write, tmp_path
):
    spec = {**yaml.safe_load(mapping(topK=3, minCosine=0.7))["spec"]}
    with open_state(tmp_path / "state").database.write() as connection:
        objects.apply(connection, KEY, spec, now=0.0, labels={"of": "others"})
    assert loopscope("apply", "-f", write("m.yaml", mapping(topK=7)))[0] == 0
    found = stored(tmp_path)
    assert found.spec["topK"] == 7 and found.spec["minCosine"] == 0.3 and found.labels == {}


def test_what_get_printed_of_an_object_that_is_gone_makes_it_anew(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("m.yaml", mapping(topK=7)))
    printed = loopscope("get", "mapping", "m", "-o", "yaml")[1]
    loopscope("delete", "mapping", "m")
    assert names(tmp_path) == set()
    assert loopscope("apply", "-f", write("back.yaml", printed)) == (0, "mapping/m created\n", "")
    assert stored(tmp_path).spec["topK"] == 7


def test_what_get_printed_of_a_child_that_is_gone_is_left_to_its_owner(loopscope, write, tmp_path):
    simulation = Simulation(tmp_path / "state")
    simulation.apply()
    simulation.step()
    printed = loopscope("get", "mapping", "france-mapping", "-o", "yaml")[1]
    simulation.delete()
    code, _, err = loopscope("apply", "-f", write("child.yaml", printed))
    assert code == 1 and "OwnedByAnother" in err and "apply the owner" in err
    assert names(tmp_path) == set()


def test_what_the_file_drops_falls_back_to_its_default(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("m.yaml", mapping(minCosine=0.4, labels={"team": "a"})))
    loopscope("apply", "-f", write("m.yaml", mapping()))
    found = stored(tmp_path)
    assert (found.spec["minCosine"], found.labels) == (0.3, {})


def test_what_others_changed_of_the_files_own_field_is_put_back(loopscope, write, tmp_path):
    path = write("m.yaml", mapping(minCosine=0.4))
    loopscope("apply", "-f", path)
    set_by_others(tmp_path, {"minCosine": 0.9})
    assert loopscope("apply", "-f", path)[1] == "mapping/m configured\n"
    assert stored(tmp_path).spec["minCosine"] == 0.4


def test_what_others_set_and_the_file_then_states_is_the_files(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("m.yaml", mapping()))
    set_by_others(tmp_path, {"topK": 7})
    loopscope("apply", "-f", write("m.yaml", mapping(topK=9)))
    loopscope("apply", "-f", write("m.yaml", mapping()))
    assert stored(tmp_path).spec["topK"] == 10, "dropped with the line of the file"


def test_others_fields_that_do_not_go_with_the_file_are_a_conflict(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("m.yaml", mapping()))
    set_by_others(tmp_path, {"partialCosine": 0.25})
    path = write("m.yaml", mapping(minCosine=0.2))
    before = stored(tmp_path)
    code, out, err = loopscope("apply", "-f", path)
    assert (code, out) == (1, "") and re.search(r"\bConflict: mapping/m:", err)
    assert stored(tmp_path) == before
    assert loopscope("apply", "-f", path, "--force-conflicts")[0] == 0
    assert stored(tmp_path).spec["partialCosine"] == 0.1


# -- one owner ---------------------------------------------------------------------------


def test_a_second_applier_gets_a_conflict_and_may_take_over(loopscope, write, tmp_path):
    mine, yours = write("a/m.yaml", mapping()), write("b/m.yaml", mapping(topK=3))
    loopscope("apply", "-f", mine, "--apply-set", "mine")
    before = stored(tmp_path)
    for words in (["apply"], ["apply", "--dry-run"], ["diff"], ["plan"]):
        code, out, err = loopscope(*words, "-f", yours, "--apply-set", "yours")
        assert (code, out) == (1, ""), words
        assert "apply set mine" in err and "--force-conflicts" in err and str(mine) in err
    assert stored(tmp_path) == before
    taken = loopscope("apply", "-f", yours, "--apply-set", "yours", "--force-conflicts")
    assert taken[1] == "mapping/m configured\n" and stored(tmp_path).spec["topK"] == 3
    assert loopscope("apply", "-f", mine, "--apply-set", "mine")[0] == 1, "now it is the other's"


def test_one_conflict_keeps_everything_of_the_call_out(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("a/m.yaml", mapping()), "--apply-set", "mine")
    write("b/m.yaml", mapping(topK=3))
    write("b/n.yaml", mapping("n"))
    assert loopscope("apply", "-f", "b", "--root", tmp_path, "--apply-set", "yours")[0] == 1
    assert names(tmp_path) == {"m"}


def test_two_who_want_the_same_do_not_quarrel(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("a/m.yaml", mapping()), "--apply-set", "mine")
    before = stored(tmp_path)
    yours = loopscope("apply", "-f", write("b/m.yaml", mapping()), "--apply-set", "yours")
    assert yours == (0, "mapping/m unchanged\n", "") and stored(tmp_path) == before


def test_the_same_file_may_be_applied_by_hand_and_stays_in_its_set(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("a/m.yaml", mapping()), "--apply-set", "mine")
    path = write("a/m.yaml", mapping(topK=3))
    assert loopscope("apply", "-f", path)[1] == "mapping/m configured\n"
    write("a/n.yaml", mapping("n"))
    path.unlink()
    out = loopscope("apply", "-f", "a", "--root", ".", "--apply-set", "mine", "--prune")[1]
    assert "mapping/m pruned" in out


def test_a_watched_folder_does_not_take_what_belongs_to_a_set(loopscope, write, tmp_path):
    loopscope("apply", "-f", write("a/m.yaml", mapping()), "--apply-set", "mine")
    write("watched/m.yaml", mapping(topK=3))
    write("watched/n.yaml", mapping("n"))
    state = open_state(tmp_path / "state")
    source = FolderSource(state, tmp_path / "watched", tmp_path, lambda: None)
    assert [str(a.key) for a in source.scan_if_due()] == ["mapping/n"]
    assert "apply set mine" in str(source.problems[0])
    assert stored(tmp_path).spec["topK"] == 10


# -- prune -------------------------------------------------------------------------------


@pytest.fixture
def team(loopscope, write, tmp_path):
    """A set of three, and one object beside it."""
    for name in "abc":
        write(f"team/{name}.yaml", mapping(name))
    loopscope("apply", "-f", "team", "--root", tmp_path, "--apply-set", "team")
    loopscope("apply", "-f", write("other.yaml", mapping("other")))

    def apply(*options, command="apply"):
        return loopscope(command, "-f", "team", "--root", tmp_path, "--apply-set", "team", *options)

    return apply


def test_prune_deletes_what_left_the_set_and_nothing_else(team, tmp_path):
    (tmp_path / "team" / "a.yaml").unlink()
    assert team()[0] == 0 and names(tmp_path) == {"a", "b", "c", "other"}, "only with --prune"
    assert "mapping/a pruned (dry run)" in team("--prune", "--dry-run")[1]
    assert "mapping/a pruned" in team("--prune", command="plan")[1]
    assert names(tmp_path) == {"a", "b", "c", "other"}
    assert team("--prune")[1].splitlines()[-1] == "mapping/a pruned"
    assert names(tmp_path) == {"b", "c", "other"}
    assert "pruned" not in team("--prune")[1], "twice does no more"


def test_nothing_is_pruned_when_a_file_cannot_be_read(team, write, tmp_path):
    (tmp_path / "team" / "a.yaml").unlink()
    write("team/b.yaml", "kind: Nothing\n")
    assert team("--prune")[0] == 2
    assert names(tmp_path) == {"a", "b", "c", "other"}


def test_prune_never_goes_to_zero_unless_that_is_said(team, tmp_path):
    for name in "abc":
        (tmp_path / "team" / f"{name}.yaml").unlink()
    assert team("--prune")[0] == 2
    assert names(tmp_path) == {"a", "b", "c", "other"}
    assert team("--prune", "--allow-empty")[0] == 0
    assert names(tmp_path) == {"other"}


def test_prune_wants_a_set_and_what_was_never_recorded_is_never_pruned(loopscope, team, tmp_path):
    code, _, err = loopscope("apply", "-f", "team", "--root", tmp_path, "--prune")
    assert code == 1 and "--apply-set" in err
    new = loopscope("apply", "-f", "team", "--root", tmp_path, "--apply-set", "new", "--prune")
    assert new[0] == 0 and names(tmp_path) == {"a", "b", "c", "other"}


def test_a_protected_member_keeps_the_whole_prune_out(team, write, tmp_path):
    write("team/a.yaml", mapping("a", annotations={PROTECT_ANNOTATION: "true"}))
    team()
    for name in "ab":
        (tmp_path / "team" / f"{name}.yaml").unlink()
    code, out, err = team("--prune")
    assert (code, out) == (1, "") and PROTECT_ANNOTATION in err
    assert re.search(r"\bProtected: mapping/a carries", err)
    assert names(tmp_path) == {"a", "b", "c", "other"}


def test_a_prune_that_is_interrupted_did_nothing_and_is_done_by_the_next(team, tmp_path):
    for name in "ab":
        (tmp_path / "team" / f"{name}.yaml").unlink()
    passed = []

    def power_cut(place):
        passed.append(place)
        if passed.count("object-prune") == 2:
            raise OSError(5, "gone")

    with failpoints.handled_by(power_cut):
        assert team("--prune")[0] == 1
    assert names(tmp_path) == {"a", "b", "c", "other"}
    assert team("--prune")[0] == 0 and names(tmp_path) == {"c", "other"}


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "x" * 64, "a/b", "ü"])
def test_an_odd_name_of_a_set_is_refused(loopscope, write, name):
    code, _, err = loopscope("apply", "-f", write("m.yaml", mapping()), "--apply-set", name)
    assert code == 2 and "--apply-set" in err


# -- destructive edits -------------------------------------------------------------------


@pytest.fixture
def settled(loopscope, experiment, tmp_path):
    loopscope("apply", "-f", experiment(with_steering))
    simulation = Simulation(tmp_path / "state")
    simulation.settle()
    return simulation


def test_an_edit_that_discards_much_work_wants_a_confirmation(loopscope, experiment, settled):
    path = experiment(lambda spec: (with_steering(spec), spec.update(maxTokens=99)))
    before = settled.rows()
    for words in (["apply", "-f", path], ["run", path]):
        code, _, err = loopscope(*words)
        assert code == 1 and "--confirm" in err and "17 min" in err
        assert settled.rows() == before
    assert "discards 16m" in loopscope("plan", "-f", path)[1]
    assert loopscope("apply", "-f", path, "--confirm")[0] == 0
    assert settled.get("x").spec["maxTokens"] == 99


def test_an_edit_that_discards_little_wants_none(loopscope, experiment, settled):
    path = experiment(lambda spec: (with_steering(spec), spec.update(mapping={"minCosine": 0.5})))
    assert loopscope("apply", "-f", path)[0] == 0


def test_work_that_another_object_rests_on_is_not_discarded(loopscope, experiment, settled):
    twin = experiment(with_steering, lambda text: text.replace("name: x\n", "name: y\n", 1))
    loopscope("apply", "-f", twin)
    settled.settle()
    path = experiment(lambda spec: (with_steering(spec), spec.update(maxTokens=99)))
    assert loopscope("apply", "-f", path)[0] == 0


def test_a_protected_object_takes_no_edit_that_discards_work(loopscope, experiment, settled):
    note = f"  annotations: {{{PROTECT_ANNOTATION}: 'true'}}"

    def protect(text):
        return text.replace("  name: x\n", f"  name: x\n{note}\n", 1)

    assert loopscope("apply", "-f", experiment(with_steering, protect))[0] == 0
    edit = {"mapping": {"minCosine": 0.5}}
    path = experiment(lambda spec: (with_steering(spec), spec.update(edit)), protect)
    code, _, err = loopscope("apply", "-f", path, "--confirm")
    assert code == 1 and PROTECT_ANNOTATION in err and "x-mapping" in err
    path = experiment(lambda spec: (with_steering(spec), spec.update(edit)))
    assert loopscope("apply", "-f", path)[0] == 1, "taking the shield off is an apply of its own"
    assert loopscope("apply", "-f", experiment(with_steering))[0] == 0
    path = experiment(lambda spec: (with_steering(spec), spec.update(edit)))
    assert loopscope("apply", "-f", path)[0] == 0


# -- at once -----------------------------------------------------------------------------


def test_of_two_sets_at_once_one_wins_and_the_other_is_told(write, tmp_path):
    for name in ("mine", "yours"):
        write(f"{name}/m.yaml", mapping(topK=len(name)))
    open_state(tmp_path / "state").database.close()
    ends = {}

    def apply(name):
        state = open_state(tmp_path / "state")
        request = Request((SpecSource(tmp_path / name, tmp_path),), Applier(f"apply-set:{name}"))
        try:
            ends[name] = fulfil(state, read_files(state, request, now=0.0), now=0.0).applied
        except Exception as error:
            ends[name] = getattr(error, "reason", error)

    both = [threading.Thread(target=apply, args=(name,)) for name in ("mine", "yours")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert "Conflict" in ends.values()
    (winner,) = [name for name, end in ends.items() if end != "Conflict"]
    assert stored(tmp_path).spec["topK"] == len(winner)

"""What must stay because something rests on it, waits for it, reads it or was made from it."""

import errno
import shutil

import pytest

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.specs.status import ArtifactReference, Status
from loopscope.state.artifacts import index as artifact_index
from loopscope.state.artifacts.collection import (
    RetentionPolicy,
    collect,
    forget_missing,
    take_stock,
)
from loopscope.state.artifacts.manifests import MANIFEST
from loopscope.state.artifacts.reachability import Reachability
from loopscope.state.artifacts.trash import Trash
from loopscope.state.db import jobs, objects
from loopscope.state.retry_policy import RetryPolicy
from tests.fault_seams import Fault, failing
from tests.moments import power_fails, somebody
from tests.simulated import Crash, new_state

NOW = 9e9
POLICY = RetentionPolicy(grace_seconds=0.0)
KEY = Key("Steering", "default", "alone")


def digest(letter):
    return letter * 64


def reference(letter):
    return {"digest": digest(letter), "contentDigest": f"content-{letter}"}


class Attic:
    """A state folder with artifacts and whatever a test puts there beside them."""

    def __init__(self, folder):
        self.state = new_state(folder / "state")
        self.reachability = Reachability(self.state.artifacts)

    def make(self, letter, *made_from, stage="mapping", known=True):
        """Publish an artifact that was made from others."""
        staging = self.state.artifacts.staging_folder(digest(letter), 1)
        (staging / "payload").write_text(letter)
        manifest = {
            "stage": stage,
            "digest": digest(letter),
            "metrics": {},
            "createdAt": 1.0,
            "inputs": {f"from-{one}": {"deeper": reference(one)} for one in made_from},
        }
        record = self.state.artifacts.seal(staging, manifest)
        self.state.artifacts.publish(staging, record)
        if known:
            with self.state.database.write() as connection:
                artifact_index.record(connection, record)
        return self.folder(letter, stage)

    def folder(self, letter, stage="mapping"):
        return self.state.artifacts.folder(stage, digest(letter))

    def shards(self, letter):
        folder = self.state.artifacts.work_folder(digest(letter))
        folder.mkdir(parents=True)
        (folder / "shard").write_text(letter)

    def object(self, *, inputs=None, rests_on=None, wants=None, key=KEY):
        """Store an object with the status that a test wants."""
        artifact = ArtifactReference("mapping", digest(rests_on), "c") if rests_on else None
        status = Status(observed_generation=1, inputs=inputs or {}, artifact=artifact)
        with self.state.database.write() as connection:
            objects.apply(connection, key, {"a": 1}, now=1.0)
            record = objects.get(connection, key)
            objects.update_status(connection, record, status, digest(wants) if wants else None)

    def job(self, letter, *reads):
        """Queue a job; return its id."""
        payload = {one: {"side": reference(one)} for one in reads}
        action = Action("steering", {"letter": letter}, payload)
        with self.state.database.write() as connection:
            job_id, _ = jobs.enqueue(connection, action, KEY, 1, now=1.0)
            connection.exec_driver_sql("update jobs set digest = ?", (digest(letter),))
        return job_id

    def claim(self, job_id):
        with self.state.database.write() as connection:
            return jobs.claim(connection, job_id, "w", 30.0, now=2.0)

    def stock(self):
        return take_stock(self.state, self.reachability, POLICY, NOW)

    def gc(self):
        """Collect; return the first letters of what went, shards as ``shards-x``."""
        gone = collect(self.state, self.reachability, self.stock().unneeded, NOW)
        return sorted(
            thing.name[0] if thing.kind == "artifact" else f"{thing.kind}-{thing.name[0]}"
            for thing in gone
        )

    def known(self):
        with self.state.database.read() as connection:
            return sorted(one[0] for one in artifact_index.digests(connection))


@pytest.fixture
def attic(tmp_path):
    return Attic(tmp_path)


# -- from where -------------------------------------------------------------------------------


def test_what_nothing_names_goes(attic):
    attic.make("a")
    assert attic.gc() == ["a"] and attic.known() == []


def test_what_an_objects_status_took_in_stays(attic):
    """As when a steering waits for something else, and its mapping's object is gone."""
    attic.make("a")
    attic.make("b")
    attic.object(inputs={"mapping": {"object": "gone", **reference("a")}})
    assert attic.gc() == ["b"]


def test_what_an_object_rests_on_stays(attic):
    attic.make("a")
    attic.object(rests_on="a")
    assert attic.gc() == []


def test_what_an_object_waits_for_stays_although_it_rests_on_nothing_yet(attic):
    attic.make("a", known=False)
    attic.object(wants="a")
    assert attic.gc() == []


def test_what_an_active_job_is_to_read_stays_and_what_an_ended_one_read_goes(attic):
    attic.make("a")
    job_id = attic.job("s", "a")
    assert attic.gc() == [], "it is pending"
    job = attic.claim(job_id)
    assert attic.gc() == [], "it is running"
    with attic.state.database.write() as connection:
        jobs.succeed(connection, job.id, job.token, now=3.0)
    assert attic.gc() == ["a"]


def test_what_an_active_job_makes_stays_although_no_object_waits_for_it(attic):
    attic.make("s")
    attic.job("s")
    assert attic.gc() == []


@pytest.mark.parametrize("root", ["rests", "waits", "reads"])
def test_everything_upstream_stays_however_far_up(attic, root):
    attic.make("a", stage="capture")
    attic.make("b", "a", stage="decomposition")
    attic.make("c", "b", stage="mapping")
    attic.make("d", "c", stage="steering")
    attic.make("x", "b", stage="mapping")
    if root == "reads":
        attic.job("s", "d")
    else:
        attic.object(**{"rests_on" if root == "rests" else "wants": "d"})
    assert attic.gc() == ["x"]


def test_what_an_artifact_was_made_from_stays_also_when_it_comes_back_from_the_trash(attic):
    """What a manifest says is not taken as said while the manifest is elsewhere."""
    attic.make("a")
    attic.make("b", "a")
    attic.object(wants="b")
    trash = Trash(attic.state.artifacts.root)
    trash.put(attic.folder("b"), "mapping", digest("b"), now=1.0)
    assert [thing.name[0] for thing in attic.stock().unneeded] == ["a"]
    assert trash.take_back("mapping", digest("b"))
    assert attic.gc() == []


# -- shards -------------------------------------------------------------------------------------


def test_shards_stay_while_their_job_is_active_or_an_object_waits_for_them(attic):
    """After a failure that a human must mend, what was computed waits for the retry."""
    for letter in "sw0":
        attic.shards(letter)
    attic.job("s")
    attic.object(wants="w")
    assert attic.gc() == ["shards-0"]
    with attic.state.database.write() as connection:
        (job,) = jobs.listed(connection)
    job = attic.claim(job.id)
    with attic.state.database.write() as connection:
        jobs.fail(connection, job.id, job.token, "Odd", "m", transient=False, now=3.0,
                  policy=RetryPolicy())  # fmt: skip
    assert attic.gc() == ["shards-s"]


def test_shards_of_what_is_only_upstream_go_although_the_artifact_stays(attic):
    attic.make("a")
    attic.make("b", "a")
    attic.object(rests_on="b")
    attic.shards("a")
    assert attic.gc() == ["shards-a"]
    assert attic.stock().unneeded == []


@pytest.mark.parametrize("what", ["artifact", "shards"])
def test_what_comes_to_be_needed_after_the_look_is_not_collected(attic, what):
    attic.make("a") if what == "artifact" else attic.shards("a")
    seen = attic.stock().unneeded
    assert len(seen) == 1

    def want():
        attic.object(wants="a")

    with somebody(want, at="transaction-begin"):
        assert collect(attic.state, attic.reachability, seen, NOW) == []
    assert attic.stock().unneeded == []


def test_a_collection_that_is_killed_leaves_what_the_database_knows_in_its_place_or_the_trash(
    attic,
):
    attic.make("a")
    seen = attic.stock().unneeded
    with somebody(power_fails, at="transaction-commit"), pytest.raises(Crash):
        collect(attic.state, attic.reachability, seen, NOW)
    assert attic.known() == ["a"] and not attic.folder("a").exists()
    forget_missing(attic.state, attic.reachability)
    assert attic.known() == []
    assert [entry.path.name for entry in Trash(attic.state.artifacts.root).entries()] == [
        digest("a")
    ]


# -- what cannot be read --------------------------------------------------------------------------


def test_while_a_needed_manifest_cannot_be_read_nothing_at_all_is_collected(attic):
    """What it was made from cannot be told from what nothing needs."""
    attic.make("a")
    attic.make("b", "a")
    attic.make("x")
    attic.object(rests_on="b")
    everything = [*take_stock(attic.state, Reachability(attic.state.artifacts), POLICY, NOW)
                  .unneeded]  # fmt: skip
    manifest = attic.folder("b") / MANIFEST
    for act in (attic.stock, lambda: collect(attic.state, attic.reachability, everything, NOW)):
        with (
            failing("open to read", Fault(1, "EMFILE"), manifest) as fault,
            pytest.raises(OSError) as refused,
        ):
            act()
        assert fault.fired and refused.value.errno == errno.EMFILE
        assert attic.folder("x").exists() and attic.known() == ["a", "b", "x"]
    assert attic.gc() == ["x"]


def test_a_damaged_manifest_speaks_again_once_it_is_whole(attic):
    attic.make("a")
    manifest = attic.make("b", "a") / MANIFEST
    attic.object(rests_on="b")
    whole = manifest.read_bytes()
    manifest.write_bytes(b"{")
    assert [thing.name[0] for thing in attic.stock().unneeded] == ["a"]
    manifest.write_bytes(whole)
    assert attic.gc() == []


# -- forgetting -----------------------------------------------------------------------------------


def test_what_is_missing_is_forgotten_unless_something_needs_it(attic):
    for letter in "abc":
        attic.make(letter)
    attic.object(rests_on="a")
    attic.job("s", "b")
    for letter in "abc":
        shutil.rmtree(attic.folder(letter))
    forget_missing(attic.state, attic.reachability)
    assert attic.known() == ["a", "b"], "their objects are to be told, and run again"


def test_what_lies_in_its_place_is_not_forgotten_although_nothing_needs_it(attic):
    attic.make("a")
    forget_missing(attic.state, attic.reachability)
    assert attic.known() == ["a"]


def test_what_comes_to_be_needed_or_made_after_the_look_is_not_forgotten(attic):
    for letter in "ab":
        attic.make(letter)
        shutil.rmtree(attic.folder(letter))

    def somebody_else():
        attic.object(wants="a")
        attic.make("b")

    with somebody(somebody_else, at="transaction-begin") as came:
        forget_missing(attic.state, attic.reachability)
    assert came and attic.known() == ["a", "b"]

"""Watches of the API: from a version on, every later change once, in order."""

import threading

import pytest
from sqlalchemy import update

from loopscope.specs.keys import Key
from loopscope.state.db import objects, tables
from loopscope.state.failures import TransientFailure
from loopscope.state.folder import open_state

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from loopscope.server.changes import ChangeReader
from loopscope.server.watching import Sent
from loopscope.server.writing import Writer
from tests.served import HERE, KINDS, TABLE, served

MAPPINGS = f"{HERE}/mappings"


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


@pytest.fixture
def api(state, tmp_path):
    with served(state, tmp_path, lambda: 2.0, poll_seconds=0.01) as running:
        yield running


def put(state, name, top, labels=None):
    with state.database.write() as connection:
        key = Key("Mapping", "default", name)
        objects.apply(connection, key, {"topK": top}, labels=labels, now=1.0)
        return objects.resource_version(connection)


def drop(state, name):
    with state.database.write() as connection:
        objects.remove(connection, Key("Mapping", "default", name), now=1.0)


def short(event):
    return event["type"], event["object"]["metadata"]["name"]


def test_what_happens_comes_as_it_happens(api, state):
    start = put(state, "a", 1)
    watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={start}")
    for name, top, event in (("b", 1, "ADDED"), ("a", 2, "MODIFIED"), ("b", 2, "MODIFIED")):
        version = put(state, name, top)
        found = watch.next()
        assert short(found) == (event, name)
        assert found["object"]["spec"] == {"topK": top}
        assert found["object"]["metadata"]["resourceVersion"] == str(version)
    drop(state, "a")
    gone = watch.next()
    assert short(gone) == ("DELETED", "a") and gone["object"]["metadata"]["uid"]
    watch.close()


def test_without_a_version_what_there_is_comes_first(api, state):
    put(state, "a", 1)
    put(state, "b", 1)
    watch = api.watch(f"{MAPPINGS}?watch=1")
    assert [short(watch.next()) for _ in "ab"] == [("ADDED", "a"), ("ADDED", "b")]
    put(state, "c", 1)
    assert short(watch.next()) == ("ADDED", "c")
    watch.close()


def test_a_bookmark_says_where_the_beginning_ends(api, state):
    version = put(state, "a", 1)
    watch = api.watch(
        f"{MAPPINGS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        "&allowWatchBookmarks=true&resourceVersion=0"
    )
    assert short(watch.next()) == ("ADDED", "a")
    mark = watch.next()
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"] == {
        "resourceVersion": str(version),
        "annotations": {"k8s.io/initial-events-end": "true"},
    }
    watch.close()


def test_bookmarks_come_only_if_they_are_asked_for(state, tmp_path):
    version = put(state, "a", 1)
    path = f"{MAPPINGS}?watch=1&resourceVersion={version}&timeoutSeconds=1"
    with served(state, tmp_path, lambda: 2.0, bookmark_seconds=0.05) as api:
        assert api.watch(path).rest() == []
        found = api.watch(f"{path}&allowWatchBookmarks=true").rest()
    assert found and {one["type"] for one in found} == {"BOOKMARK"}
    assert {one["object"]["metadata"]["resourceVersion"] for one in found} == {str(version)}


def test_a_watch_is_resumed_also_by_another_server(state, tmp_path):
    start = put(state, "a", 1)
    put(state, "b", 1)
    put(state, "a", 2)
    put(state, "b", 2)
    put(state, "c", 1)
    drop(state, "c")
    drop(state, "a")
    with served(state, tmp_path, lambda: 2.0) as api:
        path = f"{MAPPINGS}?watch=1&resourceVersion={start}&timeoutSeconds=1"
        found = api.watch(path).rest()
    assert [short(one) for one in found] == [("ADDED", "b"), ("DELETED", "a")]
    versions = [int(one["object"]["metadata"]["resourceVersion"]) for one in found]
    assert versions == sorted(versions)


def test_what_was_deleted_before_a_resume_is_known_as_it_was(state, tmp_path):
    start = put(state, "a", 1, {"colour": "red"})
    with served(state, tmp_path, lambda: 2.0, poll_seconds=0.01) as api:
        watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={start}")
        drop(state, "a")
        uid = watch.next()["object"]["metadata"]["uid"]
        watch.close()
        path = f"{MAPPINGS}?watch=1&resourceVersion={start}&timeoutSeconds=1&labelSelector=colour"
        red = api.watch(path + "%3Dred").rest()
        assert [one["object"]["metadata"]["uid"] for one in red] == [uid]
        assert api.watch(path + "%3Dblue").rest() == []


def test_requests_that_wait_hold_up_no_watch(state, tmp_path, monkeypatch):
    waits, go = threading.Semaphore(0), threading.Event()

    def stuck(*_words):
        waits.release()
        go.wait()
        raise TransientFailure("DatabaseBusy", "another process holds the lock")

    monkeypatch.setattr(Writer, "create", stuck)
    start = put(state, "a", 1)
    limits = {"poll_seconds": 0.01, "threads_max": 2, "writable": True}
    with served(state, tmp_path, lambda: 2.0, **limits) as api:
        watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={start}")
        stream = api.watch(f"/page/stream?since={start}")
        assert stream.next()["type"] == "begin"
        asked = [threading.Thread(target=api, args=(MAPPINGS, "POST", {})) for _ in range(2)]
        for one in asked:
            one.start()
            waits.acquire()
        try:
            put(state, "b", 1)
            assert short(watch.next()) == ("ADDED", "b")
            while (told := stream.next())["type"] != "objects":
                assert told["type"] == "commit"
            assert told["changed"][0]["name"] == "b"
        finally:
            go.set()
            for one in asked:
                one.join()


def test_a_log_that_no_longer_fits_and_cannot_be_read_is_read_again(state, tmp_path, monkeypatch):
    refused = threading.Semaphore(0)
    begin = ChangeReader.begin

    def refuses_once(reader):
        monkeypatch.setattr(ChangeReader, "begin", begin)
        refused.release()
        raise TransientFailure("DatabaseBusy", "another process holds the lock")

    put(state, "a", 1)
    version = put(state, "a", 2)
    with served(state, tmp_path, lambda: 2.0, poll_seconds=0.01) as api:
        watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={version}")
        monkeypatch.setattr(ChangeReader, "begin", refuses_once)
        with state.database.write() as connection:
            earlier = update(tables.counters).where(tables.counters.c.name == "resource_version")
            connection.execute(earlier.values(value=1))
        assert [one["object"]["code"] for one in watch.rest()] == [410]
        assert refused.acquire(timeout=60)
        for _ in range(1000):
            again = api.watch(f"{MAPPINGS}?watch=1")
            if again.code != 503:
                break
            again.close()
        assert short(again.next()) == ("ADDED", "a")
        again.close()


@pytest.fixture
def between_looks(state):
    """What a client is sent that has all up to a version, of what happened between two looks."""
    reader = ChangeReader(state)
    reader.begin()

    def sent(version):
        changes = Sent(version, version).new(batch)
        return [(one.type, one.key.name, one.version) for one in changes]

    def happen(*steps):
        nonlocal batch
        versions = [step(state, "a") for step in steps]
        batch = reader.look()
        return sent, versions

    batch = None
    return happen


def made(state, name):
    return put(state, name, 1)


def edited(state, name):
    return put(state, name, 2)


def dropped(state, name):
    drop(state, name)
    with state.database.read() as connection:
        return objects.resource_version(connection)


def test_who_saw_an_object_come_hears_of_its_end_though_the_server_saw_neither(between_looks):
    sent, (came, gone) = between_looks(made, dropped)
    assert sent(came) == [("DELETED", "a", gone)]
    assert sent(came - 1) == sent(gone) == []


def test_what_a_client_has_is_changed_and_not_added_though_the_server_saw_it_come_later(
    between_looks,
):
    sent, (came, last) = between_looks(made, edited)
    assert sent(came) == [("MODIFIED", "a", last)]
    assert sent(came - 1) == [("ADDED", "a", last)]


def test_two_objects_of_one_name_between_two_looks_are_told_apart(between_looks):
    sent, (came, gone, again) = between_looks(made, dropped, made)
    assert sent(came - 1) == sent(gone) == [("ADDED", "a", again)]
    assert sent(came) == [("DELETED", "a", gone), ("ADDED", "a", again)]
    assert sent(again) == []


def test_a_version_that_is_too_old_or_was_never_reached_is_gone(api, state, monkeypatch):
    monkeypatch.setattr("loopscope.state.db.objects.CHANGES_KEPT", 1)
    with state.database.write() as connection:
        for top in range(150):
            objects.apply(connection, Key("Mapping", "default", "a"), {"topK": top}, now=1.0)
    for version in (3, 10_000):
        path = f"{MAPPINGS}?watch=1&resourceVersion={version}"
        answers = (api(path) for _ in range(1000))  # 503: the server's own reader lists anew
        answer = next(one for one in answers if one.code != 503)
        assert (answer.code, answer.body["reason"]) == (410, "Expired")


def test_an_object_that_comes_to_fit_is_added_and_one_that_fits_no_more_is_deleted(state, tmp_path):
    start = put(state, "a", 1, {"colour": "red"})
    blue = f"{MAPPINGS}?watch=1&labelSelector=colour%3Dblue"
    with served(state, tmp_path, lambda: 2.0, poll_seconds=0.01) as api:
        watch = api.watch(f"{blue}&resourceVersion={start}")
        version = put(state, "a", 1, {"colour": "blue"})
        assert short(watch.next()) == ("ADDED", "a")
        put(state, "a", 1, {"colour": "green"})
        assert short(watch.next()) == ("DELETED", "a")
        put(state, "a", 1, {"colour": "black"})
        put(state, "b", 1, {"colour": "blue"})
        assert short(watch.next()) == ("ADDED", "b")
        watch.close()
        resumed = api.watch(f"{blue}&resourceVersion={version}&timeoutSeconds=1").rest()
    assert sorted(map(short, resumed)) == [("ADDED", "b"), ("DELETED", "a")]


def test_another_object_of_the_same_name_is_a_deletion_and_an_addition(api, state):
    start = put(state, "a", 1)
    watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={start}")
    with state.database.write() as connection:
        key = Key("Mapping", "default", "a")
        objects.remove(connection, key, now=1.0)
        objects.apply(connection, key, {"topK": 2}, now=1.0)
    events = [watch.next(), watch.next()]
    assert [short(one) for one in events] == [("DELETED", "a"), ("ADDED", "a")]
    assert len({one["object"]["metadata"]["uid"] for one in events}) == 2
    watch.close()


def test_a_watch_of_one_kind_and_name_hears_of_nothing_else(api, state):
    start = put(state, "a", 1)
    path = f"{KINDS}/mappings?watch=1&resourceVersion={start}&fieldSelector=metadata.name%3Db"
    watch = api.watch(path)
    put(state, "a", 2)
    with state.database.write() as connection:
        objects.apply(connection, Key("Steering", "default", "b"), {}, now=1.0)
    put(state, "b", 1)
    assert watch.next()["object"]["kind"] == "Mapping"
    watch.close()


def test_a_watch_can_be_of_rows(api, state):
    start = put(state, "a", 1)
    watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={start}", TABLE)
    put(state, "a", 2)
    event = watch.next()
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"
    drop(state, "a")
    assert watch.next()["type"] == "DELETED"
    watch.close()


def test_many_watchers_hear_every_change_once_and_in_order(api, state):
    start = put(state, "first", 1)
    path = f"{MAPPINGS}?watch=1&resourceVersion={start}"
    watches = [api.watch(path) for _ in range(20)]
    for number in range(30):
        put(state, f"m{number:02}", 1)
    wanted = [("ADDED", f"m{number:02}") for number in range(30)]
    heard = [None] * len(watches)

    def listen(place):
        heard[place] = [short(watches[place].next()) for _ in wanted]

    threads = [threading.Thread(target=listen, args=(n,)) for n in range(len(watches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == [wanted] * len(watches)
    for watch in watches:
        watch.close()


def test_more_watches_than_allowed_are_refused_until_one_ends(state, tmp_path):
    version = put(state, "a", 1)
    path = f"{MAPPINGS}?watch=1&resourceVersion={version}"
    with served(state, tmp_path, lambda: 2.0, watchers_max=1) as api:
        first = api.watch(path)
        answer = api(path)
        assert (answer.code, answer.body["reason"]) == (429, "TooManyRequests")
        assert answer.headers["retry-after"] == "5"
        first.close()
        while (again := api.watch(path)).code != 200:
            again.close()
        again.close()


def test_a_stop_ends_the_watches(state, tmp_path):
    version = put(state, "a", 1)
    with served(state, tmp_path, lambda: 2.0) as api:
        watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={version}")
    assert watch.rest() == []


def test_a_watch_cannot_select_by_what_is_not_kept(api):
    answer = api(f"{MAPPINGS}?watch=1&fieldSelector=spec.topK%3D1")
    assert answer.code == 400 and "labels" in answer.body["message"]


def test_a_database_that_was_put_back_ends_the_watches_with_gone(api, state):
    start = put(state, "a", 1)
    watch = api.watch(f"{MAPPINGS}?watch=1&resourceVersion={start}")
    put(state, "b", 1)
    assert short(watch.next()) == ("ADDED", "b")
    with state.database.write() as connection:
        connection.execute(update(tables.counters).values(value=start - 1))
    ended = watch.next()
    assert (ended["type"], ended["object"]["code"]) == ("ERROR", 410)
    assert watch.rest() == []
    while (again := api.watch(f"{MAPPINGS}?watch=1")).code != 200:
        again.close()
    assert {short(again.next())[1] for _ in "ab"} == {"a", "b"}
    again.close()

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import events
from tests.simulated import new_state

KEY, OTHER = Key("Capture", "default", "a"), Key("Capture", "default", "b")


@pytest.fixture
def database(tmp_path):
    return new_state(tmp_path / "state").database


def record(database, key=KEY, reason="Ready", message="done", now=1.0):
    with database.write() as connection:
        events.record(connection, key, "Normal", reason, message, now=now)


def listed(database, key=None):
    with database.read() as connection:
        return events.listed(connection, key)


def test_repeats_are_counted_not_listed(database):
    for now in (1.0, 2.0, 5.0):
        record(database, now=now)
    (event,) = listed(database)
    assert (event.count, event.first_seen_at, event.last_seen_at) == (3, 1.0, 5.0)


def test_another_message_reason_or_object_is_another_event(database):
    record(database)
    record(database, message="done again")
    record(database, reason="Created")
    record(database, OTHER)
    assert [event.count for event in listed(database)] == [1, 1, 1, 1]
    assert [event.key for event in listed(database, OTHER)] == [OTHER]


def test_events_come_in_the_order_in_which_they_were_last_seen(database):
    record(database, reason="First", now=1.0)
    record(database, reason="Second", now=2.0)
    record(database, reason="First", now=3.0)
    assert [event.reason for event in listed(database)] == ["Second", "First"]


def test_the_least_recently_seen_events_are_dropped_beyond_the_limit(database, monkeypatch):
    monkeypatch.setattr(events, "EVENTS_KEPT", 20)
    with database.write() as connection:
        for number in range(50):
            events.record(connection, KEY, "Normal", "R", f"{number}", now=float(number))
            events.record(connection, OTHER, "Warning", "Kept", "often", now=number - 0.5)
    found = listed(database)
    assert len(found) <= 20
    assert found[-1].message == "49"
    assert listed(database, OTHER)[0].count == 50

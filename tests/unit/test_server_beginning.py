"""Beginnings of watches: what there is, in pages, and what was missed, in room that is shared."""

import asyncio
import gc
import json
import weakref

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from loopscope.state.folder import open_state

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from loopscope.server.beginning import Beginnings
from loopscope.server.changes import ChangeReader
from loopscope.server.choosing import choice_of
from loopscope.server.documents import Shape
from loopscope.server.resources import resource_of
from loopscope.server.settings import ServerSettings
from loopscope.server.streams import PIECE_BYTES_MAX, in_pieces
from loopscope.server.watching import Sent, Watches, watch_request

MAPPINGS = choice_of(resource_of("mappings"), None, {})


@pytest.fixture
def state(tmp_path):
    return open_state(tmp_path / "state")


def put(state, name, top, labels=None):
    with state.database.write() as connection:
        key = Key("Mapping", "default", name)
        objects.apply(connection, key, {"topK": top}, labels=labels, now=1.0)
        return objects.resource_version(connection)


def beginnings(state):
    reader = ChangeReader(state)
    reader.begin()
    return reader, Beginnings(state, reader, lambda: 2.0)


def told(lines):
    events = [json.loads(line) for line in b"".join(lines).splitlines()]
    return [(one["type"], one["object"]["metadata"]["name"]) for one in events]


@pytest.mark.parametrize("query", [{}, {"fieldSelector": "spec.topK=1"}, {"labelSelector": "a=b"}])
def test_pages_hold_each_chosen_object_once_whichever_way_they_are_read(state, monkeypatch, query):
    monkeypatch.setattr("loopscope.server.beginning.ROWS_MAX", 2)
    for name in "abcde":
        put(state, name, 1, {"a": "b"})
    put(state, "bb", 2, {"a": "c"})
    choice = choice_of(resource_of("mappings"), None, query)
    _, begun = beginnings(state)

    async def read():
        return [told(page.lines) async for page in begun.present(choice, Shape())]

    pages = asyncio.run(read())
    names = "a b bb c d e" if not query else "a b c d e"
    assert [one for page in pages for one in page] == [("ADDED", name) for name in names.split()]
    assert len(pages) > 2


def test_what_a_later_page_brought_is_not_told_again(state):
    reader, _ = beginnings(state)
    first = put(state, "a", 1)
    second = put(state, "b", 1)
    sent = Sent(0, 0)
    sent.see(first, {Key("Mapping", "default", "a"): first})
    sent.see(second, {Key("Mapping", "default", "b"): second})
    assert sent.new(reader.look()) == []
    put(state, "a", 2)
    assert [one.key.name for one in sent.new(reader.look())] == ["a"]


def test_watches_that_resume_alike_share_what_they_missed_until_the_last_was_told(state):
    start = put(state, "a", 1)
    put(state, "b", 1)
    _, begun = beginnings(state)

    async def resumed():
        return await asyncio.gather(*(begun.missed(MAPPINGS, start) for _ in range(3)))

    one, *others = asyncio.run(resumed())
    assert all(other is one for other in others)
    kept = weakref.ref(one)
    del one, others
    gc.collect()
    assert kept() is None


def test_who_resumes_later_also_hears_of_what_the_server_has_seen_since(state):
    start = put(state, "a", 1)
    put(state, "b", 1)
    reader, begun = beginnings(state)

    async def resumed():
        first = await begun.missed(MAPPINGS, start)
        put(state, "c", 1)
        reader.look()  # those who are there are told, those who come are not
        return first, await begun.missed(MAPPINGS, start)

    first, second = asyncio.run(resumed())
    assert [one.key.name for one in first.changes] == ["b"]
    assert [one.key.name for one in second.changes] == ["b", "c"]


def test_a_watch_keeps_nothing_of_what_it_was_told_first(state):
    start = put(state, "a", 1)
    put(state, "b", 1)

    async def begun():
        watches = Watches(state, ServerSettings(), lambda: 2.0)
        await watches.begin()
        query = {"resourceVersion": str(start), "allowWatchBookmarks": "true"}
        watcher = watches.open(watch_request(MAPPINGS, Shape(), query))
        missed = await watches.first(watcher)
        kept = weakref.ref(missed)
        lines = watches.lines(watcher, missed)
        del missed
        assert told([await anext(lines)]) == [("ADDED", "b")]
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        gc.collect()
        assert kept() is None and not waiting.done()
        waiting.cancel()

    asyncio.run(begun())


def test_pieces_fit_a_record_and_lose_nothing():
    lines = [bytes([65 + n % 26]) * (n * 997 % 9000) + b"\n" for n in range(60)]
    lines.insert(7, b"x" * (2 * PIECE_BYTES_MAX) + b"\n")
    pieces = list(in_pieces(lines))
    assert b"".join(pieces) == b"".join(lines)
    assert all(len(one) <= PIECE_BYTES_MAX for one in pieces if one != lines[7])
    assert len(pieces) < len(lines) / 2
    assert list(in_pieces([])) == []

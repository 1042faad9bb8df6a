"""What a server holds for clients that take nothing: one part of a list each, once."""

import asyncio
import gc
import json
import tracemalloc

import pytest

from loopscope.specs.keys import Key
from loopscope.state.db import objects
from tests.simulated import settled_experiment

pytest.importorskip("uvicorn", reason="pip install '.[serve]'")

from anyio import CapacityLimiter

from loopscope.server import reading
from loopscope.server.answers import SENT_BYTES_MAX, in_pieces
from loopscope.server.choosing import choice_of
from loopscope.server.documents import Shape
from loopscope.server.reading import get_list
from loopscope.server.resources import resource_of

PART_BYTES = 4 * SENT_BYTES_MAX
OBJECT_BYTES = 40_000
CLIENTS = 8
TABLE = Shape(as_table=True, include="Object")


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ROWS_AT_FIRST", 5)
    monkeypatch.setattr(reading, "PART_BYTES", PART_BYTES)
    made = settled_experiment(tmp_path / "state").state
    with made.database.write() as connection:
        for number in range(80):
            spec = {"topK": 1, "texts": "x" * OBJECT_BYTES}
            objects.apply(connection, Key("Mapping", "many", f"m{number:02d}"), spec, now=1.0)
    return made


def asked(state, shape):
    choice = choice_of(resource_of("mappings"), "many", {})
    return get_list(state, choice, {}, shape, now=9.0)


@pytest.mark.parametrize("shape", [Shape(), TABLE])
def test_a_client_that_stops_taking_holds_one_part_of_its_list_and_no_copy(state, shape):
    b"".join(asked(state, shape))  # what is kept once for all clients is there now

    async def stopped():
        makers, bodies = CapacityLimiter(1), []
        for _ in range(CLIENTS):
            response = await in_pieces(asked(state, shape), makers)
            body = response.body_iterator
            taken = 0
            while taken <= 1.5 * PART_BYTES:  # in a part behind the first
                taken += len(await anext(body))
            bodies.append(body)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        for body in bodies:
            await body.aclose()
        return held

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = (asyncio.run(stopped()) - before) / CLIENTS
    finally:
        tracemalloc.stop()
    assert PART_BYTES / 2 < held < 1.5 * PART_BYTES


@pytest.mark.parametrize("shape", [Shape(), TABLE])
def test_parts_hold_as_many_objects_as_their_size_allows(state, shape):
    pieces = list(asked(state, shape))
    within = pieces[1:-2]  # the first is made before a size is known, the last ones hold the rest
    assert within and all(len(piece) <= PART_BYTES + OBJECT_BYTES for piece in within)
    assert all(len(piece) > PART_BYTES / 2 for piece in within)
    found = json.loads(b"".join(pieces))
    names = [
        (row["object"] if shape.as_table else row)["metadata"]["name"]
        for row in found["rows" if shape.as_table else "items"]
    ]
    assert names == [f"m{number:02d}" for number in range(80)]

"""A study: its one answer in words and as a picture, and its concepts as a table."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.reports.text_table import TextTable
from loopscope.server.answers import as_json
from loopscope.server.page.site import PREFIX, Site, as_table, found, named_key
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import Key
from loopscope.state.db import objects


def routes(site: Site) -> list[Route]:
    """Return the route of a study."""

    def study(request: Request) -> Response:
        words = request.path_params
        return as_json(_study(site, named_key("Study", words["namespace"], words["name"])))

    return [Route(f"{PREFIX}/studies/{{namespace}}/{{name}}", study)]


def _study(site: Site, key: Key) -> JsonObject:
    """Return what is known of all concepts together, and of each; raises Refused."""
    # late: numpy takes its memory
    from loopscope.reports.page.figures.alone import picture_alone
    from loopscope.reports.page.figures.forest import forest
    from loopscope.views.studies import COLUMNS, load_study

    with site.state.database.read() as connection:
        owned = objects.owned_by(connection, found(connection, key).uid)
        study = load_study(connection, key)
    there = {one.key for one in owned}
    named = [Key("Experiment", key.namespace, f"{key.name}-{one.name}") for one in study.concepts]
    table = TextTable([*COLUMNS], [[*one.cells] for one in study.concepts])
    picture = forest(study)
    words: list[Json] = [*study.sentences]
    untested: list[Json] = [[one.name, one.reason] for one in study.untested]
    return {
        "concepts": len(study.concepts),
        "ready": sum(one.state == "Ready" for one in study.concepts),
        "testable": study.testable,
        "openGates": study.open_gates,
        "answer": study.answer.word,
        "sentences": words,
        "table": as_table(table, [one if one in there else None for one in named]),
        "untested": untested,
        "picture": picture_alone(picture) if picture is not None else None,
    }

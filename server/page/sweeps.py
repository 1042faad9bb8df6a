"""A sweep as a grid: the axes as columns, behind them what came out in each cell."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.reports.text_table import TextTable
from loopscope.server.answers import Refused, as_json
from loopscope.server.page.site import PREFIX, Site, as_table, found, key_json, named_key
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import Key
from loopscope.views.present import present
from loopscope.views.stages import descendants


def routes(site: Site) -> list[Route]:
    """Return the route of a sweep."""

    def sweep(request: Request) -> Response:
        words = request.path_params
        key = named_key("Experiment", words["namespace"], words["name"])
        return as_json(_grid(site, key))

    return [Route(f"{PREFIX}/sweeps/{{namespace}}/{{name}}", sweep)]


def _grid(site: Site, key: Key) -> JsonObject:
    """Return texts to show, and numbers to sort and to narrow by; raises Refused."""
    from loopscope.views.chain_levels import FATE_COLUMNS, told_chains
    from loopscope.views.sweeps import load_sweep, sweep_document  # late: numpy takes its memory

    with site.state.database.read() as connection:
        record = found(connection, key)
        if "matrix" not in record.spec:
            raise Refused(404, f"{key} is no sweep: its spec has no matrix")
        sweep = load_sweep(connection, key)
        told = told_chains(present(connection, descendants(connection, [record])))
    chains: list[Json] = [
        {
            "words": chain.words,
            "table": as_table(TextTable([*FATE_COLUMNS], chain.fates)),
            "missing": [*chain.missing],
        }
        for chain in told
    ]
    columns: list[Json] = [*sweep.columns]
    rows: list[Json] = [[*cell.cells] for cell in sweep.cells]
    objects: list[Json] = [
        key_json(Key("Experiment", key.namespace, cell.name)) for cell in sweep.cells
    ]
    return {
        "columns": columns,
        "rows": rows,
        "objects": objects,
        "axes": [axis.name for axis in sweep.axes],
        "ready": sweep.ready,
        "chains": chains,
        "document": sweep_document(sweep),  # type: ignore[dict-item] # JSON by its types
    }

"""The application: which path is answered by what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from loopscope.server import core, openapi, reading, requests, resources
from loopscope.server.answers import GROUP, PIECES_AT_ONCE, Refused, as_json, in_pieces, refusal_of
from loopscope.server.choosing import Choice, choice_of
from loopscope.server.core_watching import CoreWatches
from loopscope.server.documents import Shape, shape_of, shaped
from loopscope.server.guard import OPEN_PATHS, READY_PATH, Guard, body_of
from loopscope.server.page import panels
from loopscope.server.page.site import Site
from loopscope.server.requests import Write
from loopscope.server.settings import ServerSettings
from loopscope.server.streams import WatchResponse
from loopscope.server.watching import Watches, watch_request
from loopscope.server.writing import Writer, Written, warning_headers
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import API_VERSION
from loopscope.state.db import objects
from loopscope.state.failures import Failure
from loopscope.state.folder import StateFolder

KINDS = f"/apis/{API_VERSION}"
KUBERNETES_VERSION = {"major": "1", "minor": "37"}
"""The API whose forms are spoken; clients compare it with their own."""


class Api:
    """The endpoints of one state folder."""

    def __init__(
        self, state: StateFolder, settings: ServerSettings, now: Callable[[], float]
    ) -> None:
        self.state = state
        self.settings = settings
        self.now = now
        self.watches = Watches(state, settings, now)
        self.core_watches = CoreWatches(self.watches.ended)
        self.writer = Writer(state, settings, now)
        self._makers = CapacityLimiter(PIECES_AT_ONCE)

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Read the change log while the application runs."""
        anyio.to_thread.current_default_thread_limiter().total_tokens = self.settings.threads_max
        await self.watches.begin()
        reader = asyncio.create_task(self.watches.run())
        try:
            yield
        finally:
            self.watches.end()
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    def routes(self) -> list[Route]:
        """Return the routes of discovery, core and the kinds."""
        named = f"{KINDS}/namespaces/{{namespace}}/{{plural}}"
        reading_only = [
            *(Route(path, _healthy) for path in OPEN_PATHS if path != READY_PATH),
            Route(READY_PATH, self._ready),
            Route("/version", _version),
            Route("/api", _api),
            Route("/api/v1", self._core),
            Route("/apis", _said(resources.groups)),
            Route(f"/apis/{GROUP}", _said(resources.group)),
            Route(KINDS, self._kinds),
            Route("/openapi/v2", _openapi_v2),
            Route("/openapi/v3", _said(openapi.index)),
            Route(f"/openapi/v3/{openapi.PATH}", _said(openapi.document)),
            Route("/api/v1/namespaces", self._namespaces),
            Route("/api/v1/namespaces/{name}", self._namespace),
            Route("/api/v1/events", self._events),
            Route("/api/v1/namespaces/{namespace}/events", self._events, methods=["GET"]),
            Route("/api/v1/namespaces/{namespace}/events", self._post_event, methods=["POST"]),
            Route("/api/v1/namespaces/{namespace}/events/{name}", self._event),
            Route(f"{KINDS}/{{plural}}", self._collection),
            Route(f"{named}/{{name}}/status", self._one),
        ]
        return [
            *reading_only,
            Route(named, self._collection, methods=["GET"]),
            Route(named, self._create, methods=["POST"]),
            Route(f"{named}/{{name}}", self._one, methods=["GET"]),
            Route(f"{named}/{{name}}", self._change, methods=["PUT", "PATCH"]),
            Route(f"{named}/{{name}}", self._delete, methods=["DELETE"]),
        ]

    def _ready(self, _: Request) -> Response:
        try:
            with self.state.database.read() as connection:
                objects.resource_version(connection)
        except Failure as failure:
            return PlainTextResponse(f"[-]database failed: {failure.reason}\n", 503)
        return PlainTextResponse("ok")

    def _core(self, _: Request) -> Response:
        return as_json(resources.core_resources(writable=self.settings.writable))

    def _kinds(self, _: Request) -> Response:
        return as_json(resources.kind_resources(writable=self.settings.writable))

    async def _namespaces(self, request: Request) -> Response | WatchResponse:
        shape = _shape(request)
        if _is_watch(request):
            return self.core_watches.open(
                request, lambda: core.namespaces_there(self.state, shape, now=self.now())
            )
        return as_json(core.namespace_list(self.state, shape, now=self.now()))

    def _namespace(self, request: Request) -> Response:
        return as_json(core.namespace(self.state, request.path_params["name"], now=self.now()))

    async def _events(self, request: Request) -> Response | WatchResponse:
        place, query = request.path_params.get("namespace"), request.query_params
        shape = _shape(request)
        if _is_watch(request):
            return self.core_watches.open(
                request,
                lambda: core.events_there(self.state, place, query, shape, now=self.now()),
            )
        found = await run_in_threadpool(
            core.event_list, self.state, place, query, shape, now=self.now()
        )
        return as_json(found)

    async def _post_event(self, request: Request) -> Response:
        self._refuse_unless_writable()
        body = requests.json_object(await body_of(request, self.settings))
        place = request.path_params["namespace"]
        found = await run_in_threadpool(core.record_event, self.state, place, body, now=self.now())
        return as_json(found, 201)

    def _event(self, request: Request) -> Response:
        words = request.path_params
        return as_json(core.event(self.state, words["namespace"], words["name"], now=self.now()))

    def _one(self, request: Request) -> Response:
        words, shape = request.path_params, _shape(request)
        resource = resources.resource_of(words["plural"])
        found = reading.get_one(self.state, resource, words["namespace"], words["name"], shape)
        return as_json(shaped(found, shape, now=self.now()))

    async def _collection(self, request: Request) -> Response | WatchResponse:
        choice, shape = _choice(request), _shape(request)
        if _is_watch(request):
            return await self._watch(choice, shape, request)
        query = dict(request.query_params)
        pieces = reading.get_list(self.state, choice, query, shape, now=self.now())
        return await in_pieces(pieces, self._makers)

    async def _watch(self, choice: Choice, shape: Shape, request: Request) -> WatchResponse:
        watcher = self.watches.open(watch_request(choice, shape, request.query_params))
        try:
            missed = await self.watches.first(watcher)
        except BaseException:
            self.watches.close(watcher)
            raise
        lines = self.watches.lines(watcher, missed)
        return WatchResponse(lines, lambda: self.watches.close(watcher))

    async def _create(self, request: Request) -> Response:
        write, content = await self._write(request)
        body = requests.json_object(content)
        return _written(await run_in_threadpool(self.writer.create, write, body))

    async def _change(self, request: Request) -> Response:
        write, content = await self._write(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        name = request.path_params["name"]
        change, body = self._way(request.method, kind, content)
        return _written(await run_in_threadpool(change, write, name, body))

    def _way(
        self, method: str, kind: str, content: bytes
    ) -> tuple[Callable[[Write, str, JsonObject], Written], JsonObject]:
        """Return what a PUT or PATCH asks for, by its content type; raises Refused."""
        if method == "PUT":
            return self.writer.replace, requests.json_object(content)
        if kind == requests.MERGE_PATCH:
            return self.writer.merge, requests.json_object(content)
        if kind == requests.APPLY_PATCH:
            return self.writer.apply, requests.yaml_object(content)
        known = f"{requests.MERGE_PATCH} (kubectl patch --type=merge), {requests.APPLY_PATCH}"
        raise Refused(415, f"{kind or 'a patch of no type'} is not supported; expected {known}")

    async def _delete(self, request: Request) -> Response:
        write, content = await self._write(request)
        options = requests.json_object(content) if content.strip() else {}
        for name in ("propagationPolicy", "orphanDependents"):
            if name in request.query_params:
                options.setdefault(name, request.query_params[name])
        name = request.path_params["name"]
        return as_json(await run_in_threadpool(self.writer.delete, write, name, options))

    async def _write(self, request: Request) -> tuple[Write, bytes]:
        """Return the parameters and the body of a write; raises Refused."""
        self._refuse_unless_writable()
        words = request.path_params
        resource = resources.resource_of(words["plural"])
        agent = request.headers.get("user-agent", "")
        write = requests.write_of(resource, words["namespace"], request.query_params, agent)
        return write, await body_of(request, self.settings)

    def _refuse_unless_writable(self) -> None:
        if not self.settings.writable:
            raise Refused(405, "this server only reads; start it with `loopscope serve --write`")


def application(
    state: StateFolder, settings: ServerSettings, token: str, now: Callable[[], float]
) -> tuple[Starlette, Watches]:
    """Return the application (ASGI) of a state folder, and its watches, which a stop must end."""
    api = Api(state, settings, now)
    site = Site(state, settings, token, now, api.watches)
    made = Starlette(
        routes=[*api.routes(), *panels.routes(site)],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            Refused: _refused,
            Failure: _failed,
            HTTPException: _unknown,
            Exception: _broken,
        },
        lifespan=api.lifespan,
    )
    made.router.redirect_slashes = False
    return made, api.watches


def _choice(request: Request) -> Choice:
    words = request.path_params
    resource = resources.resource_of(words["plural"])
    return choice_of(resource, words.get("namespace"), request.query_params)


def _shape(request: Request) -> Shape:
    query = request.query_params
    return shape_of(request.headers.get("accept", "*/*"), query.get("includeObject"))


def _written(written: Written) -> Response:
    response = as_json(written.document, 201 if written.created else 200)
    for name, text in warning_headers(written.warnings):
        response.headers.append(name, text)
    return response


def _is_watch(request: Request) -> bool:
    return request.query_params.get("watch") in ("true", "1")


def _said(document: Callable[[], JsonObject]) -> Callable[[Request], Response]:
    def answer(_: Request) -> Response:
        return as_json(document())

    return answer


def _api(request: Request) -> Response:
    return as_json(resources.api_versions(request.headers["host"]))


def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")


def _version(_: Request) -> Response:
    words = KUBERNETES_VERSION
    release = f"v{words['major']}.{words['minor']}.0+loopscope-{version('loopscope')}"
    return as_json({**words, "gitVersion": release, "platform": "loopscope"})


def _openapi_v2(_: Request) -> Response:
    return Response(b"", media_type=openapi.PROTOBUF_V2)


def _refused(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return refused.response()


def _failed(_: Request, failure: Exception) -> Response:
    assert isinstance(failure, Failure)
    return refusal_of(failure).response()


def _unknown(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "the server could not find the requested resource"}
    return Refused(error.status_code, words.get(error.status_code, error.detail)).response()


def _broken(_: Request, error: Exception) -> Response:
    return Refused(500, f"an error of Loopscope itself: {type(error).__name__}").response()

"""Questions: a text of one's own asked of the model, by the command ``ask`` and through the queue.

The page stores the question and asks the same again until there is an answer: it is the same
object then, and no second job.
"""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loopscope.server.answers import Refused, as_json
from loopscope.server.page.apart import Apart
from loopscope.server.page.site import PREFIX, Site, asked_of_page, named_key
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.kinds.question import TEXT_CHARACTERS_MAX

STRENGTH_MAX = 1_000_000
FIELDS = {"namespace", "experiment", "text", "arm", "strength"}


def routes(site: Site) -> list[Route]:
    """Return the routes of what may be asked, and of asking."""
    questions = Questions(site)
    return [
        Route(f"{PREFIX}/questions/{{namespace}}/{{name}}", questions.what_may_be_asked),
        Route(f"{PREFIX}/questions", questions.ask, methods=["POST"]),
    ]


class Questions:
    """Asks in a process of its own, which reads tables; the server stays small."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._apart = Apart(site)

    async def what_may_be_asked(self, request: Request) -> Response:
        """Return the latents, arms and strengths of an experiment."""
        words = request.path_params
        key = named_key("Experiment", words["namespace"], words["name"])
        given = ("--namespace", key.namespace, "--output", "json")
        return as_json(json.loads(await self._apart.run("ask", *given, "--", key.name)))

    async def ask(self, request: Request) -> Response:
        """Store a question; return its answer, or as its ``problem`` what it waits for."""
        body = await asked_of_page(request, self._site)
        given = ("ask", "--no-wait", "--output", "json", *_words(body))
        return as_json(json.loads(await self._apart.run(*given)))


def _words(body: JsonObject) -> list[str]:
    """Return the words of the command; raises Refused."""
    unknown = sorted(set(body) - FIELDS)
    if unknown:
        raise Refused(400, f"{unknown[0]}: expected one of {', '.join(sorted(FIELDS))}")
    experiment, namespace = _text(body, "experiment"), _text(body, "namespace", "default")
    key = named_key("Experiment", namespace, experiment)
    text = _text(body, "text")
    if not text.strip() or text == "-" or len(text) > TEXT_CHARACTERS_MAX:
        raise Refused(400, f"text: expected 1 to {TEXT_CHARACTERS_MAX:,} characters")
    words = ["--namespace", key.namespace]
    if body.get("arm") is not None:
        words += ["--steer", _text(body, "arm")]
    strength: Json = body.get("strength")
    if strength is not None:
        if isinstance(strength, bool) or not isinstance(strength, int | float):
            raise Refused(400, f"strength: expected a number, found {strength!r}")
        if not abs(strength) <= STRENGTH_MAX:  # NaN, too
            raise Refused(400, f"strength: expected at most {STRENGTH_MAX:,}")
        words += ["--strength", repr(float(strength))]
    return [*words, "--", key.name, text]


def _text(body: JsonObject, name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str) or (value.startswith("-") and name != "text"):
        raise Refused(400, f"{name}: expected a text, found {value!r}")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused(400, f"{name}: expected a text without NUL and lone surrogates")
    return value

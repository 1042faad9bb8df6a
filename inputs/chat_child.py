"""Child process that fills chat templates, which are programs of unknown origin.

A script of its own: it imports Jinja and nothing of ours, limits its own memory and processor time,
reads one request of JSON and writes one answer. Templates are compiled as transformers does
(``transformers.utils.chat_template_utils``), in Jinja's immutable sandbox, but they are not told
the time: the same text is the same tokens tomorrow.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox


class _Namespace(jinja2.utils.Namespace):
    """Refuses names that lead into Python, as transformers does since 5."""

    def __setitem__(self, name: str, value: object) -> None:
        if str(name).startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace may not hold {name!r}")
        super().__setitem__(name, value)


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks the assistant's words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: jinja2.parser.Parser) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    known = {name: options[name] for name in ("separators", "sort_keys") if name in options}
    return json.dumps(
        value, ensure_ascii=options.get("ensure_ascii", False), indent=indent, **known
    )


def _compiled(template: str) -> Callable[..., str]:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["namespace"] = _Namespace
    return environment.from_string(template).render


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``rendered``, one text for each in the request, or ``error`` with its ``message``."""
    try:
        render = _compiled(request["template"])
    except jinja2.TemplateSyntaxError as error:
        return {"error": "syntax", "message": f"line {error.lineno}: {error.message}"}
    except (
        SyntaxError,
        ValueError,
    ) as error:  # too deeply nested, or a number too long, for Python
        return {"error": "syntax", "message": str(error)}
    rendered, total = [], 0
    system = [{"role": "system", "content": request["system"]}] if request["system"] else []
    for text in request["texts"]:
        try:
            found = render(
                messages=[*system, {"role": "user", "content": text}],
                add_generation_prompt=request["addGenerationPrompt"],
                **request["specialTokens"],
            )
        except MemoryError:
            return {"error": "memory", "message": ""}
        except jinja2.TemplateError as error:
            return {"error": "refused", "message": str(error.message)}
        except Exception as error:  # whatever a template runs into
            return {"error": "failed", "message": f"{type(error).__name__}: {error}"}
        total += len(found)
        if total > request["charactersMax"]:
            return {"error": "long", "message": ""}
        rendered.append(found)
    return {"rendered": rendered}


def _limit(request: Mapping[str, Any]) -> None:
    """Bound memory and processor time, where the system has such bounds."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        seconds, size = request["secondsMax"], request["bytesMax"]
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    _limit(request)
    try:
        found = answer(request)
    except (MemoryError, RecursionError):
        found = {"error": "memory", "message": ""}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()

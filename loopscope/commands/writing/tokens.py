"""``tokens``: the texts of a spec as a model gets them, token by token."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated, Any

import typer

from loopscope.commands.options import FilesOption, RootOption
from loopscope.commands.worker_libraries import refuse_without_workers
from loopscope.context import CommandError, root_of
from loopscope.specs.json_values import JsonObject
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.terminal.printable import printable

LISTING = ("-P", "-m", "loopscope.worker.token_listing")
TEXTS_DEFAULT = 1
KINDS = ("Experiment", "Capture")
SYSTEM_PROMPT = "opening-systemPrompt"

EXAMPLES = {
    "tokens": ("tokens -f specs/france.yaml",),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tokens")(tokens)


def tokens(
    filename: FilesOption,
    root: RootOption = None,
    texts: Annotated[
        int, typer.Option("--texts", min=1, max=1000, help="So many of each set of texts.")
    ] = TEXTS_DEFAULT,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Show texts as tokens: what is template, what is read, what is steered and generated."""
    from loopscope.inputs.datasets import Datasets  # late: help must stay quick
    from loopscope.specs.yaml.loading import load_all

    if output not in (None, "json"):
        raise CommandError(f"-o {output!r} is not known; expected json")
    refuse_without_workers("tokens")
    sources = [SpecSource(path, root_of(path, root)) for path in filename]
    loaded = load_all(sources, datasets=Datasets().find)
    found = [item.manifest for item in loaded if item.manifest.kind in KINDS]
    if not found:
        raise CommandError("no Experiment and no Capture among them; nothing else names a model")
    shown = [
        {"kind": one.kind, "name": one.metadata.name, **_listed(one.canonical_spec(), texts)}
        for one in found
    ]
    if output == "json":
        print(json.dumps(shown, indent=1, ensure_ascii=False))
        return
    for one in shown:
        _print(one)


def _listed(spec: JsonObject, count: int) -> dict[str, object]:
    """Return the tokens of some texts of an Experiment's or a Capture's spec."""
    from loopscope.inputs.files import default_cache
    from loopscope.reconcilers.chat import chat_of, with_system_prompt

    given: Any = spec
    model, template = _resolved(given)
    request: dict[str, Any] = {
        "model": model,
        "cache": str(default_cache()),
        "sets": _sets(given, count),
    }
    if (chat := chat_of(given["prompts"], template)) is not None:
        request["chat"] = chat
        prompted = with_system_prompt(chat, given.get("steering"))
        if prompted is not None:
            openings = given["steering"]["prompts"]["texts"][:count]
            request["sets"].append(
                {"name": SYSTEM_PROMPT, "texts": openings, "positions": None,
                 "steered": None, "chat": prompted}
            )  # fmt: skip
    new_tokens = given.get("steering", {}).get("maxNewTokens")
    return {
        "model": model["name"],
        "positions": given["positions"],
        "texts": _answered(request),
        "generatedTokens": new_tokens,
    }


def _resolved(spec: Any) -> tuple[Any, str | None]:
    """Return the model's reference and, where it is asked for, its chat template."""
    from loopscope.inputs.chat_templates import chat_template_of
    from loopscope.inputs.errors import InputRefused, ResolutionPending
    from loopscope.inputs.fetched import fetched
    from loopscope.inputs.hub import Hub
    from loopscope.inputs.models import describe_model
    from loopscope.reconcilers.references import model_reference
    from loopscope.specs.chat_words import needs_template

    try:
        ref = describe_model(spec["model"]).ref
        return ref, chat_template_of(ref, Hub()) if needs_template(spec["prompts"]) else None
    except InputRefused as refused:
        where = f"spec.model.{refused.field}" if refused.field else "spec.prompts.chat"
        raise CommandError(f"{where}: {refused.message}") from None
    except ResolutionPending as pending:
        known: Any = fetched(model_reference(spec["model"], spec["prompts"]).digest)
        if known is None:
            raise CommandError(f"{pending.reason}: {pending.message}") from None
        return known["ref"], known.get("chat_template")


def _sets(spec: Any, count: int) -> list[dict[str, Any]]:
    from loopscope.specs.splits import CONDITIONS

    prompts = [
        {"name": name, "texts": spec["prompts"][field]["texts"][:count],
         "positions": spec["positions"], "steered": None}
        for name, field in CONDITIONS.items()
        if field in spec["prompts"]
    ]  # fmt: skip
    steering = spec.get("steering", {})
    where = steering.get("positions", "all")
    steered = [
        {"name": name, "texts": steering[field]["texts"][:count], "positions": None,
         "steered": places}
        for name, field, places in (
            ("opening", "prompts", where), ("neutral-text", "neutralText", "all")
        )
        if field in steering
    ]  # fmt: skip
    return [*prompts, *steered]


def _answered(request: dict[str, object]) -> Any:
    from loopscope.state.child_processes import computing_environment

    done = subprocess.run(
        [sys.executable, *LISTING],
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=computing_environment(),
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2][:500]
        raise CommandError(f"the process that loads the tokenizer ended: {last}") from None
    if "error" in answer:
        raise CommandError(answer["error"])
    return answer["texts"]


def _print(found: dict[str, Any]) -> None:
    print(f"{found['kind'].lower()}/{found['name']}: {found['model']}, "
          f"positions {json.dumps(found['positions'], ensure_ascii=False)}")  # fmt: skip
    for text in found["texts"]:
        print(printable(f"\n{text['name']}: {json.dumps(text['text'], ensure_ascii=False)}"))
        for place, token in enumerate(text["tokens"]):
            words = json.dumps(token["text"], ensure_ascii=False)
            marks = [word for word in ("read", "steered") if token[word]]
            row = f"{place:5}  {token['id']:7}  {token['part']:9}  {words:20} {', '.join(marks)}"
            print(printable(row.rstrip()))
        if found["generatedTokens"] and text["name"].startswith("opening"):
            count, at = found["generatedTokens"], _decided(text)
            print(f"       then up to {count} tokens are generated, {at}")


def _decided(text: dict[str, Any]) -> str:
    """Return at which tokens the generated ones are decided; each is at the one before it."""
    first, others = text["tokens"][-1]["steered"], text["generatedSteered"]
    if first and others:
        return "each decided at a steered one"
    if first:
        return "the first decided at a steered one, the others not"
    return "none decided at a steered one"

"""``ask``: a text of one's own, read by the experiment's latents or gone on with under an arm."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopscope.commands.object_words import complete_experiment
from loopscope.commands.options import DeviceOption, duration
from loopscope.context import (
    EXIT_STALLED,
    EXIT_TIMED_OUT,
    CommandError,
    experiment_names,
    find_experiment,
    now,
    rates_of_this_machine,
)
from loopscope.specs.json_values import JsonObject
from loopscope.specs.keys import Key
from loopscope.state.folder import StateFolder

if TYPE_CHECKING:
    from loopscope.commands.process.run import Ending
    from loopscope.views.experiment import ExperimentView
    from loopscope.views.questions import Answer

EXAMPLES = {
    "ask": (
        "ask france",
        'ask france "We went to Lyon"',
        'ask france "We went to Lyon" --latent coarse/279 -o json',
        'ask france "The train arrived in" --steer multi --strength 0.1',
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ask")(ask)


def ask(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT [TEXT]",
            help="Which experiment, and the text; - reads it from standard input. "
            "Without a text, what may be asked.",
            autocompletion=complete_experiment,
        ),
    ],
    latent: Annotated[
        list[str] | None,
        typer.Option("--latent", help="coarse/279 or fine/12; repeatable. Default: those shown."),
    ] = None,
    steer: Annotated[
        str | None, typer.Option("--steer", help="Go on under this arm, and without it.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="In the steering's unit; default: its largest."),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", min=1, max=200, help="Default: as the steering."),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Wait for the answer; or leave it to the queue."),
    ] = True,
    timeout: Annotated[str, typer.Option(help="Give up waiting after this long.")] = "10m",
    device: DeviceOption = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Ask the model: which latents fire on a text, or how it goes on under an arm.

    A question is an object and its answer a job of the queue, of priority interactive: it goes
    before what waits, never before what runs. The same question again is answered at once.
    """
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    if steer is None and (strength is not None or max_new_tokens is not None):
        raise CommandError("--strength and --max-new-tokens belong to --steer ARM")
    if steer is not None and latent:
        raise CommandError("give either --latent or --steer")
    names = experiment_names(words, "ask")
    if len(names) not in (1, 2):
        raise CommandError(f"ask takes an experiment and one text in quotes; found {len(names)}")
    if len(names) == 1:
        _show_what_may_be(
            _view(context.obj.open_to_read(), context.obj.namespace, names[0]), output
        )
        return
    text = _text(names[1])
    seconds = _seconds(timeout)
    state = context.obj.open_existing()
    view = _view(state, context.obj.namespace, names[0])
    spec = _spec(view, text, latent, steer, strength, max_new_tokens)
    answer = _answered(state, context.obj.namespace, spec, device, seconds if wait else None)
    _show(answer, view, output)
    if answer.problem and wait:
        raise typer.Exit(EXIT_STALLED)


def _text(word: str) -> str:
    """Return the text that was given, or with ``-`` standard input. Raises CommandError."""
    try:
        text = sys.stdin.read().rstrip("\n") if word == "-" else word
        text.encode()  # bytes of an argument that are no UTF-8 come as lone surrogates
    except UnicodeError:
        raise CommandError("the text is not UTF-8; nothing was asked") from None
    return text


def _seconds(timeout: str) -> float:
    try:
        return duration(timeout)
    except ValueError as error:
        raise CommandError(f"--timeout: {error}") from None


def _view(state: StateFolder, namespace: str, name: str) -> ExperimentView:
    from loopscope.views.experiment import ExperimentView  # late: tables take a second

    with state.database.read() as connection:
        key = find_experiment(connection, namespace, name).key
    return ExperimentView.load(state, key)


def _spec(
    view: ExperimentView,
    text: str,
    latent: list[str] | None,
    steer: str | None,
    strength: float | None,
    max_new_tokens: int | None,
) -> JsonObject:
    from loopscope.views.questions import asks_arm, asks_latents

    try:
        if steer is not None:
            return asks_arm(view, text, steer, strength, max_new_tokens)
        return asks_latents(view, text, _latents(latent) if latent else None)
    except LookupError as why:
        raise CommandError(str(why.args[0])) from None


def _latents(words: list[str]) -> dict[Any, list[int]]:
    found: dict[Any, list[int]] = {"coarse": [], "fine": []}
    for word in words:
        side, _, number = word.partition("/")
        if side not in found or not (number.isascii() and number.isdigit()):
            raise CommandError(f"{word!r} is no latent; expected for example coarse/279")
        found[side].append(int(number))
    return found


def _answered(
    state: StateFolder,
    namespace: str,
    spec: JsonObject,
    device: str | None,
    seconds: float | None,
) -> Answer:
    """Store the question and work, or watch another controller work, until it is answered.

    Without ``seconds`` to wait, return what is there.
    """
    from loopscope.controller.plan.asking import ask as asked
    from loopscope.views.questions import answer_of

    key = asked(state, namespace, spec, now=now())
    found = answer_of(state, key)
    if not found.problem or seconds is None:
        return found
    if _work(state, key, device, seconds) == "timed out":
        print(
            f"no answer yet; {key} stays in the queue, and the same command waits for it",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_TIMED_OUT)
    try:
        return answer_of(state, key)
    except KeyError:
        raise CommandError(f"{key} was deleted before it was answered", 1) from None


def _work(state: StateFolder, key: Key, device: str | None, seconds: float) -> Ending:
    from loopscope.commands.process.run import Running
    from loopscope.commands.worker_libraries import refuse_without_workers
    from loopscope.controller.settings import Settings
    from loopscope.logs import log_to_stderr
    from loopscope.terminal.live import LiveView
    from loopscope.views.progress import RunProgress

    refuse_without_workers("ask")
    log_to_stderr(logging.CRITICAL, "console")
    settings = Settings(device=device) if device is not None else Settings()
    deadline = time.monotonic() + seconds if seconds else math.inf
    progress = RunProgress(state, [key], 1, rates_of_this_machine())
    with LiveView.beside_output(progress) as view:
        return Running(state, progress.family, settings, view, deadline).until_ended()


def _show_what_may_be(view: ExperimentView, output: str | None) -> None:
    from loopscope.reports.text_table import TextTable
    from loopscope.terminal.columns import show as show_table
    from loopscope.views.questions import shown_of, strengths_of

    try:
        latents = {side: list(found) for side, found in shown_of(view).items()}
    except LookupError:
        latents = {}
    try:
        arms = strengths_of(view)
    except LookupError:
        arms = {}
    unit = view.stage("steering").spec.get("strengthUnit", "")
    if output == "json":
        print(json.dumps({"latents": latents, "arms": arms, "strengthUnit": unit}, indent=2))
        return
    for side, numbers in latents.items():
        print(f"{side} latents: {', '.join(map(str, numbers)) or 'none'}")
    rows = [[arm, ", ".join(f"{one:g}" for one in found)] for arm, found in arms.items()]
    if rows:
        show_table(TextTable(["ARM", f"STRENGTHS ({unit})"], rows))
    else:
        print("no arm: nothing was steered")


def _show(answer: Answer, view: ExperimentView, output: str | None) -> None:
    from loopscope.terminal.answer_text import activation_lines, print_lines, text_lines
    from loopscope.views.documents.answer import answer_document

    steering = view.stage("steering").spec
    words = steering["lexicon"]["texts"] if steering else ()
    if output == "json":
        print(json.dumps(answer_document(answer, words), indent=2, ensure_ascii=False))
        return
    if answer.problem:
        print(f"{answer.key}: {answer.problem}", file=sys.stderr)
        return
    print_lines(text_lines(answer, words) if answer.texts else activation_lines(answer))

"""``register``: what an experiment is expected to show, written down before it can be known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from loopscope.commands.object_words import complete_experiment
from loopscope.context import CommandError, Globals, experiment_names, find_experiment, now
from loopscope.terminal.printable import printable

if TYPE_CHECKING:
    from loopscope.reconcilers.references import InputReference
    from loopscope.specs.payloads.observed import ObservedDictionary, ObservedModel
    from loopscope.specs.registration import Registration
    from loopscope.state.folder import StateFolder

EXAMPLES = {
    "register": (
        "register france",
        "register france --hypothesis 'multi-fine>0' --note 'a pilot on Peru gave +0.1'",
        "register france --open --note 'the machine goes back tomorrow'",
        "register",
    )
}
COLUMNS = ["NUMBER", "REGISTERED", "EXPERIMENT", "EXPECTED", "DIGEST"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("register")(register_)


def register_(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]",
            help="An experiment that was applied and has no outcome yet; without it, the register.",
            autocompletion=complete_experiment,
        ),
    ] = None,
    hypotheses: Annotated[
        list[str] | None,
        typer.Option(
            "--hypothesis",
            help="multi-fine>0 and the like; repeatable. Default: multi beats coarse and fine.",
        ),
    ] = None,
    opens: Annotated[
        bool,
        typer.Option(
            "--open", help="Name the arms before as much was scored as registered; --note says why."
        ),
    ] = False,
    note: Annotated[str, typer.Option("--note", help="Whatever else should be known.")] = "",
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Write down what an experiment is expected to show, before its outcome exists.

    The record holds digests of the spec, model, dictionaries and code, the hypotheses and how much
    is generated. It is part of a chain of digests that nothing can be taken out of, goes into
    the bundle, and is what `verify` compares the bundle with.
    """
    if output not in (None, "json"):
        raise CommandError(f"unknown output {output!r}; expected json")
    if not words:
        if hypotheses or note or opens:
            raise CommandError("name the experiment that --hypothesis, --note and --open are about")
        _list(context.obj, output)
        return
    names = experiment_names(words, "register")
    if len(names) != 1:
        raise CommandError(f"register takes one experiment; found {' '.join(names)!r}")
    if opens and hypotheses:
        raise CommandError("--open adds no hypothesis: leave --hypothesis out")
    if opens:
        record = _opened(context.obj, names[0], note)
    else:
        record = _registered(context.obj, names[0], hypotheses or [], note)
    if output == "json":
        print(json.dumps(record, indent=1, ensure_ascii=False))
        return
    print(f"registration {record['number']} of {record['experiment']}: {_expected(record)}")
    print(f"sha256:{record['digest']}")
    print("publish that digest where you cannot change it: only then others know when it was made")


def _registered(given: Globals, name: str, hypotheses: list[str], note: str) -> Registration:
    from loopscope.controller.plan.registering import identities_of, intention_of
    from loopscope.specs.registration import BrokenChain
    from loopscope.state.register import append
    from loopscope.views.numbers import iso

    state = given.open_existing()
    with state.database.read() as connection:
        found = find_experiment(connection, given.namespace, name)
    identities = identities_of(found, lambda one: _resolved(state, one))
    with state.database.read() as connection:  # anew: a steering may have begun meanwhile
        record = find_experiment(connection, given.namespace, name)
        if record.spec != found.spec:
            raise CommandError(f"{record.key} was edited meanwhile; nothing was registered", 1)
        try:
            intention = intention_of(connection, record, identities, hypotheses, note)
        except ValueError as error:
            raise CommandError(f"{error}; nothing was registered") from None
    try:
        return append(state.register, intention, str(iso(now(), "milliseconds")))
    except (BrokenChain, ValueError) as error:
        raise CommandError(f"{error}; nothing was registered", 1) from None


def _opened(given: Globals, name: str, note: str) -> Registration:
    from loopscope.controller.plan.registering import look_again, opening_of
    from loopscope.specs.registration import BrokenChain
    from loopscope.state.register import append, registrations
    from loopscope.views.numbers import iso

    state = given.open_existing()
    with state.database.read() as connection:
        key = find_experiment(connection, given.namespace, name).key
    try:
        opening = opening_of(registrations(state.register), f"{key.namespace}/{key.name}", note)
        record = append(state.register, opening, str(iso(now(), "milliseconds")))
    except (BrokenChain, ValueError) as error:
        raise CommandError(f"{error}; nothing was registered", 1) from None
    with state.database.write() as connection:
        look_again(connection, key, now())
    return record


def _resolved(
    state: StateFolder, reference: InputReference
) -> ObservedModel | ObservedDictionary | str:
    """Return where a reference leads: as the state folder knows it, else as it is found now."""
    from loopscope.controller.reconcile.resolution import resolve
    from loopscope.state.db import inputs

    with state.database.read() as connection:
        known = inputs.get(connection, reference.digest)
    if known is not None and known.facts is not None:
        return known.facts
    found = resolve(reference)
    return found.facts if found.facts is not None else f"{found.reason}: {found.message}"


def _expected(record: Registration) -> str:
    if "opened" in record:
        return "opened early"
    signs = {"greater": ">", "less": "<"}
    return ", ".join(f"{one['contrast']} {signs[one['sign']]} 0" for one in record["hypotheses"])


def _list(given: Globals, output: str | None) -> None:
    from loopscope.reports.text_table import TextTable
    from loopscope.specs.registration import BrokenChain
    from loopscope.state.register import registrations
    from loopscope.terminal.columns import show

    try:
        found = registrations(given.open_to_read().register)
    except BrokenChain as broken:
        raise CommandError(str(broken), 1) from None
    if output == "json":
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    if not found:
        print("nothing is registered")
        return
    rows = [
        [
            str(one["number"]),
            one["registered_at"],
            printable(one["experiment"]),
            _expected(one),
            one["digest"][:12],
        ]
        for one in found
    ]
    show(TextTable(COLUMNS, rows))

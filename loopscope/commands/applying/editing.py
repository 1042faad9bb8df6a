"""``edit``, ``patch``, ``label`` and ``annotate``: changes of what is stored, without its file."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from loopscope.commands.object_words import complete_object
from loopscope.commands.options import ConfirmOption, DryRunOption
from loopscope.commands.selection import SelectorOption, selection_of
from loopscope.context import CommandError, Globals, find_one, now, root_of, split_name
from loopscope.specs.errors import InvalidSpec
from loopscope.specs.json_values import Json, JsonObject
from loopscope.specs.keys import SOURCE_ANNOTATION, Key
from loopscope.specs.yaml.spec_sources import REQUEST
from loopscope.state.failures import Failure, TerminalFailure
from loopscope.state.folder import StateFolder
from loopscope.state.records import ObjectRecord
from loopscope.terminal.documents import yaml_text
from loopscope.terminal.printable import printable
from loopscope.views.documents.objects import object_document

if TYPE_CHECKING:
    from loopscope.specs.yaml.nodes import Document

Words = Annotated[
    list[str],
    typer.Argument(metavar="KIND NAME", help="Which object.", autocompletion=complete_object),
]
Changes = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND NAME CHANGE",
        help="Objects, then changes: a=b sets, a- takes away.",
        autocompletion=complete_object,
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Also where there is another value.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All objects of the kind.")]
_CHANGE = re.compile(r"([^=\s]+)=(.*)|([^=\s]+)-", re.DOTALL)
_FILE = "object.yaml"
_HEAD = """\
# Change what should be otherwise; metadata that the store writes is ignored. What is saved as it
# was, or empty, changes nothing. A field that the object's file sets is the file's again when the
# file is applied.
"""

EXAMPLES = {
    "edit": ("edit experiment france",),
    "patch": (
        "patch experiment france -p '{spec: {mapping: {minCosine: 0.4}}}'",
        "patch experiment france --patch-file change.yaml --confirm",
    ),
    "label": ("label experiment france team=geo", "label experiments -l team=geo team-"),
    "annotate": ("annotate experiment france loopscope.dev/protect=true",),
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("edit")(edit)
    app.command("patch")(patch)
    app.command("label")(label)
    app.command("annotate")(annotate)


def edit(context: typer.Context, words: Words, confirm: ConfirmOption = False) -> None:
    """Open an object in $VISUAL or $EDITOR, and store what was saved."""
    state, record = _named(context.obj, words, "edit")
    before = _HEAD + yaml_text(editable(record))
    text, notes = before, ""
    while True:
        with _keeping(text if notes else None):
            saved = _edited_by_hand(notes + text)
        kept = "".join(line for line in saved.splitlines(True) if not line.startswith("#!"))
        if kept == text or not kept.strip():
            print(printable(f"{record.key} not changed{_left(text, notes)}"))
            raise typer.Exit(1 if notes else 0)
        text = kept
        try:
            _store(state, _documents(text), {record.key: record}, confirm=confirm)
        except InvalidSpec as invalid:
            notes = _notes(invalid)
        except (CommandError, Failure, OSError) as refused:
            raise CommandError(f"{refused}; {_kept(text)}", 1) from None
        else:
            return


@contextmanager
def _keeping(text: str | None) -> Iterator[None]:
    """Keep what was saved in an earlier try when the editor leads nowhere this time."""
    try:
        yield
    except CommandError as error:
        if text is None:
            raise
        raise CommandError(f"{error}; {_kept(text)}", error.exit_code) from None
    except KeyboardInterrupt:
        if text is not None:
            print(_kept(text), file=sys.stderr)
        raise


def _left(text: str, notes: str) -> str:
    return f"; {_kept(text)}; the problems of the last try:\n{notes}" if notes else ""


def patch(
    context: typer.Context,
    words: Words,
    patch_text: Annotated[
        str | None, typer.Option("--patch", "-p", help="The patch, as JSON or YAML.")
    ] = None,
    patch_file: Annotated[
        Path | None, typer.Option("--patch-file", help="A file that holds the patch.")
    ] = None,
    form: Annotated[
        str, typer.Option("--type", help="merge: a JSON merge patch, in which null takes away.")
    ] = "merge",
    confirm: ConfirmOption = False,
    dry_run: DryRunOption = "none",
) -> None:
    """Change some fields of an object."""
    from loopscope.specs.merging import merge_patched

    if form != "merge":
        raise CommandError(f"a patch of type {form!r} is not supported; expected merge")
    if (patch_text is None) == (patch_file is None):
        raise CommandError("give --patch or --patch-file")
    text = (patch_text or "") if patch_file is None else _text_of(patch_file)
    try:
        read = [document.value for document in _documents(text)]
    except InvalidSpec as invalid:
        raise CommandError(f"the patch is neither JSON nor YAML: {invalid.problems[0]}") from None
    if len(read) != 1 or not isinstance(read[0], dict):
        raise CommandError(
            "the patch is no mapping; expected for example '{spec: {mapping: {topK: 5}}}'"
        )
    state, record = _named(context.obj, words, "patch")
    document = cast(JsonObject, merge_patched(editable(record), read[0]))
    before = {record.key: record}
    store_documents(state, [document], before, confirm=confirm, dry=dry_run != "none")


def label(
    context: typer.Context,
    words: Changes,
    selector: SelectorOption = None,
    all_: AllOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = "none",
) -> None:
    """Set labels of objects (a=b), or take them away (a-)."""
    how = Changing(everything=all_, overwrite=overwrite, dry=dry_run != "none")
    _change(context.obj, words, selector, "labels", how)


def annotate(
    context: typer.Context,
    words: Changes,
    selector: SelectorOption = None,
    all_: AllOption = False,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = "none",
) -> None:
    """Set annotations of objects (a=b), or take them away (a-)."""
    how = Changing(everything=all_, overwrite=overwrite, dry=dry_run != "none")
    _change(context.obj, words, selector, "annotations", how)


@dataclass(frozen=True)
class Changing:
    """How labels or annotations are changed."""

    everything: bool
    overwrite: bool
    dry: bool


def _change(
    given: Globals,
    words: Sequence[str],
    selector: str | None,
    field: Literal["labels", "annotations"],
    how: Changing,
) -> None:
    changes, rest = _read_changes(words, field)
    wanted = selection_of(given, rest, selector)
    unnamed = any(one.name is None for one in wanted.asked)
    if unnamed and how.everything == (selector is not None):
        raise CommandError("name the objects, or give one of --selector and --all")
    if not unnamed and (how.everything or selector is not None):
        raise CommandError("give names, or --selector, or --all")
    state = given.open_existing()
    with state.database.read() as connection:
        records = wanted.records(connection)
    if not records:
        print(wanted.nothing_found)
        return
    edited: list[JsonObject] = []
    for record in records:
        document = editable(record)
        metadata = cast(JsonObject, document["metadata"])
        before = record.labels if field == "labels" else record.annotations
        metadata[field] = cast(Json, _changed(record.key, before, changes, field, how.overwrite))
        edited.append(document)
    store_documents(state, edited, {record.key: record for record in records}, dry=how.dry)


def _read_changes(words: Sequence[str], field: str) -> tuple[dict[str, str | None], list[str]]:
    """Return the changes (None: take away), and the words before them, which name objects."""
    changes: dict[str, str | None] = {}
    rest: list[str] = []
    for word in words:
        match = _CHANGE.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        name = match[1] or match[3]
        if name in changes:
            raise CommandError(f"{name} is changed twice; give one")
        changes[name] = match[2] if match[1] else None
    if not changes or not rest:
        raise CommandError(f"expected KIND NAME and changes of {field}: a=b sets, a- takes away")
    return changes, rest


def _changed(
    key: Key,
    before: Mapping[str, str],
    changes: Mapping[str, str | None],
    field: str,
    overwrite: bool,
) -> dict[str, str]:
    for name, value in changes.items():
        if not overwrite and value is not None and before.get(name, value) != value:
            raise CommandError(
                f"{key} has {field[:-1]} {name}={before[name]}; to change it: --overwrite", 1
            )
    kept = {name: value for name, value in before.items() if name not in changes}
    return kept | {name: value for name, value in changes.items() if value is not None}


def _named(given: Globals, words: list[str], command: str) -> tuple[StateFolder, ObjectRecord]:
    kind, name = split_name(words)
    if name is None:
        raise CommandError(f"{command} needs a name: loopscope {command} {kind.lower()} NAME")
    state = given.open_existing()
    with state.database.read() as connection:
        return state, find_one(connection, kind, given.namespace, name)


def editable(record: ObjectRecord) -> JsonObject:
    """Return the document of an object as its editor gets it: without status."""
    document = cast(JsonObject, dict(object_document(record)))
    return {name: value for name, value in document.items() if name != "status"}


def _documents(text: str) -> list[Document]:
    from loopscope.specs.yaml.nodes import read_documents

    try:
        text.encode()
    except UnicodeEncodeError:  # a word of the command line may be any bytes
        raise CommandError("a word of the command line is not UTF-8") from None
    return list(read_documents(text, str(REQUEST)))


def _text_of(path: Path) -> str:
    """Return the text of a file of the user's. Raises CommandError."""
    from loopscope.specs.yaml.errors import decoding_problem

    try:
        content = path.read_bytes()
        return content.decode()
    except UnicodeDecodeError as error:
        raise CommandError(str(decoding_problem(content, error, str(path)))) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read ({error.strerror})") from None


def _kept(text: str | bytes) -> str:
    """Keep what someone wrote for them, in a file of their own, and say where."""
    number, name = tempfile.mkstemp(prefix="loopscope-edit-", suffix=".yaml")
    with os.fdopen(number, "wb") as stream:
        stream.write(text.encode() if isinstance(text, str) else text)
    return f"what was saved is kept in {name}"


def _notes(invalid: InvalidSpec) -> str:
    """Return problems as the first lines of the text that is edited again."""
    count = len(invalid.problems)
    moved = [replace(one, file=_FILE, line=one.line + count) for one in invalid.problems]
    return "".join(f"#! {problem}\n" for problem in moved)


def _edited_by_hand(text: str) -> str:
    """Return a text as it was saved in the user's editor."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="loopscope-edit-") as folder:
        path = Path(folder) / _FILE
        path.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([*shlex.split(editor), str(path)], check=False)
        except OSError as error:
            raise CommandError(f"{editor}: {error.strerror}; set EDITOR", 1) from None
        if done.returncode:
            raise CommandError(f"{editor} ended with exit status {done.returncode}", 1)
        try:
            return _text_of(path)
        except CommandError as error:
            kept = f"; {_kept(path.read_bytes())}" if path.is_file() else ""
            raise CommandError(f"{error}{kept}") from None


def store_documents(
    state: StateFolder,
    edited: Sequence[JsonObject],
    before: Mapping[Key, ObjectRecord],
    *,
    confirm: bool = False,
    dry: bool = False,
) -> None:
    """Store edited documents, all or none, and print what became of each object.

    ``dry``: print and refuse the same, and store nothing.
    """
    documents = [one for document in edited for one in _documents(yaml_text(document))]
    _store(state, documents, before, confirm=confirm, dry=dry)


def _store(
    state: StateFolder,
    documents: Sequence[Document],
    before: Mapping[Key, ObjectRecord],
    *,
    confirm: bool = False,
    dry: bool = False,
) -> None:
    """Store edited objects, and print what became of each."""
    from loopscope.commands.applying.apply import done_lines, dry_lines
    from loopscope.controller.plan.editing import load_edited, store_edited, would_store

    sources = {record.annotations.get(SOURCE_ANNOTATION) for record in before.values()}
    source = sources.pop() if len(sources) == 1 else None
    folder = Path(source).parent if source is not None else Path.cwd()
    root = root_of(Path(source), None) if source is not None else Path.cwd()
    loaded = load_edited(documents, folder, root)
    other = [item for item in loaded if item.manifest.key not in before]
    if other or len(loaded) != len(before):
        what = other[0].problem("metadata.name", "kind, namespace and name cannot be changed")
        raise InvalidSpec([what])
    if dry:
        print("\n".join(dry_lines(would_store(state, loaded, now=now(), confirm=confirm))))
        return
    try:
        done = store_edited(state, loaded, before, now=now(), confirm=confirm)
    except TerminalFailure as failure:
        if failure.reason != "PlanOutdated":
            raise
        names = " or ".join(map(str, before))
        words = f"{names} has changed since it was read; nothing was stored: try again"
        raise CommandError(words, 1) from None
    print(printable("\n".join(done_lines(done))))

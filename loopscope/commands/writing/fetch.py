"""``fetch``: everything that specs name, brought onto this machine ahead of time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from loopscope.commands.applying.apply import existing
from loopscope.commands.options import FilesOption, RootOption
from loopscope.commands.worker_libraries import refuse_without_workers
from loopscope.context import EXIT_BAD_INPUT, EXIT_UNAVAILABLE, CommandError, Globals, root_of
from loopscope.specs.yaml.spec_sources import SpecSource
from loopscope.terminal.printable import printable
from loopscope.views.numbers import byte_size, counted

if TYPE_CHECKING:
    from loopscope.controller.reconcile.resolution import Resolution
    from loopscope.inputs.datasets import Datasets
    from loopscope.reconcilers.references import InputReference
    from loopscope.specs.texts.source import DatasetAsked, FoundDataset

FETCHING = ("-P", "-m", "loopscope.worker.fetching")

EXAMPLES = {
    "fetch": ("fetch -f specs/france.yaml",),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fetch")(fetch)


def fetch(context: typer.Context, filename: FilesOption, root: RootOption = None) -> None:
    """Download, convert and hash all that specs name, so that the rest runs without the hub.

    Exit 0 when all of it is there, 2 when something is refused, 3 when it cannot be had now.
    """
    from loopscope.inputs.datasets import Datasets  # late: help must stay quick
    from loopscope.specs.yaml.loading import load_all

    context.obj.refuse_namespace("fetch")
    refuse_without_workers("fetch")
    sources = [SpecSource(path, root_of(path, root)) for path in filename]
    datasets = _FetchedDatasets(Datasets())
    manifests = [item.manifest for item in load_all(sources, datasets=datasets.find)]
    named = _named([(one.kind, one.canonical_spec()) for one in manifests])
    if not named and not datasets.lines:
        raise CommandError("no Experiment, Capture or Decomposition among them names an input")
    for line in datasets.lines.values():
        print(printable(line))
    codes = set()
    resolved = []
    for reference in named.values():
        found = _resolution(context.obj, reference)
        if found.facts is None:
            codes.add(_report(reference, f"{found.reason}: {found.message}", not found.terminal))
        else:
            resolved.append(found)
    codes |= _fetched(resolved)
    if codes:
        raise typer.Exit(min(codes))


@dataclass
class _FetchedDatasets:
    """Data sets, each said once: texts are read, and so downloaded, when a spec is loaded."""

    datasets: Datasets
    lines: dict[DatasetAsked, str] = field(default_factory=dict)

    def find(self, asked: DatasetAsked) -> FoundDataset:
        """Return the files that are asked for. Raises ValueError."""
        was_there = self.datasets.cached(asked) is not None
        found = self.datasets.find(asked)
        size = sum(file.path.stat().st_size for file in found.files)
        what = f"{counted(len(found.files), 'file')}, {byte_size(size)} at {found.commit[:12]}"
        how = "there already" if was_there else "downloaded"
        self.lines.setdefault(asked, f"data set {asked.name}: {what}, {how}, hashes right")
        return found


def _named(specs: list[tuple[str, Any]]) -> dict[str, InputReference]:
    """Return what the specs name, each once."""
    from loopscope.controller.plan.unchecked import named_inputs

    return {
        reference.digest: reference
        for kind, spec in specs
        for _, reference in named_inputs(kind, spec)
    }


def _resolution(options: Globals, reference: InputReference) -> Resolution:
    """Return where a reference leads: as the state folder knows it, else as it is found now."""
    from loopscope.controller.reconcile.resolution import Resolution, is_local, resolve
    from loopscope.state.db import inputs

    state = None if is_local(reference) else existing(options, to_read=True)
    if state is not None:
        with state.database.read() as connection:
            known = inputs.get(connection, reference.digest)
        if known is not None and known.facts is not None:
            return Resolution(reference, known.facts)
    return resolve(reference)


def _fetched(resolved: list[Resolution]) -> set[int]:
    """Fetch what was resolved, saying how each went; return the exit statuses of what failed."""
    from loopscope.inputs.fetched import remember_fetched

    codes: set[int] = set()
    for found, said in _answers(resolved):
        if "error" in said:
            codes.add(_report(found.reference, said["error"], said["passes"]))
        elif "fetched" in said:
            assert found.facts is not None  # only those are fetched
            remember_fetched(found.reference.digest, found.facts)
            print(printable(f"{_name(found.reference)}: {_what_was_done(found, said['fetched'])}"))
        elif said["phase"].startswith("Converting"):
            print(f"  converting: {said['percent']} %", flush=True)
    return codes


def _answers(resolved: list[Resolution]) -> Iterator[tuple[Resolution, Any]]:
    """Yield what the process that fetches says of each, in order."""
    from loopscope.state.child_processes import computing_environment

    asked = [{"kind": one.reference.kind, "ref": one.facts["ref"]} for one in resolved if one.facts]
    if not asked:
        return
    with subprocess.Popen(
        [sys.executable, *FETCHING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=computing_environment(),
    ) as process:  # its standard error is ours: the bars of downloads
        assert process.stdin is not None and process.stdout is not None  # opened as pipes
        process.stdin.write(json.dumps(asked))
        process.stdin.close()
        for line in process.stdout:
            said = json.loads(line)
            yield resolved[said["at"]], said
    if process.returncode != 0:
        raise CommandError(f"the process that fetches ended with status {process.returncode}", 1)


def _what_was_done(found: Resolution, done: Any) -> str:
    assert found.facts is not None  # only those are fetched
    source: Any = found.facts["ref"]["source"]
    at = f" at {source['revision'][:12]}" if source["kind"] == "hub" else ""
    words = [f"{counted(done['files'], 'file')}, {byte_size(done['bytes'])}{at}"]
    if done["downloaded"]:
        words.append(f"{done['downloaded']} downloaded")
    if done["converted"]:
        words.append("converted")
    if len(words) == 1:
        words.append("there already")
    return f"{', '.join(words)}, hashes right"


def _name(reference: InputReference) -> str:
    from loopscope.controller.plan.unchecked import input_name

    return input_name(reference)


def _report(reference: InputReference, why: str, passes: bool) -> int:
    """Say why an input cannot be had; return the exit status for it."""
    print(printable(f"{_name(reference)}: {why}"), file=sys.stderr)
    return EXIT_UNAVAILABLE if passes else EXIT_BAD_INPUT

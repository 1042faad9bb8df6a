"""``init``: an experiment of one's own, in a new folder."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from loopscope.commands.writing.starter import KNOWN, Known, Reference, spec_text, texts
from loopscope.context import CommandError
from loopscope.specs.suggest import did_you_mean
from loopscope.terminal.printable import printable

SPEC, PROMPTS = "experiment.yaml", "prompts"

EXAMPLES = {
    "init": (
        "init whales",
        "init whales --model gemma-2-2b",
        "init whales --model models/mine --coarse dictionaries/small --fine dictionaries/large",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty, or does not exist yet.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Of the experiment; by default the folder's.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="A folder, an installed package, or a name on the hub."),
    ] = None,
    coarse: Annotated[
        str | None, typer.Option("--coarse", help="The small dictionary: a path, or RELEASE/ID.")
    ] = None,
    fine: Annotated[
        str | None, typer.Option("--fine", help="The large dictionary: a path, or RELEASE/ID.")
    ] = None,
    hook: Annotated[
        str | None,
        typer.Option("--hook", help="The place in the model; by default the dictionaries'."),
    ] = None,
) -> None:
    """Write a commented spec and prompt files to start from, and check them as an apply does.

    Without options: GPT-2 small with two dictionaries of SAELens' registry.
    """
    from loopscope.specs.errors import InvalidSpec

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} exists and is not empty; name another folder")
    chosen = _chosen(model, coarse, fine, hook)
    named = name or _name_of(folder)
    text = spec_text(
        named, _model(chosen.model), chosen.hook, chosen.coarse, chosen.fine, chosen.needs
    )
    beside = folder if folder.is_dir() else folder.parent  # one file system with the folder
    beside.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=beside))
    try:
        _write(made, text)
        notes = _checked(made)
        folder.mkdir(exist_ok=True)  # it may be the present folder, which cannot be replaced
        for name in (PROMPTS, SPEC):
            (made / name).replace(folder / name)
    except InvalidSpec as invalid:
        problems = [f"{one.field}: {one.message}" for one in invalid.problems]
        raise CommandError("\n".join(problems)) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    for note in notes:
        print(printable(note), file=sys.stderr)
    for line in _next_steps(folder):
        print(line)


def _chosen(model: str | None, coarse: str | None, fine: str | None, hook: str | None) -> Known:
    """Return the model, the dictionaries and their place. Raises CommandError."""
    if (coarse is None) != (fine is None):
        raise CommandError("give both --coarse and --fine, or neither")
    if coarse is None or fine is None:
        if hook is not None:
            raise CommandError("--hook goes with --coarse and --fine")
        return _known(model)
    if model is None:
        raise CommandError("name the --model that the dictionaries were trained on")
    small, large = _dictionary("--coarse", coarse), _dictionary("--fine", fine)
    place = hook or _hook_of(small) or _hook_of(large)
    if place is None:
        raise CommandError("the dictionaries do not say where they belong; give --hook")
    return Known(model, place, small, large, "what you named")


def _known(model: str | None) -> Known:
    known = {one.model: one for one in KNOWN}
    if model is None:
        return KNOWN[0]
    if model not in known:
        raise CommandError(
            f"no pair of dictionaries is known here for {model!r}; known are those of "
            f"{', '.join(known)}; for others give --coarse and --fine "
            "(`loopscope dictionaries --model NAME` lists what SAELens knows)"
        )
    return known[model]


def _model(text: str) -> Reference:
    """Return a model as a spec names it: a folder, a package that is installed, or a hub's name."""
    from loopscope.inputs.errors import InputRefused, ResolutionPending
    from loopscope.inputs.packages import find_packaged_gguf

    if Path(text).is_dir():
        path = Path(text).resolve()
        return {"name": path.name, "source": {"folder": str(path)}}
    try:
        find_packaged_gguf(text)
    except (InputRefused, ResolutionPending, ValueError):
        return {"name": text}
    return {"name": text, "source": {"package": text}}


def _dictionary(option: str, text: str) -> Reference:
    """Return a dictionary as a spec names it. Raises CommandError for what is neither."""
    if Path(text).exists():
        return {"path": str(Path(text).resolve())}
    from loopscope.inputs.registry import release_block, release_names

    release, _, identity = text.partition("/")
    block = release_block(release)
    if block is None or not identity:
        hint = did_you_mean(release, release_names())
        raise CommandError(
            f"{option}: {text!r} is no path and no RELEASE/ID of SAELens' registry{hint}; "
            "`loopscope dictionaries` lists them"
        )
    return {"release": release, "id": identity}


def _hook_of(reference: Reference) -> str | None:
    """Return the hook that a dictionary says it belongs to, if it can be read here and now."""
    if "path" in reference:
        from loopscope.inputs.dictionaries import describe_dictionary
        from loopscope.inputs.errors import InputRefused

        try:
            return describe_dictionary({"path": str(reference["path"])}).hook_name
        except InputRefused as refused:
            raise CommandError(f"{reference['path']}: {refused.message}") from None
    from loopscope.inputs.registered import registered_dictionaries

    found = registered_dictionaries(str(reference["release"]), None)
    one = next((one for one in found if one.id == reference["id"]), None)
    if one is None:
        raise CommandError(
            f"release {reference['release']} has no {reference['id']!r}"
            f"{did_you_mean(str(reference['id']), [one.id for one in found])}"
        )
    return one.hook_name


def _name_of(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not name:
        raise CommandError(f"{folder.name!r} makes no name of an experiment; give --name")
    return name[:52].strip("-")


def _write(folder: Path, text: str) -> None:
    (folder / SPEC).write_text(text, encoding="utf-8")
    prompts = folder / PROMPTS
    prompts.mkdir()
    for name, content in texts().items():
        (prompts / name).write_text(content, encoding="utf-8")


def _checked(folder: Path) -> list[str]:
    """Load and admit what was written; return what could not be checked. Raises InvalidSpec."""
    from loopscope.controller.plan.applying import load_admitted
    from loopscope.controller.plan.selection_power import selection_warnings
    from loopscope.controller.plan.unchecked import unchecked_inputs

    loaded = load_admitted(folder / SPEC, folder)
    return [
        *(f"note: {one.field}: {one.message}" for one in unchecked_inputs(None, loaded)),
        *(f"warning: {one.field}: {one.message}" for one in selection_warnings(None, loaded)),
    ]


def _next_steps(folder: Path) -> list[str]:
    return [
        f"{folder / SPEC} and {folder / PROMPTS} are written and checked. Then:",
        f"  1. replace the texts about the sea by yours; advice: {folder / PROMPTS / 'README.md'}",
        f"  2. loopscope tokens -f {folder / SPEC}",
        f"  3. loopscope plan -f {folder / SPEC}",
        f"  4. loopscope run {folder / SPEC}",
    ]

"""Admission: checks of a spec's prompts, model and dictionaries against headers, offline.

Used when a spec is applied. References that need a hub are checked here only as far as
SAELens' registry goes; the rest is checked when they are resolved.
"""

from __future__ import annotations

from typing import cast

from loopscope.controller.apply.prompts import check_prompts
from loopscope.inputs.chat_rendering import why_refused
from loopscope.inputs.chat_templates import chat_template_of
from loopscope.inputs.dictionaries import (
    DictionaryFacts,
    describe_dictionary,
    known_architecture,
    known_training,
)
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import HashMemo
from loopscope.inputs.hub import Hub
from loopscope.inputs.models import ModelFacts, describe_model
from loopscope.reconcilers.chat import chat_of, with_system_prompt
from loopscope.specs import study, sweep
from loopscope.specs.chat_words import needs_template
from loopscope.specs.contextual import why_not_steered
from loopscope.specs.hooks import Hook
from loopscope.specs.json_values import JsonObject
from loopscope.specs.model_names import another_model
from loopscope.specs.payloads.steering import SIDES
from loopscope.specs.spec_json import (
    CaptureJson,
    DecompositionJson,
    DictionaryJson,
    ExperimentJson,
    ModelJson,
)
from loopscope.specs.transcoding import wrong_write_hook

Refusal = tuple[str, str]
"""The path of a field (``spec.dictionaries.fine.path``) and what is wrong with it."""

OFFLINE = Hub(offline=True)


def check_inputs(kind: str, spec: JsonObject, memo: HashMemo | None = None) -> list[Refusal]:
    """Return what is wrong with the inputs of an object's spec; kinds without inputs have none."""
    match kind:
        case "Study":
            return _check_concepts(spec, memo or HashMemo())
        case "Experiment" if "matrix" in spec:
            return _check_cells(spec, memo or HashMemo())
        case "Experiment":
            experiment = cast(ExperimentJson, spec)
            problems = [*check_prompts(experiment), *check_experiment_inputs(experiment, memo)]
            return [*problems, *check_chat(experiment, memo)]
        case "Capture":
            capture = cast(CaptureJson, spec)
            return [*check_capture_inputs(capture, memo), *check_chat(capture, memo)]
        case "Decomposition":
            return check_decomposition_inputs(cast(DecompositionJson, spec), memo)
        case _:
            return []


def _check_cells(spec: JsonObject, memo: HashMemo) -> list[Refusal]:
    """Return the problems of the inputs of a sweep's cells, each of them once."""
    cell_by_refusal: dict[Refusal, str] = {}
    for cell in sweep.cells(spec):
        for field, message in check_inputs("Experiment", cell.spec, memo):
            steps = tuple(field.split(".")[1:])
            place = sweep.origin(sweep.matrix_of(spec), cell, steps)
            where = field if place is None else ".".join(("spec", *map(str, place)))
            cell_by_refusal.setdefault((where, message), cell.suffix)
    return [(where, f"{message} (in {cell})") for (where, message), cell in cell_by_refusal.items()]


def _check_concepts(spec: JsonObject, memo: HashMemo) -> list[Refusal]:
    """Return the problems of the inputs of a study's concepts, each of them once."""
    concept_by_refusal: dict[Refusal, str] = {}
    seen = False
    for one in study.concept_experiments(spec):
        experiment = cast(ExperimentJson, one.spec)
        problems = [*check_prompts(experiment), *check_chat(experiment, memo)]
        if not seen:  # model and dictionaries are the same for all
            problems += check_experiment_inputs(experiment, memo)
        seen = True
        for field, message in problems:
            place = study.origin(one.name, tuple(field.split(".")[1:]))
            where = ".".join(("spec", *map(str, place)))
            concept_by_refusal.setdefault((where, message), one.name)
    return [
        (where, f"{message} (in {name})") for (where, message), name in concept_by_refusal.items()
    ]


def check_experiment_inputs(spec: ExperimentJson, memo: HashMemo | None = None) -> list[Refusal]:
    """Return what is wrong with an Experiment's model, hook and dictionaries; empty if nothing.

    Paths in ``spec`` (camelCase, defaulted) are absolute. Reads headers and, once per file,
    the bytes for their hash; never the network.
    """
    memo = memo or HashMemo()
    model, problems = _model(spec, memo)
    found: dict[str, DictionaryFacts] = {}
    for name in SIDES:
        field, dictionary = f"spec.dictionaries.{name}", spec["dictionaries"][name]
        facts, wrong = _dictionary(field, dictionary, memo)
        problems += wrong
        if not wrong:
            problems += check_fit(field, dictionary, facts, spec["hook"], spec["model"], model)
            problems += check_written(field, dictionary, facts, spec, model)
            problems += check_steered(field, dictionary, facts, spec)
        if facts:
            found[name] = facts
    if len(found) == 2 and found["coarse"].d_sae > found["fine"].d_sae:
        problems.append(
            (
                "spec.dictionaries",
                f"coarse has {found['coarse'].d_sae} latents, fine {found['fine'].d_sae}; "
                "coarse is the one with fewer: exchange them",
            )
        )
    return problems


def check_capture_inputs(spec: CaptureJson, memo: HashMemo | None = None) -> list[Refusal]:
    """Return what is wrong with a Capture's model and hook; empty if nothing."""
    return _model(spec, memo or HashMemo())[1]


def check_decomposition_inputs(
    spec: DecompositionJson, memo: HashMemo | None = None
) -> list[Refusal]:
    """Return what is wrong with a Decomposition's dictionary by itself; empty if nothing.

    Whether it fits the capture that it names is known when both are resolved: ``check_fit``.
    """
    return _dictionary("spec.dictionary", spec["dictionary"], memo or HashMemo())[1]


def check_fit(
    field: str,
    dictionary: DictionaryJson,
    facts: DictionaryFacts | None,
    hook: str,
    model: ModelJson,
    model_facts: ModelFacts | None,
) -> list[Refusal]:
    """Return why a dictionary does not belong to this hook of this model; empty if it may.

    ``field`` is the dictionary's place in the spec. Facts that are None are not known yet.
    """
    place = f"{field}.{'release' if dictionary.get('release') else 'path'}"
    training = facts or known_training(dictionary)
    own_hook = training.hook_name if training else None
    problems = []
    if own_hook not in (None, hook) and dictionary.get("usableAt") != "any":
        problems.append(
            (
                place,
                f"this dictionary was trained at {own_hook}, but the spec's hook is {hook}; "
                f"write hook: {own_hook}, choose a dictionary of {hook}, or write usableAt: any",
            )
        )
    trained_on = training.model_names if training else ()
    other = another_model(model, trained_on)
    if other is not None and dictionary.get("usableOn") != "any":
        problems.append(
            (
                place,
                f"this dictionary was trained on {trained_on[0]}, but the spec's model is {other}; "
                f"choose a dictionary of {other}, or write usableOn: any",
            )
        )
    width = model_facts.width(Hook.parse(hook)) if model_facts else None
    if facts and width is not None and facts.d_in != width:
        problems.append(
            (
                place,
                f"this dictionary reads vectors of width {facts.d_in}, but {model['name']} has "
                f"width {width} at {hook}; choose a dictionary that was trained on this model and "
                "hook",
            )
        )
    return problems


def check_written(
    field: str,
    dictionary: DictionaryJson,
    facts: DictionaryFacts | None,
    spec: ExperimentJson,
    model_facts: ModelFacts | None,
) -> list[Refusal]:
    """Return why a dictionary does not write at the spec's ``writeHook``; empty if it may."""
    if facts is None:
        return []
    place = f"{field}.{'release' if dictionary.get('release') else 'path'}"
    write_hook = spec.get("writeHook")
    any_place = dictionary.get("usableAt") == "any"
    why = wrong_write_hook(facts.write_hook, write_hook, any_place=any_place)
    if why is not None or write_hook is None:
        return [(place, why)] if why else []
    width = model_facts.width(Hook.parse(write_hook)) if model_facts else None
    if width is None or facts.d_out == width:
        return []
    return [
        (
            place,
            f"this transcoder writes vectors of width {facts.d_out}, but {spec['model']['name']} "
            f"has width {width} at {write_hook}; choose one that was trained on this model",
        )
    ]


def check_steered(
    field: str, dictionary: DictionaryJson, facts: DictionaryFacts | None, spec: ExperimentJson
) -> list[Refusal]:
    """Return why nothing can be steered along a dictionary's latents; empty if it may be."""
    if "steering" not in spec:
        return []
    why = why_not_steered(facts.architecture if facts else known_architecture(dictionary))
    return [(f"{field}.{'release' if dictionary.get('release') else 'path'}", why)] if why else []


def check_hook(
    hook: str, model: ModelJson, facts: ModelFacts, field: str = "spec.hook"
) -> list[Refusal]:
    """Return why a model has no such hook; empty if it has, or if that is not known."""
    why = Hook.parse(hook).missing_from(model["name"], facts.n_layers, parallel=facts.parallel)
    return [(field, why)] if why else []


def check_chat(spec: ExperimentJson | CaptureJson, memo: HashMemo | None = None) -> list[Refusal]:
    """Return why the prompts cannot be put into their chat template; empty if they can.

    Seen by the first of them, without the arm *systemPrompt* and with it, and only where the
    template can be read without a network.
    """
    prompts = spec["prompts"]
    if "chat" not in prompts:
        return []
    field, template = "spec.prompts.chat", None
    if needs_template(prompts):
        model, _ = _model(spec, memo or HashMemo())
        try:
            template = chat_template_of(model.ref, OFFLINE) if model is not None else None
        except InputRefused as refused:
            return [(field, refused.message)]
        except ResolutionPending:
            return []
        if template is None:
            return []  # what is wrong with the model is said elsewhere
    chat = chat_of(prompts, template)
    if chat is None:
        return []
    text = prompts["target"]["texts"][0]
    refusal = why_refused(chat, text)
    prompted = with_system_prompt(chat, cast(ExperimentJson, spec).get("steering"))
    if refusal is None and prompted is not None:
        field, refusal = "spec.steering.systemPrompt", why_refused(prompted, text)
    return [(field, refusal)] if refusal is not None else []


def _model(
    spec: ExperimentJson | CaptureJson, memo: HashMemo
) -> tuple[ModelFacts | None, list[Refusal]]:
    try:
        facts = describe_model(spec["model"], hub=OFFLINE, memo=memo)
    except InputRefused as refused:
        return None, [(f"spec.model.{refused.field}", refused.message)]
    except ResolutionPending:
        return None, []
    problems = check_hook(spec["hook"], spec["model"], facts)
    if "writeHook" in spec:
        problems += check_hook(spec["writeHook"], spec["model"], facts, "spec.writeHook")
    return facts, problems


def _dictionary(
    field: str, dictionary: DictionaryJson, memo: HashMemo
) -> tuple[DictionaryFacts | None, list[Refusal]]:
    try:
        return describe_dictionary(dictionary, hub=OFFLINE, memo=memo), []
    except InputRefused as refused:
        return None, [(f"{field}.{refused.field}", refused.message)]
    except ResolutionPending:
        return None, []

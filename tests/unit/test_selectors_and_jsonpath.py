"""Labels and paths are read as kubectl reads them; anything else is refused in words."""

import pytest

from loopscope.jsonpath import render
from loopscope.views.selectors import parse_selector

LABELS = {"team": "a", "loopscope.dev/sweep": "s", "empty": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("team=a", True),
        ("team==a", True),
        ("team = b", False),
        ("team!=b", True),
        ("team!=a", False),
        ("other!=a", True),
        ("team in (a, b)", True),
        ("team in (b,c)", False),
        ("other in (a)", False),
        ("team notin (b,c)", True),
        ("team notin (a)", False),
        ("other notin (a)", True),
        ("team", True),
        ("other", False),
        ("!other", True),
        ("!team", False),
        ("loopscope.dev/sweep=s,team in (a,b),!other", True),
        ("loopscope.dev/sweep=s,team=b", False),
        ("empty=", True),
        ("team=", False),
    ],
)
def test_labels_are_selected(text, fits):
    assert parse_selector(text)(LABELS) is fits


@pytest.mark.parametrize("text", ["team in a", "a=b=c", "team in (a", "=a", "a>3", "team (a)"])
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(ValueError, match="no selector; expected name=value"):
        parse_selector(text)


DOCUMENT = {
    "metadata": {"name": "france", "labels": {"loopscope.dev/sweep": "s"}},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Stalled", "status": "False"},
        ],
        "summary": {"n": 20, "estimate": 0.25, "cells": [1, 2, 3], "note": None},
    },
}
LIST = {"items": [{"metadata": {"name": name}} for name in ("a", "b")]}


@pytest.mark.parametrize(
    ("template", "document", "text"),
    [
        ("{.metadata.name}", DOCUMENT, "france"),
        ("{$.metadata.name}", DOCUMENT, "france"),
        ("{metadata.name}", DOCUMENT, "france"),
        ("name: {.metadata.name}!", DOCUMENT, "name: france!"),
        ("{.metadata.labels['loopscope.dev/sweep']}", DOCUMENT, "s"),
        ('{.status.conditions[?(@.type=="Ready")].status}', DOCUMENT, "True"),
        ("{.status.conditions[?(@.type!='Ready')].type}", DOCUMENT, "Stalled"),
        ("{.status.conditions[*].type}", DOCUMENT, "Ready Stalled"),
        ("{.status.conditions[-1].type}", DOCUMENT, "Stalled"),
        ("{.metadata.labels.loopscope\\.dev/sweep}", DOCUMENT, "s"),
        ("{.metadata.labels['loopscope\\.dev/sweep']}", DOCUMENT, "s"),
        ('{.metadata.labels["loopscope\\.dev/sweep"]}', DOCUMENT, "s"),
        ("{range .metadata.labels}{.loopscope\\.dev/sweep}{end}", DOCUMENT, "s"),
        ("{.metadata.labels.loopscope.dev/sweep}", DOCUMENT, ""),
        ("{.nothing[0].here}", DOCUMENT, ""),
        ("{.status.summary.n} {.status.summary.estimate}", DOCUMENT, "20 0.25"),
        ("{.status.summary.cells}", DOCUMENT, "[1, 2, 3]"),
        ("{.status.summary.note}", DOCUMENT, "null"),
        ("{.nothing.here}", DOCUMENT, ""),
        ("{.items[*].metadata.name}", LIST, "a b"),
        ('{range .items[*]}{.metadata.name}{"\\n"}{end}', LIST, "a\nb\n"),
        ('{range .items[*]}<{range .metadata}{.name}{end}>{end}{"."}', LIST, "<a><b>."),
    ],
)
def test_a_template_says_what_stands_there(template, document, text):
    assert render(template, document) == text


@pytest.mark.parametrize(
    "template", ["{.status.conditions[9].type}", "{.status.conditions[-3]}", "{.metadata.name[0]}"]
)
def test_a_place_that_is_not_there_is_an_error_as_it_is_for_kubectl(template):
    with pytest.raises(LookupError, match=r"out of bounds|no list"):
        render(template, DOCUMENT)


@pytest.mark.parametrize(
    "template", ["{.a", "{.a[}", "{range .items[*]}x", "x{end}", "{.a b}", "{[?(a)]}"]
)
def test_what_is_no_template_is_refused(template):
    with pytest.raises(ValueError, match=r"path|brace|range|end"):
        render(template, LIST)

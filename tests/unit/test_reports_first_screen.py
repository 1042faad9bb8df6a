"""The first screen of a report, read by somebody who has never seen the project."""

import html
import re
from pathlib import Path

import pytest

from loopscope.reports.page.glossary import MEANINGS, Explained
from loopscope.reports.page.html import render_report
from loopscope.specs.artifacts.steering import ARMS
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MINUS
from tests.unit.reports_case import build

GLOSSARY = (Path(__file__).parents[2] / "docs/glossary.md").read_text(encoding="utf-8")
QUESTIONS = [
    "Which latents answer to the concept?",
    "What do they fire on?",
    "How sure is that?",
    "Does the fine dictionary split it (GO)?",
    "Do both together steer better than one?",
    "What would change that?",
    "What does it rest on?",
    "What is in doubt?",
]

ARM = f'<abbr tabindex="0" title="{MEANINGS["arm"]}">arm</abbr>'


def screen(*case):
    page = render_report(ExperimentView.load(*case))
    return page.partition('<section id="headline"')[2].partition("<h3>What was asked")[0]


def words(text):
    return html.unescape(re.sub(r"<[^>]*>", "", text)).replace(MINUS, "-")


def asked(section):
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section, re.DOTALL)
    return {words(question): words(answer) for question, answer in found}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return build(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def section(case):
    return screen(*case)


def test_one_sentence_says_what_came_out_with_its_numbers(section):
    (sentence,) = re.findall(r'<p class="lede">(.*?)</p>', section, re.DOTALL)
    assert re.fullmatch(
        r"3 coarse latents answer to the concept \(the best, C-0, on \d+ % of the target prompts "
        r"and \d+ % of the neutral prompts\); the fine dictionary splits it further \(GO: up to 4 "
        r"children of one\); whether steering along both together is better than along one stays "
        r"open \(Inconclusive: multi - fine -0\.05, 95 % interval \[-0\.25, \+0\.15\]\)\.",
        words(sentence),
    )


def test_eight_questions_are_answered(section):
    said = asked(section)
    assert list(said) == QUESTIONS
    which, fires, sure, gate, steering, change, rests, doubt = said.values()
    assert "C-0 with F-0" in which
    assert re.match(
        r"C-0 fires on \d+ of 20 target and \d+ of 20 neutral prompts, most on “", fires
    )
    assert sure == "Not confirmed: no test split."
    assert gate == (
        "GO: an anchor has 4 children (fine latents with a cosine of at least 0.30 to "
        "it), and 3 were asked for; ranked by such counts the anchors stand above 98 % of sets of "
        "coarse latents that are as frequent in text."
    )
    assert steering.startswith("Inconclusive: multi - fine -0.05 [-0.25, +0.15] over 3 openings.")
    assert change.startswith("Asking for ")
    assert "126 openings with 1 sample each would detect a difference of 0.15" in change
    assert rests == (
        "20 target and 20 neutral prompts; 3 openings with 2 samples under each arm, all arms at "
        "the same disturbance of neutral text. One concept, one pair of dictionaries, one place in "
        "one model: one draw."
    )
    assert "Inconclusive is not the same as no difference" in doubt


def test_the_picture_has_the_rates_of_the_arms_with_the_main_ones_last(case, section):
    arms = ExperimentView.load(*case).stage("steering").table(ARMS)
    tips = [html.unescape(t) for t in re.findall(r"<circle[^>]*><title>(.*?)</title>", section)]
    names = [tip.partition(":")[0] for tip in tips]
    assert names == ["none", "random-0", "random-1", "coarse", "fine", "multi"]
    weakest = arms[arms["strength"] == 0.25].set_index("arm")["concept_rate"]
    assert f"multi: {weakest['multi']:.0%}".replace("%", " %") in tips[-1]


def test_names_lead_to_their_latents_and_words_say_what_they_mean(section):
    assert '<a href="#latent=coarse/0">C-0</a>' in section
    explained = re.findall(r'<abbr tabindex="0" title="(.*?)">(.*?)</abbr>', section)
    assert ("one unit of a dictionary", "latents") in explained
    meanings = [meaning for meaning, _ in explained]
    assert len(meanings) == len(set(meanings)) > 8, "each once, where it first stands"


def test_without_steering_the_picture_is_what_the_anchors_fire_on(tmp_path):
    section = screen(*build(tmp_path, steering=False))
    assert "C-0 target: " in section and "Share of prompts on which the latents fire" in section
    assert "steering" not in words(section).partition("Which latents")[0]


def test_without_a_mapping_there_is_no_answer_and_no_question(tmp_path):
    section = screen(*build(tmp_path, stages=("capture",)))
    assert "lede" not in section and "<dt>" not in section and "<svg" not in section


@pytest.mark.parametrize("term", MEANINGS)
def test_a_word_means_what_the_glossary_says(term):
    assert f"| {term} | {MEANINGS[term]} |" in GLOSSARY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>", "&lt;b&gt;"),
        ("C-7 and F-3", '<a href="#latent=coarse/7">C-7</a> and F-3'),
        ("Go on", "Go on"),
        ("hook_latent", "hook_latent"),
        ("an arm, two arms", f"an {ARM}, two arms"),
    ],
)  # fmt: skip
def test_words_and_names_are_marked_and_the_rest_is_text(text, expected):
    assert Explained({("coarse", 7)})(text) == expected

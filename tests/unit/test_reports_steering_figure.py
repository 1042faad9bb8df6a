"""The steering picture: names of arms that can be read."""

import re

import pandas
import pytest

from loopscope.reports.page.figures.steering import concept_against_kl

ASCENT, DESCENT = 9, 3
"""How far the letters of a label reach above and below its baseline, in units of the picture."""


def arm(name, kl, rate):
    return {
        "arm": name, "strength": 0.1, "kl": kl, "concept_rate": rate, "concept_low": rate,
        "concept_high": rate, "median_perplexity": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize("kl", [0.01, 0.9])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.03, 0.05, 0.08])
def test_no_name_of_an_arm_is_crossed_by_the_line_of_the_unsteered_one_or_lies_on_its_name(
    rate, kl
):
    arms = [arm("none", float("nan"), 0.03), arm("placeboPrompt", kl, rate), arm("fine", 0.1, 0.03)]
    picture = concept_against_kl(pandas.DataFrame(arms))
    (line,) = re.findall(r'<line [^>]*y1="([\d.]+)"[^>]*arm-line arm-none', picture)
    names = re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="label[^"]*">(\w+)</text>', picture)
    heights = {name: float(height) for height, name in names}
    assert heights.keys() == {"none", "placeboPrompt", "fine"}
    for name in ("placeboPrompt", "fine"):
        top, bottom = heights[name] - ASCENT, heights[name] + DESCENT
        assert not top <= float(line) <= bottom
        assert abs(heights[name] - heights["none"]) >= ASCENT + DESCENT

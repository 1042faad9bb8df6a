"""What the report says of unequal budgets and of the system prompt."""

from __future__ import annotations

from loopscope.reports.page.fairness import (
    beside_prompt,
    budget_caution,
    budget_errors,
    placebo_sentence,
)


def budget(texts: int):
    errors = [
        {"contrast": "multi-coarse", "log_ratio_sd": 0.05, "slope": 0.4, "shared_sd": 0.02},
        {"contrast": "multi-random", "log_ratio_sd": 0.3, "slope": 0.4, "shared_sd": 0.12},
    ]
    return {"budget": {"unit": "nextTokenKl", "texts": texts, "errors": errors}}


def test_few_neutral_texts_are_a_caution_with_what_they_cost_and_many_are_none():
    said = budget_caution(budget(4))
    assert said.startswith("The budgets rest on 4 neutral texts (32 are advised)")
    assert "standard deviation of 0.020" in said, "that of the verdict's contrasts"
    assert budget_caution(budget(32)) == ""
    assert budget_caution(budget(1)).startswith("The budgets rest on 1 neutral text (")


def test_results_of_older_code_and_equal_norms_have_no_such_tables():
    for verdict in ({}, {"budget": None, "system_prompt": None}):
        assert budget_caution(verdict) == ""
        assert budget_errors(verdict).rows == []
        assert beside_prompt(verdict).rows == []
        assert placebo_sentence(verdict) == ""


def test_an_arm_that_cannot_be_put_beside_the_prompt_says_why():
    contrast = {"estimate": 0.2, "low": 0.1, "high": 0.3}
    record = {
        "kl": 0.5, "placebo_kl": 0.4, "placebo": contrast,
        "arms": [
            {"arm": "coarse", "rate": 0.45, "contrast": contrast, "reason": None},
            {"arm": "multi", "rate": None, "contrast": None, "reason": "one strength"},
        ],
    }  # fmt: skip
    coarse, multi = beside_prompt({"system_prompt": record}).rows
    assert coarse[:2] == ["coarse", "45 %"]
    assert multi[-1] == "not comparable: one strength"
    assert "by 0.500 nats, a placebo of the same length by 0.400" in placebo_sentence(
        {"system_prompt": record}
    )

"""Necessity: contrasts and answers, from what each prompt loses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from loopscope.numerics.verdict.necessity import NOTHING, LossContrast, answer, loss_contrasts
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.ablation import ABLATION, LOSSES
from loopscope.specs.artifacts.decomposition import PROMPTS

CONTRASTS = "ablation: contrasts, and what is said of each part"
Floats = NDArray[np.float64]


def check_ablation(bundle: OpenBundle, findings: Findings) -> None:
    """Compute every contrast and answer again, and the numbers of the status."""
    document, losses, prompts = (
        bundle.document(ABLATION), bundle.table(LOSSES), bundle.table(PROMPTS)
    )  # fmt: skip
    if document is None or losses is None or prompts is None:
        return
    with findings.part(CONTRASTS, ABLATION.name):
        contrasts = _contrasts(losses, prompts)
        stated = {(one["part"], one["against"]): one for one in document["contrasts"]}
        findings.same(CONTRASTS, "contrasts", len(document["contrasts"]), len(contrasts))
        for one in contrasts:
            place = f"{one.part} against {one.against}"
            findings.same(CONTRASTS, place, stated.get((one.part, one.against)), _record(one))
        _check_answers(bundle, losses, contrasts, findings)
        ids = losses["prompt_id"].nunique()
        findings.same(CONTRASTS, "prompts", document["prompts"], ids)
    findings.leave_out("what a prompt loses, and which latents are matched", "it needs the model")


def _check_answers(
    bundle: OpenBundle, losses: pandas.DataFrame, contrasts: list[LossContrast], findings: Findings
) -> None:
    document = bundle.document(ABLATION)
    assert document is not None  # the caller read it
    own = losses[losses["control"] == ""]
    computed = []
    for part, rows in own.groupby("part", sort=False):
        loss = next(one for one in contrasts if (one.part, one.against) == (part, NOTHING))
        computed.append(
            {
                "part": part,
                "answer": answer(str(part), contrasts),
                "loss": loss.contrast.estimate,
                "low": loss.contrast.low,
                "high": loss.contrast.high,
                "kl": rows["kl"].mean(),
                "removed": rows["removed"].mean(),
            }
        )
    findings.same(CONTRASTS, "answers", document["answers"], computed)
    first = {one.part: one.p_holm for one in contrasts if one.against == NOTHING}
    parts: Any = {
        one["part"]: {name: one[name] for name in ("loss", "low", "high", "answer")}
        | {"p": first[str(one["part"])]}
        for one in computed
    }
    findings.same(CONTRASTS, "status", bundle.manifest("ablation")["metrics"]["parts"], parts)


def _contrasts(losses: pandas.DataFrame, prompts: pandas.DataFrame) -> list[LossContrast]:
    order = list(dict.fromkeys(losses["prompt_id"]))
    own: dict[str, Floats] = {}
    controls: dict[tuple[str, str], list[Floats]] = {}
    for (part, control, _), rows in losses.groupby(["part", "control", "draw"], sort=False):
        values = rows.set_index("prompt_id")["loss"].loc[order].to_numpy()
        if control:
            controls.setdefault((part, control), []).append(values)
        else:
            own[part] = values
    group = None
    if "group" in prompts:
        group = prompts.set_index("prompt_id")["group"].loc[order].to_numpy(dtype=np.int64)
    return loss_contrasts(own, {name: np.stack(drawn) for name, drawn in controls.items()}, group)


def _record(one: LossContrast) -> dict[str, object]:
    return {
        "part": one.part,
        "against": one.against,
        "estimate": one.contrast.estimate,
        "low": one.contrast.low,
        "high": one.contrast.high,
        "p": one.p,
        "p_holm": one.p_holm,
        "between_draws": one.between_draws,
    }

"""Payload files of a small France-like experiment: made-up numbers that agree with one another."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from loopscope.specs.artifact_files import Table
from loopscope.specs.artifacts.capture import CAPTURED_PROMPTS
from loopscope.specs.artifacts.decomposition import FEATURES, PROMPTS
from loopscope.specs.artifacts.evidence import (
    COSINES,
    FIRINGS,
    LENS,
    NEAREST,
    SHOWN_LATENTS,
    SHOWN_PROMPTS,
    TOKENS,
)
from loopscope.specs.artifacts.mapping import (
    COARSE_SUMMARY,
    COSINE_HISTOGRAM,
    GATE_DRAWS,
    GATE_SETTINGS,
    PAIRS,
)
from loopscope.specs.artifacts.steering import ARMS, DISTRIBUTION_SHIFT, SAMPLES, SCORES
from loopscope.specs.rules import Selection
from loopscope.specs.shown_latents import LATENTS_MAX, ShownLatent, drawn_order, shown_latents
from loopscope.worker.stages.tables import ARROW_TYPES, write_table
from tests.unit.reports_numbers import correlation, disturbance, features, reading

HOSTILE = '</pre><script>alert("owned")</script><img src="https://evil.example/x.png">'
SELECTION_POWER = {
    "smallest_p": 2e-9, "tested": 16, "needed": 1, "top": 5, "prompts_needed": 9,
}  # fmt: skip
EFFECT = {"contrast": "fine-none", "estimate": 0.7, "low": 0.4, "high": 0.95, "n": 3}
ASSAY = {"arm": "fine", "rate": 0.75, "effect": EFFECT, "doubt": None}
BUDGET = {
    "unit": "nextTokenKl",
    "texts": 4,
    "positions_per_text": 8,
    "errors": [
        {"contrast": "multi-coarse", "log_ratio_sd": 0.09, "slope": 0.5, "shared_sd": 0.045},
        {"contrast": "multi-fine", "log_ratio_sd": 0.08, "slope": 0.5, "shared_sd": 0.04},
    ],
}
AT_PROMPT = {"contrast": "coarse-systemPrompt", "estimate": -0.2, "low": -0.5, "high": 0.1}
SYSTEM_PROMPT = {
    "kl": 0.42,
    "placebo_kl": 0.31,
    "placebo": {**AT_PROMPT, "contrast": "systemPrompt-placeboPrompt", "estimate": 0.3, "low": 0.1},
    "arms": [
        {"arm": "coarse", "rate": 0.4, "contrast": AT_PROMPT, "reason": None},
        {"arm": "multi", "rate": None, "contrast": None, "reason": "it was scored elsewhere"},
    ],
}
METRICS = ("verdict", "reason", "contrast", "estimate", "low", "high", "n", "n_needed")
READINGS = ("match", "partial", "co-occurring", "geometric-only", "unrelated", "unobserved")

CONTROL = {
    "kind": "decoder rows", "decides": True, "dictionaries": 99, "observed": 4, "p": 0.01,
    "median_count": 0.0, "max_count": 1, "effective_dimensions": 5.2,
}  # fmt: skip
DEALT = CONTROL | {
    "kind": "permuted pairs", "decides": False, "p": 0.3, "effective_dimensions": None,
}  # fmt: skip
CALIBRATION = {
    "doubts": [],
    "count_rule_passes": True,
    "best_count": 4,
    "mean_rank": 91.3,
    "percentile": 98.5,
    "min_percentile": 95.0,
    "rank_rule_passes": True,
    "null": {
        "anchors": 500,
        "wanted": 500,
        "eligible": 812,
        "rate_difference": 0.0002,
        "norm_difference": 0.01,
        "density_difference": 0.003,
        "median_mean_rank": 49.0,
        "at_least_as_high": 6,
    },
    "maximum": {
        "count": 4,
        "percentile": 91.2,
        "median_count": 1.0,
        "max_count": 5,
        "at_least_as_many": 43,
    },
    "control": {**CONTROL, "controls": [CONTROL, DEALT]},
    "stability": {
        "share": 0.93,
        "min_share": 0.8,
        "resamples": 200,
        "outcome": "stands out",
        "outcomes": {"passes": 14, "stands out": 186},
    },
}


@dataclass(frozen=True)
class Sizes:
    prompts: int = 20
    d_model: int = 6
    coarse: int = 16
    fine: int = 64
    openings: int = 3


def save_sparse(activations: np.ndarray, path: Path) -> None:
    """Write [prompts, latents] as ``activations.safetensors`` holds it, row after row."""
    row, column = np.nonzero(activations)
    counts = np.bincount(row, minlength=len(activations))
    tensors = {
        "indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "indices": column.astype(np.int32),
        "values": activations[row, column].astype(np.float32),
        "shape": np.array(activations.shape, dtype=np.int64),
    }
    save_file(tensors, path)


class Payloads:
    """The numbers behind all artifacts: planted concept latents 0 to 2, fine latents near them."""

    def __init__(self, sizes: Sizes, spec: dict[str, Any]) -> None:
        rng = np.random.default_rng(0)
        self.sizes, self.spec, self.rng = sizes, spec, rng
        n = sizes.prompts
        self.target = np.arange(2 * n) < n
        concept = self.target * (2 + rng.random(2 * n))
        self.coarse = self._activations(sizes.coarse, 3, concept)
        self.fine = self._activations(sizes.fine, 12, concept)
        self.fine[:, 3] = 0
        self.cosines = rng.normal(0, 0.06, (sizes.coarse, sizes.fine))
        for fine in range(12):
            self.cosines[fine % 3, fine] = 0.85 - 0.05 * fine
        self.features = {
            "coarse": features(self.coarse, self.target),
            "fine": features(self.fine, self.target),
        }
        columns = {name: list(values) for name, values in self.features["coarse"].items()}
        self.candidates = Selection().candidates(columns)
        fine_columns = {name: list(values) for name, values in self.features["fine"].items()}
        self.fine_candidates = Selection().candidates(fine_columns)

    def _activations(self, latents: int, planted: int, concept: np.ndarray) -> np.ndarray:
        rows = len(concept)
        noise = self.rng.random((rows, latents)) * (self.rng.random((rows, latents)) < 0.3)
        for latent in range(planted):
            kept = self.rng.random(rows) < 0.9 - 0.05 * latent
            noise[:, latent] = concept * kept + 0.02 * (self.rng.random(rows) < 0.05)
        return noise.astype(np.float32)

    def write(self, stage: str, out: Path) -> dict[str, Any]:
        name = "decomposition" if stage in ("coarse", "fine") else stage
        return getattr(self, f"_{name}")(stage, out)

    def _capture(self, _: str, out: Path) -> dict[str, Any]:
        rows = len(self.target)
        residual = self.rng.normal(size=(rows, self.sizes.d_model)).astype(np.float32)
        index = np.arange(rows, dtype=np.int32)
        tensors = {"residual": residual, "prompt_index": index, "position": index * 0 + 5}
        save_file(tensors, out / "residual.safetensors")
        save_file({"mean": residual.mean(axis=0)}, out / "mean.safetensors")
        conditions = ["target" if t else "neutral" for t in self.target]
        texts = [t for c in ("target", "neutral") for t in self.spec["prompts"][c]["texts"]]
        self.prompts = {
            "prompt_id": [f"{c}-{n:04d}" for n, c in enumerate(conditions)],
            "text": texts,
            "condition": conditions,
            "n_tokens": [6] * rows,
            "last_token": ["is"] * rows,
        }
        table(out, CAPTURED_PROMPTS, **self.prompts)
        norms = {
            "median_norm": 13721.5,
            "median_centred_norm": 4810.25,
            "mean_norm": 13700.0,
            "n_tokens": 6 * rows,
            "population": "all tokens of both sets without BOS",
        }
        document(out / "norms.json", norms)
        return {
            "prompts": rows,
            "tokens": 6 * rows,
            "d_model": self.sizes.d_model,
            "median_norm": 13721.5,
            "median_centred_norm": 4810.25,
        }

    def _decomposition(self, side: str, out: Path) -> dict[str, Any]:
        table(out, FEATURES, **self.features[side])
        table(out, PROMPTS, **self.prompts, split=["discover"] * len(self.target))
        activations = getattr(self, side)
        save_sparse(activations, out / "activations.safetensors")
        alive = int((activations > 0).any(axis=0).sum())
        return {
            "l0": 9.5,
            "fvu": None if side == "fine" else 0.24,
            "cosine": 0.93,
            # the fine side was made before this was counted
            **({"active": 400, "near_edge": 3} if side == "coarse" else {}),
            "alive": alive,
            "dead": activations.shape[1] - alive,
            "d_sae": activations.shape[1],
            "rows": len(activations),
            "population": f"{len(activations)} last tokens",
        }

    def _mapping(self, _: str, out: Path) -> dict[str, Any]:
        pairs = self._pairs()
        table(out, PAIRS, **pairs)
        table(out, COSINE_HISTOGRAM, **self._histogram())
        above = (self.cosines >= 0.3).sum(axis=1)
        strict = np.minimum(above, 2)
        fires = (self.coarse > 0).any(axis=0)
        table(
            out,
            COARSE_SUMMARY,
            coarse=np.arange(len(above)),
            fires=fires,
            children_cosine_rule=above,
            children_strict_rule=strict,
            passes_cosine_rule=above >= 3,
            passes_strict_rule=strict >= 3,
        )
        shares = {"n_all": len(above), "n_firing": int(fires.sum())}
        passing = int((above >= 3).sum())
        gate = {
            "verdict": "GO",
            "rule": "cosine",
            "minSubfeatures": 3,
            "anchors": [self._anchor(c) for c in self.candidates],
            **shares,
            "passing_all": passing,
            "passing_firing": passing,
            "share_of_all": passing / len(above),
            "share_of_firing": passing / max(1, int(fires.sum())),
            "other_rule": {
                "rule": "strict",
                **shares,
                "passing_all": 0,
                "passing_firing": 0,
                "share_of_all": 0.0,
                "share_of_firing": 0.0,
            },
            **CALIBRATION,
            "selection": SELECTION_POWER,
            "steered": self.candidates[0],
            "confirmed": None,
            "confirmation": "not confirmed: no test split",
            "readings": dict.fromkeys(READINGS, 4),
            "empty_corner_count": 4,
            "empty_corner": {"count": 4, "of": 8, "share": 0.5, "unobserved": 1},
            "reason": "3 of 3 anchors have at least 3 children by the cosine rule",
        }
        document(out / "gate.json", gate)
        table(
            out,
            GATE_DRAWS,
            source=["matched anchors", "random dictionary", *["resample"] * 200],
            draw=[0, 0, *range(200)],
            best_count=[1, 0, *[4] * 200],
            mean_rank=[48.0, np.nan, *[91.0] * 200],
            percentile=[np.nan, np.nan, *[80.0] * 14, *[99.0] * 186],
        )
        if self.spec["gate"].get("sensitivity"):
            self._gate_settings(out)
        save_file(unit_vectors(self.sizes.d_model), out / "directions.safetensors")
        arms = {name: f"the {name} direction" for name in ("coarse", "fine", "multi")}
        directions = {"anchor": self.candidates[0], "children": [0], "arms": arms, "missing": {}}
        document(out / "directions.json", directions)
        found = list(pairs["reading"])
        return {
            "verdict": "GO",
            "anchors": len(self.candidates),
            "children": 4,
            "mean_rank": 91.3,
            "percentile": 98.5,
            "maximum_percentile": 91.2,
            "null_anchors": 500,
            "control_p": 0.01,
            "stability": 0.93,
            "confirmed": None,
            "confirmation": "not confirmed: no test split",
            "share_of_all": gate["share_of_all"],
            "share_of_firing": gate["share_of_firing"],
            "readings": {name: found.count(name) for name in READINGS},
            "arms": ["coarse", "fine", "multi"],
            "anchor": self.candidates[0],
            "anchor_rank": 97.1,
            "reason": gate["reason"],
        }

    def _gate_settings(self, out: Path) -> None:
        """Higher cosines have fewer children, and without a test another candidate is first."""
        rows: list[dict[str, Any]] = []
        for cosine in (0.3, 0.6, 0.7, 0.8):
            for q in (0.05, 1.0):
                candidates = self.candidates[:: 1 if q < 1 else -1]
                children = [np.flatnonzero(self.cosines[c] >= cosine).tolist() for c in candidates]
                most = max(map(len, children))
                rows.append(
                    {
                        "min_cosine": cosine, "min_correlation": 0.2, "max_q": q,
                        "candidates": candidates, "children_of": [len(c) for c in children],
                        "children": [one for c in children for one in c], "best_count": most,
                        "mean_rank": 91.3, "percentile": 98.5 if cosine < 0.8 else 60.0,
                        "null_anchors": 500, "control_p": 0.01, "needed": 1,
                        "half_counts": [most] * 200, "half_passes": [0] * 14 + [1] * 186,
                        "half_powerless": [0] * 200,
                    }
                )  # fmt: skip
        table(out, GATE_SETTINGS, **{name: [row[name] for row in rows] for name in rows[0]})

    def _evidence(self, _: str, out: Path) -> dict[str, Any]:
        """Each prompt's words are its tokens; a latent fires on the last, half as much before."""
        anchors = [self._anchor(coarse) for coarse in self.candidates]
        shown = [
            *shown_latents(anchors, self.fine_candidates)[:LATENTS_MAX],
            ShownLatent("coarse", self.control, "control", self.candidates[0]),
        ]
        latents, chosen, firings, nearest, lens = [], [], [], [], []
        ids, texts = self.prompts["prompt_id"], self.prompts["text"]
        words = {name: re.findall(r"\s*\S+", text) for name, text in zip(ids, texts, strict=True)}
        for one in shown:
            key = (one.side, one.latent)
            latents.append((*key, one.role, -1 if one.anchor is None else one.anchor))
            found = getattr(self, one.side)[:, one.latent]
            top = [int(p) for p in np.argsort(-found, kind="stable")[:4] if found[p] > 0]
            random = [p for p in drawn_order(texts) if p not in top][:2]
            for why, numbers in (("top", top), ("random", random)):
                for rank, p in enumerate(numbers):
                    chosen.append((*key, ids[p], why, rank, found[p]))
                    last = len(words[ids[p]])
                    for place, part in ((last - 1, 0.5), (last, 1.0)):
                        if found[p] > 0 and place > 0:
                            firings.append((*key, ids[p], place, found[p] * np.float32(part)))
            nearest.append((*key, (one.latent + 1) % 16, 0.5))
            for direction, sign in (("up", 1), ("down", -1)):
                for rank in range(3):
                    token = HOSTILE if rank == 1 else f" {direction}{rank}"
                    lens.append((*key, direction, rank, token, sign * (3.0 - rank)))
        tokens = [
            (name, place, word, place == len(words[name]))
            for name in sorted({row[2] for row in chosen})
            for place, word in enumerate(words[name], start=1)
        ]
        fines = sorted({*self._pairs()["fine"], *(o.latent for o in shown if o.side == "fine")})
        cosines = [
            (one.latent, int(fine), self.cosines[one.latent, fine])
            for one in shown
            if one.side == "coarse"
            for fine in fines
        ]
        for declared, rows in (
            (SHOWN_LATENTS, latents), (SHOWN_PROMPTS, chosen), (TOKENS, tokens),
            (FIRINGS, firings), (NEAREST, nearest), (COSINES, cosines), (LENS, lens),
        ):  # fmt: skip
            columns = zip(*rows, strict=True)
            names = [column.name for column in declared.columns]
            table(out, declared, **dict(zip(names, map(list, columns), strict=True)))
        return {"latents": len(shown), "prompts": 9, "tokens": 40, "firings": len(firings),
                "largest_difference": 1e-6, "lens": None}  # fmt: skip

    @property
    def control(self) -> int:
        """A coarse latent that is no candidate."""
        return next(n for n in range(self.sizes.coarse) if n not in self.candidates)

    def _anchor(self, coarse: int) -> dict[str, Any]:
        children = [int(f) for f in np.argsort(-self.cosines[coarse]) if self.above(coarse, f)]
        return {
            "coarse": coarse,
            "selectivity": float(self.features["coarse"]["selectivity"][coarse]),
            "firing_rate_target": float(self.features["coarse"]["firing_rate_target"][coarse]),
            "children": children,
            "cosines": [float(self.cosines[coarse, f]) for f in children],
            "passes": len(children) >= 3,
            "expected": 1.4,
            "rank": 97.1,
            "steered": coarse == self.candidates[0],
            "confirmed": None,
            "caution": None,
        }

    def above(self, coarse: int, fine: int) -> bool:
        return bool(self.cosines[coarse, fine] >= 0.3)

    def _pairs(self) -> dict[str, Any]:
        rows = []
        for coarse in self.candidates:
            for fine in np.argsort(-self.cosines[coarse])[:10]:
                cosine = self.cosines[coarse, fine]
                r = correlation(self.coarse[:, coarse], self.fine[:, fine])
                within = correlation(self.coarse[self.target, coarse], self.fine[self.target, fine])
                rows.append(
                    {
                        "coarse": coarse,
                        "fine": int(fine),
                        "cosine": np.float32(cosine),
                        "correlation": r,
                        "correlation_within_target": within,
                        "correlation_within_condition": within,
                        "p_permutation": 0.001,
                        "p_search": 0.01,
                        "p_smallest": 0.004,
                        "p_same_cosine": 0.25,
                        "same_cosine_pairs": 500,
                        "edge": "not independent",
                        "proposed_by": "cosine",
                        "q_permutation": 0.002,
                        "aggregation": "last",
                        "reading": reading(cosine, r),
                        "coverage_coarse_given_fine": 0.9,
                        "coverage_fine_given_coarse": 0.8,
                        "child": self.above(coarse, fine),
                    }
                )
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _histogram(self) -> dict[str, Any]:
        edges = np.linspace(-1, 1, 101)
        counts = [np.histogram(self.cosines[c], edges)[0] for c in self.candidates]
        return {
            "coarse": np.repeat(self.candidates, 100),
            "bin_low": np.tile(edges[:-1], len(counts)),
            "bin_high": np.tile(edges[1:], len(counts)),
            "count": np.concatenate(counts),
        }

    def _steering(self, _: str, out: Path) -> dict[str, Any]:
        rows, openings = [], self.sizes.openings
        strengths = self.spec["steering"]["strengths"]
        cells = [("none", 0.0)]
        names = ("coarse", "fine", "multi", "random-0", "random-1", "random-2")
        cells += [(arm, s) for arm in names for s in strengths]
        for opening in range(openings):
            for arm, strength in cells:
                pull = {"coarse": 0.5, "fine": 0.8, "multi": 0.7}.get(arm, 0.0) * strength
                french = (opening * 0.37 + 0.05) % 1 < pull
                words = f" Paris and {HOSTILE}" if french else " a quiet town by the sea"
                rows.append((f"opening-{opening:04d}", arm, strength, 0, words, [1, 2, 3], french))
        key = {
            "prompt_id": [r[0] for r in rows],
            "arm": [r[1] for r in rows],
            "strength": [r[2] for r in rows],
            "sample": [r[3] for r in rows],
        }
        self.texts = [row[:5] for row in rows]
        table(out, SAMPLES, **key, text=[r[4] for r in rows], tokens=[r[5] for r in rows])
        concept = np.asarray([float(r[6]) for r in rows])
        kl = np.asarray([disturbance(r[1], r[2]) for r in rows])
        table(
            out,
            SCORES,
            **key,
            concept=concept,
            perplexity=7 + kl,
            kl=kl,
        )
        table(out, ARMS, **self._arms(cells, rows))
        table(out, DISTRIBUTION_SHIFT, **self._shifts(cells, openings))
        verdict = {
            "verdict": "Inconclusive",
            "contrast": "multi-fine",
            "estimate": -0.05,
            "low": -0.25,
            "high": 0.15,
            "n": openings,
            "assay": ASSAY,
            "anchor": {"latent": 3, "children": 2},
            "budget": BUDGET,
            "system_prompt": SYSTEM_PROMPT,
            "intact": [{**EFFECT, "contrast": "multi-coarse", "p_two_sided": 0.00004}],
            "arm_cosines": {"coarse~fine": 0.81, "coarse~multi": 0.95, "fine~multi": 0.95},
            "contrasts": [
                {"contrast": "multi-coarse", "estimate": 0.1, "low": -0.1, "high": 0.3, "sd": 0.2},
                {"contrast": "multi-fine", "estimate": -0.05, "low": -0.25, "high": 0.15},
            ],
            "secondary": [
                {
                    "outcome": "log_perplexity",
                    "contrast": "multi-fine",
                    "estimate": 0.02,
                    "low": -0.1,
                    "high": 0.12,
                    "p_two_sided": 0.45,
                    "p_holm": 0.9,
                }
            ],
            "n_needed": 126,
            "min_difference": 0.15,
            "reason": "the intervals allow both answers; about 126 openings would detect 0.15",
        }
        document(out / "verdict.json", verdict)
        return {k: verdict[k] for k in METRICS}

    def _trace(self, _: str, out: Path) -> dict[str, Any]:
        from tests.unit.reports_trace import write_trace

        return write_trace(self, self.texts, out)

    def _splitting(self, _: str, out: Path) -> dict[str, Any]:
        from tests.unit.reports_splitting import write_splitting

        return write_splitting(out)

    def _ablation(self, _: str, out: Path) -> dict[str, Any]:
        from tests.unit.reports_ablation import write_ablation

        return write_ablation(out)

    def _drift(self, _: str, out: Path) -> dict[str, Any]:
        from tests.unit.reports_drift import write_drift

        return write_drift(self.sizes.openings, out)

    def _shifts(self, cells: list[tuple[str, float]], openings: int) -> dict[str, Any]:
        rows = [
            {
                "prompt_id": f"opening-{opening:04d}",
                "arm": arm,
                "strength": strength,
                "token": rank,
                "text": HOSTILE if rank == 1 else f" word{rank}",
                "probability_before": 0.01,
                "rank_before": 12 - rank,
                "probability_after": 0.5 / rank,
                "rank_after": rank,
                "new_arrival": rank == 1,
            }
            for opening in range(openings)
            for arm, strength in cells
            if arm != "none"
            for rank in range(1, 12)
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _arms(self, cells: list[tuple[str, float]], rows: list[Any]) -> dict[str, Any]:
        rates = [np.mean([r[6] for r in rows if (r[1], r[2]) == cell]) for cell in cells]
        kl = [disturbance(arm, s) for arm, s in cells]
        return {
            "arm": [arm for arm, _ in cells],
            "strength": [s for _, s in cells],
            "n": [self.sizes.openings] * len(cells),
            "probe": [0.5] * len(cells),
            "intact": [0.75] * len(cells),
            "targetedness": [0.25] * len(cells),
            "norm": [100.0 * strength for _, strength in cells],
            "generated_tokens": [1_240] * len(cells),
            "steered_tokens": [0 if arm == "none" else 1_200 for arm, _ in cells],
            "steered_opening_tokens": [0 if arm == "none" else 90 for arm, _ in cells],
            "concept_rate": np.asarray(rates, dtype=float),
            "concept_low": [max(0.0, r - 0.2) for r in rates],
            "concept_high": [min(1.0, r + 0.2) for r in rates],
            "median_perplexity": [7 + value for value in kl],
            "kl": kl,
        }


def unit_vectors(width: int) -> dict[str, np.ndarray]:
    """Return the directions of the arms: coarse and fine have the cosine 0.6."""
    first, second = np.eye(width, dtype=np.float32)[:2]
    fine = np.float32(0.6) * first + np.float32(0.8) * second
    both = first + fine
    return {"coarse": first, "fine": fine, "multi": both / np.linalg.norm(both)}


FILLERS = {"text": "", "bool": False, "float64": math.nan}


def table(out: Path, declared: Table, **columns: Any) -> None:
    """Write a table as it is declared; columns that are not given say nothing."""
    rows = len(next(iter(columns.values())))
    wanted = [column for column in declared.columns if column.name in columns or not column.where]
    assert columns.keys() <= {column.name for column in wanted}
    given = {c.name: columns.get(c.name, [FILLERS.get(c.type)] * rows) for c in wanted}
    found = {c.name: pa.array(given[c.name], ARROW_TYPES[c.type]) for c in wanted}
    write_table(out, declared, found)


def document(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True, indent=1))

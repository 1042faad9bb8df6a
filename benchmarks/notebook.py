"""An experiment as a competent user writes it in a notebook, checked and timed beside a run.

Plain Hugging Face with a forward hook, SAELens to encode, the full matrix of cosines, ``generate``
in batches with a hook for each arm, the same scores. It leaves out what the product does beside
that: calibration, gate, controls, budgets (it takes the norms that a run found), replay and probe.
Run with ``.venv/bin/python benchmarks/notebook.py --state DIR``, on a run of examples/france.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

import loopscope
from loopscope.inputs.files import default_cache
from loopscope.numerics.statistics.sampling import (
    SamplingRule,
    choose_tokens,
    random_direction,
    uniforms,
)
from loopscope.specs.lexicon import lexicon_pattern, mentions
from loopscope.worker.runner import torch_threads

ROOT = Path(__file__).parents[1]
PROMPTS_PER_BATCH = 32
ROWS_PER_BATCH = 80


@dataclass
class Times:
    """Wall and processor seconds of each step, in order."""

    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Add what happens inside to a step."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.wall[step] = self.wall.get(step, 0.0) + time.perf_counter() - wall
        self.processor[step] = self.processor.get(step, 0.0) + time.process_time() - processor


@dataclass(frozen=True)
class Notebook:
    """A loaded model with its tokenizer and the block whose output is read and changed."""

    model: Any
    tokenizer: Any
    block: Any

    @staticmethod
    def open(folder: Path, hook: str) -> Notebook:
        """Load from a Hugging Face folder."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        tokenizer.pad_token_id = tokenizer.pad_token_id or tokenizer.bos_token_id
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
        number = int(re.findall(r"blocks\.(\d+)\.hook_resid_post", hook)[0])
        return Notebook(model, tokenizer, model.model.layers[number])

    def tokens(self, texts: list[str], side: str) -> dict[str, Tensor]:
        """Return padded tokens, one BOS in front."""
        self.tokenizer.padding_side = side
        beginning = self.tokenizer.bos_token
        made = self.tokenizer(
            [beginning + text for text in texts],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        )
        return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}

    @contextmanager
    def hooked(self, function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Call ``function`` with the block's output; what it returns takes the output's place."""

        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            alone = isinstance(output, Tensor)
            changed = function(output if alone else output[0])
            if changed is None:
                return None
            return changed if alone else (changed, *output[1:])

        handle = self.block.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def last_residuals(self, texts: list[str]) -> Tensor:
        """Return the residual of each text's last token, float32 [texts, d_model]."""
        rows = []
        for start in range(0, len(texts), PROMPTS_PER_BATCH):
            batch = self.tokens(texts[start : start + PROMPTS_PER_BATCH], "right")
            seen: list[Tensor] = []
            with self.hooked(seen.append):
                self.model.model(**batch)  # the body: nobody needs 262,144 logits here
            last = batch["attention_mask"].sum(dim=1) - 1
            rows.append(seen[0][torch.arange(len(last)), last])
        return torch.cat(rows)

    def steered(
        self, openings: list[str], vector: Tensor, steps: int, chosen: Any = None
    ) -> list[list[int]]:
        """Return generated tokens with a vector added to every token but BOS.

        ``chosen`` is a logits processor that leaves one token, or None to sample as ``generate``
        does.
        """
        batch = self.tokens(openings, "left")
        begins = batch["attention_mask"].cumsum(dim=1) > 1

        def add(hidden: Tensor) -> Tensor:
            first = hidden.shape[1] == begins.shape[1]
            where = begins if first else torch.ones(hidden.shape[:2], dtype=torch.bool)
            return hidden + vector * where[:, :, None]

        with self.hooked(add):
            made = self.model.generate(
                **batch,
                max_new_tokens=steps,
                do_sample=chosen is None,
                temperature=0.8 if chosen is None else None,
                top_k=50 if chosen is None else None,
                top_p=None,
                logits_processor=None if chosen is None else [chosen],
                pad_token_id=self.tokenizer.pad_token_id,
            )
        width = batch["input_ids"].shape[1]
        ends = set(np.atleast_1d(self.model.generation_config.eos_token_id).tolist())
        return [_until(row[width:].tolist(), ends) for row in made]

    def perplexities(self, openings: list[str], generated: list[list[int]]) -> list[float]:
        """Return exp of the mean −log p of each row's generated tokens, NaN for none."""
        found = []
        for opening, tokens in zip(openings, generated, strict=True):
            before = self.tokens([opening], "right")["input_ids"][0].tolist()
            if not tokens:
                found.append(float("nan"))
                continue
            logits = self.model(torch.tensor([before + tokens])).logits[0, len(before) - 1 : -1]
            wanted = torch.tensor(tokens)[:, None]
            found.append(float(torch.exp(-logits.log_softmax(-1).gather(1, wanted).mean())))
        return found


class Drawn:
    """A logits processor that takes the run's own draws, so that texts can be compared."""

    def __init__(self, identifiers: list[str], seed: int, steps: int) -> None:
        draws = np.stack([uniforms(seed, one, 0, steps) for one in identifiers])
        self._draws, self._step = torch.from_numpy(draws), 0

    def __call__(self, _tokens: Tensor, logits: Tensor) -> Tensor:
        """Return logits that leave the drawn token alone."""
        rule = SamplingRule(temperature=0.8, top_k=50)
        chosen = choose_tokens(logits, self._draws[:, self._step], rule)
        self._step += 1
        return torch.full_like(logits, -torch.inf).scatter(1, chosen[:, None], 0.0)


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]


def encoded(folder: Path, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return SAELens' activations [rows, latents] and the decoder [latents, d_model]."""
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder, device="cpu")
    return sae.encode(rows), sae.W_dec.data


def statistics(target: Tensor, neutral: Tensor) -> dict[str, NDArray[np.float64]]:
    """Return selectivity, firing rates and Mann-Whitney p of every latent."""
    above, below = target.double().numpy(), neutral.double().numpy()
    means = above.mean(axis=0), below.mean(axis=0)
    return {
        "selectivity": (means[0] - means[1]) / (means[0] + means[1] + 1e-9),
        "firing_rate_target": (above > 0).mean(axis=0),
        "firing_rate_neutral": (below > 0).mean(axis=0),
        "p_value": scipy.stats.mannwhitneyu(above, below, axis=0).pvalue,
    }


def unit(rows: Tensor) -> Tensor:
    """Return rows of length 1."""
    return rows / rows.norm(dim=-1, keepdim=True)


def compared(run: Any, notebook: Notebook, openings_max: int, check: int, times: Times) -> Any:
    """Do the experiment; return the largest differences to what the run has."""
    spec, prompts = run.spec, run.prompts()
    capture = run.artifacts["capture"].folder
    with times.of("capture"):
        rows = notebook.last_residuals(prompts["text"].tolist())
    ours = load_file(capture / "residual.safetensors")["residual"]
    differences = {"residual": float((rows - ours).norm(dim=1).max() / ours.norm(dim=1).median())}
    discover = (prompts["split"] == "discover").to_numpy()
    masks = [
        torch.from_numpy(discover & (prompts["condition"] == condition).to_numpy())
        for condition in ("target", "neutral")
    ]
    decoders, columns = {}, {}
    for side in ("coarse", "fine"):
        folder = ROOT / "examples/dictionaries" / side
        with times.of("encode"):
            activations, decoders[side] = encoded(folder, rows)
        with times.of("statistics"):
            table = statistics(*(activations[mask] for mask in masks))
        found = run.features(side)
        for name in ("selectivity", "firing_rate_target"):
            gap = np.abs(table[name] - found[name].to_numpy()).max()
            differences[f"{side} {name}"] = float(gap)
        columns[side] = activations[masks[0] | masks[1]]
    with times.of("mapping"):
        cosines = unit(decoders["coarse"]) @ unit(decoders["fine"]).T
        centred = [unit((each - each.mean(dim=0)).T).nan_to_num() for each in columns.values()]
        correlations = centred[0] @ centred[1].T
    pairs = run.pairs()
    places = tuple(pairs[side].to_numpy(copy=True) for side in ("coarse", "fine"))
    differences["cosine"] = float(np.abs(cosines[places].numpy() - pairs["cosine"]).max())
    known = pairs["correlation"].notna().to_numpy()
    gap = np.abs(correlations[places].double().numpy() - pairs["correlation"].to_numpy())
    differences["correlation"] = float(gap[known].max())
    chosen = run.document("directions.json")
    vectors = _vectors(chosen, decoders)
    steering = spec["steering"]
    openings = [one["text"] if isinstance(one, dict) else one for one in _openings(run)]
    openings = openings[: openings_max or len(openings)]
    differences |= _steer(run, notebook, steering, openings, vectors, check, times)
    return differences


def _openings(run: Any) -> list[str]:
    lines = (ROOT / "examples/france/prompts/openings.txt").read_text().splitlines()
    wanted = run.samples()["prompt_id"].nunique()
    return [line.rstrip() for line in lines if line.strip()][:wanted]


def _vectors(chosen: dict[str, Any], decoders: dict[str, Tensor]) -> dict[str, Tensor]:
    coarse = unit(decoders["coarse"][chosen["anchor"]].double())
    made = {"none": torch.zeros_like(coarse), "coarse": coarse}
    if chosen["children"]:
        made["fine"] = unit(unit(decoders["fine"][chosen["children"]].double()).sum(dim=0))
        made["multi"] = unit(made["coarse"] + made["fine"])
    return {name: vector.float() for name, vector in made.items()}


def _steer(
    run: Any,
    notebook: Notebook,
    steering: Any,
    openings: list[str],
    vectors: dict[str, Tensor],
    check: int,
    times: Times,
) -> dict[str, float]:
    arms = run.arms()
    for draw in range(steering["randomDraws"]):
        vectors[f"random-{draw}"] = random_direction(0, draw, len(vectors["none"]))
    steps, scores, samples = steering["maxNewTokens"], run.scores(), run.samples()
    lexicon = (ROOT / "examples/france/prompts/france-words.txt").read_text().splitlines()
    pattern = lexicon_pattern(lexicon)
    texts_same, texts_all, perplexity = 0, 0, 0.0
    for arm in arms.itertuples():
        if arm.arm not in vectors:
            continue
        vector = float(arm.norm) * vectors[arm.arm]
        for start in range(0, len(openings), ROWS_PER_BATCH):
            batch = openings[start : start + ROWS_PER_BATCH]
            with times.of("generate"):
                made = notebook.steered(batch, vector, steps)
            with times.of("score"):
                notebook.perplexities(batch, made)
                for opening, tokens in zip(batch, made, strict=True):
                    mentions(pattern, notebook.tokenizer.decode(tokens), opening)
        if check:
            names = [f"opening-{number:04d}" for number in range(check)]
            chosen = Drawn(names, steering["sampling"]["seed"], steps)
            own = notebook.steered(openings[:check], vector, steps, chosen)
            here = (samples["arm"] == arm.arm) & (samples["strength"] == arm.strength)
            theirs = samples[here].set_index("prompt_id")["tokens"]
            measured = scores[here.to_numpy()].set_index("prompt_id")["perplexity"]
            same = [list(theirs[name]) == tokens for name, tokens in zip(names, own, strict=True)]
            texts_same, texts_all = texts_same + sum(same), texts_all + check
            again = notebook.perplexities(openings[:check], [list(theirs[n]) for n in names])
            gaps = [abs(a - measured[n]) / a for a, n in zip(again, names, strict=True)]
            perplexity = max([perplexity, *(gap for gap in gaps if np.isfinite(gap))])
    return {
        "texts that differ, share": 1 - texts_same / texts_all if texts_all else float("nan"),
        "perplexity, relative": perplexity,
    }


def main() -> None:
    """Print the differences to a run, and what each step took beside it, as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--experiment", default="france")
    parser.add_argument("--openings", type=int, default=0, help="as many only; 0: all")
    parser.add_argument("--check", type=int, default=2, help="openings whose texts are compared")
    arguments = parser.parse_args()
    torch.set_num_threads(torch_threads())
    torch.set_grad_enabled(False)
    run = loopscope.open(arguments.state).experiments[arguments.experiment]
    inputs = run.artifacts["capture"].manifest["inputs"]
    times = Times()
    with times.of("load"):
        folder = default_cache() / "loopscope/models" / inputs["model"]["identity"]
        notebook = Notebook.open(folder, inputs["hook"])
    differences = compared(run, notebook, arguments.openings, arguments.check, times)
    stages = {name: one.manifest["seconds"] for name, one in run.artifacts.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {
        "differences": differences,
        "wall": {name: round(seconds, 2) for name, seconds in times.wall.items()},
        "processor": {name: round(seconds, 2) for name, seconds in times.processor.items()},
        "run": stages,
        "peak GiB": round(peak, 2),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

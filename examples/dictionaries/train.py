"""Train the two embedded dictionaries of a model: TopK SAEs on its residual stream.

    python train.py all --work WORKDIR              # everything; up to an hour on two busy cores

    python train.py capture --work WORKDIR          # or step by step
    python train.py train --only coarse --work WORKDIR
    python train.py train --only fine --work WORKDIR
    python train.py evaluate --work WORKDIR

    python train.py all --matryoshka --work WORKDIR  # one of prefixes 256, 1,024, 4,096
    python train.py all --seed 1 2 3 --work WORKDIR  # three more pairs, of other seeds

``--subject gemma`` (the default) or ``smollm2``; of a chat model ``answers`` comes first: its own
answers, kept in the repository. WORKDIR, one for each subject, caches the wheels, the converted
model and the residuals (about 2.5 GB). The results go to ``coarse/`` and ``fine/`` beside this
file (SmolLM2's below ``smollm2/``; a Matryoshka one to ``WORKDIR/matryoshka/``, with numbers of
each prefix in its ``training.json``; pairs of other seeds to ``WORKDIR/pairs/1/`` and so on, and a
pair that is there is not trained again), Gemma's calibration text to Loopscope's packaged text.
``--tokens`` trains on fewer, for a trial; such a WORKDIR is one of its own. Needs
``sae-lens``, ``transformers``, ``gguf`` and the package of the model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import answers
import capture
import corpus
import evaluate
import numpy as np
import torch
from capture import Rows
from safetensors.torch import load_file, save_file
from subjects import SUBJECTS, Subject

HELDOUT_DOCUMENTS = 160
CALIBRATION_LINES = 120


@dataclass(frozen=True)
class Recipe:
    """Everything that decides one dictionary."""

    d_sae: int
    seed: int
    k: int = 32
    epochs: int = 3
    batch: int = 512  # tokens
    lr: float = 8e-4
    warmup_share: float = 0.02  # of all steps
    decay_share: float = 0.3
    dead_after: int = 120  # steps without firing before the auxiliary loss helps a latent
    aux_coefficient: float = 1.0
    decoder_init_norm: float = 0.1


@dataclass(frozen=True)
class Matryoshka(Recipe):
    """The same for a dictionary whose first latents are dictionaries as well, at these widths."""

    widths: tuple[int, ...] = (256, 1024, 4096)


MATRYOSHKA = Matryoshka(d_sae=4096, seed=3)
RECIPES = {"coarse": Recipe(d_sae=1024, seed=1), "fine": Recipe(d_sae=4096, seed=2)}
"""Those of the shipped pair, which is pair 0."""


def recipes(pair: int) -> dict[str, Recipe]:
    """The recipes of another pair: the same but for the seeds, which no two pairs share."""
    return {name: replace(one, seed=10 * pair + one.seed) for name, one in RECIPES.items()}


def chats(subject: Subject, tokenizer: Any) -> tuple[list[corpus.Sequence], list[corpus.Sequence]]:
    """The model's own answers to train on, and those held out; none without a file of answers."""
    if subject.answers is None:
        return [], []
    drawn = [
        corpus.chat(one["question"], one["answer"], tokenizer)
        for one in answers.read(subject.answers)
    ]
    return drawn[: -subject.heldout_answers], drawn[-subject.heldout_answers :]


def run_capture(
    subject: Subject, work: Path, model_folder: Path, processes: int, *, ships: bool
) -> None:
    """Write raw float32 rows to NAME.npy for train, heldout, calibration, and capture.json.

    Of a chat model ``heldout-chat.npy`` as well. ``ships``: the calibration text becomes the one
    that Loopscope packages. Raises SystemExit where ``work`` holds rows of another budget.
    """
    from transformers import AutoTokenizer

    if (work / "capture.json").exists():
        known = json.loads((work / "capture.json").read_text()).get("plain_tokens")
        if known not in (None, subject.plain_tokens):
            raise SystemExit(
                f"{work} holds {known} tokens, not {subject.plain_tokens}: name another"
            )
        return
    tokenizer = AutoTokenizer.from_pretrained(str(model_folder))
    text = corpus.build(
        work, tokenizer, subject.first_token, subject.plain_tokens, HELDOUT_DOCUMENTS,
        CALIBRATION_LINES,
    )  # fmt: skip
    if ships and subject.answers is None:
        evaluate.CALIBRATION.write_text("\n".join(text.calibration) + "\n", encoding="utf-8")
    lines = evaluate.calibration_sequences(tokenizer, subject.first_token)
    asked, held_chats = chats(subject, tokenizer)
    parts = {"calibration": lines, "heldout": text.heldout, "train": [*text.train, *asked]}
    if held_chats:
        parts["heldout-chat"] = held_chats
    started = time.monotonic()
    facts: dict[str, Any] = {
        "tokens_by_package": text.counts, "plain_tokens": subject.plain_tokens
    }  # fmt: skip
    facts["chat"] = {"answers": len(asked), "tokens": sum(one.counted for one in asked)}
    for name, sequences in parts.items():
        rows = capture.residuals_parallel(model_folder, subject.layer, sequences, processes, work)
        kept = capture.keep_rows(rows)
        facts[name] = {
            "sequences": len(sequences), "tokens": len(rows), "dropped": int((~kept).sum())
        }  # fmt: skip
        np.save(work / f"{name}.npy", rows[kept] if name == "train" else rows)
    facts["wall_seconds"] = round(time.monotonic() - started)
    (work / "capture.json").write_text(json.dumps(facts, indent=2))


def shuffled(rows: torch.Tensor, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches [batch, d_model], every row once per epoch, in a new order each time."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=draw)
        for start in range(0, len(rows) - batch + 1, batch):
            yield rows[order[start : start + batch]]


def new_sae(subject: Subject, recipe: Recipe, mean: torch.Tensor, scale: float) -> Any:
    """An untrained SAELens TopK SAE whose decoder bias is the scaled mean residual.

    A Matryoshka one is BatchTopK, and is saved as JumpReLU.
    """
    from fast_topk import FastTopKTrainingSAE
    from sae_lens import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        TopKTrainingSAEConfig,
    )
    from sae_lens.saes.sae import SAEMetadata

    torch.manual_seed(recipe.seed)
    rules: dict[str, Any] = {
        "d_in": len(mean),
        "d_sae": recipe.d_sae,
        "k": recipe.k,
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "decoder_init_norm": recipe.decoder_init_norm,
        "aux_loss_coefficient": recipe.aux_coefficient,
        "metadata": SAEMetadata(
            model_name=subject.model,
            hook_name=subject.hook,
            prepend_bos=True,
            context_size=corpus.MAX_TOKENS + 1,
        ),
    }
    sae: Any
    if isinstance(recipe, Matryoshka):
        widths = list(recipe.widths)
        nested = MatryoshkaBatchTopKTrainingSAEConfig(**rules, matryoshka_widths=widths)
        sae = MatryoshkaBatchTopKTrainingSAE(nested)
    else:
        sae = FastTopKTrainingSAE(TopKTrainingSAEConfig(**rules))
    sae.b_dec.data = mean * scale
    return sae


def fit(subject: Subject, recipe: Recipe, rows: torch.Tensor) -> Any:
    """Train on raw `rows` [tokens, d_model]; the returned SAE takes and returns raw rows.

    Inside the trainer rows are scaled so that a centred row has norm sqrt(d_model) on average;
    `SAETrainer.fit` folds that factor into the weights at its end.
    """
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    mean = rows.double().mean(0).float()
    scale = float(rows.shape[1] ** 0.5 / (rows - mean).norm(dim=1).mean())
    samples = recipe.epochs * len(rows) // recipe.batch * recipe.batch
    steps = samples // recipe.batch
    config = SAETrainerConfig(
        total_training_samples=samples,
        train_batch_size_samples=recipe.batch,
        lr=recipe.lr,
        lr_end=recipe.lr / 10,
        lr_warm_up_steps=round(recipe.warmup_share * steps),
        lr_decay_steps=round(recipe.decay_share * steps),
        dead_feature_window=recipe.dead_after,
        n_batches_for_norm_estimate=1,
        logger=LoggingConfig(log_to_wandb=False),
    )
    sae = new_sae(subject, recipe, mean, scale)
    trainer = SAETrainer(config, sae, shuffled(rows, recipe.batch, recipe.seed))
    trainer.activation_scaler.scaling_factor = scale
    for group in trainer.optimizer.param_groups:
        group.update(fused=True, foreach=False)  # one pass over the weights instead of ten
    return trainer.fit()


def ship(trained: Path, target: Path) -> None:
    """Round the weights in `trained` to float16 and write them as a SAELens folder.

    ``cfg.json`` keeps ``dtype: float32``: the file is float16, the arithmetic is not.
    """
    exact = load_file(trained / "sae_weights.safetensors")
    weights = {name: value.half().contiguous() for name, value in exact.items()}
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise SystemExit(f"{name} does not fit float16")
    target.mkdir(exist_ok=True, parents=True)
    save_file(weights, target / "sae_weights.safetensors")
    config = json.loads((trained / "cfg.json").read_text())
    if "rescale_acts_by_decoder_norm" in config:
        config["rescale_acts_by_decoder_norm"] = False  # rows of W_dec are unit vectors already
    (target / "cfg.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def run_train(subject: Subject, name: str, work: Path, recipe: Recipe, own: Path) -> None:
    """Train dictionary `name` on the rows of `work`, and ship it in float16.

    What training leaves, the weights in float32 among it, goes to `own`, a folder of this pair.
    """
    rows = torch.from_numpy(np.load(work / "train.npy"))
    started = time.monotonic()
    sae = fit(subject, recipe, rows)
    seconds = round(time.monotonic() - started)
    trained = own / f"{name}-float32"
    sae.save_inference_model(trained)
    heldout: Rows = np.load(work / "heldout.npy")
    with torch.no_grad():
        parts = [sae(torch.from_numpy(part)).numpy() for part in evaluate.chunks(heldout)]
    outputs = np.concatenate(parts)
    np.save(own / f"{name}-heldout-outputs.npy", outputs)
    facts = {"recipe": asdict(recipe), "wall_seconds": seconds}
    (own / f"{name}.json").write_text(json.dumps(facts, indent=2))
    ship(trained, subject.target / name)
    print(f"{name}: held-out FVU {evaluate.fvu(heldout, outputs):.4f}, {seconds} s", flush=True)


def prefix_numbers(trained: Path, rows: Rows, widths: tuple[int, ...]) -> dict[str, Any]:
    """L0 and FVU on `rows` of each prefix of a JumpReLU folder, read as Loopscope reads one."""
    parts = load_file(trained / "sae_weights.safetensors")
    config = json.loads((trained / "cfg.json").read_text())
    inputs = torch.from_numpy(rows)
    if config["apply_b_dec_to_input"]:
        inputs = inputs - parts["b_dec"]
    found = {}
    for width in widths:
        pre = inputs @ parts["W_enc"][:, :width] + parts["b_enc"][:width]
        active = pre * (pre > parts["threshold"][:width])
        output = active @ parts["W_dec"][:width] + parts["b_dec"]
        l0 = float((active > 0).sum(1).double().mean())
        found[str(width)] = {
            "l0": round(l0, 4), "fvu": round(evaluate.fvu(rows, output.numpy()), 5)
        }  # fmt: skip
    return found


def run_matryoshka(subject: Subject, work: Path, recipe: Matryoshka = MATRYOSHKA) -> Path:
    """Train the Matryoshka dictionary and ship it under `work`; return its folder."""
    rows = torch.from_numpy(np.load(work / "train.npy"))
    started = time.monotonic()
    sae = fit(subject, recipe, rows)
    seconds = round(time.monotonic() - started)
    trained, target = work / "matryoshka-float32", work / "matryoshka"
    sae.save_inference_model(trained)
    ship(trained, target)
    heldout: Rows = np.load(work / "heldout.npy")
    measured = prefix_numbers(trained, heldout, recipe.widths)
    facts = {"recipe": asdict(recipe), "wall_seconds": seconds, "heldout_by_prefix": measured}
    (target / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(measured, indent=2), flush=True)
    return target


def run_pair(
    subject: Subject, pair: int, work: Path, folder: Path, names: list[str], step: str
) -> None:
    """Train and measure a pair of other seeds than the shipped one, below `work`, once."""
    own = work / "pairs" / str(pair)
    own.mkdir(parents=True, exist_ok=True)
    there = replace(subject, target=own)
    missing = [name for name in names if not (own / name / "training.json").exists()]
    if step in ("all", "train"):
        for name in missing:
            run_train(there, name, work, recipes(pair)[name], own)
    if step in ("all", "evaluate") and missing:
        evaluate.run(there, work, folder, missing, own)
    print(f"pair {pair}: {own}", flush=True)


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    layout = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("step", choices=["all", "answers", "capture", "train", "evaluate"])
    parser.add_argument("--subject", choices=sorted(SUBJECTS), default="gemma")
    parser.add_argument("--work", type=Path, required=True, help="cache folder")
    parser.add_argument("--model", type=Path, help="converted model (default: made under --work)")
    parser.add_argument("--only", choices=sorted(RECIPES), help="train this dictionary only")
    parser.add_argument(
        "--matryoshka", action="store_true", help="train one Matryoshka dictionary in place of both"
    )
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[], help="train pairs of these numbers, from 1 on"
    )
    parser.add_argument("--tokens", type=int, help="plain tokens to train on (default: subject's)")
    parser.add_argument("--processes", type=int, default=2, help="for the capture; one thread each")
    args = parser.parse_args()
    if any(pair < 1 for pair in args.seed):
        parser.error("--seed: expected numbers from 1 on; the shipped pair is 0")
    if args.tokens is not None and not (args.seed or args.matryoshka):
        parser.error("--tokens goes with --seed or --matryoshka: the shipped pair has its budget")
    return args


def main() -> None:
    """Command line."""
    args = arguments()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    subject = SUBJECTS[args.subject]
    if args.tokens is not None:
        subject = replace(subject, plain_tokens=args.tokens)
    folder = args.model or capture.convert_model(subject, args.work / "model")
    names = [args.only] if args.only else list(RECIPES)
    if subject.answers is not None and (args.step == "answers" or not subject.answers.exists()):
        answers.write(folder, args.work, subject.answers)
    if args.step in ("all", "capture"):
        ships = not args.seed and args.tokens is None
        run_capture(subject, args.work, folder, args.processes, ships=ships)
    if args.matryoshka:
        if args.step in ("all", "train"):
            run_matryoshka(subject, args.work)
        return
    for pair in args.seed:
        run_pair(subject, pair, args.work, folder, names, args.step)
    if args.seed:
        return
    if args.step in ("all", "train"):
        for name in names:
            run_train(subject, name, args.work, RECIPES[name], args.work)
    if args.step in ("all", "evaluate"):
        evaluate.run(subject, args.work, folder, names, args.work)


if __name__ == "__main__":
    main()

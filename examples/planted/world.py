"""The planted world: the weights of a toy language model and of dictionaries, from a hierarchy.

Nothing is trained. The residual stream has an axis for the concept (the parent) and one for each of
its children; words of the concept lie along both, the second block speaks of the concept where it
finds both, and decoder rows lie along them as coarse and fine latents should.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grammar
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SEED = 19
WIDTH, LAYERS, NEURONS = 64, 2, 16
HOOK = "blocks.0.hook_resid_post"
CHILDREN = tuple(grammar.CONCEPT)

# The axes of the residual stream before it is turned by a random rotation.
CONSTANT, CLASS, PARENT, CHILD, SAID, DETAIL, VAGUE, FREE = 0, 1, 6, 7, 12, 17, 22, 23

CONSTANT_SIZE, CLASS_SIZE, FEATURE_SIZE = 4.0, 3.0, 5.0
CONTEXT_GAIN = 0.5
"""How much of the mean of all words so far the attention adds to each position."""
RARE = -4.5
"""Logit of a word of the concept, a detail or a vague one, against that of an everyday noun."""
NEVER = 0.002
"""Probability of a class that the grammar does not allow."""

COARSE, FINE, PLANTED = 160, 480, 101
"""Latents of the two dictionaries, and the coarse one that is the parent."""
MIDDLE = 300
"""Latents of the dictionary between the two."""
GROUPS = ((0, 1, 2), (3, 4))
"""The children that each planted latent of the one in between stands for."""
MIDDLE_COSINE, MIDDLE_LEVEL = 0.6, 0.75
"""Decoder cosine of such a latent with the parent; it fires above this share of what its own words
bring, since the parent alone brings more than half of that."""
CHILD_COSINE = 0.55
"""Decoder cosine of a planted child with its parent."""
DECOY_CHILDREN = ((0, 0.15), (1, 0.5), (2, 0.3), (3, 0.05))
"""How many fine children a coarse latent of no concept has, with probability."""
NEIGHBOURS, NEIGHBOUR_COSINE = 12, 0.2
"""Topics that lie near the parent: no latent is alone with its direction."""
NEAR_MISSES = 4
"""Fine latents that lie too far from the parent to be its children."""
APART = 0.45
"""No fine latent is nearer to a coarse one whose child it is not."""
TOPICS_PER_WORD, OWN_SHARE = 3, 0.2
"""Topics of a word, and how much of them a word of the concept has."""
GAIN_MIN = 0.1
"""Least gain of a latent: none is silent by design."""

# What the second block makes of parent (p) and child (c) where a noun is due, in the unit of the
# stream: words of the child by (p - ABOVE) c, words of its detail by SLOPE (c - RATIO p - ABOVE),
# vague words by p - RATIO (sum of all c) - ABOVE; each where positive, times GAIN, in logits.
SAID_ABOVE, SAID_GAIN = 1.5, 2.5
DETAIL_RATIO, DETAIL_ABOVE, DETAIL_GAIN, SLOPE = 0.15, 0.075, 7.0, 4.0
VAGUE_RATIO, VAGUE_ABOVE, VAGUE_GAIN = 1.0, 1.5, 3.0
NOT_DUE = 5.0
"""By how much the readout is held down after a word that no noun follows."""


@dataclass(frozen=True)
class World:
    """Everything before it is written: model weights, dictionaries, and the truth."""

    model: dict[str, Floats]
    coarse: dict[str, Floats]
    fine: dict[str, Floats]
    middle: dict[str, Floats]
    children: list[int]
    groups: dict[int, list[int]]
    """The planted latents of the dictionary in between, each with its fine children."""


def build() -> World:
    """Return the world, the same each time."""
    generator = np.random.default_rng(SEED)
    rotation, _ = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))
    topics = _topics(generator)
    embedding = _embedding(generator, topics)
    rows = _residuals(embedding)
    coarse, fine, place = _decoders(generator, topics)
    middle, planted = _between(generator, topics, coarse)
    groups = {one: sorted(place[child] for child in GROUPS[n]) for n, one in enumerate(planted)}
    return World(
        _model(embedding, rotation),
        _dictionary(coarse, rows, rotation),
        _dictionary(fine, rows, rotation),
        _dictionary(middle, rows, rotation, planted),
        sorted(place),
        groups,
    )


def _topics(generator: np.random.Generator) -> Floats:
    """Return the unit directions of what no planted latent stands for, [topics, width]."""
    found = np.zeros((COARSE - len(grammar.CLASSES) - 1, WIDTH))
    found[:, FREE:] = _spread_out(generator, len(found), WIDTH - FREE)
    found[:NEIGHBOURS] *= np.sqrt(1 - NEIGHBOUR_COSINE**2)
    found[:NEIGHBOURS, PARENT] = NEIGHBOUR_COSINE
    return found


def _spread_out(generator: np.random.Generator, count: int, width: int) -> Floats:
    """Return unit vectors that keep away from one another: random ones, pushed apart."""
    rows = _unit(generator.normal(size=(count, width)))
    for _ in range(200):
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, 0.0)
        rows = _unit(rows - 0.5 * np.sign(cosines) * np.abs(cosines) ** 3 @ rows)
    return rows


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def _embedding(generator: np.random.Generator, topics: Floats) -> Floats:
    """Return [words, width]: a constant, the word's class, and parent and child or topics."""
    class_of = {
        word: place for place, name in enumerate(grammar.WORDS) for word in grammar.WORDS[name]
    }
    child_of = {
        word: place for place, child in enumerate(CHILDREN) for word in grammar.CONCEPT[child]
    }
    found = np.zeros((len(grammar.VOCABULARY), WIDTH))
    found[:, CONSTANT] = CONSTANT_SIZE
    for place, word in enumerate(grammar.VOCABULARY):
        own = generator.choice(len(topics), TOPICS_PER_WORD, replace=False)
        feature = _unit(topics[own].sum(axis=0))
        if word in child_of:
            feature *= OWN_SHARE
            feature[PARENT] = feature[CHILD + child_of[word]] = np.sqrt((1 - OWN_SHARE**2) / 2)
        if word in class_of:
            found[place, CLASS + class_of[word]] = CLASS_SIZE
            found[place] += FEATURE_SIZE * feature
    return found


def _residuals(embedding: Floats) -> Floats:
    """Return the stream at the hook, [tokens, width], of every token of the calibration text."""
    number = {word: place for place, word in enumerate(grammar.VOCABULARY)}
    rows = []
    for line in grammar.texts()["calibration.txt"]:
        x = embedding[[number["<bos>"], *(number[word] for word in line.split())]]
        seen = _remembered() * _normalised(x)
        mean = seen.cumsum(axis=0) / np.arange(1, len(x) + 1)[:, None]
        rows.append((x + CONTEXT_GAIN * mean)[1:])
    return np.concatenate(rows)


def _remembered() -> Floats:
    """Return 1 for the axes that the attention carries on: topics and parent, not the grammar."""
    mask = np.zeros(WIDTH)
    mask[FREE:] = mask[PARENT] = 1.0
    return mask


def _normalised(x: Floats) -> Floats:
    return np.asarray(x / np.sqrt((x**2).mean(axis=-1, keepdims=True)))


def _decoders(generator: np.random.Generator, topics: Floats) -> tuple[Floats, Floats, list[int]]:
    """Return the unit rows of both dictionaries, and the fine row of each child of the parent."""
    axes = np.eye(WIDTH)
    classes = axes[CLASS : CLASS + len(grammar.CLASSES)]
    coarse = np.concatenate([classes, topics])
    coarse = np.insert(coarse, PLANTED, axes[PARENT], axis=0)

    children = _beside(axes[PARENT], axes[CHILD : CHILD + len(CHILDREN)], CHILD_COSINE)
    rows = [*classes, *children]
    counts, weights = zip(*DECOY_CHILDREN, strict=True)
    for topic in topics:
        cosine = generator.uniform(0.55, 0.9)
        for _ in range(int(generator.choice(counts, p=weights))):
            rows.append(_apart(generator, coarse, topic, cosine))
    rows += [_apart(generator, coarse, axes[PARENT], 0.4) for _ in range(NEAR_MISSES)]
    while len(rows) < FINE:
        rows.append(_apart(generator, coarse, axes[PARENT], 0.0))
    order = generator.permutation(FINE)
    place = np.argsort(order)
    planted = [int(place[len(classes) + child]) for child in range(len(CHILDREN))]
    return coarse, np.stack(rows)[order], planted


def _between(
    generator: np.random.Generator, topics: Floats, coarse: Floats
) -> tuple[Floats, list[int]]:
    """Return the unit rows of the dictionary in between, and where its planted latents are."""
    axes = np.eye(WIDTH)
    classes = axes[CLASS : CLASS + len(grammar.CLASSES)]
    shared = np.stack([axes[[CHILD + child for child in group]].sum(axis=0) for group in GROUPS])
    rows = [*classes, *_beside(axes[PARENT], shared, MIDDLE_COSINE)]
    for topic in topics:
        rows.append(_apart(generator, coarse, topic, generator.uniform(0.75, 0.95)))
    while len(rows) < MIDDLE:
        rows.append(_apart(generator, coarse, axes[PARENT], 0.0))
    order = generator.permutation(MIDDLE)
    place = np.argsort(order)
    return np.stack(rows)[order], [int(place[len(classes) + n]) for n in range(len(GROUPS))]


def _beside(row: Floats, away: Floats, cosine: float) -> Floats:
    """Return unit rows at ``cosine`` from ``row``, each tilted towards one of ``away``."""
    tilted = _unit(away - np.outer(away @ row, row))
    return np.asarray(cosine * row + np.sqrt(1 - cosine**2) * tilted)


def _apart(generator: np.random.Generator, coarse: Floats, row: Floats, cosine: float) -> Floats:
    """Return a random unit row at ``cosine`` from ``row`` and nobody else's child."""
    while True:
        away = np.zeros((1, WIDTH))
        away[0, FREE:] = generator.normal(size=WIDTH - FREE)
        (found,) = _beside(row, away, cosine)
        others = coarse @ found
        if others[coarse @ row < 0.999].max() < APART:
            return np.asarray(found)


def _dictionary(
    rows: Floats, residual: Floats, rotation: Floats, choosy: Sequence[int] = ()
) -> dict[str, Floats]:
    """Return a ReLU dictionary with these decoder rows, thresholds taken from the text.

    A latent reads along its own row and fires above the level that separates the token with its
    feature from those without: half of what a feature of that direction brings at most, and more
    for ``choosy`` ones.
    """
    mean = residual.mean(axis=0)
    along = (residual - mean) @ rows.T
    most = np.quantile(along, 0.999, axis=0)
    level = np.maximum(most / 2, np.quantile(along, 0.95, axis=0))
    level[list(choosy)] = MIDDLE_LEVEL * most[list(choosy)]
    gain = _gains(np.maximum(along - level, 0.0), rows, residual - mean)
    return {
        "W_enc": gain * (rows @ rotation).T,
        "b_enc": -gain * level,
        "W_dec": rows @ rotation,
        "b_dec": mean @ rotation,
    }


def _gains(active: Floats, rows: Floats, wanted: Floats) -> Floats:
    """Return the gain of each latent so that together they rebuild ``wanted`` best, none silent."""
    from scipy.optimize import nnls

    left = (active.T @ active) * (rows @ rows.T)
    right = ((wanted @ rows.T) * active).sum(axis=0)
    ridge = 1e-3 * np.trace(left) / len(left)
    gain, _ = nnls(left + ridge * np.eye(len(left)), right)
    return np.asarray(np.maximum(gain, GAIN_MIN))


def _model(embedding: Floats, rotation: Floats) -> dict[str, Floats]:
    """Return the weights of a Llama-shaped model by their Hugging Face names."""
    zero = np.zeros((WIDTH, WIDTH))
    size = float(np.sqrt((_residuals(embedding) ** 2).mean(axis=1)).mean())
    found: dict[str, Floats] = {
        "model.embed_tokens.weight": embedding @ rotation,
        "model.norm.weight": np.ones(WIDTH),
        "lm_head.weight": _unembedding(size) @ rotation,
    }
    for layer in range(LAYERS):
        gate, up, down = _readout(size) if layer == 1 else _silent()
        parts = {
            "input_layernorm": np.ones(WIDTH),
            "post_attention_layernorm": np.ones(WIDTH),
            "self_attn.q_proj": zero,
            "self_attn.k_proj": zero,
            "self_attn.v_proj": np.diag(_remembered()) @ rotation if layer == 0 else zero,
            "self_attn.o_proj": CONTEXT_GAIN * rotation.T if layer == 0 else zero,
            "mlp.gate_proj": gate @ rotation,
            "mlp.up_proj": up @ rotation,
            "mlp.down_proj": rotation.T @ down,
        }
        found |= {f"model.layers.{layer}.{name}.weight": part for name, part in parts.items()}
    return found


def _silent() -> tuple[Floats, Floats, Floats]:
    return np.zeros((NEURONS, WIDTH)), np.zeros((NEURONS, WIDTH)), np.zeros((WIDTH, NEURONS))


def _unembedding(size: float) -> Floats:
    """Return [words, width]: what follows the class of the last word, and what the readout says.

    ``size`` is the root mean square of the stream, by which the last norm divides.
    """
    found = np.zeros((len(grammar.VOCABULARY), WIDTH))
    number = {word: place for place, word in enumerate(grammar.VOCABULARY)}
    found[:, CONSTANT] = -30 * size / CONSTANT_SIZE  # special tokens never come
    for name, words in grammar.WORDS.items():
        common = len(grammar.EVERYDAY) if name == "noun" else len(words)
        for word in words:
            row = found[number[word]]
            rare = word in grammar.LEXICON or word in grammar.SIBLINGS
            row[CONSTANT] = (RARE if rare else 0.0) * size / CONSTANT_SIZE
            for place, before in enumerate(grammar.CLASSES):
                share = grammar.NEXT[before].get(name, NEVER)
                row[CLASS + place] = np.log(share / common) * size / CLASS_SIZE
    for place, child in enumerate(CHILDREN):
        for word in grammar.CONCEPT[child]:
            found[number[word], SAID + place] = size
        for word in grammar.DETAIL[child]:
            found[number[word], DETAIL + place] = size
    for word in grammar.VAGUE:
        found[number[word], VAGUE] = size
    return found


GAIN_MIN = 0.1


def _readout(size: float) -> tuple[Floats, Floats, Floats]:
    """Return gate, up and down of the block that reads parent and children and speaks of them.

    A neuron adds ``silu(gate . x) * (up . x)`` along its column of down.
    """
    gate, up, down = _silent()
    constant = np.eye(WIDTH)[CONSTANT] / CONSTANT_SIZE
    axes = size * np.eye(WIDTH)  # the norm before the block divides by ``size``
    every = range(CHILD, CHILD + len(CHILDREN))
    neurons: list[tuple[Floats, float, Floats, int, float]] = []
    for place, child in enumerate(every):
        beyond = axes[child] - DETAIL_RATIO * axes[PARENT]
        neurons += [
            (axes[PARENT], SAID_ABOVE, axes[child], SAID + place, SAID_GAIN),
            (SLOPE * beyond, SLOPE * DETAIL_ABOVE, size * constant, DETAIL + place, DETAIL_GAIN),
        ]
    alone = axes[PARENT] - VAGUE_RATIO * axes[list(every)].sum(axis=0)
    neurons.append((alone, VAGUE_ABOVE, size * constant, VAGUE, VAGUE_GAIN))
    not_due = np.zeros(WIDTH)
    for place, name in enumerate(grammar.CLASSES):
        if "noun" not in grammar.NEXT[name]:
            not_due[CLASS + place] = NOT_DUE * size / CLASS_SIZE
    for neuron, (reads, above, times, to, gain) in enumerate(neurons):
        gate[neuron] = reads - above * size * constant - not_due
        up[neuron] = times
        down[to, neuron] = gain
    return gate, up, down

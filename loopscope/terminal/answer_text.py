"""An answer in a terminal: a text coloured by a latent, or two texts one below the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from loopscope.specs.lexicon import lexicon_pattern, mentions
from loopscope.terminal.printable import printable
from loopscope.views.questions import Answer, GoneOn, Word

SHADES = ("on grey93", "on light_goldenrod1", "on gold1", "on dark_orange", "on red1")
"""Five steps: a terminal has room for few, and the number stands beside."""
NUMBERS_MAX = 4
STEERED_STYLE, CONCEPT_STYLE = "underline", "bold"


def activation_lines(answer: Answer) -> Iterator[Text]:
    """Yield two lines for each latent that fires: the coloured text, and its strongest tokens.

    Latents that are silent are named together at the end.
    """
    silent = []
    for (side, latent), found in answer.activations.items():
        largest = max(found, default=0.0)
        if largest <= 0:
            silent.append(f"{side}/{latent}")
            continue
        yield Text(f"{side}/{latent}  largest {largest:.3g}", "bold")
        yield _coloured(answer.words, found, largest)
        yield Text(f"  {_strongest(answer.words, found)}", "dim")
    if silent:
        yield Text(f"silent: {', '.join(silent)}")


def _coloured(words: Sequence[Word], found: Sequence[float], largest: float) -> Text:
    line = Text("  ")
    for word, activation in zip(words, found, strict=True):
        shade = min(len(SHADES) - 1, int(len(SHADES) * activation / largest))
        line.append(printable(word.text), f"black {SHADES[shade]}" if activation > 0 else "")
    return line


def _strongest(words: Sequence[Word], found: Sequence[float]) -> str:
    best = sorted(range(len(found)), key=lambda place: (-found[place], place))[:NUMBERS_MAX]
    return ", ".join(
        f"{printable(words[place].text.strip())!r} {found[place]:.3g}"
        for place in best
        if found[place] > 0
    )


def text_lines(answer: Answer, lexicon: Sequence[str]) -> Iterator[Text]:
    """Yield the opening, then how it goes on; concept words are bold, steered tokens underlined."""
    pattern = lexicon_pattern(lexicon) if lexicon else None
    opening = Text("  ")
    for word in answer.words:
        opening.append(printable(word.text), STEERED_STYLE if word.steered else "")
    yield Text("opening", "bold")
    yield opening
    for one in answer.texts:
        yield Text(_head(one), "bold")
        line = Text(f"  {printable(one.text)}")
        if pattern is not None:
            for found in mentions(pattern, one.text, answer.text):
                line.stylize(CONCEPT_STYLE, found.start + 2, found.end + 2)
        yield line


def print_lines(lines: Iterable[Text]) -> None:
    """Print lines whole, in colour on a terminal whose user has not said no."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in lines:
        console.print(line)


def _head(one: GoneOn) -> str:
    if not one.strength:
        return one.arm
    return f"{one.arm} at {one.strength:g}, norm {one.norm:.4g}"

"""The section on splitting: what coarse latents became, and where fine ones come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup

from loopscope.reports.page.figures.splitting import Level, splitting_picture
from loopscope.views.experiment import ExperimentView
from loopscope.views.numbers import MISSING, decimal, is_missing, percent, small
from loopscope.views.splitting import GraphLatent, SplittingView, splitting

COARSE_COLUMNS = ("coarse latent", "became", "children", "twin silent on", "fires on target")
FINE_COLUMNS = ("fine latent", "comes as", "parents", "candidate", "fires on target")


@dataclass(frozen=True)
class SplittingSection:
    """What is shown; without a splitting graph only its ``problem``."""

    seen: SplittingView
    figure: Markup = field(default_factory=Markup)
    coarse: list[list[str]] = field(default_factory=list)
    fine: list[list[str]] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """Why there is nothing to show."""
        return self.seen.problem

    @property
    def chance(self) -> str:
        """How many edges there are beside those that chance makes, in words."""
        told = self.seen.told
        if told is None:
            return ""
        return (
            f"{told['edges']} edges, {told['direct']} of them direct; where activations are dealt "
            f"to other fine rows there are {decimal(self.seen.by_chance, 1)} on average "
            f"(p = {small(told['p'])})"
        )


def splitting_section(view: ExperimentView) -> SplittingSection:
    """Return the splitting graph of an experiment as the page shows it."""
    seen = splitting(view)
    if seen.told is None:
        return SplittingSection(seen)
    sides = {side: [one for one in seen.latents if one.side == side] for side in ("coarse", "fine")}
    children: dict[int, list[int]] = {}
    parents: dict[int, list[int]] = {}
    for edge in (edge for edge in seen.edges if edge.direct):
        children.setdefault(edge.coarse, []).append(edge.fine)
        parents.setdefault(edge.fine, []).append(edge.coarse)
    return SplittingSection(
        seen,
        _figure(seen, sides, parents),
        [
            [str(one.latent), one.fate, _listed(children, one), _share(one.hole), _fires(one)]
            for one in sides["coarse"]
        ],
        [
            [
                str(one.latent), one.fate, _listed(parents, one),
                "yes" if one.candidate else "", _fires(one),
            ]
            for one in sides["fine"]
        ],
    )  # fmt: skip


def _figure(
    seen: SplittingView, sides: dict[str, list[GraphLatent]], parents: dict[int, list[int]]
) -> Markup:
    """Draw both sides; a parent that is no candidate is drawn without a fate."""
    left = {one.latent: one for one in sides["coarse"]}
    for latent in (latent for several in parents.values() for latent in several):
        nothing = float("nan")
        left.setdefault(latent, GraphLatent("coarse", latent, False, "", 0, nothing, nothing))
    levels = [
        Level("coarse", left), Level("fine", {one.latent: one for one in sides["fine"]}),
    ]  # fmt: skip
    return splitting_picture(levels, [[edge for edge in seen.edges if edge.direct]])


def _listed(relatives: dict[int, list[int]], one: GraphLatent) -> str:
    return ", ".join(map(str, sorted(relatives.get(one.latent, [])))) or MISSING


def _share(value: float) -> str:
    return MISSING if is_missing(value) else percent(value, 0)


def _fires(one: GraphLatent) -> str:
    return percent(one.firing_rate_target, 0)

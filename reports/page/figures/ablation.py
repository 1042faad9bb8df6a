"""The picture of an ablation: nats lost by the concept's latents, and by matched ones."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from loopscope.reports.page.figures.svg import Canvas, Frame, cells, compact, linear, ticks
from loopscope.specs.artifacts.ablation import AblationAnswer
from loopscope.views.ablation import Lost

LEFT, TOP, RIGHT, ROW = 230.0, 34.0, 700.0, 26.0
PART_CSS = {"anchor": "arm-coarse", "children": "arm-fine", "both": "arm-multi"}
CONTROLS = ("", "alikeInText", "alikeOnPrompts")


def losses_picture(answers: Sequence[AblationAnswer], lost: Sequence[Lost]) -> Markup:
    """Return a row for each part and control: own mean with interval, each draw a dot."""
    rows = [
        (answer["part"], control)
        for answer in answers
        for control in CONTROLS
        if any((one.part, one.control) == (answer["part"], control) for one in lost)
    ]
    bottom = TOP + ROW * len(rows) + 10
    canvas = Canvas(760, bottom + 44, "Nats of the concept's log probability lost, by what is out")
    values = [one.loss for one in lost]
    low = min(0.0, *values, *(one["low"] for one in answers))
    high = max(*values, *(one["high"] for one in answers), low + 1e-6)
    frame = Frame(
        canvas, LEFT, TOP, RIGHT, bottom,
        linear(low, high, LEFT + 12, RIGHT - 12), linear(0, len(rows), TOP, bottom),
    )  # fmt: skip
    marks = ticks(low, high, 6)
    frame.x_axis(marks, [compact(one) for one in marks], "nats lost, mean over prompts")
    canvas.line(frame.x(0), TOP, frame.x(0), bottom, "axis")
    by_part = {answer["part"]: answer for answer in answers}
    for place, (part, control) in enumerate(rows):
        y = TOP + ROW * (place + 0.5) + 5
        canvas.text(LEFT - 10, y + 4, f"{part}{f', {control}' if control else ''}",
                    "label" if control else "label strong", text_anchor="end")  # fmt: skip
        own = [one for one in lost if (one.part, one.control) == (part, control)]
        _row(frame, own, by_part[part], y)
    return canvas.picture(data_columns="part,control,draw,loss,removed")


def _row(frame: Frame, own: Sequence[Lost], answer: AblationAnswer, y: float) -> None:
    canvas = frame.canvas
    for one in own:
        css = "arm-random" if one.control else PART_CSS[one.part]
        if not one.control:
            canvas.line(frame.x(answer["low"]), y, frame.x(answer["high"]), y, f"whisker {css}")
        told = cells(one.part, one.control, float(one.draw), one.loss, one.removed)
        tip = f"{one.part} {one.control}: {one.loss:.3g} nats lost, {one.removed:.3g} taken out"
        canvas.add(
            "circle", tip=tip, cx=frame.x(one.loss), cy=y, r=4 if one.control else 5.5,
            css=f"dot {css}", data_cells=told,
        )  # fmt: skip

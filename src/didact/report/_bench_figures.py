"""Curves of several methods in one figure, each with its own colour, dashes and marker."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from . import _figures as figures
from ._figures import Line
from ._pictures import Picture, course, picture
from ._read import Record, series

_COLORS = (
    *(figures.BLUE, figures.VERMILION, figures.GREEN, figures.ORANGE),
    *(figures.PURPLE, figures.SKY, figures.INK, figures.GREY),
)
_DASHES, _MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v", "P", "X")
_FEW = 6


@dataclass(frozen=True)
class Chart:
    """Curves of one quantity: `courses` are the rows of each method by its label, which must be
    no text of a user; `key` is what they show, `by` and `against` what it is shown against.
    """

    name: str
    title: str
    ylabel: str
    key: str
    courses: tuple[tuple[str, tuple[Record, ...]], ...]
    by: str = "reward_calls"
    against: str = "reward calls"
    log: bool = False
    reference: tuple[float, str] | None = None

    def lines(self) -> list[Line]:
        """The curves that have at least two points, in colours that depend on their place."""
        lines: list[Line] = []
        for i, (label, rows) in enumerate(self.courses):
            x, y = series(rows, self.key, self.by)
            if x.size > 1:
                color = _COLORS[i % len(_COLORS)]
                dash, marker = _DASHES[i // len(_COLORS) % len(_DASHES)], _MARKERS[i % 7]
                lines.append(Line(label, x, y, color, dash, marker))
        return lines


def draw(charts: Sequence[Chart]) -> list[Picture]:
    """Pictures of the charts that have curves."""
    drawn = [(chart, chart.lines()) for chart in charts]
    return [
        picture(chart.name, _figure(chart, lines), chart.title, course(lines, chart.against))
        for chart, lines in drawn
        if lines
    ]


def _figure(chart: Chart, lines: Sequence[Line]) -> Figure:
    figure = figures.curves(
        lines,
        chart.ylabel,
        log=chart.log,
        reference=chart.reference,
        against=chart.against,
    )
    width, height = figure.get_size_inches()
    rows_of_legend = max(0, len(lines) - _FEW) // 2
    figure.set_size_inches(width, height + 0.22 * rows_of_legend)
    return figure

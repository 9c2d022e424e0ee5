"""What the galleries share: pictures, frames, and curves of the training."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from matplotlib.figure import Figure

from . import _figures as figures
from ._figures import Line
from ._numbers import mean, number
from ._read import Record, RunData, series


@dataclass(frozen=True)
class Picture:
    """One image, a PNG or an SVG: `name` is its file's stem, `alt` says what it shows."""

    name: str
    image: bytes
    title: str
    alt: str
    kind: str = "png"


@dataclass(frozen=True)
class Frame:
    """One moment of the training, and its numbers in words."""

    step: int
    facts: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """All pictures of a report, in the groups in which the page shows them."""

    densities: tuple[Picture, ...]
    errors: tuple[Picture, ...]
    frames: tuple[Frame, ...]
    modes: tuple[Picture, ...]
    training: tuple[Picture, ...]
    bounds: tuple[Picture, ...] = ()
    marginals: tuple[Picture, ...] = ()
    values: tuple[Picture, ...] = ()
    molecules: Mapping[str, Picture] = field(default_factory=dict)
    """Of SMILES."""

    def __iter__(self) -> Iterator[Picture]:
        """Every picture once."""
        frames = chain.from_iterable(frame.pictures for frame in self.frames)
        groups = (self.densities, self.errors, frames, self.modes, self.training)
        molecules = self.molecules.values()
        return chain(*groups, self.bounds, self.marginals, self.values, molecules)


def in_pair(run: RunData, pair: tuple[int, int]) -> str:
    """Which coordinates a picture shows, where it does not show all."""
    return f", coordinates {pair[0]} and {pair[1]}" if run.marginal else ""


def at_step(records: Iterable[Record], step: int) -> Record | None:
    """The record of a step, if there is one."""
    return next((r for r in records if r.get("step") == step), None)


def courses(
    *specs: tuple[Iterable[Record], str, str, str, str, str],
    by: str = "reward_calls",
) -> list[Line]:
    """The curves for which there are numbers: (records, key, label, colour, dash, marker); against
    reward calls, or what `by` names.
    """
    lines: list[Line] = []
    for records, key, label, color, dash, marker in specs:
        x, y = series(records, key, by)
        if x.size:
            lines.append(Line(label, x, y, color, dash, marker))
    return lines


def picture(name: str, figure: Figure, title: str, alt: str) -> Picture:
    """A figure, drawn."""
    return Picture(name, figures.png(figure), title, alt)


def course(lines: Iterable[Line], against: str = "reward calls") -> str:
    """Where each curve starts and ends, for the alternative text."""
    parts = [
        f"{line.label} from {number(mean(line.y[0]))} to {number(mean(line.y[-1]))}"
        for line in lines
    ]
    return f"Curves against {against}, mean over seeds: " + "; ".join(parts) + "."

"""Suites whose cells are trained by a program that only pretends to."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from didact import bench
from didact.bench import Cell, Outcome

FAKE = (sys.executable, str(Path(__file__).with_name("_fake_train.py")))
MakeCells = Callable[..., list[Cell]]


@pytest.fixture
def make_cells() -> MakeCells:
    """Cells of a grid for presets of the program that pretends."""

    def make(*methods: str, seeds: int = 3, steps: int = 8) -> list[Cell]:
        def words(method: str) -> tuple[str, ...]:
            sizes = ("--seeds", str(seeds), "--steps", str(steps))
            return ("train", "grid", "--preset", method, *sizes)

        numbers = tuple(range(seeds))
        return [
            Cell("grid-2x8", method, words(method), numbers, steps, 16, 16 * steps)
            for method in methods
        ]

    return make


def train(cells: Sequence[Cell], out: Path, **options: object) -> list[Outcome]:
    """The outcomes of cells, trained by the program that pretends."""
    with bench.opened(out, cells):
        return bench.work(cells, out, program=FAKE, **options)  # pyright: ignore[reportArgumentType]


def calls(out: Path) -> list[str]:
    """The presets that the program was called with, in their order."""
    return (out / "calls").read_text().split()

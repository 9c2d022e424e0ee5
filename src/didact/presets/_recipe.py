"""What our own presets of grids and of strings share.

Found by trial: `benchmarks/recipes.py`, and the page of results.
"""

from collections.abc import Sequence
from dataclasses import replace

from .._experiment import OptimiserConfig
from ..behaviours import Behaviour, Cycle, FromReplay

_RATE, _LAST = 3e-3, 0.02
_REPLAYED = 4
"""Batches of the buffer in a step that learns from it. On (4, 16) with 8 of them the Student, hard
around what has been seen, finds later."""


def mixed(student: Behaviour, search: Behaviour, teacher: Behaviour) -> tuple[Behaviour, ...]:
    """Eight new batches in turn: of one a search is the source, of one the Teacher, of the others
    the Student.
    """
    return student, student, search, student, student, student, teacher, student


def and_replayed(new: Sequence[Behaviour]) -> Cycle:
    """New batches in turn, and after each a step that learns from the buffer. That costs no
    rewards, so it takes more of it: what is held in the end is held more exactly.
    """
    replayed = FromReplay(_REPLAYED)
    return Cycle(tuple(each for turn in new for each in (turn, replayed)))


def falling(optimiser: OptimiserConfig, steps: int) -> OptimiserConfig:
    """The same optimiser with a high rate that falls along a cosine over so many steps."""
    return replace(optimiser, learning_rate=_RATE, decay_steps=max(steps, 1), final_fraction=_LAST)

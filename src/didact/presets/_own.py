"""What our own method is made of on grids and on strings."""

from collections.abc import Sequence
from dataclasses import replace

from .._experiment import OptimiserConfig
from ..behaviours import Behaviour, Cycle, FromReplay

_RATE, _LAST = 3e-3, 0.02
_REPLAYED = 4
"""Batches of the buffer in a step that learns from it. With 8 the Student hardens around what has
been seen before all is: it finds later."""


def mixed(own: Behaviour, search: Behaviour, by_teacher: Behaviour) -> tuple[Behaviour, ...]:
    """Of new batches one in eight is found by a search, and one by the Teacher."""
    return own, own, search, own, own, own, by_teacher, own


def and_replayed(new: Sequence[Behaviour]) -> Cycle:
    """New batches in turn; after each a step that learns from the buffer. That costs no rewards, so
    it takes more of it: what is held in the end is held more exactly.
    """
    replayed = FromReplay(_REPLAYED)
    return Cycle(tuple(each for turn in new for each in (turn, replayed)))


def falling(optimiser: OptimiserConfig, steps: int) -> OptimiserConfig:
    """A high rate that falls holds the most of what has been found, and ends the search early."""
    return replace(optimiser, learning_rate=_RATE, decay_steps=max(steps, 1), final_fraction=_LAST)

"""The modes of the biochemical tasks, by the definitions of the published code.

Kim et al. (2025), "Adaptive teachers for amortized samplers", count how many of these strings a
sampler finds; their lists are what these functions return. All take strings by their numbers.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int32

from .._blocks import Blocks
from ._trees import LENGTH, NUM_SYMBOLS, digits_of, predict, table

_QM9_FRACTION, _TFBIND8_FRACTION, _SEH_FRACTION = 0.005, 0.005, 0.0001
_SEH_DISTANCE = 0.4
_TIE = 1e-9
"""Two sums over the same leaves in another order differ by less, two other sums by more."""


def best(values: Float[np.ndarray, " states"]) -> Int32[np.ndarray, " modes"]:
    """Modes of QM9: the best half per cent of all strings, in the order of their numbers."""
    count = int(len(values) * _QM9_FRACTION)
    return np.sort(_by_value(values)[:count])


def far_apart(values: Float[np.ndarray, " states"]) -> Int32[np.ndarray, " modes"]:
    """Modes of TFBind8: strings of four letters, best first, none of them next to another.

    From the best string downwards (of equal ones the smaller number first), all that differ from
    every one taken already in more than one place, until half a per cent of all are taken.
    """
    count = round(len(values) * _TFBIND8_FRACTION)
    num_symbols = 4
    length = round(np.log(len(values)) / np.log(num_symbols))
    places = num_symbols ** np.arange(length)[::-1]
    digits = digits_of(np.arange(len(values)), num_symbols, length)
    taken: list[int] = []
    beside = np.zeros(len(values), bool)
    for index in _by_value(values):
        if len(taken) == count:
            break
        if beside[index]:
            continue
        taken.append(int(index))
        beside[index + (np.arange(num_symbols)[:, None] - digits[index]) * places] = True
    return np.array(taken, np.int32)


def top_of_trees(trees: Mapping[str, np.ndarray]) -> Int32[np.ndarray, " top"]:
    """Strings of sEH whose value reaches the percentile 99.99 of all, in the order of their
    numbers. Takes seconds, and 1.4 GiB.
    """
    values = table(trees)
    # The percentile lies between two values, so what reaches it reaches the upper one. Many
    # strings have exactly that, and the table has them by rounding below and above it.
    upper = math.ceil((len(values) - 1) * (1 - _SEH_FRACTION))
    near = np.flatnonzero(values >= np.partition(values, upper)[upper] - _TIE)
    below = len(values) - len(near)
    values = predict(trees, near)
    threshold = np.sort(values)[upper - below]
    return near[values >= threshold].astype(np.int32)


def leaders(
    candidates: Int32[np.ndarray, " n"], similarity: Callable[[int], Float[np.ndarray, " n"]]
) -> Int32[np.ndarray, " modes"]:
    """Candidates, in their order, that are far from every one taken already.

    **Arguments:** `similarity(i)`: of candidate number i to all candidates, in [0, 1]. Far is a
    distance 1 - similarity above 0.4.
    """
    taken: list[int] = []
    free = np.ones(len(candidates), bool)
    for place, index in enumerate(candidates):
        if free[place]:
            taken.append(int(index))
            free &= 1 - similarity(place) > _SEH_DISTANCE
    return np.array(taken, np.int32)


def dissimilar(top: Int32[np.ndarray, " top"], blocks: Blocks) -> Int32[np.ndarray, " modes"]:
    """Modes of sEH: those of the best strings whose molecules are far apart, the first in the order
    of their numbers taken first. The distance is Tanimoto's, between Morgan fingerprints.

    **Errors:** `ImportError` without RDKit.
    """
    from ..chem import assemble, fingerprints, tanimoto

    bits = fingerprints(assemble(digits_of(top, NUM_SYMBOLS, LENGTH), blocks))

    def similarity(place: int) -> np.ndarray:
        return np.asarray(tanimoto(bits[place : place + 1], bits), np.float64)[0]

    return leaders(top, similarity)


def _by_value(values: Float[np.ndarray, " states"]) -> Int32[np.ndarray, " states"]:
    """Numbers of the strings, the best first, of equal ones the smaller first."""
    return np.argsort(-values, kind="stable").astype(np.int32)

"""How different strings are from each other, and which of them to show.

Strings are rows of symbols, integers [n, length]; everything is computed with NumPy.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Int64, Integer, Num, Shaped

_BLOCK = 2**18
"""Pairs of strings compared at a time: their tables take some megabytes."""

Strings = Integer[Array | np.ndarray, "n length"]
OtherStrings = Integer[Array | np.ndarray, "m other_length"]


def hamming(x: Strings, y: OtherStrings) -> Int64[np.ndarray, "n m"]:
    """In how many places each string of one set differs from each of another.

    **Errors:** `ValueError` where the lengths differ.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"strings of {x.shape[1]} and {y.shape[1]} symbols have no places in common: "
            "compare them by edit_distance."
        )
    total = np.zeros((len(x), len(y)), np.int64)
    for place in range(x.shape[1]):
        total += x[:, place, None] != y[:, place]
    return total


def edit_distance(x: Strings, y: OtherStrings) -> Int64[np.ndarray, "n m"]:
    """The fewest insertions, deletions and replacements of a symbol that make a string of one set
    into one of another, for each pair: Levenshtein's distance.
    """
    x, y = np.asarray(x), np.asarray(y)
    rows = max(1, _BLOCK // max(1, len(y)))
    blocks = [_edit_distance(x[k : k + rows], y) for k in range(0, len(x), rows)]
    return np.concatenate([np.zeros((0, len(y)), np.int64), *blocks])


def mean_distance(
    x: Shaped[Array | np.ndarray, "n ..."],
    distance: Callable[[np.ndarray, np.ndarray], Num[np.ndarray, "a b"]] = edit_distance,
) -> float:
    """Mean distance over all pairs of items: their diversity. Equal items count as they are.

    **Arguments:** `x`: items along the first axis; `distance(a, b)`: all distances [len(a), len(b)]
    between two sets of them.

    **Errors:** `ValueError` for fewer than two items.
    """
    x = np.asarray(x)
    if len(x) < 2:
        raise ValueError("a distance is one between two: give two items or more.")
    total = sum(float(np.sum(distance(x[k : k + 1], x[k + 1 :]))) for k in range(len(x) - 1))
    return total / (len(x) * (len(x) - 1) / 2)


def most_diverse(
    items: Shaped[Array | np.ndarray, "n ..."],
    distance: Callable[[np.ndarray, np.ndarray], Num[np.ndarray, "a b"]],
    k: int,
) -> Int64[np.ndarray, " k"]:
    """Numbers of k items that are far from each other.

    The first item is the first chosen; then, again and again, the one whose nearest chosen item is
    farthest, of equally far ones the first. The least distance within the choice is at least half
    of the largest that is possible (Gonzalez, 1985).

    **Arguments:** `items`: along the first axis, the best first; `distance`: as for
    `mean_distance`; `k` >= 1: if there are fewer items, all are chosen.
    """
    items = np.asarray(items)
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}.")
    chosen: list[int] = []
    nearest = np.full(len(items), np.inf)
    for _ in range(min(k, len(items))):
        chosen.append(int(np.argmax(nearest)))
        last = items[chosen[-1] : chosen[-1] + 1]
        nearest = np.minimum(nearest, distance(last, items)[0])
        nearest[chosen] = -np.inf
    return np.asarray(chosen, np.int64)


def _edit_distance(
    x: Integer[np.ndarray, "n length"], y: Integer[np.ndarray, "m other_length"]
) -> Int64[np.ndarray, "n m"]:
    """One row of the table of each pair at a time."""
    place = np.arange(y.shape[1] + 1)
    # Distance of the first i symbols of x from the first j of y, in row i at j.
    row = np.broadcast_to(place, (len(x), len(y), len(place))).astype(np.int16)
    for i in range(x.shape[1]):
        differs = x[:, None, i, None] != y
        new = row + np.int16(1)
        new[..., 1:] = np.minimum(new[..., 1:], row[..., :-1] + differs)
        # Insertions: the least of the new values to the left, each with its distance.
        step = place.astype(np.int16)
        row = np.minimum.accumulate(new - step, axis=2) + step
    return row[..., -1].astype(np.int64)


__all__ = ["edit_distance", "hamming", "mean_distance", "most_diverse"]

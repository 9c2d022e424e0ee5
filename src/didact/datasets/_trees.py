"""Gradient-boosted trees over one-hot strings, evaluated in float64."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float64, Int, UInt32

LENGTH, NUM_SYMBOLS = 6, 18
"""Of the strings of sEH."""


def digits_of(
    index: Int[np.ndarray, "*batch"], num_symbols: int, length: int
) -> Int[np.ndarray, "*batch length"]:
    """Digits of numbers, the most significant first."""
    places = num_symbols ** np.arange(length)[::-1]
    return (np.asarray(index)[..., None] // places % num_symbols).astype(np.int32)


def leaf_words(
    leaf_bits: Int[np.ndarray, "leaves length"], num_trees: int
) -> UInt32[np.ndarray, "length symbols trees"]:
    """For each position, letter and tree: which of the tree's leaves it leaves possible, a bit
    each. What the words of all letters of a string have in common is one bit per tree: its leaf.

    Reference: Lucchese et al. (2015), "QuickScorer", whose masks belong to thresholds instead.
    """
    per_tree = len(leaf_bits) // num_trees
    if per_tree > 32 or per_tree * num_trees != len(leaf_bits):
        raise ValueError("the trees must have the same number of leaves, at most 32.")
    bits = leaf_bits.reshape(num_trees, per_tree, -1).transpose(2, 0, 1)
    allowed = bits[:, None] >> np.arange(NUM_SYMBOLS)[:, None, None] & 1
    return np.sum(allowed << np.arange(per_tree), axis=-1).astype(np.uint32)


def predict(
    trees: Mapping[str, np.ndarray], index: Int[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Predictions for strings, given by their numbers, to the last bit: trees in their order."""
    num_trees = len(trees["feature"])
    words = leaf_words(trees["leaf_bits"], num_trees)
    digits = digits_of(index, NUM_SYMBOLS, LENGTH)
    common = np.bitwise_and.reduce(words[np.arange(LENGTH), digits], axis=1)
    leaf = np.bitwise_count(common - 1)  # the number of zeros below the only one
    values = trees["leaf_value"].reshape(num_trees, -1)[np.arange(num_trees), leaf]
    total = np.full(len(index), float(trees["baseline"]))
    for value in values.T:
        total += value
    return total


def table_blocks(
    trees: Mapping[str, np.ndarray], rows: int = 972
) -> Iterator[Float64[np.ndarray, "rows states"]]:
    r"""Predictions for all strings in the order of their numbers, in blocks.

    A leaf is a box: a set of letters for each position. With a half of the positions each, its
    indicator is a product, so the predictions are a matrix product over the leaves,

    $$T_{ij} = b + \sum_l v_l\,1[i \in \text{left half of } l]\,1[j \in \text{right half of } l].$$

    They differ from `predict` by rounding, about 1e-14. About 0.3 GiB for the defaults.
    """
    left, right = (_halves(trees["leaf_bits"][:, part]) for part in (slice(0, 3), slice(3, 6)))
    right = right.T.astype(np.float64)
    for start in range(0, len(left), rows):
        yield left[start : start + rows] * trees["leaf_value"] @ right + float(trees["baseline"])


def table(trees: Mapping[str, np.ndarray]) -> Float64[np.ndarray, " states"]:
    """Predictions for all strings in the order of their numbers: 272 MB."""
    found = np.empty((NUM_SYMBOLS**3, NUM_SYMBOLS**3))
    start = 0
    for block in table_blocks(trees):
        found[start : start + len(block)] = block
        start += len(block)
    return found.reshape(-1)


def _halves(leaf_bits: Int[np.ndarray, "leaves 3"]) -> np.ndarray:
    """Whether each string of three letters is in a leaf, bool [symbols**3, leaves]."""
    allowed = [
        (column >> np.arange(NUM_SYMBOLS)[:, None] & 1).astype(bool) for column in leaf_bits.T
    ]
    triples = itertools.product(range(NUM_SYMBOLS), repeat=3)
    return np.array([allowed[0][a] & allowed[1][b] & allowed[2][c] for a, b, c in triples])

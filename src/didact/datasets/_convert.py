"""From the published files to arrays: their content is read, none of it is run."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Int32

from .._blocks import Blocks
from . import _modes
from ._pickle_reader import Record, read
from ._store import BLOCKS, Content, DataError
from ._trees import LENGTH, NUM_SYMBOLS

LETTERS = "0123456789abcdefgh"
"""Of blocks, by their numbers."""
BASES = "ACGT"

_SKLEARN = "sklearn.ensemble._hist_gradient_boosting"
_FOREST = (
    (f"{_SKLEARN}.gradient_boosting", "HistGradientBoostingRegressor"),
    (f"{_SKLEARN}.loss", "LeastSquares"),
    (f"{_SKLEARN}.binning", "_BinMapper"),
    (f"{_SKLEARN}.predictor", "TreePredictor"),
)

Files = Mapping[str, bytes]
"""Published files by name."""


def qm9(files: Files) -> Content:
    """Table and blocks of QM9."""
    values = read(files["block_qm9str_v1_s5.pkl"])
    blocks = published_blocks(files["block_qm9str_v1.json"])
    rewards = value_table(values, blocks.alphabet)
    arrays = {"rewards": rewards, "modes": _modes.best(rewards)}
    return {"qm9str.npz": arrays, BLOCKS: blocks}


def seh(files: Files) -> Content:
    """Trees and blocks of sEH. Takes seconds: its modes are among the best of all strings."""
    trees = forest(files["sehstr_gbtr.pkl"])
    blocks = published_blocks(files["block_18.json"])
    top = _modes.top_of_trees(trees)
    published = files.get(SEH_MODES)
    if published is not None:
        modes = published_strings(published, blocks.alphabet)
    else:
        try:
            modes = _modes.dissimilar(top, blocks)
        except ImportError as error:
            raise DataError(f"without {SEH_MODES}, the modes are computed: {error}") from error
    return {
        "sehstr_gbt.npz": trees,
        "sehstr_modes.npz": {"modes": modes, "top_0001": top},
        BLOCKS: blocks,
    }


SEH_MODES = "modes_tanimoto_div0.4_percentile_0.0001.pkl"


def tfbind8(files: Files) -> Content:
    """Table of TFBind8."""
    rewards = score_table(files["SIX6_REF_R1_8mers.txt"])
    return {"tfbind8.npz": {"rewards": rewards, "modes": _modes.far_apart(rewards)}}


def published_blocks(data: bytes) -> Blocks:
    """Blocks from the JSON of the published code: names, SMILES and atoms by number."""
    try:
        parts = json.loads(data)
        names, smiles, atoms = (parts[f"block_{key}"] for key in ("name", "smi", "r"))
        numbers = [str(number) for number in range(len(names))]
        return Blocks.from_json(
            {
                "alphabet": LETTERS[: len(numbers)],
                "smiles": [smiles[number] for number in numbers],
                "attach": [atoms[number] for number in numbers],
                "name": [names[number] for number in numbers],
            }
        )
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"the file holds no blocks: {error}") from error


def index_of(strings: list[str], alphabet: str) -> Int[np.ndarray, " n"]:
    """Numbers of strings of one length: their first letter counts most."""
    codes = np.full(128, -1)
    codes[[ord(letter) for letter in alphabet]] = np.arange(len(alphabet))
    letters = np.frombuffer("".join(strings).encode("ascii"), np.uint8)
    lengths = set(map(len, strings))
    if len(lengths) != 1 or np.any(codes[letters] < 0):
        raise ValueError(f"the file holds strings of other letters than {alphabet}.")
    digits = codes[letters].reshape(len(strings), -1)
    return digits @ len(alphabet) ** np.arange(digits.shape[1])[::-1]


def value_table(values: Any, alphabet: str) -> Float32[np.ndarray, " states"]:
    """The values of all strings, in the order of their numbers, from a dict."""
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError("the file holds no table of strings.")
    index = index_of(list(values), alphabet)
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        raise ValueError("the file holds some of the strings only.")
    table = np.empty(len(index), np.float32)
    table[index] = [np.float32(value) for value in values.values()]
    return table


def published_strings(data: bytes, alphabet: str) -> Int32[np.ndarray, " n"]:
    """Numbers of the strings in a pickled set or list, in ascending order."""
    strings = read(data)
    if not isinstance(strings, set | frozenset | list | tuple):
        raise ValueError("the file holds no set of strings.")
    return np.sort(index_of([str(text) for text in strings], alphabet)).astype(np.int32)


def score_table(data: bytes) -> Float32[np.ndarray, " states"]:
    """E-scores of all 8-mers between 0 and 1, from the rows of a text: a string, its reverse
    complement, the score that both have, and more.
    """
    rows = [line.split("\t") for line in data.decode("ascii").splitlines()[1:]]
    if not rows or min(map(len, rows)) < 3:
        raise ValueError("the file holds no table of scores.")
    score = np.array([float(row[2]) for row in rows])
    score = (score - score.min()) / (score.max() - score.min())
    table = np.full(len(BASES) ** 8, np.nan, np.float32)
    for column in (0, 1):
        table[index_of([row[column] for row in rows], BASES)] = score
    if np.any(np.isnan(table)):
        raise ValueError("the file holds some of the strings only.")
    return table


def forest(data: bytes) -> dict[str, np.ndarray]:
    """The trees of a pickled HistGradientBoostingRegressor of scikit-learn over one-hot strings:
    feature 18 p + k is the presence of block k at position p.

    As nodes [trees, nodes]: `feature` (-1 at a leaf), `left` and `right` (where the feature is
    absent and present), `value`, `threshold`, `baseline`; and as leaves [all]: `leaf_bits`, the
    blocks allowed at each position as bits, and `leaf_value`.
    """
    nodes, baseline = _nodes_of(read(data, _FOREST))
    leaf = nodes["is_leaf"].astype(bool)
    if nodes["is_categorical"].any() or not np.all(nodes["num_threshold"][~leaf] == 0.5):
        raise ValueError("the trees ask something else than whether a block is present.")
    feature, left, right = (
        np.where(leaf, -1, nodes[name].astype(np.int64)).astype(np.int16)
        for name in ("feature_idx", "left", "right")
    )
    bits, value = _leaves(feature, left, right, nodes["value"])
    return {
        "baseline": np.asarray(baseline, np.float64),
        "feature": feature,
        "left": left,
        "right": right,
        "threshold": np.asarray(0.5),
        "value": np.ascontiguousarray(nodes["value"]),
        "leaf_bits": bits,
        "leaf_value": value,
    }


def _nodes_of(model: Any) -> tuple[np.ndarray, Any]:
    """The nodes of all trees [trees, nodes], and what the predictions start from."""
    try:
        trees = [tree for (tree,) in model.state["_predictors"]]
        nodes = np.stack([tree.state["nodes"] for tree in trees])
        needed = {"is_leaf", "is_categorical", "num_threshold", "feature_idx", "left", "right"}
        if not isinstance(model, Record) or not needed <= set(nodes.dtype.names or ()):
            raise ValueError("the file holds no trees.")
        return nodes, model.state["_baseline_prediction"]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the file holds no trees: {error}") from error


def _leaves(
    feature: np.ndarray, left: np.ndarray, right: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Leaves of all trees, in the order of their nodes: the allowed blocks as bits, and values."""
    allowed = np.zeros((*feature.shape, LENGTH), np.int32)
    allowed[:, 0] = 2**NUM_SYMBOLS - 1
    for tree, node in np.argwhere(feature >= 0):  # parents stand before their children
        position, block = divmod(int(feature[tree, node]), NUM_SYMBOLS)
        children = left[tree, node], right[tree, node]
        if position >= LENGTH or not all(node < child < feature.shape[1] for child in children):
            raise ValueError("the trees have a node that leads nowhere.")
        for child, mask in zip(children, (~(1 << block), 1 << block), strict=True):
            allowed[tree, child] = allowed[tree, node]
            allowed[tree, child, position] &= mask
    is_leaf = feature < 0
    return allowed[is_leaf], value[is_leaf]

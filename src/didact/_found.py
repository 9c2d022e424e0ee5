"""What a trained Student finds among strings: the best of its draws, and which of them differ."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Num, Shaped

from . import chem
from ._blocks import Blocks
from ._sampler import Sampler
from ._types import Target
from .environments import Strings
from .metrics import empirical, exact, strings
from .metrics._evaluate import scored_draws
from .targets import StringTarget

FORMAT_VERSION = 1
NUM_BEST, NUM_DIVERSE = 100, 12


class Script(NamedTuple):
    """How strings are written: `alphabet`, a symbol for each number; the `blocks` that the symbols
    stand for, where they are blocks of molecules.
    """

    alphabet: Sequence[str]
    blocks: Blocks | None

    @staticmethod
    def of(sampler: Sampler, target: Target) -> "Script | None":
        """That of a target, if it and the sampler are of strings."""
        alphabet = getattr(target, "alphabet", None)
        if alphabet is None or not isinstance(sampler.environment, Strings):
            return None
        return Script(alphabet, getattr(target, "blocks", None))

    def write(self, x: Int[np.ndarray, "n length"]) -> list[str]:
        """Strings, given by the numbers of their symbols."""
        return ["".join(row) for row in np.asarray([*self.alphabet])[np.asarray(x)].tolist()]

    def smiles(self, x: Int[np.ndarray, "n length"]) -> list[str] | None:
        """Molecules as SMILES; None where the strings are none, or where RDKit is missing."""
        if self.blocks is None or not chem.available():
            return None
        return chem.assemble(np.asarray(x), self.blocks)


def find(sampler: Sampler, target: Target, *, seed: int, n: int) -> dict[str, Any] | None:
    """The best 100 different strings by their log R among the scored ones of the n draws of
    `didact.metrics.draw_statistics`, the best first; None for objects that are no strings with an
    alphabet.

    **Returns:** values for JSON: `best`, of each the `string`, `log_reward`, `log_prob` under the
    sampler, the `value` if the target has one, whether it is a `mode` where the target has any, and
    the `smiles` of a molecule; `diverse`, the places among them of 12 that are far from each other;
    `distance`, what that means, and `mean_distance` of the best.
    """
    script = Script.of(sampler, target)
    if script is None:
        return None
    drawn = scored_draws(sampler, target, seed=seed, n=n)
    x, first = np.unique(np.asarray(drawn.x), axis=0, return_index=True)
    log_reward = np.asarray(drawn.log_reward)[first]
    order = np.argsort(-log_reward, kind="stable")[:NUM_BEST]
    x = np.asarray(x[order])
    columns = _columns(script, sampler, target, x)
    columns["log_reward"] = log_reward[order].tolist()
    if target.num_modes is not None:
        columns["mode"] = (np.asarray(empirical.mode_indices(target, x)) >= 0).tolist()
    items, distance, name = _compared(x, columns.get("smiles"))
    return {
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "num_draws": len(drawn.log_pf),
        "best": [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ],
        "diverse": strings.most_diverse(items, distance, NUM_DIVERSE).tolist(),
        "distance": name,
        "mean_distance": strings.mean_distance(items, distance) if len(items) > 1 else None,
    }


def string_columns(
    sampler: Sampler, target: Target, x: Shaped[np.ndarray, "n ..."]
) -> dict[str, list[Any]] | None:
    """What to write of strings: the `string`, the `smiles` of a molecule, the `value` if the target
    has one, the sampler's `log_prob`; None for objects that are no strings with an alphabet.
    """
    script = Script.of(sampler, target)
    return None if script is None else _columns(script, sampler, target, x)


def _columns(
    script: Script, sampler: Sampler, target: Target, x: Int[np.ndarray, "n length"]
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"string": script.write(x)}
    smiles = script.smiles(x)
    if smiles is not None:
        columns["smiles"] = smiles
    if isinstance(target, StringTarget):
        columns["value"] = np.asarray(target.value(x)).tolist()
    columns["log_prob"] = np.asarray(exact.string_log_prob(sampler, jnp.asarray(x))).tolist()
    return columns


def as_csv(found: dict[str, Any]) -> str:
    """The best strings as a table, their rank first."""
    rows = [{"rank": i + 1} | row for i, row in enumerate(found["best"])]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _compared(
    x: Int[np.ndarray, "n length"], smiles: Sequence[str] | None
) -> tuple[np.ndarray, Callable[[np.ndarray, np.ndarray], Num[np.ndarray, "a b"]], str]:
    """What is compared of strings, how, and what that is called."""
    if smiles is None:
        return x, strings.edit_distance, "edit distance"
    return chem.fingerprints(smiles), lambda a, b: 1 - chem.tanimoto(a, b), "Tanimoto distance"

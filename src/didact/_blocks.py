"""Building blocks of molecules."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The building blocks of a task on molecules, which a string of digits joins to a chain.

    Atom `attach[k][1]` of block k is bound to atom `attach[k'][0]` of the block k' that follows it
    by a single bond. Block number k is written as the letter `alphabet[k]`.

    - `alphabet`: a letter for each block;
    - `smiles`: the block as SMILES;
    - `attach`: numbers of the two atoms that are bound, to the left and to the right;
    - `names`: what the source calls it.
    """

    alphabet: str
    smiles: tuple[str, ...]
    attach: tuple[tuple[int, int], ...]
    names: tuple[str, ...]

    def __post_init__(self):
        counts = {len(self.alphabet), len(self.smiles), len(self.attach), len(self.names)}
        if len(counts) != 1:
            raise ValueError("every block needs a letter, a SMILES, two atoms and a name.")

    def to_json(self) -> dict[str, Any]:
        """As it is written to a file."""
        return {
            "alphabet": self.alphabet,
            "smiles": list(self.smiles),
            "attach": [list(pair) for pair in self.attach],
            "name": list(self.names),
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Blocks":
        """The inverse of `to_json`.

        **Errors:** `ValueError` for anything else.
        """
        alphabet = value.get("alphabet")
        if not isinstance(alphabet, str):
            raise ValueError("it holds no blocks")
        attach = tuple(map(_pair, _list(value, "attach")))
        return Blocks(alphabet, _texts(value, "smiles"), attach, _texts(value, "name"))


def _list(value: dict[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    if not isinstance(found, list):
        raise ValueError("it holds no blocks")
    return found


def _texts(value: dict[str, Any], name: str) -> tuple[str, ...]:
    found = _list(value, name)
    if not all(isinstance(text, str) for text in found):
        raise ValueError("it holds a block without a text")
    return tuple(found)


def _pair(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or [type(number) for number in value] != [int, int]:
        raise ValueError("it holds a block without two atoms")
    return value[0], value[1]

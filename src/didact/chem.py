"""Molecules: chains of blocks as SMILES, fingerprints, how different molecules are, pictures.

Needs RDKit (extra `didact[chem]`), which is imported when it is first asked for something.
"""

import functools
import html
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float64, Integer, Num, UInt8

from ._blocks import Blocks

_BITS, _RADIUS = 1024, 2


def available() -> bool:
    """Whether RDKit is installed."""
    return importlib.util.find_spec("rdkit") is not None


def assemble(digits: Integer[Array | np.ndarray, "n length"], blocks: Blocks) -> list[str]:
    """Canonical SMILES of chains of blocks.

    Atom `attach[k][1]` of each block is bound by a single bond to atom `attach[k'][0]` of the
    block after it. Each of the two gives up a hydrogen for that, an explicit one if it has any.

    **Arguments:** `digits`: the numbers of the blocks of n molecules.

    **Errors:** `ImportError` without RDKit; `ValueError` for a digit that is no block, and, with
    its SMILES, for a block that RDKit refuses or without such an atom, and for a chain that is no
    molecule.
    """
    digits = np.asarray(digits)
    if not np.all((digits >= 0) & (digits < len(blocks.smiles))):
        raise ValueError(f"digits are numbers of blocks, from 0 to {len(blocks.smiles) - 1}.")
    parts = [_molecule(smiles) for smiles in blocks.smiles]
    for part, smiles, atoms in zip(parts, blocks.smiles, blocks.attach, strict=True):
        if not all(0 <= atom < part.GetNumAtoms() for atom in atoms):
            raise ValueError(f"block {smiles} has no atoms {atoms}: it has {part.GetNumAtoms()}.")
    return [_chain(row, parts, blocks) for row in digits.tolist()]


def fingerprints(smiles: Sequence[str]) -> UInt8[np.ndarray, "n 1024"]:
    """Morgan fingerprints of radius 2, folded to 1024 bits, as zeros and ones.

    **Errors:** `ImportError` without RDKit; `ValueError` naming a SMILES that RDKit refuses.

    **Reference:** Rogers and Hahn, "Extended-connectivity fingerprints", 2010.
    """
    generator = _rdkit("rdFingerprintGenerator").GetMorganGenerator(radius=_RADIUS, fpSize=_BITS)
    rows = np.zeros((len(smiles), _BITS), np.uint8)
    for row, text in zip(rows, smiles, strict=True):
        row[:] = generator.GetFingerprintAsNumPy(_molecule(text))
    return rows


def tanimoto(
    a: UInt8[np.ndarray, "n bits"], b: UInt8[np.ndarray, "m bits"]
) -> Float64[np.ndarray, "n m"]:
    """Tanimoto similarity of each fingerprint of one set with each of another: the number of bits
    that both have, over the number that either has. Two without any bit are alike, 1.

    Needs no RDKit.
    """
    # Products of zeros and ones: float32 has the counts exactly.
    both = (a.astype(np.float32) @ b.astype(np.float32).T).astype(np.float64)
    either = a.sum(1, dtype=np.float64)[:, None] + b.sum(1, dtype=np.float64) - both
    return np.where(either == 0, 1.0, both / np.maximum(either, 1.0))


def diversity(smiles: Sequence[str], values: Num[Array | np.ndarray, " n"], k: int = 100) -> float:
    """Mean Tanimoto distance, 1 - similarity, over all pairs of the k molecules of highest value;
    of equal values the earlier come first. A molecule that is there twice counts twice.

    **Errors:** `ImportError` without RDKit; `ValueError` naming a SMILES that RDKit refuses, or
    where there are fewer than two molecules.
    """
    best = np.argsort(-np.asarray(values, np.float64), kind="stable")[:k]
    if len(smiles) != len(values) or len(best) < 2:
        raise ValueError("diversity needs two molecules or more, and a value for each.")
    bits = fingerprints([smiles[int(place)] for place in best])
    pairs = np.triu_indices(len(best), 1)
    return float(np.mean(1 - tanimoto(bits, bits)[pairs]))


def draw(smiles: Sequence[str], labels: Sequence[str] | None = None, *, columns: int = 4) -> str:
    """A picture of molecules in a grid, as SVG that needs nothing beside itself.

    Bonds, carbon and labels have the colour of the text around it (in a file of its own black, or
    white where dark colours are preferred), other elements one that can be read on either.

    **Arguments:** `labels`: a short line for below each molecule; `columns` >= 1 of the grid.

    **Errors:** `ImportError` without RDKit; `ValueError` naming a SMILES that RDKit refuses, or
    where there is none, or there are not as many labels as molecules.
    """
    if len(smiles) == 0:
        raise ValueError("there is nothing to draw: give one molecule or more.")
    if labels is not None and len(labels) != len(smiles):
        raise ValueError(f"{len(smiles)} molecules have {len(labels)} labels: give as many.")
    if columns < 1:
        raise ValueError(f"columns must be >= 1, got {columns}.")
    columns = min(columns, len(smiles))
    height = _CELL[1] + (0 if labels is None else _LABEL)
    width, total = columns * _CELL[0], -(-len(smiles) // columns) * height
    size = f'viewBox="0 0 {width} {total}" width="{width}" height="{total}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" class="molecules">',
        "<title>Molecules</title>",
        "<style>@media (prefers-color-scheme: dark) { svg.molecules:root { color: #fff } }</style>",
    ]
    for place, text in enumerate(smiles):
        x, y = place % columns * _CELL[0], place // columns * height
        parts.append(f'<g transform="translate({x} {y})">\n{_paths(_molecule(text))}')
        if labels is not None:
            at = f'x="{_CELL[0] / 2:g}" y="{_CELL[1] + 0.6 * _LABEL:g}" text-anchor="middle"'
            font = 'font-family="system-ui, sans-serif" font-size="12" fill="currentColor"'
            parts.append(f"<text {at} {font}>{html.escape(labels[place])}</text>")
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"])


_CELL, _LABEL = (200, 150), 26
# Atomic number: red, green and blue. Each has a contrast of 3.5 or more with white and near-black.
_COLOURS = {
    7: (0.18, 0.50, 0.82),
    8: (0.84, 0.27, 0.27),
    9: (0.08, 0.57, 0.37),
    16: (0.64, 0.46, 0.0),
    17: (0.08, 0.57, 0.37),
}
_INK = (0.0, 0.0, 0.0)
_LINE = 1.5
_BEGIN = "<!-- END OF HEADER -->"


def _rdkit(name: str) -> Any:
    """A part of `rdkit.Chem`."""
    try:
        return importlib.import_module(f"rdkit.Chem.{name}")
    except ImportError as error:
        raise ImportError("molecules need RDKit: pip install 'didact[chem]'.") from error


@functools.lru_cache(maxsize=4096)
def _molecule(smiles: str) -> Any:
    with _quiet():
        molecule = _rdkit("rdmolfiles").MolFromSmiles(smiles)
    if molecule is None:
        raise ValueError(f"RDKit cannot read the SMILES {smiles!r}.")
    return molecule


def _chain(digits: list[int], parts: list[Any], blocks: Blocks) -> str:
    chem = _rdkit("rdchem")
    chain = chem.RWMol()
    right = None
    for digit in digits:
        first = chain.GetNumAtoms()
        left, next_right = (first + atom for atom in blocks.attach[digit])
        chain.InsertMol(parts[digit])
        if right is not None:
            chain.AddBond(right, left, chem.BondType.SINGLE)
            for atom in map(chain.GetAtomWithIdx, (right, left)):
                atom.SetNumExplicitHs(max(atom.GetNumExplicitHs() - 1, 0))
        right = next_right
    try:
        with _quiet():
            _rdkit("rdmolops").SanitizeMol(chain)
    except ValueError as error:
        names = " + ".join(blocks.smiles[digit] for digit in digits)
        raise ValueError(f"the blocks {names} make no molecule: {error}") from error
    return _rdkit("rdmolfiles").MolToSmiles(chain)


def _quiet() -> Any:
    """RDKit prints what it refuses, and our errors say so."""
    _rdkit("rdchem")
    return importlib.import_module("rdkit.rdBase").BlockLogs()


def _paths(molecule: Any) -> str:
    """The lines and letters of a molecule, within `_CELL`."""
    drawing = _rdkit("Draw.rdMolDraw2D")
    drawer = drawing.MolDraw2DSVG(*_CELL)
    options = drawer.drawOptions()
    options.clearBackground = False
    options.bondLineWidth = _LINE
    options.minFontSize = 8
    options.setAtomPalette({-1: _INK, 6: _INK} | _COLOURS)
    drawing.PrepareAndDrawMolecule(drawer, molecule)
    drawer.FinishDrawing()
    text = drawer.GetDrawingText()
    text = text[text.index(_BEGIN) + len(_BEGIN) : text.rindex("</svg>")].strip()
    text = text.replace("#000000", "currentColor")
    # What all lines have in common is half of the text, and the names of classes are used nowhere.
    text = re.sub(r" class='[^']*'", "", text)
    text = re.sub(r"style='fill:none;[^']*?stroke:([^;']+)[^']*'", r"stroke='\1'", text)
    return f'<g fill="none" stroke-width="{_LINE}">\n{text}\n</g>'


__all__ = ["assemble", "available", "diversity", "draw", "fingerprints", "tanimoto"]

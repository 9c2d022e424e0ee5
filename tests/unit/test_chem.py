"""Molecules: chains of blocks, fingerprints, distances and pictures."""

import json
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from didact import chem
from didact._blocks import Blocks

pytest.importorskip("rdkit", reason="needs RDKit: pip install 'didact[chem]'")

# -O-CH2-, -S-, a pyrrole that is bound at its nitrogen and at a carbon, fluorine.
BLOCKS = Blocks(
    "csnf", ("CO", "S", "c1cc[nH]c1", "F"), ((1, 0), (0, 0), (3, 0), (0, 0)), ("", "", "", "")
)
ASPIRIN, CAFFEINE = "CC(=O)Oc1ccccc1C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O"


def data(*parts: str) -> Path:
    """A file of the converted data; the test is skipped without them."""
    folder = os.environ.get("DIDACT_DATA_DIR")
    if folder is None:
        pytest.skip("needs the converted data sets: set DIDACT_DATA_DIR")
    return Path(folder, *parts)


def blocks_of(task: str) -> Blocks:
    return Blocks.from_json(json.loads(data(task, "blocks.json").read_text()))


@pytest.mark.parametrize("task", ["qm9str", "sehstr"])
def test_chains_are_the_published_molecules(task):
    blocks = blocks_of(task)
    examples = json.loads(data("molecule_examples.json").read_text())[task]
    digits = [[blocks.alphabet.index(letter) for letter in one["string"]] for one in examples]
    assert chem.assemble(np.asarray(digits), blocks) == [one["smiles"] for one in examples]


def test_chains_by_hand():
    smiles = chem.assemble(np.asarray([[0, 0], [0, 1], [1, 0], [2, 0], [0, 2], [3, 2]]), BLOCKS)
    # The pyrrole is bound at its nitrogen to the left and at a carbon to the right.
    assert smiles == ["COCO", "OCS", "COS", "COc1cc[nH]c1", "OCn1cccc1", "Fn1cccc1"]
    assert chem.assemble(np.asarray([[1]]), BLOCKS) == ["S"]
    assert chem.assemble(np.zeros((0, 3), int), BLOCKS) == []


def test_what_is_no_molecule_is_refused(capfd):
    with pytest.raises(ValueError, match=r"the blocks S \+ F \+ F make no molecule: .*valence"):
        chem.assemble(np.asarray([[0, 0, 0], [1, 3, 3]]), BLOCKS)
    with pytest.raises(ValueError, match="numbers of blocks, from 0 to 3"):
        chem.assemble(np.asarray([[0, 4]]), BLOCKS)
    with pytest.raises(ValueError, match=r"cannot read the SMILES 'C\(\('"):
        chem.assemble(np.asarray([[0]]), Blocks("a", ("C((",), ((0, 0),), ("",)))
    with pytest.raises(ValueError, match=r"block CO has no atoms \(0, 2\): it has 2"):
        chem.assemble(np.asarray([[0]]), Blocks("a", ("CO",), ((0, 2),), ("",)))
    for function in (chem.fingerprints, chem.draw):
        with pytest.raises(ValueError, match=r"cannot read the SMILES 'c1ccccc'"):
            function(["CC", "c1ccccc"])
    assert capfd.readouterr().err == ""  # RDKit would print it all once more


def test_fingerprints_know_molecules_and_not_their_spelling():
    bits = chem.fingerprints(["OCC", "CCO", "CCN", ""])
    assert bits.shape == (4, 1024)
    assert set(np.unique(bits)) == {0, 1}
    np.testing.assert_array_equal(bits[0], bits[1])
    assert np.any(bits[0] != bits[2])
    assert not np.any(bits[3])


def test_similarities_are_those_of_rdkit():
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    smiles = ["CCO", "CCN", "c1ccccc1O", ASPIRIN, CAFFEINE]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    theirs = [generator.GetFingerprint(Chem.MolFromSmiles(one)) for one in smiles]
    expected = [DataStructs.BulkTanimotoSimilarity(one, theirs) for one in theirs]
    bits = chem.fingerprints(smiles)
    np.testing.assert_array_equal(chem.tanimoto(bits, bits), expected)
    np.testing.assert_array_equal(chem.tanimoto(bits[:2], bits[1:]), np.asarray(expected)[:2, 1:])


def test_similarities_by_hand():
    bits = np.asarray([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], np.uint8)
    expected = [[1, 1 / 4, 0], [1 / 4, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(chem.tanimoto(bits, bits), expected)


def test_the_published_modes_of_seh_are_far_apart():
    with np.load(data("sehstr", "sehstr_modes.npz"), allow_pickle=False) as file:
        modes = file["modes"].astype(np.int64)[:60]
    digits = modes[:, None] // 18 ** np.arange(5, -1, -1) % 18
    bits = chem.fingerprints(chem.assemble(digits, blocks_of("sehstr")))
    distance = 1 - chem.tanimoto(bits, bits)[np.triu_indices(len(bits), 1)]
    assert np.min(distance) > 0.4
    assert np.min(distance) < 0.45  # it is the rule that keeps them apart


def test_the_diversity_of_the_best():
    smiles = [ASPIRIN, "CCO", CAFFEINE, "CCO"]
    bits = chem.fingerprints(smiles)
    distance = 1 - chem.tanimoto(bits, bits)
    three = (distance[0, 1] + distance[0, 3] + distance[1, 3]) / 3
    values = np.asarray([3.0, 2.0, -1.0, 2.0])
    assert chem.diversity(smiles, values, k=3) == pytest.approx(three)
    assert chem.diversity(smiles, values, k=2) == pytest.approx(distance[0, 1])
    assert chem.diversity(["CCO", "OCC"], np.zeros(2)) == 0
    for wrong in ((smiles[:1], values[:1]), (smiles, values[:2])):
        with pytest.raises(ValueError, match="needs two molecules or more, and a value for each"):
            chem.diversity(*wrong)


def test_pictures():
    picture = chem.draw([ASPIRIN, "CC(N)S", "CCF"], ["a", "<b> & c", "d"], columns=2)
    root = ET.fromstring(picture)
    svg = "{http://www.w3.org/2000/svg}"
    assert root.get("viewBox") == "0 0 400 352"
    assert [text.text for text in root.iter(f"{svg}text")] == ["a", "<b> & c", "d"]
    places = [group.get("transform") for group in root.findall(f"{svg}g")]
    assert places == ["translate(0 0)", "translate(200 0)", "translate(0 176)"]
    colours = {path.get(name) for path in root.iter(f"{svg}path") for name in ("stroke", "fill")}
    # Carbon has the colour of the page's text, the other elements have one each.
    assert "currentColor" in colours
    assert len(colours - {None, "none", "currentColor"}) == 4
    # Nothing is fetched, and no name of a class or an entity could collide with the page's own.
    assert picture.count("http") == picture.count('xmlns="http://www.w3.org/2000/svg"') == 1
    assert "id=" not in picture
    assert picture.count("class=") == 1


def test_pictures_without_labels_and_of_salts():
    root = ET.fromstring(chem.draw(["[Na+].[Cl-]", "C[C@H](F)O"]))
    assert root.get("viewBox") == "0 0 400 150"
    assert list(root.iter("{http://www.w3.org/2000/svg}text")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), None, 4), "nothing to draw"),
        ((("C",), ("a", "b"), 4), "1 molecules have 2 labels"),
        ((("C",), None, 0), "columns must be >= 1"),
    ],
)
def test_pictures_that_cannot_be_drawn(arguments, message):
    smiles, labels, columns = arguments
    with pytest.raises(ValueError, match=message):
        chem.draw(smiles, labels, columns=columns)


def test_without_rdkit(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "rdkit"]:
        monkeypatch.setitem(sys.modules, name, None)
    for function in (chem.fingerprints, chem.draw):
        with pytest.raises(ImportError, match=r"pip install 'didact\[chem\]'"):
            function(["CCCCCCC"])
    assert chem.tanimoto(np.ones((1, 3), np.uint8), np.ones((1, 3), np.uint8)) == 1

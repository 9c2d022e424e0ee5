"""The RNA targets: ViennaRNA's energies to the last digit, and what is known of all strings."""

import functools
import itertools
import json
import math
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact._config import from_json, to_json
from didact.targets import L14RNA1, L14RNA2, L14RNA3
from didact.targets._duplex import ANY, Duplex, loop_energies
from didact.targets._rna import _apart, _make_duplex, _numbers
from didact.targets._strings import strings_of

RNA = pytest.importorskip("RNA", reason="needs ViennaRNA: pip install 'didact[rna]'")

TARGETS = {"L14_RNA1": L14RNA1(), "L14_RNA2": L14RNA2(), "L14_RNA3": L14RNA3()}
every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
every_name = pytest.mark.parametrize("name", TARGETS)


@functools.cache
def data(name: str):
    """Arrays of the converted data of a target; the test is skipped without them."""
    folder = os.environ.get("DIDACT_DATA_DIR")
    if folder is None:
        pytest.skip("needs the converted data sets: set DIDACT_DATA_DIR")
    with np.load(Path(folder) / "rna" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def letters(digits) -> str:
    return "".join("UCGA"[digit] for digit in digits)


def vienna(target, digits) -> np.ndarray:
    """What ViennaRNA says, in kcal/mol."""
    hidden = target.facts.target
    return np.asarray([RNA.duplexfold(hidden, letters(row)).energy for row in digits])


def binders(target, n: int, length: int, rng) -> np.ndarray:
    """Strings that bind well but for some letters inserted or left out: their duplexes have loops
    of all kinds.
    """
    complement = ["ACGU".index(letter) for letter in reversed(target.facts.target)]
    complement = np.asarray([0, 2, 1, 3])[complement]  # A and U, C and G
    strings = np.empty((n, length), np.int64)
    for row in strings:
        start, cut = rng.integers(0, 70), rng.integers(1, length)
        gap = rng.integers(0, 31 - length)
        kept = [complement[start : start + cut], complement[start + cut + gap :]]
        extra = rng.integers(0, 4, rng.integers(0, 6))
        row[:] = np.concatenate([kept[0], extra, kept[1], rng.integers(0, 4, length)])[:length]
    return strings


@every_target
def test_energies_are_those_of_viennarna(target):
    rng = np.random.default_rng(0)
    strings = np.concatenate([rng.integers(0, 4, (700, 14)), binders(target, 300, 14, rng)])
    np.testing.assert_array_equal(target.energy(strings), vienna(target, strings))


def test_the_strings_that_bind_have_large_loops():
    # What the test above says of large loops needs duplexes that contain them.
    rng = np.random.default_rng(0)
    hidden, seen = L14RNA1().facts.target, set()
    for row in binders(L14RNA1(), 500, 14, rng):
        upper, lower = RNA.duplexfold(hidden, letters(row)).structure.split("&")
        pairs = [i for i, sign in enumerate(upper) if sign == "("]
        other = [j for j, sign in enumerate(reversed(lower)) if sign == ")"]
        seen |= set(zip(np.diff(pairs) - 1, np.diff(other) - 1, strict=True))
    assert {(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2)} <= seen
    assert any(u > 6 and v == 0 for u, v in seen)
    assert any(u == 0 and v > 1 for u, v in seen)
    assert any(u > 2 and v == 1 for u, v in seen)
    assert any(u > 3 and v > 1 for u, v in seen)


@every_name
def test_energies_of_the_check_strings(name):
    check = data(name)
    strings = strings_of(check["check_index"].astype(np.int64), 4, 14)
    expected = check["check_energy"] / 100
    np.testing.assert_array_equal(TARGETS[name].energy(strings), expected)
    values = expected / check["norm_value"]
    np.testing.assert_allclose(TARGETS[name].value(strings), values, rtol=1e-6)


def test_longer_strings():
    target, rng = L14RNA3(), np.random.default_rng(1)
    duplex = Duplex(loop_energies(target.facts.target, 20), 20)
    strings = np.concatenate([rng.integers(0, 4, (100, 20)), binders(target, 200, 20, rng)])
    np.testing.assert_array_equal(duplex.energies(strings) / 100, vienna(target, strings))


@every_name
def test_energy_parameters_are_those_of_the_data(name):
    hidden = letters(data(name)["target"])
    assert hidden == TARGETS[name].facts.target
    file = Path(os.environ["DIDACT_DATA_DIR"]) / "rna" / f"{name}_loops.npz"
    with np.load(file, allow_pickle=False) as loops:
        expected = {key: loops[key] for key in loops}
    tables = loop_energies(hidden, 14)
    small = {"stack": (0, 0), "b10": (1, 0), "b01": (0, 1), "i11": (1, 1)}
    small |= {"i21": (2, 1), "i12": (1, 2), "i22": (2, 2)}
    ours = {"start": tables.start, "end": tables.end}
    ours |= {key: tables.small[loop] for key, loop in small.items()}
    for key, kind in {"B": "bulge", "1": "1xn", "2": "2x3", "I": "generic"}.items():
        size, outer, inner = tables.large[kind]
        ours |= {f"F_{key}": outer, f"G_{key}": inner}
        np.testing.assert_array_equal(size, expected.pop(f"H_{key}"))
    assert ours.keys() == expected.keys()
    for key, table in ours.items():
        # Position 0 there stands for nothing.
        np.testing.assert_array_equal(table, expected[key][..., 1:], err_msg=key)


def test_any_letter_gives_a_lower_bound():
    rng = np.random.default_rng(2)
    duplex = _make_duplex(L14RNA1().facts)
    strings = np.concatenate([rng.integers(0, 4, (20, 14)), binders(L14RNA1(), 20, 14, rng)])
    open_places = np.asarray([rng.choice(14, 3, replace=False) for _ in strings])
    best = np.full(len(strings), 8_000)
    for choice in itertools.product(range(4), repeat=3):
        strings[np.arange(len(strings))[:, None], open_places] = choice
        best = np.minimum(best, duplex.energies(strings))
    strings[np.arange(len(strings))[:, None], open_places] = ANY
    bound = duplex.energies(strings)
    assert np.all(bound <= best)
    assert np.mean(bound == best) > 0.5  # and most often a good one


def test_all_strings_below_an_energy():
    duplex = Duplex(loop_energies(L14RNA1().facts.target, 6), 6)
    strings = np.asarray(list(itertools.product(range(4), repeat=6)))
    energies = duplex.energies(strings)
    np.testing.assert_array_equal(energies[::16] / 100, vienna(L14RNA1(), strings[::16]))
    for energy in (-1_200, -700, 500):
        np.testing.assert_array_equal(duplex.strings_below(energy), strings[energies <= energy])
    assert len(duplex.strings_below(-5_000)) == 0


# Finding the modes takes four seconds for each target.
first_target = pytest.mark.parametrize(
    "name", ["L14_RNA1", *(pytest.param(n, marks=pytest.mark.slow) for n in list(TARGETS)[1:])]
)


@first_target
def test_the_number_of_a_mode(name):
    target = TARGETS[name]
    modes = strings_of(target.modes().astype(np.int64), 4, 14)
    assert len(modes) == target.num_modes
    assert np.all(target.energy(modes) <= target.facts.known.mode_energy / 100)
    index = jax.jit(jax.vmap(target.mode_index))
    np.testing.assert_array_equal(index(jnp.asarray(modes, jnp.int32)), np.arange(len(modes)))
    # One letter away from a mode there is none.
    modes[:, 5] = (modes[:, 5] + 1) % 4
    np.testing.assert_array_equal(index(jnp.asarray(modes, jnp.int32)), -1)


@first_target
def test_the_modes_are_the_published_ones(name):
    np.testing.assert_array_equal(TARGETS[name].modes(), np.sort(data(name)["modes"]))


def test_energies_of_many_while_a_program_is_traced():
    # `mode_index` needs them there when it is called for the first time.
    zeros, found = np.zeros((3, 14), np.int64), []
    jax.eval_shape(lambda x: found.append(L14RNA1().energy(zeros)) or x, 1.0)
    np.testing.assert_array_equal(found[0], vienna(L14RNA1(), zeros))


def test_strings_are_left_out_beside_one_that_comes_earlier():
    rng = np.random.default_rng(3)
    strings = np.unique(np.tile(rng.integers(0, 4, (8, 14)), (40, 1)), axis=0).repeat(30, axis=0)
    changed = rng.integers(0, 14, (len(strings), 2))
    strings[np.arange(len(strings))[:, None], changed] = rng.integers(0, 4, changed.shape)
    strings = np.unique(strings, axis=0)
    expected: list[str] = []
    for string in sorted("".join("1230"[digit] for digit in row) for row in strings):
        if all(sum(a != b for a, b in zip(string, kept, strict=True)) > 1 for kept in expected):
            expected.append(string)
    assert 0.1 < len(expected) / len(strings) < 0.9
    assert ["".join("1230"[digit] for digit in row) for row in _apart(strings)] == expected


@every_name
def test_the_facts_follow_from_the_histogram_of_all_strings(name):
    target, facts = TARGETS[name], TARGETS[name].facts
    levels, counts = (data(name)[key].astype(np.int64) for key in ("hist_energy", "hist_count"))
    assert counts.sum() == 4**14
    summary = target.summary(levels, counts)
    assert summary[:2] == facts.known[:2]
    np.testing.assert_allclose(summary[2:], facts.known[2:], rtol=1e-12)
    assert (target.log_z, target.expected_value) == facts.known[2:]
    expected = json.loads((Path(os.environ["DIDACT_DATA_DIR"]) / "expected.json").read_text())[name]
    assert target.log_z == pytest.approx(expected["logZ_of_floored_reward"], rel=1e-12)
    assert target.expected_value == pytest.approx(
        expected["expected_real_reward_of_floored"], rel=1e-12
    )
    # Without the floor of the reward, these are the published numbers.
    assert target.log_z == pytest.approx(expected["logZ_scaled"], abs=1e-5)
    assert target.expected_value == pytest.approx(expected["expected_reward"], abs=1e-5)


def test_a_part_of_the_histogram():
    target, start = L14RNA2(), 180_000_000
    levels, counts = target.histogram(start, start + 400)
    energies = np.rint(100 * vienna(target, strings_of(np.arange(start, start + 400), 4, 14)))
    expected = np.unique(energies, return_counts=True)
    np.testing.assert_array_equal((levels, counts), expected)


@every_target
def test_the_energy_of_a_perfect_partner(target):
    hidden = target.facts.target
    partner = hidden[::-1].translate(str.maketrans("ACGU", "UGCA"))
    assert RNA.duplexfold(partner, hidden).energy == target.facts.perfect_energy / 100


def test_numbers_of_strings():
    numbers = np.asarray([0, 1, 4, 4**13, 4**14 - 1])
    digits = strings_of(numbers, 4, 14)
    np.testing.assert_array_equal(digits[1:4, [0, -2, -1]], [[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(_numbers(digits), numbers)


def test_log_rewards():
    target, rng = L14RNA1(), np.random.default_rng(4)
    strings = np.concatenate([rng.integers(0, 4, (30, 14)), binders(target, 30, 14, rng)])
    strings[0] = ["UCGA".index(letter) for letter in "GGGGGCCCCGCGCG"]  # the best
    strings[1] = 2 * [0, 3, 3, 0, 3, 3, 0]
    value = np.asarray(target.value(strings), np.float64)
    expected = np.log(10 * (np.maximum(value, 0.001) / 1.0545394628439608) ** 40 + 1e-12)
    x = jnp.asarray(strings, jnp.int32)
    log_reward = jax.jit(jax.vmap(target.log_reward))(x)
    assert log_reward.dtype == jnp.float32
    np.testing.assert_allclose(log_reward, expected, atol=2e-5)
    assert log_reward[0] == pytest.approx(math.log(10), abs=2e-5)
    assert np.min(log_reward) == pytest.approx(math.log(1e-12))
    assert target.max_value == pytest.approx(1.0545394628439608, rel=1e-12)
    # Values are traced with axes of batches too.
    np.testing.assert_allclose(
        jax.jit(target.value)(x.reshape(3, 20, 14)).ravel(), value, rtol=1e-6
    )
    # In batches of batches, as with several seeds, the numbers are the same.
    nested = jax.jit(jax.vmap(jax.vmap(target.log_reward)))(x.reshape(3, 20, 14))
    np.testing.assert_array_equal(nested.ravel(), log_reward)


def test_what_the_target_says_of_its_strings():
    target = L14RNA1()
    assert (target.alphabet, target.num_symbols, target.length) == ("UCGA", 4, 14)


@every_target
def test_round_trip_through_json(target):
    assert from_json(json.loads(json.dumps(to_json(target)))) == target
    assert jax.tree.leaves(target) == []


def test_other_strings_are_refused():
    target = L14RNA1()
    for method in (target.log_reward, target.mode_index):
        with pytest.raises(ValueError, match="x must have shape"):
            jax.eval_shape(method, jnp.zeros(13, jnp.int32))
    with pytest.raises(ValueError, match="must have 14 digits"):
        target.value(np.zeros((2, 13), int))
    for digit in (4, -1):
        with pytest.raises(ValueError, match="digits of strings are 0 to 3"):
            target.value(np.full((2, 14), digit))


def test_other_energy_parameters_are_refused(monkeypatch):
    monkeypatch.setattr(RNA.cvar, "temperature", 20.0)
    with pytest.raises(ValueError, match="has other energy parameters"):
        _make_duplex.__wrapped__(L14RNA1().facts)


def test_without_viennarna(monkeypatch):
    monkeypatch.setitem(sys.modules, "RNA", None)
    assert L14RNA1().log_z > 0
    with pytest.raises(ImportError, match=r"pip install 'didact\[rna\]'"):
        _make_duplex.__wrapped__(L14RNA1().facts)

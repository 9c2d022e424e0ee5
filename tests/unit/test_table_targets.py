"""Targets on strings whose values are data: rewards, log Z, modes, against published numbers."""

import itertools
import json
import math
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from didact import datasets
from didact._config import from_json, to_json
from didact.datasets import _trees
from didact.targets import QM9, SEH, TFBind8
from didact.targets._strings import RewardLaw, StringTarget, facts_of, number_of

DATA = os.environ.get("DIDACT_DATA_DIR")
needs_data = pytest.mark.skipif(
    not DATA, reason="needs `didact data fetch all` and DIDACT_DATA_DIR"
)
TARGETS = {"qm9": QM9, "seh": SEH, "tfbind8": TFBind8}

# log Z of the training reward, expectation of the value, largest value, logarithm of the scale,
# modes, least log-reward, alphabet and length.
FACTS = {
    "qm9": (4.748651, 16.774511, 17.374775, math.log(1.590802e-23), 805, -27.631021, 11, 5),
    "tfbind8": (8.335001, 0.922415, 1.0, math.log(10), 328, -46.051702, 4, 8),
    "seh": (17.552394, 5.392750, 7.033253, math.log(8.261569e-05), 129, -50.847843, 18, 6),
}
VALUES = {
    "qm9": {
        "00000": 8.592600,
        "0123a": 8.239674,
        "57892": 5.334311,
        "aaaaa": 8.529068,
        "11111": 17.374775,
    },
    "seh": {
        "000000": 3.498996,
        "012345": 4.541798,
        "abcdef": 1.579854,
        "hhhhhh": 6.104047,
        "ag550c": 7.033253,
    },
    "tfbind8": {},
}


@pytest.fixture(scope="module")
def made() -> dict[str, StringTarget]:
    """Each target, made once."""
    return {name: target() for name, target in TARGETS.items()}


def digits_of(target: StringTarget, strings: list[str]) -> Array:
    return jnp.asarray([[target.alphabet.index(c) for c in s] for s in strings], jnp.int32)


# ---- without data -----------------------------------------------------------------------------


@pytest.mark.parametrize("adds", [False, True])
def test_the_law_is_its_formula(adds: bool) -> None:
    law = RewardLaw(beta=6.0, max_reward=10.0, max_value=7.0, floor=1e-9, adds=adds)
    value = np.array([-3.0, 0.0, 1e-3, 0.01, 0.1, 1.0, 5.0, 7.0])
    reward = np.maximum(value, 1e-3) ** 6 * (10 / 7**6)
    reward = reward + 1e-9 if adds else np.maximum(reward, 1e-9)
    np.testing.assert_allclose(law.log_reward(value, np), np.log(reward), atol=1e-12)
    np.testing.assert_allclose(law.log_reward(jnp.asarray(value)), np.log(reward), rtol=3e-6)
    assert law.log_scale == pytest.approx(math.log(10 / 7**6))


def test_a_law_far_from_1_does_not_overflow() -> None:
    law = RewardLaw(beta=2_000.0, max_reward=1e300, max_value=7.0, floor=1e-300, adds=True)
    found = law.log_reward(jnp.asarray([0.0, 7.0]))
    np.testing.assert_allclose(found, [math.log(1e-300), math.log(1e300)], rtol=1e-6)
    facts = facts_of(law, [np.array([0.0, 7.0, 7.0])])
    assert facts.log_z == pytest.approx(math.log(2) + math.log(1e300))
    assert facts.expected_value == pytest.approx(7)


def test_facts_are_sums_over_all_blocks() -> None:
    law = RewardLaw(beta=2.0, max_reward=3.0, max_value=4.0, floor=0.1, adds=False)
    value = np.array([-1.0, 0.5, 2.0, 4.0])
    reward = np.array([0.1, 0.1, 0.75, 3.0])
    facts = facts_of(law, [value[:1], value[1:]])
    assert facts.log_z == pytest.approx(math.log(reward.sum()))
    assert facts.expected_value == pytest.approx(reward @ np.maximum(value, 1e-3) / reward.sum())


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_what_a_law_cannot_be(bad: float) -> None:
    with pytest.raises(ValueError, match="beta must be > 0 and finite"):
        RewardLaw(bad, 1.0, 1.0, 1.0, adds=True)
    with pytest.raises(ValueError, match="max_reward must be > 0 and finite"):
        RewardLaw(1.0, bad, 1.0, 1.0, adds=True)


def test_numbers_are_in_lexicographic_order() -> None:
    strings = np.array(list(itertools.product(range(3), repeat=4)), np.int32)
    np.testing.assert_array_equal(number_of(strings, 3), np.arange(81))


@pytest.mark.parametrize("name", TARGETS)
def test_without_data_the_remedy_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_DATA_DIR", str(tmp_path))
    with pytest.raises(datasets.MissingData, match=f"didact data fetch {name}$"):
        TARGETS[name]()


# ---- with data --------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("name", TARGETS)
def test_the_published_numbers(name: str, made: dict[str, StringTarget]) -> None:
    target = made[name]
    log_z, expected, largest, log_scale, modes, least, symbols, length = FACTS[name]
    assert target.log_z == pytest.approx(log_z, abs=1e-6)
    assert target.expected_value == pytest.approx(expected, abs=1e-6)
    assert target.max_value == pytest.approx(largest, abs=1e-6)
    assert target.log_scale == pytest.approx(log_scale, abs=1e-6)
    assert (target.num_modes, target.num_symbols, target.length) == (modes, symbols, length)
    for text, value in VALUES[name].items():
        (x,) = digits_of(target, [text])
        assert float(target.value(x)) == pytest.approx(value, abs=1e-5)
    # Of a value that counts as the least there is.
    assert target.law.log_reward(np.float64(-1), np) == pytest.approx(least, abs=1e-6)


@needs_data
@pytest.mark.parametrize("name", ["qm9", "tfbind8"])
def test_all_strings_of_a_table(name: str, made: dict[str, StringTarget]) -> None:
    target = made[name]
    table = datasets.load(name)["rewards"]
    x = _trees.digits_of(np.arange(len(table)), target.num_symbols, target.length)
    np.testing.assert_array_equal(eqx.filter_jit(type(target).value)(target, x), table)
    log_reward = np.asarray(jax.jit(jax.vmap(target.log_reward))(x))
    assert log_reward.dtype == np.float32
    total = np.logaddexp.reduce(log_reward.astype(np.float64))
    assert total == pytest.approx(target.log_z, abs=1e-5)
    assert log_reward.max() == pytest.approx(math.log(target.max_reward), abs=1e-6)
    # In float64, from the formula itself.
    raised = (np.maximum(table, 1e-3).astype(np.float64) / target.max_value) ** 20
    exact = raised * target.max_reward
    exact = exact + 1e-12 if name == "qm9" else np.maximum(exact, 1e-20)
    np.testing.assert_allclose(log_reward, np.log(exact), atol=3e-5)


@needs_data
def test_trees_predict_what_scikit_learn_predicted(made: dict[str, StringTarget]) -> None:
    assert DATA is not None
    path = Path(DATA) / "sehstr" / "sehstr_check.npz"
    if not path.is_file():
        pytest.skip("needs predictions of scikit-learn, which are not among the fetched data")
    with np.load(path, allow_pickle=False) as file:
        index, prediction = file["index"], file["prediction"]
    np.testing.assert_array_equal(_trees.predict(datasets.load("seh"), index), prediction)
    x = _trees.digits_of(index, 18, 6)
    np.testing.assert_allclose(made["seh"].value(x), prediction, atol=1e-5)


@needs_data
def test_trees_on_the_device_and_on_the_host_agree(made: dict[str, StringTarget]) -> None:
    index = np.random.default_rng(0).integers(18**6, size=4_096)
    x = _trees.digits_of(index, 18, 6)
    exact = _trees.predict(datasets.load("seh"), index)
    np.testing.assert_allclose(eqx.filter_jit(SEH.value)(made["seh"], x), exact, atol=1e-5)
    block = next(_trees.table_blocks(datasets.load("seh"), rows=2)).reshape(-1)
    np.testing.assert_allclose(
        block, _trees.predict(datasets.load("seh"), np.arange(len(block))), atol=1e-12
    )


@needs_data
@pytest.mark.slow
def test_all_strings_of_the_trees(made: dict[str, StringTarget]) -> None:
    target = made["seh"]
    assert isinstance(target, SEH)
    table = target.table()
    assert table.shape == (34_012_224,)
    assert table.dtype == np.float64
    assert table.max() == pytest.approx(target.max_value, abs=1e-12)
    assert table.argmax() == int(number_of(digits_of(target, ["ag550c"]), 18)[0])
    facts = facts_of(target.law, [table])
    assert facts.log_z == pytest.approx(target.log_z, abs=1e-9)
    assert facts.expected_value == pytest.approx(target.expected_value, abs=1e-9)
    # Of another law, which nobody computed before; and log R falls below the floor.
    other = SEH(beta=20.0, max_reward=1e-3)
    facts = facts_of(other.law, [table])
    assert other.log_z == pytest.approx(facts.log_z, abs=1e-9)
    assert other.expected_value == pytest.approx(facts.expected_value, abs=1e-9)
    log_reward = np.maximum(
        20 * np.log(np.maximum(table, 1e-3) / table.max()) + math.log(1e-3), math.log(1e-32)
    )
    assert other.log_z == pytest.approx(np.logaddexp.reduce(log_reward), abs=1e-8)


@needs_data
def test_a_factor_of_the_reward_adds_to_log_z(made: dict[str, StringTarget]) -> None:
    for name, target in made.items():
        twice = TARGETS[name](max_reward=2 * target.max_reward)
        assert twice.log_z == pytest.approx(target.log_z + math.log(2), abs=1e-8)
        assert twice.expected_value == pytest.approx(target.expected_value, abs=1e-6)
        modes = _trees.digits_of(target.modes(), target.num_symbols, target.length)
        x = jnp.asarray(modes[0])
        difference = twice.log_reward(x) - target.log_reward(x)
        assert float(difference) == pytest.approx(math.log(2), abs=1e-5)


@needs_data
@pytest.mark.parametrize("name", TARGETS)
def test_modes_are_numbered_and_nothing_else_is(name: str, made: dict[str, StringTarget]) -> None:
    target = made[name]
    modes = target.modes()
    assert modes.tolist() == sorted(datasets.load(name)["modes"].tolist())
    last = target.num_symbols**target.length - 1
    others = np.setdiff1d(np.concatenate([modes - 1, modes + 1, [0, last]]).clip(0, last), modes)
    index = jax.jit(jax.vmap(target.mode_index))
    x = _trees.digits_of(modes, target.num_symbols, target.length)
    np.testing.assert_array_equal(index(x), np.arange(len(modes)))
    x = _trees.digits_of(others, target.num_symbols, target.length)
    assert np.all(np.asarray(index(x)) == -1)


@needs_data
@pytest.mark.parametrize("name", TARGETS)
def test_one_string_at_a_time_or_many(name: str, made: dict[str, StringTarget]) -> None:
    target = made[name]
    random = np.random.default_rng(0)
    x = random.integers(target.num_symbols, size=(3, 2, target.length)).astype(np.int32)
    values = np.asarray(target.value(x))
    assert values.shape == (3, 2)
    np.testing.assert_allclose(target.value(jnp.asarray(x[1, 1])), values[1, 1], rtol=1e-6)
    log_reward = target.log_reward(jnp.asarray(x[1, 1]))
    assert log_reward.shape == ()
    np.testing.assert_allclose(log_reward, target.law.log_reward(values[1, 1], np), rtol=1e-5)
    for wrong in (x[0, 0, :-1], np.append(x[0, 0], x[0, 0, :1])):
        with pytest.raises(ValueError, match=rf"shape \({target.length},\)"):
            target.log_reward(jnp.asarray(wrong))
        with pytest.raises(ValueError, match=rf"shape \({target.length},\)"):
            target.mode_index(jnp.asarray(wrong))
    with pytest.raises(ValueError, match=f"must have {target.length} digits"):
        target.value(x[..., :-1])


@needs_data
@pytest.mark.parametrize("name", TARGETS)
def test_a_digit_without_a_letter_makes_no_other_string(
    name: str, made: dict[str, StringTarget]
) -> None:
    """(0, A) has the number of (1, 0), which is another string."""
    target = made[name]
    good = np.zeros(target.length, np.int32)
    for place, digit in itertools.product((0, target.length - 1), (target.num_symbols, -1)):
        x = good.copy()
        x[place] = digit
        for method in (target.value, target.log_reward, target.mode_index):
            with pytest.raises(ValueError, match=rf"are 0 to {target.num_symbols - 1}, got"):
                method(jnp.asarray(x))
        value, log_reward, mode = jax.jit(
            lambda x: (target.value(x), target.log_reward(x), target.mode_index(x))
        )(x)
        assert np.isnan(value)
        assert np.isnan(log_reward)
        assert mode == -1


@needs_data
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_saved_by_its_arguments(name: str, made: dict[str, StringTarget]) -> None:
    target = made[name]
    text = json.dumps(to_json(target))
    assert len(text) < 100
    assert eqx.tree_equal(from_json(json.loads(text)), target)
    with pytest.raises(ValueError, match="does not fit"):
        from_json(to_json(target) | {"beta": "6"})


@needs_data
@pytest.mark.parametrize("name", TARGETS)
def test_tables_are_arguments_of_compiled_programs(
    name: str, made: dict[str, StringTarget]
) -> None:
    arrays, rest = eqx.partition(made[name], eqx.is_array)
    assert sum(leaf.size for leaf in jax.tree.leaves(arrays)) > 10_000
    assert not jax.tree.leaves(rest)

    def log_reward(arrays: StringTarget, x: Array) -> Array:
        return eqx.combine(arrays, rest).log_reward(x)

    x = jnp.zeros(made[name].length, jnp.int32)
    constants = jax.make_jaxpr(log_reward)(arrays, x).consts
    assert sum(np.size(constant) for constant in constants) < 200

"""What a Student finds among strings, and what draws say of their values."""

import csv
import io
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact import chem
from didact._blocks import Blocks
from didact._found import as_csv, find, string_columns
from didact.environments import Hypergrid, PrependAppend
from didact.metrics import (
    draw_statistics,
    evaluate_by_samples,
    evaluate_exactly,
    exact,
    mode_probabilities,
    strings,
)
from didact.objectives import TB
from didact.targets import DeceptiveGrid, HostReward, StringTarget
from didact.targets._strings import RewardLaw, facts_of, number_of

from .._tabular import network_sampler

TABLE = 0.5 + np.random.default_rng(0).random(27)
ALKANES = Blocks(
    "CNO", ("CC", "CNC", "COC"), ((0, 1), (0, 2), (0, 2)), ("ethane", "amine", "ether")
)


class Table(StringTarget):
    """27 strings of three letters, with a value each."""

    beta: float = eqx.field(static=True, default=3.0)
    max_reward: float = eqx.field(static=True, default=5.0)
    blocks: Blocks | None = eqx.field(static=True, default=None)
    alphabet: str = eqx.field(static=True, default="CNO")
    length: int = eqx.field(static=True, default=3)

    @property
    def law(self):
        return RewardLaw(3.0, 5.0, float(TABLE.max()), 1e-12, adds=True)

    @property
    def log_z(self):
        return facts_of(self.law, [TABLE])[0]

    @property
    def expected_value(self):
        return facts_of(self.law, [TABLE])[1]

    @property
    def mode_numbers(self):
        return jnp.asarray(np.sort(np.argsort(-TABLE)[:3]), jnp.int32)

    def value(self, x):
        return jnp.asarray(TABLE, jnp.float32)[number_of(x, 3)]


ENV = PrependAppend(3, 3)
NUMBERS = {"".join(s): i for i, s in enumerate(itertools.product("CNO", repeat=3))}


def sampler():
    return network_sampler(ENV, jax.random.key(1), sharpness=2.0)


def test_the_best_are_the_best_of_what_was_drawn():
    found = find(sampler(), Table(), seed=0, n=1000)
    assert found is not None
    best = found["best"]
    drawn = [NUMBERS[row["string"]] for row in best]
    assert len(set(drawn)) == len(drawn) == 27  # all of them come up in so many draws
    np.testing.assert_allclose([row["value"] for row in best], np.sort(TABLE)[::-1], rtol=1e-6)
    assert [row["mode"] for row in best] == [True] * 3 + [False] * 24
    law = exact.terminal_law(ENV, exact.policy_table(sampler()))
    np.testing.assert_allclose([row["log_prob"] for row in best], np.log(law[drawn]), atol=1e-4)
    assert found["distance"] == "edit distance"
    x = np.array([["CNO".index(c) for c in row["string"]] for row in best])
    assert found["mean_distance"] == pytest.approx(strings.mean_distance(x))
    assert found["diverse"][0] == 0
    assert len(set(found["diverse"])) == 12

    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["rank"] for row in rows[:2]] == ["1", "2"]
    assert rows[0]["string"] == best[0]["string"]


def test_the_best_are_of_the_draws_of_the_verdict_and_cost_no_reward():
    asked = []

    def score(words):
        asked.extend(words)
        return [1.0 + word.count("A") for word in words]

    target = HostReward(score, alphabet="ACGT", cache=False)
    student = network_sampler(PrependAppend(4, 8), jax.random.key(2))
    _ = draw_statistics(student, target, seed=3, n=60)
    known = list(asked)
    assert len(known) > 40
    found = find(student, target, seed=3, n=60)
    assert found is not None
    assert asked == known
    assert {row["string"] for row in found["best"]} == set(known)


def test_molecules_have_smiles_and_are_compared_as_molecules():
    pytest.importorskip("rdkit", reason="needs RDKit, extra didact[chem]")
    found = find(sampler(), Table(blocks=ALKANES), seed=0, n=300)
    assert found is not None
    assert found["distance"] == "Tanimoto distance"
    by_string = {row["string"]: row["smiles"] for row in found["best"]}
    assert by_string["CCC"] == "CCCCCC"
    assert 0 < found["mean_distance"] < 1


def test_without_rdkit_molecules_are_strings(monkeypatch):
    monkeypatch.setattr(chem, "available", lambda: False)
    columns = string_columns(sampler(), Table(blocks=ALKANES), np.zeros((2, 3), np.int32))
    assert columns is not None
    assert set(columns) == {"string", "value", "log_prob"}


def test_what_is_no_string_is_not_written_as_one():
    grid = network_sampler(Hypergrid(2, 4), jax.random.key(0))
    assert find(grid, DeceptiveGrid(2, 4), seed=0, n=10) is None
    assert string_columns(grid, DeceptiveGrid(2, 4), np.zeros((2, 2), np.int32)) is None


def test_values_in_the_verdict():
    """Exactly their mean under the law; by draws the mean of the drawn, and the best of them."""
    target = Table()
    verdict, law = evaluate_exactly(sampler(), target, TB())
    assert verdict["mean_value"] == pytest.approx(law @ TABLE, rel=1e-6)
    drawn = draw_statistics(sampler(), target, n=4000)
    assert drawn["mean_value"] == pytest.approx(law @ TABLE, abs=5 * TABLE.std() / 4000**0.5)
    p = np.exp(exact.truth(ENV, target).log_p)
    assert drawn["expected_value"] == pytest.approx(p @ TABLE, rel=1e-6)
    assert drawn["top_value"] == pytest.approx(TABLE.mean(), rel=1e-6)  # fewer than 100: all
    everything = np.array(list(itertools.product(range(3), repeat=3)))
    assert drawn["top_distance"] == pytest.approx(strings.mean_distance(everything))


def test_what_modes_get_needs_no_list_of_all_strings():
    """By draws the verdict on modes is the exact one."""
    target, objective = Table(), TB()
    verdict, _ = evaluate_exactly(sampler(), target, objective)
    drawn = evaluate_by_samples(sampler(), target, objective, n=100)
    assert drawn["modes_held"] == verdict["modes_held"]
    for name in ("mode_mass", "mode_mass_recall"):
        assert drawn[name] == pytest.approx(verdict[name], rel=1e-4)
    assert drawn["tv"] is None
    x, p = mode_probabilities(target)
    assert ["".join("CNO"[i] for i in row) for row in x] == [
        name for name, number in NUMBERS.items() if number in target.modes()
    ]
    truth = exact.truth(ENV, target)
    np.testing.assert_allclose(p, np.exp(truth.log_p[target.modes()]), rtol=1e-5)

"""What the deceptive grid knows about itself, against counting all its terminal states."""

import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from didact.environments import Hypergrid
from didact.targets import DeceptiveGrid

PAPER = {
    (2, 128): (676, 16_383, 7.575669, 0.693),
    (2, 256): (2_601, 65_535, 8.935200, 0.685),
    (4, 16): (81, 64_125, 8.429158, 0.035),
    (4, 32): (1_296, 1_042_685, 11.027742, 0.042),
}
"""(d, H): modes, terminal states, log Z, share of the mass that lies on modes."""


def terminal_positions(dim: int, side: int) -> np.ndarray:
    """All positions with at most one coordinate at side-1."""
    cells = np.stack(np.meshgrid(*[np.arange(side)] * dim, indexing="ij"), axis=-1)
    cells = cells.reshape(-1, dim)
    return cells[np.sum(cells == side - 1, axis=1) <= 1]


def classify(cells: np.ndarray, side: int, convention: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each cell lies in the valley, and whether it is a mode, from the formula."""
    if convention == "paper":
        u = np.abs(cells / (side - 1) * 2 - 1)
        return np.all(u > 0.2, axis=1), np.all((u > 0.6) & (u < 0.8), axis=1)
    values = [abs(Fraction(2 * s, side - 1) - 1) for s in range(side)]
    outside = np.array([u > Fraction(1, 5) for u in values])
    ring = np.array([Fraction(3, 5) < u < Fraction(4, 5) for u in values])
    return np.all(outside[cells], axis=1), np.all(ring[cells], axis=1)


def rewards(cells: np.ndarray, side: int, convention: str) -> np.ndarray:
    valley, mode = classify(cells, side, convention)
    return 0.1 + 1e-5 - 0.1 * valley + 2.0 * mode


@pytest.mark.parametrize(("size", "facts"), PAPER.items(), ids=str)
def test_the_table_of_the_paper(size, facts):
    target = DeceptiveGrid(*size)
    modes, terminal, log_z, mass = facts
    assert target.convention == "paper"
    assert target.num_modes == modes
    assert target.num_terminal_states == terminal
    assert target.num_terminal_states == Hypergrid(*size).num_terminal_states
    assert round(target.log_z, 6) == log_z
    assert round(target.mode_mass, 3) == mass


def test_the_exact_convention_differs_where_a_cell_lies_on_a_boundary():
    assert DeceptiveGrid(4, 16, "exact").num_modes == 16
    assert DeceptiveGrid(2, 256, "exact").num_modes == 2_500
    for size in ((2, 128), (4, 32)):
        exact, paper = DeceptiveGrid(*size, "exact"), DeceptiveGrid(*size, "paper")
        assert (exact.num_modes, exact.log_z) == (paper.num_modes, paper.log_z)


@pytest.mark.parametrize("convention", ["paper", "exact"])
def test_facts_of_a_six_dimensional_grid(convention):
    """11 million cells inside: counted by coordinates, not listed."""
    target = DeceptiveGrid(6, 16, convention)
    assert target.num_terminal_states == 15**6 + 6 * 15**5 == 15_946_875
    ring = 3 if convention == "paper" else 2
    assert target.num_modes == ring**6
    # u > 0.2 for all but s in {6, ..., 9} (|2s - 15| <= 3): 11 of 15 inside, and the border.
    valley = 11**6 + 6 * 11**5
    total = Fraction(10_001, 100_000) * 15_946_875 - Fraction(valley, 10) + 2 * ring**6
    assert math.isclose(target.log_z, math.log(total), abs_tol=1e-12)
    assert math.isclose(target.mode_mass, ring**6 * (2 + 1e-5) / float(total), rel_tol=1e-12)


@pytest.mark.parametrize("size", [(8, 64), (20, 100), (100, 1000)], ids=str)
def test_facts_of_grids_that_nobody_can_list(size):
    dim, side = size
    target = DeceptiveGrid(dim, side)
    assert target.num_terminal_states == (side - 1) ** dim + dim * (side - 1) ** (dim - 1)
    assert math.isfinite(target.log_z)
    x = jnp.full(dim, side // 2)
    assert np.isfinite(target.log_reward(x))
    assert target.mode_index(x) == -1


@pytest.mark.parametrize("convention", ["paper", "exact"])
@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_facts_and_rewards_agree_with_brute_force(dim, convention):
    sides = range(2, 21) if dim <= 3 else (*range(2, 11), 13, 16, 20)
    for side in sides:
        target = DeceptiveGrid(dim, side, convention)
        cells = terminal_positions(dim, side)
        valley, mode = classify(cells, side, convention)
        reward = 0.1 + 1e-5 - 0.1 * valley + 2.0 * mode
        assert target.num_terminal_states == len(cells)
        assert target.num_modes == mode.sum()
        total = math.fsum(reward)
        assert math.isclose(target.log_z, math.log(total), abs_tol=1e-9)
        assert math.isclose(target.mode_mass, reward[mode].sum() / total, abs_tol=1e-9)


@pytest.mark.parametrize("convention", ["paper", "exact"])
@pytest.mark.parametrize("size", [(1, 2), (1, 20), (2, 16), (3, 11), (4, 16)], ids=str)
def test_log_reward_and_modes_cell_by_cell(size, convention):
    target = DeceptiveGrid(*size, convention)
    cells = terminal_positions(*size)
    found, index = jax.jit(
        lambda x: (jax.vmap(target.log_reward)(x), jax.vmap(target.mode_index)(x))
    )(jnp.asarray(cells, jnp.int32))
    expected = rewards(cells, size[1], convention)
    np.testing.assert_allclose(found, np.log(expected), rtol=2e-7, atol=2e-7)
    # Modes are numbered without gaps, and nothing else has a number.
    is_mode = expected > 1
    assert np.all(np.asarray(index)[~is_mode] == -1)
    np.testing.assert_array_equal(np.sort(np.asarray(index)[is_mode]), np.arange(target.num_modes))


def test_single_precision_would_give_another_answer():
    """Why the comparisons are made in float64 on the host: at H = 16 a cell lies on 0.6."""
    for size in ((4, 16), (2, 256)):
        side = size[1]
        u = np.abs(np.arange(side, dtype=np.float32) / np.float32(side - 1) * 2 - 1)
        naive = np.sum((u > np.float32(0.6)) & (u < np.float32(0.8)))
        assert naive ** size[0] != DeceptiveGrid(*size).num_modes


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [((0, 8), "dim >= 1"), ((2, 1), "side >= 2"), ((2, 8, "float32"), "convention")],
)
def test_impossible_grids_are_refused(arguments, remedy):
    with pytest.raises(Exception, match=remedy):
        DeceptiveGrid(*arguments)


@pytest.mark.parametrize(("dim", "side", "remedy"), [(0, 8, "dim >= 1"), (2, 1, "side >= 2")])
def test_impossible_environments_are_refused(dim, side, remedy):
    with pytest.raises(ValueError, match=remedy):
        Hypergrid(dim, side)


@pytest.mark.parametrize("size", [(1, 2), (2, 5), (3, 4), (4, 3)], ids=str)
def test_the_environment_ends_at_the_cells_that_the_target_counts(size):
    env = Hypergrid(*size)
    numbers = env.num_internal + jnp.arange(env.num_terminal_states)
    x = jax.vmap(lambda i: env.sample_of(env.state_at(i)))(numbers)
    found = {tuple(map(int, row)) for row in np.asarray(x)}
    assert found == {tuple(map(int, row)) for row in terminal_positions(*size)}
    assert len(found) == env.num_terminal_states
    corner = set(itertools.product([size[1] - 1], repeat=size[0]))
    assert size[0] == 1 or not found & corner

"""Objects of an environment that are no arrays: wherever all of them are listed."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Key

import didact
from didact._probe import differing_reward, probe
from didact._snapshots import ExactSnapshots
from didact.environments import Hypergrid
from didact.metrics import exact
from didact.targets import FromFunction


class Named(Hypergrid):
    """A grid whose objects are dictionaries."""

    def sample_of(self, state: Any) -> Any:
        return {"position": super().sample_of(state)}

    def terminal_state(self, x: Any) -> Any:
        return super().terminal_state(x["position"])


def with_hole(place: list[int], depth: float) -> FromFunction:
    """A target that is 0 but for one place."""
    return FromFunction(
        lambda x: jnp.where(jnp.all(x["position"] == jnp.asarray(place)), depth, 0.0)
    )


def test_draws_of_a_law(key: Key[Array, ""]) -> None:
    env = Named(2, 4)
    x = exact.objects(env, np.eye(15)[7], key, 3)
    expected = exact.objects(Hypergrid(2, 4), np.eye(15)[7], key, 3)
    np.testing.assert_array_equal(x["position"], expected)


def test_one_of_no_reward_is_named() -> None:
    with pytest.raises(FloatingPointError, match=r"x = \{'position': \[1, 2\]\}: bound"):
        _ = exact.truth(Named(2, 4), with_hole([1, 2], jnp.nan))


def test_they_have_no_pictures(tmp_path: Path) -> None:
    snapshots = ExactSnapshots(tmp_path / "s", Named(2, 4), with_hole([1, 2], 1.0))
    snapshots.save(5, {"student": np.full(15, 1 / 15)})
    assert not (tmp_path / "s").exists()


def test_another_reward_of_one_that_was_not_probed_is_noticed() -> None:
    env = Named(2, 35)
    before = didact.Experiment(env, with_hole([0, 0], 0.0), batch_size=4, steps=4)
    stored = probe(before, [0])
    assert differing_reward(stored, before) == ""
    probed = set(map(tuple, stored["x"][0]))
    place = next([1, j] for j in range(34) if (1, j) not in probed)
    after = didact.Experiment(env, with_hole(place, 0.5), batch_size=4, steps=4)
    assert differing_reward(stored, after).startswith("log R somewhere from {'position': [")

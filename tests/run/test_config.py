"""Configurations as JSON and back, and what a stranger's file cannot do."""

import json
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import didact
from didact._config import from_json, renewed, to_json
from didact.behaviours import Cycle, FromReplay, FromTeacher, OnPolicy
from didact.environments import Diffusion, Hypergrid, published_backward_kernel
from didact.networks import MLPConfig
from didact.objectives import DB, TB, Huber, Linex, ShiftedCosh, SubTB, VarGrad
from didact.presets import GRID_PRESETS, grid
from didact.replay import ReplayConfig
from didact.targets import DeceptiveGrid, FromFunction, HostReward
from didact.teacher import DoubleLog, OneSided, Plain


def there_and_back(value: Any, given: dict[str, Any] | None = None) -> Any:
    return from_json(json.loads(json.dumps(to_json(value), allow_nan=False)), given)


def bowl(x: jax.Array) -> jax.Array:
    """A log-reward."""
    return -0.5 * jnp.sum((x - 3.0) ** 2)


def other(x: jax.Array) -> jax.Array:
    """Another one."""
    return jnp.zeros(())


def lengths(strings: list[str]) -> list[float]:
    """A reward outside JAX."""
    return [float(len(string)) for string in strings]


ENVIRONMENT, TARGET = Hypergrid(2, 8), DeceptiveGrid(2, 8, "exact")

EXPERIMENTS = {
    "plain": didact.Experiment(ENVIRONMENT, TARGET),
    "everything": didact.Experiment(
        ENVIRONMENT,
        TARGET,
        behaviour=Cycle((OnPolicy(0.1, 2.0), FromReplay(), FromTeacher(0.2))),
        objective=SubTB(0.8, Huber(2.0)),
        teacher_objective=DB(Linex(-0.5)),
        teacher_reward=DoubleLog(alpha=0.5, cap=100.0, threshold=3.0, per_step=True),
        replay=ReplayConfig(
            64, "loss", rank_offset=None, refresh=True, asymmetry=2.5, merge_every=2
        ),
        network=MLPConfig(width=32, depth=1),
        teacher_network=MLPConfig(width=16),
        optimiser=didact.OptimiserConfig(weight_decay=1e-4, decay_steps=100, final_fraction=0.1),
        teacher_optimiser=didact.OptimiserConfig(max_norm=None),
        batch_size=7,
        steps=11,
        initial_log_z=0.1 + 0.2,
        backward_scoring=published_backward_kernel,
    ),
    "no clipping": didact.Experiment(
        ENVIRONMENT, TARGET, optimiser=didact.OptimiserConfig(max_norm=math.inf)
    ),
    "vargrad": didact.Experiment(ENVIRONMENT, TARGET, objective=VarGrad(ShiftedCosh())),
    "plain teacher": didact.Experiment(ENVIRONMENT, TARGET, teacher_reward=Plain()),
    "one-sided teacher": didact.Experiment(
        ENVIRONMENT, TARGET, behaviour=FromTeacher(), teacher_reward=OneSided()
    ),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_hand_composed_experiments(name: str) -> None:
    assert eqx.tree_equal(there_and_back(EXPERIMENTS[name]), EXPERIMENTS[name])


@pytest.mark.parametrize("preset", GRID_PRESETS)
@pytest.mark.parametrize(
    "changes", [{}, {"convention": "exact", "published_backward": True}], ids=str
)
def test_presets(preset: str, changes: dict[str, Any]) -> None:
    experiment = grid(preset, 4, 16, **changes)
    assert eqx.tree_equal(there_and_back(experiment), experiment)


def test_names_are_the_public_ones() -> None:
    addresses = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            addresses.update(value[name] for name in ("type", "function") if name in value)
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(to_json(EXPERIMENTS["everything"]))
    for address in addresses - {"_experiment.Experiment", "_experiment.OptimiserConfig"}:
        home, _, name = address.partition(".")
        assert hasattr(getattr(didact, home), name), address


def test_numpy_numbers_become_plain_ones() -> None:
    for value in (np.float32(0.5), np.int64(3), np.bool_(True), np.float64("inf")):
        read = there_and_back(value)
        assert read == value
        assert type(read) is type(value.item())


def test_function_is_handed_over_by_its_address() -> None:
    target = FromFunction(bowl, log_z=1.5)
    address = f"{__name__}:bowl"
    assert there_and_back(target, {address: bowl}) == target
    assert there_and_back(target, {address: other}).log_reward_fn is other
    with pytest.raises(ValueError, match=f"names '{address}', .* given="):
        _ = there_and_back(target)
    jitted = FromFunction(jax.jit(bowl))
    assert there_and_back(jitted, {address: jitted.log_reward_fn}) == jitted


class Slope(FromFunction):
    """A user's own class: it too has to be handed over."""


def test_class_of_the_user_is_handed_over_by_its_address() -> None:
    written = json.loads(json.dumps(to_json(Slope(bowl))))
    given = {f"{__name__}:Slope": Slope, f"{__name__}:bowl": bowl}
    assert isinstance(from_json(written, given), Slope)
    with pytest.raises(ValueError, match="Slope"):
        _ = from_json(written, {f"{__name__}:bowl": bowl})


@pytest.mark.parametrize(
    "address",
    [
        *("os:system", "os.system", "builtins:exec", "builtins.exec", "subprocess:Popen"),
        *("replay.jax", "_experiment.optax", "_experiment._group", "replay._avalanche"),
        *(
            "targets.__loader__",
            "didact._config:from_json",
            "replay.np.load",
            "",
            ".",
            ":",
            3,
            None,
        ),
    ],
)
@pytest.mark.parametrize("form", ["type", "function"])
def test_nothing_else_is_reached(address: object, form: str) -> None:
    with pytest.raises(ValueError, match="not part of didact"):
        _ = from_json({form: address})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "without a type"),
        ({"type": "environments.Hypergrid", "dim": 2}, "side"),
        ({"type": "environments.Hypergrid", "dim": 2, "side": 8, "colour": 1}, "colour"),
        ({"type": "environments.Hypergrid", "dim": 2.0, "side": 8}, "dim cannot be 2.0"),
        ({"type": "environments.Hypergrid", "dim": True, "side": 8}, "dim cannot be True"),
        ({"type": "environments.Hypergrid", "dim": 0, "side": 8}, "dim >= 1"),
        ({"type": "behaviours.OnPolicy", "epsilon": "0.1"}, "epsilon cannot be '0.1'"),
        ({"type": "behaviours.Cycle", "behaviours": [3]}, "Cycle does not fit"),
        ({"type": "replay.ReplayConfig", "capacity": 9, "priority": "best"}, "priority"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = from_json(value)


@pytest.mark.parametrize(
    "value", [np.zeros(3), {1, 2}, object(), 1j], ids=lambda v: type(v).__name__
)
def test_what_a_configuration_cannot_hold(value: Any) -> None:
    with pytest.raises(ValueError, match=f"cannot hold a {type(value).__name__}"):
        _ = to_json(value)


def test_tree_of_plain_objects() -> None:
    assert to_json(TB()) == {
        "type": "objectives.TB",
        "regression": {"type": "objectives.Squared", "scale": 1.0, "cap": None},
    }


@pytest.mark.parametrize(
    "target",
    [TARGET, FromFunction(bowl), HostReward(lengths, alphabet="AB", workers=2)],
    ids=["own", "foreign", "host"],
)
def test_what_older_versions_did_not_write_has_its_default(target: Any) -> None:
    """Beside a function of the user's, too, which is not needed to read the rest."""
    today = to_json(didact.Experiment(Diffusion(2, 3), target, network=MLPConfig()))
    older = json.loads(json.dumps(today))
    del older["environment"]["clip"], older["skip_nonfinite"], older["network"]["depth"]
    assert renewed(older) == today
    older["environment"]["num_steps"] = 4
    assert renewed(older) != today
    for name in ("environments.Nothing", "environments.published_backward_kernel", "a:b", None):
        unreadable = {"type": name, "part": {"function": "a:b"}}
        assert renewed(unreadable) == unreadable
    assert renewed({"type": "environments.Nothing"}) == {"type": "environments.Nothing"}

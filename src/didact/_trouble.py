"""What was not finite in a step, and of which object: the step is taken apart a second time."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from . import _apart, _train
from ._experiment import Experiment, traced_numbers
from ._folder import write_json
from ._sampler import Sampler, score, score_pathwise
from ._train import SeedState, TrainState
from ._types import Objective, Scored, Target, Trajectory

FORMAT_VERSION = 1
FILE = "nonfinite.json"
_MAX_SHOWN = 100
_AGENTS = ("Student", "Teacher")
_NAMES = {
    "parameters": "parameters",
    "log_reward": "log R",
    "log_z": "log Z",
    "log_pf": "log P_F",
    "log_pb": "log P_B",
    "log_flow": "log F",
    "loss": "loss",
    "gradient": "gradient",
}


class Batch(eqx.Module):
    """A batch taken apart for one agent: the objects, and of what its loss consists.

    `parameters` is 0 where all of the network's are finite; `gradient` the norm of the gradient of
    each trajectory's loss, were it the only one.
    """

    x: PyTree
    parameters: Float[Array, ""]
    log_reward: Float[Array, " B"]
    log_z: Float[Array, ""]
    log_pf: Float[Array, "B T"]
    log_pb: Float[Array, "B T"]
    log_flow: Float[Array, "B T+1"] | None
    loss: Float[Array, " B"]
    gradient: Float[Array, " B"]


@dataclasses.dataclass(frozen=True)
class Trouble:
    """The first number of a step that is not finite.

    `trajectory` is its place in the batch and `edge` the place in the trajectory, None where it
    belongs to none; `x` the object that the trajectory ends in, `others` what else is known of it.
    """

    seed: int
    agent: str
    term: str
    value: float
    trajectory: int | None = None
    edge: int | None = None
    x: Any = None
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        where = ""
        if self.trajectory is not None:
            shown = str(self.x)
            shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]} ..."
            edge = "" if self.edge is None else f" at edge {self.edge}"
            where = f"{edge} of trajectory {self.trajectory}, which ends in {shown},"
        return f"Of seed {self.seed}, the {self.agent}'s {self.term}{where} is {self.value}"

    def write(self, folder: Path, step: int) -> None:
        """Write all that is known into a file of a run."""
        facts = {"format_version": FORMAT_VERSION, "step": step} | dataclasses.asdict(self)
        write_json(folder / FILE, _as_text(facts))


def find_trouble(
    experiment: Experiment,
    state: TrainState,
    seeds: tuple[int, ...],
    log_reward: Float[np.ndarray, "S B"] | None = None,
) -> Trouble | None:
    """What is not finite in the step that follows a state; None if every number by itself is.

    **Arguments:** `log_reward` of the objects of the step, where it is computed outside JAX.
    """
    known = None if log_reward is None else jnp.asarray(log_reward)
    numbers = traced_numbers(experiment)
    asked, agents = _apart.together(_train._by_seed(_examine, numbers, state, known))
    for position, seed in enumerate(seeds):
        x, fresh = jax.tree.map(lambda leaf, i=position: np.asarray(leaf[i]), asked)
        bad = np.flatnonzero(~np.isfinite(fresh))
        if bad.size:
            at = int(bad[0])
            value = float(fresh[at])
            return Trouble(seed, "target", "log R", value, at, x=_plain(x, at))
        for agent, batch in agents.items():
            found = _first(jax.tree.map(lambda leaf, i=position: np.asarray(leaf[i]), batch))
            if found is not None:
                return dataclasses.replace(found, seed=seed, agent=agent)
    return None


@eqx.filter_jit
def _examine(experiment: Experiment, state: TrainState, known: Float[Array, "S B"] | None):
    """For each seed the objects asked for with their log R, and the batches learned from."""
    others = () if known is None else (known,)
    return _train._over_seeds(
        lambda seed, *args: _examine_seed(
            experiment, seed, state.step, args[0] if known is not None else None, args[-1]
        ),
        state.seeds,
        *others,
    )


def _examine_seed(
    experiment: Experiment,
    state: SeedState,
    number: Int[Array, ""],
    known: Float[Array, " B"] | None,
    axis_name: str | None,
) -> tuple[tuple[PyTree, Array], dict[str, Batch]]:
    """The step as it is, but for a look at what each agent learns from."""
    env = experiment.environment
    proposal = _train._ask_seed(experiment, state, number, axis_name)
    if known is None:
        log_reward = _train._reward_seed(experiment, proposal)
    else:
        log_reward = _train._rewarded(proposal, known)
    asked = jax.vmap(env.sample_of)(proposal.trajectory.terminal), log_reward
    batches: list[Batch] = []

    def learn(
        *batch: Any, learn_log_z: Array | None = None, novelty: Array | None = None
    ) -> tuple[Any, ...]:
        agent, _, objective, trajectory, _, rewarded, weight, target = batch
        batches.append(
            _take_apart(agent.sampler, objective, target, trajectory, rewarded, weight, novelty)
        )
        return _train.update(*batch, learn_log_z=learn_log_z, novelty=novelty)

    _ = _train._tell_seed(experiment, state, number, proposal, log_reward, axis_name, learn)
    return asked, dict(zip(_AGENTS, batches, strict=False))


def _take_apart(
    sampler: Sampler,
    objective: Objective,
    target: Target,
    trajectory: Trajectory,
    log_reward: Float[Array, " B"],
    weight: Float[Array, "*members B"],
    novelty: Float[Array, "B T"] | None,
) -> Batch:
    params, rest = eqx.partition(sampler, _train._trained(sampler))
    # The policy of an ensemble is not finite where that of one of its members is not.
    weight = weight if weight.ndim == 1 else jnp.max(weight, axis=0)

    def evaluate(params: PyTree, batch: PyTree) -> tuple[Scored, Float[Array, " B"]]:
        trajectory, log_reward, weight, novelty = batch
        own = eqx.combine(params, rest)
        if objective.pathwise:
            path_only = getattr(objective, "path_only", False)
            scored = score_pathwise(own, trajectory, target.log_reward, weight, path_only=path_only)
        else:
            scored = score(own, trajectory, log_reward, weight)
        return scored, objective(dataclasses.replace(scored, novelty=novelty)).loss

    def gradient_of(one: PyTree) -> Float[Array, ""]:
        # In a batch of its own: an infinite slope of another trajectory's loss, times 0, is NaN.
        alone = jax.tree.map(lambda leaf: leaf[None], one)
        return optax.tree.norm(jax.grad(lambda p: evaluate(p, alone)[1][0])(params))

    batch = (trajectory, log_reward, weight, novelty)
    (scored, loss), network = evaluate(params, batch), jax.tree.leaves(params.policy)
    return Batch(
        x=jax.vmap(sampler.environment.sample_of)(trajectory.terminal),
        parameters=sum((jnp.sum(0 * leaf) for leaf in network), jnp.zeros(())),
        log_reward=scored.log_reward,
        log_z=scored.log_z,
        log_pf=scored.log_pf,
        log_pb=scored.log_pb,
        log_flow=scored.log_flow,
        loss=loss,
        gradient=lax.map(gradient_of, batch),
    )


def _first(batch: Batch) -> Trouble | None:
    """The first number of a batch that is not finite, in the order in which they are computed; of
    no seed and no agent yet.
    """
    for name, term in _NAMES.items():
        values = getattr(batch, name)
        if values is None or np.all(np.isfinite(values)):
            continue
        at, *edge = np.argwhere(~np.isfinite(values))[0].tolist() or [None]
        value = float(values if at is None else values[(at, *edge)])
        if at is None:
            return Trouble(0, "", term, value)
        others = {
            other: np.asarray(known if known.ndim == 0 else known[at]).tolist()
            for other in list(_NAMES)[1:]
            if (known := getattr(batch, other)) is not None
        }
        return Trouble(0, "", term, value, at, *edge, x=_plain(batch.x, at), others=others)
    return None


def _plain(x: PyTree, at: int) -> Any:
    """One object of a batch, as numbers and lists of them."""
    plain = [np.asarray(leaf[at]).tolist() for leaf in jax.tree.leaves(x)]
    return plain[0] if len(plain) == 1 else plain


def _as_text(value: Any) -> Any:
    """Numbers that are not finite as words, which a JSON file can hold."""
    if isinstance(value, Mapping):
        return {name: _as_text(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return repr(value) if isinstance(value, float) and not np.isfinite(value) else value

"""One update and a few steps on a mesh of devices, compared with those on one device.

    python tests/devices/program.py KIND [float64]

Prints a JSON object: `update`, the largest difference of loss, residuals and gradient from one
device's, relative to the largest entry of each; `steps`, that of the losses of a few steps; over
how many devices a batch of trajectories lies; and how often the program splits a batch.
"""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import didact
from didact import networks, objectives, presets, targets
from didact._sampler import layout, sample_forward
from didact._train import _loss_and_gradient, _trained

BATCH = 16
SMALL = networks.DiffusionMLPConfig(width=16, harmonics=8)


def experiment(kind: str) -> didact.Experiment:
    """A small one of each kind: states that are shared or not, gradients through paths or not."""
    if kind == "grid":
        made = presets.grid("teacher-per", 2, 8, batch_size=BATCH)
        return eqx.tree_at(lambda e: e.network, made, networks.MLPConfig(16, 1))
    preset = "pis" if kind == "pathwise" else "teacher"
    made = presets.diffusion(
        targets.GMM25(), preset, batch_size=BATCH, num_steps=6, network=SMALL, learn_backward=True
    )
    if kind == "vargrad":  # its loss is not a sum over trajectories
        made = eqx.tree_at(lambda e: e.objective, made, objectives.VarGrad())
    return made


def update_on(experiment, sampler, trajectory, log_reward):
    """Loss, residuals and gradient of one update."""

    @eqx.filter_jit
    def evaluate(sampler, trajectory, log_reward):
        params, rest = eqx.partition(sampler, _trained(sampler))
        others = (rest, experiment.objective, experiment.target)
        place, weight = layout(sampler, trajectory), jnp.ones_like(log_reward)
        (loss, output), gradient = _loss_and_gradient(
            params, others, trajectory, place, log_reward, weight, None
        )
        return loss, output.residual, gradient

    return jax.tree.map(np.asarray, evaluate(sampler, trajectory, log_reward))


def losses_on(experiment):
    """Losses of a few steps of two seeds."""
    state = didact.init(experiment, (0, 1))
    _, info = didact.train_chunk(experiment, state, 4, capacity=4)
    return np.asarray(info.loss)


def difference(here, there) -> float:
    """The largest difference of two trees' entries, relative to the largest entry of each leaf."""
    pairs = zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True)
    pairs = ((np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs)
    return max(float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-30)) for a, b in pairs)


def main(kind: str) -> dict[str, float]:
    """Compare."""
    setting = experiment(kind)
    sampler = didact.init(setting).student()
    env, target = setting.environment, setting.target
    draw = eqx.filter_jit(lambda sampler, key: sample_forward(sampler, key, BATCH))
    trajectory = draw(sampler, jax.random.key(5))
    log_reward = jax.vmap(lambda end: target.log_reward(env.sample_of(end)))(trajectory.terminal)
    batch = (sampler, trajectory, log_reward)
    alone, losses = update_on(setting, *batch), losses_on(setting)
    with jax.set_mesh(didact.batch_mesh()):
        split = draw(sampler, jax.random.key(5))
        program = str(
            jax.make_jaxpr(lambda key: sample_forward(sampler, key, BATCH))(jax.random.key(0))
        )
        return {
            "update": difference(update_on(setting, *batch), alone),
            "steps": difference(losses_on(setting), losses),
            "states": difference(split.states, trajectory.states),
            "devices": len(jax.tree.leaves(split.states)[0].sharding.device_set),
            "splits": program.count("shard_map"),
        }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", "float64" in sys.argv)
    print(json.dumps(main(sys.argv[1])))  # noqa: T201

"""Batches of objects that differ in one part from some of the buffer."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from .. import replay
from .._config import require_types
from .._types import SiteEnvironment
from ..replay import Draw
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_backward


class Mutate(Behaviour):
    r"""Objects of the buffer, each with one of its sites drawn anew, as a genetic search makes them
    (a point mutation; Holland, 1975; beside a GFlowNet: Kim et al., "Genetic-guided GFlowNets for
    sample efficient molecular optimization", NeurIPS 2024); trajectories are drawn from P_B.

    Where good objects share the values of their sites, one that is found leads to the others, also
    to those far away along trajectories. The Student learns from them with their true reward, so
    that they change where it looks, not what it is to learn.

    **Arguments:** `draw`: the rule by which parents are drawn (None: that of the experiment's
    `replay`); `didact.replay.RankDraw` with a small offset draws the first of them most often.

    It needs an environment with `mutate` (`didact.environments.SiteEnvironment`), and a buffer.

    Known divergence: there parents are also recombined, and the search goes on for some
    generations before the sampler learns from it.
    """

    draw: Draw | None = None

    def __check_init__(self):
        require_types(self)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """A search, which asks for the reward of each object."""
        return (Turn("search", from_buffer=True),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Draw parents, change one site of each, and walk back from what comes of it."""
        environment = agents.student.environment
        if not isinstance(environment, SiteEnvironment):
            raise ValueError(
                f"Mutate needs an environment with sites, and {type(environment).__name__} is no "
                "SiteEnvironment."
            )
        if agents.replay is None:
            raise ValueError("Mutate needs a buffer: give the Experiment a replay.")
        draw_key, site_key, walk_key = jax.random.split(key, 3)
        draw = agents.draw if self.draw is None else self.draw
        parents, log_reward, real = replay.sample(agents.replay, draw_key, batch_size, draw)
        x = jax.vmap(environment.mutate)(jax.random.split(site_key, batch_size), parents)
        return propose_backward(
            agents,
            walk_key,
            x,
            log_reward=jnp.zeros_like(log_reward),
            weight=real.astype(log_reward.dtype),
            fresh=True,
            known=False,
            axis_name=axis_name,
        )

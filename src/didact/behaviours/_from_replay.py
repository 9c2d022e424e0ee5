"""Batches whose objects come from the replay buffer."""

import equinox as eqx
import jax
from jaxtyping import Array, Int, PRNGKeyArray

from .. import replay
from .._checks import require
from .._config import require_types
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_backward


class FromReplay(Behaviour):
    """Objects from the buffer, as likely as its `didact.replay.ReplayConfig` says, with
    trajectories drawn anew from the Student's P_B.

    **Arguments:** `batches` >= 1: a step learns from the objects of so many batches, which takes
    noise from the gradient and costs no rewards, but those that a guided network asks for.

    Source: Shen et al., "Towards understanding and improving GFlowNet training", ICML 2023, for
    trajectories back from objects that are replayed.
    """

    batches: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        require("batches", self.batches, at_least=1)
        require_types(self)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The buffer, which remembers log R."""
        return (Turn("replay", reward_calls=0, batches=self.batches, from_buffer=True),)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """Draw objects and walk back from them."""
        if agents.replay is None:
            raise ValueError("FromReplay needs a buffer: give the Experiment a replay.")
        draw_key, walk_key = jax.random.split(key)
        size = self.batches * batch_size
        x, log_reward, real = replay.sample(agents.replay, draw_key, size, agents.draw)
        return propose_backward(
            agents,
            walk_key,
            x,
            log_reward=log_reward,
            weight=real.astype(log_reward.dtype),
            fresh=False,
            known=True,
            axis_name=axis_name,
        )

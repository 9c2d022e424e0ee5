"""Batches whose objects come from the replay buffer."""

import jax
from jaxtyping import Array, Int, PRNGKeyArray

from .. import replay
from ._behaviour import Agents, Behaviour, Proposal, Turn, propose_backward


class FromReplay(Behaviour):
    """Objects from the buffer, as likely as its `didact.replay.ReplayConfig` says, with
    trajectories drawn anew from the Student's P_B.
    """

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The buffer, which remembers log R."""
        return (Turn("replay", reward_calls=0),)

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
        x, log_reward, real = replay.sample(agents.replay, draw_key, batch_size, agents.draw)
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

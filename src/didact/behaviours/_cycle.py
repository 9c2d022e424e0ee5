"""A repeating schedule of behaviours."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray

from ._behaviour import Agents, Behaviour, Proposal, Turn, widened


class Cycle(Behaviour):
    """Behaviours in turn, one batch each, again and again.

    ```python
    Cycle((OnPolicy(), FromReplay(), FromTeacher(), FromReplay()))
    ```

    Equal behaviours are kept, and compiled, once. All proposals are as large as the largest: after
    their own trajectories smaller ones have copies of no weight.
    """

    distinct: tuple[Behaviour, ...]
    order: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, behaviours: tuple[Behaviour, ...]):
        if not behaviours:
            raise ValueError("A Cycle needs at least one behaviour.")
        if any(len(behaviour.turns) != 1 for behaviour in behaviours):
            raise ValueError("A Cycle takes single behaviours: write nested cycles out.")
        distinct: list[Behaviour] = []
        order = []
        for behaviour in behaviours:
            same = [i for i, other in enumerate(distinct) if eqx.tree_equal(behaviour, other)]
            order.append(same[0] if same else len(distinct))
            if not same:
                distinct.append(behaviour)
        self.distinct = tuple(distinct)
        self.order = tuple(order)

    @property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The schedule, written out."""
        return tuple(self.distinct[i] for i in self.order)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Those of the behaviours."""
        return tuple(behaviour.turns[0] for behaviour in self.behaviours)

    def __call__(
        self,
        agents: Agents,
        key: PRNGKeyArray,
        step: Int[Array, ""],
        batch_size: int,
        *,
        axis_name: str | None = None,
    ) -> Proposal:
        """The batch of the behaviour whose turn it is."""
        # Targets may hold functions, which are no operands of a branch.
        arrays, rest = eqx.partition(agents, eqx.is_array)
        size = self.most_batches * batch_size

        def branch(behaviour: Behaviour):
            def propose(arrays, key):
                agents = eqx.combine(arrays, rest)
                proposal = behaviour(agents, key, step, batch_size, axis_name=axis_name)
                return widened(proposal, size)

            return propose

        turn = jnp.asarray(self.order)[step % len(self.order)]
        return lax.switch(turn, [branch(b) for b in self.distinct], arrays, key)

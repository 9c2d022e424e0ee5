"""A small problem with a known answer: tables over all edges and flows of a graph."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ._graph import Edges, Paths, Table


@dataclasses.dataclass(frozen=True)
class Point:
    """A sampler as tables: log P_F and log P_B of every edge [internal, actions], log F of every
    state, log Z.
    """

    log_pf: Table
    log_pb: Table
    log_flow: Table
    log_z: float


@dataclasses.dataclass(frozen=True)
class Problem:
    """A graph with a log-reward for each terminal state, and a P_B for each edge.

    The answer is the sampler whose flows are exact: all its trajectories have residual 0.
    """

    law: Edges
    log_reward: Table
    log_pb: Table

    @property
    def optimum(self) -> Point:
        """The exact flows."""
        flow = self.law.log_flow(self.log_pb, self.log_reward)
        log_pf = self.law.exact_policy(self.log_pb, flow)
        return Point(log_pf, self.log_pb, flow, float(flow[self.law.order[0]]))

    def elsewhere(self, random: np.random.Generator) -> Point:
        """A random sampler."""
        logits = np.where(self.law.child >= 0, random.normal(size=self.law.child.shape), -np.inf)
        log_pf = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        log_flow = np.append(random.normal(size=self.law.num_internal), self.log_reward)
        return Point(log_pf, self.log_pb, log_flow, float(random.normal()))

    def batch(self, point: Point, paths: Paths) -> "Batch":
        """Trajectories as an objective sees them."""
        mask = paths.mask
        # On padding the source is no internal state where the trajectory has ended.
        source = np.where(mask, paths.states[:, :-1], 0)
        ends = paths.states[:, -1] - self.law.num_internal
        return Batch(
            log_pf=np.where(mask, point.log_pf[source, paths.actions], 0),
            log_pb=np.where(mask, point.log_pb[source, paths.actions], 0),
            log_flow=point.log_flow[paths.states],
            log_z=point.log_z,
            log_reward=self.log_reward[ends],
            mask=mask,
            weight=np.ones(len(mask)),
        )


@dataclasses.dataclass(frozen=True)
class Batch:
    """What `Scored` holds, in NumPy: to be changed without compiling anything."""

    log_pf: Table  # [B, T]
    log_pb: Table
    log_flow: Table  # [B, T+1]
    log_z: float
    log_reward: Table  # [B]
    mask: NDArray[np.bool_]  # [B, T]
    weight: Table  # [B]


def problem(law: Edges, random: np.random.Generator) -> Problem:
    """Random rewards over five nats, and a random P_B."""
    edges = law.child >= 0
    weight = np.where(edges, np.exp(random.normal(size=law.child.shape)), 0)
    total = np.zeros(law.num_internal + law.num_ends)
    np.add.at(total, law.child[edges], weight[edges])
    log_pb = np.where(edges, np.log(np.where(edges, weight, 1) / total[law.child]), -np.inf)
    return Problem(law, random.uniform(-3, 2, law.num_ends), log_pb)

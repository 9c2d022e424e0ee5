"""Behaviours: where the next batch of trajectories comes from."""

from ._behaviour import Agents as Agents
from ._behaviour import Behaviour as Behaviour
from ._behaviour import Proposal as Proposal
from ._cycle import Cycle as Cycle
from ._fresh import FromTeacher as FromTeacher
from ._fresh import OnPolicy as OnPolicy
from ._from_replay import FromReplay as FromReplay

__all__ = ["Agents", "Behaviour", "Cycle", "FromReplay", "FromTeacher", "OnPolicy", "Proposal"]

"""Behaviours: where the next batch of trajectories comes from."""

from ._behaviour import Agents as Agents
from ._behaviour import Behaviour as Behaviour
from ._behaviour import Proposal as Proposal
from ._behaviour import Turn as Turn
from ._collect import Collect as Collect
from ._cycle import Cycle as Cycle
from ._fresh import FromTeacher as FromTeacher
from ._fresh import OnPolicy as OnPolicy
from ._from_replay import FromReplay as FromReplay
from ._from_samples import FromSamples as FromSamples
from ._local_search import LocalSearch as LocalSearch
from ._mala import MALA as MALA
from ._mala import run_mala as run_mala

__all__ = [
    "MALA",
    "Agents",
    "Behaviour",
    "Collect",
    "Cycle",
    "FromReplay",
    "FromSamples",
    "FromTeacher",
    "LocalSearch",
    "OnPolicy",
    "Proposal",
    "Turn",
    "run_mala",
]

"""Behaviours: where the next batch of trajectories comes from."""

from ._behaviour import Agents as Agents
from ._behaviour import Behaviour as Behaviour
from ._behaviour import Chains as Chains
from ._behaviour import Proposal as Proposal
from ._behaviour import Turn as Turn
from ._behaviour import widened as widened
from ._chains import ChainRun as ChainRun
from ._chains import ChainsConfig as ChainsConfig
from ._chains import FromChains as FromChains
from ._chains import run_chains as run_chains
from ._collect import Collect as Collect
from ._cycle import Cycle as Cycle
from ._fresh import FromTeacher as FromTeacher
from ._fresh import OnPolicy as OnPolicy
from ._from_replay import FromReplay as FromReplay
from ._from_samples import FromSamples as FromSamples
from ._local_search import LocalSearch as LocalSearch
from ._mala import MALA as MALA
from ._mala import run_mala as run_mala
from ._mutate import Mutate as Mutate
from ._thompson import Thompson as Thompson
from ._uniform import FromUniform as FromUniform
from ._uniform import uniform_sampler as uniform_sampler

__all__ = [
    "MALA",
    "Agents",
    "Behaviour",
    "ChainRun",
    "Chains",
    "ChainsConfig",
    "Collect",
    "Cycle",
    "FromChains",
    "FromReplay",
    "FromSamples",
    "FromTeacher",
    "FromUniform",
    "LocalSearch",
    "Mutate",
    "OnPolicy",
    "Proposal",
    "Thompson",
    "Turn",
    "run_chains",
    "run_mala",
    "uniform_sampler",
    "widened",
]

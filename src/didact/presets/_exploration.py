"""Methods of exploration to compare the Teacher with, on any environment of discrete steps.

None has a buffer, and each gradient step asks for one batch of rewards: so all of them see as many
new objects, in as many gradient steps, as trajectory balance on-policy does in its budget.
"""

from typing import Any

from .._types import Regression
from ..behaviours import (
    ChainsConfig,
    Cycle,
    FromChains,
    FromTeacher,
    FromUniform,
    LocalSearch,
    OnPolicy,
    Thompson,
)
from ..networks import BootstrappedConfig
from ..novelty import RND
from ..objectives import GAFN
from ..teacher import Complementary, LossGuided, Sibling

EXPLORATION_PRESETS = {
    "gafn": "trajectory balance with intrinsic rewards on the way (GAFN)",
    "thompson": "each trajectory follows one policy of a bootstrapped ensemble (TS-GFN)",
    "sagfn": "batches in turn from a sibling that looks for what is new (SA-GFN)",
    "lggfn": "batches in turn from a sampler rewarded for the loss (LGGFN)",
    "ace": "batches in turn from an explorer of what the Student allocates too little to (ACE)",
    "local-search": "every eighth batch improved by a greedy search, back and forth",
    "uniform": "all batches from a uniform policy",
    "metropolis": "all batches from Markov chains (Metropolis-Hastings)",
    "tempering": "all batches from Markov chains at four temperatures (parallel tempering)",
}
"""Name and one-line description of each method."""

UNEXPLORED = ("thompson", "uniform", "metropolis", "tempering")
"""Those whose batches epsilon and temperature do not change."""

_SEARCH_ROUNDS = 3


Parts = dict[str, Any]
"""What a method sets of an experiment: fields of `didact.Experiment`."""


def explore(
    preset: str,
    own: OnPolicy,
    auxiliary: FromTeacher,
    *,
    regression: Regression,
    depth: int,
    batch_size: int,
) -> Parts:
    """A method of `EXPLORATION_PRESETS`.

    **Arguments:** `own`, `auxiliary`: how Student and auxiliary sampler are rolled out;
    `regression` of the Student's objective; `depth`: edges that a search or a chain goes back.

    **Errors:** `ValueError` for a batch size that a method cannot have.
    """
    return {
        "gafn": lambda: _gafn(own, regression),
        "thompson": _thompson,
        "sagfn": lambda: _sagfn(own, auxiliary),
        "lggfn": lambda: _lggfn(own, auxiliary),
        "ace": lambda: _ace(own, auxiliary),
        "local-search": lambda: _local_search(own, depth, batch_size),
        "uniform": lambda: {"behaviour": FromUniform()},
        "metropolis": lambda: _chains(depth, batch_size, levels=1),
        "tempering": lambda: _chains(depth, batch_size, levels=4),
    }[preset]()


def _gafn(own: OnPolicy, regression: Regression) -> Parts:
    """Pan et al. (2023), as the published grid experiments use it: intrinsic rewards of 0.01 times
    the error of a predictor with two layers of 256 units and 128 outputs, Adam at 1e-3.
    """
    objective = GAFN(regression, scale=0.01)
    return {"behaviour": own, "objective": objective, "novelty": RND()}


def _thompson() -> Parts:
    """Rector-Brooks et al. (2023), with constants of our own: ten policies, each of which learns
    from half of the trajectories.
    """
    return {"behaviour": Thompson(), "network": BootstrappedConfig(), "bootstrap": 0.5}


def _sagfn(own: OnPolicy, auxiliary: FromTeacher) -> Parts:
    """Madan et al. (2025): half of the Student's batches are the sibling's, exponents and scale are
    1, as in the code of Malek et al. (2026).
    """
    turns = Cycle((own, auxiliary))
    return {"behaviour": turns, "teacher_reward": Sibling(), "novelty": RND()}


def _lggfn(own: OnPolicy, auxiliary: FromTeacher) -> Parts:
    """Malek et al. (2026): half of the Student's batches are the auxiliary sampler's, λ = 1."""
    return {"behaviour": Cycle((own, auxiliary)), "teacher_reward": LossGuided(weight=1.0)}


def _ace(own: OnPolicy, auxiliary: FromTeacher) -> Parts:
    """Dall'Antonia et al. (2026), with constants of our own: an object is under-allocated below
    half of what is due, and half of the Student's batches are the explorer's.
    """
    return {"behaviour": Cycle((own, auxiliary)), "teacher_reward": Complementary(alpha=0.5)}


def _local_search(own: OnPolicy, depth: int, batch_size: int) -> Parts:
    """Kim et al., "Local search GFlowNets" (2024), at the times of the published grid experiments:
    every eighth batch, to where R is higher. There each trajectory goes back half of its own way in
    four rounds, which cost so many batches of rewards more; here what a quarter of the batch finds
    in three rounds is the batch.
    """
    _require_multiple("local-search", batch_size, 1 + _SEARCH_ROUNDS)
    search = LocalSearch(own, depth=depth, rounds=_SEARCH_ROUNDS, greedy=True)
    return {"behaviour": Cycle((*[own] * 7, search))}


def _chains(depth: int, batch_size: int, *, levels: int) -> Parts:
    """Metropolis-Hastings, or parallel tempering with temperatures from 1 to 10. The chains have
    the whole budget: what they find, no network has a part in.
    """
    _require_multiple("tempering", batch_size, levels)
    chains = ChainsConfig(levels, hottest=10.0 if levels > 1 else 1.0)
    return {"behaviour": FromChains(depth), "chains": chains}


def _require_multiple(preset: str, batch_size: int, of: int) -> None:
    if batch_size % of:
        raise ValueError(
            f"preset {preset!r} needs a batch size that is a multiple of {of}, got {batch_size}."
        )

"""Discovery: the paper's biochemical tasks, and the same methods on any reward of strings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from .. import _seen as seen_objects
from .. import targets
from .._checks import require
from .._experiment import Experiment, OptimiserConfig
from .._types import Target
from ..behaviours import (
    Behaviour,
    Cycle,
    FromReplay,
    FromTeacher,
    LocalSearch,
    Mutate,
    OnPolicy,
)
from ..environments import Autoregressive, PrependAppend
from ..networks import NetworkConfig, SSRConfig
from ..objectives import TB, Squared
from ..replay import RankDraw, ReplayConfig, SplitDraw
from ..teacher import DoubleLog
from ._exploration import EXPLORATION_PRESETS, Parts, explore
from ._recipe import and_replayed, falling, mixed

_LOSS = Squared(cap=5_000.0)
_TAUGHT = DoubleLog(alpha=0.5, floor=0.0, cap=_LOSS.cap)
_FOR_GRIDS = ("thompson", "local-search")
"""An ensemble of the policy for strings there is not; "search-prt" has the search."""
_SEARCHED = 8
"""Strings that each chain of a local search gives a batch, its first among them."""
DISCOVERY_PRESETS = {
    "tb": "trajectory balance with 1 % uniform actions (sEH: 5 %), as all of them have",
    "tb-prt": "trajectory balance with reward-prioritised replay",
    "tb-per": "trajectory balance with loss-prioritised replay",
    "search-prt": "local search, back and forth, with reward-prioritised replay",
    "teacher-prt": "adaptive Teacher with reward-prioritised replay",
    "teacher-per": "adaptive Teacher with loss-prioritised replay",
    "teacher-mutate-per": "the same, with mutants of the buffer in every third round",
    "didact": "our own: replay by reward at rates that fall, a Teacher, and mutants of the best",
    **{name: text for name, text in EXPLORATION_PRESETS.items() if name not in _FOR_GRIDS},
}
"""Name and one-line description of each method."""


class DiscoveryTask(NamedTuple):
    """A target, and the paper's constants for it: `rounds`, the `width` of the networks, the share
    `epsilon` of uniform actions and the `depth` of a local search.
    """

    target: Callable[..., Target]
    rounds: int
    width: int
    epsilon: float
    depth: int = 3


DISCOVERY_TASKS: dict[str, DiscoveryTask] = {
    "qm9": DiscoveryTask(targets.QM9, 1_000, 1024, 0.01),
    "seh": DiscoveryTask(targets.SEH, 2_000, 1024, 0.05),
    "tfbind8": DiscoveryTask(targets.TFBind8, 2_000, 128, 0.01),
    "l14-rna1": DiscoveryTask(targets.L14RNA1, 2_000, 128, 0.01, depth=7),
}
"""Targets by name."""


def discovery(
    target: Target,
    preset: str = "didact",
    *,
    num_symbols: int | None = None,
    length: int | None = None,
    rounds: int = 2_000,
    width: int = 128,
    epsilon: float = 0.01,
    depth: int = 3,
    batch_size: int = 32,
    steps: int | None = None,
    grow: Literal["both", "end"] = "both",
    network: NetworkConfig | None = None,
) -> Experiment:
    """Our own sampler of strings, or one of the paper's with its constants, schedule and budget.

    A round draws one batch of new strings and learns from it; with a buffer it then learns from one
    batch of that, so that a round has two gradient steps. With a Teacher every third round's
    strings are the Teacher's, and with "mutate" another third mutants of the buffer's. With
    "didact" it learns from four batches of the buffer, and of eight rounds one is the Teacher's and
    one has mutants; the Student's rates fall, from thirty times the paper's for its network and ten
    times for log Z, the Teacher's is ten times the paper's for log Z, and log Z may be below 0.

    **Arguments:** `target`: any on int32 [length]; `preset`: a key of `DISCOVERY_PRESETS`;
    `num_symbols`, `length` of the strings (default: what the target says of itself); `rounds`;
    `width` of the networks, `epsilon` and the `depth` of a local search, as in `DISCOVERY_TASKS`
    for the paper's targets;
    `batch_size` strings; `steps`: gradient steps in place of those of `rounds`; `grow`: "both",
    strings grow at both ends, or "end"; `network`: another than the paper's `SSRConfig(width)`.

    **Errors:** `ValueError` for an unknown preset, an argument that cannot be, or where the
    target does not say of which strings it is.

    Source: Kim et al. (2025), section 5.3, for all but "didact". Known divergences: the published
    code clips gradients in the first step alone, here in all; a string that is drawn again keeps
    its place in the buffer there, here it becomes the newest; its runs called "TB" have the buffer
    of "tb-prt".
    """
    if preset not in DISCOVERY_PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose from {', '.join(DISCOVERY_PRESETS)}.")
    require("rounds", rounds, at_least=1)
    if grow not in ("both", "end"):
        raise ValueError(f"grow must be 'both' or 'end', got {grow!r}.")
    num_symbols, length = (
        getattr(target, name, None) if value is None else value
        for name, value in (("num_symbols", num_symbols), ("length", length))
    )
    if not isinstance(num_symbols, int) or not isinstance(length, int):
        raise ValueError(
            f"{type(target).__name__} does not say of which strings it is: give num_symbols and "
            "length."
        )
    if preset.startswith("search") and batch_size % _SEARCHED:
        raise ValueError(
            f"preset {preset!r} needs a batch size that is a multiple of {_SEARCHED}, got "
            f"{batch_size}: each chain proposes so many strings."
        )
    parts: Parts = {"objective": TB(_LOSS)}
    if preset in EXPLORATION_PRESETS:
        own, auxiliary = OnPolicy(epsilon), FromTeacher(epsilon)
        parts |= explore(
            *(preset, own, auxiliary), regression=_LOSS, depth=depth, batch_size=batch_size
        )
    elif preset == "didact":
        parts |= _own(epsilon, batch_size)
    else:
        parts |= _published(preset, epsilon, depth, batch_size)
    steps = rounds * (2 if "replay" in parts else 1) if steps is None else steps
    optimiser = OptimiserConfig(1e-4, log_z_learning_rate=1e-2, max_norm=10.0, least_log_z=0.0)
    if preset == "didact":
        # It must come to a log Z far from 5, or below 0, though the Student's rate falls.
        optimiser = replace(optimiser, log_z_learning_rate=0.1, least_log_z=None)
    teacher_optimiser = replace(optimiser, learning_rate=5e-4)
    kind = PrependAppend if grow == "both" else Autoregressive
    return Experiment(
        environment=kind(num_symbols, length),
        target=target,
        network=SSRConfig(width) if network is None else network,
        optimiser=falling(optimiser, steps) if preset == "didact" else optimiser,
        teacher_optimiser=teacher_optimiser if "teacher_reward" in parts else None,
        batch_size=batch_size,
        steps=steps,
        initial_log_z=5.0,
        count_distinct=num_symbols**length <= seen_objects.MAX_OBJECTS,
        **parts,
    )


def _own(epsilon: float, batch_size: int) -> Parts:
    """Our own method on strings: the paper's replay by reward and its Teacher, whose network
    learns as slowly as there, with the larger share of the buffer and the schedule, and beside
    these the Student's rates, that hold the most on grids. Without the Teacher and the mutants a
    little more is held here, and less found.
    """
    replay = _replay("prt", batch_size)
    search = Mutate(RankDraw(1 / replay.capacity))
    return {
        "behaviour": and_replayed(mixed(OnPolicy(epsilon), search, FromTeacher(epsilon))),
        "teacher_reward": _TAUGHT,
        "replay": replay,
    }


def _published(preset: str, epsilon: float, depth: int, batch_size: int) -> Parts:
    """What the paper's methods set of an experiment: a Teacher or none, a buffer or none."""
    method, _, addition = preset.partition("-")
    priority = addition.removeprefix("mutate-")
    parts: Parts = {"behaviour": _schedule(method, addition, epsilon, depth)}
    if method == "teacher":
        parts["teacher_reward"] = _TAUGHT
    if priority:
        parts["replay"] = _replay(priority, batch_size)
    return parts


def _schedule(method: str, addition: str, epsilon: float, depth: int) -> Behaviour:
    own, replayed = OnPolicy(epsilon), FromReplay()
    if method == "search":
        own = LocalSearch(own, depth=depth, rounds=_SEARCHED - 1)
    if not addition:
        return own
    if method != "teacher":
        return Cycle((own, replayed))
    other = Mutate() if addition.startswith("mutate") else own
    return Cycle((own, replayed, other, replayed, FromTeacher(epsilon), replayed))


def _replay(priority: str, batch_size: int) -> ReplayConfig:
    """Half of a batch from the tenth of highest priority, the others from the rest."""
    by_error = priority == "per"
    return ReplayConfig(
        capacity=max(1_000, batch_size),
        # The Teacher's reward without its power of R is a monotone function of this loss.
        priority="loss" if by_error else "reward",
        asymmetry=19.0 if by_error else 0.0,
        refresh=by_error,
        split=SplitDraw(share=0.5, top=0.1),
    )

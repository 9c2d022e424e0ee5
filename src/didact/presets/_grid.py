"""The deceptive grid, with the methods of the paper's comparison and others."""

from dataclasses import replace
from typing import Literal

from .._experiment import Experiment, OptimiserConfig
from ..behaviours import Cycle, FromReplay, FromTeacher, Mutate, OnPolicy
from ..environments import Hypergrid, published_backward_kernel
from ..objectives import Squared
from ..replay import Priority, RankDraw, ReplayConfig
from ..targets import DeceptiveGrid
from ..teacher import DoubleLog, OneSided
from ._exploration import EXPLORATION_PRESETS, UNEXPLORED, Parts, explore
from ._recipe import and_replayed, falling, mixed

_MOST_REPLAYED = 1_000_000
_MANY = 10 * _MOST_REPLAYED
"""Objects: of so many the buffer does not hold a tenth, and few runs see one in ten."""
_FLOOR = 0.15
"""Of the Teacher's reward, all objects together, as a share of the Student's Ẑ."""
_OFFSET = 5e-5
"""Of ranks, where one object in ten thousand is a mode, and less: the first few of the buffer are
replayed often, one draw in eight being of the first ten of a hundred thousand."""
GRID_PRESETS = {
    "tb": "trajectory balance, on-policy",
    "eps": "trajectory balance with 1 % uniform actions",
    "tb-prt": "trajectory balance with reward-prioritised replay",
    "tb-per": "trajectory balance with loss-prioritised replay",
    "tb-prt-late": "as tb-prt, with rates that fall to a tenth for the last fifth",
    "teacher": "adaptive Teacher, no buffer",
    "teacher-prt": "adaptive Teacher with reward-prioritised replay",
    "teacher-per": "adaptive Teacher with replay prioritised by the Teacher's reward",
    "one-sided": "Teacher of under-sampling times reward, which also orders the buffer",
    "teacher-floor": "Teacher of what is missed and what is new, replay by reward, falling rates",
    "mutate": "mutants of the best in its place, replay by reward, falling rates",
    "didact": "our own: both of them",
    **EXPLORATION_PRESETS,
}
"""Name and one-line description of each method."""
_OWN = ("teacher-floor", "mutate", "didact")
"""Changes of replay by reward: a Teacher, mutants, and both."""


def grid(
    preset: str = "didact",
    dim: int = 2,
    side: int = 128,
    *,
    convention: Literal["paper", "exact"] = "paper",
    steps: int | None = None,
    batch_size: int = 16,
    epsilon: float | None = None,
    temperature: float | None = None,
    published_backward: bool = False,
) -> Experiment:
    """Our own sampler on the deceptive grid, or one of the paper's with its constants, schedule and
    budget.

    **Arguments:** `preset`: a key of `GRID_PRESETS`; `dim`, `side`, `convention` as in
    `didact.targets.DeceptiveGrid`; `steps`: gradient steps (default: the paper's budget for
    this size and method); `epsilon`, `temperature`: exploration of Student and Teacher;
    `published_backward`: score P_B as the published code does.

    **Errors:** `ValueError` for an unknown preset, a size below the smallest grid, or what a method
    cannot have.

    Source: Kim et al. (2025), section 5.1; the documentation of methods names those of the other
    presets. Known divergence: the published code scores P_B at border cells as if they had parents
    that they do not have, which moves its fixed point; `published_backward=True` reproduces that.
    """
    if preset not in GRID_PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose from {', '.join(GRID_PRESETS)}.")
    if preset in UNEXPLORED and (epsilon, temperature) != (None, None):
        raise ValueError(
            f"preset {preset!r} explores in its own way: leave epsilon and temperature out."
        )
    environment, target = Hypergrid(dim, side), DeceptiveGrid(dim, side, convention)
    if preset == "eps" and epsilon is None:
        epsilon = 0.01
    own, by_teacher = OnPolicy(epsilon, temperature), FromTeacher(epsilon, temperature)
    if preset in EXPLORATION_PRESETS:
        # Half of a way whose length is half that of the longest.
        depth = max(environment.num_steps // 4, 1)
        parts = explore(
            *(preset, own, by_teacher), regression=Squared(), depth=depth, batch_size=batch_size
        )
    else:
        published = "tb-prt" if preset in (*_OWN, "tb-prt-late") else preset
        parts = _published(published, own, by_teacher, target, batch_size)
    steps = paper_steps(dim, side, buffered="replay" in parts) if steps is None else steps
    if preset == "tb-prt-late":
        parts["optimiser"] = _late(steps)
    if preset in _OWN:
        parts |= _own(preset, own, by_teacher, parts["replay"], environment, steps)
    return Experiment(
        environment=environment,
        target=target,
        batch_size=batch_size,
        steps=steps,
        backward_scoring=published_backward_kernel if published_backward else None,
        **parts,
    )


def _late(steps: int) -> OptimiserConfig:
    """A fifth of the training in which what was found is learned well: at a constant rate the noise
    of the last batches stays. A rate that falls from the start, or is higher at first, holds more
    where all modes are found, but may end the search for them: the Student learns to leave out what
    it has not seen.
    """
    return OptimiserConfig(milestones=(max(steps * 4 // 5, 1),))


def _own(
    preset: str,
    own: OnPolicy,
    by_teacher: FromTeacher,
    replay: ReplayConfig,
    environment: Hypergrid,
    steps: int,
) -> Parts:
    """What our own method changes of replay by reward, and the two halves of it alone.

    A high rate that falls holds the most of what has been found, and ends the search early: so one
    new batch in eight is a Teacher's, whose reward has a floor: while the Student misses what has
    been seen, it goes there, and the less is missed, the more evenly it looks everywhere. What it
    finds first leads to others that share coordinates with it: as many batches are mutants of the
    best, about as often from each order of magnitude of ranks.
    """
    num_objects = environment.num_terminal_states
    search = Mutate(RankDraw(1 / replay.capacity))
    new = {
        "didact": mixed(own, search, by_teacher),
        "mutate": (own, own, own, own, search, own, own, own),
        "teacher-floor": (own, own, by_teacher, own),
    }[preset]
    parts: Parts = {"optimiser": falling(OptimiserConfig(), steps)}
    if preset != "mutate":
        parts["teacher_reward"] = OneSided(floor=_FLOOR / num_objects)
    if preset == "didact" and num_objects > _MANY:
        # Too many to look everywhere in passing. And few modes would be lost among the others.
        new = (own, by_teacher, search, by_teacher)
        parts["replay"] = replace(replay, rank_offset=_OFFSET)
    parts["behaviour"] = and_replayed(new)
    return parts


def _published(
    preset: str,
    own: OnPolicy,
    by_teacher: FromTeacher,
    target: DeceptiveGrid,
    batch_size: int,
) -> Parts:
    """What the paper's methods set of an experiment: a Teacher or none, a buffer or none; and
    "one-sided", whose buffer holds all objects, in the order of the Teacher's latest reward.
    """
    method, _, priority = preset.partition("-")
    taught, one_sided = method in ("teacher", "one"), preset == "one-sided"
    turns = (own, own, by_teacher, by_teacher) if taught else (own,)
    parts: Parts = {}
    if priority:
        replayed = FromReplay()
        turns = (own, replayed, by_teacher, replayed) if taught else (own, replayed)
        # Without a Teacher, rank by what its reward would be: a monotone function of this loss.
        by_error: Priority = "teacher" if taught else "loss"
        order: Priority = "reward" if priority == "prt" else by_error
        inner = target.side - 1
        tenth = (inner + target.dim) * inner ** (target.dim - 1) // 10
        capacity = target.num_terminal_states if one_sided else tenth
        capacity = max(min(capacity, _MOST_REPLAYED), batch_size)
        parts["replay"] = ReplayConfig(
            capacity=capacity,
            priority="teacher-reward" if one_sided else order,
            refresh=one_sided,
            asymmetry=19.0,
            merge_every=steps_to_wait(capacity, batch_size),
        )
    if taught:
        parts["teacher_reward"] = OneSided() if one_sided else DoubleLog()
    return parts | {"behaviour": Cycle(turns)}


def steps_to_wait(capacity: int, batch_size: int) -> int:
    """Steps whose batches may wait to be put into a buffer together: they are a 400th of it at
    most, and by 64 the cost is gone.
    """
    return min(max(capacity // (400 * max(batch_size, 1)), 1), 64)


def paper_steps(dim: int, side: int, *, buffered: bool) -> int:
    """The paper's number of gradient steps: with a buffer every second batch is replayed, so
    twice as many see as many new objects.
    """
    base = 4_000
    if dim == 2 and side > 256:
        base = 8_000
    if dim == 4 and side > 16:
        base = 16_000
    return base * 3 // 2 * (2 if buffered else 1)

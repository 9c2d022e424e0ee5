"""The deceptive grid, with every method of the paper's comparison that this version has."""

from typing import Literal

from .._experiment import Experiment
from ..behaviours import Behaviour, Cycle, FromReplay, FromTeacher, OnPolicy
from ..environments import Hypergrid, published_backward_kernel
from ..replay import ReplayConfig
from ..targets import DeceptiveGrid
from ..teacher import DoubleLog

_MOST_REPLAYED = 1_000_000
GRID_PRESETS = {
    "tb": "trajectory balance, on-policy",
    "eps": "trajectory balance with 1 % uniform actions",
    "tb-prt": "trajectory balance with reward-prioritised replay",
    "tb-per": "trajectory balance with loss-prioritised replay",
    "teacher": "adaptive Teacher, no buffer",
    "teacher-prt": "adaptive Teacher with reward-prioritised replay",
    "teacher-per": "adaptive Teacher with replay prioritised by the Teacher's reward",
}
"""Name and one-line description of each method."""


def grid(
    preset: str = "teacher-per",
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
    """The paper's experiment on the deceptive grid: its constants, schedule and budget.

    **Arguments:** `preset`: a key of `GRID_PRESETS`; `dim`, `side`, `convention` as in
    `didact.targets.DeceptiveGrid`; `steps`: gradient steps (default: the paper's budget for
    this size and method); `epsilon`, `temperature`: exploration of Student and Teacher;
    `published_backward`: score P_B as the published code does.

    **Errors:** `ValueError` for an unknown preset or a size below the smallest grid.

    Source: Kim et al. (2025), section 5.1. Known divergence: the published code scores P_B
    at border cells as if they had parents that they do not have, which moves its fixed
    point; `published_backward=True` reproduces that.
    """
    if preset not in GRID_PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose from {', '.join(GRID_PRESETS)}.")
    environment = Hypergrid(dim, side)
    method, _, priority = preset.partition("-")
    if method == "eps" and epsilon is None:
        epsilon = 0.01
    own = OnPolicy(epsilon, temperature)
    by_teacher = FromTeacher(epsilon, temperature)
    replayed = FromReplay()
    schedules: dict[tuple[bool, bool], tuple[Behaviour, ...]] = {
        (False, False): (own,),
        (False, True): (own, replayed),
        (True, False): (own, own, by_teacher, by_teacher),
        (True, True): (own, replayed, by_teacher, replayed),
    }
    taught, buffered = method == "teacher", bool(priority)
    return Experiment(
        environment=environment,
        target=DeceptiveGrid(dim, side, convention),
        behaviour=Cycle(schedules[taught, buffered]),
        teacher_reward=DoubleLog() if taught else None,
        replay=_replay(taught, priority, dim, side, batch_size) if buffered else None,
        batch_size=batch_size,
        steps=paper_steps(dim, side, buffered=buffered) if steps is None else steps,
        backward_scoring=published_backward_kernel if published_backward else None,
    )


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


def _replay(taught: bool, priority: str, dim: int, side: int, batch_size: int) -> ReplayConfig:
    """A tenth of the published bound on the number of terminal states, within what is useful."""
    capacity = min((side - 1 + dim) * (side - 1) ** (dim - 1) // 10, _MOST_REPLAYED)
    # Without a Teacher, rank by what its reward would be: a monotone function of this loss.
    by_error = "teacher" if taught else "loss"
    return ReplayConfig(
        capacity=max(capacity, batch_size),
        priority="reward" if priority == "prt" else by_error,
        asymmetry=19.0,
    )

"""What can be trained: the options of each task, and the experiment that they make."""

import abc
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ._process import BadInput

if TYPE_CHECKING:
    from .._experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(abc.ABC):
    """Options that training has for every task."""

    spelled: ClassVar[tuple[str, ...]] = ("preset",)
    """Options that define the run: stored even where they have their defaults, since a later
    version may have others."""

    preset: str
    """Method: one that `didact list` shows."""
    steps: int | None = None
    """Gradient steps. Default: the paper's budget for the preset, or that of --size."""
    seeds: int = 1
    """Replicas, trained side by side."""
    seed: int = 0
    """Seed of the first replica; the others count up from it."""
    out: Path | None = None
    """Run folder. Default: runs/ and the task, its main options and the seed."""
    evaluations: int = 12
    """Evaluations on the way, each kept as a snapshot."""
    draws: int = 10_000
    """Draws of the final statistics."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints."""
    resume: bool = False
    """Go on with the run in --out; options not given are taken from it."""

    @abc.abstractmethod
    def experiment(self, task: str) -> "Experiment":
        """The experiment of a task with these options.

        **Errors:** `ValueError` where they make none.
        """

    @abc.abstractmethod
    def title(self, task: str) -> str:
        """What is trained, for the head of a report."""

    @abc.abstractmethod
    def label(self, task: str) -> str:
        """Name of the default run folder, without the seed."""

    def folder(self, task: str) -> Path:
        """The run folder."""
        return self.out or Path(f"runs/{self.label(task)}-s{self.seed}")

    def stored(self) -> dict[str, Any]:
        """The options as a run keeps them, to be read back by --resume: those that define the run
        first, of the others those that differ from their defaults.
        """
        fields = {field.name: field for field in dataclasses.fields(self)}
        defining = (*self.spelled, "seeds", "seed")
        found = {}
        for name in dict.fromkeys((*defining, *fields)):
            value = getattr(self, name)
            wanted = value is not None and (name in defining or value != fields[name].default)
            if wanted and name != "resume":
                found[name] = str(value) if isinstance(value, Path) else value
        return found

    def check(self) -> None:
        """`BadInput` for what neither the parser nor the experiment checks."""
        least = {"seeds": 1, "seed": 0, "evaluations": 0, "draws": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise BadInput(f"--{name} must be at least {bound}, got {getattr(self, name)}.")
        if not 0 <= self.checkpoint_seconds < math.inf:
            raise BadInput(
                "--checkpoint-seconds must be at least 0 and finite, "
                f"got {self.checkpoint_seconds}."
            )
        if self.seed + self.seeds > 2**31:
            raise BadInput(f"--seed must be at most 2^31 - --seeds, got {self.seed}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid(Training):
    """Train a Student, with or without a Teacher, on the deceptive grid.

    The same command again goes on where the run stopped.
    """

    spelled: ClassVar[tuple[str, ...]] = ("preset", "dim", "side")

    preset: str = "teacher-per"
    """Method: one that `didact list` shows."""
    dim: int = 2
    """Number of coordinates."""
    side: int = 128
    """Values of each coordinate."""
    batch_size: int = 16
    """Trajectories a step."""
    epsilon: float | None = None
    """Share of uniformly drawn actions in training, 0 to 1."""
    temperature: float | None = None
    """Temperature of the policy in training."""
    convention: Literal["paper", "exact"] = "paper"
    """Which cells count as modes where rounding decides."""
    published_backward: bool = False
    """Score P_B at the border as the published code does."""
    draws: int = 100_000
    """Draws of the final statistics."""

    def experiment(self, task: str) -> "Experiment":
        """The paper's, on a grid of this size."""
        from .. import presets

        return presets.grid(
            self.preset,
            self.dim,
            self.side,
            convention=self.convention,
            steps=self.steps,
            batch_size=self.batch_size,
            epsilon=self.epsilon,
            temperature=self.temperature,
            published_backward=self.published_backward,
        )

    def title(self, task: str) -> str:
        """Its size."""
        return f"Deceptive grid, {self.dim} dimensions of {self.side}"

    def label(self, task: str) -> str:
        """Task, preset and size."""
        return f"{task}-{self.preset}-{self.dim}x{self.side}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(Training):
    """Train a diffusion sampler, with or without a Teacher, on a density over vectors.

    The same command again goes on where the run stopped.
    """

    spelled: ClassVar[tuple[str, ...]] = ("preset", "size", "num_steps")

    preset: str = "teacher"
    """Method: one that `didact list` shows."""
    size: Literal["paper", "cpu"] = "cpu"
    """Budget: "paper", batches of 500 and 10,000 steps, or "cpu", 100 and 4,000, for a machine
    without an accelerator."""
    batch_size: int | None = None
    """Trajectories a step. Default: that of --size."""
    num_steps: int | None = None
    """Steps of a trajectory. Default: 100, with the preset didact 50."""
    sigma: float | None = None
    """Scale of the reference process, of which the target must be within reach. Default: the
    task's own, that of the paper where it has the task."""
    log_variance_range: float | None = None
    """Learn the variance of each step, up to a factor of exp of this. Default: do not."""
    learn_backward: bool = False
    """Learn the backward steps too."""
    langevin: bool = False
    """Give the network the gradient of log R at every step; each costs a reward call."""
    width: int | None = None
    """Units of each layer of the network. Default: 256, with the preset didact 128."""

    def experiment(self, task: str) -> "Experiment":
        """The paper's, or the same on another target."""
        from .. import presets
        from ..networks import DiffusionMLPConfig

        known = presets.DIFFUSION_TASKS[task]
        target = known.target()
        own = self.preset == "didact"
        sigma = known.own if own else known.sigma
        network = presets.OWN_NETWORK if own else DiffusionMLPConfig()
        network = dataclasses.replace(network, langevin=self.langevin)
        if self.width is not None:
            network = dataclasses.replace(network, width=self.width)
        if self.langevin:
            _require_gradient(target, task)
        return presets.diffusion(
            target,
            self.preset,
            sigma=sigma if self.sigma is None else self.sigma,
            size=self.size,
            steps=self.steps,
            batch_size=self.batch_size,
            num_steps=self.num_steps,
            log_variance_range=self.log_variance_range,
            learn_backward=self.learn_backward,
            network=network,
        )

    def title(self, task: str) -> str:
        """The task and the method."""
        return f"{task}, {self.preset}"

    def label(self, task: str) -> str:
        """Task, preset and size."""
        return f"{task}-{self.preset}-{self.size}"


def options_of(task: str) -> type[Training]:
    """The options of a task, by its name.

    **Errors:** `BadInput` for an unknown task, naming those that there are.
    """
    if task == "grid":
        return Grid
    from ..presets import (
        DIFFUSION_TASKS,
    )  # imports JAX, which `train grid --help` need not wait for

    if task in DIFFUSION_TASKS:
        return Diffusion
    raise BadInput(
        f"unknown task {task!r} to train; the tasks are {', '.join(['grid', *DIFFUSION_TASKS])} "
        "(as in didact train grid)."
    )


def _require_gradient(target: Any, task: str) -> None:
    import jax
    import jax.numpy as jnp

    try:
        jax.eval_shape(jax.grad(target.log_reward), jnp.zeros(target.dim))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BadInput(
            f"--langevin needs the gradient of log R, which {task} has not: leave it out."
        ) from error

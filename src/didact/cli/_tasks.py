"""What can be trained: the options of each task, and the experiment that they make."""

import abc
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ._parse import named_function
from ._process import BadInput

if TYPE_CHECKING:
    from .._experiment import Experiment
    from .._types import Target
    from ..checkpoint import CheckpointPolicy
    from ..presets import DiscoveryTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(abc.ABC):
    """Options that training has for every task."""

    spelled: ClassVar[tuple[str, ...]] = ("preset",)
    """Options that define the run: stored even where they have their defaults, since a later
    version may have others."""
    told_anew: ClassVar[tuple[str, ...]] = ()
    """Options that --resume does not take from the run: they name programs, and a run folder may be
    a stranger's."""

    preset: str
    """Method: one that `didact list` shows."""
    steps: int | None = None
    """Gradient steps. Default: those of the preset's budget."""
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
    checkpoint_steps: int | None = None
    """Most steps between checkpoints. Default: as many as that time allows."""
    keep_checkpoints: int = 2
    """So many of the newest checkpoints are kept."""
    keep_best: str | None = None
    """Keep also the checkpoint at the evaluation that is best by this metric, as tv or elbo."""
    skip_nonfinite: bool = False
    """Pass over steps with a reward, loss or gradient that is not finite, and count them. Default:
    such a step ends the training."""
    extend: int | None = None
    """Train on to so many steps in all; learning rates, which may follow --steps, stay as they
    end."""
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
            if wanted and name not in ("resume", "extend"):
                found[name] = str(value) if isinstance(value, Path) else value
        return found

    def checkpoints(self) -> "CheckpointPolicy":
        """When checkpoints are written, and which are kept."""
        from ..checkpoint import CheckpointPolicy

        return CheckpointPolicy(
            seconds=self.checkpoint_seconds,
            steps=self.checkpoint_steps,
            keep=self.keep_checkpoints,
            keep_best=self.keep_best,
        )

    def check(self) -> None:
        """`BadInput` for what neither the parser nor the experiment checks."""
        least = {"seeds": 1, "seed": 0, "evaluations": 0, "draws": 2}
        least |= {"checkpoint_steps": 1, "keep_checkpoints": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                option = name.replace("_", "-")
                raise BadInput(f"--{option} must be at least {bound}, got {value}.")
        if not 0 <= self.checkpoint_seconds < math.inf:
            raise BadInput(
                "--checkpoint-seconds must be at least 0 and finite, "
                f"got {self.checkpoint_seconds}."
            )
        if self.keep_best is not None and not self.evaluations:
            raise BadInput("--keep-best goes by evaluations: --evaluations must be at least 1.")
        if self.seed + self.seeds > 2**31:
            raise BadInput(f"--seed must be at most 2^31 - --seeds, got {self.seed}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid(Training):
    """Train a Student, with or without a Teacher, on the deceptive grid.

    The same command again goes on where the run stopped.
    """

    spelled: ClassVar[tuple[str, ...]] = ("preset", "dim", "side")

    preset: str = "didact"
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
        """The method on a grid of this size."""
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

    preset: str = "didact"
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
    task's, with presets but didact that of the paper where it has the task (`didact list`)."""
    log_variance_range: float | None = None
    """Learn the variance of each step, up to a factor of exp of this; 0: do not. Default: 0, with
    the preset didact 4."""
    learn_backward: bool = False
    """Learn the backward steps too."""
    langevin: bool = False
    """Give the network the gradient of log R at every step; each costs a reward call."""
    width: int | None = None
    """Units of each layer of the network. Default: 256; with the preset didact, 128 up to 8
    dimensions."""

    def experiment(self, task: str) -> "Experiment":
        """The method on the target, with what options change of it."""
        from .. import presets
        from ..networks import DiffusionMLPConfig

        known = presets.DIFFUSION_TASKS[task]
        target = known.target()
        own = self.preset == "didact"
        sigma = known.own if own else known.sigma
        network = presets.own_network(target) if own else DiffusionMLPConfig()
        network = dataclasses.replace(network, langevin=self.langevin)
        if self.width is not None:
            network = dataclasses.replace(network, width=self.width)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strings(Training, abc.ABC):
    """Options of the tasks on strings."""

    preset: str = "didact"
    """Method: one that `didact list` shows."""
    rounds: int | None = None
    """Rounds: each draws one batch of new strings, and with a buffer learns from some of that too.
    Default: the paper's for the task, or 2,000."""
    batch_size: int = 32
    """Strings a batch."""
    epsilon: float | None = None
    """Share of uniformly drawn symbols in training, 0 to 1. Default: the paper's for the task, or
    0.01."""
    network: Literal["ssr", "mlp"] = "ssr"
    """The policy: "ssr" scores each child of a string, "mlp" each symbol in front and at the
    end."""
    width: int | None = None
    """Units of each layer of the network. Default: the paper's for the task, or 128."""
    grow: Literal["both", "end"] = "both"
    """Where strings grow: at both ends, or at their end alone."""
    draws: int = 10_000
    """Draws of the final statistics."""

    def discovery(self, target: "Target", task: "DiscoveryTask | None", **sizes: int) -> Any:
        """The experiment on a target, with the constants of a task where options leave them."""
        from .. import presets
        from ..networks import MLPConfig

        def either(option: Any, name: str, default: Any) -> Any:
            return option if option is not None else getattr(task, name, default)

        width = either(self.width, "width", 128)
        return presets.discovery(
            target,
            self.preset,
            rounds=either(self.rounds, "rounds", 2_000),
            width=width,
            epsilon=either(self.epsilon, "epsilon", 0.01),
            depth=either(None, "depth", 3),
            batch_size=self.batch_size,
            steps=self.steps,
            grow=self.grow,
            network=MLPConfig(width) if self.network == "mlp" else None,
            **sizes,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Discovery(Strings):
    """Train a Student, with or without a Teacher, on strings of molecular blocks or bases.

    The same command again goes on where the run stopped.
    """

    def experiment(self, task: str) -> "Experiment":
        """The method on the task."""
        from .. import presets

        known = presets.DISCOVERY_TASKS[task]
        return self.discovery(known.target(), known)

    def title(self, task: str) -> str:
        """The task and the method."""
        return f"{task}, {self.preset}"

    def label(self, task: str) -> str:
        """Task and preset."""
        return f"{task}-{self.preset}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sequence(Strings):
    """Train a Student, with or without a Teacher, on a reward of strings of your own.

    The reward is a Python function: a list of strings in, as many scores out, none negative. Each
    string is scored once; scores are kept for later runs. The same command again goes on where the
    run stopped.
    """

    spelled: ClassVar[tuple[str, ...]] = ("preset", "alphabet", "length", "reward", "beta")
    told_anew: ClassVar[tuple[str, ...]] = ("reward",)

    alphabet: str = ""
    """The symbols of the strings, as in ACGT."""
    length: int = 0
    """Symbols of each string."""
    reward: str = ""
    """module:function; its module is imported from here. --resume wants it too."""
    beta: float = 1.0
    """Power of the score to which strings are to be drawn in proportion."""
    floor: float | None = None
    """Lower scores count as this one. Default: 1e-6; needed with --returns log_reward."""
    returns: Literal["score", "log_reward"] = "score"
    """What the function returns: scores, or logarithms of them."""
    workers: int = 0
    """Processes that call the function. Default: it is called in this one, where nothing guards
    against a function that hangs."""
    timeout: float | None = None
    """Most seconds of a call; needs --workers. Default: no limit."""
    call_size: int = 256
    """Most strings of a call."""
    no_cache: bool = False
    """Do not keep the scores on disk for later runs."""
    cache_key: str | None = None
    """Name of the version of the function that kept scores belong to. Default: a digest of its
    program."""
    draws: int = 2_000
    """Draws of the final statistics, each of which is scored."""

    def experiment(self, task: str) -> "Experiment":
        """The method on the user's reward."""
        from ..targets import HostReward

        if len(self.alphabet) < 2:
            raise BadInput("--alphabet must name the symbols of the strings, as in ACGT.")
        if self.length < 1:
            raise BadInput(f"--length must be at least 1, got {self.length}.")
        if not self.reward:
            raise BadInput("--reward must be module:function, a function of a list of strings.")
        target = HostReward(
            score_fn=named_function("--reward", self.reward),
            alphabet=self.alphabet,
            beta=self.beta,
            floor=self.floor,
            returns=self.returns,
            workers=self.workers,
            timeout=self.timeout,
            call_size=self.call_size,
            cache=not self.no_cache,
            cache_key=self.cache_key,
        )
        return self.discovery(target, None, length=self.length)

    def title(self, task: str) -> str:
        """The reward and the method."""
        return f"{self.reward} on {self.length} of {self.alphabet}, {self.preset}"

    def label(self, task: str) -> str:
        """The reward, and the method."""
        return f"{self.reward.replace(':', '-')}-{self.preset}"


def options_of(task: str) -> type[Training]:
    """The options of a task, by its name.

    **Errors:** `BadInput` for an unknown task, naming those that there are.
    """
    if task == "grid":
        return Grid
    if task == "sequence":
        return Sequence
    # Imports JAX, which `train grid --help` need not wait for.
    from ..presets import DIFFUSION_TASKS, DISCOVERY_TASKS

    if task in DIFFUSION_TASKS:
        return Diffusion
    if task in DISCOVERY_TASKS:
        return Discovery
    tasks = ", ".join(["grid", *DIFFUSION_TASKS, *DISCOVERY_TASKS, "sequence"])
    raise BadInput(
        f"unknown task {task!r} to train; the tasks are {tasks} (as in didact train grid)."
    )

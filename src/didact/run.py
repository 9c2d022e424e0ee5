"""A run is a folder: configuration, record, checkpoints, samplers, snapshots, report.

`train` makes or resumes one; `Run` reads one.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from . import _train
from ._config import ForeignName, from_json
from ._experiment import Experiment
from ._files import clean, make_folder
from ._folder import (
    RunError,
    damaged,
    disk_errors,
    how_to_give,
    lengths_of,
    lock,
    open_run,
    read_config,
    run_errors,
)
from ._host import HostError
from ._judge import judge, keep_verdict, read_record, read_verdict
from ._loop import Loop, Schedule
from ._probe import differing_version
from ._sampler import Sampler
from ._train import TrainState
from ._trouble import FILE
from .checkpoint import (
    CheckpointPolicy,
    best_step,
    checkpoints,
    is_whole,
    load_state,
    save_sampler,
    set_aside_later,
)
from .datasets import DataError
from .logging import ProgressBar, say
from .metrics import empirical
from .samples import draw_batches
from .targets import HostReward

_MAX_SEEDS = 2**16
_log = logging.getLogger("didact")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, read."""

    path: Path
    experiment: Experiment
    seeds: tuple[int, ...]
    config: Mapping[str, Any]

    @staticmethod
    def load(path: str | Path, *, given: Mapping[str, Any] | None = None) -> "Run":
        """Read the configuration of a run folder.

        **Arguments:** `given`: values for what a configuration can only name, such as the
        function of a `didact.targets.FromFunction` ({"module:name": function}).

        **Errors:** `RunError` if the folder is no run, its configuration is damaged or names what
        is not given.
        """
        path = Path(path)
        config = read_config(path)
        try:
            experiment = from_json(config["experiment"], given)
            if not isinstance(experiment, Experiment):
                raise ValueError("its experiment is none")
            seeds = _check_seeds(config["seeds"])
        except ForeignName as error:
            raise RunError(how_to_give(path, config["experiment"], given or {})) from error
        except DataError as error:  # the run is whole, and the message says what helps
            raise RunError(str(error)) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise damaged(path / "config.json", error) from error
        if isinstance(experiment.target, HostReward):
            difference = differing_version(config.get("probe"), experiment.target)
            if difference:
                _log.warning(
                    "%s: %s. What is scored from now on is scored by it.", path, difference
                )
        return Run(path, experiment, seeds, config)

    def state(self, *, best: str | None = None) -> TrainState:
        """The state at the newest checkpoint.

        **Arguments:** `best`: a metric of the evaluations on the way: the state at the checkpoint
        that is best by it, of those that are there (`CheckpointPolicy.keep_best` keeps it).

        **Errors:** `RunError` if there is none that can be read.
        """
        step = None
        if best is not None:
            kept = {int(file.stem) for file in checkpoints(self.path / "checkpoints")}
            step = best_step((row for row in self.metrics() if row.get("step") in kept), best)
            if step is None:
                raise RunError(
                    f"{self.path} has no checkpoint at an evaluation with {best}: train it with "
                    "CheckpointPolicy(keep_best=...)."
                )
        state = _restore(self.path, _shapes(self.experiment, len(self.seeds)), step)
        if state is None:
            raise RunError(f"{self.path} holds no checkpoint yet: resume its training first.")
        return state

    def student(self, seed: int | None = None) -> Sampler:
        """The trained Student of one seed (default: the first)."""
        return self.state().student(self.position(seed))

    def teacher(self, seed: int | None = None) -> Sampler | None:
        """The Teacher of one seed (default: the first), where there is one."""
        return self.state().teacher(self.position(seed))

    def sample(self, n: int, *, seed: int | None = None, key: int = 0) -> empirical.Draws:
        """`n` independent draws of one seed's Student (default: the first), as NumPy arrays
        with their scores: `x`, `log_reward`, `log_pf`, `log_pb`, `log_weight`. For more than
        memory holds, `didact.write_samples` streams the same draws to a file.
        """
        index = self.position(seed)
        student = self.state().student(index)
        with _host_rewards(self.experiment):
            batches = [*draw_batches(student, self.experiment.target, self.seeds[index], n, key)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, header included."""
        return read_record(self.path)

    def evaluate(self, *, num_draws: int | None = None) -> dict[str, Any]:
        """The verdict on the newest checkpoint, as lists over seeds; written to
        `evaluation.json` too. Exact where the states can be enumerated, else by samples,
        with the `reason` where they are too many.

        **Arguments:** `num_draws` as in `didact.train`.
        """
        state = self.state()
        with _host_rewards(self.experiment):
            verdict = judge(self.path, self.experiment, self.seeds, state, num_draws)
            try:
                keep_verdict(self.path, self.experiment, self.seeds, state, verdict)
            except OSError as error:
                _log.warning("The verdict cannot be kept in %s: %s", self.path, error)
        return verdict

    def verdict(self) -> dict[str, Any]:
        """The verdict that the last evaluation wrote to `evaluation.json`, without a new one.

        **Errors:** `RunError` if there is none that can be read.
        """
        return read_verdict(self.path)

    def report(self) -> Path:
        """Write `report.html`, self-contained, and return its path."""
        from . import report  # with matplotlib, which training must not wait for

        return report.write(self.path)

    def position(self, seed: int | None) -> int:
        """Where a seed stands among `seeds`; the first for None.

        **Errors:** `RunError` if the run has no such seed.
        """
        if seed is None:
            return 0
        if seed not in self.seeds:
            raise RunError(f"{self.path} has no seed {seed}: its seeds are {list(self.seeds)}.")
        return self.seeds.index(seed)


def train(
    experiment: Experiment,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    evaluations: int = 12,
    checkpoints: CheckpointPolicy | None = None,
    extend: int | None = None,
    num_draws: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    summary: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Run:
    """Train into a run folder, or go on with the run that the folder holds. A finished run is
    left as it is.

    **Arguments:** `out`: the folder; `seeds`: replicas, trained side by side;
    `evaluations`: so many times the Student is evaluated and a snapshot kept on the way;
    `checkpoints`: when they are written, and which are kept (None: as `CheckpointPolicy()` says);
    `extend`: steps in all, more than the experiment has (below); `num_draws` of the final draw
    statistics (None: the paper's 100,000; for vectors and strings 10,000; for a reward computed
    outside JAX 2,000); `should_stop` is asked after each chunk, and where rewards are computed
    outside JAX before each step: True ends with everything written; `summary`: labels for the
    report; `progress`: show a bar on stderr, or where that is no terminal a line every ten seconds.

    A run that goes on ends in the same bits as one that was never stopped, on the same machine:
    parameters, optimisers, buffer and the rows of the record, but for what depends on the clock.

    With `extend` the experiment is trained on to so many steps, also where its run is finished.
    Nothing else of it changes: learning rates that follow a cosine or milestones, which count
    updates, stay as they end; schedules of batches go round and round. Chunks and evaluations keep
    their distances, with one more of both at each end that the run was to have. `config.json` says
    which these were (`lengths`); the same calls in the same order give the same run, and so does
    the last alone where the run was made longer once. The experiment's `skip_nonfinite`, too, may
    be turned on for a run that goes on: the steps before did not need it.

    **Errors:** `RunError` if the folder cannot be used: it holds another run, is damaged, cannot be
    written, or another process is training in it; or if a reward function outside JAX cannot be
    used. `FloatingPointError` at a reward, loss or gradient that is not finite, with what it was
    and of which object. The checkpoints before it are kept, and the state after the last chunk.
    """
    path = Path(out)
    seeds = _check_seeds(seeds)
    if evaluations < 0:
        raise ValueError(f"evaluations must be >= 0, got {evaluations}.")
    policy = CheckpointPolicy() if checkpoints is None else checkpoints
    if policy.keep_best is not None and not evaluations:
        raise ValueError("keep_best goes by evaluations: let there be some.")
    if num_draws is not None and num_draws < 2:
        raise ValueError(f"num_draws must be >= 2, got {num_draws}.")
    total = experiment.steps if extend is None else extend
    if total < experiment.steps:
        raise ValueError(
            f"extend must be at least the {experiment.steps} steps of the experiment, got {extend}."
        )
    trained = dataclasses.replace(experiment, steps=total)
    with disk_errors(path), lock(path), _host_rewards(experiment):
        config = open_run(path, experiment, seeds, total, summary or {})
        run = Run(path, trained, seeds, config)
        if _is_complete(run):
            if progress:
                say(f"{path} is finished, with {total:,} steps: nothing was trained.")
            return run
        clean(path)
        (path / FILE).unlink(missing_ok=True)
        schedule = Schedule(lengths_of(config), evaluations)
        _train_on(run, schedule, policy, num_draws, should_stop, progress)
    return run


def _train_on(
    run: Run,
    schedule: Schedule,
    policy: CheckpointPolicy,
    num_draws: int | None,
    should_stop: Callable[[], bool],
    progress: bool,
) -> None:
    """Train a run from where it is to its end, or until it is stopped."""
    path, experiment, seeds = run.path, run.experiment, run.seeds
    state = _train.init(experiment, seeds)
    resumed = _restore(path, state)
    if resumed is not None:
        state = resumed
        set_aside_later(path / "checkpoints", int(state.step))
    with ProgressBar(experiment.steps, int(state.step), enabled=progress) as bar:
        loop = Loop(path, experiment, seeds, schedule, policy, should_stop, bar)
        state, stopped = loop.run(state)
        if not stopped:
            for i, seed in enumerate(seeds):
                file = _sampler_file(path, seed)
                make_folder(file.parent)
                save_sampler(file, state.student(i), seed=seed)
        if not stopped and not should_stop():
            bar.phase("evaluating")
            verdict = judge(path, experiment, seeds, state, num_draws)
            # A page of an earlier stop would count as the one that the end writes.
            (path / "report.html").unlink(missing_ok=True)
            keep_verdict(path, experiment, seeds, state, verdict)
        bar.phase("writing the report")
        run.report()


def _is_complete(run: Run) -> bool:
    """Whether everything that the end of training writes is there."""
    files = [_sampler_file(run.path, seed) for seed in run.seeds]
    if not checkpoints(run.path / "checkpoints") or not (run.path / "report.html").is_file():
        return False
    if not all(file.is_file() and is_whole(file) for file in files):
        return False
    with contextlib.suppress(RunError):
        return run.verdict().get("step") == run.experiment.steps
    return False


def _sampler_file(path: Path, seed: int) -> Path:
    return path / "samplers" / f"student-{seed}.npz"


def _check_seeds(seeds: Sequence[int] | int) -> tuple[int, ...]:
    if isinstance(seeds, int):  # a number of seeds, or the number of one?
        raise ValueError(
            f"seeds must list them, got {seeds}: range({seeds}) trains {seeds} replicas, "
            f"[{seeds}] the one of that number."
        )
    if len(seeds) > _MAX_SEEDS:
        raise ValueError(f"there may be at most {_MAX_SEEDS:,} seeds, got {len(seeds):,}.")
    seeds = tuple(int(seed) for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}.")
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise ValueError(f"seeds must lie in [0, 2^31), got {list(seeds)}.")
    return seeds


def _shapes(experiment: Experiment, num_seeds: int) -> TrainState:
    """The shapes of a state. A configuration alone takes no memory, whatever it says."""
    one = eqx.filter_eval_shape(_train.init, experiment, (0,))

    def of_all(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jax.ShapeDtypeStruct((num_seeds, *leaf.shape[1:]), leaf.dtype)

    return eqx.tree_at(lambda state: state.seeds, one, jax.tree.map(of_all, one.seeds))


def _restore(path: Path, like: TrainState, step: int | None = None) -> TrainState | None:
    with run_errors():
        return load_state(path / "checkpoints", like, step=step)


@contextlib.contextmanager
def _host_rewards(experiment: Experiment) -> Iterator[None]:
    """A reward function outside JAX that cannot be used is an error of the run; afterwards its
    workers end.
    """
    target = experiment.target
    if not isinstance(target, HostReward):
        yield
        return
    try:
        yield
    except (HostError, jax.errors.JaxRuntimeError) as error:  # the latter from compiled programs
        if isinstance(error, HostError) or target.error is not None:
            raise RunError(str(target.error or error)) from error
        raise
    finally:
        target.close()


__all__ = ["Run", "RunError", "train"]

"""The training of a run: chunks of compiled steps, with all that touches the host between them."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _apart, _train, checkpoint
from ._experiment import Experiment, traced_numbers
from ._folder import RunError, run_errors
from ._host import HostError
from ._judge import judge_on_the_way, pictures_of
from ._record import Record
from ._train import StepInfo, TrainState
from ._trouble import FILE, Trouble, find_trouble
from .checkpoint import CheckpointPolicy, CheckpointWriter, best_step
from .logging import ProgressBar
from .targets import HostReward, HostRewards

_CHUNKS = 200
_MOST_WASTED = 100
clock = time.monotonic


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Where chunks of steps end, wherever training began: a run that goes on, also one that is made
    longer, writes the rows that it would have written.

    **Arguments:** `lengths`: numbers of steps that the run was to have, the first one first: it
    sets the distance of chunks and of evaluations, and at each a chunk ends; `evaluations`: so many
    up to the first.
    """

    lengths: tuple[int, ...]
    evaluations: int

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.lengths[-1]

    @property
    def capacity(self) -> int:
        """Most steps of a chunk."""
        return max(1, -(-self.lengths[0] // _CHUNKS))

    def is_mark(self, step: int) -> bool:
        """Whether the state after this step > 0 is evaluated."""
        return self.evaluations > 0 and (step in self.lengths or step == self._mark(step))

    def end_after(self, step: int) -> int:
        """Where the chunk ends that begins at this step."""
        ends = [(step // self.capacity + 1) * self.capacity]
        ends += [length for length in self.lengths if length > step]
        if self.evaluations:
            ends.append(self._mark(step + 1))
        return min(ends)

    def _mark(self, step: int) -> int:
        """The first evaluation at this step > 0 or later, were there no end."""
        first, count = self.lengths[0], self.evaluations
        marks = (round(first * i / count) for i in itertools.count((step - 1) * count // first))
        return next(mark for mark in marks if mark >= step)


class Loop:
    """The training of one run.

    **Arguments:** `path`, `experiment` and `seeds` of the run; `should_stop` is asked after each
    chunk, and where rewards are computed outside JAX before each step.
    """

    def __init__(
        self,
        path: Path,
        experiment: Experiment,
        seeds: tuple[int, ...],
        schedule: Schedule,
        policy: CheckpointPolicy,
        should_stop: Callable[[], bool],
        bar: ProgressBar,
    ):
        self._path, self._experiment, self._seeds = path, experiment, seeds
        self._schedule, self._policy = schedule, policy
        self._should_stop, self._bar = should_stop, bar
        self._pictures = pictures_of(path, experiment, seeds) if schedule.evaluations else None
        self._skipped, self._wasted = np.zeros(len(seeds), np.int64), 0

    def run(self, state: TrainState) -> tuple[TrainState, bool]:
        """Train on from a state, which is used up.

        **Returns:** the state, and whether training was stopped before its end.

        **Errors:** `FloatingPointError` at a reward, loss or gradient that is not finite.
        """
        step, total, stopped = int(state.step), self._schedule.total, False
        if state.seeds.skipped is not None:
            self._skipped = np.array(state.seeds.skipped)  # a copy, as the state is used up
        with contextlib.ExitStack() as files:
            with run_errors():
                record = Record(self._path, self._experiment, self._seeds, step=step)
            files.callback(record.close)
            writer = files.enter_context(self._writer(step, record))
            if step < total:
                self._bar.phase("compiling")
            if step == 0 and self._schedule.evaluations:
                self._evaluate(state, record)
            while step < total and not stopped:
                end, began = self._schedule.end_after(step), clock()
                state, info, spent = self._advance(state, end - step, record)
                if np.any(state.seeds.trouble):
                    raise self._failure(state, step, writer, self._best(record))
                if int(state.step) < end:
                    # Stopped within a chunk, whose row and checkpoint would be none of this run's:
                    # a resumed run makes its steps again, with rewards from the cache.
                    return state, True
                row = record.trained(info, end, end - step, clock() - began, spent)
                self._bar.update(row)
                if self._schedule.is_mark(end):
                    self._evaluate(state, record)
                best, due = self._best(record), writer.is_due(end)
                stopped, wasted = self._should_stop(), self._is_wasted(row, end - step)
                if due or stopped or wasted or end in (total, best):
                    writer.save(state, best=best)
                if wasted:
                    raise self._waste(state)
                step = end
        return state, stopped and step < total

    def _writer(self, step: int, record: Record) -> CheckpointWriter:
        folder = self._path / "checkpoints"
        return CheckpointWriter(folder, self._policy, step=step, before=record.sync, clock=clock)

    def _advance(
        self, state: TrainState, count: int, record: Record | None
    ) -> tuple[TrainState, StepInfo, dict[str, int]]:
        """A chunk of steps; and where rewards are computed outside JAX how many of them were."""
        target, capacity = self._experiment.target, self._schedule.capacity
        if not isinstance(target, HostReward):
            return *_train.train_chunk(self._experiment, state, count, capacity=capacity), {}
        if record is None:
            return *_train.host_chunk(self._experiment, state, count, capacity=capacity), {}
        before = dataclasses.replace(target.counters)

        def observe(step: int, positions: Sequence[int], rewards: HostRewards) -> None:
            record.note(step, positions, rewards)
            self._bar.advance(step)

        state, info = _train.host_chunk(
            self._experiment,
            state,
            count,
            capacity=capacity,
            observe=observe,
            should_stop=self._should_stop,
        )
        spent = {
            name: getattr(target.counters, name) - getattr(before, name)
            for name in ("evaluations", "cache_hits")
        }
        return state, info, spent

    def _evaluate(self, state: TrainState, record: Record) -> None:
        """Judge a state, and write down what was found."""
        verdict = judge_on_the_way(self._experiment, state, self._pictures)
        self._bar.judged(record.evaluated(int(state.step), verdict))
        wanted = self._policy.keep_best
        if wanted is not None and set(verdict.get(wanted, (None,))) == {None}:
            known = ", ".join(sorted(name for name, values in verdict.items() if _is_known(values)))
            raise RunError(f"keep_best: evaluations have no {wanted} here, they have {known}.")

    def _best(self, record: Record) -> int | None:
        """The step of the checkpoint that is to stay as the best."""
        wanted = self._policy.keep_best
        return None if wanted is None else best_step(record.evaluations, wanted)

    def _is_wasted(self, row: Mapping[str, Any], count: int) -> bool:
        """Whether for long all steps of some seed have been skipped."""
        if row["skipped"] is None:
            return False
        skipped = np.asarray(row["skipped"])
        in_vain = bool(np.any(skipped - self._skipped >= count))
        self._skipped, self._wasted = skipped, self._wasted + count if in_vain else 0
        return self._wasted >= _MOST_WASTED

    def _waste(self, state: TrainState) -> FloatingPointError:
        """The error of a run that skips step after step."""
        found = self._take_apart(state)
        return FloatingPointError(
            f"the last {self._wasted} steps were all skipped, as something was not finite "
            f"(step {int(state.step)}){self._told(found, int(state.step) + 1)}: to skip steps does "
            f"not help. What was written to {self._path} is kept."
        )

    def _failure(
        self, failed: TrainState, step: int, writer: CheckpointWriter, best: int | None
    ) -> FloatingPointError:
        """The error of a step that ended training; the state at the end of the last chunk, at
        `step`, is kept.

        That state has been used up: the steps since the last checkpoint are made again, which costs
        nothing as long as all is well.
        """
        self._bar.phase("looking for what is not finite")
        number = int(failed.step)
        trouble = _train.trouble_message(int(jnp.max(failed.seeds.trouble)))
        kept = ""
        try:
            writer.wait()
            good = self._repeat(step)
            if good is not None and step > 0:
                writer.save(good, best=best)
                writer.wait()
                kept = f", with the state after step {step}"
            before = None if good is None else self._repeat(number - 1, good)
            told = self._told(None if before is None else self._take_apart(before), number)
        except (OSError, HostError, ValueError, jax.errors.JaxRuntimeError) as error:
            told = f", and could not be looked into ({error})"
        return FloatingPointError(
            f"{trouble} (step {number}){told}. What was written to {self._path} is kept{kept}; "
            "with skip_nonfinite (--skip-nonfinite) a run passes over such steps."
        )

    def _repeat(self, step: int, state: TrainState | None = None) -> TrainState | None:
        """The state after so many steps, from the newest checkpoint, or from a state, which is used
        up; None where this time one of the steps fails.
        """
        if state is None:
            like = _train.init(self._experiment, self._seeds)
            saved = checkpoint.load_state(self._path / "checkpoints", like)
            state = like if saved is None else saved
        while (done := int(state.step)) < step:
            count = min(self._schedule.capacity, step - done)
            state, _, _ = self._advance(state, count, None)
            if np.any(state.seeds.trouble):
                return None
        return state

    def _take_apart(self, state: TrainState) -> Trouble | None:
        target, log_reward = self._experiment.target, None
        if isinstance(target, HostReward):
            numbers = traced_numbers(self._experiment)
            proposal, x = _apart.together(_train._by_seed(_train._propose, numbers, state))
            log_reward, *_ = _train._on_host(target, proposal, x)
        return find_trouble(self._experiment, state, self._seeds, log_reward)

    def _told(self, found: Trouble | None, number: int) -> str:
        """The diagnosis as part of a sentence; all of it goes to a file."""
        if found is None:
            return ", where each number by itself is finite when it is computed again"
        found.write(self._path, number)
        return f". {found} (more in {self._path / FILE})"


def _is_known(values: Any) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= {float, int}

"""What training writes down as it goes on: rows, and what a reward outside JAX was asked."""

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._experiment import Experiment
from ._train import StepInfo
from .logging import MetricsLog, RewardLedger
from .targets import HostReward, HostRewards

_log = logging.getLogger("didact")


class Record:
    """The rows of a run. On opening, what came after `step` is forgotten.

    **Arguments:** `seeds` of the run.

    **Errors:** `ValueError` for a damaged file.
    """

    def __init__(self, path: Path, experiment: Experiment, seeds: Sequence[int], *, step: int):
        self._experiment = experiment
        self._log = MetricsLog(path / "metrics.jsonl", step=step)
        self._ledger: RewardLedger | None = None
        self.evaluations = [row for row in self._log.rows if row["kind"] == "evaluation"]
        try:
            if isinstance(experiment.target, HostReward):
                self._ledger = RewardLedger(path, seeds, step=step)
            self._report_gaps(path, step)
        except BaseException:
            self.close()
            raise

    def note(self, step: int, positions: Sequence[int], rewards: HostRewards) -> None:
        """Add what the gradient step of a number has asked of a reward outside JAX."""
        if self._ledger is not None:
            self._ledger.note(step, positions, rewards.keys, rewards.objects, rewards.failures)

    def trained(
        self, info: StepInfo, end: int, count: int, seconds: float, spent: Mapping[str, int]
    ) -> dict[str, Any]:
        """Add the row of a chunk of `count` steps that ended at step `end`.

        **Returns:** the row.
        """
        row = _train_row(self._experiment, info, end, count, seconds, self._costs(end))
        row["time"] |= spent
        self._log.write(row)
        return row

    def evaluated(self, step: int, verdict: Mapping[str, Any]) -> dict[str, Any]:
        """Add the row of an evaluation on the way.

        **Returns:** the row.
        """
        row = {"kind": "evaluation", "step": step, **self._costs(step), **verdict}
        self._log.write(row)
        self.evaluations.append(row)
        return row

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        if self._ledger is not None:
            self._ledger.sync()
        self._log.sync()

    def close(self) -> None:
        """Close the files."""
        self._log.close()
        if self._ledger is not None:
            self._ledger.close()

    def _costs(self, step: int) -> dict[str, Any]:
        """Rewards that training has asked for: all of them, or where they are computed outside JAX
        of different objects, per seed, and how many of these were set aside.
        """
        if self._ledger is None:
            return {"reward_calls": self._experiment.reward_calls(step)}
        return {"reward_calls": self._ledger.reward_calls, "failures": self._ledger.failures}

    def _report_gaps(self, path: Path, step: int) -> None:
        """Say what a checkpoint at this step has been through, and the files have not."""
        rows = [row for row in self._log.rows if row["kind"] == "train"]
        last = rows[-1]["step"] if rows else 0
        if last < step:
            _log.warning(
                "%s ends at step %d: its rows up to step %d, where training goes on, are lost.",
                *(path / "metrics.jsonl", last, step),
            )
        elif self._ledger is not None and any(self._ledger.reward_calls):
            counted, noted = rows[-1].get("reward_calls"), self._ledger.reward_calls
            if step > 0 and counted != noted:
                _log.warning(
                    "%s has lost some of its objects: they are counted again.", path / "seen.bin"
                )


def _train_row(
    experiment: Experiment,
    info: StepInfo,
    step: int,
    count: int,
    seconds: float,
    costs: Mapping[str, Any],
) -> dict[str, Any]:
    """One row of the record: means over the chunk, and values at its end, per seed."""
    mean = functools.partial(_mean, count, finite_alone=info.skipped is not None)
    last = functools.partial(_last, count)
    # A clock may stand still, or be set back.
    seconds = max(seconds, 1e-9)
    return {
        "kind": "train",
        "step": step,
        **costs,
        "student_batches": experiment.student_batches(step),
        "loss": mean(info.loss),
        "teacher_loss": mean(info.teacher_loss),
        "grad_norm": mean(info.grad_norm),
        "log_z": last(info.log_z),
        "teacher_log_z": last(info.teacher_log_z),
        "modes_found": last(info.modes_found),
        "modes_found_student": last(info.modes_found_student),
        "distinct": last(info.distinct),
        "mean_length": mean(info.mean_length),
        "skipped": last(info.skipped),
        "time": {"seconds": seconds, "steps_per_second": count / seconds},
    }


def _mean(count: int, values: Any, *, finite_alone: bool) -> list[float] | None:
    """Per seed, of the first `count` columns."""
    if values is None:
        return None
    done = np.asarray(values)[:, :count]
    if not finite_alone:
        return done.mean(axis=1).tolist()
    finite = np.isfinite(done)
    sums = np.where(finite, done, 0).sum(axis=1)
    with np.errstate(invalid="ignore"):  # of no step at all it is NaN, which becomes null
        return (sums / finite.sum(axis=1)).tolist()


def _last(count: int, values: Any) -> list[float] | list[int] | None:
    return None if values is None else np.asarray(values)[:, count - 1].tolist()

"""Batches to which an objective is applied: all trajectories of a problem, changed in one way."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._graph import Paths, Table
from ._problem import Batch, Point, Problem

STEP = 1e-2
"""Of a difference quotient."""
COLUMNS = 2
"""How many columns of padding are appended."""


@dataclasses.dataclass(frozen=True)
class Cases:
    """Batches by name, and what was done to make them."""

    setting: Problem
    optimum: Point
    away: Point
    paths: Paths  # padded at the end
    order: NDArray[np.int64]  # of the trajectories in "permuted"
    left_out: NDArray[np.bool_]  # those whose weight is 0, or whose content is another
    batches: dict[str, Batch]
    directions: dict[str, Table]  # in which each learned part moves, "ahead" and "behind"
    wide: Batch  # "away", with columns of padding appended

    def __getitem__(self, name: str) -> Batch:
        return self.batches[name]


def make_cases(setting: Problem, random: np.random.Generator) -> Cases:
    """All batches of a problem."""
    paths = setting.law.numbered_paths()
    front = setting.law.numbered_paths(pad_front=True)
    optimum, away = setting.optimum, setting.elsewhere(random)
    at_optimum, here = setting.batch(optimum, paths), setting.batch(away, paths)
    in_front = setting.batch(away, front)
    own = np.exp(at_optimum.log_pf.sum(axis=1))
    order = random.permutation(len(paths.mask))
    left_out = np.arange(len(paths.mask)) % 3 == 0
    without = dataclasses.replace(here, weight=np.where(left_out, 0.0, 1.0))
    directions = _directions(setting, paths, random)
    amount = 1 + np.arange(len(paths.mask)) % 2 + random.uniform(-0.1, 0.1, len(paths.mask))
    off = amount[:, None] * _one_edge(paths.mask)
    sign = np.where(np.arange(len(paths.mask)) % 2 == 0, 1.0, -1.0)
    batches = {
        "away": here,
        "optimum_end": at_optimum,
        "optimum_front": setting.batch(optimum, front),
        "own_law": dataclasses.replace(at_optimum, weight=own * len(own)),
        "target_law": dataclasses.replace(here, weight=own * len(own)),
        "away_front": in_front,
        "garbage": _filled(here, random),
        "garbage_front": _filled(in_front, random),
        "permuted": _permuted(here, order),
        "without": without,
        "without_other": _with_other_content(without, left_out),
        "other_batch": _with_other_content(here, left_out),
        "higher": _shifted(setting, here, paths, 50.0),
        "lower": _shifted(setting, here, paths, -50.0),
        "far": _shifted(setting, here, paths, 1e4 * sign),
        "log_pf off": dataclasses.replace(at_optimum, log_pf=at_optimum.log_pf - off),
        "log_pb off": dataclasses.replace(at_optimum, log_pb=at_optimum.log_pb - off),
        "log_reward off": _shifted(setting, at_optimum, paths, -amount),
    }
    for where, batch in (("", here), ("optimum ", at_optimum)):
        for name, direction in directions.items():
            for which, step in (("ahead", STEP), ("behind", -STEP)):
                moved = {name: getattr(batch, name) + step * direction}
                batches[f"{where}{name} {which}"] = dataclasses.replace(batch, **moved)
    return Cases(
        setting, optimum, away, paths, order, left_out, batches, directions, _widened(here, COLUMNS)
    )


def _directions(setting: Problem, paths: Paths, random: np.random.Generator) -> dict[str, Table]:
    """Random ones for all that is learned: real edges, and states whose flow is no reward."""
    internal = paths.states < setting.law.num_internal
    return {
        "log_pf": paths.mask * random.normal(size=paths.mask.shape),
        "log_pb": paths.mask * random.normal(size=paths.mask.shape),
        "log_flow": internal * random.normal(size=internal.shape),
        "log_z": np.ones(()),
    }


def _one_edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A real edge of each trajectory: of those of one length, each place in turn."""
    chosen, length = np.zeros_like(mask), mask.sum(axis=1)
    for size in np.unique(length):
        rows = np.flatnonzero(length == size)
        chosen[rows, np.argmax(mask[rows], axis=1) + np.arange(len(rows)) % size] = True
    return chosen


def _widened(batch: Batch, columns: int) -> Batch:
    """More columns of padding, at the end."""

    def pad(values: Any, mode: Any) -> Any:
        return np.pad(values, ((0, 0), (0, columns)), mode)

    return dataclasses.replace(
        batch,
        log_pf=pad(batch.log_pf, "constant"),
        log_pb=pad(batch.log_pb, "constant"),
        log_flow=pad(batch.log_flow, "edge"),
        mask=pad(batch.mask, "constant"),
    )


def _filled(batch: Batch, random: np.random.Generator) -> Batch:
    """Other numbers on padding. The first and the last state are real, wherever it is."""
    mask = batch.mask
    nodes = np.pad(mask, ((0, 0), (0, 1))) | np.pad(mask, ((0, 0), (1, 0)))
    nodes[:, [0, -1]] = True

    def fill(values: Any, real: NDArray[np.bool_]) -> Any:
        return np.where(real, values, random.uniform(-9, -2, real.shape))

    return dataclasses.replace(
        batch,
        log_pf=fill(batch.log_pf, mask),
        log_pb=fill(batch.log_pb, mask),
        log_flow=fill(batch.log_flow, nodes),
    )


def _permuted(batch: Batch, order: NDArray[np.int64]) -> Batch:
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(Batch)}
    changed = {name: value[order] for name, value in fields.items() if np.ndim(value)}
    return dataclasses.replace(batch, **changed)


def _with_other_content(batch: Batch, rows: NDArray[np.bool_]) -> Batch:
    """Other numbers in some trajectories."""
    here = rows[:, None] & batch.mask
    return dataclasses.replace(
        batch,
        log_pf=np.where(here, batch.log_pf - 1.5, batch.log_pf),
        log_pb=np.where(here, -0.25, batch.log_pb),
    )


def _shifted(setting: Problem, batch: Batch, paths: Paths, amount: Any) -> Batch:
    """Other rewards, which are the log F of terminal states too."""
    log_reward = batch.log_reward + amount
    terminal = paths.states >= setting.law.num_internal
    log_flow = np.where(terminal, log_reward[:, None], batch.log_flow)
    return dataclasses.replace(batch, log_reward=log_reward, log_flow=log_flow)

"""The search for the preset `didact` of grids and strings: variants of replay and Teacher, judged.

    python benchmarks/recipes.py run --task 4x16 --recipes "tb-prt, rate 0.003, cosine"
    python benchmarks/recipes.py table                  # from benchmarks/results/recipes.jsonl

Tuned with the seeds 100, 101, ...; reported numbers are those of other seeds (`didact bench`). All
variants have the paper's reward calls, and but for those that say so its gradient steps.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import didact
from didact.behaviours import (
    Behaviour,
    Cycle,
    FromReplay,
    FromTeacher,
    LocalSearch,
    Mutate,
    OnPolicy,
)
from didact.environments import Hypergrid, PrependAppend
from didact.objectives import DB
from didact.presets import DISCOVERY_TASKS, grid
from didact.replay import Priority, RankDraw
from didact.teacher import DoubleLog, OneSided
from discovery import of_strings

RESULTS = Path(__file__).parent / "results" / "recipes.jsonl"
CHUNK = 1_000
STEPS = {"6x16": 48_000}
"""Of tasks that are not the paper's."""
EXACT = 2_000_000
"""Objects: with more of them verdicts are of draws, and without total variation."""
Change = Callable[[didact.Experiment], didact.Experiment]


def cosine(experiment: didact.Experiment) -> didact.Experiment:
    """Rates that fall to 2 %."""
    optimiser = replace(experiment.optimiser, decay_steps=experiment.steps, final_fraction=0.02)
    return replace(experiment, optimiser=optimiser)


def rate(value: float) -> Change:
    """Another learning rate."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        return replace(experiment, optimiser=replace(experiment.optimiser, learning_rate=value))

    return change


def order(priority: Priority) -> Change:
    """Another priority of the buffer."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        assert experiment.replay is not None
        return replace(experiment, replay=replace(experiment.replay, priority=priority))

    return change


def from_student(experiment: didact.Experiment) -> didact.Experiment:
    """log Z learns from the Student's own batches alone."""
    return replace(experiment, log_z_from_student=True, initial_log_z=None)


def uniform(experiment: didact.Experiment) -> didact.Experiment:
    """5 % uniform actions in new batches, of which there is no Teacher's."""
    return replace(experiment, behaviour=Cycle((OnPolicy(0.05), FromReplay())))


def seldom(experiment: didact.Experiment) -> didact.Experiment:
    """One new batch in four is the Teacher's, in place of one in two."""
    own, replayed, taught = OnPolicy(), FromReplay(), FromTeacher()
    turns = (own, replayed, own, replayed, own, replayed, taught, replayed)
    return replace(experiment, behaviour=Cycle(turns))


def everywhere(experiment: didact.Experiment) -> didact.Experiment:
    """A Teacher that goes everywhere alike, whatever the Student misses."""
    return replace(experiment, teacher_reward=OneSided(eta=1e-12, alpha=0.0, floor=1.0))


def missed_alone(experiment: didact.Experiment) -> didact.Experiment:
    """A Teacher without a floor: of what the Student misses alone."""
    return replace(experiment, teacher_reward=OneSided())


def asymmetry(constant: float) -> Change:
    """Another weight of what the Student draws too rarely, 1 + C, for Teacher and buffer."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        assert isinstance(experiment.teacher_reward, DoubleLog)
        teacher_reward = replace(experiment.teacher_reward, asymmetry=constant)
        replay = experiment.replay and replace(experiment.replay, asymmetry=constant)
        return replace(experiment, teacher_reward=teacher_reward, replay=replay)

    return change


def mixing(alpha: float) -> Change:
    """Another exponent of R in the Teacher's reward."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        assert isinstance(experiment.teacher_reward, DoubleLog)
        return replace(experiment, teacher_reward=replace(experiment.teacher_reward, alpha=alpha))

    return change


def detailed(experiment: didact.Experiment) -> didact.Experiment:
    """Detailed balance in place of trajectory balance."""
    return replace(experiment, objective=DB())


def replay_more(times: int) -> Change:
    """More gradient steps at the same reward calls, the others from the buffer."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        assert isinstance(experiment.behaviour, Cycle)
        turns = experiment.behaviour.behaviours
        replayed = next(turn for turn in turns if isinstance(turn, FromReplay))
        fresh = [turn for turn in turns if not isinstance(turn, FromReplay)]
        more = (replayed,) * (2 * times - 1)
        cycle = Cycle(tuple(each for turn in fresh for each in (turn, *more)))
        optimiser = replace(experiment.optimiser, decay_steps=times * experiment.steps)
        return replace(
            experiment, behaviour=cycle, steps=times * experiment.steps, optimiser=optimiser
        )

    return change


def replay_larger(batches: int) -> Change:
    """Another number of batches of the buffer in each step that learns from it."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        assert isinstance(experiment.behaviour, Cycle)
        turns = experiment.behaviour.behaviours
        larger = FromReplay(batches)
        cycle = Cycle(tuple(larger if isinstance(turn, FromReplay) else turn for turn in turns))
        return replace(experiment, behaviour=cycle)

    return change


def keep_all(experiment: didact.Experiment) -> didact.Experiment:
    """A buffer of all objects."""
    assert experiment.replay is not None
    assert isinstance(experiment.environment, Hypergrid)
    capacity = experiment.environment.num_terminal_states
    return replace(experiment, replay=replace(experiment.replay, capacity=capacity))


def paper_log_z(experiment: didact.Experiment) -> didact.Experiment:
    """The rate of log Z, and the bound below it, that the paper has for strings."""
    assert experiment.teacher_optimiser is not None
    student, teacher = (
        replace(optimiser, log_z_learning_rate=0.01, least_log_z=0.0)
        for optimiser in (experiment.optimiser, experiment.teacher_optimiser)
    )
    return replace(experiment, optimiser=student, teacher_optimiser=teacher)


def shorter(steps: int) -> Change:
    """Fewer steps, at the end of which rates have fallen too."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        return cosine(replace(experiment, steps=steps))

    return change


def ranks(offset: float) -> Change:
    """Another offset of the ranks by which the buffer is drawn from."""

    def change(experiment: didact.Experiment) -> didact.Experiment:
        assert experiment.replay is not None
        assert experiment.replay.split is None  # which would have the say
        return replace(experiment, replay=replace(experiment.replay, rank_offset=offset))

    return change


def in_turn(turns: str, best: float) -> Change:
    """New batches in turn, and after each what is replayed: `turns` has a letter for each, "o" the
    Student's own, "t" the Teacher's, "m" mutants of objects drawn by rank with the offset `best`,
    "l" back-and-forth search from what the buffer draws.
    """

    def change(experiment: didact.Experiment) -> didact.Experiment:
        assert isinstance(experiment.behaviour, Cycle)
        before = experiment.behaviour.behaviours
        own = next(turn for turn in before if isinstance(turn, OnPolicy))
        replayed = next(turn for turn in before if isinstance(turn, FromReplay))
        made: dict[str, Behaviour] = {
            "o": own,
            "t": FromTeacher(own.epsilon),
            "m": Mutate(RankDraw(best)),
            "l": LocalSearch(FromReplay(), depth=20, rounds=7, greedy=False, random_depth=True),
        }
        cycle = Cycle(tuple(each for letter in turns for each in (made[letter], replayed)))
        reward = experiment.teacher_reward if "t" in turns else None
        return replace(experiment, behaviour=cycle, teacher_reward=reward)

    return change


def named(turns: str, best: float, rest: str = "") -> str:
    """The name of a recipe of `in_turn`."""
    parts = (f"{turns} in turn", f"best {best:g}" if "m" in turns else "", rest)
    return ", ".join(part for part in parts if part)


ON_GRIDS: dict[str, tuple[str, tuple[Change, ...]]] = {
    "tb-prt, cosine": ("tb-prt", (cosine,)),
    "tb-prt, a tenth at the end": ("tb-prt-late", ()),
    "tb-prt, rate 0.003, cosine": ("tb-prt", (rate(3e-3), cosine)),
    "tb-prt, 5 % uniform actions, rate 0.003, cosine": ("tb-prt", (uniform, rate(3e-3), cosine)),
    "one-sided, cosine": ("one-sided", (cosine,)),
    "one-sided, by reward, cosine": ("one-sided", (order("reward"), cosine)),
    "one-sided, by reward, cosine, twice the steps": (
        "one-sided",
        (order("reward"), replay_more(2), cosine),
    ),
    "one-sided, by reward, rate 0.003, cosine": (
        "one-sided",
        (order("reward"), rate(3e-3), cosine),
    ),
    "one-sided, by reward, log Z from the Student, rate 0.003, cosine": (
        "one-sided",
        (order("reward"), from_student, rate(3e-3), cosine),
    ),
    "one-sided in one batch of four, by reward, rate 0.003, cosine": (
        "one-sided",
        (order("reward"), seldom, rate(3e-3), cosine),
    ),
    "teacher-per, rate 0.003, cosine": ("teacher-per", (rate(3e-3), cosine)),
    "teacher-floor": ("teacher-floor", ()),
    "teacher-floor, k 5e-05": ("teacher-floor", (ranks(5e-5),)),
    "teacher-floor, rate 0.005": ("teacher-floor", (rate(5e-3),)),
    **{
        f"teacher-floor, all objects kept, k {k:g}": ("teacher-floor", (keep_all, ranks(k)))
        for k in (0.003, 0.001)
    },
    **{
        f"teacher-floor, {n} x 16 from replay": ("teacher-floor", (replay_larger(n),))
        for n in (1, 8)
    },
    **{
        f"teacher-floor, {name}, 1 x 16 from replay": ("teacher-floor", (replay_larger(1), change))
        for name, change in (
            ("its Teacher everywhere alike", everywhere),
            ("its Teacher without a floor", missed_alone),
            ("twice the steps", replay_more(2)),
            ("four times the steps", replay_more(4)),
        )
    },
    **{f"teacher-per, C {c:g}": ("teacher-per", (asymmetry(c),)) for c in (0, 9, 19, 99)},
    **{f"teacher-per, alpha {a:g}": ("teacher-per", (mixing(a),)) for a in (0.5, 1)},
    "tb, DB": ("tb", (detailed,)),
    "tb-prt, DB": ("tb-prt", (detailed,)),
    "tb-prt, 4 x 16 from replay": ("tb-prt", (replay_larger(4),)),
    "tb-prt, 4 x 16 from replay, rate 0.003, cosine": (
        "tb-prt",
        (replay_larger(4), rate(3e-3), cosine),
    ),
    **{
        f"{preset}, {name} the steps": (preset, (replay_more(times),))
        for preset in ("teacher-floor", "didact")
        for name, times in (("twice", 2), ("four times", 4))
    },
    **{
        named(turns, best): ("teacher-floor", (in_turn(turns, best),))
        for turns, best in (
            *(("omto", 1e-6), ("omoo", 1e-6), ("otmt", 1e-6)),
            *(("oomoooto", 1.6e-4), ("oooomooo", 1.6e-4), ("omoo", 1.5e-4)),
        )
    },
    **{
        named(turns, 1e-6, f"1 x from replay, k {offset:g}"): (
            "teacher-floor",
            (in_turn(turns, 1e-6), replay_larger(1), ranks(offset)),
        )
        for turns, offset in (("omto", 5e-5), ("otmt", 5e-5), ("olto", 1e-6), ("omto", 1e-6))
    },
}
"""Preset, and what is changed in it, in this order."""
ON_STRINGS: dict[str, tuple[str, tuple[Change, ...]]] = {
    "didact": ("didact", ()),
    "didact, 600 steps": ("didact", (shorter(600),)),
    "didact, log Z as in the paper": ("didact", (paper_log_z,)),
    "didact, log Z as in the paper, 600 steps": ("didact", (paper_log_z, shorter(600))),
} | {
    named(turns, 1e-3, f"{batches} x from replay, rate {value:g}, cosine"): (
        "teacher-prt" if "t" in turns else "tb-prt",
        (in_turn(turns, 1e-3), replay_larger(batches), rate(value), cosine),
    )
    for turns, batches, value in (
        *(("omt", 4, 1e-3), ("omt", 1, 1e-3), ("ot", 4, 1e-3), ("ot", 4, 3e-3)),
        *(("oomt", 4, 3e-3), ("oomoooto", 4, 3e-3), ("o", 4, 1e-3), ("o", 4, 3e-3)),
    )
}
RECIPES = ON_GRIDS | ON_STRINGS


def run(task: str, name: str, seeds: list[int]) -> None:
    """Train to the end, with verdicts after a quarter, a half and all of it."""
    preset, changes = RECIPES[name]
    experiment = _made(task, preset)
    for change in changes:
        experiment = change(experiment)
    state, began = didact.init(experiment, seeds), time.perf_counter()
    for share in (0.25, 0.5, 1):
        until = round(share * experiment.steps)
        while (left := until - int(state.step)) > 0:
            steps = min(CHUNK, left)
            state, _ = didact.train_chunk(experiment, state, steps, capacity=CHUNK)
        row = {"task": task, "name": name, "seeds": seeds, "step": until}
        row |= {"calls": experiment.reward_calls(until), "secs": time.perf_counter() - began}
        row["rows"] = [_verdict(experiment, state, i) for i in range(len(seeds))]
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(table([row]).splitlines()[-1], flush=True)


def _made(task: str, preset: str) -> didact.Experiment:
    if task in DISCOVERY_TASKS:
        return of_strings(task, preset)
    dim, side = map(int, task.split("x"))
    return grid(preset, dim, side, steps=STEPS.get(task))


def _verdict(experiment: didact.Experiment, state: didact.TrainState, i: int) -> dict[str, Any]:
    trained = state.student(i), experiment.target, experiment.objective
    environment = experiment.environment
    assert isinstance(environment, Hypergrid | PrependAppend)
    verdict = (
        didact.metrics.evaluate_exactly(*trained)[0]
        if environment.num_terminal_states <= EXACT
        else didact.metrics.evaluate_by_samples(*trained)
    )
    found = state.seeds.modes_found
    return {
        "found": None if found is None else int(np.sum(found[i])),
        "held": verdict["modes_held"],
        "recall": verdict["mode_mass_recall"],
        "tv": verdict["tv"],
        "lze": verdict["log_z_error"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: each seed, and the mean of the total variation."""
    lines = [
        "| task | recipe | seeds | reward calls | found | held | mode-mass recall | TV |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = {key: [seed[key] for seed in row["rows"]] for key in ("found", "held", "recall")}
        recall = ", ".join(f"{value:.3f}" for value in each["recall"])
        spreads = [seed["tv"] for seed in row["rows"] if seed["tv"] is not None]
        counts = (", ".join(f"{n:,}" for n in each[key]) for key in ("found", "held"))
        size = row["task"]
        if size not in DISCOVERY_TASKS:
            size = f"({size.replace('x', ', ')})"
        seeds = f"{row['seeds'][0]} to {row['seeds'][-1]}"
        calls = f"{row['calls']:,}"
        total = f"{statistics.mean(spreads):.3f}" if spreads else "–"
        cells = (size, row["name"], seeds, calls, *counts, recall, total)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, or tabulate what is kept at the end of each training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--task", default="4x16")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102])
    options = parser.parse_args()
    if options.action == "run":
        for name in options.recipes or (
            ON_STRINGS if options.task in DISCOVERY_TASKS else ON_GRIDS
        ):
            run(options.task, name, options.seeds)
        return
    kept = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    latest = {(row["task"], row["name"], *row["seeds"]): row for row in kept}
    print(table(sorted(latest.values(), key=lambda row: row["task"])))


if __name__ == "__main__":
    main()

"""`didact bench`: methods on tasks, each cell a run of its own, and how they compare."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ._parse import parse, words
from ._process import BadInput, note, one_line, show, stop_signals
from ._tasks import options_of

if TYPE_CHECKING:
    from ..bench import Cell, Outcome, Suite


@dataclasses.dataclass(frozen=True)
class Bench:
    """Compare methods on tasks over seeds: tables with paired differences, and a page.

    Each cell, a method on a task, is one `didact train` with all of its seeds. The same command
    again goes on where it stopped, and trains nothing that has finished. A cell that fails does
    not end the others; exit code 1 says that there was one.
    """

    suite: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="SUITE.toml")] = None
    """File with the options below as its fields; options that are given too override it."""
    tasks: tuple[str, ...] | None = None
    """grid-DxH, as in grid-4x16, or tasks that `didact list` shows; 25gmm-cpu: of that size."""
    methods: tuple[str, ...] | None = None
    """Presets that `didact list` shows; TASK:PRESET for one of that task alone."""
    seeds: int | None = None
    """Replicas of each cell. Default: 3."""
    seed: int | None = None
    """Seed of the first replica; the others count up from it. Default: 0."""
    steps: int | None = None
    """Gradient steps of each cell. Default: those of its preset's budget."""
    scale: float | None = None
    """Share of each preset's own steps in place of --steps; reward calls of methods stay equal."""
    evaluations: int | None = None
    """Evaluations on the way. Default: 12."""
    draws: int | None = None
    """Draws of the final statistics. Default: those of the task."""
    baseline: str | None = None
    """Method that the others are compared with. Default: the first."""
    options: tuple[str, ...] | None = None
    """Options of training as NAME=VALUE, or TASK.NAME=VALUE for one task: 25gmm.size=paper."""
    workers: int | None = None
    """Cells that are trained at the same time, each on an equal share of the cores. Default: 1."""
    out: Path | None = None
    """Folder of results. Default: runs/bench, or runs/ and the name of the file."""


def bench(options: Bench) -> int:
    """`didact bench`."""
    from .. import bench as benches

    given: dict[str, Any] = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name != "suite" and getattr(options, field.name) is not None
    }
    with one_line(ValueError):
        if options.suite is not None:
            given = _overridden(benches.read_suite(options.suite), given)
        name = "bench" if options.suite is None else options.suite.stem
        out = Path(given.pop("out", f"runs/{name}"))
        tasks, methods = (given.pop(name, ()) for name in ("tasks", "methods"))
        suite = benches.Suite(tasks=tasks, methods=methods, **given)
    cells = cells_of([suite])
    command = shlex.join(["didact", "bench", *_words(options)])

    def finish(outcomes: Sequence["Outcome"]) -> None:
        benches.write_json(out / "bench.json", dataclasses.asdict(suite), outcomes, suite.baseline)

    outcomes, code = train_cells(cells, out, suite.workers, finish)
    finish(outcomes)
    if code:
        note(f"Stopped; everything is written. Go on with: {command}")
        return code
    show_tables(outcomes, suite.baseline)
    from ..report import write_comparison

    page = benches.comparison(outcomes, suite.baseline, out, command)
    show(f"Report: {write_comparison(page, out / 'bench.html')}")
    return report_problems(outcomes)


def cells_of(suites: Sequence["Suite"]) -> list["Cell"]:
    """The cells of suites, with all that their commands say checked before anything starts.

    **Errors:** `BadInput` for an option or a size that cannot be, or data that are not there.
    """
    from ..bench import Cell, train_words

    cells = []
    for suite in suites:
        for task, method in suite.pairs():
            name, *size = train_words(task)
            sizes = {"preset": method, "seeds": suite.seeds, "seed": suite.seed}
            sizes |= {"evaluations": suite.evaluations}
            sizes |= {} if suite.draws is None else {"draws": suite.draws}
            line = [*size, *words(sizes), *suite.options_of(task)]
            options = parse(options_of(name), f"train {name}", line)
            options.check()
            with one_line(ValueError):
                steps = suite.steps
                if suite.scale is not None:
                    steps = max(1, round(suite.scale * options.experiment(name).steps))
                options = dataclasses.replace(options, steps=steps)
                experiment = options.experiment(name)
            cells.append(
                Cell(
                    task,
                    method,
                    ("train", name, *words(options.stored())),
                    tuple(range(suite.seed, suite.seed + suite.seeds)),
                    experiment.steps,
                    experiment.batch_size,
                    experiment.reward_calls(experiment.steps),
                )
            )
    return cells


def train_cells(
    cells: Sequence["Cell"],
    out: Path,
    workers: int,
    on_finish: Callable[[Sequence["Outcome"]], None],
) -> tuple[list["Outcome"], int]:
    """Train what has not finished; the second is the exit code of a signal, 0 without one."""
    from .. import bench as benches
    from ..run import RunError

    errors = (RunError, ValueError, OSError)
    with one_line(*errors), benches.opened(out, cells), stop_signals() as stop:
        outcomes = benches.work(
            cells,
            out,
            workers=workers,
            should_stop=lambda: stop.code != 0,
            tell=note,
            on_finish=on_finish,
        )
    return outcomes, stop.code


def show_tables(outcomes: Sequence["Outcome"], baseline: str | None) -> None:
    """The tables of each task on stdout, in Markdown."""
    from .. import bench as benches

    kept = [outcome.kept for outcome in outcomes if outcome.kept is not None]
    for group in benches.groups(kept, baseline):
        show(f"**{group.task}**\n\n{benches.table(group, short=True).markdown()}\n")
        apart = benches.differences(group, short=True)
        if apart is not None:
            show(f"{apart.markdown()}\n")


def report_problems(outcomes: Sequence["Outcome"]) -> int:
    """Say which cells have failed; the exit code."""
    from ..bench import problems

    for line in problems(outcomes):
        note(f"didact: {line}")
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _overridden(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Fields of a file with those of the command line; of steps and scale the given one."""
    if "steps" in given or "scale" in given:
        stored = {name: v for name, v in stored.items() if name not in ("steps", "scale")}
    return stored | given


def _words(options: Bench) -> list[str]:
    """The options as they were given."""
    found = [] if options.suite is None else [str(options.suite)]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is None or field.name == "suite":
            continue
        if isinstance(value, tuple):
            found += [f"--{field.name}", *value]
        else:
            found += words({field.name: value})
    return found


def require_folder(out: Path) -> None:
    """`BadInput` where a folder of results cannot be one."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} exists and is not a folder: choose another one with --out.")

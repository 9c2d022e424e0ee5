"""`didact train`: into a run folder, from the start or from where it stopped."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from ._parse import parse, words
from ._process import (
    BadInput,
    note,
    one_line,
    show,
    stop_signals,
    use_compilation_cache,
)
from ._table import print_verdict, say_reason
from ._tasks import Training, options_of


def train(arguments: list[str]) -> int:
    """Train the task that the first word names, with the options that follow."""
    task, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    options = _options(task, rest)
    options.check()
    out = options.folder(task)
    use_compilation_cache()
    from .. import run as runs
    from ..datasets import DataError

    with one_line(ValueError):
        experiment = options.experiment(task)
        experiment = dataclasses.replace(experiment, skip_nonfinite=options.skip_nonfinite)
        checkpoints = options.checkpoints()
    if options.extend is not None and options.extend < experiment.steps:
        raise BadInput(
            f"--extend must be at least the {experiment.steps:,} steps that the run has without "
            f"it, got {options.extend}."
        )
    errors = (runs.RunError, DataError, FloatingPointError, OSError)
    with stop_signals() as stop, one_line(*errors):
        run = runs.train(
            experiment,
            out,
            seeds=range(options.seed, options.seed + options.seeds),
            evaluations=options.evaluations,
            checkpoints=checkpoints,
            extend=options.extend,
            num_draws=options.draws,
            should_stop=lambda: stop.code != 0,
            summary=_summary(task, options),
            progress=True,
        )
    if stop.code:
        told = {"out": out} | {name: getattr(options, name) for name in options.told_anew}
        again = shlex.join(["didact", "train", task, "--resume", *words(told)])
        note(f"Stopped; everything is written. Go on with: {again}")
        return stop.code
    with one_line(runs.RunError):
        verdict = run.verdict()
    say_reason(verdict)
    print_verdict(verdict)
    if any(verdict.get("failures") or ()):
        note(
            f"The reward function failed on {sum(verdict['failures']):,} of "
            f"{sum(verdict['reward_calls']):,} objects, which were set aside: see "
            f"{out / 'failures.jsonl'}."
        )
    if any(verdict.get("skipped") or ()):
        note(
            f"{sum(verdict['skipped']):,} steps were passed over, as something was not finite in "
            "them."
        )
    show(f"Report: {out / 'report.html'}")
    return 0


def _options(task: str, arguments: list[str]) -> Training:
    """Parse options; with --resume, those of the run come first and the given ones override."""
    kind, command = options_of(task), f"train {task}"
    options = parse(kind, command, arguments)
    if options.resume:
        out = options.folder(task)
        options = parse(kind, command, [*_stored(out, task), *arguments])
        options = dataclasses.replace(options, out=out)
    return options


def _summary(task: str, options: Training) -> dict[str, Any]:
    """What a run keeps of its command, and says about itself."""
    stored = options.stored()
    extended = {} if options.extend is None else {"extend": options.extend}
    return {
        "task": task,
        "preset": options.preset,
        "title": options.title(task),
        "command": shlex.join(["didact", "train", task, *words(stored | extended)]),
        "options": stored,
    }


def _stored(out: Path, task: str) -> list[str]:
    """The options that the run in a folder was made with, as words."""
    from .._config import ForeignName
    from .._folder import lengths_of, read_config
    from ..run import Run, RunError

    told_anew = options_of(task).told_anew
    with one_line(RunError, OSError):
        try:
            config = Run.load(out).config
        except RunError as error:
            # What is told anew is compared with what the run names when training begins.
            if not (told_anew and isinstance(error.__cause__, ForeignName)):
                raise
            config = read_config(out)
    summary = config.get("summary")
    stored = summary.get("options") if isinstance(summary, dict) else None
    if not isinstance(summary, dict) or not isinstance(stored, dict):
        raise BadInput(f"{out} was not made by this command; resume it from Python.")
    if summary.get("task") != task:
        raise BadInput(
            f"{out} holds another run (task is {summary.get('task')!r} there, {task!r} here): "
            "choose another folder with --out."
        )
    stored = {name: value for name, value in stored.items() if name not in ("out", *told_anew)}
    # What may have been changed since, from Python too.
    with one_line(ValueError):
        lengths = lengths_of(config)
    if len(lengths) > 1:
        stored["extend"] = lengths[-1]
    if config["experiment"].get("skip_nonfinite") is True:
        stored["skip_nonfinite"] = True
    return words(stored)

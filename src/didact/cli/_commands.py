"""The commands that read a run, and the list of what there is."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ._parse import named_function
from ._process import BadInput, note, one_line, run_error, show, use_compilation_cache
from ._table import print_verdict, say_reason

if TYPE_CHECKING:
    from ..run import Run

_Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="Run folder.")]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw from a trained Student into a file."""

    run: _Run
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 10_000
    """Number of draws, shared evenly among the seeds of the run."""
    out: Path = Path("samples.npz")
    """File to write: .npz or .csv."""
    seed: int | None = None
    """Draw from the Student of this training seed only."""
    key: int = 0
    """Seed of the draws: the same gives the same."""
    reward: str | None = None
    """module:function of a run with a reward of your own; its module is imported from here."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judge the newest checkpoint of a run: exactly where the states can be listed."""

    run: _Run
    json: bool = False
    """Print one JSON object instead of a table."""
    draws: int | None = None
    """Draws of the statistics that need draws. Default: 100,000 on the grid, 10,000 for vectors and
    strings, 2,000 for a reward of your own."""
    reward: str | None = None
    """module:function of a run with a reward of your own; its module is imported from here."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the self-contained report.html of a run."""

    run: _Run


@dataclasses.dataclass(frozen=True)
class List:
    """List tasks, presets, environments and targets."""


def sample(options: Sample) -> int:
    """`didact sample`."""
    use_compilation_cache()
    from ..samples import write_samples

    if not 0 <= options.key < 2**31:
        raise BadInput(f"--key must lie in [0, 2^31), got {options.key}.")
    with one_line(run_error(), OSError):
        run = _load(options)
        wanted = run.seeds if options.seed is None else (options.seed,)
        positions = {seed: run.position(seed) for seed in wanted}
        state = run.state()
        students = {seed: state.student(position) for seed, position in positions.items()}
    with one_line(ValueError, OSError):
        path = write_samples(
            options.out, students, run.experiment.target, options.n, key_seed=options.key
        )
    note(f"Wrote {options.n:,} samples to {path}")
    return 0


def evaluate(options: Evaluate) -> int:
    """`didact evaluate`."""
    use_compilation_cache()
    if options.draws is not None and options.draws < 2:
        raise BadInput(f"--draws must be at least 2, got {options.draws}.")
    with one_line(run_error(), OSError):
        verdict = _load(options).evaluate(num_draws=options.draws)
    say_reason(verdict)
    if options.json:
        show(json.dumps(verdict, allow_nan=False))
    else:
        print_verdict(verdict)
    return 0


def _load(options: Sample | Evaluate) -> "Run":
    """The run of a command, with the function that the user names."""
    from .._config import ForeignName, foreign_names
    from .._folder import read_config
    from .._host import address_of
    from ..run import Run, RunError

    given = {}
    if options.reward is not None:
        function = named_function("--reward", options.reward)
        # Where it is imported from elsewhere, the configuration has its address there.
        given = {options.reward: function, address_of(function): function}
    try:
        return Run.load(options.run, given=given)
    except RunError as error:
        if not isinstance(error.__cause__, ForeignName):
            raise
        experiment = read_config(options.run)["experiment"]
        names = foreign_names(experiment.get("target"))
        if len(names) != 1 or foreign_names(experiment) != names:
            raise  # it names more than a reward
        raise BadInput(
            f"{options.run / 'config.json'} names a reward of your own: name it with --reward "
            f"module:function, here {names[0]}, as in the command that made the run."
        ) from error


def report(options: Report) -> int:
    """`didact report`."""
    from .. import report as reports
    from .._config import ForeignName
    from ..run import Run, RunError

    with one_line(ValueError, OSError):
        try:
            _ = Run.load(options.run)
        except RunError as error:
            # The page shows the configuration: it needs none of the user's own objects.
            if not isinstance(error.__cause__, ForeignName):
                raise
        show(f"Report: {reports.write(options.run)}")
    return 0


def listing(_: List) -> int:
    """`didact list`."""
    from .. import environments, presets, targets

    for command, described in (
        ("train grid", presets.GRID_PRESETS),
        ("train TASK", presets.DIFFUSION_PRESETS),
        ("train STRINGS", presets.DISCOVERY_PRESETS),
    ):
        show(f"Presets of `didact {command}`:")
        for name, meaning in described.items():
            show(f"  {name:18} {meaning}")
    show("Tasks TASK:")
    for name, task in presets.DIFFUSION_TASKS.items():
        target = task.target()
        dim = getattr(target, "dim", None)
        own = f", with didact {task.own:.4g}" if task.own != task.sigma else ""
        about = f"{type(target).__name__} in {dim} dimensions, sigma {task.sigma:.4g}{own}"
        show(f"  {name:18} {about}")
    show("Tasks STRINGS:")
    for name, task in presets.DISCOVERY_TASKS.items():
        show(f"  {name:18} {_about(task.target)}")
    show(f"  {'sequence':18} A reward of your own: --alphabet, --length, --reward")
    for title, module, kind in (
        ("Environments", environments, environments.Environment),
        ("Targets", targets, targets.Target),
    ):
        show(f"{title} (didact.{title.lower()}):")
        for thing in (getattr(module, name) for name in module.__all__):
            if inspect.isclass(thing) and issubclass(thing, kind) and not inspect.isabstract(thing):
                show(f"  {thing.__name__:18} {_about(thing)}")
    return 0


def _about(thing: object) -> str:
    """The first line of a docstring, without a parenthesis that goes on in the next."""
    line = (thing.__doc__ or "").strip().splitlines()[0]
    return line.rpartition(" (")[0] if line.count("(") > line.count(")") else line

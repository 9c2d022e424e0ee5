"""The command line: `didact train grid`, `sample`, `evaluate`, `report`, `list`.

JSON and tables go to stdout, everything else to stderr. Exit codes: 0 done; 2 bad input or a
run that cannot go on, with one line that says what to do; 130 and 143 stopped by Ctrl-C or
SIGTERM, with everything written.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ._version import __version__

_MAX_CACHE_BYTES = 2**30


class BadInput(Exception):
    """Something the user asked for cannot be done; the message is the whole answer."""


@dataclasses.dataclass(frozen=True)
class TrainGrid:
    """Train a Student, with or without a Teacher, on the deceptive grid.

    The same command again goes on where the run stopped.
    """

    preset: str = "teacher-per"
    """Method: one that `didact list` shows."""
    dim: int = 2
    """Number of coordinates."""
    side: int = 128
    """Values of each coordinate."""
    seeds: int = 1
    """Replicas, trained side by side."""
    seed: int = 0
    """Seed of the first replica; the others count up from it."""
    out: Path | None = None
    """Run folder. Default: runs/grid-PRESET-DIMxSIDE-sSEED."""
    steps: int | None = None
    """Gradient steps. Default: the paper's budget."""
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
    evaluations: int = 12
    """Evaluations on the way, each kept as a snapshot."""
    draws: int = 100_000
    """Draws of the final statistics."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints."""
    resume: bool = False
    """Go on with the run in --out; options not given are taken from it."""


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


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Judge the newest checkpoint of a run: exactly where the states can be listed."""

    run: _Run
    json: bool = False
    """Print one JSON object instead of a table."""
    draws: int = 100_000
    """Draws of the statistics that need draws."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the self-contained report.html of a run."""

    run: _Run


@dataclasses.dataclass(frozen=True)
class List:
    """List presets, environments and targets."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `didact` command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names of any kind can be shown
    try:
        with _termination(), _warnings(), _enough_memory():
            code = _dispatch(arguments)
    except BadInput as error:
        _err(f"didact: {error}")
        code = 2
    except KeyboardInterrupt:
        _err("didact: stopped.")
        code = 130
    except BrokenPipeError:
        # The reader of our output left (didact list | head): nothing is wrong.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        _out(_USAGE)
        return 0 if arguments else 2
    if arguments[0] == "train" and arguments[1:2] in (["-h"], ["--help"]):
        _out(_USAGE)
        return 0
    if arguments[0] == "--version":
        _out(f"didact {__version__}")
        return 0
    for words, (options, command) in _COMMANDS.items():
        names = words.split()
        if arguments[: len(names)] == names:
            return command(_parse(options, words, arguments[len(names) :]))
    if arguments[0] == "train":
        task = arguments[1] if len(arguments) > 1 else ""
        raise BadInput(f"unknown task {task!r} to train; the task is: grid (didact train grid).")
    names = ", ".join(dict.fromkeys(words.split()[0] for words in _COMMANDS))
    raise BadInput(f"unknown command {arguments[0]!r}; the commands are {names} (didact --help).")


def _train_grid(options: TrainGrid) -> int:
    from . import presets

    out = _run_folder(options)
    _check(options)
    _use_compilation_cache()
    from .run import train

    with _one_line(ValueError):
        experiment = presets.grid(
            options.preset,
            options.dim,
            options.side,
            convention=options.convention,
            steps=options.steps,
            batch_size=options.batch_size,
            epsilon=options.epsilon,
            temperature=options.temperature,
            published_backward=options.published_backward,
        )
    with (
        _stop_signals() as stop,
        _one_line(_run_error(), FloatingPointError, OSError),
    ):
        run = train(
            experiment,
            out,
            seeds=range(options.seed, options.seed + options.seeds),
            evaluations=options.evaluations,
            checkpoint_seconds=options.checkpoint_seconds,
            num_draws=options.draws,
            should_stop=lambda: stop.code != 0,
            summary=_summary(options),
            progress=True,
        )
    if stop.code:
        again = f"didact train grid --resume --out {shlex.quote(str(out))}"
        _err(f"Stopped; everything is written. Go on with: {again}")
        return stop.code
    with _one_line(_run_error()):
        verdict = run.verdict()
    _say_reason(verdict)
    _print_verdict(verdict)
    _out(f"Report: {out / 'report.html'}")
    return 0


def _run_folder(options: TrainGrid) -> Path:
    return options.out or Path(
        f"runs/grid-{options.preset}-{options.dim}x{options.side}-s{options.seed}"
    )


def _check(options: TrainGrid) -> None:
    """What neither the experiment nor the parser checks."""
    least = {"seeds": 1, "seed": 0, "evaluations": 0, "draws": 2}
    for name, bound in least.items():
        if getattr(options, name) < bound:
            raise BadInput(f"--{name} must be at least {bound}, got {getattr(options, name)}.")
    if not 0 <= options.checkpoint_seconds < math.inf:
        raise BadInput(
            f"--checkpoint-seconds must be at least 0 and finite, got {options.checkpoint_seconds}."
        )
    if options.seed + options.seeds > 2**31:
        raise BadInput(f"--seed must be at most 2^31 - --seeds, got {options.seed}.")


def _summary(options: TrainGrid) -> dict[str, Any]:
    # What defines the run is always spelled out: a later version may have other defaults.
    spelled = ("preset", "dim", "side", "seeds", "seed")
    stored = {
        field.name: str(value) if isinstance(value, Path) else value
        for field in dataclasses.fields(options)
        if field.name != "resume"
        and ((value := getattr(options, field.name)) != field.default or field.name in spelled)
    }
    return {
        "task": "grid",
        "preset": options.preset,
        "title": f"Deceptive grid, {options.dim} dimensions of {options.side}",
        "command": shlex.join(["didact", "train", "grid", *_flags(stored)]),
        "options": stored,
    }


def _sample(options: Sample) -> int:
    _use_compilation_cache()
    from .run import Run
    from .samples import write_samples

    if not 0 <= options.key < 2**31:
        raise BadInput(f"--key must lie in [0, 2^31), got {options.key}.")
    with _one_line(_run_error(), OSError):
        run = Run.load(options.run)
        wanted = run.seeds if options.seed is None else (options.seed,)
        positions = {seed: run.position(seed) for seed in wanted}
        state = run.state()
        students = {seed: state.student(position) for seed, position in positions.items()}
    with _one_line(ValueError, OSError):
        path = write_samples(
            options.out, students, run.experiment.target, options.n, key_seed=options.key
        )
    _err(f"Wrote {options.n:,} samples to {path}")
    return 0


def _evaluate(options: Evaluate) -> int:
    _use_compilation_cache()
    from .run import Run

    if options.draws < 2:
        raise BadInput(f"--draws must be at least 2, got {options.draws}.")
    with _one_line(_run_error(), OSError):
        verdict = Run.load(options.run).evaluate(num_draws=options.draws)
    _say_reason(verdict)
    if options.json:
        _out(json.dumps(verdict, allow_nan=False))
    else:
        _print_verdict(verdict)
    return 0


def _report(options: Report) -> int:
    from . import report
    from ._config import ForeignName
    from .run import Run, RunError

    with _one_line(ValueError, OSError):
        try:
            _ = Run.load(options.run)
        except RunError as error:
            # The page shows the configuration: it needs none of the user's own objects.
            if not isinstance(error.__cause__, ForeignName):
                raise
        _out(f"Report: {report.write(options.run)}")
    return 0


def _list(_: List) -> int:
    from . import environments, presets, targets

    _out("Presets of `didact train grid`:")
    for name, meaning in presets.GRID_PRESETS.items():
        _out(f"  {name:12} {meaning}")
    for title, module, kind in (
        ("Environments", environments, environments.Environment),
        ("Targets", targets, targets.Target),
    ):
        _out(f"{title} (didact.{title.lower()}):")
        for thing in (getattr(module, name) for name in module.__all__):
            if inspect.isclass(thing) and issubclass(thing, kind) and not inspect.isabstract(thing):
                _out(f"  {thing.__name__:16} {(thing.__doc__ or '').strip().splitlines()[0]}")
    return 0


_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "train grid": (TrainGrid, _train_grid),
    "sample": (Sample, _sample),
    "evaluate": (Evaluate, _evaluate),
    "report": (Report, _report),
    "list": (List, _list),
}

_USAGE = f"""didact {__version__}: amortized samplers, taught where they are wrong.

  didact train grid      train on the deceptive grid; the same command resumes
  didact sample RUN      draw from a trained Student into .npz or .csv
  didact evaluate RUN    exact verdict on the trained Student
  didact report RUN      write report.html
  didact list            presets, environments and targets

didact COMMAND --help shows the options of a command."""


def _parse(options: type[Any], words: str, arguments: list[str]) -> Any:
    """Parse options; with --resume, those of the run come first and the given ones override."""
    parsed = _parse_once(options, words, arguments)
    if isinstance(parsed, TrainGrid) and parsed.resume:
        out = _run_folder(parsed)
        parsed = _parse_once(options, words, [*_stored_arguments(out), *arguments])
        parsed = dataclasses.replace(parsed, out=out)
    return parsed


def _parse_once(options: type[Any], words: str, arguments: list[str]) -> Any:
    """Parse options; tyro's boxed errors become one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                options,
                prog=f"didact {words}",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        message = _parser_message(errors.getvalue())
        raise BadInput(f"{message} (didact {words} --help shows the options)") from None


def _parser_message(text: str) -> str:
    """What is wrong, from tyro's page: a title, the message, and help, with rules between."""
    blocks = [
        " ".join(re.sub("[╭╮╰╯│]", " ", block).split()) for block in re.split("[-─]{4,}", text)
    ]
    message = (blocks[1:] or blocks)[0].split("Got errors:")[0].strip()
    meant = re.search(r"Perhaps you meant: (--\S+)", " ".join(blocks))
    return message + (f"; did you mean {meant[1]}?" if meant else "")


def _stored_arguments(out: Path) -> list[str]:
    """The options that the run in a folder was made with."""
    from .run import Run

    with _one_line(_run_error(), OSError):
        summary = Run.load(out).config.get("summary")
    stored = summary.get("options") if isinstance(summary, dict) else None
    if not isinstance(stored, dict):
        raise BadInput(f"{out} was not made by this command; resume it from Python.")
    return _flags({name: value for name, value in stored.items() if name != "out"})


def _flags(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line."""
    words = []
    for name, value in options.items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if isinstance(value, bool) else [str(value)]
    return words


class _Stop:
    """Which exit code a signal has asked for; 0 while none has come."""

    code = 0


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one acts at once."""
    stop = _Stop()

    def wish(number: int, frame: object) -> None:
        stop.code = 128 + number
        signal.signal(number, signal.SIG_DFL)
        _err("Stopping after this chunk (again to stop at once) ...")

    with _handlers({signal.SIGINT: wish, signal.SIGTERM: wish}):
        yield stop


@contextlib.contextmanager
def _termination() -> Iterator[None]:
    """SIGTERM ends a command in good order: what is half written is removed."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    with _handlers({signal.SIGTERM: end}):
        yield


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Handle signals for a while; outside the main thread, where Python cannot, leave them."""
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Warnings of the package, each as a line on stderr."""
    log = logging.getLogger("didact")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("didact: %(message)s"))
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


@contextlib.contextmanager
def _one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Errors that speak of the user's input become one line."""
    try:
        yield
    except kinds as error:
        raise BadInput(" ".join(str(error).split())) from error


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # JAX's own is a RuntimeError
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            raise BadInput(
                "out of memory: lower --batch-size, --seeds or the size of the task."
            ) from error
        raise


def _run_error() -> type[Exception]:
    from .run import RunError

    return RunError


def _use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that the next start is quick.

    JAX_COMPILATION_CACHE_DIR, which JAX reads itself, names another folder.
    """
    import jax
    import pooch

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(pooch.os_cache("didact")) / "jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        _shrink(folder, _MAX_CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _shrink(folder: Path, most: int) -> None:
    """Delete the oldest files of a folder that holds more than `most` bytes, down to half."""
    # Another process may do the same: what is gone already is no error.
    with contextlib.suppress(OSError):
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        total = sum(file.stat().st_size for file in files)
        if total <= most:
            return
        while files and total > most // 2:
            oldest = files.pop()
            total -= oldest.stat().st_size
            oldest.unlink()


def _say_reason(verdict: dict[str, Any]) -> None:
    if verdict["reason"]:
        _err(f"didact: {verdict['reason']} The verdict is by samples.")


def _print_verdict(verdict: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Verdict" + ("" if verdict["exact"] else " (by samples)"))
    single = len(verdict["seeds"]) <= 3  # more would not fit beside one another
    each = [f"seed {seed}" for seed in verdict["seeds"]] if single else ["lowest", "highest"]
    for heading in ("", "mean", *each):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    rows = {
        "total variation": "tv",
        "KL(target, Student), nats": "kl",
        "error of learned log Z": "log_z_error",
        "ELBO": "elbo",
        "modes found in training": "modes_found",
        "  by the Student's batches": "modes_found_student",
        "modes held by the Student": "modes_held",
        "mode-mass recall": "mode_mass_recall",
        "empirical L1": "empirical_l1",
    }
    for label, name in rows.items():
        values = verdict.get(name)
        if not values or all(value is None for value in values):
            continue
        present = [value for value in values if value is not None]
        shown = values if single else (min(present), max(present))
        table.add_row(
            label,
            _number(sum(present) / len(present)),
            *("–" if value is None else _number(value) for value in shown),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    if verdict["num_modes"] is not None:
        _out(f"The target has {verdict['num_modes']:,} modes.")


def _number(value: float | int) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _out(text: str) -> None:
    print(text)  # noqa: T201


def _err(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

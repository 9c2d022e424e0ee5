"""A run is a folder: configuration, record, checkpoints, samplers, snapshots, report.

`train` makes or resumes one; `Run` reads one.
"""

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from . import _train, checkpoint
from ._config import ForeignName, foreign_names, from_json, to_json
from ._diagnostics import diagnose
from ._experiment import Experiment
from ._files import read_object, write_whole
from ._found import as_csv, find
from ._host import HostError
from ._sampler import Sampler
from ._snapshots import (
    DrawnProfiles,
    DrawnSnapshots,
    ExactSnapshots,
    exact_samples,
    is_vector,
    save_npz,
)
from ._train import StepInfo, TrainState
from ._types import EnumerableEnvironment, SamplableTarget, Target
from ._version import __version__
from .datasets import DataError
from .environments import Diffusion, Strings
from .logging import MetricsLog, ProgressBar, RewardLedger, read_metrics, reward_calls
from .metrics import (
    draw_statistics,
    empirical,
    evaluate_by_samples,
    evaluate_exactly,
    exact,
    finite_or_none,
    mode_probabilities,
)
from .samples import draw_batches
from .targets import HostReward, HostRewards, StringTarget

_log = logging.getLogger("didact")
FORMAT_VERSION = 1
_FEW_DRAWS, _FEW_HOST_DRAWS = 2048, 256
_GROUPS = 256
_FEWEST_PROBED, _MOST_PROBED, _PROBED_NUMBERS = 16, 1024, 2**13
_MAX_DIFFERENCES = 6
_NOT_OF_THE_EXPERIMENT = (
    *("out", "seed", "seeds", "evaluations", "draws", "checkpoint_seconds"),
    *(*HostReward.execution, "no_cache"),
)
_LABELS = (
    *("task", "preset", "dim", "side", "convention", "sigma", "num_steps", "steps", "batch_size"),
)


class RunError(ValueError):
    """A run folder cannot be used; the message says why and what to do."""


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
            raise RunError(_how_to_give(path, config["experiment"], given or {})) from error
        except DataError as error:  # the run is whole, and the message says what helps
            raise RunError(str(error)) from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _damaged(path / "config.json", error) from error
        if isinstance(experiment.target, HostReward):
            difference = _differing_version(config.get("probe"), experiment.target)
            if difference:
                _log.warning(
                    "%s: %s. What is scored from now on is scored by it.", path, difference
                )
        return Run(path, experiment, seeds, config)

    def state(self) -> TrainState:
        """The state at the newest checkpoint.

        **Errors:** `RunError` if there is none that can be read.
        """
        state = _restore(self.path, _train.init(self.experiment, self.seeds))
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
        return _read_record(self.path)

    def evaluate(self, *, num_draws: int | None = None) -> dict[str, Any]:
        """The verdict on the newest checkpoint, as lists over seeds; written to
        `evaluation.json` too. Exact where the states can be enumerated, else by samples,
        with the `reason` where they are too many.

        **Arguments:** `num_draws` as in `didact.train`.
        """
        state = self.state()
        with _host_rewards(self.experiment):
            verdict = _evaluate_run(self, state, num_draws)
            try:
                _keep_verdict(self, state, verdict)
            except OSError as error:
                _log.warning("The verdict cannot be kept in %s: %s", self.path, error)
        return verdict

    def verdict(self) -> dict[str, Any]:
        """The verdict that the last evaluation wrote to `evaluation.json`, without a new one.

        **Errors:** `RunError` if there is none that can be read.
        """
        file = self.path / "evaluation.json"
        if not file.is_file():
            raise RunError(f"{self.path} has not been evaluated yet: run.evaluate() does it.")
        try:
            return read_object(file)
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(
                f"{file} is damaged ({error}): run.evaluate() writes it anew."
            ) from error

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
    checkpoint_seconds: float = 60.0,
    num_draws: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    summary: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Run:
    """Train into a run folder, or go on with the run that the folder holds. A finished run is
    left as it is.

    **Arguments:** `out`: the folder; `seeds`: replicas, trained side by side in one program;
    `evaluations`: so many times the Student is evaluated and a snapshot kept on the way;
    `checkpoint_seconds` between checkpoints; `num_draws` of the final draw statistics (None: the
    paper's 100,000; for vectors and strings 10,000; for a reward computed outside JAX 2,000);
    `should_stop` is asked after each chunk, and where rewards are computed outside JAX before
    each step: True ends with everything written; `summary`:
    labels for the report; `progress`: show a bar on stderr, or where that is no terminal a line
    every ten seconds.

    **Errors:** `RunError` if the folder cannot be used: it holds another run, is damaged, or
    another process is training in it; or if a reward function outside JAX cannot be used.
    `FloatingPointError` at a non-finite reward or loss. The checkpoints before it are kept.
    """
    path = Path(out)
    seeds = _check_seeds(seeds)
    if evaluations < 0:
        raise ValueError(f"evaluations must be >= 0, got {evaluations}.")
    if num_draws is not None and num_draws < 2:
        raise ValueError(f"num_draws must be >= 2, got {num_draws}.")
    wanted = to_json(experiment)
    with _lock(path), _host_rewards(experiment):
        run = _open(path, experiment, seeds, wanted, summary or {})
        if _complete(run):
            return run
        state = _train.init(experiment, seeds)
        resumed = _restore(path, state)
        if resumed is not None:
            state = resumed
        with ProgressBar(experiment.steps, int(state.step), enabled=progress) as bar:
            state, stopped = _loop(run, state, evaluations, checkpoint_seconds, should_stop, bar)
            if not stopped:
                for i, seed in enumerate(seeds):
                    file = _sampler_file(path, seed)
                    file.parent.mkdir(exist_ok=True)
                    checkpoint.save_sampler(file, state.student(i), seed=seed)
            if not stopped and not should_stop():
                bar.phase("evaluating")
                _keep_verdict(run, state, _evaluate_run(run, state, num_draws))
            bar.phase("writing the report")
            run.report()
    return run


def _complete(run: Run) -> bool:
    """Whether everything that the end of training writes is there."""
    done = checkpoint.checkpoints(run.path / "checkpoints")
    files = [_sampler_file(run.path, seed) for seed in run.seeds] + [run.path / "report.html"]
    if not (done and all(file.is_file() for file in files)):
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
    seeds = tuple(int(seed) for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {list(seeds)}.")
    if not all(0 <= seed < 2**31 for seed in seeds):
        raise ValueError(f"seeds must lie in [0, 2^31), got {list(seeds)}.")
    return seeds


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Make a folder, and keep other processes from training in it at the same time."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} exists and is not a run folder: choose another folder.")
    path.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise RunError(
            f"another process is training in {path}: wait for it, or choose another folder."
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(folder)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run folder, of this format, as plain values."""
    file = path / "config.json"
    if not path.exists():
        raise RunError(f"{path} does not exist: name the folder of a run.")
    if not file.is_file():
        raise RunError(f"{path} is not a run folder: it has no config.json.")
    try:
        config = read_object(file)
        for name, kind in {"format_version": int, "seeds": list, "experiment": dict}.items():
            if not isinstance(config.get(name), kind):
                raise ValueError(f"its {name} is missing")
    except (ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    version = config["format_version"]
    if version != FORMAT_VERSION:
        raise RunError(f"{file} has format version {version}: update didact to read it.")
    return config


def _damaged(file: Path, error: Exception) -> RunError:
    return RunError(f"{file} cannot be used ({error}): restore it, or train into another folder.")


def _open(
    path: Path,
    experiment: Experiment,
    seeds: tuple[int, ...],
    wanted: dict[str, Any],
    summary: Mapping[str, Any],
) -> Run:
    """The run that a folder holds, if it is this one; a new one in an empty folder."""
    facts = describe(experiment) | dict(summary)
    if (path / "config.json").exists():
        config = read_config(path)
        difference = _difference(config, seeds, wanted, facts) or _differing_reward(
            config.get("probe"), experiment
        )
        if difference:
            raise RunError(f"{path} holds another run ({difference}): choose another folder.")
        return Run(path, experiment, seeds, config)
    if any(file.suffix != ".partial" for file in path.iterdir()):
        raise RunError(f"{path} exists and is not a run folder: choose another folder.")
    config = {
        "format_version": FORMAT_VERSION,
        "didact_version": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "summary": facts,
        "experiment": wanted,
    }
    config["command"] = config["summary"].pop("command", "didact.train(...)")
    if foreign_names(wanted):
        config["probe"] = _probe(experiment, seeds)
    _write_json(path / "config.json", config)
    return Run(path, experiment, seeds, config)


def _how_to_give(path: Path, experiment: Any, given: Mapping[str, Any]) -> str:
    """What to do about the objects of the user's that a configuration names."""
    missing = [name for name in foreign_names(experiment) if name not in given]
    listed = ", ".join(f"{name!r}: ..." for name in missing)
    return (
        f"{path / 'config.json'} cannot be read here, as it names what is not part of didact: "
        f"didact.Run.load({str(path)!r}, given={{{listed}}}) reads it, with the "
        f"object{'s themselves' if len(missing) > 1 else ' itself'} in place of the dots."
    )


def _difference(
    config: Mapping[str, Any],
    seeds: Sequence[int],
    wanted: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> str:
    """Everything in which a run differs from the one that is wanted; empty if nothing."""
    found: dict[str, tuple[str, str]] = {}
    if config["seeds"] != list(seeds):
        found["seeds"] = repr(config["seeds"]), repr(list(seeds))
    stored = config["experiment"]
    # Read and written anew, so that files of older versions compare equal to today's.
    with contextlib.suppress(ValueError, RecursionError):
        stored = to_json(from_json(stored))
    have, want = _flat(stored), _flat(wanted)
    differing = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
    if differing:
        # What the user said explains more than where in the experiment it ended up.
        said, complete = _said_differently(config.get("summary"), facts)
        if not (said and complete):
            differing = [name for name in differing if name.rpartition(".")[2] not in said]
            said |= {name: (repr(have.get(name)), repr(want.get(name))) for name in differing}
        found |= said
    shown = [f"{name} is {there} there, {here} here" for name, (there, here) in found.items()]
    more = len(shown) - _MAX_DIFFERENCES
    return "; ".join(shown[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _said_differently(
    labels: Any, facts: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, str]], bool]:
    """Labels in which two runs differ; and the options, where both were made by the command line,
    of which these are all that there is to say.
    """
    if not isinstance(labels, dict):
        return {}, False
    said = {
        name: (repr(labels.get(name)), repr(facts.get(name)))
        for name in _LABELS
        if labels.get(name) != facts.get(name)
    }
    there, here = labels.get("options"), facts.get("options")
    if not (isinstance(there, dict) and isinstance(here, dict)):
        return said, False
    for name in dict.fromkeys((*there, *here)):
        if name not in (*said, *_NOT_OF_THE_EXPERIMENT) and there.get(name) != here.get(name):
            said[name] = _option(there, name), _option(here, name)
    return said, True


def _option(options: Mapping[str, Any], name: str) -> str:
    return repr(options[name]) if name in options else "the default"


def _probe(experiment: Experiment, seeds: Sequence[int]) -> dict[str, Any]:
    """What tells whether the user's own functions, which are stored by their names, are still the
    same: log R of objects that are spread out, and where all objects can be listed log Z and
    checksums of log R over groups of them (`_checksums`). Of a function outside JAX, which may
    take long, its version.
    """
    if isinstance(experiment.target, HostReward):
        return {"version": experiment.target.version}
    x = _spread_out(experiment, seeds)
    log_reward = np.asarray(jax.vmap(experiment.target.log_reward)(x))
    return {
        "x": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(x)],
        "log_reward": log_reward.tolist(),
        **_checksums(experiment),
    }


def _spread_out(experiment: Experiment, seeds: Sequence[int]) -> Any:
    """Objects [n, ...] of all terminal states' numbers evenly, or else draws of the untrained
    Student; fewer where an object holds many numbers.
    """
    env = experiment.environment
    like = jax.tree.leaves(jax.eval_shape(lambda: env.sample_of(env.initial_state())))
    size = sum(max(leaf.size, 1) for leaf in like)
    n = int(np.clip(_PROBED_NUMBERS // size, _FEWEST_PROBED, _MOST_PROBED))
    if isinstance(env, EnumerableEnvironment) and exact.num_states(env) < 2**31:
        n = min(n, env.num_terminal_states)
        number = env.num_internal + np.linspace(0, env.num_terminal_states - 1, n).astype(np.int64)
        return jax.vmap(lambda i: env.sample_of(env.state_at(i)))(jnp.asarray(number, jnp.int32))
    student = _train.init(experiment, seeds[:1]).student()
    return empirical.objects(student, jax.random.key(0), n, batch_size=n)


def _checksums(experiment: Experiment) -> dict[str, Any]:
    """Of all objects, where they can be listed: log Z, and for each of up to 256 groups of
    neighbours the sum of log R with random signs, and the root of the sum of its squares.

    A change of log R at any object changes the sum of its group, whereas the rounding of another
    machine, which would change a hash, changes it by far less than that root.
    """
    env = experiment.environment
    if exact.refusal(env) is not None:
        return {}
    assert isinstance(env, EnumerableEnvironment)
    try:
        truth = exact.truth(env, experiment.target)
    except FloatingPointError:  # training says so, where it is of importance
        return {}
    log_reward = truth.log_p + truth.log_z
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(log_reward))
    starts = _group_starts(len(log_reward))
    return {
        "log_z": truth.log_z,
        "sums": np.add.reduceat(signs * log_reward, starts).tolist(),
        "norms": np.sqrt(np.add.reduceat(log_reward**2, starts)).tolist(),
    }


def _group_starts(n: int) -> np.ndarray:
    return np.unique(np.linspace(0, n, min(n, _GROUPS), endpoint=False).astype(np.int64))


def _differing_reward(probe: Any, experiment: Experiment) -> str:
    """Where log R is not what it was when the run was made; empty where it is."""
    if probe is None:
        return ""
    if isinstance(experiment.target, HostReward):
        return _differing_version(probe, experiment.target)
    env = experiment.environment
    like, structure = jax.tree.flatten(jax.eval_shape(lambda: env.sample_of(env.initial_state())))
    try:
        leaves = [
            jnp.asarray(values, leaf.dtype).reshape(-1, *leaf.shape)
            for values, leaf in zip(probe["x"], like, strict=True)
        ]
        then = np.asarray(probe["log_reward"], np.float64)
        sums, norms = (np.asarray(probe.get(key, ()), np.float64) for key in ("sums", "norms"))
    except (TypeError, ValueError, KeyError) as error:
        return f"its probe does not fit: {error}"
    now = np.asarray(
        jax.vmap(experiment.target.log_reward)(jax.tree.unflatten(structure, leaves)), np.float64
    )
    # A configuration holds no infinite numbers: there they are null.
    now = np.where(np.isfinite(now), now, np.nan)
    same = np.isclose(then, now, rtol=1e-4, atol=1e-4, equal_nan=True)
    if not same.all():
        at = int(np.argmin(same))
        x = [np.asarray(leaf[at]).tolist() for leaf in leaves]
        return f"log R of {x[0] if len(x) == 1 else x} is {then[at]:.6g} there, {now[at]:.6g} here"
    return _differing_checksums(probe.get("log_z"), sums, norms, experiment) if sums.size else ""


def _differing_version(probe: Any, target: HostReward) -> str:
    then = probe.get("version") if isinstance(probe, dict) else None
    if then == target.version:
        return ""
    return "the program of its reward function, or its cache_key, is another than there"


def _differing_checksums(
    log_z: Any, sums: np.ndarray, norms: np.ndarray, experiment: Experiment
) -> str:
    """The first group of objects in which log R is not what it was; empty if there is none."""
    now = _checksums(experiment)
    if not now:
        return "log R is finite everywhere there, not here"
    if not sums.shape == norms.shape == np.shape(now["sums"]):
        return "its probe does not fit: of another number of objects"
    env = experiment.environment
    assert isinstance(env, EnumerableEnvironment)  # as there are checksums
    x = exact.terminal_samples(env)
    starts = _group_starts(len(x))
    sizes = np.diff(starts, append=len(x))
    allowed = 1e-4 * (np.maximum(norms, now["norms"]) + np.sqrt(sizes))
    same = np.abs(sums - now["sums"]) <= allowed
    if same.all():
        return ""
    at = int(np.argmin(same))
    first, last = (x[i].tolist() for i in (starts[at], starts[at] + sizes[at] - 1))
    where = f"of {first}" if sizes[at] == 1 else f"somewhere from {first} to {last}"
    text = f"log R {where} is another than there"
    if isinstance(log_z, float) and abs(log_z - now["log_z"]) > 1e-4:
        text += f"; log Z is {log_z:.6g} there, {now['log_z']:.6g} here"
    return text


def describe(experiment: Experiment) -> dict[str, Any]:
    """Labels of an experiment for people: what a report shows beside the numbers."""
    env, target = experiment.environment, experiment.target
    facts = {
        "environment": f"{type(env).__name__}"
        + "".join(
            f" {name}={getattr(env, name)}" for name in ("dim", "side") if hasattr(env, name)
        ),
        "target": type(target).__name__,
        "title": f"{type(target).__name__} on {type(env).__name__}",
        "method": _method(experiment),
        "num_modes": target.num_modes,
        "log_z": target.log_z,
        "steps": experiment.steps,
        "batch_size": experiment.batch_size,
    }
    for name in ("dim", "side", "convention", "num_terminal_states", "mode_mass"):
        for owner in (target, env):
            if hasattr(owner, name):
                facts.setdefault(name, getattr(owner, name))
    if is_vector(env):
        facts["space"] = "vectors"
        facts["num_steps"] = env.num_steps
        if isinstance(env, Diffusion):
            facts["sigma"] = env.process.sigma
    if isinstance(env, Strings):
        blocks = getattr(target, "blocks", None)
        facts |= {
            "space": "strings",
            "alphabet": getattr(target, "alphabet", None),
            "length": env.length,
            "blocks": None if blocks is None else list(blocks.smiles),
            "grows_in_front": env.grows_in_front,
        }
    return facts


def _method(experiment: Experiment) -> str:
    sentence = f"A Student trained by {type(experiment.objective).__name__}"
    if experiment.teacher_reward is not None:
        sentence += " with an adaptive Teacher"
    if experiment.replay is not None:
        by = {
            "none": "uniform replay",
            "reward": "replay prioritised by reward",
            "teacher": "replay prioritised by the Teacher's reward",
            "loss": "replay prioritised by loss",
            "weight": "importance-weighted replay",
        }[experiment.replay.priority]
        sentence += f" and {by}"
    sources = {
        "student": "the Student",
        "teacher": "the Teacher",
        "replay": "the buffer",
        "samples": "exact samples",
        "search": "local search",
    }
    pattern = [sources.get(name, name) for name in experiment.behaviour.pattern]
    if len(set(pattern)) == 1:
        return f"{sentence}; all batches come from {pattern[0]}."
    return f"{sentence}; batches come in turn from {', '.join(pattern)}."


def _loop(
    run: Run,
    state: TrainState,
    evaluations: int,
    checkpoint_seconds: float,
    should_stop: Callable[[], bool],
    bar: ProgressBar,
) -> tuple[TrainState, bool]:
    """Chunks of training, with everything that touches the host between them."""
    experiment, path = run.experiment, run.path
    total, step = experiment.steps, int(state.step)
    capacity = max(1, -(-total // 200))
    marks = (
        {round(total * (i + 1) / evaluations) for i in range(evaluations)} if evaluations else set()
    )
    snapshots = _snapshots(run) if evaluations else None
    saved_at = time.monotonic()
    stopped = False
    with contextlib.ExitStack() as files:
        with _run_errors():
            log = MetricsLog(path / "metrics.jsonl", step=step)
            files.callback(log.close)
            ledger = _ledger(run, step)
            if ledger is not None:
                files.callback(ledger.close)
        if step < total:
            bar.phase("compiling")
        if step == 0 and evaluations:
            bar.judged(_evaluate_on_the_way(run, state, log, snapshots, ledger))
        while step < total and not stopped:
            # Chunks end at multiples of `capacity` and at evaluations, wherever they began:
            # a resumed run writes the rows it would have written.
            end = min([(step // capacity + 1) * capacity, total, *(m for m in marks if m > step)])
            began = time.monotonic()
            if ledger is None:
                state, info = _train.train_chunk(experiment, state, end - step, capacity=capacity)
                spent = {}
            else:
                state, info, spent = _train_on_host(
                    experiment, state, end - step, capacity, ledger, bar, should_stop
                )
            trouble = int(jnp.max(state.seeds.trouble))
            if trouble:
                raise FloatingPointError(
                    f"{_train.trouble_message(trouble)} (step {int(state.step)}). What was "
                    f"written to {path} is kept."
                )
            if int(state.step) < end:
                # Stopped within a chunk, whose row and checkpoint would be none of this run's: a
                # resumed run makes its steps again, with rewards from the cache.
                return state, True
            seconds = time.monotonic() - began
            costs = _costs(experiment, end, ledger)
            row = _train_row(experiment, info, end, end - step, seconds, costs)
            row["time"] |= spent
            log.write(row)
            bar.update(row)
            step = end
            if step in marks:
                bar.judged(_evaluate_on_the_way(run, state, log, snapshots, ledger))
            stopped = should_stop()
            if stopped or step == total or time.monotonic() - saved_at > checkpoint_seconds:
                checkpoint.save_state(path / "checkpoints", state)
                saved_at = time.monotonic()
    return state, stopped and step < total


def _ledger(run: Run, step: int) -> RewardLedger | None:
    """What counts the objects whose rewards are computed outside JAX, if they are."""
    if not isinstance(run.experiment.target, HostReward):
        return None
    return RewardLedger(run.path, run.seeds, step=step)


def _train_on_host(
    experiment: Experiment,
    state: TrainState,
    num_steps: int,
    capacity: int,
    ledger: RewardLedger,
    bar: ProgressBar,
    should_stop: Callable[[], bool],
) -> tuple[TrainState, StepInfo, dict[str, int]]:
    """A chunk whose rewards are computed outside JAX; and how many of them were."""
    target = experiment.target
    assert isinstance(target, HostReward)
    before = dataclasses.replace(target.counters)

    def observe(step: int, positions: Sequence[int], rewards: HostRewards) -> None:
        ledger.note(step, positions, rewards.keys, rewards.objects, rewards.failures)
        bar.advance(step)

    state, info = _train.host_chunk(
        experiment, state, num_steps, capacity=capacity, observe=observe, should_stop=should_stop
    )
    spent = {
        name: getattr(target.counters, name) - getattr(before, name)
        for name in ("evaluations", "cache_hits")
    }
    return state, info, spent


def _costs(experiment: Experiment, step: int, ledger: RewardLedger | None) -> dict[str, Any]:
    """Rewards that training has asked for: all of them, or where they are computed outside JAX of
    different objects, per seed, and how many of these were set aside.
    """
    if ledger is None:
        return {"reward_calls": experiment.reward_calls(step)}
    return {"reward_calls": ledger.reward_calls, "failures": ledger.failures}


def _train_row(
    experiment: Experiment,
    info: StepInfo,
    step: int,
    count: int,
    seconds: float,
    costs: Mapping[str, Any],
) -> dict[str, Any]:
    """One row of the record: means over the chunk, and values at its end, per seed."""

    def mean(values: Any) -> list[float] | None:
        return None if values is None else np.asarray(values)[:, :count].mean(axis=1).tolist()

    def last(values: Any) -> list[float] | list[int] | None:
        return None if values is None else np.asarray(values)[:, count - 1].tolist()

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
        "time": {"seconds": seconds, "steps_per_second": count / seconds},
    }


def _snapshots(run: Run) -> ExactSnapshots | DrawnSnapshots | DrawnProfiles | None:
    """What keeps pictures of the laws of a run; None where there is nothing to draw, or where that
    would ask for many rewards that are computed outside JAX.
    """
    env, target = run.experiment.environment, run.experiment.target
    folder = run.path / "snapshots"
    if isinstance(env, Strings) and exact.refusal(env, target) is not None:
        return DrawnProfiles(folder, env, run.seeds[0])
    if isinstance(target, HostReward):
        return None
    if isinstance(env, EnumerableEnvironment) and exact.refusal(env) is None:
        return ExactSnapshots(folder, env, target)
    if is_vector(env):
        untrained = _train.init(run.experiment, run.seeds[:1]).student()
        return DrawnSnapshots(folder, target, untrained, run.seeds[0])
    return None


def _evaluate_on_the_way(
    run: Run,
    state: TrainState,
    log: MetricsLog,
    snapshots: ExactSnapshots | DrawnSnapshots | DrawnProfiles | None,
    ledger: RewardLedger | None,
) -> dict[str, Any]:
    """Write an "evaluation" row, and for the first seed a snapshot of the laws.

    **Returns:** the row.
    """
    experiment, step = run.experiment, int(state.step)
    target = experiment.target
    exactly = exact.refusal(experiment.environment, target) is None
    few = _FEW_HOST_DRAWS if isinstance(target, HostReward) else _FEW_DRAWS
    verdicts, laws = [], {}
    for i in range(state.num_seeds):
        student, teacher = state.student(i), state.teacher(i)
        if not exactly:
            verdict = evaluate_by_samples(
                student, target, experiment.objective, n=few, distances=False
            )
            if teacher is not None:
                verdict["teacher_mode_mass"] = _mode_mass(teacher, target)
        else:
            verdict, law = _judge_exactly(student, experiment)
            if i == 0:
                laws["student"] = law
            if teacher is not None:
                about, law = evaluate_exactly(teacher, target, experiment.objective)
                verdict["teacher_mode_mass"] = about["mode_mass"]
                if i == 0:
                    laws["teacher"] = law
        verdicts.append(verdict)
    row = {
        "kind": "evaluation",
        "step": step,
        **_costs(experiment, step, ledger),
        "exact": exactly,
    }
    row |= _over_seeds(verdicts)
    log.write(row)
    if isinstance(snapshots, ExactSnapshots):
        snapshots.save(step, laws)
    elif snapshots is not None:
        snapshots.save(step, state.student(), state.teacher())
    return row


def _judge_exactly(
    student: Sampler, experiment: Experiment
) -> tuple[dict[str, Any], Float64[np.ndarray, " terminal"]]:
    """The exact verdict with `missed_mass`, and the law: the share of the target's probability on
    objects to which the Student gives less than half of what they should have. It needs no modes.
    """
    env, target = experiment.environment, experiment.target
    verdict, law = evaluate_exactly(student, target, experiment.objective)
    assert isinstance(env, EnumerableEnvironment)
    p = np.exp(exact.truth(env, target).log_p)
    return verdict | {"missed_mass": float(p[law < 0.5 * p].sum())}, law


def _mode_mass(sampler: Sampler, target: Target) -> float | None:
    """Share of a sampler's draws that are in a mode, where the target has modes."""
    if target.num_modes is None:
        return None
    x = empirical.objects(sampler, jax.random.key(0), _FEW_DRAWS)
    return float(np.mean(np.asarray(empirical.mode_indices(target, x)) >= 0))


def _default_draws(experiment: Experiment) -> int:
    if isinstance(experiment.target, HostReward):
        return 2_000
    env = experiment.environment
    return 10_000 if is_vector(env) or isinstance(env, Strings) else 100_000


def _evaluate_run(run: Run, state: TrainState, num_draws: int | None) -> dict[str, Any]:
    path, experiment, seeds = run.path, run.experiment, run.seeds
    num_draws = _default_draws(experiment) if num_draws is None else num_draws
    step = int(state.step)
    rows = [row for row in _read_record(path) if row["kind"] == "train"]
    seconds = sum(row["time"]["seconds"] for row in rows)
    reason = exact.refusal(experiment.environment, experiment.target)
    verdicts = []
    target, objective = experiment.target, experiment.objective
    for i, seed in enumerate(seeds):
        student = state.student(i)
        if reason is None:
            drawn = draw_statistics(student, target, seed=seed, n=num_draws)
            verdict, _ = _judge_exactly(student, experiment)
            # Where both say something, what is exact counts, and has no error.
            verdict = drawn | verdict | {"elbo_standard_error": 0.0}
        else:
            verdict = evaluate_by_samples(student, target, objective, seed=seed, n=num_draws)
            verdict["missed_mass"] = None
        verdicts.append(verdict)
    shared = {
        "format_version": FORMAT_VERSION,
        "exact": reason is None,
        # Where states cannot be numbered at all, there is nothing to explain.
        "reason": reason if isinstance(experiment.environment, EnumerableEnvironment) else None,
        "seeds": list(seeds),
        "step": step,
        "steps": experiment.steps,
        "finished": step >= experiment.steps,
        "num_modes": target.num_modes,
        "mode_mass_target": getattr(target, "mode_mass", None),
        "num_draws": num_draws,
    }
    per_seed = _over_seeds(verdicts)
    for name in ("num_draws", "num_scored", "empirical_l1_floor", "log_z_true"):
        shared[name] = per_seed.pop(name, [None])[0]
    result = shared | _perfect_modes(experiment, num_draws) | per_seed
    result |= {
        "modes_found": _counts(state.seeds.modes_found, len(seeds)),
        "modes_found_student": _counts(state.seeds.modes_found_student, len(seeds)),
        "distinct": _distinct(state, len(seeds)),
        "reward_calls": _asked(run, step),
        "failures": next((row.get("failures") for row in rows[::-1] if row["step"] <= step), None),
        "gradient_steps": [step] * len(seeds),
        "training_seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            "didact": __version__,
            "jax": jax.__version__,
            "equinox": eqx.__version__,
            "numpy": np.__version__,
        },
    }
    return finite_or_none(result)


def _asked(run: Run, step: int) -> list[int]:
    """Rewards that training has asked for, per seed: `_costs`, from what the run has written."""
    if not isinstance(run.experiment.target, HostReward):
        return [run.experiment.reward_calls(step)] * len(run.seeds)
    with _run_errors():
        return reward_calls(run.path, run.seeds, step=step)


def _perfect_modes(experiment: Experiment, n: int) -> dict[str, Any]:
    """What n draws of a perfect sampler say of the modes: exactly, on average, where the objects
    can be listed, else by exact samples where the target has them.
    """
    env, target = experiment.environment, experiment.target
    if target.num_modes is None:
        return {}
    if isinstance(env, EnumerableEnvironment) and exact.refusal(env) is None:
        truth = exact.truth(env, target)
        on_mode = truth.mode >= 0
        mass = np.bincount(truth.mode[on_mode], np.exp(truth.log_p[on_mode]))
    elif isinstance(target, StringTarget):
        mass = mode_probabilities(target)[1]
    else:
        mass = None
    if mass is not None:
        return {
            "modes_reached_perfect": float(np.sum(1 - (1 - np.minimum(mass, 1)) ** n)),
            "mode_mass_target": float(mass.sum()),
        }
    if not isinstance(target, SamplableTarget):
        return {}
    x = exact_samples(target, jax.random.key(0), n)
    mode = np.asarray(empirical.mode_indices(target, x))
    return {
        "modes_reached_perfect": len(np.unique(mode[mode >= 0])),
        "mode_mass_target": float(np.mean(mode >= 0)),
    }


def _keep_verdict(run: Run, state: TrainState, verdict: Mapping[str, Any]) -> None:
    """Write `evaluation.json`; for draws that are real vectors `diagnostics.npz`, for strings
    `found.json` and `best.csv`; unless training has gone on and written later ones.
    """
    with contextlib.suppress(RunError, TypeError):
        if run.verdict().get("step", 0) > verdict["step"]:
            return
    snapshots = _snapshots(run)
    if isinstance(snapshots, DrawnSnapshots):
        found = diagnose(
            state.student(),
            run.experiment.target,
            snapshots.view,
            seed=run.seeds[0],
            n=verdict["num_draws"],
        )
        save_npz(run.path / "diagnostics.npz", step=np.asarray(verdict["step"]), **found)
    best = find(state.student(), run.experiment.target, seed=run.seeds[0], n=verdict["num_scored"])
    if best is not None:
        _write_json(run.path / "found.json", best | {"step": verdict["step"]})
        with write_whole(run.path / "best.csv") as file:
            file.write(as_csv(best).encode())
    _write_json(run.path / "evaluation.json", verdict)


def _distinct(state: TrainState, num_seeds: int) -> list[int] | list[None]:
    seen = state.seeds.seen
    return [None] * num_seeds if seen is None else np.asarray(seen.count).tolist()


def _counts(found: Any, num_seeds: int) -> list[int] | list[None]:
    return [None] * num_seeds if found is None else np.asarray(found).sum(1).tolist()


def _over_seeds(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [verdict[name] for verdict in verdicts] for name in verdicts[0]}


def _restore(path: Path, like: TrainState) -> TrainState | None:
    with _run_errors():
        return checkpoint.load_state(path / "checkpoints", like)


def _read_record(path: Path) -> list[dict[str, Any]]:
    with _run_errors():
        return list(read_metrics(path / "metrics.jsonl"))


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


@contextlib.contextmanager
def _run_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = ((str(i), item) for i, item in enumerate(value))
    else:
        return {prefix: value}
    flat = {}
    for name, item in items:
        flat |= _flat(item, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(finite_or_none(dict(value)), indent=2, allow_nan=False)
    with write_whole(path) as file:
        file.write(f"{text}\n".encode())


__all__ = ["Run", "RunError", "describe", "train"]

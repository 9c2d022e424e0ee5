"""Files that hold arrays: checkpoints of a run, and trained samplers. Nothing is pickled.

A checkpoint is one NumPy archive and not a folder of Orbax's: one file is written aside, synced and
renamed in a single step, its checksums tell damage, its size bounds what is read, and reading it
runs nothing.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._archive import Archive
from ._checks import require
from ._config import from_json, to_json
from ._files import in_short, make_folder, open_to_read, write_whole
from ._json import MAX_BYTES, parse
from ._sampler import Sampler
from ._train import TrainState
from .networks import Network

FORMAT_VERSION = 1
_LOWER_IS_BETTER = ("tv", "kl", "jsd", "missed_mass", "eubo", "mode_divergence", "k_hat")
_HIGHER_IS_BETTER = (
    *("elbo", "ess", "spearman", "mode_mass_recall", "modes_held", "modes_reached"),
    *("log_likelihood", "entropic_mode_coverage", "mean_value", "top_value"),
)
# What states of older versions lack, and what a setting that was turned on later adds.
_ADDED = (".seeds.skipped",)
# What reading a damaged file raises depends on where it is damaged.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError),
    *(NotImplementedError, RecursionError, MemoryError),
)

_log = logging.getLogger("didact")


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """When a run writes checkpoints, and which of them it keeps.

    One is written between two chunks of steps as soon as an interval has passed, and one at the
    end. It is copied at once, and written by a thread of its own while training goes on.

    **Arguments:** `seconds` and `steps` between two checkpoints, whichever come first (None: not
    by this); `keep`: so many of the newest stay; `keep_best`: beside these stays the one at the
    evaluation on the way that was best by this metric, in the mean over seeds (as "tv", "elbo").
    """

    seconds: float | None = 60.0
    steps: int | None = None
    keep: int = 2
    keep_best: str | None = None

    def __post_init__(self):
        require("seconds", self.seconds, at_least=0)
        require("steps", self.steps, at_least=1)
        require("keep", self.keep, at_least=1)
        known = (*_LOWER_IS_BETTER, *_HIGHER_IS_BETTER)
        if self.keep_best is not None and self.keep_best not in known:
            raise ValueError(
                f"keep_best must be one of {', '.join(known)}, got {self.keep_best!r}."
            )


class CheckpointWriter:
    """Writes the checkpoints of a run, `folder`/<step>.npz, while its training goes on.

    **Arguments:** `step` at which training begins; `before`: called before a checkpoint is written,
    by the thread that writes it: waits until what the checkpoint relies on is on the disk.

    **Errors:** what goes wrong while a checkpoint is written is raised by the next call of any
    method, or at the end of the `with`.
    """

    def __init__(
        self,
        folder: Path,
        policy: CheckpointPolicy,
        *,
        step: int,
        before: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._folder, self._policy, self._before, self._clock = folder, policy, before, clock
        self._saved_at, self._saved_step = clock(), step
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "didact-checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint at this step."""
        if self._pending is not None and self._pending.done():
            self.wait()
        seconds, steps = self._policy.seconds, self._policy.steps
        passed = self._clock() - self._saved_at
        by_steps = steps is not None and step // steps > self._saved_step // steps
        return by_steps or (seconds is not None and passed > seconds)

    def save(self, state: TrainState, *, best: int | None = None) -> None:
        """Copy a state, and begin to write it. The state may be used up afterwards.

        **Arguments:** `best`: the step of a checkpoint that stays beside the newest.
        """
        self.wait()
        content, step = _leaves(state), int(state.step)
        self._pending = self._pool.submit(self._write, step, content, best)
        self._saved_at, self._saved_step = self._clock(), step

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except OSError as failure:
            if error is None:
                raise
            if not isinstance(error, OSError):  # which says the same of the disk
                _log.warning("The last checkpoint was not written: %s", failure)
        finally:
            self._pool.shutdown()

    def _write(self, step: int, content: dict[str, np.ndarray], best: int | None) -> None:
        self._before()
        make_folder(self._folder)
        version = {"format_version": np.asarray(FORMAT_VERSION)}
        _write(self._folder / f"{step:09d}.npz", version | content)
        for old in checkpoints(self._folder)[: -self._policy.keep]:
            if int(old.stem) != best:
                old.unlink()


def best_step(rows: Iterable[Mapping[str, Any]], metric: str) -> int | None:
    """The step of the "evaluation" row that is best by a metric of `CheckpointPolicy.keep_best`, in
    the mean over seeds, and of equal ones the first; None where no row has it for each seed.
    """
    sign = 1 if metric in _LOWER_IS_BETTER else -1
    best, step = math.inf, None
    for row in rows:
        # The untrained Student at step 0 has no checkpoint.
        judged = row["kind"] == "evaluation" and row["step"] > 0
        values = row.get(metric) if judged else None
        if not values or not isinstance(values, list) or not all(map(_is_number, values)):
            continue
        value = sign * sum(values) / len(values)
        if value < best:
            best, step = value, row["step"]
    return step


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300


def load_state(folder: Path, like: TrainState, *, step: int | None = None) -> TrainState | None:
    """The newest readable checkpoint in a folder; None if there is none.

    **Arguments:** `like`: a state of the same experiment and seeds, or its shapes alone; `step`:
    that of the one to read (None: of the newest).

    **Errors:** `ValueError` if checkpoints are there and all of them are damaged, or if one is
    whole but of another experiment; `PermissionError`, `MemoryError`.
    """
    found = [path for path in checkpoints(folder) if step in (None, int(path.stem))]
    reason: Exception | None = None
    for path in reversed(found):
        try:
            state = _read_state(path, like)
        except _UNREADABLE as error:
            # A whole file that cannot be used is no reason to go back to an older one.
            if is_whole(path):
                if isinstance(error, PermissionError | MemoryError):
                    raise
                raise ValueError(
                    f"{path} does not fit this run ({in_short(error)}): use the configuration and "
                    "the version of didact that wrote it."
                ) from error
            reason = error
            continue
        if reason is not None:
            _log.warning("%s cannot be read: going on from %s.", found[-1], path.name)
        return state
    if reason is not None:
        raise ValueError(
            f"no checkpoint in {folder} can be read ({in_short(reason)}): restore one from a copy, "
            "or train into another folder."
        ) from reason
    return None


def set_aside_later(folder: Path, step: int) -> None:
    """Rename checkpoints beyond a step, which could not be read: they would count as the newest."""
    for path in checkpoints(folder):
        if int(path.stem) > step:
            path.replace(path.with_suffix(".damaged"))


def is_whole(path: Path) -> bool:
    """Whether a file is as it was written, by its own checksums; true where that is secret."""
    try:
        with open_to_read(path) as file:
            Archive(file).check()
        return True
    except PermissionError:
        return True
    except _UNREADABLE:
        return False


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("*.npz") if _is_step(path.stem))


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def save_sampler(path: str | Path, sampler: Sampler, **facts: str | int) -> None:
    """Write a trained sampler: a NumPy archive that holds its configuration and its arrays.

    **Arguments:** `facts` are kept in the file's header beside the configuration.
    """
    write_archive(Path(path), "sampler", describe_sampler(sampler) | facts, sampler_arrays(sampler))


def load_sampler(path: str | Path, *, given: Mapping[str, Any] | None = None) -> Sampler:
    """Read a sampler that `save_sampler` wrote. Executes nothing from the file.

    **Arguments:** `given`: what the file can only name, such as a class of environments of
    your own ({"module:name": class}).

    **Errors:** `ValueError` naming the file if it is not one or is damaged.
    """
    with read_archive(Path(path), "sampler") as (header, arrays):
        return build_sampler(header, arrays, given)


def describe_sampler(sampler: Sampler) -> dict[str, Any]:
    """The configuration of a sampler as JSON values: all of it but its arrays."""
    policy = sampler.policy
    if not isinstance(policy, Network):
        raise ValueError(f"a sampler with a {type(policy).__name__} cannot be saved yet.")
    return {
        "environment": to_json(sampler.environment),
        "network": to_json(policy.config),
        "backward_head": policy.heads.backward > 0,
        "flow_head": policy.heads.flow > 0,
        "backward_scoring": to_json(sampler.backward_scoring),
        "guide": to_json(sampler.guide),
    }


def sampler_arrays(sampler: Sampler, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a sampler by the names that they have in an archive."""
    leaves = jax.tree.leaves(eqx.filter(sampler, eqx.is_array))
    return {f"{prefix}array_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


def build_sampler(
    header: Mapping[str, Any],
    archive: Archive,
    given: Mapping[str, Any] | None = None,
    prefix: str = "",
) -> Sampler:
    """The inverse of `describe_sampler` and `sampler_arrays`.

    The network is built without its numbers, whose sizes are compared with what the archive holds
    before they are read: a configuration alone takes no memory.

    **Errors:** `ValueError` for arrays that do not fit the configuration.
    """
    like = eqx.filter_eval_shape(lambda: _build(header, given))
    arrays, rest = eqx.partition(like, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    leaves, structure = jax.tree.flatten(arrays)
    names = [f"{prefix}array_{i}" for i in range(len(leaves))]
    for name, want in zip(names, leaves, strict=True):
        have = archive.header(name)
        if have.shape != want.shape or have.dtype != want.dtype:
            raise ValueError("its arrays do not fit its configuration")
    read = [jnp.asarray(archive[name]) for name in names]
    return eqx.combine(jax.tree.unflatten(structure, read), rest)


def write_archive(
    path: Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a header and arrays as a file of a kind."""
    header = {"format_version": FORMAT_VERSION, "kind": kind} | dict(header)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    _write(path, {"header": text} | dict(arrays))


@contextlib.contextmanager
def read_archive(path: Path, kind: str) -> Iterator[tuple[dict[str, Any], Archive]]:
    """The header and the arrays of a file of a kind. What goes wrong while they are read becomes a
    `ValueError` that names the file.
    """
    try:
        with open_to_read(path) as file:
            archive = Archive(file)
            if archive.header("header").shape > (MAX_BYTES,):
                raise ValueError("its configuration is too long")
            header = parse(archive["header"].tobytes())
            if header["kind"] != kind or header["format_version"] != FORMAT_VERSION:
                raise ValueError("it is of another kind, or another version of didact wrote it")
            yield header, archive
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as a {kind} ({in_short(error)}): restore it, or save it anew."
        ) from error


def _build(header: Mapping[str, Any], given: Mapping[str, Any] | None) -> Sampler:
    environment = from_json(header["environment"], given)
    policy = from_json(header["network"], given).build(
        environment,
        flow_head=header["flow_head"],
        backward_head=header["backward_head"],
        key=jax.random.key(0),
    )
    scoring = from_json(header["backward_scoring"], given)
    guide = from_json(header.get("guide"), given)
    return Sampler(environment, policy, jnp.zeros(()), scoring, guide)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with write_whole(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _read_state(path: Path, like: TrainState) -> TrainState:
    """Read a checkpoint; the archive's checksums tell damaged arrays.

    **Arguments:** `like`: a state, or its shapes alone.
    """
    with open_to_read(path) as file:
        archive = Archive(file)
        if archive["format_version"] != FORMAT_VERSION:
            raise ValueError("another version of didact wrote it")
        leaves: dict[str, np.ndarray] = {}
        wanted = _shapes(like)
        for name, want in wanted.items():
            if name in _ADDED and name not in archive:
                leaves[name] = np.zeros(want.shape, want.dtype)
                continue
            have = archive.header(name)
            if (have.shape, have.dtype) != (want.shape, want.dtype):
                raise ValueError(f"{name} does not fit the experiment")
        # Nothing is read before everything fits.
        return _with_leaves(like, leaves | {n: archive[n] for n in wanted if n not in leaves})


def _shapes(like: TrainState) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what `_leaves` holds."""
    named, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(like, _has_shape))
    return {jax.tree_util.keystr(path): jax.eval_shape(_words, leaf) for path, leaf in named}


def _leaves(state: TrainState) -> dict[str, np.ndarray]:
    """Copies of the arrays of a state by name; keys as the words they consist of."""
    named, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(state, eqx.is_array))
    return {jax.tree_util.keystr(path): np.array(_words(leaf)) for path, leaf in named}


def _with_leaves(like: TrainState, leaves: dict[str, np.ndarray]) -> TrainState:
    arrays, rest = eqx.partition(like, _has_shape)
    named, structure = jax.tree_util.tree_flatten_with_path(arrays)
    restored = []
    for path, leaf in named:
        value = jnp.asarray(leaves[jax.tree_util.keystr(path)])
        restored.append(jax.random.wrap_key_data(value) if _is_key(leaf) else value)
    return eqx.combine(jax.tree.unflatten(structure, restored), rest)


def _has_shape(leaf: PyTree) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _is_key(leaf: PyTree) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _words(leaf: PyTree) -> PyTree:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


__all__ = [
    "CheckpointPolicy",
    "CheckpointWriter",
    "checkpoints",
    "load_sampler",
    "load_state",
    "save_sampler",
]
